//! Tools about streams: what runs and ran, how far it is, and what it said.

use millrace_core::bus::{Event, Level};
use millrace_core::id::StreamId;
use millrace_core::stream::{Reason, StreamState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::{Listed, list};
use super::redact::Redactor;
use super::tool::Tool;
use crate::errors::ApiResult;
use crate::extract::parse_id;
use crate::routes::streams::{all_streams, events_of};
use crate::state::AppState;
use crate::wire::logs::record;
use crate::wire::streams::{StreamDetail, StreamStats, StreamSummary, iso};

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new("dbconvert_list_streams", "List streams", "Streams, those that have not ended first, then the newest.", list_streams),
        Tool::new("dbconvert_get_stream", "Get a stream", "One stream with the config that it runs.", get),
        Tool::new("dbconvert_get_stream_status", "Get a stream's status", "Where a stream stands, since when, and what ended it.", status),
        Tool::new(
            "dbconvert_get_stream_stats",
            "Get a stream's counters",
            "Rows, bytes and rates of both sides and of every table; live while it runs.",
            stats,
        ),
        Tool::new(
            "dbconvert_get_stream_recent_errors",
            "Get a stream's errors",
            "The newest errors that a stream has logged, newest first.",
            errors,
        ),
        Tool::new("dbconvert_get_stream_recent_logs", "Get a stream's logs", "The newest log records of a stream, newest first.", logs),
    ]
}

/// Which streams.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListTakes {
    /// Only streams of this config.
    config_id: Option<String>,
    /// Only streams in this state.
    status: Option<StreamState>,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

async fn list_streams(state: AppState, takes: ListTakes) -> ApiResult<Listed<StreamSummary>> {
    let mut all = all_streams(&state).await?;
    all.retain(|stream| takes.status.is_none_or(|status| stream.state == status));
    all.retain(|stream| takes.config_id.as_deref().is_none_or(|config| stream.config_id.as_str() == config));
    Ok(Listed::of(all.iter().map(Into::into).collect(), takes.offset, takes.limit))
}

/// Which stream.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StreamTakes {
    /// The stream's `id`.
    stream_id: String,
}

impl StreamTakes {
    fn id(&self) -> ApiResult<StreamId> {
        parse_id(&self.stream_id)
    }
}

async fn get(state: AppState, takes: StreamTakes) -> ApiResult<StreamDetail> {
    Ok((&state.store.stream(&takes.id()?).await?).into())
}

/// Where a stream stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StatusAnswer {
    /// `stream_…`
    id: String,
    /// Its state.
    status: StreamState,
    /// Why, where the state alone does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// ISO 8601.
    started_at: String,
    /// ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Rows durable in the target.
    rows_written: u64,
    /// Rows that could not be written.
    rows_failed: u64,
    /// What ended it, when it failed; without values.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn status(state: AppState, takes: StreamTakes) -> ApiResult<StatusAnswer> {
    let (stream, _) = state.orchestrator.stats(&takes.id()?).await?;
    let redactor = Redactor::new(&state.store.connections().await?);
    Ok(StatusAnswer {
        id: stream.id.to_string(),
        status: stream.state,
        reason: stream.reason,
        started_at: iso(stream.started_at),
        ended_at: stream.ended_at.map(iso),
        rows_written: stream.rows_written,
        rows_failed: stream.rows_failed,
        error: stream.error.map(|text| redactor.text(&text)),
    })
}

async fn stats(state: AppState, takes: StreamTakes) -> ApiResult<StreamStats> {
    let (stream, report) = state.orchestrator.stats(&takes.id()?).await?;
    let redactor = Redactor::new(&state.store.connections().await?);
    let mut stats = StreamStats::new(&stream, &report);
    stats.rewrite_texts(|text| redactor.text(text));
    Ok(stats)
}

/// Which errors.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ErrorsTakes {
    /// The stream's `id`.
    stream_id: String,
    /// At most so many records: 100 if absent, never more than 500.
    limit: Option<u64>,
}

async fn errors(state: AppState, takes: ErrorsTakes) -> ApiResult<RecentAnswer> {
    recent(&state, &takes.stream_id, Level::Error, takes.limit).await
}

/// Which log records.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogsTakes {
    /// The stream's `id`.
    stream_id: String,
    /// At least so loud: `debug`, `info` (if absent), `warn` or `error`.
    level: Option<Level>,
    /// At most so many records: 100 if absent, never more than 500.
    limit: Option<u64>,
}

async fn logs(state: AppState, takes: LogsTakes) -> ApiResult<RecentAnswer> {
    recent(&state, &takes.stream_id, takes.level.unwrap_or(Level::Info), takes.limit).await
}

/// Log records. Secrets and values that databases quote in their messages are taken out.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RecentAnswer {
    /// Newest first.
    items: Vec<LogEntry>,
    /// Whether there are older records than these.
    truncated: bool,
    /// At most so many records are answered.
    limit_applied: u64,
}

/// A log record.
#[derive(Debug, Serialize, JsonSchema)]
struct LogEntry {
    /// ISO 8601.
    timestamp: String,
    /// How loud.
    level: Level,
    /// Who speaks: `api`, `source` or `target`.
    #[serde(rename = "type")]
    side: String,
    /// What it is about: `general`, `error`, `progress`, `stat` or `table_metadata`.
    category: String,
    /// One line.
    message: String,
    /// The table, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    /// The state of a side or table.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    /// Rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
}

async fn recent(state: &AppState, stream: &str, level: Level, limit: Option<u64>) -> ApiResult<RecentAnswer> {
    let limit_applied = list(limit);
    let wanted = usize::try_from(limit_applied).unwrap_or(usize::MAX);
    let mut events = events_of(state, &parse_id(stream)?, level, wanted + 1).await?;
    let truncated = events.len() > wanted;
    events.reverse();
    events.truncate(wanted);
    let redactor = Redactor::new(&state.store.connections().await?);
    Ok(RecentAnswer { items: events.iter().map(|event| entry(event, &redactor)).collect(), truncated, limit_applied })
}

fn entry(event: &Event, redactor: &Redactor) -> LogEntry {
    let fields = record(event);
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    LogEntry {
        timestamp: iso(event.at),
        level: event.level,
        side: text("type").unwrap_or_default(),
        category: text("category").unwrap_or_else(|| "sql".to_owned()),
        message: redactor.text(&event.message),
        table: text("table"),
        status: text("status").or_else(|| fields["extra"]["status"].as_str().map(str::to_owned)),
        events: fields.get("events").and_then(Value::as_u64),
    }
}
