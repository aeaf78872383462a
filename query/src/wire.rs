//! What passes between the server and a child: one JSON line each way. Secrets travel in the request, over stdin, and nowhere else.

use millrace_core::connection::SslMode;
use millrace_core::federation::Want;
use millrace_core::files::{FileAnswer, FileRequest};
use millrace_core::hosts::{self, HostPolicy};
use millrace_core::objects::{OpenAccess, SettingNames};
use millrace_core::{Error, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a child is started for.
#[derive(Serialize, Deserialize)]
pub(crate) struct Errand {
    /// Where it may dial.
    pub(crate) hosts: Hosts,
    pub(crate) work: Work,
}

/// What a child is to do.
#[derive(Serialize, Deserialize)]
pub(crate) enum Work {
    Statement(Request),
    Files(Box<FilesErrand>),
}

/// The server's rules about hosts, as [`HostPolicy::parse`] reads them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hosts {
    allowed: Vec<String>,
    denied: Vec<String>,
}

impl Hosts {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let (allowed, denied) = hosts::policy().said();
        Self { allowed: allowed.to_vec(), denied: denied.to_vec() }
    }

    /// Makes them this process's own.
    pub(crate) fn install(&self) -> Result<(), Failure> {
        let wrong = |error: Error| Failure::new(FailedKind::Internal, format!("the rules about hosts cannot be read: {}", error.message()));
        hosts::install(HostPolicy::parse(&self.allowed, &self.denied).map_err(wrong)?);
        Ok(())
    }
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
    /// The operator's rules do not let a database be dialled.
    HostRefused,
    /// They do not let an object store be dialled.
    EndpointRefused(SettingNames),
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
            Self::EndpointRefused(names) => return Error::invalid(endpoint_field(names), message).with("reason", hosts::REASON),
            Self::Internal => Kind::Internal,
        };
        Error::new(kind, message)
    }
}

/// Where an object store's host stands.
pub(crate) fn endpoint_field(names: SettingNames) -> &'static str {
    match names {
        SettingNames::Connection => "spec.s3.endpoint",
        SettingNames::Session => "endpoint",
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let is_refused = error.detail("reason") == Some(hosts::REASON);
        let kind = match error.kind() {
            _ if is_refused && error.field_name() == Some(HOST) => FailedKind::HostRefused,
            _ if is_refused && error.field_name() == Some(endpoint_field(SettingNames::Session)) => {
                FailedKind::EndpointRefused(SettingNames::Session)
            }
            _ if is_refused => FailedKind::EndpointRefused(SettingNames::Connection),
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
