//! Everything about the objects of a database, put together from the catalog's rows.
//!
//! All is read in one snapshot with a search path of the catalog alone, so that every name in an expression or a statement is qualified and the text means the same
//! wherever it is run.

use std::collections::HashMap;

use millrace_core::explore::ObjectFilter;
use millrace_core::structure::{
    CheckClause, ColumnStructure, DatabaseStructure, ForeignKeyColumn, IndexStructure, ObjectName, Partition, Routine, Sequence,
    TableStructure, Trigger, ViewDdl, ViewStructure,
};
use millrace_core::{Error, Result};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::super::error::classify;
use super::names::{ROUTINES, scoped};
use super::objects::{self, Attribute, Index, Relation};
use super::table::missing;
use super::{PgExplorer, ddl, place};

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog";

const SCHEMAS: &str = "SELECT n.nspname::text FROM pg_namespace n WHERE IN_SCOPE ORDER BY n.nspname";

/// Copies of a partitioned table's triggers on its partitions are the server's.
const TRIGGERS: &str = "SELECT n.nspname::text, c.relname::text, t.tgname::text, t.tgtype, pg_get_triggerdef(t.oid)
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND IN_SCOPE AND NOT (c.relispartition AND EXISTS (SELECT FROM pg_inherits h JOIN pg_trigger p ON p.tgrelid = h.inhparent
        WHERE h.inhrelid = c.oid AND p.tgname = t.tgname AND p.tgfoid = t.tgfoid))
    ORDER BY n.nspname, c.relname, t.tgname";

const SEQUENCES: &str = "SELECT n.nspname::text, c.relname::text, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle,
        CASE WHEN has_sequence_privilege(c.oid, 'SELECT,USAGE') THEN pg_sequence_last_value(c.oid) END, o.relname::text, a.attname::text
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
            AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
        LEFT JOIN pg_class o ON o.oid = d.refobjid LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE IN_SCOPE ORDER BY n.nspname, c.relname";

const DEPENDENCIES: &str = "SELECT DISTINCT r.ev_class, n.nspname || '.' || c.relname FROM unnest($1::oid[]) w (oid)
    JOIN pg_rewrite r ON r.ev_class = w.oid
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2";

const FIND: &str = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind::text = ANY($3)";

/// All objects in scope.
pub(super) async fn structure(explorer: &PgExplorer, wanted: &ObjectFilter) -> Result<DatabaseStructure> {
    explorer.client.batch_execute(BEGIN).await.map_err(classify)?;
    let found = in_snapshot(explorer, wanted).await;
    explorer.roll_back().await;
    found
}

async fn in_snapshot(explorer: &PgExplorer, wanted: &ObjectFilter) -> Result<DatabaseStructure> {
    let scope: [(&(dyn ToSql + Sync), Type); 2] = [(&wanted.schemas, Type::TEXT_ARRAY), (&wanted.with_system, Type::BOOL)];
    let relations = objects::load(explorer, wanted, 0).await?;
    let dependencies = dependencies(explorer, &relations).await?;
    let routines_sql = scoped(&format!(
        "SELECT n.nspname::text, p.proname::text, p.prokind::text, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
            (SELECT l.lanname::text FROM pg_language l WHERE l.oid = p.prolang), pg_get_functiondef(p.oid) {ROUTINES} ORDER BY 1, 2, 4"
    ));
    let (schemas, triggers, sequences) = (scoped(SCHEMAS), scoped(TRIGGERS), scoped(SEQUENCES));
    let (schemas, triggers, sequences, routines) = futures::try_join!(
        explorer.ask(&schemas, &scope),
        explorer.ask(&triggers, &scope),
        explorer.ask(&sequences, &scope),
        explorer.ask(&routines_sql, &scope)
    )?;
    let database = &explorer.database;
    Ok(DatabaseStructure {
        schemas: schemas.iter().map(|row| row.get(0)).collect(),
        tables: tables(database, &relations),
        views: relations.iter().filter(|relation| is_view(relation)).map(|view| view_structure(database, view, &dependencies)).collect(),
        triggers: triggers.iter().map(|row| trigger(database, row)).collect(),
        routines: routines.iter().map(|row| routine(database, row)).collect(),
        sequences: sequences.iter().map(|row| sequence(database, row)).collect(),
    })
}

/// One table with its partitions.
pub(super) async fn table(explorer: &PgExplorer, name: &ObjectName) -> Result<TableStructure> {
    let relations = one(explorer, name, &["r", "p", "f"]).await?.0;
    let (schema, table) = place(name);
    let relation = relations.iter().find(|relation| relation.schema == schema && relation.name == table);
    relation.map(|relation| assembled(&explorer.database, relation, &by_parent(&relations))).ok_or_else(|| missing(name))
}

/// One view.
pub(super) async fn view(explorer: &PgExplorer, name: &ObjectName) -> Result<ViewStructure> {
    let (relations, dependencies) = one(explorer, name, &["v", "m"]).await?;
    relations.first().map(|relation| view_structure(&explorer.database, relation, &dependencies)).ok_or_else(|| missing(name))
}

type Dependencies = HashMap<u32, Vec<String>>;

async fn one(explorer: &PgExplorer, name: &ObjectName, kinds: &[&str]) -> Result<(Vec<Relation>, Dependencies)> {
    let (schema, object) = place(name);
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let params: [(&(dyn ToSql + Sync), Type); 3] = [(&schema, Type::TEXT), (&object, Type::TEXT), (&kinds, Type::TEXT_ARRAY)];
    let found = explorer.ask(FIND, &params).await?;
    let oid: u32 = found.first().ok_or_else(|| missing(name))?.get(0);
    explorer.client.batch_execute(BEGIN).await.map_err(classify)?;
    let loaded = async {
        let relations = objects::load(explorer, &ObjectFilter::default(), oid).await?;
        let dependencies = dependencies(explorer, &relations).await?;
        Ok::<_, Error>((relations, dependencies))
    };
    let loaded = loaded.await;
    explorer.roll_back().await;
    loaded
}

async fn dependencies(explorer: &PgExplorer, relations: &[Relation]) -> Result<Dependencies> {
    let views: Vec<u32> = relations.iter().filter(|relation| is_view(relation)).map(|relation| relation.oid).collect();
    let mut dependencies = Dependencies::new();
    for row in explorer.ask(DEPENDENCIES, &[(&views, Type::OID_ARRAY)]).await? {
        dependencies.entry(row.get(0)).or_default().push(row.get(1));
    }
    Ok(dependencies)
}

fn is_view(relation: &Relation) -> bool {
    matches!(relation.kind.as_str(), "v" | "m")
}

fn tables(database: &str, relations: &[Relation]) -> Vec<TableStructure> {
    let partitions = by_parent(relations);
    let roots = relations.iter().filter(|relation| !is_view(relation) && relation.parent.is_none());
    roots.map(|root| assembled(database, root, &partitions)).collect()
}

type ByParent<'a> = HashMap<u32, Vec<&'a Relation>>;

/// Looking for every table's partitions among all relations would be quadratic.
fn by_parent(relations: &[Relation]) -> ByParent<'_> {
    let mut partitions = ByParent::new();
    for relation in relations {
        if let Some(parent) = relation.parent {
            partitions.entry(parent).or_default().push(relation);
        }
    }
    partitions
}

/// A table's partitions with theirs, each behind the one that it is a part of.
fn descendants<'a>(root: &'a Relation, partitions: &ByParent<'a>, found: &mut Vec<(&'a Relation, &'a Relation)>) {
    for partition in partitions.get(&root.oid).into_iter().flatten() {
        found.push((root, partition));
        descendants(partition, partitions, found);
    }
}

fn assembled<'a>(database: &str, root: &'a Relation, partitions: &ByParent<'a>) -> TableStructure {
    let mut parts = Vec::new();
    descendants(root, partitions, &mut parts);
    let (rows, bytes) = parts
        .iter()
        .filter(|(_, part)| part.kind != "p")
        .fold((0.0, 0), |(rows, bytes), (_, part)| (rows + part.estimated_rows, bytes + part.size_bytes));
    let is_partitioned = root.kind == "p";
    let (rows, bytes) = if is_partitioned { (rows, bytes) } else { (root.estimated_rows, root.size_bytes) };
    let name_of = |attnum: &i16| root.attributes.iter().find(|attribute| attribute.attnum == *attnum).map(|found| found.name.clone());
    let primary_keys = root.indexes.iter().find(|index| index.is_primary);
    let (edit_key_columns, edit_key_type, editability_reason) = edit_key(root);
    TableStructure {
        name: root.name.clone(),
        schema: root.schema.clone(),
        database: database.to_owned(),
        columns: root.attributes.iter().map(|attribute| column(root, attribute)).collect(),
        primary_keys: primary_keys.map(|index| index.attnums.iter().filter_map(name_of).collect()).unwrap_or_default(),
        foreign_keys: foreign_keys(root),
        indexes: root.indexes.iter().map(index).collect(),
        estimated_rows: Some(rows.max(0.0) as u64),
        estimated_size_bytes: Some(bytes.max(0).unsigned_abs()),
        is_editable: edit_key_type.is_some(),
        edit_key_columns,
        edit_key_type: edit_key_type.map(str::to_owned),
        editability_reason: editability_reason.map(str::to_owned),
        ddl: Some(ddl::table(root, &parts)),
        partitions: parts.iter().map(|(parent, part)| partition(parent, part)).collect(),
        is_partitioned,
        partition_strategy: root.strategy.as_deref().map(|strategy| strategy_name(strategy).to_owned()),
        comment: root.comment.clone().unwrap_or_default(),
    }
}

fn partition(parent: &Relation, part: &Relation) -> Partition {
    let values = part.bound.clone().unwrap_or_default();
    let key = parent.partition_key.as_deref().unwrap_or_default();
    Partition {
        name: part.name.clone(),
        schema: part.schema.clone(),
        strategy: parent.strategy.as_deref().map(strategy_name).unwrap_or_default().to_owned(),
        // `RANGE (created)`
        expression: key.split_once(" (").and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(key).to_owned(),
        is_default: values == "DEFAULT",
        values,
        size_bytes: part.size_bytes.max(0).unsigned_abs(),
        approx_rows: part.estimated_rows.max(0.0) as u64,
    }
}

fn strategy_name(strategy: &str) -> &'static str {
    match strategy {
        "l" => "LIST",
        "h" => "HASH",
        _ => "RANGE",
    }
}

/// The columns that name a row, how they come to, and what stands against it or is to be minded; the same choice as of [`super::table::KEY`].
fn edit_key(root: &Relation) -> (Vec<String>, Option<&'static str>, Option<&'static str>) {
    if root.kind == "f" {
        return (Vec::new(), None, Some("rows of foreign tables are changed where they are stored"));
    }
    let attribute = |attnum: &i16| root.attributes.iter().find(|attribute| attribute.attnum == *attnum);
    let is_key = |index: &&Index| {
        let is_whole = index.is_unique && index.is_immediate && !index.is_partial && !index.has_expressions;
        is_whole && index.attnums.iter().all(|attnum| attribute(attnum).is_some_and(|attribute| !attribute.is_nullable))
    };
    let names = |index: &Index| index.attnums.iter().filter_map(attribute).map(|attribute| attribute.name.clone()).collect();
    let candidates: Vec<&Index> = root.indexes.iter().filter(is_key).collect();
    if let Some(primary) = candidates.iter().find(|index| index.is_primary) {
        return (names(primary), Some("primary_key"), None);
    }
    if let Some(unique) = candidates.iter().min_by_key(|index| (index.attnums.len(), index.oid)) {
        return (names(unique), Some("unique_index"), None);
    }
    let all: Vec<String> =
        root.attributes.iter().filter(|attribute| attribute.is_comparable).map(|attribute| attribute.name.clone()).collect();
    if all.is_empty() {
        return (all, None, Some("the table has no key, and none of its columns can be compared"));
    }
    (
        all,
        Some("full_row"),
        Some("the table has no key: a row is known by all of its values, and rows that are the same cannot be told apart"),
    )
}

fn foreign_keys(root: &Relation) -> Vec<ForeignKeyColumn> {
    let mut found = Vec::new();
    for key in root.constraints.iter().filter(|constraint| constraint.kind == "f") {
        for (attnum, referenced) in key.attnums.iter().zip(&key.referenced_columns) {
            let source = root.attributes.iter().find(|attribute| attribute.attnum == *attnum);
            found.push(ForeignKeyColumn {
                name: key.name.clone(),
                source_column: source.map(|attribute| attribute.name.clone()).unwrap_or_default(),
                referenced_schema: key.referenced_schema.clone(),
                referenced_table: key.referenced_table.clone().unwrap_or_default(),
                referenced_column: referenced.clone(),
                on_update: Some(action(&key.on_update).to_owned()),
                on_delete: Some(action(&key.on_delete).to_owned()),
            });
        }
    }
    found
}

fn action(code: &str) -> &'static str {
    match code {
        "r" => "RESTRICT",
        "c" => "CASCADE",
        "n" => "SET NULL",
        "d" => "SET DEFAULT",
        _ => "NO ACTION",
    }
}

fn index(index: &Index) -> IndexStructure {
    IndexStructure {
        name: index.name.clone(),
        columns: index.columns.clone(),
        is_unique: index.is_unique,
        is_primary: index.is_primary,
        method: index.method.to_uppercase(),
        is_full_text_index: matches!(index.method.as_str(), "gin" | "gist" | "rum")
            && index.columns.iter().any(|column| column.contains("to_tsvector(")),
    }
}

fn column(root: &Relation, attribute: &Attribute) -> ColumnStructure {
    let is_alone = |index: &&Index| index.is_unique && !index.is_partial && index.attnums == [attribute.attnum];
    let is_in_key = |index: &&Index| index.is_primary && index.attnums.contains(&attribute.attnum);
    let checks = root.constraints.iter().filter(|check| check.kind == "c" && check.attnums.contains(&attribute.attnum));
    let (length, precision, scale) = limits(attribute.base_oid, attribute.modifier);
    let is_generated = !attribute.generated.is_empty();
    let default = attribute.expression.clone().filter(|_| !is_generated);
    ColumnStructure {
        name: attribute.name.clone(),
        data_type: attribute.data_type.clone(),
        collation: attribute.collation.clone(),
        udt_name: Some(attribute.udt_name.clone()),
        enum_values: attribute.labels.clone(),
        domain_base_type: attribute.domain_base_type.clone(),
        is_nullable: attribute.is_nullable,
        is_primary_key: root.indexes.iter().any(|index| is_in_key(&index)),
        is_unique: root.indexes.iter().any(|index| is_alone(&index)),
        auto_increment: !attribute.identity.is_empty() || default.as_deref().is_some_and(|default| default.starts_with("nextval(")),
        generated: attribute.expression.clone().filter(|_| is_generated),
        default_value: default,
        comment: attribute.comment.clone(),
        length,
        precision,
        scale,
        check_constraints: checks
            .map(|check| CheckClause { name: check.name.clone(), clause: check.clause.clone().unwrap_or_default() })
            .collect(),
        ..ColumnStructure::default()
    }
}

/// Length, precision and scale as `information_schema.columns` derives them from a type and its modifier.
fn limits(base_oid: u32, modifier: i32) -> (Option<i64>, Option<i64>, Option<i64>) {
    let given = (modifier >= 0).then_some(i64::from(modifier));
    match base_oid {
        1042 | 1043 => (given.map(|modifier| modifier - 4), None, None),
        1560 | 1562 => (given, None, None),
        21 => (None, Some(16), Some(0)),
        23 => (None, Some(32), Some(0)),
        20 => (None, Some(64), Some(0)),
        // The scale has 11 bits and may be negative since version 15.
        1700 => {
            let scale = given.map(|modifier| ((modifier - 4) & 0x7ff ^ 1024) - 1024);
            (None, given.map(|modifier| ((modifier - 4) >> 16) & 0xffff), scale)
        }
        1083 | 1114 | 1184 | 1266 => (None, Some(given.unwrap_or(6)), None),
        1186 => (None, Some(given.map_or(6, |modifier| modifier & 0xffff)).map(|digits| if digits == 0xffff { 6 } else { digits }), None),
        _ => (None, None, None),
    }
}

fn view_structure(database: &str, view: &Relation, dependencies: &Dependencies) -> ViewStructure {
    ViewStructure {
        name: view.name.clone(),
        schema: view.schema.clone(),
        database: database.to_owned(),
        columns: view.attributes.iter().map(|attribute| column(view, attribute)).collect(),
        definition: view.query.clone().unwrap_or_default(),
        is_materialized: view.kind == "m",
        depends_on: Some(dependencies.get(&view.oid).cloned().unwrap_or_default()),
        ddl: Some(ViewDdl { create_view: ddl::view(view) }),
    }
}

/// The bits of `tgtype` (`src/include/catalog/pg_trigger.h`).
fn trigger(database: &str, row: &Row) -> Trigger {
    let bits: i16 = row.get(3);
    let events = [(4, "INSERT"), (8, "DELETE"), (16, "UPDATE"), (32, "TRUNCATE")];
    let events: Vec<&str> = events.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    let timing = match bits & 66 {
        2 => "BEFORE",
        64 => "INSTEAD OF",
        _ => "AFTER",
    };
    Trigger {
        name: row.get(2),
        schema: row.get(0),
        database: database.to_owned(),
        table_name: row.get(1),
        event: Some(events.join(" OR ")),
        timing: Some(timing.to_owned()),
        definition: row.get(4),
    }
}

fn routine(database: &str, row: &Row) -> Routine {
    let kind: &str = row.get(2);
    Routine {
        name: row.get(1),
        schema: row.get(0),
        database: database.to_owned(),
        routine_type: if kind == "p" { "procedure" } else { "function" }.to_owned(),
        signature: row.get(3),
        return_type: row.get::<_, Option<String>>(4).filter(|_| kind != "p"),
        language: row.get(5),
        definition: row.get(6),
    }
}

fn sequence(database: &str, row: &Row) -> Sequence {
    Sequence {
        schema: row.get(0),
        name: row.get(1),
        database: database.to_owned(),
        start_value: row.get(2),
        increment: row.get(3),
        min_value: row.get(4),
        max_value: row.get(5),
        cache_size: row.get(6),
        is_cycled: row.get(7),
        last_value: row.get(8),
        owner_table: row.get(9),
        owner_column: row.get(10),
    }
}

#[cfg(test)]
mod tests {
    use super::limits;

    #[test]
    fn limits_come_from_the_modifier() {
        assert_eq!(limits(1043, 24), (Some(20), None, None));
        assert_eq!(limits(1700, (10 << 16 | 2) + 4), (None, Some(10), Some(2)));
        assert_eq!(limits(1700, (3 << 16 | (0x7ff & -2_i32)) + 4), (None, Some(3), Some(-2)));
        assert_eq!(limits(1700, -1), (None, None, None));
        assert_eq!(limits(1184, 3), (None, Some(3), None));
        assert_eq!(limits(23, -1), (None, Some(32), Some(0)));
    }
}
