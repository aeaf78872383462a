//! Changes of rows: exactly those that are named.

use millrace_core::explore::{ChangeRequest, ChangedRows, Explorer, PageRequest, RowChanges, RowEdit, RowKey};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Kind, Result};
use serde_json::{Map, Value, json};

use super::{explored, explorer, object, rows_of};

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn edit(keys: Value, changes: Value) -> RowEdit {
    RowEdit { keys: map(keys), changes: map(changes), etag: None }
}

fn key(keys: Value) -> RowKey {
    RowKey { keys: map(keys), etag: None }
}

async fn change(explorer: &mut Box<dyn Explorer>, changes: RowChanges) -> Result<ChangedRows> {
    explorer.change(&ChangeRequest { table: object("t"), changes }).await
}

#[tokio::test]
async fn composite_keys_name_one_row_each() {
    let (_database, mut explorer) = explored(
        "composite",
        &["CREATE TABLE t (a INT, b VARCHAR(5), c INT, PRIMARY KEY (a, b))", "INSERT INTO t VALUES (1,'x',1),(1,'y',2),(2,'x',3)"],
    )
    .await;
    let changed =
        change(&mut explorer, RowChanges::Edit(vec![edit(json!({"a": 1, "b": "y"}), json!({"b": "z", "c": null}))])).await.unwrap();
    assert_eq!((changed.count, changed.rows), (1, vec![json!({"a": 1, "b": "z", "c": null})]));
    change(&mut explorer, RowChanges::Delete(vec![key(json!({"a": 2, "b": "x"}))])).await.unwrap();
    assert_eq!(rows_of(&mut explorer, "t").await.0, [json!([1, "x", 1]), json!([1, "z", null])]);
    for (keys, kind) in [
        (json!({"a": 1}), Kind::Invalid),
        (json!({"a": 1, "b": "x", "c": 1}), Kind::Invalid),
        (json!({"a": 1, "b": "x", "nope": 1}), Kind::Invalid),
        (json!({"a": 9, "b": "x"}), Kind::Conflict),
        (json!({"a": "1 OR 1=1", "b": "x"}), Kind::Invalid),
        (json!({"a": null, "b": "x"}), Kind::Conflict),
        (json!({}), Kind::Invalid),
    ] {
        let error = change(&mut explorer, RowChanges::Delete(vec![key(keys.clone())])).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{keys}: {error:?}");
        assert!(explorer.is_reusable());
    }
    assert_eq!(rows_of(&mut explorer, "t").await.0.len(), 2);
}

#[tokio::test]
async fn one_wrong_change_takes_all_back() {
    let (_database, mut explorer) =
        explored("all_or_none", &["CREATE TABLE t (a INT PRIMARY KEY, b INT)", "INSERT INTO t VALUES (1,1),(2,2)"]).await;
    let edits = vec![edit(json!({"a": 1}), json!({"b": 10})), edit(json!({"a": 3}), json!({"b": 30}))];
    let error = change(&mut explorer, RowChanges::Edit(edits)).await.unwrap_err();
    assert_eq!((error.kind(), error.detail("index")), (Kind::Conflict, Some("1")));
    let deletes = vec![key(json!({"a": 1})), key(json!({"a": 1}))];
    assert_eq!(change(&mut explorer, RowChanges::Delete(deletes)).await.unwrap_err().kind(), Kind::Conflict);
    let inserts = vec![map(json!({"a": 3, "b": 3})), map(json!({"a": 1, "b": 3}))];
    let error = change(&mut explorer, RowChanges::Insert(inserts)).await.unwrap_err();
    assert_eq!((error.kind(), error.detail("index")), (Kind::ConstraintViolated, Some("1")));
    assert_eq!(rows_of(&mut explorer, "t").await.0, [json!([1, 1]), json!([2, 2])]);
}

#[tokio::test]
async fn neighbouring_numbers_are_told_apart() {
    let (_database, mut explorer) = explored(
        "neighbours",
        &[
            "CREATE TABLE t (a BIGINT PRIMARY KEY, b INT)",
            "INSERT INTO t VALUES (9223372036854775807, 1), (9223372036854775806, 2), (9223372036854775805, 3)",
            "CREATE TABLE u (a BIGINT UNSIGNED PRIMARY KEY)",
            "INSERT INTO u VALUES (18446744073709551615), (18446744073709551614)",
            "CREATE TABLE d (a DECIMAL(65,30) PRIMARY KEY)",
            "INSERT INTO d VALUES (12345678901234567890123456789012345.123456789012345678901234567891), (12345678901234567890123456789012345.123456789012345678901234567890),
                (99999999999999999999999999999999999.999999999999999999999999999999)",
            "CREATE TABLE m (a DECIMAL(10,2) PRIMARY KEY)",
            "INSERT INTO m VALUES (1.51), (0.00), (99999999.99)",
        ],
    )
    .await;
    change(&mut explorer, RowChanges::Edit(vec![edit(json!({"a": "9223372036854775806"}), json!({"b": 20}))])).await.unwrap();
    change(&mut explorer, RowChanges::Delete(vec![key(json!({"a": "9223372036854775807"}))])).await.unwrap();
    assert_eq!(rows_of(&mut explorer, "t").await.0, [json!(["9223372036854775805", 3]), json!(["9223372036854775806", 20])]);
    for (table, wanted, left) in [
        ("u", json!("18446744073709551614"), vec![json!(["18446744073709551615"])]),
        (
            "d",
            json!("12345678901234567890123456789012345.12345678901234567890123456789"),
            vec![
                json!(["12345678901234567890123456789012345.123456789012345678901234567891"]),
                json!(["99999999999999999999999999999999999.999999999999999999999999999999"]),
            ],
        ),
    ] {
        let request = ChangeRequest { table: object(table), changes: RowChanges::Delete(vec![key(json!({"a": wanted}))]) };
        explorer.change(&request).await.unwrap();
        assert_eq!(rows_of(&mut explorer, table).await.0, left, "{table}");
    }
    // What would be rounded or clamped into a key is no key.
    for (table, near) in [
        ("m", "1.505"),
        ("m", "1e-9"),
        ("m", "1e70"),
        ("d", "1e70"),
        ("d", "99999999999999999999999999999999999.9999999999999999999999999999999"),
    ] {
        let request = ChangeRequest { table: object(table), changes: RowChanges::Delete(vec![key(json!({"a": near}))]) };
        assert!(explorer.change(&request).await.is_err(), "{table} {near}");
    }
    assert_eq!((rows_of(&mut explorer, "m").await.0.len(), rows_of(&mut explorer, "d").await.0.len()), (3, 2));
}

#[tokio::test]
async fn rows_without_a_key_must_be_alone() {
    let (_database, mut explorer) = explored(
        "no_key",
        &[
            "CREATE TABLE t (a INT, b VARCHAR(10), f FLOAT, g INT GENERATED ALWAYS AS (a * 2))",
            "INSERT INTO t (a, b, f) VALUES (1, 'x', 0.1), (1, 'x', 0.1), (1, 'X', 0.1), (1, 'x ', 0.1), (1, NULL, 16777216)",
        ],
    )
    .await;
    let row = |b: Value, f: Value| json!({"a": 1, "b": b, "f": f, "g": 2});
    let error = change(&mut explorer, RowChanges::Delete(vec![key(row(json!("x"), json!(0.1)))])).await.unwrap_err();
    assert_eq!((error.kind(), error.detail("index")), (Kind::Conflict, Some("0")));
    let changed =
        change(&mut explorer, RowChanges::Edit(vec![edit(row(json!("X"), json!(0.1)), json!({"a": 5, "f": 0.7}))])).await.unwrap();
    assert_eq!(changed.rows, [json!({"a": 5, "b": "X", "f": 0.7, "g": 10})]);
    change(&mut explorer, RowChanges::Delete(vec![key(row(json!("x "), json!(0.1)))])).await.unwrap();
    change(&mut explorer, RowChanges::Delete(vec![key(row(Value::Null, json!(16_777_216)))])).await.unwrap();
    let mut left = rows_of(&mut explorer, "t").await.0;
    left.sort_by_key(Value::to_string);
    assert_eq!(left, [json!([1, "x", 0.1, 2]), json!([1, "x", 0.1, 2]), json!([5, "X", 0.7, 10])]);
}

#[tokio::test]
async fn of_two_editors_the_later_one_learns_of_the_earlier() {
    let (database, mut one) = explored("editors", &["CREATE TABLE t (a INT PRIMARY KEY, b TEXT)", "INSERT INTO t VALUES (1, 'old')"]).await;
    let mut two = explorer(&database.name).await;
    let etag = rows_of(&mut one, "t").await.1.remove(0);
    let edit = |text: &str| RowEdit { etag: Some(etag.clone()), ..edit(json!({"a": 1}), json!({"b": text})) };
    let (first, second) =
        tokio::join!(change(&mut one, RowChanges::Edit(vec![edit("one")])), change(&mut two, RowChanges::Edit(vec![edit("two")])));
    let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
    let error = lost.unwrap_err();
    assert_eq!((error.kind(), error.detail("reason")), (Kind::Conflict, Some("etag")));
    let stored = won.unwrap().rows.remove(0);
    assert_eq!(rows_of(&mut one, "t").await.0, [json!([1, stored["b"]])]);
    let delete = RowKey { etag: Some(etag), ..key(json!({"a": 1})) };
    assert_eq!(change(&mut two, RowChanges::Delete(vec![delete])).await.unwrap_err().detail("reason"), Some("etag"));
    let etag = rows_of(&mut one, "t").await.1.remove(0);
    change(&mut two, RowChanges::Delete(vec![RowKey { etag: Some(etag), ..key(json!({"a": 1})) }])).await.unwrap();
}

#[tokio::test]
async fn etags_hold_in_either_form_of_numbers() {
    let (_database, mut explorer) =
        explored("etag_forms", &["CREATE TABLE t (a BIGINT PRIMARY KEY, b INT)", "INSERT INTO t VALUES (9223372036854775807, 1)"]).await;
    for (numbers, value) in [(Numbers::Exact, 2), (Numbers::StringIfInexact, 3)] {
        let mut rows = JsonRows::new(numbers).with_etags();
        let request = PageRequest { object: object("t"), limit: 10, is_editable: true, ..PageRequest::default() };
        explorer.page(&request, &mut rows).await.unwrap();
        let etag = rows.take_etags().remove(0);
        let with_etag = RowEdit { etag: Some(etag), ..edit(json!({"a": "9223372036854775807"}), json!({"b": value})) };
        change(&mut explorer, RowChanges::Edit(vec![with_etag.clone()])).await.unwrap();
        let error = change(&mut explorer, RowChanges::Edit(vec![with_etag])).await.unwrap_err();
        assert_eq!(error.detail("reason"), Some("etag"), "{numbers:?}");
    }
}

#[tokio::test]
async fn text_keys_follow_their_collation() {
    let (_database, mut explorer) = explored(
        "collations",
        &[
            "CREATE TABLE t (a VARCHAR(10) COLLATE utf8mb4_general_ci PRIMARY KEY, b INT)",
            "INSERT INTO t VALUES ('Abc', 1), ('abd', 2)",
            "CREATE TABLE c (a VARCHAR(10) COLLATE utf8mb4_nopad_bin PRIMARY KEY, b INT)",
            "INSERT INTO c VALUES ('x', 1), ('x ', 2), ('X', 3)",
            "CREATE TABLE l (a VARCHAR(10) CHARACTER SET latin1 PRIMARY KEY)",
            "INSERT INTO l VALUES ('größe'), ('grosse')",
        ],
    )
    .await;
    let changed = change(&mut explorer, RowChanges::Edit(vec![edit(json!({"a": "ABC"}), json!({"a": "ABC", "b": 5}))])).await.unwrap();
    assert_eq!(changed.rows, [json!({"a": "ABC", "b": 5})]);
    let request = ChangeRequest { table: object("c"), changes: RowChanges::Delete(vec![key(json!({"a": "x "}))]) };
    explorer.change(&request).await.unwrap();
    assert_eq!(rows_of(&mut explorer, "c").await.0.len(), 2);
    assert!(rows_of(&mut explorer, "c").await.0.contains(&json!(["x", 1])));
    let request = ChangeRequest { table: object("l"), changes: RowChanges::Delete(vec![key(json!({"a": "größe"}))]) };
    explorer.change(&request).await.unwrap();
    assert_eq!(rows_of(&mut explorer, "l").await.0, [json!(["grosse"])]);
    let request = ChangeRequest { table: object("l"), changes: RowChanges::Delete(vec![key(json!({"a": "☃"}))]) };
    assert_eq!(explorer.change(&request).await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn inserts_answer_the_stored_row_and_upserts_meet_the_primary_key() {
    let (_database, mut explorer) = explored(
        "inserts",
        &["CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(10) NOT NULL DEFAULT 'none', code INT UNIQUE, big INT GENERATED ALWAYS AS (id * 10) VIRTUAL)"],
    )
    .await;
    let stored = change(&mut explorer, RowChanges::Insert(vec![map(json!({})), map(json!({"name": "x", "code": 7}))])).await.unwrap();
    assert_eq!(
        stored.rows,
        [json!({"id": 1, "name": "none", "code": null, "big": 10}), json!({"id": 2, "name": "x", "code": 7, "big": 20})]
    );
    let stored = change(&mut explorer, RowChanges::Insert(vec![map(json!({"ID": null, "name": "y"}))])).await.unwrap();
    assert_eq!(stored.rows, [json!({"id": 3, "name": "y", "code": null, "big": 30})]);
    let upserts = vec![map(json!({"id": 2, "name": "new"})), map(json!({"id": 9, "name": "nine"})), map(json!({"id": 1}))];
    let stored = change(&mut explorer, RowChanges::Upsert(upserts)).await.unwrap();
    assert_eq!(
        (stored.count, &stored.rows[0], &stored.rows[1]["name"]),
        (3, &json!({"id": 2, "name": "new", "code": 7, "big": 20}), &json!("nine"))
    );
    // Another unique key that is taken is no reason to change the row that has it.
    let error = change(&mut explorer, RowChanges::Upsert(vec![map(json!({"id": 50, "code": 7}))])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ConstraintViolated);
    for (row, field) in [(json!({"nope": 1}), "inserts[0].values.nope"), (json!({"big": 1}), "inserts[0].values.big")] {
        let error = change(&mut explorer, RowChanges::Insert(vec![map(row)])).await.unwrap_err();
        assert_eq!((error.kind(), error.field_name()), (Kind::Invalid, Some(field)));
    }
    let error = change(&mut explorer, RowChanges::Edit(vec![edit(json!({"id": 1}), json!({"big": 1}))])).await.unwrap_err();
    assert_eq!(error.field_name(), Some("edits[0].changes.big"));
    let error = change(&mut explorer, RowChanges::Edit(vec![edit(json!({"id": 1}), json!({"name": null}))])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ConstraintViolated);
    assert_eq!(rows_of(&mut explorer, "t").await.0.len(), 4);
}

#[tokio::test]
async fn engines_without_transactions_take_one_change_at_a_time() {
    let (_database, mut explorer) =
        explored("plain_engine", &["CREATE TABLE t (a INT PRIMARY KEY, b TINYINT) ENGINE=MyISAM", "INSERT INTO t VALUES (1,1),(2,2)"])
            .await;
    let both = vec![key(json!({"a": 1})), key(json!({"a": 2}))];
    assert_eq!(change(&mut explorer, RowChanges::Delete(both)).await.unwrap_err().kind(), Kind::NotSupported);
    assert!(change(&mut explorer, RowChanges::Edit(vec![edit(json!({"a": 1}), json!({"b": 300}))])).await.is_err());
    assert_eq!(rows_of(&mut explorer, "t").await.0, [json!([1, 1]), json!([2, 2])]);
    change(&mut explorer, RowChanges::Delete(vec![key(json!({"a": 1}))])).await.unwrap();
    assert_eq!(rows_of(&mut explorer, "t").await.0, [json!([2, 2])]);
}

#[tokio::test]
async fn views_are_not_changed_and_statements_are_recorded_without_values() {
    let (_database, mut explorer) = explored(
        "recorded",
        &["CREATE TABLE t (a INT PRIMARY KEY, b TEXT)", "INSERT INTO t VALUES (1, 'x')", "CREATE VIEW w AS SELECT * FROM t"],
    )
    .await;
    let request = ChangeRequest { table: object("w"), changes: RowChanges::Delete(vec![key(json!({"a": 1}))]) };
    assert_eq!(explorer.change(&request).await.unwrap_err().kind(), Kind::NotSupported);
    explorer.take_statements();
    change(&mut explorer, RowChanges::Edit(vec![edit(json!({"a": 1}), json!({"b": "secret"}))])).await.unwrap();
    let statements = explorer.take_statements();
    assert!(statements.iter().any(|sql| sql.starts_with("UPDATE")) && !statements.concat().contains("secret"), "{statements:?}");
    assert!(explorer.take_statements().is_empty());
}
