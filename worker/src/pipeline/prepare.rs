//! Before the first row: claim the ledger, open the cut, plan, create the tables, cut them into splits.
//!
//! The cut comes before the catalog: a table that changes its definition in between is noticed by the source itself when it is read
//! ([`millrace_core::Kind::DefinitionChanged`]), and from the first read on the cut's transactions hold its definition.

use std::sync::Arc;

use millrace_core::bus::{Body, Level, Side};
use millrace_core::catalog::{Catalog, LogicalType, Table, TableName};
use millrace_core::connector::{ColumnFact, CutMethod, Sink, SourceReader};
use millrace_core::ledger::{Epoch, LedgerKey};
use millrace_core::plan::Plan;
use millrace_core::split::{Split, check_cover};
use millrace_core::{Error, Kind, Result};

use super::report::Reporter;
use crate::convert::ConvertTask;
use crate::progress::Progress;

/// About so many bytes are one split: large enough that a commit costs little beside it, small enough that lanes end together.
const SPLIT_BYTES: u64 = 16 << 20;
const SPLIT_ROWS_MIN: u64 = 10_000;
const SPLIT_ROWS_MAX: u64 = 250_000;

/// Everything that the lanes need.
pub(super) struct Prepared {
    pub(super) key: LedgerKey,
    pub(super) epoch: Epoch,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) plan: Arc<Plan>,
    pub(super) readers: std::sync::Mutex<Vec<Box<dyn SourceReader>>>,
    /// Per table of the plan.
    pub(super) splits: Vec<Vec<Split>>,
}

pub(super) async fn prepare(task: &ConvertTask, progress: &Arc<Progress>, reporter: &Reporter) -> Result<Prepared> {
    let key = task.key();
    let sink = task.open_sink().await?;
    let mut source = task.open_source().await?;
    let epoch = sink.ledger().claim(&key).await?;
    let cut = source.open_cut(task.lanes()).await?;
    let mut readers = cut.readers;
    let place = cut.position.as_ref().map_or_else(|| "without a log position".to_owned(), ToString::to_string);
    reporter.publish(Level::Info, Side::Source, format!("cut opened with {} readers ({})", readers.len(), place), Body::General);
    if cut.method == CutMethod::SingleSnapshot && task.lanes() > 1 {
        reporter.notice("the source gives only one consistent snapshot; tables are read by one reader");
    }
    let Some(reader) = readers.first_mut() else {
        return Err(Error::internal("a cut without readers"));
    };

    let catalog = source.catalog(task.wanted_tables()?).await?;
    let facts = probe(reader.as_mut(), &catalog).await?;
    let mut plan = task.plan(&catalog, &facts)?;
    order_by_size(&mut plan);
    plan.check()?;
    report_plan(&plan, progress, reporter);

    reporter.stage(2, "replicating structure");
    let leftover = sink.ledger().unfinished_tables(&key.config).await?;
    sink.check_target(&plan, &leftover).await?;
    sink.create_tables(&key, epoch, &plan, &leftover).await?;

    let mut splits = Vec::with_capacity(plan.tables.len());
    for (index, table) in plan.tables.iter().enumerate() {
        if task.is_structure_only()? {
            splits.push(Vec::new());
            continue;
        }
        let planned = reader.split(index, &table.source, split_rows(&table.source, task.lanes())).await?;
        check_cover(&planned)
            .map_err(|gap| Error::new(Kind::Internal, format!("the splits of `{}` do not cover it: {gap}", table.source.name)))?;
        sink.ledger().record_splits(&key, &table.target, &planned).await?;
        splits.push(planned);
    }
    Ok(Prepared { key, epoch, sink, plan: Arc::new(plan), readers: std::sync::Mutex::new(readers), splits })
}

/// What only the data at the cut can tell.
pub(crate) async fn probe(reader: &mut dyn SourceReader, catalog: &Catalog) -> Result<Vec<(TableName, ColumnFact)>> {
    let mut facts = Vec::new();
    for table in &catalog.tables {
        if table.columns.iter().any(|column| matches!(column.logical, LogicalType::Time(_))) {
            let found = reader.probe(table).await?;
            facts.extend(found.into_iter().map(|fact| (table.name.clone(), fact)));
        }
    }
    Ok(facts)
}

/// The largest first: their indexes are then built while the others are still being copied.
fn order_by_size(plan: &mut Plan) {
    plan.tables.sort_by_key(|table| std::cmp::Reverse(table.source.estimated_bytes.unwrap_or(0)));
}

fn report_plan(plan: &Plan, progress: &Progress, reporter: &Reporter) {
    let table =
        |table: &millrace_core::plan::TablePlan| (table.target.name.clone(), table.source.estimated_rows, table.source.estimated_bytes);
    progress.set_tables(plan.tables.iter().map(table));
    for table in &plan.tables {
        let body = Body::TableEstimate {
            table: table.target.name.clone(),
            rows: table.source.estimated_rows.unwrap_or(0),
            bytes: table.source.estimated_bytes.unwrap_or(0),
        };
        reporter.publish(Level::Info, Side::Source, format!("table {}", table.target.name), body);
        for note in table.notes.iter().chain(&table.source.notes) {
            reporter.notice(format!("{}: {note}", table.source.name.name));
        }
    }
    for note in &plan.notes {
        reporter.notice(note.clone());
    }
}

/// Rows of one split, from the table's estimated row length, and not more than a fair share of a lane.
fn split_rows(table: &Table, lanes: usize) -> u64 {
    let rows = table.estimated_rows.unwrap_or(0).max(1);
    let row_bytes = (table.estimated_bytes.unwrap_or(0) / rows).max(1);
    let share = rows / (lanes as u64 * 3);
    (SPLIT_BYTES / row_bytes).min(share).clamp(SPLIT_ROWS_MIN, SPLIT_ROWS_MAX)
}
