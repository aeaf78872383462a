//! Reads everything that is needed to rebuild a database's tables from `information_schema`.
//!
//! Every view is asked for with `SELECT *` and its columns are looked up by name, because servers differ in which columns they have
//! (MySQL 5.6 has no generated columns, MariaDB no `EXPRESSION` of an index part). Names are compared exactly here, since the views compare without
//! regard to case.

use std::collections::BTreeMap;

use millrace_core::catalog::{Catalog, Check, Column, ForeignKey, Index, IndexPart, LogicalType, OtherObject, Table, TableName};
use millrace_core::config::{RowSelection, TableSelection};
use millrace_core::connector::Wanted;
use millrace_core::selection;
use millrace_core::{Error, Kind, Result};

use super::defaults::{column_default, logical_type};
use super::wire::{TextRow, Wire};
use super::{literal, quote};

/// Engines whose tables belong to a consistent snapshot.
const SNAPSHOT_ENGINES: [&str; 4] = ["InnoDB", "RocksDB", "TokuDB", "ROCKSDB"];

/// What the database contains; only the named tables and queries if any are named.
pub(super) async fn load(wire: &mut Wire, database: &str, Wanted { tables: wanted, queries }: Wanted<'_>) -> Result<Catalog> {
    let schema = literal(database);
    let exists =
        wire.query_text(&format!("SELECT schema_name AS name FROM information_schema.schemata WHERE schema_name = {schema}")).await?;
    if !exists.iter().any(|row| row.get("name") == Some(database)) {
        return Err(Error::new(Kind::ObjectMissing, format!("the database `{database}` does not exist or is not visible to this user"))
            .field("source.connections[0].database"));
    }
    let (mut tables, mut others) = tables(wire, database).await?;
    if wanted.is_empty() && !queries.is_empty() {
        tables.clear();
        others.clear();
    }
    let selections = keep_wanted(&mut tables, &others, database, wanted)?;
    let checks = checks(wire, &schema).await?;
    columns(wire, &schema, &mut tables, &checks).await?;
    indexes(wire, &schema, &mut tables).await?;
    foreign_keys(wire, &schema, &mut tables).await?;
    for (table, checks) in checks {
        let Some(table) = tables.get_mut(&table) else { continue };
        let is_validity = |check: &Check| {
            table.columns.iter().any(|column| column.logical == LogicalType::JsonText && is_json_check(check, &column.name))
        };
        let kept: Vec<Check> = checks.into_iter().filter(|check| !is_validity(check)).collect();
        table.checks = kept;
    }
    for (name, index) in selections {
        if let (Some(table), Some(selection)) = (tables.get_mut(&name), &wanted[index].selection) {
            table.all_columns = table.columns.clone();
            let at = format!("source.connections[0].tables[{index}].selection");
            selection::apply(table, selection, &at)?;
            // Operands are read now, so that a wrong one is named before anything is made.
            super::selection::conditions(table, &table.all_columns).map_err(|error| {
                let field = error.field_name().map(|field| format!("{at}.{field}")).unwrap_or_default();
                error.field(field)
            })?;
        }
    }
    if queries.is_empty() {
        other_objects(wire, &schema, &mut others).await;
    }
    let mut tables: Vec<Table> = tables.into_values().collect();
    for (index, query) in queries.iter().enumerate() {
        let at = format!("source.connections[0].queries[{index}]");
        if tables.iter().any(|table| table.name.name == query.name) {
            return Err(Error::invalid(
                format!("{at}.name"),
                format!("`{}` is already the name of a table or query of this config", query.name),
            ));
        }
        tables.push(super::queries::describe(wire, database, query, &at).await?);
    }
    Ok(Catalog { tables, others })
}

type Tables = BTreeMap<String, Table>;

async fn view(wire: &mut Wire, view: &str, column: &str, schema: &str) -> Result<Vec<TextRow>> {
    wire.query_text(&format!("SELECT * FROM information_schema.{view} WHERE {column} = {schema}")).await
}

async fn tables(wire: &mut Wire, database: &str) -> Result<(Tables, Vec<OtherObject>)> {
    let mut tables = Tables::new();
    let mut others = Vec::new();
    for row in view(wire, "tables", "table_schema", &literal(database)).await? {
        if row.get("TABLE_SCHEMA") != Some(database) {
            continue;
        }
        let name = row.text("TABLE_NAME");
        let refused = match row.get("TABLE_TYPE") {
            Some("BASE TABLE") => None,
            Some("SYSTEM VERSIONED") => Some("it is system-versioned: its history cannot be moved".to_owned()),
            other => {
                let kind = other.unwrap_or("object").to_ascii_lowercase();
                others.push(OtherObject { kind, name });
                continue;
            }
        };
        let engine = row.text("ENGINE");
        let mut notes = Vec::new();
        if !SNAPSHOT_ENGINES.contains(&engine.as_str()) {
            notes.push(format!("its engine {engine} has no snapshots: rows changed during the copy may be seen half"));
        }
        let number = |column: &str| row.get(column).and_then(|text| text.parse().ok());
        let table = Table {
            name: TableName { schema: database.to_owned(), name: name.clone() },
            columns: Vec::new(),
            primary_key: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            checks: Vec::new(),
            next_auto_value: number("AUTO_INCREMENT"),
            comment: row.text("TABLE_COMMENT"),
            estimated_rows: number("TABLE_ROWS"),
            estimated_bytes: number("DATA_LENGTH"),
            refused,
            notes,
            selection: RowSelection::default(),
            all_columns: Vec::new(),
            query: None,
        };
        tables.insert(name, table);
    }
    Ok((tables, others))
}

fn keep_wanted(tables: &mut Tables, others: &[OtherObject], database: &str, wanted: &[TableSelection]) -> Result<Vec<(String, usize)>> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = Vec::with_capacity(wanted.len());
    for (index, selected) in wanted.iter().enumerate() {
        let name = &selected.name;
        // A name with a dot is `database.table` only if it is not itself the name of a table.
        let bare = name.strip_prefix(database).and_then(|rest| rest.strip_prefix('.')).filter(|_| !tables.contains_key(name));
        let bare = bare.unwrap_or(name);
        if !tables.contains_key(bare) {
            let what = others.iter().find(|other| other.name == bare).map_or("table", |other| other.kind.as_str());
            let message = match what {
                "table" => format!("the table `{database}.{bare}` does not exist or is not visible to this user"),
                kind => format!("`{database}.{bare}` is a {kind}, not a table"),
            };
            return Err(Error::new(Kind::ObjectMissing, message)
                .field(format!("source.connections[0].tables[{index}].name"))
                .with("table", name.clone())
                .with("index", index.to_string()));
        }
        names.push((bare.to_owned(), index));
    }
    tables.retain(|name, _| names.iter().any(|(wanted, _)| wanted == name));
    Ok(names)
}

async fn columns(wire: &mut Wire, schema: &str, tables: &mut Tables, checks: &BTreeMap<String, Vec<Check>>) -> Result<()> {
    let is_mariadb = wire.is_mariadb();
    let mut rows = view(wire, "columns", "table_schema", schema).await?;
    rows.sort_by_key(|row| row.get("ORDINAL_POSITION").and_then(|text| text.parse::<u32>().ok()));
    for row in rows {
        let Some(table) = tables.get_mut(row.get("TABLE_NAME").unwrap_or_default()) else { continue };
        if row.get("TABLE_SCHEMA") != Some(table.name.schema.as_str()) {
            continue;
        }
        let name = row.text("COLUMN_NAME");
        let extra = row.text("EXTRA").to_ascii_lowercase();
        let native_type = row.text("COLUMN_TYPE");
        let mut logical = logical_type(&row.text("DATA_TYPE"), &native_type, row.get("CHARACTER_SET_NAME"));
        let is_json = checks.get(&table.name.name).into_iter().flatten().any(|check| is_json_check(check, &name));
        if logical == LogicalType::Text && is_json {
            logical = LogicalType::JsonText;
        }
        let generated = row.get("GENERATION_EXPRESSION").filter(|text| !text.is_empty()).map(str::to_owned);
        let default = if generated.is_some() { None } else { column_default(row.get("COLUMN_DEFAULT"), &extra, &logical, is_mariadb) };
        table.columns.push(Column {
            name,
            native_type,
            logical,
            nullable: row.get("IS_NULLABLE") == Some("YES"),
            default,
            auto_increment: extra.contains("auto_increment"),
            generated,
            comment: row.text("COLUMN_COMMENT"),
        });
    }
    Ok(())
}

async fn indexes(wire: &mut Wire, schema: &str, tables: &mut Tables) -> Result<()> {
    let mut rows = view(wire, "statistics", "table_schema", schema).await?;
    rows.sort_by_key(|row| row.get("SEQ_IN_INDEX").and_then(|text| text.parse::<u32>().ok()));
    for row in rows {
        let Some(table) = tables.get_mut(row.get("TABLE_NAME").unwrap_or_default()) else { continue };
        if row.get("TABLE_SCHEMA") != Some(table.name.schema.as_str()) {
            continue;
        }
        let name = row.text("INDEX_NAME");
        let column = row.text("COLUMN_NAME");
        if name == "PRIMARY" {
            table.primary_key.push(column);
            continue;
        }
        let part = IndexPart {
            column,
            prefix: row.get("SUB_PART").and_then(|text| text.parse().ok()),
            descending: row.get("COLLATION") == Some("D"),
            expression: row.get("EXPRESSION").map(str::to_owned),
        };
        match table.indexes.iter_mut().find(|index| index.name == name) {
            Some(index) => index.parts.push(part),
            None => table.indexes.push(Index {
                name,
                unique: row.get("NON_UNIQUE") == Some("0"),
                method: row.text("INDEX_TYPE"),
                parts: vec![part],
            }),
        }
    }
    for table in tables.values_mut() {
        // The order of creation is not in the view; by name, the result is at least always the same.
        table.indexes.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(())
}

async fn foreign_keys(wire: &mut Wire, schema: &str, tables: &mut Tables) -> Result<()> {
    let mut parts = view(wire, "key_column_usage", "table_schema", schema).await?;
    parts.sort_by_key(|row| row.get("ORDINAL_POSITION").and_then(|text| text.parse::<u32>().ok()));
    for rule in view(wire, "referential_constraints", "constraint_schema", schema).await? {
        let table_name = rule.text("TABLE_NAME");
        let Some(table) = tables.get_mut(&table_name) else { continue };
        let name = rule.text("CONSTRAINT_NAME");
        let own = |row: &&TextRow| {
            row.get("CONSTRAINT_NAME") == Some(name.as_str())
                && row.get("TABLE_NAME") == Some(table_name.as_str())
                && row.get("REFERENCED_TABLE_NAME").is_some()
        };
        let own: Vec<&TextRow> = parts.iter().filter(own).collect();
        let Some(first) = own.first() else { continue };
        table.foreign_keys.push(ForeignKey {
            columns: own.iter().map(|row| row.text("COLUMN_NAME")).collect(),
            referenced: TableName { schema: first.text("REFERENCED_TABLE_SCHEMA"), name: first.text("REFERENCED_TABLE_NAME") },
            referenced_columns: own.iter().map(|row| row.text("REFERENCED_COLUMN_NAME")).collect(),
            on_update: rule.text("UPDATE_RULE"),
            on_delete: rule.text("DELETE_RULE"),
            name,
        });
    }
    for table in tables.values_mut() {
        table.foreign_keys.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(())
}

/// Checks by table. MariaDB names the table in the view; MySQL 8 needs `table_constraints` for it; MySQL 5 has no checks.
pub(super) async fn checks(wire: &mut Wire, schema: &str) -> Result<BTreeMap<String, Vec<Check>>> {
    let mut checks: BTreeMap<String, Vec<Check>> = BTreeMap::new();
    let rows = match view(wire, "check_constraints", "constraint_schema", schema).await {
        Ok(rows) => rows,
        Err(error) if error.detail("errno") == Some("1109") => return Ok(checks), // the view does not exist
        Err(error) => return Err(error),
    };
    let owners = if wire.is_mariadb() || rows.is_empty() {
        Vec::new()
    } else {
        view(wire, "table_constraints", "constraint_schema", schema).await?
    };
    for row in rows {
        let name = row.text("CONSTRAINT_NAME");
        let owner = owners.iter().find(|owner| owner.get("CONSTRAINT_NAME") == Some(name.as_str()));
        let table = row.get("TABLE_NAME").or_else(|| owner.and_then(|owner| owner.get("TABLE_NAME")));
        if let Some(table) = table {
            let expression = row.text("CHECK_CLAUSE");
            checks.entry(table.to_owned()).or_default().push(Check { name, expression });
        }
    }
    Ok(checks)
}

/// MariaDB's JSON is a LONGTEXT with this check.
fn is_json_check(check: &Check, column: &str) -> bool {
    let bare = |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase() };
    let quoted = format!("json_valid({})", quote(column));
    [quoted, format!("json_valid({column})")].iter().any(|expected| bare(&check.expression) == bare(expected))
}

/// Objects that stay behind. A user without the privilege to see them gets a shorter report, not an error.
async fn other_objects(wire: &mut Wire, schema: &str, others: &mut Vec<OtherObject>) {
    let views = [
        ("triggers", "trigger_schema", "TRIGGER_NAME", "trigger"),
        ("routines", "routine_schema", "ROUTINE_NAME", ""),
        ("events", "event_schema", "EVENT_NAME", "event"),
    ];
    for (name, column, object, kind) in views {
        for row in view(wire, name, column, schema).await.unwrap_or_default() {
            let kind = if kind.is_empty() { row.text("ROUTINE_TYPE").to_ascii_lowercase() } else { kind.to_owned() };
            others.push(OtherObject { kind, name: row.text(object) });
        }
    }
}
