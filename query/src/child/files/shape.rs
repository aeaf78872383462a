//! The shape of JSON files: which paths their records have, how often, and of which types.

use std::collections::{BTreeMap, BTreeSet};

use duckdb::Connection;
use millrace_core::files::{FileFormat, FileSet, JsonPath, JsonShape};
use serde_json::Value;

use super::{quoted, statement_error};
use crate::wire::Failure;

/// Records that are looked at, and so many if all of them are to be counted.
const SAMPLED: u64 = 1_000;
const MOST_RECORDS: u64 = 100_000;
/// Paths that are told apart; further ones are left out.
const MOST_PATHS: usize = 1_000;

pub(super) fn run(connection: &Connection, files: &FileSet, is_array: bool, with_stats: bool) -> Result<JsonShape, Failure> {
    let format = match (files.format, is_array) {
        (FileFormat::Jsonl, _) => "newline_delimited",
        (_, true) => "array",
        (_, false) => "auto",
    };
    let most = if with_stats { MOST_RECORDS } else { SAMPLED };
    let sql = format!("SELECT json::VARCHAR FROM read_json_objects([{}], format = '{format}') LIMIT {}", quoted(&files.paths), most + 1);
    let mut statement = connection.prepare(&sql).map_err(statement_error)?;
    let mut rows = statement.query([]).map_err(statement_error)?;
    let mut shape = Shape::default();
    while let Some(row) = rows.next().map_err(statement_error)? {
        if shape.records == most {
            shape.is_sampled = true;
            break;
        }
        let text: Option<String> = row.get(0).map_err(statement_error)?;
        shape.add(&text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default());
    }
    Ok(shape.finish())
}

#[derive(Default)]
struct Shape {
    records: u64,
    is_sampled: bool,
    max_depth: u32,
    kinds: BTreeSet<&'static str>,
    paths: BTreeMap<String, Seen>,
}

/// What was seen at a path.
#[derive(Default)]
struct Seen {
    occurrences: u64,
    /// Objects that could have had it.
    parents: u64,
    kinds: BTreeSet<&'static str>,
    /// The path of its parent; none for members of records.
    parent: Option<String>,
    is_member: bool,
}

impl Shape {
    fn add(&mut self, record: &Value) {
        self.records += 1;
        self.kinds.insert(kind(record));
        self.walk(record, "$", 1);
    }

    fn walk(&mut self, value: &Value, path: &str, depth: u32) {
        match value {
            Value::Object(members) => {
                self.max_depth = self.max_depth.max(depth);
                for (name, member) in members {
                    let at = if is_plain(name) { format!("{path}.{name}") } else { format!("{path}[{}]", Value::from(name.as_str())) };
                    self.see(member, at, path, true, depth);
                }
            }
            Value::Array(items) => {
                self.max_depth = self.max_depth.max(depth);
                for item in items {
                    self.see(item, format!("{path}[*]"), path, false, depth);
                }
            }
            _ => {}
        }
    }

    fn see(&mut self, value: &Value, at: String, parent: &str, is_member: bool, depth: u32) {
        if self.paths.len() >= MOST_PATHS && !self.paths.contains_key(&at) {
            return;
        }
        let seen = self.paths.entry(at.clone()).or_default();
        seen.occurrences += 1;
        seen.kinds.insert(kind(value));
        seen.is_member = is_member;
        seen.parent = (parent != "$").then(|| parent.to_owned());
        if value.is_object() {
            seen.parents += 1;
        }
        self.walk(value, &at, depth + 1);
    }

    fn finish(self) -> JsonShape {
        let objects_at = |parent: &Option<String>| match parent {
            None => self.records,
            Some(parent) => self.paths.get(parent).map_or(0, |seen| seen.parents),
        };
        let path = |(path, seen): (&String, &Seen)| JsonPath {
            path: path.clone(),
            occurrences: seen.occurrences,
            kind: together(&seen.kinds),
            is_required: seen.is_member && seen.occurrences == objects_at(&seen.parent),
        };
        let is_uniform = |seen: &Seen| seen.occurrences == self.records && seen.kinds.iter().filter(|kind| **kind != "null").count() <= 1;
        let members = self.paths.values().filter(|seen| seen.parent.is_none() && seen.is_member);
        JsonShape {
            records: self.records,
            is_sampled: self.is_sampled,
            is_homogeneous: self.kinds.len() <= 1 && members.into_iter().all(is_uniform),
            kind: (!self.kinds.is_empty()).then(|| together(&self.kinds)),
            max_depth: self.max_depth,
            paths: self.paths.iter().map(path).collect(),
        }
    }
}

/// Names that stand behind a dot as they are.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// One type, or all that were seen; integers among numbers are numbers.
fn together(kinds: &BTreeSet<&'static str>) -> String {
    let hides = |kind: &&&str| !(**kind == "integer" && kinds.contains("number") || **kind == "null" && kinds.len() > 1);
    kinds.iter().filter(hides).copied().collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(records: &[Value]) -> JsonShape {
        let mut shape = Shape::default();
        records.iter().for_each(|record| shape.add(record));
        shape.finish()
    }

    #[test]
    fn paths_are_counted_with_their_types() {
        let found = shape(&[json!({"id": 1, "tags": ["a", 2], "of": {"x": 1}}), json!({"id": 1.5, "of": {"x": null, "y y": true}})]);
        let path = |name: &str| {
            let path = found.paths.iter().find(|path| path.path == name).cloned().unwrap_or_default();
            (path.occurrences, path.kind, path.is_required)
        };
        assert_eq!(path("$.id"), (2, "number".to_owned(), true));
        assert_eq!(path("$.tags"), (1, "array".to_owned(), false));
        assert_eq!(path("$.tags[*]"), (2, "integer|string".to_owned(), false));
        assert_eq!(path("$.of.x"), (2, "integer".to_owned(), true));
        assert_eq!(path("$.of[\"y y\"]"), (1, "boolean".to_owned(), false));
        assert_eq!((found.records, found.is_homogeneous, found.max_depth, found.kind), (2, false, 2, Some("object".to_owned())));
    }

    #[test]
    fn records_are_alike_if_they_have_the_same_members_of_the_same_types() {
        assert!(shape(&[json!({"a": 1, "b": null}), json!({"a": 2, "b": "x"})]).is_homogeneous);
        assert!(!shape(&[json!({"a": 1}), json!({"a": "x"})]).is_homogeneous);
        assert!(!shape(&[json!({"a": 1}), json!(7)]).is_homogeneous);
        assert!(shape(&[json!(1), json!(2)]).is_homogeneous);
        assert!(shape(&[]).is_homogeneous);
    }
}
