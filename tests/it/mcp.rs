//! Tools for language models on `millrace serve`: the suite that clusters pass too, and the files of this machine.

use millrace_tests::mcp::Mcp;
use serde_json::json;

use crate::support::Server;

/// Runs functions of the suite on servers of their own, under a setting of `auth.ide`.
macro_rules! suite {
    ($auth:ident: $($name:ident,)+) => {
        mod $auth {
            $(#[tokio::test] async fn $name() {
                let server = super::Server::start_auth(stringify!($auth)).await;
                millrace_tests::suites::rest::tools::$name(&server).await;
            })+
        }
    };
}

suite! { open:
    the_protocol_is_spoken_and_the_tools_are_those_of_the_contract,
    connections_are_walked_and_rows_are_shown,
    only_reading_statements_run,
    federated_statements_run_and_are_explained,
    schemas_and_rows_of_two_engines_are_compared,
    streams_are_followed_and_their_logs_hold_no_values,
}

suite! { key:
    the_protocol_is_spoken_and_the_tools_are_those_of_the_contract,
    no_answer_holds_a_secret,
}

#[tokio::test]
async fn files_are_listed_described_and_previewed() {
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("open");
    std::fs::create_dir_all(roots.join("parts")).unwrap();
    std::fs::write(roots.join("a.csv"), "id,name\n1,x\n2,y\n3,z\n").unwrap();
    std::fs::write(roots.join("parts/1.jsonl"), "{\"n\":1}\n").unwrap();
    std::fs::write(roots.join("parts/2.jsonl"), "{\"n\":2}\n").unwrap();
    std::fs::write(dir.path().join("secret.csv"), "s\nhunter2\n").unwrap();
    let root = roots.display().to_string();
    let server = Server::start_in(&[], &[("MILLRACE_FILE_ROOTS", root.as_str()), ("HOME", root.as_str())]).await;
    let client = Mcp::open(&server.api).await.unwrap();
    let body = json!({"name": "data", "type": "files", "spec": {"files": {"basePath": root}}});
    let connection = server.api.post("/connections", body).await.unwrap().text("id").unwrap();

    let listed = client.get("list_files", json!({"connectionId": connection})).await;
    let names: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["parts", "a.csv"], "{listed}");
    assert_eq!((&listed["items"][0]["isTable"], &listed["truncated"]), (&json!(true), &json!(false)));
    let cut = client.get("list_files", json!({"path": root, "limit": 1})).await;
    assert_eq!((&cut["total"], &cut["truncated"], &cut["limitApplied"]), (&json!(2), &json!(true), &json!(1)), "{cut}");
    let schema = client.get("get_file_schema", json!({"connectionId": connection, "path": "a.csv", "countRows": true})).await;
    assert_eq!((&schema["rowCount"], &schema["columns"][1]["name"]), (&json!(3), &json!("name")), "{schema}");
    let rows = client
        .get("preview_file", json!({"connectionId": connection, "path": "a.csv", "limit": 2, "orderBy": "id", "orderDir": "DESC"}))
        .await;
    assert_eq!((&rows["rows"], &rows["truncated"]), (&json!([[3, "z"], [2, "y"]]), &json!(true)), "{rows}");
    let folder = client.get("preview_file", json!({"connectionId": connection, "path": "parts", "where": "n > 1"})).await;
    assert_eq!((&folder["rows"], &folder["columns"]), (&json!([[2]]), &json!(["n"])), "{folder}");
    let secret = dir.path().join("secret.csv").display().to_string();
    for (tool, arguments, code) in [
        ("list_files", json!({"path": "/etc"}), "PATH_REFUSED"),
        ("get_file_schema", json!({"path": secret}), "PATH_REFUSED"),
        ("preview_file", json!({"path": secret}), "PATH_REFUSED"),
        ("preview_file", json!({"connectionId": connection, "path": "nothing.csv"}), "NOT_FOUND"),
        ("preview_file", json!({"connectionId": connection, "path": "a.csv", "where": "1) UNION SELECT (1"}), "STATEMENT_REFUSED"),
        ("run_select", json!({"connectionId": connection, "query": "SELECT 1"}), "NOT_SUPPORTED"),
    ] {
        let called = client.call(tool, arguments.clone()).await.unwrap();
        assert_eq!(called.code(), code, "{tool} {arguments}: {called:?}");
        assert!(!called.body.to_string().contains("hunter2"));
    }
}
