//! Who may do what, and what is kept of it.

use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Mode, Place, source};
use crate::api::Response;
use crate::database::PgDatabase;
use crate::dataset::products;
use crate::servers::shared;

const NOBODY: &str = "/streams/stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/stop";

fn code(answer: &Response) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// Keys and sessions, where browsing asks for them.
pub async fn under_key_everything_but_three_paths_asks_for_a_key_or_a_session(place: &Place) {
    let mut bare = place.api.clone();
    bare.key = None;
    for path in ["/health", "/ready", "/system/defaults"] {
        assert_eq!(bare.get(path).await.unwrap().status, 200, "{path}");
    }
    let closed = ["/connections", "/streams", "/services/status", "/logs/stream", "/openapi.json", "/user/configs", "/system/sql-logging"];
    for path in closed {
        assert_eq!(code(&bare.get(path).await.unwrap()), (401, "AUTHENTICATION_FAILED"), "{path}");
        let wrong = bare.call_with(Method::GET, path, None, &[("X-API-Key", "mr_wrong")]).await.unwrap();
        assert_eq!(wrong.status, 401, "{path}");
    }
    assert_eq!(bare.post("/session", Value::Null).await.unwrap().status, 401);
    let opened = place.api.post("/session", Value::Null).await.unwrap();
    let cookie = opened.cookie.clone().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/api/v1"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    assert!(!cookie.contains(&place.key));
    for path in ["/connections", "/services/status", "/user"] {
        let seen = bare.call_with(Method::GET, path, None, &[("Cookie", pair)]).await.unwrap();
        assert_eq!(seen.status, 200, "{path}: {seen:?}");
    }
    // The cookie is for browsing: stream operations want the key itself.
    let stop = bare.call_with(Method::POST, NOBODY, None, &[("Cookie", pair), ("X-Install-ID", "i")]).await.unwrap();
    assert_eq!(stop.status, 401);
    // Another site's page has the browser's cookie only if the browser is wrong, and then its origin gives it away.
    let foreign = bare.call_with(Method::GET, "/connections", None, &[("Cookie", pair), ("Origin", "https://evil.example")]).await.unwrap();
    assert_eq!(code(&foreign), (403, "FORBIDDEN_ORIGIN"));
    let rebound = bare.call_with(Method::GET, "/connections", None, &[("Host", "evil.example")]).await.unwrap();
    assert_eq!(rebound.status, 401, "a name that leads here brings no cookie");
    assert_eq!(bare.call_with(Method::POST, "/user/clear-key", None, &[("Cookie", pair)]).await.unwrap().status, 200);
    assert_eq!(bare.call_with(Method::GET, "/connections", None, &[("Cookie", pair)]).await.unwrap().status, 401);
    assert!(place.api.events("/logs/stream").await.is_ok());
}

/// How statements are logged, and who may stop the server.
pub async fn statements_are_logged_as_the_setting_says(place: &Place) {
    let api = place.api.clone();
    let setting = api.get("/system/sql-logging").await.unwrap().body;
    assert_eq!(setting, json!({"sqlCaptureMode": "minimal", "forwardSQLLogs": false}));
    let put = async |path: &str, body: Value| api.call(Method::PUT, path, Some(body)).await.unwrap();
    assert_eq!(put("/system/sql-logging", json!({"forwardSQLLogs": true})).await.body["forwardSQLLogs"], true);
    for (body, field) in [(json!({"sqlCaptureMode": "all"}), "sqlCaptureMode"), (json!({"other": 1}), "other")] {
        let answer = put("/system/sql-logging", body).await;
        assert_eq!((answer.status, answer.body["details"]["field"].as_str()), (400, Some(field)), "{answer:?}");
    }
    let mut records = api.events("/logs/stream").await.unwrap();
    let sql = json!({"sql": "SELECT 'S3cretLiteral' AS a, 7 AS b"});
    api.post("/query/federated", sql.clone()).await.unwrap();
    let record = records.next().await.unwrap();
    assert_eq!(
        (record["query"].as_str(), &record["purpose"], &record["rowCount"]),
        (Some("SELECT ? AS a, ? AS b"), &json!("DATA_QUERY"), &json!(1)),
        "{record}"
    );
    assert_eq!(put("/system/logging", json!({"sqlCaptureMode": "verbose"})).await.body["sqlCaptureMode"], "verbose");
    api.post("/query/federated", sql).await.unwrap();
    assert!(records.next().await.unwrap()["query"].as_str().unwrap().contains("S3cretLiteral"));
    if place.mode == Mode::Cluster {
        let answer = api.post("/system/shutdown", Value::Null).await.unwrap();
        assert_eq!(code(&answer), (404, "ROUTE_NOT_FOUND"), "servers of a cluster are not stopped through the API");
    }
}

/// Runs a small convert; answers its config and its stream.
pub async fn a_run_leaves_logs(place: &Place) -> (String, String) {
    let source = source("kept", &products(5_000)).await;
    let (config, _) = place.config(&source).await;
    let stats = place.run(&config).await;
    let stream = stats["streamID"].as_str().unwrap().to_owned();
    (config, stream)
}

/// The run's logs, whatever has become of the servers since.
pub async fn logs_of_a_run_outlive_the_process_and_go_with_the_run(place: &Place, (config, stream): (String, String)) {
    let logs = place.api.get(&format!("/streams/{stream}/logs")).await.unwrap().body;
    let of = |category: &str| logs.as_array().unwrap().iter().filter(|record| record["category"] == category).count();
    assert!(of("progress") >= 4 && of("stat") >= 3 && of("table_metadata") == 1, "{logs}");
    let last = logs.as_array().unwrap().iter().rfind(|record| record["category"] == "stat" && record["type"] == "target").unwrap();
    assert_eq!((&last["status"], &last["events"], &last["streamId"]), (&json!("FINISHED"), &json!(5_000), &json!(stream)));
    let warnings = place.api.get(&format!("/streams/{stream}/logs?level=warn&limit=5")).await.unwrap().body;
    assert!(warnings.as_array().unwrap().iter().all(|record| record["level"] == "warn" || record["level"] == "error"), "{warnings}");
    let history = place.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    let run = history[0]["id"].as_str().unwrap();
    place.api.call(Method::DELETE, &format!("/stream-configs/{config}/runs/{run}"), None).await.unwrap();
    assert_eq!(place.api.get(&format!("/streams/{stream}/logs")).await.unwrap().status, 404);
}

/// Constraints that do not hold.
pub async fn foreign_keys_that_do_not_hold_are_named_counted_and_validated_later(place: &Place) {
    let statements = [
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, CONSTRAINT fk FOREIGN KEY (p) REFERENCES p (id))",
        "SET foreign_key_checks = 0",
        "INSERT INTO c VALUES (1, 7), (2, 8), (3, NULL)",
    ];
    let source = source("orphans", &statements.map(str::to_owned)).await;
    let (config, target) = place.config(&source).await;
    let stats = place.run(&config).await;
    assert_eq!(stats["status"], "FAILED", "{stats}");
    assert!(stats["error"].as_str().unwrap().contains("foreign key `fk` of `c`"), "{stats}");
    let path = format!("/stream/{config}/validate-constraints");
    let found = place.api.post(&path, Value::Null).await.unwrap().body;
    assert_eq!(
        (&found["engine"], &found["totalOrphanRows"], &found["violations"][0]["constraintName"]),
        (&json!("postgres"), &json!(2), &json!("fk")),
        "{found}"
    );
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    pg.client.batch_execute("INSERT INTO p VALUES (7), (8)").await.unwrap();
    let found = place.api.post(&format!("/stream-configs/{config}/validate-constraints"), Value::Null).await.unwrap().body;
    assert_eq!(
        (&found["validatedCount"], &found["validatedConstraints"][0]["tableName"], &found["violations"]),
        (&json!(1), &json!("c"), &json!([])),
        "{found}"
    );
    assert_eq!(pg.texts("SELECT convalidated::text FROM pg_constraint WHERE conname = 'fk'").await.unwrap(), ["true"]);
}
