//! What passes between the server and a child: one JSON line each way. Secrets travel in the request, over stdin, and nowhere else.

use millrace_core::connection::SslMode;
use millrace_core::federation::Want;
use millrace_core::files::{FileAnswer, FileRequest};
use millrace_core::objects::OpenAccess;
use millrace_core::{Error, Kind, hosts};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a child is started for.
#[derive(Serialize, Deserialize)]
pub(crate) enum Errand {
    Statement(Request),
    Files(Box<FilesErrand>),
}

/// Work on files, and the bounds of the engine.
#[derive(Serialize, Deserialize)]
pub(crate) struct FilesErrand {
    pub(crate) request: FileRequest,
    /// How to get at objects.
    pub(crate) access: Option<OpenAccess>,
    pub(crate) memory_mb: u64,
    pub(crate) threads: u32,
    pub(crate) max_rows: u64,
    pub(crate) temp_dir: String,
}

/// One statement with everything it may touch.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) sql: String,
    pub(crate) sources: Vec<Source>,
    /// Object stores that the statement names.
    pub(crate) stores: Vec<StoreSource>,
    /// Tells this query's sessions at the backends from all others.
    pub(crate) tag: String,
    pub(crate) memory_mb: u64,
    pub(crate) threads: u32,
    pub(crate) max_rows: u64,
    pub(crate) temp_dir: String,
    /// Where sources may be, as [`millrace_core::hosts::HostPolicy::parse`] reads it.
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) denied_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) want: Want,
}

/// An object store under its alias, which is the scheme of its paths: `alias://bucket/key`.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoreSource {
    pub(crate) alias: String,
    pub(crate) access: OpenAccess,
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
    Rows { columns: Vec<String>, rows: Vec<Vec<Value>>, is_cut: bool },
    Files(Box<FileAnswer>),
    Failed { kind: FailedKind, message: String },
}

/// Where a connection's host stands.
pub(crate) const HOST: &str = "spec.database.host";

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
    Invalid,
    NotFound,
    NotSupported,
    ValueRefused,
    /// The file is not the one that the change is about.
    FileChanged,
    /// A path lies outside the roots.
    Outside,
    /// The operator's rules do not let it be dialled.
    HostRefused,
    Internal,
}

impl FailedKind {
    /// The error that the server makes of it.
    pub(crate) fn error(self, message: String) -> Error {
        let kind = match self {
            Self::StatementRefused => Kind::StatementRefused,
            Self::ObjectMissing => Kind::ObjectMissing,
            Self::LoginRefused => Kind::LoginRefused,
            Self::Unreachable => Kind::Unreachable,
            Self::Untrusted => Kind::Untrusted,
            Self::PermissionDenied => Kind::PermissionDenied,
            Self::Exhausted => Kind::ServerExhausted,
            Self::Invalid => Kind::Invalid,
            Self::NotFound => Kind::NotFound,
            Self::NotSupported => Kind::NotSupported,
            Self::ValueRefused => Kind::ValueRefused,
            Self::FileChanged => return Error::new(Kind::Conflict, message).with("reason", "etag"),
            Self::Outside => return Error::new(Kind::PermissionDenied, message).with("reason", "outside"),
            Self::HostRefused => return Error::invalid(HOST, message).with("reason", hosts::REASON),
            Self::Internal => Kind::Internal,
        };
        Error::new(kind, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            Kind::Conflict if error.detail("reason") == Some("etag") => FailedKind::FileChanged,
            Kind::PermissionDenied if error.detail("reason") == Some("outside") => FailedKind::Outside,
            Kind::PermissionDenied => FailedKind::PermissionDenied,
            Kind::LoginRefused => FailedKind::LoginRefused,
            Kind::Unreachable | Kind::ConnectionLost | Kind::ProtocolViolated | Kind::TimedOut => FailedKind::Unreachable,
            Kind::Untrusted => FailedKind::Untrusted,
            Kind::ServerExhausted => FailedKind::Exhausted,
            Kind::Invalid => FailedKind::Invalid,
            Kind::NotFound => FailedKind::NotFound,
            Kind::NotSupported => FailedKind::NotSupported,
            _ => FailedKind::Internal,
        };
        Self::new(kind, error.message().to_owned())
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
