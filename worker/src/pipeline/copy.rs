//! One split from source to target: the innermost loop of a convert.
//!
//! Invariant: `Read::rows` counts exactly the rows that the encoder took, and the target commits only if it counted the same number.

use std::sync::{Arc, Mutex};

use millrace_core::catalog::Column;
use millrace_core::connector::{Batch, Sink, SourceReader, SplitWriter};
use millrace_core::ledger::{CutNumber, Epoch, LedgerKey};
use millrace_core::plan::{ColumnPlan, Plan};
use millrace_core::split::Split;
use millrace_core::value::{RowEncoder, ValueError, ValueRef};
use millrace_core::{Error, Kind, Result};
use tracing::Instrument as _;

use super::lanes::lock;
use super::patience::{Patience, stopped};
use super::prepare::{PartReader, Prepared};
use crate::control::Control;
use crate::progress::Progress;

/// A reader and a writer that copy splits.
pub(super) struct Lane {
    /// The source connection that is read.
    pub(super) part: usize,
    reader: Box<dyn SourceReader>,
    writer: Option<Box<dyn SplitWriter>>,
    sink: Arc<dyn Sink>,
    plan: Arc<Plan>,
    key: LedgerKey,
    epoch: Epoch,
    cut: CutNumber,
    control: Control,
    progress: Arc<Progress>,
    /// Rows that may still be written, if there is a limit.
    budget: Option<Arc<Mutex<u64>>>,
}

/// What one try has read, to be taken back if it fails.
#[derive(Default)]
struct Read {
    rows: u64,
    bytes: u64,
}

/// What became of a split.
pub(super) struct Done {
    /// How often each written column's policy acted.
    pub(super) losses: Vec<u64>,
    /// Whether the limit on rows was reached in it.
    pub(super) is_limited: bool,
}

impl Lane {
    pub(super) fn new(
        prepared: &Prepared,
        reader: PartReader,
        control: Control,
        progress: Arc<Progress>,
        budget: Option<Arc<Mutex<u64>>>,
    ) -> Self {
        Self {
            part: reader.part,
            reader: reader.reader,
            writer: None,
            sink: prepared.sink.clone(),
            plan: prepared.plan.clone(),
            key: prepared.key.clone(),
            epoch: prepared.epoch,
            cut: prepared.cut,
            control,
            progress,
            budget,
        }
    }

    /// Lets the cut's connection go.
    pub(super) async fn end(mut self) -> Result<()> {
        self.reader.close().await
    }

    fn rows_left(&self) -> Option<u64> {
        self.budget.as_ref().map(|budget| *lock(budget))
    }

    /// Takes rows from the budget; answers whether it is used up.
    fn spend(&self, rows: u64) -> bool {
        let Some(budget) = &self.budget else { return false };
        let mut left = lock(budget);
        *left = left.saturating_sub(rows);
        *left == 0
    }
}

/// Copies a split and commits it.
pub(super) async fn copy_split(lane: &mut Lane, split: &Split) -> Result<Done> {
    let span = tracing::info_span!(parent: &lane.progress.span(split.table), "split", ordinal = split.ordinal);
    copy_until_done(lane, split).instrument(span).await
}

async fn copy_until_done(lane: &mut Lane, split: &Split) -> Result<Done> {
    let mut patience = Patience::default();
    loop {
        let mut read = Read::default();
        let error = match try_split(lane, split, &mut read).await {
            Ok(losses) => return Ok(Done { losses, is_limited: lane.spend(read.rows) }),
            Err(error) => error,
        };
        // Whatever happened, this connection's transaction is over and the reader must be free for the next split.
        lane.writer = None;
        lane.reader.close().await?;
        lane.progress.take_back_read(split.table, read.rows, read.bytes);
        // A commit whose answer was lost may have happened, and another worker may have been quicker: then the target refuses these rows in some way.
        if let Some(rows) = committed(lane, split).await? {
            lane.progress.add_read(split.table, rows, 0);
            lane.progress.add_written(split.table, rows);
            lane.progress.meter().written(split.table, rows, &[]);
            return Ok(Done { losses: Vec::new(), is_limited: lane.spend(rows) });
        }
        if error.kind() == Kind::Conflict {
            // Of a fleet, this worker reads a moment that the others have given up.
            let kind = if lane.progress.is_shared() { Kind::CutLost } else { Kind::Internal };
            return Err(Error::new(kind, "a split is neither written nor to be written").because(error));
        }
        patience.wait(error, &mut lane.control).await?;
    }
}

async fn try_split(lane: &mut Lane, split: &Split, read: &mut Read) -> Result<Vec<u64>> {
    let plan = lane.plan.clone();
    let table = &plan.tables[split.table];
    let (sources, targets): (Vec<Column>, Vec<ColumnPlan>) = table
        .source
        .columns
        .iter()
        .zip(&table.columns)
        .filter(|(_, target)| target.is_written)
        .map(|(source, target)| (source.clone(), target.clone()))
        .unzip();
    let left = lane.rows_left();
    let writer = match &mut lane.writer {
        Some(writer) => writer,
        none => none.insert(lane.sink.writer(&lane.key, lane.epoch, lane.cut).await?),
    };
    writer.begin(table, &targets, split).await?;
    lane.reader.open(&table.source, &sources, split).await?;
    loop {
        lane.control.checkpoint().await.map_err(stopped)?;
        let batch = match left {
            None => lane.reader.next_batch(writer.encoder()).await,
            Some(left) if left == read.rows => Ok(Batch { is_last: true, ..Batch::default() }),
            Some(left) => lane.reader.next_batch(&mut Limited { rows: writer.encoder(), left: left - read.rows }).await,
        };
        let batch = batch.map_err(|error| name_table(error, &table.source.name.to_string()))?;
        writer.send().await?;
        read.rows += batch.rows;
        read.bytes += batch.bytes;
        lane.progress.add_read(split.table, batch.rows, batch.bytes);
        lane.progress.meter().read(split.table, batch.rows, batch.bytes);
        if batch.is_last {
            break;
        }
    }
    lane.reader.close().await?;
    lane.progress.meter().commit(writer.commit(read.rows, read.bytes)).await?;
    lane.progress.add_written(split.table, read.rows);
    let losses = writer.take_losses();
    lane.progress.meter().written(split.table, read.rows, &losses);
    Ok(losses)
}

async fn committed(lane: &mut Lane, split: &Split) -> Result<Option<u64>> {
    let target = &lane.plan.tables[split.table].target;
    let mut patience = Patience::default();
    loop {
        match lane.sink.ledger().committed_splits(&lane.key, target).await {
            Ok(done) => return Ok(done.into_iter().find(|(ordinal, _)| *ordinal == split.ordinal).map(|(_, rows)| rows)),
            Err(error) => patience.wait(error, &mut lane.control).await?,
        }
    }
}

fn name_table(error: Error, table: &str) -> Error {
    if error.detail("table").is_some() { error } else { error.with("table", table) }
}

/// An encoder that is full after so many rows.
struct Limited<'a> {
    rows: &'a mut dyn RowEncoder,
    left: u64,
}

impl RowEncoder for Limited<'_> {
    fn begin_row(&mut self) {
        self.rows.begin_row();
    }

    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        self.rows.value(column, value)
    }

    fn end_row(&mut self) {
        self.rows.end_row();
        self.left -= 1;
    }

    fn abandon_row(&mut self) {
        self.rows.abandon_row();
    }

    fn is_full(&self) -> bool {
        self.left == 0 || self.rows.is_full()
    }
}
