//! What a folder holds.

use std::path::{Path, PathBuf};

use millrace_core::files::{FileFormat, FileRoots};
use millrace_core::{Error, Kind, Result};

use super::roots::is_inside;

/// Entries of a folder that are looked at.
const MOST: usize = 10_000;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderEntry {
    /// Its name.
    pub name: String,
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Bytes, of files.
    pub size: Option<u64>,
    /// Of a file by its name; of a folder the one of all its files.
    pub format: Option<FileFormat>,
    /// Data files of a folder that can be read as one table.
    pub table_files: Option<usize>,
}

/// The entries of a folder, folders first, each by name. Hidden entries and links that lead out of the roots are left out.
///
/// # Errors
/// [`Kind::Invalid`] if it is no folder or cannot be read.
pub fn list(roots: &FileRoots, folder: &Path, only_data: bool) -> Result<Vec<FolderEntry>> {
    let mut entries: Vec<FolderEntry> = names(folder)?.into_iter().filter_map(|name| entry(roots, folder, name)).collect();
    if only_data {
        entries.retain(|entry| entry.is_dir || entry.format.is_some());
    }
    entries.sort_by(|a, b| b.is_dir.cmp(&a.is_dir).then_with(|| a.name.cmp(&b.name)));
    Ok(entries)
}

/// The data files of a folder that is one table: all of one format, manifests aside.
///
/// # Errors
/// [`Kind::Invalid`] if it is no folder, holds no data files or several formats.
pub fn table_files(roots: &FileRoots, folder: &Path) -> Result<(FileFormat, Vec<PathBuf>)> {
    let no_table = |text: &str| Error::invalid("path", format!("`{}` {text}", folder.display()));
    let mut files = Vec::new();
    let mut format = None;
    for name in names(folder)?.into_iter().filter(|name| !is_manifest(name)) {
        let Some(found) = FileFormat::of_name(&name) else { continue };
        let Ok(path) = folder.join(&name).canonicalize() else { continue };
        if !path.is_file() || !is_inside(roots, &path) {
            continue;
        }
        if *format.get_or_insert(found) != found {
            return Err(no_table("holds files of several formats"));
        }
        files.push(path);
    }
    files.sort();
    format.map(|format| (format, files)).ok_or_else(|| no_table("holds no data files"))
}

/// Whether a new file can be made in a folder, or a file be replaced.
///
/// # Errors
/// [`Kind::PermissionDenied`] with the operating system's reason.
pub fn is_writable(path: &Path) -> Result<()> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let refused = |error: std::io::Error| {
        let text = format!("`{}` cannot be written", path.display());
        Error::new(Kind::PermissionDenied, text).because(error)
    };
    // Permissions, read-only mounts and quotas: the only sure answer is to try.
    tempfile::Builder::new().prefix(".millrace-").suffix(".tmp").tempfile_in(folder).map_err(refused)?;
    if path.is_file() {
        std::fs::OpenOptions::new().append(true).open(path).map_err(refused)?;
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let unreadable = |error: std::io::Error| Error::invalid("path", format!("`{}` cannot be listed", folder.display())).because(error);
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let names = entries.take(MOST).flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

fn entry(roots: &FileRoots, folder: &Path, name: String) -> Option<FolderEntry> {
    let path = folder.join(&name);
    let real = path.canonicalize().ok().filter(|real| is_inside(roots, real))?;
    let found = real.metadata().ok()?;
    if found.is_dir() {
        let table = table_files(roots, &real).ok();
        let (format, files) = table.map_or((None, None), |(format, files)| (Some(format), Some(files.len())));
        return Some(FolderEntry { name, path, is_dir: true, size: None, format, table_files: files });
    }
    let format = FileFormat::of_name(&name).filter(|_| found.is_file());
    Some(FolderEntry { name, path, is_dir: false, size: Some(found.len()), format, table_files: None })
}

/// Names under which manifests lie beside the files that they list.
fn is_manifest(name: &str) -> bool {
    name == "manifest.json" || name == "_manifest.json" || (name.starts_with("manifest-") && name.ends_with(".json"))
}
