//! Health and defaults on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sql::CaptureMode;

/// The server is alive.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Health {
    pub(crate) ping: &'static str,
    pub(crate) status: &'static str,
}

/// The server's parts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Services {
    pub(crate) services: Vec<Service>,
}

/// One part.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// `passing`, `warning`, `critical`, `unknown` or `initializing`.
    pub(crate) status: &'static str,
}

/// What clients need to know before anything else.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Defaults {
    pub(crate) default_export_path: String,
    /// `desktop`, `server` or `docker`.
    pub(crate) mode: &'static str,
    pub(crate) install_id: String,
}

/// A change of the SQL log's setting.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SqlLoggingChange {
    pub(crate) sql_capture_mode: Option<CaptureMode>,
    /// Whether records go to event streams.
    #[serde(rename = "forwardSQLLogs")]
    pub(crate) forward: Option<bool>,
}

/// The server is going.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Stopping {
    /// `shutting_down` or `restarting`
    pub(crate) status: &'static str,
}

/// The server's version.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Version {
    /// As of semantic versioning.
    pub(crate) version: &'static str,
}
