//! What clients do after a broken connection: requests that are sent again, and event streams that go on.

use futures::StreamExt as _;
use millrace_tests::api::connection;
use millrace_tests::dataset::products;
use millrace_tests::servers::shared;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

const KEY: &str = "Idempotency-Key";

#[tokio::test]
async fn creations_and_starts_that_are_sent_again_happen_once() {
    let server = Server::start().await;
    let send =
        async |path: &str, body: Value, key: &str| server.api.call_with(Method::POST, path, Some(body), &[(KEY, key)]).await.unwrap();
    let body = connection("once", "mysql", &shared().await.mysql, "mysql");
    let first = send("/connections", body.clone(), "k1").await;
    let again = send("/connections", body.clone(), "k1").await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.status, 201);
    assert_eq!(server.api.get("/connections").await.unwrap().body["total"], 1);
    let other = send("/connections", connection("twice", "mysql", &shared().await.mysql, "mysql"), "k1").await;
    assert_eq!((other.status, other.body["code"].as_str()), (409, Some("IDEMPOTENCY_CONFLICT")), "{other:?}");
    assert_eq!(other.body["details"]["field"], KEY);

    let source = source("resend", &products(10)).await;
    let (config, _) = server.config(&source).await;
    let start = format!("/stream-configs/{config}/start");
    let started = send(&start, Value::Null, "k1").await;
    assert_eq!(started.status, 200, "keys are per path: {started:?}");
    server.api.wait_for_end(&started.text("id").unwrap(), LONG).await.unwrap();
    assert_eq!(send(&start, Value::Null, "k1").await.body, started.body);
    let runs = server.api.get(&format!("/stream-configs/{config}/runs")).await.unwrap().body;
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs}");
    let mut bare = server.api.clone();
    bare.key = None;
    let refused = bare.call_with(Method::POST, &start, Some(Value::Null), &[(KEY, "k1")]).await.unwrap();
    assert_eq!(
        (refused.status, refused.body["code"].as_str()),
        (401, Some("AUTHENTICATION_FAILED")),
        "answers are shown to their callers only"
    );
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
