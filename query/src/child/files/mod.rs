//! Data files: what they hold, their rows, statements over them, and their change.
//!
//! ```text
//!  FileSet (paths that the server confined) ─▶ reader, a table function over literals ─▶ page · count · sniff · summary · rewrite
//!  FileQuery ─▶ paths in the parsed tree, confined here ─▶ check ─▶ run
//! ```
//!
//! Whatever runs, the engine is locked down before the first file is opened, to exactly the files that were named.

mod fit;
mod lines;
mod objects;
mod patch;
mod query;
mod reread;
mod rewrite;
mod shape;
mod summary;

pub(super) use query::replace_paths;

use duckdb::Connection;
use millrace_connectors::file::is_pattern;
use millrace_connectors::s3::is_object_path;
use millrace_core::files::{CsvDialect, FileAnswer, FileDescription, FileFormat, FilePage, FileRequest, FileRows, FileSet};
use millrace_core::objects::{ObjectAccess, SCHEME};
use serde_json::Value;

use super::Warm;
use super::attach::{Bounds, identifier, literal, lock_down};
use super::run::{describe, fetch, statement_error};
use crate::wire::{FailedKind, Failure, FilesErrand};

/// The hidden column of a row's ordinal.
pub(super) const ORDINAL: &str = "__rowid";

/// Everything that a piece of work on files needs.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    warm: &'a Warm,
    errand: &'a FilesErrand,
    /// How to get at objects.
    access: Option<&'a ObjectAccess>,
}

pub(super) fn run(warm: &Warm, errand: &FilesErrand, access: Option<&ObjectAccess>) -> Result<FileAnswer, Failure> {
    let work = Work { warm, errand, access };
    match &errand.request {
        FileRequest::Query(query) => query::run(work, query).map(FileAnswer::Rows),
        FileRequest::Columns(query) => query::columns(work, query).map(FileAnswer::Columns),
        FileRequest::Rewrite { files, change } => {
            let etag = if access.is_some() { objects::run(work, files, change) } else { rewrite::run(work, files, change) };
            etag.map(|etag| FileAnswer::Rewritten { etag })
        }
        FileRequest::Describe { files, with_stats } => {
            work.close(&files.paths)?;
            description(&warm.connection, files, *with_stats).map(FileAnswer::Described)
        }
        FileRequest::Page { files, page } => {
            work.close(&files.paths)?;
            with_reader(&warm.connection, files, |reader| rows(warm, reader, page, errand.max_rows)).map(FileAnswer::Rows)
        }
        FileRequest::Count { files, condition } => {
            work.close(&files.paths)?;
            with_reader(&warm.connection, files, |reader| counted(warm, reader, condition.as_deref())).map(FileAnswer::Counted)
        }
        FileRequest::Sniff { files } => {
            work.close(&files.paths)?;
            sniff(&warm.connection, files).map(FileAnswer::Sniffed)
        }
        FileRequest::Summarize { files, sample_percent } => {
            work.close(&files.paths)?;
            with_reader(&warm.connection, files, |reader| summary::run(&warm.connection, reader, *sample_percent))
        }
    }
}

impl Work<'_> {
    /// Closes every way out but these files.
    fn close(&self, paths: &[String]) -> Result<(), Failure> {
        let FilesErrand { memory_mb, threads, temp_dir, .. } = self.errand;
        if let Some(access) = self.access {
            super::objects::open(&self.warm.connection, paths, access, SCHEME)?;
        }
        lock_down(&self.warm.connection, &Bounds { memory_mb: *memory_mb, threads: *threads, temp_dir, paths })
    }
}

/// A path as reading functions take it: what could be a pattern in a local file's name stands for itself.
pub(super) fn masked(path: &str) -> String {
    if is_object_path(path) || !is_pattern(path) {
        return path.to_owned();
    }
    path.replace('[', "[[]").replace('*', "[*]").replace('?', "[?]")
}

/// Paths as a list of literals for reading functions.
fn quoted(paths: &[String]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| literal(&masked(path))).collect();
    paths.join(", ")
}

/// The table function that reads the files.
fn reader(files: &FileSet) -> String {
    let paths = quoted(&files.paths);
    match files.format {
        FileFormat::Csv => format!("read_csv([{paths}])"),
        FileFormat::Json => format!("read_json([{paths}], format = 'auto')"),
        FileFormat::Jsonl => format!("read_json([{paths}], format = 'newline_delimited')"),
        FileFormat::Parquet => format!("read_parquet([{paths}])"),
    }
}

/// Does work with the table function that reads the files' values.
///
/// The engine takes `""` in CSV for NULL, where it is a text without letters. Read as that, it would make columns of numbers or dates that hold it columns of text; so where
/// one does, by the rows that the engine looks at or by the error of a later one, `""` stays NULL.
fn with_reader<T>(connection: &Connection, files: &FileSet, work: impl Fn(&str) -> Result<T, Failure>) -> Result<T, Failure> {
    let usual = reader(files);
    if files.format != FileFormat::Csv {
        return work(&usual);
    }
    let exact = format!("read_csv([{}], allow_quoted_nulls = false)", quoted(&files.paths));
    let columns = |reader: &str| describe(connection, &format!("SELECT * FROM {reader}"));
    if columns(&exact)? != columns(&usual)? {
        return work(&usual);
    }
    match work(&exact) {
        Err(failure) if failure.kind == FailedKind::StatementRefused => work(&usual),
        answer => answer,
    }
}

/// The rows with their ordinals.
fn numbered(reader: &str) -> String {
    format!("(SELECT row_number() OVER () - 1 AS {ORDINAL}, * FROM {reader})")
}

fn number(connection: &Connection, sql: &str) -> Result<u64, Failure> {
    connection.query_row(sql, [], |row| row.get(0)).map_err(statement_error)
}

fn text(connection: &Connection, sql: &str) -> Result<Option<String>, Failure> {
    connection.query_row(sql, [], |row| row.get(0)).map_err(statement_error)
}

/// `WHERE (…)`, if there is a condition. The text must be one expression by itself: what closes the bracket and goes on is refused.
fn filter(warm: &Warm, condition: Option<&str>) -> Result<String, Failure> {
    let Some(condition) = condition.filter(|condition| !condition.trim().is_empty()) else { return Ok(String::new()) };
    let tree = query::tree(&warm.connection, &format!("SELECT ({condition}\n)"))?;
    crate::check::check_files(&tree, &Default::default())?;
    let node = &tree["statements"][0]["node"];
    let is_list_of_one = node["select_list"].as_array().is_some_and(|list| list.len() == 1);
    let is_plain = node["type"] == "SELECT_NODE" && node["from_table"]["type"] == "EMPTY" && is_list_of_one;
    let has_more = ["where_clause", "having", "sample", "qualify"].iter().any(|part| !node[*part].is_null())
        || node["modifiers"].as_array().is_some_and(|list| !list.is_empty());
    if !is_plain || has_more {
        return Err(Failure::refused("the condition must be one expression"));
    }
    Ok(format!(" WHERE ({condition}\n)"))
}

fn counted(warm: &Warm, reader: &str, condition: Option<&str>) -> Result<u64, Failure> {
    let filter = filter(warm, condition)?;
    number(&warm.connection, &format!("SELECT count(*) FROM {reader}{filter}"))
}

fn rows(warm: &Warm, reader: &str, page: &FilePage, max_rows: u64) -> Result<FileRows, Failure> {
    let known = describe(&warm.connection, &format!("SELECT * FROM {reader}"))?;
    if known.iter().any(|column| column.name.eq_ignore_ascii_case(ORDINAL)) {
        return Err(Failure::new(FailedKind::NotSupported, format!("the file has a column `{ORDINAL}`, which stands for ordinals here")));
    }
    let filter = filter(warm, page.condition.as_deref())?;
    let mut order = Vec::new();
    for wanted in &page.order {
        let Some(column) = known.iter().find(|column| column.name == wanted.column) else {
            return Err(Failure::new(FailedKind::Invalid, format!("there is no column `{}` to sort by", wanted.column)));
        };
        let nulls = wanted.nulls_first.map_or("", |first| if first { " NULLS FIRST" } else { " NULLS LAST" });
        order.push(format!("{} {}{nulls}", identifier(&column.name), if wanted.descending { "DESC" } else { "ASC" }));
    }
    order.push(ORDINAL.to_owned());
    let sql = format!(
        "SELECT * FROM {}{filter} ORDER BY {} LIMIT {} OFFSET {}",
        numbered(reader),
        order.join(", "),
        page.limit.min(max_rows),
        page.offset
    );
    let (mut columns, mut rows) = fetch(&warm.connection, &sql, max_rows)?;
    columns.remove(0);
    let ordinals = rows.iter_mut().map(|row| row.remove(0).as_u64().unwrap_or_default()).collect();
    let total = page.with_total.then(|| counted(warm, reader, page.condition.as_deref())).transpose()?;
    Ok(FileRows { columns, rows, ordinals, total })
}

fn description(connection: &Connection, files: &FileSet, with_stats: bool) -> Result<FileDescription, Failure> {
    let columns = describe(connection, &format!("SELECT * FROM {}", reader(files)))?;
    let mut description = FileDescription { columns, ..FileDescription::default() };
    match files.format {
        FileFormat::Csv => description.dialect = Some(sniff(connection, files)?),
        FileFormat::Json => {
            let is_array = is_array(connection, files)?;
            (description.is_array, description.shape) = (Some(is_array), Some(shape::run(connection, files, is_array, with_stats)?));
        }
        FileFormat::Jsonl => {
            (description.is_array, description.shape) = (Some(false), Some(shape::run(connection, files, false, with_stats)?));
        }
        FileFormat::Parquet => {
            let paths = quoted(&files.paths);
            // The footer knows; nothing is read for it.
            let sql = format!(
                "SELECT coalesce(sum(num_rows), 0)::UBIGINT, coalesce(sum(num_row_groups), 0)::UBIGINT FROM parquet_file_metadata([{paths}])"
            );
            let (rows, groups) = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(statement_error)?;
            (description.row_count, description.row_groups) = (Some(rows), Some(groups));
            description.compression = codecs(connection, &paths)?;
        }
    }
    if with_stats && description.row_count.is_none() {
        description.row_count = Some(number(connection, &format!("SELECT count(*) FROM {}", reader(files)))?);
    }
    Ok(description)
}

/// The codecs of Parquet files, the most used one first.
fn codecs(connection: &Connection, paths: &str) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT compression, count(*) n FROM parquet_metadata([{paths}]) WHERE compression IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1"
    );
    let mut statement = connection.prepare(&sql).map_err(statement_error)?;
    statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(statement_error)
}

/// Whether a JSON file's root is an array; otherwise records stand one after the other.
fn is_array(connection: &Connection, files: &FileSet) -> Result<bool, Failure> {
    let path = literal(&masked(first(files)?));
    let read = |format: &str| connection.execute_batch(&format!("SELECT json FROM read_json_objects({path}, format = '{format}') LIMIT 1"));
    match read("array") {
        Ok(()) => Ok(true),
        Err(error) if error.to_string().contains("Expected top-level JSON array") => Ok(false),
        Err(error) => Err(statement_error(error)),
    }
}

fn first(files: &FileSet) -> Result<&str, Failure> {
    files.paths.first().map(String::as_str).ok_or_else(|| Failure::new(FailedKind::Invalid, "no file is named"))
}

fn sniff(connection: &Connection, files: &FileSet) -> Result<CsvDialect, Failure> {
    sniff_as(connection, first(files)?, "auto")
}

/// The dialect of a file whose compression its name does not say.
fn sniff_as(connection: &Connection, path: &str, compression: &str) -> Result<CsvDialect, Failure> {
    let sql = format!(
        "SELECT Delimiter, Quote, Escape, NewLineDelimiter, Comment, SkipRows, HasHeader, Columns, DateFormat, TimestampFormat, Prompt \
         FROM sniff_csv({}, compression = '{compression}')",
        literal(&masked(path))
    );
    let (_, rows) = fetch(connection, &sql, 1)?;
    let Some(row) = rows.into_iter().next() else { return Err(Failure::new(FailedKind::Internal, "the sniffer answered nothing")) };
    let word = |place: usize| match row[place].as_str().unwrap_or_default() {
        "(empty)" => String::new(),
        text => text.to_owned(),
    };
    Ok(CsvDialect {
        delimiter: word(0).replace("\\t", "\t"),
        quote: word(1),
        escape: word(2),
        new_line_delimiter: word(3),
        comment: word(4),
        skip_rows: row[5].as_u64().unwrap_or_default(),
        has_header: row[6] == Value::Bool(true),
        columns: serde_json::from_value(row[7].clone()).unwrap_or_default(),
        date_format: row[8].as_str().map(str::to_owned),
        timestamp_format: row[9].as_str().map(str::to_owned),
        prompt: word(10),
    })
}
