//! Older forms of operating streams, on the wire.

use millrace_core::stream::{Stream, StreamState};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The oldest form of operating streams.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ActionRequest {
    pub(crate) action: Action,
}

/// What is to be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// Start the config that the path names.
    Start,
    Pause,
    Resume,
    Stop,
}

/// The answer to an action.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Acted {
    /// The stream's id.
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<StreamState>,
}

/// The stream that was stopped.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoppedStream {
    #[serde(rename = "streamID")]
    stream_id: String,
    #[serde(rename = "Source")]
    source: SideStatus,
    #[serde(rename = "Target")]
    target: SideStatus,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SideStatus {
    status: StreamState,
}

impl From<&Stream> for StoppedStream {
    fn from(stream: &Stream) -> Self {
        let side = || SideStatus { status: stream.state };
        Self { stream_id: stream.id.to_string(), source: side(), target: side() }
    }
}
