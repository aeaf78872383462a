//! The leader convenes moments, plans, offers splits, finishes tables and says the last word. Any worker may take over at any step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millrace_core::bus::{Body, Level, Side};
use millrace_core::config::OnCutLost;
use millrace_core::connector::SourcePart;
use millrace_core::fleet::{CutPhase, FleetCut, TableFailure, TableWork, WorkItem};
use millrace_core::ledger::CutNumber;
use millrace_core::plan::TablePlan;
use millrace_core::stream::StreamState;
use millrace_core::{Disposition, Error, Kind, Result};
use tokio::task::JoinSet;

use super::{Fleet, LANES, conference};
use crate::control::Control;
use crate::pipeline::lanes::{Copied, FailedTables};
use crate::pipeline::patience::{self, Patience};
use crate::pipeline::prepare::{self, PartReader, Prepared};
use crate::pipeline::{Ending, FRUITLESS, RESTARTS, finish, is_table_failure, probe};

/// How much smaller splits are than those of one process.
const FINER: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Who has led for so long without an error has all tries again.
const CALM: Duration = Duration::from_secs(60);
/// How often the queue is asked whether it has lost something.
const COUNT_EVERY: u32 = 10;
/// How long nobody holds a moment before it is lost: workers that have lost the target for a while are heard of again by then.
const LOST_AFTER: Duration = Duration::from_secs(4);

/// Leads whenever this worker has the lead; returns the run's end.
pub(super) async fn run(fleet: &Fleet<'_>, mut control: Control) -> Result<Ending> {
    let mut tally = Tally::default();
    let mut patience = Patience::default();
    loop {
        // The pulse lives as long as this does.
        let _ = fleet.pulse.views().wait_for(|view| view.is_leader).await;
        let mut views = fleet.pulse.views();
        let begun_at = tokio::time::Instant::now();
        let error = tokio::select! {
            led = lead(fleet, &mut control) => match led {
                Ok(ending) => return Ok(ending),
                Err(error) => error,
            },
            _ = views.wait_for(|view| !view.is_leader) => {
                tracing::warn!("another worker leads now");
                continue;
            }
        };
        if begun_at.elapsed() > CALM {
            // What went wrong before that is over.
            patience = Patience::default();
        }
        match error.kind() {
            Kind::CutLost => tally.count(fleet, error)?,
            // Somebody else leads, or the beat says soon that this worker is over.
            Kind::Fenced => tokio::time::sleep(LOOK_EVERY).await,
            _ => match error.disposition() {
                Disposition::Retry { .. } => patience.wait(error, &mut control).await?,
                _ => return Err(error),
            },
        }
    }
}

/// How often moments were lost under this leader.
#[derive(Default)]
struct Tally {
    losses: u32,
    fruitless: u32,
    written: u64,
}

impl Tally {
    /// Fails once it is too often.
    fn count(&mut self, fleet: &Fleet<'_>, error: Error) -> Result<()> {
        self.losses += 1;
        let now = fleet.progress.report(false).target.rows;
        self.fruitless = if now > self.written { 0 } else { self.fruitless + 1 };
        self.written = now;
        let is_over = match fleet.task.on_cut_lost() {
            OnCutLost::Restart => self.losses > RESTARTS,
            OnCutLost::Continue => self.fruitless > FRUITLESS,
        };
        fleet.reporter.publish(Level::Warn, Side::Source, format!("{}; trying again", error.chain()), Body::General);
        if is_over { Err(error) } else { Ok(()) }
    }
}

async fn lead(fleet: &Fleet<'_>, control: &mut Control) -> Result<Ending> {
    control.checkpoint().await.map_err(patience::stopped)?;
    let view = fleet.view();
    if view.is_finished {
        let records = fleet.sink.ledger().tables(&fleet.key).await?;
        return Ok(prepare::report_finished(&records, fleet.progress, fleet.reporter));
    }
    let cut = match view.cut.clone() {
        Some(cut) if cut.phase == CutPhase::Open && may_go_on(fleet, &cut).await? => cut,
        _ => {
            fleet.reporter.stage(1, "initialising");
            let cut = conference::convene(fleet).await?;
            plan(fleet, cut).await?
        }
    };
    supervise(fleet, &cut, control).await
}

/// Whether an open moment is still held, or nothing is left to read at it.
async fn may_go_on(fleet: &Fleet<'_>, cut: &FleetCut) -> Result<bool> {
    if !has_open(&fleet.ledger()?.work(&fleet.key).await?) {
        return Ok(true);
    }
    let mut views = fleet.pulse.views();
    let held = views.wait_for(|view| view.holders(cut) > 0);
    Ok(tokio::time::timeout(LOST_AFTER, held).await.is_ok())
}

/// Makes tables and splits at a moment, and opens it for all.
async fn plan(fleet: &Fleet<'_>, mut cut: FleetCut) -> Result<FleetCut> {
    let mut held = fleet.held.lock().await;
    let lost = || Error::new(Kind::CutLost, "the leader's snapshots are gone");
    let held = held.as_mut().filter(|held| held.number == cut.number).ok_or_else(lost)?;
    let (mut readers, mut parts): (Vec<PartReader>, Vec<SourcePart>) = (Vec::new(), Vec::new());
    for (index, snapshots) in held.parts.iter_mut().enumerate() {
        let mut source = fleet.task.open_source(index).await?;
        let catalog = fleet.task.catalog(source.as_mut(), index).await?;
        let mut own = std::mem::take(snapshots.readers());
        let facts = match own.first_mut() {
            Some(reader) => probe(reader.as_mut(), &catalog).await?,
            None => return Err(lost()),
        };
        parts.push(fleet.task.part(index, catalog, facts));
        readers.extend(own.into_iter().map(|reader| PartReader { part: index, reader }));
    }
    let records = fleet.sink.ledger().tables(&fleet.key).await?;
    let place = (&fleet.key, fleet.epoch);
    let (plan, is_continued) = prepare::structure(fleet.task, &fleet.sink, place, &parts, &records, fleet.progress, fleet.reporter).await?;
    let mut prepared = Prepared { cut: cut.number, ..Prepared::new(fleet.key.clone(), fleet.epoch, fleet.sink.clone(), plan) };
    // Small pieces: whatever a worker that dies had in hand is read again.
    let lanes = fleet.seat.workers as usize * LANES * FINER;
    prepared.plan_splits(fleet.task, lanes, &mut readers, if is_continued { &records } else { &[] }, fleet.progress).await?;
    if is_continued {
        prepared.report_continuation(&records, fleet.progress, fleet.reporter);
    }
    for reader in readers {
        held.parts[reader.part].readers().push(reader.reader);
    }
    cut.phase = CutPhase::Open;
    fleet.ledger()?.set_cut(&fleet.key, fleet.epoch, &cut, Some(&prepared.plan)).await?;
    fleet.pulse.hurry();
    Ok(cut)
}

/// Whether rows are still to be read.
fn has_open(work: &[TableWork]) -> bool {
    work.iter().any(|table| table.failure.is_none() && table.committed < table.splits)
}

/// What a leader remembers between two looks.
struct Watch<'a> {
    fleet: &'a Fleet<'a>,
    cut: &'a FleetCut,
    prepared: Prepared,
    failed: FailedTables,
    offered: BTreeSet<usize>,
    finishing: BTreeSet<usize>,
}

/// Offers splits and finishes tables until all are done; then says the last word.
async fn supervise(fleet: &Fleet<'_>, cut: &FleetCut, control: &mut Control) -> Result<Ending> {
    let Some(plan) = fleet.ledger()?.plan(&fleet.key).await? else { return Err(Error::internal("an open moment without a plan")) };
    prepare::report_plan(&plan, fleet.progress, fleet.reporter);
    fleet.reporter.stage(3, "transferring data");
    fleet.progress.set_moving(true);
    let prepared = Prepared { cut: cut.number, ..Prepared::new(fleet.key.clone(), fleet.epoch, fleet.sink.clone(), plan) };
    let mut watch = Watch { fleet, cut, prepared, failed: BTreeMap::new(), offered: BTreeSet::new(), finishing: BTreeSet::new() };
    let mut tables: JoinSet<(usize, Result<()>)> = JoinSet::new();
    let (mut looks, mut held_at) = (0_u32, tokio::time::Instant::now());
    loop {
        control.checkpoint().await.map_err(patience::stopped)?;
        let work = fleet.ledger()?.work(&fleet.key).await?;
        watch.note(&work).await?;
        while let Some(index) = watch.next_to_finish(&work) {
            let (sink, key, epoch) = (fleet.sink.clone(), fleet.key.clone(), fleet.epoch);
            let table = watch.prepared.plan.tables[index].clone();
            let mut control = control.clone();
            tables.spawn(async move {
                let mut patience = Patience::default();
                loop {
                    let Err(error) = sink.finish_table(&key, epoch, &table).await else { return (index, Ok(())) };
                    if is_table_failure(&error) {
                        return (index, Err(error));
                    }
                    if let Err(error) = patience.wait(error, &mut control).await {
                        return (index, Err(error));
                    }
                }
            });
        }
        if watch.is_done(&work) && tables.is_empty() {
            return watch.finish(&work, control).await;
        }
        let has_open = has_open(&work);
        if !has_open || fleet.view().holders(cut) > 0 {
            held_at = tokio::time::Instant::now();
        } else if held_at.elapsed() > LOST_AFTER {
            return Err(Error::new(Kind::CutLost, "no worker holds the source's moment any more"));
        }
        if has_open {
            watch.offer(&work, looks.is_multiple_of(COUNT_EVERY)).await;
        }
        looks += 1;
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            Some(done) = tables.join_next(), if !tables.is_empty() => {
                let (index, result) = done.map_err(|panic| Error::internal("finishing a table broke down").because(panic))?;
                watch.finished(index, result).await?;
            }
        }
    }
}

impl Watch<'_> {
    fn index(&self, work: &TableWork) -> Option<usize> {
        self.prepared.plan.tables.iter().position(|table| table.target == work.target)
    }

    fn table(&self, index: usize) -> &TablePlan {
        &self.prepared.plan.tables[index]
    }

    /// Shows the ledger's counters, and passes failures on to tables that depend on them.
    async fn note(&mut self, work: &[TableWork]) -> Result<()> {
        let progress = self.fleet.progress;
        for entry in work {
            let Some(index) = self.index(entry) else { continue };
            progress.set_totals(index, entry.rows, entry.bytes);
            if entry.is_finished {
                progress.set_table_state(index, StreamState::Finished, None);
            } else if self.offered.contains(&index) {
                progress.set_table_state(index, StreamState::Running, None);
            }
            if let Some(failure) = &entry.failure
                && !self.failed.contains_key(&index)
            {
                self.fail(index, failure.to_error(&entry.target)).await?;
            }
        }
        let cuts: BTreeSet<CutNumber> = work.iter().flat_map(|entry| entry.cuts.iter().copied()).collect();
        let is_whole = cuts.is_empty() || cuts.len() == 1 && (cuts.contains(&self.cut.number) || !has_open(work));
        progress.set_cuts(self.cut.lost, is_whole);
        Ok(())
    }

    async fn fail(&mut self, index: usize, error: Error) -> Result<()> {
        let fleet = self.fleet;
        fleet.progress.set_table_state(index, StreamState::Failed, Some(error.chain()));
        fleet.reporter.publish(Level::Error, Side::Target, error.chain(), Body::Error);
        let target = self.table(index).target.clone();
        fleet.ledger()?.fail_table(&fleet.key, fleet.epoch, self.cut.number, &target, &TableFailure::from(&error)).await?;
        self.failed.insert(index, error);
        for (dependent, table) in self.prepared.plan.tables.iter().enumerate() {
            if table.after.contains(&target) && !self.failed.contains_key(&dependent) {
                let text = format!("`{}` refers to `{}`, which failed", table.target.name, target.name);
                let failure = TableFailure::from(&Error::new(Kind::ConstraintViolated, text));
                fleet.ledger()?.fail_table(&fleet.key, fleet.epoch, self.cut.number, &table.target, &failure).await?;
            }
        }
        Ok(())
    }

    /// A table whose rows are all there and whose keys are not.
    fn next_to_finish(&mut self, work: &[TableWork]) -> Option<usize> {
        if self.finishing.len() >= crate::pipeline::lanes::FINISHING_AT_ONCE {
            return None;
        }
        let is_ready = |entry: &&TableWork| entry.failure.is_none() && !entry.is_finished && entry.committed == entry.splits;
        let ready = work.iter().filter(is_ready).filter_map(|entry| self.index(entry));
        let next = ready.into_iter().find(|index| !self.finishing.contains(index) && !self.failed.contains_key(index))?;
        self.finishing.insert(next);
        Some(next)
    }

    async fn finished(&mut self, index: usize, result: Result<()>) -> Result<()> {
        self.finishing.remove(&index);
        match result {
            Ok(()) => {
                self.fleet.progress.set_table_state(index, StreamState::Finished, None);
                let text = format!("{} is complete", self.table(index).target.name);
                self.fleet.reporter.publish(Level::Info, Side::Target, text, Body::General);
                Ok(())
            }
            Err(error) if is_table_failure(&error) => self.fail(index, error).await,
            Err(error) => Err(error),
        }
    }

    fn is_done(&self, work: &[TableWork]) -> bool {
        work.iter().all(|entry| entry.is_finished || entry.failure.is_some())
    }

    /// Offers splits of tables that may be written now, and again those that the queue has lost. A queue that is away is asked again later.
    async fn offer(&mut self, work: &[TableWork], counts: bool) {
        if let Err(error) = self.try_offer(work, counts).await {
            tracing::debug!(error = %error.chain(), "splits are offered again later");
        }
    }

    async fn try_offer(&mut self, work: &[TableWork], counts: bool) -> Result<()> {
        let is_open = |index: usize| {
            let target = &self.table(index).target;
            work.iter().any(|entry| entry.target == *target && entry.failure.is_none() && entry.committed < entry.splits)
        };
        let may_begin = |index: &usize| {
            let after = &self.table(*index).after;
            is_open(*index)
                && !(0..self.prepared.plan.tables.len()).any(|other| after.contains(&self.table(other).target) && is_open(other))
        };
        let all = 0..self.prepared.plan.tables.len();
        let ready: Vec<usize> = all.filter(may_begin).collect();
        let is_new = ready.iter().any(|index| !self.offered.contains(index));
        if !is_new && !counts {
            return Ok(());
        }
        let queue = &self.fleet.queue;
        for part in 0..self.fleet.task.sources.len() {
            let mine: Vec<usize> = ready.iter().copied().filter(|index| self.table(*index).part == part).collect();
            let is_first = !self.offered.iter().any(|index| self.table(*index).part == part);
            let is_empty = counts && queue.outstanding(self.cut.number, part).await? == 0;
            if is_first && counts && !is_empty {
                // A leader before this one has offered them; what it has not is found once the queue is empty.
                self.offered.extend(mine);
                continue;
            }
            // Asked after the count: what is still open then is in nobody's hands.
            let open = self.fleet.ledger()?.open_splits(&self.fleet.key).await?;
            let wanted: Vec<usize> = mine.into_iter().filter(|index| is_empty || !self.offered.contains(index)).collect();
            for index in wanted {
                let items: Vec<WorkItem> = open
                    .iter()
                    .filter(|(target, _)| *target == self.table(index).target)
                    .map(|(target, split)| WorkItem { target: target.clone(), ordinal: split.ordinal })
                    .collect();
                queue.offer(self.cut.number, part, &items).await?;
                self.offered.insert(index);
            }
        }
        Ok(())
    }

    /// Foreign keys, the ledger's last word, and an empty queue.
    async fn finish(self, work: &[TableWork], control: &Control) -> Result<Ending> {
        for entry in work {
            if let Some(index) = self.index(entry) {
                entry.losses.iter().for_each(|(column, count)| self.fleet.progress.add_loss(index, column, *count));
            }
        }
        let copied = Copied { failed: self.failed, is_limited: false };
        let ending = finish::finish(&self.prepared, copied, self.fleet.progress, self.fleet.reporter, control).await;
        if let Err(error) = self.fleet.queue.clear().await {
            tracing::debug!(error = %error.chain(), "what is left in the queue ages out by itself");
        }
        ending
    }
}
