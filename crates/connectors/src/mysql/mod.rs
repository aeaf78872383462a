//! MySQL, MariaDB and what speaks their protocol, as a source.
//!
//! ```text
//!  catalog (information_schema) ─▶ cut (consistent snapshots that agree on one binlog position)
//!      ─▶ splits (ranges of the first key column) ─▶ reader (binary protocol, borrowed rows) ─▶ the target's encoder
//! ```

mod catalog;
mod cut;
mod defaults;
mod error;
mod explore;
mod planner;
mod queries;
mod reader;
mod selection;
mod session;
mod splits;
mod values;
mod wire;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Connection, DatabaseSpec, Engine};
use millrace_core::connector::{
    Connector, ConstraintsReport, Forgotten, PlanRequest, Scope, Session, Sink, SourcePart, SourcePlanner, TargetFacts,
};
use millrace_core::explore::Explorer;
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::plan::Plan;
use millrace_core::{Error, Kind, Result};

use explore::MySqlExplorer;
use planner::MySqlPlanner;
use session::MySqlSession;
use wire::{TextRow, Wire};

/// The connector.
pub struct MySql;

impl Connector for MySql {
    fn engine(&self) -> Engine {
        Engine::MySql
    }

    fn session<'a>(&'a self, connection: &'a Connection, database: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        async move {
            let spec = spec(connection)?;
            let wire = Wire::connect(connection, database.or(spec.database.as_deref())).await?;
            Ok(Box::new(MySqlSession(wire)) as Box<dyn Session>)
        }
        .boxed()
    }

    fn explore<'a>(&'a self, connection: &'a Connection, database: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Explorer>>> {
        async move { Ok(Box::new(MySqlExplorer::open(connection, database).await?) as Box<dyn Explorer>) }.boxed()
    }

    fn source<'a>(&'a self, connection: &'a Connection, scope: &'a Scope) -> BoxFuture<'a, Result<Box<dyn SourcePlanner>>> {
        async move {
            let spec = spec(connection)?;
            if scope.schema.is_some() {
                return Err(Error::invalid("source.connections[0].schema", "MySQL has no schemas; name a `database`"));
            }
            let database = scope
                .database
                .clone()
                .or_else(|| spec.database.clone())
                .ok_or_else(|| Error::invalid("source.connections[0].database", "the connection has no default database; name one"))?;
            let planner = MySqlPlanner::open(connection.clone(), database).await.map_err(|error| match error.detail("errno") {
                // ER_BAD_DB_ERROR
                Some("1049") => error.field("source.connections[0].database"),
                _ => error,
            });
            Ok(Box::new(planner?) as Box<dyn SourcePlanner>)
        }
        .boxed()
    }

    fn inspect<'a>(&'a self, _: &'a Connection, _: &'a Scope, _: &'a ConfigId, _: &'a [SourcePart]) -> BoxFuture<'a, Result<TargetFacts>> {
        async { Err(no_target()) }.boxed()
    }

    fn plan(&self, _: &PlanRequest<'_>) -> Result<Plan> {
        Err(no_target())
    }

    fn validate_constraints<'a>(&'a self, _: &'a Connection, _: &'a Scope) -> BoxFuture<'a, Result<ConstraintsReport>> {
        async { Err(no_target()) }.boxed()
    }

    fn forget<'a>(&'a self, _: &'a Connection, _: &'a Scope, _: &'a ConfigId, _: &'a [StreamId]) -> BoxFuture<'a, Result<Forgotten>> {
        async { Err(no_target()) }.boxed()
    }

    fn sink<'a>(&'a self, _: &'a Connection, _: &'a Scope) -> BoxFuture<'a, Result<Box<dyn Sink>>> {
        async { Err(no_target()) }.boxed()
    }
}

/// Ends statements that other sessions of this user run on the server from this machine: those whose client side is one of these local TCP ports.
///
/// The query tier uses it for engines that cannot tag their sessions: it knows the ports of its child process. Answers how many were told to end.
pub async fn kill_queries_from_ports(connection: &Connection, ports: &[u16]) -> Result<usize> {
    if ports.is_empty() {
        return Ok(0);
    }
    let mut wire = Wire::connect(connection, None).await?;
    let own = wire.thread_id().to_string();
    let rows = wire.query_text("SHOW PROCESSLIST").await?;
    // Other machines have the same ports, and a privileged user sees everybody's sessions.
    let place = |row: &TextRow| Some((row.text("User"), row.get("Host")?.rsplit_once(':')?.0.to_owned()));
    let Some(here) = rows.iter().find(|row| row.get("Id") == Some(own.as_str())).and_then(place) else {
        wire.quit().await;
        return Ok(0);
    };
    let mut ended = 0;
    for row in &rows {
        let id = row.text("Id");
        let port = row.text("Host").rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let is_wanted = id != own && place(row).as_ref() == Some(&here) && port.is_some_and(|port| ports.contains(&port));
        if let (true, Ok(id)) = (is_wanted, id.parse::<u64>()) {
            match wire.execute_text(&format!("KILL QUERY {id}")).await {
                Ok(()) => ended += 1,
                // It ended by itself meanwhile (ER_NO_SUCH_THREAD).
                Err(error) if error.detail("errno") == Some("1094") => {}
                Err(error) => return Err(error),
            }
        }
    }
    wire.quit().await;
    Ok(ended)
}

fn no_target() -> Error {
    Error::not_supported("target.id", "MySQL targets are not supported yet")
}

fn spec(connection: &Connection) -> Result<&DatabaseSpec> {
    connection
        .database()
        .ok_or_else(|| Error::new(Kind::Invalid, "a MySQL connection needs the form `spec.database`").field("spec.database"))
}

/// A name as it stands in a statement.
fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as it stands in a statement, whatever the SQL mode says about backslashes.
fn literal(text: &str) -> String {
    use std::fmt::Write as _;
    let mut literal = String::from("_utf8mb4 0x");
    for byte in text.as_bytes() {
        let _ = write!(literal, "{byte:02x}");
    }
    if text.is_empty() { "''".to_owned() } else { literal }
}
