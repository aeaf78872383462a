//! PostgreSQL and what speaks its protocol, as a target and to look into.
//!
//! ```text
//!  plan (types, names, expressions) ─▶ tables ─▶ splits by binary COPY, each with its ledger row in one transaction
//!      ─▶ primary keys, indexes, checks, sequences ─▶ foreign keys
//! ```

mod constraints;
mod copy;
mod ddl;
mod encode;
mod error;
mod explore;
mod expression;
mod fidelity;
mod fleet;
mod forget;
mod inspect;
mod ledger;
mod misfit;
mod names;
mod plan;
mod session;
mod sink;
mod types;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Connection, Engine};
use millrace_core::connector::{
    Connector, ConstraintsReport, Forgotten, PlanRequest, Scope, Session, Sink, SourcePart, SourcePlanner, TargetFacts,
};
use millrace_core::explore::Explorer;
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::plan::Plan;
use millrace_core::{Error, Result};

use explore::PgExplorer;
use session::{MAINTENANCE_DATABASE, PgSession};
use sink::PgSink;

/// `docs/fidelity.md`.
pub fn fidelity_markdown() -> String {
    fidelity::markdown()
}

/// The connector.
pub struct PostgreSql;

impl Connector for PostgreSql {
    fn engine(&self) -> Engine {
        Engine::PostgreSql
    }

    fn session<'a>(&'a self, connection: &'a Connection, database: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        async move {
            let spec = session::spec(connection)?;
            let database = database.or(spec.database.as_deref()).unwrap_or(MAINTENANCE_DATABASE);
            Ok(Box::new(PgSession(session::connect(connection, database).await?)) as Box<dyn Session>)
        }
        .boxed()
    }

    fn explore<'a>(&'a self, connection: &'a Connection, database: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Explorer>>> {
        async move {
            let spec = session::spec(connection)?;
            let database = database.or(spec.database.as_deref()).unwrap_or(MAINTENANCE_DATABASE);
            Ok(Box::new(PgExplorer::open(connection, database).await?) as Box<dyn Explorer>)
        }
        .boxed()
    }

    fn source<'a>(&'a self, _: &'a Connection, _: &'a Scope) -> BoxFuture<'a, Result<Box<dyn SourcePlanner>>> {
        let error = Error::not_supported("source.connections[0].connectionId", "PostgreSQL sources are not supported yet");
        async { Err(error) }.boxed()
    }

    fn inspect<'a>(
        &'a self,
        connection: &'a Connection,
        scope: &'a Scope,
        config: &'a ConfigId,
        sources: &'a [SourcePart],
    ) -> BoxFuture<'a, Result<TargetFacts>> {
        async move {
            check_names(scope)?;
            inspect::inspect(connection, scope, config, sources).await
        }
        .boxed()
    }

    fn plan(&self, request: &PlanRequest<'_>) -> Result<Plan> {
        check_names(request.scope)?;
        plan::plan(request, request.scope.schema.as_deref().unwrap_or(sink::DEFAULT_SCHEMA))
    }

    fn validate_constraints<'a>(&'a self, connection: &'a Connection, scope: &'a Scope) -> BoxFuture<'a, Result<ConstraintsReport>> {
        async move {
            let database = scope.database.as_deref().unwrap_or(MAINTENANCE_DATABASE);
            let client = session::connect(connection, database).await?;
            constraints::validate(&client, scope.schema.as_deref().unwrap_or(sink::DEFAULT_SCHEMA)).await
        }
        .boxed()
    }

    fn forget<'a>(
        &'a self,
        connection: &'a Connection,
        scope: &'a Scope,
        config: &'a ConfigId,
        abandoned: &'a [StreamId],
    ) -> BoxFuture<'a, Result<Forgotten>> {
        async move {
            check_names(scope)?;
            forget::forget(connection, scope, config, abandoned).await
        }
        .boxed()
    }

    fn sink<'a>(&'a self, connection: &'a Connection, scope: &'a Scope) -> BoxFuture<'a, Result<Box<dyn Sink>>> {
        async move {
            check_names(scope)?;
            let sink = PgSink::open(connection, scope).await?;
            Ok(Box::new(sink) as Box<dyn Sink>)
        }
        .boxed()
    }
}

/// PostgreSQL cuts longer names off, which would lead to another place (manual, "Identifiers and Key Words").
fn check_names(scope: &Scope) -> Result<()> {
    for (field, name) in [("database", &scope.database), ("schema", &scope.schema)] {
        if let Some(name) = name.as_ref().filter(|name| name.len() > names::MAX_BYTES) {
            let text = format!("`{name}` is too long: PostgreSQL's names have at most {} bytes", names::MAX_BYTES);
            return Err(Error::invalid(format!("target.spec.db.{field}"), text));
        }
    }
    Ok(())
}

/// Ends the statements of sessions whose `application_name` is `tag`. Answers how many were told to end.
pub async fn cancel_tagged(connection: &Connection, tag: &str) -> Result<usize> {
    let spec = session::spec(connection)?;
    let client = session::connect(connection, spec.database.as_deref().unwrap_or(MAINTENANCE_DATABASE)).await?;
    let sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
    let row = client.query_one(sql, &[&tag]).await.map_err(error::classify)?;
    Ok(row.get::<_, i64>(0) as usize)
}
