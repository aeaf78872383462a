//! What a database contains, out of `information_schema`: every view is asked once, whatever the number of objects, and read by the names of its columns, because
//! servers differ in which they have.

use std::collections::BTreeMap;

use millrace_core::catalog::{Check, LogicalType};
use millrace_core::structure::{
    CheckClause, ColumnStructure, DatabaseStructure, ForeignKeyColumn, IndexStructure, ObjectName, ObjectNames, Partition, Routine,
    Sequence, TableDdl, TableStructure, Trigger, ViewDdl, ViewStructure,
};
use millrace_core::{Kind, Result};

use super::super::catalog;
use super::super::defaults::logical_type;
use super::super::wire::{TextRow, Wire};
use super::object::row_key;
use super::{qualified, text_literal};

/// The names of all objects.
pub(super) async fn names(wire: &mut Wire, database: &str) -> Result<ObjectNames> {
    let schema = text_literal(database);
    let mut names = ObjectNames::default();
    let object = |name: String| ObjectName { schema: None, name };
    let sql =
        format!("SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema = {schema} ORDER BY 2");
    for row in wire.query_text(&sql).await? {
        if row.at(0) != Some(database) {
            continue;
        }
        let name = object(row.at(1).unwrap_or_default().to_owned());
        match row.at(2).unwrap_or_default() {
            "BASE TABLE" | "SYSTEM VERSIONED" => names.tables.push(name),
            "SEQUENCE" => names.sequences.push(name),
            kind if kind.contains("VIEW") => names.views.push(name),
            _ => {}
        }
    }
    let sql = format!(
        "SELECT routine_schema, routine_name, routine_type FROM information_schema.routines WHERE routine_schema = {schema} ORDER BY 2"
    );
    for row in wire.query_text(&sql).await? {
        if row.at(0) != Some(database) {
            continue;
        }
        let name = object(row.at(1).unwrap_or_default().to_owned());
        if row.at(2) == Some("PROCEDURE") { names.procedures.push(name) } else { names.functions.push(name) }
    }
    Ok(names)
}

/// Everything about all objects, or about one table or view.
pub(super) async fn structure(wire: &mut Wire, database: &str, only: Option<&str>) -> Result<DatabaseStructure> {
    let facts = Facts::read(wire, database, only).await?;
    let mut found = DatabaseStructure::default();
    for row in &facts.tables {
        let name = row.text("TABLE_NAME");
        match row.get("TABLE_TYPE").unwrap_or_default() {
            "BASE TABLE" | "SYSTEM VERSIONED" => {
                let ddl = show_create(wire, &format!("SHOW CREATE TABLE {}", qualified(database, &name)), "Create Table").await?;
                found.tables.push(facts.table(database, row, ddl));
            }
            kind if kind.contains("VIEW") => {
                let ddl = show_create(wire, &format!("SHOW CREATE VIEW {}", qualified(database, &name)), "Create View").await?;
                found.views.push(facts.view(database, &name, ddl));
            }
            "SEQUENCE" if only.is_none() => found.sequences.extend(sequence(wire, database, &name).await?),
            _ => {}
        }
    }
    if only.is_none() {
        found.triggers = triggers(wire, database).await?;
        found.routines = routines(wire, database).await?;
    }
    Ok(found)
}

type Grouped = BTreeMap<String, Vec<TextRow>>;

/// What `information_schema` says, by table.
struct Facts {
    is_mariadb: bool,
    tables: Vec<TextRow>,
    columns: Grouped,
    indexes: Grouped,
    keys: Grouped,
    rules: Grouped,
    checks: BTreeMap<String, Vec<Check>>,
    partitions: Grouped,
    views: Grouped,
}

impl Facts {
    async fn read(wire: &mut Wire, database: &str, only: Option<&str>) -> Result<Self> {
        let mut ask = async |view: &str, schema: &str, order: &str| ask(wire, view, schema, database, only, order).await;
        let tables = ask("tables", "TABLE_SCHEMA", "table_name").await?;
        let columns = ask("columns", "TABLE_SCHEMA", "table_name, ordinal_position").await?;
        let indexes = ask("statistics", "TABLE_SCHEMA", "table_name, index_name, seq_in_index").await?;
        let keys = ask("key_column_usage", "TABLE_SCHEMA", "table_name, constraint_name, ordinal_position").await?;
        let rules = ask("referential_constraints", "CONSTRAINT_SCHEMA", "table_name, constraint_name").await?;
        let partitions = ask("partitions", "TABLE_SCHEMA", "table_name, partition_ordinal_position").await?;
        let views = ask("views", "TABLE_SCHEMA", "table_name").await?;
        let checks = catalog::checks(wire, &text_literal(database)).await?;
        Ok(Self {
            is_mariadb: wire.is_mariadb(),
            tables,
            columns: grouped(columns),
            indexes: grouped(indexes),
            keys: grouped(keys),
            rules: grouped(rules),
            checks,
            partitions: grouped(partitions),
            views: grouped(views),
        })
    }

    fn rows<'a>(group: &'a Grouped, table: &str) -> &'a [TextRow] {
        group.get(table).map(Vec::as_slice).unwrap_or_default()
    }

    fn table(&self, database: &str, row: &TextRow, ddl: Option<String>) -> TableStructure {
        let name = row.text("TABLE_NAME");
        let number = |column: &str| row.get(column).and_then(|text| text.parse::<u64>().ok());
        let index_rows = Self::rows(&self.indexes, &name);
        let columns = self.columns(&name);
        let is_never_null = |column: &str| columns.iter().any(|other| other.name == column && !other.is_nullable);
        let key = row_key(index_rows.iter(), is_never_null);
        let all = || columns.iter().map(|column| column.name.clone()).collect();
        let is_versioned = row.get("TABLE_TYPE") == Some("SYSTEM VERSIONED");
        let partitions = partitions(Self::rows(&self.partitions, &name), database);
        let indexes = indexes(index_rows);
        TableStructure {
            primary_keys: indexes.iter().find(|index| index.is_primary).map(|index| index.columns.clone()).unwrap_or_default(),
            foreign_keys: self.foreign_keys(&name),
            estimated_rows: number("TABLE_ROWS"),
            estimated_size_bytes: number("DATA_LENGTH").map(|data| data + number("INDEX_LENGTH").unwrap_or(0)),
            is_editable: true,
            edit_key_columns: if key.columns().is_empty() { all() } else { key.columns().to_vec() },
            editability_reason: match (key.columns().is_empty(), is_versioned) {
                (true, _) => Some("it has neither a primary key nor a unique index: a row is named by all its columns".to_owned()),
                (false, true) => Some("it is system-versioned: an edit leaves the old row in its history".to_owned()),
                (false, false) => None,
            },
            edit_key_type: Some(key.word().to_owned()),
            ddl: ddl.map(|create_table| TableDdl { create_table, create_indexes: Vec::new() }),
            is_partitioned: !partitions.is_empty(),
            partition_strategy: partitions.first().map(|partition| partition.strategy.clone()),
            partitions,
            comment: row.text("TABLE_COMMENT"),
            schema: database.to_owned(),
            database: database.to_owned(),
            columns,
            indexes,
            name,
        }
    }

    fn view(&self, database: &str, name: &str, ddl: Option<String>) -> ViewStructure {
        let definition = Self::rows(&self.views, name).first().map(|row| row.text("VIEW_DEFINITION")).unwrap_or_default();
        ViewStructure {
            name: name.to_owned(),
            schema: database.to_owned(),
            database: database.to_owned(),
            columns: self.columns(name),
            definition,
            is_materialized: false,
            depends_on: None,
            ddl: ddl.map(|create_view| ViewDdl { create_view }),
        }
    }

    fn columns(&self, table: &str) -> Vec<ColumnStructure> {
        let index_rows = Self::rows(&self.indexes, table);
        let checks = self.checks.get(table).map(Vec::as_slice).unwrap_or_default();
        Self::rows(&self.columns, table).iter().map(|row| column(row, index_rows, checks, self.is_mariadb)).collect()
    }

    fn foreign_keys(&self, table: &str) -> Vec<ForeignKeyColumn> {
        let rules = Self::rows(&self.rules, table);
        let rows = Self::rows(&self.keys, table).iter().filter(|row| row.get("REFERENCED_TABLE_NAME").is_some());
        rows.map(|row| {
            let name = row.text("CONSTRAINT_NAME");
            let rule = rules.iter().find(|rule| rule.get("CONSTRAINT_NAME") == Some(&name));
            let action = |column: &str| rule.and_then(|rule| rule.get(column)).map(str::to_owned);
            ForeignKeyColumn {
                source_column: row.text("COLUMN_NAME"),
                referenced_schema: row.get("REFERENCED_TABLE_SCHEMA").map(str::to_owned),
                referenced_table: row.text("REFERENCED_TABLE_NAME"),
                referenced_column: row.text("REFERENCED_COLUMN_NAME"),
                on_update: action("UPDATE_RULE"),
                on_delete: action("DELETE_RULE"),
                name,
            }
        })
        .collect()
    }
}

/// The rows of a view that concern the database, or one table of it. The views compare names without regard to case.
async fn ask(wire: &mut Wire, view: &str, schema: &str, database: &str, only: Option<&str>, order: &str) -> Result<Vec<TextRow>> {
    let one = only.map_or(String::new(), |name| format!(" AND table_name = {}", text_literal(name)));
    let sql = format!("SELECT * FROM information_schema.{view} WHERE {schema} = {}{one} ORDER BY {order}", text_literal(database));
    let is_own = |row: &TextRow| row.get(schema) == Some(database) && only.is_none_or(|name| row.get("TABLE_NAME") == Some(name));
    Ok(wire.query_text(&sql).await?.into_iter().filter(is_own).collect())
}

fn grouped(rows: Vec<TextRow>) -> Grouped {
    let mut groups = Grouped::new();
    for row in rows {
        groups.entry(row.text("TABLE_NAME")).or_default().push(row);
    }
    groups
}

fn column(row: &TextRow, index_rows: &[TextRow], checks: &[Check], is_mariadb: bool) -> ColumnStructure {
    let name = row.text("COLUMN_NAME");
    let full = row.text("COLUMN_TYPE");
    let extra = row.text("EXTRA").to_ascii_lowercase();
    let text = |column: &str| row.get(column).filter(|text| !text.is_empty()).map(str::to_owned);
    let number = |column: &str| row.get(column).and_then(|text| text.parse::<i64>().ok());
    let is_numeric = row.get("NUMERIC_PRECISION").is_some();
    let unique = index_rows.iter().any(|index| {
        let is_alone = index_rows.iter().filter(|other| other.get("INDEX_NAME") == index.get("INDEX_NAME")).count() == 1;
        index.get("COLUMN_NAME") == Some(&name) && index.get("NON_UNIQUE") == Some("0") && is_alone && index.get("SUB_PART").is_none()
    });
    let labels = match logical_type(&row.text("DATA_TYPE"), &full, row.get("CHARACTER_SET_NAME")) {
        LogicalType::Enum(labels) | LogicalType::Set(labels) => Some(labels),
        _ => None,
    };
    // A check of MariaDB that stands behind the column names it in backticks.
    let quoted = super::quote(&name);
    let concerns = |check: &&Check| check.expression.contains(&quoted);
    ColumnStructure {
        data_type: row.text("DATA_TYPE"),
        is_unsigned: is_numeric.then(|| full.contains("unsigned")),
        character_set: text("CHARACTER_SET_NAME"),
        collation: text("COLLATION_NAME"),
        enum_values: labels,
        is_nullable: row.get("IS_NULLABLE") == Some("YES"),
        is_primary_key: row.get("COLUMN_KEY") == Some("PRI"),
        is_unique: unique,
        auto_increment: extra.contains("auto_increment"),
        generated: text("GENERATION_EXPRESSION"),
        // MariaDB spells "no default" of a nullable column as NULL.
        default_value: row.get("COLUMN_DEFAULT").filter(|text| !is_mariadb || *text != "NULL").map(str::to_owned),
        comment: text("COLUMN_COMMENT"),
        length: number("CHARACTER_MAXIMUM_LENGTH"),
        precision: number("NUMERIC_PRECISION").or_else(|| number("DATETIME_PRECISION")),
        scale: number("NUMERIC_SCALE"),
        check_constraints: checks
            .iter()
            .filter(concerns)
            .map(|check| CheckClause { name: check.name.clone(), clause: check.expression.clone() })
            .collect(),
        column_type: Some(full),
        name,
        ..ColumnStructure::default()
    }
}

fn indexes(rows: &[TextRow]) -> Vec<IndexStructure> {
    let mut indexes: Vec<IndexStructure> = Vec::new();
    for row in rows {
        let name = row.text("INDEX_NAME");
        let part = row.get("COLUMN_NAME").or_else(|| row.get("EXPRESSION")).unwrap_or_default().to_owned();
        match indexes.iter_mut().find(|index| index.name == name) {
            Some(index) => index.columns.push(part),
            None => indexes.push(IndexStructure {
                columns: vec![part],
                is_unique: row.get("NON_UNIQUE") == Some("0"),
                is_primary: name == "PRIMARY",
                is_full_text_index: row.get("INDEX_TYPE") == Some("FULLTEXT"),
                method: row.text("INDEX_TYPE"),
                name,
            }),
        }
    }
    indexes
}

fn partitions(rows: &[TextRow], database: &str) -> Vec<Partition> {
    let number = |row: &TextRow, column: &str| row.get(column).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    rows.iter()
        .filter(|row| row.get("PARTITION_NAME").is_some())
        .map(|row| Partition {
            name: row.get("SUBPARTITION_NAME").or_else(|| row.get("PARTITION_NAME")).unwrap_or_default().to_owned(),
            schema: database.to_owned(),
            strategy: row.text("PARTITION_METHOD").trim_start_matches("LINEAR ").trim_end_matches(" COLUMNS").to_owned(),
            expression: row.text("PARTITION_EXPRESSION"),
            values: row.text("PARTITION_DESCRIPTION"),
            size_bytes: number(row, "DATA_LENGTH") + number(row, "INDEX_LENGTH"),
            approx_rows: number(row, "TABLE_ROWS"),
            is_default: matches!(row.get("PARTITION_DESCRIPTION"), Some("MAXVALUE" | "DEFAULT")),
        })
        .collect()
}

/// The statement that makes an object; none if the user may not see it.
async fn show_create(wire: &mut Wire, sql: &str, column: &str) -> Result<Option<String>> {
    match wire.query_text(sql).await {
        Ok(rows) => Ok(rows.first().and_then(|row| row.get(column)).map(str::to_owned)),
        Err(error) if matches!(error.kind(), Kind::PermissionDenied | Kind::ObjectMissing) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn triggers(wire: &mut Wire, database: &str) -> Result<Vec<Trigger>> {
    let sql = format!("SELECT * FROM information_schema.triggers WHERE trigger_schema = {} ORDER BY trigger_name", text_literal(database));
    let rows = wire.query_text(&sql).await?;
    let one = |row: TextRow| Trigger {
        name: row.text("TRIGGER_NAME"),
        schema: database.to_owned(),
        database: database.to_owned(),
        table_name: row.text("EVENT_OBJECT_TABLE"),
        event: row.get("EVENT_MANIPULATION").map(str::to_owned),
        timing: row.get("ACTION_TIMING").map(str::to_owned),
        definition: row.get("ACTION_STATEMENT").map(str::to_owned),
    };
    Ok(rows.into_iter().filter(|row| row.get("TRIGGER_SCHEMA") == Some(database)).map(one).collect())
}

async fn routines(wire: &mut Wire, database: &str) -> Result<Vec<Routine>> {
    let schema = text_literal(database);
    let sql =
        format!("SELECT * FROM information_schema.parameters WHERE specific_schema = {schema} ORDER BY specific_name, ordinal_position");
    let parameters = wire.query_text(&sql).await?;
    let sql = format!("SELECT * FROM information_schema.routines WHERE routine_schema = {schema} ORDER BY routine_name");
    let rows = wire.query_text(&sql).await?;
    let one = |row: TextRow| {
        let name = row.text("ROUTINE_NAME");
        let is_own = |parameter: &&TextRow| {
            parameter.get("SPECIFIC_NAME") == Some(&name)
                && parameter.get("ROUTINE_TYPE") == row.get("ROUTINE_TYPE")
                && parameter.get("PARAMETER_NAME").is_some()
        };
        let signature = parameters.iter().filter(is_own).map(|parameter| {
            let mode = parameter.get("PARAMETER_MODE").filter(|mode| *mode != "IN").map_or(String::new(), |mode| format!("{mode} "));
            format!("{mode}{} {}", parameter.text("PARAMETER_NAME"), parameter.text("DTD_IDENTIFIER"))
        });
        Routine {
            signature: Some(signature.collect::<Vec<_>>().join(", ")),
            schema: database.to_owned(),
            database: database.to_owned(),
            routine_type: row.text("ROUTINE_TYPE").to_ascii_lowercase(),
            return_type: row.get("DTD_IDENTIFIER").filter(|text| !text.is_empty()).map(str::to_owned),
            language: Some("SQL".to_owned()),
            definition: row.get("ROUTINE_DEFINITION").map(str::to_owned),
            name,
        }
    };
    Ok(rows.into_iter().filter(|row| row.get("ROUTINE_SCHEMA") == Some(database)).map(one).collect())
}

/// A sequence of MariaDB, which is a table of one row.
async fn sequence(wire: &mut Wire, database: &str, name: &str) -> Result<Option<Sequence>> {
    let rows = match wire.query_text(&format!("SELECT * FROM {}", qualified(database, name))).await {
        Err(error) if error.kind() == Kind::PermissionDenied => return Ok(None),
        other => other?,
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let number = |column: &str| row.get(column).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let (start, next, increment) = (number("start_value"), number("next_not_cached_value"), number("increment"));
    Ok(Some(Sequence {
        name: name.to_owned(),
        schema: database.to_owned(),
        database: database.to_owned(),
        start_value: start,
        increment,
        min_value: number("minimum_value"),
        max_value: number("maximum_value"),
        cache_size: number("cache_size"),
        is_cycled: row.get("cycle_option") == Some("1"),
        // The server keeps only what has been handed out to sessions in advance.
        last_value: (next != start).then(|| next.saturating_sub(increment)),
        owner_table: None,
        owner_column: None,
    }))
}
