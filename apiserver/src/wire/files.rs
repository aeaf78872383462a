//! Data files on the wire.

use std::collections::BTreeMap;

use millrace_core::explore::{ColumnSummary, ResultColumn};
use millrace_core::files::{CsvDialect, FileFormat, JsonPath, JsonShape};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Which file, and which of its rows.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct FileParams {
    pub(crate) path: String,
    pub(crate) format: Option<FileFormat>,
    pub(crate) connection_id: Option<String>,
    pub(crate) stats: bool,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
    pub(crate) skip_count: bool,
    #[serde(rename = "order_by")]
    pub(crate) order_by: Option<String>,
    #[serde(rename = "order_dir")]
    pub(crate) order_dir: Option<String>,
    #[serde(rename = "where")]
    pub(crate) condition: Option<String>,
    #[serde(rename = "max_rows")]
    pub(crate) max_rows: u64,
}

impl Default for FileParams {
    fn default() -> Self {
        Self {
            path: String::new(),
            format: None,
            connection_id: None,
            stats: false,
            limit: 100,
            offset: 0,
            skip_count: false,
            order_by: None,
            order_dir: None,
            condition: None,
            max_rows: 0,
        }
    }
}

/// A file, for sniffing and summaries.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FileReference {
    /// Absolute, or below the connection's folder.
    pub(crate) path: String,
    /// Told by the name if absent.
    pub(crate) format: Option<FileFormat>,
    /// A connection of type `files`.
    pub(crate) connection_id: Option<String>,
    /// Summaries only: about so many percent of the rows.
    pub(crate) sample_percent: Option<f64>,
}

/// A statement over files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FileQueryRequest {
    /// One reading statement in DuckDB's dialect over `read_csv`, `read_parquet` and `read_json`.
    pub(crate) query: String,
    /// A connection of type `files`.
    pub(crate) connection_id: Option<String>,
    /// Relative paths stand below this folder.
    pub(crate) scope_path: Option<String>,
}

/// Changes of rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RowsRequest {
    /// Absolute, or below the connection's folder.
    pub(crate) path: String,
    /// Told by the name if absent.
    pub(crate) format: Option<FileFormat>,
    /// A connection of type `files`.
    pub(crate) connection_id: Option<String>,
    /// Rows that change.
    #[serde(default)]
    pub(crate) edits: Vec<RowEdit>,
    /// Rows that are added at the end.
    #[serde(default)]
    pub(crate) inserts: Vec<RowInsert>,
    /// Rows that go.
    #[serde(default)]
    pub(crate) deletes: Vec<RowDelete>,
}

/// A row that changes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RowEdit {
    /// The row's `__rowid`.
    pub(crate) row_id: u64,
    /// New values by column.
    pub(crate) changes: Map<String, Value>,
}

/// A row that is added.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowInsert {
    /// Values by column.
    pub(crate) values: Map<String, Value>,
}

/// A row that goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RowDelete {
    /// The row's `__rowid`.
    pub(crate) row_id: u64,
}

/// How many rows were changed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RowsChanged {
    /// `success`
    pub(crate) status: &'static str,
    pub(crate) updated: usize,
    pub(crate) inserted: usize,
    pub(crate) deleted: usize,
}

/// What a file holds.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileMetadata {
    pub(crate) path: String,
    pub(crate) format: FileFormat,
    /// Bytes, of all files together.
    pub(crate) size: u64,
    /// -1 if the rows were not counted.
    pub(crate) row_count: i64,
    pub(crate) column_count: usize,
    pub(crate) columns: Vec<FileColumn>,
    pub(crate) format_info: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) csv_dialect: Option<CsvDialectInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) json_structure: Option<JsonStructure>,
}

/// A column of a file.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) native_type: String,
    /// Files do not say; NULL may come.
    pub(crate) nullable: bool,
}

impl From<ResultColumn> for FileColumn {
    fn from(column: ResultColumn) -> Self {
        Self { name: column.name, native_type: column.native_type, nullable: column.nullable.unwrap_or(true) }
    }
}

/// How a CSV file is written.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CsvDialectInfo {
    delimiter: String,
    quote: String,
    escape: String,
    has_header: bool,
    line_terminator: String,
    skip_blank_lines: bool,
}

impl From<CsvDialect> for CsvDialectInfo {
    fn from(dialect: CsvDialect) -> Self {
        Self {
            delimiter: dialect.delimiter,
            quote: dialect.quote,
            escape: dialect.escape,
            has_header: dialect.has_header,
            line_terminator: dialect.new_line_delimiter.replace("\\r", "\r").replace("\\n", "\n"),
            // The reader leaves blank lines out, unless there is one column only.
            skip_blank_lines: dialect.columns.len() > 1,
        }
    }
}

/// The shape of a JSON file.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JsonStructure {
    /// `array` or `object`
    pub(crate) root_type: &'static str,
    /// Whether all records are of one type, and objects have the same members of the same types; of the first 1000, or 100000 with `stats=true`.
    pub(crate) is_homogeneous: bool,
    /// What stands at each path of the records that were looked at.
    pub(crate) path_stats: BTreeMap<String, PathStats>,
    /// The root, if it is an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) array_info: Option<ArrayInfo>,
}

/// What stands at a path.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PathStats {
    /// As in JSONPath: `$.tags[*]`.
    pub(crate) json_path: String,
    /// Values that were seen there.
    pub(crate) occurrences: u64,
    /// `string`, `integer`, `number`, `boolean`, `null`, `object`, `array`; several joined by `|`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Whether every object that could have it has it.
    pub(crate) is_required: bool,
}

/// An array at the root.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArrayInfo {
    /// Elements that were looked at.
    pub(crate) element_count: u64,
    /// Their type; several joined by `|`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) element_type: Option<String>,
    pub(crate) is_homogeneous: bool,
    /// Objects and arrays inside of each other, at most.
    pub(crate) max_depth: u32,
}

impl JsonStructure {
    /// The structure of records in an array, or of records one after the other.
    pub(crate) fn new(is_array: bool, shape: JsonShape) -> Self {
        let array_info = is_array.then_some(ArrayInfo {
            element_count: shape.records,
            element_type: shape.kind,
            is_homogeneous: shape.is_homogeneous,
            max_depth: shape.max_depth,
        });
        let stats = |path: JsonPath| {
            (
                path.path.clone(),
                PathStats { json_path: path.path, occurrences: path.occurrences, kind: path.kind, is_required: path.is_required },
            )
        };
        Self {
            root_type: if is_array { "array" } else { "object" },
            is_homogeneous: shape.is_homogeneous,
            path_stats: shape.paths.into_iter().map(stats).collect(),
            array_info,
        }
    }
}

/// Rows of a file.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileData {
    /// Each with `__rowid`, its place in the file, 0 for the first; it holds for the file of the header `ETag`.
    pub(crate) data: Vec<Map<String, Value>>,
    pub(crate) schema: Vec<SchemaColumn>,
    /// Rows that meet the condition; -1 if they were not counted.
    pub(crate) total: i64,
}

/// A column by name and type.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SchemaColumn {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) native_type: String,
}

impl From<ResultColumn> for SchemaColumn {
    fn from(column: ResultColumn) -> Self {
        Self { name: column.name, native_type: column.native_type }
    }
}

/// A number of rows.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileCount {
    pub(crate) count: u64,
}

/// The dialect of a CSV file.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SniffResult {
    pub(crate) path: String,
    pub(crate) sample_path: String,
    #[serde(flatten)]
    pub(crate) dialect: CsvDialect,
}

/// Rows of a statement over files.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileQueryResponse {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) count: usize,
    /// `success`
    pub(crate) status: &'static str,
}

/// Columns of a statement over files.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileColumnsResponse {
    pub(crate) columns: Vec<SchemaColumn>,
    /// `success`
    pub(crate) status: &'static str,
}

/// Statistics of a file.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileSummary {
    pub(crate) path: String,
    pub(crate) format: FileFormat,
    pub(crate) row_count: u64,
    pub(crate) column_count: usize,
    pub(crate) columns: Vec<ColumnSummary>,
    pub(crate) execution_time_ms: u64,
    pub(crate) sampled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample_percent: Option<f64>,
    /// `success`
    pub(crate) status: &'static str,
}
