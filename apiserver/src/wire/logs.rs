//! Log records on the wire, as event streams and stored logs show them.

use millrace_core::bus::{Body, Event, Side};
use millrace_core::stats::{SideStats, TableStats};
use serde_json::{Value, json};

use super::streams::{iso, seconds};

/// An event as a log record.
pub(crate) fn record(event: &Event) -> Value {
    let mut record = json!({
        "level": event.level,
        "timestamp": iso(event.at),
        "message": event.message,
        "type": match event.side {
            Side::Api => "api",
            Side::Source => "source",
            Side::Target => "target",
        },
    });
    if let Some(stream) = &event.stream {
        record["streamId"] = stream.as_str().into();
    }
    if let Some(node) = &event.node {
        record["nodeId"] = node.as_str().into();
    }
    match &event.body {
        Body::General => record["category"] = "general".into(),
        Body::Error => record["category"] = "error".into(),
        Body::Evaluation(warning) => {
            record["category"] = "general".into();
            record["extra"] = json!({"event": "evaluation_warning", "mode": warning.mode.as_str(), "threshold": warning.threshold,
                "percent": warning.percent, "used": warning.used, "limit": warning.limit});
        }
        // On the wire a statement is a record of its own form.
        Body::Sql(sql) => return json!(sql),
        Body::State { state } => {
            record["category"] = "general".into();
            record["extra"] = json!({"event": "state", "status": state.as_str()});
        }
        Body::CatalogChanged { connection } => {
            record["category"] = "general".into();
            record["extra"] = json!({"event": "catalog_changed", "connectionId": connection});
        }
        Body::Progress { stage, description } => {
            record["category"] = "progress".into();
            record["stage"] = (*stage).into();
            record["description"] = description.as_str().into();
        }
        Body::Side(side) => side_fields(&mut record, side),
        Body::Table(table) => table_fields(&mut record, table),
        Body::TableEstimate { table, rows, bytes } => {
            record["category"] = "table_metadata".into();
            record["table"] = table.as_str().into();
            record["estimatedRows"] = (*rows).into();
            record["estimatedSizeBytes"] = (*bytes).into();
        }
    }
    record
}

/// What a subscriber is told when it was too slow.
pub(crate) fn lagged(count: u64) -> Value {
    warning(&format!("{count} log records were skipped because this reader is slow"))
}

/// What a subscriber is told whose `Last-Event-ID` is none of this process.
pub(crate) fn unknown_place() -> Value {
    warning(
        "log records may be missing here, because this server did not send the last one that this reader saw; ask for the logs of the stream",
    )
}

fn warning(message: &str) -> Value {
    json!({
        "level": "warn",
        "timestamp": iso(chrono::Utc::now().timestamp_millis()),
        "message": message,
        "type": "api",
        "category": "general",
    })
}

fn side_fields(record: &mut Value, side: &SideStats) {
    record["category"] = "stat".into();
    record["table"] = "Total".into();
    record["events"] = side.rows.into();
    record["failed"] = side.failed.into();
    record["size"] = side.bytes.into();
    record["rate"] = side.rate().into();
    record["elapsed"] = seconds(side.elapsed_ms).into();
    record["status"] = side.state.as_str().into();
}

fn table_fields(record: &mut Value, table: &TableStats) {
    record["category"] = "stat".into();
    record["table"] = table.table.as_str().into();
    record["events"] = table.rows_written.into();
    record["failed"] = table.failed.into();
    record["size"] = table.bytes.into();
    record["rate"] = table.rate().into();
    record["elapsed"] = seconds(table.elapsed_ms).into();
    record["status"] = table.state.as_str().into();
}
