//! Existing tables, existing rows, limits, queries, several sources: how rows get into a target that is not empty.

use millrace_tests::database::{MySqlDatabase, PgDatabase};
use millrace_tests::dataset::products;
use millrace_tests::servers::shared;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

async fn small(name: &str) -> MySqlDatabase {
    let statements = [
        "CREATE TABLE parent (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(10), n INT)",
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, CONSTRAINT fk FOREIGN KEY (p) REFERENCES parent (id))",
        "INSERT INTO parent VALUES (1, 'a', 10), (2, 'b', 20), (3, 'c', NULL)",
        "INSERT INTO child VALUES (1, 1), (2, 3)",
    ];
    source(name, &statements.map(str::to_owned)).await
}

/// A config whose target exists; answers it and the target.
async fn with_target(server: &Server, source: &MySqlDatabase, sql: &str) -> (String, PgDatabase) {
    let (config, target) = server.config(source).await;
    let admin = millrace_tests::database::pg_client(&shared().await.postgres, "postgres").await.unwrap();
    admin.batch_execute(&format!("CREATE DATABASE \"{target}\"")).await.unwrap();
    let target = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    target.client.batch_execute(sql).await.unwrap();
    (config, target)
}

fn db(fields: Value) -> Value {
    json!({"target": {"spec": {"db": fields}}})
}

const EXISTING: &str =
    "CREATE TABLE parent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, n numeric, extra text DEFAULT 'mine');
    CREATE TABLE child (id int PRIMARY KEY, p bigint REFERENCES parent (id))";

const ROWS: &str = "SELECT concat_ws('/', id, v, n, extra) FROM parent ORDER BY id";

#[tokio::test]
async fn every_schema_policy_meets_every_write_mode() {
    let server = Server::start().await;
    let source = small("modes").await;
    let new = ["1/a/10/mine", "2/b/20/mine", "3/c/mine"];
    let with_old = "INSERT INTO parent (v, n) VALUES ('old', 1), ('old', 2), ('old', 3), ('old', 4)";
    // policy, mode, rows before, expected rows or the field that refuses.
    type Expected = Result<Vec<&'static str>, &'static str>;
    let table: Vec<(&str, &str, &str, Expected)> = vec![
        ("fail_if_exists", "fail_if_not_empty", "", Err("target.spec.db.schemaPolicy")),
        ("fail_if_exists", "upsert", "", Err("target.spec.db.schemaPolicy")),
        ("validate_existing", "fail_if_not_empty", "", Ok(new.to_vec())),
        ("validate_existing", "fail_if_not_empty", with_old, Err("target.spec.db.writeMode")),
        ("validate_existing", "append", "", Ok(new.to_vec())),
        ("validate_existing", "truncate_and_load", with_old, Ok(new.to_vec())),
        ("validate_existing", "upsert", with_old, Ok(vec!["1/a/10/mine", "2/b/20/mine", "3/c/mine", "4/old/4/mine"])),
        ("create_missing_only", "append", "", Ok(new.to_vec())),
        ("create_missing_only", "truncate_and_load", with_old, Ok(new.to_vec())),
        ("drop_and_recreate", "fail_if_not_empty", with_old, Ok(vec!["1/a/10", "2/b/20", "3/c"])),
        ("drop_and_recreate", "append", with_old, Ok(vec!["1/a/10", "2/b/20", "3/c"])),
        ("drop_and_recreate", "truncate_and_load", with_old, Ok(vec!["1/a/10", "2/b/20", "3/c"])),
        ("drop_and_recreate", "upsert", with_old, Ok(vec!["1/a/10", "2/b/20", "3/c"])),
    ];
    for (policy, mode, before, expected) in table {
        let (config, target) = with_target(&server, &source, &format!("{EXISTING}; {before}")).await;
        server.change(&config, db(json!({"schemaPolicy": policy, "writeMode": mode}))).await;
        server.change(&config, json!({"onCutLost": "continue"})).await;
        match expected {
            Ok(rows) => {
                let stats = server.run(&config).await;
                assert_eq!(stats["status"], "FINISHED", "{policy} {mode}: {stats}");
                let sql = if policy == "drop_and_recreate" { "SELECT concat_ws('/', id, v, n) FROM parent ORDER BY id" } else { ROWS };
                assert_eq!(target.texts(sql).await.unwrap(), rows, "{policy} {mode}");
                assert_eq!(target.texts("SELECT count(*)::text FROM child").await.unwrap(), ["2"]);
                let next = target.texts("INSERT INTO parent (v) VALUES ('next') RETURNING id::text").await.unwrap();
                assert!(next[0].parse::<i64>().unwrap() >= 4, "the sequence stands behind the rows: {next:?}");
            }
            Err(field) => {
                let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
                let found = (answer.status, answer.body["code"].as_str(), answer.body["details"]["field"].as_str());
                assert_eq!(found, (409, Some("TARGET_CONFLICT"), Some(field)), "{policy} {mode}: {answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn rows_of_others_are_only_touched_where_a_run_can_tell_them_apart() {
    let server = Server::start().await;
    let source = small("others").await;
    let (config, target) = with_target(&server, &source, &format!("{EXISTING}; INSERT INTO parent (v) VALUES ('old')")).await;
    server.change(&config, db(json!({"schemaPolicy": "validate_existing", "writeMode": "upsert"}))).await;
    let start = format!("/stream-configs/{config}/start");
    let refused = server.api.post(&start, Value::Null).await.unwrap();
    assert_eq!((refused.status, refused.body["details"]["field"].as_str()), (409, Some("onCutLost")), "{refused:?}");
    server.change(&config, json!({"onCutLost": "continue"})).await;
    for _ in 0..2 {
        assert_eq!(server.run(&config).await["status"], "FINISHED", "an upsert can be run again");
    }
    assert_eq!(target.texts("SELECT count(*)::text FROM parent").await.unwrap(), ["3"]);
    // Appending the same rows breaks the key: the table fails by name, and nothing of it stays.
    server.change(&config, db(json!({"writeMode": "append"}))).await;
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FAILED", "{stats}");
    assert!(
        stats["error"].as_str().unwrap().contains("parent_pkey") && stats["error"].as_str().unwrap().contains("refers to `parent`"),
        "{stats}"
    );
    assert_eq!(target.texts("SELECT count(*)::text FROM parent").await.unwrap(), ["3"]);
}

#[tokio::test]
async fn tables_that_exist_are_checked_before_anything_is_written() {
    let server = Server::start().await;
    let source = small("compat").await;
    for (sql, text) in [
        ("CREATE TABLE parent (id int PRIMARY KEY, v text)", "has no such column"),
        ("CREATE TABLE parent (id int PRIMARY KEY, v text, n int, must int NOT NULL)", "NOT NULL, has no default"),
        ("CREATE TABLE parent (id int PRIMARY KEY, v text, n date)", "cannot hold it"),
        ("CREATE TABLE parent (id int PRIMARY KEY, v money, n int)", "cannot be copied into money"),
        ("CREATE TABLE parent (id int, v text, n int)", "needs a primary or unique key"),
        ("CREATE TABLE parent (id int PRIMARY KEY, v text, n int GENERATED ALWAYS AS (1) STORED)", "computes this column itself"),
    ] {
        let (config, target) = with_target(&server, &source, sql).await;
        let fields = json!({"schemaPolicy": "create_missing_only", "writeMode": "upsert"});
        server.change(&config, db(fields)).await;
        let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("PLAN_REFUSED")), "{sql}: {answer:?}");
        assert!(answer.body["error"].as_str().unwrap().contains(text), "{answer:?}");
        assert!(target.texts("SELECT 1::text FROM child").await.is_err(), "nothing was created");
    }
    let (config, _) = with_target(&server, &source, "CREATE VIEW parent AS SELECT 1 AS id").await;
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!((answer.status, answer.body["details"]["field"].as_str()), (409, Some("target.spec.db.schema")), "{answer:?}");
    let (config, _) = with_target(&server, &source, "SELECT 1").await;
    server.change(&config, db(json!({"schemaPolicy": "validate_existing"}))).await;
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!((answer.status, answer.body["details"]["field"].as_str()), (409, Some("target.spec.db.schemaPolicy")), "{answer:?}");
    let circle =
        "CREATE TABLE parent (id int PRIMARY KEY, v text, n int); CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent (id));
        ALTER TABLE parent ADD FOREIGN KEY (n) REFERENCES child (id)";
    let (config, _) = with_target(&server, &source, circle).await;
    server.change(&config, db(json!({"schemaPolicy": "validate_existing"}))).await;
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert!(answer.body["error"].as_str().unwrap().contains("in a circle"), "{answer:?}");
}

#[tokio::test]
async fn values_that_an_existing_table_cannot_hold_fail_it_by_row() {
    let server = Server::start().await;
    let source = small("narrow").await;
    for (sql, text) in [
        ("CREATE TABLE parent (id int PRIMARY KEY, v varchar(1), n smallint CHECK (n < 15))", "check"),
        ("CREATE TABLE parent (id int PRIMARY KEY, v text, n boolean)", "id=1"),
        ("CREATE TABLE parent (id int PRIMARY KEY, v text, n int NOT NULL)", "null value"),
    ] {
        let (config, target) = with_target(&server, &source, sql).await;
        server.change(&config, db(json!({"schemaPolicy": "create_missing_only"}))).await;
        let stats = server.run(&config).await;
        assert_eq!(stats["status"], "FAILED", "{stats}");
        assert!(stats["error"].as_str().unwrap().contains(text), "{sql}: {stats}");
        let parent = stats["tables"].as_array().unwrap().iter().find(|table| table["table"] == "parent").unwrap();
        assert_eq!((&parent["status"], &parent["rowsWritten"]), (&json!("FAILED"), &json!(0)), "{stats}");
        assert_eq!(target.texts("SELECT count(*)::text FROM parent").await.unwrap(), ["0"], "nothing half-written");
    }
}

#[tokio::test]
async fn keys_that_could_not_be_made_are_made_when_the_run_goes_on() {
    let servers = shared().await;
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, e ENUM('a', 'b'), KEY by_v (v), CONSTRAINT positive CHECK (v > 0))",
        "SET check_constraint_checks = 0",
        "INSERT INTO t VALUES (1, 5, 'a'), (2, -1, 'b')",
        "CREATE TABLE other (id INT PRIMARY KEY)",
    ];
    let source = source("unmade", &statements.map(str::to_owned)).await;
    let target = PgDatabase::create(&servers.postgres, "unmade").await.unwrap();
    let (from, to) = (servers.mysql.url("mysql", &source.name), servers.postgres.url("postgres", &target.name));
    let args = ["copy", &from, &to, "--on-cut-lost", "continue"];
    let (code, out, _) = millrace_tests::process::run(&args, &[]).await.unwrap();
    assert!(code == 1 && out.contains("check `positive`"), "{out}");
    target.client.batch_execute("UPDATE t SET v = 1 WHERE id = 2").await.unwrap();
    let (code, out, _) = millrace_tests::process::run(&args, &[]).await.unwrap();
    assert_eq!(code, 0, "{out}");
    let made = "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass UNION ALL
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = 't'::regclass ORDER BY 1";
    assert_eq!(target.texts(made).await.unwrap(), ["by_v", "positive", "t_e_check", "t_pkey", "t_pkey"]);
}

#[tokio::test]
async fn databases_whose_indexes_have_the_same_names_go_into_one_schema() {
    let servers = shared().await;
    let target = PgDatabase::create(&servers.postgres, "shared").await.unwrap();
    for table in ["first", "second"] {
        let statements = [
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, v INT, e ENUM('a'), KEY by_v (v))"),
            format!("INSERT INTO {table} VALUES (1, 5, 'a')"),
        ];
        let source = source(table, &statements).await;
        let (from, to) = (servers.mysql.url("mysql", &source.name), servers.postgres.url("postgres", &target.name));
        // The second time it replaces what the first has made, and the names stay.
        for _ in 0..2 {
            let args = ["copy", &from, &to, "--schema-policy", "drop_and_recreate"];
            let (code, out, _) = millrace_tests::process::run(&args, &[]).await.unwrap();
            assert_eq!(code, 0, "{out}");
        }
    }
    let indexes = "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1";
    assert_eq!(target.texts(indexes).await.unwrap(), ["by_v", "first_pkey", "second_by_v", "second_pkey"]);
}

#[tokio::test]
async fn limits_end_a_run_exactly_and_leave_it_usable() {
    let servers = shared().await;
    let server = Server::start().await;
    let source = source("limits", &products(50_000)).await;
    let (config, target) = server.config(&source).await;
    server.change(&config, json!({"limits": {"numberOfEvents": 12_345}})).await;
    let stats = server.run(&config).await;
    assert_eq!(
        (&stats["status"], &stats["target"]["counter"], &stats["source"]["counter"]),
        (&json!("EVENT_LIMIT_REACHED"), &json!(12_345), &json!(12_345)),
        "{stats}"
    );
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(pg.texts("SELECT count(DISTINCT id)::text FROM products").await.unwrap(), ["12345"]);
    assert_eq!(
        pg.texts("SELECT count(*)::text FROM pg_constraint WHERE contype = 'p' AND conrelid = 'products'::regclass").await.unwrap(),
        ["1"]
    );
    let history = server.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    assert_eq!((&history[0]["status"], &history[0]["rowsInserted"]), (&json!("EVENT_LIMIT_REACHED"), &json!(12_345)));

    let (proxy, config, _) = server.config_behind_proxy(&source).await;
    server.change(&config, json!({"limits": {"elapsedTime": 2}})).await;
    let stream = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(500_000).await;
    proxy.hold();
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "TIME_LIMIT_REACHED", "{stats}");
    proxy.release();
    let again = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!(again.status, 200, "after a limit a new start is allowed: {again:?}");
}

#[tokio::test]
async fn queries_arrive_as_tables_of_their_own() {
    let server = Server::start().await;
    let source = small("queries").await;
    let (config, target) = server.config(&source).await;
    let sql = "WITH p AS (SELECT * FROM parent) SELECT p.id, UPPER(p.v) AS big, p.n / 4 AS quarter, COUNT(c.id) AS children, NOW(3) AS seen, NULL AS nothing
        FROM p LEFT JOIN child c ON c.p = p.id GROUP BY p.id ORDER BY p.id;";
    let queries = json!([{"name": "report", "query": sql, "columns": [{"name": "id"}], "validated": true}]);
    let stored = server.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let with = async |queries: Value, tables: Value| {
        let mut body = stored.clone();
        body["source"]["connections"][0]["queries"] = queries;
        body["source"]["connections"][0]["tables"] = tables;
        let answer = server.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    with(queries, json!([])).await;
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    assert_eq!(
        pg.texts("SELECT concat_ws('/', id, big, quarter, children, nothing) FROM report ORDER BY id").await.unwrap(),
        ["1/A/2.5000/1", "2/B/5.0000/0", "3/C/1"]
    );
    assert!(pg.texts("SELECT 1::text FROM parent").await.is_err(), "only the query was asked for");
    for (query, text) in [
        ("SELECT 1 AS a, 2 AS a", "two columns named `a`"),
        ("DELETE FROM child", "returns no rows"),
        ("SELECT * FROM nowhere", "doesn't exist"),
        ("SELECT ? AS a", "placeholders"),
    ] {
        with(json!([{"name": "bad", "query": query}]), json!([])).await;
        let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!(answer.body["details"]["field"], "source.connections[0].queries[0].query", "{query}: {answer:?}");
        assert!(answer.body["error"].as_str().unwrap().contains(text), "{answer:?}");
    }
    assert_eq!(source.texts("SELECT CAST(COUNT(*) AS CHAR) FROM child").await.unwrap(), ["2"]);
    with(json!([{"name": "parent", "query": "SELECT 1 AS a"}]), json!([{"name": "parent"}])).await;
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!(answer.body["details"]["field"], "source.connections[0].queries[0].name", "{answer:?}");
}

#[tokio::test]
async fn several_sources_arrive_under_their_aliases() {
    let servers = shared().await;
    let server = Server::start().await;
    let (one, two) = (small("one").await, small("two").await);
    let (config, target) = server.config(&one).await;
    let from = server.api.connect("second", "mysql", &servers.mysql, &two.name).await.unwrap();
    let mut body = server.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let mut parts = body["source"]["connections"].take();
    parts[0]["alias"] = json!("a");
    parts.as_array_mut().unwrap().push(json!({"alias": "b", "connectionId": from, "tables": [{"name": "parent"}], "queries": [{"name": "q", "query": "SELECT 7 AS seven"}]}));
    body["source"]["connections"] = parts.clone();
    let created = server.api.post("/stream-configs", body.clone()).await.unwrap();
    let config = created.text("id").unwrap();
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    let tables = pg
        .texts("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(tables, ["a_child", "a_parent", "b_parent", "q"]);
    assert_eq!(
        pg.texts("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace")
            .await
            .unwrap()
            .len(),
        1
    );
    parts[1]["tables"] = json!([{"name": "nowhere"}]);
    body["source"]["connections"] = parts;
    let config = server.api.post("/stream-configs", body).await.unwrap().text("id").unwrap();
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!(answer.body["details"]["field"], "source.connections[1].tables[0].name", "{answer:?}");
}

#[tokio::test]
async fn a_long_pause_lets_the_moment_go_and_says_so() {
    let servers = shared().await;
    let server = Server::start().await;
    let source = source("held", &products(200_000)).await;
    for (policy, is_consistent) in [("restart", true), ("continue", false)] {
        let (proxy, config, target) = server.config_behind_proxy(&source).await;
        server.change(&config, json!({"onCutLost": policy, "pauseHold": 1, "parallelism": 2})).await;
        let stream = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
        proxy.wait_for_bytes(8_000_000).await;
        server.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
        server.wait_for_log(&stream, "was let go").await;
        let stats = server.api.get(&format!("/streams/{stream}/stats")).await.unwrap().body;
        assert_eq!(stats["status"], "PAUSED", "{stats}");
        server.api.post(&format!("/streams/{stream}/resume"), Value::Null).await.unwrap();
        let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
        assert_eq!((&stats["status"], &stats["consistentCut"]), (&json!("FINISHED"), &json!(is_consistent)), "{policy} {stats}");
        let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
        let digest = millrace_tests::digest::assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
        assert_eq!(digest.rows, 200_000);
    }
}
