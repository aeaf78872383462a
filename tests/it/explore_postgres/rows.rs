//! Values, pages, conditions, counts and summaries.

use millrace_core::Kind;
use millrace_core::explore::{Explorer, OrderBy, PageRequest, SummaryRequest, checked_condition};
use millrace_core::json_rows::{JsonRows, Numbers};
use serde_json::{Value, json};

use super::{explored, object, parsed};

/// A type, a literal of it and its JSON.
fn values() -> Vec<(&'static str, &'static str, Value)> {
    let forty = "1234567890123456789012345678901234567.891";
    vec![
        ("smallint", "-32768", json!(-32768)),
        ("bigint", "9007199254740992", json!(9_007_199_254_740_992_i64)),
        ("bigint", "9223372036854775807", json!("9223372036854775807")),
        ("oid", "4294967295", json!(4_294_967_295_u32)),
        ("numeric", forty, json!(forty)),
        ("numeric(10,3)", "12.500", json!(12.5)),
        ("numeric", "NaN", json!("NaN")),
        ("real", "0.1", json!(0.1)),
        ("real", "-Infinity", json!("-Infinity")),
        ("double precision", "1e300", json!(1e300)),
        ("double precision", "NaN", json!("NaN")),
        ("double precision", "0.30000000000000004", json!(0.300_000_000_000_000_04)),
        ("boolean", "t", json!(true)),
        ("text", "it's \"q\" \\ \n ä😀", json!("it's \"q\" \\ \n ä😀")),
        ("char(4)", "ab", json!("ab  ")),
        ("varchar(9)", "", json!("")),
        ("bytea", "\\x00ff", json!("\\x00ff")),
        ("date", "0044-03-15 BC", json!("0044-03-15 BC")),
        ("date", "infinity", json!("infinity")),
        ("date", "294276-12-31", json!("294276-12-31")),
        ("time", "24:00:00", json!("24:00:00")),
        ("timetz", "12:00:00+15:59", json!("12:00:00+15:59")),
        ("timestamp", "2024-02-29 12:00:00.5", json!("2024-02-29 12:00:00.5")),
        ("timestamptz", "2024-02-29 12:00:00+02", json!("2024-02-29 10:00:00+00")),
        ("timestamptz", "-infinity", json!("-infinity")),
        ("interval", "1 year -2 mons 3 days -04:05:06.7", json!("10 mons 3 days -04:05:06.7")),
        ("uuid", "A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("json", "{\"b\": 1.0,  \"a\": null}", json!("{\"b\": 1.0,  \"a\": null}")),
        ("jsonb", "{\"b\": 1.0,  \"a\": null}", json!("{\"a\": null, \"b\": 1.0}")),
        ("int[]", "[0:1]={1,NULL}", json!("[0:1]={1,NULL}")),
        ("text[]", "{{a,\"b,c\"},{\"\",NULL}}", json!("{{a,\"b,c\"},{\"\",NULL}}")),
        ("mood", "so so", json!("so so")),
        ("positive", "7", json!(7)),
        ("pair", "(1,\"a,b\")", json!("(1,\"a,b\")")),
        ("int4range", "[1,5]", json!("[1,6)")),
        ("datemultirange", "{[2020-01-01,2020-02-01)}", json!("{[2020-01-01,2020-02-01)}")),
        ("inet", "10.0.0.1/8", json!("10.0.0.1/8")),
        ("cidr", "10.0.0.0/8", json!("10.0.0.0/8")),
        ("macaddr8", "08:00:2b:01:02:03:04:05", json!("08:00:2b:01:02:03:04:05")),
        ("money", "12.34", json!("$12.34")),
        ("xml", "<a>1</a>", json!("<a>1</a>")),
        ("bit(4)", "0101", json!("0101")),
        ("varbit", "", json!("")),
        ("point", "(1,2.5)", json!("(1,2.5)")),
        ("tsvector", "'it''s':1A b:2", json!("'b':2 'it''s':1A")),
        ("pg_lsn", "16/B374D848", json!("16/B374D848")),
    ]
}

#[tokio::test]
async fn every_type_has_its_documented_text() {
    let types = "CREATE TYPE mood AS ENUM ('sad', 'so so'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE TYPE pair AS (a int, b text); SET lc_monetary = 'C'";
    let (database, mut explorer) = explored("values", types).await;
    let all = values();
    let columns: Vec<String> = all.iter().enumerate().map(|(index, (name, ..))| format!("c{index} {name}")).collect();
    let literals: Vec<String> = all.iter().map(|(name, text, _)| format!("'{}'::{name}", text.replace('\'', "''"))).collect();
    let nulls = vec!["NULL"; all.len()].join(",");
    let sql = format!("CREATE TABLE v ({}); INSERT INTO v VALUES ({}), ({nulls})", columns.join(","), literals.join(","));
    database.client.batch_execute(&sql).await.unwrap();
    let mut rows = JsonRows::new(Numbers::StringIfInexact);
    let page = explorer.page(&PageRequest { object: object("v"), limit: 10, ..PageRequest::default() }, &mut rows).await.unwrap();
    let found = parsed(&mut rows);
    assert_eq!(page.columns.len(), all.len());
    for (index, (name, text, expected)) in all.iter().enumerate() {
        // Money follows the server's locale.
        let found = if *name == "money" {
            json!(format!("${}", found[0][index].as_str().unwrap().trim_start_matches('$')))
        } else {
            found[0][index].clone()
        };
        assert_eq!(found, *expected, "{name} {text}");
    }
    assert!(found[1].as_array().unwrap().iter().all(Value::is_null));
    // Statements of users give the same texts.
    let mut kept = super::Kept::new();
    let request = millrace_core::explore::RunRequest { sql: "SELECT * FROM v".into(), max_rows: 10, is_read_only: true };
    explorer.run(&request, &mut kept).await.unwrap();
    assert_eq!(kept.results[0], found);
    let native: Vec<&str> = kept.columns[0].iter().map(|column| column.native_type.as_str()).collect();
    assert!(native.contains(&"numeric(10,3)") && native.contains(&"mood") && native.contains(&"integer[]"), "{native:?}");
}

const PAGED: &str = "CREATE TABLE p (a int, b text, k1 int, k2 text COLLATE \"C\", PRIMARY KEY (k1, k2));
    INSERT INTO p SELECT nullif(n % 4, 0), nullif(chr(97 + n % 3), 'b'), n % 7, 'k''\\' || n FROM generate_series(1, 60) n;
    CREATE TABLE keyless (a int); INSERT INTO keyless SELECT n % 3 FROM generate_series(1, 10) n;
    CREATE VIEW pv AS SELECT * FROM p";

fn by(column: &str, descending: bool, nulls_first: Option<bool>) -> OrderBy {
    OrderBy { column: column.into(), descending, nulls_first }
}

async fn all_pages(explorer: &mut dyn Explorer, order: &[OrderBy], condition: Option<&str>) -> Vec<Value> {
    let mut all = Vec::new();
    let mut request = PageRequest {
        object: object("p"),
        limit: 7,
        order: order.to_vec(),
        condition: condition.map(str::to_owned),
        is_editable: true,
        ..PageRequest::default()
    };
    loop {
        let mut rows = JsonRows::new(Numbers::StringIfInexact);
        let page = explorer.page(&request, &mut rows).await.unwrap();
        all.extend(parsed(&mut rows));
        assert!(all.len() <= 60, "{order:?}");
        match page.next {
            Some(next) => request.after = Some(next),
            None => return all,
        }
    }
}

#[tokio::test]
async fn pages_of_every_order_hold_all_rows_once() {
    let (database, mut explorer) = explored("pages", PAGED).await;
    let mut orders = vec![vec![], vec![by("k2", true, None)], vec![by("k1", true, None), by("k2", true, None)]];
    for descending in [false, true] {
        for nulls in [None, Some(true), Some(false)] {
            orders.push(vec![by("a", descending, nulls)]);
            orders.push(vec![by("a", !descending, nulls), by("b", descending, nulls.map(|first| !first))]);
            orders.push(vec![by("k1", descending, nulls), by("b", !descending, nulls)]);
        }
    }
    for order in orders {
        let found = all_pages(explorer.as_mut(), &order, None).await;
        let mut parts: Vec<String> = order
            .iter()
            .map(|by| {
                let nulls = by.nulls_first.map_or("", |first| if first { " NULLS FIRST" } else { " NULLS LAST" });
                format!("\"{}\"{}{nulls}", by.column, if by.descending { " DESC" } else { "" })
            })
            .collect();
        parts.extend(["k1".to_owned(), "k2".to_owned()]);
        let sql = format!("SELECT json_build_array(a, b, k1, k2)::text FROM p ORDER BY {}", parts.join(", "));
        let expected: Vec<Value> = database.texts(&sql).await.unwrap().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(found, expected, "{order:?}");
    }
    let found = all_pages(explorer.as_mut(), &[by("a", true, Some(true))], Some("b IS NULL OR a = 1")).await;
    let count = explorer.count(&object("p"), Some("b IS NULL OR a = 1")).await.unwrap();
    assert_eq!(found.len() as u64, count);
    assert!(count > 0 && count < 60);
}

#[tokio::test]
async fn pages_without_a_key_are_told_by_their_offset() {
    let (_, mut explorer) = explored("offsets", PAGED).await;
    for name in ["keyless", "pv"] {
        let mut rows = JsonRows::new(Numbers::StringIfInexact);
        let request = PageRequest {
            object: object(name),
            limit: 4,
            offset: 8,
            order: vec![by("a", false, None)],
            is_editable: true,
            ..PageRequest::default()
        };
        let page = explorer.page(&request, &mut rows).await.unwrap();
        assert_eq!(page.next, None);
        assert_eq!(parsed(&mut rows).len(), if name == "keyless" { 2 } else { 4 });
    }
    assert_eq!(explorer.count(&object("public.pv"), None).await.unwrap(), 60);
}

#[tokio::test]
async fn a_cursor_of_another_query_and_unknown_names_are_refused() {
    let (_, mut explorer) = explored("cursors", PAGED).await;
    let request = PageRequest { object: object("p"), limit: 1, is_editable: true, ..PageRequest::default() };
    let mut rows = JsonRows::new(Numbers::StringIfInexact);
    let next = explorer.page(&request, &mut rows).await.unwrap().next.unwrap();
    let other = PageRequest { after: Some(next), order: vec![by("a", false, None)], ..request.clone() };
    assert_eq!(explorer.page(&other, &mut rows).await.unwrap_err().kind(), Kind::Invalid);
    let unknown = PageRequest { order: vec![by("zz", false, None)], ..request.clone() };
    assert_eq!(explorer.page(&unknown, &mut rows).await.unwrap_err().kind(), Kind::ObjectMissing);
    let unknown = PageRequest { object: object("nowhere"), ..request };
    assert_eq!(explorer.page(&unknown, &mut rows).await.unwrap_err().kind(), Kind::ObjectMissing);
    assert!(explorer.is_reusable());
}

#[tokio::test]
async fn a_condition_stays_a_condition() {
    let (database, mut explorer) = explored("conditions", PAGED).await;
    let escapes = [
        "a = 1) OR (1 = 1",
        "a = 1; DROP TABLE keyless",
        "a = 1); COMMIT; DROP TABLE keyless; --",
        "b = E'\\'' ); COMMIT; DROP TABLE keyless; --'",
        "b = $$'$$ ); COMMIT; DROP TABLE keyless; --'",
        "a = 1 /*",
        "b = 'x",
    ];
    for condition in escapes {
        assert!(checked_condition(condition, false).is_err(), "{condition}");
        // Even unchecked they do no harm.
        let request = PageRequest { object: object("p"), limit: 1, condition: Some(condition.into()), ..PageRequest::default() };
        let error = explorer.page(&request, &mut JsonRows::new(Numbers::Exact)).await.expect_err(condition);
        assert!(matches!(error.kind(), Kind::Invalid | Kind::StatementRefused), "{condition} {error:?}");
        assert!(explorer.count(&object("p"), Some(condition)).await.is_err(), "{condition}");
    }
    assert!(checked_condition("a = 1 --", false).is_err());
    let writes =
        ["(SELECT true FROM dropped())", "set_config('transaction_read_only', 'off', false) IS NULL OR (SELECT true FROM dropped())"];
    let function = "CREATE FUNCTION dropped() RETURNS void LANGUAGE plpgsql AS 'BEGIN DELETE FROM keyless; END'";
    database.client.batch_execute(function).await.unwrap();
    for condition in writes {
        let error = explorer.count(&object("p"), Some(condition)).await.expect_err(condition);
        assert_eq!(error.kind(), Kind::StatementRefused, "{condition} {error:?}");
    }
    assert_eq!(database.texts("SELECT count(*)::text FROM keyless").await.unwrap(), ["10"]);
    let error = explorer.count(&object("p"), Some("a = 1 AND zz = 2")).await.unwrap_err();
    assert_eq!((error.kind(), error.detail("position")), (Kind::StatementRefused, Some("11")), "{error:?}");
    assert_eq!(explorer.count(&object("p"), Some("b = 'x' OR k2 = E'k\\'\\\\1'")).await.unwrap(), 1);
}

#[tokio::test]
async fn what_was_run_is_recorded_without_values() {
    let (_, mut explorer) = explored("records", PAGED).await;
    let mut request = PageRequest { object: object("p"), limit: 1, is_editable: true, ..PageRequest::default() };
    let mut rows = JsonRows::new(Numbers::StringIfInexact);
    request.after = explorer.page(&request, &mut rows).await.unwrap().next;
    explorer.page(&request, &mut rows).await.unwrap();
    let statements = explorer.take_statements();
    assert_eq!(statements.len(), 2);
    assert!(statements[1].contains("(\"k1\", \"k2\") > ($1::integer, $2::text)"), "{statements:?}");
    assert!(explorer.take_statements().is_empty());
}

#[tokio::test]
async fn a_summary_says_what_the_values_are() {
    let sql = "CREATE TABLE s (id int PRIMARY KEY, n numeric(10,2), f float8, t varchar(20), b bytea, ok boolean, u uuid, j json, big bigint, d date);
        INSERT INTO s SELECT n, n / 4.0, n, repeat('ä', n), '\\x0011', n > 2, ('00000000-0000-0000-0000-00000000000' || n)::uuid, '{}', 9223372036854775800 + n,
            date '2024-01-01' + n FROM generate_series(1, 4) n;
        INSERT INTO s (id) VALUES (5); CREATE VIEW sv AS SELECT * FROM s; CREATE TABLE e ()";
    let (_, mut explorer) = explored("summary", sql).await;
    let summary = explorer.summarize(&SummaryRequest { object: object("s"), sample_percent: None }).await.unwrap();
    assert_eq!(summary.row_count, 5);
    let told: Vec<Value> = summary.columns.iter().map(|column| serde_json::to_value(column).unwrap()).collect();
    let column = |name: &str| told.iter().find(|column| column["name"] == name).unwrap();
    assert_eq!(
        *column("n"),
        json!({"name": "n", "type": "numeric(10,2)", "min": 0.25, "max": 1.0, "approxUnique": 4, "avg": 0.625, "std": 0.322_748_612_183_951_4,
            "q25": 0.4375, "q50": 0.625, "q75": 0.8125, "count": 4, "nullPercentage": 20.0})
    );
    assert_eq!(column("t")["minLength"], json!(1));
    assert_eq!((&column("t")["maxLength"], &column("t")["avgLength"]), (&json!(4), &json!(2.5)));
    assert_eq!(column("b")["maxLength"], json!(2));
    assert_eq!((&column("ok")["min"], &column("ok")["max"], &column("ok")["approxUnique"]), (&json!(false), &json!(true), &json!(2)));
    assert_eq!(column("u")["max"], json!("00000000-0000-0000-0000-000000000004"));
    assert_eq!((&column("j")["min"], &column("j")["approxUnique"]), (&Value::Null, &json!(1)));
    assert_eq!(column("big")["max"], json!("9223372036854775804"));
    assert_eq!(column("d")["min"], json!("2024-01-02"));
    for (name, rows) in [("sv", 5), ("e", 0)] {
        let summary = explorer.summarize(&SummaryRequest { object: object(name), sample_percent: None }).await.unwrap();
        assert_eq!(summary.row_count, rows);
    }
    for name in ["s", "sv"] {
        let sampled = explorer.summarize(&SummaryRequest { object: object(name), sample_percent: Some(50.0) }).await.unwrap();
        assert!(sampled.row_count <= 5 && sampled.columns.len() == 10);
    }
    let error = explorer.summarize(&SummaryRequest { object: object("s"), sample_percent: Some(0.0) }).await.unwrap_err();
    assert_eq!(error.field_name(), Some("samplePercent"));
}
