//! Rows in PostgreSQL's binary COPY form.
//!
//! A stream is a signature, then per row a count of fields and per field its length and bytes, then a trailer (PostgreSQL manual, `COPY`,
//! "Binary Format"); each type's bytes are what its `…_recv` function reads. The encoder writes into one block that is handed to the socket
//! without a copy. Nothing here allocates per value.

use bytes::{BufMut as _, Bytes, BytesMut};
use millrace_core::catalog::{Column, LogicalType};
use millrace_core::plan::ColumnPlan;
use millrace_core::value::{MICROS_PER_DAY, OnLoss, RowEncoder, ValueError, ValueRef};
use millrace_core::{Error, Result};

use super::misfit;
use super::types::{self, Fit, Hints, PgType};

/// A block is sent when it holds so many bytes.
const BLOCK: usize = 128 * 1024;

/// Days and microseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * MICROS_PER_DAY;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = [0xFF, 0xFF];

/// How one column is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    /// Whole and fractional digits that fit, where that must be looked at.
    Numeric(Option<(u16, u16)>),
    Float4,
    Float8,
    /// At most so many characters, where that must be looked at.
    Text(Option<u32>),
    /// As a fixed length: spaces at the end of a value are not kept.
    Padded(u32),
    /// The canonical text of a value of another kind.
    Canonical(Option<u32>),
    Bytea,
    /// Well-known binary without, or with the value's reference system.
    Wkb {
        extended: bool,
    },
    Bit(u16),
    VarBit(u16),
    Date,
    /// A moment in steps of so many microseconds.
    Timestamp(i64),
    Time(i64),
    Interval(i64),
    TextArray,
    Json,
    Jsonb,
    Uuid,
    Inet,
    Labels(Vec<String>),
}

/// A column as the encoder sees it.
#[derive(Debug, Clone)]
pub(super) struct ColumnForm {
    pub(super) form: Form,
    pub(super) on_loss: OnLoss,
    /// Digits of a second that the source's column has, for texts; its bits, if it holds bits.
    pub(super) digits: u16,
}

/// Encodes rows of one table.
pub(super) struct CopyEncoder {
    block: BytesMut,
    columns: Vec<ColumnForm>,
    row_start: usize,
    losses: Vec<u64>,
    /// Losses of the row at hand, by column; they count only once the row ends.
    row_losses: Vec<usize>,
}

impl CopyEncoder {
    /// For these written columns; the stream begins with its signature.
    ///
    /// Errors: [`millrace_core::Kind::Internal`] if a plan pairs types that do not belong together.
    pub(super) fn new(sources: &[&Column], targets: &[ColumnPlan]) -> Result<Self> {
        let columns: Vec<ColumnForm> = sources.iter().zip(targets).map(|(source, target)| form(source, target)).collect::<Result<_>>()?;
        let mut block = BytesMut::with_capacity(BLOCK + BLOCK / 4);
        block.put_slice(SIGNATURE);
        Ok(Self { block, losses: vec![0; columns.len()], columns, row_start: 0, row_losses: Vec::new() })
    }

    /// What is encoded so far; the encoder goes on empty.
    pub(super) fn take(&mut self) -> Bytes {
        let taken = self.block.split().freeze();
        self.block.reserve(BLOCK + BLOCK / 4);
        taken
    }

    /// Ends the stream.
    pub(super) fn put_trailer(&mut self) {
        self.block.put_slice(&TRAILER);
    }

    /// How often each column's policy acted.
    pub(super) fn losses(&self) -> &[u64] {
        &self.losses
    }

    /// Values whose column needs more than a copy of bytes, and those that do not fit.
    #[cold]
    fn uncommon(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        let Some(spec) = self.columns.get(column) else {
            return Err(ValueError::new(column, "there is no such column in the target"));
        };
        let start = self.block.len();
        let misfit = match misfit::put(&mut self.block, spec, value) {
            Ok(()) => return Ok(()),
            Err(misfit) => misfit,
        };
        self.block.truncate(start);
        match (spec.on_loss, misfit.nearest) {
            (OnLoss::Null, _) => self.block.put_i32(-1),
            (OnLoss::Clamp, Some(nearest)) => misfit::put(&mut self.block, spec, nearest.value())
                .map_err(|_| ValueError::new(column, format!("{}, and no value is near it", misfit.reason)))?,
            (OnLoss::Clamp, None) => return Err(ValueError::new(column, format!("{}, and no value is near it", misfit.reason))),
            (OnLoss::Error | OnLoss::Text, _) => return Err(ValueError::new(column, misfit.reason)),
        }
        self.row_losses.push(column);
        Ok(())
    }
}

impl RowEncoder for CopyEncoder {
    fn begin_row(&mut self) {
        self.row_start = self.block.len();
        self.block.put_i16(self.columns.len() as i16);
    }

    #[inline]
    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        let Some(spec) = self.columns.get(column) else {
            return Err(ValueError::new(column, "there is no such column in the target"));
        };
        let block = &mut self.block;
        match (&spec.form, value) {
            (_, ValueRef::Null) => block.put_i32(-1),
            (Form::Int8, ValueRef::Int(value)) => put_fixed(block, value.to_be_bytes()),
            (Form::Int4, ValueRef::Int(value)) if i32::try_from(value).is_ok() => put_fixed(block, (value as i32).to_be_bytes()),
            (Form::Int2, ValueRef::Int(value)) if i16::try_from(value).is_ok() => put_fixed(block, (value as i16).to_be_bytes()),
            (Form::Text(None), ValueRef::Text(text)) if memchr::memchr(0, text.as_bytes()).is_none() => put_counted(block, text.as_bytes()),
            (Form::Json, ValueRef::Json(text)) => put_counted(block, text.as_bytes()),
            (Form::Numeric(None), ValueRef::Decimal(text)) => {
                if !put_numeric(block, text) {
                    return Err(ValueError::new(column, "the decimal is malformed"));
                }
            }
            (Form::Numeric(None), ValueRef::UInt(value)) => put_integer(block, false, value),
            (Form::Float8, ValueRef::Float64(value)) => put_fixed(block, value.to_be_bytes()),
            (Form::Float4, ValueRef::Float32(value)) => put_fixed(block, value.to_be_bytes()),
            (Form::Bytea, ValueRef::Bytes(bytes)) => put_counted(block, bytes),
            (Form::Timestamp(1), ValueRef::DateTime(micros) | ValueRef::Timestamp(micros)) => {
                put_fixed(block, (micros - EPOCH_MICROS).to_be_bytes());
            }
            (Form::Date, ValueRef::Date(days)) => put_fixed(block, (days - EPOCH_DAYS).to_be_bytes()),
            (Form::Bool, ValueRef::Bool(value)) => put_fixed(block, [u8::from(value)]),
            (Form::TextArray, ValueRef::Labels(labels)) => put_labels(block, labels),
            (Form::Uuid, ValueRef::Uuid(uuid)) => put_fixed(block, uuid),
            (_, value) => return self.uncommon(column, value),
        }
        Ok(())
    }

    fn end_row(&mut self) {
        for column in self.row_losses.drain(..) {
            self.losses[column] += 1;
        }
    }

    fn abandon_row(&mut self) {
        self.block.truncate(self.row_start);
        self.row_losses.clear();
    }

    fn is_full(&self) -> bool {
        self.block.len() >= BLOCK
    }
}

/// How a planned pair of columns is written. Limits are looked at only where the pair's types do not rule a misfit out.
fn form(source: &Column, target: &ColumnPlan) -> Result<ColumnForm> {
    let mismatch = || Error::internal(format!("the plan of `{}` pairs {} with {}", target.source, target.from, target.to));
    let kind = PgType::parse(&target.to, &target.labels).ok_or_else(mismatch)?;
    let hints = Hints { is_time_of_day: true, srid: target.srid, postgis: None };
    let fit = types::fit(&source.logical, &kind, hints).ok_or_else(mismatch)?;
    let is_checked = matches!(fit, Fit::May(_));
    let step = |digits: u8| 10i64.pow(6 - u32::from(digits.min(6)));
    let limit = kind.text_limit().filter(|limit| is_checked && *limit != u32::MAX);
    let is_spatial = matches!(source.logical, LogicalType::Spatial { .. });
    let form = match &kind {
        PgType::Bool => Form::Bool,
        PgType::Int2 => Form::Int2,
        PgType::Int4 => Form::Int4,
        PgType::Int8 => Form::Int8,
        PgType::Numeric(Some((precision, scale))) if is_checked => Form::Numeric(Some((precision - (*scale).min(*precision), *scale))),
        PgType::Numeric(_) => Form::Numeric(None),
        PgType::Float4 => Form::Float4,
        PgType::Float8 => Form::Float8,
        PgType::Char(length) if is_checked && types::is_text(&source.logical) => Form::Padded(*length),
        PgType::Text | PgType::Varchar(_) | PgType::Char(_) => {
            if types::is_text(&source.logical) || matches!(source.logical, LogicalType::Enum(_)) {
                Form::Text(limit)
            } else {
                Form::Canonical(limit)
            }
        }
        PgType::Bytea if is_spatial => Form::Wkb { extended: target.srid.is_none() },
        PgType::Geometry(_) => Form::Wkb { extended: true },
        PgType::Bytea => Form::Bytea,
        PgType::Bit(length) => Form::Bit(*length),
        PgType::VarBit(_) => match source.logical {
            LogicalType::Bit(length) => Form::VarBit(length),
            _ => return Err(mismatch()),
        },
        PgType::Date => Form::Date,
        PgType::Timestamp(digits) | PgType::Timestamptz(digits) => match source.logical {
            LogicalType::DateTime(from) | LogicalType::Timestamp(from) if from <= *digits => Form::Timestamp(1),
            _ => Form::Timestamp(step(*digits)),
        },
        PgType::Time(digits) => Form::Time(step(*digits)),
        PgType::Interval(digits) => Form::Interval(step(*digits)),
        PgType::TextArray => Form::TextArray,
        PgType::Json => Form::Json,
        PgType::Jsonb => Form::Jsonb,
        PgType::Uuid => Form::Uuid,
        PgType::Inet => Form::Inet,
        PgType::Labels(_, labels) => Form::Labels(labels.clone()),
    };
    let digits = match source.logical {
        LogicalType::DateTime(digits) | LogicalType::Timestamp(digits) | LogicalType::Time(digits) => u16::from(digits),
        LogicalType::Bit(bits) => bits,
        _ => 0,
    };
    Ok(ColumnForm { form, on_loss: target.on_loss(), digits })
}

#[inline]
pub(super) fn put_fixed<const N: usize>(block: &mut BytesMut, bytes: [u8; N]) {
    block.put_i32(N as i32);
    block.put_slice(&bytes);
}

#[inline]
pub(super) fn put_counted(block: &mut BytesMut, bytes: &[u8]) {
    block.put_i32(bytes.len() as i32);
    block.put_slice(bytes);
}

/// `numeric_recv`: count of base-10000 digits, weight of the first, sign, digits after the point, then the digits.
/// Answers whether the text is a decimal.
pub(super) fn put_numeric(block: &mut BytesMut, text: &str) -> bool {
    let (is_negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let point = memchr::memchr(b'.', digits);
    let (whole, fraction) = match point {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return false;
    }
    let groups_before = whole.len().div_ceil(4);
    let start = block.len();
    block.put_i32(0); // length, set below
    block.put_i16(0); // count, set below
    block.put_i16(0); // weight, set below
    block.put_u16(0); // sign, set below
    block.put_u16(fraction.len() as u16);
    let mut first = groups_before as i32 - 1;
    let mut count = 0usize;
    let mut significant = 0usize;
    let mut put_group = |block: &mut BytesMut, group: u16| {
        if count == 0 && group == 0 {
            first -= 1;
            return;
        }
        count += 1;
        if group != 0 {
            significant = count;
        }
        block.put_u16(group);
    };
    let lead = whole.len() % 4;
    if lead > 0 {
        put_group(block, group(&whole[..lead]));
    }
    for chunk in whole[lead..].chunks(4) {
        put_group(block, group(chunk));
    }
    for chunk in fraction.chunks(4) {
        put_group(block, group(chunk) * [0, 1000, 100, 10, 1][chunk.len()]);
    }
    block.truncate(start + 12 + significant * 2);
    let length = (8 + significant * 2) as u32;
    let is_negative = is_negative && significant > 0;
    block[start..start + 4].copy_from_slice(&length.to_be_bytes());
    block[start + 4..start + 6].copy_from_slice(&(significant as u16).to_be_bytes());
    block[start + 6..start + 8].copy_from_slice(&(if significant == 0 { 0 } else { first as i16 }).to_be_bytes());
    block[start + 8..start + 10].copy_from_slice(&(if is_negative { 0x4000u16 } else { 0 }).to_be_bytes());
    true
}

#[inline]
fn group(digits: &[u8]) -> u16 {
    digits.iter().fold(0, |group, digit| group * 10 + u16::from(digit - b'0'))
}

pub(super) fn put_integer(block: &mut BytesMut, is_negative: bool, mut value: u64) {
    let mut groups = [0u16; 5];
    let mut count = 0;
    while value > 0 {
        groups[count] = (value % 10_000) as u16;
        value /= 10_000;
        count += 1;
    }
    let trailing = groups[..count].iter().take_while(|&&group| group == 0).count();
    let digits = &groups[trailing..count];
    block.put_i32(8 + digits.len() as i32 * 2);
    block.put_i16(digits.len() as i16);
    block.put_i16(count.max(1) as i16 - 1);
    block.put_u16(if is_negative { 0x4000 } else { 0 });
    block.put_u16(0);
    for &group in digits.iter().rev() {
        block.put_u16(group);
    }
}

/// `bit_recv`: the number of bits, then the bytes with the first bit highest; MySQL's are right-aligned.
pub(super) fn put_bits(block: &mut BytesMut, length: u16, bits: &[u8]) {
    let bytes = usize::from(length).div_ceil(8);
    let shift = (bytes * 8 - usize::from(length)) as u32;
    let value = bits.iter().take(8).fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let aligned = (u128::from(value) << shift).to_be_bytes();
    block.put_i32(4 + bytes as i32);
    block.put_i32(i32::from(length));
    block.put_slice(&aligned[16 - bytes..]);
}

/// `array_recv`: dimensions, whether it holds NULLs, element type, then per dimension its size and lower bound, then the elements.
pub(super) fn put_labels(block: &mut BytesMut, labels: &str) {
    const TEXT_OID: i32 = 25;
    let start = block.len();
    block.put_i32(0); // length, set below
    block.put_i32(i32::from(!labels.is_empty()));
    block.put_i32(0);
    block.put_i32(TEXT_OID);
    if !labels.is_empty() {
        block.put_i32(labels.split(',').count() as i32);
        block.put_i32(1);
        for label in labels.split(',') {
            put_counted(block, label.as_bytes());
        }
    }
    let length = (block.len() - start - 4) as i32;
    block[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
