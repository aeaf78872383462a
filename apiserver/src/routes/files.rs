//! Data files: structure, rows, statements and changes, all by the query tier.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use millrace_connectors::{file, s3};
use millrace_core::connection::ConnectionSpec;
use millrace_core::explore::OrderBy;
use millrace_core::files::{FileAnswer, FileFormat, FilePage, FileQuery, FileRequest, FileRows, FileSet};
use millrace_core::{Error, Kind};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::file_changes;
use super::fs::blocking;
use crate::errors::{ApiError, ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, Params, read};
use crate::objects;
use crate::param::{MOST, Param};
use crate::route::{Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::files::{
    FileColumnsResponse, FileCount, FileData, FileMetadata, FileParams, FileQueryRequest, FileQueryResponse, FileReference, FileSummary,
    JsonStructure, SniffResult,
};

pub(super) const TAG: &str = "files";
/// Rows of one page.
const MOST_ROWS: u64 = 10_000;
/// A file that changes while it is read is read again so many times.
const READS: usize = 3;
pub(super) const ASKS: &[Code] = &[
    Code::InvalidJson,
    Code::ValidationFailed,
    Code::NotFound,
    Code::PathRefused,
    Code::NotSupported,
    Code::StatementRefused,
    Code::LoginRefused,
    Code::Untrusted,
    Code::PermissionDenied,
    Code::Unreachable,
    Code::ConnectionLost,
    Code::ProtocolViolated,
    Code::Exhausted,
    Code::TimedOut,
];
const PATH: Param = Param::text("path", "a file, a pattern, a folder of files of one format or a manifest; absolute, `s3://bucket/key`, or below the connection's folder or scope").required().example(examples::FILE);
const FORMAT: Param = Param::one_of("format", &["csv", "json", "jsonl", "parquet"], "told by the name if absent");
const CONNECTION: Param =
    Param::text("connectionId", "a connection of type `files` or `s3`; without one, objects are those of the client's session");
const WHERE: Param = Param::text("where", "a condition in DuckDB's dialect, without the word WHERE");

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(ASKS);
    const META: &[Param] = &[PATH, FORMAT, CONNECTION, Param::flag("stats", "count the rows")];
    Routes::default()
        .add(
            op("get", "/files/meta", "getFileMetadata", "Columns and dialect of a file").query(META).answers::<FileMetadata>(200),
            get(meta),
        )
        .add(
            op("get", "/files/data", "getFileData", "Rows of a file; the header `ETag` names the file that they are of")
                .query(&[
                    PATH,
                    FORMAT,
                    CONNECTION,
                    Param::number("limit", 0, MOST_ROWS, "rows of the page; 100 if absent").example("50"),
                    Param::number("offset", 0, MOST, "rows before the page"),
                    Param::flag("skipCount", "do not count the rows"),
                    Param::text("order_by", "columns, separated by commas"),
                    Param::text("order_dir", "`ASC` or `DESC` for each"),
                    WHERE,
                    Param::number("max_rows", 0, MOST, "no rows beyond this one"),
                    Param::flag("refresh", "accepted; files are always read anew"),
                ])
                .answers::<FileData>(200)
                .header("ETag", "names the file that the rows are of; changes take it in `If-Match`")
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
            op("post", "/files/csv/sniff", "sniffCsv", "The dialect of a CSV file")
                .reads()
                .takes::<FileReference>()
                .example(json!({"path": examples::FILE}))
                .answers::<SniffResult>(200),
            post(sniff),
        )
        .add(
            op("post", "/files/summary", "summarizeFile", "Statistics of every column of a file")
                .reads()
                .takes::<FileReference>()
                .example(json!({"path": examples::FILE}))
                .answers::<FileSummary>(200),
            post(summary),
        )
        .add(
            op("post", "/files/query", "queryFiles", "Run one reading statement over files")
                .reads()
                .takes::<FileQueryRequest>()
                .example(json!({"query": format!("SELECT name, balance FROM read_csv('{}')", examples::FILE)}))
                .answers::<FileQueryResponse>(200),
            post(query),
        )
        .add(
            op("post", "/files/query/columns", "describeFileQuery", "The columns of a statement over files, without running it")
                .reads()
                .takes::<FileQueryRequest>()
                .example(json!({"query": format!("SELECT name, balance FROM read_csv('{}')", examples::FILE)}))
                .answers::<FileColumnsResponse>(200),
            post(columns),
        )
        .join(file_changes::routes())
}

/// The folder of a connection of type `files`.
pub(super) async fn base_of(state: &AppState, connection: Option<&str>) -> ApiResult<Option<String>> {
    let Some(connection) = objects::connection(state, connection).await? else { return Ok(None) };
    match connection.spec {
        ConnectionSpec::Files(files) => Ok(Some(files.base_path)),
        _ => Err(ApiError::invalid("connectionId", "the connection is not of type `files`")),
    }
}

/// What a request names.
pub(super) struct Named {
    pub(super) files: FileSet,
    /// Bytes of all files together.
    size: u64,
    /// What tells one state of the files from another; none of local files, whose bytes are looked at for it.
    pub(super) etag: Option<String>,
    /// Whether the path is one file's own, not a pattern's or a folder's.
    pub(super) is_single: bool,
}

/// What a request names: objects, or local files.
pub(super) async fn named(
    state: &AppState,
    headers: &HeaderMap,
    path: &str,
    format: Option<FileFormat>,
    connection: Option<&str>,
) -> ApiResult<Named> {
    if let Some(found) = objects::objects(state, headers, path, format, connection).await? {
        return Ok(Named { files: found.files, size: found.size, etag: Some(found.etag), is_single: found.is_single });
    }
    let files = local(state, path, format, connection).await?;
    let size = files.paths.iter().filter_map(|path| Path::new(path).metadata().ok()).map(|found| found.len()).sum();
    let is_single = files.paths.len() == 1 && path.ends_with(file_name(&files.paths[0]));
    Ok(Named { files, size, etag: None, is_single })
}

/// The local files of a request, and the folder that relative paths stand below.
async fn local(state: &AppState, path: &str, format: Option<FileFormat>, connection: Option<&str>) -> ApiResult<FileSet> {
    let base = base_of(state, connection).await?;
    let (roots, path) = (state.files.clone(), path.to_owned());
    let (told, paths) = blocking(move || {
        // What has exactly this name is meant, even if the name could be a pattern.
        let found = match file::resolve(&roots, &path, base.as_deref()) {
            Err(_) if file::is_pattern(&path) => None,
            found => Some(found?),
        };
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
    Ok(FileSet { format, paths: paths.ok_or_else(|| ApiError::invalid("path", "a path is not UTF-8 text"))?, access: None })
}

/// Asks the query tier; the client's going away ends what runs.
pub(super) async fn ask(state: &AppState, request: FileRequest) -> ApiResult<FileAnswer> {
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let bound = request.access().and_then(|access| access.limits.time);
    let answer = state.query.files(request, cancel);
    let answer = match bound {
        Some(bound) => tokio::time::timeout(bound, answer).await.map_err(|_| {
            ApiError::new(Code::TimedOut, format!("the query took longer than the {} s that the session allows", bound.as_secs()))
        })?,
        None => answer.await,
    };
    answer.map_err(refused)
}

fn refused(error: Error) -> ApiError {
    if error.kind() == Kind::Conflict && error.detail("reason") == Some("etag") {
        return ApiError::new(Code::FileChanged, error.message().to_owned());
    }
    error.into()
}

pub(super) fn unexpected() -> ApiError {
    Error::internal("the query tier answered something else").into()
}

/// What tells one state of what a request names from another.
async fn state_of(state: &AppState, headers: &HeaderMap, params: &FileParams, named: &Named) -> ApiResult<String> {
    if named.etag.is_none() {
        return etag(&named.files).await;
    }
    let now = objects::objects(state, headers, &params.path, params.format, params.connection_id.as_deref()).await?;
    Ok(now.map(|now| now.etag).unwrap_or_default())
}

/// What tells one state of local files from another.
async fn etag(files: &FileSet) -> ApiResult<String> {
    let paths = files.paths.clone();
    let etags = blocking(move || {
        let etags = paths.iter().map(|path| file::etag(&mut File::open(path)?)).collect::<std::io::Result<Vec<_>>>();
        etags.map_err(|error| Error::new(Kind::NotFound, "a file cannot be opened").because(error))
    });
    Ok(joined(etags.await?))
}

/// One text for several: of bounded length, because it stands in a header, and another one if one of them is.
fn joined(mut etags: Vec<String>) -> String {
    if etags.len() == 1 {
        return etags.remove(0);
    }
    let digest = Sha256::digest(etags.join("-"));
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn meta(State(state): State<AppState>, headers: HeaderMap, Params(params): Params<FileParams>) -> ApiResult<Json<FileMetadata>> {
    Ok(Json(metadata_of(&state, &headers, params).await?))
}

/// What files hold.
pub(crate) async fn metadata_of(state: &AppState, headers: &HeaderMap, params: FileParams) -> ApiResult<FileMetadata> {
    let Named { files, size, .. } = named(state, headers, &params.path, params.format, params.connection_id.as_deref()).await?;
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

async fn data(State(state): State<AppState>, headers: HeaderMap, Params(params): Params<FileParams>) -> ApiResult<Response> {
    let (etag, rows) = rows_of(&state, &headers, &params).await?;
    Ok(([(header::ETAG, format!("\"{etag}\""))], Json(file_data(rows))).into_response())
}

/// Rows of files, and the etag that the files have.
pub(crate) async fn rows_of(state: &AppState, headers: &HeaderMap, params: &FileParams) -> ApiResult<(String, FileRows)> {
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
        let found = named(state, headers, &params.path, params.format, params.connection_id.as_deref()).await?;
        let before = match &found.etag {
            Some(etag) => etag.clone(),
            None => etag(&found.files).await?,
        };
        let answer = ask(state, FileRequest::Page { files: found.files.clone(), page: page.clone() }).await;
        // Rows of one file, not of two: what changed meanwhile is read again.
        let is_same = state_of(state, headers, params, &found).await? == before;
        let rows = match answer {
            Ok(FileAnswer::Rows(rows)) => rows,
            Ok(_) => return Err(unexpected()),
            Err(error) if is_same => return Err(error),
            Err(_) => continue,
        };
        if is_same {
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

async fn count(State(state): State<AppState>, headers: HeaderMap, Params(params): Params<FileParams>) -> ApiResult<Json<FileCount>> {
    let Named { files, .. } = named(&state, &headers, &params.path, params.format, params.connection_id.as_deref()).await?;
    match ask(&state, FileRequest::Count { files, condition: params.condition }).await? {
        FileAnswer::Counted(count) => Ok(Json(FileCount { count })),
        _ => Err(unexpected()),
    }
}

async fn sniff(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<SniffResult>> {
    let request: FileReference = read(body)?;
    let Named { files, .. } = named(&state, &headers, &request.path, request.format, request.connection_id.as_deref()).await?;
    if files.format != FileFormat::Csv {
        return Err(ApiError::invalid("format", "only CSV files have a dialect"));
    }
    let sample_path = files.paths.first().cloned().unwrap_or_default();
    match ask(&state, FileRequest::Sniff { files }).await? {
        FileAnswer::Sniffed(dialect) => Ok(Json(SniffResult { path: request.path, sample_path, dialect })),
        _ => Err(unexpected()),
    }
}

async fn summary(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<FileSummary>> {
    let request: FileReference = read(body)?;
    if request.sample_percent.is_some_and(|percent| !(percent > 0.0 && percent <= 100.0)) {
        return Err(ApiError::invalid("samplePercent", "the sample must be more than 0 and at most 100 percent"));
    }
    let Named { files, .. } = named(&state, &headers, &request.path, request.format, request.connection_id.as_deref()).await?;
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

/// The statement with the folder that its relative paths stand below: the scope, itself below the connection's folder or scope.
async fn statement(state: &AppState, headers: &HeaderMap, request: &FileQueryRequest) -> ApiResult<FileQuery> {
    if request.query.trim().is_empty() {
        return Err(ApiError::invalid("query", "the statement is missing"));
    }
    let id = request.connection_id.as_deref();
    let (site, is_connection) = objects::optional_site(state, headers, id).await?;
    let said = request.scope_path.as_deref().filter(|scope| !scope.is_empty());
    let scope = match (&site, said) {
        (Some(site), Some(scope)) if is_connection || s3::is_object_path(scope) => Some(site.path(scope).map_err(in_scope)?.to_string()),
        (None, Some(scope)) if s3::is_object_path(scope) => {
            return Err(objects::site(state, headers, id).await.map_or_else(|error| error, |_| unexpected()));
        }
        (Some(site), None) if is_connection => site.base().map(|base| base.to_string()),
        (_, said) => local_scope(state, said, base_of(state, id).await?)?,
    };
    let access = site.map(|site| site.store.access().clone());
    Ok(FileQuery { sql: request.query.clone(), scope, roots: (*state.files).clone(), access })
}

fn in_scope(error: ApiError) -> ApiError {
    error.detail("field", "scopePath")
}

fn local_scope(state: &AppState, said: Option<&str>, base: Option<String>) -> ApiResult<Option<String>> {
    let Some(scope) = said else { return Ok(base) };
    let found = file::resolve(&state.files, scope, base.as_deref())?;
    let folder = if found.is_dir() { Some(found.as_path()) } else { found.parent() };
    Ok(folder.map(|folder| folder.display().to_string()))
}

async fn query(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<FileQueryResponse>> {
    let request: FileQueryRequest = read(body)?;
    let query = statement(&state, &headers, &request).await?;
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

async fn columns(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<FileColumnsResponse>> {
    let request: FileQueryRequest = read(body)?;
    let query = statement(&state, &headers, &request).await?;
    match ask(&state, FileRequest::Columns(query)).await? {
        FileAnswer::Columns(columns) => {
            Ok(Json(FileColumnsResponse { columns: columns.into_iter().map(Into::into).collect(), status: "success" }))
        }
        _ => Err(unexpected()),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
