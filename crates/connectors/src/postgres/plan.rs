//! Decides every column, name and constraint of a copy into PostgreSQL; asks no server.

use std::collections::BTreeMap;

use millrace_core::catalog::{Catalog, Column, DefaultValue, Index, LogicalType, Table, TableName};
use millrace_core::config::StructureOptions;
use millrace_core::connector::ColumnFact;
use millrace_core::plan::{ColumnPlan, Plan, TablePlan, Verdict};

use super::ddl;
use super::expression::translate;
use super::names::NameSpace;
use super::types;

/// Plans the copy of a catalog into a schema.
pub(super) fn plan(catalog: &Catalog, facts: &[(TableName, ColumnFact)], schema: &str, structure: StructureOptions) -> Plan {
    let mut names = NameSpace::default();
    let targets: BTreeMap<TableName, TableName> = catalog
        .tables
        .iter()
        .map(|table| {
            let name = names.claim(&table.name.name, &table.name.name);
            (table.name.clone(), TableName { schema: schema.to_owned(), name })
        })
        .collect();
    let mut plan = Plan::default();
    for table in &catalog.tables {
        plan.tables.push(plan_table(&wanted(table, structure), structure, facts, &targets, &mut names));
    }
    for other in &catalog.others {
        plan.notes.push(format!("the {} `{}` is not moved", other.kind, other.name));
    }
    plan
}

/// The table without the structure that is not wanted. What is not wanted cannot refuse the plan.
fn wanted(table: &Table, structure: StructureOptions) -> Table {
    let mut table = table.clone();
    if !structure.indexes {
        table.indexes.clear();
    }
    if !structure.foreign_keys {
        table.foreign_keys.clear();
    }
    if !structure.check_constraints {
        table.checks.clear();
    }
    table
}

fn plan_table(
    table: &Table,
    structure: StructureOptions,
    facts: &[(TableName, ColumnFact)],
    targets: &BTreeMap<TableName, TableName>,
    names: &mut NameSpace,
) -> TablePlan {
    let target = targets[&table.name].clone();
    let mut planned = TablePlan {
        source: table.clone(),
        target,
        columns: Vec::new(),
        label_checks: structure.check_constraints,
        refusals: Vec::new(),
        notes: Vec::new(),
    };
    if let Some(reason) = &table.refused {
        planned.refusals.push(reason.clone());
    }
    if planned.target.name != table.name.name {
        planned.notes.push(format!("it is named `{}` in the target", planned.target.name));
    }
    let mut column_names = NameSpace::default();
    for column in &table.columns {
        let is_time_of_day = facts.iter().any(|(name, ColumnFact::TimeOfDay(fact))| *name == table.name && *fact == column.name);
        let mapping = types::map(column, is_time_of_day);
        let name = column_names.claim(&column.name, &column.name);
        if name != column.name {
            planned.notes.push(format!("the column `{}` is named `{name}` in the target", column.name));
        }
        planned.columns.push(ColumnPlan {
            source: column.name.clone(),
            target: name,
            from: column.native_type.clone(),
            to: mapping.sql,
            verdict: mapping.verdict,
            reason: mapping.reason,
        });
    }
    check_defaults(&mut planned);
    check_expressions(&mut planned);
    map_indexes(&mut planned, names);
    map_foreign_keys(&mut planned, targets);
    planned
}

/// A default that cannot be written the same way is left out, and said so: it changes no row that is moved.
fn check_defaults(planned: &mut TablePlan) {
    let mut notes = Vec::new();
    for (column, target) in planned.source.columns.iter().zip(&planned.columns) {
        if let Some(default) = &column.default
            && target.verdict != Verdict::Refused
            && ddl::default_sql(column, default).is_none()
            && !is_null_default(column, default)
        {
            notes.push(format!("the default of `{}` has no form in the target and is left out", column.name));
        }
    }
    planned.notes.append(&mut notes);
}

fn is_null_default(column: &Column, default: &DefaultValue) -> bool {
    column.nullable && matches!(default, DefaultValue::Literal(text) if text.eq_ignore_ascii_case("null"))
}

/// Checks and generated columns must mean the same or are refused.
fn check_expressions(planned: &mut TablePlan) {
    let mut refusals = Vec::new();
    for check in &planned.source.checks {
        if let Err(reason) = translate(&check.expression, &|name| target_column(planned, name)) {
            refusals.push(format!("the check `{}` cannot be carried over: {reason}", check.name));
        }
    }
    for column in &planned.source.columns {
        let Some(expression) = &column.generated else { continue };
        if let Err(reason) = translate(expression, &|name| target_column(planned, name)) {
            refusals.push(format!("the generated column `{}` cannot be carried over: {reason}", column.name));
        }
    }
    planned.refusals.append(&mut refusals);
}

/// Index names are unique per table in MySQL and per schema in PostgreSQL.
fn map_indexes(planned: &mut TablePlan, names: &mut NameSpace) {
    let table = planned.target.name.clone();
    let mut kept: Vec<Index> = Vec::new();
    for mut index in std::mem::take(&mut planned.source.indexes) {
        match index.method.as_str() {
            "BTREE" | "HASH" => {}
            "FULLTEXT" => planned.notes.push(format!("the full-text index `{}` becomes a GIN index over words", index.name)),
            other => {
                planned.notes.push(format!("the {other} index `{}` is not moved", index.name));
                continue;
            }
        }
        if index.parts.iter().any(|part| part.expression.is_some()) {
            planned.refusals.push(format!("the index `{}` over an expression cannot be carried over", index.name));
            continue;
        }
        let name = names.claim(&index.name, &format!("{table}_{}", index.name));
        if name != index.name {
            planned.notes.push(format!("the index `{}` is named `{name}` in the target", index.name));
        }
        let compares_text = index.unique && index.parts.iter().any(|part| is_text(&planned.source, &part.column));
        if compares_text {
            planned.notes.push(format!("the unique index `{name}` tells upper from lower case, unlike most MySQL collations"));
        }
        index.name = name;
        kept.push(index);
    }
    planned.source.indexes = kept;
}

fn is_text(table: &Table, column: &str) -> bool {
    let logical = table.column(column).map(|column| &column.logical);
    matches!(logical, Some(LogicalType::Char(_) | LogicalType::Varchar(_) | LogicalType::Text))
}

/// A foreign key to a table that is not copied along cannot be made; the user who chose the tables is told.
fn map_foreign_keys(planned: &mut TablePlan, targets: &BTreeMap<TableName, TableName>) {
    let (kept, outside) =
        std::mem::take(&mut planned.source.foreign_keys).into_iter().partition(|key| targets.contains_key(&key.referenced));
    planned.source.foreign_keys = kept;
    let outside: Vec<millrace_core::catalog::ForeignKey> = outside;
    for key in outside {
        let text = format!("the foreign key `{}` points to `{}`, which is not part of the copy, and is left out", key.name, key.referenced);
        planned.notes.push(text);
    }
}

/// The target's name of a source column.
pub(super) fn target_column(planned: &TablePlan, source: &str) -> Option<String> {
    let found = planned
        .columns
        .iter()
        .find(|column| column.source == source)
        .or_else(|| planned.columns.iter().find(|column| column.source.eq_ignore_ascii_case(source)));
    found.map(|column| column.target.clone())
}
