//! PostgreSQL.
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Connection, Engine};
use millrace_core::connector::{Connector, Scope, Session, Sink, SourcePlanner};
use millrace_core::{Error, Result};

/// The connector.
pub struct PostgreSql;

impl Connector for PostgreSql {
    fn engine(&self) -> Engine {
        Engine::PostgreSql
    }

    fn session<'a>(&'a self, _: &'a Connection, _: Option<&'a str>) -> BoxFuture<'a, Result<Box<dyn Session>>> {
        async { Err(Error::internal("not wired")) }.boxed()
    }

    fn source<'a>(&'a self, _: &'a Connection, _: &'a Scope) -> BoxFuture<'a, Result<Box<dyn SourcePlanner>>> {
        async { Err(Error::internal("not wired")) }.boxed()
    }

    fn sink<'a>(&'a self, _: &'a Connection, _: &'a Scope) -> BoxFuture<'a, Result<Box<dyn Sink>>> {
        async { Err(Error::not_supported("target.id", "x are not supported yet")) }.boxed()
    }
}
