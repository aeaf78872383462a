//! Statements and their results, on the wire.

use millrace_core::explore::{AffectedObject, ResultColumn};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Rows of one result when nobody says how many.
pub(crate) const DEFAULT_ROWS: u64 = 1_000_000;

/// Statements to run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SqlRequest {
    /// One statement, or several separated by `;`. Each is committed by itself unless they say otherwise; the first that fails is the last that runs.
    pub(crate) query: String,
    /// At most so many rows of each result, 1000000 if absent; `truncated` says that there were more.
    pub(crate) max_rows: Option<u64>,
    /// Whether the server is to refuse every write.
    #[serde(default)]
    pub(crate) read_only: bool,
    /// `safe`: numbers that a double cannot carry are strings (the default); `exact`: they stay numbers.
    pub(crate) numbers: Option<String>,
    /// The client's tab, for records of statements.
    pub(crate) tab_id: Option<String>,
}

/// What statements answered. One statement fills `columns` and `rows`; several fill `results`, one entry each.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is written piece by piece
pub(crate) struct QueryResult {
    /// Names of the columns, in order; empty for a statement that answers no rows.
    pub(crate) columns: Vec<String>,
    /// Their types as the engine spells them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column_types: Option<Vec<String>>,
    /// One array per row.
    pub(crate) rows: Vec<Vec<Value>>,
    /// Rows of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Whether there were more rows than were wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) truncated: Option<bool>,
    /// What the statement was (`SELECT`, `CREATE TABLE`).
    #[serde(skip_serializing_if = "Option::is_none")]
    command_tag: Option<String>,
    /// Rows that were changed.
    #[serde(rename = "affected_rows", skip_serializing_if = "Option::is_none")]
    affected_rows: Option<u64>,
    /// Results of several statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<StatementResult>>,
    /// What was created, changed or dropped, so that clients ask for it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    affected_objects: Option<Vec<AffectedObject>>,
    /// `success`
    status: String,
    /// Milliseconds.
    execution_time_ms: u64,
}

/// What one of several statements answered.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)] // describes what is written piece by piece
pub(crate) struct StatementResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column_types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<Vec<Value>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<bool>,
    command_tag: String,
    /// Rows that it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_affected: Option<u64>,
}

/// A statement whose columns are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnsRequest {
    /// One statement; it is not run.
    pub(crate) query: String,
}

/// The columns of a statement.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ColumnsResponse {
    /// In order; none for a statement that answers no rows.
    pub(crate) columns: Vec<ResultColumn>,
    /// `success`
    pub(crate) status: &'static str,
}
