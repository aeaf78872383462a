//! Every value of the fidelity list that a MariaDB can hold: exact, by policy, or refused by name.

use millrace_tests::database::{MySqlDatabase, PgDatabase};
use millrace_tests::process::run;
use millrace_tests::servers::{Server, shared};
use serde_json::{Value, json};

use crate::support::{self, source};

fn url(scheme: &str, server: &Server, database: &str) -> String {
    format!("{scheme}://{}@{}:{}/{database}", server.user, server.host, server.port)
}

/// Copies with rules; answers the exit code, the output and the target.
async fn copy(source: &MySqlDatabase, rules: Value, more: &[&str]) -> (i32, String, PgDatabase) {
    let target = PgDatabase::create(&shared().await.postgres, "values").await.unwrap();
    let (code, output) = copy_into(source, &target, rules, more).await;
    (code, output, target)
}

async fn copy_into(source: &MySqlDatabase, target: &PgDatabase, rules: Value, more: &[&str]) -> (i32, String) {
    let servers = shared().await;
    let (from, to) = (url("mysql", &servers.mysql, &source.name), url("postgres", &servers.postgres, &target.name));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules.to_string()).unwrap();
    let mut args = vec!["copy", from.as_str(), to.as_str(), "--rules", file.path().to_str().unwrap()];
    args.extend(more);
    let env =
        [("MILLRACE_SOURCE_PASSWORD", servers.mysql.password.as_str()), ("MILLRACE_TARGET_PASSWORD", servers.postgres.password.as_str())];
    let (code, out, err) = run(&args, &env).await.unwrap();
    (code, out + &err)
}

/// Copies statements' result and compares one text per row of `query` at the target.
async fn arrives(name: &str, statements: &[&str], rules: Value, checks: &[(&str, &[&str])]) -> String {
    let statements: Vec<String> = statements.iter().map(|text| (*text).to_owned()).collect();
    let source = source(name, &statements).await;
    let (code, output, target) = copy(&source, rules, &[]).await;
    assert_eq!(code, 0, "{output}");
    for (query, expected) in checks {
        assert_eq!(target.texts(query).await.unwrap(), *expected, "{query}");
    }
    output
}

/// Copies and expects failure; answers the output.
async fn fails(name: &str, statements: &[&str], rules: Value, more: &[&str]) -> String {
    let statements: Vec<String> = statements.iter().map(|text| (*text).to_owned()).collect();
    let source = source(name, &statements).await;
    let (code, output, _) = copy(&source, rules, more).await;
    assert_eq!(code, 1, "{output}");
    output
}

const ZERO: &[&str] = &[
    "SET sql_mode = 'ALLOW_INVALID_DATES'",
    "CREATE TABLE t (id INT PRIMARY KEY, d DATE, dt DATETIME(3), n DATE NOT NULL)",
    "INSERT INTO t VALUES (1, '0000-00-00', '0000-00-00 00:00:00', '2020-01-01'), (2, '2021-00-00', '2021-00-05 01:02:03.5', '2020-01-01'),
     (3, '2021-02-31', '2020-02-29 00:00:00', '2020-01-01')",
];

#[tokio::test]
async fn v1_v2_zero_dates_follow_every_policy() {
    let output =
        arrives("v1a", ZERO, json!([]), &[("SELECT concat_ws('/', id, d, dt) FROM t ORDER BY id", &["1", "2", "3/2020-02-29 00:00:00"])])
            .await;
    assert!(output.contains("t.d: 3 values") && output.contains("t.dt: 2 values"), "{output}");
    let clamp = json!([{"type": "date", "onLoss": "clamp"}, {"type": "datetime", "onLoss": "clamp"}]);
    let output = arrives(
        "v1b",
        ZERO,
        clamp,
        &[(
            "SELECT concat_ws('/', id, d, dt) FROM t ORDER BY id",
            &["1/0001-01-01/0001-01-01 00:00:00", "2/2021-01-01/2021-01-05 01:02:03.5", "3/2021-02-28/2020-02-29 00:00:00"],
        )],
    )
    .await;
    assert!(output.contains("became the nearest value"), "{output}");
    let text = json!([{"table": "t", "column": "d", "onLoss": "text"}, {"column": "dt", "onLoss": "text"}]);
    arrives(
        "v1c",
        ZERO,
        text,
        &[
            (
                "SELECT concat_ws('/', id, d, dt) FROM t ORDER BY id",
                &["1/0000-00-00/0000-00-00 00:00:00.000", "2/2021-00-00/2021-00-05 01:02:03.500", "3/2021-02-31/2020-02-29 00:00:00.000"],
            ),
            ("SELECT pg_typeof(d)::text FROM t LIMIT 1", &["text"]),
        ],
    )
    .await;
    let output = fails("v1d", ZERO, json!([{"type": "date", "onLoss": "error"}]), &[]).await;
    assert!(output.contains("column `d`") && output.contains("id=1") && output.contains("0000-00-00"), "{output}");
    let output = fails("v1e", ZERO, json!([]), &["--strict"]).await;
    assert!(output.contains("column `d`") && output.contains("id=1"), "{output}");
    let output = fails("v1f", ZERO, json!([{"column": "n", "onLoss": "null"}]), &[]).await;
    assert!(output.contains("NOT NULL"), "{output}");
}

#[tokio::test]
async fn v3_times_of_day_are_told_from_spans() {
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, clock TIME(6), span TIME(6), mixed TIME)",
        "INSERT INTO t VALUES (1, '00:00:00', '-838:59:59', '12:00:00'), (2, '23:59:59.999999', '838:59:58.999999', '-01:00:00'), (3, NULL, NULL, '48:00:00')",
    ];
    arrives(
        "v3a",
        &statements,
        json!([]),
        &[
            ("SELECT concat_ws('/', clock, span) FROM t ORDER BY id", &["00:00:00/-838:59:59", "23:59:59.999999/838:59:58.999999", ""]),
            ("SELECT concat_ws('/', pg_typeof(clock), pg_typeof(span)) FROM t LIMIT 1", &["time without time zone/interval"]),
        ],
    )
    .await;
    let rules = json!([{"column": "mixed", "to": "time", "onLoss": "clamp"}, {"column": "clock", "to": "interval"}, {"column": "span", "to": "text"}]);
    arrives(
        "v3b",
        &statements,
        rules,
        &[
            ("SELECT mixed::text FROM t ORDER BY id", &["12:00:00", "00:00:00", "24:00:00"]),
            ("SELECT span FROM t WHERE id < 3 ORDER BY id", &["-838:59:59.000000", "838:59:58.999999"]),
        ],
    )
    .await;
    let output = fails("v3c", &statements, json!([{"column": "mixed", "to": "time"}]), &[]).await;
    assert!(output.contains("outside one day") && output.contains("id=2"), "{output}");
}

#[tokio::test]
async fn v4_moments_arrive_whatever_the_servers_zone_is() {
    let statements: Vec<String> = [
        "SET time_zone = '+00:00'",
        "CREATE TABLE t (id INT PRIMARY KEY, dt DATETIME, ts TIMESTAMP(6) NULL, made TIMESTAMP NOT NULL DEFAULT '2021-03-14 08:30:00')",
        // 02:30 does not exist in Chicago on that day, 01:30 exists twice in November.
        "INSERT INTO t (id, dt, ts) VALUES (1, '2021-03-14 02:30:00', '2021-03-14 08:30:00.5'), (2, '2021-11-07 01:30:00', '2021-11-07 06:30:00'),
         (3, '2021-11-07 01:30:00', '2021-11-07 07:30:00')",
    ]
    .map(str::to_owned)
    .into();
    let source = source("v4", &statements).await;
    assert_eq!(source.texts("SELECT @@system_time_zone").await.unwrap()[0].get(..1), Some("C"), "the servers run in Chicago's zone");
    let (code, output, target) = copy(&source, json!([]), &[]).await;
    assert_eq!(code, 0, "{output}");
    target.client.batch_execute("SET timezone = 'UTC'").await.unwrap();
    let rows = target.texts("SELECT concat_ws('/', id, dt, ts, made) FROM t ORDER BY id").await.unwrap();
    assert_eq!(
        rows,
        [
            "1/2021-03-14 02:30:00/2021-03-14 08:30:00.5+00/2021-03-14 08:30:00+00",
            "2/2021-11-07 01:30:00/2021-11-07 06:30:00+00/2021-03-14 08:30:00+00",
            "3/2021-11-07 01:30:00/2021-11-07 07:30:00+00/2021-03-14 08:30:00+00"
        ]
    );
}

#[tokio::test]
async fn v5_v6_v7_numbers_and_bits_keep_their_range_or_follow_a_rule() {
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, u64 BIGINT UNSIGNED, u24 MEDIUMINT UNSIGNED, flag TINYINT(1), b1 BIT(1), b13 BIT(13), d DECIMAL(10,4))",
        "INSERT INTO t VALUES (1, 18446744073709551615, 16777215, 2, b'1', b'1000000000001', 1.2345), (2, 0, 0, -1, b'0', b'11', -99999.5000), (3, 1, 1, 1, NULL, NULL, 3)",
    ];
    arrives(
        "v5a",
        &statements,
        json!([]),
        &[
            (
                "SELECT concat_ws('/', u64, u24, flag, b1, b13, d) FROM t ORDER BY id",
                &["18446744073709551615/16777215/2/t/1000000000001/1.2345", "0/0/-1/f/0000000000011/-99999.5000", "1/1/1/3.0000"],
            ),
            (
                "SELECT concat_ws('/', pg_typeof(u64), pg_typeof(flag), pg_typeof(b1), pg_typeof(b13)) FROM t LIMIT 1",
                &["numeric/smallint/boolean/bit"],
            ),
        ],
    )
    .await;
    let rules = json!([
        {"type": "tinyint(1)", "to": "boolean", "onLoss": "clamp"}, {"column": "u64", "to": "bigint", "onLoss": "null"},
        {"column": "b1", "to": "bit(1)"}, {"column": "b13", "to": "bytea"}, {"column": "d", "to": "numeric(6,2)", "onLoss": "clamp"}
    ]);
    let output = arrives(
        "v5b",
        &statements,
        rules,
        &[(
            "SELECT concat_ws('/', flag, coalesce(u64::text, 'null'), b1, encode(b13, 'hex'), d) FROM t ORDER BY id",
            &["t/null/1/1001/1.23", "t/0/0/0003/-9999.99", "t/1/3.00"],
        )],
    )
    .await;
    assert!(output.contains("t.flag: 2 values") && output.contains("t.u64: 1 values") && output.contains("t.d: 2 values"), "{output}");
    let output = fails("v5c", &statements, json!([{"type": "tinyint(1)", "to": "boolean"}]), &[]).await;
    assert!(output.contains("column `flag`") && output.contains("id=1"), "{output}");
}

#[tokio::test]
async fn v8_v9_labels_arrive_as_text_arrays_or_types_of_their_own() {
    let statements = [
        "SET sql_mode = ''",
        "CREATE TABLE t (id INT PRIMARY KEY, e ENUM('a','it''s','x,y','back\\\\slash','ünï') CHARACTER SET latin1, s SET('one','two','quote\"d'))",
        "INSERT INTO t VALUES (1, 'it''s', 'one,quote\"d'), (2, 'x,y', ''), (3, 'back\\\\slash', NULL), (4, 'no such label', 'two'), (5, 'ünï', 'one')",
    ];
    let rows: &[&str] = &["it's/{one,\"quote\\\"d\"}", "x,y/{}", "back\\slash", "/{two}", "ünï/{one}"];
    arrives("v8a", &statements, json!([]), &[("SELECT concat_ws('/', e, s) FROM t ORDER BY id", rows)]).await;
    arrives(
        "v8b",
        &statements,
        json!([{"column": "e", "to": "enum"}, {"column": "s", "to": "text"}]),
        &[
            ("SELECT concat_ws('/', e, s) FROM t ORDER BY id", &["it's/one,quote\"d", "x,y/", "back\\slash", "/two", "ünï/one"]),
            ("SELECT typtype::text FROM pg_type t JOIN pg_attribute a ON a.atttypid = t.oid WHERE attrelid = 't'::regclass AND attname = 'e'", &["e"]),
            ("SELECT string_agg(enumlabel, '|' ORDER BY enumsortorder) FROM pg_enum", &["a|it's|x,y|back\\slash|ünï|"]),
        ],
    )
    .await;
}

#[tokio::test]
async fn v10_v11_v12_bytes_and_character_sets() {
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, b BINARY(16), l VARCHAR(20) CHARACTER SET latin1, g VARCHAR(20) CHARACTER SET gbk, u16 VARCHAR(20) CHARACTER SET utf16,
         u2 VARCHAR(20) CHARACTER SET ucs2, m VARCHAR(20) CHARACTER SET utf8mb4, u3 TEXT CHARACTER SET utf8mb3)",
        "INSERT INTO t VALUES (1, UNHEX('00112233445566778899AABBCC000000'), 'café€', '漢字', 'ü😀', 'ü漢', '😀\\0nul', '漢')",
        "INSERT INTO t VALUES (2, UNHEX('FF'), '', '', '', '', 'plain', '')",
    ];
    let output = fails("v12a", &statements, json!([]), &[]).await;
    assert!(output.contains("NUL character") && output.contains("column `m`") && output.contains("id=1"), "{output}");
    let query = "SELECT concat_ws('/', encode(b, 'hex'), l, g, u16, u2, coalesce(m, 'null'), u3) FROM t ORDER BY id";
    let second = "ff000000000000000000000000000000/////plain/";
    arrives(
        "v12b",
        &statements,
        json!([{"column": "m", "onLoss": "clamp"}]),
        &[(query, &["00112233445566778899aabbcc000000/café€/漢字/ü😀/ü漢/😀nul/漢", second])],
    )
    .await;
    let output = arrives(
        "v12c",
        &statements,
        json!([{"column": "m", "onLoss": "null"}]),
        &[(query, &["00112233445566778899aabbcc000000/café€/漢字/ü😀/ü漢/null/漢", second])],
    )
    .await;
    assert!(output.contains("t.m: 1 values"), "{output}");
    let output =
        fails("v12d", &statements, json!([{"column": "m", "onLoss": "text"}, {"column": "b", "to": "uuid", "onLoss": "text"}]), &[]).await;
    assert!(output.contains("which is no text"), "{output}");
}

#[tokio::test]
async fn v13_json_keeps_its_text_or_its_meaning() {
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, j JSON, l LONGTEXT)",
        r#"INSERT INTO t VALUES (1, '{"b": 1.50,  "a": 12345678901234567890123, "a": [null, "\\u00e9"]}', '{"x": [1, 2]}'), (2, '"a\\u0000b"', '[]')"#,
    ];
    arrives(
        "v13a",
        &statements,
        json!([]),
        &[("SELECT j::text FROM t WHERE id = 1", &[r#"{"b": 1.50,  "a": 12345678901234567890123, "a": [null, "\u00e9"]}"#])],
    )
    .await;
    arrives(
        "v13b",
        &statements,
        json!([{"column": "j", "to": "jsonb", "onLoss": "null"}, {"column": "l", "to": "jsonb"}]),
        &[("SELECT coalesce(j::text, 'null') || l::text FROM t ORDER BY id", &[r#"{"a": [null, "é"], "b": 1.50}{"x": [1, 2]}"#, "null[]"])],
    )
    .await;
    let output = fails("v13c", &statements, json!([{"column": "j", "to": "jsonb"}]), &[]).await;
    assert!(output.contains("column `j`") && output.contains("id=2"), "{output}");
}

const SPATIAL: &[&str] = &[
    "CREATE TABLE t (id INT PRIMARY KEY, p POINT NOT NULL, g GEOMETRY, m GEOMETRY, SPATIAL KEY by_p (p))",
    "INSERT INTO t VALUES (1, ST_GeomFromText('POINT(1.5 -2)', 4326), ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))'), ST_GeomFromText('LINESTRING(0 0,1 1)', 3857)),
     (2, ST_GeomFromText('POINT(0 0)', 4326), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'), ST_GeomFromText('MULTIPOINT(1 1,2 2)', 4326)),
     (3, ST_GeomFromText('POINT(9 9)', 4326), NULL, NULL)",
];

#[tokio::test]
async fn v14_spatial_values_arrive_as_geometry_or_well_known_binary() {
    let statements: Vec<String> = SPATIAL.iter().map(|text| (*text).to_owned()).collect();
    let source = source("v14", &statements).await;
    let (code, output, target) = copy(&source, json!([]), &[]).await;
    assert_eq!(code, 0, "{output}");
    let wkb: Vec<String> =
        source.texts("SELECT CONCAT_WS('/', LOWER(HEX(ST_AsBinary(p))), LOWER(HEX(ST_AsBinary(g)))) FROM t ORDER BY id").await.unwrap();
    assert_eq!(target.texts("SELECT concat_ws('/', encode(p, 'hex'), encode(g, 'hex')) FROM t ORDER BY id").await.unwrap(), wkb);
    assert_eq!(target.texts("SELECT col_description('t'::regclass, 2)").await.unwrap(), ["WKB, SRID 4326"]);
    assert_eq!(target.texts("SELECT col_description('t'::regclass, 4)").await.unwrap(), ["EWKB"], "values of two reference systems");
    assert!(output.contains("SPATIAL index `by_p` is not moved"), "{output}");

    let target = PgDatabase::create(&shared().await.postgres, "v14").await.unwrap();
    target.client.batch_execute("CREATE EXTENSION postgis").await.expect("PostGIS (`./x deps`)");
    let (code, output) = copy_into(&source, &target, json!([]), &[]).await;
    assert_eq!(code, 0, "{output}");
    let texts = source.texts("SELECT CONCAT_WS('/', ST_SRID(p), ST_AsText(p), ST_SRID(m)) FROM t ORDER BY id").await.unwrap();
    assert_eq!(target.texts("SELECT concat_ws('/', ST_SRID(p), ST_AsText(p), ST_SRID(m)) FROM t ORDER BY id").await.unwrap(), texts);
    assert_eq!(
        target.texts("SELECT encode(ST_AsBinary(g), 'hex') FROM t WHERE g IS NOT NULL ORDER BY id").await.unwrap(),
        wkb[..2].iter().map(|both| both.split('/').nth(1).unwrap()).collect::<Vec<_>>()
    );
    let types = target
        .texts("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 1 ORDER BY attnum")
        .await
        .unwrap();
    assert_eq!(types, ["geometry(Point,4326)", "geometry", "geometry"]);
    assert_eq!(target.texts("SELECT count(*)::text FROM pg_indexes WHERE indexdef LIKE '%gist%'").await.unwrap(), ["1"]);
}

#[tokio::test]
async fn v15_floats_keep_every_bit_and_narrower_ones_are_a_policy() {
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY, f FLOAT, d DOUBLE)",
        "INSERT INTO t VALUES (1, 0.1, 0.1), (2, '-0', '-0'), (3, 3.402823e38, 1.7976931348623157e308), (4, 1.17549435e-38, 5e-324), (5, 16777217, 9007199254740993)",
    ];
    let source = source("v15a", &statements.map(str::to_owned)).await;
    let (code, output, target) = copy(&source, json!([]), &[]).await;
    assert_eq!(code, 0, "{output}");
    // Bit by bit, as two other drivers read them.
    let digest = millrace_tests::digest::assert_equal(&source.pool, &source.name, &target.client, "public", "t").await.unwrap();
    assert_eq!(digest.rows, 5);
    let rows = target.texts("SELECT concat_ws('/', f, d) FROM t WHERE id > 2 ORDER BY id").await.unwrap();
    assert_eq!(rows, ["3.402823e+38/1.7976931348623157e+308", "1.1754944e-38/5e-324", "1.6777216e+07/9.007199254740992e+15"]);
    let output = fails("v15b", &statements, json!([{"column": "d", "to": "real"}]), &[]).await;
    assert!(output.contains("single precision") && output.contains("id=1"), "{output}");
}

#[tokio::test]
async fn v21_to_v25_generated_hidden_compressed_and_special_columns() {
    let statements = [
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, a INT, twice INT GENERATED ALWAYS AS (a * 2) STORED, hidden INT INVISIBLE DEFAULT 7,
         packed TEXT COMPRESSED, u UUID, v4 INET4, v6 INET6, touched DATETIME DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP)",
        "INSERT INTO t (id, a, hidden, packed, u, v4, v6, touched) VALUES (5, 21, 8, REPEAT('x', 1000), '123e4567-e89b-12d3-a456-426614174000', '192.0.2.1', '2001:db8::1', '2001-02-03 04:05:06')",
        "INSERT INTO t (a, v6) VALUES (NULL, '::ffff:192.0.2.1')",
        "CREATE SEQUENCE s START 5",
    ];
    let output = arrives(
        "v21",
        &statements,
        json!([]),
        &[
            (
                "SELECT concat_ws('/', id, a, twice, hidden, length(packed), u, v4, v6, touched) FROM t WHERE id = 5",
                &["5/21/42/8/1000/123e4567-e89b-12d3-a456-426614174000/192.0.2.1/2001:db8::1/2001-02-03 04:05:06"],
            ),
            ("SELECT v6::text FROM t WHERE id = 6", &["::ffff:192.0.2.1/128"]),
            ("UPDATE t SET a = 1 WHERE id = 5 RETURNING concat_ws('/', twice, touched)", &["2/2001-02-03 04:05:06"]),
            ("INSERT INTO t (a) VALUES (4) RETURNING concat_ws('/', id, twice, hidden)", &["7/8/7"]),
            ("SELECT attidentity::text || attgenerated::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attname IN ('id', 'twice') ORDER BY attnum", &["d", "s"]),
        ],
    )
    .await;
    assert!(output.contains("sequence `s` is not moved"), "{output}");
    let output = fails("v25", &["CREATE TABLE v (id INT PRIMARY KEY) WITH SYSTEM VERSIONING"], json!([]), &[]).await;
    assert!(output.contains("system-versioned"), "{output}");
}

#[tokio::test]
async fn v28_v29_circles_of_keys_and_names_of_every_kind() {
    let long = "n".repeat(64);
    let statements = vec![
        "SET foreign_key_checks = 0".to_owned(),
        "CREATE TABLE a (id INT PRIMARY KEY, b INT, CONSTRAINT a_b FOREIGN KEY (b) REFERENCES b (id) ON DELETE CASCADE)".to_owned(),
        "CREATE TABLE b (id INT PRIMARY KEY, a INT, me INT, CONSTRAINT b_a FOREIGN KEY (a) REFERENCES a (id), CONSTRAINT b_b FOREIGN KEY (me) REFERENCES b (id))".to_owned(),
        "INSERT INTO a VALUES (1, 2)".to_owned(),
        "INSERT INTO b VALUES (2, 1, 2)".to_owned(),
        "CREATE TABLE `new\nline \"quoted\" select` (`a column with \"quotes\" and ünïcode` INT, `SELECT` INT, `MiXed` INT)".to_owned(),
        "INSERT INTO `new\nline \"quoted\" select` VALUES (1, 2, 3)".to_owned(),
        format!("CREATE TABLE `{long}` (`{long}` INT PRIMARY KEY)"),
        format!("INSERT INTO `{long}` VALUES (64)"),
    ];
    let source = source("v28", &statements).await;
    let (code, output, target) = copy(&source, json!([]), &[]).await;
    assert_eq!(code, 0, "{output}");
    let keys = target.texts("SELECT conname::text FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace ORDER BY 1").await.unwrap();
    assert_eq!(keys, ["a_b", "b_a", "b_b"]);
    let odd = target.texts("SELECT concat_ws('/', \"a column with \"\"quotes\"\" and ünïcode\", \"SELECT\", \"MiXed\") FROM \"new\nline \"\"quoted\"\" select\"").await.unwrap();
    assert_eq!(odd, ["1/2/3"]);
    let mapped = target.texts("SELECT relname::text FROM pg_class WHERE relname LIKE 'nnn%' AND relkind = 'r'").await.unwrap();
    assert!(mapped.len() == 1 && mapped[0].len() <= 63, "{mapped:?}");
    assert!(output.contains(&format!("is named `{}`", mapped[0])), "the new name is reported: {output}");
    assert_eq!(target.texts(&format!("SELECT {0}::text FROM {0}", mapped[0])).await.unwrap(), ["64"], "the column is mapped the same way");
}

#[tokio::test]
async fn v30_long_rows_and_many_columns_move_with_flat_memory() {
    let columns: Vec<String> = (0..1000).map(|index| format!("c{index} INT")).collect();
    let values: Vec<String> = (0..1000).map(|index| index.to_string()).collect();
    let statements = vec![
        format!("CREATE TABLE wide (id INT PRIMARY KEY, {})", columns.join(", ")),
        format!("INSERT INTO wide VALUES (1, {})", values.join(", ")),
        "SET GLOBAL max_allowed_packet = 1073741824".to_owned(),
    ];
    let source = source("v30", &statements).await;
    // Another connection, because the packet's size is taken over at login.
    let big = MySqlDatabase::open(&shared().await.mysql, &source.name).await.unwrap();
    let statements: Vec<String> = [
        "CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT)",
        "INSERT INTO big VALUES (1, REPEAT('ab', 34000000), REPEAT('ü', 10)), (2, 'x', REPEAT('y', 20000000))",
    ]
    .map(str::to_owned)
    .into();
    big.execute(&statements).await.unwrap();
    let (code, output, target) = copy(&source, json!([]), &[]).await;
    assert_eq!(code, 0, "{output}");
    let sizes = target.texts("SELECT concat_ws('/', length(b), md5(b), length(t)) FROM big ORDER BY id").await.unwrap();
    let wanted = big.texts("SELECT CONCAT_WS('/', LENGTH(b), MD5(b), CHAR_LENGTH(t)) FROM big ORDER BY id").await.unwrap();
    assert_eq!(sizes, wanted);
    assert_eq!(target.texts("SELECT c999::text FROM wide").await.unwrap(), ["999"]);
}

#[tokio::test]
async fn rules_that_match_nothing_or_ask_the_impossible_are_named() {
    let server = support::Server::start().await;
    let source = source("rules", &["CREATE TABLE t (id INT PRIMARY KEY, d DATE NOT NULL, p POINT)".into()]).await;
    let (config, _) = server.config(&source).await;
    for (rule, field) in [
        (json!({"column": "nope", "onLoss": "null"}), "plan.rules[0]"),
        (json!({"column": "d", "to": "money"}), "plan.rules[0].to"),
        (json!({"column": "d", "to": "enum"}), "plan.rules[0].to"),
        (json!({"column": "d", "onLoss": "null"}), "plan.rules[0].onLoss"),
        (json!({"column": "d", "to": "date", "onLoss": "text"}), "plan.rules[0].onLoss"),
    ] {
        server.change(&config, json!({"plan": {"rules": [rule]}})).await;
        let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        assert_eq!((answer.status, answer.body["details"]["field"].as_str()), (400, Some(field)), "{answer:?}");
    }
    server.change(&config, json!({"plan": {"rules": [{"column": "p", "to": "integer"}]}})).await;
    let answer = server.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    assert_eq!(
        (answer.status, answer.body["code"].as_str(), answer.body["details"]["column"].as_str()),
        (422, Some("PLAN_REFUSED"), Some("p"))
    );
}
