//! The REST API of `millrace serve` on real servers.

use futures::StreamExt as _;
use millrace_tests::api::connection;
use millrace_tests::database::PgDatabase;
use millrace_tests::dataset::{products, shop};
use millrace_tests::digest::assert_equal;
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{Server as Database, shared};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

#[tokio::test]
async fn the_four_calls_of_the_quick_start_work() {
    let servers = shared().await;
    let server = Server::start().await;
    let sales = source(
        "sales",
        &[
            "CREATE TABLE orders (id INT PRIMARY KEY, account_id INT, total DECIMAL(10,2))".into(),
            "INSERT INTO orders VALUES (1, 1, 9.50), (2, 1, 0.25)".into(),
        ],
    )
    .await;
    let (config, target) = server.config(&sales).await;
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    assert_eq!((&stats["nodes"][0]["counter"], &stats["nodes"][1]["counter"]), (&json!(2), &json!(2)));
    assert_eq!(stats["tables"][0]["rowsWritten"], 2);
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    pg.client.batch_execute("CREATE TABLE accounts (id int, name text); INSERT INTO accounts VALUES (1, 'Zoë')").await.unwrap();
    let sql = format!(
        "SELECT a.name, b.total FROM pg1.public.accounts a JOIN my1.{}.orders b ON a.id = b.account_id ORDER BY b.total",
        sales.name
    );
    let answer = server.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
    assert_eq!(answer.body["rows"], json!([["Zoë", 0.25], ["Zoë", 9.5]]), "{answer:?}");
    assert_eq!(answer.body["columns"], json!(["name", "total"]));
    let named = server.api.post("/query/federated", json!({"query": "SELECT count(*) FROM to.public.orders"})).await.unwrap();
    assert_eq!(named.status, 422, "`to` is a reserved word: {named:?}");
    let history = server.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    assert_eq!((&history[0]["status"], &history[0]["rowsInserted"]), (&json!("FINISHED"), &json!(2)));
}

#[tokio::test]
async fn stream_operations_need_a_key_and_everything_else_does_not() {
    let server = Server::start().await;
    let stream = "stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
    let paths = [
        "/stream-configs/config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/start".to_owned(),
        format!("/streams/{stream}/pause"),
        format!("/streams/{stream}/resume"),
        format!("/streams/{stream}/stop"),
    ];
    let mut bare = server.api.clone();
    bare.key = None;
    for path in &paths {
        for headers in [
            &[][..],
            &[("X-API-Key", server.key.as_str())][..],
            &[("X-API-Key", "mr_wrong"), ("X-Install-ID", "i")][..],
            &[("X-Install-ID", "i")][..],
        ] {
            let answer = bare.call_with(Method::POST, path, None, headers).await.unwrap();
            assert_eq!((answer.status, answer.body["code"].as_str()), (401, Some("AUTHENTICATION_FAILED")), "{path} {headers:?}");
        }
        let answer = server.api.post(path, Value::Null).await.unwrap();
        assert_eq!((answer.status, answer.body["code"].as_str()), (404, Some("NOT_FOUND")), "{path}");
    }
    for path in
        ["/connections", "/stream-configs", "/streams", "/health", "/ready", "/services/status", "/system/defaults", "/openapi.json"]
    {
        assert_eq!(bare.get(path).await.unwrap().status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_key_made_beside_a_running_server_counts_at_once() {
    let server = Server::start().await;
    let (_, key, _) =
        millrace_tests::process::run(&["keys", "create", "--data-dir", server.dir.path().to_str().unwrap()], &[]).await.unwrap();
    let mut api = server.api.clone();
    api.key = Some(key.trim().to_owned());
    let answer = api.post("/streams/stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/stop", Value::Null).await.unwrap();
    assert_eq!(answer.status, 404, "past the key, at the stream: {answer:?}");
    assert_eq!(key.lines().count(), 1, "the key stands alone on stdout");
}

#[tokio::test]
async fn bad_requests_get_typed_errors_that_name_the_field() {
    let servers = shared().await;
    let server = Server::start().await;
    let api = &server.api;
    let good = connection("a", "mysql", &servers.mysql, "mysql");
    let id = api.post("/connections", good.clone()).await.unwrap().text("id").unwrap();
    let config = |change: &dyn Fn(&mut Value)| {
        let mut body = json!({"name": "c", "mode": "load", "source": {"connections": [{"connectionId": id}]}, "target": {"id": id, "spec": {"db": {"database": "d"}}}});
        change(&mut body);
        body
    };
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    let table: Vec<(&str, Value, u16, &str, &str)> = vec![
        ("/connections", json!([1]), 400, "VALIDATION_FAILED", ""),
        ("/connections", json!({}), 400, "VALIDATION_FAILED", "name"),
        ("/connections", with(&|b| b["name"] = json!("  ")), 400, "VALIDATION_FAILED", "name"),
        ("/connections", with(&|b| b["type"] = json!("oracle")), 400, "VALIDATION_FAILED", "type"),
        ("/connections", with(&|b| b["type"] = json!("s3")), 400, "VALIDATION_FAILED", "spec.database"),
        ("/connections", with(&|b| b["extra"] = json!(1)), 400, "VALIDATION_FAILED", "extra"),
        ("/connections", with(&|b| b["spec"] = json!({})), 400, "VALIDATION_FAILED", "spec"),
        ("/connections", with(&|b| b["spec"]["s3"] = json!({})), 400, "VALIDATION_FAILED", "spec"),
        ("/connections", with(&|b| b["spec"] = json!({"s3": {}})), 422, "NOT_SUPPORTED", "spec.s3"),
        ("/connections", with(&|b| b["spec"]["database"]["port"] = json!(70000)), 400, "VALIDATION_FAILED", "spec.database.port"),
        ("/connections", with(&|b| b["spec"]["database"]["port"] = json!(0)), 400, "VALIDATION_FAILED", "spec.database.port"),
        ("/connections", with(&|b| b["spec"]["database"]["host"] = json!("")), 400, "VALIDATION_FAILED", "spec.database.host"),
        ("/connections", with(&|b| b["spec"]["database"]["hostt"] = json!("x")), 400, "VALIDATION_FAILED", "spec.database.hostt"),
        ("/connections", with(&|b| b["ssl"] = json!({"mode": "require"})), 422, "NOT_SUPPORTED", "ssl.mode"),
        ("/connections", with(&|b| b["ssl"] = json!({"mode": "maybe"})), 400, "VALIDATION_FAILED", "ssl.mode"),
        ("/connections", with(&|b| b["ssh"] = json!({"host": "x"})), 422, "NOT_SUPPORTED", "ssh"),
        ("/stream-configs", config(&|b| b["name"] = json!("")), 400, "VALIDATION_FAILED", "name"),
        ("/stream-configs", config(&|b| b["mode"] = json!("copy")), 400, "VALIDATION_FAILED", "mode"),
        ("/stream-configs", config(&|b| b["source"]["connections"] = json!([])), 400, "VALIDATION_FAILED", "source.connections"),
        (
            "/stream-configs",
            config(&|b| b["source"]["connections"][0]["connectionId"] = json!("x")),
            400,
            "VALIDATION_FAILED",
            "source.connections[0].connectionId",
        ),
        (
            "/stream-configs",
            config(&|b| b["target"]["id"] = json!("conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0")),
            400,
            "VALIDATION_FAILED",
            "target.id",
        ),
        ("/stream-configs", config(&|b| b["target"]["spec"] = json!({})), 400, "VALIDATION_FAILED", "target.spec"),
        (
            "/stream-configs",
            config(&|b| b["target"]["spec"]["db"]["writeMode"] = json!("merge")),
            400,
            "VALIDATION_FAILED",
            "target.spec.db.writeMode",
        ),
        ("/stream-configs", config(&|b| b["target"]["spec"]["db"]["wrong"] = json!(1)), 400, "VALIDATION_FAILED", "target.spec.db.wrong"),
        ("/stream-configs", config(&|b| b["limits"] = json!({"numberOfEvents": -1})), 400, "VALIDATION_FAILED", "limits.numberOfEvents"),
        (
            "/stream-configs",
            config(&|b| b["source"]["options"] = json!({"dataBundleSize": 0})),
            400,
            "VALIDATION_FAILED",
            "source.options.dataBundleSize",
        ),
        (
            "/stream-configs",
            config(&|b| b["source"]["connections"][0]["tables"] = json!([{"name": ""}])),
            400,
            "VALIDATION_FAILED",
            "source.connections[0].tables[0].name",
        ),
        ("/query/federated", json!({}), 400, "VALIDATION_FAILED", "sql"),
        ("/query/federated", json!({"sql": "SELECT 1", "query": "SELECT 2"}), 400, "VALIDATION_FAILED", "query"),
        (
            "/query/federated",
            json!({"sql": "SELECT 1", "connections": [{"alias": "1a", "connectionId": id}]}),
            400,
            "VALIDATION_FAILED",
            "connections[0].alias",
        ),
        (
            "/query/federated",
            json!({"sql": "SELECT 1", "connections": [{"alias": "a", "connectionId": "conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0"}]}),
            400,
            "VALIDATION_FAILED",
            "connections[0].connectionId",
        ),
    ];
    for (path, body, status, code, field) in table {
        let answer = api.post(path, body.clone()).await.unwrap();
        let found =
            (answer.status, answer.body["code"].as_str().unwrap_or_default(), answer.body["details"]["field"].as_str().unwrap_or_default());
        assert_eq!(found, (status, code, field), "{path} {body}: {answer:?}");
        assert_eq!(answer.body["category"], answer.body["type"]);
    }
}

#[tokio::test]
async fn unknown_paths_methods_origins_and_hosts_get_typed_errors_too() {
    let server = Server::start().await;
    let api = &server.api;
    let missing = api.get("/nowhere").await.unwrap();
    assert_eq!((missing.status, missing.body["code"].as_str()), (404, Some("ROUTE_NOT_FOUND")));
    let method = api.call(Method::PATCH, "/connections", None).await.unwrap();
    assert_eq!((method.status, method.body["code"].as_str()), (405, Some("METHOD_NOT_ALLOWED")));
    let foreign = api.call_with(Method::GET, "/connections", None, &[("Origin", "https://evil.example")]).await.unwrap();
    assert_eq!((foreign.status, foreign.body["code"].as_str()), (403, Some("FORBIDDEN_ORIGIN")));
    let rebound = api.call_with(Method::GET, "/connections", None, &[("Host", "evil.example")]).await.unwrap();
    assert_eq!(rebound.status, 403);
}

#[tokio::test]
async fn what_is_not_built_is_refused_at_start_by_its_field() {
    let server = Server::start().await;
    let source = source("unbuilt", &products(10)).await;
    let (config, _) = server.config(&source).await;
    let stored = server.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let changes: Vec<(&str, Value)> =
        vec![("mode", json!({"mode": "cdc"})), ("limits.numberOfEvents", json!({"limits": {"numberOfEvents": 5}}))];
    for (field, change) in changes {
        let mut body = stored.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        server.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
        let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!(
            (answer.status, answer.body["code"].as_str(), answer.body["details"]["field"].as_str()),
            (422, Some("NOT_SUPPORTED"), Some(field))
        );
    }
    let mut body = stored.clone();
    body["target"]["spec"]["db"]["writeMode"] = json!("append");
    server.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!(answer.body["details"]["field"], "target.spec.db.writeMode");
    let mut body = stored;
    body["source"]["connections"][0]["tables"] = json!([{"name": "products"}, {"name": "nowhere"}]);
    server.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("OBJECT_MISSING")));
    assert_eq!(answer.body["details"]["field"], "source.connections[0].tables[1].name");
}

#[tokio::test]
async fn selections_choose_columns_and_rows_by_every_operator() {
    let servers = shared().await;
    let server = Server::start().await;
    let statements: Vec<String> = [
        "CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, name VARCHAR(30), price DECIMAL(30,10), day DATE, secret INT, KEY by_secret (secret), KEY by_name (name))",
        "INSERT INTO t VALUES (1, '50% off', 1.5, '2020-01-01', 1), (2, '50 off', 2.5, '2020-06-01', 2), (3, NULL, NULL, NULL, 3),
         (18446744073709551615, 'under_score', 9007199254740993.0000000001, '2021-01-01', 4), (9007199254740993, 'ünder', 9007199254740993.0000000002, '2022-01-01', 5)",
        "CREATE TABLE many (id INT PRIMARY KEY, v INT)",
        "INSERT INTO many SELECT seq, seq % 100 FROM seq_1_to_60000",
        "ANALYZE TABLE many",
    ]
    .map(str::to_owned)
    .into();
    let source = source("chosen", &statements).await;
    let (config, target) = server.config(&source).await;
    let stored = server.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let schema = std::sync::atomic::AtomicU32::new(0);
    let copy = async |table: &str, selection: Value| {
        let schema = format!("s{}", schema.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let mut body = stored.clone();
        body["source"]["connections"][0]["tables"] = json!([{"name": table, "selection": selection, "selected": true}]);
        body["target"]["spec"]["db"]["schema"] = json!(schema);
        server.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
        let stats = server.run(&config).await;
        assert_eq!(stats["status"], "FINISHED", "{stats}");
        (schema, PgDatabase::open(&servers.postgres, &target).await.unwrap(), stats)
    };
    let table = [
        ("id", "=", "9007199254740993", "9007199254740993"),
        ("id", "!=", "1", "2,3,9007199254740993,18446744073709551615"),
        ("id", ">=", "18446744073709551615", "18446744073709551615"),
        ("id", "<", "3", "1,2"),
        ("id", "IN", "1, 3", "1,3"),
        ("id", "NOT IN", "1,2,3", "9007199254740993,18446744073709551615"),
        ("price", "=", "9007199254740993.0000000002", "9007199254740993"),
        ("price", ">", "2", "2,9007199254740993,18446744073709551615"),
        ("day", "BETWEEN", "2020-01-02, 2021-01-01", "2,18446744073709551615"),
        ("name", "IS NULL", "", "3"),
        ("name", "is not null", "", "1,2,9007199254740993,18446744073709551615"),
        ("name", "LIKE", "50%off", "1,2"),
        ("name", "NOT LIKE", "50%", "9007199254740993,18446744073709551615"),
        ("name", "CONTAINS", "0%", "1"),
        ("name", "CONTAINS", "r_s", "18446744073709551615"),
        ("name", "NOT_CONTAINS", "off", "9007199254740993,18446744073709551615"),
        ("name", "STARTS_WITH", "50 ", "2"),
        ("name", "ENDS_WITH", "ER", "9007199254740993"),
        ("name", "=", "x' OR '1'='1", ""),
    ];
    for (column, operator, value, ids) in table {
        let filter = json!({"id": "f1", "column": column, "operator": operator, "value": value});
        let (schema, pg, _) = copy("t", json!({"selectedColumns": ["id"], "filters": [filter], "sorts": [], "limit": null})).await;
        let found = pg.texts(&format!("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM {schema}.t")).await.unwrap();
        assert_eq!(found, [ids], "{column} {operator} {value}");
    }
    let (schema, pg, stats) =
        copy("t", json!({"selectedColumns": ["name", "day"], "sorts": [{"column": "id", "direction": "DESC"}], "limit": 2})).await;
    assert_eq!(pg.texts(&format!("SELECT name FROM {schema}.t")).await.unwrap(), ["under_score", "ünder"]);
    assert!(stats["notices"].to_string().contains("primary key") && stats["notices"].to_string().contains("by_secret"), "{stats}");
    // A filter holds in every split.
    let (schema, pg, _) = copy("many", json!({"filters": [{"column": "v", "operator": "<", "value": "10"}]})).await;
    assert_eq!(pg.texts(&format!("SELECT count(*)::text FROM {schema}.many")).await.unwrap(), ["6000"]);
    for (selection, field) in [
        (json!({"selectedColumns": ["id", "nope"]}), "selection.selectedColumns[1]"),
        (json!({"filters": [{"column": "nope", "operator": "=", "value": "1"}]}), "selection.filters[0].column"),
        (json!({"filters": [{"column": "id", "operator": "~", "value": "1"}]}), "selection.filters[0].operator"),
        (json!({"filters": [{"column": "id", "operator": "BETWEEN", "value": "1"}]}), "selection.filters[0].value"),
        (json!({"filters": [{"column": "id", "operator": "IN", "value": "1,x"}]}), "selection.filters[0].value"),
        (json!({"sorts": [{"column": "id", "direction": "up"}]}), "selection.sorts[0].direction"),
    ] {
        let mut body = stored.clone();
        body["source"]["connections"][0]["tables"] = json!([{"name": "t", "selection": selection}]);
        server.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
        let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!(answer.body["details"]["field"], format!("source.connections[0].tables[0].{field}"), "{answer:?}");
    }
}

#[tokio::test]
async fn unwanted_structure_is_left_out_and_refuses_nothing() {
    let servers = shared().await;
    let server = Server::start().await;
    let statements: Vec<String> = [
        "CREATE TABLE parent (id INT PRIMARY KEY AUTO_INCREMENT, e ENUM('a') NOT NULL, v INT, CONSTRAINT odd CHECK (v / 2 >= 0))",
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, KEY by_p (p), CONSTRAINT fk FOREIGN KEY (p) REFERENCES parent (id))",
        "INSERT INTO parent VALUES (41, 'a', 1)",
        "INSERT INTO child VALUES (1, 41)",
    ]
    .map(str::to_owned)
    .into();
    let source = source("structure", &statements).await;
    let (config, target) = server.config(&source).await;
    let start = format!("/stream-configs/{config}/start");
    let refused = server.api.post(&start, Value::Null).await.unwrap();
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("PLAN_REFUSED")), "{refused:?}");
    let stored = server.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let change = async |db: Value| {
        let mut body = stored.clone();
        body["target"]["spec"]["db"] = db;
        let path = format!("/stream-configs/{config}");
        assert_eq!(server.api.call(Method::PUT, &path, Some(body)).await.unwrap().status, 200);
    };
    let none = json!({"indexes": false, "foreignKeys": false, "checkConstraints": false});
    change(json!({"database": target, "schema": "bare", "structureOptions": none})).await;
    assert_eq!(server.run(&config).await["status"], "FINISHED");
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    let constraints = pg.texts("SELECT contype::text FROM pg_constraint WHERE connamespace = 'bare'::regnamespace").await.unwrap();
    assert_eq!(constraints, ["p", "p"]);
    assert_eq!(pg.texts("SELECT count(*)::text FROM pg_indexes WHERE schemaname = 'bare'").await.unwrap(), ["2"]);
    assert_eq!(pg.texts("SELECT p::text FROM bare.child").await.unwrap(), ["41"]);

    change(json!({"database": target, "schema": "empty", "skipData": true, "structureOptions": {"checkConstraints": false}})).await;
    let stats = server.run(&config).await;
    assert_eq!((&stats["status"], &stats["target"]["counter"]), (&json!("FINISHED"), &json!(0)), "{stats}");
    assert_eq!(pg.texts("SELECT count(*)::text FROM empty.parent").await.unwrap(), ["0"]);
    let keys =
        pg.texts("SELECT conname::text FROM pg_constraint WHERE contype = 'f' AND connamespace = 'empty'::regnamespace").await.unwrap();
    assert_eq!(keys, ["fk"]);
    let next = pg.texts("INSERT INTO empty.parent (e) VALUES ('other') RETURNING id::text").await.unwrap();
    assert_eq!(next, ["42"]);

    change(json!({"database": target, "structureOptions": {"tables": false}})).await;
    let refused = server.api.post(&start, Value::Null).await.unwrap();
    assert_eq!(refused.body["details"]["field"], "target.spec.db.structureOptions.tables");
}

#[tokio::test]
async fn wrong_passwords_and_hosts_fail_tests_pings_and_starts_alike() {
    let servers = shared().await;
    let server = Server::start().await;
    let mut wrong = connection("wrong", "postgresql", &servers.postgres, "postgres");
    wrong["spec"]["database"]["password"] = json!("Wr0ngPassword");
    let answer = server.api.post("/connections/test", wrong).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("CONNECTION_LOGIN_REFUSED")));
    assert!(!answer.body.to_string().contains("Wr0ngPassword"));
    let mut nowhere = connection("nowhere", "mysql", &servers.mysql, "mysql");
    nowhere["spec"]["database"]["host"] = json!("host.invalid");
    let id = server.api.post("/connections", nowhere).await.unwrap().text("id").unwrap();
    let answer = server.api.post(&format!("/connections/{id}/ping"), Value::Null).await.unwrap();
    assert_eq!(
        (answer.status, answer.body["code"].as_str(), answer.body["ping"].as_str()),
        (502, Some("CONNECTION_UNREACHABLE"), Some("failed"))
    );
    let good = connection("good", "MySQL", &servers.mysql, "mysql");
    assert_eq!(server.api.post("/connections/test", good).await.unwrap().body, json!({"ping": "ok"}));
}

#[tokio::test]
async fn connections_are_kept_without_showing_their_secrets() {
    let servers = shared().await;
    let server = Server::start().await;
    let api = &server.api;
    let id = api.connect("shown", "mysql", &servers.mysql, "mysql").await.unwrap();
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
    let password = &servers.mysql.password;
    for file in std::fs::read_dir(server.dir.path()).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        let found = bytes.windows(password.len()).any(|window| window == password.as_bytes());
        assert!(!found, "the password stands in {}", file.path().display());
    }
    assert!(!server.process.output().contains(password.as_str()));
}

#[tokio::test]
async fn a_second_start_is_refused_and_a_killed_run_is_found_interrupted_and_resumed() {
    let servers = shared().await;
    let mut server = Server::start().await;
    let source = source("killed", &products(300_000)).await;
    // The source is slow, so that the run is under way when it is killed.
    let proxy = FaultProxy::start("127.0.0.1", servers.mysql.port).await.unwrap();
    let slow = Database::through(&servers.mysql, proxy.port);
    let target = millrace_tests::database::unique("killed");
    let from = server.api.connect("from", "mysql", &slow, &source.name).await.unwrap();
    let to = server.api.connect("to", "postgresql", &servers.postgres, &target).await.unwrap();
    let config = server.api.convert(&from, &source.name, &to, &target).await.unwrap();
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
async fn a_stopped_run_clears_the_gate_and_the_next_start_replaces_what_it_left() {
    let servers = shared().await;
    let mut server = Server::start().await;
    let source = source("stopped", &products(200_000)).await;
    let proxy = FaultProxy::start("127.0.0.1", servers.mysql.port).await.unwrap();
    let slow = Database::through(&servers.mysql, proxy.port);
    let target = millrace_tests::database::unique("stopped");
    let from = server.api.connect("from", "mysql", &slow, &source.name).await.unwrap();
    let to = server.api.connect("to", "postgresql", &servers.postgres, &target).await.unwrap();
    let config = server.api.convert(&from, &source.name, &to, &target).await.unwrap();
    let start = format!("/stream-configs/{config}/start");
    let stream = server.api.post(&start, Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(2_000_000).await;
    let paused = server.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
    assert_eq!(paused.body["status"], "PAUSED");
    server.kill_and_restart().await;
    let stopped = server.api.post(&format!("/streams/{stream}/stop?force=true"), Value::Null).await.unwrap();
    assert_eq!(stopped.body["status"], "STOPPED", "{stopped:?}");
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
    // A finished run's tables are the user's: the next start must not touch them.
    let again = server.api.post(&start, Value::Null).await.unwrap();
    assert_eq!((again.status, again.body["code"].as_str()), (409, Some("TARGET_CONFLICT")));
    let history = server.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    let states: Vec<&str> = history.as_array().unwrap().iter().filter_map(|run| run["status"].as_str()).collect();
    assert_eq!(states, ["FINISHED", "STOPPED"]);
    let run = history[1]["id"].as_str().unwrap();
    let deleted = server.api.call(Method::DELETE, &format!("/stream-configs/{config}/runs/{run}"), None).await.unwrap();
    assert_eq!(deleted.status, 200);
}

#[tokio::test]
async fn a_target_connection_that_breaks_is_opened_again_and_no_row_is_lost_or_doubled() {
    let servers = shared().await;
    let server = Server::start().await;
    let source = source("cut", &products(200_000)).await;
    let proxy = FaultProxy::start("127.0.0.1", servers.postgres.port).await.unwrap();
    let slow = Database::through(&servers.postgres, proxy.port);
    let target = millrace_tests::database::unique("cut");
    let from = server.api.connect("from", "mysql", &servers.mysql, &source.name).await.unwrap();
    let to = server.api.connect("to", "postgresql", &slow, &target).await.unwrap();
    let config = server.api.convert(&from, &source.name, &to, &target).await.unwrap();
    let stream = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(4_000_000).await;
    proxy.cut();
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!((&stats["status"], &stats["source"]["counter"]), (&json!("FINISHED"), &json!(200_000)), "{stats}");
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
}

#[tokio::test]
async fn a_source_connection_that_breaks_ends_the_run_because_its_moment_is_lost() {
    let servers = shared().await;
    let server = Server::start().await;
    let source = source("lost", &products(200_000)).await;
    let proxy = FaultProxy::start("127.0.0.1", servers.mysql.port).await.unwrap();
    let slow = Database::through(&servers.mysql, proxy.port);
    let target = millrace_tests::database::unique("lost");
    let from = server.api.connect("from", "mysql", &slow, &source.name).await.unwrap();
    let to = server.api.connect("to", "postgresql", &servers.postgres, &target).await.unwrap();
    let config = server.api.convert(&from, &source.name, &to, &target).await.unwrap();
    let stream = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(2_000_000).await;
    proxy.cut();
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "FAILED", "{stats}");
    assert!(stats["error"].as_str().unwrap().contains("snapshot was lost"), "{stats}");
    assert_eq!(server.run(&config).await["status"], "FINISHED", "the next start replaces what was left");
}

#[tokio::test]
async fn a_paused_run_goes_on_where_it_was() {
    let servers = shared().await;
    let server = Server::start().await;
    let source = source("paused", &products(200_000)).await;
    let proxy = FaultProxy::start("127.0.0.1", servers.mysql.port).await.unwrap();
    let slow = Database::through(&servers.mysql, proxy.port);
    let target = millrace_tests::database::unique("paused");
    let from = server.api.connect("from", "mysql", &slow, &source.name).await.unwrap();
    let to = server.api.connect("to", "postgresql", &servers.postgres, &target).await.unwrap();
    let config = server.api.convert(&from, &source.name, &to, &target).await.unwrap();
    let stream = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(1_000_000).await;
    for _ in 0..2 {
        let paused = server.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
        assert_eq!((paused.status, paused.body["status"].as_str()), (200, Some("PAUSED")));
    }
    assert_eq!(server.api.get(&format!("/streams/{stream}/stats")).await.unwrap().body["status"], "PAUSED");
    server.api.post(&format!("/streams/{stream}/resume"), Value::Null).await.unwrap();
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let late = server.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
    assert_eq!((late.status, late.body["code"].as_str()), (409, Some("CONFLICT")));
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
}

#[tokio::test]
async fn federated_statements_that_reach_outside_are_refused_and_errors_hold_no_secret() {
    let servers = shared().await;
    let server = Server::start().await;
    let shop = source("fed", &shop(0.001)).await;
    server.api.connect("shop", "mysql", &servers.mysql, &shop.name).await.unwrap();
    let ask = async |sql: String| server.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
    let rows = ask(format!("SELECT count(*) FROM shop.{0}.orders o JOIN my1.{0}.order_items i ON o.id = i.order_id", shop.name)).await;
    assert_eq!(rows.body["rows"], json!([[1000]]), "{rows:?}");
    for sql in [
        "SELECT * FROM read_text('/etc/passwd')",
        "ATTACH 'x'",
        "SELECT * FROM mysql_query('my1', 'SELECT 1')",
        "SELECT * FROM nowhere",
        "SELECT 1; SELECT 2",
    ] {
        let answer = ask(sql.to_owned()).await;
        assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("STATEMENT_REFUSED")), "{sql}");
    }
    let missing = ask(format!("SELECT * FROM my1.{}.nowhere", shop.name)).await;
    assert_eq!((missing.status, missing.body["code"].as_str()), (422, Some("OBJECT_MISSING")), "{missing:?}");
    let mut wrong = connection("hostile", "postgresql", &servers.postgres, "postgres");
    wrong["spec"]["database"]["password"] = json!("Pa'ss \\\"w0rd = 'x");
    server.api.post("/connections", wrong).await.unwrap();
    let refused = ask("SELECT * FROM hostile.public.t".to_owned()).await;
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("CONNECTION_LOGIN_REFUSED")), "{refused:?}");
    assert!(!refused.body.to_string().contains("w0rd"), "{refused:?}");
}

#[tokio::test]
async fn log_records_of_a_run_are_streamed_and_kept() {
    let mut server = Server::start().await;
    let source = source("logs", &products(20_000)).await;
    let (config, _) = server.config(&source).await;
    let mut records = server.api.events("/logs/stream").await.unwrap();
    let stats = server.run(&config).await;
    let stream = stats["streamID"].as_str().unwrap().to_owned();
    let mut seen: Vec<Value> = Vec::new();
    while !seen.iter().any(|record| record["extra"]["status"] == "FINISHED") {
        seen.push(records.next().await.unwrap());
    }
    let of = |category: &str| seen.iter().filter(|record| record["category"] == category).count();
    assert!(of("progress") >= 4 && of("table_metadata") == 1 && of("stat") >= 3, "{seen:?}");
    for kind in ["source", "target"] {
        let last =
            seen.iter().rfind(|record| record["category"] == "stat" && record["type"] == kind && record["table"] == "Total").unwrap();
        assert_eq!((&last["status"], &last["events"]), (&json!("FINISHED"), &json!(20_000)));
    }
    for record in &seen {
        for required in ["level", "timestamp", "message", "type"] {
            assert!(record[required].is_string(), "{record}");
        }
    }
    let stored = server.api.get(&format!("/streams/{stream}/logs?level=info&limit=2")).await.unwrap().body;
    assert_eq!(stored.as_array().unwrap().len(), 2);
    // An open event stream does not keep the server from stopping.
    assert_eq!(server.process.terminate().await, Some(0));
}

#[tokio::test]
async fn the_openapi_document_is_valid_and_names_what_every_route_answers() {
    let server = Server::start().await;
    let document = server.api.get("/openapi.json").await.unwrap().body;
    let parsed: openapiv3::OpenAPI = serde_json::from_value(document.clone()).unwrap();
    assert!(parsed.openapi.starts_with("3.0."));
    let mut ids = std::collections::BTreeSet::new();
    for (path, method, operation) in parsed.operations() {
        assert!(ids.insert(operation.operation_id.clone().unwrap()), "{method} {path}");
        let statuses: Vec<String> = operation.responses.responses.keys().map(ToString::to_string).collect();
        assert!(statuses.iter().any(|status| status.starts_with('2')) && statuses.contains(&"500".to_owned()), "{method} {path}");
        let is_strict = ["/start", "/pause", "/resume", "/stop"].iter().any(|end| path.ends_with(end));
        assert_eq!(statuses.contains(&"401".to_owned()), is_strict, "{method} {path}");
        // The route answers: unknown ids and empty bodies get typed errors, never "no such path".
        let real = path.replace("{id}", "x").replace("{runId}", "y");
        if path == "/logs/stream" {
            continue;
        }
        let mut bare = server.api.clone();
        bare.key = None;
        let answer = bare.call(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &real, None).await.unwrap();
        assert_ne!(answer.body["code"], "ROUTE_NOT_FOUND", "{method} {path}");
        assert_ne!(answer.body["code"], "METHOD_NOT_ALLOWED", "{method} {path}");
        assert_eq!(answer.status == 401, is_strict, "{method} {path}: {answer:?}");
    }
    assert_eq!(ids.len(), 37);
    let text = document.to_string();
    assert!(!text.contains("$defs") && !text.contains("\"const\""));
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

#[tokio::test]
async fn only_loopback_addresses_and_free_data_directories_are_served() {
    let server = Server::start().await;
    let dir = server.dir.path().to_str().unwrap();
    let (code, _, error) = millrace_tests::process::run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", dir], &[]).await.unwrap();
    assert!(code == 2 && error.contains("another server uses this data directory"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let dir = other.path().to_str().unwrap();
    let (code, _, error) = millrace_tests::process::run(&["serve", "--listen", "0.0.0.0:0", "--data-dir", dir], &[]).await.unwrap();
    assert!(code == 2 && error.contains("loopback"), "{error}");
}
