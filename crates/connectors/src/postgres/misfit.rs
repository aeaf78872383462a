//! Values that need more than a copy of bytes: changes of kind, limits, and what is nearest to a value that does not fit.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};
use millrace_core::value::{MICROS_PER_DAY, OddValue, ValueRef, civil_from_days, days_from_civil, is_civil_date};

use super::encode::{ColumnForm, EPOCH_DAYS, EPOCH_MICROS, Form, put_bits, put_counted, put_fixed, put_integer, put_labels, put_numeric};

/// A value does not fit its column.
pub(super) struct Misfit {
    /// What is wrong with it; never the value of a row that people may not see.
    pub(super) reason: Cow<'static, str>,
    /// What `clamp` makes of it.
    pub(super) nearest: Option<Nearest>,
}

/// The nearest value that fits.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Nearest {
    Int(i64),
    Decimal(String),
    Text(String),
    Json(String),
    Date(i32),
    Moment(i64),
    Time(i64),
    Float(f64),
}

impl Nearest {
    pub(super) fn value(&self) -> ValueRef<'_> {
        match self {
            Self::Int(value) => ValueRef::Int(*value),
            Self::Decimal(text) => ValueRef::Decimal(text),
            Self::Text(text) => ValueRef::Text(text),
            Self::Json(text) => ValueRef::Json(text),
            Self::Date(days) => ValueRef::Date(*days),
            Self::Moment(micros) => ValueRef::DateTime(*micros),
            Self::Time(micros) => ValueRef::Time(*micros),
            Self::Float(value) => ValueRef::Float64(*value),
        }
    }
}

type Put = Result<(), Misfit>;

fn misfit(reason: impl Into<Cow<'static, str>>, nearest: Option<Nearest>) -> Put {
    Err(Misfit { reason: reason.into(), nearest })
}

/// Writes a value into a column, or says why it does not fit. What is written before a misfit is to be taken back.
pub(super) fn put(block: &mut BytesMut, spec: &ColumnForm, value: ValueRef<'_>) -> Put {
    match (&spec.form, value) {
        (_, ValueRef::Null) => block.put_i32(-1),
        (Form::Canonical(limit), value) => return put_canonical(block, *limit, spec.digits, value),
        (_, ValueRef::BadText(bytes)) => {
            return misfit(
                "the bytes are no text in the column's character set",
                Some(Nearest::Text(String::from_utf8_lossy(bytes).into())),
            );
        }
        (form, ValueRef::Odd(odd)) => return put_odd(form, odd),
        (Form::Bool, value) => return put_bool(block, value),
        (Form::Int2 | Form::Int4 | Form::Int8, value) => return put_whole(block, &spec.form, value),
        (Form::Numeric(limits), value) => return put_decimal(block, *limits, value),
        (Form::Float4 | Form::Float8, value) => return put_float(block, &spec.form, value),
        (Form::Text(limit), ValueRef::Text(text)) => return put_text(block, text, *limit, false),
        (Form::Padded(limit), ValueRef::Text(text)) => return put_text(block, text, Some(*limit), true),
        (Form::Labels(labels), ValueRef::Text(label)) => {
            if !labels.iter().any(|known| known == label) {
                return misfit("the target's type does not have this label", None);
            }
            put_counted(block, label.as_bytes());
        }
        (Form::Bytea, ValueRef::Bytes(bytes) | ValueRef::Bits(bytes)) => put_counted(block, bytes),
        (Form::Bytea, ValueRef::Text(text)) => put_counted(block, text.as_bytes()),
        (Form::Bytea, ValueRef::Uuid(uuid)) => put_counted(block, &uuid),
        (Form::Wkb { extended }, ValueRef::Spatial { srid, wkb }) => return put_spatial(block, *extended, srid, wkb),
        (Form::Bit(length) | Form::VarBit(length), ValueRef::Bits(bits)) => put_bits(block, *length, bits),
        (Form::Date, value) => return put_date(block, value),
        (Form::Timestamp(step), value) => return put_moment(block, *step, value),
        (Form::Time(step), ValueRef::Time(micros)) => return put_time(block, *step, micros),
        (Form::Interval(step), ValueRef::Time(micros)) => {
            if micros % step != 0 {
                return misfit("the time has more digits than its target", Some(Nearest::Time(micros / step * step)));
            }
            block.put_i32(16);
            block.put_i64(micros);
            block.put_i64(0); // days and months
        }
        (Form::Json, ValueRef::Json(text)) => put_counted(block, text.as_bytes()),
        (Form::Json, ValueRef::Text(text)) => return put_checked_json(block, text, false),
        (Form::Jsonb, ValueRef::Json(text)) => return put_jsonb(block, text),
        (Form::Jsonb, ValueRef::Text(text)) => return put_checked_json(block, text, true),
        (Form::TextArray, ValueRef::Labels(labels)) => put_labels(block, labels),
        (Form::Uuid, value) => return put_uuid(block, value),
        (Form::Inet, ValueRef::Text(text)) => return put_inet(block, text),
        (form, _) => return misfit(format!("a value of another kind than {form:?}"), None),
    }
    Ok(())
}

/// `inet_recv`: family (2 or 3), bits, whether it is a cidr, length, address.
fn put_inet(block: &mut BytesMut, text: &str) -> Put {
    match text.trim().parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            block.put_i32(8);
            block.put_slice(&[2, 32, 0, 4]);
            block.put_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            block.put_i32(20);
            block.put_slice(&[3, 128, 0, 16]);
            block.put_slice(&address.octets());
        }
        Err(_) => return misfit("the text is no address", None),
    }
    Ok(())
}

fn put_uuid(block: &mut BytesMut, value: ValueRef<'_>) -> Put {
    match value {
        ValueRef::Uuid(uuid) => put_fixed(block, uuid),
        ValueRef::Bytes(bytes) if bytes.len() == 16 => put_counted(block, bytes),
        ValueRef::Text(text) => {
            let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
            let digit = |byte: &u8| (*byte as char).to_digit(16);
            if hex.len() != 32 || !hex.iter().all(|byte| digit(byte).is_some()) {
                return misfit("the text is no UUID", None);
            }
            block.put_i32(16);
            for pair in hex.chunks(2) {
                let byte = pair.iter().filter_map(digit).fold(0, |byte, digit| byte << 4 | digit);
                block.put_u8(byte as u8);
            }
        }
        _ => return misfit("the value is no UUID", None),
    }
    Ok(())
}

/// The extended form marks the type's number and puts the reference system behind it (PostGIS manual, "OpenGIS WKB and EWKB").
fn put_spatial(block: &mut BytesMut, extended: bool, srid: u32, wkb: &[u8]) -> Put {
    const HAS_SRID: u32 = 0x2000_0000;
    let (Some(head), Some(rest)) = (wkb.first_chunk::<5>(), wkb.get(5..)) else { return misfit("the spatial value is cut short", None) };
    if head[0] != 1 {
        return misfit("the spatial value has an unknown byte order", None);
    }
    if !extended || srid == 0 {
        put_counted(block, wkb);
        return Ok(());
    }
    let kind = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) | HAS_SRID;
    block.put_i32(wkb.len() as i32 + 4);
    block.put_u8(1);
    block.put_u32_le(kind);
    block.put_u32_le(srid);
    block.put_slice(rest);
    Ok(())
}

fn put_odd(form: &Form, odd: OddValue) -> Put {
    let OddValue::ZeroDate { year, month, day, time_micros, .. } = odd;
    let (year, month) = (i32::from(year).max(1), u32::from(month).clamp(1, 12));
    let mut day = u32::from(day).max(1);
    while !is_civil_date(year, month, day) {
        day -= 1;
    }
    let days = days_from_civil(year, month, day);
    let nearest = match form {
        Form::Date => Some(Nearest::Date(days)),
        Form::Timestamp(step) => Some(Nearest::Moment((i64::from(days) * MICROS_PER_DAY + time_micros) / step * step)),
        _ => None,
    };
    misfit(format!("`{odd}` has no form in the target"), nearest)
}

fn put_bool(block: &mut BytesMut, value: ValueRef<'_>) -> Put {
    let number = match value {
        ValueRef::Bool(value) => i128::from(value),
        ValueRef::Int(value) => i128::from(value),
        ValueRef::UInt(value) => i128::from(value),
        ValueRef::Bits(bits) => i128::from(number_of(bits)),
        _ => return misfit("the value is no truth value", None),
    };
    if number != 0 && number != 1 {
        return misfit("the number is neither 0 nor 1", Some(Nearest::Int(1)));
    }
    put_fixed(block, [u8::from(number == 1)]);
    Ok(())
}

fn put_whole(block: &mut BytesMut, form: &Form, value: ValueRef<'_>) -> Put {
    let (low, high) = match form {
        Form::Int2 => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Form::Int4 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    let number = match value {
        ValueRef::Int(value) => i128::from(value),
        ValueRef::UInt(value) => i128::from(value),
        ValueRef::Bool(value) => i128::from(value),
        ValueRef::Bits(bits) => i128::from(number_of(bits)),
        ValueRef::Decimal(text) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let has_fraction = fraction.bytes().any(|digit| digit != b'0');
            match (whole.parse::<i128>().or_else(|_| if matches!(whole, "" | "-") { Ok(0) } else { whole.parse() }), has_fraction) {
                (Ok(number), false) => number,
                (Ok(number), true) => {
                    return misfit("the number has a fraction", Some(Nearest::Int(number.clamp(low, high) as i64)));
                }
                // More digits than 128 bits hold.
                (Err(_), _) => {
                    if text.starts_with('-') {
                        i128::MIN
                    } else {
                        i128::MAX
                    }
                }
            }
        }
        _ => return misfit("the value is no number", None),
    };
    if number < low || number > high {
        return misfit("the number is too large for its target", Some(Nearest::Int(number.clamp(low, high) as i64)));
    }
    match form {
        Form::Int2 => put_fixed(block, (number as i16).to_be_bytes()),
        Form::Int4 => put_fixed(block, (number as i32).to_be_bytes()),
        _ => put_fixed(block, (number as i64).to_be_bytes()),
    }
    Ok(())
}

fn put_decimal(block: &mut BytesMut, limits: Option<(u16, u16)>, value: ValueRef<'_>) -> Put {
    let owned;
    let text = match value {
        ValueRef::Decimal(text) => text,
        ValueRef::Int(value) if limits.is_none() => {
            put_integer(block, value < 0, value.unsigned_abs());
            return Ok(());
        }
        ValueRef::UInt(value) if limits.is_none() => {
            put_integer(block, false, value);
            return Ok(());
        }
        ValueRef::Int(value) => {
            owned = value.to_string();
            &owned
        }
        ValueRef::UInt(value) => {
            owned = value.to_string();
            &owned
        }
        ValueRef::Bits(bits) => {
            put_integer(block, false, number_of(bits));
            return Ok(());
        }
        _ => return misfit("the value is no number", None),
    };
    if let Some((whole_digits, scale)) = limits {
        let sign = if text.starts_with('-') { "-" } else { "" };
        let (whole, fraction) = text.trim_start_matches('-').split_once('.').unwrap_or((text.trim_start_matches('-'), ""));
        let (whole, scale) = (whole.trim_start_matches('0'), usize::from(scale));
        if whole.len() > usize::from(whole_digits) {
            let nines = |count: usize| "9".repeat(count);
            let nearest = format!("{sign}{}.{}", nines(usize::from(whole_digits)), nines(scale));
            return misfit("the number is too large for its target", Some(Nearest::Decimal(nearest.trim_end_matches('.').to_owned())));
        }
        if fraction.trim_end_matches('0').len() > scale {
            let nearest = format!("{sign}{}.{}", if whole.is_empty() { "0" } else { whole }, &fraction[..scale]);
            return misfit(
                "the number has more digits after the point than its target",
                Some(Nearest::Decimal(nearest.trim_end_matches('.').to_owned())),
            );
        }
    }
    if put_numeric(block, text) { Ok(()) } else { misfit("the decimal is malformed", None) }
}

fn put_float(block: &mut BytesMut, form: &Form, value: ValueRef<'_>) -> Put {
    let (number, is_exact) = match value {
        ValueRef::Float64(value) => (value, true),
        ValueRef::Float32(value) => (f64::from(value), true),
        ValueRef::Int(value) => (value as f64, value.unsigned_abs() <= 1 << 53),
        ValueRef::UInt(value) => (value as f64, value <= 1 << 53),
        ValueRef::Decimal(text) => {
            let number: f64 = text.parse().unwrap_or(f64::NAN);
            let trimmed = |text: &str| match text.split_once('.') {
                Some((whole, fraction)) => format!("{whole}.{}", fraction.trim_end_matches('0')).trim_end_matches('.').to_owned(),
                None => text.to_owned(),
            };
            (number, trimmed(&number.to_string()) == trimmed(text))
        }
        _ => return misfit("the value is no number", None),
    };
    if !is_exact {
        return misfit("the number has more digits than its target holds", Some(Nearest::Float(number)));
    }
    if *form == Form::Float8 {
        put_fixed(block, number.to_be_bytes());
        return Ok(());
    }
    let single = number as f32;
    if f64::from(single).to_bits() != number.to_bits() {
        let nearest = single.clamp(f32::MIN, f32::MAX);
        return misfit("the number changes in single precision", Some(Nearest::Float(f64::from(nearest))));
    }
    put_fixed(block, single.to_be_bytes());
    Ok(())
}

fn put_text(block: &mut BytesMut, text: &str, limit: Option<u32>, is_padded: bool) -> Put {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        let nearest = cut(&text.replace('\0', ""), limit);
        return misfit("the text holds a NUL character, which PostgreSQL cannot store", Some(Nearest::Text(nearest)));
    }
    if is_padded && text.ends_with(' ') {
        return misfit(
            "the text ends with spaces, which the target does not keep",
            Some(Nearest::Text(text.trim_end_matches(' ').to_owned())),
        );
    }
    if is_too_long(text, limit) {
        return misfit("the text is longer than its target", Some(Nearest::Text(cut(text, limit))));
    }
    put_counted(block, text.as_bytes());
    Ok(())
}

fn is_too_long(text: &str, limit: Option<u32>) -> bool {
    limit.is_some_and(|limit| text.len() > limit as usize && text.chars().count() > limit as usize)
}

fn cut(text: &str, limit: Option<u32>) -> String {
    match limit {
        Some(limit) => text.chars().take(limit as usize).collect(),
        None => text.to_owned(),
    }
}

fn put_date(block: &mut BytesMut, value: ValueRef<'_>) -> Put {
    match value {
        ValueRef::Date(days) => put_fixed(block, (days - EPOCH_DAYS).to_be_bytes()),
        ValueRef::DateTime(micros) | ValueRef::Timestamp(micros) => {
            let days = micros.div_euclid(MICROS_PER_DAY) as i32;
            if micros.rem_euclid(MICROS_PER_DAY) != 0 {
                return misfit("the moment is not midnight", Some(Nearest::Date(days)));
            }
            put_fixed(block, (days - EPOCH_DAYS).to_be_bytes());
        }
        _ => return misfit("the value is no date", None),
    }
    Ok(())
}

fn put_moment(block: &mut BytesMut, step: i64, value: ValueRef<'_>) -> Put {
    let micros = match value {
        ValueRef::DateTime(micros) | ValueRef::Timestamp(micros) => micros,
        ValueRef::Date(days) => i64::from(days) * MICROS_PER_DAY,
        _ => return misfit("the value is no moment", None),
    };
    if micros % step != 0 {
        return misfit("the moment has more digits than its target", Some(Nearest::Moment(micros.div_euclid(step) * step)));
    }
    put_fixed(block, (micros - EPOCH_MICROS).to_be_bytes());
    Ok(())
}

fn put_time(block: &mut BytesMut, step: i64, micros: i64) -> Put {
    if !(0..=MICROS_PER_DAY).contains(&micros) {
        return misfit("the time is outside one day", Some(Nearest::Time(micros.clamp(0, MICROS_PER_DAY))));
    }
    if micros % step != 0 {
        return misfit("the time has more digits than its target", Some(Nearest::Time(micros / step * step)));
    }
    put_fixed(block, micros.to_be_bytes());
    Ok(())
}

fn put_checked_json(block: &mut BytesMut, text: &str, is_binary: bool) -> Put {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return misfit("the text is no JSON", None);
    }
    if is_binary {
        return put_jsonb(block, text);
    }
    put_counted(block, text.as_bytes());
    Ok(())
}

/// `jsonb_recv`: a version, then the text. jsonb holds its strings decoded, so a NUL character has no place in them.
fn put_jsonb(block: &mut BytesMut, text: &str) -> Put {
    if has_nul_escape(text) {
        return misfit("the JSON holds \\u0000, which jsonb cannot store", Some(Nearest::Json(without_nul_escapes(text))));
    }
    block.put_i32(text.len() as i32 + 1);
    block.put_u8(1);
    block.put_slice(text.as_bytes());
    Ok(())
}

fn has_nul_escape(text: &str) -> bool {
    memchr::memmem::find(text.as_bytes(), b"\\u0000").is_some() && without_nul_escapes(text).len() != text.len()
}

/// Leaves out `\u0000`, but not the end of `\\u0000`, which is a backslash before plain characters.
fn without_nul_escapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("\\u0000") {
            rest = after;
            continue;
        }
        let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
        kept.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    kept.push_str(rest);
    kept
}

fn put_canonical(block: &mut BytesMut, limit: Option<u32>, digits: u16, value: ValueRef<'_>) -> Put {
    let text = match value {
        ValueRef::Json(text) | ValueRef::Labels(text) | ValueRef::Decimal(text) | ValueRef::Text(text) => {
            return put_text(block, text, limit, false);
        }
        ValueRef::Bytes(bytes) | ValueRef::BadText(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => return put_text(block, text, limit, false),
            Err(_) => {
                let nearest = cut(&String::from_utf8_lossy(bytes).replace('\0', ""), limit);
                return misfit("the bytes are no UTF-8 text", Some(Nearest::Text(nearest)));
            }
        },
        ValueRef::Spatial { .. } => return misfit("a spatial value has no canonical text here", None),
        ValueRef::Null => String::new(),
        ValueRef::Bool(value) => value.to_string(),
        ValueRef::Int(value) => value.to_string(),
        ValueRef::UInt(value) => value.to_string(),
        ValueRef::Float32(value) => format!("{value:?}"),
        ValueRef::Float64(value) => format!("{value:?}"),
        ValueRef::Bits(bits) => format!("{:0width$b}", number_of(bits), width = usize::from(digits)),
        ValueRef::Date(days) => date_text(days),
        ValueRef::DateTime(micros) => moment_text(micros, digits),
        ValueRef::Timestamp(micros) => format!("{}+00", moment_text(micros, digits)),
        ValueRef::Time(micros) => {
            let sign = if micros < 0 { "-" } else { "" };
            format!("{sign}{}", clock_text(micros.unsigned_abs(), digits))
        }
        ValueRef::Uuid(uuid) => {
            let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }
        ValueRef::Odd(OddValue::ZeroDate { year, month, day, time_micros, has_time }) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            if has_time { format!("{date} {}", clock_text(time_micros.unsigned_abs(), digits)) } else { date }
        }
    };
    put_text(block, &text, limit, false)
}

fn date_text(days: i32) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn moment_text(micros: i64, digits: u16) -> String {
    let days = micros.div_euclid(MICROS_PER_DAY) as i32;
    format!("{} {}", date_text(days), clock_text(micros.rem_euclid(MICROS_PER_DAY) as u64, digits))
}

fn clock_text(micros: u64, digits: u16) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if digits > 0 {
        text.push('.');
        text.push_str(&format!("{fraction:06}")[..usize::from(digits.min(6))]);
    }
    text
}

fn number_of(bits: &[u8]) -> u64 {
    bits.iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use millrace_core::value::OnLoss;

    use super::*;

    fn text(form: Form, digits: u16, value: ValueRef<'_>) -> Result<String, (String, Option<Nearest>)> {
        let mut block = BytesMut::new();
        let spec = ColumnForm { form, on_loss: OnLoss::Error, digits };
        match put(&mut block, &spec, value) {
            Ok(()) => Ok(String::from_utf8_lossy(&block[4..]).into_owned()),
            Err(misfit) => Err((misfit.reason.into_owned(), misfit.nearest)),
        }
    }

    #[test]
    fn values_of_every_kind_have_a_canonical_text() {
        let of = |digits, value| text(Form::Canonical(None), digits, value).unwrap_or_default();
        let zero = OddValue::ZeroDate { year: 2021, month: 0, day: 0, time_micros: 1_500_000, has_time: true };
        for (digits, value, expected) in [
            (0, ValueRef::Int(-5), "-5"),
            (0, ValueRef::UInt(u64::MAX), "18446744073709551615"),
            (0, ValueRef::Float32(0.1), "0.1"),
            (0, ValueRef::Float64(-0.0), "-0.0"),
            (0, ValueRef::Float64(1e300), "1e300"),
            (13, ValueRef::Bits(&[0x10, 0x01]), "1000000000001"),
            (0, ValueRef::Date(-719_162), "0001-01-01"),
            (3, ValueRef::DateTime(-1), "1969-12-31 23:59:59.999"),
            (6, ValueRef::Timestamp(1_000_001), "1970-01-01 00:00:01.000001+00"),
            (0, ValueRef::Time(-3_020_399_000_000), "-838:59:59"),
            (1, ValueRef::Odd(zero), "2021-00-00 00:00:01.5"),
            (0, ValueRef::Labels("a,b"), "a,b"),
        ] {
            assert_eq!(of(digits, value), expected);
        }
    }

    #[test]
    fn what_does_not_fit_names_the_nearest_value() {
        let nearest = |form, value| text(form, 0, value).err().and_then(|(_, nearest)| nearest);
        assert_eq!(nearest(Form::Int2, ValueRef::Int(70_000)), Some(Nearest::Int(32_767)));
        assert_eq!(nearest(Form::Int4, ValueRef::UInt(u64::MAX)), Some(Nearest::Int(2_147_483_647)));
        assert_eq!(nearest(Form::Int4, ValueRef::Decimal("-1.5")), Some(Nearest::Int(-1)));
        assert_eq!(nearest(Form::Bool, ValueRef::Int(-1)), Some(Nearest::Int(1)));
        assert_eq!(nearest(Form::Numeric(Some((2, 1))), ValueRef::Decimal("-123.45")), Some(Nearest::Decimal("-99.9".into())));
        assert_eq!(nearest(Form::Numeric(Some((3, 1))), ValueRef::Decimal("123.45")), Some(Nearest::Decimal("123.4".into())));
        assert_eq!(nearest(Form::Text(Some(2)), ValueRef::Text("äöü")), Some(Nearest::Text("äö".into())));
        assert_eq!(nearest(Form::Text(None), ValueRef::Text("a\0b")), Some(Nearest::Text("ab".into())));
        assert_eq!(nearest(Form::Time(1), ValueRef::Time(-1)), Some(Nearest::Time(0)));
        assert_eq!(nearest(Form::Timestamp(1000), ValueRef::DateTime(-1)), Some(Nearest::Moment(-1000)));
        assert_eq!(nearest(Form::Float4, ValueRef::Float64(1e300)), Some(Nearest::Float(f64::from(f32::MAX))));
        let zero = |year, month, day| ValueRef::Odd(OddValue::ZeroDate { year, month, day, time_micros: 0, has_time: false });
        assert_eq!(nearest(Form::Date, zero(0, 0, 0)), Some(Nearest::Date(days_from_civil(1, 1, 1))));
        assert_eq!(nearest(Form::Date, zero(2021, 2, 31)), Some(Nearest::Date(days_from_civil(2021, 2, 28))));
        assert_eq!(nearest(Form::Labels(vec!["a".into()]), ValueRef::Text("b")), None);
    }

    #[test]
    fn only_real_nul_escapes_are_found_in_json() {
        assert!(has_nul_escape(r#"{"a":"x\u0000y"}"#));
        assert!(!has_nul_escape(r#"{"a":"x\\u0000y"}"#));
        assert_eq!(without_nul_escapes(r#""\\\u0000\"""#), r#""\\\"""#);
    }

    #[test]
    fn decimals_fit_a_double_only_with_all_their_digits() {
        assert!(text(Form::Float8, 0, ValueRef::Decimal("0.1000")).is_ok());
        assert!(text(Form::Float8, 0, ValueRef::Decimal("123456789012345678")).is_err());
        assert!(text(Form::Float8, 0, ValueRef::Decimal("0.12345678901234567890")).is_err());
    }
}
