//! How a path is best read.

use std::collections::BTreeSet;

use millrace_core::objects::ObjectEntry;
use millrace_core::{Kind, Result};

use super::client::Store;
use super::find::{Found, find};
use super::path::ObjectPath;

/// From so many files on a manifest saves time.
const MANY: usize = 1000;
/// Files of less than this are small, bytes.
const SMALL: u64 = 1 << 20;

/// How the objects of a path are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is one object.
    Direct,
    /// It names several.
    Glob,
    /// It names several whose folders hold values of columns (`year=2026`).
    Hive,
    /// A manifest lists them.
    Manifest,
}

impl Mode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Glob => "glob",
            Self::Hive => "hive",
            Self::Manifest => "manifest",
        }
    }
}

/// How a path is best read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// Whether it can be read.
    pub is_valid: bool,
    /// The way.
    pub mode: Mode,
    /// Why this way, or why it cannot be read.
    pub reason: String,
    /// The columns that folders hold values of, outermost first.
    pub partitions: Vec<String>,
    /// What may surprise.
    pub warnings: Vec<String>,
}

/// Looks at what a path names.
///
/// # Errors
/// Those of the store; a path that names nothing is not one.
pub async fn strategy(store: &Store, at: &ObjectPath) -> Result<Strategy> {
    let invalid = |mode: Mode, reason: String| Strategy { is_valid: false, mode, reason, partitions: Vec::new(), warnings: Vec::new() };
    let guessed = if at.before_pattern().is_some() { Mode::Glob } else { Mode::Direct };
    match find(store, at, true).await {
        Ok(found) => Ok(judge(&found)),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::NotSupported) => Ok(invalid(guessed, error.message().to_owned())),
        Err(error) if error.kind() == Kind::Invalid && error.field_name() == Some("path") => {
            Ok(invalid(guessed, error.message().to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn judge(found: &Found) -> Strategy {
    let count = found.objects.len();
    let partitions = hive_names(&found.objects);
    let mut warnings = Vec::new();
    let formats: BTreeSet<&str> = found.objects.iter().map(|(path, _)| path.format().map_or("unknown", |format| format.as_str())).collect();
    let is_one_format = formats.len() == 1 && !formats.contains("unknown");
    if formats.contains("unknown") {
        warnings.push("the names of some files say no known format".to_owned());
    }
    if formats.len() > 1 {
        let list: Vec<&str> = formats.into_iter().collect();
        warnings.push(format!("the files have several formats: {}", list.join(", ")));
    }
    let empty = found.objects.iter().filter(|(_, entry)| entry.size == 0).count();
    if empty > 0 && found.mode != Mode::Manifest {
        warnings.push(format!("{empty} of the files are empty"));
    }
    if partitions.is_empty() && found.objects.iter().any(|(path, _)| has_partition(path)) {
        warnings.push("some folders look like partitions, but not all files have the same ones".to_owned());
    }
    if count > 100 && found.size() / (count as u64) < SMALL && found.mode != Mode::Manifest {
        warnings.push(format!("{count} files of less than 1 MiB on average; fewer and larger ones are read faster"));
    }
    if count > MANY && found.mode != Mode::Manifest {
        warnings.push("listing so many files takes long; a manifest beside them saves it".to_owned());
    }
    let mode = if partitions.is_empty() || found.mode == Mode::Direct || found.mode == Mode::Manifest { found.mode } else { Mode::Hive };
    let reason = match mode {
        Mode::Direct => "the path is one object".to_owned(),
        Mode::Glob => format!("the path names {count} files"),
        Mode::Hive => format!("the path names {count} files whose folders hold values of {}", partitions.join(", ")),
        Mode::Manifest => match &found.manifest {
            Some(manifest) => format!("`{manifest}` lists {count} files"),
            None => format!("a manifest lists {count} files"),
        },
    };
    Strategy { is_valid: is_one_format, mode, reason, partitions, warnings }
}

/// The columns that the folders of all objects hold values of; none unless all have the same.
pub(super) fn hive_names(objects: &[(ObjectPath, ObjectEntry)]) -> Vec<String> {
    let names = |path: &ObjectPath| -> Vec<String> {
        let folders = path.key.rsplit_once('/').map_or("", |(folders, _)| folders);
        folders.split('/').filter_map(|folder| Some(folder.split_once('=')?.0.to_owned())).filter(|name| !name.is_empty()).collect()
    };
    let Some((first, _)) = objects.first() else { return Vec::new() };
    let wanted = names(first);
    if objects.iter().all(|(path, _)| names(path) == wanted) { wanted } else { Vec::new() }
}

fn has_partition(path: &ObjectPath) -> bool {
    path.key.rsplit_once('/').is_some_and(|(folders, _)| folders.split('/').any(|folder| folder.contains('=')))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(mode: Mode, keys: &[(&str, u64)]) -> Found {
        let object = |(key, size): &(&str, u64)| {
            let entry = ObjectEntry { key: (*key).into(), size: *size, ..ObjectEntry::default() };
            (ObjectPath::new("bucket", key).unwrap(), entry)
        };
        Found { mode, objects: keys.iter().map(object).collect(), manifest: None, etag: String::new() }
    }

    #[test]
    fn partitions_are_those_that_all_files_have() {
        let same = judge(&found(Mode::Glob, &[("t/y=2025/m=1/a.parquet", 9), ("t/y=2026/m=2/b.parquet", 9)]));
        assert_eq!((same.is_valid, same.mode, same.partitions), (true, Mode::Hive, vec!["y".to_owned(), "m".to_owned()]));
        let odd = judge(&found(Mode::Glob, &[("t/y=2025/a.parquet", 9), ("t/b.parquet", 9)]));
        assert_eq!((odd.mode, odd.partitions.len(), odd.warnings.len()), (Mode::Glob, 0, 1), "{odd:?}");
    }

    #[test]
    fn what_may_surprise_is_told() {
        let mixed = judge(&found(Mode::Glob, &[("a.csv", 9), ("b.parquet", 0)]));
        assert!(!mixed.is_valid && mixed.warnings.len() == 2, "{mixed:?}");
        let keys: Vec<String> = (0..1001).map(|n| format!("{n}.csv")).collect();
        let keys: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), 10)).collect();
        let many = judge(&found(Mode::Glob, &keys));
        assert!(many.is_valid && many.warnings.len() == 2, "{many:?}");
        assert!(judge(&found(Mode::Manifest, &keys)).warnings.is_empty());
        let one = judge(&found(Mode::Direct, &[("y=1/a.csv", 9)]));
        assert_eq!((one.mode, one.partitions), (Mode::Direct, vec!["y".to_owned()]));
    }
}
