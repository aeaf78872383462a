//! Names: quoting, PostgreSQL's limit of 63 bytes, and its schema-wide name space of indexes and tables.

use std::collections::BTreeSet;

/// The longest name (`NAMEDATALEN` - 1).
pub(super) const MAX_BYTES: usize = 63;

/// A name as it stands in a statement.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema-qualified name as it stands in a statement.
pub(super) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

/// A text as it stands in a statement, whatever `standard_conforming_strings` says.
pub(super) fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Hands out names that are valid and not taken.
#[derive(Debug, Default)]
pub(super) struct NameSpace(BTreeSet<String>);

impl NameSpace {
    /// Takes names that exist already.
    pub(super) fn reserve(&mut self, names: &[String]) {
        self.0.extend(names.iter().cloned());
    }

    /// The wanted name if it fits and is free, else `fallback`, else that with a short hash of the wanted name; always the same for the same
    /// sequence of calls.
    pub(super) fn claim(&mut self, wanted: &str, fallback: &str) -> String {
        let hashed = |name: &str, salt: u32| {
            let suffix = format!("_{:08x}", fnv1a(&format!("{wanted}/{fallback}/{salt}")));
            format!("{}{suffix}", shorten(name, MAX_BYTES - suffix.len()))
        };
        let candidates = [wanted.to_owned(), fallback.to_owned()];
        let found = candidates
            .into_iter()
            .find(|name| !name.is_empty() && name.len() <= MAX_BYTES && !self.0.contains(name))
            .or_else(|| (0..u32::MAX).map(|salt| hashed(fallback, salt)).find(|name| !self.0.contains(name)))
            .unwrap_or_default();
        self.0.insert(found.clone());
        found
    }
}

/// The longest start of a name that ends on a character's end.
fn shorten(name: &str, bytes: usize) -> &str {
    let mut end = name.len().min(bytes);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_literals_escaped() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\b'"), "E'a\\\\b'''");
    }

    #[test]
    fn a_taken_name_is_mapped_and_no_name_is_given_twice() {
        let mut names = NameSpace::default();
        assert_eq!(names.claim("by_name", "a_by_name"), "by_name");
        assert_eq!(names.claim("by_name", "b_by_name"), "b_by_name");
        let third = names.claim("by_name", "b_by_name");
        assert!(third.starts_with("b_by_name_") && third.len() <= MAX_BYTES, "{third}");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let mut names = NameSpace::default();
        let long = "ä".repeat(40);
        let first = names.claim(&long, &long);
        let second = names.claim(&long, &long);
        assert!(first.len() <= MAX_BYTES && second.len() <= MAX_BYTES && first != second);
    }
}
