//! Tools that run a model's own statements: reading ones, bounded in rows, bytes and time.

use std::time::Duration;

use millrace_core::connection::Engine;
use millrace_core::federation::{QueryOutcome, Want};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::{MOST_BYTES, sample};
use super::reading::checked;
use super::rows::{Sample, too_large};
use super::tool::Tool;
use crate::errors::{ApiError, ApiResult, Code};
use crate::place::{Place, PlaceNames};
use crate::routes::query::outcome_of;
use crate::routes::sql::{Reading, read_only};
use crate::state::AppState;
use crate::wire::query::{FederatedMapping, FederatedRequest};
use crate::wire::sql::QueryResult;

/// How long a statement may take when nobody says so, and at most, seconds.
const PATIENCE: u64 = 30;
const MOST_PATIENCE: u64 = 120;

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "dbconvert_run_select",
            "Run a SELECT",
            "Runs one SELECT or WITH … SELECT in the dialect of the connection's engine, in a transaction that cannot write.",
            run,
        ),
        Tool::new(
            "dbconvert_explain_select",
            "Explain a SELECT",
            "The engine's plan of one SELECT or WITH … SELECT (`EXPLAIN` as JSON); the statement itself is not run.",
            explain,
        ),
        Tool::new(
            "dbconvert_run_federated_select",
            "Run a SELECT across connections",
            "Runs one SELECT or WITH … SELECT in DuckDB's dialect over several connections; tables are `alias.schema.table` (PostgreSQL) and \
             `alias.database.table` (MySQL).",
            run_federated,
        ),
        Tool::new(
            "dbconvert_explain_federated_select",
            "Explain a SELECT across connections",
            "DuckDB's plan of one SELECT or WITH … SELECT over several connections; the statement itself is not run.",
            explain_federated,
        ),
    ]
}

/// A statement and where it runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RunTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// One SELECT or WITH … SELECT.
    query: String,
    /// At most so many rows: 100 if absent, never more than 1000.
    limit: Option<u64>,
    /// The statement is ended after so many seconds: 30 if absent, never more than 120.
    timeout_seconds: Option<u64>,
}

async fn run(state: AppState, takes: RunTakes) -> ApiResult<Sample> {
    let place = database(&state, takes.connection_id, takes.database).await?;
    checked(&takes.query, place.connection.engine)?;
    let limit_applied = sample(takes.limit);
    let reading = Reading { sql: &takes.query, max_rows: limit_applied, most_bytes: MOST_BYTES, deadline: patience(takes.timeout_seconds) };
    let QueryResult { columns, column_types, rows, truncated, .. } = read_only(&state, place, reading).await?;
    Ok(Sample {
        columns,
        column_types: column_types.unwrap_or_default(),
        count: rows.len(),
        rows,
        truncated: truncated.unwrap_or(false),
        limit_applied,
    })
}

/// A statement whose plan is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExplainTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// One SELECT or WITH … SELECT.
    query: String,
}

/// How an engine would run a statement.
#[derive(Debug, Serialize, JsonSchema)]
struct PlanAnswer {
    /// `mysql`, `postgresql` or `duckdb`: whose plan it is.
    engine: &'static str,
    /// The plan in the engine's own form.
    plan: Value,
}

async fn explain(state: AppState, takes: ExplainTakes) -> ApiResult<PlanAnswer> {
    let place = database(&state, takes.connection_id, takes.database).await?;
    let engine = place.connection.engine;
    let query = checked(&takes.query, engine)?;
    let sql = match engine {
        Engine::MySql => format!("EXPLAIN FORMAT=JSON {query}"),
        _ => format!("EXPLAIN (FORMAT JSON) {query}"),
    };
    // Engines look into small tables while they plan, and MySQL makes derived tables: that is bounded as a statement is.
    let reading = Reading { sql: &sql, max_rows: 1, most_bytes: MOST_BYTES, deadline: patience(None) };
    let result = read_only(&state, place, reading).await?;
    Ok(PlanAnswer { engine: engine.as_str(), plan: document(result.rows.into_iter().flatten().next())? })
}

/// A plan as JSON, whether the engine answers it as text or not.
fn document(plan: Option<Value>) -> ApiResult<Value> {
    match plan {
        Some(Value::String(text)) => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
        Some(plan) => Ok(plan),
        None => Err(ApiError::new(Code::Internal, "the engine answered no plan")),
    }
}

/// A statement over several connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FederatedTakes {
    /// One SELECT or WITH … SELECT in DuckDB's dialect.
    query: String,
    /// The connections by alias. Without them: connections whose name is the alias, then `my1`, `pg1`, … in order of creation.
    connections: Option<Vec<FederatedMapping>>,
    /// At most so many rows: 100 if absent, never more than 1000.
    limit: Option<u64>,
    /// The statement is ended after so many seconds: 30 if absent, never more than 120.
    timeout_seconds: Option<u64>,
}

async fn run_federated(state: AppState, takes: FederatedTakes) -> ApiResult<Sample> {
    let limit_applied = sample(takes.limit);
    let outcome = federated(&state, takes, Want::First(limit_applied)).await?;
    let bytes: usize = outcome.rows.iter().flatten().map(|value| value.as_str().map_or(8, str::len)).sum();
    if bytes > MOST_BYTES {
        return Err(too_large());
    }
    Ok(Sample {
        columns: outcome.columns,
        column_types: Vec::new(),
        count: outcome.rows.len(),
        rows: outcome.rows,
        truncated: outcome.is_cut,
        limit_applied,
    })
}

/// A statement over several connections whose plan is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExplainFederatedTakes {
    /// One SELECT or WITH … SELECT in DuckDB's dialect.
    query: String,
    /// The connections by alias. Without them: connections whose name is the alias, then `my1`, `pg1`, … in order of creation.
    connections: Option<Vec<FederatedMapping>>,
}

async fn explain_federated(state: AppState, takes: ExplainFederatedTakes) -> ApiResult<PlanAnswer> {
    let takes = FederatedTakes { query: takes.query, connections: takes.connections, limit: None, timeout_seconds: None };
    let outcome = federated(&state, takes, Want::Plan).await?;
    Ok(PlanAnswer { engine: "duckdb", plan: document(outcome.rows.into_iter().flatten().next())? })
}

/// DuckDB parses the statement itself and looks at its whole tree; here only what else it would read (`SHOW`, `DESCRIBE`) is refused.
async fn federated(state: &AppState, takes: FederatedTakes, want: Want) -> ApiResult<QueryOutcome> {
    crate::routes::sql::check(&takes.query)?;
    is_select(&takes.query)?;
    let request = FederatedRequest { sql: Some(takes.query), query: None, connections: takes.connections };
    let patience = patience(takes.timeout_seconds);
    match tokio::time::timeout(patience, outcome_of(state, request, want)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::new(Code::TimedOut, format!("the statement did not end within {} s", patience.as_secs()))),
    }
}

fn is_select(sql: &str) -> ApiResult<()> {
    use sqlparser::tokenizer::{Token, Tokenizer};
    let tokens = Tokenizer::new(&sqlparser::dialect::DuckDbDialect {}, sql).tokenize().unwrap_or_default();
    let first = tokens.iter().find(|token| !matches!(token, Token::Whitespace(_) | Token::LParen));
    match first {
        Some(Token::Word(word)) if ["SELECT", "WITH"].iter().any(|known| word.value.eq_ignore_ascii_case(known)) => Ok(()),
        _ => Err(ApiError::new(Code::StatementRefused, "only one SELECT or WITH … SELECT is allowed here").detail("field", "query")),
    }
}

async fn database(state: &AppState, connection: String, database: Option<String>) -> ApiResult<Place> {
    let place = Place::of(state, PlaceNames { connection, database, ..PlaceNames::default() }).await?;
    if place.connection.database().is_none() {
        let text = "this connection leads to no database; `dbconvert_preview_file` shows rows of files";
        return Err(ApiError::new(Code::NotSupported, text).detail("field", "connectionId"));
    }
    Ok(place)
}

fn patience(asked: Option<u64>) -> Duration {
    Duration::from_secs(asked.unwrap_or(PATIENCE).clamp(1, MOST_PATIENCE))
}
