//! Rows in PostgreSQL's binary COPY form.
//!
//! A stream is a signature, then per row a count of fields and per field its length and bytes, then a trailer (PostgreSQL manual, `COPY`,
//! "Binary Format"); each type's bytes are what its `…_recv` function reads. The encoder writes into one block that is handed to the socket
//! without a copy. Nothing here allocates per value.

use bytes::{BufMut as _, Bytes, BytesMut};
use millrace_core::catalog::{Column, LogicalType};
use millrace_core::plan::{ColumnPlan, Verdict};
use millrace_core::value::{MICROS_PER_DAY, OnLoss, RowEncoder, ValueError, ValueRef};

/// A block is sent when it holds so many bytes.
const BLOCK: usize = 128 * 1024;

/// Days and microseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * MICROS_PER_DAY;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = [0xFF, 0xFF];

/// How one column is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Numeric,
    Float4,
    Float8,
    Text,
    Bytea,
    Bit(u16),
    Date,
    Timestamp,
    Time,
    Interval,
    TextArray,
    Json,
    Jsonb,
    Uuid,
}

/// Encodes rows of one table.
pub(super) struct CopyEncoder {
    block: BytesMut,
    columns: Vec<(Form, OnLoss)>,
    row_start: usize,
    losses: Vec<u64>,
    /// Losses of the row at hand, by column; they count only once the row ends.
    row_losses: Vec<usize>,
}

impl CopyEncoder {
    /// For these written columns; the stream begins with its signature.
    pub(super) fn new(sources: &[&Column], targets: &[ColumnPlan]) -> Self {
        let columns: Vec<(Form, OnLoss)> =
            sources.iter().zip(targets).map(|(source, target)| (form(source, target), on_loss(target))).collect();
        let mut block = BytesMut::with_capacity(BLOCK + BLOCK / 4);
        block.put_slice(SIGNATURE);
        Self { block, losses: vec![0; columns.len()], columns, row_start: 0, row_losses: Vec::new() }
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

    fn lossy(&mut self, column: usize, on_loss: OnLoss, reason: String) -> Result<(), ValueError> {
        match on_loss {
            OnLoss::Error => Err(ValueError::new(column, reason)),
            OnLoss::Null => {
                self.row_losses.push(column);
                self.block.put_i32(-1);
                Ok(())
            }
        }
    }
}

impl RowEncoder for CopyEncoder {
    fn begin_row(&mut self) {
        self.row_start = self.block.len();
        self.block.put_i16(self.columns.len() as i16);
    }

    #[inline]
    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        let Some(&(form, on_loss)) = self.columns.get(column) else {
            return Err(ValueError::new(column, "there is no such column in the target"));
        };
        let block = &mut self.block;
        match (form, value) {
            (_, ValueRef::Null) => block.put_i32(-1),
            (Form::Int8, ValueRef::Int(value)) => put_fixed(block, value.to_be_bytes()),
            (Form::Int4, ValueRef::Int(value)) => put_fixed(block, narrowed::<i32>(column, value)?.to_be_bytes()),
            (Form::Int2, ValueRef::Int(value)) => put_fixed(block, narrowed::<i16>(column, value)?.to_be_bytes()),
            (Form::Int8, ValueRef::UInt(value)) => {
                let value = i64::try_from(value).map_err(|_| ValueError::new(column, "the number is too large for its target"))?;
                put_fixed(block, value.to_be_bytes());
            }
            (Form::Text, ValueRef::Text(text)) => put_text(block, column, text)?,
            (Form::Json, ValueRef::Json(text)) => put_text(block, column, text)?,
            (Form::Jsonb, ValueRef::Json(text)) => {
                block.put_i32(text.len() as i32 + 1);
                block.put_u8(1);
                block.put_slice(text.as_bytes());
            }
            (Form::Numeric, ValueRef::Decimal(text)) => put_numeric(block, column, text)?,
            (Form::Numeric, ValueRef::UInt(value)) => put_integer(block, false, value),
            (Form::Numeric, ValueRef::Int(value)) => put_integer(block, value < 0, value.unsigned_abs()),
            (Form::Float8, ValueRef::Float64(value)) => put_fixed(block, value.to_be_bytes()),
            (Form::Float4, ValueRef::Float32(value)) => put_fixed(block, value.to_be_bytes()),
            (Form::Bytea, ValueRef::Bytes(bytes)) => put_counted(block, bytes),
            (Form::Timestamp, ValueRef::DateTime(micros) | ValueRef::Timestamp(micros)) => {
                put_fixed(block, (micros - EPOCH_MICROS).to_be_bytes());
            }
            (Form::Date, ValueRef::Date(days)) => put_fixed(block, (days - EPOCH_DAYS).to_be_bytes()),
            (Form::Time, ValueRef::Time(micros)) if (0..=MICROS_PER_DAY).contains(&micros) => put_fixed(block, micros.to_be_bytes()),
            (Form::Time, ValueRef::Time(_)) => return Err(ValueError::new(column, "the time is outside one day")),
            (Form::Interval, ValueRef::Time(micros)) => {
                block.put_i32(16);
                block.put_i64(micros);
                block.put_i64(0); // days and months
            }
            (Form::Bool, ValueRef::Bool(value)) => put_fixed(block, [u8::from(value)]),
            (Form::Bool, ValueRef::Bits(bits)) => put_fixed(block, [u8::from(bits.iter().any(|&byte| byte != 0))]),
            (Form::Bit(length), ValueRef::Bits(bits)) => put_bits(block, length, bits),
            (Form::TextArray, ValueRef::Labels(labels)) => put_labels(block, labels),
            (Form::Uuid, ValueRef::Uuid(uuid)) => put_fixed(block, uuid),
            (_, ValueRef::Odd(odd)) => return self.lossy(column, on_loss, format!("`{odd}` has no form in the target")),
            (form, _) => return Err(ValueError::new(column, format!("a value of another kind than {form:?}"))),
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

fn form(source: &Column, target: &ColumnPlan) -> Form {
    match &source.logical {
        LogicalType::Bool | LogicalType::Bit(1) => Form::Bool,
        LogicalType::Int { bits: 8, .. } | LogicalType::Int { bits: 16, unsigned: false } | LogicalType::Year => Form::Int2,
        LogicalType::Int { bits: 16 | 24, .. } | LogicalType::Int { bits: 32, unsigned: false } => Form::Int4,
        LogicalType::Int { bits: 64, unsigned: true } | LogicalType::Decimal { .. } => Form::Numeric,
        LogicalType::Int { .. } => Form::Int8,
        LogicalType::Float32 => Form::Float4,
        LogicalType::Float64 => Form::Float8,
        LogicalType::Binary(_) | LogicalType::Bytes => Form::Bytea,
        LogicalType::Bit(length) => Form::Bit(*length),
        LogicalType::Date => Form::Date,
        LogicalType::DateTime(_) | LogicalType::Timestamp(_) => Form::Timestamp,
        LogicalType::Time(_) if target.to.starts_with("interval") => Form::Interval,
        LogicalType::Time(_) => Form::Time,
        LogicalType::Set(_) => Form::TextArray,
        LogicalType::JsonText => Form::Json,
        LogicalType::Json => Form::Jsonb,
        LogicalType::Uuid => Form::Uuid,
        LogicalType::Char(_) | LogicalType::Varchar(_) | LogicalType::Text | LogicalType::Enum(_) | LogicalType::Unsupported(_) => {
            Form::Text
        }
    }
}

fn on_loss(target: &ColumnPlan) -> OnLoss {
    match target.verdict {
        Verdict::Policy(on_loss) => on_loss,
        _ => OnLoss::Error,
    }
}

#[inline]
fn put_fixed<const N: usize>(block: &mut BytesMut, bytes: [u8; N]) {
    block.put_i32(N as i32);
    block.put_slice(&bytes);
}

#[inline]
fn put_counted(block: &mut BytesMut, bytes: &[u8]) {
    block.put_i32(bytes.len() as i32);
    block.put_slice(bytes);
}

#[inline]
fn put_text(block: &mut BytesMut, column: usize, text: &str) -> Result<(), ValueError> {
    if memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(ValueError::new(column, "the text holds a NUL character, which PostgreSQL cannot store"));
    }
    put_counted(block, text.as_bytes());
    Ok(())
}

fn narrowed<T: TryFrom<i64>>(column: usize, value: i64) -> Result<T, ValueError> {
    T::try_from(value).map_err(|_| ValueError::new(column, "the number is too large for its target"))
}

/// `numeric_recv`: count of base-10000 digits, weight of the first, sign, digits after the point, then the digits.
fn put_numeric(block: &mut BytesMut, column: usize, text: &str) -> Result<(), ValueError> {
    let malformed = || ValueError::new(column, "the decimal is malformed");
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
        return Err(malformed());
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
        put_group(block, group(&whole[..lead], lead));
    }
    for chunk in whole[lead..].chunks(4) {
        put_group(block, group(chunk, 4));
    }
    for chunk in fraction.chunks(4) {
        put_group(block, group(chunk, 4) * [0, 1000, 100, 10, 1][chunk.len()]);
    }
    block.truncate(start + 12 + significant * 2);
    let length = (8 + significant * 2) as u32;
    let is_negative = is_negative && significant > 0;
    block[start..start + 4].copy_from_slice(&length.to_be_bytes());
    block[start + 4..start + 6].copy_from_slice(&(significant as u16).to_be_bytes());
    block[start + 6..start + 8].copy_from_slice(&(if significant == 0 { 0 } else { first as i16 }).to_be_bytes());
    block[start + 8..start + 10].copy_from_slice(&(if is_negative { 0x4000u16 } else { 0 }).to_be_bytes());
    Ok(())
}

#[inline]
fn group(digits: &[u8], _: usize) -> u16 {
    digits.iter().fold(0, |group, digit| group * 10 + u16::from(digit - b'0'))
}

fn put_integer(block: &mut BytesMut, is_negative: bool, mut value: u64) {
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
fn put_bits(block: &mut BytesMut, length: u16, bits: &[u8]) {
    let bytes = usize::from(length).div_ceil(8);
    let shift = (bytes * 8 - usize::from(length)) as u32;
    let value = bits.iter().take(8).fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let aligned = (u128::from(value) << shift).to_be_bytes();
    block.put_i32(4 + bytes as i32);
    block.put_i32(i32::from(length));
    block.put_slice(&aligned[16 - bytes..]);
}

/// `array_recv`: dimensions, whether it holds NULLs, element type, then per dimension its size and lower bound, then the elements.
fn put_labels(block: &mut BytesMut, labels: &str) {
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
