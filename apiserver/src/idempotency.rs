//! `Idempotency-Key`: a creation or a start that is sent again, because its answer got lost, happens once.
//!
//! ```text
//!  request with a key ─▶ seen? ─ no ──▶ run the handler in a task of its own ─▶ keep the answer ─▶ answer
//!                          ├─ same request ──▶ wait for that task's answer ─▶ the same answer, `Idempotency-Replayed: true`
//!                          └─ other request ─▶ 409 `IDEMPOTENCY_CONFLICT`
//! ```
//!
//! Answers stay for [`KEPT_FOR`] in the memory of one process; servers of a cluster keep them for each other too ([`SharedAnswers`]), because a promise that
//! holds only if the client happens to reach the same server again is none. A failure that certainly changed nothing is not kept, so that it can be tried again; one that
//! may have happened all the same is, so that it is not.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::whole;
use crate::guard;
use crate::state::AppState;

pub use shared::SharedAnswers;
use shared::{Found, Slot};

/// The request header, as the OpenAPI document and errors name it.
pub(crate) const HEADER: &str = "Idempotency-Key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long an answer is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// Answers at once; the oldest goes first.
const MOST: usize = 10_000;
/// Bytes of all kept bodies; the oldest answer goes first.
const MOST_BYTES: usize = 32 << 20;
/// The longest key, bytes.
const LONGEST_KEY: usize = 255;

type Digest = [u8; 32];

/// An answer as it is kept.
#[derive(Clone)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

struct Entry {
    /// Of the request's query and body.
    request: Digest,
    answer: watch::Receiver<Option<Answer>>,
    since: Instant,
}

impl Entry {
    /// Bytes of the kept body; `None` while there is no answer.
    fn size(&self) -> Option<usize> {
        self.answer.borrow().as_ref().map(|answer| answer.body.len())
    }
}

/// What was answered to requests with a key; cheap to clone.
#[derive(Clone, Default)]
pub struct IdempotencyKeys {
    own: Arc<Mutex<HashMap<Digest, Entry>>>,
    shared: Option<Arc<dyn SharedAnswers>>,
}

/// What to do with a request.
enum Turn {
    /// It is the first with its key.
    First(watch::Sender<Option<Answer>>),
    /// It was sent before.
    Again(watch::Receiver<Option<Answer>>),
    /// Its key belongs to another request.
    Other,
}

impl IdempotencyKeys {
    /// Answers that other servers find too.
    pub fn shared(answers: Arc<dyn SharedAnswers>) -> Self {
        Self { shared: Some(answers), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        // Whole after every statement.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, key: Digest, request: Digest) -> Turn {
        let mut entries = self.lock();
        entries.retain(|_, entry| entry.since.elapsed() < KEPT_FOR);
        if let Some(entry) = entries.get(&key) {
            return if entry.request == request { Turn::Again(entry.answer.clone()) } else { Turn::Other };
        }
        let (sender, answer) = watch::channel(None);
        entries.insert(key, Entry { request, answer, since: Instant::now() });
        make_room(&mut entries, MOST, MOST_BYTES);
        Turn::First(sender)
    }

    fn forget(&self, key: &Digest) {
        self.lock().remove(key);
    }
}

/// Drops the oldest answers until the rest fits; requests under way stay, because dropping them would let them happen twice.
fn make_room(entries: &mut HashMap<Digest, Entry>, most: usize, most_bytes: usize) {
    let mut bytes: usize = entries.values().filter_map(Entry::size).sum();
    if entries.len() <= most && bytes <= most_bytes {
        return;
    }
    let mut answered: Vec<(Instant, Digest, usize)> =
        entries.iter().filter_map(|(key, entry)| Some((entry.since, *key, entry.size()?))).collect();
    answered.sort_unstable();
    for (_, key, size) in answered {
        if entries.len() <= most && bytes <= most_bytes {
            return;
        }
        entries.remove(&key);
        bytes -= size;
    }
}

/// Lets a request with a key happen once. It stands behind the checks of the caller's own key, so that nobody is shown an answer without them.
pub(crate) async fn once(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    let caller = guard::shown_key(&state, request.headers()).await;
    run_once(&state.idempotency, caller.expose(), request, next).await.unwrap_or_else(ApiError::into_response)
}

async fn run_once(keys: &IdempotencyKeys, caller: &str, request: Request, next: Next) -> ApiResult<Response> {
    let sent = sent_key(request.headers())?;
    let (parts, body) = request.into_parts();
    let body = whole(body).await?;
    let key = digest(&[caller.as_bytes(), parts.method.as_str().as_bytes(), parts.uri.path().as_bytes(), sent.as_bytes()]);
    let asked = digest(&[parts.uri.query().unwrap_or_default().as_bytes(), &body]);
    match keys.turn(key, asked) {
        Turn::Other => Err(other()),
        Turn::Again(mut answer) => match answer.wait_for(Option::is_some).await {
            Ok(answer) => Ok(answer.as_ref().map_or_else(interrupted, |answer| replay(answer.clone()))),
            Err(_) => Ok(interrupted()),
        },
        Turn::First(sender) => {
            let slot = keys.shared.clone().map(|answers| Slot {
                answers,
                key: hex(&digest(&[b"key", &key])),
                secret: digest(&[b"secret", caller.as_bytes(), sent.as_bytes()]),
                request: asked,
            });
            let request = Request::from_parts(parts, Body::from(body));
            let keys = keys.clone();
            // The client may go away; what it asked for is done to its end, and its next attempt finds the answer.
            let task = tokio::spawn(async move {
                let mut under_way = UnderWay { keys, key, is_kept: false };
                if let Some(slot) = &slot {
                    match slot.claim().await.map_err(|error| ApiError::new(Code::Unavailable, error.message()).detail("field", HEADER))? {
                        Found::Claimed => {}
                        Found::Other => return Err(other()),
                        Found::Unknown => return Ok(unknown()),
                        Found::Answered(answer) => {
                            under_way.is_kept = sender.send(Some(answer.clone())).is_ok();
                            return Ok(replay(answer));
                        }
                    }
                }
                // A handler that panics has come to no known end either.
                let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
                    Ok(response) => response,
                    Err(_) => ApiError::new(Code::Internal, "the request failed inside the server").into_response(),
                };
                under_way.keep(sender, response, slot.as_ref()).await
            });
            task.await.map_err(|_| ApiError::new(Code::Internal, "the request failed inside the server"))?
        }
    }
}

/// Forgets a key whose request came to no answer, however that happened.
struct UnderWay {
    keys: IdempotencyKeys,
    key: Digest,
    is_kept: bool,
}

impl UnderWay {
    async fn keep(&mut self, sender: watch::Sender<Option<Answer>>, response: Response, slot: Option<&Slot>) -> ApiResult<Response> {
        if response.status().is_server_error() {
            let code = response.extensions().get::<Code>().copied();
            let kept = (!code.is_some_and(is_undone)).then(|| lost(code));
            if let Some(slot) = slot {
                slot.settle(kept.as_ref()).await;
            }
            self.is_kept = kept.is_some_and(|answer| sender.send(Some(answer)).is_ok());
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .map_err(|_| ApiError::new(Code::Internal, "the request's answer broke inside the server"))?;
        let answer = Answer { status: parts.status, headers: parts.headers.clone(), body: body.clone() };
        if let Some(slot) = slot {
            slot.settle(Some(&answer)).await;
        }
        self.is_kept = sender.send(Some(answer)).is_ok();
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.is_kept {
            self.keys.forget(&self.key);
        }
    }
}

fn replay(answer: Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn other() -> ApiError {
    let text = format!("`{HEADER}` was sent before with another request; a new request needs a new key");
    ApiError::new(Code::IdempotencyConflict, text).detail("field", HEADER)
}

/// Whether a request that failed so has certainly changed nothing: it never got to its database, or its transaction was rolled back.
fn is_undone(code: Code) -> bool {
    matches!(code, Code::Unreachable | Code::Exhausted | Code::Contention | Code::Unavailable | Code::EntitlementUnavailable)
}

/// What is answered to a request that is sent again after nobody knows whether it was done: a commit whose answer is lost may have happened.
fn lost(code: Option<Code>) -> Answer {
    let text = "the first request with this key failed, and whether it was done is not known; look before you send it with a new key";
    let error = ApiError::new(Code::Unavailable, text).detail("field", HEADER);
    let error = code.into_iter().fold(error, |error, code| error.detail("code", code.as_str()));
    let (status, body) = error.into_parts();
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    Answer { status, headers, body: serde_json::to_vec(&body).unwrap_or_default().into() }
}

fn unknown() -> Response {
    let text = "the first request with this key was begun by another server, which has not answered; look whether it was done before you send it with a new key";
    ApiError::new(Code::Unavailable, text).detail("field", HEADER).into_response()
}

fn interrupted() -> Response {
    ApiError::new(Code::Unavailable, "the first request with this key failed; send it again").into_response()
}

fn sent_key(headers: &HeaderMap) -> ApiResult<String> {
    let mut sent = headers.get_all(HEADER).iter();
    let (first, second) = (sent.next().and_then(|value| value.to_str().ok()), sent.next());
    match first {
        Some(key) if second.is_none() && (1..=LONGEST_KEY).contains(&key.len()) => Ok(key.to_owned()),
        _ => Err(ApiError::invalid(HEADER, format!("a key is one text of 1 to {LONGEST_KEY} visible characters"))),
    }
}

fn hex(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of parts that cannot run into each other.
fn digest(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

mod shared;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
