//! Changes rows of one file, all or none.
//!
//! ```text
//!  lock the file ─▶ is it the one? ─▶ COPY beside it ─▶ read the copy back ─▶ fsync ─▶ is it still the one? ─▶ rename ─▶ fsync the folder
//! ```
//!
//! Whenever this ends, the name stands for the old file or for the new one: only the rename changes it. What a killed rewrite leaves beside it has a name
//! that the next rewrite of the same file knows and removes; it may, because it holds the lock. The lock is on the file itself. Who waited for it
//! while another rewrite went through holds the lock of a file that the name no longer stands for, and begins again with the one that it does.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use duckdb::{Connection, params};
use millrace_core::explore::ResultColumn;
use millrace_core::files::{CsvDialect, FileChange, FileFormat, FileSet};
use serde_json::{Map, Value};

use super::fit::Shape;
use super::reread::{misread, of_csv, same_types};
use super::{ORDINAL, Work, codecs, is_array, lines, masked, number, quoted, reader, sniff, text};
use crate::child::attach::{identifier, literal};
use crate::child::run::{describe, statement_error};
use crate::wire::{FailedKind, Failure};

/// Names the moment at which a test wants the process to die.
const FAILPOINT_VARIABLE: &str = "MILLRACE_FAILPOINT";

pub(super) fn run(work: Work<'_>, files: &FileSet, change: &FileChange) -> Result<String, Failure> {
    let [path] = files.paths.as_slice() else {
        return Err(Failure::new(FailedKind::NotSupported, "only single files can be changed"));
    };
    let target = Path::new(path);
    let (mut locked, etag) = lock(target)?;
    if change.etag.as_ref().is_some_and(|wanted| *wanted != etag) {
        return Err(changed(target));
    }
    sweep(target);
    let copy = beside(target)?;
    let copy_path = copy.path.display().to_string();
    work.close(&[path.clone(), copy_path.clone()])?;
    write(&work.warm.connection, files, change, &copy_path)?;
    failpoint("copied");
    publish(target, &mut locked, &etag, copy)
}

/// The file, locked against other rewrites, and its etag.
fn lock(target: &Path) -> Result<(File, String), Failure> {
    let failed =
        |error: std::io::Error| Failure::new(FailedKind::PermissionDenied, format!("`{}` cannot be opened: {error}", target.display()));
    loop {
        let mut file = File::open(target).map_err(failed)?;
        file.lock().map_err(failed)?;
        let etag = millrace_connectors::file::etag(&mut file).map_err(failed)?;
        let mut now = File::open(target).map_err(failed)?;
        if millrace_connectors::file::etag(&mut now).map_err(failed)? == etag {
            return Ok((file, etag));
        }
    }
}

/// A copy under way; removed unless it is published.
struct Beside {
    path: PathBuf,
    is_published: bool,
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn prefix(target: &Path) -> String {
    format!(".{}.millrace-", target.file_name().unwrap_or_default().to_string_lossy())
}

fn beside(target: &Path) -> Result<Beside, Failure> {
    let made = tempfile::Builder::new().prefix(&prefix(target)).suffix(".tmp").tempfile_in(target.parent().unwrap_or(target));
    let kept = made.and_then(|file| file.into_temp_path().keep().map_err(|error| error.error));
    let path = kept.map_err(|error| {
        Failure::new(FailedKind::PermissionDenied, format!("the folder of `{}` cannot be written: {error}", target.display()))
    })?;
    Ok(Beside { path, is_published: false })
}

/// Removes copies of rewrites that were killed.
fn sweep(target: &Path) {
    let prefix = prefix(target);
    for entry in target.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&prefix) && name.ends_with(".tmp") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn publish(target: &Path, locked: &mut File, etag: &str, mut copy: Beside) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::new(FailedKind::Internal, format!("`{}` cannot be replaced: {error}", target.display()));
    let found = locked.metadata().map_err(failed)?;
    let mut new = File::options().read(true).write(true).open(&copy.path).map_err(failed)?;
    new.set_permissions(found.permissions()).map_err(failed)?;
    // Only root may give files away; others keep their own.
    let _ = std::os::unix::fs::fchown(
        &new,
        Some(std::os::unix::fs::MetadataExt::uid(&found)),
        Some(std::os::unix::fs::MetadataExt::gid(&found)),
    );
    new.sync_all().map_err(failed)?;
    failpoint("synced");
    let mut now = File::open(target).map_err(|_| changed(target))?;
    if millrace_connectors::file::etag(&mut now).map_err(failed)? != etag {
        return Err(changed(target));
    }
    fs::rename(&copy.path, target).map_err(failed)?;
    copy.is_published = true;
    failpoint("renamed");
    if let Some(folder) = target.parent() {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    millrace_connectors::file::etag(&mut new).map_err(failed)
}

/// Dies as by `kill -9`, if a test wants it here.
pub(super) fn failpoint(moment: &str) {
    if std::env::var(FAILPOINT_VARIABLE).is_ok_and(|wanted| wanted == format!("rewrite-{moment}")) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}

fn changed(target: &Path) -> Failure {
    Failure::new(FailedKind::FileChanged, format!("`{}` has changed meanwhile; read it again", target.display()))
}

/// Writes the changed rows to the copy, and reads the copy back.
pub(super) fn write(connection: &Connection, files: &FileSet, change: &FileChange, copy: &str) -> Result<(), Failure> {
    let columns = describe(connection, &format!("SELECT * FROM {}", reader(files)))?;
    let rows = number(connection, &format!("SELECT count(*) FROM {}", reader(files)))?;
    check(change, &columns, rows)?;
    tables(connection, change, rows)?;
    let dialect = (files.format == FileFormat::Csv).then(|| sniff(connection, files)).transpose()?;
    types(connection, change, &columns, dialect.as_ref())?;
    let wanted = rows - change.deletes.len() as u64 + change.inserts.len() as u64;
    let compression = compression(&files.paths[0]);
    let plain =
        format!("(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER E'\\x1f', COMPRESSION {compression}, USE_TMP_FILE false)");
    let new = literal(&masked(copy));
    let (select, options, read_back) = match (files.format, &dialect) {
        (FileFormat::Csv, Some(dialect)) => {
            (lines::of_csv(connection, files, dialect, change)?, plain, format!("read_csv({new}, compression = '{compression}')"))
        }
        (FileFormat::Parquet, _) => (parquet(files, change, &columns), parquet_options(connection, files)?, format!("read_parquet({new})")),
        _ => {
            let is_array = files.format == FileFormat::Json && is_array(connection, files)?;
            let select = lines::of_json(connection, files, is_array, change)?;
            (select, plain, format!("read_json_objects({new}, format = 'auto', compression = '{compression}')"))
        }
    };
    connection.execute_batch(&format!("COPY ({select}) TO {} {options}", literal(copy))).map_err(statement_error)?;
    if wanted > 0 && number(connection, &format!("SELECT count(*) FROM {read_back}"))? != wanted {
        return Err(misread("it would have another number of rows"));
    }
    if wanted == 0 {
        return Ok(());
    }
    match (files.format, &dialect) {
        (FileFormat::Csv, Some(dialect)) => of_csv(connection, files, change, dialect, copy),
        (FileFormat::Parquet, _) => {
            if describe(connection, &format!("SELECT * FROM {read_back}"))? != columns {
                return Err(misread("its columns would have other types"));
            }
            Ok(())
        }
        _ => {
            let format = if files.format == FileFormat::Json { "auto" } else { "newline_delimited" };
            let read = format!("SELECT * FROM read_json({new}, format = '{format}', compression = '{compression}')");
            same_types(&columns, &describe(connection, &read)?, change)
        }
    }
}

/// How a file of this name is compressed.
pub(super) fn compression(path: &str) -> &'static str {
    let lower = path.to_ascii_lowercase();
    if lower.ends_with(".gz") {
        "gzip"
    } else if lower.ends_with(".zst") {
        "zstd"
    } else {
        "uncompressed"
    }
}

fn check(change: &FileChange, columns: &[ResultColumn], rows: u64) -> Result<(), Failure> {
    let invalid = |text: String| Err(Failure::new(FailedKind::Invalid, text));
    if columns.iter().any(|column| column.name.eq_ignore_ascii_case(ORDINAL)) {
        return Err(Failure::new(FailedKind::NotSupported, format!("the file has a column `{ORDINAL}`, which stands for ordinals here")));
    }
    let mut seen = std::collections::BTreeSet::new();
    for row in change.edits.iter().map(|(row, _)| *row).chain(change.deletes.iter().copied()) {
        if row >= rows {
            return invalid(format!("there is no row {row}; the file has {rows}"));
        }
        if !seen.insert(row) {
            return invalid(format!("the row {row} is named twice"));
        }
    }
    let mut names = change.edits.iter().map(|(_, changes)| changes).chain(&change.inserts).flat_map(Map::keys);
    match names.find(|name| columns.iter().all(|column| column.name != **name)) {
        Some(name) => invalid(format!("there is no column `{name}`")),
        None => Ok(()),
    }
}

fn tables(connection: &Connection, change: &FileChange, rows: u64) -> Result<(), Failure> {
    connection
        .execute_batch(
            "CREATE TEMP TABLE edits (n BIGINT, ch JSON); CREATE TEMP TABLE deletes (n BIGINT); CREATE TEMP TABLE inserts (n BIGINT, ch JSON)",
        )
        .map_err(statement_error)?;
    let json = |values: &Map<String, Value>| serde_json::to_string(values).unwrap_or_default();
    let mut insert = connection.prepare("INSERT INTO edits VALUES (?, ?)").map_err(statement_error)?;
    for (row, changes) in &change.edits {
        insert.execute(params![row, json(changes)]).map_err(statement_error)?;
    }
    let mut insert = connection.prepare("INSERT INTO deletes VALUES (?)").map_err(statement_error)?;
    for row in &change.deletes {
        insert.execute(params![row]).map_err(statement_error)?;
    }
    let mut insert = connection.prepare("INSERT INTO inserts VALUES (?, ?)").map_err(statement_error)?;
    for (row, values) in (rows..).zip(&change.inserts) {
        insert.execute(params![row, json(values)]).map_err(statement_error)?;
    }
    Ok(())
}

/// New values must be of their columns' types and lose nothing by them, or other values than were meant would be stored, or a CSV or JSON file's columns would have other
/// types afterwards.
fn types(connection: &Connection, change: &FileChange, columns: &[ResultColumn], dialect: Option<&CsvDialect>) -> Result<(), Failure> {
    let refused = |text: String| Err(Failure::new(FailedKind::ValueRefused, text));
    for column in columns.iter().filter(|column| !matches!(column.native_type.as_str(), "VARCHAR" | "JSON")) {
        let rows = change.edits.iter().map(|(_, changes)| changes).chain(&change.inserts);
        let values: Vec<&Value> = rows.filter_map(|row| row.get(&column.name)).collect();
        if values.is_empty() {
            continue;
        }
        let (name, kind) = (&column.name, &column.native_type);
        let value = value("ch", column);
        let has = |wrong: String| {
            let sql = format!(
                "SELECT (SELECT min(n) FROM (FROM edits UNION ALL FROM inserts) WHERE ch ->> {} IS NOT NULL AND {wrong})::VARCHAR",
                lines::pointer(name)
            );
            text(connection, &sql).map(|row| row.is_some())
        };
        if has(format!("TRY_CAST({value} AS {kind}) IS NULL"))? {
            return refused(format!("a value for `{name}` is no {kind}"));
        }
        let shape = Shape::of(kind);
        if values.iter().any(|value| !shape.keeps(value)) {
            return refused(format!("a value for `{name}` would be rounded or cut by the column's type, {kind}"));
        }
        if let Some(format) = dialect.and_then(|dialect| lines::format_of(column, dialect)).map(literal) {
            let moment = format!("CAST({value} AS {kind})");
            if has(format!("try_strptime(strftime({moment}, {format}), {format}) IS DISTINCT FROM CAST({moment} AS TIMESTAMP)"))? {
                return refused(format!("a value for `{name}` would be cut: the file writes it as {format}"));
            }
        }
    }
    Ok(())
}

/// A member of a JSON column, as a cast to the column's type takes it.
fn value(json: &str, column: &ResultColumn) -> String {
    let kind = &column.native_type;
    let is_nested = kind.ends_with(']') || ["STRUCT", "MAP", "UNION"].iter().any(|nested| kind.starts_with(nested));
    format!("({json} {} {})", if is_nested { "->" } else { "->>" }, lines::pointer(&column.name))
}

fn parquet(files: &FileSet, change: &FileChange, columns: &[ResultColumn]) -> String {
    let cast = |alias: &str, column: &ResultColumn| format!("CAST({} AS {})", value(&format!("{alias}.ch"), column), column.native_type);
    let edited: Vec<String> = columns
        .iter()
        .map(|column| {
            let name = identifier(&column.name);
            if change.edits.iter().all(|(_, changes)| !changes.contains_key(&column.name)) {
                return format!("s.{name} AS {name}");
            }
            let new = cast("e", column);
            format!("CASE WHEN list_contains(json_keys(e.ch), {}) THEN {new} ELSE s.{name} END AS {name}", literal(&column.name))
        })
        .collect();
    let inserted: Vec<String> = columns.iter().map(|column| cast("i", column)).collect();
    let names: Vec<String> = columns.iter().map(|column| identifier(&column.name)).collect();
    format!(
        "SELECT {} FROM (SELECT s.{ORDINAL} AS {ORDINAL}, {} FROM (SELECT row_number() OVER () - 1 AS {ORDINAL}, * FROM {}) s \
         LEFT JOIN edits e ON e.n = s.{ORDINAL} WHERE s.{ORDINAL} NOT IN (SELECT n FROM deletes) \
         UNION ALL SELECT i.n, {} FROM inserts i) ORDER BY {ORDINAL}",
        names.join(", "),
        edited.join(", "),
        reader(files),
        inserted.join(", "),
    )
}

/// The codec that most columns have, and the file's own notes.
fn parquet_options(connection: &Connection, files: &FileSet) -> Result<String, Failure> {
    let path = quoted(&files.paths);
    if number(connection, &format!("SELECT count(*) FROM parquet_schema({path}) WHERE type = 'INT96'"))? > 0 {
        let text =
            "the file has timestamps of the old type INT96, which are read to the microsecond; its other rows would lose their nanoseconds";
        return Err(Failure::new(FailedKind::NotSupported, text));
    }
    let codec = codecs(connection, &path)?.into_iter().next().unwrap_or_else(|| "SNAPPY".to_owned());
    let mut statement = connection
        .prepare(&format!("SELECT decode(key), decode(value) FROM parquet_kv_metadata({path}) WHERE decode(key) <> 'geo'"))
        .map_err(statement_error)?;
    let notes =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect::<duckdb::Result<Vec<(String, String)>>>);
    let notes: Vec<String> =
        notes.map_err(statement_error)?.iter().map(|(key, value)| format!("{}: {}", identifier(key), literal(value))).collect();
    let notes = if notes.is_empty() { String::new() } else { format!(", KV_METADATA {{{}}}", notes.join(", ")) };
    Ok(format!("(FORMAT parquet, COMPRESSION {}{notes}, USE_TMP_FILE false)", codec.to_ascii_lowercase()))
}
