//! Reads a changed file back, before it takes the old one's place.

use duckdb::Connection;
use millrace_core::explore::ResultColumn;
use millrace_core::files::{CsvDialect, FileChange, FileSet};

use super::fit::Shape;
use super::rewrite::compression;
use super::{lines, masked, sniff_as};
use crate::child::attach::literal;
use crate::child::run::Form;
use crate::wire::{FailedKind, Failure};

pub(super) fn misread(text: &str) -> Failure {
    Failure::new(FailedKind::ValueRefused, format!("the changed file would not be read as it is meant: {text}"))
}

/// Whether a changed CSV file is read as the one that it was made of: by what the engine finds out about it, and to its last value.
pub(super) fn of_csv(connection: &Connection, files: &FileSet, change: &FileChange, old: &CsvDialect, copy: &str) -> Result<(), Failure> {
    let compression = compression(&files.paths[0]);
    let new = sniff_as(connection, copy, compression)?;
    let names = |dialect: &CsvDialect| dialect.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
    if (&old.delimiter, old.has_header, names(old)) != (&new.delimiter, new.has_header, names(&new)) {
        return Err(misread("its delimiter or header would be another one"));
    }
    same_types(&old.columns, &new.columns, change)?;
    for kind in ["DATE", "TIMESTAMP"] {
        let format = |dialect: &CsvDialect| {
            let column = dialect.columns.iter().find(|column| column.native_type == kind)?;
            // The usual spelling has no format, or this one.
            let format = lines::format_of(column, dialect).filter(|format| !format.starts_with("%Y-%m-%d"));
            Some(format.unwrap_or_default().to_owned())
        };
        if let (Some(before), Some(after)) = (format(old), format(&new))
            && before != after
        {
            return Err(misread("day and month of its dates would be taken for one another, or the like"));
        }
    }
    // What the engine finds out, it finds out from the first rows.
    let is_readable = |path: &str| {
        let read = connection.prepare(&typed(path, old, compression)).and_then(|mut statement| statement.query([])?.next().map(|_| ()));
        read.is_ok()
    };
    if is_readable(copy) || !is_readable(&files.paths[0]) { Ok(()) } else { Err(misread("a value would not be of its column's type")) }
}

/// A query that reads every value of a CSV file by a dialect's types and formats.
fn typed(path: &str, dialect: &CsvDialect, compression: &str) -> String {
    let columns: Vec<String> =
        dialect.columns.iter().map(|column| format!("{}: {}", literal(&column.name), literal(&column.native_type))).collect();
    let format =
        |name: &str, format: &Option<String>| format.as_ref().map_or(String::new(), |text| format!(", {name} = {}", literal(text)));
    format!(
        "SELECT count(COLUMNS(*)) FROM read_csv({}, auto_detect = false, header = {}, columns = {{{}}}, delim = {}, quote = {}, escape = {}, \
         compression = '{compression}'{}{})",
        literal(&masked(path)),
        dialect.has_header,
        columns.join(", "),
        literal(&dialect.delimiter),
        literal(&dialect.quote),
        literal(&dialect.escape),
        format("dateformat", &dialect.date_format),
        format("timestampformat", &dialect.timestamp_format),
    )
}

/// Whether the columns that get new values keep their types. Text may turn out to be something narrower once its last other value is gone, and so may fractions.
pub(super) fn same_types(old: &[ResultColumn], new: &[ResultColumn], change: &FileChange) -> Result<(), Failure> {
    let rows = || change.edits.iter().map(|(_, changes)| changes).chain(&change.inserts);
    for column in old {
        let is_set = rows().any(|row| row.get(&column.name).is_some_and(|value| !value.is_null()));
        let Some(found) = new.iter().find(|found| found.name == column.name).filter(|_| is_set) else { continue };
        let (before, after) = (column.native_type.as_str(), found.native_type.as_str());
        let is_open = matches!(before, "VARCHAR" | "JSON") || !matches!(Shape::of(before), Shape::Plain(_));
        let is_whole = |kind| Form::of(kind) == Form::Int;
        let is_narrower = is_whole(after) && (is_whole(before) || before == "DOUBLE") || (before, after) == ("TIMESTAMP", "DATE");
        if before != after && !is_open && !is_narrower {
            return Err(misread(&format!("`{}` would be {after} instead of {before}", column.name)));
        }
    }
    Ok(())
}
