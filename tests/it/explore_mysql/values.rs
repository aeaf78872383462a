//! Values of every type on their way to a client and back.

use millrace_core::Kind;
use millrace_core::explore::{ChangeRequest, RowChanges, SummaryRequest};
use serde_json::{Map, Value, json};

use super::{explored, object, rows_of, run, statements};

const COLUMNS: &str = "id INT PRIMARY KEY, tiny TINYINT, u8 TINYINT UNSIGNED, mid MEDIUMINT UNSIGNED, big BIGINT, ubig BIGINT UNSIGNED,
    dec30 DECIMAL(65,30), money DECIMAL(10,2), single FLOAT, dbl DOUBLE, y YEAR, d DATE, dt DATETIME(6), ts TIMESTAMP(3) NULL, t TIME(6),
    b10 BIT(10), b64 BIT(64), e ENUM('a','b',''), s SET('x','y','z'), l VARCHAR(20) CHARACTER SET latin1, c CHAR(5), txt LONGTEXT,
    bin BINARY(4), vb VARBINARY(10), blb BLOB, j JSON, g GEOMETRY, p POINT, uid UUID, ip INET6";

const LOW: &str = "INSERT INTO v VALUES (1, -128, 0, 0, -9223372036854775808, 0, -99999999999999999999999999999999999.999999999999999999999999999999,
    -0.01, -0.1, -1.7976931348623157e308, 1901, '0000-00-00', '0000-00-00 00:00:00', '1970-01-01 00:00:01', '-838:59:59', b'101', b'0', '', '',
    'größe', 'a', 'q\"\\\\\\n', X'00FF', X'', X'0061FF00', '{\"a\": 1.0}', ST_GeomFromText('POINT(1 2)', 4326), ST_GeomFromText('POINT(1 2)'),
    '00112233-4455-6677-8899-aabbccddeeff', '::1')";

const HIGH: &str = "INSERT INTO v VALUES (2, 127, 255, 16777215, 9223372036854775807, 18446744073709551615,
    0.000000000000000000000000000001, 12345678.90, 16777216, 0.1, 2155, '9999-12-31', '9999-12-31 23:59:59.999999', '2024-02-29 12:00:00.5',
    '838:59:59', b'1111111111', 18446744073709551615, 'b', 'x,z', 'x ', ' y', REPEAT('ü', 300), X'01020304', X'00', X'', '[]',
    ST_GeomFromText('LINESTRING(0 0,1 1)'), NULL, 'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF', '2001:db8::ff00:42:8329')";

const NULLS: &str = "INSERT INTO v (id) VALUES (3)";

fn low() -> Value {
    json!([
        1,
        -128,
        0,
        0,
        "-9223372036854775808",
        0,
        "-99999999999999999999999999999999999.999999999999999999999999999999",
        -0.01,
        -0.1,
        -1.7976931348623157e308,
        1901,
        "0000-00-00",
        "0000-00-00 00:00:00",
        "1970-01-01 00:00:01+00",
        "-838:59:59",
        "0000000101",
        "0".repeat(64),
        "",
        "",
        "größe",
        "a",
        "q\"\\\n",
        "\\x00ff0000",
        "\\x",
        "\\x0061ff00",
        "{\"a\": 1.0}",
        "0101000020E6100000000000000000F03F0000000000000040",
        "0101000000000000000000F03F0000000000000040",
        "00112233-4455-6677-8899-aabbccddeeff",
        "::1"
    ])
}

fn high() -> Value {
    json!([
        2,
        127,
        255,
        16_777_215,
        "9223372036854775807",
        "18446744073709551615",
        1e-30,
        12_345_678.9,
        16_777_216,
        0.1,
        2155,
        "9999-12-31",
        "9999-12-31 23:59:59.999999",
        "2024-02-29 12:00:00.5+00",
        "838:59:59",
        "1".repeat(10),
        "1".repeat(64),
        "b",
        "x,z",
        "x ",
        " y",
        "ü".repeat(300),
        "\\x01020304",
        "\\x00",
        "\\x",
        "[]",
        "01020000000200000000000000000000000000000000000000000000000000F03F000000000000F03F",
        null,
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "2001:db8::ff00:42:8329"
    ])
}

/// The same values, be numbers written as whole numbers or with a point.
fn assert_alike(found: &Value, expected: &Value) {
    let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        match expected.as_f64() {
            Some(number) => assert_eq!(found.as_f64(), Some(number), "column {index}"),
            None => assert_eq!(found, expected, "column {index}"),
        }
    }
}

async fn table(name: &str) -> (millrace_tests::database::MySqlDatabase, Box<dyn millrace_core::explore::Explorer>) {
    explored(name, &["SET sql_mode = ''", &format!("CREATE TABLE v ({COLUMNS})"), LOW, HIGH, NULLS]).await
}

#[tokio::test]
async fn pages_and_statements_give_every_value_its_documented_form() {
    let (_database, mut explorer) = table("forms").await;
    let (paged, _) = rows_of(&mut explorer, "v").await;
    let (kept, ended) = run(&mut explorer, &statements("SELECT * FROM v ORDER BY id")).await;
    ended.unwrap();
    assert_eq!(kept.results[0], paged);
    for rows in [&paged, &kept.results[0]] {
        assert_eq!(rows.len(), 3);
        assert_alike(&rows[0], &low());
        assert_alike(&rows[1], &high());
        assert!(rows[2].as_array().unwrap()[1..].iter().all(Value::is_null));
    }
    let page_types = &kept.columns[0];
    assert_eq!(page_types.iter().find(|column| column.name == "b10").unwrap().bits, Some(10));
}

#[tokio::test]
async fn rows_that_were_read_can_be_written_as_they_are() {
    let (_database, mut explorer) = table("there_and_back").await;
    let (before, _) = rows_of(&mut explorer, "v").await;
    let columns = explorer.table(&object("v")).await.unwrap().columns;
    let copy = |row: &Value, id: i64| -> Map<String, Value> {
        let mut row: Map<String, Value> = columns.iter().map(|column| column.name.clone()).zip(row.as_array().unwrap().clone()).collect();
        row.insert("id".into(), id.into());
        row
    };
    let copies = (11..).zip(&before).map(|(id, row)| copy(row, id)).collect();
    let request = ChangeRequest { table: object("v"), changes: RowChanges::Insert(copies) };
    let stored = explorer.change(&request).await.unwrap();
    assert_eq!((stored.count, stored.rows.len()), (3, 3));
    let (after, _) = rows_of(&mut explorer, "v").await;
    for (index, row) in before.iter().enumerate() {
        assert_eq!(row.as_array().unwrap()[1..], after[index + 3].as_array().unwrap()[1..], "row {index}");
        assert_eq!(stored.rows[index]["b10"], after[index + 3][15]);
    }
}

#[tokio::test]
async fn rows_without_a_key_are_met_by_all_their_values() {
    let (_database, mut explorer) = explored(
        "all_values",
        &["SET sql_mode = ''", &format!("CREATE TABLE v ({})", COLUMNS.replace(" PRIMARY KEY", "")), LOW, HIGH, NULLS],
    )
    .await;
    let columns = explorer.table(&object("v")).await.unwrap().columns;
    let (before, _) = rows_of(&mut explorer, "v").await;
    for (left, row) in (0..3).rev().zip(&before) {
        let keys = columns.iter().map(|column| column.name.clone()).zip(row.as_array().unwrap().clone()).collect();
        let key = millrace_core::explore::RowKey { keys, etag: None };
        let request = ChangeRequest { table: object("v"), changes: RowChanges::Delete(vec![key]) };
        explorer.change(&request).await.unwrap();
        assert_eq!(rows_of(&mut explorer, "v").await.0.len(), left);
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_and_change_nothing() {
    let (_database, mut explorer) = table("unfit").await;
    let (before, _) = rows_of(&mut explorer, "v").await;
    let unfit = [
        ("tiny", json!(128)),
        ("u8", json!(-1)),
        ("tiny", json!("7.5")),
        ("tiny", json!("x")),
        ("ubig", json!("18446744073709551616")),
        ("money", json!("1.005")),
        ("money", json!("1e-3")),
        ("money", json!("100000000")),
        ("dec30", json!("1e40")),
        ("single", json!("NaN")),
        ("single", json!("1e39")),
        ("dbl", json!("Infinity")),
        ("y", json!(1900)),
        ("d", json!("2023-02-29")),
        ("d", json!("2023-02-28 10:00:00")),
        ("dt", json!("2023-02-28 10:00:00.1234567")),
        ("ts", json!("2023-02-28 10:00:00.1234")),
        ("t", json!("839:00:00")),
        ("b10", json!("10000000000")),
        ("b10", json!("2")),
        ("e", json!("c")),
        // Numbers would be taken for the places of labels.
        ("e", json!("2")),
        ("e", json!(2)),
        ("e", json!(" 1")),
        ("e", json!("1 ")),
        ("e", json!("+1")),
        ("e", json!("0")),
        ("s", json!("x,w")),
        ("s", json!("3")),
        ("s", json!(3)),
        ("s", json!("0")),
        ("s", json!("x,2")),
        ("l", json!("☃")),
        ("c", json!("123456")),
        ("bin", json!("\\x0102030405")),
        ("bin", json!("text")),
        ("blb", json!("\\x0")),
        ("j", json!("{")),
        ("g", json!("POINT(1 2)")),
        ("p", json!("01020000000200000000000000000000000000000000000000000000000000F03F000000000000F03F")),
        ("uid", json!("x")),
        ("ip", json!("1.2.3")),
        ("c", json!({"a": 1})),
    ];
    for (column, value) in unfit {
        let edit = millrace_core::explore::RowEdit {
            keys: json!({"id": 2}).as_object().unwrap().clone(),
            changes: Map::from_iter([(column.to_owned(), value.clone())]),
            etag: None,
        };
        let request = ChangeRequest { table: object("v"), changes: RowChanges::Edit(vec![edit]) };
        let error = explorer.change(&request).await.expect_err(&format!("{column} = {value}"));
        let kinds = [Kind::ValueRefused, Kind::Invalid, Kind::ConstraintViolated];
        assert!(kinds.contains(&error.kind()), "{column} = {value}: {error:?}");
        assert_eq!(rows_of(&mut explorer, "v").await.0, before, "{column} = {value}");
    }
}

#[tokio::test]
async fn labels_are_stored_by_their_names() {
    let columns =
        "id INT PRIMARY KEY, e ENUM('10','2','Abc','it''s') COLLATE utf8mb4_general_ci, s SET('2','1','Ü') COLLATE utf8mb4_general_ci";
    let (_database, mut explorer) = explored("labels_by_name", &[&format!("CREATE TABLE v ({columns})")]).await;
    let given = [
        (json!("2"), json!("1"), "2", "1"),
        (json!(10), json!(2), "10", "2"),
        (json!("abc "), json!("ü,2"), "Abc", "2,Ü"),
        (json!("it's"), json!(""), "it's", ""),
    ];
    for (id, (e, s, stored_e, stored_s)) in (1..).zip(given) {
        let row = json!({"id": id, "e": e, "s": s}).as_object().unwrap().clone();
        let request = ChangeRequest { table: object("v"), changes: RowChanges::Insert(vec![row]) };
        let changed = explorer.change(&request).await.unwrap();
        assert_eq!(changed.rows, [json!({"id": id, "e": stored_e, "s": stored_s})]);
    }
}

#[tokio::test]
async fn numbers_are_read_by_their_digits() {
    let (_database, mut explorer) = explored("digits", &["CREATE TABLE v (id BIGINT PRIMARY KEY, d DECIMAL(30,20))"]).await;
    for (id, text) in [(1000, r#"{"id": 1e3, "d": 1e-5}"#), (7, r#"{"id": 7.0, "d": 0.5}"#), (1500, r#"{"id": 15.00e2, "d": 2}"#)] {
        let row: Map<String, Value> = serde_json::from_str(text).unwrap();
        let request = ChangeRequest { table: object("v"), changes: RowChanges::Insert(vec![row]) };
        assert_eq!(explorer.change(&request).await.unwrap().rows[0]["id"], json!(id));
    }
}

#[tokio::test]
async fn singles_in_a_summary_are_those_of_the_rows() {
    let rows = "INSERT INTO v VALUES (1, 1234567.875), (2, 0.1), (3, 16777216), (4, NULL), (5, 8388609)";
    let (_database, mut explorer) = explored("singles", &["CREATE TABLE v (id INT PRIMARY KEY, f FLOAT)", rows]).await;
    let (rows, _) = rows_of(&mut explorer, "v").await;
    let summary = explorer.summarize(&SummaryRequest { object: object("v"), sample_percent: None }).await.unwrap();
    let single = summary.columns.iter().find(|column| column.name == "f").unwrap();
    assert_eq!((single.min.as_f64(), single.max.as_f64()), (Some(0.1), Some(16_777_216.0)));
    let shown = |row: usize| rows[row][1].as_f64();
    assert_eq!((single.q25, single.q50, single.q75), (shown(0), shown(4), shown(4)));
}

#[tokio::test]
async fn a_summary_knows_least_and_greatest_values_of_each_type() {
    let (_database, mut explorer) = explored(
        "summary",
        &[
            "CREATE TABLE v (id INT PRIMARY KEY, bits BIT(5), big BIGINT UNSIGNED, name VARCHAR(10), raw BLOB, e ENUM('z','a'), at TIMESTAMP NULL)",
            "INSERT INTO v VALUES (1, 4, 18446744073709551615, 'abc', X'00', 'z', '2024-01-01'), (2, 3, 7, 'ab', X'0000', 'a', NULL),
                (3, 9, 8, NULL, NULL, 'a', '2023-01-01'), (4, 2, 9, 'b', NULL, 'a', NULL), (5, NULL, 10, '', NULL, NULL, NULL)",
        ],
    )
    .await;
    let summary = explorer.summarize(&SummaryRequest { object: object("v"), sample_percent: None }).await.unwrap();
    assert_eq!(summary.row_count, 5);
    let column = |name: &str| summary.columns.iter().find(|column| column.name == name).unwrap();
    let id = column("id");
    assert_eq!((id.min.as_f64(), id.max.as_f64(), id.q50, id.avg), (Some(1.0), Some(5.0), Some(3.0), Some(3.0)));
    assert_eq!((id.q25, id.q75, id.approx_unique), (Some(2.0), Some(4.0), 5));
    assert_eq!(id.std, Some(2.5_f64.sqrt()).map(|std| (std * 10_000.0).round() / 10_000.0));
    assert_eq!((&column("bits").min, &column("bits").max), (&json!("00010"), &json!("01001")));
    assert_eq!(column("big").max, json!("18446744073709551615"));
    let name = column("name");
    assert_eq!((name.count, name.null_percentage, name.min_length, name.max_length), (4, 20.0, Some(0), Some(3)));
    assert_eq!((&name.min, &name.max), (&json!(""), &json!("b")));
    assert_eq!((column("raw").min_length, column("raw").max_length), (Some(1), Some(2)));
    assert_eq!((&column("e").min, &column("e").max, column("e").approx_unique), (&json!("a"), &json!("z"), 2));
    assert_eq!(column("at").max, json!("2024-01-01 00:00:00+00"));
    let sample = explorer.summarize(&SummaryRequest { object: object("v"), sample_percent: Some(0.0) }).await.unwrap();
    assert_eq!(sample.row_count, 0);
}
