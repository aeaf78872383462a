//! A fleet: several workers that carry out one run together. What they agree on stands in the target's ledger, so that any of them may die at any time.
//!
//! ```text
//!  every worker ── beat ──▶ ledger ◀── beat ── every worker          one of them leads, by a lease
//!  leader: Opening ─▶ all snapshots at one place? ─▶ Planning: tables, splits ─▶ Open: splits are handed out, tables finished
//!             └── no: Locked (one brief global lock) ─▶ ┘
//! ```
//!
//! Rules that every implementation keeps:
//! 1. A worker's commit re-reads the worker's own epoch; a leader's step re-reads the lead. Who lost either fails with [`crate::Kind::Fenced`].
//! 2. Who comes after a moment was opened is no member of it and gets no split of it: a snapshot cannot be joined later.
//! 3. A split may be copied by two workers at once (a message delivered twice, a worker that was thought dead); only one of them can commit it.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::catalog::TableName;
use crate::error::{Error, Kind, Result};
use crate::ledger::{CutNumber, Epoch, LedgerKey};
use crate::plan::Plan;
use crate::position::Position;
use crate::split::Split;

/// How far a moment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutPhase {
    /// Snapshots are opened; those at another place than `places` are opened again.
    Opening,
    /// Nobody can commit at the source: whatever is opened now is of one moment.
    Locked,
    /// The members are chosen; the leader makes tables and splits.
    Planning,
    /// Splits are handed out.
    Open,
}

/// One moment that a fleet reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetCut {
    /// Which one.
    pub number: CutNumber,
    /// How far it is.
    pub phase: CutPhase,
    /// The round of opening, from 0.
    pub round: u32,
    /// Per source connection, the place at which all snapshots must be.
    pub places: Vec<Option<Position>>,
    /// Who sees it, once it is chosen.
    pub members: Vec<Epoch>,
    /// How often an open moment was lost before this one.
    pub lost: u32,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// The moment whose snapshots it holds.
    pub cut: Option<CutNumber>,
    /// The round that it has carried out.
    pub round: u32,
    /// Per source connection, where its snapshots are; none where the source does not tell, or they do not agree among themselves.
    pub places: Vec<Option<Position>>,
}

/// One worker as the others see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its number in the fleet.
    pub worker: u32,
    /// Its claim.
    pub epoch: Epoch,
    /// Whether it was heard of lately.
    pub is_alive: bool,
    /// What it said last.
    pub report: MemberReport,
}

/// The fleet as one beat shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FleetView {
    /// Whether this worker leads.
    pub is_leader: bool,
    /// The run was marked finished.
    pub is_finished: bool,
    /// The newest moment.
    pub cut: Option<FleetCut>,
    /// All workers of this attempt that have claimed the run.
    pub members: Vec<Member>,
}

impl FleetView {
    /// Workers that are alive, hold a moment's snapshots and may read them.
    pub fn holders(&self, cut: &FleetCut) -> usize {
        let is_holder = |member: &&Member| member.is_alive && member.report.cut == Some(cut.number) && cut.members.contains(&member.epoch);
        self.members.iter().filter(is_holder).count()
    }
}

/// How far a table of a run is.
#[derive(Debug, Clone, PartialEq)]
pub struct TableWork {
    /// The target's table.
    pub target: TableName,
    /// Splits that are planned.
    pub splits: u64,
    /// Splits that are committed.
    pub committed: u64,
    /// Their rows.
    pub rows: u64,
    /// Their bytes as the source sent them.
    pub bytes: u64,
    /// Moments at which committed splits were read.
    pub cuts: Vec<CutNumber>,
    /// What policies changed: column, count.
    pub losses: Vec<(String, u64)>,
    /// Why it failed, if a worker said so.
    pub failure: Option<TableFailure>,
    /// Whether its keys and indexes are made.
    pub is_finished: bool,
}

/// Why a table failed, in a form that passes between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFailure {
    /// [`Kind`] by its name.
    pub kind: String,
    /// In words.
    pub text: String,
}

impl From<&Error> for TableFailure {
    fn from(error: &Error) -> Self {
        Self { kind: format!("{:?}", error.kind()), text: error.chain() }
    }
}

impl TableFailure {
    /// As an error about that table.
    pub fn to_error(&self, table: &TableName) -> Error {
        let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == self.kind).unwrap_or(Kind::Internal);
        Error::new(kind, self.text.clone()).with("table", table.name.clone())
    }
}

/// What a fleet agrees on, kept in the target.
pub trait FleetLedger: Send + Sync {
    /// Says that this worker is there, takes the lead if nobody has it, keeps it if this one has; answers what all see.
    ///
    /// Errors: [`Kind::Fenced`] if another worker has claimed the same place, or a newer attempt the run.
    fn beat<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, report: &'a MemberReport) -> BoxFuture<'a, Result<FleetView>>;

    /// As leader: a number that no moment of this run has had.
    fn next_cut<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch) -> BoxFuture<'a, Result<CutNumber>>;

    /// As leader: what all shall see; a plan, if given, replaces the one before.
    fn set_cut<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, cut: &'a FleetCut, plan: Option<&'a Plan>) -> BoxFuture<'a, Result<()>>;

    /// The plan of the open moment.
    fn plan<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Option<Plan>>>;

    /// How far all tables are.
    fn work<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Vec<TableWork>>>;

    /// Splits that are not committed, of tables that have not failed; the splits' `table` has no meaning.
    fn open_splits<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Vec<(TableName, Split)>>>;

    /// Says that a table has failed at a moment; the first word stays, a moment that counts no more says nothing, and a table that is finished has not failed.
    fn fail_table<'a>(
        &'a self,
        key: &'a LedgerKey,
        epoch: Epoch,
        cut: CutNumber,
        target: &'a TableName,
        failure: &'a TableFailure,
    ) -> BoxFuture<'a, Result<()>>;
}

/// Which worker of how many this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Its number, from 0.
    pub worker: u32,
    /// All of them.
    pub workers: u32,
    /// Which try of the run they belong to; a later one ends all workers of earlier ones.
    pub attempt: u32,
}

/// A split on its way to whoever is free.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkItem {
    /// The target's table.
    pub target: TableName,
    /// The split's number in the table.
    pub ordinal: u32,
}

/// Hands splits to free workers. It is not the record: what it loses is offered again from the ledger.
pub trait WorkQueue: Send + Sync {
    /// Offers splits of one moment and source connection.
    fn offer<'a>(&'a self, cut: CutNumber, part: usize, items: &'a [WorkItem]) -> BoxFuture<'a, Result<()>>;

    /// Items that wait or are being worked on.
    fn outstanding<'a>(&'a self, cut: CutNumber, part: usize) -> BoxFuture<'a, Result<u64>>;

    /// The next item, waiting a moment for one.
    ///
    /// Errors: [`Kind::Unreachable`] while the queue is away.
    fn take<'a>(&'a self, cut: CutNumber, part: usize) -> BoxFuture<'a, Result<Option<Box<dyn TakenWork>>>>;

    /// Forgets everything of the run.
    fn clear(&self) -> BoxFuture<'_, Result<()>>;
}

/// An item that nobody else gets while it is kept.
pub trait TakenWork: Send + Sync {
    /// What it is.
    fn item(&self) -> &WorkItem;
    /// How often [`TakenWork::keep`] must be said.
    fn keep_every(&self) -> std::time::Duration;
    /// Still at it.
    fn keep(&self) -> BoxFuture<'_, ()>;
    /// Nobody need do it again.
    fn done(&self) -> BoxFuture<'_, ()>;
    /// Somebody else shall do it.
    fn give_back(&self) -> BoxFuture<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_passes_between_processes_with_its_kind() {
        let failure = TableFailure::from(&Error::new(Kind::ValueRefused, "`t`.`v` holds no date"));
        let text = serde_json::to_string(&failure).unwrap_or_default();
        let read: TableFailure = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}"));
        let error = read.to_error(&TableName { schema: "public".into(), name: "t".into() });
        assert_eq!((error.kind(), error.detail("table")), (Kind::ValueRefused, Some("t")));
    }
}
