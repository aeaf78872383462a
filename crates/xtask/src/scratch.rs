//! Temporary files of a run of tests, which go with it: what servers have written is gigabytes.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::shell::Step;

const PREFIX: &str = "millrace-run-";

/// A folder for the temporary files of one run.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// A new one; those of runs that were killed are removed.
    pub(crate) fn new() -> std::io::Result<Self> {
        let root = std::env::temp_dir();
        for entry in std::fs::read_dir(&root)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        // Database servers run as users of their own.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).permissions(permissions).tempdir_in(root).map(Self)
    }

    /// The step, with its temporary files in here.
    pub(crate) fn of(&self, step: Step) -> Step {
        step.env("TMPDIR", &self.0.path().to_string_lossy())
    }
}

/// GiB that are free where a path is.
pub(crate) fn free(path: &Path) -> std::io::Result<u64> {
    let stat = statvfs(path)?;
    Ok((stat.blocks_available() * stat.fragment_size()) >> 30)
}
