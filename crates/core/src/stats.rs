//! What a run reports while it moves data: counters per side and per table.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::stream::StreamState;

/// A snapshot of a run's counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    /// The reading side.
    pub source: SideStats,
    /// The writing side.
    pub target: SideStats,
    /// One entry per table, named as in the target.
    pub tables: Vec<TableStats>,
    /// What the run wants known: things that did not move, notes of the plan.
    pub notices: Vec<String>,
    /// How often the source's consistent moment was lost.
    #[serde(default)]
    pub cuts_lost: u32,
    /// Whether all rows were read at one moment of each source.
    #[serde(default = "yes")]
    pub is_consistent: bool,
}

fn yes() -> bool {
    true
}

/// One side's totals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideStats {
    /// The reader or writer.
    pub node: NodeId,
    /// Where this side stands.
    pub state: StreamState,
    /// Rows read or durably written.
    pub rows: u64,
    /// Rows that could not be applied.
    pub failed: u64,
    /// Bytes since the start.
    pub bytes: u64,
    /// Bytes in the last reporting interval.
    pub interval_bytes: u64,
    /// Unix milliseconds of this side's start.
    pub started_at: i64,
    /// Milliseconds since the start; frozen by the terminal report.
    pub elapsed_ms: u64,
}

impl SideStats {
    /// Bytes per second since the start; sane for runs shorter than a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 1000.0 / self.elapsed_ms.max(1) as f64
    }
}

/// One table's counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableStats {
    /// The target's name of the table.
    pub table: String,
    /// Where it stands.
    pub state: StreamState,
    /// Rows read from the source.
    pub rows_read: u64,
    /// Rows durable in the target.
    pub rows_written: u64,
    /// Rows that could not be written.
    pub failed: u64,
    /// Bytes of those rows as sent to the target.
    pub bytes: u64,
    /// Milliseconds since its first row was asked for; frozen at its end.
    pub elapsed_ms: u64,
    /// The source's estimate.
    pub estimated_rows: Option<u64>,
    /// The source's estimate, bytes.
    pub estimated_bytes: Option<u64>,
    /// What ended it, when it failed.
    pub error: Option<String>,
}

impl TableStats {
    /// Bytes per second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 1000.0 / self.elapsed_ms.max(1) as f64
    }
}
