//! Runs as tasks of this process.
//!
//! ```text
//!  start: supported? ─▶ gate free? ─▶ preflight (logins, catalog, plan, target) ─▶ store the stream (the gate) ─▶ spawn the worker
//!  worker ends ─▶ last counters and terminal state are stored
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::bus::{Body, Bus, Event, Level, Side};
use millrace_core::config::{StreamConfig, StreamSpec, check_supported};
use millrace_core::entitlement::{Entitlement, Usage};
use millrace_core::id::{ConfigId, RunId, StreamId};
use millrace_core::orchestrator::Orchestrator;
use millrace_core::plan::Plan;
use millrace_core::stats::StatsReport;
use millrace_core::store::ConfigStore;
use millrace_core::stream::{Reason, Stream, StreamState};
use millrace_core::{Error, Kind, Result};
use millrace_worker::control::{Control, Desired};
use millrace_worker::convert::{ConvertTask, Outcome, plan, preflight, run};
use millrace_worker::metrics::task_span;
use millrace_worker::progress::Progress;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

/// How long an orderly stop may take before the worker is cut off.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How often a running stream's counters are stored.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Runs streams in this process.
#[derive(Clone)]
pub struct LocalOrchestrator(Arc<Inner>);

struct Inner {
    store: Arc<dyn ConfigStore>,
    bus: Arc<dyn Bus>,
    meter: Arc<dyn Entitlement>,
    running: Mutex<HashMap<StreamId, Running>>,
    /// Held from reading a stream's row to writing it again, so that counters and wishes do not undo each other.
    rows: tokio::sync::Mutex<()>,
}

/// A stream whose worker is alive.
#[derive(Clone)]
struct Running {
    desired: Arc<watch::Sender<Desired>>,
    progress: Arc<Progress>,
    /// Becomes true once the terminal state is stored.
    ended: watch::Receiver<bool>,
    abort: AbortHandle,
}

impl LocalOrchestrator {
    /// An orchestrator over a store and a bus; nothing runs yet.
    pub fn new(store: Arc<dyn ConfigStore>, bus: Arc<dyn Bus>, meter: Arc<dyn Entitlement>) -> Self {
        Self(Arc::new(Inner { store, bus, meter, running: Mutex::default(), rows: tokio::sync::Mutex::default() }))
    }

    /// Cuts all workers off without ending their streams: the next process finds them interrupted and can resume them.
    pub async fn shut_down(&self) {
        let running: Vec<(StreamId, Running)> = self.0.running().drain().collect();
        for (id, run) in running {
            run.abort.abort();
            let _row = self.0.rows.lock().await;
            if let Ok(mut stream) = self.0.store.stream(&id).await {
                take_counters(&mut stream, run.progress.report(false));
                stream.state = StreamState::Paused;
                stream.reason = Some(Reason::Interrupted);
                if let Err(error) = self.0.store.update_stream(&stream).await {
                    tracing::warn!(stream = %id, error = %error.chain(), "the interrupted stream could not be stored");
                }
            }
        }
    }

    async fn start_config(&self, config: &StreamConfig, by: Option<&str>) -> Result<Stream> {
        let inner = &self.0;
        check_supported(&config.spec).map_err(Error::first_of)?;
        let active: Vec<StreamId> = inner.active().await?;
        if !active.is_empty() {
            return Err(gate_closed(&active));
        }
        let stream = Stream {
            id: StreamId::mint(),
            run_id: RunId::mint(),
            config_id: config.id.clone(),
            spec: config.spec.clone(),
            state: StreamState::Running,
            reason: None,
            started_at: now_ms(),
            ended_at: None,
            rows_written: 0,
            rows_failed: 0,
            bytes: 0,
            error: None,
            started_by: by.map(str::to_owned),
            stats: None,
        };
        let task = inner.task(&stream.id, &config.id, &config.spec).await?;
        preflight(&task).await?;
        inner.store.create_stream(&stream).await?;
        self.spawn(task, stream.started_at);
        Ok(stream)
    }

    fn spawn(&self, task: ConvertTask, started_at: i64) {
        let id = task.stream.clone();
        let (desired, control) = Control::channel();
        let progress = Arc::new(Progress::new(started_at));
        let (ended, has_ended) = watch::channel(false);
        let inner = self.0.clone();
        // The lock is held until the entry is there, so that the task's end finds it.
        let mut running = self.0.running();
        let span = task_span(millrace_service::traceparent().as_deref(), "convert", Some(&task.stream), None);
        let work = tokio::spawn(run(task, progress.clone(), control, inner.bus.clone()).instrument(span));
        let abort = work.abort_handle();
        tokio::spawn({
            let (id, progress) = (id.clone(), progress.clone());
            async move {
                inner.watch(&id, work, &progress).await;
                inner.running().remove(&id);
                let _ = ended.send(true);
            }
        });
        running.insert(id, Running { desired: Arc::new(desired), progress, ended: has_ended, abort });
    }

    async fn wish(&self, id: &StreamId, wish: Desired, state: StreamState) -> Result<Stream> {
        let _row = self.0.rows.lock().await;
        let stream = self.0.store.stream(id).await?;
        if stream.state.is_terminal() {
            return Err(Error::new(Kind::Conflict, format!("the stream has ended as {}", stream.state.as_str()))
                .field("stream_state")
                .with("state", stream.state.as_str()));
        }
        let running = self.0.running().get(id).cloned();
        match (running, wish) {
            (Some(running), _) => {
                let _ = running.desired.send(wish);
            }
            // Nobody works on it: it was interrupted. Going on means starting its worker again.
            (None, Desired::Run) => {
                let task = self.0.task(&stream.id, &stream.config_id, &stream.spec).await?;
                preflight(&task).await?;
                self.spawn(task, now_ms());
            }
            (None, _) => return Ok(stream),
        }
        let reason = (state == StreamState::Paused).then_some(Reason::UserRequest);
        let stored = self.0.store.update_stream(&Stream { state, reason, ..stream }).await?;
        self.0.announce(&stored);
        Ok(stored)
    }

    async fn stop_stream(&self, id: &StreamId, force: bool) -> Result<Stream> {
        let stream = self.0.store.stream(id).await?;
        if stream.state.is_terminal() {
            return Ok(stream);
        }
        let running = self.0.running().get(id).cloned();
        if let Some(mut running) = running {
            let _ = running.desired.send(Desired::Stop);
            let patience = if force { Duration::ZERO } else { STOP_PATIENCE };
            if tokio::time::timeout(patience, running.ended.wait_for(|ended| *ended)).await.is_err() {
                running.abort.abort();
            }
        }
        let _row = self.0.rows.lock().await;
        let mut stream = self.0.store.stream(id).await?;
        stream.state = stream.state.after(StreamState::Stopped);
        stream.reason = None;
        stream.ended_at.get_or_insert(now_ms());
        let stored = self.0.store.update_stream(&stream).await?;
        self.0.announce(&stored);
        Ok(stored)
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, HashMap<StreamId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn active(&self) -> Result<Vec<StreamId>> {
        let streams = self.store.streams(None).await?;
        Ok(streams.into_iter().filter(|stream| !stream.state.is_terminal()).map(|stream| stream.id).collect())
    }

    async fn task(&self, stream: &StreamId, config: &ConfigId, spec: &StreamSpec) -> Result<ConvertTask> {
        let mut sources = Vec::new();
        for (index, source) in spec.source.connections.iter().enumerate() {
            let found = self.store.connection(&source.connection_id).await;
            sources.push(found.map_err(|error| error.field(format!("source.connections[{index}].connectionId")))?);
        }
        Ok(ConvertTask {
            stream: stream.clone(),
            config: config.clone(),
            spec: spec.clone(),
            sources,
            target: self.store.connection(&spec.target.id).await.map_err(|error| error.field("target.id"))?,
        })
    }

    /// Stores counters while the worker runs and its outcome when it ends.
    async fn watch(&self, id: &StreamId, mut work: tokio::task::JoinHandle<Outcome>, progress: &Progress) {
        let mut saves = tokio::time::interval(SAVE_EVERY);
        saves.tick().await;
        let outcome = loop {
            tokio::select! {
                outcome = &mut work => break outcome,
                _ = saves.tick() => self.save(id, progress, None).await,
            }
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // Whoever aborted it stores the state.
            Err(error) if error.is_cancelled() => return,
            Err(panic) => Outcome { state: StreamState::Failed, error: Some(Error::internal("the worker broke down").because(panic)) },
        };
        self.save(id, progress, Some(outcome)).await;
    }

    async fn save(&self, id: &StreamId, progress: &Progress, outcome: Option<Outcome>) {
        let is_end = outcome.is_some();
        let _row = self.rows.lock().await;
        let mut stream = match self.store.stream(id).await {
            Ok(stream) => stream,
            Err(error) => return tracing::error!(stream = %id, error = %error.chain(), "a stream could not be read"),
        };
        let counted = stream.bytes;
        take_counters(&mut stream, progress.report(false));
        self.meter(&stream, counted).await;
        if let Some(outcome) = outcome {
            stream.state = outcome.state;
            stream.reason = None;
            stream.ended_at = Some(now_ms());
            stream.error = outcome.error.map(|error| error.chain());
        }
        match self.store.update_stream(&stream).await {
            Ok(stored) if is_end => self.announce(&stored),
            Ok(_) => {}
            Err(error) => tracing::error!(stream = %id, error = %error.chain(), "a stream's state could not be stored"),
        }
    }

    /// Counts what the run has moved since its counters were stored, and warns its owner.
    async fn meter(&self, stream: &Stream, counted: u64) {
        let (Some(key), moved) = (&stream.started_by, stream.bytes.saturating_sub(counted)) else { return };
        if moved == 0 {
            return;
        }
        if let Some(warning) = self.meter.record(key, Usage::ConvertBytes(moved)).await {
            self.bus.publish(Event {
                at: now_ms(),
                level: Level::Warn,
                side: Side::Api,
                stream: Some(stream.id.clone()),
                node: None,
                message: format!("{} % of the evaluation is used", warning.percent),
                body: Body::Evaluation(warning),
            });
        }
    }

    fn announce(&self, stream: &Stream) {
        let level = if stream.state == StreamState::Failed { Level::Error } else { Level::Info };
        self.bus.publish(Event {
            at: now_ms(),
            level,
            side: Side::Api,
            stream: Some(stream.id.clone()),
            node: None,
            message: format!("stream is {}", stream.state.as_str()),
            body: Body::State { state: stream.state },
        });
    }
}

impl Orchestrator for LocalOrchestrator {
    fn plan<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<Plan>> {
        async move {
            let task = self.0.task(&StreamId::mint(), &config.id, &config.spec).await?;
            plan(&task).await
        }
        .boxed()
    }

    fn start<'a>(&'a self, config: &'a StreamConfig, by: Option<&'a str>) -> BoxFuture<'a, Result<Stream>> {
        self.start_config(config, by).boxed()
    }

    fn pause<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>> {
        self.wish(id, Desired::Pause, StreamState::Paused).boxed()
    }

    fn resume<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>> {
        self.wish(id, Desired::Run, StreamState::Running).boxed()
    }

    fn stop<'a>(&'a self, id: &'a StreamId, force: bool) -> BoxFuture<'a, Result<Stream>> {
        self.stop_stream(id, force).boxed()
    }

    fn stats<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(Stream, StatsReport)>> {
        async move {
            let mut stream = self.0.store.stream(id).await?;
            let live = self.0.running().get(id).map(|running| running.progress.report(false));
            let report = match live {
                Some(report) if !stream.state.is_terminal() => {
                    take_counters(&mut stream, report.clone());
                    report
                }
                _ => stream.stats.clone().unwrap_or_else(|| Progress::new(stream.started_at).report(false)),
            };
            Ok((stream, report))
        }
        .boxed()
    }
}

fn take_counters(stream: &mut Stream, report: StatsReport) {
    stream.rows_written = report.target.rows;
    stream.rows_failed = report.target.failed;
    stream.bytes = report.target.bytes;
    stream.stats = Some(report);
}

fn gate_closed(active: &[StreamId]) -> Error {
    let error = Error::new(Kind::Conflict, "another stream is active; stop it first").field("stream_state");
    active.iter().fold(error, |error, id| error.with("stream", id.as_str()))
}

pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
