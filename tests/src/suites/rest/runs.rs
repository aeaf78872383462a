//! Runs: selected, planned, stopped, paused, cut off, watched.

use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, source};
use crate::database::{MySqlDatabase, PgDatabase};
use crate::dataset::products;
use crate::digest::assert_equal;
use crate::proxy::FaultProxy;
use crate::servers::shared;

/// Columns, filters, sorts, limits.
pub async fn selections_choose_columns_and_rows_by_every_operator(place: &Place) {
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
    // One run copies them all: a table for each operator.
    let mut chosen = Vec::new();
    for (index, (column, operator, value, _)) in table.iter().enumerate() {
        source.execute(&[format!("CREATE TABLE t{index} LIKE t"), format!("INSERT INTO t{index} SELECT * FROM t")]).await.unwrap();
        let filter = json!({"id": "f1", "column": column, "operator": operator, "value": value});
        let selection = json!({"selectedColumns": ["id"], "filters": [filter], "sorts": [], "limit": null});
        chosen.push(json!({"name": format!("t{index}"), "selection": selection, "selected": true}));
    }
    let newest = json!({"selectedColumns": ["name", "day"], "sorts": [{"column": "id", "direction": "DESC"}], "limit": 2});
    chosen.push(json!({"name": "t", "selection": newest, "selected": true}));
    let few = json!({"filters": [{"column": "v", "operator": "<", "value": "10"}]});
    chosen.push(json!({"name": "many", "selection": few, "selected": true}));
    let (config, target) = place.config(&source).await;
    let stored = place.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let mut body = stored.clone();
    body["source"]["connections"][0]["tables"] = json!(chosen);
    assert_eq!(place.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap().status, 200);
    let stats = place.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    for (index, (column, operator, value, ids)) in table.iter().enumerate() {
        let found = pg.texts(&format!("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM t{index}")).await.unwrap();
        assert_eq!(found, [*ids], "{column} {operator} {value}");
    }
    assert_eq!(pg.texts("SELECT name FROM t").await.unwrap(), ["under_score", "ünder"]);
    // Only this table has lost it.
    assert!(stats["notices"].to_string().contains("not selected: the primary key, the index `by_secret`"), "{stats}");
    // A filter holds in every split.
    assert_eq!(pg.texts("SELECT count(*)::text FROM many").await.unwrap(), ["6000"]);
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
        place.api.call(Method::PUT, &format!("/stream-configs/{config}"), Some(body)).await.unwrap();
        let answer = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!(answer.body["details"]["field"], format!("source.connections[0].tables[0].{field}"), "{answer:?}");
    }
}

/// Answers the source and the target of the plan, for those who can also ask elsewhere.
pub async fn a_plan_shows_every_verdict_and_makes_nothing(place: &Place) -> (MySqlDatabase, String) {
    let statements: Vec<String> = [
        "CREATE TABLE t (id INT UNSIGNED PRIMARY KEY, d DATE, n DATETIME NOT NULL, p POINT, clock TIME, span TIME, v VARCHAR(5), CONSTRAINT c CHECK (id / 2 > 0))",
        "INSERT INTO t (id, n, clock, span) VALUES (1, '2020-01-01', '01:00:00', '-01:00:00')",
        "CREATE VIEW w AS SELECT 1",
    ]
    .map(str::to_owned)
    .into();
    let source = source("planned", &statements).await;
    let (config, target) = place.config(&source).await;
    let plan = place.api.post(&format!("/stream-configs/{config}/plan"), Value::Null).await.unwrap();
    assert_eq!(plan.status, 200, "{plan:?}");
    let columns: Vec<(&str, &str, &str)> = plan.body["tables"][0]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["to"].as_str().unwrap(), column["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(
        columns,
        [
            ("id", "bigint", "widened"),
            ("d", "date", "policy(null)"),
            ("n", "timestamp(0) without time zone", "policy(error)"),
            ("p", "bytea", "exact"),
            ("clock", "time(0) without time zone", "exact"),
            ("span", "interval(0)", "exact"),
            ("v", "character varying(5)", "exact"),
        ]
    );
    assert!(plan.body["tables"][0]["refusals"][0].as_str().unwrap().contains("check `c`"), "{plan:?}");
    assert!(plan.body["notes"][0].as_str().unwrap().contains("view `w`"), "{plan:?}");
    let made = crate::database::pg_client(&shared().await.postgres, &target).await;
    assert!(made.is_err(), "a plan makes no database");
    (source, target)
}

/// Structure options.
pub async fn unwanted_structure_is_left_out_and_refuses_nothing(place: &Place) {
    let statements: Vec<String> = [
        "CREATE TABLE parent (id INT PRIMARY KEY AUTO_INCREMENT, e ENUM('a') NOT NULL, v INT, CONSTRAINT odd CHECK (v / 2 >= 0))",
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, KEY by_p (p), CONSTRAINT fk FOREIGN KEY (p) REFERENCES parent (id))",
        "INSERT INTO parent VALUES (41, 'a', 1)",
        "INSERT INTO child VALUES (1, 41)",
    ]
    .map(str::to_owned)
    .into();
    let source = source("structure", &statements).await;
    let (config, target) = place.config(&source).await;
    let start = format!("/stream-configs/{config}/start");
    let refused = place.api.post(&start, Value::Null).await.unwrap();
    assert_eq!((refused.status, refused.body["code"].as_str()), (422, Some("PLAN_REFUSED")), "{refused:?}");
    let stored = place.api.get(&format!("/stream-configs/{config}")).await.unwrap().body;
    let change = async |db: Value| {
        let mut body = stored.clone();
        body["target"]["spec"]["db"] = db;
        let path = format!("/stream-configs/{config}");
        assert_eq!(place.api.call(Method::PUT, &path, Some(body)).await.unwrap().status, 200);
    };
    let none = json!({"indexes": false, "foreignKeys": false, "checkConstraints": false});
    change(json!({"database": target, "schema": "bare", "structureOptions": none})).await;
    assert_eq!(place.run(&config).await["status"], "FINISHED");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    let constraints = pg.texts("SELECT contype::text FROM pg_constraint WHERE connamespace = 'bare'::regnamespace").await.unwrap();
    assert_eq!(constraints, ["p", "p"]);
    assert_eq!(pg.texts("SELECT count(*)::text FROM pg_indexes WHERE schemaname = 'bare'").await.unwrap(), ["2"]);
    assert_eq!(pg.texts("SELECT p::text FROM bare.child").await.unwrap(), ["41"]);

    change(json!({"database": target, "schema": "empty", "skipData": true, "structureOptions": {"checkConstraints": false}})).await;
    let stats = place.run(&config).await;
    assert_eq!((&stats["status"], &stats["target"]["counter"]), (&json!("FINISHED"), &json!(0)), "{stats}");
    assert_eq!(pg.texts("SELECT count(*)::text FROM empty.parent").await.unwrap(), ["0"]);
    let keys =
        pg.texts("SELECT conname::text FROM pg_constraint WHERE contype = 'f' AND connamespace = 'empty'::regnamespace").await.unwrap();
    assert_eq!(keys, ["fk"]);
    let next = pg.texts("INSERT INTO empty.parent (e) VALUES ('other') RETURNING id::text").await.unwrap();
    assert_eq!(next, ["42"]);

    change(json!({"database": target, "structureOptions": {"tables": false}})).await;
    let refused = place.api.post(&start, Value::Null).await.unwrap();
    assert_eq!(
        (refused.status, refused.body["details"]["field"].as_str()),
        (409, Some("target.spec.db.structureOptions.tables")),
        "{refused:?}"
    );
}

/// A run that is paused halfway.
pub struct PausedRun {
    source: MySqlDatabase,
    config: String,
    target: String,
    stream: String,
    _proxy: FaultProxy,
}

/// Starts a run and pauses it halfway.
pub async fn a_run_is_paused_halfway(place: &Place) -> PausedRun {
    let source = source("stopped", &products(200_000)).await;
    let (proxy, config, target) = place.config_behind_proxy(&source).await;
    let start = format!("/stream-configs/{config}/start");
    let stream = place.api.post(&start, Value::Null).await.unwrap().text("id").unwrap();
    proxy.hold_at(2_000_000).await;
    let paused = place.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
    assert_eq!(paused.body["status"], "PAUSED");
    proxy.release();
    PausedRun { source, config, target, stream, _proxy: proxy }
}

/// The paused run is stopped, whatever has become of the servers since.
pub async fn a_stopped_run_clears_the_gate_and_the_next_start_replaces_what_it_left(place: &Place, run: PausedRun) {
    let PausedRun { source, config, target, stream, _proxy } = run;
    let start = format!("/stream-configs/{config}/start");
    let stopped = place.api.post(&format!("/streams/{stream}/stop?force=true"), Value::Null).await.unwrap();
    assert_eq!(stopped.body["status"], "STOPPED", "{stopped:?}");
    let stats = place.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
    // A finished run's tables are the user's: the next start must not touch them.
    let again = place.api.post(&start, Value::Null).await.unwrap();
    assert_eq!((again.status, again.body["code"].as_str()), (409, Some("TARGET_CONFLICT")));
    let history = place.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
    let states: Vec<&str> = history.as_array().unwrap().iter().filter_map(|run| run["status"].as_str()).collect();
    assert_eq!(states, ["FINISHED", "STOPPED"]);
    let run = history[1]["id"].as_str().unwrap();
    let deleted = place.api.call(Method::DELETE, &format!("/stream-configs/{config}/runs/{run}"), None).await.unwrap();
    assert_eq!(deleted.status, 200);
}

/// The network to the target breaks.
pub async fn a_target_connection_that_breaks_is_opened_again_and_no_row_is_lost_or_doubled(place: &Place) {
    let source = source("cut", &products(200_000)).await;
    let (proxy, slow) = place.proxy(&shared().await.postgres).await;
    let target = crate::database::unique("cut");
    let from = place.api.connect("from", "mysql", &place.mysql, &source.name).await.unwrap();
    let to = place.api.connect("to", "postgresql", &slow, &target).await.unwrap();
    let config = place.api.convert(&from, &source.name, &to, &target).await.unwrap();
    let stream = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
    proxy.wait_for_bytes(4_000_000).await;
    proxy.cut();
    let stats = place.api.wait_for_end(&stream, place.patience).await.unwrap();
    assert_eq!((&stats["status"], &stats["source"]["counter"]), (&json!("FINISHED"), &json!(200_000)), "{stats}");
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
}

/// The network to the source breaks.
pub async fn a_source_connection_that_breaks_is_opened_again_at_a_new_moment(place: &Place) {
    let source = source("lost", &products(200_000)).await;
    for (policy, is_consistent) in [("restart", true), ("continue", false)] {
        let (proxy, config, target) = place.config_behind_proxy(&source).await;
        place.change(&config, json!({"onCutLost": policy, "parallelism": 2})).await;
        let stream = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
        proxy.wait_for_bytes(8_000_000).await;
        proxy.cut();
        let stats = place.api.wait_for_end(&stream, place.patience).await.unwrap();
        assert_eq!(stats["status"], "FINISHED", "{stats}");
        assert_eq!((&stats["cutsLost"], &stats["consistentCut"]), (&json!(1), &json!(is_consistent)), "{policy} {stats}");
        assert!(stats["notices"].to_string().contains("moment was lost"), "{stats}");
        let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
        assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
    }
}

/// Pause and resume.
pub async fn a_paused_run_goes_on_where_it_was(place: &Place) {
    let source = source("paused", &products(200_000)).await;
    let (proxy, config, target) = place.config_behind_proxy(&source).await;
    let stream = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
    proxy.hold_at(1_000_000).await;
    for _ in 0..2 {
        let paused = place.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
        assert_eq!((paused.status, paused.body["status"].as_str()), (200, Some("PAUSED")));
    }
    assert_eq!(place.api.get(&format!("/streams/{stream}/stats")).await.unwrap().body["status"], "PAUSED");
    proxy.release();
    place.api.post(&format!("/streams/{stream}/resume"), Value::Null).await.unwrap();
    let stats = place.api.wait_for_end(&stream, place.patience).await.unwrap();
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let late = place.api.post(&format!("/streams/{stream}/pause"), Value::Null).await.unwrap();
    assert_eq!((late.status, late.body["code"].as_str()), (409, Some("CONFLICT")));
    let pg = PgDatabase::open(&shared().await.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap().rows, 200_000);
}

/// Server-sent events and stored records; answers the open event stream.
pub async fn log_records_of_a_run_are_streamed_and_kept(place: &Place) -> BoxStream<'static, Value> {
    let source = source("logs", &products(20_000)).await;
    let (config, _) = place.config(&source).await;
    let mut records = place.api.events("/logs/stream").await.unwrap();
    let stats = place.run(&config).await;
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
    let stored = place.api.get(&format!("/streams/{stream}/logs?level=info&limit=2")).await.unwrap().body;
    assert_eq!(stored.as_array().unwrap().len(), 2);
    records
}
