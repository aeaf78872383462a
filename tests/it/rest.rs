//! The REST API of `millrace serve` on real servers: the suite that clusters pass too, and what only one process has.

use millrace_tests::suites::rest::{accounts, calls, document, ide, refusals, runs};
use reqwest::Method;
use serde_json::Value;

use crate::support::{LONG, Server};

/// Runs functions of the suite on servers of their own, under a setting of `auth.ide`.
macro_rules! suite {
    ($auth:ident: $($group:ident::$name:ident,)+) => {
        mod $auth {
            $(#[tokio::test] async fn $name() {
                let server = super::Server::start_auth(stringify!($auth)).await;
                super::$group::$name(&server).await;
            })+
        }
    };
}

suite! { open:
    calls::the_four_calls_of_the_quick_start_work,
    calls::stream_operations_need_a_key_and_everything_else_does_not,
    calls::unknown_paths_methods_origins_and_hosts_get_typed_errors_too,
    calls::what_is_not_built_is_refused_at_start_by_its_field,
    calls::wrong_passwords_and_hosts_fail_tests_pings_and_starts_alike,
    calls::federated_statements_that_reach_outside_are_refused_and_errors_hold_no_secret,
    calls::the_openapi_document_is_valid_and_names_what_every_route_answers,
    refusals::bad_requests,
    refusals::bad_configs_are_refused_by_plan_and_start_alike,
    runs::selections_choose_columns_and_rows_by_every_operator,
    runs::unwanted_structure_is_left_out_and_refuses_nothing,
    runs::a_target_connection_that_breaks_is_opened_again_and_no_row_is_lost_or_doubled,
    runs::a_source_connection_that_breaks_is_opened_again_at_a_new_moment,
    runs::a_paused_run_goes_on_where_it_was,
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
}

suite! { key:
    calls::the_four_calls_of_the_quick_start_work,
    calls::stream_operations_need_a_key_and_everything_else_does_not,
    calls::unknown_paths_methods_origins_and_hosts_get_typed_errors_too,
    calls::what_is_not_built_is_refused_at_start_by_its_field,
    calls::wrong_passwords_and_hosts_fail_tests_pings_and_starts_alike,
    calls::federated_statements_that_reach_outside_are_refused_and_errors_hold_no_secret,
    calls::the_openapi_document_is_valid_and_names_what_every_route_answers,
    refusals::bad_requests,
    accounts::under_key_everything_but_three_paths_asks_for_a_key_or_a_session,
    ide::structure_is_walked_from_databases_to_columns,
    ide::edits_hit_the_named_row_or_nothing,
    ide::statements_answer_one_by_one_until_one_fails,
}

/// Follows the document's examples under a setting of `auth.ide`.
async fn follow_the_document(auth: &str) {
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().display().to_string();
    let server = Server::start_in(&["--auth-ide", auth], &[("MILLRACE_FILE_ROOTS", &roots), ("HOME", &roots)]).await;
    document::every_example_works_and_its_answer_is_as_described(&server, Some(folder.path())).await;
}

#[tokio::test]
async fn every_example_of_the_document_works_in_an_open_server() {
    follow_the_document("open").await;
}

#[tokio::test]
async fn every_example_of_the_document_works_with_a_key() {
    follow_the_document("key").await;
}

#[tokio::test]
async fn a_server_begins_anew_on_request_with_all_that_it_knew() {
    let mut server = Server::start().await;
    let id = server.api.connect("kept", "mysql", &server.mysql, "mysql").await.unwrap();
    let answer = server.api.post("/system/restart", serde_json::Value::Null).await.unwrap();
    assert_eq!((answer.status, answer.body["status"].as_str()), (200, Some("restarting")));
    let end = std::time::Instant::now() + LONG;
    let base = loop {
        let output = server.process.output();
        if let Some(base) = output.lines().filter_map(|line| line.strip_prefix("millrace listening on ")).nth(1) {
            break base.to_owned();
        }
        assert!(std::time::Instant::now() < end, "{output}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    server.api.base = base;
    assert_eq!(server.api.get(&format!("/connections/{id}")).await.unwrap().body["name"], "kept");
}

#[tokio::test]
async fn a_key_made_beside_a_running_server_counts_at_once() {
    for auth in ["open", "key"] {
        let server = Server::start_auth(auth).await;
        let (_, key, _) =
            millrace_tests::process::run(&["keys", "create", "--data-dir", server.dir.path().to_str().unwrap()], &[]).await.unwrap();
        calls::a_key_made_beside_a_running_server_counts_at_once(&server, &key).await;
    }
}

#[tokio::test]
async fn connections_are_kept_without_showing_their_secrets() {
    for auth in ["open", "key"] {
        let server = Server::start_auth(auth).await;
        calls::connections_are_kept_without_showing_their_secrets(&server).await;
        let password = &server.mysql.password;
        for file in std::fs::read_dir(server.dir.path()).unwrap().flatten() {
            let bytes = std::fs::read(file.path()).unwrap();
            let found = bytes.windows(password.len()).any(|window| window == password.as_bytes());
            assert!(!found, "the password stands in {}", file.path().display());
        }
        assert!(!server.process.output().contains(password.as_str()));
    }
}

#[tokio::test]
async fn only_loopback_addresses_and_free_data_directories_are_served() {
    let server = Server::start().await;
    let dir = server.dir.path().to_str().unwrap();
    let (code, _, error) = millrace_tests::process::run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", dir], &[]).await.unwrap();
    assert!(code == 2 && error.contains("another server uses this data directory"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let dir = other.path().to_str().unwrap();
    let (code, _, error) =
        millrace_tests::process::run(&["serve", "--listen", "0.0.0.0:0", "--auth-ide", "open", "--data-dir", dir], &[]).await.unwrap();
    assert!(code == 2 && error.contains("loopback"), "{error}");
}

/// Whatever can be wrong with any request of an operation: ids that are none, a body that is no JSON, a number that is none. Those that take nothing are left.
#[tokio::test]
async fn every_operation_that_takes_something_refuses_what_is_wrong_as_described() {
    let server = Server::start().await;
    let document = server.api.get("/openapi.json").await.unwrap().body;
    let (mut refused, mut take_nothing) = (0, Vec::new());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
            let number =
                parameters.iter().find(|one| one["in"] == "query" && matches!(one["schema"]["type"].as_str(), Some("integer" | "boolean")));
            let required = parameters.iter().any(|one| one["in"] == "query" && one["required"] == true);
            let has_body = operation["requestBody"]["content"]["application/json"].is_object();
            let mut real = path.replace("{id}", "x").replace("{configId}", "x").replace("{runId}", "y");
            if !path.contains('{') && !required && !has_body && number.is_none() || path == "/logs/stream" {
                take_nothing.push(format!("{method} {path}"));
                continue;
            }
            if let Some(number) = number {
                real = format!("{real}?{}=many", number["name"].as_str().unwrap());
            }
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let json = [
                ("Content-Type", "application/json"),
                ("X-API-Key", server.key.as_str()),
                ("X-Install-ID", "tests"),
                ("X-Confirm-Delete", "true"),
            ];
            let answer = if has_body {
                server.api.call_text(method.clone(), &real, "{\"name\": ", &json).await.unwrap()
            } else {
                server.api.call_with(method.clone(), &real, None, &json).await.unwrap()
            };
            assert!((400..500).contains(&answer.status) && answer.body["code"].is_string(), "{method} {real}: {answer:?}");
            assert!(
                operation["responses"][answer.status.to_string()].is_object(),
                "{method} {real} is not described to answer so: {answer:?}"
            );
            refused += 1;
        }
    }
    assert_eq!((refused, take_nothing.len()), (93, 30), "these take nothing: {take_nothing:?}");
}
