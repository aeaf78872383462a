//! Tools for language models, on MySQL and PostgreSQL alike: what they answer, how much, what they refuse, and that no secret leaves.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Browsing, Mode, Place, source};
use crate::database::{MySqlDatabase, PgDatabase};
use crate::dataset::products;
use crate::mcp::{Called, Mcp, VERSION};
use crate::servers::shared;

/// The contract's names, without `dbconvert_`.
const TOOLS: [&str; 27] = [
    "list_connections",
    "get_connection",
    "list_databases",
    "list_schemas",
    "list_tables",
    "list_views",
    "describe_table",
    "preview_table",
    "describe_view",
    "preview_view",
    "run_select",
    "explain_select",
    "compare_schemas",
    "compare_data_sample",
    "list_streams",
    "get_stream",
    "get_stream_status",
    "get_stream_stats",
    "get_stream_recent_errors",
    "get_stream_recent_logs",
    "list_files",
    "get_file_schema",
    "preview_file",
    "list_s3_buckets",
    "list_s3_objects",
    "run_federated_select",
    "explain_federated_select",
];

const MYSQL: &[&str] = &[
    "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, balance DECIMAL(12,4), since DATETIME(3), is_firm TINYINT(1) NOT NULL, extra JSON)",
    "INSERT INTO customers SELECT seq, CONCAT('O''Neil ', seq), seq * 1.5, '2024-01-01 10:00:00.5', seq % 2, JSON_OBJECT('a', seq) FROM seq_1_to_150",
    "CREATE TABLE tags (customer INT, word VARCHAR(20), PRIMARY KEY (customer, word), UNIQUE KEY by_word (word))",
    "INSERT INTO tags SELECT seq, CONCAT('it''s \\\\ ', seq) FROM seq_1_to_5",
    "CREATE TABLE only_here (a INT)",
    "CREATE VIEW rich AS SELECT id, name FROM customers WHERE balance > 100",
    "CREATE FUNCTION sneak() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO tags VALUES (99, 'x'); RETURN 1; END",
];
const POSTGRES: &[&str] = &[
    "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, balance NUMERIC(12,4), since TIMESTAMP(3), is_firm BOOLEAN NOT NULL, extra JSONB)",
    "INSERT INTO customers SELECT n, 'O''Neil ' || n, n * 1.5, '2024-01-01 10:00:00.5', n % 2 = 1, jsonb_build_object('a', n) FROM generate_series(1, 150) n",
    "CREATE TABLE tags (customer INT, word VARCHAR(10), PRIMARY KEY (customer, word))",
    "INSERT INTO tags SELECT n, E'it''s \\\\ ' || n FROM generate_series(1, 5) n",
    "CREATE VIEW rich AS SELECT id, name FROM customers WHERE balance > 100",
    "CREATE FUNCTION sneak() RETURNS INT LANGUAGE sql AS 'INSERT INTO tags VALUES (99, ''x'') RETURNING 1'",
];

/// One engine's database under test.
struct Side {
    engine: &'static str,
    connection: String,
    database: String,
}

impl Side {
    fn with(&self, more: Value) -> Value {
        let mut arguments = json!({"connectionId": self.connection, "database": self.database});
        super::merge(&mut arguments, more);
        arguments
    }
}

async fn sides(place: &Place, name: &str) -> [Side; 2] {
    let mysql = MySqlDatabase::create(&shared().await.mysql, name).await.unwrap();
    mysql.execute(&MYSQL.iter().map(|sql| (*sql).to_owned()).collect::<Vec<_>>()).await.unwrap();
    let postgres = PgDatabase::create(&shared().await.postgres, name).await.unwrap();
    postgres.client.batch_execute(&POSTGRES.join(";")).await.unwrap();
    let side = async |engine: &'static str, server, database: &str| {
        let connection = place.api.connect(&format!("{name}_{engine}"), engine, server, database).await.unwrap();
        Side { engine, connection, database: database.to_owned() }
    };
    [side("mysql", &place.mysql, &mysql.name).await, side("postgresql", &place.postgres, &postgres.name).await]
}

/// The protocol: greeting, list of tools, event stream, end of a session, unknown tools, keys, origins.
pub async fn the_protocol_is_spoken_and_the_tools_are_those_of_the_contract(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    assert_eq!((&client.greeting["protocolVersion"], &client.greeting["serverInfo"]["name"]), (&json!(VERSION), &json!("millrace")));
    assert!(client.greeting["capabilities"]["tools"].is_object() && client.greeting["instructions"].is_string(), "{}", client.greeting);
    let listed = client.ask("tools/list", json!({})).await.unwrap();
    let tools = listed["result"]["tools"].as_array().unwrap();
    let mut names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let mut expected: Vec<String> = TOOLS.iter().map(|name| format!("dbconvert_{name}")).collect();
    if place.mode == Mode::Standalone {
        expected.push("dbconvert_list_data_sources".into());
    }
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for tool in tools {
        let name = &tool["name"];
        assert_eq!((&tool["inputSchema"]["type"], &tool["outputSchema"]["type"]), (&json!("object"), &json!("object")), "{name}");
        assert_eq!(tool["annotations"]["readOnlyHint"], true, "{name}");
        assert!(tool["description"].as_str().unwrap().len() > 10, "{name}");
        let fields = tool["inputSchema"]["properties"].as_object().unwrap();
        let undescribed: Vec<&String> =
            fields.iter().filter(|(_, field)| !field["description"].is_string()).map(|(name, _)| name).collect();
        assert!(undescribed.is_empty(), "{name}: {undescribed:?}");
    }
    let unknown = client.ask("tools/call", json!({"name": "dbconvert_drop_table", "arguments": {}})).await.unwrap();
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let stream = client.http(Method::GET, None).await.unwrap();
    if place.mode == Mode::Cluster {
        assert!(client.session.is_none());
        assert_eq!(stream.status(), 405, "any server answers any request");
    } else {
        assert!(client.session.is_some());
        assert_eq!(stream.status(), 200);
        assert!(stream.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        assert!(stream.headers().contains_key("x-request-id"));
        drop(stream);
        assert!(client.http(Method::DELETE, None).await.unwrap().status().is_success());
        let body = json!({"jsonrpc": "2.0", "id": 9, "method": "tools/list", "params": {}});
        assert_eq!(client.http(Method::POST, Some(&body)).await.unwrap().status(), 404, "the session is over");
    }
    for (headers, expected) in [(vec![("Origin", "https://evil.example")], 403), (vec![("Accept", "text/html")], 406)] {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        assert_eq!(place.api.raw(Method::POST, "/mcp", &headers, Some(&body)).await.unwrap().status(), expected, "{headers:?}");
    }
    if place.browsing == Browsing::Key {
        let mut bare = place.api.clone();
        for key in [None, Some("mr_wrong".to_owned())] {
            bare.key = key;
            let refused = bare.raw(Method::POST, "/mcp", &[], Some(&json!({}))).await.unwrap();
            assert_eq!(refused.status(), 401);
            assert_eq!(refused.json::<Value>().await.unwrap()["code"], "AUTHENTICATION_FAILED");
        }
    }
}

/// What connections contain, and rows, in both engines.
pub async fn connections_are_walked_and_rows_are_shown(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    for side in sides(place, "walk").await {
        let is_postgres = side.engine == "postgresql";
        let listed = client.get("list_connections", json!({"search": format!("walk_{}", side.engine)})).await;
        assert_eq!(
            (&listed["items"][0]["id"], &listed["total"], &listed["truncated"]),
            (&json!(side.connection), &json!(1), &json!(false))
        );
        let one = client.get("get_connection", json!({"connectionId": side.connection})).await;
        assert_eq!((&one["type"], &one["spec"]["database"]["database"]), (&json!(side.engine), &json!(side.database)), "{one}");
        let databases = client.get("list_databases", json!({"connectionId": side.connection, "limit": 500})).await;
        assert!(databases["items"].as_array().unwrap().iter().any(|entry| entry["name"] == *side.database), "{databases}");
        assert!(databases["items"].as_array().unwrap().iter().all(|entry| entry["isSystem"] == false), "{databases}");
        let schemas = client.get("list_schemas", side.with(json!({}))).await;
        assert_eq!(schemas["items"].as_array().unwrap().iter().any(|schema| schema["name"] == "public"), is_postgres, "{schemas}");
        let tables = client.get("list_tables", side.with(json!({}))).await;
        let names: Vec<&str> = tables["items"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
        let expected: &[&str] = if is_postgres { &["customers", "tags"] } else { &["customers", "only_here", "tags"] };
        assert_eq!(names, expected);
        let part = client.get("list_tables", side.with(json!({"limit": 1, "offset": 1}))).await;
        assert_eq!(
            (part["items"].as_array().unwrap().len(), &part["truncated"], &part["limitApplied"]),
            (1, &json!(!is_postgres), &json!(1))
        );
        assert_eq!(client.get("list_views", side.with(json!({}))).await["items"][0]["name"], "rich");
        let table = client.get("describe_table", side.with(json!({"table": "tags"}))).await;
        assert_eq!((&table["primaryKeys"], &table["columns"][1]["name"]), (&json!(["customer", "word"]), &json!("word")), "{table}");
        let view = client.get("describe_view", side.with(json!({"view": "rich"}))).await;
        assert!(view["definition"].as_str().unwrap().contains("balance"), "{view}");

        let rows = client.get("preview_table", side.with(json!({"table": "customers"}))).await;
        assert_eq!((&rows["count"], &rows["truncated"], &rows["limitApplied"]), (&json!(100), &json!(true), &json!(100)));
        assert_eq!((&rows["columns"][0], &rows["rows"][0][1]), (&json!("id"), &json!("O'Neil 1")), "{rows}");
        let all = client.get("preview_table", side.with(json!({"table": "customers", "limit": 100_000}))).await;
        assert_eq!((&all["count"], &all["truncated"], &all["limitApplied"]), (&json!(150), &json!(false), &json!(1000)));
        let wanted = json!({"table": "customers", "where": "id > 10", "orderBy": "id", "orderDir": "DESC", "limit": 1});
        assert_eq!(client.get("preview_table", side.with(wanted)).await["rows"][0][0], 150);
        let view = client.get("preview_view", side.with(json!({"view": "rich", "limit": 2}))).await;
        assert_eq!((&view["columns"], &view["count"]), (&json!(["id", "name"]), &json!(2)));

        for (tool, arguments, code, field) in [
            ("get_connection", json!({"connectionId": "conn_none"}), "NOT_FOUND", ""),
            ("describe_table", side.with(json!({"table": "nowhere"})), "OBJECT_MISSING", ""),
            ("describe_table", side.with(json!({})), "VALIDATION_FAILED", "table"),
            ("describe_view", side.with(json!({"view": ""})), "VALIDATION_FAILED", "view"),
            ("preview_table", side.with(json!({"table": "customers", "where": "1) OR (1"})), "VALIDATION_FAILED", "where"),
            ("preview_table", side.with(json!({"table": "customers", "limit": "ten"})), "VALIDATION_FAILED", "limit"),
            ("list_tables", side.with(json!({"unknown": 1})), "VALIDATION_FAILED", "unknown"),
            ("list_s3_buckets", json!({"connectionId": side.connection}), "VALIDATION_FAILED", "connectionId"),
            ("list_s3_objects", json!({"connectionId": side.connection, "bucket": "b"}), "VALIDATION_FAILED", "connectionId"),
        ] {
            let called = client.call(tool, arguments.clone()).await.unwrap();
            assert_eq!(called.code(), code, "{tool} {arguments}: {called:?}");
            assert!(called.body["category"].is_string() && called.body["details"].is_object(), "{called:?}");
            if !field.is_empty() {
                assert_eq!(called.body["details"]["field"], field, "{tool}: {called:?}");
            }
        }
    }
    if place.mode == Mode::Standalone {
        let sources = client.get("list_data_sources", json!({})).await;
        let known = sources["items"].as_array().unwrap().iter().find(|source| source["name"] == "walk_mysql").expect("the connection");
        assert!(known["aliases"].as_array().unwrap().contains(&json!("walk_mysql")), "{sources}");
        assert!(sources["items"].as_array().unwrap().iter().any(|source| source["kind"] == "folder"), "{sources}");
    }
}

/// Statements of models: rows, plans, and everything that is no reading statement.
pub async fn only_reading_statements_run(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    for side in sides(place, "read").await {
        let run = async |query: &str| client.call("run_select", side.with(json!({"query": query}))).await.unwrap();
        let found = run("WITH x AS (SELECT id, name FROM customers) SELECT * FROM x WHERE id <= 2 ORDER BY id;").await;
        assert_eq!(
            (&found.body["rows"], &found.body["truncated"]),
            (&json!([[1, "O'Neil 1"], [2, "O'Neil 2"]]), &json!(false)),
            "{found:?}"
        );
        assert_eq!(found.body["columns"], json!(["id", "name"]));
        let cut = client.get("run_select", side.with(json!({"query": "SELECT id FROM customers", "limit": 7}))).await;
        assert_eq!((&cut["count"], &cut["truncated"], &cut["limitApplied"]), (&json!(7), &json!(true), &json!(7)), "{cut}");
        assert_eq!(run("SELECT id FROM customers").await.body["count"], 100);
        let plan = client.get("explain_select", side.with(json!({"query": "SELECT * FROM customers WHERE id = 1; "}))).await;
        assert_eq!(plan["engine"], side.engine);
        assert!(plan["plan"].is_object() || plan["plan"].is_array(), "{plan}");
        assert!(plan.to_string().contains("customers"), "{plan}");

        for query in [
            "INSERT INTO only_here VALUES (1)",
            "UPDATE customers SET name = 'x'",
            "DELETE FROM customers",
            "DROP TABLE customers",
            "SELECT 1; SELECT 2",
            "SELECT 1; DELETE FROM customers",
            "WITH x AS (DELETE FROM customers RETURNING *) SELECT * FROM x",
            "WITH x AS (SELECT 1) DELETE FROM customers",
            "SELECT * FROM customers INTO OUTFILE '/tmp/millrace-outfile'",
            "SELECT id INTO copied FROM customers",
            "SELECT * FROM customers FOR UPDATE",
            "SELECT 1 /*! INTO OUTFILE '/tmp/millrace-outfile' */ FROM nowhere",
            "SET SESSION TRANSACTION READ WRITE",
            "COMMIT",
            "SHOW TABLES",
            "VALUES (1)",
            "EXPLAIN SELECT 1",
        ] {
            for tool in ["run_select", "explain_select"] {
                let called = client.call(tool, side.with(json!({"query": query}))).await.unwrap();
                let expected = ["STATEMENT_REFUSED", "OBJECT_MISSING"];
                assert!(expected.contains(&called.code()), "{tool} {query}: {called:?}");
            }
        }
        assert_eq!(run("").await.code(), "VALIDATION_FAILED");
        assert_eq!(run("SELECT * FROM nowhere").await.code(), "OBJECT_MISSING");
        assert_eq!(run("SELECT count(*) FROM customers WHERE name <> 'x'").await.body["rows"], json!([[150]]), "nothing was changed");
        let large = run("SELECT REPEAT('x', 1000000) AS a FROM customers").await;
        assert_eq!(large.code(), "RESOURCE_EXHAUSTED", "{large:?}");
        // What only the engine can see.
        for hidden in ["SELECT sneak()", "SELECT * FROM (SELECT sneak() AS a) t"] {
            let called = run(hidden).await;
            assert!(called.is_error && called.code() != "INTERNAL", "{called:?}");
        }
        assert_eq!(run("SELECT count(*) FROM tags").await.body["rows"], json!([[5]]), "nothing was written");
        let sleep = if side.engine == "mysql" { "SELECT SLEEP(77.5)" } else { "SELECT pg_sleep(77.5)" };
        let began = Instant::now();
        let slept = client.call("run_select", side.with(json!({"query": sleep, "timeoutSeconds": 1}))).await.unwrap();
        assert_eq!(slept.code(), "TIMED_OUT", "{slept:?}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        ended(&side).await;
    }
}

/// Waits until the server runs the long statement no more.
async fn ended(side: &Side) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let running = if side.engine == "mysql" {
            let database = MySqlDatabase::open(&shared().await.mysql, &side.database).await.unwrap();
            database.texts("SELECT info FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(77%'").await.unwrap()
        } else {
            let database = PgDatabase::open(&shared().await.postgres, &side.database).await.unwrap();
            let sql = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '%pg_sleep(77%' \
                 AND pid <> pg_backend_pid()";
            database.texts(sql).await.unwrap()
        };
        if running.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "a statement runs on after its deadline: {running:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Statements over several connections.
pub async fn federated_statements_run_and_are_explained(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    let [mysql, postgres] = sides(place, "fed").await;
    let query = format!(
        "SELECT m.id, p.name FROM fed_mysql.{}.customers m JOIN fed_postgresql.public.customers p USING (id) WHERE m.id < 4 ORDER BY m.id",
        mysql.database
    );
    let found = client.get("run_federated_select", json!({"query": query, "limit": 2})).await;
    assert_eq!((&found["rows"], &found["truncated"]), (&json!([[1, "O'Neil 1"], [2, "O'Neil 2"]]), &json!(true)), "{found}");
    let mappings = json!([{"alias": "one", "connectionId": postgres.connection, "database": postgres.database}]);
    let query = "SELECT count(*) AS n FROM one.public.customers";
    let found = client.get("run_federated_select", json!({"query": query, "connections": mappings})).await;
    assert_eq!((&found["rows"], &found["truncated"], &found["limitApplied"]), (&json!([[150]]), &json!(false), &json!(100)));
    let plan = client.get("explain_federated_select", json!({"query": query, "connections": mappings})).await;
    assert!(plan["engine"] == "duckdb" && plan["plan"].to_string().to_uppercase().contains("AGGREGATE"), "{plan}");
    for query in [
        "DROP TABLE one.public.customers",
        "SHOW TABLES",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/x'",
    ] {
        for tool in ["run_federated_select", "explain_federated_select"] {
            let called = client.call(tool, json!({"query": query, "connections": mappings})).await.unwrap();
            assert_eq!(called.code(), "STATEMENT_REFUSED", "{tool} {query}: {called:?}");
        }
    }
}

/// Two databases of different engines beside each other.
pub async fn schemas_and_rows_of_two_engines_are_compared(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    let [mysql, postgres] = sides(place, "cmp").await;
    let side = |side: &Side| json!({"connectionId": side.connection, "database": side.database});
    let compared = client.get("compare_schemas", json!({"left": side(&mysql), "right": side(&postgres)})).await;
    assert_eq!((&compared["isEqual"], &compared["judgedFrom"]), (&json!(false), &json!("left")), "{compared}");
    assert_eq!((&compared["onlyLeft"], &compared["onlyRight"]), (&json!(["only_here"]), &json!([])), "{compared}");
    let tables = compared["differences"]["items"].as_array().unwrap();
    let tags = tables.iter().find(|table| table["table"] == "tags").expect("tags differ");
    assert_eq!((&tags["columns"][0]["column"], &tags["columns"][0]["differs"]), (&json!("word"), &json!(["type"])), "{tags}");
    assert!(tags["columns"][0]["verdict"].as_str().unwrap().starts_with("policy"), "{tags}");
    assert_eq!(tags["uniqueKeysOnlyLeft"], json!([["word"]]), "{tags}");
    let same = client.get("compare_schemas", json!({"left": side(&postgres), "right": side(&postgres)})).await;
    assert_eq!((&same["isEqual"], &same["judgedFrom"]), (&json!(true), &Value::Null), "{same}");

    let table = |side: &Side, table: &str| json!({"connectionId": side.connection, "database": side.database, "table": table});
    for name in ["customers", "tags"] {
        for (left, right) in [(&mysql, &postgres), (&postgres, &mysql)] {
            let rows = client.get("compare_data_sample", json!({"left": table(left, name), "right": table(right, name)})).await;
            assert_eq!((&rows["rowsCompared"], &rows["differences"]), (&rows["rowsEqual"], &json!([])), "{name}: {rows}");
            assert_eq!((&rows["missingLeft"], &rows["missingRight"]), (&json!([]), &json!([])), "{name}: {rows}");
            let count = if name == "customers" { 100 } else { 5 };
            assert_eq!((&rows["rowsCompared"], &rows["truncated"]), (&json!(count), &json!(count == 100)), "{name}: {rows}");
        }
    }
    let database = PgDatabase::open(&shared().await.postgres, &postgres.database).await.unwrap();
    database.client.batch_execute("UPDATE customers SET balance = 0.25 WHERE id = 3; DELETE FROM customers WHERE id = 5; INSERT INTO customers (id, name, is_firm) VALUES (0, 'new', true)").await.unwrap();
    let rows = client.get("compare_data_sample", json!({"left": table(&mysql, "customers"), "right": table(&postgres, "customers")})).await;
    assert_eq!(rows["differences"], json!([{"key": {"id": 3}, "column": "balance", "left": 4.5, "right": 0.25}]), "{rows}");
    assert_eq!((&rows["missingRight"], &rows["missingLeft"]), (&json!([{"id": 5}]), &json!([{"id": 0}])), "{rows}");
    for (arguments, code, field) in [
        (json!({"left": table(&mysql, "only_here"), "right": table(&postgres, "tags")}), "VALIDATION_FAILED", "key"),
        (json!({"left": table(&mysql, "tags"), "right": table(&postgres, "tags"), "key": ["nothing"]}), "OBJECT_MISSING", ""),
        (json!({"left": table(&mysql, "nowhere"), "right": table(&postgres, "tags")}), "OBJECT_MISSING", ""),
    ] {
        let called = client.call("compare_data_sample", arguments.clone()).await.unwrap();
        assert_eq!(called.code(), code, "{arguments}: {called:?}");
        if !field.is_empty() {
            assert_eq!(called.body["details"]["field"], field);
        }
    }
}

/// Streams, their counters and their logs.
pub async fn streams_are_followed_and_their_logs_hold_no_values(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    let source = source("tools", &products(50)).await;
    let (config, _) = place.config(&source).await;
    let stats = place.run(&config).await;
    let id = stats["streamID"].as_str().unwrap();
    let listed = client.get("list_streams", json!({"configId": config, "status": "FINISHED"})).await;
    assert_eq!((&listed["items"][0]["id"], &listed["total"]), (&json!(id), &json!(1)), "{listed}");
    assert_eq!(client.get("list_streams", json!({"configId": config, "status": "FAILED"})).await["total"], 0);
    assert_eq!(client.get("get_stream", json!({"streamId": id})).await["config"]["mode"], "convert");
    let status = client.get("get_stream_status", json!({"streamId": id})).await;
    assert_eq!((&status["status"], &status["rowsWritten"]), (&json!("FINISHED"), &json!(50)), "{status}");
    assert_eq!(client.get("get_stream_stats", json!({"streamId": id})).await["tables"][0]["rowsWritten"], 50);
    let logs = client.get("get_stream_recent_logs", json!({"streamId": id, "limit": 2})).await;
    assert_eq!(
        (logs["items"].as_array().unwrap().len(), &logs["truncated"], &logs["limitApplied"]),
        (2, &json!(true), &json!(2)),
        "{logs}"
    );
    let errors = client.get("get_stream_recent_errors", json!({"streamId": id})).await;
    assert_eq!((&errors["items"], &errors["truncated"]), (&json!([]), &json!(false)), "{errors}");
    for tool in ["get_stream", "get_stream_status", "get_stream_stats", "get_stream_recent_errors", "get_stream_recent_logs"] {
        let called = client.call(tool, json!({"streamId": "stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0"})).await.unwrap();
        assert_eq!(called.code(), "NOT_FOUND", "{tool}: {called:?}");
    }
}

/// Passwords and keys, whatever is asked.
pub async fn no_answer_holds_a_secret(place: &Place) {
    let client = Mcp::open(&place.api).await.unwrap();
    let [mysql, postgres] = sides(place, "secret").await;
    let mut wrong = crate::api::connection("secret_wrong", "postgresql", &place.postgres, "postgres");
    wrong["spec"]["database"]["password"] = json!("Wr0ngPassword");
    let wrong = place.api.post("/connections", wrong).await.unwrap().text("id").unwrap();
    let mut answers: Vec<Called> = Vec::new();
    for id in [&mysql.connection, &postgres.connection, &wrong] {
        for (tool, more) in [
            ("get_connection", json!({})),
            ("list_databases", json!({})),
            ("list_tables", json!({})),
            ("run_select", json!({"query": "SELECT 1"})),
            ("explain_select", json!({"query": "SELECT 1"})),
        ] {
            let mut arguments = json!({"connectionId": id});
            super::merge(&mut arguments, more);
            answers.push(client.call(tool, arguments).await.unwrap());
        }
    }
    answers.push(client.call("list_connections", json!({"limit": 500})).await.unwrap());
    answers.push(client.call("run_federated_select", json!({"query": "SELECT * FROM secret_wrong.public.t"})).await.unwrap());
    let failed = answers.iter().filter(|answer| answer.is_error).count();
    assert_eq!(failed, 5, "{answers:?}");
    assert!(answers.iter().any(|answer| answer.code() == "CONNECTION_LOGIN_REFUSED"), "{answers:?}");
    for secret in [place.mysql.password.as_str(), place.postgres.password.as_str(), place.key.as_str(), "Wr0ngPassword"] {
        for answer in &answers {
            assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
        }
    }
}
