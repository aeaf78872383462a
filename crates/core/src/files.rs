//! What the API server asks of the query tier about data files, and what it answers.
//!
//! A row of a file is named by its ordinal, 0 for the first. Ordinals hold as long as the file has the etag that came with them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::explore::{ColumnSummary, OrderBy, ResultColumn};
use crate::objects::ObjectAccess;

/// Formats of data files; compressed variants included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum FileFormat {
    /// Separated values.
    Csv,
    /// A JSON array of records, or records one after the other.
    Json,
    /// One JSON record per line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// The format that a file's name says.
    pub fn of_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let plain = lower.strip_suffix(".gz").or_else(|| lower.strip_suffix(".zst")).unwrap_or(&lower);
        match plain.rsplit_once('.')?.1 {
            "csv" | "tsv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "parquet" if plain == lower => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }
}

/// The folders that may be looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRoots {
    /// Absolute folders, with everything below them.
    pub allowed: Vec<PathBuf>,
    /// Absolute folders that are closed although they lie below an allowed one; the longest match decides.
    pub denied: Vec<PathBuf>,
}

/// Files of one format that are read as one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSet {
    /// Their format.
    pub format: FileFormat,
    /// Absolute paths without symbolic links, or `s3://bucket/key` as it is, without patterns; at least one.
    pub paths: Vec<String>,
    /// How to get at objects; none for local files. It is not part of the message: see [`FileRequest::take_access`].
    #[serde(skip)]
    pub access: Option<ObjectAccess>,
}

/// A page of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePage {
    /// At most so many rows.
    pub limit: u64,
    /// Rows to skip.
    pub offset: u64,
    /// The order; rows that are equal in it come in the order of the file.
    pub order: Vec<OrderBy>,
    /// A condition in DuckDB's dialect.
    pub condition: Option<String>,
    /// Whether all rows that meet the condition are counted.
    pub with_total: bool,
}

/// A user's statement over files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileQuery {
    /// One reading statement in DuckDB's dialect; paths are literals.
    pub sql: String,
    /// Relative paths stand below this folder.
    pub scope: Option<String>,
    /// What may be read.
    pub roots: FileRoots,
    /// How to get at objects, if the statement may name some. It is not part of the message: see [`FileRequest::take_access`].
    #[serde(skip)]
    pub access: Option<ObjectAccess>,
}

/// Changed members of rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileChange {
    /// Rows by ordinal, with the columns that change.
    pub edits: Vec<(u64, Map<String, Value>)>,
    /// New rows, which go to the end; columns that are left out are NULL.
    pub inserts: Vec<Map<String, Value>>,
    /// Rows that go.
    pub deletes: Vec<u64>,
    /// The etag that the file must have.
    pub etag: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FileRequest {
    /// Columns, dialect and structure.
    Describe {
        /// The files.
        files: FileSet,
        /// Whether rows are counted.
        with_stats: bool,
    },
    /// Rows.
    Page {
        /// The files.
        files: FileSet,
        /// Which rows.
        page: FilePage,
    },
    /// How many rows meet the condition.
    Count {
        /// The files.
        files: FileSet,
        /// A condition in DuckDB's dialect.
        condition: Option<String>,
    },
    /// The dialect of a CSV file.
    Sniff {
        /// The files; the first is looked at.
        files: FileSet,
    },
    /// Statistics of every column.
    Summarize {
        /// The files.
        files: FileSet,
        /// Only about so many percent of the rows.
        sample_percent: Option<f64>,
    },
    /// Runs a user's statement.
    Query(FileQuery),
    /// The columns of a user's statement.
    Columns(FileQuery),
    /// Changes rows of one file, all or none, by writing it anew beside itself and renaming; an object by a put on the condition that it has not changed.
    Rewrite {
        /// One file.
        files: FileSet,
        /// What changes.
        change: FileChange,
    },
}

impl FileRequest {
    fn access_slot(&mut self) -> &mut Option<ObjectAccess> {
        match self {
            Self::Describe { files, .. }
            | Self::Page { files, .. }
            | Self::Count { files, .. }
            | Self::Sniff { files }
            | Self::Summarize { files, .. }
            | Self::Rewrite { files, .. } => &mut files.access,
            Self::Query(query) | Self::Columns(query) => &mut query.access,
        }
    }

    /// How to get at objects; none if only local files are named.
    pub fn access(&self) -> Option<&ObjectAccess> {
        match self {
            Self::Describe { files, .. }
            | Self::Page { files, .. }
            | Self::Count { files, .. }
            | Self::Sniff { files }
            | Self::Summarize { files, .. }
            | Self::Rewrite { files, .. } => files.access.as_ref(),
            Self::Query(query) | Self::Columns(query) => query.access.as_ref(),
        }
    }

    /// Takes out how to get at objects, so that a channel can carry it beside the request; the channel's other end puts it back.
    pub fn take_access(&mut self) -> Option<ObjectAccess> {
        self.access_slot().take()
    }

    /// Puts back what was taken out.
    pub fn put_access(&mut self, access: Option<ObjectAccess>) {
        *self.access_slot() = access;
    }
}

/// The dialect of a CSV file, as DuckDB's sniffer tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct CsvDialect {
    /// Between two values.
    pub delimiter: String,
    /// Around values; empty if none are quoted.
    pub quote: String,
    /// Before a quote inside a value.
    pub escape: String,
    /// `\n`, `\r\n` or `\r`, as they are written here.
    pub new_line_delimiter: String,
    /// What begins a comment; empty if nothing does.
    pub comment: String,
    /// Lines before the header or the first row.
    pub skip_rows: u64,
    /// Whether the first row names the columns.
    pub has_header: bool,
    /// The columns.
    pub columns: Vec<ResultColumn>,
    /// How dates are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_format: Option<String>,
    /// How timestamps are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_format: Option<String>,
    /// A call that reads the file so.
    pub prompt: String,
}

/// What files hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileDescription {
    /// The columns.
    pub columns: Vec<ResultColumn>,
    /// All rows, if they were counted or the format says it.
    pub row_count: Option<u64>,
    /// The dialect, of CSV.
    pub dialect: Option<CsvDialect>,
    /// Whether the root is an array, of JSON and JSONL.
    pub is_array: Option<bool>,
    /// What records hold, of JSON and JSONL.
    #[serde(default)]
    pub shape: Option<JsonShape>,
    /// Codecs of the columns' pages, of Parquet.
    pub compression: Vec<String>,
    /// Row groups, of Parquet.
    pub row_groups: Option<u64>,
}

/// What the records of JSON files hold, as far as they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonShape {
    /// Records that were looked at: elements of the root's array, or values one after the other.
    pub records: u64,
    /// Whether there are more.
    pub is_sampled: bool,
    /// Whether all are of one type, and objects have the same members of the same types.
    pub is_homogeneous: bool,
    /// The type of records; several joined by `|`; none without records.
    pub kind: Option<String>,
    /// Objects and arrays inside of each other, at most; a record that is one counts.
    pub max_depth: u32,
    /// By path.
    pub paths: Vec<JsonPath>,
}

/// A path inside of records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonPath {
    /// As in JSONPath: `$.tags[*]`.
    pub path: String,
    /// Values that were seen there.
    pub occurrences: u64,
    /// `string`, `integer`, `number`, `boolean`, `null`, `object`, `array`; several joined by `|`, without `null`.
    pub kind: String,
    /// Whether every object that could have it has it.
    pub is_required: bool,
}

/// Rows of a page or a result.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FileRows {
    /// Columns in order.
    pub columns: Vec<ResultColumn>,
    /// Rows; numbers that a double cannot carry exactly are JSON strings.
    pub rows: Vec<Vec<Value>>,
    /// The ordinals of the rows; empty for results of statements.
    pub ordinals: Vec<u64>,
    /// All rows that meet the condition, if they were counted.
    pub total: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FileAnswer {
    /// To [`FileRequest::Describe`].
    Described(FileDescription),
    /// To [`FileRequest::Page`] and [`FileRequest::Query`].
    Rows(FileRows),
    /// To [`FileRequest::Count`].
    Counted(u64),
    /// To [`FileRequest::Sniff`].
    Sniffed(CsvDialect),
    /// To [`FileRequest::Summarize`].
    Summarized {
        /// Rows, of the sample if there is one.
        row_count: u64,
        /// In order.
        columns: Vec<ColumnSummary>,
    },
    /// To [`FileRequest::Columns`].
    Columns(Vec<ResultColumn>),
    /// To [`FileRequest::Rewrite`]: the etag that the file has now.
    Rewritten {
        /// For the next change.
        etag: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_name_with_and_without_compression() {
        for (name, format) in [
            ("a.csv", Some(FileFormat::Csv)),
            ("A.CSV.GZ", Some(FileFormat::Csv)),
            ("a.tsv.zst", Some(FileFormat::Csv)),
            ("a.json.gz", Some(FileFormat::Json)),
            ("a.ndjson", Some(FileFormat::Jsonl)),
            ("a.parquet", Some(FileFormat::Parquet)),
            ("a.parquet.gz", None),
            ("csv", None),
            ("a.txt", None),
            ("server.key", None),
        ] {
            assert_eq!(FileFormat::of_name(name), format, "{name}");
        }
    }
}
