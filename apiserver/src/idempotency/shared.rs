//! Answers that all servers of a cluster find.
//!
//! ```text
//!  claim the key ─ done ──▶ run the handler ─▶ write the answer over the claim
//!      └─ another server has it ──▶ read until there is an answer ─▶ the same answer
//! ```
//!
//! A server that dies between claim and answer leaves a claim without an answer. Nobody can know whether the request was done, so it is never run again: clients
//! are told so until the claim ages out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use futures::future::BoxFuture;
use millrace_core::Result;
use serde::{Deserialize, Serialize};

use super::{Answer, Digest};
use tokio::time::Instant;

/// How long a server waits for another one's answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);

/// Where servers of a cluster keep answers for each other, for [`super::KEPT_FOR`]. Values are sealed with a secret of the request's own.
///
/// Contract: of two claims of one key at most one is granted, whichever servers they come from.
pub trait SharedAnswers: Send + Sync {
    /// Keeps a value under a key that has none; answers whether it was kept.
    fn claim<'a>(&'a self, key: &'a str, secret: &'a [u8; 32], value: Vec<u8>) -> BoxFuture<'a, Result<bool>>;

    /// The value of a key.
    fn read<'a>(&'a self, key: &'a str, secret: &'a [u8; 32]) -> BoxFuture<'a, Result<Option<Vec<u8>>>>;

    /// Replaces the value of a key.
    fn write<'a>(&'a self, key: &'a str, secret: &'a [u8; 32], value: Vec<u8>) -> BoxFuture<'a, Result<()>>;

    /// Removes a key.
    fn forget<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// A request's place among the shared answers.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) answers: Arc<dyn SharedAnswers>,
    pub(super) key: String,
    pub(super) secret: [u8; 32],
    pub(super) request: Digest,
}

/// What stands under a key.
#[derive(Serialize, Deserialize)]
struct Kept {
    request: Digest,
    answer: Option<KeptAnswer>,
}

#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// What another server has to say of a request.
pub(super) enum Found {
    /// Nothing; it is ours to run.
    Claimed,
    /// It was answered.
    Answered(Answer),
    /// The key belongs to another request.
    Other,
    /// It was begun, and no answer came.
    Unknown,
}

impl Slot {
    /// Claims the request, or finds its answer.
    pub(super) async fn claim(&self) -> Result<Found> {
        let claim = self.encode(None);
        let end = Instant::now() + PATIENCE;
        loop {
            if self.answers.claim(&self.key, &self.secret, claim.clone()).await? {
                return Ok(Found::Claimed);
            }
            let kept = self.answers.read(&self.key, &self.secret).await?;
            // Without a value the first try failed meanwhile, and the key is free again.
            match kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok()) {
                Some(kept) if kept.request != self.request => return Ok(Found::Other),
                Some(Kept { answer: Some(answer), .. }) => return Ok(Found::Answered(answer.into())),
                _ if Instant::now() > end => return Ok(Found::Unknown),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Keeps the answer, or frees the key if there is none to keep.
    pub(super) async fn settle(&self, answer: Option<&Answer>) {
        let done = match answer {
            Some(answer) => self.answers.write(&self.key, &self.secret, self.encode(Some(answer))).await,
            None => self.answers.forget(&self.key).await,
        };
        if let Err(error) = done {
            tracing::warn!(error = %error.chain(), "an answer could not be kept for requests that are sent again");
        }
    }

    fn encode(&self, answer: Option<&Answer>) -> Vec<u8> {
        let kept = Kept { request: self.request, answer: answer.map(Into::into) };
        // Numbers, texts and lists always have a JSON form.
        serde_json::to_vec(&kept).unwrap_or_default()
    }
}

impl From<&Answer> for KeptAnswer {
    fn from(answer: &Answer) -> Self {
        let headers = answer.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        Self { status: answer.status.as_u16(), headers: headers.collect(), body: answer.body.to_vec() }
    }
}

impl From<KeptAnswer> for Answer {
    fn from(kept: KeptAnswer) -> Self {
        let header = |(name, value): (String, Vec<u8>)| -> Option<(HeaderName, HeaderValue)> {
            Some((name.parse().ok()?, HeaderValue::from_bytes(&value).ok()?))
        };
        Self {
            status: StatusCode::from_u16(kept.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            headers: kept.headers.into_iter().filter_map(header).collect::<HeaderMap>(),
            body: Bytes::from(kept.body),
        }
    }
}
