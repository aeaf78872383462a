//! The server's side: admission, children, deadlines.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Engine, Ssl};
use millrace_core::federation::{AliasedSource, FederatedQuery, QueryOutcome, QueryTier};
use millrace_core::files::{FileAnswer, FileRequest};
use millrace_core::objects::{OpenAccess, SettingNames};
use millrace_core::{Error, Kind, Result};
use svix_ksuid::{Ksuid, KsuidLike as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::cancel::cancel;
use crate::metrics::{Counted, Statement};
use crate::wire::{Answer, Errand, FilesErrand, Hosts, Request, Source, SourceEngine, StoreSource, Tls, Work};

/// A warm child that nobody needed for so long is let go.
const WARM_FOR: Duration = Duration::from_secs(60);

/// Bounds of one query and of all together.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    /// Queries at once; others wait until their deadline.
    pub concurrent: usize,
    /// From request to last row.
    pub deadline: Duration,
    /// Rows of one answer; more is an error, never a cut.
    pub max_rows: u64,
    /// Memory of one child's engine, MiB.
    pub memory_mb: u64,
    /// Threads of one child's engine.
    pub threads: u32,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self { concurrent: 4, deadline: Duration::from_secs(120), max_rows: 10_000, memory_mb: 1024, threads: 2 }
    }
}

/// Runs each statement in a child process.
pub struct ChildQueryTier {
    program: PathBuf,
    limits: QueryLimits,
    admission: Semaphore,
    warm: Arc<Mutex<Option<WarmChild>>>,
}

struct WarmChild {
    child: EngineChild,
    since: Instant,
}

/// A child process, counted while there is a handle to it.
struct EngineChild {
    process: Child,
    _counted: Counted,
}

impl ChildQueryTier {
    /// Children are `program query-one`.
    pub fn new(program: PathBuf, limits: QueryLimits) -> Self {
        Self { program, limits, admission: Semaphore::new(limits.concurrent), warm: Arc::default() }
    }

    /// Children are this program itself.
    pub fn from_current_program(limits: QueryLimits) -> std::io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?, limits))
    }

    async fn run_query(&self, query: FederatedQuery, cancelled: CancellationToken) -> Result<QueryOutcome> {
        let started = Instant::now();
        let request = |tag: String, temp_dir: String| self.request(&query, tag, temp_dir);
        match self.in_child(query.sources.clone(), request, cancelled).await? {
            Answer::Rows { columns, rows, is_cut } => {
                Ok(QueryOutcome { columns, rows, duration_ms: started.elapsed().as_millis() as u64, is_cut })
            }
            answer => Err(unexpected(answer)),
        }
    }

    async fn run_files(&self, mut request: FileRequest, cancelled: CancellationToken) -> Result<FileAnswer> {
        let access = request.take_access().as_ref().map(OpenAccess::from);
        let errand = |_: String, temp_dir: String| {
            let QueryLimits { memory_mb, threads, max_rows, .. } = self.limits;
            line(Work::Files(Box::new(FilesErrand { request, access, memory_mb, threads, max_rows, temp_dir })))
        };
        match self.in_child(Vec::new(), errand, cancelled).await? {
            Answer::Files(answer) => Ok(*answer),
            answer => Err(unexpected(answer)),
        }
    }

    /// Waits for its turn, hands the errand to a child and waits for the answer, within the deadline.
    async fn in_child(
        &self,
        sources: Vec<AliasedSource>,
        errand: impl FnOnce(String, String) -> Result<String>,
        cancelled: CancellationToken,
    ) -> Result<Answer> {
        let deadline = tokio::time::sleep(self.limits.deadline);
        tokio::pin!(deadline);
        let too_late = || Error::new(Kind::TimedOut, format!("the query took longer than {} s", self.limits.deadline.as_secs()));
        let queued = Counted::queued();
        let _permit = tokio::select! {
            permit = self.admission.acquire() => permit.map_err(|_| Error::internal("the query tier is closed"))?,
            () = &mut deadline => return Err(Error::new(Kind::ServerExhausted, "too many queries at once; try again")),
            () = cancelled.cancelled() => return Err(ended()),
        };
        drop(queued);
        let _active = Counted::active();
        let tag = format!("millrace_{}", Ksuid::new(None::<std::time::SystemTime>, None));
        let mut running = Running { child: Some(self.child()?), sources, tag: tag.clone() };
        self.warm_up();
        let temp = tempfile::tempdir().map_err(|error| Error::internal("no temporary directory for the query").because(error))?;
        let request = errand(tag, temp.path().display().to_string())?;
        let Some(child) = running.child.as_mut() else { return Err(Error::internal("a query without a child")) };
        let answer = tokio::select! {
            answer = converse(&mut child.process, &request) => answer?,
            () = &mut deadline => { running.cancel().await; return Err(too_late()) }
            () = cancelled.cancelled() => { running.cancel().await; return Err(ended()) }
        };
        running.child = None;
        Ok(answer)
    }

    fn request(&self, query: &FederatedQuery, tag: String, temp_dir: String) -> Result<String> {
        let request = Request {
            sql: query.sql.clone(),
            sources: query.sources.iter().filter(|source| source.connection.s3().is_none()).map(source).collect::<Result<_>>()?,
            stores: query.sources.iter().filter_map(|source| store(source, &query.sql)).collect::<Result<_>>()?,
            tag,
            memory_mb: self.limits.memory_mb,
            threads: self.limits.threads,
            max_rows: self.limits.max_rows,
            temp_dir,
            want: query.want,
        };
        line(Work::Statement(request))
    }

    /// A child that is warm, else a new one.
    fn child(&self) -> Result<EngineChild> {
        let warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut warm) = warm
            && warm.since.elapsed() < WARM_FOR
            && matches!(warm.child.process.try_wait(), Ok(None))
        {
            return Ok(warm.child);
        }
        self.spawn()
    }

    fn spawn(&self) -> Result<EngineChild> {
        let process = Command::new(&self.program)
            .arg("query-one")
            // The engine's HTTP client would go past the proxy that holds the rules about hosts.
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::internal("the query engine cannot be started").because(error))?;
        Ok(EngineChild { process, _counted: Counted::child() })
    }

    /// Keeps one child ready for the next query, for a while.
    fn warm_up(&self) {
        let Ok(child) = self.spawn() else { return };
        let since = Instant::now();
        *self.warm.lock().unwrap_or_else(PoisonError::into_inner) = Some(WarmChild { child, since });
        let warm = self.warm.clone();
        tokio::spawn(async move {
            tokio::time::sleep(WARM_FOR).await;
            let mut warm = warm.lock().unwrap_or_else(PoisonError::into_inner);
            if warm.as_ref().is_some_and(|warm| warm.since == since) {
                *warm = None;
            }
        });
    }
}

impl QueryTier for ChildQueryTier {
    fn run(&self, query: FederatedQuery, cancel: CancellationToken) -> BoxFuture<'_, Result<QueryOutcome>> {
        let span = tracing::info_span!("statement", sources = query.sources.len(), error = tracing::field::Empty);
        let told = span.clone();
        async move {
            let statement = Statement::begin();
            let result = self.run_query(query, cancel).await;
            statement.end(&result);
            if let Err(error) = &result {
                told.record("error", tracing::field::debug(error.kind()));
            }
            result
        }
        .instrument(span)
        .boxed()
    }

    fn files(&self, request: FileRequest, cancel: CancellationToken) -> BoxFuture<'_, Result<FileAnswer>> {
        self.run_files(request, cancel).instrument(tracing::info_span!("files")).boxed()
    }
}

/// The errand as the one line that a child reads.
fn line(work: Work) -> Result<String> {
    let line = serde_json::to_string(&Errand { hosts: Hosts::of_process(), work })
        .map_err(|error| Error::internal("a query has no text form").because(error))?;
    Ok(line + "\n")
}

/// What an answer means that is not the one that was asked for.
fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::Failed { kind, message } => kind.error(message),
        _ => Error::internal("the query engine answered something else"),
    }
}

/// A query under way. Dropped before its end (the client went away), it is cancelled at its backends and its child killed.
struct Running {
    child: Option<EngineChild>,
    sources: Vec<AliasedSource>,
    tag: String,
}

impl Running {
    async fn cancel(mut self) {
        if let Some(mut child) = self.child.take() {
            cancel(&self.sources, &self.tag, child.process.id()).await;
            let _ = child.process.kill().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let (sources, tag) = (std::mem::take(&mut self.sources), std::mem::take(&mut self.tag));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                cancel(&sources, &tag, child.process.id()).await;
                let _ = child.process.kill().await;
            });
        }
    }
}

async fn converse(child: &mut Child, request: &str) -> Result<Answer> {
    let crashed = || Error::internal("the query engine broke down; only this query is lost");
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else { return Err(crashed()) };
    stdin.write_all(request.as_bytes()).await.map_err(|_| crashed())?;
    drop(stdin);
    let mut answer = Vec::new();
    stdout.read_to_end(&mut answer).await.map_err(|_| crashed())?;
    serde_json::from_slice(&answer).map_err(|_| crashed())
}

fn source(source: &AliasedSource) -> Result<Source> {
    let unsupported = || {
        let kind = source.connection.engine.as_str();
        Error::not_supported("connections", format!("`{}` is of type `{kind}`, which federated queries do not support yet", source.alias))
    };
    let spec = source.connection.database().ok_or_else(unsupported)?;
    let engine = match source.connection.engine {
        Engine::MySql => SourceEngine::MySql,
        Engine::PostgreSql => SourceEngine::Postgres,
        _ => return Err(unsupported()),
    };
    // Attached to one database, a MySQL source would hide the others; `alias.database.table` names them all.
    let database = match engine {
        SourceEngine::MySql => source.database.clone(),
        SourceEngine::Postgres => source.database.clone().or_else(|| spec.database.clone()),
    };
    Ok(Source {
        alias: source.alias.clone(),
        engine,
        host: spec.host.clone(),
        port: spec.port,
        user: spec.username.clone(),
        password: spec.password.as_ref().map_or(String::new(), |password| password.expose().to_owned()),
        database,
        tls: source.connection.ssl.as_ref().map(tls).transpose()?,
    })
}

/// An object store, if the statement names it; the others' credentials are nobody's business.
fn store(source: &AliasedSource, sql: &str) -> Option<Result<StoreSource>> {
    let spec = source.connection.s3()?;
    let is_named = sql.to_lowercase().contains(&format!("{}://", source.alias.to_lowercase()));
    is_named.then(|| {
        let access = millrace_connectors::s3::access(spec, SettingNames::Connection)?;
        Ok(StoreSource { alias: source.alias.clone(), access: (&access).into() })
    })
}

fn tls(ssl: &Ssl) -> Result<Tls> {
    let pem = |field, encoded: Option<&str>| encoded.map(|encoded| millrace_connectors::pem_text(field, encoded)).transpose();
    Ok(Tls {
        mode: ssl.mode,
        ca: pem("ssl.ca", ssl.ca.as_deref())?,
        certificate: pem("ssl.client_cert", ssl.client_cert.as_deref())?,
        key: pem("ssl.client_key", ssl.client_key.as_ref().map(millrace_core::Secret::expose))?,
    })
}

fn ended() -> Error {
    Error::new(Kind::Cancelled, "the query was cancelled")
}
