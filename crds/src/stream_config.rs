//! The reusable definition of what is moved.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use millrace_core::config::{
    DbTarget, FilesSelection, Limits, Mode, OnCutLost, PlanOptions, QuerySelection, S3Selection, SourceOptions, TableSelection,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::stream::DesiredState;

/// What is moved, where from and where to. Each start of it is a Stream.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "StreamConfig",
    namespaced,
    status = "StreamConfigStatus",
    shortname = "mrconfig",
    category = "millrace",
    doc = "What is moved, where from and where to.",
    printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.mode"}"#,
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.target.connection"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Stream", "type": "string", "jsonPath": ".status.activeStream"}"#,
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct StreamConfigSpec {
    /// Not blank.
    pub name: String,
    /// One-off or continuous.
    pub mode: Mode,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Seconds between two reports, 3 when absent; 0 means a final report only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporting_interval: Option<u32>,
    /// Where from.
    pub source: SourceForm,
    /// Where to.
    pub target: TargetReference,
    /// When to stop early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How many workers move a convert's splits at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u16>,
    /// What becomes of values that the target cannot hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanOptions>,
    /// What happens when the source's consistent moment is lost; `restart` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cut_lost: Option<OnCutLost>,
    /// Seconds for which a pause keeps the source's moment open, 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_hold: Option<u32>,
    /// What the stream should be doing. Once it is set, the definition owns the stream's life, and the API's start, pause, resume and stop are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<DesiredState>,
    /// Another value lets a finished convert run again, where `state` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_nonce: Option<String>,
    /// What stays at the source when the definition is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Ended streams that are kept.
    #[serde(default = "default_history")]
    pub history_limit: u32,
}

fn default_history() -> u32 {
    20
}

/// What becomes of slots, publications and ledger entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay.
    Retain,
    /// They are removed, as far as the systems can be reached.
    #[default]
    Delete,
}

/// Where from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceForm {
    /// At least one.
    pub connections: Vec<SourceReference>,
    /// Tuning and log options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<SourceOptions>,
}

/// One system to read from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceReference {
    /// A letter, then letters, digits, underscores; needed and unique when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Name of the Connection.
    pub connection: String,
    /// Database to read; the connection's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Schema to read, where the engine has schemas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Tables to read; all when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<TableSelection>>,
    /// Custom queries, each a virtual table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<Vec<QuerySelection>>,
    /// Objects of an S3 source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Selection>,
    /// Files of a local source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSelection>,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetReference {
    /// Name of the Connection.
    pub connection: String,
    /// Exactly one form.
    pub spec: TargetForm,
}

/// Exactly one form of target.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetForm {
    /// A database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<DbTarget>,
    /// Local files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Map<String, Value>>,
    /// S3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub s3: Option<Map<String, Value>>,
    /// Google Cloud Storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcs: Option<Map<String, Value>>,
    /// Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azure: Option<Map<String, Value>>,
    /// Snowflake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snowflake: Option<Map<String, Value>>,
}

/// What is known of a definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamConfigStatus {
    /// The generation that was looked at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `Progressing`.
    pub conditions: Vec<Condition>,
    /// The Stream that has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_stream: Option<String>,
    /// The newest Stream's phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The number of the newest Stream; numbers are never used twice.
    pub last_run: u64,
    /// The `runNonce` that the newest Stream carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_nonce: Option<String>,
    /// Runs that failed or were stopped. When the definition is deleted, tables that they have made and that nothing else uses are removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub abandoned_runs: Vec<String>,
}
