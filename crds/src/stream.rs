//! One start of a definition.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use millrace_core::stream::StreamState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::stream_config::StreamConfigSpec;

/// One start of a StreamConfig, with a copy of what it was at that moment.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Stream",
    namespaced,
    status = "StreamStatus",
    shortname = "mrstream",
    category = "millrace",
    doc = "One start of a StreamConfig.",
    printcolumn = r#"{"name": "Config", "type": "string", "jsonPath": ".spec.configRef.name"}"#,
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Rows", "type": "integer", "jsonPath": ".status.counters.rowsWritten"}"#,
    printcolumn = r#"{"name": "Rows/s", "type": "integer", "jsonPath": ".status.counters.rowsPerSecond"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StreamSpec {
    /// The definition that was started.
    pub config_ref: ConfigReference,
    /// What it was at that moment; cannot be changed.
    pub config: StreamConfigSpec,
    /// What the stream should be doing; a stopped one stays stopped.
    #[serde(default)]
    pub desired: DesiredState,
}

/// A StreamConfig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigReference {
    /// Name.
    pub name: String,
    /// Id of the REST API.
    pub id: String,
    /// The definition's generation that was copied.
    pub generation: i64,
}

/// What a stream should be doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Move data.
    #[default]
    Running,
    /// Hold still.
    Paused,
    /// End.
    Stopped,
}

/// How far a stream is. Written at most every 30 s, and at once when the phase changes; tables stand in the stats, not here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamStatus {
    /// The generation that was looked at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The state of the REST API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<StreamState>,
    /// Why it failed, or what it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `Accepted`, `Progressing`, `StructureReady`, `SnapshotComplete`, `CaughtUp`, `Verified`, `SourceAtRisk`, `PositionLost`, `Degraded`, `Finished`, `Succeeded`.
    pub conditions: Vec<Condition>,
    /// Rows and bytes so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// Attempts so far, each a Job of its own.
    pub attempt: u32,
    /// Attempts since the last one that wrote rows.
    pub fruitless_attempts: u32,
    /// Whether the newest attempt has broken off.
    pub is_attempt_over: bool,
    /// When the next attempt may begin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Time>,
    /// When the counters were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Time>,
    /// When the first worker began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How often a source's moment was lost.
    pub cuts_lost: u32,
    /// Whether all rows are of one moment of each source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_cut: Option<bool>,
}

/// Rows and bytes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Read at the source.
    pub rows_read: u64,
    /// Committed at the target.
    pub rows_written: u64,
    /// Since the last count; 0 while nothing moves; of a stream that has ended, over all of it.
    pub rows_per_second: u64,
    /// Read at the source.
    pub bytes: u64,
}
