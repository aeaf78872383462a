//! Counters of a running task, written by its lanes and read by reporters at any time.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use millrace_core::id::NodeId;
use millrace_core::stats::{SideStats, StatsReport, TableStats};
use millrace_core::stream::StreamState;
use tracing::Span;

use crate::metrics;

/// Counters of one run.
#[derive(Debug)]
pub struct Progress {
    source_node: NodeId,
    target_node: NodeId,
    started: Instant,
    started_at: i64,
    inner: Mutex<Inner>,
    interval: [AtomicU64; 2],
    /// Whether this process speaks for the run: of a fleet, only the leader does.
    is_heard: AtomicBool,
    /// Whether several processes move the rows, so that only the ledger can count them.
    is_shared: AtomicBool,
    meter: metrics::Meter,
}

#[derive(Debug)]
struct Inner {
    tables: Vec<TableProgress>,
    notices: Vec<String>,
    cuts_lost: u32,
    is_consistent: bool,
    is_moving: bool,
    source: StreamState,
    target: StreamState,
    frozen_ms: Option<u64>,
    /// The span in which the tables were named.
    task: Span,
}

#[derive(Debug, Clone)]
struct TableProgress {
    stats: TableStats,
    started: Option<Instant>,
    /// Values that a policy changed, per column.
    losses: BTreeMap<String, u64>,
    span: Option<Span>,
}

impl Progress {
    /// No tables yet; both sides are ready.
    pub fn new(started_at: i64) -> Self {
        Self {
            source_node: NodeId::mint(),
            target_node: NodeId::mint(),
            started: Instant::now(),
            started_at,
            inner: Mutex::new(Inner {
                tables: Vec::new(),
                notices: Vec::new(),
                cuts_lost: 0,
                is_consistent: true,
                is_moving: false,
                source: StreamState::Ready,
                target: StreamState::Ready,
                frozen_ms: None,
                task: Span::none(),
            }),
            interval: [AtomicU64::new(0), AtomicU64::new(0)],
            is_heard: AtomicBool::new(true),
            is_shared: AtomicBool::new(false),
            meter: metrics::Meter::default(),
        }
    }

    /// Whether this process speaks for the run.
    pub fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed)
    }

    /// From now on it does, or does not.
    pub(crate) fn set_heard(&self, is_heard: bool) {
        self.is_heard.store(is_heard, Ordering::Relaxed);
    }

    /// From now on the tables' counters are the ledger's, whoever has moved the rows.
    pub(crate) fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// Whether several processes move the rows.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// A table's counters as the ledger has them.
    pub(crate) fn set_totals(&self, index: usize, rows: u64, bytes: u64) {
        if let Some(table) = self.lock().tables.get_mut(index) {
            (table.stats.rows_read, table.stats.rows_written, table.stats.bytes) = (rows, rows, bytes);
        }
    }

    /// How often the source's moment was lost, and whether all rows are of one, as the ledger has it.
    pub(crate) fn set_cuts(&self, lost: u32, is_consistent: bool) {
        let mut inner = self.lock();
        inner.cuts_lost = lost;
        inner.is_consistent = is_consistent;
    }

    /// What this process has moved.
    pub(crate) fn meter(&self) -> &metrics::Meter {
        &self.meter
    }

    /// Whether the run is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().frozen_ms.is_some()
    }

    /// The span of a table that is worked on, else that of the task.
    pub(crate) fn span(&self, index: usize) -> Span {
        let inner = self.lock();
        inner.tables.get(index).and_then(|table| table.span.clone()).unwrap_or_else(|| inner.task.clone())
    }

    /// The reader's name.
    pub fn source_node(&self) -> &NodeId {
        &self.source_node
    }

    /// The writer's name.
    pub fn target_node(&self) -> &NodeId {
        &self.target_node
    }

    /// Names the tables, in the plan's order: target name, estimated rows, estimated bytes.
    pub fn set_tables(&self, tables: impl IntoIterator<Item = (String, Option<u64>, Option<u64>)>) {
        let tables: Vec<TableProgress> = tables
            .into_iter()
            .map(|(table, estimated_rows, estimated_bytes)| TableProgress {
                started: None,
                losses: BTreeMap::new(),
                span: None,
                stats: TableStats {
                    table,
                    state: StreamState::Ready,
                    rows_read: 0,
                    rows_written: 0,
                    failed: 0,
                    bytes: 0,
                    elapsed_ms: 0,
                    estimated_rows,
                    estimated_bytes,
                    error: None,
                },
            })
            .collect();
        self.meter.name(tables.iter().map(|table| table.stats.table.as_str()));
        let mut inner = self.lock();
        inner.tables = tables;
        inner.task = Span::current();
    }

    /// Something that the user should know.
    pub fn notice(&self, text: impl Into<String>) {
        let (text, mut inner) = (text.into(), self.lock());
        if !inner.notices.contains(&text) {
            inner.notices.push(text);
        }
    }

    /// Whether rows move, after everything was prepared.
    pub(crate) fn set_moving(&self, is_moving: bool) {
        self.lock().is_moving = is_moving;
    }

    /// As it was set.
    pub(crate) fn is_moving(&self) -> bool {
        self.lock().is_moving
    }

    /// The source's moment was lost; `is_consistent` says whether all rows are still of one moment.
    pub fn cut_lost(&self, is_consistent: bool) {
        let mut inner = self.lock();
        inner.cuts_lost += 1;
        inner.is_consistent = is_consistent;
    }

    /// Sets both sides' state; a terminal one freezes the clock.
    pub fn set_state(&self, source: StreamState, target: StreamState) {
        let elapsed = self.elapsed_ms();
        let mut inner = self.lock();
        inner.source = inner.source.after(source);
        inner.target = inner.target.after(target);
        if inner.source.is_terminal() && inner.target.is_terminal() && inner.frozen_ms.is_none() {
            inner.frozen_ms = Some(elapsed);
        }
        for table in &mut inner.tables {
            let next = match target {
                StreamState::Paused if table.stats.state == StreamState::Running => StreamState::Paused,
                StreamState::Running if table.stats.state == StreamState::Paused => StreamState::Running,
                // A table that was not done when the run ended shares the run's end, except success.
                StreamState::Stopped | StreamState::Failed if !table.stats.state.is_terminal() => StreamState::Stopped,
                StreamState::EventLimitReached | StreamState::TimeLimitReached if !table.stats.state.is_terminal() => target,
                _ => continue,
            };
            table.set_state(next);
        }
        let Inner { tables, task, frozen_ms, .. } = &mut *inner;
        tables.iter_mut().for_each(|table| table.trace(task));
        if frozen_ms.is_some() {
            *task = Span::none();
        }
    }

    /// Sets one table's state.
    pub fn set_table_state(&self, index: usize, state: StreamState, error: Option<String>) {
        let Inner { tables, task, .. } = &mut *self.lock();
        if let Some(table) = tables.get_mut(index) {
            table.set_state(state);
            table.trace(task);
            if error.is_some() {
                table.stats.error = error;
            }
        }
    }

    /// Counts rows and bytes that a reader gave.
    pub fn add_read(&self, index: usize, rows: u64, bytes: u64) {
        if self.is_shared() {
            return;
        }
        if let Some(table) = self.lock().tables.get_mut(index) {
            table.stats.rows_read += rows;
            table.stats.bytes += bytes;
        }
    }

    /// Counts rows that are durable in the target.
    pub fn add_written(&self, index: usize, rows: u64) {
        if self.is_shared() {
            return;
        }
        if let Some(table) = self.lock().tables.get_mut(index) {
            table.stats.rows_written += rows;
        }
    }

    /// Takes back what was read for a split that will be read again.
    pub fn take_back_read(&self, index: usize, rows: u64, bytes: u64) {
        if self.is_shared() {
            return;
        }
        if let Some(table) = self.lock().tables.get_mut(index) {
            table.stats.rows_read = table.stats.rows_read.saturating_sub(rows);
            table.stats.bytes = table.stats.bytes.saturating_sub(bytes);
        }
    }

    /// Counts values that a column's policy changed.
    pub fn add_loss(&self, index: usize, column: &str, count: u64) {
        if let Some(table) = self.lock().tables.get_mut(index) {
            *table.losses.entry(column.to_owned()).or_default() += count;
        }
    }

    /// What policies changed since the last call: table, column, count.
    pub fn take_losses(&self) -> Vec<(String, String, u64)> {
        let mut losses = Vec::new();
        for table in &mut self.lock().tables {
            let name = &table.stats.table;
            losses.extend(std::mem::take(&mut table.losses).into_iter().map(|(column, count)| (name.clone(), column, count)));
        }
        losses
    }

    /// Counts rows that could not be written.
    pub fn add_failed(&self, index: usize, rows: u64) {
        if let Some(table) = self.lock().tables.get_mut(index) {
            table.stats.failed += rows;
        }
    }

    /// A snapshot of everything. The bytes of the last interval are those since the previous call with `closes_interval`.
    pub fn report(&self, closes_interval: bool) -> StatsReport {
        let elapsed_ms = self.elapsed_ms();
        let inner = self.lock();
        let tables: Vec<TableStats> = inner.tables.iter().map(TableProgress::snapshot).collect();
        let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
        let side = |index: usize, node: &NodeId, state, rows| SideStats {
            node: node.clone(),
            state,
            rows,
            failed: if index == 1 { tables.iter().map(|table| table.failed).sum() } else { 0 },
            bytes,
            interval_bytes: bytes.saturating_sub(if closes_interval {
                self.interval[index].swap(bytes, Ordering::Relaxed)
            } else {
                self.interval[index].load(Ordering::Relaxed)
            }),
            started_at: self.started_at,
            elapsed_ms: inner.frozen_ms.unwrap_or(elapsed_ms),
        };
        StatsReport {
            source: side(0, &self.source_node, inner.source, tables.iter().map(|table| table.rows_read).sum()),
            target: side(1, &self.target_node, inner.target, tables.iter().map(|table| table.rows_written).sum()),
            notices: inner.notices.clone(),
            cuts_lost: inner.cuts_lost,
            is_consistent: inner.is_consistent,
            tables,
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // The counters stay usable even if a thread panicked while it held them: every update is a single addition.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl TableProgress {
    fn set_state(&mut self, state: StreamState) {
        if state == StreamState::Running && self.started.is_none() {
            self.started = Some(Instant::now());
        }
        if state.is_terminal() && !self.stats.state.is_terminal() {
            self.stats.elapsed_ms = self.elapsed_ms();
        }
        self.stats.state = self.stats.state.after(state);
    }

    /// Opens the table's span when it is begun and closes it when it is done.
    fn trace(&mut self, task: &Span) {
        if self.stats.state.is_terminal() {
            self.span = None;
        } else if self.span.is_none() {
            self.span = metrics::table_span(task, &self.stats.table, self.stats.state);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.started.map_or(0, |started| started.elapsed().as_millis() as u64)
    }

    fn snapshot(&self) -> TableStats {
        let mut stats = self.stats.clone();
        if !stats.state.is_terminal() {
            stats.elapsed_ms = self.elapsed_ms();
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sums_of_the_tables_and_intervals_close() {
        let progress = Progress::new(0);
        progress.set_tables([("a".to_owned(), None, None), ("b".to_owned(), Some(5), None)]);
        progress.add_read(0, 3, 30);
        progress.add_read(1, 2, 20);
        progress.add_written(1, 2);
        let report = progress.report(true);
        assert_eq!((report.source.rows, report.target.rows, report.source.bytes), (5, 2, 50));
        assert_eq!(report.source.interval_bytes, 50);
        assert_eq!(progress.report(true).source.interval_bytes, 0);
    }

    #[test]
    fn a_stop_ends_unfinished_tables_but_not_finished_ones() {
        let progress = Progress::new(0);
        progress.set_tables([("a".to_owned(), None, None), ("b".to_owned(), None, None)]);
        progress.set_table_state(0, StreamState::Finished, None);
        progress.set_state(StreamState::Stopped, StreamState::Stopped);
        let states: Vec<_> = progress.report(false).tables.iter().map(|table| table.state).collect();
        assert_eq!(states, [StreamState::Finished, StreamState::Stopped]);
    }
}
