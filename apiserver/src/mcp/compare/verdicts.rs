//! What a convert stream would make of columns: the plan of a copy into tables that exist, which reads both databases and changes nothing.

use std::time::Duration;

use millrace_connectors::connector;
use millrace_core::Result;
use millrace_core::config::{PlanOptions, SchemaPolicy, StructureOptions, WriteMode};
use millrace_core::connector::{PlanRequest, Scope, SourcePart, Wanted, WriteOptions};
use millrace_core::id::ConfigId;
use millrace_core::plan::TablePlan;

use crate::explorers::within;
use crate::place::Place;

/// How long both databases may take together.
const PATIENCE: Duration = Duration::from_secs(90);

/// The plans of these tables, from one database into a schema of another.
pub(super) async fn plans(source: &Place, target: &Place, schema: Option<&str>, tables: &[String]) -> Result<Vec<TablePlan>> {
    within(PATIENCE, async {
        let scope = Scope { database: source.database.clone(), schema: None };
        let mut planner = connector(source.connection.engine)?.source(&source.connection, &scope).await?;
        let mut catalog = planner.catalog(Wanted::default()).await?;
        drop(planner);
        catalog.tables.retain(|table| tables.contains(&table.name.name));
        let parts = [SourcePart { alias: None, catalog, facts: Vec::new() }];
        let scope = Scope { database: target.database.clone(), schema: schema.map(str::to_owned) };
        let writer = connector(target.connection.engine)?;
        // No config has this id, so that nothing is taken for a run's own.
        let facts = writer.inspect(&target.connection, &scope, &ConfigId::mint(), &parts).await?;
        let options = WriteOptions {
            structure: StructureOptions::default(),
            schema_policy: SchemaPolicy::ValidateExisting,
            write_mode: WriteMode::Append,
            is_structure_only: true,
            may_restart: false,
            plan: PlanOptions::default(),
        };
        Ok(writer.plan(&PlanRequest { scope: &scope, sources: &parts, target: &facts, options: &options })?.tables)
    })
    .await
}
