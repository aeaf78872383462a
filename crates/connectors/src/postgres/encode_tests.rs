#![allow(clippy::unwrap_used)]

use millrace_core::plan::Verdict;

use super::*;

fn numeric(text: &str) -> (i16, i16, u16, u16, Vec<u16>) {
    let mut block = BytesMut::new();
    assert!(put_numeric(&mut block, text));
    parse_numeric(&block)
}

fn parse_numeric(block: &[u8]) -> (i16, i16, u16, u16, Vec<u16>) {
    let at = |index: usize| u16::from_be_bytes([block[index], block[index + 1]]);
    let length = i32::from_be_bytes([block[0], block[1], block[2], block[3]]);
    assert_eq!(length as usize + 4, block.len());
    let digits = block[12..].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    (at(4) as i16, at(6) as i16, at(8), at(10), digits)
}

#[test]
fn decimals_become_base_10000_digits() {
    assert_eq!(numeric("0"), (0, 0, 0, 0, vec![]));
    assert_eq!(numeric("0.00"), (0, 0, 0, 2, vec![]));
    assert_eq!(numeric("-0.00"), (0, 0, 0, 2, vec![]));
    assert_eq!(numeric("1"), (1, 0, 0, 0, vec![1]));
    assert_eq!(numeric("-12345.678"), (3, 1, 0x4000, 3, vec![1, 2345, 6780]));
    assert_eq!(numeric("100000000"), (1, 2, 0, 0, vec![1]));
    assert_eq!(numeric("0.0001"), (1, -1, 0, 4, vec![1]));
    assert_eq!(numeric("0.00001"), (1, -2, 0, 5, vec![1000]));
    assert_eq!(numeric("000123.4500"), (2, 0, 0, 4, vec![123, 4500]));
}

#[test]
fn integers_become_the_same_digits_as_their_text() {
    for value in [0u64, 1, 9999, 10_000, 123_456_789, 1_0000_0000, u64::MAX] {
        let mut block = BytesMut::new();
        put_integer(&mut block, false, value);
        assert_eq!(parse_numeric(&block), numeric(&value.to_string()), "{value}");
    }
}

#[test]
fn malformed_decimals_are_refused() {
    for text in ["", "-", ".", "1e5", "1.2.3", "x"] {
        assert!(!put_numeric(&mut BytesMut::new(), text), "{text}");
    }
}

#[test]
fn bits_are_aligned_to_the_left() {
    let bits = |length, bytes: &[u8]| {
        let mut block = BytesMut::new();
        put_bits(&mut block, length, bytes);
        block[8..].to_vec()
    };
    assert_eq!(bits(13, &[0x10, 0x01]), [0x80, 0x08]);
    assert_eq!(bits(8, &[0xA5]), [0xA5]);
    assert_eq!(bits(64, &[0xFF; 8]), [0xFF; 8]);
    assert_eq!(bits(57, &[1, 0, 0, 0, 0, 0, 0, 1]), [0x80, 0, 0, 0, 0, 0, 0, 0x80]);
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

fn encoder(logical: LogicalType, to: &str, verdict: Verdict) -> CopyEncoder {
    let target = ColumnPlan {
        source: "c".into(),
        target: "c".into(),
        from: String::new(),
        to: to.into(),
        verdict,
        reason: String::new(),
        is_written: true,
        labels: Vec::new(),
        srid: None,
    };
    CopyEncoder::new(&[&column(logical)], &[target]).unwrap()
}

#[test]
fn a_refused_row_leaves_the_block_as_it_was() {
    let mut encoder = encoder(LogicalType::Text, "text", Verdict::Exact);
    encoder.begin_row();
    encoder.value(0, ValueRef::Text("kept")).unwrap();
    encoder.end_row();
    let before = encoder.block.clone();
    encoder.begin_row();
    assert!(encoder.value(0, ValueRef::Text("a\0b")).is_err());
    encoder.abandon_row();
    assert_eq!(encoder.block, before);
}

#[test]
fn a_zero_date_follows_its_policy_and_is_counted_with_its_row() {
    let zero = ValueRef::Odd(millrace_core::value::OddValue::ZeroDate { year: 0, month: 0, day: 0, time_micros: 0, has_time: false });
    let mut lenient = encoder(LogicalType::Date, "date", Verdict::Policy(OnLoss::Null));
    lenient.begin_row();
    lenient.value(0, zero).unwrap();
    lenient.abandon_row();
    assert_eq!(lenient.losses(), [0]);
    lenient.begin_row();
    lenient.value(0, zero).unwrap();
    lenient.end_row();
    assert_eq!(lenient.losses(), [1]);
    let mut strict = encoder(LogicalType::Date, "date", Verdict::Policy(OnLoss::Error));
    strict.begin_row();
    assert!(strict.value(0, zero).unwrap_err().reason.contains("0000-00-00"));
}
