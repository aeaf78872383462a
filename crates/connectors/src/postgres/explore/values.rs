//! Values of requests as the text that the server's own input functions read.

use serde_json::Value;

use super::table::Field;
use crate::numbers::whole;

// Numbers of types (`src/include/catalog/pg_type.dat`).
const CHAR: u32 = 18;
const NAME: u32 = 19;
const MONEY: u32 = 790;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const INTERVAL: u32 = 1186;
const TIMETZ: u32 = 1266;
const NUMERIC: u32 = 1700;

/// A value's text for a column, none for NULL.
///
/// Errors: what is wrong with it, in words.
pub(super) fn text(value: &Value, field: &Field) -> Result<Option<String>, String> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => {
            let text = number.to_string();
            // `1.0` is how some writers spell the integer 1.
            whole(&text).unwrap_or(text)
        }
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) if field.is_json() => value.to_string(),
        Value::Array(_) if field.is_array => return Err("arrays are written as the server writes them: `{1,2}`".to_owned()),
        Value::Array(_) | Value::Object(_) => return Err(format!("the type `{}` holds no JSON arrays or objects", field.native_type)),
    };
    if text.contains('\0') {
        return Err("PostgreSQL holds no NUL characters".to_owned());
    }
    too_long(&text, field).or_else(|| too_fine(&text, field)).map_or(Ok(Some(text)), Err)
}

/// Times are kept in microseconds, and those of day without a day; the server rounds and cuts without a word, in whatever it is compared with, too.
fn too_fine(text: &str, field: &Field) -> Option<String> {
    let is_time = matches!(field.element_oid, TIME | TIMESTAMP | TIMESTAMPTZ | TIMETZ | INTERVAL);
    let fractions = text.split('.').skip(1).map(|part| part.len() - part.trim_start_matches(|digit: char| digit.is_ascii_digit()).len());
    let is_finer = |(part, length): (&str, usize)| part[..length].trim_end_matches('0').len() > 6;
    if is_time && text.split('.').skip(1).zip(fractions).any(is_finer) {
        return Some(format!("the value does not fit `{}`: times are kept in microseconds", field.base_type));
    }
    let before = text.split(':').next().unwrap_or_default();
    let numbers = before.split(|other: char| !other.is_ascii_digit()).filter(|number| !number.is_empty()).count();
    let has_date = field.element_oid == TIME && !field.is_array && before.len() < text.len() && numbers > 1;
    has_date.then(|| format!("the value does not fit `{}`: it has a date", field.base_type))
}

/// Comparisons by which the server tells whether it keeps a value of a column as it is written: the casts of their two sides. In a key nothing is rounded to the
/// column's digits.
pub(super) fn exactness(field: &Field, text: &str, is_key: bool) -> Vec<[String; 2]> {
    let array = if field.is_array { "[]" } else { "" };
    let casts = |names: &[&str]| names.iter().map(|name| format!("::{name}{array}")).collect::<String>();
    let (name, wider) = match field.element_oid {
        NUMERIC => ("numeric", None),
        TIMESTAMPTZ => ("timestamptz", None),
        TIMETZ => ("timetz", None),
        INTERVAL => ("interval", None),
        // A time of day, an offset.
        DATE => ("date", Some("timestamptz")),
        TIMESTAMP => ("timestamp", Some("timestamptz")),
        TIME => ("time", Some("timetz")),
        MONEY => ("money", Some("numeric")),
        CHAR => ("\"char\"", Some("text")),
        NAME => ("name", Some("text")),
        _ => return Vec::new(),
    };
    // `now`, `infinity`
    if !matches!(field.element_oid, CHAR | NAME) && !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    let mut comparisons = Vec::new();
    if field.has_modifier && !is_key {
        comparisons.push([format!("::{}", field.base_type), casts(&[name])]);
    }
    comparisons.extend(wider.map(|wider| [casts(&[name, wider]), casts(&[wider])]));
    comparisons
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
        let base_type = native_type.to_owned();
        Field { native_type: native_type.to_owned(), base_oid, element_oid: base_oid, base_type, length, ..Field::default() }
    }

    #[test]
    fn every_json_value_has_a_text_or_a_reason() {
        let integer = field("integer", 23, None);
        let cases = [(json!(1.0), "1"), (json!(-7), "-7"), (json!("9223372036854775807"), "9223372036854775807"), (json!(true), "true")];
        for (value, expected) in cases {
            assert_eq!(text(&value, &integer).unwrap().as_deref(), Some(expected));
        }
        let digits: Value = serde_json::from_str("[1e3, -0.99999999999999999999]").unwrap();
        assert_eq!(text(&digits[0], &integer).unwrap().as_deref(), Some("1000"));
        assert_eq!(text(&json!(null), &integer), Ok(None));
        assert_eq!(text(&json!({"a": [1]}), &field("jsonb", 3802, None)), Ok(Some("{\"a\":[1]}".to_owned())));
        assert!(text(&json!({"a": 1}), &integer).is_err());
        assert!(text(&json!("a\0b"), &field("text", 25, None)).is_err());
    }

    #[test]
    fn times_keep_microseconds_and_no_day() {
        let moment = field("timestamp without time zone", TIMESTAMP, None);
        assert!(text(&json!("2024-01-01 12:00:00.1234560Z"), &moment).is_ok());
        assert!(text(&json!("2024-01-01 12:00:00.1234561"), &moment).is_err());
        assert!(text(&json!("01.02.2024 12:00"), &moment).is_ok());
        let time = field("time without time zone", TIME, None);
        for right in ["12:00", "T12:00:00.5", "12:00:00 PM", "120000.5"] {
            assert!(text(&json!(right), &time).is_ok(), "{right}");
        }
        for wrong in ["2024-01-01 12:00", "2024-01-01T12:00", "Jan 1 12:00"] {
            assert!(text(&json!(wrong), &time).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_server_is_asked_where_it_would_round_or_cut() {
        let mut price = field("numeric(10,2)", NUMERIC, None);
        assert!(exactness(&price, "1", false).is_empty());
        price.has_modifier = true;
        assert_eq!(exactness(&price, "1", false), [["::numeric(10,2)".to_owned(), "::numeric".to_owned()]]);
        assert!(exactness(&price, "1", true).is_empty() && exactness(&price, "NaN", false).is_empty());
        let days = Field { is_array: true, ..field("date[]", DATE, None) };
        assert_eq!(exactness(&days, "{2024-01-01}", true), [["::date[]::timestamptz[]".to_owned(), "::timestamptz[]".to_owned()]]);
        assert!(exactness(&field("text", 25, None), "1", false).is_empty());
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
