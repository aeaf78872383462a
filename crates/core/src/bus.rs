//! The bus: live events of running work. It is never the record: losing every event only delays what people see.

use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::entitlement::EvaluationWarning;
use crate::id::{NodeId, StreamId};
use crate::stats::{SideStats, TableStats};
use crate::stream::StreamState;

/// How loud an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Level {
    /// For those who debug.
    Debug,
    /// The normal course.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
}

/// Which part speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The API server.
    Api,
    /// The reader.
    Source,
    /// The writer.
    Target,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unix milliseconds.
    pub at: i64,
    /// How loud.
    pub level: Level,
    /// Who speaks.
    pub side: Side,
    /// The run it belongs to.
    pub stream: Option<StreamId>,
    /// The reader or writer.
    pub node: Option<NodeId>,
    /// One line for people; no row values, no secrets.
    pub message: String,
    /// What it says.
    pub body: Body,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Only the message.
    General,
    /// A failure; the message says it.
    Error,
    /// A stage began: 1 initialising, 2 structure, 3 data, 4 upload, 5 finished.
    Progress {
        /// 1 to 5.
        stage: u8,
        /// In words.
        description: String,
    },
    /// Totals of one side.
    Side(SideStats),
    /// Counters of one table.
    Table(TableStats),
    /// What the source estimates about a table, once, early.
    TableEstimate {
        /// The target's name of the table.
        table: String,
        /// Rows.
        rows: u64,
        /// Bytes.
        bytes: u64,
    },
    /// A part of an evaluation is used.
    Evaluation(EvaluationWarning),
    /// A statement ran.
    Sql(Box<SqlRecord>),
    /// Somebody has changed what a connection contains; what was remembered of it is old.
    CatalogChanged {
        /// The connection.
        connection: String,
    },
    /// The run's state changed.
    State {
        /// The new state.
        state: StreamState,
    },
}

/// A statement that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqlRecord {
    /// Names the record.
    pub id: String,
    /// Where it ran; empty for the federated engine.
    pub connection_id: String,
    /// The database.
    pub database: String,
    /// The schema, where the engine has schemas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The table or view that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_name: Option<String>,
    /// The client's tab that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tab_id: Option<String>,
    /// Its text.
    pub query: String,
    /// `DATA_QUERY`, `SCHEMA_CHANGE`, …
    pub purpose: String,
    /// ISO 8601.
    pub started_at: String,
    /// Milliseconds.
    pub duration_ms: u64,
    /// Rows that it answered.
    pub row_count: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether literals were taken out of the text.
    pub redacted: bool,
}

/// Publishes and hands out events.
///
/// Contract: `publish` never blocks and never fails; a subscriber sees every event published after it subscribed, in the order
/// of publishing per publisher, unless it falls behind by more than the bus holds: then it gets [`Delivery::Lagged`] once and
/// goes on with newer events. `recent` answers from what the bus retains for a run, oldest first.
pub trait Bus: Send + Sync {
    /// Publishes an event.
    fn publish(&self, event: Event);

    /// Events from now on.
    fn subscribe(&self) -> BoxStream<'static, Delivery>;

    /// The newest events of a run, at most `limit`, at least as loud as `level`, oldest first.
    fn recent(&self, stream: &StreamId, level: Level, limit: usize) -> Vec<Event>;
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// An event.
    Event(Box<Event>),
    /// So many events were skipped because the subscriber was slow.
    Lagged(u64),
}
