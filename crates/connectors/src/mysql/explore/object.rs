//! One table or view as pages and edits need to know it: its columns, and what names a row.

use millrace_core::catalog::LogicalType;
use millrace_core::{Error, Kind, Result};

use super::super::defaults::logical_type;
use super::super::wire::{TextRow, Wire};
use super::text_literal;

/// A table or view.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) database: String,
    pub(super) name: String,
    pub(super) columns: Vec<ObjectColumn>,
    pub(super) key: RowKeyColumns,
    pub(super) is_view: bool,
    /// Whether a change of several rows can be taken back.
    pub(super) is_transactional: bool,
    /// The table's storage engine.
    pub(super) engine: String,
}

/// A column.
#[derive(Debug, Clone)]
pub(super) struct ObjectColumn {
    pub(super) name: String,
    /// `bigint(20) unsigned`
    pub(super) full_type: String,
    pub(super) logical: LogicalType,
    pub(super) is_nullable: bool,
    pub(super) is_generated: bool,
    /// Whether an update of the row changes it by itself.
    pub(super) is_refreshed: bool,
    pub(super) is_automatic: bool,
}

/// What names a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowKeyColumns {
    /// The primary key.
    Primary(Vec<String>),
    /// A unique index over whole columns that are never NULL.
    Unique(Vec<String>),
    /// All columns together.
    FullRow,
}

impl RowKeyColumns {
    /// The key's columns; none if only all columns name a row.
    pub(super) fn columns(&self) -> &[String] {
        match self {
            Self::Primary(columns) | Self::Unique(columns) => columns,
            Self::FullRow => &[],
        }
    }

    /// The word on the wire.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Primary(_) => "primary_key",
            Self::Unique(_) => "unique_index",
            Self::FullRow => "full_row",
        }
    }
}

/// An object that is not there.
pub(super) fn missing(kind: &str, database: &str, name: &str) -> Error {
    Error::new(Kind::ObjectMissing, format!("there is no {kind} `{name}` in the database `{database}`, or it is not visible to this user"))
        .with("table", name.to_owned())
}

impl Object {
    /// Reads what is to be known.
    pub(super) async fn read(wire: &mut Wire, database: &str, name: &str) -> Result<Self> {
        let place = format!("table_schema = {} AND table_name = {}", text_literal(database), text_literal(name));
        // The views of information_schema compare names without regard to case.
        let is_own = |row: &TextRow| row.get("TABLE_SCHEMA") == Some(database) && row.get("TABLE_NAME") == Some(name);
        let tables = wire.query_text(&format!("SELECT * FROM information_schema.tables WHERE {place}")).await?;
        let Some(table) = tables.iter().find(|row| is_own(row)) else { return Err(missing("table or view", database, name)) };
        let columns = wire.query_text(&format!("SELECT * FROM information_schema.columns WHERE {place} ORDER BY ordinal_position")).await?;
        let columns: Vec<ObjectColumn> = columns.iter().filter(|row| is_own(row)).map(column).collect();
        let sql = format!("SELECT * FROM information_schema.statistics WHERE {place} ORDER BY index_name, seq_in_index");
        let index = wire.query_text(&sql).await?;
        let key =
            row_key(index.iter().filter(|row| is_own(row)), |name| columns.iter().any(|column| column.name == name && !column.is_nullable));
        let engine = table.text("ENGINE");
        let engines =
            wire.query_text(&format!("SELECT * FROM information_schema.engines WHERE engine = {}", text_literal(&engine))).await?;
        Ok(Self {
            database: database.to_owned(),
            name: name.to_owned(),
            is_view: table.text("TABLE_TYPE").contains("VIEW"),
            is_transactional: engines.first().is_some_and(|row| row.get("TRANSACTIONS") == Some("YES")),
            engine,
            columns,
            key,
        })
    }

    /// The column of that name; names of columns do not distinguish case.
    pub(super) fn column(&self, name: &str) -> Option<&ObjectColumn> {
        self.columns
            .iter()
            .find(|column| column.name == name)
            .or_else(|| self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)))
    }

    /// A column of that name, or why there is none.
    pub(super) fn known_column(&self, name: &str) -> Result<&ObjectColumn> {
        self.column(name).ok_or_else(|| {
            Error::new(Kind::ObjectMissing, format!("`{}` has no column `{name}`", self.name)).with("column", name.to_owned())
        })
    }

    /// Whether nothing fills the table's automatic key but a given value.
    pub(super) fn automatic_column(&self) -> Option<&ObjectColumn> {
        self.columns.iter().find(|column| column.is_automatic)
    }
}

fn column(row: &TextRow) -> ObjectColumn {
    let full_type = row.text("COLUMN_TYPE");
    let extra = row.text("EXTRA").to_ascii_lowercase();
    ObjectColumn {
        name: row.text("COLUMN_NAME"),
        logical: logical_type(&row.text("DATA_TYPE"), &full_type, row.get("CHARACTER_SET_NAME")),
        full_type,
        is_nullable: row.get("IS_NULLABLE") == Some("YES"),
        is_generated: extra.contains("virtual") || extra.contains("stored") || extra.contains("persistent"),
        is_refreshed: extra.contains("on update"),
        is_automatic: extra.contains("auto_increment"),
    }
}

/// The key that names a row, from the rows of `information_schema.statistics`, ordered by index and place.
pub(super) fn row_key<'a>(index: impl Iterator<Item = &'a TextRow>, is_never_null: impl Fn(&str) -> bool) -> RowKeyColumns {
    let mut indexes: Vec<(String, bool, Vec<String>)> = Vec::new();
    for row in index {
        let name = row.text("INDEX_NAME");
        let is_whole = row.get("NON_UNIQUE") == Some("0") && row.get("SUB_PART").is_none() && row.get("COLUMN_NAME").is_some();
        match indexes.iter_mut().find(|(other, ..)| *other == name) {
            Some((_, whole, columns)) => {
                *whole &= is_whole;
                columns.push(row.text("COLUMN_NAME"));
            }
            None => indexes.push((name, is_whole, vec![row.text("COLUMN_NAME")])),
        }
    }
    if let Some((_, _, columns)) = indexes.iter().find(|(name, ..)| name == "PRIMARY") {
        return RowKeyColumns::Primary(columns.clone());
    }
    let unique = indexes.into_iter().find(|(_, is_whole, columns)| *is_whole && columns.iter().all(|column| is_never_null(column)));
    unique.map_or(RowKeyColumns::FullRow, |(_, _, columns)| RowKeyColumns::Unique(columns))
}
