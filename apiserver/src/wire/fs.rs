//! The server's folders on the wire.

use millrace_connectors::file::FolderEntry;
use millrace_core::files::FileFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which folder.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListParams {
    pub(crate) path: Option<String>,
    pub(crate) connection_type: Option<String>,
    pub(crate) connection_id: Option<String>,
}

/// What a folder holds.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listing {
    /// The folder, absolute.
    pub(crate) path: String,
    pub(crate) entries: Vec<FsEntry>,
}

/// An entry of a folder.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FsEntry {
    name: String,
    path: String,
    /// `file` or `dir`
    #[serde(rename = "type")]
    kind: &'static str,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<FileFormat>,
    /// A folder whose files can be read as one table.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_table: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_count: Option<usize>,
}

impl From<FolderEntry> for FsEntry {
    fn from(entry: FolderEntry) -> Self {
        Self {
            name: entry.name,
            path: entry.path.display().to_string(),
            kind: if entry.is_dir { "dir" } else { "file" },
            size: entry.size,
            format: entry.format,
            is_table: entry.is_dir.then_some(entry.table_files.is_some()),
            file_count: entry.table_files,
        }
    }
}

/// A path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PathRequest {
    pub(crate) path: String,
}

/// Whether a path can be written.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Writable {
    pub(crate) ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}
