//! A database at a glance: size, counts, activity, and whether changes could be captured from it.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schemars")]
use schemars::JsonSchema;

/// Tables with at most so many estimated rows are counted exactly in an overview.
pub const EXACT_COUNT_LIMIT: u64 = 10_000;

/// A database at a glance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct DatabaseOverview {
    /// `postgres` or `mysql`.
    pub engine: String,
    /// The server's version.
    pub version: String,
    /// Character set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// Collation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// How many objects.
    pub counts: ObjectCounts,
    /// Bytes.
    pub size_bytes: u64,
    /// Largest first.
    pub all_tables_by_size: Vec<TableSize>,
    /// Most rows first.
    pub all_tables_by_rows: Vec<TableRows>,
    /// Who is connected.
    pub activity: Activity,
    /// Whether changes could be captured.
    pub health: Health,
    /// Advice.
    pub notes: Vec<Note>,
}

/// How many objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ObjectCounts {
    /// Schemas of users, where the engine has schemas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schemas: Option<u64>,
    /// Tables.
    pub tables: u64,
    /// Views.
    pub views: u64,
    /// Functions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<u64>,
}

/// A table's size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct TableSize {
    /// `schema.table` where there are schemas.
    pub name: String,
    /// Bytes, indexes included.
    pub size_bytes: u64,
}

/// A table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct TableRows {
    /// `schema.table` where there are schemas.
    pub name: String,
    /// The engine's estimate.
    pub approx_rows: u64,
    /// Counted, for small tables ([`EXACT_COUNT_LIMIT`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_rows: Option<u64>,
}

/// Who is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Activity {
    /// Connections of the server.
    pub connections: ConnectionCount,
    /// Sessions that run something now.
    pub active_sessions: u64,
    /// Statements that have run for a minute or longer, longest first; at most 10.
    pub long_running: Vec<LongRunning>,
}

/// Connections of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ConnectionCount {
    /// Open now.
    pub used: u64,
    /// The most that may be open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
}

/// A statement that takes long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct LongRunning {
    /// PostgreSQL: the backend's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// MySQL: the connection's thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread_id: Option<i64>,
    /// Who runs it.
    pub user: String,
    /// Its text, at most 500 characters.
    pub query: String,
    /// `1h 2m 3s`
    pub duration: String,
}

/// What change capture needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Health {
    /// PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalHealth>,
    /// MySQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binlog: Option<BinlogHealth>,
}

/// PostgreSQL's write-ahead log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct WalHealth {
    /// `wal_level`; changes can be captured if it is `logical`.
    pub level: String,
    /// Replication slots.
    pub slots: Vec<ReplicationSlot>,
    /// `max_replication_slots`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replication_slots: Option<u64>,
    /// Slots that can still be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_replication_slots: Option<u64>,
    /// `max_wal_senders`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_wal_senders: Option<u64>,
}

/// A replication slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ReplicationSlot {
    /// Its name.
    pub name: String,
    /// Its output plugin; empty for a physical slot.
    pub plugin: String,
    /// Whether somebody reads from it.
    pub active: bool,
    /// From where the log is kept.
    pub restart_lsn: String,
    /// Bytes of log that it keeps.
    pub retained_bytes: u64,
}

/// MySQL's binary log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct BinlogHealth {
    /// `log_bin`
    pub enabled: bool,
    /// `binlog_format`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `binlog_row_image`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_image: Option<String>,
    /// `gtid_mode`, or on MariaDB `gtid_strict_mode`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gtid_mode: Option<String>,
    /// `server_id`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<u64>,
}

/// A piece of advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Note {
    /// `info`, `warn`, `error`.
    pub severity: String,
    /// What is the matter and what helps.
    pub message: String,
    /// Where to read on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
}
