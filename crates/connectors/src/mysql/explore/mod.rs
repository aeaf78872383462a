//! Looking into MySQL and MariaDB databases and editing their rows.
//!
//! ```text
//!  names · structure · overview   information_schema, a handful of questions whatever the number of objects; SHOW CREATE per table and view
//!  page · count · summary         a transaction that cannot write; rows in the binary form, straight into JSON
//!  run                            one statement after the other, prepared where the server can
//!  change                         SELECT … FOR UPDATE must meet one row; numbers are never compared with strings
//! ```

mod bind;
mod edit;
mod object;
mod overview;
mod page;
mod run;
mod structure;
mod summary;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::Connection;
use millrace_core::connector::{DatabaseEntry, Session as _};
use millrace_core::explore::{
    Canceller, ChangeRequest, ChangedRows, Explorer, ObjectFilter, Page, PageRequest, ResultColumn, ResultSink, RunRequest, Summary,
    SummaryRequest,
};
use millrace_core::json_rows::JsonRows;
use millrace_core::overview::DatabaseOverview;
use millrace_core::structure::{DatabaseStructure, ObjectName, ObjectNames, TableStructure, ViewStructure};
use millrace_core::{Error, Kind, Result};

use super::session::MySqlSession;
use super::wire::Wire;
use super::{literal, quote};

/// One session for people.
pub(super) struct MySqlExplorer {
    session: MySqlSession,
    connection: Connection,
    database: Option<String>,
    /// What was run for the user since somebody asked.
    statements: Vec<String>,
    /// Whether the session is where it was after the login.
    is_clean: bool,
}

impl MySqlExplorer {
    pub(super) async fn open(connection: &Connection, database: Option<&str>) -> Result<Self> {
        let default = super::spec(connection)?.database.as_deref();
        let database = database.or(default);
        let wire = Wire::connect(connection, database).await?;
        Ok(Self {
            session: MySqlSession(wire),
            connection: connection.clone(),
            database: database.map(str::to_owned),
            statements: Vec::new(),
            is_clean: true,
        })
    }

    fn wire(&mut self) -> &mut Wire {
        &mut self.session.0
    }

    /// The database that is looked into.
    fn database(&self) -> Result<String> {
        self.database.clone().ok_or_else(|| Error::invalid("database", "the connection has no default database; name one"))
    }

    /// Runs something in a transaction that cannot write; the transaction ends in any case.
    async fn begin_reading(&mut self) -> Result<()> {
        match self.wire().execute_text("START TRANSACTION READ ONLY").await {
            // Servers before 5.6.5 do not know the words.
            Err(error) if error.detail("errno") == Some("1064") => self.wire().execute_text("START TRANSACTION").await,
            other => other,
        }
    }

    async fn end_reading<T>(&mut self, outcome: Result<T>) -> Result<T> {
        let is_open = !matches!(&outcome, Err(error) if matches!(error.kind(), Kind::ConnectionLost | Kind::ProtocolViolated));
        // What is unread would be taken for the answer of the commit.
        if is_open && !self.wire().has_unread() {
            self.wire().execute_text("COMMIT").await?;
        } else {
            self.is_clean = false;
        }
        outcome
    }
}

impl Explorer for MySqlExplorer {
    fn databases(&mut self) -> BoxFuture<'_, Result<Vec<DatabaseEntry>>> {
        self.session.databases()
    }

    fn names<'a>(&'a mut self, _: &'a ObjectFilter) -> BoxFuture<'a, Result<ObjectNames>> {
        async {
            let database = self.database()?;
            structure::names(self.wire(), &database).await
        }
        .boxed()
    }

    fn structure<'a>(&'a mut self, _: &'a ObjectFilter) -> BoxFuture<'a, Result<DatabaseStructure>> {
        async {
            let database = self.database()?;
            structure::structure(self.wire(), &database, None).await
        }
        .boxed()
    }

    fn table<'a>(&'a mut self, name: &'a ObjectName) -> BoxFuture<'a, Result<TableStructure>> {
        async {
            let database = self.database()?;
            let found = structure::structure(self.wire(), &database, Some(&name.name)).await?;
            let table = found.tables.into_iter().find(|table| table.name == name.name);
            table.ok_or_else(|| object::missing("table", &database, &name.name))
        }
        .boxed()
    }

    fn view<'a>(&'a mut self, name: &'a ObjectName) -> BoxFuture<'a, Result<ViewStructure>> {
        async {
            let database = self.database()?;
            let found = structure::structure(self.wire(), &database, Some(&name.name)).await?;
            let view = found.views.into_iter().find(|view| view.name == name.name);
            view.ok_or_else(|| object::missing("view", &database, &name.name))
        }
        .boxed()
    }

    fn overview(&mut self) -> BoxFuture<'_, Result<DatabaseOverview>> {
        async {
            let database = self.database()?;
            overview::overview(self.wire(), &database).await
        }
        .boxed()
    }

    fn create_database<'a>(&'a mut self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let sql = format!("CREATE DATABASE {}", quote(name));
            self.statements.push(sql.clone());
            self.wire().execute_text(&sql).await.map_err(|error| match error.detail("errno") {
                // ER_DB_CREATE_EXISTS
                Some("1007") => Error::new(Kind::Conflict, format!("there is a database `{name}` already")),
                // ER_WRONG_DB_NAME, ER_TOO_LONG_IDENT
                Some("1102" | "1059") => Error::invalid("", format!("`{name}` cannot be the name of a database")).because(error),
                _ => error,
            })
        }
        .boxed()
    }

    fn create_schema<'a>(&'a mut self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        async { Err(Error::not_supported("", "MySQL has no schemas inside of databases; create a database")) }.boxed()
    }

    fn page<'a>(&'a mut self, page: &'a PageRequest, rows: &'a mut JsonRows) -> BoxFuture<'a, Result<Page>> {
        self.read_page(page, rows).boxed()
    }

    fn count<'a>(&'a mut self, object: &'a ObjectName, condition: Option<&'a str>) -> BoxFuture<'a, Result<u64>> {
        self.count_rows(object, condition).boxed()
    }

    fn summarize<'a>(&'a mut self, request: &'a SummaryRequest) -> BoxFuture<'a, Result<Summary>> {
        self.summary(request).boxed()
    }

    fn columns<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<Vec<ResultColumn>>> {
        self.describe(sql).boxed()
    }

    fn run<'a>(&'a mut self, request: &'a RunRequest, results: &'a mut dyn ResultSink) -> BoxFuture<'a, Result<()>> {
        self.run_all(request, results).boxed()
    }

    fn change<'a>(&'a mut self, request: &'a ChangeRequest) -> BoxFuture<'a, Result<ChangedRows>> {
        self.change_rows(request).boxed()
    }

    fn take_statements(&mut self) -> Vec<String> {
        std::mem::take(&mut self.statements)
    }

    fn canceller(&self) -> Box<dyn Canceller> {
        Box::new(Killer { connection: self.connection.clone(), thread: self.session.0.thread_id() })
    }

    fn is_reusable(&self) -> bool {
        self.is_clean && !self.session.0.has_unread()
    }

    fn reset(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            // A failure leaves the session as it is, so nobody uses it again.
            self.wire().reset().await?;
            match self.database.clone() {
                Some(database) => {
                    self.wire().run_text(&format!("USE {}", quote(&database))).await?;
                }
                // The server keeps the database that a user has chosen, and there is no way back to none.
                None => {
                    let rows = self.wire().query_text("SELECT DATABASE()").await?;
                    if rows.first().and_then(|row| row.at(0)).is_some() {
                        return Err(Error::new(Kind::Conflict, "a user has chosen a database in the session, which had none"));
                    }
                }
            }
            self.is_clean = true;
            Ok(())
        }
        .boxed()
    }
}

/// Ends what a thread of the server runs.
struct Killer {
    connection: Connection,
    thread: u32,
}

impl Canceller for Killer {
    fn cancel(&self) -> BoxFuture<'_, Result<()>> {
        async {
            let mut wire = Wire::connect(&self.connection, None).await?;
            let killed = wire.execute_text(&format!("KILL QUERY {}", self.thread)).await;
            wire.quit().await;
            match killed {
                // It has ended by itself meanwhile (ER_NO_SUCH_THREAD).
                Err(error) if error.detail("errno") == Some("1094") => Ok(()),
                other => other,
            }
        }
        .boxed()
    }
}

/// A table or view as it stands in a statement.
fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", quote(database), quote(name))
}

/// A text as it stands in a statement, whatever the SQL mode.
fn text_literal(text: &str) -> String {
    literal(text)
}

#[cfg(test)]
mod tests;
