//! What a connection contains: databases, schemas, tables, views, how they are made, and a database at a glance.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use millrace_core::explore::ObjectFilter;
use millrace_core::overview::DatabaseOverview;
use millrace_core::structure::{DatabaseStructure, ObjectNames, TableStructure, ViewStructure};
use serde::Deserialize;
use std::time::Duration;

use crate::audit::Trail;
use crate::catalogs::{self, Remembered, Topic};
use crate::errors::{ApiError, ApiResult, Code};
use crate::explorers::within;
use crate::extract::{Params, Repeated, TextBody};
use crate::folders;
use crate::param::Param;
use crate::place::Place;
use crate::route::{Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::structure::{
    DatabaseInfo, DatabaseMetadata, DatabaseSummary, Done, SchemaInfo, TableDdlResponse, ViewDdlResponse, listed,
};
use serde_json::json;

const TAG: &str = "structure";
/// How long the structure of a large database may take.
const LONG: Duration = Duration::from_secs(120);
/// How long short questions may take.
const SHORT: Duration = Duration::from_secs(30);

/// What every endpoint that asks a database can answer.
pub(super) const ASKS: &[Code] =
    &[Code::ValidationFailed, Code::NotFound, Code::NotSupported, Code::LoginRefused, Code::Unreachable, Code::Exhausted, Code::TimedOut];
const DEFINES: &[Code] = &[
    Code::ValidationFailed,
    Code::NotFound,
    Code::Conflict,
    Code::BodyTooLarge,
    Code::StatementRefused,
    Code::Unreachable,
    Code::Exhausted,
    Code::TimedOut,
];
const SCHEMA: Param = Param::text("schema", "the object's schema; the engine's default if absent");
const SCHEMAS: Param = Param::texts("schemas", "only this schema; may be given several times");
const SYSTEM: Param = Param::flag("include_system", "system schemas too");
const REFRESH: Param = Param::flag("refresh", "ask the database, whatever is remembered");

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(ASKS);
    Routes::default()
        .add(op("get", "/connections/{id}/databases", "listDatabases", "All databases").answers::<Vec<DatabaseInfo>>(200), get(databases))
        .add(
            op("post", "/connections/{id}/databases", "createDatabase", "Create a database; the body is its name")
                .writes()
                .takes_text()
                .example(json!("archive"))
                .answers::<Done>(200)
                .fails(DEFINES)
                .once(),
            post(create_database),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/schemas", "listSchemas", "Schemas of a database; none where the engine has none")
                .query(&[SYSTEM])
                .answers::<Vec<SchemaInfo>>(200),
            get(schemas),
        )
        .add(
            op("post", "/connections/{id}/databases/{db}/schemas", "createSchema", "Create a schema; the body is its name")
                .writes()
                .takes_text()
                .example(json!("archive"))
                .answers::<Done>(200)
                .fails(&[Code::NotSupported])
                .fails(DEFINES)
                .once(),
            post(create_schema),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/tables", "listTables", "Names of tables; with the schema unless it is `public`")
                .query(&[SCHEMAS, SYSTEM])
                .answers::<Vec<String>>(200),
            get(tables),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/views", "listViews", "Names of views; with the schema unless it is `public`")
                .query(&[SCHEMAS, SYSTEM])
                .answers::<Vec<String>>(200),
            get(views),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/meta", "getMetadata", "Everything about a database's objects")
                .query(&[REFRESH, SCHEMAS, SYSTEM, Param::flag("summary", "only names and counts (`DatabaseSummary`)")])
                .answers_either::<DatabaseMetadata, DatabaseSummary>()
                .remembered(),
            get(meta),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/overview", "getOverview", "A database at a glance")
                .query(&[REFRESH])
                .answers::<DatabaseOverview>(200)
                .remembered(),
            get(overview),
        )
        .join(objects())
}

fn objects() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(&[Code::ObjectMissing]).fails(ASKS);
    Routes::default()
        .add(
            op("get", "/connections/{id}/databases/{db}/tables/{table}/ddl", "getTableDdl", "The statements that make a table")
                .query(&[SCHEMA])
                .answers::<TableDdlResponse>(200),
            get(table_ddl),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/views/{view}/ddl", "getViewDdl", "The statement that makes a view")
                .query(&[SCHEMA])
                .answers::<ViewDdlResponse>(200),
            get(view_ddl),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/tables/{table}/meta", "getTable", "One table")
                .query(&[SCHEMA, REFRESH])
                .answers::<TableStructure>(200)
                .remembered(),
            get(table_meta),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/views/{view}/meta", "getView", "One view")
                .query(&[SCHEMA, REFRESH])
                .answers::<ViewStructure>(200)
                .remembered(),
            get(view_meta),
        )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    refresh: bool,
    include_system: bool,
    summary: bool,
}

async fn databases(State(state): State<AppState>, place: Place) -> ApiResult<Json<Vec<DatabaseInfo>>> {
    Ok(Json(all_databases(&state, &place).await?))
}

/// The databases of a connection.
pub(crate) async fn all_databases(state: &AppState, place: &Place) -> ApiResult<Vec<DatabaseInfo>> {
    if folders::is_folder(place) {
        return Ok(folders::databases(state, place).await?.into_iter().map(Into::into).collect());
    }
    let mut lease = place.lease_at_server(state).await?;
    let found = within(SHORT, lease.explorer()?.databases()).await;
    Ok(lease.settle(found)?.into_iter().map(Into::into).collect())
}

async fn create_database(State(state): State<AppState>, place: Place, trail: Trail, TextBody(name): TextBody) -> ApiResult<Json<Done>> {
    let name = object_name(&name)?;
    trail.object(name);
    if folders::is_folder(&place) {
        folders::create(&state, &place, name).await?;
        catalogs::changed(&state, place.connection.id.as_str());
        return Ok(Json(Done { status: "success" }));
    }
    let mut lease = place.lease_at_server(&state).await?;
    let made = within(SHORT, lease.explorer()?.create_database(name)).await;
    defined(&state, &place, &mut lease, made).await
}

async fn create_schema(State(state): State<AppState>, place: Place, trail: Trail, TextBody(name): TextBody) -> ApiResult<Json<Done>> {
    let name = object_name(&name)?;
    trail.object(name);
    place.database_name()?;
    let mut lease = place.lease(&state).await?;
    let made = within(SHORT, lease.explorer()?.create_schema(name)).await;
    defined(&state, &place, &mut lease, made).await
}

/// Records a definition and lets everybody know.
async fn defined(
    state: &AppState,
    place: &Place,
    lease: &mut crate::explorers::Lease,
    made: millrace_core::Result<()>,
) -> ApiResult<Json<Done>> {
    let made = lease.settle(made);
    for sql in lease.statements() {
        let outcome = made.as_ref().map(|()| 0).map_err(|error| error.message().to_owned());
        sql::record_at(state, place.connection.engine, Ran { purpose: Purpose::SchemaChange, ..ran(place, &sql) }, 0, outcome).await;
    }
    made?;
    catalogs::changed(state, place.connection.id.as_str());
    Ok(Json(Done { status: "success" }))
}

/// A statement of a place, for a record.
fn ran<'a>(place: &'a Place, sql: &'a str) -> Ran<'a> {
    let database = place.database.as_deref().unwrap_or_default();
    Ran { connection: place.connection.id.as_str(), database, schema: None, table: None, tab: None, purpose: Purpose::Utility, sql }
}

async fn schemas(State(state): State<AppState>, place: Place, Params(asked): Params<Asked>) -> ApiResult<Json<Vec<SchemaInfo>>> {
    Ok(Json(all_schemas(&state, &place, asked.include_system).await?))
}

/// The schemas of a database.
pub(crate) async fn all_schemas(state: &AppState, place: &Place, with_system: bool) -> ApiResult<Vec<SchemaInfo>> {
    let mut lease = place.lease(state).await?;
    let filter = ObjectFilter { schemas: Vec::new(), with_system };
    let names = within(LONG, lease.explorer()?.names(&filter)).await;
    let schemas = lease.settle(names)?.schemas.into_iter().map(|(name, reason)| SchemaInfo::new(name, reason));
    Ok(schemas.filter(|schema| with_system || !schema.is_system()).collect())
}

async fn tables(state: State<AppState>, place: Place, asked: Params<Asked>, schemas: Repeated) -> ApiResult<Json<Vec<String>>> {
    Ok(Json(listed(all_names(&state, &place, &filter(&asked.0, &schemas)).await?.tables)))
}

async fn views(state: State<AppState>, place: Place, asked: Params<Asked>, schemas: Repeated) -> ApiResult<Json<Vec<String>>> {
    Ok(Json(listed(all_names(&state, &place, &filter(&asked.0, &schemas)).await?.views)))
}

/// The names of a database's objects.
pub(crate) async fn all_names(state: &AppState, place: &Place, filter: &ObjectFilter) -> ApiResult<ObjectNames> {
    place.database_name()?;
    Ok(names(state, place, filter).await?)
}

async fn names(state: &AppState, place: &Place, filter: &ObjectFilter) -> millrace_core::Result<ObjectNames> {
    if folders::is_folder(place) {
        return folders::names(state, place).await;
    }
    let mut lease = state.explorers.lease(&place.connection, place.database.as_deref()).await?;
    let names = within(LONG, lease.explorer()?.names(filter)).await;
    lease.settle(names)
}

/// Everything about a database's objects.
pub(crate) async fn whole(state: &AppState, place: &Place, filter: &ObjectFilter) -> millrace_core::Result<DatabaseStructure> {
    if folders::is_folder(place) {
        return folders::structure(state, place).await;
    }
    let mut lease = state.explorers.lease(&place.connection, place.database.as_deref()).await?;
    let structure = within(LONG, lease.explorer()?.structure(filter)).await;
    lease.settle(structure)
}

fn filter(asked: &Asked, schemas: &Repeated) -> ObjectFilter {
    ObjectFilter { schemas: schemas.all("schemas"), with_system: asked.include_system }
}

async fn meta(State(state): State<AppState>, place: Place, asked: Params<Asked>, schemas: Repeated) -> ApiResult<Response> {
    let database = place.database_name()?.to_owned();
    let (filter, engine) = (filter(&asked.0, &schemas), place.connection.engine);
    let found = if asked.0.summary {
        let make = async { Ok(DatabaseSummary::new(&database, names(&state, &place, &filter).await?, engine)) };
        state.catalogs.get(&place.connection, Some(&database), Topic::Names(filter.clone()), asked.0.refresh, make).await?
    } else {
        let make = async { Ok(DatabaseMetadata::new(whole(&state, &place, &filter).await?, engine)) };
        state.catalogs.get(&place.connection, Some(&database), Topic::Structure(filter.clone()), asked.0.refresh, make).await?
    };
    Ok(answer(found))
}

async fn overview(State(state): State<AppState>, place: Place, asked: Params<Asked>) -> ApiResult<Response> {
    let make = async {
        let mut lease = state.explorers.lease(&place.connection, place.database.as_deref()).await?;
        let overview = within(SHORT, lease.explorer()?.overview()).await;
        lease.settle(overview)
    };
    Ok(answer(state.catalogs.get(&place.connection, place.database.as_deref(), Topic::Overview, asked.0.refresh, make).await?))
}

async fn table_meta(State(state): State<AppState>, place: Place, asked: Params<Asked>) -> ApiResult<Response> {
    Ok(answer(one_table(&state, &place, asked.0.refresh).await?))
}

/// One table ([`TableStructure`]).
pub(crate) async fn one_table(state: &AppState, place: &Place, refresh: bool) -> ApiResult<Remembered> {
    let object = place.object();
    let make = async {
        if folders::is_folder(place) {
            return folders::table(state, place).await;
        }
        let mut lease = state.explorers.lease(&place.connection, place.database.as_deref()).await?;
        let table = within(SHORT, lease.explorer()?.table(&object)).await;
        lease.settle(table)
    };
    let topic = Topic::Table(place.object());
    Ok(state.catalogs.get(&place.connection, place.database.as_deref(), topic, refresh, make).await?)
}

async fn view_meta(State(state): State<AppState>, place: Place, asked: Params<Asked>) -> ApiResult<Response> {
    Ok(answer(one_view(&state, &place, asked.0.refresh).await?))
}

/// One view ([`ViewStructure`]).
pub(crate) async fn one_view(state: &AppState, place: &Place, refresh: bool) -> ApiResult<Remembered> {
    let object = place.object();
    let make = async {
        let mut lease = state.explorers.lease(&place.connection, place.database.as_deref()).await?;
        let view = within(SHORT, lease.explorer()?.view(&object)).await;
        lease.settle(view)
    };
    let topic = Topic::View(place.object());
    Ok(state.catalogs.get(&place.connection, place.database.as_deref(), topic, refresh, make).await?)
}

async fn table_ddl(State(state): State<AppState>, place: Place) -> ApiResult<Json<TableDdlResponse>> {
    let object = place.object();
    let mut lease = place.lease(&state).await?;
    let table = within(SHORT, lease.explorer()?.table(&object)).await;
    let table = lease.settle(table)?;
    let ddl = table
        .ddl
        .ok_or_else(|| ApiError::new(Code::PermissionDenied, format!("the definition of `{object}` is not shown to this user")))?;
    let schema = (!place.has_backslash_escapes()).then_some(table.schema);
    Ok(Json(TableDdlResponse { table: table.name, schema, ddl }))
}

async fn view_ddl(State(state): State<AppState>, place: Place) -> ApiResult<Json<ViewDdlResponse>> {
    let object = place.object();
    let mut lease = place.lease(&state).await?;
    let view = within(SHORT, lease.explorer()?.view(&object)).await;
    let view = lease.settle(view)?;
    let ddl =
        view.ddl.ok_or_else(|| ApiError::new(Code::PermissionDenied, format!("the definition of `{object}` is not shown to this user")))?;
    let schema = (!place.has_backslash_escapes()).then_some(view.schema);
    Ok(Json(ViewDdlResponse { view: view.name, schema, ddl }))
}

/// What was remembered or made, and which of the two.
pub(super) fn answer(found: Remembered) -> Response {
    let cache = HeaderValue::from_static(if found.is_hit { "HIT" } else { "MISS" });
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (HeaderName::from_static("x-cache"), cache)];
    (headers, found.body).into_response()
}

/// The name of a new database or schema, as a body brings it.
fn object_name(body: &str) -> ApiResult<&str> {
    let name = body.trim();
    if name.is_empty() || name.contains('\0') {
        return Err(ApiError::invalid("", "the body must be the name, as plain text"));
    }
    Ok(name)
}
