//! A stream config: the reusable definition of what is moved, where from and where to.
//!
//! The types mirror the wire contract field by field, so that what a client stores is what it reads back. Which fields this
//! version can carry out is decided by [`check_supported`]: anything else is refused by name at start, nothing is ignored.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::{ConfigId, ConnectionId};
use crate::value::OnLoss;

/// The seconds between two reports when a config names none.
pub const DEFAULT_REPORTING_INTERVAL: u32 = 3;

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct StreamConfig {
    /// Immutable.
    pub id: ConfigId,
    /// Unix seconds; immutable.
    pub created: i64,
    /// The rest.
    #[serde(flatten)]
    pub spec: StreamSpec,
}

/// What a client writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct StreamSpec {
    /// Not blank.
    pub name: String,
    /// One-off or continuous.
    pub mode: Mode,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Seconds between two reports, 3 when absent; 0 means a final report only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporting_interval: Option<u32>,
    /// Where from.
    pub source: Source,
    /// Where to.
    pub target: Target,
    /// When to stop early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// How many work at once: pods in a cluster, lanes of one process elsewhere; one pod, or as many lanes as suit the machine, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u16>,
    /// What becomes of values that the target cannot hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanOptions>,
    /// What happens when the source's consistent moment is lost; `restart` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cut_lost: Option<OnCutLost>,
    /// Seconds for which a pause keeps the source's moment open, 600 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_hold: Option<u32>,
}

/// The most workers of one run.
const MOST_WORKERS: u16 = 64;

impl StreamSpec {
    /// How many workers a cluster gives to a run. Limits are exact, and a structure is made once, so these have one.
    pub fn workers(&self) -> u32 {
        let is_limited = self.limits.is_some_and(|limits| limits.number_of_events > 0 || limits.elapsed_time > 0);
        let is_structure = matches!(&self.target.spec, TargetSpec::Db(db) if db.skip_data == Some(true));
        if is_limited || is_structure || self.mode != Mode::Convert {
            return 1;
        }
        u32::from(self.parallelism.unwrap_or(1).clamp(1, MOST_WORKERS))
    }
}

/// The seconds for which a pause keeps the cut when a config names none.
pub const DEFAULT_PAUSE_HOLD: u32 = 600;

/// What becomes of values that the target cannot hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PlanOptions {
    /// Nothing is changed unless a rule asks for it: default policies that would change a value become `error`.
    pub strict: bool,
    /// The last rule that matches a column decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PlanRule>,
}

/// One rule about columns: which ones, and what becomes of them. It matches columns for which all of `table`, `column` and `type` that are given hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PlanRule {
    /// Name of the table at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Name of the column at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The source's type, with or without its length: `tinyint`, `tinyint(1)`, `date`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub source_type: Option<String>,
    /// The target's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What a value becomes that the target's column cannot hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnLoss>,
}

impl PlanRule {
    /// Whether the rule is about this column.
    pub fn matches(&self, table: &str, column: &str, native_type: &str) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(found));
        let word = native_type.split(['(', ' ']).next().unwrap_or_default();
        is(&self.table, table) && is(&self.column, column) && (is(&self.source_type, native_type) || is(&self.source_type, word))
    }
}

/// What happens when the consistent moment of the source is lost in the middle of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum OnCutLost {
    /// What the run has written is removed and everything is read again at one new moment.
    #[default]
    Restart,
    /// Committed splits stay; the others are read at a new moment. The copy is then not of one moment, and says so.
    Continue,
}

/// One-off or continuous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Mode {
    /// Bulk load with structure. `load` is read as a synonym.
    #[serde(alias = "load")]
    Convert,
    /// Change data capture.
    Cdc,
}

impl Mode {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Convert => "convert",
            Self::Cdc => "cdc",
        }
    }
}

/// Where from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Source {
    /// At least one.
    pub connections: Vec<SourceConnection>,
    /// Tuning and log options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<SourceOptions>,
}

/// One system to read from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct SourceConnection {
    /// A letter, then letters, digits, underscores; needed and unique when there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The stored connection.
    pub connection_id: ConnectionId,
    /// Database to read; the connection's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Schema to read, where the engine has schemas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Folder scope of a file source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_path: Option<String>,
    /// Tables to read; all when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<Vec<TableSelection>>,
    /// Custom queries, each a virtual table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<Vec<QuerySelection>>,
    /// Objects of an S3 source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Selection>,
    /// Files of a local source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSelection>,
}

/// One table and what of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct TableSelection {
    /// `table` or `schema.table`.
    pub name: String,
    /// Columns, filters, order, limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<RowSelection>,
    /// A client's check mark; kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected: Option<bool>,
}

/// What of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct RowSelection {
    /// Empty means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selected_columns: Vec<String>,
    /// Combined with AND.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Order of the rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sorts: Vec<Sort>,
    /// At most this many rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl RowSelection {
    /// Whether it selects every row and column.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A condition on one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Filter {
    /// A client's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Column name.
    pub column: String,
    /// One of the contract's operators.
    pub operator: String,
    /// Operand as text.
    #[serde(default)]
    pub value: String,
}

/// One sort key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Sort {
    /// Column name.
    pub column: String,
    /// `ASC` or `DESC`.
    pub direction: String,
}

/// A custom query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct QuerySelection {
    /// Name of the virtual and of the target table.
    pub name: String,
    /// SQL text.
    pub query: String,
    /// A client's memory of the result's columns; kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<serde_json::Value>,
    /// A client's memory; kept, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validated: Option<bool>,
}

/// Objects of an S3 source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct S3Selection {
    /// Bucket name.
    pub bucket: String,
    /// Each ends with `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// None ends with `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Excludes the two others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_path: Option<String>,
}

/// Files of a local source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FilesSelection {
    /// Absolute folder.
    pub base_path: String,
    /// At least one; folders end with `/`.
    pub paths: Vec<String>,
}

/// Tuning and log options of the source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct SourceOptions {
    /// Rows per bundle, a hint that never bounds a commit; 500 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bundle_size: Option<u32>,
    /// CDC operations; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operations: Option<Vec<Operation>>,
    /// PostgreSQL slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_slot: Option<String>,
    /// PostgreSQL publication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publication_name: Option<String>,
    /// MySQL start position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binlog_position: Option<String>,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Operation {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A removed row.
    Delete,
}

/// Where to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Target {
    /// The stored connection.
    pub id: ConnectionId,
    /// Exactly one form.
    pub spec: TargetSpec,
}

/// A form whose fields are kept as they came.
#[cfg(feature = "schemars")]
#[derive(schemars::JsonSchema)]
#[schemars(transparent)]
pub struct KeptForm(#[allow(dead_code)] serde_json::Map<String, serde_json::Value>);

/// Exactly one form of target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum TargetSpec {
    /// A database.
    Db(DbTarget),
    /// Local files; the form's fields are kept as they came.
    Files(#[cfg_attr(feature = "schemars", schemars(with = "KeptForm"))] serde_json::Map<String, serde_json::Value>),
    /// S3; as above.
    S3(#[cfg_attr(feature = "schemars", schemars(with = "KeptForm"))] serde_json::Map<String, serde_json::Value>),
    /// Google Cloud Storage; as above.
    Gcs(#[cfg_attr(feature = "schemars", schemars(with = "KeptForm"))] serde_json::Map<String, serde_json::Value>),
    /// Azure; as above.
    Azure(#[cfg_attr(feature = "schemars", schemars(with = "KeptForm"))] serde_json::Map<String, serde_json::Value>),
    /// Snowflake; as above.
    Snowflake(#[cfg_attr(feature = "schemars", schemars(with = "KeptForm"))] serde_json::Map<String, serde_json::Value>),
}

/// A database target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct DbTarget {
    /// Database to write to.
    pub database: String,
    /// Schema to write to; the engine's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// What structure is made; everything when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure_options: Option<StructureOptions>,
    /// What happens with tables that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_policy: Option<SchemaPolicy>,
    /// What happens with rows that exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_mode: Option<WriteMode>,
    /// Structure only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_data: Option<bool>,
}

/// What structure is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct StructureOptions {
    /// Tables with their primary keys.
    pub tables: bool,
    /// Secondary indexes.
    pub indexes: bool,
    /// Foreign keys.
    pub foreign_keys: bool,
    /// Check constraints.
    pub check_constraints: bool,
}

impl StructureOptions {
    /// Whether only rows are wanted.
    pub fn is_none(&self) -> bool {
        !(self.tables || self.indexes || self.foreign_keys || self.check_constraints)
    }
}

impl Default for StructureOptions {
    fn default() -> Self {
        Self { tables: true, indexes: true, foreign_keys: true, check_constraints: true }
    }
}

/// What happens with tables that exist at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum SchemaPolicy {
    /// Refuse; the default of convert.
    FailIfExists,
    /// Use them after a compatibility check; the default of CDC.
    ValidateExisting,
    /// Create only the absent ones.
    CreateMissingOnly,
    /// Drop and create; destroys data.
    DropAndRecreate,
}

/// What happens with rows that exist at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum WriteMode {
    /// Refuse; the default of convert.
    FailIfNotEmpty,
    /// Insert beside them.
    Append,
    /// Empty the tables first.
    TruncateAndLoad,
    /// Update by primary key, else insert; the default of CDC.
    Upsert,
}

/// When to stop early.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Limits {
    /// Rows over all tables; 0 means unlimited.
    pub number_of_events: u64,
    /// Seconds; 0 means unlimited.
    pub elapsed_time: u64,
}

impl Limits {
    /// Whether no limit is set.
    pub fn is_unlimited(&self) -> bool {
        self.number_of_events == 0 && self.elapsed_time == 0
    }
}

/// Names every part of a spec that this version cannot carry out, all at once and in the spec's order.
pub fn check_supported(spec: &StreamSpec) -> Result<(), Vec<Error>> {
    let mut errors = Vec::new();
    let mut refuse = |field: String, what: &'static str| errors.push(Error::not_supported(field, what));
    if spec.mode == Mode::Cdc {
        refuse("mode".into(), "change data capture is not supported yet; use `convert`");
    }
    for (index, source) in spec.source.connections.iter().enumerate() {
        let at = |field: &str| format!("source.connections[{index}].{field}");
        if source.s3.is_some() {
            refuse(at("s3"), "S3 sources are not supported yet");
        }
        if source.files.is_some() {
            refuse(at("files"), "file sources are not supported yet");
        }
        if source.scope_path.is_some() {
            refuse(at("scopePath"), "file sources are not supported yet");
        }
    }
    if let Some(options) = &spec.source.options {
        let at = |field: &str| format!("source.options.{field}");
        if options.operations.is_some() {
            refuse(at("operations"), "change data capture is not supported yet");
        }
        if options.replication_slot.is_some() {
            refuse(at("replicationSlot"), "change data capture is not supported yet");
        }
        if options.publication_name.is_some() {
            refuse(at("publicationName"), "change data capture is not supported yet");
        }
        if options.binlog_position.is_some() {
            refuse(at("binlogPosition"), "change data capture is not supported yet");
        }
    }
    check_target(&spec.target.spec, &mut refuse);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_target(target: &TargetSpec, refuse: &mut impl FnMut(String, &'static str)) {
    match target {
        TargetSpec::Db(_) => {}
        TargetSpec::Files(_) => refuse("target.spec.files".into(), "file targets are not supported yet"),
        TargetSpec::S3(_) => refuse("target.spec.s3".into(), "S3 targets are not supported yet"),
        TargetSpec::Gcs(_) => refuse("target.spec.gcs".into(), "Google Cloud targets are not supported yet"),
        TargetSpec::Azure(_) => refuse("target.spec.azure".into(), "Azure targets are not supported yet"),
        TargetSpec::Snowflake(_) => refuse("target.spec.snowflake".into(), "Snowflake targets are not supported yet"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_matches_by_table_column_and_type_with_and_without_length() {
        let rule = PlanRule { source_type: Some("TINYINT".into()), ..PlanRule::default() };
        assert!(rule.matches("t", "c", "tinyint(1)") && rule.matches("t", "c", "tinyint(3) unsigned"));
        assert!(!rule.matches("t", "c", "int(11)"));
        let rule =
            PlanRule { table: Some("t".into()), column: Some("c".into()), source_type: Some("tinyint(1)".into()), ..PlanRule::default() };
        assert!(rule.matches("T", "C", "tinyint(1)"));
        assert!(!rule.matches("t", "d", "tinyint(1)") && !rule.matches("t", "c", "tinyint(4)"));
    }
}
