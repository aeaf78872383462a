//! Decoders: from the binary form of a MySQL row to borrowed values.
//!
//! A row is a header byte, a bitmap of NULLs and the values one after the other (MySQL Source Code Documentation, "Binary Protocol Resultset
//! Row"). Each column's decoder is chosen once from its type in the catalog and checked against the type that the server announces; nothing is
//! guessed per value.

use millrace_core::catalog::{Column, LogicalType};
use millrace_core::value::{OddValue, RowEncoder, ValueError, ValueRef, days_from_civil, is_civil_date};
use millrace_core::{Error, Kind, Result};
use mysql_common::constants::ColumnType;

use super::wire::{ResultColumn, lenenc_int};

const MICROS: i64 = 1_000_000;

/// How one column's values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoder {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Decimal,
    Text,
    Bytes,
    Bits,
    Date,
    DateTime,
    Timestamp,
    Time,
    Labels,
    Json,
    Uuid,
    Spatial,
}

/// Why a row could not be given to the encoder.
#[derive(Debug)]
pub(super) enum RowError {
    /// The encoder refuses a value.
    Refused(ValueError),
    /// The bytes are not a row of these columns.
    Malformed,
}

/// Decodes rows of one result.
#[derive(Debug, Clone)]
pub(super) struct RowDecoder {
    decoders: Vec<Decoder>,
}

impl RowDecoder {
    /// Chooses the decoders. Fails with [`Kind::DefinitionChanged`] if the server announces other types than the catalog has.
    pub(super) fn new(columns: &[Column], announced: &[ResultColumn]) -> Result<Self> {
        if columns.len() != announced.len() {
            return Err(Error::new(Kind::ProtocolViolated, "the server announces another number of columns than asked for"));
        }
        let decoders = columns
            .iter()
            .zip(announced)
            .map(|(column, announced)| {
                decoder(&column.logical, *announced).ok_or_else(|| {
                    Error::new(
                        Kind::DefinitionChanged,
                        format!("column `{}` is announced as {:?}, not as {}", column.name, announced.kind, column.native_type),
                    )
                    .with("column", column.name.clone())
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { decoders })
    }

    /// Gives one row to an encoder; on an error the encoder has been told to forget the row.
    pub(super) fn decode(&self, packet: &[u8], rows: &mut dyn RowEncoder) -> Result<(), RowError> {
        rows.begin_row();
        let result = self.values(packet, rows);
        match result {
            Ok(()) => rows.end_row(),
            Err(_) => rows.abandon_row(),
        }
        result
    }

    fn values(&self, packet: &[u8], rows: &mut dyn RowEncoder) -> Result<(), RowError> {
        // The bitmap's first two bits are reserved.
        let bitmap_length = (self.decoders.len() + 9) / 8;
        let bitmap = packet.get(1..1 + bitmap_length).ok_or(RowError::Malformed)?;
        let mut rest = &packet[1 + bitmap_length..];
        for (index, decoder) in self.decoders.iter().enumerate() {
            let bit = index + 2;
            if bitmap[bit / 8] >> (bit % 8) & 1 == 1 {
                rows.value(index, ValueRef::Null).map_err(RowError::Refused)?;
                continue;
            }
            let (value, after) = decoder.read(rest).ok_or(RowError::Malformed)?;
            rows.value(index, value).map_err(RowError::Refused)?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(RowError::Malformed) }
    }
}

/// The decoder of a column type for a type on the wire; none if they do not belong together.
fn decoder(logical: &LogicalType, announced: ResultColumn) -> Option<Decoder> {
    use ColumnType as C;
    let is_text = matches!(
        announced.kind,
        C::MYSQL_TYPE_STRING
            | C::MYSQL_TYPE_VAR_STRING
            | C::MYSQL_TYPE_VARCHAR
            | C::MYSQL_TYPE_BLOB
            | C::MYSQL_TYPE_TINY_BLOB
            | C::MYSQL_TYPE_MEDIUM_BLOB
            | C::MYSQL_TYPE_LONG_BLOB
            | C::MYSQL_TYPE_ENUM
            | C::MYSQL_TYPE_SET
            | C::MYSQL_TYPE_NULL
            | C::MYSQL_TYPE_VECTOR
    );
    let decoder = match logical {
        LogicalType::Int { .. } | LogicalType::Year | LogicalType::Bool => match (announced.kind, announced.is_unsigned) {
            (C::MYSQL_TYPE_TINY, false) => Decoder::I8,
            (C::MYSQL_TYPE_TINY, true) => Decoder::U8,
            (C::MYSQL_TYPE_SHORT, false) => Decoder::I16,
            (C::MYSQL_TYPE_SHORT, true) | (C::MYSQL_TYPE_YEAR, _) => Decoder::U16,
            (C::MYSQL_TYPE_LONG | C::MYSQL_TYPE_INT24, false) => Decoder::I32,
            (C::MYSQL_TYPE_LONG | C::MYSQL_TYPE_INT24, true) => Decoder::U32,
            (C::MYSQL_TYPE_LONGLONG, false) => Decoder::I64,
            (C::MYSQL_TYPE_LONGLONG, true) => Decoder::U64,
            _ => return None,
        },
        LogicalType::Float32 if announced.kind == C::MYSQL_TYPE_FLOAT => Decoder::F32,
        LogicalType::Float64 if announced.kind == C::MYSQL_TYPE_DOUBLE => Decoder::F64,
        LogicalType::Decimal { .. } if matches!(announced.kind, C::MYSQL_TYPE_NEWDECIMAL | C::MYSQL_TYPE_DECIMAL) => Decoder::Decimal,
        LogicalType::Char(_) | LogicalType::Varchar(_) | LogicalType::Text | LogicalType::Enum(_) if is_text => Decoder::Text,
        LogicalType::Set(_) if is_text => Decoder::Labels,
        LogicalType::Binary(_) | LogicalType::Bytes if is_text => Decoder::Bytes,
        LogicalType::Bit(_) if announced.kind == C::MYSQL_TYPE_BIT => Decoder::Bits,
        LogicalType::Date if matches!(announced.kind, C::MYSQL_TYPE_DATE | C::MYSQL_TYPE_NEWDATE) => Decoder::Date,
        LogicalType::DateTime(_) if matches!(announced.kind, C::MYSQL_TYPE_DATETIME | C::MYSQL_TYPE_DATETIME2) => Decoder::DateTime,
        LogicalType::Timestamp(_) if matches!(announced.kind, C::MYSQL_TYPE_TIMESTAMP | C::MYSQL_TYPE_TIMESTAMP2) => Decoder::Timestamp,
        LogicalType::Time(_) if matches!(announced.kind, C::MYSQL_TYPE_TIME | C::MYSQL_TYPE_TIME2) => Decoder::Time,
        LogicalType::JsonText if is_text => Decoder::Json,
        LogicalType::Json if is_text || announced.kind == C::MYSQL_TYPE_JSON => Decoder::Json,
        LogicalType::Uuid if is_text => Decoder::Uuid,
        LogicalType::Inet if is_text => Decoder::Text,
        LogicalType::Spatial { .. } if is_text || announced.kind == C::MYSQL_TYPE_GEOMETRY => Decoder::Spatial,
        _ => return None,
    };
    Some(decoder)
}

impl Decoder {
    /// One value and the bytes after it.
    #[inline]
    fn read(self, bytes: &[u8]) -> Option<(ValueRef<'_>, &[u8])> {
        Some(match self {
            Self::I8 => fixed(bytes, |b: [u8; 1]| ValueRef::Int(i64::from(b[0] as i8)))?,
            Self::U8 => fixed(bytes, |b: [u8; 1]| ValueRef::Int(i64::from(b[0])))?,
            Self::I16 => fixed(bytes, |b| ValueRef::Int(i64::from(i16::from_le_bytes(b))))?,
            Self::U16 => fixed(bytes, |b| ValueRef::Int(i64::from(u16::from_le_bytes(b))))?,
            Self::I32 => fixed(bytes, |b| ValueRef::Int(i64::from(i32::from_le_bytes(b))))?,
            Self::U32 => fixed(bytes, |b| ValueRef::Int(i64::from(u32::from_le_bytes(b))))?,
            Self::I64 => fixed(bytes, |b| ValueRef::Int(i64::from_le_bytes(b)))?,
            Self::U64 => fixed(bytes, |b| ValueRef::UInt(u64::from_le_bytes(b)))?,
            Self::F32 => fixed(bytes, |b| ValueRef::Float32(f32::from_le_bytes(b)))?,
            Self::F64 => fixed(bytes, |b| ValueRef::Float64(f64::from_le_bytes(b)))?,
            Self::Date => moment(bytes, false, |micros| ValueRef::Date(micros.div_euclid(86_400 * MICROS) as i32))?,
            Self::DateTime => moment(bytes, true, ValueRef::DateTime)?,
            Self::Timestamp => moment(bytes, true, ValueRef::Timestamp)?,
            Self::Time => time(bytes)?,
            Self::Decimal | Self::Text | Self::Labels | Self::Json | Self::Bytes | Self::Bits | Self::Uuid | Self::Spatial => {
                let (length, rest) = lenenc_int(bytes)?;
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                (self.counted(value)?, rest)
            }
        })
    }

    #[inline]
    fn counted(self, value: &[u8]) -> Option<ValueRef<'_>> {
        let text = || std::str::from_utf8(value).ok();
        Some(match self {
            Self::Bytes => ValueRef::Bytes(value),
            Self::Bits => ValueRef::Bits(value),
            Self::Decimal => ValueRef::Decimal(text()?),
            Self::Labels => text().map_or(ValueRef::BadText(value), ValueRef::Labels),
            Self::Json => text().map_or(ValueRef::BadText(value), ValueRef::Json),
            Self::Uuid => ValueRef::Uuid(parse_uuid(value)?),
            Self::Spatial => {
                // The reference system stands before the well-known binary form (MySQL manual, "Internal Geometry Storage Format").
                let (srid, wkb) = value.split_first_chunk::<4>()?;
                ValueRef::Spatial { srid: u32::from_le_bytes(*srid), wkb }
            }
            _ => text().map_or(ValueRef::BadText(value), ValueRef::Text),
        })
    }
}

#[inline]
fn fixed<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> ValueRef<'static>) -> Option<(ValueRef<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    Some((value(*head), rest))
}

/// DATE, DATETIME, TIMESTAMP: a length of 0, 4, 7 or 11, then year, month, day, hour, minute, second, microseconds.
fn moment(bytes: &[u8], has_time: bool, value: impl Fn(i64) -> ValueRef<'static>) -> Option<(ValueRef<'_>, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (parts, rest) = rest.split_at_checked(usize::from(length))?;
    if !matches!(parts.len(), 0 | 4 | 7 | 11) {
        return None;
    }
    let year = if parts.is_empty() { 0 } else { u16::from_le_bytes([parts[0], parts[1]]) };
    let (month, day) = if parts.is_empty() { (0, 0) } else { (parts[2], parts[3]) };
    let time_micros = match parts.get(4..7) {
        Some(&[hour, minute, second]) => (i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)) * MICROS,
        _ => 0,
    };
    let fraction = match parts.get(7..11) {
        Some(&[a, b, c, d]) => i64::from(u32::from_le_bytes([a, b, c, d])),
        _ => 0,
    };
    let time_micros = time_micros + fraction;
    let (y, m, d) = (i32::from(year), u32::from(month), u32::from(day));
    if year == 0 && month == 0 || !is_civil_date(y, m, d) {
        return Some((ValueRef::Odd(OddValue::ZeroDate { year, month, day, time_micros, has_time }), rest));
    }
    Some((value(i64::from(days_from_civil(y, m, d)) * 86_400 * MICROS + time_micros), rest))
}

/// TIME: a length of 0, 8 or 12, then sign, days, hour, minute, second, microseconds.
fn time(bytes: &[u8]) -> Option<(ValueRef<'_>, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (parts, rest) = rest.split_at_checked(usize::from(length))?;
    let micros = match *parts {
        [] => 0,
        [negative, d0, d1, d2, d3, hour, minute, second, ref fraction @ ..] if fraction.is_empty() || fraction.len() == 4 => {
            let days = i64::from(u32::from_le_bytes([d0, d1, d2, d3]));
            let seconds = ((days * 24 + i64::from(hour)) * 60 + i64::from(minute)) * 60 + i64::from(second);
            let fraction = fraction.try_into().map_or(0, u32::from_le_bytes);
            let micros = seconds * MICROS + i64::from(fraction);
            if negative == 0 { micros } else { -micros }
        }
        _ => return None,
    };
    Some((ValueRef::Time(micros), rest))
}

/// The canonical form: 8-4-4-4-12 hexadecimal digits.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = text.iter().filter(|&&b| b != b'-').map(|&b| (b as char).to_digit(16));
    for byte in &mut uuid {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = (high << 4 | low) as u8;
    }
    (text.len() == 36 && digits.next().is_none()).then_some(uuid)
}

/// Collects the values of some columns as text, to name a row in an error.
pub(super) struct KeyText {
    wanted: Vec<usize>,
    names: Vec<String>,
    parts: Vec<String>,
}

impl KeyText {
    pub(super) fn new(columns: &[Column], key: &[String]) -> Self {
        let position = |name: &String| columns.iter().position(|column| column.name == *name);
        let wanted: Vec<usize> = key.iter().filter_map(position).collect();
        let names = wanted.iter().map(|&index| columns[index].name.clone()).collect();
        Self { wanted, names, parts: Vec::new() }
    }

    /// `id=5, line=2`; none for a table without a key.
    pub(super) fn describe(mut self, decoder: &RowDecoder, packet: &[u8]) -> Option<String> {
        // The key's own columns decode even if a later one is refused, because this encoder refuses nothing.
        decoder.decode(packet, &mut self).ok()?;
        let pairs: Vec<String> = self.names.iter().zip(&self.parts).map(|(name, part)| format!("{name}={part}")).collect();
        (!pairs.is_empty()).then(|| pairs.join(", "))
    }
}

impl RowEncoder for KeyText {
    fn begin_row(&mut self) {
        self.parts = vec![String::new(); self.wanted.len()];
    }

    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        if let Some(place) = self.wanted.iter().position(|&wanted| wanted == column) {
            self.parts[place] = match value {
                ValueRef::Int(value) => value.to_string(),
                ValueRef::UInt(value) => value.to_string(),
                ValueRef::Text(text) | ValueRef::Decimal(text) => text.chars().take(80).collect(),
                ValueRef::Bytes(bytes) => bytes.iter().take(40).map(|byte| format!("{byte:02x}")).collect(),
                other => format!("{other:?}"),
            };
        }
        Ok(())
    }

    fn end_row(&mut self) {}

    fn abandon_row(&mut self) {}

    fn is_full(&self) -> bool {
        false
    }
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
