//! The REST API in front of a cluster: the suite that one process passes too, asked of two API servers in turn; and what only a cluster has.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use millrace_tests::api::connection;
use millrace_tests::database::{PgDatabase, unique};
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::shared;
use millrace_tests::suites::rest::{accounts, calls, document, ide, refusals, resend, runs, source, tools};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kube::LONG;
use crate::release::{place, release};

/// Runs functions of the suite.
macro_rules! suite {
    ($($group:ident::$name:ident,)+) => {
        $(#[tokio::test] async fn $name() {
            let (_turn, place) = place().await;
            $group::$name(&place).await;
        })+
    };
}

suite! {
    calls::the_four_calls_of_the_quick_start_work,
    calls::stream_operations_need_a_key_and_everything_else_does_not,
    calls::unknown_paths_methods_origins_and_hosts_get_typed_errors_too,
    calls::what_is_not_built_is_refused_at_start_by_its_field,
    calls::wrong_passwords_and_hosts_fail_tests_pings_and_starts_alike,
    calls::connections_are_kept_without_showing_their_secrets,
    calls::federated_statements_that_reach_outside_are_refused_and_errors_hold_no_secret,
    calls::the_openapi_document_is_valid_and_names_what_every_route_answers,
    document::every_example_works,
    resend::creations_and_starts_that_are_sent_again_happen_once,
    refusals::bad_requests,
    refusals::bad_configs_are_refused_by_plan_and_start_alike,
    runs::selections_choose_columns_and_rows_by_every_operator,
    runs::unwanted_structure_is_left_out_and_refuses_nothing,
    runs::a_target_connection_that_breaks_is_opened_again_and_no_row_is_lost_or_doubled,
    runs::a_source_connection_that_breaks_is_opened_again_at_a_new_moment,
    runs::a_paused_run_goes_on_where_it_was,
    accounts::under_key_everything_but_three_paths_asks_for_a_key_or_a_session,
    accounts::statements_are_logged_as_the_setting_says,
    accounts::foreign_keys_that_do_not_hold_are_named_counted_and_validated_later,
    ide::structure_is_walked_from_databases_to_columns,
    ide::pages_hold_every_row_once_in_the_order_asked_for,
    ide::edits_hit_the_named_row_or_nothing,
    ide::statements_answer_one_by_one_until_one_fails,
    ide::statements_leave_no_lock_behind,
    ide::definitions_are_seen_at_once,
    ide::objects_are_found_from_the_list_of_connections,
    ide::statistics_are_made_and_remembered,
    ide::federated_statements_are_validated_and_their_names_are_listed,
    tools::the_protocol_is_spoken_and_the_tools_are_those_of_the_contract,
    tools::connections_are_walked_and_rows_are_shown,
    tools::only_reading_statements_run,
    tools::federated_statements_run_and_are_explained,
    tools::no_answer_holds_a_secret,
}

#[tokio::test]
async fn a_key_made_beside_a_running_server_counts_at_once() {
    let (_turn, place) = place().await;
    let key = release().await.new_key().await;
    calls::a_key_made_beside_a_running_server_counts_at_once(&place, &key).await;
}

#[tokio::test]
async fn a_plan_shows_every_verdict_and_makes_nothing() {
    let (_turn, place) = place().await;
    runs::a_plan_shows_every_verdict_and_makes_nothing(&place).await;
}

#[tokio::test]
async fn a_stopped_run_clears_the_gate_and_the_next_start_replaces_what_it_left() {
    let (_turn, place) = place().await;
    let run = runs::a_run_is_paused_halfway(&place).await;
    runs::a_stopped_run_clears_the_gate_and_the_next_start_replaces_what_it_left(&place, run).await;
}

#[tokio::test]
async fn log_records_of_a_run_are_streamed_and_kept() {
    let (_turn, place) = place().await;
    let mut records = runs::log_records_of_a_run_are_streamed_and_kept(&place).await;
    // Servers that end close the open event streams.
    release().await.replace_api_servers().await;
    let ended = tokio::time::timeout(LONG, async { while records.next().await.is_some() {} }).await;
    assert!(ended.is_ok(), "the event stream of a server that is gone stays open");
}

#[tokio::test]
async fn logs_of_a_run_outlive_the_process_and_go_with_the_run() {
    let (_turn, mut place) = place().await;
    let run = accounts::a_run_leaves_logs(&place).await;
    release().await.replace_api_servers().await;
    place.api = release().await.api().await;
    accounts::logs_of_a_run_outlive_the_process_and_go_with_the_run(&place, run).await;
}

#[tokio::test]
async fn what_one_api_server_has_written_all_others_answer_at_once() {
    let (_turn, place) = place().await;
    let bases = release().await.api_servers().await;
    let [one, other] = [release().await.client(&bases[0]), release().await.client(&bases[1])];
    for round in 0..40 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let name = format!("round{round}");
        let id = writer.connect(&name, "postgresql", &place.postgres, "postgres").await.unwrap();
        let path = format!("/connections/{id}");
        let names = async || -> Vec<String> {
            let list = reader.get("/connections").await.unwrap().body;
            list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        let mut seen = reader.get(&path).await.unwrap();
        assert_eq!((seen.status, seen.body["name"].as_str()), (200, Some(name.as_str())), "round {round}");
        assert_eq!(names().await, [name.clone()], "round {round}");
        seen.body["name"] = json!("changed");
        assert_eq!(writer.call(Method::PUT, &path, Some(seen.body)).await.unwrap().status, 200);
        assert_eq!(names().await, ["changed"], "round {round}");
        assert_eq!(reader.get(&path).await.unwrap().body["name"], "changed", "round {round}");
        let config = writer.convert(&id, "postgres", &id, "elsewhere").await.unwrap();
        assert_eq!(reader.get("/stream-configs").await.unwrap().body["total"], 1, "round {round}");
        let in_use = reader.call(Method::DELETE, &path, None).await.unwrap();
        assert_eq!(in_use.status, 409, "{in_use:?}");
        assert_eq!(writer.call(Method::DELETE, &format!("/stream-configs/{config}"), None).await.unwrap().status, 200);
        assert_eq!(reader.get(&format!("/stream-configs/{config}")).await.unwrap().status, 404, "round {round}");
        assert_eq!(writer.call(Method::DELETE, &path, None).await.unwrap().status, 200);
        assert_eq!(reader.get(&path).await.unwrap().status, 404, "round {round}");
        assert!(names().await.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn objects_of_kubectl_and_of_the_api_are_the_same_objects() {
    let (_turn, place) = place().await;
    let kube = &release().await.kube;
    let source = source("declared", &products(1_000)).await;
    let (name, target) = (unique("declared").replace('_', "-"), unique("declared"));
    let object = |side: &str, engine: &str, server: &millrace_tests::servers::Server| {
        let secret = format!("millrace-conn-{name}-{side}");
        [
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": {"password": format!("{}\n", server.password)}}),
            json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Connection", "metadata": {"name": format!("{name}-{side}")}, "spec": {
                "type": engine, "database": {"host": server.host, "port": server.port, "username": server.user}, "secretRef": {"name": secret}}}),
        ]
    };
    let definition = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "StreamConfig", "metadata": {"name": name}, "spec": {
        "name": "declared", "mode": "convert", "source": {"connections": [{"connection": format!("{name}-from"), "database": source.name}]},
        "target": {"connection": format!("{name}-to"), "spec": {"db": {"database": target}}}}});
    let objects = [&object("from", "mysql", &place.mysql)[..], &object("to", "postgresql", &place.postgres), &[definition]].concat();
    kube.apply(&objects).await;
    // What `kubectl` made has an id and works like anything else.
    let configs = place.api.get("/stream-configs").await.unwrap().body;
    let config = configs["items"][0]["id"].as_str().unwrap().to_owned();
    let connections = place.api.get("/connections").await.unwrap().body;
    assert_eq!(connections["total"], 2, "{connections}");
    for connection in connections["items"].as_array().unwrap() {
        let id = connection["id"].as_str().unwrap();
        assert_eq!(place.api.get(&format!("/connections/{id}")).await.unwrap().body["id"], *id);
        assert_eq!(place.api.post(&format!("/connections/{id}/ping"), Value::Null).await.unwrap().status, 200);
    }
    let stats = place.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 1_000);
    let stream = kube.get("stream", &format!("{name}-1")).await;
    assert_eq!(stream["metadata"]["labels"]["millrace.dev/id"], stats["streamID"], "{stream:#}");
    // A new name leaves the Secret alone that somebody else looks after.
    let id =
        connections["items"].as_array().unwrap().iter().find(|item| item["type"] == "mysql").unwrap()["id"].as_str().unwrap().to_owned();
    let mut shown = place.api.get(&format!("/connections/{id}")).await.unwrap().body;
    shown["name"] = json!("renamed");
    assert_eq!(place.api.call(Method::PUT, &format!("/connections/{id}"), Some(shown)).await.unwrap().status, 200);
    let renamed = kube.get("connection", &format!("{name}-from")).await;
    assert_eq!(renamed["spec"]["secretRef"]["name"], format!("millrace-conn-{name}-from"), "{renamed:#}");
    assert_eq!(place.api.post(&format!("/connections/{id}/ping"), Value::Null).await.unwrap().status, 200);
    // What the API made is an object like any other, and its Secret goes with it.
    let made = place.api.connect("made", "mysql", &place.mysql, "mysql").await.unwrap();
    let label = format!("millrace.dev/id={made}");
    let list: Value = serde_json::from_str(&kube.kubectl(&["get", "connections", "-l", &label, "-o", "json"]).await).unwrap();
    let secret = list["items"][0]["spec"]["secretRef"]["name"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("millrace-conn-made-") && !list.to_string().contains(&place.mysql.password), "{list:#}");
    let object = list["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(crate::kube::condition(&kube.get("connection", &object).await, "Reachable").0, "", "nobody has asked for a probe");
    kube.kubectl(&["annotate", "connection", &object, "millrace.dev/probe=now"]).await;
    kube.until("connection", &object, "reachable", |object| crate::kube::condition(object, "Reachable").0 == "True").await;
    assert_eq!(place.api.call(Method::DELETE, &format!("/connections/{made}"), None).await.unwrap().status, 200);
    kube.until("secret", &secret, "gone with its connection", Value::is_null).await;
}

#[tokio::test]
async fn streams_that_a_definition_owns_are_not_operated_through_the_api() {
    let (_turn, place) = place().await;
    let kube = &release().await.kube;
    let source = source("owned", &products(200_000)).await;
    let (proxy, config, _) = place.config_behind_proxy(&source).await;
    let label = format!("millrace.dev/id={config}");
    let object = kube.kubectl(&["get", "streamconfigs", "-l", &label, "-o", "jsonpath={.items[0].metadata.name}"]).await;
    kube.kubectl(&["patch", "streamconfig", &object, "--type=merge", "-p", r#"{"spec":{"state":"Running"}}"#]).await;
    proxy.hold_at(1_000_000).await;
    let streams = place.api.get("/streams").await.unwrap().body;
    let stream = streams[0]["id"].as_str().unwrap().to_owned();
    let paths = ["pause", "resume", "stop"].map(|verb| format!("/streams/{stream}/{verb}"));
    for path in paths.iter().chain([&format!("/stream-configs/{config}/start")]) {
        let answer = place.api.post(path, Value::Null).await.unwrap();
        let told = (answer.status, answer.body["code"].as_str(), answer.body["details"]["field"].as_str());
        assert_eq!(told, (409, Some("MANAGED_DECLARATIVELY"), Some("state")), "{path}: {answer:?}");
    }
    // Once the definition lets go, the API has it again.
    kube.kubectl(&["patch", "streamconfig", &object, "--type=json", "-p", r#"[{"op":"remove","path":"/spec/state"}]"#]).await;
    proxy.release();
    let stopped = place.api.post(&format!("/streams/{stream}/stop"), Value::Null).await.unwrap();
    assert_eq!(stopped.status, 200, "{stopped:?}");
    place.api.wait_for_end(&stream, LONG).await.unwrap();
}

#[tokio::test]
async fn of_starts_at_once_one_wins_and_no_more_than_four_streams_are_active() {
    let (_turn, place) = place().await;
    let source = source("many", &products(100_000)).await;
    let start = async |config: &str| place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    let mut held = Vec::new();
    for round in 0..4 {
        let (proxy, config, _) = place.config_behind_proxy(&source).await;
        // Asked at the same time, they meet at two servers.
        let (one, other) = tokio::join!(start(&config), start(&config));
        let (won, lost) = if one.status == 200 { (one, other) } else { (other, one) };
        assert_eq!((won.status, lost.status), (200, 409), "{won:?} {lost:?}");
        assert_eq!((lost.body["code"].as_str(), lost.body["details"]["field"].as_str()), (Some("STREAM_ACTIVE"), Some("stream_state")));
        assert!(lost.body["details"]["value"].to_string().contains(won.body["id"].as_str().unwrap()), "round {round}: {lost:?}");
        proxy.hold_at(500_000).await;
        held.push(proxy);
    }
    let (config, _) = place.config(&source).await;
    let answer = start(&config).await;
    assert_eq!((answer.status, answer.body["code"].as_str()), (409, Some("STREAM_ACTIVE")), "{answer:?}");
    assert_eq!(answer.body["details"]["value"].as_array().map(Vec::len), Some(4), "{answer:?}");
    held.iter().for_each(millrace_tests::proxy::FaultProxy::release);
    for stream in place.api.get("/streams").await.unwrap().body.as_array().unwrap() {
        let stats = place.api.wait_for_end(stream["id"].as_str().unwrap(), LONG).await.unwrap();
        assert_eq!(stats["status"], "FINISHED", "{stats}");
    }
    assert_eq!(place.run(&config).await["status"], "FINISHED");
}

#[tokio::test]
async fn a_run_does_not_mind_that_all_api_servers_go() {
    let (_turn, place) = place().await;
    let source = source("alone", &products(300_000)).await;
    let (proxy, config, target) = place.config_behind_proxy(&source).await;
    let stream = place.start_config(&config).await;
    proxy.hold_at(2_000_000).await;
    release().await.replace_api_servers().await;
    proxy.release();
    let stats = release().await.api().await.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!((&stats["status"], &stats["cutsLost"]), (&json!("FINISHED"), &json!(0)), "{stats}");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 300_000);
}

#[tokio::test]
async fn secrets_are_in_secrets_and_nowhere_else() {
    let (_turn, place) = place().await;
    let kube = &release().await.kube;
    let source = source("secrets", &products(1_000)).await;
    let (config, _) = place.config(&source).await;
    assert_eq!(place.run(&config).await["status"], "FINISHED");
    let mut wrong = connection("wrong", "postgresql", &place.postgres, "postgres");
    wrong["spec"]["database"]["username"] = json!("nobody");
    place.api.post("/connections/test", wrong).await.unwrap();
    let kinds = "connections,streamconfigs,streams,configmaps,jobs,pods,events,deployments";
    let mut seen = kube.kubectl(&["get", kinds, "-o", "yaml"]).await;
    for component in ["apiserver", "controller", "query", "worker"] {
        let label = format!("app.kubernetes.io/component={component}");
        seen.push_str(&kube.kubectl(&["logs", "-l", &label, "--tail=-1", "--prefix", "--ignore-errors"]).await);
    }
    assert!(seen.contains("kind: Connection") && seen.contains("millrace-conn-"));
    for secret in [&place.mysql.password, &place.postgres.password, &place.key] {
        assert!(!seen.contains(secret.as_str()), "a secret was seen");
    }
}

/// The commands of the README's block that begins with this text.
fn readme_commands(first: &str) -> Vec<String> {
    let text = include_str!("../../README.md");
    let at = text.find(first).expect("the block");
    let block = text[at..].split("```").next().unwrap().replace("\\\n", " ");
    block.lines().filter(|line| line.starts_with("curl")).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_calls_of_the_readme_move_rows_within_five_seconds_of_the_start() {
    let (_turn, place) = place().await;
    let outside = release().await.from_outside().await;
    let servers = shared().await;
    let source = source("readme", &products(100_000)).await;
    let target = unique("readme");
    let (proxy, slow) = place.proxy(&servers.mysql).await;
    let commands = readme_commands("curl -X POST $H/api/v1/connections");
    assert!(commands.len() >= 4, "{commands:?}");
    let said = async |command: &str| -> Value {
        let header = outside.host.as_ref().map(|host| format!("-H 'Host: {host}'")).unwrap_or_default();
        let output = tokio::process::Command::new("bash")
            .args(["-c", &format!("set -e; curl() {{ command curl -sS --fail-with-body {header} \"$@\"; }}; {command}")])
            .envs([("H", outside.base.as_str()), ("K", place.key.as_str()), ("I", "install-of-a-reader")])
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}\n{text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap()
    };
    let filled = |command: &str, server: &millrace_tests::servers::Server, database: &str| {
        let port = format!("\"port\":{}", server.port);
        command
            .replace("db.example.com", &server.host)
            .replace("\"port\":3306", &port)
            .replace("\"username\":\"reader\"", &format!("\"username\":\"{}\"", server.user))
            .replace("\"password\":\"secret\"", &format!("\"password\":\"{}\"", server.password))
            .replace("\"database\":\"production\"", &format!("\"database\":\"{database}\""))
    };
    let from = said(&filled(&commands[0], &slow, &source.name)).await["id"].as_str().unwrap().to_owned();
    let other = commands[0].replace("\"name\":\"mysql-source\",\"type\":\"mysql\"", "\"name\":\"target\",\"type\":\"postgresql\"");
    let to = said(&filled(&other, &place.postgres, &target)).await["id"].as_str().unwrap().to_owned();
    let definition = commands[1].replace("CONNECTION_ID_1", &from).replace("CONNECTION_ID_2", &to);
    let definition = definition.replace("source_db", &source.name).replace("target_db", &target);
    let config = said(&definition).await["id"].as_str().unwrap().to_owned();
    let started_at = Instant::now();
    let stream = said(&commands[2].replace("CONFIG_ID", &config)).await["id"].as_str().unwrap().to_owned();
    let answered = started_at.elapsed();
    // The start itself reads the catalog through the proxy; rows are what comes in bulk after it.
    let moved = async {
        loop {
            let pg = PgDatabase::open(&servers.postgres, &target).await;
            if let Ok(pg) = pg {
                let rows = pg.texts("SELECT count(*)::text FROM public.products").await.unwrap_or_default();
                if rows.first().is_some_and(|rows| rows != "0") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, moved).await.expect("no row has arrived");
    let elapsed = started_at.elapsed();
    println!("the start was answered after {answered:?}; rows had arrived after {elapsed:?}");
    let end = Instant::now() + LONG;
    loop {
        let stats = said(&commands[3].replace("STREAM_ID", &stream)).await;
        if stats["status"] == "FINISHED" {
            break;
        }
        assert!(Instant::now() < end && stats["status"] != "FAILED", "{stats}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 100_000);
    drop(proxy);
    assert!(elapsed <= Duration::from_secs(5), "rows had arrived only after {elapsed:?}");
}
