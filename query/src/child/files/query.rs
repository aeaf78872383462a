//! A user's statement over files. Its paths are confined in the parsed tree, which is then checked and written out again.

use std::collections::BTreeSet;

use duckdb::Connection;
use millrace_connectors::s3::is_object_path;
use millrace_core::Kind;
use millrace_core::explore::ResultColumn;
use millrace_core::files::{FileFormat, FileQuery, FileRows};
use millrace_core::objects::ObjectAccess;
use serde_json::{Value, json};

use super::{Work, masked};
use crate::check::{FILE_FUNCTIONS, check_files};
use crate::child::objects;
use crate::child::run::{describe, fetch};
use crate::wire::{FailedKind, Failure};

pub(super) fn run(work: Work<'_>, query: &FileQuery) -> Result<FileRows, Failure> {
    let sql = prepared(work, query)?;
    let (columns, rows) = fetch(&work.warm.connection, &sql, work.errand.max_rows)?;
    Ok(FileRows { columns, rows, ordinals: Vec::new(), total: None })
}

pub(super) fn columns(work: Work<'_>, query: &FileQuery) -> Result<Vec<ResultColumn>, Failure> {
    let sql = prepared(work, query)?;
    describe(&work.warm.connection, &sql)
}

/// The parsed tree of a text.
pub(super) fn tree(connection: &Connection, sql: &str) -> Result<Value, Failure> {
    let tree: String = connection
        .query_row("SELECT json_serialize_sql(?::VARCHAR)", [sql], |row| row.get(0))
        .map_err(|error| Failure::refused(error.to_string()))?;
    serde_json::from_str(&tree).map_err(|_| Failure::new(FailedKind::Internal, "the parsed statement is not JSON"))
}

/// The statement with paths that exist and are allowed; the engine opens no others afterwards.
fn prepared(work: Work<'_>, query: &FileQuery) -> Result<String, Failure> {
    let warm = work.warm;
    let mut tree = tree(&warm.connection, &query.sql)?;
    let mut files = BTreeSet::new();
    confine(&mut tree, Place { query, access: work.access }, &mut files)?;
    check_files(&tree, &files.iter().map(|path| masked(path)).collect())?;
    let sql: String = warm
        .connection
        .query_row("SELECT json_deserialize_sql(?::JSON)", [tree.to_string()], |row| row.get(0))
        .map_err(|error| Failure::refused(error.to_string()))?;
    let paths: Vec<String> = files.into_iter().collect();
    work.close(&paths)?;
    Ok(sql.trim_end().trim_end_matches(';').to_owned())
}

/// Where the paths of a statement stand.
#[derive(Clone, Copy)]
struct Place<'a> {
    query: &'a FileQuery,
    access: Option<&'a ObjectAccess>,
}

/// Replaces the paths of every reading function, and every table whose name is a data file's.
fn confine(value: &mut Value, place: Place<'_>, files: &mut BTreeSet<String>) -> Result<(), Failure> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| confine(item, place, files)),
        Value::Object(_) => {
            if is_reader(value) {
                arguments(&mut value["children"], &mut |path| {
                    let paths = found(path, place)?;
                    files.extend(paths.iter().cloned());
                    Ok(paths.iter().map(|path| masked(path)).collect())
                })?;
            }
            if value["type"] == "BASE_TABLE" && value["schema_name"] == "" && value["catalog_name"] == "" {
                named_table(value, place, files)?;
            }
            value.as_object_mut().into_iter().flatten().try_for_each(|(_, field)| confine(field, place, files))
        }
        _ => Ok(()),
    }
}

fn named_table(table: &mut Value, place: Place<'_>, files: &mut BTreeSet<String>) -> Result<(), Failure> {
    let name = table["table_name"].as_str().unwrap_or_default().to_owned();
    if FileFormat::of_name(&name).is_none() {
        return Ok(());
    }
    match found(&name, place)?.as_slice() {
        [one] => {
            files.insert(one.clone());
            table["table_name"] = masked(one).into();
            Ok(())
        }
        _ => Err(Failure::refused(format!("`{name}` names several files; write `read_csv('…')`, `read_parquet('…')` or `read_json('…')`"))),
    }
}

/// Replaces the paths of every reading function of a statement.
pub(in crate::child) fn replace_paths(value: &mut Value, resolve: &mut Resolve<'_>) -> Result<(), Failure> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| replace_paths(item, resolve)),
        Value::Object(_) => {
            if is_reader(value) {
                arguments(&mut value["children"], resolve)?;
            }
            value.as_object_mut().into_iter().flatten().try_for_each(|(_, field)| replace_paths(field, resolve))
        }
        _ => Ok(()),
    }
}

/// What a path in a statement names.
type Resolve<'a> = dyn FnMut(&str) -> Result<Vec<String>, Failure> + 'a;

fn is_reader(value: &Value) -> bool {
    value["function_name"].as_str().is_some_and(|name| FILE_FUNCTIONS.iter().any(|file| file.eq_ignore_ascii_case(name)))
}

fn arguments(children: &mut Value, resolve: &mut Resolve<'_>) -> Result<(), Failure> {
    let not_literal = || Failure::refused("the path of a reading function must be a text literal or a list of them");
    let argument = children.get_mut(0).ok_or_else(not_literal)?;
    let constants = if argument["class"] == "CONSTANT" {
        vec![argument.clone()]
    } else if argument["function_name"] == "list_value" {
        argument["children"].as_array().cloned().unwrap_or_default()
    } else {
        return Err(not_literal());
    };
    let mut paths = Vec::new();
    for constant in &constants {
        let path = constant["value"]["value"].as_str().filter(|_| constant["class"] == "CONSTANT").ok_or_else(not_literal)?;
        paths.extend(resolve(path)?);
    }
    let constant = |path: &String| {
        let mut constant = constants[0].clone();
        constant["value"]["value"] = path.as_str().into();
        constant
    };
    *argument = match paths.as_slice() {
        [] => return Err(not_literal()),
        [one] => constant(one),
        many => {
            let list: Vec<Value> = many.iter().map(constant).collect();
            json!({
                "class": "FUNCTION", "type": "FUNCTION", "alias": "", "query_location": 0, "function_name": "list_value", "schema": "main",
                "children": list, "filter": null, "order_bys": {"type": "ORDER_MODIFIER", "orders": []}, "distinct": false,
                "is_operator": false, "export_state": false, "catalog": ""
            })
        }
    };
    Ok(())
}

fn found(path: &str, place: Place<'_>) -> Result<Vec<String>, Failure> {
    let query = place.query;
    let is_in_store = query.scope.as_deref().is_some_and(is_object_path) && !path.starts_with('/') && !path.contains("://");
    if is_in_store || is_object_path(path) {
        return objects::named(path, query.scope.as_deref(), place.access);
    }
    if path.contains("://") && !path.starts_with("file://") {
        return Err(Failure::new(FailedKind::NotSupported, format!("`{path}`: paths are local, or begin with `s3://`")));
    }
    let paths = millrace_connectors::file::expand(&query.roots, path, query.scope.as_deref()).map_err(|error| {
        let kind = match error.kind() {
            Kind::NotFound => FailedKind::NotFound,
            Kind::PermissionDenied => FailedKind::Outside,
            _ => FailedKind::Invalid,
        };
        Failure::new(kind, error.message().to_owned())
    })?;
    paths
        .into_iter()
        .map(|path| path.into_os_string().into_string().map_err(|_| Failure::new(FailedKind::Invalid, "a path is not UTF-8 text")))
        .collect()
}
