//! Looking into a database and editing its rows: what an engine does for people, beside moving data.
//!
//! ```text
//!  Connector ─ explore ─▶ Explorer (one session in one database)
//!      names · structure · overview           what is there
//!      page · count · columns · run · summary rows and statements, as JSON text (JsonRows)
//!      change                                  rows, in one transaction, exactly those that are named
//! ```
//!
//! An explorer is used by one request at a time and may be used again by the next one ([`Explorer::is_reusable`]). A future that is dropped leaves the session in
//! an unknown state; its statement is then ended with [`Explorer::canceller`] and the session is thrown away.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connector::DatabaseEntry;
use crate::error::{Error, Result};
use crate::json_rows::JsonRows;
use crate::overview::DatabaseOverview;
use crate::structure::{DatabaseStructure, ObjectName, ObjectNames, TableStructure, ViewStructure};

#[cfg(feature = "schemars")]
use schemars::JsonSchema;

/// Which objects are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ObjectFilter {
    /// Only these schemas; all if empty. Named system schemas are included.
    pub schemas: Vec<String>,
    /// System schemas too.
    pub with_system: bool,
}

/// One session in one database.
pub trait Explorer: Send {
    /// Databases that this user sees, the system's too.
    fn databases(&mut self) -> BoxFuture<'_, Result<Vec<DatabaseEntry>>>;

    /// The names of all objects, a few statements whatever their number.
    fn names<'a>(&'a mut self, wanted: &'a ObjectFilter) -> BoxFuture<'a, Result<ObjectNames>>;

    /// Everything about all objects; the number of statements does not grow with the number of objects, but for MySQL's `SHOW CREATE`.
    fn structure<'a>(&'a mut self, wanted: &'a ObjectFilter) -> BoxFuture<'a, Result<DatabaseStructure>>;

    /// One table. Errors: [`crate::Kind::ObjectMissing`].
    fn table<'a>(&'a mut self, name: &'a ObjectName) -> BoxFuture<'a, Result<TableStructure>>;

    /// One view. Errors: [`crate::Kind::ObjectMissing`].
    fn view<'a>(&'a mut self, name: &'a ObjectName) -> BoxFuture<'a, Result<ViewStructure>>;

    /// The database at a glance.
    fn overview(&mut self) -> BoxFuture<'_, Result<DatabaseOverview>>;

    /// Makes a database. Errors: [`crate::Kind::Conflict`] if there is one of that name.
    fn create_database<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Makes a schema. Errors: [`crate::Kind::Conflict`]; [`crate::Kind::NotSupported`] where the engine has none.
    fn create_schema<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, Result<()>>;

    /// One page of a table's or view's rows, read in a transaction that cannot write.
    ///
    /// Errors: [`crate::Kind::ObjectMissing`] for an unknown object or sort column; [`crate::Kind::StatementRefused`] for a condition that is wrong;
    /// [`crate::Kind::Invalid`] for a cursor of another query.
    fn page<'a>(&'a mut self, page: &'a PageRequest, rows: &'a mut JsonRows) -> BoxFuture<'a, Result<Page>>;

    /// Counts the rows that meet the condition, in a transaction that cannot write.
    fn count<'a>(&'a mut self, object: &'a ObjectName, condition: Option<&'a str>) -> BoxFuture<'a, Result<u64>>;

    /// Statistics of every column, computed by the server.
    fn summarize<'a>(&'a mut self, request: &'a SummaryRequest) -> BoxFuture<'a, Result<Summary>>;

    /// The columns of a statement's result, without running it; none for one that answers no rows.
    fn columns<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<ResultColumn>>>;

    /// Runs statements one after the other, each committed by itself unless they say otherwise, and stops at the first that fails.
    ///
    /// Errors carry the detail `statement` (1 for the first). What went before has reached the sink.
    fn run<'a>(&'a mut self, request: &'a RunRequest, results: &'a mut dyn ResultSink) -> BoxFuture<'a, Result<()>>;

    /// Changes rows, all or none, and answers them as they are stored then.
    ///
    /// Errors: [`crate::Kind::Conflict`] unless each key meets exactly one row, with the detail `index`, or with the detail `reason` = `etag` if the row has
    /// changed meanwhile; [`crate::Kind::Invalid`] for unknown columns, missing key columns and values that are not of the column's type;
    /// [`crate::Kind::ConstraintViolated`].
    fn change<'a>(&'a mut self, request: &'a ChangeRequest) -> BoxFuture<'a, Result<ChangedRows>>;

    /// The texts of the statements that the calls since the last one of this have run for their user, with placeholders for values: what a record of
    /// statements shows. What the explorer asks for itself is not among them.
    fn take_statements(&mut self) -> Vec<String>;

    /// What ends the running statement from outside.
    fn canceller(&self) -> Box<dyn Canceller>;

    /// Whether the session can serve another request: it is alive, in no transaction, and has no settings of its last user.
    fn is_reusable(&self) -> bool;

    /// Brings the session back to where it began, after statements of a user have run in it.
    fn reset(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// Ends what a session runs.
pub trait Canceller: Send + Sync {
    /// Tells the server to end it; an idle session is not disturbed.
    fn cancel(&self) -> BoxFuture<'_, Result<()>>;
}

/// A column of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ResultColumn {
    /// Its name; may be empty or stand twice.
    pub name: String,
    /// The type as the engine spells it.
    #[serde(rename = "type")]
    pub native_type: String,
    /// Whether NULL can come; absent if the engine does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nullable: Option<bool>,
    /// How many bits, if it holds bits.
    #[serde(skip)]
    pub bits: Option<u16>,
}

/// A page of rows that is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// The table or view.
    pub object: ObjectName,
    /// At most so many rows.
    pub limit: u64,
    /// Rows to skip; 0 with a cursor.
    pub offset: u64,
    /// The place after which the page begins.
    pub after: Option<Cursor>,
    /// The order; the key's columns are added where it leaves one open.
    pub order: Vec<OrderBy>,
    /// A condition in the engine's dialect, already checked by [`checked_condition`].
    pub condition: Option<String>,
    /// Whether the page says where the next one begins and how its rows are known again.
    pub is_editable: bool,
}

/// One part of an order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OrderBy {
    /// The column.
    pub column: String,
    /// Falling.
    pub descending: bool,
    /// NULLs before values (`true`) or after them; the engine's own habit if absent (PostgreSQL: NULLs are greatest; MySQL: least).
    pub nulls_first: Option<bool>,
}

/// A place between two rows: the last row's values of the order's columns, as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The whole order, the key's columns included.
    pub order: Vec<OrderBy>,
    /// One per column of the order.
    pub values: Vec<Option<String>>,
}

/// What a page is beside its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In order.
    pub columns: Vec<ResultColumn>,
    /// Where the next page begins; none if this is the last, or the object has no key that the order could end with.
    pub next: Option<Cursor>,
}

/// Statistics that are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryRequest {
    /// The table or view.
    pub object: ObjectName,
    /// Only about so many percent of the rows; all if absent.
    pub sample_percent: Option<f64>,
}

/// Statistics of a table or view.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows, of the sample if there is one.
    pub row_count: u64,
    /// In order.
    pub columns: Vec<ColumnSummary>,
}

/// Statistics of a column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// The type as the engine spells it.
    #[serde(rename = "type")]
    pub native_type: String,
    /// Least value; null where values have no order or there are none.
    pub min: Value,
    /// Greatest value.
    pub max: Value,
    /// Different values, about.
    pub approx_unique: u64,
    /// Mean, of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg: Option<f64>,
    /// Standard deviation, of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// A quarter of the values are at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q25: Option<f64>,
    /// Half of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q50: Option<f64>,
    /// Three quarters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q75: Option<f64>,
    /// Characters of the shortest text, bytes of the shortest binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    /// Of the longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// On average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_length: Option<f64>,
    /// Values that are not NULL.
    pub count: u64,
    /// 0 to 100.
    pub null_percentage: f64,
}

/// The detail `reason` of a refusal that would not be one if more than reading were allowed.
pub const READ_ONLY: &str = "read_only";

/// Statements to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// One or several, separated by `;`.
    pub sql: String,
    /// At most so many rows of each result; more are cut off, which the statement's end says.
    pub max_rows: u64,
    /// Whether only reading is allowed; the server itself then refuses writes.
    pub is_read_only: bool,
}

/// Takes the results of statements, one after the other, once it knows how many to `expect`: `begin` if it answers rows, rows into `rows` with a `send` whenever they are full, `end`.
pub trait ResultSink: Send {
    /// How many statements there are; called once, before the first of them runs.
    fn expect(&mut self, statements: usize);
    /// A result with rows begins.
    fn begin<'a>(&'a mut self, columns: &'a [ResultColumn]) -> BoxFuture<'a, Result<()>>;
    /// Where its rows go.
    fn rows(&mut self) -> &mut JsonRows;
    /// Passes on what was collected; waits while the reader is slow. Fails with [`crate::Kind::Cancelled`] if nobody reads any more.
    fn send(&mut self) -> BoxFuture<'_, Result<()>>;
    /// The statement has ended well.
    fn end(&mut self, end: StatementEnd) -> BoxFuture<'_, Result<()>>;
}

/// How a statement ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatementEnd {
    /// The first word or two of the statement (`SELECT`, `CREATE TABLE`).
    pub command: String,
    /// Rows that it changed; none for one that answers rows or changes no rows.
    pub rows_affected: Option<u64>,
    /// Whether more rows would have come than were wanted.
    pub is_cut: bool,
    /// What it created, changed or dropped: `database`, `schema`, `table`.
    pub affected: Option<AffectedObject>,
}

/// What a statement that defines something concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
pub enum AffectedObject {
    /// A database.
    Database,
    /// A schema.
    Schema,
    /// A table, view, index, routine, trigger, type or sequence.
    Table,
}

/// Rows to change in one table.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeRequest {
    /// The table.
    pub table: ObjectName,
    /// What happens to its rows.
    pub changes: RowChanges,
}

/// What happens to rows.
#[derive(Debug, Clone, PartialEq)]
pub enum RowChanges {
    /// New rows; a column that is left out gets its default.
    Insert(Vec<Map<String, Value>>),
    /// New rows; where the primary key is taken, the row there gets the values instead.
    Upsert(Vec<Map<String, Value>>),
    /// Other values in rows.
    Edit(Vec<RowEdit>),
    /// Rows that go.
    Delete(Vec<RowKey>),
}

/// A row by its key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RowKey {
    /// Values of all of the table's `editKeyColumns`.
    pub keys: Map<String, Value>,
    /// The row's etag as a page gave it; if the row is another by now, nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// A row by its key, and its new values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RowEdit {
    /// Values of all of the table's `editKeyColumns`.
    pub keys: Map<String, Value>,
    /// New values by column.
    pub changes: Map<String, Value>,
    /// The row's etag as a page gave it; if the row is another by now, nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// What a change has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChangedRows {
    /// Rows.
    pub count: u64,
    /// The rows as they are stored, as JSON objects by column; empty for deletions, and for inserts into tables without a key.
    pub rows: Vec<Value>,
}

/// Lets a condition through if it is one piece: it can neither end the parentheses that it is put into nor begin another statement.
///
/// It still is SQL of the user's own, run with the rights of the connection, in a transaction that cannot write.
pub fn checked_condition(condition: &str, has_backslash_escapes: bool) -> Result<&str> {
    let refused = |text: &'static str| Error::invalid("where", text);
    let mut depth = 0_usize;
    let mut rest = condition.chars().peekable();
    let mut before = [' ', ' '];
    while let Some(character) = rest.next() {
        // PostgreSQL's `E'…'` has escapes though its other texts have none.
        let is_escaped =
            has_backslash_escapes || matches!(before, [outer, 'e' | 'E'] if !outer.is_alphanumeric() && outer != '_' && outer != '$');
        before = [before[1], character];
        match character {
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or_else(|| refused("the condition closes a parenthesis that it has not opened"))?,
            ';' => return Err(refused("a condition is one expression; it holds no `;`")),
            '\'' | '"' | '`' => loop {
                match rest.next() {
                    None => return Err(refused("the condition ends inside of quotes")),
                    Some('\\') if has_backslash_escapes && character != '`' || is_escaped && character == '\'' => drop(rest.next()),
                    Some(end) if end == character => break,
                    Some(_) => {}
                }
            },
            '-' if rest.peek() == Some(&'-') => return Err(refused("a condition holds no comments")),
            '/' if rest.peek() == Some(&'*') => return Err(refused("a condition holds no comments")),
            '#' if has_backslash_escapes => return Err(refused("a condition holds no comments")),
            // PostgreSQL's other quotes could hide all of the above.
            '$' if !has_backslash_escapes && rest.peek().is_some_and(|next| *next == '$' || next.is_alphabetic() || *next == '_') => {
                return Err(refused("a condition holds no dollar quotes; write '…'"));
            }
            '\\' if !has_backslash_escapes => return Err(refused("a condition holds no backslash outside of quotes")),
            _ => {}
        }
    }
    if depth > 0 { Err(refused("the condition leaves a parenthesis open")) } else { Ok(condition) }
}

#[cfg(test)]
mod tests {
    use super::checked_condition;

    #[test]
    fn a_condition_cannot_leave_its_parentheses() {
        for good in ["a = 1", "(a = 1) OR (b = ')')", "name = 'it''s; -- fine'", "\"odd ) name\" > 3", "a IN (1, (2))", ""] {
            assert_eq!(checked_condition(good, false).ok(), Some(good), "{good}");
        }
        assert!(checked_condition("a = '\\'' OR b = ')'", true).is_ok());
        for bad in ["1=1) OR (1=1", "a = 1; DROP TABLE t", "a = 'x", "a = 1 -- x", "a /* ( */", "(a = 1", "a = $$)$$", "a = $x$)$x$"] {
            assert!(checked_condition(bad, false).is_err(), "{bad}");
        }
        // Where a backslash escapes, this text never ends; where it does not, what follows the second quote is outside.
        assert!(checked_condition("a = '\\'", true).is_err());
        assert!(checked_condition("a = '\\') OR ('", false).is_err());
        assert!(checked_condition("a = 1 # )", true).is_err());
        // An escaped quote does not end a text that has escapes.
        assert!(checked_condition("a = E'\\'' ) OR true; --'", false).is_err());
        assert!(checked_condition("a = E'\\' ; )'", false).is_ok());
        assert!(checked_condition("note = 'x' AND e'\\'' = ')'", false).is_ok());
        assert!(checked_condition("typename'\\' = ')'", false).is_ok());
    }
}
