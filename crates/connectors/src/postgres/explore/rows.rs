//! Rows from the server's text form to JSON.

use millrace_core::json_rows::JsonRows;
use millrace_core::value::{RowEncoder as _, ValueRef};
use millrace_core::{Error, Kind, Result};
use tokio_postgres::SimpleQueryRow;

use super::super::error::classify;

/// What a column's text is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `smallint`, `integer`, `bigint`, `oid`.
    Int,
    /// `numeric`
    Decimal,
    /// `real`
    Float32,
    /// `double precision`
    Float64,
    /// `boolean`
    Bool,
    /// Everything else stays as the server writes it.
    Text,
}

impl Form {
    /// By the type's number; a domain's is that of its base (`src/include/catalog/pg_type.dat`).
    pub(super) fn of(type_oid: u32) -> Self {
        match type_oid {
            20 | 21 | 23 | 26 => Self::Int,
            1700 => Self::Decimal,
            700 => Self::Float32,
            701 => Self::Float64,
            16 => Self::Bool,
            _ => Self::Text,
        }
    }

    /// Whether arithmetic makes sense.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Decimal | Self::Float32 | Self::Float64)
    }

    fn value(self, text: &str) -> ValueRef<'_> {
        let parsed = match self {
            Self::Int => text.parse().ok().map(ValueRef::Int),
            // `NaN` and the infinities have no digits.
            Self::Decimal => text.ends_with(|last: char| last.is_ascii_digit()).then_some(ValueRef::Decimal(text)),
            Self::Float32 => text.parse().ok().map(ValueRef::Float32),
            Self::Float64 => text.parse().ok().map(ValueRef::Float64),
            Self::Bool => Some(ValueRef::Bool(text == "t")),
            Self::Text => None,
        };
        parsed.unwrap_or(ValueRef::Text(text))
    }
}

/// A value's text.
pub(super) fn text(row: &SimpleQueryRow, column: usize) -> Result<Option<&str>> {
    row.try_get(column).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) if cause.is::<std::str::Utf8Error>() => {
            Error::new(Kind::StatementRefused, "the result is no UTF-8: `client_encoding` was changed")
        }
        _ => classify(error),
    })
}

/// Adds a row; its columns begin with `first`.
pub(super) fn add(row: &SimpleQueryRow, first: usize, forms: &[Form], rows: &mut JsonRows) -> Result<()> {
    rows.begin_row();
    for (index, form) in forms.iter().enumerate() {
        let value = match text(row, first + index) {
            Ok(text) => text.map_or(ValueRef::Null, |text| form.value(text)),
            Err(error) => {
                rows.abandon_row();
                return Err(error);
            }
        };
        rows.value(index, value).map_err(|error| Error::internal(error.to_string()))?;
    }
    rows.end_row();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_digits_stay_texts() {
        assert_eq!(Form::Decimal.value("NaN"), ValueRef::Text("NaN"));
        assert_eq!(Form::Decimal.value("-Infinity"), ValueRef::Text("-Infinity"));
        assert_eq!(Form::Decimal.value("-0.10"), ValueRef::Decimal("-0.10"));
        assert_eq!(Form::Int.value("9223372036854775807"), ValueRef::Int(i64::MAX));
        assert_eq!(Form::Float64.value("-Infinity"), ValueRef::Float64(f64::NEG_INFINITY));
        assert_eq!(Form::Bool.value("f"), ValueRef::Bool(false));
        assert_eq!(Form::Text.value("1"), ValueRef::Text("1"));
    }
}
