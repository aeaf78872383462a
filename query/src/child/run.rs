//! Checks and runs the statement, and turns its rows into JSON.
//!
//! DuckDB itself writes every value as text (or JSON, for nested ones); here it only becomes a JSON number where a double carries it exactly.

use duckdb::Connection;
use millrace_core::explore::ResultColumn;
use millrace_core::federation::Want;
use serde_json::{Number, Value};

use super::attach::{Bounds, attach, first_line, lock_down};
use super::objects::Confined;
use crate::check::{check, check_with_objects};
use crate::wire::{FailedKind, Failure, Request};

/// The largest whole number up to which doubles are exact.
const EXACT_INT: i64 = 1 << 53;

/// The most bytes of an answer.
const MAX_BYTES: usize = 64 << 20;

/// What a statement answered.
pub(super) struct Rows {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Value>>,
    /// Whether there are more rows than were wanted.
    pub(super) is_cut: bool,
}

/// How a column's text becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int,
    Float,
    Decimal,
    Nested,
    Text,
}

pub(super) fn run(connection: &Connection, request: &Request) -> Result<Rows, Failure> {
    let tree: String = connection
        .query_row("SELECT json_serialize_sql(?::VARCHAR)", [&request.sql], |row| row.get(0))
        .map_err(|error| Failure::refused(error.to_string()))?;
    let mut parsed: Value =
        serde_json::from_str(&tree).map_err(|_| Failure::new(FailedKind::Internal, "the parsed statement is not JSON"))?;
    let objects = Confined::of(&mut parsed, &request.stores)?;
    let checked = if objects.paths.is_empty() { check(&parsed, &request.sources)? } else { check_with_objects(&parsed, &request.sources)? };
    let sql: String = connection
        .query_row("SELECT json_deserialize_sql(?::JSON)", [parsed.to_string()], |row| row.get(0))
        .map_err(|error| Failure::refused(error.to_string()))?;
    objects.open(connection)?;
    for source in &request.sources {
        if checked.wants_all || checked.aliases.contains(&source.alias) {
            attach(connection, source, request)?;
        }
    }
    let Request { memory_mb, threads, temp_dir, .. } = request;
    lock_down(connection, &Bounds { memory_mb: *memory_mb, threads: *threads, temp_dir, paths: &objects.paths })?;
    let sql = sql.trim_end().trim_end_matches(';');
    let names = |columns: Vec<ResultColumn>| columns.into_iter().map(|column| column.name).collect();
    match request.want {
        Want::All => {
            let (columns, rows) = fetch(connection, sql, request.max_rows)?;
            Ok(Rows { columns: names(columns), rows, is_cut: false })
        }
        Want::First(wanted) => {
            let wanted = wanted.min(request.max_rows);
            let one_more = wanted.saturating_add(1);
            let (columns, mut rows) = fetch(connection, &format!("SELECT * FROM ({sql}) LIMIT {one_more}"), one_more)?;
            let is_cut = rows.len() as u64 > wanted;
            rows.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
            Ok(Rows { columns: names(columns), rows, is_cut })
        }
        Want::Plan => plan(connection, sql),
    }
}

/// How the engine would run a query; nothing is run.
fn plan(connection: &Connection, sql: &str) -> Result<Rows, Failure> {
    let mut explain = connection.prepare(&format!("EXPLAIN (FORMAT json) {sql}")).map_err(statement_error)?;
    let text: String = explain.query_row([], |row| row.get(1)).map_err(statement_error)?;
    let plan = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Rows { columns: vec!["plan".to_owned()], rows: vec![vec![plan]], is_cut: false })
}

/// The columns of a query's result.
pub(super) fn describe(connection: &Connection, sql: &str) -> Result<Vec<ResultColumn>, Failure> {
    let mut described = connection.prepare(&format!("DESCRIBE SELECT * FROM ({sql})")).map_err(statement_error)?;
    let columns =
        described.query_map([], |row| Ok(ResultColumn { name: row.get(0)?, native_type: row.get(1)?, nullable: None, bits: None }));
    columns.and_then(Iterator::collect).map_err(statement_error)
}

/// All rows of a query's result; more than `max_rows` are an error.
pub(super) fn fetch(connection: &Connection, sql: &str, max_rows: u64) -> Result<(Vec<ResultColumn>, Vec<Vec<Value>>), Failure> {
    let described = describe(connection, sql)?;
    let columns: Vec<Form> = described.iter().map(|column| Form::of(&column.native_type)).collect();
    let list: Vec<String> = columns
        .iter()
        .zip(1..)
        .map(|(form, place)| if *form == Form::Nested { format!("to_json(#{place})::VARCHAR") } else { format!("#{place}::VARCHAR") })
        .collect();
    let text = format!("SELECT {} FROM ({sql})", list.join(", "));
    let mut statement = connection.prepare(&text).map_err(statement_error)?;
    let mut found = statement.query([]).map_err(statement_error)?;
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = found.next().map_err(statement_error)? {
        if rows.len() as u64 == max_rows {
            return Err(Failure::new(
                FailedKind::Exhausted,
                format!("the result has more than {max_rows} rows; add a LIMIT or an aggregate"),
            ));
        }
        let mut values = Vec::with_capacity(columns.len());
        for (index, form) in columns.iter().enumerate() {
            let text: Option<String> = row.get(index).map_err(statement_error)?;
            bytes += text.as_ref().map_or(4, String::len);
            values.push(text.map_or(Value::Null, |text| form.json(text)));
        }
        if bytes > MAX_BYTES {
            return Err(Failure::new(
                FailedKind::Exhausted,
                format!("the result is larger than {} MiB; select fewer columns or rows", MAX_BYTES >> 20),
            ));
        }
        rows.push(values);
    }
    Ok((described, rows))
}

impl Form {
    pub(super) fn of(kind: &str) -> Self {
        if kind.ends_with(']') || kind.starts_with("STRUCT") || kind.starts_with("MAP") || kind.starts_with("UNION") {
            return Self::Nested;
        }
        match kind.split('(').next().unwrap_or_default() {
            "BOOLEAN" => Self::Bool,
            "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT" | "UINTEGER" | "UBIGINT" | "UHUGEINT" => {
                Self::Int
            }
            "FLOAT" | "DOUBLE" => Self::Float,
            "DECIMAL" => Self::Decimal,
            _ => Self::Text,
        }
    }

    fn json(self, text: String) -> Value {
        let number = match self {
            Self::Bool => return Value::Bool(text == "true"),
            Self::Nested => return serde_json::from_str(&with_exact_numbers(&text)).unwrap_or(Value::String(text)),
            Self::Int => text.parse::<i64>().ok().filter(|value| value.abs() <= EXACT_INT).map(Number::from),
            Self::Float => text.parse::<f64>().ok().and_then(Number::from_f64),
            // Exact only if the double's shortest text has the same digits.
            Self::Decimal => text.parse::<f64>().ok().filter(|value| same_digits(&value.to_string(), &text)).and_then(Number::from_f64),
            Self::Text => None,
        };
        number.map_or(Value::String(text), Value::Number)
    }
}

/// A JSON text in which the numbers that no double carries are strings with all their digits, as they are outside of nested values.
fn with_exact_numbers(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        let is_word = first == '-' || first.is_ascii_alphanumeric();
        let end = if is_word {
            rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '+' | '-' | '.')).unwrap_or(rest.len())
        } else if first == '"' {
            end_of_string(rest)
        } else {
            first.len_utf8()
        };
        let (part, after) = rest.split_at(end);
        if is_word && !is_exact(part) {
            written.extend(["\"", part, "\""]);
        } else {
            written.push_str(part);
        }
        rest = after;
    }
    written
}

/// The bytes of the string that a JSON text begins with.
fn end_of_string(json: &str) -> usize {
    let mut is_escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(json.len(), |end| end + 2)
}

/// Whether a word of JSON loses nothing as a double. The engine writes exponents for doubles only, and `NaN` and `Infinity`, which JSON does not know.
fn is_exact(word: &str) -> bool {
    if matches!(word, "true" | "false" | "null") {
        return true;
    }
    let is_finite = word.parse::<f64>().is_ok_and(f64::is_finite);
    if word.contains(['e', 'E']) {
        return is_finite;
    }
    let form = if word.contains('.') { Form::Decimal } else { Form::Int };
    is_finite && form.json(word.to_owned()).is_number()
}

/// Whether two decimal texts are the same number, apart from zeros at the end of the fraction.
fn same_digits(a: &str, b: &str) -> bool {
    let plain = |text: &str| match text.split_once('.') {
        Some((whole, fraction)) => {
            let fraction = fraction.trim_end_matches('0');
            if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
        }
        None => text.to_owned(),
    };
    plain(a) == plain(b)
}

pub(super) fn statement_error(error: duckdb::Error) -> Failure {
    let text = error.to_string();
    let kind = if text.starts_with("Catalog Error") {
        FailedKind::ObjectMissing
    } else if text.starts_with("Out of Memory") {
        FailedKind::Exhausted
    } else if let Some(kind) = store_error(&text) {
        kind
    } else if text.to_lowercase().contains("permission denied") {
        FailedKind::PermissionDenied
    } else {
        FailedKind::StatementRefused
    };
    Failure::new(kind, first_line(&text).to_owned())
}

/// What an object store's refusal means, as the engine words it.
fn store_error(text: &str) -> Option<FailedKind> {
    let has = |word: &str| text.contains(word);
    if text.starts_with("HTTP Error") && has("ETag") || has("was initially") {
        return Some(FailedKind::FileChanged);
    }
    let is_of_store = text.starts_with("HTTP Error") || text.starts_with("IO Error") && has("for HTTP");
    if !is_of_store {
        return None;
    }
    Some(if has("InvalidAccessKeyId") || has("SignatureDoesNotMatch") || has("InvalidToken") || has("ExpiredToken") {
        FailedKind::LoginRefused
    } else if has("HTTP 404") || has("NoSuchKey") || has("NoSuchBucket") {
        FailedKind::NotFound
    } else if has("HTTP 403") || has("HTTP 401") {
        FailedKind::PermissionDenied
    } else {
        FailedKind::Unreachable
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::{Source, SourceEngine};

    fn refusal(sql: &str) -> Option<String> {
        let connection = Connection::open_in_memory().unwrap();
        let tree: String = connection.query_row("SELECT json_serialize_sql(?::VARCHAR)", [sql], |row| row.get(0)).unwrap();
        let source = |alias: &str, engine| Source {
            alias: alias.into(),
            engine,
            host: String::new(),
            port: 1,
            user: String::new(),
            password: String::new(),
            database: None,
            tls: None,
        };
        let sources = [source("pg1", SourceEngine::Postgres), source("my1", SourceEngine::MySql)];
        check(&serde_json::from_str(&tree).unwrap(), &sources).err().map(|failure| failure.message)
    }

    #[test]
    fn reading_statements_are_allowed() {
        for sql in [
            "SELECT a.name, b.total FROM pg1.public.accounts a JOIN my1.sales.orders b ON a.id = b.account_id",
            "WITH x AS (SELECT 1 AS a), y AS (SELECT * FROM x) SELECT * FROM y UNION ALL SELECT 2 ORDER BY 1 LIMIT 3",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r",
            "SELECT count(*) FILTER (a > 1), sum(b) OVER (PARTITION BY c ORDER BY d), CASE WHEN a THEN 1 END FROM pg1.public.t GROUP BY ALL",
            "SELECT * FROM range(10) t(i) WHERE i IN (SELECT id FROM PG1.public.t) AND EXISTS (SELECT 1 FROM my1.d.t)",
            "SHOW DATABASES",
            "SHOW ALL TABLES",
            "DESCRIBE pg1.public.t",
            "SUMMARIZE SELECT 1",
            "VALUES (1, 'a')",
            "SELECT CAST(a AS DECIMAL(10, 2)), list_transform([1, 2], lambda x: x + 1), a::date FROM pg1.s.t",
            "SELECT * FROM information_schema.tables",
            "SELECT database_name FROM duckdb_databases()",
            "SELECT extract(year FROM a), a LIKE 'x%', a SIMILAR TO 'x', a ~~* 'X', a || b, -a, a ** 2, a // 2, a IN (1, 2), position('a' IN b) FROM pg1.s.t",
            "SELECT {'a': 1}.a, [1, 2][1], [1, 2, 3][1:2], map {'k': 1}['k'], [x + 1 for x in [1, 2] if x > 1], row(1, 2), j -> '$.a', j ->> 'a' FROM pg1.s.t",
            "SELECT substring(a FROM 1 FOR 2), trim(a), overlay, a AT TIME ZONE 'UTC', now(), current_date, interval 1 day, coalesce(a, b) FROM pg1.s.t",
            "SELECT count(*), count(DISTINCT a), string_agg(a, ','), quantile_cont(b, 0.5), row_number() OVER (), lag(a) OVER (ORDER BY b) FROM pg1.s.t",
        ] {
            assert_eq!(refusal(sql), None, "{sql}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (sql, word) in [
            ("ATTACH 'x' AS y", "only reading"),
            ("COPY (SELECT 1) TO '/tmp/x'", "only reading"),
            ("SET threads = 1", "only reading"),
            ("INSERT INTO pg1.public.t VALUES (1)", "only reading"),
            ("CREATE TABLE x (a int)", "only reading"),
            ("INSTALL httpfs", "only reading"),
            ("LOAD httpfs", "only reading"),
            ("CALL pragma_version()", "only reading"),
            ("PRAGMA version", "only reading"),
            ("EXPLAIN ANALYZE INSERT INTO pg1.public.t VALUES (1)", "only reading"),
            ("SELECT 1; SELECT 2", "one statement"),
            ("", "one statement"),
            ("SELECT 1; DROP TABLE pg1.public.t", "only reading"),
            ("SELECT * FROM postgres_query('pg1', 'DROP TABLE t')", "postgres_query"),
            ("SELECT * FROM postgres_scan('host=h', 'public', 't')", "postgres_scan"),
            ("WITH a AS (SELECT * FROM MySQL_Query('my1', 'x')) SELECT * FROM a", "mysql_query"),
            ("SELECT (SELECT max(a) FROM postgres_execute('pg1', 'x'))", "postgres_execute"),
            ("SELECT * FROM query('SELECT 1')", "query"),
            ("SELECT * FROM query_table('t')", "query_table"),
            ("SELECT * FROM read_csv('/etc/passwd')", "read_csv"),
            ("SELECT * FROM glob('/*')", "glob"),
            ("SELECT * FROM read_text('/etc/passwd')", "read_text"),
            ("SELECT * FROM duckdb_secrets()", "duckdb_secrets"),
            ("SELECT * FROM duckdb_settings()", "duckdb_settings"),
            ("SELECT getenv('HOME')", "getenv"),
            ("SELECT current_setting('threads')", "current_setting"),
            ("SELECT json_serialize_plan('SELECT * FROM postgres_scan(''host=h'', ''public'', ''t'')')", "json_serialize_plan"),
            ("SELECT 1 WHERE JSON_Serialize_Plan('SELECT 1') IS NULL", "json_serialize_plan"),
            ("SELECT main.json_serialize_plan('SELECT 1')", "json_serialize_plan"),
            ("SELECT ('SELECT 1').json_serialize_plan()", "json_serialize_plan"),
            ("SELECT * FROM range(json_array_length(json_serialize_plan('SELECT 1')::JSON))", "json_serialize_plan"),
            ("SELECT list_transform(['SELECT 1'], lambda x: json_serialize_plan(x))", "json_serialize_plan"),
            ("SELECT json_serialize_sql('SELECT 1')", "json_serialize_sql"),
            ("SELECT json_deserialize_sql('{}')", "json_deserialize_sql"),
            ("SELECT json_execute_serialized_sql('{}')", "json_execute_serialized_sql"),
            ("SELECT * FROM json_execute_serialized_sql('{}')", "json_execute_serialized_sql"),
            ("SELECT query('SELECT 1')", "query"),
            ("SELECT query_table('t')", "query_table"),
            ("SELECT getvariable('x')", "getvariable"),
            ("SELECT set_config('threads', '1', false)", "set_config"),
            ("SELECT write_log('x')", "write_log"),
            ("SELECT pg_sleep(1)", "pg_sleep"),
            ("SELECT sleep_ms(1)", "sleep_ms"),
            ("SELECT nextval('s')", "nextval"),
            ("SELECT __internal_compress_string_ubigint('x')", "__internal_compress_string_ubigint"),
            ("SELECT no_such_function(1)", "no_such_function"),
            ("SELECT * FROM 'a.csv'", "has no alias"),
            ("SELECT * FROM pg1.public.t POSITIONAL JOIN 's3://b/x.parquet'", "has no alias"),
            ("WITH \"a.csv\" AS (SELECT * FROM \"a.csv\") SELECT * FROM \"a.csv\"", "has no alias"),
            ("SELECT * FROM (WITH \"a.csv\" AS (SELECT 1) SELECT 1) t, \"a.csv\"", "has no alias"),
            ("SELECT * FROM orders", "alias.database.table"),
            ("SELECT * FROM pg2.public.t", "known aliases: pg1, my1"),
            ("SELECT * FROM my1.orders", "my1.database.orders"),
            ("SELECT * FROM pg1.orders", "pg1.public.orders"),
            ("DESCRIBE t", "alias"),
            ("SELEKT 1", "syntax error"),
            ("SELECT * FROM pg1.public.t ORDER BY (SELECT * FROM read_blob('/x'))", "read_blob"),
        ] {
            let reason = refusal(sql).unwrap_or_else(|| panic!("allowed: {sql}"));
            assert!(reason.contains(word), "{sql}: {reason}");
        }
    }

    #[test]
    fn numbers_stay_exact() {
        assert_eq!(Form::Int.json("9007199254740993".into()), Value::from("9007199254740993"));
        assert_eq!(Form::Int.json("-12".into()), Value::from(-12));
        assert_eq!(Form::Decimal.json("12.50".into()), Value::from(12.5));
        assert_eq!(Form::Decimal.json("0.1234567890123456789".into()), Value::from("0.1234567890123456789"));
        assert_eq!(Form::Float.json("inf".into()), Value::from("inf"));
        let nested = r#"{"a\"1": [9007199254740993, -12, 0.1, 1e22, 123456789012345678.12, 100000000000000000000.0], "é": {"b": [NaN, -Infinity, true, null, 1.50]}}"#;
        let expected = serde_json::json!({
            "a\"1": ["9007199254740993", -12, 0.1, 1e22, "123456789012345678.12", 1e20],
            "é": {"b": ["NaN", "-Infinity", true, null, 1.5]}
        });
        assert_eq!(Form::Nested.json(nested.into()), expected);
        assert_eq!(Form::of("DECIMAL(18,3)"), Form::Decimal);
        assert_eq!(Form::of("DECIMAL(18,3)[]"), Form::Nested);
    }
}
