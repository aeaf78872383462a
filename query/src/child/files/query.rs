//! A user's statement over files. Its paths are confined in the parsed tree, which is then checked and written out again.

use std::collections::BTreeSet;

use duckdb::Connection;
use millrace_core::Kind;
use millrace_core::explore::ResultColumn;
use millrace_core::files::{FileFormat, FileQuery, FileRows};
use serde_json::{Value, json};

use super::close;
use crate::check::{FILE_FUNCTIONS, check_files};
use crate::child::Warm;
use crate::child::run::{describe, fetch};
use crate::wire::{FailedKind, Failure, FilesErrand};

pub(super) fn run(warm: &Warm, errand: &FilesErrand, query: &FileQuery) -> Result<FileRows, Failure> {
    let sql = prepared(warm, errand, query)?;
    let (columns, rows) = fetch(&warm.connection, &sql, errand.max_rows)?;
    Ok(FileRows { columns, rows, ordinals: Vec::new(), total: None })
}

pub(super) fn columns(warm: &Warm, errand: &FilesErrand, query: &FileQuery) -> Result<Vec<ResultColumn>, Failure> {
    let sql = prepared(warm, errand, query)?;
    describe(&warm.connection, &sql)
}

/// The parsed tree of a text.
pub(super) fn tree(connection: &Connection, sql: &str) -> Result<Value, Failure> {
    let tree: String = connection
        .query_row("SELECT json_serialize_sql(?::VARCHAR)", [sql], |row| row.get(0))
        .map_err(|error| Failure::refused(error.to_string()))?;
    serde_json::from_str(&tree).map_err(|_| Failure::new(FailedKind::Internal, "the parsed statement is not JSON"))
}

/// The statement with paths that exist and are allowed; the engine opens no others afterwards.
fn prepared(warm: &Warm, errand: &FilesErrand, query: &FileQuery) -> Result<String, Failure> {
    let mut tree = tree(&warm.connection, &query.sql)?;
    let mut files = BTreeSet::new();
    confine(&mut tree, query, &mut files)?;
    check_files(&tree, &files, &|name| warm.functions.iter().any(|function| function == name))?;
    let sql: String = warm
        .connection
        .query_row("SELECT json_deserialize_sql(?::JSON)", [tree.to_string()], |row| row.get(0))
        .map_err(|error| Failure::refused(error.to_string()))?;
    let paths: Vec<String> = files.into_iter().collect();
    close(warm, errand, &paths)?;
    Ok(sql.trim_end().trim_end_matches(';').to_owned())
}

/// Replaces the paths of every reading function, and every table whose name is a data file's.
fn confine(value: &mut Value, query: &FileQuery, files: &mut BTreeSet<String>) -> Result<(), Failure> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| confine(item, query, files)),
        Value::Object(_) => {
            let reads =
                value["function_name"].as_str().is_some_and(|name| FILE_FUNCTIONS.iter().any(|file| file.eq_ignore_ascii_case(name)));
            if reads {
                arguments(&mut value["children"], query, files)?;
            }
            if value["type"] == "BASE_TABLE" && value["schema_name"] == "" && value["catalog_name"] == "" {
                named_table(value, query, files)?;
            }
            value.as_object_mut().into_iter().flatten().try_for_each(|(_, field)| confine(field, query, files))
        }
        _ => Ok(()),
    }
}

fn named_table(table: &mut Value, query: &FileQuery, files: &mut BTreeSet<String>) -> Result<(), Failure> {
    let name = table["table_name"].as_str().unwrap_or_default().to_owned();
    if FileFormat::of_name(&name).is_none() {
        return Ok(());
    }
    match found(&name, query)?.as_slice() {
        [one] => {
            files.insert(one.clone());
            table["table_name"] = one.as_str().into();
            Ok(())
        }
        _ => Err(Failure::refused(format!("`{name}` names several files; write `read_csv('…')`, `read_parquet('…')` or `read_json('…')`"))),
    }
}

fn arguments(children: &mut Value, query: &FileQuery, files: &mut BTreeSet<String>) -> Result<(), Failure> {
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
        paths.extend(found(path, query)?);
    }
    files.extend(paths.iter().cloned());
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

fn found(path: &str, query: &FileQuery) -> Result<Vec<String>, Failure> {
    if path.contains("://") && !path.starts_with("file://") {
        return Err(Failure::new(FailedKind::NotSupported, format!("`{path}`: object stores are not supported yet")));
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
