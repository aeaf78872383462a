//! Who may do what: keys, sessions, seats, subscriptions, evaluation, and who is asked.

use futures::StreamExt as _;
use millrace_tests::dataset::products;
use millrace_tests::entitlement_service::{EntitlementService, Mood};
use millrace_tests::servers::shared;
use millrace_tests::suites::rest::accounts;
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
    accounts::statements_are_logged_as_the_setting_says(&server).await;
    let answer = server.api.post("/system/shutdown", Value::Null).await.unwrap();
    assert_eq!(answer.body, json!({"status": "shutting_down"}));
    assert_eq!(server.process.wait().await, Some(0));
    server.start_again().await;
    assert_eq!(server.api.get("/system/sql-logging").await.unwrap().body["sqlCaptureMode"], "verbose", "the setting is kept");
}

#[tokio::test]
async fn logs_of_a_run_outlive_the_process_and_go_with_the_run() {
    let mut server = Server::start().await;
    let run = accounts::a_run_leaves_logs(&server).await;
    assert_eq!(server.process.terminate().await, Some(0));
    server.start_again().await;
    accounts::logs_of_a_run_outlive_the_process_and_go_with_the_run(&server, run).await;
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
