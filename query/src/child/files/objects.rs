//! Changes rows of one object, all or none.
//!
//! ```text
//!  is it the one? ─▶ fetch it ─▶ COPY beside it ─▶ read the copy back ─▶ put, if the object still has its etag
//! ```
//!
//! The object's name stands for the old object or for the new one whenever this ends: only the put changes it, and of two that begin with the same object the
//! store takes one. Nothing is locked.

use std::path::Path;

use millrace_connectors::s3::{Condition, LARGEST_EDITED, ObjectPath, Store};
use millrace_core::files::{FileChange, FileSet};
use millrace_core::{Error, Kind};

use super::Work;
use super::rewrite::{failpoint, write};
use crate::child::objects::{admit, wait};
use crate::wire::{FailedKind, Failure};

pub(super) fn run(work: Work<'_>, files: &FileSet, change: &FileChange) -> Result<String, Failure> {
    let ([path], Some(access)) = (files.paths.as_slice(), work.access) else {
        return Err(Failure::new(FailedKind::NotSupported, "only single files can be changed"));
    };
    let at = ObjectPath::parse(path)?;
    admit(&at.bucket, access)?;
    let store = Store::new(access);
    let head = wait(store.head(&at))??;
    let etag = head.entry.etag.clone();
    if etag.is_empty() || change.etag.as_ref().is_some_and(|wanted| *wanted != etag) {
        return Err(changed(&at).into());
    }
    if head.entry.size > LARGEST_EDITED {
        return Err(Failure::new(
            FailedKind::NotSupported,
            format!("`{at}` is larger than {} GiB and is not edited", LARGEST_EDITED >> 30),
        ));
    }
    // Names of this process's own, with the end that says format and compression.
    let end = at.name().find('.').map_or("", |dot| &at.name()[dot..]);
    let end = if end.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.') { end.to_owned() } else { plain_end(at.name()) };
    let folder = Path::new(&work.errand.temp_dir);
    let (old, new) = (folder.join(format!("old{end}")), folder.join(format!("new{end}")));
    wait(store.fetch(&at, &etag, &old))??;
    let (old_path, new_path) = (old.display().to_string(), new.display().to_string());
    work.close(&[old_path.clone(), new_path.clone()])?;
    let local = FileSet { format: files.format, paths: vec![old_path], access: None };
    write(&work.warm.connection, &local, change, &new_path)?;
    failpoint("copied");
    Ok(wait(store.put_file(&at, &new, &head, Condition::Unchanged(&etag)))??)
}

/// The last two parts of a name with odd letters, as far as they say format and compression.
fn plain_end(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let last = parts.next().filter(is_word).unwrap_or_default();
    match parts.next().filter(is_word) {
        Some(before) if matches!(last, "gz" | "zst") => format!(".{before}.{last}"),
        _ => format!(".{last}"),
    }
}

fn changed(at: &ObjectPath) -> Error {
    Error::new(Kind::Conflict, format!("`{at}` has changed meanwhile; read it again")).with("reason", "etag")
}
