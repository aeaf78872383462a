//! Keeps what runs say, so that it can be read after a restart.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream::BoxStream};
use millrace_core::bus::{Bus, Delivery, Event};
use millrace_core::store::ConfigStore;

/// Events are written together: at most so many, at most so long after the first.
const BATCH: usize = 256;
const PATIENCE: Duration = Duration::from_millis(500);

/// How long the end of a process waits for the last events.
pub const GRACE: Duration = Duration::from_millis(700);

/// Writes events of runs to the store until the bus ends. A store that fails costs events, never a run.
pub async fn keep(bus: Arc<dyn Bus>, store: Arc<dyn ConfigStore>) {
    write(bus.subscribe(), store).await;
}

async fn write(events: BoxStream<'static, Delivery>, store: Arc<dyn ConfigStore>) {
    let of_runs = events.filter_map(async |delivery| match delivery {
        Delivery::Event(event) if event.stream.is_some() => Some(*event),
        Delivery::Event(_) => None,
        Delivery::Lagged(count) => {
            tracing::warn!(count, "log records of runs were not kept, because the store is slow");
            None
        }
    });
    let mut batches = Box::pin(tokio_stream::StreamExt::chunks_timeout(Box::pin(of_runs), BATCH, PATIENCE));
    while let Some(batch) = batches.next().await {
        let batch: Vec<Event> = batch;
        if let Err(error) = store.keep_events(&batch).await {
            tracing::warn!(error = %error.chain(), "log records of runs could not be kept");
        }
    }
}
