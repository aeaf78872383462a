//! `s3://bucket/key`: a key is any text, so nothing of it is decoded or cleaned.

use millrace_core::files::FileFormat;
use millrace_core::objects::SCHEME;
use millrace_core::validate::check_bucket;
use millrace_core::{Error, Kind, Result};

/// The most bytes of a key.
const LONGEST_KEY: usize = 1024;

/// Whether a path names an object.
pub fn is_object_path(path: &str) -> bool {
    path.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
}

/// A bucket and a key, or the start of keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectPath {
    /// The bucket.
    pub bucket: String,
    /// The key; may be empty or a pattern.
    pub key: String,
}

impl ObjectPath {
    /// Reads `s3://bucket/key`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the field `path`.
    pub fn parse(path: &str) -> Result<Self> {
        let wrong = |text: &str| Error::invalid("path", text.to_owned());
        if !is_object_path(path) {
            return Err(wrong("the path of an object begins with `s3://`"));
        }
        let rest = &path[SCHEME.len()..];
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        check_bucket(bucket).map_err(wrong)?;
        Self::new(bucket, key)
    }

    /// A bucket, which is known to be one, and a key.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for keys that cannot be asked for: clients of HTTP on the way would take their `.` and `..` for places in a tree.
    pub fn new(bucket: &str, key: &str) -> Result<Self> {
        let wrong = |text: &str| Err(Error::invalid("path", text.to_owned()));
        if key.len() > LONGEST_KEY {
            return wrong("a key has at most 1024 bytes");
        }
        if key.split('/').any(|part| part == ".." || part == ".") {
            return wrong("a key must not have `.` or `..` as one of its parts");
        }
        if key.chars().any(char::is_control) {
            return wrong("a key must not hold control characters");
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// A path below another one, unless it is one by itself.
    ///
    /// # Errors
    /// As [`ObjectPath::parse`].
    pub fn below(base: Option<&Self>, path: &str) -> Result<Self> {
        match base {
            Some(base) if !path.contains("://") => {
                let folder = if base.key.is_empty() || base.key.ends_with('/') { base.key.clone() } else { format!("{}/", base.key) };
                Self::new(&base.bucket, &format!("{folder}{}", path.trim_start_matches('/')))
            }
            _ => Self::parse(path),
        }
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The format that the name says.
    pub fn format(&self) -> Option<FileFormat> {
        FileFormat::of_name(self.name())
    }

    /// What stands before the first sign of a pattern; none if there is none.
    pub fn before_pattern(&self) -> Option<&str> {
        self.key.find(['*', '?', '[']).map(|place| &self.key[..place])
    }

    /// The pattern of the key.
    ///
    /// # Errors
    /// [`Kind::Invalid`] if it is none.
    pub(super) fn pattern(&self) -> Result<glob::Pattern> {
        glob::Pattern::new(&self.key).map_err(|error| Error::new(Kind::Invalid, "the pattern is wrong").because(error).field("path"))
    }
}

impl std::fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bucket, self.key)
    }
}

/// How patterns are compared: `*` stays within one part of a key, `**` does not.
pub(super) const MATCHING: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_as_they_are() {
        for key in ["a b.csv", "a%20b.csv", "a+b.csv", "ü/ñ.csv", "a..b.csv", "x?y=1.csv", "#1.csv", "/leading", "a//b", ""] {
            let path = format!("s3://my-bucket/{key}");
            let read = ObjectPath::parse(&path).unwrap();
            assert_eq!((read.bucket.as_str(), read.key.as_str()), ("my-bucket", key));
            assert_eq!(read.to_string(), path);
        }
        assert_eq!(ObjectPath::parse("S3://bucket").unwrap().key, "");
    }

    #[test]
    fn what_is_no_object_s_path_is_refused() {
        for path in
            ["", "/tmp/a.csv", "s3:/b/k", "s3://", "s3://b/k", "s3://-ab/k", "s3://bucket/a/../b", "s3://bucket/./b", "s3://bucket/a\nb"]
        {
            assert_eq!(ObjectPath::parse(path).unwrap_err().field_name(), Some("path"), "{path}");
        }
        assert!(ObjectPath::parse(&format!("s3://bucket/{}", "k".repeat(1025))).is_err());
    }

    #[test]
    fn relative_paths_stand_below_the_scope() {
        let base = ObjectPath::parse("s3://bucket/in").unwrap();
        assert_eq!(ObjectPath::below(Some(&base), "a.csv").unwrap().to_string(), "s3://bucket/in/a.csv");
        assert_eq!(ObjectPath::below(Some(&base), "s3://other/a.csv").unwrap().to_string(), "s3://other/a.csv");
        assert!(ObjectPath::below(Some(&base), "../a.csv").is_err());
        assert!(ObjectPath::below(None, "a.csv").is_err());
    }
}
