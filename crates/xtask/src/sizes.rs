//! No file grows beyond what one person reads in one go.

use std::path::Path;

use anyhow::bail;

use crate::shell::Step;

/// Lines at which a file is too long.
const STOP: usize = 800;

/// Files that may be longer, each with the reason.
const EXCEPTIONS: [(&str, &str); 0] = [];

/// Fails for Rust files over the limit that are no exception.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let tracked = Step::program(Path::new("git")).args(&["ls-files", "*.rs"]).output()?;
    let mut long = Vec::new();
    for path in tracked.lines() {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        let lines = text.lines().count();
        let is_exception = EXCEPTIONS.iter().any(|(name, _)| *name == path);
        if lines > STOP && !is_exception {
            long.push(format!("{path} has {lines} lines"));
        }
    }
    if long.is_empty() { Ok(()) } else { bail!("split these files ({STOP} lines is the stop): {}", long.join(", ")) }
}
