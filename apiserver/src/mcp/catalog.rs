//! Tools about what connections contain.

use millrace_core::Error;
use millrace_core::explore::ObjectFilter;
use millrace_core::structure::{ObjectName, TableStructure, ViewStructure};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bounds::Listed;
use super::tool::Tool;
use crate::catalogs::Remembered;
use crate::errors::{ApiError, ApiResult};
use crate::place::{Place, PlaceNames};
use crate::routes::structure;
use crate::state::AppState;
use crate::wire::structure::{DatabaseInfo, SchemaInfo};

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "dbconvert_list_databases",
            "List databases",
            "Databases of a connection; folders of a connection to files. Those of the server itself are flagged.",
            databases,
        ),
        Tool::new(
            "dbconvert_list_schemas",
            "List schemas",
            "Schemas of a PostgreSQL database. MySQL and MariaDB have none: their list is empty.",
            schemas,
        ),
        Tool::new("dbconvert_list_tables", "List tables", "Names of the tables of a database.", tables),
        Tool::new("dbconvert_list_views", "List views", "Names of the views of a database, materialized ones too.", views),
        Tool::new(
            "dbconvert_describe_table",
            "Describe a table",
            "Columns with types, keys, indexes, foreign keys, checks, partitions, estimates and the statements that make a table.",
            table,
        ),
        Tool::new(
            "dbconvert_describe_view",
            "Describe a view",
            "Columns with types, the query that a view stands for, and what it reads.",
            view,
        ),
    ]
}

/// Which connection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DatabasesTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The server's own databases too; they are left out if absent.
    #[serde(default)]
    include_system: bool,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

async fn databases(state: AppState, takes: DatabasesTakes) -> ApiResult<Listed<DatabaseInfo>> {
    let place = Place::of(&state, PlaceNames { connection: takes.connection_id, ..PlaceNames::default() }).await?;
    let mut all = structure::all_databases(&state, &place).await?;
    all.retain(|database| takes.include_system || !database.is_system());
    Ok(Listed::of(all, takes.offset, takes.limit))
}

/// Which database, and which of its schemas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DatabaseTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// Only these schemas, where the engine has schemas; all if absent.
    #[serde(default)]
    schemas: Vec<String>,
    /// The server's own schemas too.
    #[serde(default)]
    include_system: bool,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

impl DatabaseTakes {
    async fn place(&self, state: &AppState) -> ApiResult<Place> {
        let names = PlaceNames { connection: self.connection_id.clone(), database: self.database.clone(), ..PlaceNames::default() };
        Place::of(state, names).await
    }

    fn filter(&self) -> ObjectFilter {
        ObjectFilter { schemas: self.schemas.clone(), with_system: self.include_system }
    }
}

async fn schemas(state: AppState, takes: DatabaseTakes) -> ApiResult<Listed<SchemaInfo>> {
    let place = takes.place(&state).await?;
    place.database_name()?;
    let mut all = structure::all_schemas(&state, &place, takes.include_system).await?;
    all.retain(|schema| takes.schemas.is_empty() || takes.schemas.iter().any(|wanted| wanted == schema.name()));
    Ok(Listed::of(all, takes.offset, takes.limit))
}

/// A table or view by its place.
#[derive(Debug, Serialize, JsonSchema)]
struct ObjectEntry {
    /// Its schema, where the engine has schemas.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    /// Its name.
    name: String,
}

impl From<ObjectName> for ObjectEntry {
    fn from(object: ObjectName) -> Self {
        Self { schema: object.schema, name: object.name }
    }
}

async fn tables(state: AppState, takes: DatabaseTakes) -> ApiResult<Listed<ObjectEntry>> {
    let place = takes.place(&state).await?;
    let all = structure::all_names(&state, &place, &takes.filter()).await?.tables;
    Ok(Listed::of(all.into_iter().map(Into::into).collect(), takes.offset, takes.limit))
}

async fn views(state: AppState, takes: DatabaseTakes) -> ApiResult<Listed<ObjectEntry>> {
    let place = takes.place(&state).await?;
    let all = structure::all_names(&state, &place, &takes.filter()).await?.views;
    Ok(Listed::of(all.into_iter().map(Into::into).collect(), takes.offset, takes.limit))
}

/// Which table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TableTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// The table's schema; the engine's default if absent.
    schema: Option<String>,
    /// The table's name.
    table: String,
}

async fn table(state: AppState, takes: TableTakes) -> ApiResult<TableStructure> {
    let place = Place::of(&state, object("table", takes.connection_id, takes.database, takes.schema, takes.table)?).await?;
    place.database_name()?;
    typed(&structure::one_table(&state, &place, false).await?)
}

/// Which view.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ViewTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// The view's schema; the engine's default if absent.
    schema: Option<String>,
    /// The view's name.
    view: String,
}

async fn view(state: AppState, takes: ViewTakes) -> ApiResult<ViewStructure> {
    let place = Place::of(&state, object("view", takes.connection_id, takes.database, takes.schema, takes.view)?).await?;
    place.database_name()?;
    typed(&structure::one_view(&state, &place, false).await?)
}

/// The names of a table's or view's place.
pub(super) fn object(
    field: &'static str,
    connection: String,
    database: Option<String>,
    schema: Option<String>,
    name: String,
) -> ApiResult<PlaceNames> {
    if name.is_empty() {
        return Err(ApiError::invalid(field, "the name is missing"));
    }
    Ok(PlaceNames { connection, database, schema, object: Some(name) })
}

/// What is remembered is the text that goes to REST clients.
pub(super) fn typed<T: DeserializeOwned>(found: &Remembered) -> ApiResult<T> {
    serde_json::from_slice(&found.body).map_err(|error| Error::internal("what is remembered has another form").because(error).into())
}
