//! One error type, and the one function that says what follows from an error.
//!
//! Drivers classify their own errors at the edge (by SQLSTATE or error number) into a [`Kind`]; everything above decides by the
//! kind alone. An error's text names the field, table or server concerned and never holds a secret or a row's value.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// A result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// What kind of thing went wrong. Each kind has a stable code on the wire and one disposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A request or config breaks a rule; the field is named.
    Invalid,
    /// A request or config asks for something that does not exist in this version; the field is named.
    NotSupported,
    /// The named connection, config, stream or run does not exist.
    NotFound,
    /// The state of things forbids the request (another stream is active, the object changed meanwhile).
    Conflict,
    /// A database refused the user name or password.
    LoginRefused,
    /// A server cannot be reached: name unknown, connection refused, time-out while dialling.
    Unreachable,
    /// A server's certificate is not trusted, or it offers no protected transport although one is asked for.
    Untrusted,
    /// An open connection broke.
    ConnectionLost,
    /// The database user lacks a privilege.
    PermissionDenied,
    /// The named database, schema, table or column does not exist at the source or target.
    ObjectMissing,
    /// The target already holds a table or rows that the policies forbid to touch.
    TargetConflict,
    /// The plan refuses a column, constraint or table: it could not arrive exactly.
    PlanRefused,
    /// A value cannot be represented in its target column under the plan's policy.
    ValueRefused,
    /// A target constraint rejects the data.
    ConstraintViolated,
    /// Deadlock, lock time-out, serialization failure.
    Contention,
    /// A deadline passed.
    TimedOut,
    /// The consistent moment of the source can no longer be read.
    CutLost,
    /// The source's log no longer reaches back to the wanted position.
    PositionLost,
    /// A newer worker with the same identity took over.
    Fenced,
    /// The server is out of disk, memory or connections.
    ServerExhausted,
    /// A table changed its definition while it was being read.
    DefinitionChanged,
    /// What a peer sent breaks its protocol, or row counts do not add up.
    ProtocolViolated,
    /// The user or a shutdown ended the work.
    Cancelled,
    /// A statement is not allowed, or the database rejects it as wrong.
    StatementRefused,
    /// A bug of ours or of the operating system's.
    Internal,
}

impl Kind {
    /// All kinds, for tables and tests.
    pub const ALL: [Self; 25] = [
        Self::Invalid,
        Self::NotSupported,
        Self::NotFound,
        Self::Conflict,
        Self::LoginRefused,
        Self::Unreachable,
        Self::Untrusted,
        Self::ConnectionLost,
        Self::PermissionDenied,
        Self::ObjectMissing,
        Self::TargetConflict,
        Self::PlanRefused,
        Self::ValueRefused,
        Self::ConstraintViolated,
        Self::Contention,
        Self::TimedOut,
        Self::CutLost,
        Self::PositionLost,
        Self::Fenced,
        Self::ServerExhausted,
        Self::DefinitionChanged,
        Self::ProtocolViolated,
        Self::Cancelled,
        Self::StatementRefused,
        Self::Internal,
    ];
}

/// What follows from an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The same step may succeed later; wait at least this long.
    Retry {
        /// The shortest sensible wait before the first retry.
        after: Duration,
    },
    /// Nothing but a person can mend it; the hint says how.
    WaitForUser {
        /// What to do, in one sentence.
        hint: &'static str,
    },
    /// The table at hand has failed; other tables go on.
    TableFailed,
    /// The run ends.
    Stop,
}

/// The one place that decides what an error means for a run.
pub fn disposition(kind: Kind) -> Disposition {
    use Disposition::{Retry, Stop, TableFailed, WaitForUser};
    match kind {
        Kind::Unreachable | Kind::ConnectionLost => Retry { after: Duration::from_secs(1) },
        Kind::Contention => Retry { after: Duration::from_millis(100) },
        Kind::TimedOut => Retry { after: Duration::from_secs(2) },
        Kind::ServerExhausted => Retry { after: Duration::from_secs(10) },
        Kind::Invalid => WaitForUser { hint: "correct the named field" },
        Kind::NotSupported => WaitForUser { hint: "leave the named field out" },
        Kind::NotFound => WaitForUser { hint: "check the id" },
        Kind::Conflict => WaitForUser { hint: "stop what is active, then try again" },
        Kind::LoginRefused => WaitForUser { hint: "correct the connection's user name or password" },
        Kind::Untrusted => WaitForUser { hint: "correct `ssl`: the certificate authority, the mode or the host name" },
        Kind::PermissionDenied => WaitForUser { hint: "grant the database user the named privilege" },
        Kind::ObjectMissing => WaitForUser { hint: "create the object or correct its name" },
        Kind::TargetConflict => WaitForUser { hint: "empty or drop the target table, or choose another target" },
        Kind::PlanRefused => WaitForUser { hint: "leave the named column or table out, or change its type at the source" },
        Kind::CutLost => WaitForUser { hint: "resume: the run starts again at a new moment" },
        Kind::PositionLost => WaitForUser { hint: "copy the data again" },
        Kind::StatementRefused => WaitForUser { hint: "correct the statement" },
        Kind::ValueRefused | Kind::ConstraintViolated | Kind::DefinitionChanged => TableFailed,
        Kind::Fenced | Kind::ProtocolViolated | Kind::Cancelled | Kind::Internal => Stop,
    }
}

/// What went wrong, where, and why. Small on the stack; the parts are boxed.
pub struct Error(Box<Parts>);

struct Parts {
    kind: Kind,
    message: Cow<'static, str>,
    field: Option<String>,
    details: Vec<(&'static str, String)>,
    source: Option<Source>,
}

impl Error {
    /// The first of several, for those who can say only one.
    pub fn first_of(errors: Vec<Self>) -> Self {
        errors.into_iter().next().unwrap_or_else(|| Self::internal("a refusal without a reason"))
    }

    /// An error of a kind. The message is lower case, without a full stop, with names in backticks.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Parts { kind, message: message.into(), field: None, details: Vec::new(), source: None }))
    }

    /// Shorthand for [`Kind::Invalid`] with the field.
    pub fn invalid(field: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Invalid, message).field(field)
    }

    /// Shorthand for [`Kind::NotSupported`] with the field.
    pub fn not_supported(field: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotSupported, message).field(field)
    }

    /// Shorthand for [`Kind::Internal`].
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// Names the request or config field concerned, as a JSON path (`source.connections[0].tables`).
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Makes it an error of another kind, where the place at hand knows better than the driver.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Adds a named fact (`table`, `column`, `sqlstate`).
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.details.push((name, value.into()));
        self
    }

    /// Keeps the cause. Its text reaches logs, so it must hold no secret.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The message without its cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The field concerned, if any.
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The named facts.
    pub fn details(&self) -> &[(&'static str, String)] {
        &self.0.details
    }

    /// A named fact, if it was added.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.0.details.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    /// What follows from this error.
    pub fn disposition(&self) -> Disposition {
        disposition(self.0.kind)
    }

    /// The message followed by all its causes, for reports.
    pub fn chain(&self) -> String {
        let mut text = self.0.message.to_string();
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("field", &self.0.field)
            .field("details", &self.0.details)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_disposition_and_user_errors_carry_a_hint() {
        for kind in Kind::ALL {
            if let Disposition::WaitForUser { hint } = disposition(kind) {
                assert!(!hint.is_empty(), "{kind:?}");
            }
        }
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let cause = std::io::Error::other("connection reset");
        let error = Error::new(Kind::ConnectionLost, "cannot read from `db`").because(cause);
        assert_eq!(error.chain(), "cannot read from `db`: connection reset");
    }
}
