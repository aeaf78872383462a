//! The ledger: what a run has written, kept in the target itself, so that the truth about the data moves with the data.
//!
//! ```text
//!  claim (epoch + 1) ─▶ tables (with the DDL) ─▶ splits ─▶ per split: rows + split row in ONE commit ─▶ keys ─▶ finish
//! ```
//!
//! Rules that every implementation keeps:
//! 1. A split's rows and its ledger row commit in one target transaction: a split is either wholly there and recorded, or not at all.
//! 2. Every commit re-reads the worker's epoch and fails with [`crate::Kind::Fenced`] if a newer worker has claimed the same key, or a newer attempt the run.
//! 3. A table that a run creates is recorded in the transaction that creates it; only tables recorded by an unfinished run of the same
//!    config may be dropped by its next start.
//! 4. Splits are recorded before they are handed out.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::catalog::TableName;
use crate::error::Result;
use crate::id::{ConfigId, StreamId};
use crate::split::Split;

/// The version of the ledger's tables that this code writes and reads.
pub const LEDGER_VERSION: i32 = 2;

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerKey {
    /// The config that is run.
    pub config: ConfigId,
    /// The start of it.
    pub stream: StreamId,
    /// Which worker of the run's fleet, from 0; a run of one worker has number 0.
    pub worker: u32,
    /// Which try of the start, where tries are told apart; a later one ends all workers of earlier ones.
    pub attempt: u32,
}

/// The fence token that a claim issued; a later claim of the same key gets a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Epoch(pub i64);

/// One moment of the sources, among those at which a run reads. A run of one worker reads one moment under each of its epochs, and their numbers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CutNumber(pub i64);

impl From<Epoch> for CutNumber {
    fn from(epoch: Epoch) -> Self {
        Self(epoch.0)
    }
}

/// What the ledger knows about one table of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRecord {
    /// The target's table.
    pub target: TableName,
    /// Whether the run created it.
    pub is_created: bool,
    /// [`crate::plan::TablePlan::fingerprint`] of its plan.
    pub fingerprint: String,
    /// Whether its keys and indexes are made.
    pub is_finished: bool,
    /// Its splits in order, with what is known of those that are committed; empty before they are planned.
    pub splits: Vec<(Split, Option<CommittedSplit>)>,
}

/// What the ledger knows about a committed split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedSplit {
    /// Rows.
    pub rows: u64,
    /// The moment at which it was read.
    pub cut: CutNumber,
    /// How often each target column's policy acted.
    pub losses: Vec<(String, u64)>,
}

/// A run's record of what it has written.
pub trait Ledger: Send + Sync {
    /// Takes the worker's place in the run over: creates the ledger where it is missing, records the run, raises its epoch, ends workers of earlier attempts,
    /// and takes the lead if nobody has it. What the run has recorded stays.
    ///
    /// Errors: [`crate::Kind::Fenced`] if a later attempt has claimed the run.
    fn claim<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Epoch>>;

    /// The newest run of a config that has not finished, if its record is newer than any finished one's.
    fn unfinished_run<'a>(&'a self, config: &'a ConfigId) -> BoxFuture<'a, Result<Option<StreamId>>>;

    /// Tables that unfinished runs of this config have created and that no finished run owns.
    fn unfinished_tables<'a>(&'a self, config: &'a ConfigId) -> BoxFuture<'a, Result<Vec<TableName>>>;

    /// Whether the run was marked finished. A process may have ended before it could say so anywhere else.
    fn is_finished<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<bool>>;

    /// What the run has recorded.
    fn tables<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Vec<TableRecord>>>;

    /// Records a table's splits. Only the leader may.
    fn record_splits<'a>(
        &'a self,
        key: &'a LedgerKey,
        epoch: Epoch,
        target: &'a TableName,
        splits: &'a [Split],
    ) -> BoxFuture<'a, Result<()>>;

    /// Ordinals of the splits that are committed, with their rows.
    fn committed_splits<'a>(&'a self, key: &'a LedgerKey, target: &'a TableName) -> BoxFuture<'a, Result<Vec<(u32, u64)>>>;

    /// Marks the run finished: its tables belong to the user from now on.
    fn finish<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch) -> BoxFuture<'a, Result<()>>;
}
