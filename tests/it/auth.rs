//! Who may do what: keys, sessions, seats, subscriptions, evaluation, and who is asked.

use futures::StreamExt as _;
use millrace_tests::dataset::products;
use millrace_tests::entitlement_service::{EntitlementService, Mood};
use millrace_tests::servers::shared;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

const NOBODY: &str = "/streams/stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/stop";

fn code(answer: &millrace_tests::api::Response) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// A start of a config that does not exist: past the permission it is "not found".
async fn start(server: &Server, install: &str) -> (u16, String) {
    let mut bare = server.api.clone();
    bare.key = None;
    let headers = [("X-API-Key", server.key.as_str()), ("X-Install-ID", install)];
    let answer = bare.call_with(Method::POST, "/stream-configs/config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/start", None, &headers).await.unwrap();
    (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn under_key_everything_but_three_paths_asks_for_a_key_or_a_session() {
    let server = Server::start_auth("key").await;
    let mut bare = server.api.clone();
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
    let opened = server.api.post("/session", Value::Null).await.unwrap();
    let cookie = opened.cookie.clone().unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/api/v1"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    assert!(!cookie.contains(&server.key));
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
    assert!(server.api.events("/logs/stream").await.is_ok());
}

#[tokio::test]
async fn keys_are_listed_rotated_and_revoked_beside_a_running_server() {
    let mut server = Server::start_auth("key").await;
    let list = server.keys(&["list"]).await;
    let id = list.split('\t').next().unwrap().to_owned();
    assert!(list.contains("valid") && list.contains("unlimited") && !list.contains(&server.key), "{list}");
    let old = server.key.clone();
    let new = server.keys(&["rotate", &id]).await;
    assert_ne!(new, old);
    assert_eq!(server.api.get("/connections").await.unwrap().status, 401, "the old key is refused at once");
    server.api.key = Some(new.clone());
    assert_eq!(server.api.get("/connections").await.unwrap().status, 200);
    server.keys(&["revoke", &id]).await;
    assert_eq!(server.api.get("/connections").await.unwrap().status, 401);
    assert!(server.keys(&["list"]).await.contains("revoked"));
    let (exit, _, error) =
        millrace_tests::process::run(&["keys", "revoke", "key_none", "--data-dir", server.dir.path().to_str().unwrap()], &[])
            .await
            .unwrap();
    assert!(exit == 2 && error.contains("there is no key `key_none`"), "{error}");
}

#[tokio::test]
async fn every_permission_code_is_reached_and_browsing_goes_on() {
    let server = Server::start().await;
    let id = server.keys(&["list"]).await.split('\t').next().unwrap().to_owned();
    assert_eq!(start(&server, "one").await, refused(404, "NOT_FOUND"));
    assert_eq!(start(&server, "two").await, refused(404, "NOT_FOUND"), "any installation, until seats are configured");
    server.keys(&["change", &id, "--seats", "2"]).await;
    assert_eq!(start(&server, "three").await, refused(403, "SEAT_LIMIT_REACHED"));
    server.keys(&["install", &id, "two"]).await;
    assert_eq!(start(&server, "two").await, refused(403, "DEVICE_DEACTIVATED"));
    assert_eq!(start(&server, "three").await, refused(404, "NOT_FOUND"), "the seat is free again");
    for word in ["past_due", "canceled"] {
        server.keys(&["change", &id, "--subscription", word]).await;
        assert_eq!(start(&server, "one").await, refused(402, "PAYMENT_REQUIRED"), "{word}");
        let stop = server.api.call_with(Method::POST, NOBODY, None, &[("X-Install-ID", "one")]).await.unwrap();
        assert!(stop.status == 404 || stop.status == 403, "what runs can be ended: {stop:?}");
        assert_eq!(server.api.get("/connections").await.unwrap().status, 200);
    }
    let mut bare = server.api.clone();
    bare.key = None;
    let user = |install: &'static str| {
        let (bare, key) = (bare.clone(), server.key.clone());
        async move { bare.call_with(Method::GET, "/user", None, &[("X-API-Key", key.as_str()), ("X-Install-ID", install)]).await.unwrap().body }
    };
    let one = user("one").await;
    assert_eq!(
        (&one["seatLimit"], &one["activeBindings"], &one["currentInstallStatus"]),
        (&json!(2), &json!(2), &json!("active")),
        "{one}"
    );
    assert_eq!((&one["subscriptionStatus"], &one["apiKey"]), (&json!("canceled"), &json!("")));
    assert_eq!(user("two").await["currentInstallStatus"], "deactivated");
    assert_eq!(code(&bare.get("/user").await.unwrap()), (401, "AUTHENTICATION_FAILED"));
    for (denial, words) in [("one", "payment required"), ("two", "device deactivated")] {
        let headers = [("X-API-Key", server.key.as_str()), ("X-Install-ID", denial)];
        let answer =
            bare.call_with(Method::POST, "/stream-configs/config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/start", None, &headers).await.unwrap();
        assert!(answer.body["error"].as_str().unwrap().to_lowercase().contains(words), "{answer:?}");
    }
}

#[tokio::test]
async fn an_evaluation_is_counted_warned_of_and_ends() {
    let server = Server::start().await;
    let id = server.keys(&["list"]).await.split('\t').next().unwrap().to_owned();
    server.keys(&["change", &id, "--subscription", "evaluation", "--evaluation-bytes", "1500000"]).await;
    let before = server.api.get("/user").await.unwrap().body;
    assert_eq!((&before["evaluation"]["status"], &before["evaluation"]["convert_bytes"]), (&json!("inactive"), &json!(0)), "{before}");
    let source = source("evaluation", &products(20_000)).await;
    let mut records = server.api.events("/logs/stream").await.unwrap();
    let (config, _) = server.config(&source).await;
    assert_eq!(server.run(&config).await["status"], "FINISHED", "what has begun is not cut off");
    let warned = tokio::time::timeout(LONG, async {
        loop {
            let record = records.next().await.unwrap();
            if record["extra"]["event"] == "evaluation_warning" {
                return record;
            }
        }
    });
    let warned = warned.await.unwrap();
    assert_eq!((&warned["extra"]["mode"], &warned["extra"]["threshold"]), (&json!("convert"), &json!(100)), "{warned}");
    assert!(warned["streamId"].is_string() && warned["extra"]["used"].as_u64().unwrap() > 1_500_000, "{warned}");
    let after = server.api.get("/user").await.unwrap().body;
    assert_eq!((&after["evaluation"]["status"], &after["evaluation"]["convert_warned_percent"]), (&json!("ended"), &json!(100)), "{after}");
    let (config, _) = server.config(&source).await;
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!(code(&answer), (402, "PAYMENT_REQUIRED"));
}

#[tokio::test]
async fn a_remote_service_is_asked_remembered_and_not_waited_for() {
    let service = EntitlementService::start("mr_known").await;
    let mut server = Server::start_with(&["--auth-ide", "key", "--entitlement", "remote", "--entitlement-url", &service.url]).await;
    assert_eq!(server.api.get("/connections").await.unwrap().status, 401, "the local key is not the service's");
    server.api.key = Some("mr_known".into());
    for _ in 0..3 {
        assert_eq!(server.api.get("/connections").await.unwrap().status, 200);
    }
    let asked = service.requests().iter().filter(|line| line.contains("identify")).count();
    assert_eq!(asked, 2, "the wrong key once, the good one once: {:?}", service.requests());
    assert_eq!(server.api.get("/user").await.unwrap().body["seatLimit"], 3);
    for (mood, expected) in [
        (Mood::Refuses(403, "SEAT_LIMIT_REACHED"), (403, "SEAT_LIMIT_REACHED")),
        (Mood::Refuses(403, "DEVICE_DEACTIVATED"), (403, "DEVICE_DEACTIVATED")),
        (Mood::Refuses(402, "PAYMENT_REQUIRED"), (402, "PAYMENT_REQUIRED")),
        (Mood::Refuses(500, ""), (503, "ENTITLEMENT_UNAVAILABLE")),
        (Mood::Silent, (503, "ENTITLEMENT_UNAVAILABLE")),
    ] {
        service.set(mood);
        let since = std::time::Instant::now();
        let answer = server.api.post(NOBODY, Value::Null).await.unwrap();
        assert_eq!(code(&answer), expected, "{mood:?}");
        assert!(since.elapsed().as_secs() < 5);
        assert_eq!(server.api.get("/connections").await.unwrap().status, 200, "browsing goes on: {mood:?}");
    }
    assert_eq!(code(&server.api.get("/user").await.unwrap()), (503, "ENTITLEMENT_UNAVAILABLE"));
    service.set(Mood::Good);
    assert_eq!(server.api.post(NOBODY, Value::Null).await.unwrap().status, 404);
    assert!(!server.process.output().contains("mr_known"));
}

#[tokio::test]
async fn letting_everybody_in_needs_saying_so() {
    let server = Server::start_with(&["--entitlement", "allow-all"]).await;
    let mut bare = server.api.clone();
    bare.key = None;
    assert_eq!(bare.post(NOBODY, Value::Null).await.unwrap().status, 404);
    assert!(server.process.output().contains("allow-all"), "it is said loudly");
}

#[tokio::test]
async fn statements_are_logged_as_the_setting_says_and_a_client_can_stop_the_server() {
    let mut server = Server::start().await;
    let api = server.api.clone();
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
    let answer = api.post("/system/shutdown", Value::Null).await.unwrap();
    assert_eq!(answer.body, json!({"status": "shutting_down"}));
    assert_eq!(server.process.wait().await, Some(0));
    server.start_again().await;
    assert_eq!(server.api.get("/system/sql-logging").await.unwrap().body["sqlCaptureMode"], "verbose", "the setting is kept");
}

#[tokio::test]
async fn logs_of_a_run_outlive_the_process_and_go_with_the_run() {
    let mut server = Server::start().await;
    let source = source("kept", &products(5_000)).await;
    let (config, _) = server.config(&source).await;
    let stats = server.run(&config).await;
    let stream = stats["streamID"].as_str().unwrap().to_owned();
    assert_eq!(server.process.terminate().await, Some(0));
    server.start_again().await;
    let logs = server.api.get(&format!("/streams/{stream}/logs")).await.unwrap().body;
    let of = |category: &str| logs.as_array().unwrap().iter().filter(|record| record["category"] == category).count();
    assert!(of("progress") >= 4 && of("stat") >= 3 && of("table_metadata") == 1, "{logs}");
    let last = logs.as_array().unwrap().iter().rfind(|record| record["category"] == "stat" && record["type"] == "target").unwrap();
    assert_eq!((&last["status"], &last["events"], &last["streamId"]), (&json!("FINISHED"), &json!(5_000), &json!(stream)));
    let warnings = server.api.get(&format!("/streams/{stream}/logs?level=warn&limit=5")).await.unwrap().body;
    assert!(warnings.as_array().unwrap().iter().all(|record| record["level"] == "warn" || record["level"] == "error"), "{warnings}");
    let history = server.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    let run = history[0]["id"].as_str().unwrap();
    server.api.call(Method::DELETE, &format!("/stream-configs/{config}/runs/{run}"), None).await.unwrap();
    assert_eq!(server.api.get(&format!("/streams/{stream}/logs")).await.unwrap().status, 404);
}

#[tokio::test]
async fn foreign_keys_that_do_not_hold_are_named_counted_and_validated_later() {
    let servers = shared().await;
    let server = Server::start().await;
    let statements = [
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, CONSTRAINT fk FOREIGN KEY (p) REFERENCES p (id))",
        "SET foreign_key_checks = 0",
        "INSERT INTO c VALUES (1, 7), (2, 8), (3, NULL)",
    ];
    let source = source("orphans", &statements.map(str::to_owned)).await;
    let (config, target) = server.config(&source).await;
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FAILED", "{stats}");
    assert!(stats["error"].as_str().unwrap().contains("foreign key `fk` of `c`"), "{stats}");
    let path = format!("/stream/{config}/validate-constraints");
    let found = server.api.post(&path, Value::Null).await.unwrap().body;
    assert_eq!(
        (&found["engine"], &found["totalOrphanRows"], &found["violations"][0]["constraintName"]),
        (&json!("postgres"), &json!(2), &json!("fk")),
        "{found}"
    );
    let pg = millrace_tests::database::PgDatabase::open(&servers.postgres, &target).await.unwrap();
    pg.client.batch_execute("INSERT INTO p VALUES (7), (8)").await.unwrap();
    let found = server.api.post(&format!("/stream-configs/{config}/validate-constraints"), Value::Null).await.unwrap().body;
    assert_eq!(
        (&found["validatedCount"], &found["validatedConstraints"][0]["tableName"], &found["violations"]),
        (&json!(1), &json!("c"), &json!([])),
        "{found}"
    );
    assert_eq!(pg.texts("SELECT convalidated::text FROM pg_constraint WHERE conname = 'fk'").await.unwrap(), ["true"]);
}

#[tokio::test]
async fn no_secret_is_found_anywhere() {
    let servers = shared().await;
    let mut server = Server::start_auth("key").await;
    server.api.call(Method::PUT, "/system/sql-logging", Some(json!({"sqlCaptureMode": "verbose", "forwardSQLLogs": true}))).await.unwrap();
    let mut records = server.api.events("/logs/stream").await.unwrap();
    let source = source("secrets", &products(3_000)).await;
    let (config, _) = server.config(&source).await;
    let mut seen = server.run(&config).await.to_string();
    let cookie = server.api.post("/session", Value::Null).await.unwrap().cookie.unwrap();
    let token = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    let sql = format!("SELECT count(*) FROM my1.{}.products", source.name);
    let paths = ["/connections", "/stream-configs", "/streams", "/user", "/user/configs", "/openapi.json", "/services/status"];
    for path in paths {
        seen.push_str(&server.api.get(path).await.unwrap().body.to_string());
    }
    let mut wrong = millrace_tests::api::connection("wrong", "postgresql", &servers.postgres, "postgres");
    wrong["spec"]["database"]["username"] = json!("nobody");
    let bad = [
        ("/query/federated", json!({"sql": sql})),
        ("/query/federated", json!({"sql": "SELECT * FROM my1.nowhere.t"})),
        ("/query/federated", json!({"sql": "SELECT * FROM duckdb_secrets()"})),
        ("/connections/test", wrong.clone()),
        (
            "/connections",
            json!({"name": "x", "type": "mysql", "spec": {"database": {"host": "h", "username": "u", "password": [servers.mysql.password]}}}),
        ),
    ];
    for (path, body) in bad {
        seen.push_str(&server.api.post(path, body).await.unwrap().body.to_string());
    }
    seen.push_str(&server.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body.to_string());
    while let Ok(Some(record)) = tokio::time::timeout(std::time::Duration::from_millis(300), records.next()).await {
        seen.push_str(&record.to_string());
    }
    let ps = std::process::Command::new("ps").args(["-eww", "-o", "args"]).output().unwrap();
    seen.push_str(&String::from_utf8_lossy(&ps.stdout));
    assert_eq!(server.process.terminate().await, Some(0));
    seen.push_str(&server.process.output());
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(server.dir.path()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        bytes.extend(std::fs::read(entry.path()).unwrap());
    }
    for secret in [&servers.mysql.password, &servers.postgres.password, &server.key, &token] {
        assert!(!seen.contains(secret.as_str()), "a secret was seen");
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "a secret is in a file");
    }
}
