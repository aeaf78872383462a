//! Tells those who watch a run that its state has changed.

use k8s_openapi::jiff::Timestamp;
use millrace_core::bus::{Body, Event, Level, Side};
use millrace_core::stream::StreamState;
use millrace_crds::{Stream, object_id};

use crate::context::Context;

/// Publishes a new state; where NATS is away, nobody watches.
pub(super) async fn announce(stream: &Stream, state: StreamState, context: &Context) {
    let Ok(id) = object_id(&stream.metadata) else { return };
    let event = Event {
        at: Timestamp::now().as_millisecond(),
        level: if state == StreamState::Failed { Level::Error } else { Level::Info },
        side: Side::Api,
        stream: Some(id),
        node: None,
        message: format!("stream is {}", state.as_str()),
        body: Body::State { state },
    };
    context.nats.publish_event(&event).await;
}
