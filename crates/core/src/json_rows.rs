//! Rows as JSON text: the one form that values have on the wire, whatever the engine (`docs/values.md`).
//!
//! | value | JSON |
//! |---|---|
//! | integers, decimals, floats | a number where a double carries it exactly, else a string with all digits; `NaN`, `Infinity`, `-Infinity` as strings |
//! | booleans | `true`, `false` |
//! | text, JSON documents, ranges, arrays, … | a string, as the engine writes it |
//! | bytes | a string: `\x` and hexadecimal digits |
//! | bits | a string of `0` and `1` |
//! | dates and times | a string: `2024-02-29`, `2024-02-29 12:00:00.5`, with `+00` for moments in UTC; `-838:59:59` |
//! | spatial values | a string: extended well-known binary in hexadecimal digits, as PostGIS writes it |

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::value::{MICROS_PER_DAY, RowEncoder, ValueError, ValueRef, civil_from_days};

/// The largest whole number up to which doubles are exact.
const EXACT_INT: u64 = 1 << 53;

/// So much is collected before it is passed on, bytes.
const FULL: usize = 64 << 10;

/// What happens to numbers that a double cannot carry exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Numbers {
    /// They become strings, so that no reader loses digits.
    #[default]
    StringIfInexact,
    /// They stay numbers with all digits, for readers that keep them.
    Exact,
}

/// Collects rows as JSON arrays, separated by commas.
#[derive(Debug, Default)]
pub struct JsonRows {
    text: String,
    numbers: Numbers,
    /// Of each column, how many bits it holds.
    bits: Vec<Option<u16>>,
    row_start: usize,
    count: u64,
    etags: Option<Vec<String>>,
    most_bytes: Option<usize>,
}

impl JsonRows {
    /// An empty collection.
    pub fn new(numbers: Numbers) -> Self {
        Self { numbers, ..Self::default() }
    }

    /// Keeps an etag of every row.
    #[must_use]
    pub fn with_etags(mut self) -> Self {
        self.etags = Some(Vec::new());
        self
    }

    /// Lets [`JsonRows::check_size`] fail when more than so many bytes are held.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.most_bytes = Some(bytes);
        self
    }

    /// Asked after every row by those who collect all rows of a page before they pass any on.
    ///
    /// # Errors
    /// [`Kind::ServerExhausted`] when more is held than was allowed.
    pub fn check_size(&self) -> Result<()> {
        match self.most_bytes {
            Some(most) if self.text.len() > most => {
                let text = format!(
                    "{} rows have more than {} MiB; ask for fewer rows, or for fewer columns by a statement",
                    self.count,
                    most >> 20
                );
                Err(Error::new(Kind::ServerExhausted, text).with("field", "limit"))
            }
            _ => Ok(()),
        }
    }

    /// A result with these columns begins; what was collected stays.
    pub fn begin_result(&mut self, columns: &[crate::explore::ResultColumn]) {
        self.bits = columns.iter().map(|column| column.bits).collect();
        self.count = 0;
    }

    /// Rows of this result.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Takes what was collected: arrays separated by commas; a comma comes first if rows of the same result were taken before.
    pub fn take(&mut self) -> String {
        self.row_start = 0;
        std::mem::take(&mut self.text)
    }

    /// Takes the etags of all rows, in order.
    pub fn take_etags(&mut self) -> Vec<String> {
        self.etags.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Adds a number by its text: digits, perhaps with `-`, `.` and `e`; anything else (`NaN`) becomes a string.
    fn number(&mut self, text: &str) {
        let is_exact = match self.numbers {
            Numbers::Exact => true,
            Numbers::StringIfInexact => is_exact_double(text),
        };
        match json_number(text).filter(|_| is_exact) {
            Some(number) => self.text.push_str(&number),
            None => self.string(text),
        }
    }

    /// Adds a text.
    fn string(&mut self, text: &str) {
        self.text.push('"');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
            self.text.push_str(&rest[..at]);
            match rest.as_bytes()[at] {
                b'"' => self.text.push_str("\\\""),
                b'\\' => self.text.push_str("\\\\"),
                b'\n' => self.text.push_str("\\n"),
                b'\r' => self.text.push_str("\\r"),
                b'\t' => self.text.push_str("\\t"),
                byte => _ = write!(self.text, "\\u{byte:04x}"),
            }
            rest = &rest[at + 1..];
        }
        self.text.push_str(rest);
        self.text.push('"');
    }

    fn hex(&mut self, prefix: &str, bytes: &[u8]) {
        self.text.push('"');
        self.text.push_str(prefix);
        push_hex(&mut self.text, bytes, false);
        self.text.push('"');
    }
}

/// The value's text as it stands in JSON strings and cursors, without quotes; none for NULL.
pub fn value_text(value: ValueRef<'_>, bits: Option<u16>) -> Option<String> {
    let mut text = String::new();
    match value {
        ValueRef::Null => return None,
        ValueRef::Bool(value) => _ = write!(text, "{value}"),
        ValueRef::Int(value) => _ = write!(text, "{value}"),
        ValueRef::UInt(value) => _ = write!(text, "{value}"),
        ValueRef::Float32(value) => text = float_text(&value.to_string()),
        ValueRef::Float64(value) => text = float_text(&value.to_string()),
        ValueRef::Decimal(value) | ValueRef::Text(value) | ValueRef::Labels(value) | ValueRef::Json(value) => text.push_str(value),
        ValueRef::Bytes(bytes) | ValueRef::BadText(bytes) => {
            text.push_str("\\x");
            push_hex(&mut text, bytes, false);
        }
        ValueRef::Bits(bytes) => {
            let all: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
            text.push_str(&all[all.len().saturating_sub(usize::from(bits.unwrap_or(u16::MAX)))..]);
        }
        ValueRef::Date(days) => push_date(&mut text, days),
        ValueRef::DateTime(micros) => push_moment(&mut text, micros),
        ValueRef::Timestamp(micros) => {
            push_moment(&mut text, micros);
            text.push_str("+00");
        }
        ValueRef::Time(micros) => {
            if micros < 0 {
                text.push('-');
            }
            push_time(&mut text, micros.unsigned_abs());
        }
        ValueRef::Uuid(bytes) => {
            push_hex(&mut text, &bytes, false);
            for at in [8, 13, 18, 23] {
                text.insert(at, '-');
            }
        }
        ValueRef::Spatial { srid, wkb } => push_ewkb(&mut text, srid, wkb),
        ValueRef::Odd(odd) => _ = write!(text, "{odd}"),
    }
    Some(text)
}

impl RowEncoder for JsonRows {
    fn begin_row(&mut self) {
        self.row_start = self.text.len();
        if self.count > 0 {
            self.text.push(',');
        }
        self.text.push('[');
    }

    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        if column > 0 {
            self.text.push(',');
        }
        match value {
            ValueRef::Null => self.text.push_str("null"),
            ValueRef::Bool(value) => self.text.push_str(if value { "true" } else { "false" }),
            ValueRef::Int(number) if number.unsigned_abs() <= EXACT_INT => _ = write!(self.text, "{number}"),
            ValueRef::UInt(number) if number <= EXACT_INT => _ = write!(self.text, "{number}"),
            ValueRef::Int(_) | ValueRef::UInt(_) => self.number(&value_text(value, None).unwrap_or_default()),
            // The shortest text that reads back as the same double, or as the same single.
            ValueRef::Float32(number) if number.is_finite() => self.number(&number.to_string()),
            ValueRef::Float64(number) if number.is_finite() => self.number(&number.to_string()),
            ValueRef::Decimal(digits) => self.number(digits),
            ValueRef::Text(text) | ValueRef::Labels(text) | ValueRef::Json(text) => self.string(text),
            ValueRef::Bytes(bytes) | ValueRef::BadText(bytes) => self.hex("\\\\x", bytes),
            other => {
                let text = value_text(other, self.bits.get(column).copied().flatten()).unwrap_or_default();
                self.string(&text);
            }
        }
        Ok(())
    }

    fn end_row(&mut self) {
        self.text.push(']');
        self.count += 1;
        if let Some(etags) = &mut self.etags {
            let row = self.text[self.row_start..].trim_start_matches(',');
            etags.push(etag(row));
        }
    }

    fn abandon_row(&mut self) {
        self.text.truncate(self.row_start);
    }

    fn is_full(&self) -> bool {
        self.text.len() >= FULL
    }
}

/// What a row is known by: the start of its JSON text's SHA-256.
fn etag(row: &str) -> String {
    let mut text = String::with_capacity(24);
    push_hex(&mut text, &Sha256::digest(row.as_bytes())[..12], false);
    text
}

/// Whether a double carries the number exactly, so that reading and writing it gives the same number.
pub fn is_exact_double(text: &str) -> bool {
    let Ok(double) = text.parse::<f64>() else { return false };
    double.is_finite() && same_digits(&double.to_string(), text)
}

/// Whether two decimal texts are the same number, apart from zeros at the end of the fraction and the way of writing it.
fn same_digits(a: &str, b: &str) -> bool {
    fn parts(text: &str) -> Option<(bool, String, i64)> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
        let trailing = all.len() - all.trim_end_matches('0').len();
        if digits.is_empty() {
            return Some((false, digits, 0));
        }
        Some((negative, digits, exponent - fraction.len() as i64 + trailing as i64))
    }
    parts(a).is_some_and(|a| Some(a) == parts(b))
}

/// A number as JSON writes it; none for what is no number.
fn json_number(text: &str) -> Option<String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let starts_well = digits.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let is_plain = starts_well && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = is_plain && (digits == "0" || !digits.starts_with('0'));
    if is_short {
        return Some(text.to_owned());
    }
    // Leading zeros, a bare point and the like are rare; whoever knows the grammar decides.
    let text = if starts_well { text.to_owned() } else { text.replacen('.', "0.", usize::from(digits.starts_with('.'))) };
    serde_json::from_str::<serde_json::Number>(&text).ok().map(|_| text)
}

fn float_text(text: &str) -> String {
    match text {
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        other => other.to_owned(),
    }
}

fn push_hex(text: &mut String, bytes: &[u8], upper: bool) {
    let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    text.reserve(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(digits[usize::from(byte >> 4)]));
        text.push(char::from(digits[usize::from(byte & 15)]));
    }
}

fn push_date(text: &mut String, days: i32) {
    let (year, month, day) = civil_from_days(days);
    let _ = match year {
        1.. => write!(text, "{year:04}-{month:02}-{day:02}"),
        _ => write!(text, "{:04}-{month:02}-{day:02} BC", 1 - year),
    };
}

fn push_moment(text: &mut String, micros: i64) {
    push_date(text, micros.div_euclid(MICROS_PER_DAY) as i32);
    text.push(' ');
    push_time(text, micros.rem_euclid(MICROS_PER_DAY).unsigned_abs());
}

fn push_time(text: &mut String, micros: u64) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let _ = write!(text, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        let _ = write!(text, ".{fraction:06}");
        text.truncate(text.trim_end_matches('0').len());
    }
}

/// Extended well-known binary: the reference system's number stands behind the type, whose bit 0x20000000 says so.
fn push_ewkb(text: &mut String, srid: u32, wkb: &[u8]) {
    let mut ewkb = wkb.to_vec();
    if srid != 0 && wkb.len() >= 5 {
        let is_little = wkb[0] == 1;
        // The byte of the type's highest bits.
        let flag = if is_little { 4 } else { 1 };
        ewkb[flag] |= 0x20;
        let srid = if is_little { srid.to_le_bytes() } else { srid.to_be_bytes() };
        ewkb.splice(5..5, srid);
    }
    push_hex(text, &ewkb, true);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::explore::ResultColumn;
    use serde_json::{Value, json};

    fn row(numbers: Numbers, values: &[ValueRef<'_>]) -> Value {
        let mut rows = JsonRows::new(numbers);
        rows.begin_result(&vec![ResultColumn { bits: Some(10), ..ResultColumn::default() }; values.len()]);
        rows.begin_row();
        for (index, value) in values.iter().enumerate() {
            rows.value(index, *value).unwrap();
        }
        rows.end_row();
        serde_json::from_str(&rows.take()).unwrap()
    }

    #[test]
    fn numbers_are_numbers_only_where_a_double_carries_them() {
        let values = [
            ValueRef::Int(i64::MAX),
            ValueRef::Int(-9_007_199_254_740_992),
            ValueRef::UInt(u64::MAX),
            ValueRef::Decimal("12.50"),
            ValueRef::Decimal("0.1234567890123456789"),
            ValueRef::Decimal("-0.00"),
            ValueRef::Decimal("100000000000000000000000"),
            ValueRef::Float64(0.1),
            ValueRef::Float32(0.1),
            ValueRef::Float64(f64::NEG_INFINITY),
            ValueRef::Float64(1e300),
        ];
        let expected = json!([
            "9223372036854775807",
            -9_007_199_254_740_992_i64,
            "18446744073709551615",
            12.50,
            "0.1234567890123456789",
            0.0,
            1e23,
            0.1,
            0.1,
            "-Infinity",
            1e300
        ]);
        let found = row(Numbers::StringIfInexact, &values);
        for (found, expected) in found.as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
            assert_eq!(found.as_str(), expected.as_str());
            assert_eq!(found.as_f64(), expected.as_f64());
        }
        let mut rows = JsonRows::new(Numbers::Exact);
        rows.begin_row();
        rows.value(0, ValueRef::Int(i64::MAX)).unwrap();
        rows.value(1, ValueRef::Decimal("0.1234567890123456789")).unwrap();
        rows.end_row();
        assert_eq!(rows.take(), "[9223372036854775807,0.1234567890123456789]");
    }

    #[test]
    fn every_other_value_has_its_documented_text() {
        let values = [
            ValueRef::Null,
            ValueRef::Bool(true),
            ValueRef::Text("a\"\\\n\u{0}😀"),
            ValueRef::Bytes(&[0, 255]),
            ValueRef::Bits(&[0b10, 0b101]),
            ValueRef::Date(0),
            ValueRef::Date(-719_528),
            ValueRef::DateTime(-1),
            ValueRef::Timestamp(500_000),
            ValueRef::Time(-3_020_399_000_000),
            ValueRef::Json("{\"a\": 1.0}"),
            ValueRef::Uuid([0x11; 16]),
            ValueRef::Spatial { srid: 4326, wkb: &[1, 1, 0, 0, 0, 0xAB] },
        ];
        let expected = json!([
            null,
            true,
            "a\"\\\n\u{0}😀",
            "\\x00ff",
            "1000000101",
            "1970-01-01",
            "0001-01-01 BC",
            "1969-12-31 23:59:59.999999",
            "1970-01-01 00:00:00.5+00",
            "-838:59:59",
            "{\"a\": 1.0}",
            "11111111-1111-1111-1111-111111111111",
            "0101000020E6100000AB"
        ]);
        assert_eq!(row(Numbers::default(), &values), expected);
    }

    #[test]
    fn rows_are_separated_and_a_taken_part_goes_on_where_it_ended() {
        let mut rows = JsonRows::new(Numbers::default()).with_etags();
        let add = |rows: &mut JsonRows, value| {
            rows.begin_row();
            rows.value(0, ValueRef::Int(value)).unwrap();
            rows.end_row();
        };
        add(&mut rows, 1);
        let first = rows.take();
        add(&mut rows, 2);
        rows.begin_row();
        rows.value(0, ValueRef::Int(9)).unwrap();
        rows.abandon_row();
        add(&mut rows, 1);
        assert_eq!(format!("{first}{}", rows.take()), "[1],[2],[1]");
        let etags = rows.take_etags();
        assert_eq!(etags[0], etags[2], "a row's place does not count");
        assert_ne!(etags[0], etags[1]);
        assert_eq!(rows.count(), 3);
    }
}
