//! The objects that a path names: one, those of a pattern, those of a folder, those of a manifest.

use millrace_core::files::FileFormat;
use millrace_core::objects::ObjectEntry;
use millrace_core::{Error, Kind, Result};
use sha2::{Digest as _, Sha256};

use super::client::Store;
use super::manifest::{find_manifest, is_manifest_name, objects_of, read_manifest};
use super::path::{MATCHING, ObjectPath};
use super::strategy::{Mode, hive_names};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How the objects were found.
    pub mode: Mode,
    /// At least one, each with what is known of it.
    pub objects: Vec<(ObjectPath, ObjectEntry)>,
    /// The manifest that lists them.
    pub manifest: Option<ObjectPath>,
    /// Another text if one of the objects is another one; the etag of a single object.
    pub etag: String,
}

impl Found {
    fn of(mode: Mode, mut objects: Vec<(ObjectPath, ObjectEntry)>, manifest: Option<(ObjectPath, String)>) -> Self {
        let (manifest, listed) = manifest.map_or((None, String::new()), |(path, etag)| (Some(path), etag));
        if mode != Mode::Manifest {
            objects.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let etag = match objects.as_slice() {
            [(_, one)] if mode == Mode::Direct => one.etag.clone(),
            many => {
                let mut hash = Sha256::new_with_prefix(&listed);
                for (path, entry) in many {
                    hash.update(format!("{path}\n{}\n", entry.etag));
                }
                hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
            }
        };
        Self { mode, objects, manifest, etag }
    }

    /// Bytes of all objects together; of those of a manifest, what it says.
    pub fn size(&self) -> u64 {
        self.objects.iter().map(|(_, entry)| entry.size).sum()
    }

    /// The format of all objects.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the field `path` if they have several.
    pub fn format(&self) -> Result<Option<FileFormat>> {
        let mut formats = self.objects.iter().map(|(path, _)| path.format());
        let first = formats.next().flatten();
        if formats.all(|format| format == first) {
            return Ok(first);
        }
        Err(Error::invalid("path", "the path names files of several formats"))
    }
}

/// Finds what a path names. With `reads_manifests` the path of a manifest, or of a folder with one, names what it lists.
///
/// # Errors
/// [`Kind::NotFound`] if it names nothing; [`Kind::Invalid`] with the field `path` if it names more than the access allows; those of the store.
pub async fn find(store: &Store, at: &ObjectPath, reads_manifests: bool) -> Result<Found> {
    let found = find_any(store, at, reads_manifests).await?;
    let limits = store.access().limits;
    if found.objects.len() > limits.objects {
        return Err(Error::invalid("path", format!("`{at}` names more than {} objects", limits.objects)));
    }
    match limits.bytes {
        Some(most) if found.size() > most => {
            Err(Error::invalid("path", format!("`{at}` names {} bytes; the session allows {most}", found.size())))
        }
        _ => Ok(found),
    }
}

async fn find_any(store: &Store, at: &ObjectPath, reads_manifests: bool) -> Result<Found> {
    if at.key.is_empty() || at.key.ends_with('/') {
        return folder(store, at, &at.key, reads_manifests).await;
    }
    // A key may hold the signs of patterns, so the object itself comes first.
    let missing = match store.head(at).await {
        Ok(head) => {
            if reads_manifests && is_manifest_name(&at.key) {
                return listed(store, at).await;
            }
            return Ok(Found::of(Mode::Direct, vec![(at.clone(), head.entry)], None));
        }
        Err(error) => error,
    };
    let is_missing = missing.kind() == Kind::NotFound && missing.detail("code") != Some("NoSuchBucket");
    match at.before_pattern() {
        Some(start) if is_missing || missing.kind() == Kind::PermissionDenied => matching(store, at, start).await,
        None if is_missing => match folder(store, at, &format!("{}/", at.key), reads_manifests).await {
            Err(error) if error.kind() == Kind::NotFound => Err(missing),
            other => other,
        },
        _ => Err(missing),
    }
}

async fn matching(store: &Store, at: &ObjectPath, start: &str) -> Result<Found> {
    let pattern = at.pattern()?;
    let listed = store.all(at, start, true).await?.objects;
    let named = listed.into_iter().filter(|object| pattern.matches_with(&object.key, MATCHING) && is_data(&object.key));
    let objects: Vec<_> = named.filter_map(|entry| Some((ObjectPath::new(&at.bucket, &entry.key).ok()?, entry))).collect();
    if objects.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("`{at}` names no data file")).field("path"));
    }
    let mode = if hive_names(&objects).is_empty() { Mode::Glob } else { Mode::Hive };
    Ok(Found::of(mode, objects, None))
}

async fn folder(store: &Store, at: &ObjectPath, prefix: &str, reads_manifests: bool) -> Result<Found> {
    if reads_manifests && let Some(entry) = find_manifest(store, &at.bucket, prefix).await.map_err(in_path)? {
        let manifest = ObjectPath::new(&at.bucket, &entry.key)?;
        // A file of that name may be something else.
        match listed(store, &manifest).await {
            Err(error) if error.kind() == Kind::Invalid => {}
            other => return other,
        }
    }
    let data = |objects: Vec<ObjectEntry>| -> Vec<(ObjectPath, ObjectEntry)> {
        let data = objects.into_iter().filter(|object| is_data(&object.key) && !is_manifest_name(&object.key));
        data.filter_map(|entry| Some((ObjectPath::new(&at.bucket, &entry.key).ok()?, entry))).collect()
    };
    let level = store.all(at, prefix, false).await?;
    let objects = data(level.objects);
    if !objects.is_empty() {
        return Ok(Found::of(Mode::Glob, objects, None));
    }
    let is_hive = |part: &String| part.strip_prefix(prefix).is_some_and(|part| part.contains('='));
    if level.prefixes.iter().any(is_hive) {
        let objects = data(store.all(at, prefix, true).await?.objects);
        if !objects.is_empty() {
            return Ok(Found::of(Mode::Hive, objects, None));
        }
    }
    let text = format!("there is no `{at}`, and no data file below it");
    Err(Error::new(Kind::NotFound, text).field("path"))
}

async fn listed(store: &Store, manifest: &ObjectPath) -> Result<Found> {
    let (content, etag) = read_manifest(store, manifest).await?;
    let objects = objects_of(&content, manifest)?;
    if objects.is_empty() {
        return Err(Error::new(Kind::NotFound, format!("`{manifest}` lists no files")).field("path"));
    }
    Ok(Found::of(Mode::Manifest, objects, Some((manifest.clone(), etag))))
}

/// Whether a key is a data file's by its name. What begins with an underscore or a dot is a note of the program that wrote the others.
fn is_data(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or_default();
    FileFormat::of_name(name).is_some() && !name.starts_with(['_', '.'])
}

fn in_path(error: Error) -> Error {
    if error.field_name() == Some("bucket") { error.field("path") } else { error }
}
