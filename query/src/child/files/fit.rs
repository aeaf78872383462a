//! Whether a column's type keeps a value whole.
//!
//! The engine's casts round, cut and shift without a word: `1.5` becomes the BIGINT 2, a DATE loses its hours, a TIMESTAMP its offset. Here the text of a value is held
//! against its type before anything is cast. Whether the text is of the type at all, the cast itself says.

use serde_json::Value;

/// A type as far as values can lose something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// A type without parts, as the engine spells it.
    Plain(String),
    List(Box<Shape>),
    Struct(Vec<(String, Shape)>),
    /// Keys and values.
    Map(Box<(Shape, Shape)>),
}

impl Shape {
    /// The shape of a type as the engine spells it: `BIGINT`, `DECIMAL(10,2)[]`, `STRUCT("a b" DATE, c MAP(VARCHAR, INTEGER))`.
    pub(super) fn of(kind: &str) -> Self {
        let kind = kind.trim();
        if let Some(item) = kind.strip_suffix(']').and_then(|rest| rest.rfind('[').map(|start| &rest[..start])) {
            return Self::List(Box::new(Self::of(item)));
        }
        let inside = |word: &str| kind.strip_prefix(word)?.strip_prefix('(')?.strip_suffix(')');
        if let Some(members) = inside("STRUCT") {
            return Self::Struct(parts(members).into_iter().map(member).collect());
        }
        if let Some([key, value]) = inside("MAP").map(parts).as_deref() {
            return Self::Map(Box::new((Self::of(key), Self::of(value))));
        }
        Self::Plain(kind.to_owned())
    }

    /// Whether the type keeps a value to its last digit.
    pub(super) fn keeps(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::List(item), Value::Array(values)) => values.iter().all(|value| item.keeps(value)),
            (Self::Struct(members), Value::Object(values)) => values.iter().all(|(name, value)| {
                let member = members.iter().find(|(known, _)| known == name);
                member.is_some_and(|(_, shape)| shape.keeps(value))
            }),
            (Self::Map(parts), Value::Object(values)) => {
                let (key, item) = parts.as_ref();
                values.iter().all(|(name, value)| key.keeps(&Value::from(name.as_str())) && item.keeps(value))
            }
            (Self::Plain(kind), Value::String(text)) => keeps_text(kind, text),
            (Self::Plain(kind), Value::Number(number)) => keeps_text(kind, &number.to_string()),
            // What is of another kind altogether is the cast's business.
            _ => true,
        }
    }
}

/// What stands between the commas of the outermost level.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (place, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&text[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Name and type of a member: `"a b" DATE`, `c INTEGER`.
fn member(text: &str) -> (String, Shape) {
    let text = text.trim();
    let Some(quoted) = text.strip_prefix('"') else {
        let (name, kind) = text.split_once(' ').unwrap_or((text, ""));
        return (name.to_owned(), Shape::of(kind));
    };
    let mut end = 0;
    while let Some(found) = quoted[end..].find('"') {
        end += found + 1;
        // A doubled one stands for itself.
        if !quoted[end..].starts_with('"') {
            break;
        }
        end += 1;
    }
    (quoted[..end.saturating_sub(1)].replace("\"\"", "\""), Shape::of(&quoted[end..]))
}

/// Whether a type without parts keeps a text.
fn keeps_text(kind: &str, text: &str) -> bool {
    let text = text.trim();
    let (name, bounds) = kind.split_once('(').unwrap_or((kind, ""));
    match name {
        "TINYINT" | "SMALLINT" | "INTEGER" | "BIGINT" | "HUGEINT" | "UTINYINT" | "USMALLINT" | "UINTEGER" | "UBIGINT" | "UHUGEINT" => {
            let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        "DECIMAL" => {
            let scale = bounds.trim_end_matches(')').split_once(',').and_then(|(_, scale)| scale.trim().parse().ok()).unwrap_or(0);
            decimals(text).is_some_and(|found| found <= scale)
        }
        // Every decimal text is some float's; but none of them is infinity's.
        "FLOAT" => text.parse::<f32>().is_ok_and(|value| value.is_finite() || has_no_digit(text)),
        "DOUBLE" => text.parse::<f64>().is_ok_and(|value| value.is_finite() || has_no_digit(text)),
        "DATE" => is_nothing(after_date(text)),
        "TIME" => is_time(text) && keeps_time(text, 6, false),
        "TIME WITH TIME ZONE" => keeps_time(text, 6, true),
        "TIME_NS" => is_time(text) && keeps_time(text, 9, false),
        "TIMESTAMP_S" => keeps_time(after_date(text), 0, false),
        "TIMESTAMP_MS" => keeps_time(after_date(text), 3, false),
        "TIMESTAMP" => keeps_time(after_date(text), 6, false),
        "TIMESTAMP WITH TIME ZONE" => keeps_time(after_date(text), 6, true),
        "TIMESTAMP_NS" => keeps_time(after_date(text), 9, false),
        _ => true,
    }
}

fn has_no_digit(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Digits after the point that a decimal text needs; none if it is no such text.
fn decimals(text: &str) -> Option<i64> {
    let (number, exponent) = match text.find(['e', 'E']) {
        Some(place) => (&text[..place], text[place + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let number = number.strip_prefix(['-', '+']).unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    Some((significant.len() as i64 - whole.len() as i64 - i64::from(exponent)).max(0))
}

/// Whether no date stands before a time.
fn is_time(text: &str) -> bool {
    after_date(text).is_empty() && !text.trim_start_matches(['-', '+']).contains('-')
}

/// What follows a date: a time, an offset, or nothing.
fn after_date(text: &str) -> &str {
    text.find([' ', 't', 'T']).map_or("", |place| &text[place + 1..])
}

/// Whether a time is midnight in UTC, or none at all (`(BC)` may follow a date).
fn is_nothing(time: &str) -> bool {
    !time.bytes().any(|byte| byte.is_ascii_digit() && byte != b'0')
}

/// Whether a time has at most so many digits after the point, and no offset that would be lost.
fn keeps_time(time: &str, digits: usize, keeps_offset: bool) -> bool {
    let fraction = time.split_once('.').map_or("", |(_, rest)| rest);
    let fraction = &fraction[..fraction.bytes().take_while(u8::is_ascii_digit).count()];
    let offset = time.find(['+', '-']).map_or("", |place| &time[place..]);
    fraction.trim_end_matches('0').len() <= digits && (keeps_offset || is_nothing(offset))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_type_would_round_cut_or_shift_is_not_kept() {
        for (kind, kept, lost) in [
            ("BIGINT", vec!["1", "-9223372036854775808", "+7", "007"], vec!["1.5", "1e3", "1.0", "", "0x10", "1_000"]),
            ("DECIMAL(10,2)", vec!["12.34", "12.340", "-1", "1e2", "1234e-2", "0.00000"], vec!["12.345", "1e-3", "1.2.3", "1_0.5", "x"]),
            ("DECIMAL(5,0)", vec!["12", "12.0"], vec!["12.5"]),
            ("FLOAT", vec!["0.1", "1e10", "NaN", "-inf"], vec!["1e40", "1_0"]),
            ("DOUBLE", vec!["0.1", "1e300", "infinity"], vec!["1e400"]),
            (
                "DATE",
                vec!["2024-01-05", "2024-01-05 00:00:00", "infinity", "0044-03-15 (BC)"],
                vec!["2024-01-05 23:00", "2024-01-05T00:00:01"],
            ),
            (
                "TIME",
                vec!["10:00:00", "10:00:00.123456", "10:00:00.5000000"],
                vec!["10:00:00.1234567", "10:00:00+02", "2024-01-01 10:00:00"],
            ),
            ("TIME WITH TIME ZONE", vec!["10:00:00.123456+02"], vec!["10:00:00.1234567+02"]),
            (
                "TIMESTAMP",
                vec!["2024-01-05", "2024-01-05 10:00:00.123456", "2024-01-05T10:00:00Z", "-0044-01-05 10:00:00", "infinity"],
                vec!["2024-01-05 10:00:00.1234567", "2024-01-05 10:00:00+02", "2024-01-05T10:00:00-01:30"],
            ),
            ("TIMESTAMP_S", vec!["2024-01-05 10:00:00.000"], vec!["2024-01-05 10:00:00.5"]),
            ("TIMESTAMP_NS", vec!["2024-01-05 10:00:00.123456789"], vec!["2024-01-05 10:00:00.1234567891"]),
            ("TIMESTAMP WITH TIME ZONE", vec!["2024-01-05 10:00:00.5+02"], vec!["2024-01-05 10:00:00.1234567+02"]),
            ("VARCHAR", vec!["", "anything"], vec![]),
        ] {
            for text in kept {
                assert!(Shape::of(kind).keeps(&json!(text)), "{kind}: {text}");
            }
            for text in lost {
                assert!(!Shape::of(kind).keeps(&json!(text)), "{kind}: {text}");
            }
        }
        assert!(!Shape::of("BIGINT").keeps(&json!(1.5)) && Shape::of("BIGINT").keeps(&json!(7)));
    }

    #[test]
    fn parts_of_nested_values_are_looked_at_each_by_its_type() {
        let shape = Shape::of("STRUCT(\"a \"\"b, c\" DECIMAL(10,2), l BIGINT[][2], m MAP(VARCHAR, STRUCT(d DATE)))");
        let Shape::Struct(members) = &shape else { unreachable!("{shape:?}") };
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a \"b, c", "l", "m"]);
        assert!(shape.keeps(&json!({"a \"b, c": "1.25", "l": [[1, "2"], null], "m": {"k": {"d": "2024-01-05"}}})));
        for lost in [json!({"a \"b, c": 1.255}), json!({"l": [[1.5]]}), json!({"m": {"k": {"d": "2024-01-05 10:00"}}}), json!({"new": 1})] {
            assert!(!shape.keeps(&lost), "{lost}");
        }
    }
}
