//! Which PostgreSQL type holds a column, and what that means for its values.

use millrace_core::catalog::{Column, LogicalType};
use millrace_core::plan::Verdict;
use millrace_core::value::OnLoss;

/// A target type.
pub(super) struct Mapping {
    /// As it stands in DDL.
    pub(super) sql: String,
    pub(super) verdict: Verdict,
    /// Why; empty when nothing needs saying.
    pub(super) reason: String,
}

/// The type for a column. `is_time_of_day` is what the data at the cut says about a TIME column.
pub(super) fn map(column: &Column, is_time_of_day: bool) -> Mapping {
    let exact = |sql: String| Mapping { sql, verdict: Verdict::Exact, reason: String::new() };
    let widened = |sql: &str, reason: &str| Mapping { sql: sql.to_owned(), verdict: Verdict::Widened, reason: reason.to_owned() };
    match &column.logical {
        LogicalType::Bool => exact("boolean".into()),
        LogicalType::Int { bits, unsigned } => match (bits, unsigned) {
            (8, _) => widened("smallint", "PostgreSQL has no 8-bit integer"),
            (16, false) => exact("smallint".into()),
            (16, true) => widened("integer", "PostgreSQL has no unsigned integers"),
            (24, _) => widened("integer", "PostgreSQL has no 24-bit integer"),
            (32, false) => exact("integer".into()),
            (32, true) => widened("bigint", "PostgreSQL has no unsigned integers"),
            (_, false) => exact("bigint".into()),
            (_, true) => widened("numeric(20,0)", "PostgreSQL has no unsigned integers"),
        },
        LogicalType::Decimal { precision, scale } => exact(format!("numeric({precision},{scale})")),
        LogicalType::Float32 => exact("real".into()),
        LogicalType::Float64 => exact("double precision".into()),
        LogicalType::Char(0) | LogicalType::Varchar(0) => widened("text", "a length of 0 does not exist in PostgreSQL"),
        LogicalType::Char(length) => exact(format!("character({length})")),
        LogicalType::Varchar(length) => exact(format!("character varying({length})")),
        LogicalType::Text => exact("text".into()),
        LogicalType::Binary(_) | LogicalType::Bytes => exact("bytea".into()),
        LogicalType::Bit(1) => exact("boolean".into()),
        LogicalType::Bit(length) => exact(format!("bit({length})")),
        LogicalType::Date => dated(column, "date".to_owned()),
        LogicalType::DateTime(digits) => dated(column, format!("timestamp({digits}) without time zone")),
        LogicalType::Timestamp(digits) => dated(column, format!("timestamp({digits}) with time zone")),
        LogicalType::Time(digits) if is_time_of_day => Mapping {
            sql: format!("time({digits}) without time zone"),
            verdict: Verdict::Exact,
            reason: "every value lies within one day".to_owned(),
        },
        LogicalType::Time(digits) => Mapping {
            sql: format!("interval({digits})"),
            verdict: Verdict::Exact,
            reason: "values may be negative or longer than a day".to_owned(),
        },
        LogicalType::Year => widened("smallint", "PostgreSQL has no YEAR"),
        LogicalType::Enum(_) => Mapping { sql: "text".into(), verdict: Verdict::Exact, reason: "a check admits the labels".into() },
        LogicalType::Set(_) => Mapping { sql: "text[]".into(), verdict: Verdict::Exact, reason: "one element per label".into() },
        LogicalType::JsonText => exact("json".into()),
        LogicalType::Json => exact("jsonb".into()),
        LogicalType::Uuid => exact("uuid".into()),
        LogicalType::Unsupported(reason) => Mapping { sql: String::new(), verdict: Verdict::Refused, reason: reason.clone() },
    }
}

/// Dates: MySQL admits zero dates, which no other engine has.
fn dated(column: &Column, sql: String) -> Mapping {
    let on_loss = if column.nullable { OnLoss::Null } else { OnLoss::Error };
    let reason = match on_loss {
        OnLoss::Null => "zero dates become NULL and are counted",
        OnLoss::Error => "a zero date fails the table, because the column is NOT NULL",
    };
    Mapping { sql, verdict: Verdict::Policy(on_loss), reason: reason.to_owned() }
}
