//! What people see of a database when they look at its structure: the forms of the wire, filled by each engine.
//!
//! [`crate::catalog`] holds what a copy needs to rebuild tables elsewhere; this holds what a person or a program needs to find its way, objects that are never
//! copied included.

use serde::{Deserialize, Serialize, Serializer};

#[cfg(feature = "schemars")]
use schemars::JsonSchema;

/// A table or view by its place: the schema where the engine has schemas.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ObjectName {
    /// Schema; absent on MySQL, which has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name as the catalog spells it.
    pub name: String,
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// All names of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectNames {
    /// Schemas, where the engine has them, with the reason why one counts as a system schema.
    pub schemas: Vec<(String, Option<String>)>,
    /// Base tables (partitions of partitioned tables are not listed on their own).
    pub tables: Vec<ObjectName>,
    /// Views, materialized ones too.
    pub views: Vec<ObjectName>,
    /// Functions.
    pub functions: Vec<ObjectName>,
    /// Procedures.
    pub procedures: Vec<ObjectName>,
    /// Sequences.
    pub sequences: Vec<ObjectName>,
}

/// Everything about the objects of one database, ordered by schema and name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseStructure {
    /// Schemas, where the engine has them.
    pub schemas: Vec<String>,
    /// Tables.
    pub tables: Vec<TableStructure>,
    /// Views.
    pub views: Vec<ViewStructure>,
    /// Triggers.
    pub triggers: Vec<Trigger>,
    /// Functions and procedures.
    pub routines: Vec<Routine>,
    /// Sequences.
    pub sequences: Vec<Sequence>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct TableStructure {
    /// Name as the catalog spells it.
    pub name: String,
    /// Its schema; on MySQL the database.
    pub schema: String,
    /// Its database.
    pub database: String,
    /// In order.
    pub columns: Vec<ColumnStructure>,
    /// Column names of the primary key, in key order.
    pub primary_keys: Vec<String>,
    /// One entry per column of each foreign key.
    pub foreign_keys: Vec<ForeignKeyColumn>,
    /// Indexes, the primary key's too.
    pub indexes: Vec<IndexStructure>,
    /// The engine's estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_rows: Option<u64>,
    /// The engine's estimate, bytes, indexes included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_size_bytes: Option<u64>,
    /// Whether rows can be edited at all.
    pub is_editable: bool,
    /// Columns that name a row in an edit; all comparable columns for `full_row`.
    pub edit_key_columns: Vec<String>,
    /// `primary_key`, `unique_index` or `full_row`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit_key_type: Option<String>,
    /// Why rows cannot be edited, or what to mind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub editability_reason: Option<String>,
    /// Statements that make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ddl: Option<TableDdl>,
    /// Partitions of a partitioned table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<Partition>,
    /// Whether it is partitioned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_partitioned: bool,
    /// `RANGE`, `LIST`, `HASH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_strategy: Option<String>,
    /// Comment; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Statements that make a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct TableDdl {
    /// The table with its constraints, comments and partitions.
    pub create_table: String,
    /// Indexes that the first statement does not make.
    pub create_indexes: Vec<String>,
}

/// A column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ColumnStructure {
    /// Name.
    pub name: String,
    /// Type without length (`varchar`, `numeric`, `integer`).
    pub data_type: String,
    /// MySQL: the whole type (`bigint(20) unsigned`, `enum('a','b')`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column_type: Option<String>,
    /// MySQL: the character set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub character_set: Option<String>,
    /// The collation, where it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// PostgreSQL: the type's own name (`int4`, `_text`, an enumeration's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udt_name: Option<String>,
    /// Labels of an enumeration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enum_values: Option<Vec<String>>,
    /// PostgreSQL: what a domain is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain_base_type: Option<String>,
    /// MySQL: whether it holds no negative numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_unsigned: Option<bool>,
    /// Whether NULL is allowed.
    pub is_nullable: bool,
    /// Whether it is part of the primary key.
    pub is_primary_key: bool,
    /// Whether it alone is unique.
    pub is_unique: bool,
    /// Whether the engine fills it with the next number.
    pub auto_increment: bool,
    /// The expression of a generated column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// The default, as the engine spells it.
    #[serde(serialize_with = "null_string", deserialize_with = "from_null_string")]
    #[cfg_attr(feature = "schemars", schemars(with = "NullString"))]
    pub default_value: Option<String>,
    /// Comment.
    #[serde(serialize_with = "null_string", deserialize_with = "from_null_string")]
    #[cfg_attr(feature = "schemars", schemars(with = "NullString"))]
    pub comment: Option<String>,
    /// Characters or bytes.
    #[serde(serialize_with = "null_int", deserialize_with = "from_null_int")]
    #[cfg_attr(feature = "schemars", schemars(with = "NullInt64"))]
    pub length: Option<i64>,
    /// All digits, or digits of a second.
    #[serde(serialize_with = "null_int", deserialize_with = "from_null_int")]
    #[cfg_attr(feature = "schemars", schemars(with = "NullInt64"))]
    pub precision: Option<i64>,
    /// Digits after the point.
    #[serde(serialize_with = "null_int", deserialize_with = "from_null_int")]
    #[cfg_attr(feature = "schemars", schemars(with = "NullInt64"))]
    pub scale: Option<i64>,
    /// Checks that concern it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub check_constraints: Vec<CheckClause>,
}

/// A text that may be absent, in the form that clients of the contract read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct NullString {
    /// The text; empty if absent.
    #[serde(rename = "String")]
    pub string: String,
    /// Whether it is there.
    #[serde(rename = "Valid")]
    pub valid: bool,
}

/// A number that may be absent, in the form that clients of the contract read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct NullInt64 {
    /// The number; 0 if absent.
    #[serde(rename = "Int64")]
    pub int64: i64,
    /// Whether it is there.
    #[serde(rename = "Valid")]
    pub valid: bool,
}

fn null_string<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    NullString { string: text.clone().unwrap_or_default(), valid: text.is_some() }.serialize(serializer)
}

fn from_null_string<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    NullString::deserialize(deserializer).map(|text| text.valid.then_some(text.string))
}

fn null_int<S: Serializer>(number: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    NullInt64 { int64: number.unwrap_or_default(), valid: number.is_some() }.serialize(serializer)
}

fn from_null_int<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    NullInt64::deserialize(deserializer).map(|number| number.valid.then_some(number.int64))
}

/// A check constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct CheckClause {
    /// Its name.
    pub name: String,
    /// Its condition.
    pub clause: String,
}

/// One column of a foreign key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ForeignKeyColumn {
    /// The constraint's name.
    pub name: String,
    /// The column here.
    pub source_column: String,
    /// The other table's schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referenced_schema: Option<String>,
    /// The other table.
    pub referenced_table: String,
    /// The column there.
    pub referenced_column: String,
    /// `NO ACTION`, `RESTRICT`, `CASCADE`, `SET NULL`, `SET DEFAULT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_update: Option<String>,
    /// As above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<String>,
}

/// An index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct IndexStructure {
    /// Its name.
    pub name: String,
    /// Columns or expressions, in order.
    pub columns: Vec<String>,
    /// Whether it forbids duplicates.
    pub is_unique: bool,
    /// Whether it is the primary key's.
    pub is_primary: bool,
    /// `BTREE`, `HASH`, `GIN`, …
    #[serde(rename = "type")]
    pub method: String,
    /// Whether it serves full-text search.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_full_text_index: bool,
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Its schema.
    pub schema: String,
    /// `RANGE`, `LIST`, `HASH`.
    pub strategy: String,
    /// What the table is partitioned by.
    pub expression: String,
    /// Which rows it holds.
    pub values: String,
    /// Bytes.
    pub size_bytes: u64,
    /// The engine's estimate.
    pub approx_rows: u64,
    /// Whether it holds what no other holds.
    pub is_default: bool,
}

/// A view.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ViewStructure {
    /// Its name.
    pub name: String,
    /// Its schema; on MySQL the database.
    pub schema: String,
    /// Its database.
    pub database: String,
    /// In order.
    pub columns: Vec<ColumnStructure>,
    /// The query that it stands for.
    pub definition: String,
    /// Whether its rows are stored.
    pub is_materialized: bool,
    /// Tables and views that it reads, as `schema.name`; null if the engine does not say.
    pub depends_on: Option<Vec<String>>,
    /// The statement that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ddl: Option<ViewDdl>,
}

/// The statement that makes a view.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ViewDdl {
    /// The whole statement, with the indexes of a materialized view.
    pub create_view: String,
}

/// A trigger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Its schema; on MySQL the database.
    pub schema: String,
    /// Its database.
    pub database: String,
    /// Its table.
    pub table_name: String,
    /// `INSERT`, `UPDATE`, `DELETE`, several joined by ` OR `.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// `BEFORE`, `AFTER`, `INSTEAD OF`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<String>,
    /// The statement that makes it, or its body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// A function or procedure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Routine {
    /// Its name.
    pub name: String,
    /// Its schema; on MySQL the database.
    pub schema: String,
    /// Its database.
    pub database: String,
    /// `function` or `procedure`.
    pub routine_type: String,
    /// Its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// What a function answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_type: Option<String>,
    /// `SQL`, `plpgsql`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The statement that makes it, or its body; absent if the user may not see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
}

/// A sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// Its schema; on MySQL the database.
    pub schema: String,
    /// Its database.
    pub database: String,
    /// First value.
    pub start_value: i64,
    /// Step.
    pub increment: i64,
    /// Least value.
    pub min_value: i64,
    /// Greatest value.
    pub max_value: i64,
    /// Values that a session takes at once.
    pub cache_size: i64,
    /// Whether it begins again after its end.
    pub is_cycled: bool,
    /// The value that was handed out last; null if none was or the user may not see it.
    pub last_value: Option<i64>,
    /// The table whose column it fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_table: Option<String>,
    /// The column that it fills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_column: Option<String>,
}
