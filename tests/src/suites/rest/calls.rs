//! Calls that move nothing, or little.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Browsing, Place, source};
use crate::api::connection;
use crate::database::PgDatabase;
use crate::dataset::{products, shop};
use crate::servers::shared;

/// Connections, a config, a start, a federated statement.
pub async fn the_four_calls_of_the_quick_start_work(place: &Place) {
    let sales = source(
        "sales",
        &[
            "CREATE TABLE orders (id INT PRIMARY KEY, account_id INT, total DECIMAL(10,2))".into(),
            "INSERT INTO orders VALUES (1, 1, 9.50), (2, 1, 0.25)".into(),
        ],
    )
    .await;
    let (config, target) = place.config(&sales).await;
    let stats = place.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    assert_eq!((&stats["nodes"][0]["counter"], &stats["nodes"][1]["counter"]), (&json!(2), &json!(2)));
    assert_eq!(stats["tables"][0]["rowsWritten"], 2);
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    pg.client.batch_execute("CREATE TABLE accounts (id int, name text); INSERT INTO accounts VALUES (1, 'Zoë')").await.unwrap();
    let sql = format!(
        "SELECT a.name, b.total FROM pg1.public.accounts a JOIN my1.{}.orders b ON a.id = b.account_id ORDER BY b.total",
        sales.name
    );
    let answer = place.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
    assert_eq!(answer.body["rows"], json!([["Zoë", 0.25], ["Zoë", 9.5]]), "{answer:?}");
    assert_eq!(answer.body["columns"], json!(["name", "total"]));
    let named = place.api.post("/query/federated", json!({"query": "SELECT count(*) FROM to.public.orders"})).await.unwrap();
    assert_eq!(named.status, 422, "`to` is a reserved word: {named:?}");
    let history = place.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    assert_eq!((&history[0]["status"], &history[0]["rowsInserted"]), (&json!("FINISHED"), &json!(2)));
}

/// The strict four want key and install id; an open server asks for nothing else.
pub async fn stream_operations_need_a_key_and_everything_else_does_not(place: &Place) {
    let stream = "stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
    let paths = [
        "/stream-configs/config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/start".to_owned(),
        format!("/streams/{stream}/pause"),
        format!("/streams/{stream}/resume"),
        format!("/streams/{stream}/stop"),
    ];
    let mut bare = place.api.clone();
    bare.key = None;
    for path in &paths {
        for headers in [
            &[][..],
            &[("X-API-Key", place.key.as_str())][..],
            &[("X-API-Key", "mr_wrong"), ("X-Install-ID", "i")][..],
            &[("X-Install-ID", "i")][..],
        ] {
            let answer = bare.call_with(Method::POST, path, None, headers).await.unwrap();
            assert_eq!((answer.status, answer.body["code"].as_str()), (401, Some("AUTHENTICATION_FAILED")), "{path} {headers:?}");
        }
        let answer = place.api.post(path, Value::Null).await.unwrap();
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("NOT_FOUND")), "{path}");
    }
    if place.browsing == Browsing::Key {
        return;
    }
    for path in
        ["/connections", "/stream-configs", "/streams", "/health", "/ready", "/services/status", "/system/defaults", "/openapi.json"]
    {
        assert_eq!(bare.get(path).await.unwrap().status, 200, "{path}");
    }
}

/// The place has a key; another one is made beside the running server.
pub async fn a_key_made_beside_a_running_server_counts_at_once(place: &Place, key: &str) {
    let mut api = place.api.clone();
    api.key = Some(key.trim().to_owned());
    let answer = api.post("/streams/stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/stop", Value::Null).await.unwrap();
    assert_eq!(answer.status, 404, "past the key, at the stream: {answer:?}");
    assert_eq!(key.trim().lines().count(), 1, "the key stands alone on stdout");
}

/// What no route answers.
pub async fn unknown_paths_methods_origins_and_hosts_get_typed_errors_too(place: &Place) {
    let api = &place.api;
    let missing = api.get("/nowhere").await.unwrap();
    assert_eq!((missing.status, missing.body["code"].as_str()), (404, Some("ROUTE_NOT_FOUND")));
    let method = api.call(Method::PATCH, "/connections", None).await.unwrap();
    assert_eq!((method.status, method.body["code"].as_str()), (405, Some("METHOD_NOT_ALLOWED")));
    let foreign = api.call_with(Method::GET, "/connections", None, &[("Origin", "https://evil.example")]).await.unwrap();
    assert_eq!((foreign.status, foreign.body["code"].as_str()), (403, Some("FORBIDDEN_ORIGIN")));
    let rebound = api.call_with(Method::GET, "/connections", None, &[("Host", "evil.example")]).await.unwrap();
    // Who shows a key by header is not led here by a page.
    assert_eq!(rebound.status, if place.browsing == Browsing::Open { 403 } else { 200 });
}

/// What is not built, and what does not exist.
pub async fn what_is_not_built_is_refused_at_start_by_its_field(place: &Place) {
    let source = source("unbuilt", &products(10)).await;
    let (config, _) = place.config(&source).await;
    let stored = place.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let changes: Vec<(&str, Value)> = vec![("mode", json!({"mode": "cdc"}))];
    for (field, change) in changes {
        let mut body = stored.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        place.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
        let answer = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!(
            (answer.status, answer.body["code"].as_str(), answer.body["details"]["field"].as_str()),
            (422, Some("NOT_SUPPORTED"), Some(field))
        );
    }
    let mut body = stored;
    body["source"]["connections"][0]["tables"] = json!([{"name": "products"}, {"name": "nowhere"}]);
    place.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
    let answer = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("OBJECT_MISSING")));
    assert_eq!(answer.body["details"]["field"], "source.connections[0].tables[1].name");
}

/// Connections that do not hold.
pub async fn wrong_passwords_and_hosts_fail_tests_pings_and_starts_alike(place: &Place) {
    let mut wrong = connection("wrong", "postgresql", &place.postgres, "postgres");
    wrong["spec"]["database"]["password"] = json!("Wr0ngPassword");
    let answer = place.api.post("/connections/test", wrong).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("CONNECTION_LOGIN_REFUSED")));
    assert!(!answer.body.to_string().contains("Wr0ngPassword"));
    let mut nowhere = connection("nowhere", "mysql", &place.mysql, "mysql");
    nowhere["spec"]["database"]["host"] = json!("host.invalid");
    let id = place.api.post("/connections", nowhere).await.unwrap().text("id").unwrap();
    let answer = place.api.post(&format!("/connections/{id}/ping"), Value::Null).await.unwrap();
    assert_eq!(
        (answer.status, answer.body["code"].as_str(), answer.body["ping"].as_str()),
        (502, Some("CONNECTION_UNREACHABLE"), Some("failed"))
    );
    let good = connection("good", "MySQL", &place.mysql, "mysql");
    assert_eq!(place.api.post("/connections/test", good).await.unwrap().body, json!({"ping": "ok"}));
}

/// Secrets go in and do not come out.
pub async fn connections_are_kept_without_showing_their_secrets(place: &Place) {
    let api = &place.api;
    let id = api.connect("shown", "mysql", &place.mysql, "mysql").await.unwrap();
    let mut shown = api.get(&format!("/connections/{id}")).await.unwrap().body;
    assert!(shown["spec"]["database"].get("password").is_none());
    shown["name"] = json!("renamed");
    let updated = api.call(Method::PUT, &format!("/connections/{id}"), Some(shown.clone())).await.unwrap();
    assert_eq!((updated.status, updated.body["name"].as_str()), (200, Some("renamed")));
    let ping = api.post(&format!("/connections/{id}/ping"), Value::Null).await.unwrap();
    assert_eq!(ping.status, 200, "the password stayed: {ping:?}");
    shown["spec"]["database"]["host"] = json!("elsewhere.example");
    let moved = api.call(Method::PUT, &format!("/connections/{id}"), Some(shown)).await.unwrap();
    assert_eq!((moved.status, moved.body["details"]["field"].as_str()), (400, Some("spec.database.password")));
    let copy = api.call(Method::PUT, &format!("/connections/{id}/clone"), Some(Value::Null)).await.unwrap();
    assert_eq!(copy.body["name"], "renamed (copy)");
    assert_eq!(api.get("/connections?search=RENAMED").await.unwrap().body["filtered"], 2);
    let all = api.call(Method::DELETE, "/connections", None).await.unwrap();
    assert_eq!((all.status, all.body["code"].as_str()), (400, Some("CONFIRMATION_REQUIRED")));
    let all = api.call_with(Method::DELETE, "/connections", None, &[("X-Confirm-Delete", "TRUE")]).await.unwrap();
    assert_eq!(all.body["deleted"], 2);
}

/// What a statement may not do.
pub async fn federated_statements_that_reach_outside_are_refused_and_errors_hold_no_secret(place: &Place) {
    let shop = source("fed", &shop(0.001)).await;
    place.api.connect("shop", "mysql", &place.mysql, &shop.name).await.unwrap();
    let ask = async |sql: String| place.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
    let rows = ask(format!("SELECT count(*) FROM shop.{0}.orders o JOIN my1.{0}.order_items i ON o.id = i.order_id", shop.name)).await;
    assert_eq!(rows.body["rows"], json!([[1000]]), "{rows:?}");
    for sql in [
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH 'x'",
        "SELECT * FROM mysql_query('my1', 'SELECT 1')",
        "SELECT json_serialize_plan('SELECT * FROM mysql_query(''my1'', ''SELECT 1'')')",
        "SELECT json_serialize_plan('SELECT * FROM postgres_scan(''host=127.0.0.1 port=1 user=x'', ''public'', ''t'')')",
        "SELECT * FROM nowhere",
        "SELECT 1; SELECT 2",
    ] {
        let answer = ask(sql.to_owned()).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("STATEMENT_REFUSED")), "{sql}");
    }
    let missing = ask(format!("SELECT * FROM my1.{}.nowhere", shop.name)).await;
    assert_eq!((missing.status, missing.body["code"].as_str()), (422, Some("OBJECT_MISSING")), "{missing:?}");
    let mut wrong = connection("hostile", "postgresql", &place.postgres, "postgres");
    wrong["spec"]["database"]["password"] = json!("Pa'ss \\\"w0rd = 'x");
    place.api.post("/connections", wrong).await.unwrap();
    let refused = ask("SELECT * FROM hostile.public.t".to_owned()).await;
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("CONNECTION_LOGIN_REFUSED")), "{refused:?}");
    assert!(!refused.body.to_string().contains("w0rd"), "{refused:?}");
}

/// The document and the routes.
pub async fn the_openapi_document_is_valid_and_names_what_every_route_answers(place: &Place) {
    let document = place.api.get("/openapi.json").await.unwrap().body;
    let parsed: openapiv3::OpenAPI = serde_json::from_value(document.clone()).unwrap();
    assert!(parsed.openapi.starts_with("3.0."));
    let mut ids = std::collections::BTreeSet::new();
    for (path, method, operation) in parsed.operations() {
        assert!(ids.insert(operation.operation_id.clone().unwrap()), "{method} {path}");
        let statuses: Vec<String> = operation.responses.responses.keys().map(ToString::to_string).collect();
        assert!(statuses.iter().any(|status| status.starts_with('2')) && statuses.contains(&"500".to_owned()), "{method} {path}");
        let security = operation.security.as_ref().unwrap();
        let is_strict = !security.is_empty() && security.iter().all(|way| way.contains_key("installId"));
        assert_eq!(statuses.contains(&"402".to_owned()), is_strict, "{method} {path}");
        // The route answers: unknown ids and empty bodies get typed errors, never "no such path".
        let real = path.replace("{id}", "x").replace("{configId}", "x").replace("{runId}", "y");
        if ["/logs/stream", "/system/shutdown", "/system/restart"].contains(&path) {
            continue;
        }
        let mut bare = place.api.clone();
        bare.key = None;
        let answer = bare.call(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &real, None).await.unwrap();
        assert_ne!(answer.body["code"], "ROUTE_NOT_FOUND", "{method} {path}");
        assert_ne!(answer.body["code"], "METHOD_NOT_ALLOWED", "{method} {path}");
        let is_open = ["/health", "/ready", "/system/defaults", "/version"].contains(&path) || path == "/session" && method == "delete";
        let asks_itself = path == "/user" || path == "/session" && method == "post";
        assert_eq!(
            answer.status == 401,
            is_strict || asks_itself || place.browsing == Browsing::Key && !is_open,
            "{method} {path}: {answer:?}"
        );
    }
    assert_eq!(ids.len(), 123);
    let text = document.to_string();
    assert!(!text.contains("$defs") && !text.contains("\"const\""));
}
