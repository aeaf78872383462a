//! Statements of users, and the columns of their results.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::StreamExt as _;
use millrace_core::explore::{READ_ONLY, RunRequest};
use millrace_core::json_rows::Numbers;
use millrace_core::{Error, Kind};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::structure::ASKS;
use crate::audit::Trail;
use crate::catalogs;
use crate::errors::{ApiError, ApiResult, Code};
use crate::explorers::{Lease, within};
use crate::extract::{JsonBody, read};
use crate::folders;
use crate::place::Place;
use crate::results::Results;
use crate::route::{Effect, Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::sql::{ColumnsRequest, ColumnsResponse, DEFAULT_ROWS, QueryResult, SqlRequest};

const TAG: &str = "sql";
/// How long statements may take, and their results may be on their way.
const DEADLINE: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(30);
/// Pieces of a result that wait for a slow reader.
const AHEAD: usize = 4;

const FAILS: &[Code] = &[
    Code::InvalidJson,
    Code::BodyTooLarge,
    Code::Conflict,
    Code::StatementRefused,
    Code::ObjectMissing,
    Code::PermissionDenied,
    Code::ConstraintViolated,
    Code::ValueRefused,
    Code::Contention,
];

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(ASKS).fails(FAILS);
    let runs = |path, id, summary| op("post", path, id, summary).effect(Effect::Runs);
    Routes::default()
        .add(
            runs("/connections/{id}/query", "queryServer", "Run statements at the server, such as CREATE DATABASE")
                .takes::<SqlRequest>()
                .example(json!({"query": "SELECT 1 AS one"}))
                .answers::<QueryResult>(200),
            post(at_server),
        )
        .add(
            runs("/connections/{id}/databases/{db}/query", "queryDatabase", "Run statements in a database")
                .takes::<SqlRequest>()
                .example(json!({"query": "SELECT 1 AS one; SELECT 2 AS two"}))
                .answers::<QueryResult>(200),
            post(in_database),
        )
        .add(
            op(
                "post",
                "/connections/{id}/databases/{db}/query/columns",
                "describeQuery",
                "The columns of a statement's result, without running it",
            )
            .reads()
            .takes::<ColumnsRequest>()
            .example(json!({"query": "SELECT 1 AS one"}))
            .answers::<ColumnsResponse>(200),
            post(columns),
        )
}

async fn columns(State(state): State<AppState>, place: Place, JsonBody(body): JsonBody) -> ApiResult<Json<ColumnsResponse>> {
    let request: ColumnsRequest = read(body)?;
    check(&request.query)?;
    if folders::is_folder(&place) {
        return Ok(Json(ColumnsResponse { columns: folders::columns(&state, &place, &request.query).await?, status: "success" }));
    }
    let mut lease = place.lease(&state).await?;
    let columns = within(SHORT, lease.explorer_for_user()?.columns(&request.query)).await;
    Ok(Json(ColumnsResponse { columns: lease.settle(columns)?, status: "success" }))
}

async fn at_server(state: State<AppState>, place: Place, trail: Trail, body: JsonBody) -> ApiResult<Response> {
    let lease = place.lease_at_server(&state).await?;
    run(state.0, place, trail, lease, body).await
}

async fn in_database(state: State<AppState>, place: Place, trail: Trail, body: JsonBody) -> ApiResult<Response> {
    let lease = place.lease(&state).await?;
    run(state.0, place, trail, lease, body).await
}

pub(crate) fn check(sql: &str) -> ApiResult<()> {
    if sql.trim().is_empty() {
        return Err(ApiError::invalid("query", "the statement is missing"));
    }
    if sql.contains('\0') {
        return Err(ApiError::invalid("query", "a statement holds no NUL byte"));
    }
    Ok(())
}

async fn run(state: AppState, place: Place, trail: Trail, lease: Lease, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: SqlRequest = read(body)?;
    check(&request.query)?;
    let numbers = crate::wire::data::numbers(request.numbers.as_deref())?;
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let results = Results::new(numbers, sender.clone());
    let running = Running { state, place, trail, request, results, reader: Some(sender), deadline: DEADLINE };
    // In a task of its own: it goes on while the response is on its way, and ends when nobody reads it any more.
    let task = tokio::spawn(running.run(lease));
    match receiver.recv().await {
        Some(first) => Ok(streamed(first, receiver, task)),
        None => match task.await {
            Ok(Err(failed)) => Ok(failed.into_response()),
            _ => Err(ApiError::new(Code::Internal, "the statement ended without a result")),
        },
    }
}

/// Runs one statement in a transaction that cannot write, and answers its whole result. Dropping the future ends the statement at its server.
///
/// Errors: those of the statement; [`Code::Exhausted`] for a result of more than `most_bytes`; [`Code::TimedOut`].
pub(crate) async fn read_only(state: &AppState, place: Place, reading: Reading<'_>) -> ApiResult<QueryResult> {
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let request =
        SqlRequest { query: reading.sql.to_owned(), max_rows: Some(reading.max_rows), read_only: true, numbers: None, tab_id: None };
    let lease = place.lease(state).await?;
    let results = Results::new(Numbers::default(), sender);
    let running =
        Running { state: state.clone(), place, trail: Trail::default(), request, results, reader: None, deadline: reading.deadline };
    let gather = async {
        let mut text = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            text.extend_from_slice(&chunk);
            if text.len() > reading.most_bytes {
                let error = format!("the result is larger than {} KiB; select fewer columns or rows", reading.most_bytes >> 10);
                return Err(ApiError::new(Code::Exhausted, error));
            }
        }
        Ok(text)
    };
    let ran = async { running.run(lease).await.map_err(|failed| failed.error) };
    let ((), text) = tokio::try_join!(ran, gather)?;
    serde_json::from_slice(&text).map_err(|error| Error::internal("a result has another form").because(error).into())
}

/// A statement that only reads, and its bounds.
pub(crate) struct Reading<'a> {
    pub(crate) sql: &'a str,
    pub(crate) max_rows: u64,
    pub(crate) most_bytes: usize,
    pub(crate) deadline: Duration,
}

/// Statements on their way.
struct Running {
    state: AppState,
    place: Place,
    trail: Trail,
    request: SqlRequest,
    results: Results,
    /// Closed when the client goes away, which ends the statement and not what is recorded of it.
    reader: Option<mpsc::Sender<Bytes>>,
    deadline: Duration,
}

/// Why statements ended early.
struct Failed {
    error: ApiError,
    /// The results of those before, as JSON.
    earlier: Option<String>,
}

impl Running {
    async fn run(mut self, mut lease: Lease) -> Result<(), Failed> {
        let wanted = RunRequest {
            sql: std::mem::take(&mut self.request.query),
            max_rows: self.request.max_rows.unwrap_or(DEFAULT_ROWS),
            is_read_only: self.request.read_only || self.state.policy.is_read_only,
        };
        let started = Instant::now();
        let reader = self.reader.take();
        let ran = match lease.explorer_for_user() {
            Ok(explorer) => tokio::select! {
                ran = within(self.deadline, explorer.run(&wanted, &mut self.results)) => ran,
                () = left(reader.as_ref()) => Err(Error::new(Kind::Cancelled, "the client has gone away")),
            },
            Err(error) => Err(error),
        };
        drop(reader);
        let ran = lease.settle(ran);
        // What is recorded is the text as it came. What they left behind, or are in the middle of, ends before anything is written down.
        lease.statements();
        lease.end().await;
        let duration = started.elapsed().as_millis() as u64;
        // What was defined is defined, even if a later statement failed.
        if !self.results.affected().is_empty() {
            catalogs::changed(&self.state, self.place.connection.id.as_str());
        }
        let outcome = ran.as_ref().map(|()| self.results.row_count()).map_err(|error| error.message().to_owned());
        self.record(&wanted.sql, duration, outcome).await;
        self.trail.statements(self.results.commands(), &sql::without_literals(self.place.connection.engine, &wanted.sql));
        self.trail.rows(self.results.row_count());
        let finished = match ran {
            Ok(()) => self.results.finish(duration).await,
            Err(error) => Err(error),
        };
        finished.map_err(|error| {
            let error = if self.state.policy.is_read_only { refused_write(error) } else { error.into() };
            // A client that went away was answered nothing, and its request counts as abandoned.
            if error.code() != Code::Cancelled {
                self.trail.failed(error.code());
            }
            Failed { earlier: self.results.earlier(), error }
        })
    }

    async fn record(&mut self, sql: &str, duration: u64, outcome: Result<u64, String>) {
        let is_reading =
            |command: &String| matches!(command.as_str(), "SELECT" | "SHOW" | "EXPLAIN" | "DESCRIBE" | "WITH" | "VALUES" | "TABLE");
        let purpose = if !self.results.affected().is_empty() {
            Purpose::SchemaChange
        } else if self.results.commands().iter().all(is_reading) {
            Purpose::Data
        } else {
            Purpose::Dml
        };
        let ran = Ran {
            connection: self.place.connection.id.as_str(),
            database: self.place.database.as_deref().unwrap_or_default(),
            schema: None,
            table: None,
            tab: self.request.tab_id.as_deref(),
            purpose,
            sql,
        };
        sql::record_at(&self.state, self.place.connection.engine, ran, duration, outcome).await;
    }
}

/// Waits until the client has gone away.
async fn left(reader: Option<&mpsc::Sender<Bytes>>) {
    match reader {
        Some(reader) => reader.closed().await,
        None => std::future::pending().await,
    }
}

/// In read-only mode, the engine's refusal of a write is the server's own.
fn refused_write(error: Error) -> ApiError {
    let is_write = error.detail("reason") == Some(READ_ONLY)
        // read_only_sql_transaction; ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
        || error.detail("sqlstate") == Some("25006")
        || error.detail("errno") == Some("1792");
    if !is_write {
        return error.into();
    }
    let statement = error.detail("statement").map(str::to_owned);
    let refused = ApiError::new(Code::ReadOnly, format!("this server is read-only: {}", error.message()));
    statement.into_iter().fold(refused, |refused, number| refused.detail("statement", number))
}

impl Failed {
    fn into_response(self) -> Response {
        let (status, body) = self.error.into_parts();
        let mut body = json!(body);
        if let Some(earlier) = self.earlier.and_then(|text| serde_json::from_str::<Vec<serde_json::Value>>(&text).ok())
            && !earlier.is_empty()
        {
            body["results"] = earlier.into();
        }
        (status, Json(body)).into_response()
    }
}

/// A body that follows the result; it breaks off if the statement fails, so that no client takes a part for the whole.
fn streamed(first: Bytes, receiver: mpsc::Receiver<Bytes>, task: JoinHandle<Result<(), Failed>>) -> Response {
    let rest = futures::stream::unfold(Some((receiver, task)), |state| async {
        let (mut receiver, task) = state?;
        if let Some(chunk) = receiver.recv().await {
            return Some((Ok(chunk), Some((receiver, task))));
        }
        match task.await {
            Ok(Ok(())) => None,
            Ok(Err(failed)) => {
                let (_, body) = failed.error.into_parts();
                tracing::warn!(code = %body.code, "a result broke off");
                Some((Err(std::io::Error::other("the statement failed")), None))
            }
            Err(_) => Some((Err(std::io::Error::other("the statement broke off")), None)),
        }
    });
    let chunks = futures::stream::once(async move { Ok(first) }).chain(rest);
    ([(CONTENT_TYPE, "application/json")], Body::from_stream(chunks)).into_response()
}
