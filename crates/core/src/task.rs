//! What one worker is told to do, and what it says at its end. Both carry a version: a worker carries out tasks of the version before its own, too.

use serde::{Deserialize, Serialize};

use crate::config::StreamSpec;
use crate::connection::Connection;
use crate::connector::Scope;
use crate::error::{Error, Kind, Result};
use crate::id::{ConfigId, ConnectionId, StreamId};
use crate::stream::StreamState;

/// The version that this code writes.
pub const TASK_VERSION: u32 = 2;

/// The most bytes of a report: what Kubernetes keeps of a container's termination message (4096), and a little less.
const REPORT_BYTES: usize = 4000;

/// A task. It holds no secret: `secrets` names files in which they stand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskSpec {
    /// [`TASK_VERSION`] of who wrote it.
    pub version: u32,
    /// Parts NATS among installations.
    pub namespace: String,
    /// What is to be done.
    pub kind: TaskKind,
    /// The systems concerned, without their secrets.
    pub connections: Vec<Connection>,
    /// Where their secrets stand.
    pub secrets: Vec<SecretFile>,
    /// The trace that the task belongs to, as W3C Trace Context's `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskKind {
    /// Copy once.
    #[serde(rename_all = "camelCase")]
    Convert {
        /// The start that is carried out.
        stream: StreamId,
        /// The config that was started.
        config: ConfigId,
        /// Which try of this start it is, from 1.
        attempt: u32,
        /// How many workers carry it out together.
        #[serde(default = "one")]
        workers: u32,
        /// What is moved.
        spec: Box<StreamSpec>,
    },
    /// Log in and say what answers.
    Probe,
    /// Remove what a definition that is being deleted has left at its target.
    #[serde(rename_all = "camelCase")]
    Cleanup {
        /// The definition.
        config: ConfigId,
        /// Where its runs have written.
        scope: Scope,
        /// Runs whose unfinished tables may go; those of others belong to the user.
        abandoned: Vec<StreamId>,
    },
}

/// Tasks of version 1 have one worker.
fn one() -> u32 {
    1
}

/// A file that holds one secret of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFile {
    /// Whose.
    pub connection: ConnectionId,
    /// Which, as [`Connection::restore_secret`] names it.
    pub field: String,
    /// Absolute path.
    pub path: String,
}

impl TaskSpec {
    /// Reads a task of this version or the one before.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what cannot be read or is newer than this program.
    pub fn parse(text: &str) -> Result<Self> {
        let malformed = |error: serde_json::Error| Error::invalid("task", "the task cannot be read").because(error);
        let raw: serde_json::Value = serde_json::from_str(text).map_err(malformed)?;
        let version = raw["version"].as_u64().unwrap_or(0);
        if version == 0 || version > u64::from(TASK_VERSION) {
            return Err(Error::invalid("version", format!("the task has version {version}; this program knows up to {TASK_VERSION}")));
        }
        serde_json::from_value(raw).map_err(malformed)
    }
}

/// What a worker says at its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskReport {
    /// [`TASK_VERSION`] of who wrote it.
    pub version: u32,
    /// A terminal state; of a probe, `FINISHED` or `FAILED`.
    pub state: StreamState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// [`Kind`] of the failure, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The part of the config that the failure concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Rows read.
    pub rows_read: u64,
    /// Rows committed at the target.
    pub rows_written: u64,
    /// Rows that could not be written.
    pub rows_failed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// How often a source's moment was lost.
    pub cuts_lost: u32,
    /// Whether all rows are of one moment of each source.
    pub is_consistent: bool,
    /// What a probed server says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// What was done, where rows do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

impl TaskReport {
    /// The text for Kubernetes' termination message; a long failure is cut.
    pub fn message(&self) -> String {
        let mut report = self.clone();
        loop {
            let message = serde_json::to_string(&report).unwrap_or_default();
            let texts = [&mut report.error, &mut report.summary].into_iter().flatten();
            let Some(longest) = texts.max_by_key(|text| text.len()).filter(|text| text.len() > 8) else { return message };
            if message.len() <= REPORT_BYTES {
                return message;
            }
            // How much a character takes is JSON's business.
            let end = longest.floor_char_boundary(longest.trim_end_matches('…').len() * 9 / 10);
            longest.truncate(end);
            longest.push('…');
        }
    }

    /// Reads a termination message.
    pub fn parse(message: &str) -> Option<Self> {
        serde_json::from_str(message).ok()
    }
}

/// How a worker's process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The task is done: finished, stopped or at a limit.
    Done,
    /// It broke off, and another try may succeed.
    TryAgain,
    /// It failed, and another try would fail too.
    Failed,
    /// A newer worker has taken over.
    Fenced,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::TryAgain => 1,
            Self::Failed => 3,
            Self::Fenced => 4,
        }
    }

    /// What follows from a failure of a whole run.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Fenced => Self::Fenced,
            Kind::Unreachable | Kind::ConnectionLost | Kind::Contention | Kind::TimedOut | Kind::ServerExhausted | Kind::CutLost => {
                Self::TryAgain
            }
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn report(error: &str) -> TaskReport {
        TaskReport {
            version: TASK_VERSION,
            state: StreamState::Failed,
            error: Some(error.to_owned()),
            kind: None,
            field: None,
            rows_read: 1,
            rows_written: 2,
            rows_failed: 3,
            bytes: 4,
            cuts_lost: 0,
            is_consistent: true,
            server_version: None,
            summary: None,
        }
    }

    #[test]
    fn a_cleanup_reads_back_as_it_was_written() {
        let scope = Scope { database: Some("shop".to_owned()), schema: None };
        let kind = TaskKind::Cleanup { config: ConfigId::mint(), scope, abandoned: vec![StreamId::mint()] };
        let text = serde_json::to_string(&kind).unwrap();
        let read: TaskKind = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(text.starts_with(r#"{"cleanup":{"config":"#), "{text}");
    }

    #[test]
    fn a_long_failure_fits_into_a_termination_message() {
        for letter in ["ß", "\"", "\\", "\u{1}"] {
            let message = report(&letter.repeat(5000)).message();
            assert!(message.len() < 4096, "{letter}");
            let error = TaskReport::parse(&message).unwrap().error.unwrap();
            assert!(error.ends_with('…') && error.len() > 500, "{letter}: {}", error.len());
        }
        assert_eq!(TaskReport::parse(&report("short").message()), Some(report("short")));
    }

    #[test]
    fn a_task_written_before_traces_were_carried_is_read() {
        let task = r#"{"version": 1, "namespace": "n", "kind": "probe", "connections": [], "secrets": []}"#;
        assert_eq!(TaskSpec::parse(task).unwrap().traceparent, None);
        let traced = task.replace("[]}", "[], \"traceparent\": \"00-a-b-01\"}");
        assert_eq!(TaskSpec::parse(&traced).unwrap().traceparent.as_deref(), Some("00-a-b-01"));
    }

    #[test]
    fn a_task_of_a_later_version_is_refused() {
        let error = TaskSpec::parse(r#"{"version": 99}"#).unwrap_err();
        assert_eq!(error.field_name(), Some("version"));
        assert!(TaskSpec::parse("{").is_err());
    }
}
