//! One-off copy of a database with its structure.

use std::sync::Arc;

use millrace_core::bus::{Body, Bus, Event, Level, Side};
use millrace_core::catalog::{Catalog, TableName};
use millrace_core::config::{DbTarget, SourceConnection, StreamSpec, TableSelection, TargetSpec, check_supported};
use millrace_core::connection::Connection;
use millrace_core::connector::{ColumnFact, Scope, Sink, SourcePlanner};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::ledger::LedgerKey;
use millrace_core::plan::Plan;
use millrace_core::stream::StreamState;
use millrace_core::{Error, Kind, Result};

use crate::control::{Control, Desired};
use crate::pipeline::{self, report::Reporter};
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
    /// Where from, with its secrets.
    pub source: Connection,
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

/// What a run would do with every column, refusals included. Reads the source at one moment, asks nothing of the target and writes nothing.
///
/// # Errors
/// The kind says what is wrong; `field` names the part of the config concerned.
pub async fn plan(task: &ConvertTask) -> Result<Plan> {
    check_supported(&task.spec).map_err(first)?;
    let mut source = task.open_source().await?;
    let mut cut = source.open_cut(1).await?;
    let catalog = source.catalog(task.wanted_tables()?).await?;
    let Some(reader) = cut.readers.first_mut() else { return Err(Error::internal("a cut without readers")) };
    let facts = pipeline::probe(reader.as_mut(), &catalog).await?;
    task.plan(&catalog, &facts)
}

/// Checks everything that can be checked before the first byte: support, both logins, the selection, the plan, the target's tables. It writes
/// nothing but a missing target database.
///
/// # Errors
/// The kind says what is wrong; `field` names the part of the config concerned.
pub async fn preflight(task: &ConvertTask) -> Result<Plan> {
    check_supported(&task.spec).map_err(first)?;
    let mut source = task.open_source().await?;
    let catalog = source.catalog(task.wanted_tables()?).await?;
    if catalog.tables.is_empty() {
        return Err(Error::new(Kind::ObjectMissing, "the source database has no tables").field("source.connections[0].database"));
    }
    let plan = task.plan(&catalog, &[])?;
    plan.check()?;
    let sink = task.open_sink().await?;
    let leftover = sink.ledger().unfinished_tables(&task.config).await?;
    sink.check_target(&plan, &leftover).await.map_err(|error| error.field("target.spec.db"))?;
    Ok(plan)
}

/// Copies everything, publishing events of the run on the bus; returns when the target is complete, or the run was stopped or has failed.
pub async fn run(task: ConvertTask, progress: Arc<Progress>, control: Control, bus: Arc<dyn Bus>) -> Outcome {
    let reporter = Arc::new(Reporter::new(task.stream.clone(), progress.clone(), bus));
    progress.set_state(StreamState::Running, StreamState::Running);
    let ticking = reporter.clone().tick(task.spec.reporting_interval);
    let watching = mirror_pauses(control.clone(), progress.clone());
    let mut stop = control.clone();
    let result = tokio::select! {
        // Dropping the pipeline closes its connections, which rolls back whatever is not committed.
        result = pipeline::run(&task, &progress, control, &reporter) => result,
        () = stop.stopped() => Err(Error::new(Kind::Cancelled, "the run was stopped")),
        never = ticking => match never {},
        never = watching => match never {},
    };
    let outcome = match result {
        Ok(()) => Outcome { state: StreamState::Finished, error: None },
        Err(error) if error.kind() == Kind::Cancelled => Outcome { state: StreamState::Stopped, error: None },
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
            _ => "failed",
        },
    );
    reporter.report_all(true);
    outcome
}

impl ConvertTask {
    /// Who this task is to the target's ledger.
    pub(crate) fn key(&self) -> LedgerKey {
        LedgerKey { config: self.config.clone(), stream: self.stream.clone() }
    }

    /// How many readers and writers work at once.
    pub(crate) fn lanes(&self) -> usize {
        let machine = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
        self.spec.parallelism.map_or(machine, |lanes| usize::from(lanes).clamp(1, 64))
    }

    /// What the config selects; nothing means all.
    pub(crate) fn wanted_tables(&self) -> Result<&[TableSelection]> {
        Ok(self.source_part()?.tables.as_deref().unwrap_or_default())
    }

    pub(crate) async fn open_source(&self) -> Result<Box<dyn SourcePlanner>> {
        let part = self.source_part()?;
        let scope = Scope { database: part.database.clone(), schema: part.schema.clone() };
        let connector = millrace_connectors::connector(self.source.engine)?;
        connector.source(&self.source, &scope).await.map_err(|error| at_field(error, "source.connections[0]"))
    }

    pub(crate) async fn open_sink(&self) -> Result<Arc<dyn Sink>> {
        let connector = millrace_connectors::connector(self.target.engine)?;
        let sink = connector.sink(&self.target, &self.target_scope()?).await.map_err(|error| at_field(error, "target"))?;
        Ok(Arc::from(sink))
    }

    /// The target's plan for a catalog.
    pub(crate) fn plan(&self, catalog: &Catalog, facts: &[(TableName, ColumnFact)]) -> Result<Plan> {
        let structure = self.target_part()?.structure_options.unwrap_or_default();
        millrace_connectors::connector(self.target.engine)?.plan(&self.target_scope()?, catalog, facts, structure)
    }

    fn target_scope(&self) -> Result<Scope> {
        let db = self.target_part()?;
        Ok(Scope { database: Some(db.database.clone()), schema: db.schema.clone() })
    }

    /// Whether only the structure is wanted.
    pub(crate) fn is_structure_only(&self) -> Result<bool> {
        Ok(self.target_part()?.skip_data.unwrap_or(false))
    }

    fn source_part(&self) -> Result<&SourceConnection> {
        self.spec.source.connections.first().ok_or_else(|| Error::invalid("source.connections", "a config needs a source"))
    }

    fn target_part(&self) -> Result<&DbTarget> {
        match &self.spec.target.spec {
            TargetSpec::Db(db) => Ok(db),
            _ => Err(Error::not_supported("target.spec", "only database targets are supported yet")),
        }
    }
}

/// The part of the config that an error of a connection belongs to, unless the error knows better.
fn at_field(error: Error, field: &str) -> Error {
    if error.field_name().is_some() { error } else { error.field(field) }
}

fn first(errors: Vec<Error>) -> Error {
    errors.into_iter().next().unwrap_or_else(|| Error::internal("a refusal without a reason"))
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
