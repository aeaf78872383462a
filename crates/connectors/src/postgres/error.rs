//! What PostgreSQL's errors mean to us.
//!
//! The `DETAIL` of an error quotes row values, so it never leaves this module.

use std::error::Error as _;

use millrace_core::{Error, Kind};
use tokio_postgres::error::{DbError, ErrorPosition, Severity, SqlState};

/// The kind of a SQLSTATE (PostgreSQL manual, appendix "PostgreSQL Error Codes").
pub(super) fn kind_of(state: &str) -> Kind {
    match state {
        "28P01" | "28000" => Kind::LoginRefused,
        "3D000" | "3F000" | "42P01" | "42703" | "42704" | "42883" => Kind::ObjectMissing,
        "42501" => Kind::PermissionDenied,
        "42P06" | "42P07" | "42710" => Kind::TargetConflict,
        "40001" | "40P01" | "55P03" | "55006" => Kind::Contention,
        // Somebody or some limit has ended a statement: not we, who end connections.
        "57014" => Kind::TimedOut,
        "57P01" | "57P02" | "57P03" | "57P05" => Kind::ConnectionLost,
        "25006" => Kind::PermissionDenied,
        "2BP01" => Kind::TargetConflict,
        _ => match state.get(..2) {
            Some("08") => Kind::ConnectionLost,
            Some("22") => Kind::ValueRefused,
            Some("23") => Kind::ConstraintViolated,
            Some("53") => Kind::ServerExhausted,
            Some("42" | "0A" | "26" | "34") => Kind::StatementRefused,
            Some("58" | "XX") => Kind::Internal,
            _ => Kind::StatementRefused,
        },
    }
}

/// The error of a session that was open.
pub(super) fn classify(error: tokio_postgres::Error) -> Error {
    if let Some(db) = error.as_db_error() {
        return from_db(db);
    }
    if error.is_closed() {
        return Error::new(Kind::ConnectionLost, "the target closed the connection");
    }
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    if let Some(io) = io {
        return Error::new(Kind::ConnectionLost, format!("the connection to the target broke: {io}"));
    }
    Error::new(Kind::ProtocolViolated, error.to_string())
}

/// The error of a dial.
pub(super) fn cannot_connect(place: &str, error: tokio_postgres::Error) -> Error {
    if let Some(db) = error.as_db_error() {
        let classified = from_db(db);
        return Error::new(classified.kind(), format!("`{place}` answered: {}", db.message()))
            .with("sqlstate", db.code().code().to_owned());
    }
    let message = format!("cannot connect to `{place}`");
    // The driver's own refusal and rustls' ones both come wrapped.
    let mut cause = error.source();
    while let Some(found) = cause {
        let io = found.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = found.downcast_ref::<rustls::Error>().or_else(|| io.and_then(|inner| inner.downcast_ref::<rustls::Error>()));
        if let Some(tls) = tls {
            return Error::new(Kind::Untrusted, format!("no trusted connection to `{place}`: {tls}")).field("ssl");
        }
        if found.to_string().contains("does not support TLS") {
            return Error::new(Kind::Untrusted, format!("`{place}` offers no TLS, which `ssl.mode` asks for")).field("ssl.mode");
        }
        cause = found.source();
    }
    match error.source() {
        // A wrong or missing password is noticed by the driver itself.
        Some(cause) if cause.to_string().contains("password") => Error::new(Kind::LoginRefused, message).because(cause.to_string()),
        Some(cause) => Error::new(Kind::Unreachable, message).because(cause.to_string()),
        None => Error::new(Kind::Unreachable, message).because(error.to_string()),
    }
}

/// Whether an error says that an object is not there.
pub(super) fn is_missing_table(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_TABLE) || error.code() == Some(&SqlState::INVALID_SCHEMA_NAME)
}

fn from_db(db: &DbError) -> Error {
    let state = db.code().code();
    let mut error = Error::new(kind_of(state), format!("the target answered: {}", told(db))).with("sqlstate", state.to_owned());
    let named = [("schema", db.schema()), ("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    for (name, value) in named {
        if let Some(value) = value {
            error = error.with(name, value.to_owned());
        }
    }
    error
}

/// What the server says about a statement that a person has written or asked for, with the place in it, which begins after `before` characters.
pub(super) fn refusal(error: tokio_postgres::Error, before: usize) -> Error {
    let Some(db) = error.as_db_error() else { return classify(error) };
    let state = db.code().code();
    let mut told = Error::new(refusal_kind(db), told(db)).with("sqlstate", state.to_owned());
    if let Some(ErrorPosition::Original(position)) = db.position() {
        // A place before the statement's own text is in what was put around it.
        if let Some(position) = (*position as usize).checked_sub(before).filter(|position| *position > 0) {
            told = told.with("position", position.to_string());
        }
    }
    let named =
        [("hint", db.hint()), ("schema", db.schema()), ("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    for (name, value) in named {
        if let Some(value) = value {
            told = told.with(name, value.to_owned());
        }
    }
    told
}

fn refusal_kind(db: &DbError) -> Kind {
    let state = db.code().code();
    if matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
        return Kind::ConnectionLost;
    }
    match state {
        "57014" if db.message().contains("user request") => Kind::Cancelled,
        "42501" => Kind::PermissionDenied,
        "3D000" => Kind::ObjectMissing,
        _ => match kind_of(state) {
            kind @ (Kind::Contention | Kind::TimedOut | Kind::ConstraintViolated | Kind::ServerExhausted) => kind,
            // A function of the user's may have lost a connection of its own; ours is there.
            _ => Kind::StatementRefused,
        },
    }
}

/// What the server says, without values of rows.
fn told(db: &DbError) -> String {
    if db.code().code().starts_with("22") { without_quoted(db.message()) } else { db.message().to_owned() }
}

/// Messages of data exceptions quote values: `invalid input syntax for type integer: "…"`.
fn without_quoted(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &message[..=first], &message[last..]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_map_to_kinds() {
        let table = [
            ("28P01", Kind::LoginRefused),
            ("3D000", Kind::ObjectMissing),
            ("42501", Kind::PermissionDenied),
            ("42P07", Kind::TargetConflict),
            ("40P01", Kind::Contention),
            ("53100", Kind::ServerExhausted),
            ("54000", Kind::StatementRefused),
            ("57014", Kind::TimedOut),
            ("57P01", Kind::ConnectionLost),
            ("08006", Kind::ConnectionLost),
            ("22021", Kind::ValueRefused),
            ("23505", Kind::ConstraintViolated),
            ("42601", Kind::StatementRefused),
        ];
        for (state, kind) in table {
            assert_eq!(kind_of(state), kind, "{state}");
        }
    }
    #[test]
    fn values_that_messages_quote_are_left_out() {
        assert_eq!(without_quoted("invalid input syntax for type integer: \"s\"e\""), "invalid input syntax for type integer: \"…\"");
        assert_eq!(without_quoted("division by zero"), "division by zero");
    }
}
