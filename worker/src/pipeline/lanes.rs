//! Lanes: each owns a reader and a writer and copies one split after the other from a common queue.
//!
//! ```text
//!  queue ─▶ lane 1: reader₁ → writer₁ ─┐   last split of a table
//!        ─▶ lane 2: reader₂ → writer₂ ─┴──────────────────────────▶ finish_table (keys, indexes, checks)
//! ```
//!
//! A table that fails leaves the queue; the lanes go on with the others. Any other error ends the run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_core::bus::{Body, Level, Side};
use millrace_core::connector::SourceReader;
use millrace_core::split::Split;
use millrace_core::stream::StreamState;
use millrace_core::{Error, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::copy::{self, Lane};
use super::prepare::Prepared;
use super::report::Reporter;
use crate::control::Control;
use crate::progress::Progress;

/// How many tables build their indexes at once, beside the copying of others.
const FINISHING_AT_ONCE: usize = 2;

/// Why tables failed, by their index in the plan.
pub(super) type FailedTables = BTreeMap<usize, Error>;

/// What lanes share.
struct Shared {
    queue: Mutex<Queue>,
    progress: Arc<Progress>,
    reporter: Arc<Reporter>,
    finishing: Semaphore,
}

struct Queue {
    splits: VecDeque<Split>,
    /// Splits of each table that are not committed yet.
    open: Vec<usize>,
    failed: FailedTables,
}

/// Copies all splits and finishes all tables; answers the tables that failed.
pub(super) async fn run(prepared: &Prepared, progress: &Arc<Progress>, control: Control, reporter: &Arc<Reporter>) -> Result<FailedTables> {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            splits: prepared.splits.iter().flatten().cloned().collect(),
            open: prepared.splits.iter().map(Vec::len).collect(),
            failed: FailedTables::new(),
        }),
        progress: progress.clone(),
        reporter: reporter.clone(),
        finishing: Semaphore::new(FINISHING_AT_ONCE),
    });
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let (finished, mut to_finish) = tokio::sync::mpsc::unbounded_channel::<usize>();
    let readers = std::mem::take(&mut *lock(&prepared.readers));
    for reader in readers {
        let lane = Lane::new(prepared, reader, control.clone(), progress.clone());
        tasks.spawn(run_lane(lane, shared.clone(), finished.clone()));
    }
    // Nothing is read for a table without splits: only its structure is wanted.
    for (index, _) in prepared.splits.iter().enumerate().filter(|(_, splits)| splits.is_empty()) {
        progress.set_table_state(index, StreamState::Running, None);
        let _ = finished.send(index);
    }
    drop(finished);
    // The channel closes when the last lane is done; the set is empty when the last table is finished too.
    loop {
        tokio::select! {
            Some(index) = to_finish.recv() => {
                tasks.spawn(finish_table(prepared.sink.clone(), prepared.plan.clone(), index, shared.clone()));
            }
            Some(done) = tasks.join_next() => {
                done.map_err(|panic| Error::internal("a lane broke down").because(panic))??;
            }
            else => break,
        }
    }
    let failed = std::mem::take(&mut lock(&shared.queue).failed);
    Ok(failed)
}

async fn run_lane(mut lane: Lane, shared: Arc<Shared>, finished: tokio::sync::mpsc::UnboundedSender<usize>) -> Result<()> {
    while let Some(split) = shared.next() {
        let table = split.table;
        shared.progress.set_table_state(table, StreamState::Running, None);
        match copy::copy_split(&mut lane, &split).await {
            Ok(losses) => {
                shared.report_losses(&lane, table, &losses);
                if shared.is_last(table) {
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

async fn finish_table(
    sink: Arc<dyn millrace_core::connector::Sink>,
    plan: Arc<millrace_core::plan::Plan>,
    index: usize,
    shared: Arc<Shared>,
) -> Result<()> {
    let _permit = shared.finishing.acquire().await;
    let table = &plan.tables[index];
    match sink.finish_table(table).await {
        Ok(()) => {
            shared.progress.set_table_state(index, StreamState::Finished, None);
            let message = format!("{} is complete", table.target.name);
            shared.reporter.publish(Level::Info, Side::Target, message, Body::General);
            Ok(())
        }
        Err(error) if super::is_table_failure(&error) => {
            shared.fail(index, error);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

impl Shared {
    fn next(&self) -> Option<Split> {
        lock(&self.queue).splits.pop_front()
    }

    /// Counts a committed split; answers whether it was the table's last one.
    fn is_last(&self, table: usize) -> bool {
        let mut queue = lock(&self.queue);
        queue.open[table] -= 1;
        queue.open[table] == 0 && !queue.failed.contains_key(&table)
    }

    fn fail(&self, table: usize, error: Error) {
        self.progress.set_table_state(table, StreamState::Failed, Some(error.chain()));
        self.reporter.publish(Level::Error, Side::Target, error.chain(), Body::Error);
        let mut queue = lock(&self.queue);
        queue.splits.retain(|split| split.table != table);
        queue.failed.entry(table).or_insert(error);
    }

    fn report_losses(&self, lane: &Lane, table: usize, losses: &[u64]) {
        let plan = &lane.plan.tables[table];
        for (column, count) in plan.columns.iter().filter(|column| lane.is_written(table, column)).zip(losses) {
            if *count > 0 {
                self.progress.add_loss(table, &column.target, *count);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere ends the run anyway; what is behind these locks is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Readers are boxed once per run.
pub(super) type Reader = Box<dyn SourceReader>;
