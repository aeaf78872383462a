//! The one table of error codes, and how every error becomes a response.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use millrace_core::entitlement::Denial;
use millrace_core::{Error, Kind};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal, $category:literal;)+) => {
        /// A stable error code of the API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The HTTP status that it comes with.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The class of error.
            pub fn category(self) -> &'static str {
                match self { $(Self::$variant => $category,)+ }
            }

            /// When it is answered.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson = "INVALID_JSON", 400, "validation";
    /// A field breaks a rule; `details.field` names it.
    ValidationFailed = "VALIDATION_FAILED", 400, "validation";
    /// A destructive bulk request lacks the header `X-Confirm-Delete: true`.
    ConfirmationRequired = "CONFIRMATION_REQUIRED", 400, "validation";
    /// The port speaks TLS and the request came without; use `https://`.
    TlsRequired = "TLS_REQUIRED", 400, "validation";
    /// The API key or install id is missing, unknown or revoked.
    AuthenticationFailed = "AUTHENTICATION_FAILED", 401, "authentication";
    /// There is no paid subscription and no evaluation left.
    PaymentRequired = "PAYMENT_REQUIRED", 402, "permission";
    /// More installations than the subscription has seats.
    SeatLimitReached = "SEAT_LIMIT_REACHED", 403, "permission";
    /// This installation was unbound from the subscription.
    DeviceDeactivated = "DEVICE_DEACTIVATED", 403, "permission";
    /// The request names a host or comes from an origin that this server does not serve.
    ForbiddenOrigin = "FORBIDDEN_ORIGIN", 403, "permission";
    /// The server is read-only: it changes no database, file, connection or config, and starts nothing.
    ReadOnly = "READ_ONLY", 403, "permission";
    /// The server's operator does not let it connect to this host; `details.field` names where it stands.
    HostNotAllowed = "HOST_NOT_ALLOWED", 403, "permission";
    /// A file's path lies outside the folders that this server opens.
    PathRefused = "PATH_REFUSED", 403, "permission";
    /// There is no such path.
    RouteNotFound = "ROUTE_NOT_FOUND", 404, "not_found";
    /// The named connection, config, stream or run does not exist.
    NotFound = "NOT_FOUND", 404, "not_found";
    /// The path exists, the method does not.
    MethodNotAllowed = "METHOD_NOT_ALLOWED", 405, "validation";
    /// The rest of the request's body did not come in time.
    BodyStalled = "BODY_STALLED", 408, "limit";
    /// The state of things forbids the request.
    Conflict = "CONFLICT", 409, "conflict";
    /// The definition sets `state`, so that only a change of the definition starts, pauses, resumes or stops its streams.
    ManagedDeclaratively = "MANAGED_DECLARATIVELY", 409, "conflict";
    /// The request's `Idempotency-Key` was sent before with another request.
    IdempotencyConflict = "IDEMPOTENCY_CONFLICT", 409, "conflict";
    /// Another stream is active; `details.value` names it.
    StreamActive = "STREAM_ACTIVE", 409, "stream";
    /// The target already holds a table or rows that the policies forbid to touch.
    TargetConflict = "TARGET_CONFLICT", 409, "conflict";
    /// What was to be changed is not what it was when its etag was read; read it again.
    PreconditionFailed = "PRECONDITION_FAILED", 412, "conflict";
    /// The file is not the one that the header `If-Match` names; read it again.
    FileChanged = "FILE_CHANGED", 412, "conflict";
    /// The body is larger than the server takes.
    BodyTooLarge = "BODY_TOO_LARGE", 413, "limit";
    /// The request asks for something that this version does not have; `details.field` names it.
    NotSupported = "NOT_SUPPORTED", 422, "validation";
    /// The database refused the user name or password.
    LoginRefused = "CONNECTION_LOGIN_REFUSED", 422, "connection";
    /// The database server's certificate is not trusted, or it offers no TLS although `ssl.mode` asks for it.
    Untrusted = "CONNECTION_UNTRUSTED", 422, "connection";
    /// The database user lacks a privilege.
    PermissionDenied = "CONNECTION_PERMISSION_DENIED", 422, "connection";
    /// The named database, schema, table or column does not exist.
    ObjectMissing = "OBJECT_MISSING", 422, "connection";
    /// The plan refuses a column, constraint or table, because it could not arrive exactly.
    PlanRefused = "PLAN_REFUSED", 422, "stream";
    /// A value cannot be represented in its target column.
    ValueRefused = "VALUE_REFUSED", 422, "stream";
    /// A constraint rejects the data.
    ConstraintViolated = "CONSTRAINT_VIOLATED", 422, "stream";
    /// The statement is wrong or not allowed.
    StatementRefused = "STATEMENT_REFUSED", 422, "query";
    /// A table changed its definition while it was read.
    DefinitionChanged = "DEFINITION_CHANGED", 409, "stream";
    /// The database has too many locks or a deadlock; try again.
    Contention = "CONTENTION", 503, "connection";
    /// The request was ended before it was done.
    Cancelled = "CANCELLED", 499, "stream";
    /// Something broke in the server; the request id leads to its log.
    Internal = "INTERNAL", 500, "internal";
    /// Too many wrong API keys came from the client's address; the header `Retry-After` says how many seconds to wait.
    RateLimited = "RATE_LIMITED", 429, "limit";
    /// The database server cannot be reached.
    Unreachable = "CONNECTION_UNREACHABLE", 502, "connection";
    /// A connection to a database broke.
    ConnectionLost = "CONNECTION_LOST", 502, "connection";
    /// What the peer sent breaks its protocol, or row counts do not add up.
    ProtocolViolated = "PROTOCOL_VIOLATED", 502, "connection";
    /// The consistent moment of the source, or its place in the log, is lost.
    PositionLost = "POSITION_LOST", 409, "stream";
    /// A newer worker took the run over.
    Fenced = "FENCED", 409, "stream";
    /// A server, or this one, is out of disk, memory, connections or time slots.
    Exhausted = "RESOURCE_EXHAUSTED", 503, "limit";
    /// The entitlement service cannot be reached.
    EntitlementUnavailable = "ENTITLEMENT_UNAVAILABLE", 503, "unavailable";
    /// The server is starting or stopping.
    Unavailable = "UNAVAILABLE", 503, "unavailable";
    /// A deadline passed.
    TimedOut = "TIMED_OUT", 504, "limit";
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => Self::ValidationFailed,
            Kind::NotSupported => Self::NotSupported,
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => Self::Conflict,
            Kind::LoginRefused => Self::LoginRefused,
            Kind::Unreachable => Self::Unreachable,
            Kind::Untrusted => Self::Untrusted,
            Kind::ConnectionLost => Self::ConnectionLost,
            Kind::PermissionDenied => Self::PermissionDenied,
            Kind::ObjectMissing => Self::ObjectMissing,
            Kind::TargetConflict => Self::TargetConflict,
            Kind::PlanRefused => Self::PlanRefused,
            Kind::ValueRefused => Self::ValueRefused,
            Kind::ConstraintViolated => Self::ConstraintViolated,
            Kind::Contention => Self::Contention,
            Kind::TimedOut => Self::TimedOut,
            Kind::CutLost | Kind::PositionLost => Self::PositionLost,
            Kind::Fenced => Self::Fenced,
            Kind::ServerExhausted => Self::Exhausted,
            Kind::DefinitionChanged => Self::DefinitionChanged,
            Kind::ProtocolViolated => Self::ProtocolViolated,
            Kind::Cancelled => Self::Cancelled,
            Kind::StatementRefused => Self::StatementRefused,
            Kind::Internal => Self::Internal,
        }
    }
}

/// The body of every error response.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// What happened, for people.
    pub error: String,
    /// A stable code, upper snake case.
    pub code: String,
    /// The class of error.
    pub category: String,
    /// The same as `category`, under the name that older clients read.
    #[serde(rename = "type")]
    pub kind: String,
    /// Machine-readable facts: `field` names the request field concerned, `value` what was wrong about it.
    pub details: Map<String, Value>,
    /// `failed`, only when a stored connection does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping: Option<String>,
}

/// An error on its way to the client.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    /// Seconds.
    retry_after: Option<u64>,
    body: Box<ErrorBody>,
}

/// A handler's result.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error of a code.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        let body = ErrorBody {
            error: text.into(),
            code: code.as_str().to_owned(),
            category: code.category().to_owned(),
            kind: code.category().to_owned(),
            details: Map::new(),
            ping: None,
        };
        Self { code, retry_after: None, body: Box::new(body) }
    }

    /// A field that breaks a rule.
    pub fn invalid(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(Code::ValidationFailed, text).detail("field", field.into())
    }

    /// Adds a fact.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.details.insert(name.to_owned(), value.into());
        self
    }

    /// Says how many seconds the client has to wait.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Says that a stored connection does not answer.
    #[must_use]
    pub fn failed_ping(mut self) -> Self {
        self.body.ping = Some("failed".to_owned());
        self
    }

    /// What happened, for people.
    pub(crate) fn text(&self) -> &str {
        &self.body.error
    }

    /// The field concerned.
    pub(crate) fn field(&self) -> Option<&str> {
        self.body.details.get("field")?.as_str()
    }

    /// The status and the body, for answers that say more.
    pub(crate) fn into_parts(self) -> (StatusCode, ErrorBody) {
        (StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), *self.body)
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let is_gate = error.kind() == Kind::Conflict && error.detail("stream").is_some();
        let is_managed = error.kind() == Kind::Conflict && error.detail("reason") == Some(Code::ManagedDeclaratively.as_str());
        let is_host = error.detail("reason") == Some(millrace_core::hosts::REASON);
        let is_outside = error.kind() == Kind::PermissionDenied && error.detail("reason") == Some("outside");
        let code = match error.kind() {
            _ if is_outside => Code::PathRefused,
            _ if is_host => Code::HostNotAllowed,
            _ if is_gate => Code::StreamActive,
            _ if is_managed => Code::ManagedDeclaratively,
            Kind::Conflict if error.detail("reason") == Some("etag") => Code::PreconditionFailed,
            kind => Code::from(kind),
        };
        if code == Code::Internal {
            tracing::error!(error = %error.chain(), "a request failed");
        }
        let text = if code == Code::Internal { error.message().to_owned() } else { error.chain() };
        let mut answer = Self::new(code, text);
        if let Some(field) = error.field_name() {
            answer = answer.detail("field", field);
        }
        let blocking: Vec<&str> = error.details().iter().filter(|(name, _)| *name == "stream").map(|(_, id)| id.as_str()).collect();
        match blocking.as_slice() {
            [] => {}
            [one] => answer = answer.detail("value", *one),
            many => answer = answer.detail("value", many.iter().map(|id| Value::from(*id)).collect::<Vec<_>>()),
        }
        for (name, value) in error.details().iter().filter(|(name, _)| *name != "stream") {
            answer = answer.detail(name, value.as_str());
        }
        answer
    }
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        let code = match denial {
            Denial::AuthenticationFailed => Code::AuthenticationFailed,
            Denial::SeatLimitReached => Code::SeatLimitReached,
            Denial::DeviceDeactivated => Code::DeviceDeactivated,
            Denial::PaymentRequired => Code::PaymentRequired,
            Denial::Unavailable => Code::EntitlementUnavailable,
        };
        Self::new(code, denial.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(*self.body)).into_response();
        response.extensions_mut().insert(self.code);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// `docs/errors.md`.
pub fn errors_markdown() -> String {
    let mut text = String::from(
        "# Error codes\n\nGenerated by `./x gen` from the table in `apiserver/src/errors.rs`. Every error response has the body\n\
         `{error, code, category, type, details}`; `details.field` names the request field concerned.\n\n\
         | code | status | category | meaning |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let meaning = code.meaning().trim();
        text.push_str(&format!("| `{}` | {} | {} | {meaning} |\n", code.as_str(), code.status(), code.category()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_categories_are_those_of_the_contract() {
        let categories = [
            "authentication",
            "permission",
            "validation",
            "not_found",
            "conflict",
            "connection",
            "query",
            "storage",
            "stream",
            "limit",
            "internal",
            "unavailable",
        ];
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(categories.contains(&code.category()), "{code:?}");
        }
    }

    #[test]
    fn a_blocking_stream_is_named_in_the_details() {
        let error = Error::new(Kind::Conflict, "another stream is active").field("stream_state").with("stream", "stream_1");
        let answer = ApiError::from(error);
        assert_eq!(answer.code(), Code::StreamActive);
        assert_eq!(answer.body.details["field"], "stream_state");
        assert_eq!(answer.body.details["value"], "stream_1");
    }
}
