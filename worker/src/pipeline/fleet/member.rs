//! A member copies splits of the moment that it holds, one after the other from the fleet's queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::catalog::TableName;
use millrace_core::config::DEFAULT_PAUSE_HOLD;
use millrace_core::fleet::{CutPhase, FleetCut, FleetView, MemberReport, TableFailure, TakenWork, WorkItem};
use millrace_core::split::Split;
use millrace_core::{Kind, Result};
use tokio::sync::watch;

use super::{Fleet, conference};
use crate::control::Control;
use crate::pipeline::copy::{self, Lane};
use crate::pipeline::patience::Patience;
use crate::pipeline::prepare::{PartReader, Prepared};
use crate::pipeline::{Ending, paused_for};

/// How long the queue may be away before splits are taken straight from the ledger.
const QUEUE_PATIENCE: Duration = Duration::from_secs(3);
/// How long a worker gets nothing before it looks into the ledger by itself.
const IDLE_PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Joins moments and copies, until the run is finished.
pub(super) async fn run(fleet: &Fleet<'_>, mut control: Control) -> Result<Ending> {
    let mut views = fleet.pulse.views();
    let mut patience = Patience::default();
    loop {
        let view = views.borrow_and_update().clone();
        // The leader's own last word comes from the leader.
        if view.is_finished && !view.is_leader {
            return Ok(Ending::Complete);
        }
        match step(fleet, &view, &control).await {
            Ok(()) => {
                patience = Patience::default();
                // The pulse lives as long as this does.
                let _ = views.changed().await;
            }
            Err(error) => {
                let_go(fleet).await;
                patience.wait(error, &mut control).await?;
            }
        }
    }
}

async fn step(fleet: &Fleet<'_>, view: &FleetView, control: &Control) -> Result<()> {
    let Some(cut) = &view.cut else { return Ok(()) };
    match cut.phase {
        CutPhase::Opening | CutPhase::Locked => conference::answer(fleet, cut).await,
        // Who was not chosen lets its snapshots go, so that nobody waits for it.
        CutPhase::Planning | CutPhase::Open if !cut.members.contains(&fleet.epoch) => {
            let_go(fleet).await;
            Ok(())
        }
        CutPhase::Planning => Ok(()),
        CutPhase::Open if fleet.pulse.report().cut != Some(cut.number) => Ok(()),
        CutPhase::Open => {
            let copied = copy(fleet, cut, control.clone()).await;
            let_go(fleet).await;
            match copied {
                Err(error) if error.kind() == Kind::CutLost => {
                    tracing::warn!(error = %error.chain(), "this worker has lost the source's moment");
                    Ok(())
                }
                other => other,
            }
        }
    }
}

/// Holds no moment any more.
async fn let_go(fleet: &Fleet<'_>) {
    *fleet.held.lock().await = None;
    if fleet.pulse.report().cut.is_some() {
        fleet.pulse.say(MemberReport::default());
    }
}

/// Copies until the moment is over for all, or lost for this worker.
async fn copy(fleet: &Fleet<'_>, cut: &FleetCut, mut control: Control) -> Result<()> {
    let Some(held) = fleet.held.lock().await.take().filter(|held| held.number == cut.number) else { return Ok(()) };
    let mut patience = Patience::default();
    let (plan, records) = loop {
        let read = async { Ok((fleet.ledger()?.plan(&fleet.key).await?, fleet.sink.ledger().tables(&fleet.key).await?)) };
        match read.await {
            Ok((Some(plan), records)) => break (plan, records),
            Ok((None, _)) => return Ok(()),
            Err(error) => patience.wait(error, &mut control).await?,
        }
    };
    fleet.progress.meter().name(plan.tables.iter().map(|table| table.target.name.as_str()));
    let splits: HashMap<WorkItem, Split> = records
        .into_iter()
        .filter_map(|record| Some((plan.tables.iter().position(|table| table.target == record.target)?, record)))
        .flat_map(|(table, record)| {
            let target = record.target;
            record
                .splits
                .into_iter()
                .map(move |(split, _)| (WorkItem { target: target.clone(), ordinal: split.ordinal }, Split { table, ..split }))
        })
        .collect();
    let prepared = Prepared { cut: cut.number, ..Prepared::new(fleet.key.clone(), fleet.epoch, fleet.sink.clone(), plan) };
    let shared = Copying { fleet, cut, prepared: &prepared, splits: &splits };
    let mut lanes = Vec::new();
    for (part, mut snapshots) in held.parts.into_iter().enumerate() {
        for reader in std::mem::take(snapshots.readers()) {
            let lane = Lane::new(&prepared, PartReader { part, reader }, control.clone(), fleet.progress.clone(), None);
            lanes.push(shared.run_lane(lane, control.clone()));
        }
    }
    let hold = Duration::from_secs(u64::from(fleet.task.spec.pause_hold.unwrap_or(DEFAULT_PAUSE_HOLD)));
    tokio::select! {
        copied = futures::future::try_join_all(lanes) => copied.map(|_| ()),
        () = is_over(fleet.pulse.views(), cut) => Ok(()),
        () = paused_for(control, hold) => {
            fleet.reporter.notice(format!("the pause was longer than {} s, and the source's moment was let go", hold.as_secs()));
            Ok(())
        }
    }
}

/// Returns once the run is finished, or another moment counts.
async fn is_over(mut views: watch::Receiver<FleetView>, cut: &FleetCut) {
    let is_another = |view: &FleetView| view.is_finished || view.cut.as_ref().is_some_and(|now| now.number != cut.number);
    let _ = views.wait_for(is_another).await;
}

/// What the lanes of one worker share.
struct Copying<'a> {
    fleet: &'a Fleet<'a>,
    cut: &'a FleetCut,
    prepared: &'a Prepared,
    splits: &'a HashMap<WorkItem, Split>,
}

impl Copying<'_> {
    async fn run_lane(&self, mut lane: Lane, mut control: Control) -> Result<()> {
        let (mut away_since, mut idle_since) = (None, tokio::time::Instant::now());
        loop {
            control.checkpoint().await.map_err(crate::pipeline::patience::stopped)?;
            match self.fleet.queue.take(self.cut.number, lane.part).await {
                Ok(Some(taken)) => {
                    (away_since, idle_since) = (None, tokio::time::Instant::now());
                    let item = taken.item().clone();
                    let copied = {
                        let keeping = keep(taken.as_ref());
                        tokio::select! {
                            copied = self.copy_item(&mut lane, &item) => copied,
                            never = keeping => match never {},
                        }
                    };
                    match copied {
                        Ok(()) => taken.done().await,
                        Err(error) => {
                            taken.give_back().await;
                            return Err(error);
                        }
                    }
                }
                // What the queue could not take, or has lost, stands in the ledger.
                Ok(None) if idle_since.elapsed() > IDLE_PATIENCE => {
                    idle_since = tokio::time::Instant::now();
                    if let Some(item) = self.open_item(lane.part, &mut control).await? {
                        self.copy_item(&mut lane, &item).await?;
                    }
                }
                Ok(None) => away_since = None,
                Err(error) => {
                    let since = *away_since.get_or_insert_with(tokio::time::Instant::now);
                    if since.elapsed() < QUEUE_PATIENCE {
                        tokio::time::sleep(LOOK_EVERY).await;
                    } else if let Some(item) = self.open_item(lane.part, &mut control).await? {
                        tracing::debug!(error = %error.chain(), "the queue is away; a split is taken from the ledger");
                        self.copy_item(&mut lane, &item).await?;
                    } else {
                        tokio::time::sleep(QUEUE_PATIENCE).await;
                    }
                }
            }
        }
    }

    /// Copies a split, unless its table has failed; a failure that concerns only its table is said to all.
    async fn copy_item(&self, lane: &mut Lane, item: &WorkItem) -> Result<()> {
        let Some(split) = self.splits.get(item) else { return Ok(()) };
        let Err(error) = copy::copy_split(lane, split).await else { return Ok(()) };
        if !crate::pipeline::is_table_failure(&error) {
            return Err(error);
        }
        let failure = TableFailure::from(&error);
        self.fleet.ledger()?.fail_table(&self.fleet.key, self.fleet.epoch, self.cut.number, &item.target, &failure).await
    }

    /// Some split that nobody has committed. Others may have it in hand; then only one of them commits it.
    async fn open_item(&self, part: usize, control: &mut Control) -> Result<Option<WorkItem>> {
        let mut patience = Patience::default();
        let open = loop {
            match self.fleet.ledger()?.open_splits(&self.fleet.key).await {
                Ok(open) => break open,
                Err(error) => patience.wait(error, control).await?,
            }
        };
        let plan: &Arc<_> = &self.prepared.plan;
        // What tables refer to comes first.
        let is_done = |target: &TableName| !open.iter().any(|(table, _)| table == target);
        let is_readable = |target: &TableName| {
            plan.tables.iter().any(|table| table.target == *target && table.part == part && table.after.iter().all(is_done))
        };
        let mine: Vec<WorkItem> = open
            .iter()
            .filter(|(target, _)| is_readable(target))
            .map(|(target, split)| WorkItem { target: target.clone(), ordinal: split.ordinal })
            .collect();
        let count = mine.len().max(1);
        Ok(mine.into_iter().nth(rand::random_range(0..count)))
    }
}

/// Says again and again that an item is being worked on.
async fn keep(taken: &dyn TakenWork) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(taken.keep_every()).await;
        taken.keep().await;
    }
}
