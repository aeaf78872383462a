//! Manifests: lists of files that save asking the store for one.

use std::collections::{BTreeMap, BTreeSet};

use millrace_core::files::FileFormat;
use millrace_core::objects::{Manifest, ManifestMetadata, ManifestObject, ObjectEntry, SCHEME};
use millrace_core::{Error, Kind, Result};

use super::client::Store;
use super::list::{Page, Paging};
use super::object::Condition;
use super::path::{MATCHING, ObjectPath, is_object_path};

/// The most bytes of a manifest.
pub const LARGEST_MANIFEST: u64 = 32 << 20;
/// The most files of one.
const MOST_FILES: usize = 200_000;

/// Whether a key is one under which manifests lie: `manifest.json`, `_manifest.json`, `manifest-*.json`, or any `.json` in a folder `manifests`.
pub fn is_manifest_name(key: &str) -> bool {
    let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
    let is_in_folder = folder.rsplit('/').next() == Some("manifests");
    name == "manifest.json" || name == "_manifest.json" || name.ends_with(".json") && (name.starts_with("manifest-") || is_in_folder)
}

/// The manifest that lies just below a folder (an empty text or one that ends with a slash); the newest, if there are several of the same kind.
///
/// # Errors
/// Those of the store.
pub async fn find_manifest(store: &Store, bucket: &str, folder: &str) -> Result<Option<ObjectEntry>> {
    let list = async |prefix: String| store.page(bucket, &prefix, Paging { is_recursive: false, limit: 1000, token: None }).await;
    let beside = list(format!("{folder}manifest")).await?;
    let exact = |objects: &[ObjectEntry], name: &str| objects.iter().find(|object| object.key.strip_prefix(folder) == Some(name)).cloned();
    if let Some(found) = exact(&beside.objects, "manifest.json") {
        return Ok(Some(found));
    }
    let hidden = list(format!("{folder}_manifest.json")).await?;
    if let Some(found) = exact(&hidden.objects, "_manifest.json") {
        return Ok(Some(found));
    }
    let newest = |objects: Vec<ObjectEntry>| {
        let manifests = objects.into_iter().filter(|object| is_manifest_name(&object.key));
        manifests.max_by(|a, b| (&a.last_modified, &a.key).cmp(&(&b.last_modified, &b.key)))
    };
    if let Some(found) = newest(beside.objects) {
        return Ok(Some(found));
    }
    if beside.prefixes.iter().any(|prefix| prefix.strip_prefix(folder) == Some("manifests/")) {
        return Ok(newest(list(format!("{folder}manifests/")).await?.objects));
    }
    Ok(None)
}

/// A stored manifest and its etag.
///
/// # Errors
/// [`Kind::NotFound`] if there is none; [`Kind::Invalid`] with the field `path` if it is no manifest.
pub async fn read_manifest(store: &Store, at: &ObjectPath) -> Result<(Manifest, String)> {
    let (bytes, etag) = store.bytes(at, LARGEST_MANIFEST).await?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid("path", format!("`{at}` is no manifest: a JSON object with `files` is expected")).because(error))?;
    if manifest.files.len() > MOST_FILES {
        return Err(Error::invalid("path", format!("`{at}` lists more than {MOST_FILES} files")));
    }
    Ok((manifest, etag))
}

/// Stores a manifest; answers its etag.
///
/// # Errors
/// [`Kind::Conflict`] with the detail `reason` = `etag` if the condition does not hold.
pub async fn write_manifest(store: &Store, at: &ObjectPath, manifest: &Manifest, condition: Condition<'_>) -> Result<String> {
    let bytes = serde_json::to_vec_pretty(manifest).map_err(|error| Error::internal("a manifest has no JSON form").because(error))?;
    store.put(at, bytes, "application/json", condition).await
}

/// A manifest of these files, each once. `created_at` is the time now, ISO 8601.
///
/// # Errors
/// [`Kind::Invalid`] with the field of the file that is none.
pub fn create_manifest(files: Vec<String>, metadata: Option<ManifestMetadata>, created_at: String) -> Result<Manifest> {
    if files.is_empty() {
        return Err(Error::invalid("files", "a manifest lists at least one file"));
    }
    if files.len() > MOST_FILES {
        return Err(Error::invalid("files", format!("a manifest lists at most {MOST_FILES} files")));
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (index, file) in files.iter().enumerate() {
        let wrong = |text: String| Error::invalid(format!("files[{index}]"), text);
        if is_object_path(file) {
            let path = ObjectPath::parse(file).map_err(|error| wrong(error.message().to_owned()))?;
            if path.key.is_empty() || path.key.ends_with('/') {
                return Err(wrong("a file has a key that does not end with `/`".to_owned()));
            }
        } else if !file.starts_with('/') {
            return Err(wrong("a file is `s3://bucket/key` or an absolute path".to_owned()));
        }
        if !seen.insert(file.as_str()) {
            return Err(wrong(format!("`{file}` is named twice")));
        }
    }
    let mut metadata = metadata.unwrap_or_default();
    metadata.created_at.get_or_insert(created_at);
    if metadata.file_format.is_none() {
        metadata.file_format = common_format(&files).map(|format| format.as_str().to_owned());
    }
    Ok(Manifest { version: "1.0".to_owned(), files, objects: None, metadata: Some(metadata) })
}

fn common_format(files: &[String]) -> Option<FileFormat> {
    let first = FileFormat::of_name(files.first()?)?;
    files.iter().all(|file| FileFormat::of_name(file) == Some(first)).then_some(first)
}

/// The files of a manifest that a pattern names: by their whole path if it has a scheme, by their key if it has a slash, else by their name.
///
/// # Errors
/// [`Kind::Invalid`] with the field `pattern`.
pub fn filter_manifest(manifest: &Manifest, pattern: &str) -> Result<Manifest> {
    if pattern.is_empty() {
        return Err(Error::invalid("pattern", "the pattern is missing"));
    }
    let compiled = glob::Pattern::new(pattern).map_err(|error| Error::invalid("pattern", "the pattern is wrong").because(error))?;
    let part = |file: &str| -> String {
        if pattern.contains("://") || !is_object_path(file) && pattern.contains('/') {
            return file.to_owned();
        }
        if pattern.contains('/') {
            return file[SCHEME.len()..].split_once('/').map_or(String::new(), |(_, key)| key.to_owned());
        }
        file.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let files: Vec<String> = manifest.files.iter().filter(|file| compiled.matches_with(&part(file), MATCHING)).cloned().collect();
    Ok(reduced(manifest, files))
}

/// The manifest with only these of its files. How many rows they have is not known any more.
fn reduced(manifest: &Manifest, files: Vec<String>) -> Manifest {
    let kept: BTreeSet<&str> = files.iter().map(String::as_str).collect();
    let is_whole = files.len() == manifest.files.len();
    let objects =
        manifest.objects.as_ref().map(|objects| objects.iter().filter(|object| kept.contains(object.path.as_str())).cloned().collect());
    let mut reduced = Manifest { version: manifest.version.clone(), files: files.clone(), objects, metadata: manifest.metadata.clone() };
    if !is_whole {
        let total_size = reduced.known_size();
        if let Some(metadata) = &mut reduced.metadata {
            metadata.row_count = None;
            metadata.total_size = total_size;
        }
    }
    reduced
}

/// All files of several manifests, each once, in the order of the manifests. `created_at` is the time now, ISO 8601.
///
/// # Errors
/// [`Kind::Invalid`] with the field `manifests` if there are none or too many files.
pub fn merge_manifests(manifests: &[Manifest], created_at: String) -> Result<Manifest> {
    if manifests.is_empty() {
        return Err(Error::invalid("manifests", "there is nothing to merge"));
    }
    let mut seen = BTreeSet::new();
    let named: usize = manifests.iter().map(|manifest| manifest.files.len()).sum();
    let files: Vec<String> =
        manifests.iter().flat_map(|manifest| &manifest.files).filter(|file| seen.insert(file.as_str())).cloned().collect();
    if files.len() > MOST_FILES {
        return Err(Error::invalid("manifests", format!("a manifest lists at most {MOST_FILES} files")));
    }
    let mut objects: BTreeMap<&str, &ManifestObject> = BTreeMap::new();
    for object in manifests.iter().filter_map(|manifest| manifest.objects.as_ref()).flatten() {
        objects.entry(object.path.as_str()).or_insert(object);
    }
    let objects: Vec<ManifestObject> = files.iter().filter_map(|file| objects.get(file.as_str()).map(|object| (*object).clone())).collect();
    let is_disjoint = named == files.len();
    let of = |number: fn(&ManifestMetadata) -> Option<u64>| -> Option<u64> {
        // A file that stands in two of them would be counted twice.
        let sums = || manifests.iter().try_fold(0_u64, |sum, manifest| sum.checked_add(number(manifest.metadata.as_ref()?)?));
        if is_disjoint { sums() } else { None }
    };
    let mut merged =
        Manifest { version: "1.0".to_owned(), objects: Some(objects).filter(|objects| !objects.is_empty()), files, metadata: None };
    let total_size = merged.known_size().or_else(|| of(|metadata| metadata.total_size));
    let formats: BTreeSet<Option<&str>> =
        manifests.iter().map(|manifest| manifest.metadata.as_ref().and_then(|metadata| metadata.file_format.as_deref())).collect();
    let told = formats.first().copied().flatten().filter(|_| formats.len() == 1).map(str::to_owned);
    merged.metadata = Some(ManifestMetadata {
        total_size,
        row_count: of(|metadata| metadata.row_count),
        created_at: Some(created_at),
        file_format: told.or_else(|| common_format(&merged.files).map(|format| format.as_str().to_owned())),
        ..ManifestMetadata::default()
    });
    Ok(merged)
}

/// A part of the listing that a manifest gives: what of it lies in this bucket below this prefix, from this place on.
pub fn list_from_manifest(manifest: &Manifest, bucket: &str, prefix: &str, is_recursive: bool, from: usize, limit: usize) -> Page {
    let known: BTreeMap<&str, &ManifestObject> = manifest.objects.iter().flatten().map(|object| (object.path.as_str(), object)).collect();
    let start = format!("{SCHEME}{bucket}/");
    let mut entries: BTreeMap<String, Option<ObjectEntry>> = BTreeMap::new();
    for file in &manifest.files {
        let Some(key) = file.strip_prefix(&start).filter(|key| key.starts_with(prefix)) else { continue };
        let rest = &key[prefix.len()..];
        if let (false, Some((folder, _))) = (is_recursive, rest.split_once('/')) {
            entries.insert(format!("{prefix}{folder}/"), None);
            continue;
        }
        let found = known.get(file.as_str());
        let text = |part: fn(&ManifestObject) -> &Option<String>| found.and_then(|object| part(object).clone()).unwrap_or_default();
        let entry = ObjectEntry {
            key: key.to_owned(),
            size: found.and_then(|object| object.size).unwrap_or_default(),
            last_modified: text(|object| &object.last_modified),
            etag: text(|object| &object.etag),
            storage_class: text(|object| &object.storage_class),
        };
        entries.insert(key.to_owned(), Some(entry));
    }
    let total = entries.len();
    let mut page = Page::default();
    for (name, entry) in entries.into_iter().skip(from).take(limit) {
        match entry {
            Some(entry) => page.objects.push(entry),
            None => page.prefixes.push(name),
        }
    }
    page.next = (from + limit < total).then(|| (from + limit).to_string());
    page
}

/// The objects that a manifest lists, with what it knows of them.
///
/// # Errors
/// [`Kind::NotSupported`] with the field `path` if it lists local files.
pub(super) fn objects_of(manifest: &Manifest, at: &ObjectPath) -> Result<Vec<(ObjectPath, ObjectEntry)>> {
    let known: BTreeMap<&str, &ManifestObject> = manifest.objects.iter().flatten().map(|object| (object.path.as_str(), object)).collect();
    let objects = manifest.files.iter().map(|file| {
        if !is_object_path(file) {
            let text = format!("`{at}` lists the local file `{file}`; only objects are read through manifests");
            return Err(Error::new(Kind::NotSupported, text).field("path"));
        }
        let path = ObjectPath::parse(file)?;
        let found = known.get(file.as_str());
        let entry = ObjectEntry {
            key: path.key.clone(),
            size: found.and_then(|object| object.size).unwrap_or_default(),
            etag: found.and_then(|object| object.etag.clone()).unwrap_or_default(),
            ..ObjectEntry::default()
        };
        Ok((path, entry))
    });
    objects.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "manifest_tests.rs"]
mod tests;
