//! One-off copy of a database with its structure.

use std::sync::Arc;

use millrace_core::bus::Bus;
use millrace_core::config::StreamSpec;
use millrace_core::connection::Connection;
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::plan::Plan;
use millrace_core::stream::StreamState;
use millrace_core::{Error, Result};

use crate::control::Control;
use crate::progress::Progress;

/// Everything that a convert needs, with its connections resolved.
#[derive(Debug, Clone)]
pub struct ConvertTask {
    /// The start that this task carries out.
    pub stream: StreamId,
    /// The config that was started.
    pub config: ConfigId,
    /// What is wanted.
    pub spec: StreamSpec,
    /// Where from, with its secrets.
    pub source: Connection,
    /// Where to, with its secrets.
    pub target: Connection,
}

/// How a task ended.
#[derive(Debug)]
pub struct Outcome {
    /// A terminal state.
    pub state: StreamState,
    /// Why, if it failed.
    pub error: Option<Error>,
}

/// Checks everything that can be checked before the first byte: support, both logins, the selection, the plan, the target's tables. Writes nothing.
///
/// # Errors
/// The kind says what is wrong; `field` names the part of the config concerned.
pub async fn preflight(_task: &ConvertTask) -> Result<Plan> {
    Err(Error::internal("not wired"))
}

/// Copies everything, publishing events of the run on the bus; returns when the target is complete, or the run was stopped or has failed.
pub async fn run(_task: ConvertTask, _progress: Arc<Progress>, _control: Control, _bus: Arc<dyn Bus>) -> Outcome {
    Outcome { state: StreamState::Failed, error: Some(Error::internal("not wired")) }
}
