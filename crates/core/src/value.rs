//! One value on its way from a decoder to an encoder.
//!
//! ```text
//!  source bytes ──decoder──▶ ValueRef<'_> (borrows the source's buffer) ──encoder──▶ target bytes
//! ```
//!
//! A decoder knows the source column, an encoder the target column; both are chosen once per column by the plan, so that the
//! snapshot and the change path, which use the same pair, give identical bytes. Nothing on this path allocates per value.

use std::borrow::Cow;
use std::fmt;

/// Microseconds of one day.
pub const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A borrowed value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// IEEE 754 binary32.
    Float32(f32),
    /// IEEE 754 binary64.
    Float64(f64),
    /// An exact decimal as ASCII: `-`, digits, optionally `.` and digits.
    Decimal(&'a str),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bits, the highest first, right-aligned in the bytes; the length is the column's.
    Bits(&'a [u8]),
    /// Days since 1970-01-01 in the proleptic Gregorian calendar.
    Date(i32),
    /// A wall-clock moment, microseconds since 1970-01-01 00:00:00.
    DateTime(i64),
    /// A moment, microseconds since 1970-01-01 00:00:00 UTC.
    Timestamp(i64),
    /// A time of day or a span, microseconds, possibly negative.
    Time(i64),
    /// Labels of a SET, separated by commas; empty text is the empty set.
    Labels(&'a str),
    /// JSON text.
    Json(&'a str),
    /// A UUID's 16 bytes.
    Uuid([u8; 16]),
    /// A spatial value: its reference system and its well-known binary form.
    Spatial {
        /// 0 where none is named.
        srid: u32,
        /// OGC well-known binary.
        wkb: &'a [u8],
    },
    /// Bytes in a text column that are no text in the source's character set.
    BadText(&'a [u8]),
    /// A value that has no native form elsewhere; the target column's policy decides.
    Odd(OddValue),
}

/// A value without a native form in other engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddValue {
    /// MySQL `0000-00-00`, or a date with a zero month or day, as its parts.
    ZeroDate {
        /// 0 to 9999.
        year: u16,
        /// 0 to 12.
        month: u8,
        /// 0 to 31.
        day: u8,
        /// Microseconds of the day; 0 for a DATE.
        time_micros: i64,
        /// Whether the column has a time part.
        has_time: bool,
    },
}

impl fmt::Display for OddValue {
    /// The canonical text of the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::ZeroDate { year, month, day, time_micros, has_time } = *self;
        write!(f, "{year:04}-{month:02}-{day:02}")?;
        if has_time {
            let seconds = time_micros / 1_000_000;
            write!(f, " {:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
        }
        Ok(())
    }
}

/// What a value that does not fit its target column becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum OnLoss {
    /// The table fails, naming the column and the row's key.
    Error,
    /// NULL, counted.
    Null,
    /// The nearest value that the target can hold, counted.
    Clamp,
    /// The target's column is text and holds the canonical text of every value.
    Text,
}

impl OnLoss {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Null => "null",
            Self::Clamp => "clamp",
            Self::Text => "text",
        }
    }
}

/// Why an encoder refuses a value. It says what is wrong with the value, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub struct ValueError {
    /// Index of the column in the row.
    pub column: usize,
    /// In words.
    pub reason: Cow<'static, str>,
}

impl ValueError {
    /// A refusal.
    pub fn new(column: usize, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { column, reason: reason.into() }
    }
}

/// Takes rows, value by value, and keeps them encoded for its target.
///
/// Contract: a reader calls `begin_row`, then `value` once per column in order, then `end_row`. After an error the encoder's buffer still
/// ends with the last whole row. `is_full` says that the reader should return at the next row boundary so that the buffer can be sent.
pub trait RowEncoder: Send {
    /// Starts a row.
    fn begin_row(&mut self);
    /// Adds the next value.
    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError>;
    /// Ends the row.
    fn end_row(&mut self);
    /// Takes back the row that was begun and not ended.
    fn abandon_row(&mut self);
    /// Whether enough is collected for one send.
    fn is_full(&self) -> bool;
}

/// The date of a count of days since 1970-01-01 (Hinnant, `civil_from_days`).
pub fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let shifted = i64::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 } as u32;
    let year = (year_of_era + era * 400 + i64::from(month <= 2)) as i32;
    (year, month, day)
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`). The caller has checked month (1–12) and day (1–31).
pub fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = (month as i32 + 9) % 12;
    let day_of_year = (153 * month_index + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Whether a date exists in the proleptic Gregorian calendar.
pub fn is_civil_date(year: i32, month: u32, day: u32) -> bool {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_the_epoch() {
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 3, 1), 11_017);
        assert_eq!(days_from_civil(1, 1, 1), -719_162);
        assert_eq!(days_from_civil(9999, 12, 31), 2_932_896);
    }

    #[test]
    fn days_agree_with_chrono_over_all_days_of_a_cycle() {
        let mut date = chrono::NaiveDate::from_ymd_opt(1999, 12, 31).unwrap_or_default();
        let epoch = chrono::NaiveDate::default();
        for _ in 0..146_097 {
            use chrono::Datelike as _;
            let days = days_from_civil(date.year(), date.month(), date.day());
            assert_eq!(i64::from(days), (date - epoch).num_days(), "{date}");
            assert_eq!(civil_from_days(days), (date.year(), date.month(), date.day()));
            assert!(is_civil_date(date.year(), date.month(), date.day()));
            date = date.succ_opt().unwrap_or_default();
        }
    }

    #[test]
    fn impossible_dates_are_told_apart() {
        assert!(!is_civil_date(2023, 2, 29));
        assert!(is_civil_date(2024, 2, 29));
        assert!(!is_civil_date(1900, 2, 29));
        assert!(!is_civil_date(2021, 0, 0));
    }
}
