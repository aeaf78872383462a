//! Reads column types and defaults as `information_schema.columns` spells them.

use millrace_core::catalog::{DefaultValue, LogicalType};

/// The type of a column from `DATA_TYPE` (its name), `COLUMN_TYPE` (its full text) and its character set.
pub(super) fn logical_type(name: &str, full: &str, charset: Option<&str>) -> LogicalType {
    let lower = full.to_ascii_lowercase();
    let unsigned = lower.contains("unsigned");
    let numbers = numbers(&lower);
    let first = numbers.first().copied();
    let int = |bits| LogicalType::Int { bits, unsigned };
    let digits = || first.unwrap_or(0).min(6) as u8;
    match name.to_ascii_lowercase().as_str() {
        "tinyint" => int(8),
        "smallint" => int(16),
        "mediumint" => int(24),
        "int" | "integer" => int(32),
        "bigint" => int(64),
        "decimal" | "numeric" => {
            LogicalType::Decimal { precision: first.unwrap_or(10) as u16, scale: numbers.get(1).copied().unwrap_or(0) as u16 }
        }
        "float" => LogicalType::Float32,
        "double" | "real" => LogicalType::Float64,
        "char" => LogicalType::Char(first.unwrap_or(1)),
        "varchar" => LogicalType::Varchar(first.unwrap_or(1)),
        "tinytext" | "text" | "mediumtext" | "longtext" if charset.is_some() => LogicalType::Text,
        "binary" => LogicalType::Binary(first.unwrap_or(1)),
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => LogicalType::Bytes,
        "bit" => LogicalType::Bit(first.unwrap_or(1) as u16),
        "date" => LogicalType::Date,
        "datetime" => LogicalType::DateTime(digits()),
        "timestamp" => LogicalType::Timestamp(digits()),
        "time" => LogicalType::Time(digits()),
        "year" => LogicalType::Year,
        "enum" => LogicalType::Enum(labels(full)),
        "set" => LogicalType::Set(labels(full)),
        "json" => LogicalType::Json,
        "uuid" => LogicalType::Uuid,
        "inet4" | "inet6" => LogicalType::Inet,
        shape @ ("point" | "linestring" | "polygon" | "geometry" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection") => LogicalType::Spatial { shape: shape.to_owned() },
        other => LogicalType::Unsupported(format!("the type `{other}` is not supported yet")),
    }
}

/// A column's default. MariaDB spells it as SQL (`'a'`, `NULL`, `current_timestamp()`), MySQL as bare text with `DEFAULT_GENERATED` in the
/// extra for expressions (MariaDB Knowledge Base, "Information Schema COLUMNS Table"; MySQL manual, the same).
pub(super) fn column_default(text: Option<&str>, extra: &str, logical: &LogicalType, is_mariadb: bool) -> Option<DefaultValue> {
    let text = text?;
    if let Some(digits) = now_digits(text)
        && matches!(logical, LogicalType::DateTime(_) | LogicalType::Timestamp(_))
    {
        return Some(DefaultValue::Now(digits));
    }
    if !is_mariadb {
        if extra.contains("default_generated") {
            return Some(DefaultValue::Expression(text.to_owned()));
        }
        return Some(match bit_literal(text) {
            Some(bits) => DefaultValue::Literal(bits),
            None => DefaultValue::Literal(text.to_owned()),
        });
    }
    if text.eq_ignore_ascii_case("null") {
        return None;
    }
    if let Some(inner) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Some(DefaultValue::Literal(unescape(inner)));
    }
    if let Some(bits) = bit_literal(text) {
        return Some(DefaultValue::Literal(bits));
    }
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
    if is_number && text.bytes().any(|b| b.is_ascii_digit()) {
        return Some(DefaultValue::Literal(text.to_owned()));
    }
    Some(DefaultValue::Expression(text.to_owned()))
}

/// `b'101'` as its digits.
fn bit_literal(text: &str) -> Option<String> {
    let digits = text.strip_prefix("b'").or_else(|| text.strip_prefix("B'"))?.strip_suffix('\'')?;
    digits.bytes().all(|b| matches!(b, b'0' | b'1')).then(|| digits.to_owned())
}

/// The digits of a second of `CURRENT_TIMESTAMP(n)` and its synonyms.
fn now_digits(text: &str) -> Option<u8> {
    let lower = text.to_ascii_lowercase();
    let rest =
        lower.strip_prefix("current_timestamp").or_else(|| lower.strip_prefix("now")).or_else(|| lower.strip_prefix("localtimestamp"))?;
    match rest.strip_prefix('(').map(|rest| rest.strip_suffix(')')) {
        None if rest.is_empty() => Some(0),
        Some(Some("")) => Some(0),
        Some(Some(digits)) => digits.trim().parse().ok(),
        _ => None,
    }
}

/// The numbers in the type's first parentheses: `decimal(10,2) unsigned` gives 10 and 2.
fn numbers(full: &str) -> Vec<u32> {
    let inside = full.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
    inside.split(',').filter_map(|part| part.trim().parse().ok()).collect()
}

/// The labels of `enum('a','it''s')`.
fn labels(full: &str) -> Vec<String> {
    let inside = full.split_once('(').map_or("", |(_, rest)| rest);
    let mut labels = Vec::new();
    let mut chars = inside.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\'' {
            continue;
        }
        let mut raw = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.peek() == Some(&'\'') => {
                    chars.next();
                    raw.push_str("''");
                }
                '\'' => break,
                '\\' => {
                    raw.push('\\');
                    raw.extend(chars.next());
                }
                other => raw.push(other),
            }
        }
        labels.push(unescape(&raw));
    }
    labels
}

/// Undoes the escapes of a quoted literal as the server prints it.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => {
                chars.next();
                plain.push('\'');
            }
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some('r') => plain.push('\r'),
                Some('t') => plain.push('\t'),
                Some('0') => plain.push('\0'),
                Some('Z') => plain.push('\u{1a}'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_with_their_lengths_and_signs() {
        let read = |name: &str, full: &str| logical_type(name, full, Some("utf8mb4"));
        assert_eq!(read("bigint", "bigint(20) unsigned"), LogicalType::Int { bits: 64, unsigned: true });
        assert_eq!(read("decimal", "decimal(65,30)"), LogicalType::Decimal { precision: 65, scale: 30 });
        assert_eq!(read("timestamp", "timestamp(3)"), LogicalType::Timestamp(3));
        assert_eq!(read("datetime", "datetime"), LogicalType::DateTime(0));
        assert_eq!(read("bit", "bit(13)"), LogicalType::Bit(13));
        assert_eq!(read("geometry", "geometry"), LogicalType::Spatial { shape: "geometry".into() });
        assert_eq!(read("inet6", "inet6"), LogicalType::Inet);
        assert_eq!(read("varchar", "varchar(1000) /*M!100301 COMPRESSED*/"), LogicalType::Varchar(1000));
        assert!(matches!(read("vector", "vector(3)"), LogicalType::Unsupported(_)));
    }

    #[test]
    fn labels_keep_quotes_commas_and_backslashes() {
        let labels = labels(r"enum('it''s','a,b','','back\\slash','x(y)')");
        assert_eq!(labels, ["it's", "a,b", "", r"back\slash", "x(y)"]);
    }

    #[test]
    fn mariadb_spells_defaults_as_sql() {
        let read = |text: &str| column_default(Some(text), "", &LogicalType::Text, true);
        assert_eq!(read("'it''s'"), Some(DefaultValue::Literal("it's".into())));
        assert_eq!(read("NULL"), None);
        assert_eq!(read("'NULL'"), Some(DefaultValue::Literal("NULL".into())));
        assert_eq!(read("b'101'"), Some(DefaultValue::Literal("101".into())));
        assert_eq!(read("-1.5"), Some(DefaultValue::Literal("-1.5".into())));
        assert_eq!(read("uuid()"), Some(DefaultValue::Expression("uuid()".into())));
        let now = column_default(Some("current_timestamp(6)"), "", &LogicalType::DateTime(6), true);
        assert_eq!(now, Some(DefaultValue::Now(6)));
    }

    #[test]
    fn mysql_spells_defaults_as_bare_text() {
        let read = |text: &str, extra: &str| column_default(Some(text), extra, &LogicalType::Text, false);
        assert_eq!(read("NULL", ""), Some(DefaultValue::Literal("NULL".into())));
        assert_eq!(read("uuid()", "default_generated"), Some(DefaultValue::Expression("uuid()".into())));
        let now = column_default(Some("CURRENT_TIMESTAMP"), "default_generated", &LogicalType::Timestamp(0), false);
        assert_eq!(now, Some(DefaultValue::Now(0)));
    }
}
