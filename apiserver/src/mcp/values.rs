//! Values as tools compare them, and as they stand in conditions.

use std::fmt::Write as _;

use millrace_core::connection::Engine;
use serde_json::Value;

/// Whether two values are the same, whichever engine they come from.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    if left == right {
        return true;
    }
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::String(left), Value::String(right)) => {
            matches!((plain(left), plain(right)), (Some(left), Some(right)) if left == right)
                || matches!((document(left), document(right)), (Some(left), Some(right)) if left == right)
        }
        _ => key_text(left) == key_text(right),
    }
}

/// A value as text that is the same for values that are the same.
pub(super) fn key_text(value: &Value) -> String {
    match value {
        Value::Bool(value) => u8::from(*value).to_string(),
        Value::Number(number) => plain(&number.to_string()).unwrap_or_else(|| number.to_string()),
        Value::String(text) => plain(text).unwrap_or_else(|| text.clone()),
        other => other.to_string(),
    }
}

/// A decimal number without zeros that say nothing; none for other texts.
fn plain(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    // Texts such as `007` are no numbers: they differ from `7`.
    let is_number =
        !whole.is_empty() && is_digits(whole) && is_digits(fraction) && (whole == "0" || !whole.starts_with('0')) && !digits.ends_with('.');
    if !is_number {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let is_zero = whole == "0" && fraction.is_empty();
    let sign = if is_zero { "" } else { sign };
    Some(if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// A JSON object or array.
fn document(text: &str) -> Option<Value> {
    let is_document = text.starts_with(['{', '[']);
    is_document.then(|| serde_json::from_str(text).ok()).flatten()
}

/// A name in an engine's quotes.
pub(super) fn quoted(engine: Engine, name: &str) -> String {
    match engine {
        Engine::MySql => format!("`{}`", name.replace('`', "``")),
        _ => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// A value that is not NULL as a literal for a column of the type `kind`; it was read from a column of the type `from`.
///
/// PostgreSQL gives a text literal the type of the column that it is compared with. MySQL gets texts as hexadecimal digits, which no setting of its quotes changes.
pub(super) fn literal(engine: Engine, value: &Value, kind: &str, from: &str) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if engine != Engine::MySql {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let kind = kind.to_ascii_lowercase();
    let is_bytes = kind.contains("binary") || kind.contains("blob");
    match value {
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => u8::from(*value).to_string(),
        _ if is_bytes && text.starts_with("\\x") && text[2..].bytes().all(|byte| byte.is_ascii_hexdigit()) => format!("X'{}'", &text[2..]),
        _ if kind == "bit" && text.bytes().all(|byte| matches!(byte, b'0' | b'1')) => format!("b'{text}'"),
        _ => {
            let is_moment = kind.starts_with("timestamp") || from.to_ascii_lowercase().starts_with("timestamp");
            let text = if is_moment { text.strip_suffix("+00").unwrap_or(&text) } else { &text };
            let mut digits = String::with_capacity(text.len() * 2);
            for byte in text.bytes() {
                let _ = write!(digits, "{byte:02x}");
            }
            format!("_utf8mb4 X'{digits}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_two_engines_are_the_same_by_what_they_mean() {
        for (left, right) in [
            (json!(1), json!(true)),
            (json!(1.5), json!("1.50")),
            (json!("12345678901234567890.10"), json!("12345678901234567890.1")),
            (json!("{\"a\": 1, \"b\": [2]}"), json!("{\"b\":[2],\"a\":1}")),
            (json!(null), json!(null)),
            (json!("-0"), json!(0)),
        ] {
            assert!(same(&left, &right) && same(&right, &left), "{left} {right}");
        }
        for (left, right) in [
            (json!(null), json!("")),
            (json!(null), json!(0)),
            (json!("007"), json!("7")),
            (json!("a"), json!("A")),
            (json!("a "), json!("a")),
            (json!("1e5"), json!("100000")),
            (json!("{\"a\":1}"), json!("{\"a\":2}")),
        ] {
            assert!(!same(&left, &right), "{left} {right}");
        }
    }

    #[test]
    fn literals_cannot_leave_their_quotes() {
        assert_eq!(literal(Engine::PostgreSql, &json!("o'Brien\\"), "text", "text"), "'o''Brien\\'");
        assert_eq!(literal(Engine::MySql, &json!("a'\\"), "varchar", "text"), "_utf8mb4 X'61275c'");
        assert_eq!(literal(Engine::MySql, &json!("\\x00ff"), "varbinary", "bytea"), "X'00ff'");
        assert_eq!(literal(Engine::MySql, &json!(7), "int", "integer"), "7");
        assert_eq!(
            literal(Engine::MySql, &json!("2024-01-01 00:00:00+00"), "timestamp", "timestamptz"),
            format!("_utf8mb4 X'{}'", "323032342d30312d30312030303a30303a3030")
        );
        assert_eq!(quoted(Engine::MySql, "a`b"), "`a``b`");
        assert_eq!(quoted(Engine::PostgreSql, "a\"b"), "\"a\"\"b\"");
    }
}
