//! Opens the catalog and the cut of one database.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Result;
use millrace_core::catalog::Catalog;
use millrace_core::config::TableSelection;
use millrace_core::connection::DatabaseSpec;
use millrace_core::connector::{Cut, SourcePlanner};

use super::wire::Wire;
use super::{catalog, cut};

/// Plans the reading of one database.
pub(super) struct MySqlPlanner {
    spec: DatabaseSpec,
    database: String,
    control: Wire,
}

impl MySqlPlanner {
    pub(super) async fn open(spec: DatabaseSpec, database: String) -> Result<Self> {
        let control = Wire::connect(&spec, Some(&database)).await?;
        Ok(Self { spec, database, control })
    }
}

impl SourcePlanner for MySqlPlanner {
    fn catalog<'a>(&'a mut self, tables: &'a [TableSelection]) -> BoxFuture<'a, Result<Catalog>> {
        catalog::load(&mut self.control, &self.database, tables).boxed()
    }

    fn open_cut(&mut self, lanes: usize) -> BoxFuture<'_, Result<Cut>> {
        cut::open(&self.spec, &self.database, &mut self.control, lanes).boxed()
    }
}
