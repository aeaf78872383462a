//! The tables of two databases beside each other.

use millrace_core::connection::Engine;
use millrace_core::explore::ObjectFilter;
use millrace_core::plan::{TablePlan, Verdict};
use millrace_core::structure::{ColumnStructure, TableStructure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::bounds::Listed;
use super::verdicts;
use crate::errors::{ApiError, ApiResult, Code};
use crate::place::{Place, PlaceNames};
use crate::routes::structure::whole;
use crate::state::AppState;

/// One of two databases.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Side {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// Only tables of this schema; `public` if absent. MySQL has no schemas.
    schema: Option<String>,
}

/// Which databases.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Takes {
    /// One database.
    left: Side,
    /// The other one.
    right: Side,
    /// Only these tables; all if absent.
    #[serde(default)]
    tables: Vec<String>,
    /// Tables that differ to skip.
    offset: Option<u64>,
    /// At most so many tables that differ: 100 if absent, never more than 500.
    limit: Option<u64>,
}

/// How two databases differ.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// Whether no difference was found and nothing was left unjudged.
    is_equal: bool,
    /// Tables that were found on both sides.
    tables_compared: usize,
    /// Tables that only the left side has; at most 500.
    only_left: Vec<String>,
    /// Tables that only the right side has; at most 500.
    only_right: Vec<String>,
    /// Tables of both sides that differ, or whose types could not be judged.
    differences: Listed<TableDifference>,
    /// Which side types were judged from, `left` or `right`: the MySQL or MariaDB one. Absent where both sides are of one engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    judged_from: Option<&'static str>,
    /// What this comparison leaves out, in words.
    notes: Vec<String>,
}

/// How a table differs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct TableDifference {
    /// Its name on the left side.
    table: String,
    /// Columns that only the left side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns_only_left: Vec<String>,
    /// Columns that only the right side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns_only_right: Vec<String>,
    /// Columns of both sides that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ColumnDifference>,
    /// Primary keys, if they differ: left, then right.
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_keys: Option<[Vec<String>; 2]>,
    /// Unique keys beside the primary one, by their columns, that only the left side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unique_keys_only_left: Vec<Vec<String>>,
    /// Unique keys that only the right side has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unique_keys_only_right: Vec<Vec<String>>,
}

/// How a column differs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ColumnDifference {
    /// Its name on the left side.
    column: String,
    /// Its type on the left side.
    left_type: String,
    /// Its type on the right side.
    right_type: String,
    /// What differs: `type`, `nullable`, `autoIncrement`, `generated`; `unjudged` if the types could not be compared.
    differs: Vec<&'static str>,
    /// What becomes of values that a convert stream copies, between engines.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<String>,
    /// Why, in one clause.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The most names of missing tables.
const MOST_NAMES: usize = 500;

pub(super) async fn compare(state: AppState, takes: Takes) -> ApiResult<Answer> {
    let (left, right) = tokio::try_join!(tables(&state, &takes.left, "left"), tables(&state, &takes.right, "right"))?;
    let is_meant =
        |table: &&TableStructure| takes.tables.is_empty() || takes.tables.iter().any(|name| name.eq_ignore_ascii_case(&table.name));
    let (lefts, rights): (Vec<_>, Vec<_>) = (left.tables.iter().filter(is_meant).collect(), right.tables.iter().filter(is_meant).collect());
    let pairs: Vec<(&TableStructure, &TableStructure)> =
        lefts.iter().filter_map(|table| Some((*table, twin(&rights, &table.name, |table| &table.name)?))).collect();
    let judge = Judge::new(&left, &right, &pairs).await;
    let differences: Vec<TableDifference> = pairs.iter().filter_map(|(left, right)| difference(left, right, &judge)).collect();
    let names = |these: &[&TableStructure], those: &[&TableStructure]| -> Vec<String> {
        let missing = these.iter().filter(|table| twin(those, &table.name, |table| &table.name).is_none());
        missing.map(|table| table.name.clone()).take(MOST_NAMES).collect()
    };
    let (only_left, only_right) = (names(&lefts, &rights), names(&rights, &lefts));
    let mut notes = vec!["views, triggers, routines, checks, defaults, foreign keys and non-unique indexes are not compared".to_owned()];
    notes.extend(judge.note.clone());
    Ok(Answer {
        is_equal: only_left.is_empty() && only_right.is_empty() && differences.is_empty(),
        tables_compared: pairs.len(),
        only_left,
        only_right,
        differences: Listed::of(differences, takes.offset, takes.limit),
        judged_from: judge.from(),
        notes,
    })
}

/// One side's tables.
struct Tables {
    place: Place,
    schema: Option<String>,
    tables: Vec<TableStructure>,
}

async fn tables(state: &AppState, side: &Side, field: &'static str) -> ApiResult<Tables> {
    let names =
        PlaceNames { connection: side.connection_id.clone(), database: side.database.clone(), schema: side.schema.clone(), object: None };
    let place = Place::of(state, names).await?;
    if place.connection.database().is_none() {
        let error = ApiError::new(Code::NotSupported, "only databases can be compared");
        return Err(error.detail("field", format!("{field}.connectionId")));
    }
    place.database_name()?;
    let has_schemas = place.connection.engine != Engine::MySql;
    let schema = has_schemas.then(|| side.schema.clone().filter(|schema| !schema.is_empty()).unwrap_or_else(|| "public".to_owned()));
    let filter = ObjectFilter { schemas: schema.iter().cloned().collect(), with_system: false };
    let tables = whole(state, &place, &filter).await?.tables;
    Ok(Tables { place, schema, tables })
}

/// What has the same name, else the same but for case.
fn twin<'a, T>(all: &[&'a T], name: &str, of: impl Fn(&T) -> &String) -> Option<&'a T> {
    let exact = all.iter().find(|one| of(one) == name);
    exact.or_else(|| all.iter().find(|one| of(one).eq_ignore_ascii_case(name))).copied()
}

/// Compares types: by their spelling within one engine, by plans between two.
struct Judge {
    is_one_engine: bool,
    is_left_source: bool,
    plans: Option<Vec<TablePlan>>,
    note: Option<String>,
}

impl Judge {
    async fn new(left: &Tables, right: &Tables, pairs: &[(&TableStructure, &TableStructure)]) -> Self {
        let (one, other) = (left.place.connection.engine, right.place.connection.engine);
        let is_left_source = one == Engine::MySql;
        if one == other {
            return Self { is_one_engine: true, is_left_source, plans: None, note: None };
        }
        let (source, target) = if is_left_source { (left, right) } else { (right, left) };
        let names: Vec<String> =
            pairs.iter().map(|(left, right)| if is_left_source { left.name.clone() } else { right.name.clone() }).collect();
        match verdicts::plans(&source.place, &target.place, target.schema.as_deref(), &names).await {
            Ok(plans) => Self { is_one_engine: false, is_left_source, plans: Some(plans), note: None },
            Err(error) => {
                let note = format!("types could not be judged: {}", error.message());
                Self { is_one_engine: false, is_left_source, plans: None, note: Some(note) }
            }
        }
    }

    fn from(&self) -> Option<&'static str> {
        self.plans.as_ref().map(|_| if self.is_left_source { "left" } else { "right" })
    }

    /// Whether the types differ, with the verdict; none if nobody can say.
    fn types(&self, table: &str, column: &str, left: &str, right: &str) -> Option<(bool, Option<(String, String)>)> {
        if self.is_one_engine {
            return Some((!left.eq_ignore_ascii_case(right), None));
        }
        let plan = self.plans.as_ref()?.iter().find(|plan| plan.source.name.name == table)?;
        let column = plan.columns.iter().find(|planned| planned.source == column)?;
        let is_different = !matches!(column.verdict, Verdict::Exact | Verdict::Widened);
        Some((is_different, Some((column.verdict.to_string(), column.reason.clone()))))
    }
}

fn difference(left: &TableStructure, right: &TableStructure, judge: &Judge) -> Option<TableDifference> {
    let (lefts, rights): (Vec<_>, Vec<_>) = (left.columns.iter().collect(), right.columns.iter().collect());
    let name = |column: &ColumnStructure| -> String { column.name.clone() };
    let lacks = |columns: &[&ColumnStructure], name: &str| twin(columns, name, |column| &column.name).is_none();
    let pairs = lefts.iter().filter_map(|column| Some((*column, twin(&rights, &column.name, |column| &column.name)?)));
    let (source_table, is_left_source) = (if judge.is_left_source { &left.name } else { &right.name }, judge.is_left_source);
    let columns: Vec<ColumnDifference> = pairs
        .filter_map(|(one, other)| column_difference(one, other, source_table, if is_left_source { &one.name } else { &other.name }, judge))
        .collect();
    let (one_keys, other_keys) = (unique_keys(left), unique_keys(right));
    let found = TableDifference {
        table: left.name.clone(),
        columns_only_left: lefts.iter().filter(|column| lacks(&rights, &column.name)).map(|column| name(column)).collect(),
        columns_only_right: rights.iter().filter(|column| lacks(&lefts, &column.name)).map(|column| name(column)).collect(),
        columns,
        primary_keys: (!alike(&left.primary_keys, &right.primary_keys)).then(|| [left.primary_keys.clone(), right.primary_keys.clone()]),
        unique_keys_only_left: one_keys.iter().filter(|key| !other_keys.iter().any(|other| alike(key, other))).cloned().collect(),
        unique_keys_only_right: other_keys.iter().filter(|key| !one_keys.iter().any(|other| alike(key, other))).cloned().collect(),
    };
    let is_equal = found.columns_only_left.is_empty()
        && found.columns_only_right.is_empty()
        && found.columns.is_empty()
        && found.primary_keys.is_none()
        && found.unique_keys_only_left.is_empty()
        && found.unique_keys_only_right.is_empty();
    (!is_equal).then_some(found)
}

fn column_difference(
    left: &ColumnStructure,
    right: &ColumnStructure,
    source_table: &str,
    source_column: &str,
    judge: &Judge,
) -> Option<ColumnDifference> {
    let (left_type, right_type) = (whole_type(left), whole_type(right));
    let mut differs = Vec::new();
    let mut told = None;
    match judge.types(source_table, source_column, &left_type, &right_type) {
        Some((is_different, verdict)) => {
            if is_different {
                differs.push("type");
            }
            told = verdict;
        }
        None => differs.push("unjudged"),
    }
    for (name, differs_here) in [
        ("nullable", left.is_nullable != right.is_nullable),
        ("autoIncrement", left.auto_increment != right.auto_increment),
        ("generated", left.generated.is_some() != right.generated.is_some()),
    ] {
        if differs_here {
            differs.push(name);
        }
    }
    if differs.is_empty() {
        return None;
    }
    let (verdict, reason) = told.unzip();
    let reason = reason.filter(|reason| !reason.is_empty());
    Some(ColumnDifference { column: left.name.clone(), left_type, right_type, differs, verdict, reason })
}

/// The type with its length, as far as the engine tells.
fn whole_type(column: &ColumnStructure) -> String {
    if let Some(whole) = &column.column_type {
        return whole.clone();
    }
    let base = if column.data_type.eq_ignore_ascii_case("USER-DEFINED") || column.data_type.eq_ignore_ascii_case("ARRAY") {
        column.udt_name.clone().unwrap_or_else(|| column.data_type.clone())
    } else {
        column.data_type.clone()
    };
    match (column.length, column.precision, column.scale) {
        (Some(length), _, _) => format!("{base}({length})"),
        (None, Some(precision), Some(scale)) if base.eq_ignore_ascii_case("numeric") => format!("{base}({precision},{scale})"),
        _ => base,
    }
}

fn unique_keys(table: &TableStructure) -> Vec<Vec<String>> {
    table.indexes.iter().filter(|index| index.is_unique && !index.is_primary).map(|index| index.columns.clone()).collect()
}

fn alike(left: &[String], right: &[String]) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.eq_ignore_ascii_case(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str) -> ColumnStructure {
        ColumnStructure { name: name.into(), data_type: kind.into(), ..ColumnStructure::default() }
    }

    fn table(columns: &[ColumnStructure], key: &[&str]) -> TableStructure {
        let primary_keys = key.iter().map(|name| (*name).to_owned()).collect();
        TableStructure { name: "t".into(), columns: columns.to_vec(), primary_keys, ..TableStructure::default() }
    }

    #[test]
    fn within_one_engine_types_are_compared_by_their_spelling() {
        let judge = Judge { is_one_engine: true, is_left_source: true, plans: None, note: None };
        let one = table(&[column("id", "integer"), column("a", "text"), column("b", "date")], &["id"]);
        assert!(difference(&one, &one, &judge).is_none());
        let mut other = table(&[column("ID", "integer"), column("a", "uuid"), column("c", "date")], &["a"]);
        other.columns[0].is_nullable = true;
        let found = difference(&one, &other, &judge).map(|found| {
            let columns: Vec<_> = found.columns.iter().map(|column| (column.column.clone(), column.differs.clone())).collect();
            (found.columns_only_left, found.columns_only_right, columns, found.primary_keys.is_some())
        });
        let columns = vec![("id".to_owned(), vec!["nullable"]), ("a".to_owned(), vec!["type"])];
        assert_eq!(found, Some((vec!["b".to_owned()], vec!["c".to_owned()], columns, true)));
    }

    #[test]
    fn what_nobody_can_judge_is_not_called_equal() {
        let judge = Judge { is_one_engine: false, is_left_source: true, plans: None, note: None };
        let one = table(&[column("id", "int")], &["id"]);
        let found = difference(&one, &one, &judge).map(|found| found.columns[0].differs.clone());
        assert_eq!(found, Some(vec!["unjudged"]));
    }
}
