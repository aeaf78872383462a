//! How much tools answer: models read everything that they are given, so that lists and samples are short unless more is asked for, and never long.

use schemars::JsonSchema;
use serde::Serialize;

/// Rows of a sample when nobody says how many, and at most.
const SAMPLE: u64 = 100;
const MOST_SAMPLED: u64 = 1_000;
/// Entries of a list when nobody says how many, and at most.
const LISTED: u64 = 100;
const MOST_LISTED: u64 = 500;
/// The most that the rows of one answer may be, bytes of text.
pub(super) const MOST_BYTES: usize = 4 << 20;

/// How many rows a sample has.
pub(super) fn sample(asked: Option<u64>) -> u64 {
    asked.unwrap_or(SAMPLE).clamp(1, MOST_SAMPLED)
}

/// How many entries a list has.
pub(super) fn list(asked: Option<u64>) -> u64 {
    asked.unwrap_or(LISTED).clamp(1, MOST_LISTED)
}

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<T> {
    /// The entries, from `offset` on.
    pub(super) items: Vec<T>,
    /// All entries that there are.
    pub(super) total: usize,
    /// Whether there are more entries behind these; ask again with an `offset`.
    pub(super) truncated: bool,
    /// At most so many entries are answered.
    pub(super) limit_applied: u64,
}

impl<T> Listed<T> {
    /// The part of all entries that was asked for.
    pub(super) fn of(all: Vec<T>, offset: Option<u64>, limit: Option<u64>) -> Self {
        let (total, limit_applied) = (all.len(), list(limit));
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let offset = count(offset.unwrap_or(0)).min(total);
        let items: Vec<T> = all.into_iter().skip(offset).take(count(limit_applied)).collect();
        Self { truncated: offset + items.len() < total, items, total, limit_applied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_samples_are_bounded_whatever_is_asked() {
        assert_eq!((sample(None), sample(Some(7)), sample(Some(0)), sample(Some(u64::MAX))), (100, 7, 1, 1000));
        assert_eq!((list(None), list(Some(7)), list(Some(0)), list(Some(u64::MAX))), (100, 7, 1, 500));
    }

    #[test]
    fn a_list_says_whether_more_follows() {
        let all = || (0..7).collect::<Vec<_>>();
        let part = |offset, limit| {
            let part = Listed::of(all(), offset, limit);
            (part.items, part.truncated, part.total)
        };
        assert_eq!(part(None, Some(3)), (vec![0, 1, 2], true, 7));
        assert_eq!(part(Some(4), Some(3)), (vec![4, 5, 6], false, 7));
        assert_eq!(part(Some(9), None), (vec![], false, 7));
    }
}
