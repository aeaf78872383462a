//! Live log records as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::routing::get;
use futures::{Stream, StreamExt as _};

use crate::live::Item;
use crate::route::{Operation, Routes};
use crate::state::AppState;
use crate::wire::logs::{lagged, unknown_place};

/// How often a comment keeps an idle stream open.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Routes {
    let summary = "Log records of everything, as server-sent events named `log` and `sql`; `Last-Event-ID` goes on behind a record";
    let operation = Operation::new("get", "/logs/stream", "streamLogs", "logs", summary).streams();
    Routes::default().add(operation, get(stream))
}

async fn stream(State(state): State<AppState>, headers: HeaderMap) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let last_seen = headers.get("last-event-id").map(|id| id.to_str().unwrap_or("unreadable"));
    let events = state.live.read(last_seen).map(|item| {
        Ok(match item {
            Item::Record(id, record) => SseEvent::default().id(id).event(record.name).data(&record.data),
            // Without ids: a client that comes back still names the last record that it saw.
            Item::Missed(count) => SseEvent::default().event("log").data(lagged(count).to_string()),
            Item::UnknownPlace => SseEvent::default().event("log").data(unknown_place().to_string()),
        })
    });
    Sse::new(events.take_until(state.shutdown.cancelled_owned())).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}
