//! Which paths may be opened.

use std::path::{Component, Path, PathBuf};

use millrace_core::files::{FileFormat, FileRoots};
use millrace_core::{Error, Kind, Result};

/// Files that one pattern may name.
const MOST_FILES: usize = 10_000;

/// Finds what a path names, below `base` if it is relative: absolute, without symbolic links, inside the roots.
///
/// A path outside is refused before the file system is asked, so that nobody learns what exists there.
///
/// # Errors
/// [`Kind::Invalid`] for a path that no file can have or that climbs; [`Kind::PermissionDenied`] with the detail `reason` = `outside` if it leaves the roots;
/// [`Kind::NotFound`] if there is nothing.
pub fn resolve(roots: &FileRoots, path: &str, base: Option<&str>) -> Result<PathBuf> {
    let absolute = absolute(roots, path, base)?;
    let real = absolute.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            Error::new(Kind::PermissionDenied, format!("`{path}` must not be read by this server")).field("path")
        }
        _ => Error::new(Kind::NotFound, format!("there is no `{path}`")).field("path"),
    })?;
    if is_inside(roots, &real) { Ok(real) } else { Err(outside(roots, path)) }
}

/// Whether a path may be a pattern: names of files may hold the same signs.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The data files that a path or a pattern (`*`, `**`, `?`, `[…]`) names, in order. What has exactly this name is meant before it is taken for a pattern.
///
/// # Errors
/// As [`resolve`]; [`Kind::Invalid`] for a file whose name says no known format; [`Kind::NotFound`] if a pattern names nothing.
pub fn expand(roots: &FileRoots, path: &str, base: Option<&str>) -> Result<Vec<PathBuf>> {
    match resolve(roots, path, base) {
        Ok(found) if is_data(&found) => return Ok(vec![found]),
        Ok(_) => return Err(no_format(path)),
        Err(error) if !is_pattern(path) => return Err(error),
        Err(_) => {}
    }
    let absolute = absolute(roots, path, base)?;
    let pattern = absolute.to_str().ok_or_else(|| Error::invalid("path", "the path is not UTF-8 text"))?;
    let matches = glob::glob(pattern).map_err(|error| Error::invalid("path", "the pattern is wrong").because(error))?;
    let mut found = Vec::new();
    for file in matches.flatten() {
        // What a link leads out of the roots is not part of the pattern's meaning.
        if let Ok(real) = file.canonicalize()
            && real.is_file()
            && is_data(&real)
            && is_inside(roots, &real)
        {
            found.push(real);
        }
        if found.len() > MOST_FILES {
            return Err(Error::invalid("path", format!("the pattern names more than {MOST_FILES} files")));
        }
    }
    if found.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("`{path}` names no data file")).field("path"));
    }
    Ok(found)
}

fn absolute(roots: &FileRoots, path: &str, base: Option<&str>) -> Result<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::invalid("path", "a path is expected"));
    }
    let path_buf = Path::new(path.strip_prefix("file://").unwrap_or(path));
    if path_buf.components().any(|component| component == Component::ParentDir) {
        return Err(Error::invalid("path", "the path must not hold `..`"));
    }
    let absolute = match base {
        Some(base) if path_buf.is_relative() => Path::new(base).join(path_buf),
        _ => path_buf.to_path_buf(),
    };
    if absolute.is_relative() {
        return Err(Error::invalid("path", "the path must be absolute"));
    }
    if is_inside(roots, &absolute) { Ok(absolute) } else { Err(outside(roots, path)) }
}

/// Whether the roots hold a path; the longest match decides.
pub(super) fn is_inside(roots: &FileRoots, path: &Path) -> bool {
    let longest = |list: &[PathBuf]| {
        let real = list.iter().filter_map(|root| root.canonicalize().ok());
        list.iter().cloned().chain(real).filter(|root| path.starts_with(root)).map(|root| root.components().count()).max()
    };
    match (longest(&roots.allowed), longest(&roots.denied)) {
        (Some(allowed), Some(denied)) => allowed > denied,
        (allowed, _) => allowed.is_some(),
    }
}

fn is_data(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| FileFormat::of_name(name).is_some())
}

fn no_format(path: &str) -> Error {
    Error::invalid("path", format!("`{path}` is no CSV, JSON, JSONL or Parquet file by its name"))
}

fn outside(roots: &FileRoots, path: &str) -> Error {
    let text = if roots.allowed.is_empty() {
        "this server has no folders for files; its operator names some in MILLRACE_FILE_ROOTS".to_owned()
    } else {
        format!("`{path}` lies outside the folders that this server opens")
    };
    Error::new(Kind::PermissionDenied, text).field("path").with("reason", "outside")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, FileRoots) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["open/in", "open/closed/again", "other"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["open/a.csv", "open/in/b.csv", "open/closed/c.csv", "open/closed/again/d.csv", "other/e.csv", "open/key.pem"] {
            std::fs::write(dir.path().join(file), "a\n1\n").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("other"), dir.path().join("open/out")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other/e.csv"), dir.path().join("open/e.csv")).unwrap();
        let roots = FileRoots {
            allowed: vec![dir.path().join("open"), dir.path().join("open/closed/again")],
            denied: vec![dir.path().join("open/closed")],
        };
        (dir, roots)
    }

    #[test]
    fn files_below_the_roots_are_found() {
        let (dir, roots) = place();
        let open = dir.path().join("open");
        for path in ["a.csv", "in/b.csv", "closed/again/d.csv", "./in/./b.csv"] {
            assert!(resolve(&roots, path, open.to_str()).is_ok(), "{path}");
        }
        assert_eq!(expand(&roots, "**/*.csv", open.to_str()).unwrap().len(), 3);
    }

    #[test]
    fn a_file_whose_name_could_be_a_pattern_is_that_file() {
        let (dir, roots) = place();
        let open = dir.path().join("open");
        for file in ["data[1].csv", "data1.csv", "a*.csv", "in/q?.csv", "in/qq.csv"] {
            std::fs::write(open.join(file), "a\n1\n").unwrap();
        }
        for (path, wanted) in [
            ("data[1].csv", vec!["data[1].csv"]),
            ("a*.csv", vec!["a*.csv"]),
            ("in/q?.csv", vec!["in/q?.csv"]),
            ("data[12].csv", vec!["data1.csv"]),
            ("data*.csv", vec!["data1.csv", "data[1].csv"]),
        ] {
            let wanted: Vec<PathBuf> = wanted.into_iter().map(|file| open.canonicalize().unwrap().join(file)).collect();
            assert_eq!(expand(&roots, path, open.to_str()).unwrap(), wanted, "{path}");
        }
    }

    #[test]
    fn paths_that_leave_the_roots_are_refused() {
        let (dir, roots) = place();
        let base = dir.path().join("open");
        let other = dir.path().join("other/e.csv").display().to_string();
        for (path, kind) in [
            ("../other/e.csv", Kind::Invalid),
            ("in/../../other/e.csv", Kind::Invalid),
            ("a.csv\0", Kind::Invalid),
            ("", Kind::Invalid),
            ("out/e.csv", Kind::PermissionDenied),
            ("e.csv", Kind::PermissionDenied),
            ("closed/c.csv", Kind::PermissionDenied),
            (other.as_str(), Kind::PermissionDenied),
            ("/etc/passwd", Kind::PermissionDenied),
            ("/does/not/exist.csv", Kind::PermissionDenied),
            ("file:///etc/passwd", Kind::PermissionDenied),
            ("%2e%2e/other/e.csv", Kind::NotFound),
            ("missing.csv", Kind::NotFound),
        ] {
            assert_eq!(resolve(&roots, path, base.to_str()).unwrap_err().kind(), kind, "{path}");
        }
        assert_eq!(expand(&roots, "key.pem", base.to_str()).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(expand(&roots, "out/*.csv", base.to_str()).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn without_roots_nothing_is_opened_and_the_words_say_why() {
        let error = resolve(&FileRoots::default(), "/tmp", None).unwrap_err();
        assert!(error.message().contains("MILLRACE_FILE_ROOTS"), "{}", error.message());
    }
}
