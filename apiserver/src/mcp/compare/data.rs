//! Some rows of two tables beside each other, by key.

use std::collections::BTreeMap;

use millrace_core::connection::Engine;
use millrace_core::structure::TableStructure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::bounds::sample;
use super::super::catalog::{object, typed};
use super::super::rows::{Sample, Wanted, read};
use super::super::values::{key_text, literal, quoted, same};
use crate::errors::{ApiError, ApiResult, Code};
use crate::place::Place;
use crate::routes::structure::one_table;
use crate::state::AppState;

/// Keys that are looked up at once.
const AT_ONCE: usize = 100;
/// Differences and missing keys that are answered, of each kind.
const MOST: usize = 200;

/// One of two tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Side {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// The table's schema; the engine's default if absent.
    schema: Option<String>,
    /// The table's name.
    table: String,
}

/// Which tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Takes {
    /// One table.
    left: Side,
    /// The other one.
    right: Side,
    /// Columns that tell rows apart; the left table's primary key if absent.
    #[serde(default)]
    key: Vec<String>,
    /// Only these columns; all that both tables have if absent.
    #[serde(default)]
    columns: Vec<String>,
    /// At most so many rows of each table: 100 if absent, never more than 1000.
    limit: Option<u64>,
}

/// What a comparison of rows found.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// The columns that tell rows apart.
    key: Vec<String>,
    /// The columns whose values were compared.
    columns: Vec<String>,
    /// Columns that only the left table has.
    columns_only_left: Vec<String>,
    /// Columns that only the right table has.
    columns_only_right: Vec<String>,
    /// Rows that were found on both sides and compared.
    rows_compared: usize,
    /// Of those, rows whose compared values are all equal.
    rows_equal: usize,
    /// Values that differ; at most 200 are shown.
    differences: Vec<ValueDifference>,
    /// Keys of the left sample that the right table does not have; at most 200 are shown.
    missing_right: Vec<Map<String, Value>>,
    /// Keys of the right sample that the left table does not have; at most 200 are shown.
    missing_left: Vec<Map<String, Value>>,
    /// Whether more differences or missing keys were found than are shown.
    findings_truncated: bool,
    /// Whether either table has more rows than its sample: what follows was not looked at.
    truncated: bool,
    /// At most so many rows of each table were sampled.
    limit_applied: u64,
    /// What counts as equal, in words.
    notes: Vec<&'static str>,
}

/// A value that differs.
#[derive(Debug, Serialize, JsonSchema)]
struct ValueDifference {
    /// The row.
    key: Map<String, Value>,
    /// The column.
    column: String,
    /// On the left side.
    left: Value,
    /// On the right side.
    right: Value,
}

/// A table that is looked at.
struct Table {
    place: Place,
    structure: TableStructure,
}

pub(super) async fn compare(state: AppState, takes: Takes) -> ApiResult<Answer> {
    let (left, right) = tokio::try_join!(table(&state, takes.left, "left"), table(&state, takes.right, "right"))?;
    let key = if takes.key.is_empty() { left.structure.primary_keys.clone() } else { takes.key };
    if key.is_empty() {
        return Err(ApiError::invalid("key", "the left table has no primary key; name the columns that tell its rows apart"));
    }
    for name in key.iter().chain(&takes.columns) {
        left.column(name, "left")?;
        right.column(name, "right")?;
    }
    let is_meant = |name: &String| takes.columns.is_empty() || takes.columns.iter().any(|wanted| wanted.eq_ignore_ascii_case(name));
    let columns: Vec<String> = left.names().filter(|name| right.has(name) && is_meant(name)).cloned().collect();
    let limit_applied = sample(takes.limit);
    let (from_left, from_right) = tokio::try_join!(left.first(&state, &key, limit_applied), right.first(&state, &key, limit_applied))?;
    let (in_right, in_left) =
        tokio::try_join!(right.lookup(&state, &left, &key, &from_left), left.lookup(&state, &right, &key, &from_right))?;
    let mut found = Findings::default();
    let (lefts, rights) = (by_key(&from_left, &key), by_key(&in_right, &key));
    found.compare(&key, &columns, &lefts, &rights);
    found.missing_right = keys_without(&lefts, &rights, &key);
    found.missing_left = keys_without(&by_key(&from_right, &key), &by_key(&in_left, &key), &key);
    let is_long = [found.differences.len(), found.missing_right.len(), found.missing_left.len()].iter().any(|count| *count > MOST);
    found.differences.truncate(MOST);
    found.missing_right.truncate(MOST);
    found.missing_left.truncate(MOST);
    Ok(Answer {
        columns_only_left: left.names().filter(|name| !right.has(name)).cloned().collect(),
        columns_only_right: right.names().filter(|name| !left.has(name)).cloned().collect(),
        key,
        columns,
        rows_compared: found.compared,
        rows_equal: found.equal,
        differences: found.differences,
        missing_right: found.missing_right,
        missing_left: found.missing_left,
        findings_truncated: is_long,
        truncated: from_left.truncated || from_right.truncated,
        limit_applied,
        notes: vec![
            "numbers are equal if their digits are, whatever zeros end their fraction; true is 1 and false is 0",
            "JSON documents are equal if their members are; all other values are compared as text",
        ],
    })
}

async fn table(state: &AppState, side: Side, field: &'static str) -> ApiResult<Table> {
    let place = Place::of(state, object("table", side.connection_id, side.database, side.schema, side.table)?).await?;
    if place.connection.database().is_none() {
        let error = ApiError::new(Code::NotSupported, "only tables of databases can be compared");
        return Err(error.detail("field", format!("{field}.connectionId")));
    }
    place.database_name()?;
    let structure = typed(&one_table(state, &place, false).await?)?;
    Ok(Table { place, structure })
}

impl Table {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.structure.columns.iter().map(|column| &column.name)
    }

    fn has(&self, name: &str) -> bool {
        self.names().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// The column's own spelling and type.
    fn column(&self, name: &str, side: &str) -> ApiResult<(&str, &str)> {
        let found = self.structure.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        let found = found.ok_or_else(|| {
            let text = format!("the {side} table `{}` has no column `{name}`", self.structure.name);
            ApiError::new(Code::ObjectMissing, text).detail("column", name)
        })?;
        Ok((&found.name, &found.data_type))
    }

    fn engine(&self) -> Engine {
        self.place.connection.engine
    }

    /// The first rows by key.
    async fn first(&self, state: &AppState, key: &[String], limit: u64) -> ApiResult<Sample> {
        let order: Vec<String> = key.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
        let wanted = Wanted { order_by: Some(order.join(",")), limit: Some(limit), ..Wanted::default() };
        read(state, &self.place, wanted).await
    }

    /// The rows here that have the keys of the other table's rows.
    async fn lookup(&self, state: &AppState, other: &Self, key: &[String], rows: &Sample) -> ApiResult<Sample> {
        let places: Vec<usize> = key.iter().filter_map(|name| place_of(rows, name)).collect();
        let mut all = Sample { rows: Vec::new(), ..empty(rows) };
        for chunk in rows.rows.chunks(AT_ONCE) {
            let condition = self.condition(other, key, &places, chunk)?;
            let found = read(state, &self.place, Wanted { condition: Some(condition), limit: Some(u64::MAX), ..Wanted::default() }).await?;
            if found.truncated {
                let text = format!("the columns {} tell too few rows of `{}` apart", key.join(", "), self.structure.name);
                return Err(ApiError::invalid("key", text));
            }
            all.columns = found.columns;
            all.rows.extend(found.rows);
        }
        Ok(all)
    }

    fn condition(&self, other: &Self, key: &[String], places: &[usize], rows: &[Vec<Value>]) -> ApiResult<String> {
        let mut alternatives = Vec::with_capacity(rows.len());
        for row in rows {
            let mut parts = Vec::with_capacity(key.len());
            for (name, place) in key.iter().zip(places) {
                let (column, kind) = self.column(name, "other")?;
                let (_, other_kind) = other.column(name, "other")?;
                let column = quoted(self.engine(), column);
                parts.push(match row.get(*place).unwrap_or(&Value::Null) {
                    Value::Null => format!("{column} IS NULL"),
                    value => format!("{column} = {}", literal(self.engine(), value, kind, other_kind)),
                });
            }
            alternatives.push(format!("({})", parts.join(" AND ")));
        }
        Ok(alternatives.join(" OR "))
    }
}

/// A sample without rows.
fn empty(like: &Sample) -> Sample {
    Sample {
        columns: Vec::new(),
        column_types: Vec::new(),
        rows: Vec::new(),
        count: 0,
        truncated: false,
        limit_applied: like.limit_applied,
    }
}

fn place_of(rows: &Sample, column: &str) -> Option<usize> {
    rows.columns.iter().position(|name| name.eq_ignore_ascii_case(column))
}

type Row<'a> = BTreeMap<String, &'a Value>;

/// The rows by the text of their keys; columns in lower case.
fn by_key<'a>(rows: &'a Sample, key: &[String]) -> BTreeMap<Vec<String>, Row<'a>> {
    let names: Vec<String> = rows.columns.iter().map(|name| name.to_ascii_lowercase()).collect();
    let row = |row: &'a Vec<Value>| -> (Vec<String>, Row<'a>) {
        let values: Row<'a> = names.iter().cloned().zip(row).collect();
        let key = key.iter().map(|name| values.get(&name.to_ascii_lowercase()).map_or_else(String::new, |value| key_text(value))).collect();
        (key, values)
    };
    rows.rows.iter().map(row).collect()
}

fn keys_without(these: &BTreeMap<Vec<String>, Row<'_>>, those: &BTreeMap<Vec<String>, Row<'_>>, key: &[String]) -> Vec<Map<String, Value>> {
    these.iter().filter(|(text, _)| !those.contains_key(*text)).map(|(_, row)| key_of(row, key)).collect()
}

fn key_of(row: &Row<'_>, key: &[String]) -> Map<String, Value> {
    key.iter().map(|name| (name.clone(), row.get(&name.to_ascii_lowercase()).map_or(Value::Null, |value| (*value).clone()))).collect()
}

#[derive(Default)]
struct Findings {
    compared: usize,
    equal: usize,
    differences: Vec<ValueDifference>,
    missing_right: Vec<Map<String, Value>>,
    missing_left: Vec<Map<String, Value>>,
}

impl Findings {
    fn compare(
        &mut self,
        key: &[String],
        columns: &[String],
        lefts: &BTreeMap<Vec<String>, Row<'_>>,
        rights: &BTreeMap<Vec<String>, Row<'_>>,
    ) {
        for (text, left) in lefts {
            let Some(right) = rights.get(text) else { continue };
            let before = self.differences.len();
            for column in columns {
                let name = column.to_ascii_lowercase();
                let (one, other) = (left.get(&name).copied(), right.get(&name).copied());
                let (one, other) = (one.unwrap_or(&Value::Null), other.unwrap_or(&Value::Null));
                if !same(one, other) {
                    self.differences.push(ValueDifference {
                        key: key_of(left, key),
                        column: column.clone(),
                        left: one.clone(),
                        right: other.clone(),
                    });
                }
            }
            self.compared += 1;
            self.equal += usize::from(self.differences.len() == before);
        }
    }
}
