use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Result;
use tower::ServiceExt as _;

use super::*;

/// A server that counts what it makes; `/fails` and `/breaks` fail the first time, without having begun and in the middle.
fn server(made: &Arc<AtomicUsize>) -> Router {
    server_with(IdempotencyKeys::default(), made)
}

fn server_with(keys: IdempotencyKeys, made: &Arc<AtomicUsize>) -> Router {
    let make = |made: Arc<AtomicUsize>| async move {
        // Others get their turn before there is an answer.
        tokio::task::yield_now().await;
        (StatusCode::CREATED, format!("made {}", made.fetch_add(1, Ordering::SeqCst) + 1))
    };
    let fail = |made: Arc<AtomicUsize>| async move {
        if made.fetch_add(1, Ordering::SeqCst) == 0 {
            ApiError::new(Code::Unreachable, "closed").into_response()
        } else {
            StatusCode::OK.into_response()
        }
    };
    let break_down = |made: Arc<AtomicUsize>| async move {
        if made.fetch_add(1, Ordering::SeqCst) == 0 {
            ApiError::new(Code::ConnectionLost, "broken").into_response()
        } else {
            panic!("twice")
        }
    };
    let (first, second, third) = (made.clone(), made.clone(), made.clone());
    Router::new()
        .route("/makes", post(move |_: Bytes| make(first.clone())))
        .route("/fails", post(move |_: Bytes| fail(second.clone())))
        .route("/breaks", post(move |_: Bytes| break_down(third.clone())))
        .layer(axum::middleware::from_fn(move |request: Request, next: Next| {
            let keys = keys.clone();
            async move {
                let caller = request.headers().get("x-api-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
                run_once(&keys, &caller, request, next).await.unwrap_or_else(ApiError::into_response)
            }
        }))
}

async fn send(server: &Router, path: &str, caller: &str, key: &str, body: &str) -> (u16, String, bool) {
    let request = Request::post(path).header("x-api-key", caller).header(HEADER, key).body(Body::from(body.to_owned())).unwrap();
    let response = server.clone().oneshot(request).await.unwrap();
    let (status, is_replayed) = (response.status().as_u16(), response.headers().contains_key(REPLAYED));
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap(), is_replayed)
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_same_answer_and_happens_once() {
    let made = Arc::default();
    let server = server(&made);
    assert_eq!(send(&server, "/makes", "a", "k1", "{}").await, (201, "made 1".into(), false));
    assert_eq!(send(&server, "/makes", "a", "k1", "{}").await, (201, "made 1".into(), true));
    assert_eq!(send(&server, "/makes", "a", "k2", "{}").await, (201, "made 2".into(), false), "another key");
    assert_eq!(send(&server, "/makes", "b", "k1", "{}").await, (201, "made 3".into(), false), "another caller");
}

#[tokio::test]
async fn a_key_of_another_request_is_a_conflict() {
    let made = Arc::default();
    let server = server(&made);
    send(&server, "/makes", "a", "k1", "{}").await;
    for (path, body) in [("/makes", "{\"a\":1}"), ("/makes?force=true", "{}")] {
        let (status, text, _) = send(&server, path, "a", "k1", body).await;
        assert!(status == 409 && text.contains("IDEMPOTENCY_CONFLICT") && text.contains(HEADER), "{text}");
    }
    assert_eq!(made.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn requests_at_once_happen_once() {
    let made = Arc::default();
    let server = server(&made);
    let answers = futures::future::join_all((0..20).map(|_| send(&server, "/makes", "a", "k1", "{}"))).await;
    assert!(answers.iter().all(|(status, text, _)| *status == 201 && text == "made 1"), "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, _, is_replayed)| !is_replayed).count(), 1);
}

#[tokio::test]
async fn failures_of_the_server_can_be_tried_again() {
    let made = Arc::default();
    let server = server(&made);
    assert_eq!(send(&server, "/fails", "a", "k1", "").await.0, 502);
    assert_eq!(send(&server, "/fails", "a", "k1", "").await, (200, String::new(), false));
    assert_eq!(send(&server, "/fails", "a", "k1", "").await, (200, String::new(), true));
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let made = Arc::default();
    let server = server(&made);
    let (status, text, _) = send(&server, "/breaks", "a", "k1", "").await;
    assert!(status == 502 && text.contains("CONNECTION_LOST"), "{text}");
    let (status, text, is_replayed) = send(&server, "/breaks", "a", "k1", "").await;
    assert!(status == 503 && is_replayed && text.contains("is not known") && text.contains("CONNECTION_LOST"), "{text}");
    // A handler that panics has come to no known end either.
    assert_eq!(send(&server, "/breaks", "a", "k2", "").await.0, 500);
    assert_eq!(send(&server, "/breaks", "a", "k2", "").await.0, 503);
    assert_eq!(made.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_client_that_goes_away_finds_the_answer_later() {
    let made: Arc<AtomicUsize> = Arc::default();
    let server = server(&made);
    // Polled until the handler waits, then dropped as with a closed connection.
    let mut gone = Box::pin(send(&server, "/makes", "a", "k1", "{}"));
    assert!(futures::poll!(&mut gone).is_pending());
    drop(gone);
    assert_eq!(send(&server, "/makes", "a", "k1", "{}").await, (201, "made 1".into(), true));
}

#[tokio::test]
async fn keys_are_short_and_not_empty() {
    let made = Arc::default();
    let server = server(&made);
    for key in ["", "x".repeat(LONGEST_KEY + 1).as_str()] {
        let (status, text, _) = send(&server, "/makes", "a", key, "{}").await;
        assert!(status == 400 && text.contains(HEADER), "{text}");
    }
    assert_eq!(send(&server, "/makes", "a", &"x".repeat(LONGEST_KEY), "{}").await.0, 201);
}

#[test]
fn the_oldest_answers_make_room_and_requests_under_way_stay() {
    let start = Instant::now();
    let entry = |age: u64, size: Option<usize>| {
        let answer = size.map(|size| Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: vec![0; size].into() });
        Entry { request: [0; 32], answer: watch::channel(answer).1, since: start + Duration::from_secs(100 - age) }
    };
    let mut entries: HashMap<Digest, Entry> =
        [([1; 32], entry(9, None)), ([2; 32], entry(8, Some(10))), ([3; 32], entry(7, Some(10))), ([4; 32], entry(6, Some(10)))].into();
    let left = |entries: &HashMap<Digest, Entry>| {
        let mut left: Vec<u8> = entries.keys().map(|key| key[0]).collect();
        left.sort_unstable();
        left
    };
    make_room(&mut entries, 3, 100);
    assert_eq!(left(&entries), [1, 3, 4], "too many");
    make_room(&mut entries, 3, 10);
    assert_eq!(left(&entries), [1, 4], "too large");
}

/// What servers of a cluster share, in memory.
#[derive(Default)]
struct Shared(Mutex<HashMap<String, Vec<u8>>>);

impl SharedAnswers for Shared {
    fn claim<'a>(&'a self, key: &'a str, _: &'a [u8; 32], value: Vec<u8>) -> BoxFuture<'a, Result<bool>> {
        let mut kept = self.0.lock().unwrap();
        let is_free = !kept.contains_key(key);
        kept.entry(key.to_owned()).or_insert(value);
        async move { Ok(is_free) }.boxed()
    }

    fn read<'a>(&'a self, key: &'a str, _: &'a [u8; 32]) -> BoxFuture<'a, Result<Option<Vec<u8>>>> {
        let found = self.0.lock().unwrap().get(key).cloned();
        async move { Ok(found) }.boxed()
    }

    fn write<'a>(&'a self, key: &'a str, _: &'a [u8; 32], value: Vec<u8>) -> BoxFuture<'a, Result<()>> {
        self.0.lock().unwrap().insert(key.to_owned(), value);
        async move { Ok(()) }.boxed()
    }

    fn forget<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.0.lock().unwrap().remove(key);
        async move { Ok(()) }.boxed()
    }
}

#[tokio::test]
async fn servers_of_a_cluster_answer_for_each_other() {
    let made = Arc::default();
    let shared = Arc::new(Shared::default());
    let servers = [0, 1].map(|_| server_with(IdempotencyKeys::shared(shared.clone()), &made));
    let at_once = futures::future::join_all((0..20).map(|at| send(&servers[at % 2], "/makes", "a", "k1", "{}"))).await;
    assert!(at_once.iter().all(|(status, text, _)| *status == 201 && text == "made 1"), "{at_once:?}");
    assert_eq!(send(&servers[1], "/makes", "b", "k1", "{}").await.1, "made 2", "another caller");
    assert_eq!(send(&servers[0], "/makes", "a", "k1", "{\"a\":1}").await.0, 409);
    // A failure of one server is tried again by the other.
    let made = Arc::default();
    let servers = [0, 1].map(|_| server_with(IdempotencyKeys::shared(shared.clone()), &made));
    assert_eq!(send(&servers[0], "/fails", "a", "k1", "").await.0, 502);
    assert_eq!(send(&servers[1], "/fails", "a", "k1", "").await, (200, String::new(), false));
    assert_eq!(send(&servers[0], "/fails", "a", "k1", "").await, (200, String::new(), true));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_began_and_never_answered_is_not_done_again() {
    let made: Arc<AtomicUsize> = Arc::default();
    let shared = Arc::new(Shared::default());
    let first = server_with(IdempotencyKeys::shared(shared.clone()), &made);
    send(&first, "/makes", "a", "k1", "{}").await;
    // As a server leaves it that dies before it answers.
    for value in shared.0.lock().unwrap().values_mut() {
        let mut kept: serde_json::Value = serde_json::from_slice(value).unwrap();
        kept["answer"] = serde_json::Value::Null;
        *value = serde_json::to_vec(&kept).unwrap();
    }
    let second = server_with(IdempotencyKeys::shared(shared), &made);
    let (status, text, _) = send(&second, "/makes", "a", "k1", "{}").await;
    assert!(status == 503 && text.contains("look whether it was done"), "{text}");
    assert_eq!(made.load(Ordering::SeqCst), 1);
}
