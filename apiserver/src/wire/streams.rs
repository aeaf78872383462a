//! Streams, stats and runs on the wire: the union of what the readers of several generations look for.

use chrono::{DateTime, SecondsFormat, Utc};
use millrace_core::config::StreamSpec;
use millrace_core::connector::{ConstraintName, ConstraintsReport};
use millrace_core::stats::{SideStats, StatsReport, TableStats};
use millrace_core::stream::{Reason, Stream, StreamState};
use schemars::JsonSchema;
use serde::Serialize;

/// The answer to a start.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Started {
    /// `stream_…`
    pub(crate) id: String,
}

/// The answer to pause, resume and stop.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StreamStatus {
    pub(crate) id: String,
    pub(crate) status: StreamState,
}

/// A stream in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamSummary {
    id: String,
    config_id: String,
    name: String,
    mode: &'static str,
    status: StreamState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// ISO 8601.
    started_at: String,
}

/// A stream with the config that it runs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StreamDetail {
    #[serde(flatten)]
    summary: StreamSummary,
    config: StreamSpec,
}

/// A run's counters.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StreamStats {
    #[serde(rename = "configID")]
    config_id: String,
    #[serde(rename = "streamID")]
    stream_id: String,
    status: StreamState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Readers first, then writers.
    nodes: Vec<Node>,
    source: Side,
    target: Side,
    tables: Vec<TableStat>,
    /// What the user should know: things that did not move, values that a policy changed.
    notices: Vec<String>,
    /// Whether all rows were read at one moment of each source.
    #[serde(rename = "consistentCut")]
    consistent_cut: bool,
    /// How often a source's moment was lost.
    #[serde(rename = "cutsLost")]
    cuts_lost: u32,
}

/// One reader or writer; its values stand both in `stat` and beside it.
#[derive(Debug, Serialize, JsonSchema)]
struct Node {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    flat: NodeStat,
    stat: NodeStat,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct NodeStat {
    /// Rows.
    counter: u64,
    failed_counter: u64,
    /// Bytes in the last interval.
    prev_data_size: u64,
    /// Bytes in all.
    sum_data_size: u64,
    /// Seconds.
    reporting_interval: u32,
    /// ISO 8601.
    start: String,
    /// Seconds.
    duration: f64,
    /// Bytes per second.
    avg_rate: f64,
    status: StreamState,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Side {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) status: StreamState,
    pub(crate) counter: u64,
    failed_events: u64,
    data_size: u64,
    /// Bytes per second.
    avg_rate: f64,
    /// Seconds.
    pub(crate) elapsed: f64,
    active_nodes: u32,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TableStat {
    table: String,
    status: StreamState,
    rows_read: u64,
    rows_written: u64,
    failed: u64,
    /// Bytes.
    size: u64,
    /// Bytes per second.
    rate: f64,
    /// Seconds.
    elapsed: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimated_size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A row of the run history.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamRun {
    id: String,
    config_id: String,
    stream_id: String,
    /// Unix seconds of the start.
    timestamp: i64,
    duration_ms: i64,
    status: StreamState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// Formatted, such as `111.83 KB`.
    data_size: String,
    rows_inserted: u64,
    rows_skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
}

/// What a validation of constraints found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConstraintsResult {
    engine: &'static str,
    /// In words.
    action: String,
    validated_count: usize,
    validated_constraints: Vec<ConstraintPlace>,
    total_orphan_rows: u64,
    violations: Vec<Violation>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ConstraintPlace {
    schema_name: String,
    table_name: String,
    constraint_name: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Violation {
    #[serde(flatten)]
    place: ConstraintPlace,
    /// Rows without a counterpart.
    orphan_count: u64,
}

impl From<&ConstraintsReport> for ConstraintsResult {
    fn from(report: &ConstraintsReport) -> Self {
        let place = |name: &ConstraintName| ConstraintPlace {
            schema_name: name.schema.clone(),
            table_name: name.table.clone(),
            constraint_name: name.name.clone(),
        };
        let (valid, broken) = (report.validated.len(), report.violations.len());
        Self {
            engine: "postgres",
            action: match (valid, broken) {
                (0, 0) => "every foreign key was valid already".to_owned(),
                (_, 0) => format!("{valid} foreign keys were validated"),
                _ => format!("{valid} foreign keys were validated, {broken} do not hold"),
            },
            validated_count: valid,
            validated_constraints: report.validated.iter().map(place).collect(),
            total_orphan_rows: report.violations.iter().map(|(_, orphans)| orphans).sum(),
            violations: report.violations.iter().map(|(name, orphans)| Violation { place: place(name), orphan_count: *orphans }).collect(),
        }
    }
}

impl From<&Stream> for StreamSummary {
    fn from(stream: &Stream) -> Self {
        Self {
            id: stream.id.to_string(),
            config_id: stream.config_id.to_string(),
            name: stream.spec.name.clone(),
            mode: stream.spec.mode.as_str(),
            status: stream.state,
            reason: stream.reason,
            started_at: iso(stream.started_at),
        }
    }
}

impl From<&Stream> for StreamDetail {
    fn from(stream: &Stream) -> Self {
        Self { summary: stream.into(), config: stream.spec.clone() }
    }
}

impl From<&Stream> for StreamStatus {
    fn from(stream: &Stream) -> Self {
        Self { id: stream.id.to_string(), status: stream.state }
    }
}

impl From<&Stream> for StreamRun {
    fn from(stream: &Stream) -> Self {
        let end = stream.ended_at.unwrap_or_else(|| Utc::now().timestamp_millis());
        Self {
            id: stream.run_id.to_string(),
            config_id: stream.config_id.to_string(),
            stream_id: stream.id.to_string(),
            timestamp: stream.started_at / 1000,
            duration_ms: (end - stream.started_at).max(0),
            status: stream.state,
            reason: stream.reason,
            data_size: formatted(stream.bytes),
            rows_inserted: stream.rows_written,
            rows_skipped: stream.rows_failed,
            error_message: stream.error.clone(),
        }
    }
}

impl StreamStats {
    /// The reading side.
    pub(crate) fn source(&self) -> &Side {
        &self.source
    }

    /// The writing side.
    pub(crate) fn target(&self) -> &Side {
        &self.target
    }

    /// A stream's state with its counters.
    pub(crate) fn new(stream: &Stream, report: &StatsReport) -> Self {
        let interval = stream.spec.reporting_interval.unwrap_or(millrace_core::config::DEFAULT_REPORTING_INTERVAL);
        Self {
            config_id: stream.config_id.to_string(),
            stream_id: stream.id.to_string(),
            status: stream.state,
            reason: stream.reason,
            error: stream.error.clone(),
            nodes: vec![node("source", &report.source, interval), node("target", &report.target, interval)],
            source: side("source", &report.source),
            target: side("target", &report.target),
            tables: report.tables.iter().map(table).collect(),
            notices: report.notices.clone(),
            consistent_cut: report.is_consistent,
            cuts_lost: report.cuts_lost,
        }
    }

    /// Rewrites every text that databases may have put values into.
    pub(crate) fn rewrite_texts(&mut self, rewrite: impl Fn(&str) -> String) {
        let errors = self.error.iter_mut().chain(self.tables.iter_mut().flat_map(|table| table.error.iter_mut()));
        for text in errors.chain(&mut self.notices) {
            *text = rewrite(text);
        }
    }
}

fn node(kind: &'static str, side: &SideStats, reporting_interval: u32) -> Node {
    let stat = NodeStat {
        counter: side.rows,
        failed_counter: side.failed,
        prev_data_size: side.interval_bytes,
        sum_data_size: side.bytes,
        reporting_interval,
        start: iso(side.started_at),
        duration: seconds(side.elapsed_ms),
        avg_rate: side.rate(),
        status: side.state,
    };
    Node { id: side.node.to_string(), kind, flat: stat.clone(), stat }
}

fn side(kind: &'static str, side: &SideStats) -> Side {
    Side {
        kind,
        status: side.state,
        counter: side.rows,
        failed_events: side.failed,
        data_size: side.bytes,
        avg_rate: side.rate(),
        elapsed: seconds(side.elapsed_ms),
        active_nodes: u32::from(!side.state.is_terminal()),
    }
}

fn table(table: &TableStats) -> TableStat {
    TableStat {
        table: table.table.clone(),
        status: table.state,
        rows_read: table.rows_read,
        rows_written: table.rows_written,
        failed: table.failed,
        size: table.bytes,
        rate: table.rate(),
        elapsed: seconds(table.elapsed_ms),
        estimated_rows: table.estimated_rows,
        estimated_size_bytes: table.estimated_bytes,
        error: table.error.clone(),
    }
}

/// Milliseconds as seconds.
pub(crate) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Unix milliseconds as ISO 8601 in UTC.
pub(crate) fn iso(ms: i64) -> String {
    let moment: DateTime<Utc> = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    moment.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Bytes for people, in the contract's form.
fn formatted(bytes: u64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.2} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_formatted_as_clients_show_them() {
        assert_eq!(formatted(0), "0 B");
        assert_eq!(formatted(114_514), "111.83 KB");
        assert_eq!(formatted(5 << 30), "5.00 GB");
    }

    #[test]
    fn times_are_iso_in_utc() {
        assert_eq!(iso(1_500_000_000_123), "2017-07-14T02:40:00.123Z");
    }
}
