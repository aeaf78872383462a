//! Live log records as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::routing::get;
use futures::{Stream, StreamExt as _};
use millrace_core::bus::{Body, Delivery};

use crate::route::{Operation, Routes};
use crate::state::AppState;
use crate::wire::logs::{lagged, record};

/// How often a comment keeps an idle stream open.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Routes {
    let operation =
        Operation::new("get", "/logs/stream", "streamLogs", "logs", "Log records of everything, as server-sent events named `log`")
            .streams();
    Routes::default().add(operation, get(stream))
}

async fn stream(State(state): State<AppState>) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let events = state.bus.subscribe().map(|delivery| {
        let (name, record) = match delivery {
            Delivery::Event(event) => (if matches!(event.body, Body::Sql(_)) { "sql" } else { "log" }, record(&event)),
            Delivery::Lagged(count) => ("log", lagged(count)),
        };
        Ok(SseEvent::default().event(name).data(record.to_string()))
    });
    Sse::new(events.take_until(state.shutdown.cancelled_owned())).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}
