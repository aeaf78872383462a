//! What passes between the server and a child: one JSON line each way. Secrets travel in the request, over stdin, and nowhere else.

use millrace_core::Kind;
use millrace_core::connection::SslMode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One statement with everything it may touch.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) sql: String,
    pub(crate) sources: Vec<Source>,
    /// Tells this query's sessions at the backends from all others.
    pub(crate) tag: String,
    pub(crate) memory_mb: u64,
    pub(crate) threads: u32,
    pub(crate) max_rows: u64,
    pub(crate) temp_dir: String,
}

/// A source under its alias.
#[derive(Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) alias: String,
    pub(crate) engine: SourceEngine,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: Option<String>,
    pub(crate) tls: Option<Tls>,
}

/// How a source's transport is protected; certificates and key as PEM text.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tls {
    pub(crate) mode: SslMode,
    pub(crate) ca: Option<String>,
    pub(crate) certificate: Option<String>,
    pub(crate) key: Option<String>,
}

/// What a source speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SourceEngine {
    MySql,
    Postgres,
}

/// The child's answer.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    Rows { columns: Vec<String>, rows: Vec<Vec<Value>> },
    Failed { kind: FailedKind, message: String },
}

/// Kinds of failure that a child tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailedKind {
    StatementRefused,
    ObjectMissing,
    LoginRefused,
    Unreachable,
    Untrusted,
    PermissionDenied,
    Exhausted,
    Internal,
}

impl From<FailedKind> for Kind {
    fn from(kind: FailedKind) -> Self {
        match kind {
            FailedKind::StatementRefused => Self::StatementRefused,
            FailedKind::ObjectMissing => Self::ObjectMissing,
            FailedKind::LoginRefused => Self::LoginRefused,
            FailedKind::Unreachable => Self::Unreachable,
            FailedKind::Untrusted => Self::Untrusted,
            FailedKind::PermissionDenied => Self::PermissionDenied,
            FailedKind::Exhausted => Self::ServerExhausted,
            FailedKind::Internal => Self::Internal,
        }
    }
}

/// A failure inside the child.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) kind: FailedKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: FailedKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A statement that is not allowed or wrong.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(FailedKind::StatementRefused, message)
    }
}
