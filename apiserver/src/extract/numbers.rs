//! Numbers of requests that would lose digits before anybody sees them: a JSON number with a fraction becomes a double, as in most readers (RFC 8259, section 6).

use std::collections::BTreeMap;

use millrace_core::json_rows::is_exact_double;
use serde_json::value::RawValue;

use crate::errors::{ApiError, ApiResult};

/// Refuses a document with a number that this server cannot hold exactly.
///
/// # Errors
/// [`crate::errors::Code::ValidationFailed`] with the number's field.
pub(super) fn check(json: &[u8]) -> ApiResult<()> {
    let Some(number) = inexact(json) else { return Ok(()) };
    let path = std::str::from_utf8(json).ok().and_then(|text| path_of(text.trim(), String::new())).unwrap_or_default();
    let text = format!("the number `{number}` has more digits than a JSON number can carry; send it as a string");
    Err(ApiError::invalid(path, text))
}

/// The first such number of a valid document.
fn inexact(json: &[u8]) -> Option<&str> {
    let mut at = 0;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = behind_string(json, at),
            b'-' | b'0'..=b'9' => {
                let end = json[at..].iter().position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
                let end = end.map_or(json.len(), |length| at + length);
                let number = std::str::from_utf8(&json[at..end]).unwrap_or_default();
                if !is_exact(number) {
                    return Some(number);
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    None
}

fn behind_string(json: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn is_exact(number: &str) -> bool {
    number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() || is_exact_double(number)
}

/// Where it stands, as errors write paths: `edits[0].changes.amount`.
fn path_of(json: &str, path: String) -> Option<String> {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match json.as_bytes().first()? {
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            fields.iter().find_map(|(name, value)| path_of(value.get(), below(name)))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            items.iter().enumerate().find_map(|(index, value)| path_of(value.get(), format!("{path}[{index}]")))
        }
        b'-' | b'0'..=b'9' => (!is_exact(json)).then_some(path),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{check, inexact};

    #[test]
    fn numbers_that_lose_digits_are_found_and_others_pass() {
        for exact in [
            "0",
            "-0",
            "-0.0",
            "0.1",
            "1.10",
            "1e3",
            "1E-7",
            "9007199254740993",
            "-9223372036854775808",
            "18446744073709551615",
            "123456.789",
            "\"1234567890123.4567891\"",
            "\"a\\\"1234567890123.4567891\"",
            "\"\\\\\"",
            "1.7976931348623157e308",
        ] {
            assert_eq!(inexact(format!("{{\"a\": [{exact}]}}").as_bytes()), None, "{exact}");
        }
        for lossy in ["1234567890123.4567891", "18446744073709551617", "0.1000000000000000055511151231257827", "-9223372036854775809.5"] {
            assert_eq!(inexact(format!("[\"\\\"\",{lossy}]").as_bytes()), Some(lossy));
        }
    }

    #[test]
    fn the_field_is_named() {
        let error = check(br#"{"edits": [{"keys": {"id": 1}, "changes": {"amount": 1234567890123.4567891}}]}"#).unwrap_err();
        assert_eq!(error.field(), Some("edits[0].changes.amount"));
    }
}
