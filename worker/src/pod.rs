//! A worker as a process of its own: one task from a file, to its end.
//!
//! ```text
//!  task.json + secret files ─▶ run ─▶ events, counters ─▶ NATS (lost messages only delay what people see)
//!                               ▲
//!  commands (NATS) · SIGTERM ───┘        end ─▶ termination message + exit code
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use millrace_bus::{Command, Nats, NatsBus, NatsConfig, NatsWork};
use millrace_core::bus::Bus;
use millrace_core::connection::Connection;
use millrace_core::fleet::Seat;
use millrace_core::id::StreamId;
use millrace_core::stream::StreamState;
use millrace_core::task::{Exit, SecretFile, TASK_VERSION, TaskKind, TaskReport, TaskSpec};
use millrace_core::{Error, Kind, Result, Secret};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cleanup;
use crate::control::{Control, Desired};
use crate::convert::{ConvertTask, Outcome, Post, run as run_convert, run_in_fleet};
use crate::progress::Progress;

/// How often counters go out.
const STATS_EVERY: Duration = Duration::from_secs(1);
/// The number under which a run's counters go out: of a fleet, its leader speaks for all.
const SPEAKER: u32 = 0;
/// How long the end waits for NATS, if it is not there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(8);
/// How long the end waits for the last messages to leave.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);

/// What a worker's process is started with.
#[derive(Debug, Clone)]
pub struct PodConfig {
    /// The task, a JSON file.
    pub task: PathBuf,
    /// Which of the task's workers this is (`JOB_COMPLETION_INDEX`).
    pub index: u32,
    /// Where NATS is; none keeps the worker silent.
    pub nats: Option<(String, Option<Secret>)>,
    /// Where the report is written for Kubernetes.
    pub termination_log: PathBuf,
}

/// Carries the task out. The report is written and the exit code says what another try could do.
pub async fn run(config: PodConfig, shutdown: CancellationToken) -> Exit {
    let (report, exit) = match carry_out(&config, shutdown).await {
        Ok(done) => done,
        Err(error) => (failure(&error), Exit::of(error.kind())),
    };
    if let Some(error) = &report.error {
        tracing::error!(error, "the task failed");
    }
    if let Err(error) = tokio::fs::write(&config.termination_log, report.message()).await {
        tracing::warn!(%error, "the report could not be left for Kubernetes");
    }
    exit
}

async fn carry_out(config: &PodConfig, shutdown: CancellationToken) -> Result<(TaskReport, Exit)> {
    let text = tokio::fs::read_to_string(&config.task)
        .await
        .map_err(|error| Error::invalid("task", format!("`{}` cannot be read", config.task.display())).because(error))?;
    let task = TaskSpec::parse(&text)?;
    let connections = with_secrets(&task).await?;
    match task.kind {
        TaskKind::Probe => probe(connections).await,
        TaskKind::Cleanup { config, scope, abandoned } => {
            let summary = cleanup::run(&connections, &scope, &config, &abandoned).await?;
            Ok((TaskReport { state: StreamState::Finished, summary: Some(summary), ..empty() }, Exit::Done))
        }
        TaskKind::Convert { stream, config: id, spec, attempt, workers } => {
            let find = |id: &_| connections.iter().find(|connection: &&Connection| connection.id == *id).cloned();
            let missing = || Error::invalid("connections", "the task names a connection that it does not hold");
            let sources: Option<Vec<Connection>> = spec.source.connections.iter().map(|source| find(&source.connection_id)).collect();
            let target = find(&spec.target.id).ok_or_else(missing)?;
            let task_of = ConvertTask { stream, config: id, sources: sources.ok_or_else(missing)?, target, spec: *spec };
            let seat = (workers > 1).then_some(Seat { worker: config.index, workers, attempt });
            convert(config, &task.namespace, task_of, seat, shutdown).await
        }
    }
}

async fn with_secrets(task: &TaskSpec) -> Result<Vec<Connection>> {
    let mut connections = task.connections.clone();
    for SecretFile { connection, field, path } in &task.secrets {
        let secret = tokio::fs::read_to_string(Path::new(path)).await.map_err(|error| {
            Error::new(Kind::LoginRefused, format!("the connection's secret is not there: `{path}`")).because(error).field(field.clone())
        })?;
        // A secret made by an editor or `echo` ends with a line break that nobody meant.
        let secret = secret.strip_suffix('\n').map_or(secret.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if let Some(found) = connections.iter_mut().find(|found| found.id == *connection) {
            found.restore_secret(field, Secret::new(secret));
        }
    }
    Ok(connections)
}

/// A network policy that lets a new pod out only in a moment refuses what comes before: that says nothing of the server.
const POLICY_PATIENCE: Duration = Duration::from_secs(5);
const POLICY_LOOK: Duration = Duration::from_millis(250);

async fn probe(connections: Vec<Connection>) -> Result<(TaskReport, Exit)> {
    let mut versions = Vec::new();
    for connection in &connections {
        let connector = millrace_connectors::connector(connection.engine)?;
        let begun_at = tokio::time::Instant::now();
        let mut session = loop {
            match connector.session(connection, None).await {
                Err(error) if error.kind() == Kind::Unreachable && begun_at.elapsed() < POLICY_PATIENCE => {
                    tokio::time::sleep(POLICY_LOOK).await
                }
                session => break session?,
            }
        };
        versions.push(session.version().await?);
    }
    let report = TaskReport { state: StreamState::Finished, error: None, server_version: Some(versions.join(", ")), ..empty() };
    Ok((report, Exit::Done))
}

async fn convert(
    config: &PodConfig,
    namespace: &str,
    task: ConvertTask,
    seat: Option<Seat>,
    shutdown: CancellationToken,
) -> Result<(TaskReport, Exit)> {
    let (desired, control) = Control::channel();
    let desired = Arc::new(desired);
    let progress = Arc::new(Progress::new(chrono::Utc::now().timestamp_millis()));
    let stream = task.stream.clone();
    let voice = match &config.nats {
        Some((url, token)) => {
            let nats = NatsConfig { url: url.clone(), token: token.clone(), namespace: namespace.to_owned() };
            Some(Voice::open(&nats, stream.clone(), progress.clone(), desired.clone()).await?)
        }
        None => None,
    };
    let bus: Arc<dyn Bus> = match &voice {
        Some(voice) => Arc::new(voice.bus.clone()),
        None => Arc::new(millrace_bus::LocalBus::default()),
    };
    let work = async {
        let Some(seat) = seat else { return run_convert(task, progress.clone(), control, bus).await };
        let Some(voice) = &voice else {
            let error = Error::invalid("nats.url", "several workers share their work over NATS; name a server");
            return Outcome { state: StreamState::Failed, error: Some(error) };
        };
        let post = Post { seat, queue: Arc::new(NatsWork::new(voice.nats.clone(), task.stream.clone())) };
        run_in_fleet(task, post, progress.clone(), control, bus).await
    };
    let (outcome, was_interrupted) = tokio::select! {
        outcome = work => (outcome, false),
        // The pod is to go: what is committed stays, and another one goes on.
        () = shutdown.cancelled() => (Outcome { state: StreamState::Paused, error: None }, true),
    };
    if let Some(voice) = voice {
        voice.close().await;
    }
    let exit = match &outcome {
        _ if was_interrupted => Exit::TryAgain,
        Outcome { error: Some(error), .. } => Exit::of(error.kind()),
        _ => Exit::Done,
    };
    Ok((report(&progress, &outcome), exit))
}

/// What a worker says and hears while it works.
struct Voice {
    nats: Nats,
    bus: NatsBus,
    stream: StreamId,
    progress: Arc<Progress>,
    tasks: Vec<tokio::task::AbortHandle>,
}

impl Voice {
    async fn open(config: &NatsConfig, stream: StreamId, progress: Arc<Progress>, desired: Arc<watch::Sender<Desired>>) -> Result<Self> {
        let nats = Nats::connect(config, "worker").await?;
        let bus = NatsBus::new(nats.clone(), false);
        let speak = {
            let (nats, stream, progress) = (nats.clone(), stream.clone(), progress.clone());
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(STATS_EVERY);
                loop {
                    ticks.tick().await;
                    if progress.is_heard() {
                        nats.publish_stats(&stream, SPEAKER, &progress.report(false)).await;
                    }
                }
            })
        };
        let hear = {
            let (nats, stream) = (nats.clone(), stream.clone());
            tokio::spawn(async move {
                let Ok(mut commands) = nats.commands(&stream).await else { return };
                while let Some(command) = commands.next().await {
                    obey(&desired, command);
                }
            })
        };
        Ok(Self { nats, bus, stream, progress, tasks: vec![speak.abort_handle(), hear.abort_handle()] })
    }

    async fn close(self) {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
        // The way to NATS may open only after the pod has begun: a short run is over by then, and has said nothing yet.
        self.nats.connected(CONNECT_PATIENCE).await;
        self.bus.drain(FLUSH_PATIENCE).await;
        if self.progress.is_heard() {
            let last = self.progress.report(false);
            let _ = tokio::time::timeout(FLUSH_PATIENCE, self.nats.publish_stats(&self.stream, SPEAKER, &last)).await;
        }
        self.nats.flush(FLUSH_PATIENCE).await;
    }
}

/// The newest word counts, except that a stop stays one.
fn obey(desired: &watch::Sender<Desired>, command: Command) {
    let wish = match command {
        Command::Run => Desired::Run,
        Command::Pause => Desired::Pause,
        Command::Stop => Desired::Stop,
    };
    desired.send_if_modified(|now| {
        let changes = *now != wish && *now != Desired::Stop;
        if changes {
            *now = wish;
        }
        changes
    });
}

fn report(progress: &Progress, outcome: &Outcome) -> TaskReport {
    let counted = progress.report(false);
    TaskReport {
        state: outcome.state,
        error: outcome.error.as_ref().map(Error::chain),
        kind: outcome.error.as_ref().map(|error| format!("{:?}", error.kind())),
        field: outcome.error.as_ref().and_then(|error| error.field_name().map(str::to_owned)),
        rows_read: counted.source.rows,
        rows_written: counted.target.rows,
        rows_failed: counted.target.failed,
        bytes: counted.source.bytes,
        cuts_lost: counted.cuts_lost,
        is_consistent: counted.is_consistent,
        ..empty()
    }
}

fn failure(error: &Error) -> TaskReport {
    TaskReport {
        error: Some(error.chain()),
        kind: Some(format!("{:?}", error.kind())),
        field: error.field_name().map(str::to_owned),
        ..empty()
    }
}

fn empty() -> TaskReport {
    TaskReport {
        version: TASK_VERSION,
        state: StreamState::Failed,
        error: None,
        kind: None,
        field: None,
        rows_read: 0,
        rows_written: 0,
        rows_failed: 0,
        bytes: 0,
        cuts_lost: 0,
        is_consistent: true,
        server_version: None,
        summary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_not_taken_back_by_a_late_word() {
        let (desired, control) = Control::channel();
        obey(&desired, Command::Pause);
        assert_eq!(control.desired(), Desired::Pause);
        obey(&desired, Command::Stop);
        obey(&desired, Command::Run);
        assert_eq!(control.desired(), Desired::Stop);
    }
}
