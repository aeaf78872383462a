//! What clients do after a broken connection: requests that are sent again, and event streams that go on.

use futures::StreamExt as _;
use millrace_apiserver::SharedAnswers as _;
use millrace_bus::{Nats, NatsConfig, Remembered};
use millrace_cluster::ClusterAnswers;
use millrace_tests::servers::start_nats;
use millrace_tests::suites::rest::resend;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LONG, Server};

#[tokio::test]
async fn creations_and_starts_that_are_sent_again_happen_once() {
    resend::creations_and_starts_that_are_sent_again_happen_once(&*Server::start().await).await;
}

#[tokio::test]
async fn servers_of_a_cluster_find_each_others_answers_sealed() {
    let nats = tokio::task::spawn_blocking(start_nats).await.unwrap().unwrap();
    let connect = async || {
        let config = NatsConfig { url: format!("nats://127.0.0.1:{}", nats.port), token: None, namespace: "it".into() };
        ClusterAnswers::new(Nats::connect(&config, "test").await.unwrap())
    };
    let (first, second) = (connect().await, connect().await);
    let secret = [7; 32];
    until(async || first.claim("k1", &secret, b"begun".to_vec()).await.is_ok_and(|claimed| claimed)).await;
    until(async || second.read("k1", &secret).await.is_ok()).await;
    assert!(!second.claim("k1", &secret, b"mine".to_vec()).await.unwrap());
    assert_eq!(second.read("k1", &secret).await.unwrap().unwrap(), b"begun");
    first.write("k1", &secret, b"done".to_vec()).await.unwrap();
    assert_eq!(second.read("k1", &secret).await.unwrap().unwrap(), b"done");
    assert!(second.read("k1", &[8; 32]).await.is_err(), "another secret opens nothing");
    first.forget("k1").await.unwrap();
    assert_eq!(second.read("k1", &secret).await.unwrap(), None);
    assert!(second.claim("k1", &secret, b"again".to_vec()).await.unwrap(), "a key that was freed can be claimed");
}

/// Asks again until it is so: a client connects anew when it likes.
async fn until(is_so: impl AsyncFn() -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !is_so().await {
        assert!(std::time::Instant::now() < end, "it never is");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_servers_share_only_rise_and_buckets_that_are_lost_are_made_again() {
    let nats = tokio::task::spawn_blocking(start_nats).await.unwrap().unwrap();
    let connect = async || {
        let config = NatsConfig { url: format!("nats://127.0.0.1:{}", nats.port), token: None, namespace: "it".into() };
        let nats = Nats::connect(&config, "test").await.unwrap();
        nats.connected(LONG).await;
        Remembered::new(nats, "numbers", LONG)
    };
    let (first, second) = (connect().await, connect().await);
    assert_eq!(second.number("n").await.unwrap(), 0);
    // In whatever order they come, the highest one stays.
    let raise = async |store: &Remembered, numbers: [u64; 4]| {
        for number in numbers {
            store.raise("n", number).await.unwrap();
            assert!(second.number("n").await.unwrap() >= number);
        }
    };
    tokio::join!(raise(&first, [3, 9, 1, 7]), raise(&second, [8, 2, 4, 5]));
    assert_eq!(second.number("n").await.unwrap(), 9);
    second.remove("n").await.unwrap();
    assert_eq!(first.number("n").await.unwrap(), 0);
    first.raise("n", 2).await.unwrap();
    assert_eq!(second.number("n").await.unwrap(), 2);

    tokio::task::block_in_place(|| nats.begin_anew().unwrap());
    until(async || first.raise("n", 5).await.is_ok()).await;
    until(async || second.number("n").await.is_ok()).await;
    assert_eq!(second.number("n").await.unwrap(), 5);
}

/// The first event of a stream that holds data: its id, its name, its data.
async fn first_event(server: &Server, last_seen: Option<&str>, then: impl Future<Output = ()>) -> (Option<String>, String, Value) {
    let mut request = reqwest::Client::new().get(format!("{}/api/v1/logs/stream", server.api.base));
    if let Some(id) = last_seen {
        request = request.header("Last-Event-ID", id);
    }
    let mut bytes = request.send().await.unwrap().error_for_status().unwrap().bytes_stream();
    then.await;
    let mut text = String::new();
    while !text.contains("\n\n") {
        let more = tokio::time::timeout(LONG, bytes.next()).await.unwrap().unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&more));
    }
    let field =
        |name: &str| text.split("\n\n").next()?.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
    (field("id"), field("event").unwrap(), serde_json::from_str(&field("data").unwrap()).unwrap())
}

#[tokio::test]
async fn an_event_stream_goes_on_behind_the_last_record_that_was_seen() {
    let server = Server::start().await;
    let logging = json!({"sqlCaptureMode": "verbose", "forwardSQLLogs": true});
    assert_eq!(server.api.call(Method::PUT, "/system/sql-logging", Some(logging)).await.unwrap().status, 200);
    let run = async |sql: &str| {
        let answer = server.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let (id, name, record) = first_event(&server, None, run("SELECT 1 AS first")).await;
    assert_eq!((name.as_str(), &record["query"]), ("sql", &json!("SELECT 1 AS first")));
    run("SELECT 2 AS second").await;
    let (next, _, record) = first_event(&server, id.as_deref(), async {}).await;
    assert_eq!(record["query"], "SELECT 2 AS second", "what was said in between comes first");
    assert_ne!(next, id);
    let (none, name, told) = first_event(&server, Some("0000000000000000-0"), async {}).await;
    assert_eq!((none, name.as_str(), &told["level"]), (None, "log", &json!("warn")), "{told}");
}
