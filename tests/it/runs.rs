//! Runs of one process: killed, planned from the shell, watched. What clusters do too is in `rest.rs`.

use millrace_tests::database::PgDatabase;
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::{Server as Database, shared};
use millrace_tests::suites::rest::runs;
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

#[tokio::test]
async fn a_plan_shows_every_verdict_and_makes_nothing() {
    let servers = shared().await;
    let server = Server::start().await;
    let (source, target) = runs::a_plan_shows_every_verdict_and_makes_nothing(&server).await;
    let url =
        |scheme: &str, server: &Database, database: &str| format!("{scheme}://{}@{}:{}/{database}", server.user, server.host, server.port);
    let (from, to) = (url("mysql", &servers.mysql, &source.name), url("postgres", &servers.postgres, &target));
    let env = [("MILLRACE_SOURCE_PASSWORD", servers.mysql.password.as_str())];
    let (code, out, err) = millrace_tests::process::run(&["plan", &from, &to], &env).await.unwrap();
    assert!(code == 1 && out.contains("policy(null)") && err.contains("the plan refuses"), "{code} {out} {err}");
}

#[tokio::test]
async fn a_stopped_run_clears_the_gate_and_the_next_start_replaces_what_it_left() {
    let mut server = Server::start().await;
    let run = runs::a_run_is_paused_halfway(&server).await;
    server.kill_and_restart().await;
    runs::a_stopped_run_clears_the_gate_and_the_next_start_replaces_what_it_left(&server, run).await;
}

#[tokio::test]
async fn log_records_of_a_run_are_streamed_and_kept() {
    let mut server = Server::start().await;
    let _records = runs::log_records_of_a_run_are_streamed_and_kept(&server).await;
    // An open event stream does not keep the server from stopping.
    assert_eq!(server.process.terminate().await, Some(0));
}

#[tokio::test]
async fn a_second_start_is_refused_and_a_killed_run_is_found_interrupted_and_resumed() {
    let servers = shared().await;
    let mut server = Server::start().await;
    let source = source("killed", &products(300_000)).await;
    // The source is slow, so that the run is under way when it is killed.
    let (proxy, config, target) = server.config_behind_proxy(&source).await;
    let start = format!("/stream-configs/{config}/start");
    let stream = server.api.post(&start, Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(2_000_000).await;
    proxy.hold();
    let second = server.api.post(&start, Value::Null).await.unwrap();
    assert_eq!(
        (second.status, second.body["details"]["field"].as_str(), second.body["details"]["value"].as_str()),
        (409, Some("stream_state"), Some(stream.as_str()))
    );
    server.kill_and_restart().await;
    let stats = server.api.get(&format!("/streams/{stream}/stats")).await.unwrap().body;
    assert_eq!((stats["status"].as_str(), stats["reason"].as_str()), (Some("PAUSED"), Some("INTERRUPTED")));
    let history = server.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    assert_eq!((history[0]["status"].as_str(), history.as_array().unwrap().len()), (Some("PAUSED"), 1));
    assert_eq!(server.api.post(&start, Value::Null).await.unwrap().status, 409);
    proxy.cut();
    proxy.release();
    let resumed = server.api.post(&format!("/streams/{stream}/resume"), Value::Null).await.unwrap();
    assert_eq!(resumed.status, 200, "{resumed:?}");
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    let digest = assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
    assert_eq!(digest.rows, 300_000);
}

#[tokio::test]
async fn no_password_is_seen_by_other_users_of_the_machine() {
    let servers = shared().await;
    let server = Server::start().await;
    let source = source("seen", &products(200_000)).await;
    let (config, _) = server.config(&source).await;
    let started = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    server.api.post("/query/federated", json!({"sql": format!("SELECT count(*) FROM my1.{}.products", source.name)})).await.unwrap();
    let mut arguments = String::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.push_str(&String::from_utf8_lossy(&line));
    }
    server.api.wait_for_end(&started.text("id").unwrap(), LONG).await.unwrap();
    for secret in [&servers.mysql.password, &servers.postgres.password, &server.key] {
        assert!(!arguments.contains(secret.as_str()));
        assert!(!server.process.output().contains(secret.as_str()));
    }
}
