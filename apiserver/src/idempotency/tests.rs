use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::post;
use tower::ServiceExt as _;

use super::*;

/// A server that counts what it makes; `/fails` fails the first time.
fn server(made: &Arc<AtomicUsize>) -> Router {
    let keys = IdempotencyKeys::default();
    let make = |made: Arc<AtomicUsize>| async move {
        // Others get their turn before there is an answer.
        tokio::task::yield_now().await;
        (StatusCode::CREATED, format!("made {}", made.fetch_add(1, Ordering::SeqCst) + 1))
    };
    let fail = |made: Arc<AtomicUsize>| async move {
        if made.fetch_add(1, Ordering::SeqCst) == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
    };
    let (first, second) = (made.clone(), made.clone());
    Router::new()
        .route("/makes", post(move |_: Bytes| make(first.clone())))
        .route("/fails", post(move |_: Bytes| fail(second.clone())))
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
