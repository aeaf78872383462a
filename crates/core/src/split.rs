//! Splits: bounded pieces of a table, planned once, that together hold every row exactly once.

use serde::{Deserialize, Serialize};

/// A piece of one table.
///
/// Invariant: the ranges of a table's splits are disjoint and cover every row at the cut, because each is `lower <= key < upper` under the source's own
/// comparison, one split's upper bound is the next one's lower bound, the first has no lower and the last no upper bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Index of the table in the plan.
    pub table: usize,
    /// Running number in the table, from 0.
    pub ordinal: u32,
    /// Which rows.
    pub range: SplitRange,
    /// The source's estimate of its rows.
    pub estimated_rows: u64,
}

/// Which rows of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SplitRange {
    /// All of them.
    Whole,
    /// `lower <= key < upper` over these key columns, compared from left to right.
    Key {
        /// Key columns, in key order.
        columns: Vec<String>,
        /// One bound per column, or none for "from the start".
        lower: Option<Vec<KeyBound>>,
        /// One bound per column, or none for "to the end".
        upper: Option<Vec<KeyBound>>,
    },
}

/// One column's part of a bound: a value as the source itself gave it, sent back as a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyBound {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// Text (also decimals, dates and times in the source's own spelling).
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Fails unless consecutive splits touch: no gap, no overlap, open at both ends.
pub fn check_cover(splits: &[Split]) -> Result<(), String> {
    let mut previous: Option<&Option<Vec<KeyBound>>> = None;
    for (index, split) in splits.iter().enumerate() {
        if split.ordinal as usize != index {
            return Err(format!("split {} stands at place {index}", split.ordinal));
        }
        match (&split.range, splits.len()) {
            (SplitRange::Whole, 1) => return Ok(()),
            (SplitRange::Whole, _) => return Err("a whole-table split has neighbours".into()),
            (SplitRange::Key { lower, upper, .. }, count) => {
                if previous.unwrap_or(&None) != lower {
                    return Err(format!("split {index} does not start where the one before ends"));
                }
                if upper.is_none() != (index + 1 == count) {
                    return Err(format!("split {index} has the wrong end"));
                }
                previous = Some(upper);
            }
        }
    }
    if splits.is_empty() { Err("no split".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ordinal: u32, lower: Option<i64>, upper: Option<i64>) -> Split {
        let bound = |value: Option<i64>| value.map(|value| vec![KeyBound::Int(value)]);
        let range = SplitRange::Key { columns: vec!["id".into()], lower: bound(lower), upper: bound(upper) };
        Split { table: 0, ordinal, range, estimated_rows: 0 }
    }

    #[test]
    fn touching_splits_cover_a_table() {
        assert_eq!(check_cover(&[key(0, None, Some(5)), key(1, Some(5), None)]), Ok(()));
        assert_eq!(check_cover(&[key(0, None, None)]), Ok(()));
    }

    #[test]
    fn gaps_overlaps_and_closed_ends_are_found() {
        assert!(check_cover(&[key(0, None, Some(5)), key(1, Some(6), None)]).is_err());
        assert!(check_cover(&[key(0, None, Some(5)), key(1, Some(4), None)]).is_err());
        assert!(check_cover(&[key(0, Some(1), None)]).is_err());
        assert!(check_cover(&[key(0, None, Some(5))]).is_err());
        assert!(check_cover(&[]).is_err());
    }
}
