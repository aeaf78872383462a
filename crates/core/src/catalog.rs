//! What a database contains: everything that is needed to rebuild its tables elsewhere.

use serde::{Deserialize, Serialize};

use crate::config::RowSelection;

/// A table by its place and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// Schema; on MySQL the database.
    pub schema: String,
    /// Name as the catalog spells it.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The tables of one database or schema at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// Base tables, ordered by name.
    pub tables: Vec<Table>,
    /// Objects that a copy does not move, for the report.
    pub others: Vec<OtherObject>,
}

/// An object that exists beside the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherObject {
    /// `view`, `trigger`, `procedure`, `function`, `event`, `sequence`.
    pub kind: String,
    /// Name as the catalog spells it.
    pub name: String,
}

/// A base table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Where it is.
    pub name: TableName,
    /// In order.
    pub columns: Vec<Column>,
    /// Column names of the primary key, in key order; empty without one.
    pub primary_key: Vec<String>,
    /// Secondary indexes, unique and not.
    pub indexes: Vec<Index>,
    /// Foreign keys that start here.
    pub foreign_keys: Vec<ForeignKey>,
    /// Check constraints, without those that only say "valid JSON".
    pub checks: Vec<Check>,
    /// The next value of the automatic key, if the table has one.
    pub next_auto_value: Option<u64>,
    /// Comment; empty without one.
    pub comment: String,
    /// The source's estimate.
    pub estimated_rows: Option<u64>,
    /// The source's estimate, bytes.
    pub estimated_bytes: Option<u64>,
    /// What makes the whole table impossible to move, in words (`it is system-versioned`).
    pub refused: Option<String>,
    /// What the user should know about it: an engine without snapshots.
    pub notes: Vec<String>,
    /// Which rows are wanted; the columns are already reduced to the wanted ones.
    pub selection: RowSelection,
    /// All columns of the source, for filters over columns that are not wanted themselves.
    pub all_columns: Vec<Column>,
    /// The statement whose result this is, if it is no table of the source.
    pub query: Option<String>,
}

impl Table {
    /// The column of that name; MySQL's column names do not distinguish case, so neither does this.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|column| column.name == name)
            .or_else(|| self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)))
    }

    /// The columns that are written: all but generated ones.
    pub fn written_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.generated.is_none())
    }

    /// The key that identifies a row: the primary key, else the first unique index over whole, non-nullable columns.
    pub fn row_key(&self) -> Option<Vec<String>> {
        if !self.primary_key.is_empty() {
            return Some(self.primary_key.clone());
        }
        self.indexes
            .iter()
            .filter(|index| index.unique && index.parts.iter().all(|part| part.prefix.is_none() && part.expression.is_none()))
            .map(|index| index.parts.iter().map(|part| part.column.clone()).collect::<Vec<_>>())
            .find(|columns| columns.iter().all(|name| self.column(name).is_some_and(|column| !column.nullable)))
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Name as the catalog spells it.
    pub name: String,
    /// The type as the engine spells it (`bigint(20) unsigned`).
    pub native_type: String,
    /// The type in common words.
    pub logical: LogicalType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// The default, if any.
    pub default: Option<DefaultValue>,
    /// Whether the engine fills it with the next number.
    pub auto_increment: bool,
    /// The expression of a generated column, in the source's dialect.
    pub generated: Option<String>,
    /// Comment; empty without one.
    pub comment: String,
}

/// A column's default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DefaultValue {
    /// A literal: its text without quotes.
    Literal(String),
    /// The moment of the insert, with so many digits of a second.
    Now(u8),
    /// An expression in the source's dialect.
    Expression(String),
}

/// What a column holds, in words that all engines share. Lengths are characters for text and bytes for binary types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogicalType {
    /// True or false.
    Bool,
    /// An integer of 8, 16, 24, 32 or 64 bits.
    Int {
        /// Width in bits.
        bits: u8,
        /// Whether it holds no negative numbers.
        unsigned: bool,
    },
    /// Exact decimal.
    Decimal {
        /// All digits.
        precision: u16,
        /// Digits after the point.
        scale: u16,
    },
    /// IEEE 754 binary32.
    Float32,
    /// IEEE 754 binary64.
    Float64,
    /// Text of fixed length; trailing spaces do not count.
    Char(u32),
    /// Text up to a length.
    Varchar(u32),
    /// Text without a declared length.
    Text,
    /// Bytes of fixed length.
    Binary(u32),
    /// Bytes without or up to a length.
    Bytes,
    /// So many bits.
    Bit(u16),
    /// A day.
    Date,
    /// A wall-clock moment, digits of a second.
    DateTime(u8),
    /// A moment in UTC, digits of a second.
    Timestamp(u8),
    /// A time of day or a span, digits of a second (MySQL TIME holds −838:59:59 to 838:59:59).
    Time(u8),
    /// A year: 0, 1901 to 2155.
    Year,
    /// One of the labels.
    Enum(Vec<String>),
    /// Any of the labels.
    Set(Vec<String>),
    /// JSON kept as it was written (MariaDB).
    JsonText,
    /// JSON in the engine's own form (MySQL).
    Json,
    /// 128 bits in the canonical form.
    Uuid,
    /// An IPv4 or IPv6 address.
    Inet,
    /// A spatial value.
    Spatial {
        /// `point`, `polygon`, `geometry`, …
        shape: String,
    },
    /// A type without a faithful form here; the plan refuses it with this reason.
    Unsupported(String),
}

/// A secondary index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Name as the catalog spells it.
    pub name: String,
    /// Whether it forbids duplicates.
    pub unique: bool,
    /// `BTREE`, `HASH`, `FULLTEXT`, `SPATIAL`.
    pub method: String,
    /// In order.
    pub parts: Vec<IndexPart>,
}

/// One part of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexPart {
    /// The column; empty for an expression.
    pub column: String,
    /// Only the first so many characters or bytes.
    pub prefix: Option<u32>,
    /// Falling order.
    pub descending: bool,
    /// An expression in the source's dialect (MySQL 8 functional key parts).
    pub expression: Option<String>,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// Name as the catalog spells it.
    pub name: String,
    /// Columns here.
    pub columns: Vec<String>,
    /// The table it points to.
    pub referenced: TableName,
    /// Columns there.
    pub referenced_columns: Vec<String>,
    /// `RESTRICT`, `CASCADE`, `SET NULL`, `NO ACTION`.
    pub on_update: String,
    /// As above.
    pub on_delete: String,
}

/// A check constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Name as the catalog spells it.
    pub name: String,
    /// The condition in the source's dialect.
    pub expression: String,
}
