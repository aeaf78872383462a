#![allow(clippy::unwrap_used)]

use super::*;

/// Keeps what it is given as text.
#[derive(Default)]
struct Seen(Vec<String>);

impl RowEncoder for Seen {
    fn begin_row(&mut self) {
        self.0.clear();
    }
    fn value(&mut self, _: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        self.0.push(format!("{value:?}"));
        Ok(())
    }
    fn end_row(&mut self) {}
    fn abandon_row(&mut self) {}
    fn is_full(&self) -> bool {
        false
    }
}

fn column(logical: LogicalType) -> Column {
    Column {
        name: "c".into(),
        native_type: String::new(),
        logical,
        nullable: true,
        default: None,
        auto_increment: false,
        generated: None,
        comment: String::new(),
    }
}

fn announced(kind: ColumnType) -> ResultColumn {
    ResultColumn { kind, is_unsigned: false }
}

fn decode_one(logical: LogicalType, kind: ColumnType, value: &[u8]) -> Result<String, RowError> {
    let decoder = RowDecoder::new(&[column(logical)], &[announced(kind)]).unwrap();
    let mut packet = vec![0, 0];
    packet.extend_from_slice(value);
    let mut seen = Seen::default();
    decoder.decode(&packet, &mut seen)?;
    Ok(seen.0.remove(0))
}

#[test]
fn a_zero_date_is_told_apart_from_a_date() {
    let date = |bytes: &[u8]| decode_one(LogicalType::Date, ColumnType::MYSQL_TYPE_DATE, bytes).unwrap();
    assert_eq!(date(&[4, 0xB2, 0x07, 1, 1]), "Date(0)");
    assert!(date(&[0]).contains("ZeroDate { year: 0, month: 0, day: 0"), "{}", date(&[0]));
    assert!(date(&[4, 0xE5, 0x07, 0, 0]).contains("year: 2021, month: 0"));
    assert!(date(&[4, 0xE7, 0x07, 2, 30]).contains("ZeroDate"), "a day that does not exist has no native form");
}

#[test]
fn datetimes_keep_their_microseconds() {
    let bytes = [11, 0xB2, 0x07, 1, 2, 3, 4, 5, 0x40, 0xE2, 0x01, 0];
    let text = decode_one(LogicalType::DateTime(6), ColumnType::MYSQL_TYPE_DATETIME, &bytes).unwrap();
    assert_eq!(text, format!("DateTime({})", (86_400 + 3 * 3600 + 4 * 60 + 5) * MICROS + 123_456));
}

#[test]
fn times_may_be_negative_and_longer_than_a_day() {
    let bytes = [8, 1, 34, 0, 0, 0, 22, 59, 59];
    let text = decode_one(LogicalType::Time(0), ColumnType::MYSQL_TYPE_TIME, &bytes).unwrap();
    assert_eq!(text, format!("Time({})", -(838 * 3600 + 59 * 60 + 59) * MICROS));
    assert_eq!(decode_one(LogicalType::Time(0), ColumnType::MYSQL_TYPE_TIME, &[0]).unwrap(), "Time(0)");
}

#[test]
fn nulls_come_from_the_bitmap() {
    let columns: Vec<Column> = (0..9).map(|_| column(LogicalType::Int { bits: 8, unsigned: false })).collect();
    let kinds = vec![announced(ColumnType::MYSQL_TYPE_TINY); 9];
    let decoder = RowDecoder::new(&columns, &kinds).unwrap();
    // Column 0 is bit 2 of the first byte, column 6 bit 0 of the second.
    let packet = [0, 0b0000_0100, 0b0000_0001, 1, 2, 3, 4, 5, 0xFF, 8];
    let mut seen = Seen::default();
    decoder.decode(&packet, &mut seen).unwrap();
    assert_eq!(seen.0[0], "Null");
    assert_eq!(seen.0[1], "Int(1)");
    assert_eq!(seen.0[6], "Null");
    assert_eq!(seen.0[7], "Int(-1)");
}

#[test]
fn truncated_and_overlong_rows_are_malformed() {
    let int = |bytes: &[u8]| decode_one(LogicalType::Int { bits: 32, unsigned: false }, ColumnType::MYSQL_TYPE_LONG, bytes);
    assert!(matches!(int(&[1, 0, 0]), Err(RowError::Malformed)));
    assert!(matches!(int(&[1, 0, 0, 0, 9]), Err(RowError::Malformed)));
    let text = |bytes: &[u8]| decode_one(LogicalType::Text, ColumnType::MYSQL_TYPE_BLOB, bytes);
    assert!(matches!(text(&[3, b'a']), Err(RowError::Malformed)));
    let seen = text(&[2, 0xC3, 0x28]).unwrap();
    assert!(seen.contains("BadText"), "bytes that are no text are the policy's business: {seen:?}");
}

#[test]
fn a_type_that_changed_under_us_is_noticed() {
    let error = RowDecoder::new(&[column(LogicalType::Date)], &[announced(ColumnType::MYSQL_TYPE_LONG)]).unwrap_err();
    assert_eq!(error.kind(), Kind::DefinitionChanged);
}

#[test]
fn uuids_are_read_in_the_canonical_form_only() {
    assert_eq!(parse_uuid(b"00112233-4455-6677-8899-aabbccddeeff").unwrap()[15], 0xFF);
    assert!(parse_uuid(b"00112233445566778899aabbccddeeff").is_none());
    assert!(parse_uuid(b"00112233-4455-6677-8899-aabbccddeefg").is_none());
}
