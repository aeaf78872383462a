//! Runs as Stream resources: made here, carried out by the controller.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::config::{StreamConfig, StreamSpec, check_supported};
use millrace_core::id::{ConfigId, RunId, StreamId};
use millrace_core::orchestrator::Orchestrator;
use millrace_core::plan::Plan;
use millrace_core::stats::StatsReport;
use millrace_core::store::ConfigStore as _;
use millrace_core::stream::{Stream, StreamState};
use millrace_core::{Error, Kind, Result};
use millrace_crds::DesiredState;
use millrace_worker::convert::{ConvertTask, plan, preflight};
use millrace_worker::progress::Progress;

use crate::store::ClusterStore;

/// How long a call waits for what it asked to be seen in the run's state.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs of one namespace.
#[derive(Clone)]
pub struct ClusterOrchestrator(ClusterStore);

impl ClusterOrchestrator {
    /// Runs of a store's namespace.
    pub fn new(store: ClusterStore) -> Self {
        Self(store)
    }

    async fn task(&self, stream: &StreamId, config: &ConfigId, spec: &StreamSpec) -> Result<ConvertTask> {
        let mut sources = Vec::new();
        for (index, source) in spec.source.connections.iter().enumerate() {
            let found = self.0.connection(&source.connection_id).await;
            sources.push(found.map_err(|error| error.field(format!("source.connections[{index}].connectionId")))?);
        }
        let target = self.0.connection(&spec.target.id).await.map_err(|error| error.field("target.id"))?;
        Ok(ConvertTask { stream: stream.clone(), config: config.clone(), spec: spec.clone(), sources, target })
    }

    async fn start_config(&self, config: &StreamConfig, by: Option<&str>) -> Result<Stream> {
        check_supported(&config.spec).map_err(Error::first_of)?;
        self.undeclared(&config.id).await?;
        // Databases are not asked in vain.
        self.0.open_gate(&config.id).await?;
        let stream = Stream {
            id: StreamId::mint(),
            run_id: RunId::mint(),
            config_id: config.id.clone(),
            spec: config.spec.clone(),
            state: StreamState::Ready,
            reason: None,
            started_at: chrono::Utc::now().timestamp_millis(),
            ended_at: None,
            rows_written: 0,
            rows_failed: 0,
            bytes: 0,
            error: None,
            started_by: by.map(str::to_owned),
            stats: None,
        };
        preflight(&self.task(&stream.id, &config.id, &config.spec).await?).await?;
        self.0.create_stream(&stream).await?;
        Ok(stream)
    }

    /// Where the definition says what its streams do, nobody else may.
    async fn undeclared(&self, config: &ConfigId) -> Result<()> {
        if self.0.is_declarative(config).await? {
            let text = "the definition sets `state` and owns the life of its streams; change it there, or remove it";
            return Err(Error::new(Kind::Conflict, text).field("state").with("reason", "MANAGED_DECLARATIVELY"));
        }
        Ok(())
    }

    async fn wish(&self, id: &StreamId, desired: DesiredState, is_seen: impl Fn(StreamState) -> bool) -> Result<Stream> {
        let stream = self.0.stream_now(id).await?;
        if stream.state.is_terminal() {
            return match desired {
                DesiredState::Stopped => Ok(stream),
                _ => Err(Error::new(Kind::Conflict, format!("the stream has ended as {}", stream.state.as_str()))
                    .field("stream_state")
                    .with("state", stream.state.as_str())),
            };
        }
        self.undeclared(&stream.config_id).await?;
        self.0.want(id, desired).await?;
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let stream = self.0.stream(id).await?;
            // What takes longer is seen later; it is asked for.
            if is_seen(stream.state) || stream.state.is_terminal() || tokio::time::Instant::now() > end {
                return Ok(stream);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Orchestrator for ClusterOrchestrator {
    fn plan<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<Plan>> {
        async move { plan(&self.task(&StreamId::mint(), &config.id, &config.spec).await?).await }.boxed()
    }

    fn start<'a>(&'a self, config: &'a StreamConfig, by: Option<&'a str>) -> BoxFuture<'a, Result<Stream>> {
        self.start_config(config, by).boxed()
    }

    fn pause<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>> {
        self.wish(id, DesiredState::Paused, |state| state == StreamState::Paused).boxed()
    }

    fn resume<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>> {
        self.wish(id, DesiredState::Running, |state| state == StreamState::Running).boxed()
    }

    fn stop<'a>(&'a self, id: &'a StreamId, _: bool) -> BoxFuture<'a, Result<Stream>> {
        self.wish(id, DesiredState::Stopped, StreamState::is_terminal).boxed()
    }

    fn stats<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(Stream, StatsReport)>> {
        async move {
            let stream = self.0.stream(id).await?;
            let report = stream.stats.clone().unwrap_or_else(|| counted(&stream));
            Ok((stream, report))
        }
        .boxed()
    }
}

/// What the resource says of a run of which NATS knows nothing any more.
fn counted(stream: &Stream) -> StatsReport {
    let mut report = Progress::new(stream.started_at).report(false);
    (report.target.rows, report.target.bytes, report.target.failed) = (stream.rows_written, stream.bytes, stream.rows_failed);
    (report.source.rows, report.source.bytes) = (stream.rows_written, stream.bytes);
    (report.target.state, report.source.state) = (stream.state, stream.state);
    report
}
