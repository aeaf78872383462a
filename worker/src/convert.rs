//! One-off copy of a database with its structure.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::bus::{Body, Bus, Event, Level, Side};
use millrace_core::catalog::Catalog;
use millrace_core::config::{DbTarget, OnCutLost, SchemaPolicy, SourceConnection, StreamSpec, TargetSpec, WriteMode, check_supported};
use millrace_core::connection::Connection;
use millrace_core::connector::{PlanRequest, Scope, Sink, SourcePart, SourcePlanner, TargetFacts, Wanted, WriteOptions};
use millrace_core::fleet::{Seat, WorkQueue};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::ledger::{LedgerKey, TableRecord};
use millrace_core::plan::Plan;
use millrace_core::stream::StreamState;
use millrace_core::{Disposition, Error, Kind, Result};

use crate::control::{Control, Desired};
use crate::pipeline::{self, Ending, report::Reporter};
use crate::progress::Progress;

/// Everything that a convert needs, with its connections resolved.
#[derive(Debug, Clone)]
pub struct ConvertTask {
    /// The start that this task carries out.
    pub stream: StreamId,
    /// The config that was started.
    pub config: ConfigId,
    /// What is wanted.
    pub spec: StreamSpec,
    /// Where from, with their secrets, in the order of the config's source connections.
    pub sources: Vec<Connection>,
    /// Where to, with its secrets.
    pub target: Connection,
}

/// How a task ended.
#[derive(Debug)]
pub struct Outcome {
    /// A terminal state.
    pub state: StreamState,
    /// Why, if it failed.
    pub error: Option<Error>,
}

/// What a run would do with every column, refusals included. Reads each source at one moment, looks at the target and writes nothing. A target that cannot be
/// asked is taken as empty, and the plan says so.
///
/// # Errors
/// The kind says what is wrong; `field` names the part of the config concerned.
pub async fn plan(task: &ConvertTask) -> Result<Plan> {
    check_supported(&task.spec).map_err(Error::first_of)?;
    let mut parts = Vec::new();
    for index in 0..task.sources.len() {
        let mut source = task.open_source(index).await?;
        let mut cut = source.open_cut(1).await.map_err(|error| at_source(error, index))?;
        let catalog = task.catalog(source.as_mut(), index).await?;
        let Some(reader) = cut.readers.first_mut() else { return Err(Error::internal("a cut without readers")) };
        let facts = pipeline::probe(reader.as_mut(), &catalog).await?;
        parts.push(task.part(index, catalog, facts));
    }
    let (facts, note) = match task.inspect(&parts).await {
        Ok(facts) => (facts, None),
        Err(error) if matches!(error.disposition(), Disposition::Retry { .. } | Disposition::WaitForUser { .. }) => {
            (TargetFacts::default(), Some(format!("the target could not be asked and is taken as empty: {}", error.chain())))
        }
        Err(error) => return Err(error),
    };
    let mut plan = task.plan(&parts, &facts)?;
    plan.notes.extend(note);
    Ok(plan)
}

/// Checks everything that can be checked before the first byte: support, all logins, the selection, the plan, the target's tables. It writes
/// nothing but a missing target database.
///
/// # Errors
/// The kind says what is wrong; `field` names the part of the config concerned.
pub async fn preflight(task: &ConvertTask) -> Result<Plan> {
    check_supported(&task.spec).map_err(Error::first_of)?;
    let mut parts = Vec::new();
    for index in 0..task.sources.len() {
        let mut source = task.open_source(index).await?;
        let catalog = task.catalog(source.as_mut(), index).await?;
        if catalog.tables.is_empty() {
            let error = Error::new(Kind::ObjectMissing, "the source database has no tables");
            return Err(error.field(format!("source.connections[{index}].database")));
        }
        parts.push(task.part(index, catalog, Vec::new()));
    }
    let facts = task.inspect(&parts).await?;
    let mut plan = task.plan(&parts, &facts)?;
    let sink = task.open_sink().await?;
    forgive(&mut plan, &sink.ledger().tables(&task.key()).await?);
    plan.check()?;
    Ok(plan)
}

/// The run of this config that was broken off and may go on, as the target knows it.
///
/// # Errors
/// As the target's connection gives them.
pub async fn unfinished_run(task: &ConvertTask) -> Result<Option<StreamId>> {
    task.open_sink().await?.ledger().unfinished_run(&task.config).await
}

/// Copies everything, publishing events of the run on the bus; returns when the target is complete, or the run was stopped, reached a limit or has failed.
pub async fn run(task: ConvertTask, progress: Arc<Progress>, control: Control, bus: Arc<dyn Bus>) -> Outcome {
    carry_out(task, None, progress, control, bus).await
}

/// As [`run`], as one worker of several that carry out the same run.
pub async fn run_in_fleet(task: ConvertTask, post: Post, progress: Arc<Progress>, control: Control, bus: Arc<dyn Bus>) -> Outcome {
    carry_out(task, Some(post), progress, control, bus).await
}

/// A worker's place in a fleet.
#[derive(Clone)]
pub struct Post {
    /// Which one it is.
    pub seat: Seat,
    /// Where it gets splits from.
    pub queue: Arc<dyn WorkQueue>,
}

async fn carry_out(task: ConvertTask, post: Option<Post>, progress: Arc<Progress>, control: Control, bus: Arc<dyn Bus>) -> Outcome {
    let reporter = Arc::new(Reporter::new(task.stream.clone(), progress.clone(), bus));
    crate::metrics::watch(&task.stream, &task.config, &progress);
    progress.set_state(StreamState::Running, StreamState::Running);
    let ticking = reporter.clone().tick(task.spec.reporting_interval);
    let watching = mirror_pauses(control.clone(), progress.clone());
    let mut stop = control.clone();
    let work = async {
        match &post {
            None => pipeline::run(&task, &progress, control, &reporter).await,
            Some(post) => pipeline::fleet::run(&task, post, &progress, control, &reporter).await,
        }
    };
    let result = tokio::select! {
        // Dropping the pipeline closes its connections, which rolls back whatever is not committed.
        result = work => result,
        () = stop.stopped() => Err(Error::new(Kind::Cancelled, "the run was stopped")),
        () = time_limit(&task.spec) => Ok(Ending::TimeLimit),
        never = ticking => match never {},
        never = watching => match never {},
    };
    let outcome = match result {
        Ok(Ending::Complete) => Outcome { state: StreamState::Finished, error: None },
        Ok(Ending::EventLimit) => Outcome { state: StreamState::EventLimitReached, error: None },
        Ok(Ending::TimeLimit) => {
            reporter
                .notice("the time limit was reached: the tables hold what was committed until then and have no further keys or indexes");
            Outcome { state: StreamState::TimeLimitReached, error: None }
        }
        Err(error) if error.kind() == Kind::Cancelled && stop.desired() == Desired::Stop => {
            Outcome { state: StreamState::Stopped, error: None }
        }
        Err(error) => Outcome { state: StreamState::Failed, error: Some(error) },
    };
    progress.set_state(outcome.state, outcome.state);
    if let Some(error) = &outcome.error {
        reporter.publish(Level::Error, Side::Target, error.chain(), Body::Error);
    }
    reporter.stage(
        5,
        match outcome.state {
            StreamState::Finished => "finished",
            StreamState::Stopped => "stopped",
            StreamState::EventLimitReached | StreamState::TimeLimitReached => "limit reached",
            _ => "failed",
        },
    );
    reporter.report_all(true);
    outcome
}

/// Returns once the config's time is over; never without such a limit.
async fn time_limit(spec: &StreamSpec) {
    match spec.limits.map_or(0, |limits| limits.elapsed_time) {
        0 => std::future::pending().await,
        seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
    }
}

impl ConvertTask {
    /// Who this task is to the target's ledger.
    pub(crate) fn key(&self) -> LedgerKey {
        LedgerKey { config: self.config.clone(), stream: self.stream.clone(), worker: 0, attempt: 0 }
    }

    /// How many readers and writers work at once. A limit on rows is exact, so one lane counts them.
    pub(crate) fn lanes(&self) -> usize {
        if self.row_limit().is_some() {
            return 1;
        }
        let machine = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        self.spec.parallelism.map_or(machine, |lanes| usize::from(lanes).clamp(1, 64))
    }

    /// The most rows of all tables together.
    pub(crate) fn row_limit(&self) -> Option<u64> {
        self.spec.limits.map(|limits| limits.number_of_events).filter(|rows| *rows > 0)
    }

    /// What happens when a source's moment is lost.
    pub(crate) fn on_cut_lost(&self) -> OnCutLost {
        self.spec.on_cut_lost.unwrap_or_default()
    }

    pub(crate) async fn open_source(&self, index: usize) -> Result<Box<dyn SourcePlanner>> {
        let part = self.source_part(index)?;
        let scope = Scope { database: part.database.clone(), schema: part.schema.clone() };
        let connection = self.sources.get(index).ok_or_else(|| Error::internal("a source without its connection"))?;
        let connector = millrace_connectors::connector(connection.engine)?;
        let opened = connector.source(connection, &scope).await;
        opened.map_err(|error| at_source(at_field(error, "source.connections[0]"), index))
    }

    /// The selected tables and queries of a source.
    pub(crate) async fn catalog(&self, source: &mut dyn SourcePlanner, index: usize) -> Result<Catalog> {
        let part = self.source_part(index)?;
        let wanted = Wanted { tables: part.tables.as_deref().unwrap_or_default(), queries: part.queries.as_deref().unwrap_or_default() };
        source.catalog(wanted).await.map_err(|error| at_source(error, index))
    }

    /// What a source contributes to the plan.
    pub(crate) fn part(
        &self,
        index: usize,
        catalog: Catalog,
        facts: Vec<(millrace_core::catalog::TableName, millrace_core::connector::ColumnFact)>,
    ) -> SourcePart {
        let alias = self.spec.source.connections.get(index).and_then(|part| part.alias.clone()).filter(|_| self.sources.len() > 1);
        SourcePart { alias, catalog, facts }
    }

    /// What the target holds already.
    pub(crate) async fn inspect(&self, parts: &[SourcePart]) -> Result<TargetFacts> {
        let connector = millrace_connectors::connector(self.target.engine)?;
        let scope = self.target_scope()?;
        connector.inspect(&self.target, &scope, &self.config, parts).await.map_err(|error| at_field(error, "target"))
    }

    pub(crate) async fn open_sink(&self) -> Result<Arc<dyn Sink>> {
        let connector = millrace_connectors::connector(self.target.engine)?;
        let sink = connector.sink(&self.target, &self.target_scope()?).await.map_err(|error| at_field(error, "target"))?;
        Ok(Arc::from(sink))
    }

    /// The target's plan.
    pub(crate) fn plan(&self, parts: &[SourcePart], facts: &TargetFacts) -> Result<Plan> {
        let db = self.target_part()?;
        let structure = db.structure_options.unwrap_or_default();
        let options = WriteOptions {
            structure,
            schema_policy: db.schema_policy.unwrap_or(SchemaPolicy::FailIfExists),
            write_mode: db.write_mode.unwrap_or(WriteMode::FailIfNotEmpty),
            is_structure_only: self.is_structure_only()?,
            may_restart: self.on_cut_lost() == OnCutLost::Restart,
            plan: self.spec.plan.clone().unwrap_or_default(),
        };
        let scope = self.target_scope()?;
        let request = PlanRequest { scope: &scope, sources: parts, target: facts, options: &options };
        millrace_connectors::connector(self.target.engine)?.plan(&request)
    }

    fn target_scope(&self) -> Result<Scope> {
        let db = self.target_part()?;
        Ok(Scope { database: Some(db.database.clone()), schema: db.schema.clone() })
    }

    /// Whether only the structure is wanted.
    pub(crate) fn is_structure_only(&self) -> Result<bool> {
        Ok(self.target_part()?.skip_data.unwrap_or(false))
    }

    fn source_part(&self, index: usize) -> Result<&SourceConnection> {
        self.spec.source.connections.get(index).ok_or_else(|| Error::invalid("source.connections", "a config needs a source"))
    }

    fn target_part(&self) -> Result<&DbTarget> {
        match &self.spec.target.spec {
            TargetSpec::Db(db) => Ok(db),
            _ => Err(Error::not_supported("target.spec", "only database targets are supported yet")),
        }
    }
}

/// What this run has made or filled itself does not stand in its way.
pub(crate) fn forgive(plan: &mut Plan, records: &[TableRecord]) {
    plan.obstacles.retain(|obstacle| !records.iter().any(|record| record.target.name == obstacle.table));
}

/// The part of the config that an error of a connection belongs to, unless the error knows better.
fn at_field(error: Error, field: &str) -> Error {
    if error.field_name().is_some() { error } else { error.field(field) }
}

/// Connectors name fields as if theirs were the first source connection.
pub(crate) fn at_source(error: Error, index: usize) -> Error {
    match error.field_name().and_then(|field| field.strip_prefix("source.connections[0]")) {
        Some(rest) => {
            let field = format!("source.connections[{index}]{rest}");
            error.field(field)
        }
        None => error,
    }
}

/// Shows pauses in the counters' states; never returns.
async fn mirror_pauses(mut control: Control, progress: Arc<Progress>) -> std::convert::Infallible {
    loop {
        match control.changed().await {
            Some(Desired::Pause) => progress.set_state(StreamState::Paused, StreamState::Paused),
            Some(Desired::Run) => progress.set_state(StreamState::Running, StreamState::Running),
            // The stop itself is handled beside this.
            Some(Desired::Stop) | None => std::future::pending().await,
        }
    }
}

/// An event of the run, for those who have nothing but a bus.
pub(crate) fn event(stream: &StreamId, level: Level, side: Side, message: impl Into<String>, body: Body) -> Event {
    Event { at: pipeline::report::now_ms(), level, side, stream: Some(stream.clone()), node: None, message: message.into(), body }
}
