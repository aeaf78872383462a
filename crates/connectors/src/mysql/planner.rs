//! Opens the catalog and the cut of one database.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Result;
use millrace_core::catalog::Catalog;
use millrace_core::connection::Connection;
use millrace_core::connector::{Cut, SourcePlanner, Wanted};

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
}
