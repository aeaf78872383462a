//! Data files: structure, rows, statements and changes, all by the query tier.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, patch, post};
use millrace_connectors::file;
use millrace_core::connection::ConnectionSpec;
use millrace_core::explore::OrderBy;
use millrace_core::files::{FileAnswer, FileChange, FileFormat, FilePage, FileQuery, FileRequest, FileRows, FileSet};
use millrace_core::id::ConnectionId;
use millrace_core::{Error, Kind};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::fs::blocking;
use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::{JsonBody, Params, parse_id, read};
use crate::route::{Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::files::{
    FileColumnsResponse, FileCount, FileData, FileMetadata, FileParams, FileQueryRequest, FileQueryResponse, FileReference, FileSummary,
    JsonStructure, RowsChanged, RowsRequest, SniffResult,
};

const TAG: &str = "files";
/// Rows of one page.
const MOST_ROWS: u64 = 10_000;
/// A file that changes while it is read is read again so many times.
const READS: usize = 3;
const ASKS: &[Code] = &[
    Code::InvalidJson,
    Code::ValidationFailed,
    Code::NotFound,
    Code::PathRefused,
    Code::NotSupported,
    Code::StatementRefused,
    Code::Exhausted,
    Code::TimedOut,
];
const PATH: (&str, &str, &str) =
    ("path", "string", "a file, a pattern or a folder of files of one format; absolute, or below the connection's folder");
const FORMAT: (&str, &str, &str) = ("format", "string", "`csv`, `json`, `jsonl` or `parquet`; told by the name if absent");
const CONNECTION: (&str, &str, &str) = ("connectionId", "string", "a connection of type `files`");
const WHERE: (&str, &str, &str) = ("where", "string", "a condition in DuckDB's dialect, without the word WHERE");

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(ASKS);
    const META: &[(&str, &str, &str)] = &[PATH, FORMAT, CONNECTION, ("stats", "boolean", "count the rows")];
    Routes::default()
        .add(
            op("get", "/files/meta", "getFileMetadata", "Columns and dialect of a file").query(META).answers::<FileMetadata>(200),
            get(meta),
        )
        .add(
            op("get", "/files/metadata", "getFileMetadataOldPath", "Older form of `getFileMetadata`")
                .query(META)
                .answers::<FileMetadata>(200),
            get(meta),
        )
        .add(
            op("get", "/files/data", "getFileData", "Rows of a file; the header `ETag` names the file that they are of")
                .query(&[
                    PATH,
                    FORMAT,
                    CONNECTION,
                    ("limit", "integer", "rows of the page; 100 if absent, at most 10000"),
                    ("offset", "integer", "rows before the page"),
                    ("skipCount", "boolean", "do not count the rows"),
                    ("order_by", "string", "columns, separated by commas"),
                    ("order_dir", "string", "`ASC` or `DESC` for each"),
                    WHERE,
                    ("max_rows", "integer", "no rows beyond this one"),
                    ("refresh", "boolean", "accepted; local files are always read anew"),
                ])
                .answers::<FileData>(200)
                .fails(&[Code::FileChanged]),
            get(data),
        )
        .add(
            op("get", "/files/count", "countFileRows", "How many rows a file has")
                .query(&[PATH, FORMAT, CONNECTION, WHERE])
                .answers::<FileCount>(200),
            get(count),
        )
        .add(
            op("post", "/files/csv/sniff", "sniffCsv", "The dialect of a CSV file").takes::<FileReference>().answers::<SniffResult>(200),
            post(sniff),
        )
        .add(
            op("post", "/files/summary", "summarizeFile", "Statistics of every column of a file")
                .takes::<FileReference>()
                .answers::<FileSummary>(200),
            post(summary),
        )
        .add(
            op("post", "/files/query", "queryFiles", "Run one reading statement over files")
                .takes::<FileQueryRequest>()
                .answers::<FileQueryResponse>(200),
            post(query),
        )
        .add(
            op("post", "/files/query/columns", "describeFileQuery", "The columns of a statement over files, without running it")
                .takes::<FileQueryRequest>()
                .answers::<FileColumnsResponse>(200),
            post(columns),
        )
        .join(changes())
}

fn changes() -> Routes {
    let op = |method, path, id, summary| {
        Operation::new(method, path, id, TAG, summary).takes::<RowsRequest>().answers::<RowsChanged>(200).fails(ASKS).fails(&[
            Code::FileChanged,
            Code::ValueRefused,
            Code::PermissionDenied,
        ])
    };
    Routes::default()
        .add(op("post", "/files/rows/apply", "applyFileRows", "Edit, insert and delete rows of one file, all or none"), post(apply))
        .add(op("post", "/files/rows/insert", "insertFileRows", "Add rows to one file, all or none"), post(insert))
        .add(op("patch", "/files/rows/edit", "editFileRows", "Edit rows of one file, all or none"), patch(edit))
        .add(op("delete", "/files/rows/delete", "deleteFileRows", "Delete rows of one file, all or none"), delete(remove))
}

/// The folder of a connection of type `files`.
pub(super) async fn base_of(state: &AppState, connection: Option<&str>) -> ApiResult<Option<String>> {
    let Some(id) = connection.filter(|id| !id.is_empty()) else { return Ok(None) };
    let id: ConnectionId = parse_id(id)?;
    match state.store.connection(&id).await?.spec {
        ConnectionSpec::Files(files) => Ok(Some(files.base_path)),
        _ => Err(ApiError::invalid("connectionId", "the connection is not of type `files`")),
    }
}

/// The files of a request, and the folder that relative paths stand below.
async fn files(state: &AppState, path: &str, format: Option<FileFormat>, connection: Option<&str>) -> ApiResult<FileSet> {
    if path.contains("://") && !path.starts_with("file://") {
        return Err(ApiError::new(Code::NotSupported, "object stores are not supported yet").detail("field", "path"));
    }
    let base = base_of(state, connection).await?;
    let (roots, path) = (state.files.clone(), path.to_owned());
    let (told, paths) = blocking(move || {
        let is_pattern = path.contains(['*', '?', '[']);
        let found = if is_pattern { None } else { Some(file::resolve(&roots, &path, base.as_deref())?) };
        if let Some(folder) = found.filter(|found| found.is_dir()) {
            return file::table_files(&roots, &folder).map(|(format, paths)| (Some(format), paths));
        }
        let paths = file::expand(&roots, &path, base.as_deref())?;
        let told = paths.iter().map(|path| FileFormat::of_name(&path.to_string_lossy())).next().flatten();
        Ok((told, paths))
    })
    .await?;
    let format = format.or(told).ok_or_else(|| ApiError::invalid("format", "the format is not told by the name; give `format`"))?;
    let paths: Option<Vec<String>> = paths.into_iter().map(|path| path.into_os_string().into_string().ok()).collect();
    Ok(FileSet { format, paths: paths.ok_or_else(|| ApiError::invalid("path", "a path is not UTF-8 text"))? })
}

/// Asks the query tier; the client's going away ends what runs.
async fn ask(state: &AppState, request: FileRequest) -> ApiResult<FileAnswer> {
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    state.query.files(request, cancel).await.map_err(refused)
}

fn refused(error: Error) -> ApiError {
    if error.kind() == Kind::Conflict && error.detail("reason") == Some("etag") {
        return ApiError::new(Code::FileChanged, error.message().to_owned());
    }
    error.into()
}

fn unexpected() -> ApiError {
    Error::internal("the query tier answered something else").into()
}

/// What tells one state of the files from another.
async fn etag(files: &FileSet) -> ApiResult<String> {
    let paths = files.paths.clone();
    let etags = blocking(move || {
        let etags = paths.iter().map(|path| file::etag(&mut File::open(path)?)).collect::<std::io::Result<Vec<_>>>();
        etags.map_err(|error| Error::new(Kind::NotFound, "a file cannot be opened").because(error))
    });
    Ok(etags.await?.join("-"))
}

async fn meta(State(state): State<AppState>, Params(params): Params<FileParams>) -> ApiResult<Json<FileMetadata>> {
    Ok(Json(metadata_of(&state, params).await?))
}

/// What files hold.
pub(crate) async fn metadata_of(state: &AppState, params: FileParams) -> ApiResult<FileMetadata> {
    let files = files(state, &params.path, params.format, params.connection_id.as_deref()).await?;
    let size = files.paths.iter().filter_map(|path| Path::new(path).metadata().ok()).map(|found| found.len()).sum();
    let (format, count) = (files.format, files.paths.len());
    let FileAnswer::Described(found) = ask(state, FileRequest::Describe { files, with_stats: params.stats }).await? else {
        return Err(unexpected());
    };
    let mut format_info = Map::new();
    format_info.insert("fileCount".into(), json!(count));
    if let Some(groups) = found.row_groups {
        format_info.insert("rowGroups".into(), json!(groups));
        format_info.insert("compression".into(), json!(found.compression));
    }
    Ok(FileMetadata {
        path: params.path,
        format,
        size,
        row_count: found.row_count.map_or(-1, |rows| i64::try_from(rows).unwrap_or(i64::MAX)),
        column_count: found.columns.len(),
        columns: found.columns.into_iter().map(Into::into).collect(),
        format_info,
        csv_dialect: found.dialect.map(Into::into),
        json_structure: found.is_array.map(|is_array| JsonStructure::new(is_array, found.shape.unwrap_or_default())),
    })
}

async fn data(State(state): State<AppState>, Params(params): Params<FileParams>) -> ApiResult<Response> {
    let (etag, rows) = rows_of(&state, &params).await?;
    Ok(([(header::ETAG, format!("\"{etag}\""))], Json(file_data(rows))).into_response())
}

/// Rows of files, and the etag that the files have.
pub(crate) async fn rows_of(state: &AppState, params: &FileParams) -> ApiResult<(String, FileRows)> {
    let files = files(state, &params.path, params.format, params.connection_id.as_deref()).await?;
    let mut limit = params.limit.min(MOST_ROWS);
    if params.max_rows > 0 {
        limit = limit.min(params.max_rows.saturating_sub(params.offset));
    }
    let page = FilePage {
        limit,
        offset: params.offset,
        order: order(params)?,
        condition: params.condition.clone(),
        with_total: !params.skip_count,
    };
    for _ in 0..READS {
        let before = etag(&files).await?;
        let FileAnswer::Rows(rows) = ask(state, FileRequest::Page { files: files.clone(), page: page.clone() }).await? else {
            return Err(unexpected());
        };
        // Rows of one file, not of two: what changed meanwhile is read again.
        if etag(&files).await? == before {
            return Ok((before, rows));
        }
    }
    Err(ApiError::new(Code::FileChanged, "the file changes while it is read; try again"))
}

fn file_data(rows: FileRows) -> FileData {
    let object = |(row, ordinal): (Vec<Value>, u64)| {
        let mut object: Map<String, Value> = rows.columns.iter().map(|column| column.name.clone()).zip(row).collect();
        object.insert("__rowid".to_owned(), ordinal.into());
        object
    };
    let data = rows.rows.into_iter().zip(rows.ordinals).map(object).collect();
    let total = rows.total.map_or(-1, |total| i64::try_from(total).unwrap_or(i64::MAX));
    FileData { data, schema: rows.columns.into_iter().map(Into::into).collect(), total }
}

fn order(params: &FileParams) -> ApiResult<Vec<OrderBy>> {
    let list = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.split(',')).map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    };
    let (columns, directions) = (list(&params.order_by), list(&params.order_dir));
    if directions.len() > columns.len() {
        return Err(ApiError::invalid("order_dir", "there are more directions than columns"));
    }
    let direction = |index: usize| match directions.get(index).map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("asc") => Ok(false),
        Some("desc") => Ok(true),
        Some(_) => Err(ApiError::invalid("order_dir", "a direction is `ASC` or `DESC`")),
    };
    let order = columns.into_iter().enumerate();
    order.map(|(index, column)| Ok(OrderBy { column, descending: direction(index)?, nulls_first: None })).collect()
}

async fn count(State(state): State<AppState>, Params(params): Params<FileParams>) -> ApiResult<Json<FileCount>> {
    let files = files(&state, &params.path, params.format, params.connection_id.as_deref()).await?;
    match ask(&state, FileRequest::Count { files, condition: params.condition }).await? {
        FileAnswer::Counted(count) => Ok(Json(FileCount { count })),
        _ => Err(unexpected()),
    }
}

async fn sniff(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<SniffResult>> {
    let request: FileReference = read(body)?;
    let files = files(&state, &request.path, request.format, request.connection_id.as_deref()).await?;
    if files.format != FileFormat::Csv {
        return Err(ApiError::invalid("format", "only CSV files have a dialect"));
    }
    let sample_path = files.paths.first().cloned().unwrap_or_default();
    match ask(&state, FileRequest::Sniff { files }).await? {
        FileAnswer::Sniffed(dialect) => Ok(Json(SniffResult { path: request.path, sample_path, dialect })),
        _ => Err(unexpected()),
    }
}

async fn summary(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<FileSummary>> {
    let request: FileReference = read(body)?;
    if request.sample_percent.is_some_and(|percent| !(percent > 0.0 && percent <= 100.0)) {
        return Err(ApiError::invalid("samplePercent", "the sample must be more than 0 and at most 100 percent"));
    }
    let files = files(&state, &request.path, request.format, request.connection_id.as_deref()).await?;
    let (format, started) = (files.format, Instant::now());
    match ask(&state, FileRequest::Summarize { files, sample_percent: request.sample_percent }).await? {
        FileAnswer::Summarized { row_count, columns } => Ok(Json(FileSummary {
            path: request.path,
            format,
            row_count,
            column_count: columns.len(),
            columns,
            execution_time_ms: started.elapsed().as_millis() as u64,
            sampled: request.sample_percent.is_some_and(|percent| percent < 100.0),
            sample_percent: request.sample_percent,
            status: "success",
        })),
        _ => Err(unexpected()),
    }
}

/// The statement with the folder that its relative paths stand below: the scope, itself below the connection's folder.
async fn statement(state: &AppState, request: &FileQueryRequest) -> ApiResult<FileQuery> {
    if request.query.trim().is_empty() {
        return Err(ApiError::invalid("query", "the statement is missing"));
    }
    let base = base_of(state, request.connection_id.as_deref()).await?;
    let scope = match request.scope_path.as_deref().filter(|scope| !scope.is_empty()) {
        Some(scope) => {
            let found = file::resolve(&state.files, scope, base.as_deref())?;
            let folder = if found.is_dir() { Some(found.as_path()) } else { found.parent() };
            folder.map(|folder| folder.display().to_string())
        }
        None => base,
    };
    Ok(FileQuery { sql: request.query.clone(), scope, roots: (*state.files).clone() })
}

async fn query(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<FileQueryResponse>> {
    let request: FileQueryRequest = read(body)?;
    let query = statement(&state, &request).await?;
    let started = Instant::now();
    let answer = ask(&state, FileRequest::Query(query)).await;
    let seen = match &answer {
        Ok(FileAnswer::Rows(rows)) => Ok(rows.rows.len() as u64),
        Ok(_) => Ok(0),
        Err(error) => Err(error.text().to_owned()),
    };
    let connection = request.connection_id.as_deref().unwrap_or_default();
    let ran = Ran { connection, database: "files", schema: None, table: None, tab: None, purpose: Purpose::Data, sql: &request.query };
    sql::record(&state, ran, started.elapsed().as_millis() as u64, seen).await;
    let FileAnswer::Rows(rows) = answer? else { return Err(unexpected()) };
    Ok(Json(FileQueryResponse {
        columns: rows.columns.into_iter().map(|column| column.name).collect(),
        count: rows.rows.len(),
        rows: rows.rows,
        status: "success",
    }))
}

async fn columns(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<FileColumnsResponse>> {
    let request: FileQueryRequest = read(body)?;
    let query = statement(&state, &request).await?;
    match ask(&state, FileRequest::Columns(query)).await? {
        FileAnswer::Columns(columns) => {
            Ok(Json(FileColumnsResponse { columns: columns.into_iter().map(Into::into).collect(), status: "success" }))
        }
        _ => Err(unexpected()),
    }
}

async fn apply(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Response> {
    change(&state, &headers, read(body)?).await
}

async fn insert(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: RowsRequest = read(body)?;
    only("inserts", &request)?;
    change(&state, &headers, request).await
}

async fn edit(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: RowsRequest = read(body)?;
    only("edits", &request)?;
    change(&state, &headers, request).await
}

async fn remove(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: RowsRequest = read(body)?;
    only("deletes", &request)?;
    change(&state, &headers, request).await
}

/// A path for one kind of change takes no other.
fn only(wanted: &str, request: &RowsRequest) -> ApiResult<()> {
    let given = [("edits", request.edits.len()), ("inserts", request.inserts.len()), ("deletes", request.deletes.len())];
    match given.into_iter().find(|(name, count)| *name != wanted && *count > 0) {
        Some((name, _)) => Err(ApiError::invalid(name, format!("this request takes `{wanted}` only; `/files/rows/apply` takes all"))),
        None => Ok(()),
    }
}

async fn change(state: &AppState, headers: &HeaderMap, request: RowsRequest) -> ApiResult<Response> {
    let files = files(state, &request.path, request.format, request.connection_id.as_deref()).await?;
    let is_table = files.paths.len() != 1 || !request.path.ends_with(file_name(&files.paths[0]));
    if is_table {
        return Err(ApiError::new(Code::NotSupported, "only single files can be changed, not folders or patterns").detail("field", "path"));
    }
    let (updated, inserted, deleted) = (request.edits.len(), request.inserts.len(), request.deletes.len());
    if updated + inserted + deleted == 0 {
        return Err(ApiError::invalid("edits", "there is nothing to change"));
    }
    let wanted = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok()).map(|text| text.trim().trim_matches('"').to_owned());
    let change = FileChange {
        edits: request.edits.into_iter().map(|edit| (edit.row_id, edit.changes)).collect(),
        inserts: request.inserts.into_iter().map(|insert| insert.values).collect(),
        deletes: request.deletes.into_iter().map(|delete| delete.row_id).collect(),
        etag: wanted.filter(|etag| etag != "*"),
    };
    match ask(state, FileRequest::Rewrite { files, change }).await? {
        FileAnswer::Rewritten { etag } => {
            let body = Json(RowsChanged { status: "success", updated, inserted, deleted });
            Ok(([(header::ETAG, format!("\"{etag}\""))], body).into_response())
        }
        _ => Err(unexpected()),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
