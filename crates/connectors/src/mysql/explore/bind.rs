//! Values of clients on their way into statements: as parameters of the column's own kind.
//!
//! MySQL compares a number with a string as doubles, so 2^63−1 written as a string meets 2^63−2 too: numbers are bound as numbers. What would be rounded or cut
//! on assignment is refused here, where the server would only note it.

use millrace_core::catalog::LogicalType;
use millrace_core::{Error, Kind, Result};
use serde_json::Value;

use super::super::wire::Param;
use super::object::ObjectColumn;
use super::quote;
use crate::numbers::whole;

/// A piece of a statement with its parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Piece {
    pub(super) sql: String,
    pub(super) params: Vec<Param>,
}

impl Piece {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), params: Vec::new() }
    }

    fn with(sql: impl Into<String>, param: Param) -> Self {
        Self { sql: sql.into(), params: vec![param] }
    }

    pub(super) fn push(&mut self, more: Self) {
        self.sql.push_str(&more.sql);
        self.params.extend(more.params);
    }

    /// Several pieces with a text between them.
    pub(super) fn join(pieces: impl IntoIterator<Item = Self>, between: &str) -> Self {
        let mut all = Self::default();
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 {
                all.sql.push_str(between);
            }
            all.push(piece);
        }
        all
    }
}

/// MySQL 8 swaps the coordinates of geographic systems in well-known binary, unlike what it stores; other servers take this for a comment.
const LONGITUDE_FIRST: &str = " /*!80000 , 'axis-order=long-lat' */";

/// A value as it is assigned to a column. `field` names it in errors.
pub(super) fn assigned(column: &ObjectColumn, value: &Value, field: &str) -> Result<Piece> {
    if value.is_null() {
        return Ok(Piece::new("NULL"));
    }
    let text = text_of(column, value, field)?;
    check_fits(column, &text, field)?;
    bound(column, &text, field)
}

/// A condition that a column holds a value. In a key, texts are compared by the column's collation, as its index does; else exactly.
pub(super) fn matches(column: &ObjectColumn, value: &Value, in_key: bool, field: &str) -> Result<Piece> {
    let name = quote(&column.name);
    if value.is_null() {
        return Ok(Piece::new(format!("{name} IS NULL")));
    }
    let text = text_of(column, value, field)?;
    if let LogicalType::Enum(labels) | LogicalType::Set(labels) = &column.logical
        && is_place(&text, labels)
    {
        return Ok(Piece::new("FALSE"));
    }
    let compared = bound(column, &text, field)?;
    let exact = |text: String| Piece::with(format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY) = CAST(? AS BINARY)"), Param::Text(text));
    Ok(match &column.logical {
        LogicalType::Char(_) | LogicalType::Varchar(_) | LogicalType::Text | LogicalType::Enum(_) | LogicalType::Set(_) if !in_key => {
            exact(text)
        }
        LogicalType::JsonText | LogicalType::Json => exact(text),
        LogicalType::Bit(_) => Piece { sql: format!("{name} + 0 = {}", compared.sql), params: compared.params },
        LogicalType::Spatial { .. } => {
            let (srid, wkb) = read_ewkb(&text).ok_or_else(|| spatial_error(column, field))?;
            Piece {
                sql: format!("(ST_AsWKB({name}{LONGITUDE_FIRST}) = ? AND ST_SRID({name}) = ?)"),
                params: vec![Param::Bytes(wkb), Param::Int(i64::from(srid))],
            }
        }
        _ => Piece { sql: format!("{name} = {}", compared.sql), params: compared.params },
    })
}

/// A value's text; what a client may write for a column of this kind.
fn text_of(column: &ObjectColumn, value: &Value, field: &str) -> Result<String> {
    let is_number = matches!(
        column.logical,
        LogicalType::Int { .. }
            | LogicalType::Decimal { .. }
            | LogicalType::Float32
            | LogicalType::Float64
            | LogicalType::Year
            | LogicalType::Bit(_)
    );
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(flag) if is_number => Ok(u8::from(*flag).to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Object(_) | Value::Array(_) if matches!(column.logical, LogicalType::Json | LogicalType::JsonText | LogicalType::Text) => {
            Ok(value.to_string())
        }
        _ => Err(wrong(column, field, "an object or array is no value of it")),
    }
}

/// A text as a parameter of the column's kind.
pub(super) fn bound(column: &ObjectColumn, text: &str, field: &str) -> Result<Piece> {
    let trimmed = text.trim();
    Ok(match &column.logical {
        LogicalType::Int { .. } | LogicalType::Year | LogicalType::Bool => Piece::with("?", integer(column, trimmed, field)?),
        LogicalType::Decimal { scale, .. } => {
            check_decimal(column, trimmed, field)?;
            Piece::with(format!("CAST(? AS DECIMAL(65,{scale}))"), Param::Text(trimmed.to_owned()))
        }
        LogicalType::Float32 => {
            let number: f32 = trimmed.parse().map_err(|_| wrong(column, field, "it is not a number"))?;
            Piece::with("?", Param::Double(finite(column, f64::from(number), field)?))
        }
        LogicalType::Float64 => {
            let number: f64 = trimmed.parse().map_err(|_| wrong(column, field, "it is not a number"))?;
            Piece::with("?", Param::Double(finite(column, number, field)?))
        }
        LogicalType::Bit(bits) => {
            Piece::with("?", Param::UInt(read_bits(trimmed, *bits).ok_or_else(|| wrong(column, field, "write its bits as `0` and `1`"))?))
        }
        LogicalType::Binary(_) | LogicalType::Bytes => {
            let bytes = text.strip_prefix("\\x").and_then(read_hex);
            Piece::with("?", Param::Bytes(bytes.ok_or_else(|| wrong(column, field, "write bytes as `\\x` and hexadecimal digits"))?))
        }
        LogicalType::Spatial { .. } => {
            let (srid, wkb) = read_ewkb(trimmed).ok_or_else(|| spatial_error(column, field))?;
            Piece { sql: format!("ST_GeomFromWKB(?, ?{LONGITUDE_FIRST})"), params: vec![Param::Bytes(wkb), Param::Int(i64::from(srid))] }
        }
        LogicalType::Timestamp(_) => Piece::with("?", Param::Text(without_zone(trimmed).to_owned())),
        LogicalType::Date | LogicalType::DateTime(_) | LogicalType::Time(_) => Piece::with("?", Param::Text(trimmed.to_owned())),
        _ => Piece::with("?", Param::Text(text.to_owned())),
    })
}

/// Refuses what the server would round, or take for something else, without a word.
fn check_fits(column: &ObjectColumn, text: &str, field: &str) -> Result<()> {
    let fraction = |text: &str| text.rsplit_once('.').map_or(0, |(_, digits)| digits.trim_end_matches('0').len());
    let kept = match &column.logical {
        LogicalType::DateTime(digits) | LogicalType::Timestamp(digits) | LogicalType::Time(digits) => usize::from(*digits),
        LogicalType::Enum(labels) | LogicalType::Set(labels) if is_place(text, labels) => {
            let text = format!("column `{}` ({}) has no label that is this number", column.name, column.full_type);
            return Err(Error::new(Kind::ValueRefused, text).field(field).with("column", column.name.clone()));
        }
        _ => return Ok(()),
    };
    if fraction(without_zone(text.trim())) <= kept {
        return Ok(());
    }
    let text = format!("column `{}` keeps {kept} digits after the point; the value has more", column.name);
    Err(Error::new(Kind::ValueRefused, text).field(field).with("column", column.name.clone()))
}

/// Whether the server would take a text for the place of a label, or for a set's bits: a number that is no label itself (MySQL manual, "The ENUM Type"). Every
/// other text that is no label by the column's collation is refused by the server.
fn is_place(text: &str, labels: &[String]) -> bool {
    let text = text.trim_end_matches(' ');
    let digits = text.trim_start().trim_start_matches(['+', '-']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number && !labels.iter().any(|label| label.trim_end_matches(' ') == text)
}

fn without_zone(text: &str) -> &str {
    ["+00:00", "+00", "Z"].iter().find_map(|zone| text.strip_suffix(zone)).unwrap_or(text)
}

fn integer(column: &ObjectColumn, text: &str, field: &str) -> Result<Param> {
    // `7.0` and `1e3` are whole numbers, too.
    let plain = whole(text);
    let whole = plain.as_deref().unwrap_or(text);
    if let Ok(number) = whole.parse::<i64>() {
        return Ok(Param::Int(number));
    }
    match whole.parse::<u64>() {
        Ok(number) => Ok(Param::UInt(number)),
        Err(_) => Err(wrong(column, field, "it is not a whole number of 64 bits")),
    }
}

fn finite(column: &ObjectColumn, number: f64, field: &str) -> Result<f64> {
    if number.is_finite() { Ok(number) } else { Err(wrong(column, field, "MySQL has no such number")) }
}

/// Refuses what is no decimal number, and what the column cannot hold as it is: a cast would round or clamp it, in a key to that of another row.
fn check_decimal(column: &ObjectColumn, text: &str, field: &str) -> Result<()> {
    let Some((whole, fraction)) = decimal_digits(text) else { return Err(wrong(column, field, "it is not a decimal number")) };
    let LogicalType::Decimal { precision, scale } = column.logical else { return Ok(()) };
    if fraction <= i64::from(scale) && whole <= i64::from(precision.saturating_sub(scale)) {
        return Ok(());
    }
    let text = format!("column `{}` ({}) has no room for the value's digits", column.name, column.full_type);
    Err(Error::new(Kind::ValueRefused, text).field(field).with("column", column.name.clone()))
}

/// How many digits a decimal number needs before and after its point; none for what is no decimal number.
fn decimal_digits(text: &str) -> Option<(i64, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent = i64::from(exponent.parse::<i32>().ok()?);
    let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{before}{after}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return Some((0, 0));
    }
    let point = before.len() as i64 + exponent;
    let leading = (all.len() - significant.len()) as i64;
    let last = all.trim_end_matches('0').len() as i64;
    Some(((point - leading).max(0), (last - point).max(0)))
}

fn read_bits(text: &str, bits: u16) -> Option<u64> {
    let is_bits = !text.is_empty() && text.len() <= usize::from(bits) && text.bytes().all(|byte| matches!(byte, b'0' | b'1'));
    is_bits.then(|| u64::from_str_radix(text, 2).ok())?
}

fn read_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}

/// The reference system and the well-known binary form of an extended one.
fn read_ewkb(text: &str) -> Option<(u32, Vec<u8>)> {
    let mut bytes = read_hex(text)?;
    let flag = match bytes.first()? {
        1 => 4,
        0 => 1,
        _ => return None,
    };
    if bytes.get(flag)? & 0x20 == 0 {
        return Some((0, bytes));
    }
    bytes[flag] &= !0x20;
    let srid: [u8; 4] = bytes.get(5..9)?.try_into().ok()?;
    let srid = if flag == 4 { u32::from_le_bytes(srid) } else { u32::from_be_bytes(srid) };
    bytes.drain(5..9);
    Some((srid, bytes))
}

fn spatial_error(column: &ObjectColumn, field: &str) -> Error {
    wrong(column, field, "write it as extended well-known binary in hexadecimal digits")
}

fn wrong(column: &ObjectColumn, field: &str, why: &str) -> Error {
    Error::invalid(field, format!("the value does not fit column `{}` ({}): {why}", column.name, column.full_type))
        .with("column", column.name.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn column(logical: LogicalType) -> ObjectColumn {
        ObjectColumn {
            name: "c".into(),
            full_type: "t".into(),
            logical,
            is_nullable: true,
            is_generated: false,
            is_refreshed: false,
            is_automatic: false,
        }
    }

    #[test]
    fn numbers_are_bound_as_numbers() {
        let big = column(LogicalType::Int { bits: 64, unsigned: false });
        assert_eq!(assigned(&big, &json!("9223372036854775807"), "f").ok(), Some(Piece::with("?", Param::Int(i64::MAX))));
        assert_eq!(assigned(&big, &json!(u64::MAX), "f").ok(), Some(Piece::with("?", Param::UInt(u64::MAX))));
        assert_eq!(assigned(&big, &json!(true), "f").ok(), Some(Piece::with("?", Param::Int(1))));
        assert!(assigned(&big, &json!("7.5"), "f").is_err());
        let decimal = column(LogicalType::Decimal { precision: 10, scale: 2 });
        assert_eq!(
            matches(&decimal, &json!("1.50"), true, "f").ok(),
            Some(Piece::with("`c` = CAST(? AS DECIMAL(65,2))", Param::Text("1.50".into())))
        );
        assert_eq!(assigned(&decimal, &json!("1.505"), "f").map_err(|error| error.kind()), Err(Kind::ValueRefused));
        assert!(assigned(&decimal, &json!("1.500"), "f").is_ok());
        assert!(assigned(&decimal, &json!("1; DROP"), "f").is_err());
        for key in ["1.505", "1e-3", "1e9", "123456789"] {
            assert_eq!(matches(&decimal, &json!(key), true, "f").map_err(|error| error.kind()), Err(Kind::ValueRefused), "{key}");
        }
    }

    #[test]
    fn numbers_are_no_places_of_labels() {
        let label = |logical: LogicalType, value: Value| assigned(&column(logical), &value, "f").map_err(|error| error.kind());
        let labels = || vec!["a".to_owned(), "7".to_owned(), "007".to_owned()];
        for value in [json!("a"), json!("A"), json!("7"), json!(7), json!("007 "), json!("b"), json!("1.5"), json!("")] {
            assert!(label(LogicalType::Enum(labels()), value.clone()).is_ok(), "{value}");
        }
        for value in [json!("2"), json!(2), json!("0"), json!(" 1"), json!("+1"), json!("-1"), json!("2 "), json!("07"), json!("3")] {
            assert_eq!(label(LogicalType::Enum(labels()), value.clone()), Err(Kind::ValueRefused), "{value}");
            assert_eq!(label(LogicalType::Set(labels()), value.clone()), Err(Kind::ValueRefused), "{value}");
            let key = matches(&column(LogicalType::Enum(labels())), &value, true, "f");
            assert_eq!(key.ok(), Some(Piece::new("FALSE")), "{value}");
        }
        assert!(label(LogicalType::Set(labels()), json!("a,7")).is_ok());
    }

    #[test]
    fn digits_of_decimals_are_counted_whatever_their_form() {
        let table = [
            ("0", (0, 0)),
            ("-0.00", (0, 0)),
            ("12.50", (2, 1)),
            ("+007.", (1, 0)),
            (".05", (0, 2)),
            ("1e3", (4, 0)),
            ("12.5e-3", (0, 4)),
            ("1200e-2", (2, 0)),
        ];
        for (text, expected) in table {
            assert_eq!(decimal_digits(text), Some(expected), "{text}");
        }
        for text in ["", ".", "-", "1.2.3", "1e", "x", "0x1", "1 2"] {
            assert_eq!(decimal_digits(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_bits_and_spatial_values_are_read_from_their_texts() {
        assert_eq!(assigned(&column(LogicalType::Bytes), &json!("\\x00fF"), "f").ok(), Some(Piece::with("?", Param::Bytes(vec![0, 255]))));
        assert!(assigned(&column(LogicalType::Bytes), &json!("abc"), "f").is_err());
        assert_eq!(assigned(&column(LogicalType::Bit(10)), &json!("101"), "f").ok(), Some(Piece::with("?", Param::UInt(5))));
        assert!(assigned(&column(LogicalType::Bit(2)), &json!("101"), "f").is_err());
        assert_eq!(read_ewkb("0101000020E6100000AB"), Some((4326, vec![1, 1, 0, 0, 0, 0xAB])));
        assert_eq!(read_ewkb("0101000000AB"), Some((0, vec![1, 1, 0, 0, 0, 0xAB])));
    }

    #[test]
    fn texts_are_compared_by_collation_in_keys_and_exactly_elsewhere() {
        let text = column(LogicalType::Varchar(10));
        assert_eq!(matches(&text, &json!("x"), true, "f").ok().map(|piece| piece.sql), Some("`c` = ?".into()));
        assert!(matches(&text, &json!("x"), false, "f").is_ok_and(|piece| piece.sql.contains("BINARY")));
        assert_eq!(matches(&text, &Value::Null, false, "f").ok(), Some(Piece::new("`c` IS NULL")));
    }

    #[test]
    fn moments_lose_their_zone_and_keep_their_digits() {
        let timestamp = column(LogicalType::Timestamp(3));
        assert_eq!(
            assigned(&timestamp, &json!("2024-02-29 12:00:00.5+00"), "f").ok(),
            Some(Piece::with("?", Param::Text("2024-02-29 12:00:00.5".into())))
        );
        assert!(assigned(&timestamp, &json!("2024-02-29 12:00:00.1234"), "f").is_err());
    }
}
