//! Rows that are edited.

use millrace_core::explore::{ChangeRequest, ChangedRows, Explorer, PageRequest, RowChanges, RowEdit, RowKey};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Error, Kind, Result};
use millrace_tests::database::PgDatabase;
use millrace_tests::servers::shared;
use serde_json::{Map, Value, json};

use super::{explored, explorer, object};

const TABLES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE t (k1 int, \"k 2\" text, n numeric, s varchar(3), m mood, j jsonb, f boolean DEFAULT true, a int[], at timestamptz,
        g int GENERATED ALWAYS AS (k1 * 2) STORED, small smallint, PRIMARY KEY (k1, \"k 2\"));
    INSERT INTO t (k1, \"k 2\", n, s, m, j, a, at) VALUES (1, 'a', 1.5, 'x', 'ok', '{\"a\": 1}', '{1}', '2024-01-01');
    INSERT INTO t (k1, \"k 2\") VALUES (1, 'b'), (2, 'a');
    CREATE TABLE keyless (a int, b text, j json); INSERT INTO keyless VALUES (1, 'x', '{}'), (1, NULL, '{}'), (2, 'd', '1'), (2, 'd', '2');
    CREATE TABLE ident (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text NOT NULL DEFAULT 'new');
    CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    INSERT INTO parts VALUES (1, 'one'), (11, 'eleven');
    CREATE TABLE watched (id int PRIMARY KEY, v text); INSERT INTO watched VALUES (1, 'a');
    CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON watched FOR EACH ROW EXECUTE FUNCTION kept();
    CREATE VIEW v AS SELECT * FROM t";

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn edit(keys: Value, changes: Value) -> RowEdit {
    RowEdit { keys: map(keys), changes: map(changes), etag: None }
}

async fn change(explorer: &mut dyn Explorer, table: &str, changes: RowChanges) -> Result<ChangedRows> {
    explorer.change(&ChangeRequest { table: object(table), changes }).await
}

async fn refused(explorer: &mut dyn Explorer, table: &str, changes: RowChanges) -> Error {
    let error = change(explorer, table, changes).await.unwrap_err();
    assert!(explorer.is_reusable());
    error
}

async fn etags(explorer: &mut dyn Explorer, table: &str, numbers: Numbers) -> Vec<String> {
    let mut rows = JsonRows::new(numbers).with_etags();
    explorer
        .page(&PageRequest { object: object(table), limit: 100, is_editable: true, ..PageRequest::default() }, &mut rows)
        .await
        .unwrap();
    rows.take_etags()
}

#[tokio::test]
async fn rows_are_edited_by_their_whole_key_and_answered_as_they_are_stored() {
    let (database, mut explorer) = explored("edits", TABLES).await;
    let changes = json!({"n": "12345678901234567890.5", "s": "äöü", "m": "sad", "j": {"b": [1, null]}, "f": false, "a": "{1,NULL}",
        "at": "2024-02-29 12:00:00+02", "small": 7.0});
    let edits = vec![edit(json!({"k1": 1, "k 2": "a"}), changes), edit(json!({"k 2": "a", "k1": "2"}), json!({"k1": 3, "n": null}))];
    let changed = change(explorer.as_mut(), "t", RowChanges::Edit(edits)).await.unwrap();
    assert_eq!(changed.count, 2);
    assert_eq!(
        changed.rows[0],
        json!({"k1": 1, "k 2": "a", "n": "12345678901234567890.5", "s": "äöü", "m": "sad", "j": "{\"b\": [1, null]}", "f": false, "a": "{1,NULL}",
            "at": "2024-02-29 10:00:00+00", "g": 2, "small": 7})
    );
    assert_eq!((&changed.rows[1]["k1"], &changed.rows[1]["g"]), (&json!(3), &json!(6)));
    assert_eq!(
        database.texts("SELECT concat_ws('/', k1, \"k 2\", n) FROM t ORDER BY k1, 1").await.unwrap(),
        ["1/a/12345678901234567890.5", "1/b", "3/a"]
    );
    let statements = explorer.take_statements();
    assert!(statements.len() == 2 && statements.iter().all(|sql| sql.starts_with("UPDATE") && !sql.contains("äöü")), "{statements:?}");
    let gone = RowChanges::Delete(vec![RowKey { keys: map(json!({"k1": 3, "k 2": "a"})), etag: None }]);
    let changed = change(explorer.as_mut(), "t", gone.clone()).await.unwrap();
    assert_eq!((changed.count, changed.rows.len()), (1, 0));
    let error = refused(explorer.as_mut(), "t", gone).await;
    assert_eq!((error.kind(), error.detail("index")), (Kind::Conflict, Some("0")));
}

#[tokio::test]
async fn all_changes_happen_or_none() {
    let (database, mut explorer) = explored("all", TABLES).await;
    let good = || edit(json!({"k1": 1, "k 2": "a"}), json!({"s": "new"}));
    let missing = vec![good(), edit(json!({"k1": 9, "k 2": "a"}), json!({"s": "y"}))];
    let error = refused(explorer.as_mut(), "t", RowChanges::Edit(missing)).await;
    assert_eq!((error.kind(), error.detail("index")), (Kind::Conflict, Some("1")));
    let taken = vec![good(), edit(json!({"k1": 1, "k 2": "b"}), json!({"k 2": "a"}))];
    let error = refused(explorer.as_mut(), "t", RowChanges::Edit(taken)).await;
    assert_eq!((error.kind(), error.detail("constraint")), (Kind::ConstraintViolated, Some("t_pkey")));
    let wrong = vec![good(), edit(json!({"k1": 1, "k 2": "b"}), json!({"s": "y", "n": "secret"}))];
    let error = refused(explorer.as_mut(), "t", RowChanges::Edit(wrong)).await;
    assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some("edits[1].changes.n")));
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    assert_eq!(database.texts("SELECT s FROM t ORDER BY k1, \"k 2\"").await.unwrap(), ["x", "", ""]);
}

#[tokio::test]
async fn what_is_wrong_with_a_change_is_named() {
    let (_, mut explorer) = explored("wrong", TABLES).await;
    let key = json!({"k1": 1, "k 2": "a"});
    let cases = [
        ("t", key.clone(), json!({"zz": 1}), "edits[0].changes.zz"),
        ("t", key.clone(), json!({"g": 1}), "edits[0].changes.g"),
        ("t", key.clone(), json!({}), "edits[0].changes"),
        ("t", key.clone(), json!({"n": {"a": 1}}), "edits[0].changes.n"),
        ("t", key.clone(), json!({"s": "long"}), "edits[0].changes.s"),
        ("t", key.clone(), json!({"n": 1, "small": 70_000}), "edits[0].changes.small"),
        ("t", key.clone(), json!({"n": 1, "m": "glad"}), "edits[0].changes.m"),
        ("t", key.clone(), json!({"n": 1, "at": "2024-13-01"}), "edits[0].changes.at"),
        ("t", key.clone(), json!({"n": 1, "a": [1]}), "edits[0].changes.a"),
        ("t", key.clone(), json!({"n": 1, "j": "{"}), "edits[0].changes.j"),
        ("t", key, json!({"n": 1, "s": "a\u{0}"}), "edits[0].changes.s"),
        ("t", json!({"k1": 1}), json!({"n": 1}), "edits[0].keys.k 2"),
        ("t", json!({"k1": 1, "k 2": "a", "n": 1.5}), json!({"n": 1}), "edits[0].keys.n"),
        ("t", json!({"k1": "one", "k 2": "a"}), json!({"n": 1}), "edits[0].keys.k1"),
        ("ident", json!({"id": 1}), json!({"id": 2}), "edits[0].changes.id"),
    ];
    for (table, keys, changes, field) in cases {
        let error = refused(explorer.as_mut(), table, RowChanges::Edit(vec![edit(keys, changes.clone())])).await;
        assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some(field)), "{changes} {error:?}");
    }
    for (table, kind) in [("v", Kind::ObjectMissing), ("nowhere", Kind::ObjectMissing)] {
        let error = refused(explorer.as_mut(), table, RowChanges::Edit(vec![edit(json!({}), json!({"n": 1}))])).await;
        assert_eq!(error.kind(), kind);
    }
}

const EXACT: &str = "CREATE DOMAIN price AS numeric(10,2); CREATE DOMAIN cheap AS price CHECK (VALUE < 10);
    CREATE TABLE x (id int PRIMARY KEY, n numeric(10,2), p cheap, free numeric, ns numeric(10,2)[], d date, ds date[], ts timestamp(0), plain timestamp,
        tz timestamptz(3), t time(0), ttz timetz(1), iv interval(0), ym interval year to month, m money, c \"char\", nm name);
    INSERT INTO x (id) VALUES (1); CREATE TABLE by_day (d date PRIMARY KEY, v int); INSERT INTO by_day VALUES ('2024-01-01', 1)";

#[tokio::test]
async fn values_that_would_be_rounded_or_cut_are_refused() {
    let (database, mut explorer) = explored("rounded", EXACT).await;
    let wrong = [
        ("n", json!("1.005")),
        ("n", json!(1.005)),
        ("n", json!("1e-3")),
        ("p", json!("1.005")),
        ("ns", json!("{1.5,1.005}")),
        ("d", json!("2024-01-01 23:59:59")),
        ("d", json!("2024-01-01T00:30")),
        ("d", json!("2024-01-01 00:00:00+05")),
        ("ds", json!("{2024-01-01,\"2024-01-02 12:00\"}")),
        ("ts", json!("2024-01-01 00:00:00.6")),
        ("ts", json!("2024-01-01 12:00:00+02")),
        ("plain", json!("2024-01-01 12:00:00+02")),
        ("plain", json!("2024-01-01T12:00:00-05:30")),
        ("plain", json!("2024-01-01 12:00:00.1234567")),
        ("tz", json!("2024-01-01 12:00:00.1234+00")),
        ("tz", json!("2024-01-01 12:00:00.12300004")),
        ("t", json!("12:00:00.5")),
        ("t", json!("12:00:00+02")),
        ("t", json!("2024-01-01 12:00:00")),
        ("ttz", json!("12:00:00.55+02")),
        ("iv", json!("1.5 seconds")),
        ("ym", json!("1 year 3 days")),
        ("m", json!("1.005")),
        ("c", json!("ab")),
        ("nm", json!("x".repeat(64))),
    ];
    for (column, value) in &wrong {
        let changes = json!({*column: value});
        let error = refused(explorer.as_mut(), "x", RowChanges::Edit(vec![edit(json!({"id": 1}), changes.clone())])).await;
        let field = format!("edits[0].changes.{column}");
        assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some(field.as_str())), "{changes} {error:?}");
        let mut row = map(changes.clone());
        row.insert("id".into(), json!(2));
        let error = refused(explorer.as_mut(), "x", RowChanges::Insert(vec![map(json!({"id": 3, "n": "1.5"})), row])).await;
        let field = format!("inserts[1].values.{column}");
        assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some(field.as_str())), "{changes} {error:?}");
    }
    assert_eq!(database.texts("SELECT x::text FROM x").await.unwrap(), ["(1,,,,,,,,,,,,,,,,)"]);
    // A day with a time of day names no row.
    let key = edit(json!({"d": "2024-01-01 12:00"}), json!({"v": 2}));
    let error = refused(explorer.as_mut(), "by_day", RowChanges::Edit(vec![key])).await;
    assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some("edits[0].keys.d")));
}

#[tokio::test]
async fn values_that_fit_are_stored_as_they_are() {
    let (database, mut explorer) = explored("exact", EXACT).await;
    let right = [
        ("n", json!("1.500"), "1.50"),
        ("n", json!(12_345_678.9), "12345678.90"),
        ("n", json!("NaN"), "NaN"),
        ("p", json!("9.90"), "9.90"),
        ("free", json!("1.00500000000000000000000001"), "1.00500000000000000000000001"),
        ("ns", json!("{1.5,NULL,2}"), "{1.50,NULL,2.00}"),
        ("d", json!("2024-01-01 00:00:00"), "2024-01-01"),
        ("d", json!("300000-01-01"), "300000-01-01"),
        ("d", json!("infinity"), "infinity"),
        ("ts", json!("2024-01-01T12:00:00.000Z"), "2024-01-01 12:00:00"),
        ("plain", json!("2024-01-01 12:00:00.123456"), "2024-01-01 12:00:00.123456"),
        ("plain", json!("-infinity"), "-infinity"),
        ("t", json!("12:00"), "12:00:00"),
        ("t", json!("24:00:00"), "24:00:00"),
        ("ttz", json!("12:00:00.5+02"), "12:00:00.5+02"),
        ("iv", json!("1 day 02:00"), "1 day 02:00:00"),
        ("m", json!("1.05"), "$1.05"),
        ("c", json!("a"), "a"),
        ("nm", json!("name"), "name"),
    ];
    for (column, value, stored) in right {
        let changes = json!({column: value});
        change(explorer.as_mut(), "x", RowChanges::Edit(vec![edit(json!({"id": 1}), changes.clone())])).await.unwrap();
        assert_eq!(database.texts(&format!("SELECT {column}::text FROM x")).await.unwrap(), [stored], "{changes}");
    }
    let changes = json!({"tz": "2024-01-01 12:00:00.123+02", "d": "300000-01-01", "n": 2.5});
    let changed = change(explorer.as_mut(), "x", RowChanges::Edit(vec![edit(json!({"id": 1}), changes)])).await.unwrap();
    assert_eq!(changed.rows[0]["tz"], json!("2024-01-01 10:00:00.123+00"));
}

#[tokio::test]
async fn numbers_are_read_by_their_digits() {
    let (database, mut explorer) = explored("digits", "CREATE TABLE x (id bigint PRIMARY KEY, n numeric)").await;
    for text in [r#"{"id": 1e3, "n": 1e-5}"#, r#"{"id": 7.0, "n": 0.5}"#, r#"{"id": 15.00e2, "n": 2.50}"#] {
        let row: Map<String, Value> = serde_json::from_str(text).unwrap();
        change(explorer.as_mut(), "x", RowChanges::Insert(vec![row])).await.unwrap();
    }
    let stored = database.texts("SELECT id || ' ' || trim_scale(n) FROM x ORDER BY id").await.unwrap();
    assert_eq!(stored, ["7 0.5", "1000 0.00001", "1500 2.5"]);
}

#[tokio::test]
async fn rows_of_a_keyless_table_are_known_by_all_their_values() {
    let (database, mut explorer) = explored("keyless", TABLES).await;
    let one = vec![edit(json!({"a": 1, "b": null}), json!({"b": "y"}))];
    let changed = change(explorer.as_mut(), "keyless", RowChanges::Edit(one)).await.unwrap();
    assert_eq!(changed.rows, [json!({"a": 1, "b": "y", "j": "{}"})]);
    let twins = vec![RowKey { keys: map(json!({"a": 2, "b": "d"})), etag: None }];
    let error = refused(explorer.as_mut(), "keyless", RowChanges::Delete(twins)).await;
    assert_eq!((error.kind(), error.detail("index")), (Kind::Conflict, Some("0")));
    assert_eq!(database.texts("SELECT count(*)::text FROM keyless").await.unwrap(), ["4"]);
}

#[tokio::test]
async fn rows_are_inserted_with_defaults_and_put_in_the_place_of_others() {
    let (database, mut explorer) = explored("inserts", TABLES).await;
    let rows = vec![map(json!({})), map(json!({"v": "b"}))];
    let changed = change(explorer.as_mut(), "ident", RowChanges::Insert(rows)).await.unwrap();
    assert_eq!((changed.count, changed.rows), (2, vec![json!({"id": 1, "v": "new"}), json!({"id": 2, "v": "b"})]));
    let error = refused(explorer.as_mut(), "ident", RowChanges::Insert(vec![map(json!({"id": 9}))])).await;
    assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some("inserts[0].values.id")));
    let error = refused(explorer.as_mut(), "ident", RowChanges::Insert(vec![map(json!({"v": "c"})), map(json!({"v": null}))])).await;
    assert_eq!((error.kind(), error.detail("column")), (Kind::ConstraintViolated, Some("v")));
    assert_eq!(database.texts("SELECT count(*)::text FROM ident").await.unwrap(), ["2"]);
    let rows = vec![map(json!({"k1": 1, "k 2": "a", "s": "up"})), map(json!({"k1": 8, "k 2": "z"})), map(json!({"k1": 1, "k 2": "b"}))];
    let changed = change(explorer.as_mut(), "t", RowChanges::Upsert(rows)).await.unwrap();
    assert_eq!((changed.count, &changed.rows[0]["s"], &changed.rows[0]["n"]), (3, &json!("up"), &json!(1.5)));
    let error = refused(explorer.as_mut(), "t", RowChanges::Upsert(vec![map(json!({"k1": 1}))])).await;
    assert_eq!(error.field_name(), Some("inserts[0].values.k 2"));
    assert_eq!(refused(explorer.as_mut(), "keyless", RowChanges::Upsert(vec![map(json!({"a": 1}))])).await.kind(), Kind::Invalid);
}

#[tokio::test]
async fn rows_of_partitions_and_rows_that_triggers_keep() {
    let (database, mut explorer) = explored("parts", TABLES).await;
    let edits = vec![edit(json!({"id": 1}), json!({"id": 12})), edit(json!({"id": 11}), json!({"v": "x"}))];
    change(explorer.as_mut(), "parts", RowChanges::Edit(edits)).await.unwrap();
    assert_eq!(database.texts("SELECT concat_ws('/', id, v) FROM parts2 ORDER BY id").await.unwrap(), ["11/x", "12/one"]);
    for changes in [
        RowChanges::Edit(vec![edit(json!({"id": 1}), json!({"v": "b"}))]),
        RowChanges::Delete(vec![RowKey { keys: map(json!({"id": 1})), etag: None }]),
    ] {
        assert_eq!(refused(explorer.as_mut(), "watched", changes).await.kind(), Kind::Conflict);
    }
}

/// Commits what the database's own connection has begun, once somebody waits for it.
async fn released(database: &PgDatabase) {
    let watcher = PgDatabase::open(&shared().await.postgres, &database.name).await.unwrap();
    let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while watcher.texts(sql).await.unwrap() == ["0"] {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    database.client.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn the_slower_of_two_editors_is_told() {
    let (database, mut first) = explored("editors", TABLES).await;
    let mut second = explorer(&database.name).await;
    for numbers in [Numbers::StringIfInexact, Numbers::Exact] {
        let etag = etags(first.as_mut(), "t", numbers).await.remove(0);
        let with_etag = |value: &str| {
            let mut edit = edit(json!({"k1": 1, "k 2": "a"}), json!({"s": value}));
            edit.etag = Some(etag.clone());
            RowChanges::Edit(vec![edit])
        };
        change(second.as_mut(), "t", with_etag("two")).await.unwrap();
        let error = refused(first.as_mut(), "t", with_etag("one")).await;
        assert_eq!((error.kind(), error.detail("reason"), error.detail("index")), (Kind::Conflict, Some("etag"), Some("0")));
        database.client.batch_execute("UPDATE t SET s = 'x'").await.unwrap();
    }
    // Who waits for a lock compares with what the other has left, and never writes over it.
    let etag = etags(first.as_mut(), "t", Numbers::StringIfInexact).await.remove(0);
    database.client.batch_execute("BEGIN; UPDATE t SET s = 'it' WHERE k1 = 1 AND \"k 2\" = 'a'").await.unwrap();
    let release = released(&database);
    let mut late = edit(json!({"k1": 1, "k 2": "a"}), json!({"s": "me"}));
    late.etag = Some(etag);
    let (outcome, ()) = tokio::join!(change(first.as_mut(), "t", RowChanges::Edit(vec![late.clone()])), release);
    assert_eq!(outcome.unwrap_err().detail("reason"), Some("etag"));
    // Without an etag the change meets the row as it is then.
    database.client.batch_execute("BEGIN; UPDATE t SET n = 77 WHERE k1 = 1 AND \"k 2\" = 'a'").await.unwrap();
    let release = released(&database);
    late.etag = None;
    let (outcome, ()) = tokio::join!(change(first.as_mut(), "t", RowChanges::Edit(vec![late])), release);
    assert_eq!((&outcome.as_ref().unwrap().rows[0]["s"], &outcome.as_ref().unwrap().rows[0]["n"]), (&json!("me"), &json!(77)));
}
