//! Pages: every row once, whatever the order.

use std::collections::BTreeSet;

use millrace_core::Kind;
use millrace_core::explore::{Cursor, Explorer, OrderBy, PageRequest, checked_condition};
use millrace_core::json_rows::{JsonRows, Numbers};
use serde_json::{Value, json};

use super::{explored, object, parsed, run, statements};

fn by(column: &str, descending: bool, nulls_first: Option<bool>) -> OrderBy {
    OrderBy { column: column.to_owned(), descending, nulls_first }
}

/// All rows, page by page; answers them and the number of pages.
async fn all_pages(explorer: &mut Box<dyn Explorer>, table: &str, order: &[OrderBy], limit: u64) -> (Vec<Value>, usize) {
    let (mut all, mut pages, mut after) = (Vec::new(), 0, None::<Cursor>);
    loop {
        let mut rows = JsonRows::new(Numbers::StringIfInexact);
        let request =
            PageRequest { object: object(table), limit, order: order.to_vec(), after, is_editable: true, ..PageRequest::default() };
        let page = explorer.page(&request, &mut rows).await.unwrap();
        all.extend(parsed(&mut rows));
        pages += 1;
        assert!(pages < 1000, "pages without end");
        after = page.next;
        if after.is_none() {
            return (all, pages);
        }
    }
}

const ROWS: u64 = 97;

async fn table(name: &str) -> (millrace_tests::database::MySqlDatabase, Box<dyn Explorer>) {
    let fill = format!(
        "INSERT INTO t SELECT seq, IF(seq % 5 = 0, NULL, seq % 3), IF(seq % 7 = 0, NULL, ELT(1 + seq % 6, 'a', 'A', 'ä', 'b ', 'b', '')),
            IF(seq % 11 = 0, NULL, ELT(1 + seq % 3, 'm', 'z', 'a')), seq % 4 / 10, seq % 9 / 7, CONCAT(REPEAT('x', 2000), seq % 13),
            IF(seq % 6 = 0, NULL, '2024-01-01' + INTERVAL seq % 8 DAY), IF(seq % 6 = 1, NULL, CHAR(seq % 5, 255 USING binary)),
            seq % 2, seq % 17, ELT(1 + seq % 3, 'x', 'y', 'x,y') FROM seq_1_to_{ROWS}"
    );
    explored(
        name,
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, grp INT, name VARCHAR(20), e ENUM('z','m','a'), f FLOAT, d DECIMAL(20,10), long_text TEXT,
                dt DATETIME, raw VARBINARY(10), flag BIT(1), n BIGINT UNSIGNED NOT NULL, s SET('x','y'), KEY (grp, name), KEY (n))",
            &fill,
        ],
    )
    .await
}

#[tokio::test]
async fn pages_in_every_order_give_all_rows_once() {
    let (_database, mut explorer) = table("paged").await;
    let mut orders: Vec<Vec<OrderBy>> = vec![vec![], vec![by("id", true, None)]];
    for column in ["grp", "name", "e", "f", "d", "long_text", "dt", "raw", "flag", "n", "s"] {
        for descending in [false, true] {
            for nulls_first in [None, Some(true), Some(false)] {
                orders.push(vec![by(column, descending, nulls_first)]);
                orders.push(vec![by(column, descending, nulls_first), by("name", !descending, nulls_first), by("id", true, None)]);
            }
        }
    }
    for order in orders {
        let (whole, _) = all_pages(&mut explorer, "t", &order, 1000).await;
        let (paged, pages) = all_pages(&mut explorer, "t", &order, 10).await;
        assert_eq!(pages, 10, "{order:?}");
        let ids: BTreeSet<u64> = paged.iter().map(|row| row[0].as_u64().unwrap()).collect();
        assert_eq!((paged.len(), ids.len()), (97, 97), "{order:?}");
        assert_eq!(paged, whole, "{order:?}");
    }
}

#[tokio::test]
async fn long_values_are_ordered_by_what_comes_late_in_them() {
    let late = "LPAD((seq * 37) % 61, 3, '0')";
    let long = format!("CONCAT(REPEAT('ü', 1500), {late})");
    let fill = format!(
        "INSERT INTO t SELECT seq, CONCAT(REPEAT('https://', 30), {late}), CONCAT(REPEAT('x', 300), {late}), {long}, {long}, {long}, {long}
            FROM seq_1_to_60"
    );
    let (_database, mut explorer) = explored(
        "long_values",
        &[
            "CREATE TABLE t (id INT PRIMARY KEY, url TEXT, middle VARCHAR(500), wide VARCHAR(3000), huge LONGTEXT COLLATE utf8mb4_unicode_ci,
                raw BLOB, vb VARBINARY(8000))",
            &fill,
            "CREATE TABLE k (name VARCHAR(700) PRIMARY KEY) CHARACTER SET utf8mb4",
            &format!("INSERT INTO k SELECT CONCAT(REPEAT('ü', 600), {late}) FROM seq_1_to_60"),
        ],
    )
    .await;
    let expected = |descending: bool| {
        let mut ids: Vec<u64> = (1..=60).collect();
        ids.sort_by_key(|id| id * 37 % 61);
        if descending {
            ids.reverse();
        }
        ids
    };
    let ids = |rows: &[Value]| rows.iter().map(|row| row[0].as_u64().unwrap()).collect::<Vec<u64>>();
    for column in ["url", "middle", "wide", "huge", "raw", "vb"] {
        for descending in [false, true] {
            let order = [by(column, descending, None)];
            let (paged, pages) = all_pages(&mut explorer, "t", &order, 7).await;
            assert_eq!((ids(&paged), pages), (expected(descending), 9), "{column} {descending}");
            let mut rows = JsonRows::new(Numbers::StringIfInexact);
            let request = PageRequest { object: object("t"), limit: 10, offset: 20, order: order.to_vec(), ..PageRequest::default() };
            explorer.page(&request, &mut rows).await.unwrap();
            assert_eq!(ids(&parsed(&mut rows)), expected(descending)[20..30], "{column} {descending}");
        }
    }
    let order = [by("url", true, None), by("huge", false, None), by("raw", true, None)];
    assert_eq!(ids(&all_pages(&mut explorer, "t", &order, 50).await.0), expected(true));
    let (keys, _) = all_pages(&mut explorer, "k", &[by("name", true, None)], 7).await;
    let numbers: Vec<u64> = keys.iter().map(|row| row[0].as_str().unwrap()[1200..].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=60).rev().collect::<Vec<u64>>());
    assert!(explorer.is_reusable());
    // What people run afterwards sorts as the server is set up.
    let sql = "SELECT @@max_sort_length = @@GLOBAL.max_sort_length, @@sort_buffer_size = @@GLOBAL.sort_buffer_size";
    let (kept, ended) = run(&mut explorer, &statements(sql)).await;
    ended.unwrap();
    assert_eq!(kept.results[0], [json!([1, 1])]);
}

#[tokio::test]
async fn nulls_stand_where_they_are_wanted() {
    let (_database, mut explorer) = table("nulls").await;
    for (descending, nulls_first, is_first) in
        [(false, None, true), (true, None, false), (false, Some(false), false), (true, Some(true), true), (false, Some(true), true)]
    {
        let (rows, _) = all_pages(&mut explorer, "t", &[by("grp", descending, nulls_first)], 20).await;
        let nulls = rows.iter().filter(|row| row[1].is_null()).count();
        let part = if is_first { &rows[..nulls] } else { &rows[rows.len() - nulls..] };
        assert!(nulls > 10 && part.iter().all(|row| row[1].is_null()), "{descending} {nulls_first:?}");
        let values: Vec<i64> = rows.iter().filter_map(|row| row[1].as_i64()).collect();
        assert!(values.is_sorted_by(|a, b| if descending { a >= b } else { a <= b }));
    }
}

#[tokio::test]
async fn composite_keys_of_labels_and_texts_page_completely() {
    let (_database, mut explorer) = explored(
        "labels",
        &[
            "CREATE TABLE t (e ENUM('b','B','a','á') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, w VARCHAR(5) CHARACTER SET latin1 NOT NULL,
                d DECIMAL(65,30) NOT NULL, PRIMARY KEY (e, w, d))",
            "INSERT INTO t SELECT ELT(1 + seq % 4, 'b', 'B', 'a', 'á'), ELT(1 + seq % 3, 'ü', 'z', 'o'), 0.5 FROM seq_1_to_12",
        ],
    )
    .await;
    let (whole, _) = all_pages(&mut explorer, "t", &[], 100).await;
    let (paged, pages) = all_pages(&mut explorer, "t", &[], 5).await;
    assert_eq!((whole.len(), pages), (12, 3));
    assert_eq!(paged, whole);
}

#[tokio::test]
async fn tables_without_a_key_have_offsets_but_no_cursor() {
    let (_database, mut explorer) =
        explored("offsets", &["CREATE TABLE t (a INT)", "INSERT INTO t SELECT seq DIV 2 FROM seq_1_to_30"]).await;
    let mut rows = JsonRows::new(Numbers::StringIfInexact);
    let request = PageRequest { object: object("t"), limit: 5, offset: 10, order: vec![by("a", false, None)], ..PageRequest::default() };
    let page = explorer.page(&request, &mut rows).await.unwrap();
    assert_eq!((page.next, parsed(&mut rows)), (None, vec![json!([5]), json!([6]), json!([6]), json!([7]), json!([7])]));
}

#[tokio::test]
async fn conditions_stay_conditions() {
    let (database, mut explorer) = table("conditions").await;
    for (condition, expected) in [
        ("id <= 3 OR id = 5", 4),
        ("name = 'a' AND id < 20 OR FALSE", 6),
        ("name LIKE '%\\'%' OR id IN (1, (2))", 2),
        ("e = 'z' AND id > 0 AND (SELECT COUNT(*) FROM t) > 0", 0),
    ] {
        let checked = checked_condition(condition, true).unwrap();
        let count = explorer.count(&object("t"), Some(checked)).await.unwrap();
        let truth = database.texts(&format!("SELECT CAST(COUNT(*) AS CHAR) FROM t WHERE {condition}")).await.unwrap();
        assert_eq!(truth, [count.to_string()], "{condition}");
        if expected > 0 {
            assert!(count > 0, "{condition}");
        }
        let mut rows = JsonRows::new(Numbers::StringIfInexact);
        let request = PageRequest { object: object("t"), limit: 1000, condition: Some(checked.to_owned()), ..PageRequest::default() };
        explorer.page(&request, &mut rows).await.unwrap();
        assert_eq!(parsed(&mut rows).len() as u64, count, "{condition}");
    }
    for escape in ["1) OR (1", "1; DROP TABLE t", "1 -- ", "1 # ", "1 /*! ) */", "'", "\"\\\"", "`"] {
        assert!(checked_condition(escape, true).is_err(), "{escape}");
    }
    for wrong in ["nothing = 1", "id = ?", "id FROM t", "SLEEP", "id IN (SELECT 1 INTO OUTFILE '/tmp/x')"] {
        let mut rows = JsonRows::new(Numbers::StringIfInexact);
        let request = PageRequest { object: object("t"), limit: 5, condition: Some(wrong.to_owned()), ..PageRequest::default() };
        let error = explorer.page(&request, &mut rows).await.unwrap_err();
        assert_eq!((error.kind(), error.field_name()), (Kind::StatementRefused, Some("where")), "{wrong}: {error:?}");
        assert!(explorer.count(&object("t"), Some(wrong)).await.is_err(), "{wrong}");
        assert!(explorer.is_reusable());
    }
    assert_eq!(explorer.count(&object("t"), None).await.unwrap(), ROWS);
}

#[tokio::test]
async fn conditions_cannot_write() {
    let (_database, mut explorer) = explored(
        "no_writes",
        &[
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "INSERT INTO t VALUES (1)",
            "CREATE FUNCTION grows() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (2); RETURN 1; END",
        ],
    )
    .await;
    let mut rows = JsonRows::new(Numbers::StringIfInexact);
    let request = PageRequest { object: object("t"), limit: 5, condition: Some("grows() = 1".into()), ..PageRequest::default() };
    assert!(explorer.page(&request, &mut rows).await.is_err());
    assert!(explorer.count(&object("t"), Some("grows() = 1")).await.is_err());
    assert_eq!(explorer.count(&object("t"), None).await.unwrap(), 1);
}

#[tokio::test]
async fn unknown_columns_and_foreign_cursors_are_refused() {
    let (_database, mut explorer) = table("refused").await;
    let mut rows = JsonRows::new(Numbers::StringIfInexact);
    let unknown = PageRequest { object: object("t"), limit: 5, order: vec![by("no` DESC", false, None)], ..PageRequest::default() };
    assert_eq!(explorer.page(&unknown, &mut rows).await.unwrap_err().kind(), Kind::ObjectMissing);
    let foreign = Cursor { order: vec![by("grp", false, None)], values: vec![Some("1".into())] };
    let request = PageRequest { object: object("t"), limit: 5, after: Some(foreign), ..PageRequest::default() };
    assert_eq!(explorer.page(&request, &mut rows).await.unwrap_err().kind(), Kind::Invalid);
    for values in [vec![], vec![Some("1; DROP TABLE t".into())], vec![Some("1".into()), Some("2".into())]] {
        let cursor = Cursor { order: vec![by("id", false, None)], values };
        let request = PageRequest { object: object("t"), limit: 5, after: Some(cursor), ..PageRequest::default() };
        assert_eq!(explorer.page(&request, &mut rows).await.unwrap_err().kind(), Kind::Invalid);
    }
    let missing = PageRequest { object: object("nowhere"), limit: 5, ..PageRequest::default() };
    assert_eq!(explorer.page(&missing, &mut rows).await.unwrap_err().kind(), Kind::ObjectMissing);
}
