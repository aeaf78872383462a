//! Before the first row: claim the ledger, open the cuts, plan, bring the tables about, cut them into splits. A run that is taken up again finds in the ledger what
//! it has made and written already.
//!
//! The cut comes before the catalog: a table that changes its definition in between is noticed by the source itself when it is read
//! ([`millrace_core::Kind::DefinitionChanged`]), and from the first read on the cut's transactions hold its definition.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_core::bus::{Body, Level, Side};
use millrace_core::catalog::{Catalog, LogicalType, Table, TableName};
use millrace_core::config::OnCutLost;
use millrace_core::connector::{ColumnFact, CutMethod, Sink, SourcePart, SourceReader};
use millrace_core::ledger::{CutNumber, Epoch, LedgerKey, TableRecord};
use millrace_core::plan::{Plan, TablePlan};
use millrace_core::split::{Split, check_cover};
use millrace_core::stream::StreamState;
use millrace_core::{Error, Kind, Result};

use super::Ending;
use super::report::Reporter;
use crate::convert::{ConvertTask, at_source, forgive};
use crate::progress::Progress;

/// About so many bytes are one split: large enough that a commit costs little beside it, small enough that lanes end together.
const SPLIT_BYTES: u64 = 16 << 20;
const SPLIT_ROWS_MIN: u64 = 10_000;
const SPLIT_ROWS_MAX: u64 = 250_000;

/// A reader and the source connection that it reads.
pub(super) struct PartReader {
    pub(super) part: usize,
    pub(super) reader: Box<dyn SourceReader>,
}

/// Everything that the lanes need.
pub(super) struct Prepared {
    pub(super) key: LedgerKey,
    pub(super) epoch: Epoch,
    /// The moment that its readers see.
    pub(super) cut: CutNumber,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) plan: Arc<Plan>,
    pub(super) readers: std::sync::Mutex<Vec<PartReader>>,
    /// Per table of the plan, those that are still to be read.
    pub(super) splits: Vec<Vec<Split>>,
    /// Indexes of tables whose keys are made already.
    pub(super) finished: BTreeSet<usize>,
    /// Rows that may still be written.
    pub(super) row_budget: Option<u64>,
}

/// What a run finds.
pub(super) enum Found {
    /// Something is to be copied.
    Work(Box<Prepared>),
    /// The run has finished already; its process ended before it could say so.
    Done(Ending),
}

pub(super) async fn prepare(task: &ConvertTask, progress: &Arc<Progress>, reporter: &Reporter) -> Result<Found> {
    let key = task.key();
    let claim = async {
        let sink = task.open_sink().await?;
        let epoch = sink.ledger().claim(&key).await?;
        let records = sink.ledger().tables(&key).await?;
        let is_finished = sink.ledger().is_finished(&key).await?;
        Ok((sink, epoch, records, is_finished))
    };
    let ((sink, epoch, records, is_finished), (mut readers, parts)) = tokio::try_join!(claim, open_cuts(task, reporter))?;
    if is_finished {
        return Ok(Found::Done(report_finished(&records, progress, reporter)));
    }
    let (plan, is_continued) = structure(task, &sink, (&key, epoch), &parts, &records, progress, reporter).await?;
    let mut prepared = Prepared { cut: epoch.into(), row_budget: task.row_limit(), ..Prepared::new(key, epoch, sink, plan) };
    prepared.plan_splits(task, task.lanes(), &mut readers, if is_continued { &records } else { &[] }, progress).await?;
    if is_continued {
        prepared.report_continuation(&records, progress, reporter);
    }
    prepared.readers = std::sync::Mutex::new(readers);
    Ok(Found::Work(Box::new(prepared)))
}

/// Plans the tables and makes them; answers whether what earlier moments have left stays.
pub(super) async fn structure(
    task: &ConvertTask,
    sink: &Arc<dyn Sink>,
    (key, epoch): (&LedgerKey, Epoch),
    parts: &[SourcePart],
    records: &[TableRecord],
    progress: &Progress,
    reporter: &Reporter,
) -> Result<(Plan, bool)> {
    let is_continued = task.on_cut_lost() == OnCutLost::Continue && !records.is_empty();
    let facts = task.inspect(parts).await?;
    let mut plan = task.plan(parts, &facts)?;
    forgive(&mut plan, records);
    order_by_size(&mut plan);
    if is_continued {
        keep_recorded(&mut plan, records, reporter)?;
    }
    plan.check()?;
    report_plan(&plan, progress, reporter);

    reporter.stage(2, "replicating structure");
    if !is_continued {
        if !records.is_empty() {
            progress.cut_lost(true);
            reporter.notice(
                "the source's moment was lost: what this run had written was removed, and everything is read again at a new moment",
            );
        }
        sink.create_tables(key, epoch, &plan).await?;
    }
    Ok((plan, is_continued))
}

/// Counts what a finished run has written.
pub(super) fn report_finished(records: &[TableRecord], progress: &Progress, reporter: &Reporter) -> Ending {
    progress.set_tables(records.iter().map(|record| (record.target.name.clone(), None, None)));
    let (mut is_whole, mut cuts) = (true, BTreeSet::new());
    for (index, record) in records.iter().enumerate() {
        for (_, committed) in &record.splits {
            let Some(committed) = committed else {
                is_whole = false;
                continue;
            };
            cuts.insert(committed.cut);
            progress.add_read(index, committed.rows, 0);
            progress.add_written(index, committed.rows);
            committed.losses.iter().for_each(|(column, count)| progress.add_loss(index, column, *count));
        }
        progress.set_table_state(index, StreamState::Finished, None);
    }
    if cuts.len() > 1 {
        progress.cut_lost(false);
    }
    reporter.notice("the run had finished before its process ended");
    if is_whole { Ending::Complete } else { Ending::EventLimit }
}

/// One consistent moment per source, its tables and what its data says about them.
async fn open_cuts(task: &ConvertTask, reporter: &Reporter) -> Result<(Vec<PartReader>, Vec<SourcePart>)> {
    let lanes = (task.lanes() / task.sources.len().max(1)).max(1);
    let (mut readers, mut parts) = (Vec::new(), Vec::new());
    for index in 0..task.sources.len() {
        let mut source = task.open_source(index).await?;
        let cut = source.open_cut(lanes).await.map_err(|error| at_source(error, index))?;
        let place = cut.position.as_ref().map_or_else(|| "without a log position".to_owned(), ToString::to_string);
        reporter.publish(Level::Info, Side::Source, format!("cut opened with {} readers ({place})", cut.readers.len()), Body::General);
        if cut.method == CutMethod::SingleSnapshot && lanes > 1 {
            reporter.notice("the source gives only one consistent snapshot; tables are read by one reader");
        }
        let mut opened = cut.readers;
        let Some(reader) = opened.first_mut() else { return Err(Error::internal("a cut without readers")) };
        let catalog = task.catalog(source.as_mut(), index).await?;
        let facts = probe(reader.as_mut(), &catalog).await?;
        parts.push(task.part(index, catalog, facts));
        readers.extend(opened.into_iter().map(|reader| PartReader { part: index, reader }));
    }
    Ok((readers, parts))
}

/// A continued run copies the tables that it began with, and only if they are still the same.
fn keep_recorded(plan: &mut Plan, records: &[TableRecord], reporter: &Reporter) -> Result<()> {
    let record = |table: &TablePlan| records.iter().find(|record| record.target == table.target);
    for table in plan.tables.iter().filter(|table| record(table).is_none()) {
        reporter.notice(format!("`{}` came into being after the run had begun and is not copied", table.source.name.name));
    }
    plan.tables.retain(|table| record(table).is_some());
    for record in records {
        let table = plan.tables.iter().find(|table| table.target == record.target);
        let reason = match table {
            None => "is no longer there",
            Some(table) if table.fingerprint() != record.fingerprint => "has changed its definition",
            Some(_) => continue,
        };
        let text = format!(
            "the source of `{}` {reason} since the run began, so it cannot go on; stop it and start the config again",
            record.target.name
        );
        return Err(Error::new(Kind::DefinitionChanged, text).with("table", record.target.name.clone()));
    }
    Ok(())
}

impl Prepared {
    /// Without readers and splits yet.
    pub(super) fn new(key: LedgerKey, epoch: Epoch, sink: Arc<dyn Sink>, plan: Plan) -> Self {
        Self {
            key,
            epoch,
            cut: epoch.into(),
            sink,
            plan: Arc::new(plan),
            readers: std::sync::Mutex::new(Vec::new()),
            splits: Vec::new(),
            finished: BTreeSet::new(),
            row_budget: None,
        }
    }

    /// Plans splits of tables that have none and records them; of the others, takes those that are not committed.
    pub(super) async fn plan_splits(
        &mut self,
        task: &ConvertTask,
        lanes: usize,
        readers: &mut [PartReader],
        records: &[TableRecord],
        progress: &Progress,
    ) -> Result<()> {
        for (index, table) in self.plan.tables.iter().enumerate() {
            let record = records.iter().find(|record| record.target == table.target);
            if record.is_some_and(|record| record.is_finished) {
                self.finished.insert(index);
            }
            if task.is_structure_only()? {
                self.splits.push(Vec::new());
                continue;
            }
            if let Some(record) = record.filter(|record| !record.splits.is_empty()) {
                let mut open = Vec::new();
                for (split, committed) in &record.splits {
                    match committed {
                        Some(committed) => {
                            progress.add_read(index, committed.rows, 0);
                            progress.add_written(index, committed.rows);
                            committed.losses.iter().for_each(|(column, count)| progress.add_loss(index, column, *count));
                            self.row_budget = self.row_budget.map(|budget| budget.saturating_sub(committed.rows));
                        }
                        None => open.push(Split { table: index, ..split.clone() }),
                    }
                }
                self.splits.push(open);
                continue;
            }
            let Some(reader) = readers.iter_mut().find(|reader| reader.part == table.part) else {
                return Err(Error::internal("a table of a source without readers"));
            };
            let rows = if table.is_indivisible { u64::MAX / 4 } else { split_rows(&table.source, lanes) };
            let planned = reader.reader.split(index, &table.source, rows).await?;
            check_cover(&planned)
                .map_err(|gap| Error::new(Kind::Internal, format!("the splits of `{}` do not cover it: {gap}", table.source.name)))?;
            self.sink.ledger().record_splits(&self.key, self.epoch, &table.target, &planned).await?;
            self.splits.push(planned);
        }
        Ok(())
    }

    /// Says whether the copy is still of one moment.
    pub(super) fn report_continuation(&self, records: &[TableRecord], progress: &Progress, reporter: &Reporter) {
        let committed: Vec<_> = records.iter().flat_map(|record| &record.splits).filter_map(|(_, committed)| committed.as_ref()).collect();
        let cuts: BTreeSet<CutNumber> = committed.iter().map(|split| split.cut).collect();
        let is_all_read = self.splits.iter().all(Vec::is_empty);
        let is_consistent = cuts.is_empty() || cuts.len() == 1 && is_all_read;
        progress.cut_lost(is_consistent);
        let total: usize = records.iter().map(|record| record.splits.len()).sum();
        let mut text = format!("the source's moment was lost: {} of {total} splits were committed and stay", committed.len());
        if !is_consistent {
            text.push_str("; the others are read at a new moment, so the copy is not of one moment");
        }
        reporter.notice(text);
    }
}

/// What only the data at the cut can tell.
pub(crate) async fn probe(reader: &mut dyn SourceReader, catalog: &Catalog) -> Result<Vec<(TableName, ColumnFact)>> {
    let mut facts = Vec::new();
    for table in &catalog.tables {
        if table.columns.iter().any(|column| matches!(column.logical, LogicalType::Time(_) | LogicalType::Spatial { .. })) {
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

pub(super) fn report_plan(plan: &Plan, progress: &Progress, reporter: &Reporter) {
    let table = |table: &TablePlan| (table.target.name.clone(), table.source.estimated_rows, table.source.estimated_bytes);
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
