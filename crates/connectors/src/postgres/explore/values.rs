//! Values of requests as the text that the server's own input functions read.

use serde_json::Value;

use super::table::Field;

/// A value's text for a column, none for NULL.
///
/// Errors: what is wrong with it, in words.
pub(super) fn text(value: &Value, field: &Field) -> Result<Option<String>, String> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => match number.as_f64() {
            // `1.0` is how some writers spell the integer 1.
            Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() < 1e15 => format!("{double:.0}"),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) if field.is_json() => value.to_string(),
        Value::Array(_) if field.is_array => return Err("arrays are written as the server writes them: `{1,2}`".to_owned()),
        Value::Array(_) | Value::Object(_) => return Err(format!("the type `{}` holds no JSON arrays or objects", field.native_type)),
    };
    if text.contains('\0') {
        return Err("PostgreSQL holds no NUL characters".to_owned());
    }
    too_long(&text, field).map_or(Ok(Some(text)), Err)
}

/// Assignments of too long texts fail, but for spaces at the end (manual, "Character Types" and "Bit String Types").
fn too_long(text: &str, field: &Field) -> Option<String> {
    let length = usize::try_from(field.length?).ok()?;
    let is_wrong = match field.base_oid {
        // bpchar, varchar
        1042 | 1043 => text.trim_end_matches(' ').chars().count() > length,
        // bit, varbit
        1560 if text.bytes().all(|byte| matches!(byte, b'0' | b'1')) => text.len() != length,
        1562 if text.bytes().all(|byte| matches!(byte, b'0' | b'1')) => text.len() > length,
        _ => false,
    };
    is_wrong.then(|| format!("the value does not fit `{}`", field.native_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(native_type: &str, base_oid: u32, length: Option<i32>) -> Field {
        Field { native_type: native_type.to_owned(), base_oid, length, ..Field::default() }
    }

    #[test]
    fn every_json_value_has_a_text_or_a_reason() {
        let integer = field("integer", 23, None);
        let cases = [(json!(1.0), "1"), (json!(-7), "-7"), (json!("9223372036854775807"), "9223372036854775807"), (json!(true), "true")];
        for (value, expected) in cases {
            assert_eq!(text(&value, &integer).unwrap().as_deref(), Some(expected));
        }
        assert_eq!(text(&json!(null), &integer), Ok(None));
        assert_eq!(text(&json!({"a": [1]}), &field("jsonb", 3802, None)), Ok(Some("{\"a\":[1]}".to_owned())));
        assert!(text(&json!({"a": 1}), &integer).is_err());
        assert!(text(&json!("a\0b"), &field("text", 25, None)).is_err());
    }

    #[test]
    fn texts_that_an_assignment_would_refuse_are_refused_here() {
        let short = field("character varying(3)", 1043, Some(3));
        assert!(text(&json!("äöü  "), &short).is_ok());
        assert!(text(&json!("äöüx"), &short).is_err());
        assert!(text(&json!("101"), &field("bit(4)", 1560, Some(4))).is_err());
        assert!(text(&json!("101"), &field("bit varying(4)", 1562, Some(4))).is_ok());
    }
}
