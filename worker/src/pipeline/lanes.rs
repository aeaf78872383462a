//! Lanes: each owns a reader and a writer and copies one split after the other from a common queue.
//!
//! ```text
//!  queue ─▶ lane 1: reader₁ → writer₁ ─┐   last split of a table
//!        ─▶ lane 2: reader₂ → writer₂ ─┴──────────────────────────▶ finish_table (keys, indexes, checks)
//! ```
//!
//! A table that fails leaves the queue; the lanes go on with the others. Any other error ends the run. A table whose rows the target checks against
//! others waits until those are complete.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_core::bus::{Body, Level, Side};
use millrace_core::plan::Plan;
use millrace_core::split::Split;
use millrace_core::stream::StreamState;
use millrace_core::{Error, Kind, Result};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::copy::{self, Lane};
use super::patience::Patience;
use super::prepare::Prepared;
use super::report::Reporter;
use crate::control::Control;
use crate::progress::Progress;

/// How many tables build their indexes at once, beside the copying of others.
pub(super) const FINISHING_AT_ONCE: usize = 2;

/// Why tables failed, by their index in the plan.
pub(super) type FailedTables = BTreeMap<usize, Error>;

/// What the lanes did.
pub(super) struct Copied {
    pub(super) failed: FailedTables,
    /// Whether the limit on rows ended it.
    pub(super) is_limited: bool,
}

/// What lanes share.
struct Shared {
    queue: Mutex<Queue>,
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
    finishing: Semaphore,
    /// A table is complete or has failed.
    changed: Notify,
    is_limited: AtomicBool,
}

struct Queue {
    splits: VecDeque<Split>,
    /// Splits of each table that are not committed yet.
    open: Vec<usize>,
    failed: FailedTables,
}

/// Copies all splits and finishes all tables; answers the tables that failed.
pub(super) async fn run(prepared: &Prepared, progress: &Arc<Progress>, control: Control, reporter: &Arc<Reporter>) -> Result<Copied> {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            splits: prepared.splits.iter().flatten().cloned().collect(),
            open: prepared.splits.iter().map(Vec::len).collect(),
            failed: FailedTables::new(),
        }),
        plan: prepared.plan.clone(),
        progress: progress.clone(),
        reporter: reporter.clone(),
        finishing: Semaphore::new(FINISHING_AT_ONCE),
        changed: Notify::new(),
        is_limited: AtomicBool::new(false),
    });
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let (finished, mut to_finish) = tokio::sync::mpsc::unbounded_channel::<usize>();
    let readers = std::mem::take(&mut *lock(&prepared.readers));
    let budget = prepared.row_budget.map(|rows| Arc::new(Mutex::new(rows)));
    for reader in readers {
        let lane = Lane::new(prepared, reader, control.clone(), progress.clone(), budget.clone());
        tasks.spawn(run_lane(lane, shared.clone(), finished.clone()));
    }
    // Nothing is read for a table without splits: only its structure is wanted, or its rows are there already.
    for (index, _) in prepared.splits.iter().enumerate().filter(|(_, splits)| splits.is_empty()) {
        progress.set_table_state(index, StreamState::Running, None);
        if prepared.finished.contains(&index) {
            progress.set_table_state(index, StreamState::Finished, None);
        } else {
            let _ = finished.send(index);
        }
    }
    drop(finished);
    // The channel closes when the last lane is done; the set is empty when the last table is finished too.
    loop {
        tokio::select! {
            Some(index) = to_finish.recv() => {
                tasks.spawn(finish_table(prepared.finisher(), index, shared.clone(), control.clone()));
            }
            Some(done) = tasks.join_next() => {
                done.map_err(|panic| Error::internal("a lane broke down").because(panic))??;
            }
            else => break,
        }
    }
    if shared.is_limited.load(Ordering::Relaxed) {
        shared.finish_limited(prepared, &control).await?;
    }
    let failed = std::mem::take(&mut lock(&shared.queue).failed);
    Ok(Copied { failed, is_limited: shared.is_limited.load(Ordering::Relaxed) })
}

async fn run_lane(mut lane: Lane, shared: Arc<Shared>, finished: tokio::sync::mpsc::UnboundedSender<usize>) -> Result<()> {
    while let Some(split) = shared.next(lane.part).await {
        let table = split.table;
        shared.progress.set_table_state(table, StreamState::Running, None);
        match copy::copy_split(&mut lane, &split).await {
            Ok(done) => {
                shared.report_losses(table, &done.losses);
                if done.is_limited {
                    shared.limit();
                } else if shared.is_last(table) {
                    // The receiver lives as long as the run.
                    let _ = finished.send(table);
                }
            }
            Err(error) if super::is_table_failure(&error) => shared.fail(table, error),
            Err(error) => return Err(error),
        }
    }
    lane.end().await
}

/// What finishing a table needs.
pub(super) struct Finisher {
    pub(super) sink: Arc<dyn millrace_core::connector::Sink>,
    pub(super) key: millrace_core::ledger::LedgerKey,
    pub(super) epoch: millrace_core::ledger::Epoch,
}

impl Prepared {
    fn finisher(&self) -> Finisher {
        Finisher { sink: self.sink.clone(), key: self.key.clone(), epoch: self.epoch }
    }
}

async fn finish_table(finisher: Finisher, index: usize, shared: Arc<Shared>, mut control: Control) -> Result<()> {
    let _permit = shared.finishing.acquire().await;
    let table = &shared.plan.tables[index];
    let mut patience = Patience::default();
    loop {
        match finisher.sink.finish_table(&finisher.key, finisher.epoch, table).await {
            Ok(()) => {
                shared.progress.set_table_state(index, StreamState::Finished, None);
                let message = format!("{} is complete", table.target.name);
                shared.reporter.publish(Level::Info, Side::Target, message, Body::General);
                return Ok(());
            }
            Err(error) if super::is_table_failure(&error) => {
                shared.fail(index, error);
                return Ok(());
            }
            Err(error) => patience.wait(error, &mut control).await?,
        }
    }
}

impl Shared {
    /// The next split of a source whose table may be written now; none when all of them are handed out.
    async fn next(&self, part: usize) -> Option<Split> {
        loop {
            // Asked for before looking, so that no change in between is missed.
            let changed = self.changed.notified();
            {
                let mut queue = lock(&self.queue);
                let is_ready = |split: &Split| self.plan.tables[split.table].part == part && self.waits_for(&queue, split.table).is_none();
                if let Some(place) = queue.splits.iter().position(is_ready) {
                    return queue.splits.remove(place);
                }
                if !queue.splits.iter().any(|split| self.plan.tables[split.table].part == part) {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// A table that must be complete before this one may be written.
    fn waits_for(&self, queue: &Queue, table: usize) -> Option<usize> {
        let after = &self.plan.tables[table].after;
        let is_open = |index: &usize| after.contains(&self.plan.tables[*index].target) && queue.open[*index] > 0;
        if after.is_empty() { None } else { (0..self.plan.tables.len()).find(is_open) }
    }

    /// Counts a committed split; answers whether it was the table's last one.
    fn is_last(&self, table: usize) -> bool {
        let mut queue = lock(&self.queue);
        // A table that has failed meanwhile has no open splits any more.
        if queue.failed.contains_key(&table) {
            return false;
        }
        queue.open[table] -= 1;
        let is_last = queue.open[table] == 0;
        drop(queue);
        if is_last {
            self.changed.notify_waiters();
        }
        is_last
    }

    /// Nothing more is handed out.
    fn limit(&self) {
        self.is_limited.store(true, Ordering::Relaxed);
        lock(&self.queue).splits.clear();
        self.changed.notify_waiters();
    }

    /// Tables that the limit left incomplete get their keys and indexes too, so that what is there can be used.
    async fn finish_limited(self: &Arc<Self>, prepared: &Prepared, control: &Control) -> Result<()> {
        let unfinished: Vec<usize> = {
            let queue = lock(&self.queue);
            (0..self.plan.tables.len()).filter(|index| queue.open[*index] > 0 && !queue.failed.contains_key(index)).collect()
        };
        for index in unfinished {
            let mut patience = Patience::default();
            let (finisher, mut control) = (prepared.finisher(), control.clone());
            while let Err(error) = finisher.sink.finish_table(&finisher.key, finisher.epoch, &self.plan.tables[index]).await {
                if super::is_table_failure(&error) {
                    self.fail(index, error);
                    break;
                }
                patience.wait(error, &mut control).await?;
            }
        }
        Ok(())
    }

    fn fail(&self, table: usize, error: Error) {
        self.progress.set_table_state(table, StreamState::Failed, Some(error.chain()));
        self.reporter.publish(Level::Error, Side::Target, error.chain(), Body::Error);
        let name = self.plan.tables[table].target.clone();
        let mut dependents = BTreeSet::new();
        {
            let mut queue = lock(&self.queue);
            queue.splits.retain(|split| split.table != table);
            queue.open[table] = 0;
            queue.failed.entry(table).or_insert(error);
            let is_dependent = |index: &usize| self.plan.tables[*index].after.contains(&name) && !queue.failed.contains_key(index);
            dependents.extend((0..self.plan.tables.len()).filter(is_dependent));
        }
        for dependent in dependents {
            let text = format!("`{}` refers to `{}`, which failed", self.plan.tables[dependent].target.name, name.name);
            self.fail(dependent, Error::new(Kind::ConstraintViolated, text));
        }
        self.changed.notify_waiters();
    }

    fn report_losses(&self, table: usize, losses: &[u64]) {
        let written = self.plan.tables[table].columns.iter().filter(|column| column.is_written);
        for (column, count) in written.zip(losses) {
            if *count > 0 {
                self.progress.add_loss(table, &column.target, *count);
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the run anyway; what is behind these locks is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
