//! A user's statements, one after the other.
//!
//! A statement is first prepared, which tells its columns and types, and then sent as a simple query, whose rows come as text. Queries are read through a cursor, so
//! that the server makes no more rows than are wanted; everything else that answers rows runs to its end.

use futures::StreamExt as _;
use millrace_core::explore::{AffectedObject, READ_ONLY, ResultColumn, ResultSink, RunRequest, StatementEnd};
use millrace_core::{Error, Kind, Result};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Column, SimpleQueryMessage};

use super::super::error::{classify, refusal};
use super::super::names::quote;
use super::rows::{self, Form};
use super::split::{Statement, split};
use super::{PgExplorer, SETTINGS};

const CURSOR: &str = "millrace_rows";

/// First words of statements that read; the transaction that cannot write decides the rest.
const READING: [&str; 6] = ["SELECT", "WITH", "VALUES", "TABLE", "SHOW", "EXPLAIN"];

/// The query makes the transaction take its snapshot, after which its mode cannot be changed any more (manual, `SET TRANSACTION`).
pub(super) const BEGIN_READ_ONLY: &str = "BEGIN READ ONLY; SELECT 1";

/// The columns of a statement's result.
pub(super) async fn columns(explorer: &mut PgExplorer, sql: &str) -> Result<Vec<ResultColumn>> {
    let statements = split(sql);
    let Some(statement) = statements.first() else { return Err(nothing()) };
    if statements.len() > 1 {
        return Err(Error::new(Kind::StatementRefused, "only one statement at a time has columns"));
    }
    let prepared = explorer.client.prepare(statement.text).await.map_err(|error| refusal(error, 0))?;
    described(explorer, prepared.columns()).await
}

/// Runs statements until one fails.
pub(super) async fn run(explorer: &mut PgExplorer, request: &RunRequest, results: &mut dyn ResultSink) -> Result<()> {
    let statements = split(&request.sql);
    if statements.is_empty() {
        return Err(nothing());
    }
    results.expect(statements.len());
    for (index, statement) in statements.iter().enumerate() {
        let ran = one(explorer, statement, request, results).await;
        ran.map_err(|error| named(error).with("statement", (index + 1).to_string()))?;
    }
    Ok(())
}

/// A statement that is right but for an object that is not there.
fn named(error: Error) -> Error {
    // invalid_schema_name, undefined_table, undefined_column, undefined_object, undefined_function
    match error.detail("sqlstate") {
        Some("3F000" | "42P01" | "42703" | "42704" | "42883") => error.with_kind(Kind::ObjectMissing),
        _ => error,
    }
}

fn nothing() -> Error {
    Error::new(Kind::StatementRefused, "the text holds no statement")
}

async fn one(explorer: &mut PgExplorer, statement: &Statement<'_>, request: &RunRequest, results: &mut dyn ResultSink) -> Result<()> {
    refuse(statement, request.is_read_only)?;
    explorer.statements.push(statement.text.to_owned());
    let words: Vec<&str> = statement.words.iter().map(String::as_str).collect();
    if let ["DEALLOCATE", .., "ALL"] = words[..] {
        deallocate(&explorer.client).await?;
        return results.end(StatementEnd { command: "DEALLOCATE ALL".to_owned(), ..StatementEnd::default() }).await;
    }
    let placed = |error: tokio_postgres::Error| moved(refusal(error, 0), statement.start);
    let prepared = explorer.client.prepare(statement.text).await.map_err(placed)?;
    let columns = described(explorer, prepared.columns()).await?;
    let forms: Vec<Form> = prepared.columns().iter().map(|column| Form::of(column.type_().oid())).collect();
    let wants_cursor = !columns.is_empty() && is_query(statement) && request.max_rows < i64::MAX as u64;
    let opens = match (request.is_read_only, wants_cursor && !explorer.is_in_transaction) {
        (true, _) => Some(BEGIN_READ_ONLY),
        (false, true) => Some("BEGIN"),
        (false, false) => None,
    };
    if let Some(opening) = opens {
        explorer.client.batch_execute(opening).await.map_err(classify)?;
    }
    let reading = Reading { columns: &columns, forms: &forms, max_rows: request.max_rows, is_cursor: wants_cursor };
    let read = match read(&explorer.client, statement, &reading, results).await {
        Ok(outcome) if opens.is_some() => explorer.client.batch_execute("COMMIT").await.map(|()| outcome).map_err(placed),
        other => other,
    };
    if read.is_err() && opens.is_some() {
        explorer.roll_back().await;
    }
    let outcome = read?;
    settle(explorer, &words).await?;
    results.end(end_of(&words, &outcome)).await
}

/// What a session cannot do for its user.
fn refuse(statement: &Statement<'_>, is_read_only: bool) -> Result<()> {
    if statement.first == "COPY" && statement.words.iter().any(|word| word == "STDIN" || word == "STDOUT") {
        let text = "`COPY` from or to the client is not possible here; copy with a convert stream, or export the result";
        return Err(Error::new(Kind::StatementRefused, text));
    }
    if !is_read_only {
        return Ok(());
    }
    // A transaction that cannot write still lets a session lock tables, tell others, load libraries, and run programs by way of `DO`.
    if READING.contains(&statement.first.as_str()) {
        return Ok(());
    }
    let text = format!("only reading statements are allowed here, not `{}`", statement.first);
    Err(Error::new(Kind::StatementRefused, text).with("reason", READ_ONLY))
}

/// Whether a cursor can be declared for it: a query that changes nothing (manual, `DECLARE`).
fn is_query(statement: &Statement<'_>) -> bool {
    matches!(statement.first.as_str(), "SELECT" | "VALUES" | "TABLE" | "WITH") && !(statement.first == "WITH" && statement.has_write_word)
}

/// How a statement's rows are read.
struct Reading<'a> {
    columns: &'a [ResultColumn],
    forms: &'a [Form],
    max_rows: u64,
    is_cursor: bool,
}

/// What came of it.
#[derive(Debug, Default)]
struct Outcome {
    /// The number of the command's tag.
    count: u64,
    is_cut: bool,
}

async fn read(client: &Client, statement: &Statement<'_>, reading: &Reading<'_>, results: &mut dyn ResultSink) -> Result<Outcome> {
    let mut sql = statement.text.to_owned();
    if reading.is_cursor {
        let head = format!("DECLARE {CURSOR} NO SCROLL CURSOR FOR ");
        let before = head.chars().count();
        client
            .batch_execute(&format!("{head}{}\n", statement.text))
            .await
            .map_err(|error| moved(refusal(error, before), statement.start))?;
        sql = format!("FETCH FORWARD {} FROM {CURSOR}", reading.max_rows.saturating_add(1));
    }
    let placed = |error| moved(refusal(error, 0), if reading.is_cursor { 0 } else { statement.start });
    let mut messages = std::pin::pin!(client.simple_query_raw(&sql).await.map_err(placed)?);
    if !reading.columns.is_empty() {
        results.begin(reading.columns).await?;
        results.rows().begin_result(reading.columns);
    }
    let mut outcome = Outcome::default();
    let mut seen = 0_u64;
    while let Some(message) = messages.next().await {
        match message.map_err(placed)? {
            SimpleQueryMessage::Row(row) if !reading.columns.is_empty() => {
                seen += 1;
                if seen > reading.max_rows {
                    outcome.is_cut = true;
                    continue;
                }
                rows::add(&row, 0, reading.forms, results.rows())?;
                if millrace_core::value::RowEncoder::is_full(results.rows()) {
                    results.send().await?;
                }
            }
            SimpleQueryMessage::CommandComplete(count) => outcome.count = count,
            _ => {}
        }
    }
    if reading.is_cursor {
        client.batch_execute(&format!("CLOSE {CURSOR}")).await.map_err(classify)?;
    }
    Ok(outcome)
}

/// Moves an error's place by what stands before the statement.
fn moved(error: Error, start: usize) -> Error {
    let Some(position) = error.detail("position").and_then(|position| position.parse::<usize>().ok()) else { return error };
    let mut told = Error::new(error.kind(), error.message().to_owned());
    for (name, value) in error.details() {
        let value = if *name == "position" { (position + start).to_string() } else { value.clone() };
        told = told.with(name, value);
    }
    told
}

/// Keeps in mind what a statement has done to the session.
async fn settle(explorer: &mut PgExplorer, words: &[&str]) -> Result<()> {
    match words {
        ["BEGIN", ..] | ["START", "TRANSACTION", ..] => explorer.is_in_transaction = true,
        ["COMMIT" | "ROLLBACK", "PREPARED", ..] | ["ROLLBACK", "TO", ..] | ["ROLLBACK", _, "TO", ..] => {}
        ["COMMIT" | "END" | "ROLLBACK" | "ABORT", .., "AND", "CHAIN"] => {}
        ["COMMIT" | "END" | "ROLLBACK" | "ABORT", ..] | ["PREPARE", "TRANSACTION", ..] => explorer.is_in_transaction = false,
        // That also takes the settings and the driver's own statements.
        ["DISCARD", "ALL"] => explorer.renew_used().await?,
        ["RESET", "ALL"] => explorer.client.batch_execute(SETTINGS).await.map_err(classify)?,
        _ => {}
    }
    Ok(())
}

/// Forgets what a user has prepared.
pub(super) async fn deallocate(client: &Client) -> Result<()> {
    let rows =
        client.query_typed("SELECT name FROM pg_prepared_statements WHERE from_sql", &[]).await.map_err(|error| refusal(error, 0))?;
    let all: Vec<String> = rows.iter().map(|row| format!("DEALLOCATE {}", quote(row.get(0)))).collect();
    if all.is_empty() { Ok(()) } else { client.batch_execute(&all.join("; ")).await.map_err(classify) }
}

/// Names and types of columns; types of the server's own are asked for once.
async fn described(explorer: &mut PgExplorer, columns: &[Column]) -> Result<Vec<ResultColumn>> {
    let key = |column: &Column| (column.type_().oid(), column.type_modifier());
    let mut missing: Vec<(u32, i32)> = columns.iter().map(key).filter(|key| !explorer.type_names.contains_key(key)).collect();
    missing.sort_unstable();
    missing.dedup();
    if !missing.is_empty() {
        let (oids, modifiers): (Vec<u32>, Vec<i32>) = missing.iter().copied().unzip();
        let sql = "SELECT format_type(t.oid, t.modifier) FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY t (oid, modifier, place) ORDER BY place";
        let names = explorer.ask(sql, &[(&oids, Type::OID_ARRAY), (&modifiers, Type::INT4_ARRAY)]).await?;
        for (key, row) in missing.iter().zip(names) {
            explorer.type_names.insert(*key, row.get(0));
        }
    }
    let described = columns.iter().map(|column| ResultColumn {
        name: column.name().to_owned(),
        native_type: explorer.type_names.get(&key(column)).cloned().unwrap_or_default(),
        nullable: None,
        bits: None,
    });
    let described = described.collect();
    // Types of users can be renamed and dropped.
    explorer.type_names.retain(|(oid, _), _| *oid < 16_384);
    Ok(described)
}

fn end_of(words: &[&str], outcome: &Outcome) -> StatementEnd {
    let (command, affected) = command(words);
    let changes = matches!(command.as_str(), "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "COPY") || is_filled(words);
    StatementEnd { rows_affected: changes.then_some(outcome.count), is_cut: outcome.is_cut, command, affected }
}

/// `SELECT … INTO` and `CREATE TABLE … AS` count the rows that they write.
fn is_filled(words: &[&str]) -> bool {
    let has = |word: &str| words.contains(&word);
    match words.first() {
        Some(&"SELECT" | &"WITH") => has("INTO"),
        Some(&"CREATE") => has("TABLE") && has("AS") && (has("SELECT") || has("VALUES") || has("EXECUTE")),
        _ => false,
    }
}

/// The command's name and what it concerns.
fn command(words: &[&str]) -> (String, Option<AffectedObject>) {
    let first = words.first().copied().unwrap_or("SELECT");
    match first {
        "WITH" => {
            let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE"];
            let verb = words.iter().find(|word| verbs.contains(word)).copied().unwrap_or("SELECT");
            (verb.to_owned(), is_filled(words).then_some(AffectedObject::Table).filter(|_| verb == "SELECT"))
        }
        "SELECT" => (first.to_owned(), is_filled(words).then_some(AffectedObject::Table)),
        "CREATE" | "ALTER" | "DROP" => {
            let fillers = [
                "OR",
                "REPLACE",
                "TEMP",
                "TEMPORARY",
                "UNLOGGED",
                "UNIQUE",
                "RECURSIVE",
                "FOREIGN",
                "GLOBAL",
                "LOCAL",
                "EVENT",
                "CONSTRAINT",
                "TRUSTED",
                "PROCEDURAL",
                "MATERIALIZED",
                "DEFAULT",
                "USER",
                "TEXT",
                "ACCESS",
            ];
            let object = words[1..].iter().find(|word| !fillers.contains(word)).copied().unwrap_or_default();
            let affected = match object {
                "DATABASE" => Some(AffectedObject::Database),
                "SCHEMA" => Some(AffectedObject::Schema),
                "TABLE" | "VIEW" | "INDEX" | "FUNCTION" | "PROCEDURE" | "ROUTINE" | "AGGREGATE" | "TRIGGER" | "TYPE" | "DOMAIN"
                | "SEQUENCE" | "RULE" | "EXTENSION" => Some(AffectedObject::Table),
                _ => None,
            };
            (format!("{first} {object}").trim_end().to_owned(), affected)
        }
        "IMPORT" => ("IMPORT FOREIGN SCHEMA".to_owned(), Some(AffectedObject::Table)),
        "COMMENT" => (first.to_owned(), Some(AffectedObject::Table)),
        "START" => ("START TRANSACTION".to_owned(), None),
        "REFRESH" => ("REFRESH MATERIALIZED VIEW".to_owned(), None),
        other => (other.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sql: &str) -> (String, Option<AffectedObject>) {
        let statements = split(sql);
        let words: Vec<&str> = statements[0].words.iter().map(String::as_str).collect();
        command(&words)
    }

    #[test]
    fn a_statement_says_what_it_concerns() {
        let table = Some(AffectedObject::Table);
        let cases = [
            ("create unique index i on t (a)", "CREATE INDEX", table),
            ("create or replace view v as select 1", "CREATE VIEW", table),
            ("CREATE TABLE t (database int)", "CREATE TABLE", table),
            ("drop materialized view v", "DROP VIEW", table),
            ("create schema s", "CREATE SCHEMA", Some(AffectedObject::Schema)),
            ("DROP DATABASE IF EXISTS d", "DROP DATABASE", Some(AffectedObject::Database)),
            ("alter role r login", "ALTER ROLE", None),
            ("with x as (insert into t values (1) returning *) select * from x", "SELECT", None),
            ("with x as (select 1) delete from t", "DELETE", None),
            ("select * into n from t", "SELECT", table),
            ("(select 1)", "SELECT", None),
        ];
        for (sql, expected, affected) in cases {
            assert_eq!(told(sql), (expected.to_owned(), affected), "{sql}");
        }
    }

    #[test]
    fn cursors_are_for_queries_that_change_nothing() {
        for (sql, expected) in [
            ("select 1", true),
            ("(select 1) union (select 2)", true),
            ("with x as (select 1) table x", true),
            ("with x as (delete from t returning *) select * from x", false),
            ("insert into t values (1) returning a", false),
            ("explain select 1", false),
        ] {
            assert_eq!(is_query(&split(sql)[0]), expected, "{sql}");
        }
    }
}
