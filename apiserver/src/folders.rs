//! Connections of type `files` in the place of databases: folders are databases, data files and folders of files of one format are tables.
//!
//! ```text
//!  basePath of the connection ─▶ its folders (databases) ─▶ files with a known format, and folders that hold one format only (tables) ─▶ the query tier
//! ```
//!
//! A row of a file is named by its ordinal, the hidden column [`ORDINAL`]; every row of a page has the etag of the whole file, because a file is changed as a whole.

use std::path::{Path, PathBuf};

use futures::{StreamExt as _, stream};
use millrace_connectors::file::{self, FolderEntry};
use millrace_core::connection::ConnectionSpec;
use millrace_core::connector::DatabaseEntry;
use millrace_core::explore::{ChangedRows, ResultColumn, RowChanges, RowKey, Summary};
use millrace_core::files::{FileAnswer, FileChange, FilePage, FileQuery, FileRequest, FileRows, FileSet};
use millrace_core::structure::{ColumnStructure, DatabaseStructure, ObjectName, ObjectNames, TableStructure};
use millrace_core::{Error, Kind, Result};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::place::Place;
use crate::routes::fs::blocking;
use crate::state::AppState;

/// The column that stands for a row's place in its file.
pub(crate) const ORDINAL: &str = "__rowid";
/// The connection's own folder; listed so only if one of its folders has its name.
pub(crate) const ITSELF: &str = ".";
/// Files whose columns are read for the structure of a folder; others are listed without columns.
const MOST_DESCRIBED: usize = 200;
/// Files that are looked into at the same time.
const AT_ONCE: usize = 4;
/// Rows between the first and the last edited one that are read again for the answer.
const MOST_ANSWERED: u64 = 10_000;
const FOLDER_TABLE: &str = "the rows of a folder of files cannot be changed; change the rows of its files";

/// Whether a place lies in files.
pub(crate) fn is_folder(place: &Place) -> bool {
    matches!(place.connection.spec, ConnectionSpec::Files(_))
}

/// What a connection to files calls its own folder.
fn root_name(base_path: &str) -> String {
    let base = Path::new(base_path);
    match base.file_name() {
        Some(name) if !base.join(name).is_dir() => name.to_string_lossy().into_owned(),
        _ => ITSELF.to_owned(),
    }
}

fn base_path(place: &Place) -> Result<String> {
    match &place.connection.spec {
        ConnectionSpec::Files(files) => Ok(files.base_path.clone()),
        _ => Err(Error::internal("a database is taken for a folder")),
    }
}

/// The folder that a place names as its database.
async fn folder(state: &AppState, place: &Place) -> Result<PathBuf> {
    let (roots, base, database) = (state.files.clone(), base_path(place)?, place.database.clone());
    blocking(move || {
        let root = file::resolve(&roots, &base, None)?;
        let name = database.unwrap_or_else(|| ITSELF.to_owned());
        if name == ITSELF || name == root_name(&base) {
            return Ok(root);
        }
        let missing = || Error::new(Kind::ObjectMissing, format!("the connection has no folder `{name}`")).with("database", name.clone());
        let found = below(&roots, &root, &name)?.ok_or_else(missing)?;
        if found.is_dir() { Ok(found) } else { Err(missing()) }
    })
    .await
}

/// What a relative path names below a folder; none if there is nothing.
fn below(roots: &millrace_core::files::FileRoots, folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let outside =
        || Error::new(Kind::PermissionDenied, format!("`{name}` does not lie below the connection's folder")).with("reason", "outside");
    if Path::new(name).is_absolute() || name.contains("://") {
        return Err(outside());
    }
    let base = folder.to_str().ok_or_else(|| Error::invalid("path", "the path is not UTF-8 text"))?;
    match file::resolve(roots, name, Some(base)) {
        Ok(found) if found.starts_with(folder) => Ok(Some(found)),
        Ok(_) => Err(outside()),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The databases of a connection: its own folder, then the folders in it.
pub(crate) async fn databases(state: &AppState, place: &Place) -> Result<Vec<DatabaseEntry>> {
    let (roots, base) = (state.files.clone(), base_path(place)?);
    blocking(move || {
        let root = file::resolve(&roots, &base, None)?;
        let folders = file::list(&roots, &root, true)?.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name);
        let names = std::iter::once(root_name(&base)).chain(folders);
        Ok(names.map(|name| DatabaseEntry { name, system_reason: None, schemas: Vec::new() }).collect())
    })
    .await
}

/// Makes a folder in the connection's own.
pub(crate) async fn create(state: &AppState, place: &Place, name: &str) -> Result<()> {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(Error::invalid("", "the name of a new folder holds no `/` and begins with no dot"));
    }
    let (roots, base, name) = (state.files.clone(), base_path(place)?, name.to_owned());
    blocking(move || {
        let root = file::resolve(&roots, &base, None)?;
        std::fs::create_dir(root.join(&name)).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::new(Kind::Conflict, format!("there is a `{name}` already")),
            _ => Error::new(Kind::PermissionDenied, format!("the folder `{name}` cannot be made")).because(error),
        })
    })
    .await
}

/// What of a folder is a table.
async fn entries(state: &AppState, place: &Place) -> Result<Vec<FolderEntry>> {
    let (roots, folder) = (state.files.clone(), folder(state, place).await?);
    let mut entries = blocking(move || file::list(&roots, &folder, true)).await?;
    entries.retain(|entry| entry.format.is_some());
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// The names of a folder's tables.
pub(crate) async fn names(state: &AppState, place: &Place) -> Result<ObjectNames> {
    let tables = entries(state, place).await?.into_iter().map(|entry| ObjectName { schema: None, name: entry.name }).collect();
    Ok(ObjectNames { tables, ..ObjectNames::default() })
}

/// All tables of a folder with their columns. A file that cannot be read is listed with the reason.
pub(crate) async fn structure(state: &AppState, place: &Place) -> Result<DatabaseStructure> {
    let entries = entries(state, place).await?;
    let described = stream::iter(entries.into_iter().enumerate()).map(move |(at, entry)| async move {
        let empty = |reason: String| TableStructure {
            name: entry.name.clone(),
            database: place.database.clone().unwrap_or_default(),
            estimated_size_bytes: entry.size,
            editability_reason: Some(reason),
            ..TableStructure::default()
        };
        if at >= MOST_DESCRIBED {
            return Ok(empty(format!("the folder has more than {MOST_DESCRIBED} tables; ask for this one alone to see its columns")));
        }
        match described(state, place, &entry.name).await {
            Ok(table) => Ok(table),
            Err(error) if matches!(error.kind(), Kind::ServerExhausted | Kind::TimedOut | Kind::Cancelled) => Err(error),
            Err(error) => Ok(empty(error.message().to_owned())),
        }
    });
    let tables = described.buffered(AT_ONCE).collect::<Vec<Result<TableStructure>>>().await.into_iter().collect::<Result<_>>()?;
    Ok(DatabaseStructure { tables, ..DatabaseStructure::default() })
}

/// One table with its columns.
pub(crate) async fn table(state: &AppState, place: &Place) -> Result<TableStructure> {
    described(state, place, &place.object().name).await
}

async fn described(state: &AppState, place: &Place, name: &str) -> Result<TableStructure> {
    let Files { set, is_single, size } = files(state, place, name).await?;
    let FileAnswer::Described(found) = ask(state, FileRequest::Describe { files: set, with_stats: false }).await? else {
        return Err(unexpected());
    };
    let column = |column: ResultColumn| ColumnStructure {
        name: column.name,
        data_type: column.native_type,
        is_nullable: column.nullable.unwrap_or(true),
        ..ColumnStructure::default()
    };
    Ok(TableStructure {
        name: name.to_owned(),
        database: place.database.clone().unwrap_or_default(),
        columns: found.columns.into_iter().map(column).collect(),
        estimated_rows: found.row_count,
        estimated_size_bytes: Some(size),
        is_editable: is_single,
        edit_key_columns: if is_single { vec![ORDINAL.to_owned()] } else { Vec::new() },
        edit_key_type: is_single.then(|| "row_number".to_owned()),
        editability_reason: (!is_single).then(|| FOLDER_TABLE.to_owned()),
        ..TableStructure::default()
    })
}

/// The files of a table.
struct Files {
    set: FileSet,
    /// Whether the table is one file and no folder.
    is_single: bool,
    /// Bytes, of all files.
    size: u64,
}

async fn files(state: &AppState, place: &Place, name: &str) -> Result<Files> {
    let (roots, folder, name) = (state.files.clone(), folder(state, place).await?, name.to_owned());
    blocking(move || {
        let missing = || Error::new(Kind::ObjectMissing, format!("the folder has no table `{name}`")).with("table", name.clone());
        if name.is_empty() || name.contains('/') {
            return Err(missing());
        }
        let found = below(&roots, &folder, &name)?.ok_or_else(missing)?;
        let (format, paths) = if found.is_dir() {
            file::table_files(&roots, &found).map_err(|error| missing().because(error))?
        } else {
            let format = millrace_core::files::FileFormat::of_name(&name).ok_or_else(missing)?;
            (format, vec![found.clone()])
        };
        let size = paths.iter().filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum();
        let paths: Option<Vec<String>> = paths.into_iter().map(|path| path.into_os_string().into_string().ok()).collect();
        let paths = paths.ok_or_else(|| Error::invalid("path", "a path is not UTF-8 text"))?;
        Ok(Files { set: FileSet { format, paths, access: None }, is_single: !found.is_dir(), size })
    })
    .await
}

/// Rows of a table, and the etag of its file; none for a folder, whose rows cannot be changed.
pub(crate) async fn page(state: &AppState, place: &Place, page: FilePage) -> Result<(FileRows, Option<String>)> {
    let found = files(state, place, &place.object().name).await?;
    let etag = if found.is_single { Some(etag(&found.set).await?) } else { None };
    let FileAnswer::Rows(rows) = ask(state, FileRequest::Page { files: found.set.clone(), page }).await? else { return Err(unexpected()) };
    // Rows that were read while the file changed belong to neither state: no edit may rely on them.
    let is_same = match &etag {
        Some(etag) => self::etag(&found.set).await? == *etag,
        None => true,
    };
    if !is_same {
        return Err(Error::new(Kind::Contention, "the file changes while it is read; try again"));
    }
    Ok((rows, etag))
}

async fn etag(files: &FileSet) -> Result<String> {
    let path = files.paths.first().cloned().unwrap_or_default();
    blocking(move || {
        let read = std::fs::File::open(&path).and_then(|mut file| file::etag(&mut file));
        read.map_err(|error| Error::new(Kind::ObjectMissing, "the file cannot be opened").because(error))
    })
    .await
}

/// How many rows of a table meet a condition.
pub(crate) async fn count(state: &AppState, place: &Place, condition: Option<&str>) -> Result<u64> {
    let files = files(state, place, &place.object().name).await?.set;
    match ask(state, FileRequest::Count { files, condition: condition.map(str::to_owned) }).await? {
        FileAnswer::Counted(count) => Ok(count),
        _ => Err(unexpected()),
    }
}

/// Statistics of every column of a table.
pub(crate) async fn summary(state: &AppState, place: &Place, sample_percent: Option<f64>) -> Result<Summary> {
    let files = files(state, place, &place.object().name).await?.set;
    match ask(state, FileRequest::Summarize { files, sample_percent }).await? {
        FileAnswer::Summarized { row_count, columns } => Ok(Summary { row_count, columns }),
        _ => Err(unexpected()),
    }
}

/// The columns of a statement whose relative paths stand below the folder.
pub(crate) async fn columns(state: &AppState, place: &Place, sql: &str) -> Result<Vec<ResultColumn>> {
    let scope = folder(state, place).await?.to_str().map(str::to_owned);
    match ask(state, FileRequest::Columns(FileQuery { sql: sql.to_owned(), scope, roots: (*state.files).clone(), access: None })).await? {
        FileAnswer::Columns(columns) => Ok(columns),
        _ => Err(unexpected()),
    }
}

/// Changes rows of a table that is one file, all or none.
pub(crate) async fn change(state: &AppState, place: &Place, changes: RowChanges) -> Result<ChangedRows> {
    let files = files(state, place, &place.object().name).await?;
    if !files.is_single {
        return Err(Error::not_supported("table", FOLDER_TABLE));
    }
    let mut change = FileChange::default();
    let count = match changes {
        RowChanges::Insert(rows) => {
            change.inserts = rows;
            change.inserts.len()
        }
        RowChanges::Upsert(_) => return Err(Error::not_supported("onConflict", "rows of files have no key that could be taken")),
        RowChanges::Edit(edits) => {
            for (at, edit) in edits.into_iter().enumerate() {
                let ordinal = ordinal(&edit.keys, "edits", at)?;
                same_etag(&mut change, edit.etag, "edits", at)?;
                change.edits.push((ordinal, edit.changes));
            }
            change.edits.len()
        }
        RowChanges::Delete(deletes) => {
            for (at, RowKey { keys, etag }) in deletes.into_iter().enumerate() {
                change.deletes.push(ordinal(&keys, "deletes", at)?);
                same_etag(&mut change, etag, "deletes", at)?;
            }
            change.deletes.len()
        }
    };
    let edited: Vec<u64> = change.edits.iter().map(|(ordinal, _)| *ordinal).collect();
    let FileAnswer::Rewritten { etag } = ask(state, FileRequest::Rewrite { files: files.set, change }).await? else {
        return Err(unexpected());
    };
    let rows = rows_after(state, place, &edited, &etag).await;
    Ok(ChangedRows { count: count as u64, rows })
}

/// Edited rows as they stand in the file now; none where they lie far apart, or the file is another one again.
async fn rows_after(state: &AppState, place: &Place, edited: &[u64], written: &str) -> Vec<Value> {
    let (Some(first), Some(last)) = (edited.iter().min().copied(), edited.iter().max().copied()) else { return Vec::new() };
    if last - first >= MOST_ANSWERED {
        return Vec::new();
    }
    let wanted = FilePage { limit: last - first + 1, offset: first, ..FilePage::default() };
    let Ok((rows, etag)) = page(state, place, wanted).await else { return Vec::new() };
    if etag.as_deref() != Some(written) {
        return Vec::new();
    }
    let names: Vec<String> = rows.columns.into_iter().map(|column| column.name).collect();
    let all = rows.rows.into_iter().zip(rows.ordinals).filter(|(_, ordinal)| edited.contains(ordinal));
    all.map(|(row, ordinal)| {
        let mut object: Map<String, Value> = names.iter().cloned().zip(row).collect();
        object.insert(ORDINAL.to_owned(), ordinal.into());
        object.into()
    })
    .collect()
}

fn ordinal(keys: &Map<String, Value>, list: &str, at: usize) -> Result<u64> {
    let only = (keys.len() == 1).then(|| keys.get(ORDINAL).and_then(Value::as_u64)).flatten();
    only.ok_or_else(|| Error::invalid(format!("{list}[{at}].keys"), format!("a row of a file is named by its `{ORDINAL}` alone")))
}

/// A file has one state: all rows must have been seen in it.
fn same_etag(change: &mut FileChange, etag: Option<String>, list: &str, at: usize) -> Result<()> {
    let Some(etag) = etag else { return Ok(()) };
    match &change.etag {
        Some(known) if *known != etag => {
            Err(Error::invalid(format!("{list}[{at}].etag"), "all rows of one change must come from the same state of the file"))
        }
        _ => {
            change.etag = Some(etag);
            Ok(())
        }
    }
}

/// Asks the query tier; dropping the future ends what runs.
async fn ask(state: &AppState, request: FileRequest) -> Result<FileAnswer> {
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    state.query.files(request, cancel).await
}

fn unexpected() -> Error {
    Error::internal("the query tier answered something else")
}
