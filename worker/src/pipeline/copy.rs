//! One split from source to target: the innermost loop of a convert.
//!
//! Invariant: `Read::rows` counts exactly the rows that the encoder took, and the target commits only if it counted the same number.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use millrace_core::catalog::Column;
use millrace_core::connector::{Sink, SplitWriter};
use millrace_core::ledger::{Epoch, LedgerKey};
use millrace_core::plan::{ColumnPlan, Plan};
use millrace_core::split::Split;
use millrace_core::{Disposition, Error, Kind, Result};

use super::lanes::Reader;
use super::prepare::Prepared;
use crate::control::Control;
use crate::progress::Progress;

/// How often one split is tried before its error ends the run.
const TRIES: usize = 6;

/// A reader and a writer that copy splits.
pub(super) struct Lane {
    reader: Reader,
    writer: Option<Box<dyn SplitWriter>>,
    sink: Arc<dyn Sink>,
    pub(super) plan: Arc<Plan>,
    key: LedgerKey,
    epoch: Epoch,
    control: Control,
    progress: Arc<Progress>,
}

/// What one try has read, to be taken back if it fails.
#[derive(Default)]
struct Read {
    rows: u64,
    bytes: u64,
}

impl Lane {
    pub(super) fn new(prepared: &Prepared, reader: Reader, control: Control, progress: Arc<Progress>) -> Self {
        Self {
            reader,
            writer: None,
            sink: prepared.sink.clone(),
            plan: prepared.plan.clone(),
            key: prepared.key.clone(),
            epoch: prepared.epoch,
            control,
            progress,
        }
    }

    /// Whether a planned column is written; the target computes generated ones itself.
    pub(super) fn is_written(&self, table: usize, column: &ColumnPlan) -> bool {
        let source = self.plan.tables[table].source.columns.iter().find(|source| source.name == column.source);
        source.is_some_and(|source| source.generated.is_none())
    }

    /// Lets the cut's connection go.
    pub(super) async fn end(mut self) -> Result<()> {
        self.reader.close().await
    }
}

/// Copies a split and commits it; answers how often each written column's policy acted.
pub(super) async fn copy_split(lane: &mut Lane, split: &Split) -> Result<Vec<u64>> {
    let mut waits = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_max_times(TRIES - 1)
        .build();
    loop {
        let mut read = Read::default();
        let error = match try_split(lane, split, &mut read).await {
            Ok(losses) => return Ok(losses),
            Err(error) => error,
        };
        // Whatever happened, this connection's transaction is over and the reader must be free for the next split.
        lane.writer = None;
        lane.reader.close().await?;
        lane.progress.take_back_read(split.table, read.rows, read.bytes);
        let Disposition::Retry { after } = error.disposition() else { return Err(error) };
        let Some(wait) = waits.next() else { return Err(error) };
        tracing::warn!(error = %error.chain(), split = split.ordinal, "trying a split again");
        tokio::time::sleep(wait.max(after)).await;
        lane.control.checkpoint().await.map_err(stopped)?;
        // A commit whose answer was lost may have happened.
        if let Some(rows) = committed(lane, split).await? {
            lane.progress.add_read(split.table, rows, 0);
            lane.progress.add_written(split.table, rows);
            return Ok(Vec::new());
        }
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
        .filter(|(source, _)| source.generated.is_none())
        .map(|(source, target)| (source.clone(), target.clone()))
        .unzip();
    let writer = match &mut lane.writer {
        Some(writer) => writer,
        none => none.insert(lane.sink.writer(&lane.key, lane.epoch).await?),
    };
    writer.begin(table, &targets, split).await?;
    lane.reader.open(&table.source, &sources, split).await?;
    loop {
        lane.control.checkpoint().await.map_err(stopped)?;
        let batch = lane.reader.next_batch(writer.encoder()).await.map_err(|error| name_table(error, &table.source.name.to_string()))?;
        writer.send().await?;
        read.rows += batch.rows;
        read.bytes += batch.bytes;
        lane.progress.add_read(split.table, batch.rows, batch.bytes);
        if batch.is_last {
            break;
        }
    }
    lane.reader.close().await?;
    writer.commit(read.rows).await?;
    lane.progress.add_written(split.table, read.rows);
    Ok(writer.take_losses())
}

async fn committed(lane: &mut Lane, split: &Split) -> Result<Option<u64>> {
    let target = &lane.plan.tables[split.table].target;
    let done = lane.sink.ledger().committed_splits(&lane.key, target).await?;
    Ok(done.into_iter().find(|(ordinal, _)| *ordinal == split.ordinal).map(|(_, rows)| rows))
}

fn name_table(error: Error, table: &str) -> Error {
    if error.detail("table").is_some() { error } else { error.with("table", table) }
}

fn stopped(_: crate::control::Stopped) -> Error {
    Error::new(Kind::Cancelled, "the run was stopped")
}
