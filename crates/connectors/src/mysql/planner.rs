//! Opens the catalog and the cut of one database.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Result;
use millrace_core::catalog::Catalog;
use millrace_core::connection::Connection;
use millrace_core::connector::{Cut, SharedCut, SourcePlanner, Wanted};

use super::wire::Wire;
use super::{catalog, cut};

/// Plans the reading of one database.
pub(super) struct MySqlPlanner {
    connection: Connection,
    database: String,
    control: Wire,
}

impl MySqlPlanner {
    pub(super) async fn open(connection: Connection, database: String) -> Result<Self> {
        let control = Wire::connect(&connection, Some(&database)).await?;
        Ok(Self { connection, database, control })
    }
}

impl SourcePlanner for MySqlPlanner {
    fn catalog<'a>(&'a mut self, wanted: Wanted<'a>) -> BoxFuture<'a, Result<Catalog>> {
        catalog::load(&mut self.control, &self.database, wanted).boxed()
    }

    fn open_cut(&mut self, lanes: usize) -> BoxFuture<'_, Result<Cut>> {
        cut::open(&self.connection, &self.database, &mut self.control, lanes).boxed()
    }

    fn share_cut(&mut self, lanes: usize) -> BoxFuture<'_, Result<Box<dyn SharedCut>>> {
        async move {
            let shared = cut::share(&self.connection, &self.database, &mut self.control, lanes).await?;
            Ok(Box::new(shared) as Box<dyn SharedCut>)
        }
        .boxed()
    }

    fn hold_commits(&mut self) -> BoxFuture<'_, Result<()>> {
        cut::hold(&mut self.control).boxed()
    }

    fn release_commits(&mut self) -> BoxFuture<'_, Result<()>> {
        cut::release(&mut self.control).boxed()
    }
}
