//! Tools about data files.

use millrace_core::files::FileFormat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{MOST_BYTES, list, sample};
use super::rows::{Sample, too_large};
use super::tool::Tool;
use crate::errors::ApiResult;
use crate::routes::files::{metadata_of, rows_of};
use crate::routes::fs::listing_of;
use crate::state::AppState;
use crate::wire::files::{FileMetadata, FileParams};
use crate::wire::fs::{FsEntry, ListParams};
use axum::http::HeaderMap;

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "dbconvert_list_files",
            "List files",
            "What a folder holds: folders and files in the formats that can be read (CSV, JSON, JSONL, Parquet), below the folders that this server opens.",
            entries,
        ),
        Tool::new(
            "dbconvert_get_file_schema",
            "Get a file's schema",
            "Columns and types of a file, of a pattern such as `orders/*.csv`, or of a folder of files of one format.",
            schema,
        ),
        Tool::new(
            "dbconvert_preview_file",
            "Preview a file",
            "Some rows of a file, a pattern or a folder of files of one format.",
            preview,
        ),
    ]
}

/// Which folder.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EntriesTakes {
    /// A connection of type `files`; without it `path` is absolute.
    connection_id: Option<String>,
    /// Absolute, or below the connection's folder; that folder, or the first one that this server opens, if absent.
    path: Option<String>,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

/// A part of a folder's entries.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct EntriesAnswer {
    /// The folder, absolute.
    path: String,
    /// Folders first, from `offset` on.
    items: Vec<FsEntry>,
    /// All entries that there are.
    total: usize,
    /// Whether there are more entries behind these; ask again with an `offset`.
    truncated: bool,
    /// At most so many entries are answered.
    limit_applied: u64,
}

async fn entries(state: AppState, takes: EntriesTakes) -> ApiResult<EntriesAnswer> {
    let wanted = ListParams { path: takes.path, connection_type: Some("files".to_owned()), connection_id: takes.connection_id };
    let listing = listing_of(&state, wanted).await?;
    let part = super::bounds::Listed::of(listing.entries, takes.offset, Some(list(takes.limit)));
    Ok(EntriesAnswer {
        path: listing.path,
        items: part.items,
        total: part.total,
        truncated: part.truncated,
        limit_applied: part.limit_applied,
    })
}

/// Which file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SchemaTakes {
    /// A connection of type `files`; without it `path` is absolute.
    connection_id: Option<String>,
    /// Absolute, or below the connection's folder.
    path: String,
    /// Told by the name if absent.
    format: Option<FileFormat>,
    /// Count the rows, which reads the whole file.
    #[serde(default)]
    count_rows: bool,
}

async fn schema(state: AppState, takes: SchemaTakes) -> ApiResult<FileMetadata> {
    let params = FileParams {
        path: takes.path,
        format: takes.format,
        connection_id: takes.connection_id,
        stats: takes.count_rows,
        ..FileParams::default()
    };
    metadata_of(&state, &HeaderMap::new(), params).await
}

/// Which rows of which file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreviewTakes {
    /// A connection of type `files`; without it `path` is absolute.
    connection_id: Option<String>,
    /// Absolute, or below the connection's folder.
    path: String,
    /// Told by the name if absent.
    format: Option<FileFormat>,
    /// A condition in DuckDB's dialect, without the word WHERE.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// Columns to order by, separated by commas.
    order_by: Option<String>,
    /// `ASC` or `DESC` for each of them, separated by commas.
    order_dir: Option<String>,
    /// At most so many rows: 100 if absent, never more than 1000.
    limit: Option<u64>,
}

async fn preview(state: AppState, takes: PreviewTakes) -> ApiResult<Sample> {
    let limit_applied = sample(takes.limit);
    let params = FileParams {
        path: takes.path,
        format: takes.format,
        connection_id: takes.connection_id,
        limit: limit_applied + 1,
        skip_count: true,
        condition: takes.condition,
        order_by: takes.order_by,
        order_dir: takes.order_dir,
        ..FileParams::default()
    };
    let (_, found) = rows_of(&state, &HeaderMap::new(), &params).await?;
    let mut rows = found.rows;
    let wanted = usize::try_from(limit_applied).unwrap_or(usize::MAX);
    let truncated = rows.len() > wanted;
    rows.truncate(wanted);
    if serde_json::to_string(&rows).map_or(0, |text| text.len()) > MOST_BYTES {
        return Err(too_large());
    }
    let (columns, column_types) = found.columns.into_iter().map(|column| (column.name, column.native_type)).unzip();
    Ok(Sample { columns, column_types, count: rows.len(), rows, truncated, limit_applied })
}
