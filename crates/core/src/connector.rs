//! What an engine can do, as traits. A connector implements those that make sense for it and is entered in the registry once.
//!
//! ```text
//!  Connector ─ session ─▶ Session (ping, databases)
//!            ─ explore ─▶ Explorer                                what people browse and edit (crate::explore)
//!            ─ source ──▶ SourcePlanner ─ open_cut ─▶ Cut + SourceReader × lanes
//!            ─ plan ────▶ Plan (pure)                               every column's verdict
//!            ─ sink ────▶ Sink ─ ledger, structure, writer ─▶ SplitWriter × lanes
//! ```
//!
//! All methods that return futures are called per session, table, split or batch of some thousand rows, never per row or value, so boxed
//! futures cost nothing that can be measured and keep the traits usable behind one registry.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Column, Table, TableName};
use crate::config::{PlanOptions, QuerySelection, SchemaPolicy, StructureOptions, TableSelection, WriteMode};
use crate::connection::{Connection, Engine};
use crate::error::{Error, Result};
use crate::explore::Explorer;
use crate::fleet::FleetLedger;
use crate::id::{ConfigId, StreamId};
use crate::ledger::{CutNumber, Epoch, Ledger, LedgerKey};
use crate::plan::{ColumnPlan, Plan, TablePlan};
use crate::position::Position;
use crate::split::Split;
use crate::value::RowEncoder;

/// An engine that Millrace speaks to.
pub trait Connector: Send + Sync {
    /// Which one.
    fn engine(&self) -> Engine;

    /// Logs in, to a database if named, else to the connection's default, else to the server.
    ///
    /// Errors: [`crate::Kind::Unreachable`], [`crate::Kind::LoginRefused`], [`crate::Kind::ObjectMissing`] for an unknown database,
    /// [`crate::Kind::NotSupported`] for a transport mode that is not built; within 10 s in any case ([`crate::Kind::TimedOut`]).
    fn session<'a>(&'a self, connection: &'a Connection, database: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Session>>>;

    /// Logs in to look into one database, the connection's default if none is named (MySQL: then none). Errors as of [`Connector::session`].
    fn explore<'a>(&'a self, connection: &'a Connection, database: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Explorer>>>;

    /// Opens a source.
    fn source<'a>(&'a self, connection: &'a Connection, scope: &'a Scope) -> BoxFuture<'a, Result<Box<dyn SourcePlanner>>>;

    /// What a target holds already. Creates and changes nothing: a database that is missing holds nothing.
    fn inspect<'a>(
        &'a self,
        connection: &'a Connection,
        scope: &'a Scope,
        config: &'a ConfigId,
        sources: &'a [SourcePart],
    ) -> BoxFuture<'a, Result<TargetFacts>>;

    /// Decides, as a target, every column, name and constraint of the structure that is wanted. Pure: asks no server.
    ///
    /// Errors: [`crate::Kind::Invalid`] with the field of a rule that matches nothing or asks for something impossible.
    fn plan(&self, request: &PlanRequest<'_>) -> Result<Plan>;

    /// Validates foreign keys that were created unvalidated, and counts the orphans of those that do not hold.
    fn validate_constraints<'a>(&'a self, connection: &'a Connection, scope: &'a Scope) -> BoxFuture<'a, Result<ConstraintsReport>>;

    /// Removes the ledger's entries of a config whose definition is deleted, and the tables that abandoned runs have made and never finished. Creates nothing: a
    /// database or ledger that is missing holds nothing. Tables of finished runs, tables that anything else has touched or uses, and rows in tables that were there
    /// before, stay.
    fn forget<'a>(
        &'a self,
        connection: &'a Connection,
        scope: &'a Scope,
        config: &'a ConfigId,
        abandoned: &'a [StreamId],
    ) -> BoxFuture<'a, Result<Forgotten>>;

    /// Opens a target, creating a database that is missing.
    fn sink<'a>(&'a self, connection: &'a Connection, scope: &'a Scope) -> BoxFuture<'a, Result<Box<dyn Sink>>>;
}

/// The part of a connection that a task works in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Database; the connection's default when absent.
    pub database: Option<String>,
    /// Schema; the engine's default when absent.
    pub schema: Option<String>,
}

/// What a clean-up has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Runs whose records were removed.
    pub runs: u64,
    /// Tables that were dropped.
    pub dropped: Vec<TableName>,
    /// Unfinished tables that stay, with the reason.
    pub kept: Vec<(TableName, String)>,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct PlanRequest<'a> {
    /// Where tables go.
    pub scope: &'a Scope,
    /// One per source connection, in the config's order.
    pub sources: &'a [SourcePart],
    /// What the target holds already.
    pub target: &'a TargetFacts,
    /// What the config asks for.
    pub options: &'a WriteOptions,
}

/// What one source connection contributes.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcePart {
    /// Its alias, if there are several sources.
    pub alias: Option<String>,
    /// The selected tables and queries.
    pub catalog: Catalog,
    /// What the data at the cut says about columns.
    pub facts: Vec<(TableName, ColumnFact)>,
}

/// What a config asks of the target.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteOptions {
    /// What structure is made.
    pub structure: StructureOptions,
    /// What happens with tables that exist.
    pub schema_policy: SchemaPolicy,
    /// What happens with rows that exist.
    pub write_mode: WriteMode,
    /// Only the structure is wanted.
    pub is_structure_only: bool,
    /// Whether what a run has written may be removed to start again.
    pub may_restart: bool,
    /// Rules about columns.
    pub plan: PlanOptions,
}

/// What a target holds already, without what unfinished runs of the same config have left and may replace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetFacts {
    /// Tables, views and the like of the target's schema.
    pub tables: Vec<ExistingTable>,
    /// Extensions that change which types there are, with the schema of their types (`postgis`).
    pub extensions: Vec<(String, String)>,
    /// Names that objects of other tables have taken in the target's schema.
    pub taken: Vec<String>,
}

/// Something that exists in the target's schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExistingTable {
    /// Name.
    pub name: String,
    /// Whether rows can be written into it.
    pub is_table: bool,
    /// Whether it has no rows.
    pub is_empty: bool,
    /// In order.
    pub columns: Vec<ExistingColumn>,
    /// Primary key first, then unique keys without conditions or expressions.
    pub keys: Vec<Vec<String>>,
    /// Tables of the same schema that enforced foreign keys of this one refer to.
    pub references: Vec<String>,
    /// Rows that unfinished runs of the same config have committed into it.
    pub unfinished_rows: u64,
}

/// A column that exists at the target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExistingColumn {
    /// Name.
    pub name: String,
    /// Type as the target spells it.
    pub native_type: String,
    /// Labels, if the type is an enumeration.
    pub labels: Vec<String>,
    /// Whether NULL is allowed.
    pub is_nullable: bool,
    /// Whether a row without it gets a value.
    pub has_default: bool,
    /// Whether the target computes it.
    pub is_generated: bool,
}

/// What a validation of constraints found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConstraintsReport {
    /// Foreign keys that are valid now and were not before.
    pub validated: Vec<ConstraintName>,
    /// Foreign keys that do not hold, with the count of rows without a counterpart.
    pub violations: Vec<(ConstraintName, u64)>,
}

/// A constraint by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConstraintName {
    /// Schema of the table.
    pub schema: String,
    /// Table.
    pub table: String,
    /// Name.
    pub name: String,
}

/// What of a source is wanted: all tables if nothing is named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Tables.
    pub tables: &'a [TableSelection],
    /// Statements whose results are wanted as tables.
    pub queries: &'a [QuerySelection],
}

/// A logged-in session for short questions.
pub trait Session: Send {
    /// One round trip.
    fn ping(&mut self) -> BoxFuture<'_, Result<()>>;
    /// Product and version as the server says it (`10.11.6-MariaDB`, `PostgreSQL 15.18`).
    fn version(&mut self) -> BoxFuture<'_, Result<String>>;
    /// Databases that this user sees.
    fn databases(&mut self) -> BoxFuture<'_, Result<Vec<DatabaseEntry>>>;
}

/// One database of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseEntry {
    /// Its name.
    pub name: String,
    /// Why it counts as a system database, if it does.
    pub system_reason: Option<String>,
    /// Its schemas, where the engine has them and the session can see them.
    pub schemas: Vec<String>,
}

/// Where a cut's agreement comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutMethod {
    /// All snapshots report the same log position.
    SamePosition,
    /// All snapshots were opened under one brief global read lock.
    GlobalLock,
    /// One snapshot alone.
    SingleSnapshot,
}

/// One consistent moment of a source, with readers that all see it.
pub struct Cut {
    /// The place in the log, where the source has one.
    pub position: Option<Position>,
    /// Where the agreement comes from.
    pub method: CutMethod,
    /// At least one; each sees exactly this moment until it is dropped.
    pub readers: Vec<Box<dyn SourceReader>>,
}

/// Plans the reading of one source.
pub trait SourcePlanner: Send {
    /// What the scope contains; only the selected tables, rows, columns and queries if any are selected.
    ///
    /// Errors: [`crate::Kind::ObjectMissing`] naming the first table, with its index as the detail `index`, or column that does not exist.
    /// Fields are named as if this were the first source connection.
    fn catalog<'a>(&'a mut self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<Catalog>>;

    /// Opens one consistent moment seen by up to `lanes` readers; fewer if the source cannot give more.
    fn open_cut(&mut self, lanes: usize) -> BoxFuture<'_, Result<Cut>>;

    /// Connections whose snapshots shall agree with those of other processes; none is opened yet.
    fn share_cut(&mut self, lanes: usize) -> BoxFuture<'_, Result<Box<dyn SharedCut>>>;

    /// Keeps everybody from committing at the source, until [`SourcePlanner::release_commits`] or the end of this connection.
    ///
    /// Errors: [`crate::Kind::PermissionDenied`]; [`crate::Kind::Contention`] or [`crate::Kind::TimedOut`] if running statements do not let it.
    fn hold_commits(&mut self) -> BoxFuture<'_, Result<()>>;

    /// Lets everybody commit again.
    fn release_commits(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// One process's part of a moment that several processes read.
pub trait SharedCut: Send {
    /// Opens all snapshots (again) at one moment; answers its place in the log. None if the source does not tell, or commits came in between too often.
    fn snapshot(&mut self) -> BoxFuture<'_, Result<Option<Position>>>;

    /// Readers that see the snapshots.
    fn into_readers(self: Box<Self>) -> Vec<Box<dyn SourceReader>>;
}

/// Reads splits at one cut. Losing its connection loses the cut: errors are then [`crate::Kind::CutLost`].
pub trait SourceReader: Send {
    /// What only the data at the cut can tell: narrows types of columns (`TIME` within a day or not).
    fn probe<'a>(&'a mut self, table: &'a Table) -> BoxFuture<'a, Result<Vec<ColumnFact>>>;

    /// Cuts a table into splits of about `target_rows` rows; see [`Split`] for what they must cover.
    fn split<'a>(&'a mut self, index: usize, table: &'a Table, target_rows: u64) -> BoxFuture<'a, Result<Vec<Split>>>;

    /// Starts reading a split: the columns in the order in which they will be given to the encoder.
    fn open<'a>(&'a mut self, table: &'a Table, columns: &'a [Column], split: &'a Split) -> BoxFuture<'a, Result<()>>;

    /// Decodes rows of the opened split into the encoder until it is full or the split ends. A value that the encoder refuses ends the split
    /// with [`crate::Kind::ValueRefused`], naming the column and the row's key.
    fn next_batch<'a>(&'a mut self, rows: &'a mut dyn RowEncoder) -> BoxFuture<'a, Result<Batch>>;

    /// Leaves the opened split, reading on to its end or breaking off; the reader can open another one afterwards unless this fails.
    fn close(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// Something that the data at the cut says about a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnFact {
    /// Every value of this TIME column lies within 00:00:00 and 24:00:00.
    TimeOfDay(String),
    /// All values of this spatial column have this one reference system.
    Srid(String, u32),
}

/// What one call moved into the encoder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Batch {
    /// Rows.
    pub rows: u64,
    /// Bytes as the source sent them.
    pub bytes: u64,
    /// Whether the split has ended.
    pub is_last: bool,
}

/// Writes into one target.
pub trait Sink: Send + Sync {
    /// What this run has written.
    fn ledger(&self) -> &dyn Ledger;

    /// What several workers of a run agree on; none where the target cannot keep it.
    fn fleet(&self) -> Option<&dyn FleetLedger>;

    /// Brings the target's tables into the state that the plan starts from: what unfinished runs of this config have made is dropped, tables are
    /// created, replaced or emptied, tables in use are found empty where they must be; all recorded in the ledger, in one transaction.
    ///
    /// Errors: [`crate::Kind::TargetConflict`] for rows or tables that are not ours to remove.
    fn create_tables<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, plan: &'a Plan) -> BoxFuture<'a, Result<()>>;

    /// Opens a connection that writes splits that were read at a moment.
    fn writer<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, cut: CutNumber) -> BoxFuture<'a, Result<Box<dyn SplitWriter>>>;

    /// After a table's rows: primary key, unique and other indexes, checks, the sequence; recorded in the ledger with the last of them.
    fn finish_table<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, plan: &'a TablePlan) -> BoxFuture<'a, Result<()>>;

    /// After all tables: foreign keys that are not there yet, one error per one that failed.
    fn finish_all<'a>(&'a self, plan: &'a Plan) -> BoxFuture<'a, Result<Vec<Error>>>;
}

/// Writes one split at a time: `begin`, then rows into `encoder` and `send` until they end, then `commit`.
///
/// Nothing of a split is visible before `commit` returns; dropping the writer or calling `abort` leaves nothing of it behind.
pub trait SplitWriter: Send {
    /// Starts a split of a table; `columns` are the written ones, in the order of the reader's.
    fn begin<'a>(&'a mut self, table: &'a TablePlan, columns: &'a [ColumnPlan], split: &'a Split) -> BoxFuture<'a, Result<()>>;
    /// Where rows go.
    fn encoder(&mut self) -> &mut dyn RowEncoder;
    /// Sends what the encoder holds; waits while the target is slow. Answers the bytes sent.
    fn send(&mut self) -> BoxFuture<'_, Result<u64>>;
    /// Commits the rows with their ledger row, which also keeps `bytes` (as the source sent them). Fails with [`crate::Kind::ProtocolViolated`] unless the
    /// target counted exactly `rows`, with [`crate::Kind::Conflict`] if the split is committed already.
    fn commit(&mut self, rows: u64, bytes: u64) -> BoxFuture<'_, Result<()>>;
    /// Gives the split up.
    fn abort(&mut self) -> BoxFuture<'_, Result<()>>;
    /// How often each written column's policy acted in the committed splits since the last call.
    fn take_losses(&mut self) -> Vec<u64>;
}
