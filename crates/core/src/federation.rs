//! What the API server asks of the query tier: one statement over resolved sources.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::error::Result;
use crate::files::{FileAnswer, FileRequest};

/// One source under the name that the statement uses.
#[derive(Debug, Clone)]
pub struct AliasedSource {
    /// A letter, then letters, digits, underscores.
    pub alias: String,
    /// The connection with its secrets.
    pub connection: Connection,
    /// The database to attach; the connection's default when absent. PostgreSQL attaches exactly one database; MySQL shows all
    /// databases of the server as `alias.database.table`.
    pub database: Option<String>,
}

/// A statement and everything it may touch.
#[derive(Debug, Clone)]
pub struct FederatedQuery {
    /// One statement in DuckDB's dialect.
    pub sql: String,
    /// The sources it may name.
    pub sources: Vec<AliasedSource>,
    /// What of it is wanted.
    pub want: Want,
}

/// What is wanted of a statement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Want {
    /// All rows; more than the tier's limit are an error.
    #[default]
    All,
    /// At most so many rows, and whether there are more.
    First(u64),
    /// The plan, as one row with one JSON value; the statement is not run.
    Plan,
}

/// What a statement answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryOutcome {
    /// Column names, in order.
    pub columns: Vec<String>,
    /// Rows; numbers that a double cannot carry exactly are JSON strings.
    pub rows: Vec<Vec<Value>>,
    /// Milliseconds from request to last row.
    pub duration_ms: u64,
    /// Whether there are more rows than were wanted.
    pub is_cut: bool,
}

/// Runs federated statements.
///
/// Contract: only reading statements over the named sources run, others fail with [`crate::Kind::StatementRefused`] before anything is dialled;
/// a query that is cancelled or passes its deadline leaves nothing running, here or at the sources ([`crate::Kind::Cancelled`], [`crate::Kind::TimedOut`]);
/// a crash of the engine costs that query alone; no secret is in any error text.
pub trait QueryTier: Send + Sync {
    /// Runs one statement; dropping the future or cancelling the token ends it.
    fn run(&self, query: FederatedQuery, cancel: CancellationToken) -> BoxFuture<'_, Result<QueryOutcome>>;

    /// Reads or rewrites data files.
    ///
    /// Contract: nothing outside the named files, or the roots of a statement, is opened; a rewrite that is ended at any moment leaves the old file or
    /// the new one. Errors: [`crate::Kind::Conflict`] with the detail `reason` = `etag` if the file is not the one that the change is about.
    fn files(&self, request: FileRequest, cancel: CancellationToken) -> BoxFuture<'_, Result<FileAnswer>>;
}
