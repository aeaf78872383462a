//! Looking into a PostgreSQL database and editing its rows.
//!
//! ```text
//!  structure, names, overview ─▶ a handful of catalog queries (binary)
//!  page, count, run, change ───▶ simple queries, whose rows come in the server's text form ─▶ JsonRows
//! ```
//!
//! Every session has the same settings, so that a value has one text: UTC, ISO dates, hexadecimal bytes, floats with all digits.

mod ddl;
mod edit;
mod names;
mod objects;
mod overview;
mod page;
mod rows;
mod run;
mod split;
mod sql;
mod structure;
mod summary;
mod table;
mod values;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::Connection;
use millrace_core::connector::DatabaseEntry;
use millrace_core::explore::{
    Canceller, ChangeRequest, ChangedRows, Explorer, ObjectFilter, Page, PageRequest, ResultColumn, ResultSink, RunRequest, Summary,
    SummaryRequest,
};
use millrace_core::json_rows::JsonRows;
use millrace_core::overview::DatabaseOverview;
use millrace_core::structure::{DatabaseStructure, ObjectName, ObjectNames, TableStructure, ViewStructure};
use millrace_core::{Error, Kind, Result};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Client, Row};

use super::error::{classify, refusal};
use super::names::{MAX_BYTES, quote};
use super::session;

/// What a session begins with. The limits that [`session::connect`] lifts for copies are meant for people.
const SETTINGS: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';
    SET extra_float_digits = 3; SET standard_conforming_strings = on; RESET statement_timeout; RESET idle_in_transaction_session_timeout";

/// What `DISCARD ALL` does (manual), but for statements that are prepared: the driver's own must stay.
const DISCARD: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();
    DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES";

/// One session in one database.
pub(super) struct PgExplorer {
    connection: Connection,
    database: String,
    client: Client,
    token: Arc<Mutex<CancelToken>>,
    /// `server_version_num`: 150004 for 15.4.
    version: i32,
    /// A call has begun and not ended, or has lost the connection.
    is_busy: bool,
    /// Statements of a user have run since the session was as it began.
    is_used: bool,
    /// A user's transaction is open.
    is_in_transaction: bool,
    statements: Vec<String>,
    /// How built-in types with their modifiers are spelled.
    type_names: HashMap<(u32, i32), String>,
}

impl PgExplorer {
    /// Logs in.
    pub(super) async fn open(connection: &Connection, database: &str) -> Result<Self> {
        let client = session::connect(connection, database).await?;
        client.batch_execute(SETTINGS).await.map_err(classify)?;
        let row = client.query_typed_one("SELECT current_setting('server_version_num')::int", &[]).await.map_err(classify)?;
        Ok(Self {
            connection: connection.clone(),
            database: database.to_owned(),
            token: Arc::new(Mutex::new(client.cancel_token())),
            version: row.get(0),
            client,
            is_busy: false,
            is_used: false,
            is_in_transaction: false,
            statements: Vec::new(),
            type_names: HashMap::new(),
        })
    }

    /// Another session in this one's place.
    async fn renew(&mut self) -> Result<()> {
        let statements = std::mem::take(&mut self.statements);
        *self = Self { statements, token: self.token.clone(), ..Self::open(&self.connection, &self.database).await? };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = self.client.cancel_token();
        Ok(())
    }

    /// As [`Self::renew`], in the middle of a user's statements.
    async fn renew_used(&mut self) -> Result<()> {
        self.renew().await?;
        (self.is_busy, self.is_used) = (true, true);
        Ok(())
    }

    /// Rows of a catalog query of ours; one round trip.
    async fn ask(&self, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>> {
        self.client.query_typed(&for_version(sql, self.version), params).await.map_err(|error| refusal(error, 0))
    }

    /// Ends a transaction of ours after an error, which is more interesting than one of this.
    async fn roll_back(&self) {
        if let Err(error) = self.client.batch_execute("ROLLBACK").await {
            tracing::debug!(error = %classify(error), "a transaction could not be rolled back");
        }
    }

    async fn create(&mut self, what: &str, name: &str) -> Result<()> {
        if name.is_empty() || name.len() > MAX_BYTES || name.contains('\0') {
            return Err(Error::invalid("name", format!("names have 1 to {MAX_BYTES} bytes")));
        }
        let sql = format!("CREATE {what} {}", quote(name));
        self.statements.push(sql.clone());
        self.client.batch_execute(&sql).await.map_err(|error| {
            let error = refusal(error, 0);
            match error.detail("sqlstate") {
                // duplicate_database, duplicate_schema
                Some("42P04" | "42P06") => Error::new(Kind::Conflict, error.message().to_owned()),
                _ => error,
            }
        })
    }

    /// A call has ended. The driver may notice a lost connection later than its user.
    fn leave<T>(&mut self, outcome: Result<T>) -> Result<T> {
        self.is_busy = outcome.as_ref().is_err_and(|error| matches!(error.kind(), Kind::ConnectionLost | Kind::ProtocolViolated));
        outcome
    }
}

/// Older servers lack columns of the catalog that later ones have (release notes of 11 and 12).
fn for_version(sql: &str, version: i32) -> String {
    let mut sql = sql.to_owned();
    if version < 120_000 {
        sql = sql.replace("a.attgenerated", "''");
    }
    if version < 110_000 {
        let kind = "CASE WHEN p.proisagg THEN 'a' WHEN p.proiswindow THEN 'w' ELSE 'f' END";
        sql = sql.replace("i.indnkeyatts", "i.indnatts").replace("p.prokind", kind).replace("k.conparentid", "0::oid");
    }
    sql
}

/// The schema and name; people mean the default schema if they name none.
fn place(name: &ObjectName) -> (&str, &str) {
    (name.schema.as_deref().unwrap_or("public"), &name.name)
}

impl Explorer for PgExplorer {
    fn databases(&mut self) -> BoxFuture<'_, Result<Vec<DatabaseEntry>>> {
        async move {
            self.is_busy = true;
            let found = session::databases(&self.client).await;
            self.leave(found)
        }
        .boxed()
    }

    fn names<'a>(&'a mut self, wanted: &'a ObjectFilter) -> BoxFuture<'a, Result<ObjectNames>> {
        async move {
            self.is_busy = true;
            let found = names::names(self, wanted).await;
            self.leave(found)
        }
        .boxed()
    }

    fn structure<'a>(&'a mut self, wanted: &'a ObjectFilter) -> BoxFuture<'a, Result<DatabaseStructure>> {
        async move {
            self.is_busy = true;
            let found = structure::structure(self, wanted).await;
            self.leave(found)
        }
        .boxed()
    }

    fn table<'a>(&'a mut self, name: &'a ObjectName) -> BoxFuture<'a, Result<TableStructure>> {
        async move {
            self.is_busy = true;
            let found = structure::table(self, name).await;
            self.leave(found)
        }
        .boxed()
    }

    fn view<'a>(&'a mut self, name: &'a ObjectName) -> BoxFuture<'a, Result<ViewStructure>> {
        async move {
            self.is_busy = true;
            let found = structure::view(self, name).await;
            self.leave(found)
        }
        .boxed()
    }

    fn overview(&mut self) -> BoxFuture<'_, Result<DatabaseOverview>> {
        async move {
            self.is_busy = true;
            let found = overview::overview(self).await;
            self.leave(found)
        }
        .boxed()
    }

    fn create_database<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.is_busy = true;
            let made = self.create("DATABASE", name).await;
            self.leave(made)
        }
        .boxed()
    }

    fn create_schema<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.is_busy = true;
            let made = self.create("SCHEMA", name).await;
            self.leave(made)
        }
        .boxed()
    }

    fn page<'a>(&'a mut self, page: &'a PageRequest, rows: &'a mut JsonRows) -> BoxFuture<'a, Result<Page>> {
        async move {
            self.is_busy = true;
            let read = page::page(self, page, rows).await;
            self.leave(read)
        }
        .boxed()
    }

    fn count<'a>(&'a mut self, object: &'a ObjectName, condition: Option<&'a str>) -> BoxFuture<'a, Result<u64>> {
        async move {
            self.is_busy = true;
            let count = page::count(self, object, condition).await;
            self.leave(count)
        }
        .boxed()
    }

    fn summarize<'a>(&'a mut self, request: &'a SummaryRequest) -> BoxFuture<'a, Result<Summary>> {
        async move {
            self.is_busy = true;
            let summary = summary::summarize(self, request).await;
            self.leave(summary)
        }
        .boxed()
    }

    fn columns<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<ResultColumn>>> {
        async move {
            self.is_busy = true;
            let columns = run::columns(self, sql).await;
            self.leave(columns)
        }
        .boxed()
    }

    fn run<'a>(&'a mut self, request: &'a RunRequest, results: &'a mut dyn ResultSink) -> BoxFuture<'a, Result<()>> {
        async move {
            (self.is_busy, self.is_used) = (true, true);
            let ran = run::run(self, request, results).await;
            self.leave(ran)
        }
        .boxed()
    }

    fn change<'a>(&'a mut self, request: &'a ChangeRequest) -> BoxFuture<'a, Result<ChangedRows>> {
        async move {
            self.is_busy = true;
            let changed = edit::change(self, request).await;
            self.leave(changed)
        }
        .boxed()
    }

    fn take_statements(&mut self) -> Vec<String> {
        std::mem::take(&mut self.statements)
    }

    fn canceller(&self) -> Box<dyn Canceller> {
        Box::new(PgCanceller { token: self.token.clone(), connection: self.connection.clone() })
    }

    fn is_reusable(&self) -> bool {
        !self.client.is_closed() && !self.is_busy && !self.is_used && !self.is_in_transaction
    }

    fn reset(&mut self) -> BoxFuture<'_, Result<()>> {
        async move {
            if self.client.is_closed() || self.is_busy {
                return self.renew().await;
            }
            self.is_busy = true;
            // Without a transaction this is a warning.
            self.client.batch_execute("ROLLBACK").await.map_err(classify)?;
            self.client.batch_execute(DISCARD).await.map_err(classify)?;
            run::deallocate(&self.client).await?;
            self.client.batch_execute(SETTINGS).await.map_err(classify)?;
            (self.is_busy, self.is_used, self.is_in_transaction) = (false, false, false);
            Ok(())
        }
        .boxed()
    }
}

/// Ends what a session runs, whichever one is in the explorer's place.
///
/// The driver does not wait until the server has acted: a cancellation that comes too late for its statement may meet the session's next one, so a session that was
/// cancelled while it was idle is not to be used again at once.
struct PgCanceller {
    token: Arc<Mutex<CancelToken>>,
    connection: Connection,
}

impl Canceller for PgCanceller {
    fn cancel(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
            session::cancel(token, &self.connection).await
        }
        .boxed()
    }
}
