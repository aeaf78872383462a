//! Federated queries on the wire.

use std::collections::BTreeMap;

use millrace_core::id::ConnectionId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A federated statement.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FederatedRequest {
    /// One reading statement in DuckDB's dialect; tables are `alias.schema.table` (PostgreSQL) and `alias.database.table` (MySQL).
    pub(crate) sql: Option<String>,
    /// The same under the name that older clients send.
    pub(crate) query: Option<String>,
    /// The sources by alias. Without them, connections whose name is the alias, then `my1`, `pg1`, … in order of creation.
    pub(crate) connections: Option<Vec<FederatedMapping>>,
}

/// A source by alias.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FederatedMapping {
    /// A letter, then letters, digits, underscores.
    pub(crate) alias: String,
    /// The stored connection.
    pub(crate) connection_id: ConnectionId,
    /// The database to attach.
    pub(crate) database: Option<String>,
    /// Clients send it for every source; it matters to files only.
    #[allow(dead_code)]
    pub(crate) scope_path: Option<String>,
}

/// Whether a statement could run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Validity {
    pub(crate) valid: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub(crate) errors: Vec<String>,
}

/// Which sources are to be looked into.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchemasRequest {
    /// The sources by alias. Without them, those that a statement without sources can name.
    pub(crate) connections: Option<Vec<FederatedMapping>>,
}

/// What a statement can name of a source.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AliasSchemas {
    pub(crate) alias: String,
    /// Schemas of PostgreSQL, databases of MySQL: the second part of `alias.schema.table`.
    pub(crate) schemas: Vec<String>,
    /// Tables and views by schema; of MySQL for the source's database only, if it has one.
    pub(crate) tables: BTreeMap<String, Vec<String>>,
}

/// What a statement answered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FederatedResponse {
    pub(crate) columns: Vec<String>,
    /// Numbers that a double cannot carry exactly are strings.
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) count: usize,
    pub(crate) status: &'static str,
    /// Milliseconds.
    pub(crate) duration: u64,
}
