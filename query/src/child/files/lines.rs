//! CSV and JSON as lines: the query that gives a changed file's lines in order.
//!
//! The lines are written by a COPY that quotes nothing, so that values which do not change keep their text.

use std::io::Read as _;

use duckdb::{Connection, params};
use millrace_core::explore::ResultColumn;
use millrace_core::files::{CsvDialect, FileChange, FileSet};
use serde_json::Value;

use super::rewrite::compression;
use super::{patch, quoted, reader, text};
use crate::child::attach::literal;
use crate::child::run::{describe, statement_error};
use crate::wire::{FailedKind, Failure};

/// What some programs write before the first line to say that UTF-8 follows.
const MARK: &str = "\u{feff}";

/// A CSV file's lines, the header among them.
pub(super) fn of_csv(connection: &Connection, files: &FileSet, dialect: &CsvDialect, change: &FileChange) -> Result<String, Failure> {
    if dialect.skip_rows > 0 || !dialect.comment.is_empty() {
        return Err(Failure::new(FailedKind::NotSupported, "the file has lines that are no rows, such as comments; they would be lost"));
    }
    let ending = match dialect.new_line_delimiter.as_str() {
        "\\n" | "" => "",
        "\\r\\n" => " || chr(13)",
        _ => return Err(Failure::new(FailedKind::NotSupported, "the file's lines end with a bare carriage return or in several ways")),
    };
    let struct_of: Vec<String> = (0..dialect.columns.len()).map(|index| format!("'c{index}': 'VARCHAR'")).collect();
    let header = u8::from(dialect.has_header);
    let source = format!(
        "SELECT row_number() OVER () - 1 - {header} AS n, * FROM read_csv({}, auto_detect = false, header = false, columns = {{{}}}, delim = {}, \
         quote = {}, escape = {}, nullstr = '', allow_quoted_nulls = false)",
        quoted(&files.paths),
        struct_of.join(", "),
        literal(&dialect.delimiter),
        literal(&dialect.quote),
        literal(&dialect.escape),
    );
    let is_edited = |name: &str| change.edits.iter().any(|(_, changes)| changes.contains_key(name));
    let edited: Vec<String> = dialect
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let name = &column.name;
            let own = cell(&format!("s.c{index}"), dialect);
            if !is_edited(name) {
                return own;
            }
            let new = cell(&written("e.ch", column, dialect), dialect);
            format!("CASE WHEN list_contains(json_keys(e.ch), {}) THEN {new} ELSE {own} END", literal(name))
        })
        .collect();
    let inserted: Vec<String> = dialect.columns.iter().map(|column| cell(&written("i.ch", column, dialect), dialect)).collect();
    // What stood before the first line stands before the first one again.
    let mark = if has_mark(connection, &files.paths)? {
        "CASE WHEN row_number() OVER (ORDER BY n) = 1 THEN chr(65279) ELSE '' END || "
    } else {
        ""
    };
    let glue = format!(" || {} || ", literal(&dialect.delimiter));
    Ok(format!(
        "SELECT {mark}line FROM (SELECT s.n AS n, {}{ending} AS line FROM ({source}) s LEFT JOIN edits e ON e.n = s.n \
         WHERE s.n NOT IN (SELECT n FROM deletes) UNION ALL SELECT i.n, {}{ending} FROM inserts i) ORDER BY n",
        edited.join(&glue),
        inserted.join(&glue),
    ))
}

/// Whether the bytes of a file begin with a byte order mark, which the engine does not count as content.
fn has_mark(connection: &Connection, paths: &[String]) -> Result<bool, Failure> {
    let path = paths.first().map_or("", String::as_str);
    if compression(path) == "uncompressed" {
        let mut begin = [0; 3];
        let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin));
        return Ok(read.is_ok() && begin == *MARK.as_bytes());
    }
    // As bytes, of which each is a letter.
    let sql = format!(
        "SELECT starts_with(l, 'ï»¿')::VARCHAR FROM read_csv({}, auto_detect = false, header = false, columns = {{'l': 'VARCHAR'}}, delim = E'\\x1f', \
         quote = '', escape = '', null_padding = true, strict_mode = false, encoding = 'latin-1') LIMIT 1",
        quoted(paths)
    );
    Ok(text(connection, &sql)?.as_deref() == Some("true"))
}

/// A new value of a column, in the spelling that the file has for its type.
fn written(json: &str, column: &ResultColumn, dialect: &CsvDialect) -> String {
    let value = format!("({json} ->> {})", pointer(&column.name));
    match (column.native_type.as_str(), format_of(column, dialect)) {
        (kind, Some(format)) => format!("strftime(CAST({value} AS {kind}), {})", literal(format)),
        (kind @ ("BOOLEAN" | "DATE" | "TIME" | "TIMESTAMP"), None) => format!("CAST(CAST({value} AS {kind}) AS VARCHAR)"),
        _ => value,
    }
}

/// How a file writes the moments of a column, if the engine has found out.
pub(super) fn format_of<'a>(column: &ResultColumn, dialect: &'a CsvDialect) -> Option<&'a str> {
    match column.native_type.as_str() {
        "DATE" => dialect.date_format.as_deref(),
        "TIMESTAMP" => dialect.timestamp_format.as_deref(),
        _ => None,
    }
}

/// A value as it stands in a line: nothing for NULL, quotes where they are needed.
fn cell(value: &str, dialect: &CsvDialect) -> String {
    let quote = if dialect.quote.is_empty() { "\"" } else { &dialect.quote };
    let escape = if dialect.escape.is_empty() { quote } else { &dialect.escape };
    let mut escaped = value.to_owned();
    if escape != quote {
        escaped = format!("replace({escaped}, {}, {})", literal(escape), literal(&escape.repeat(2)));
    }
    escaped = format!("replace({escaped}, {}, {})", literal(quote), literal(&format!("{escape}{quote}")));
    let has = |what: &str| format!("contains({value}, {what})");
    // Where nothing is quoted, a quote is a letter like others; a value that would need quotes there is found by the check of the new file.
    let special = if dialect.quote.is_empty() { "false".to_owned() } else { has(&literal(quote)) };
    format!(
        "CASE WHEN {value} IS NULL THEN '' WHEN {value} = '' OR {value} <> trim({value}) OR {special} OR {} OR {} OR {} \
         THEN {q} || {escaped} || {q} ELSE {value} END",
        has(&literal(&dialect.delimiter)),
        has("chr(10)"),
        has("chr(13)"),
        q = literal(quote),
    )
}

/// The path of a member, as DuckDB's JSON functions take it.
pub(super) fn pointer(name: &str) -> String {
    literal(&format!("/{}", name.replace('~', "~0").replace('/', "~1")))
}

/// A JSON file's lines: one record each, inside brackets if the root is an array.
pub(super) fn of_json(connection: &Connection, files: &FileSet, is_array: bool, change: &FileChange) -> Result<String, Failure> {
    let columns = describe(connection, &format!("SELECT * FROM {}", reader(files)))?;
    let path = quoted(&files.paths);
    connection.execute_batch("CREATE TEMP TABLE patched (n BIGINT PRIMARY KEY, t VARCHAR)").map_err(statement_error)?;
    let source = format!("SELECT row_number() OVER () - 1 AS n, json::VARCHAR AS t FROM read_json_objects({path}, format = 'auto')");
    patch_records(connection, &source, change, &columns)?;
    let rows = format!(
        "SELECT s.n AS n, coalesce(p.t, s.t) AS t FROM ({source}) s LEFT JOIN patched p ON p.n = s.n WHERE s.n NOT IN (SELECT n FROM deletes) \
         UNION ALL SELECT n, t FROM patched WHERE n IN (SELECT n FROM inserts)"
    );
    if !is_array {
        return Ok(format!("SELECT t AS line FROM ({rows}) ORDER BY n"));
    }
    // The bracket that closes stands on a line of its own, so that an array without records is one too.
    Ok(format!(
        "SELECT line FROM (SELECT -1 AS n, '[' AS line UNION ALL \
         SELECT n, t || CASE WHEN lead(n) OVER (ORDER BY n) IS NULL THEN '' ELSE ',' END FROM ({rows}) \
         UNION ALL SELECT 9223372036854775807, ']') ORDER BY n"
    ))
}

fn patch_records(connection: &Connection, source: &str, change: &FileChange, columns: &[ResultColumn]) -> Result<(), Failure> {
    let not_object = |row: u64| Failure::new(FailedKind::NotSupported, format!("the row {row} is no JSON object"));
    let mut insert = connection.prepare("INSERT INTO patched VALUES (?, ?)").map_err(statement_error)?;
    let mut found = Vec::new();
    {
        let sql = format!("SELECT n, t FROM ({source}) WHERE n IN (SELECT n FROM edits)");
        let mut statement = connection.prepare(&sql).map_err(statement_error)?;
        let mut rows = statement.query([]).map_err(statement_error)?;
        while let Some(row) = rows.next().map_err(statement_error)? {
            let (n, text): (u64, String) = (row.get(0).map_err(statement_error)?, row.get(1).map_err(statement_error)?);
            found.push((n, text));
        }
    }
    for (n, text) in found {
        let Some((_, changes)) = change.edits.iter().find(|(row, _)| *row == n) else { continue };
        let text = patch::patched(&text, changes, columns).ok_or_else(|| not_object(n))?;
        insert.execute(params![n, text]).map_err(statement_error)?;
    }
    let mut numbers = connection.prepare("SELECT n FROM inserts ORDER BY n").map_err(statement_error)?;
    let numbers: Vec<u64> = numbers.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(statement_error)?;
    for (n, values) in numbers.iter().zip(&change.inserts) {
        // In the order of the file's columns, whatever the request's.
        let mut ordered = serde_json::Map::new();
        for column in columns.iter().filter(|column| values.contains_key(&column.name)) {
            ordered.insert(column.name.clone(), values.get(&column.name).cloned().unwrap_or(Value::Null));
        }
        let text = patch::patched("{}", &ordered, columns).ok_or_else(|| not_object(*n))?;
        insert.execute(params![n, text]).map_err(statement_error)?;
    }
    Ok(())
}
