//! Connections.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get, post, put};
use millrace_connectors::s3;
use millrace_core::connection::{Connection, ConnectionSpec};
use millrace_core::id::ConnectionId;
use millrace_core::objects::SettingNames;
use serde::Deserialize;
use serde_json::Map;

use crate::audit::Trail;
use crate::errors::{ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, NoBody, Params, PathId};
use crate::guard::confirmed;
use crate::param::Param;
use crate::route::{Operation, Routes};
use crate::state::AppState;
use crate::wire::configs::Deleted;
use crate::wire::connections::{ConnectionList, ConnectionRequest, ConnectionResponse, Coverage, Created, Ping, parse};

const TAG: &str = "connections";
const WRITES: &[Code] = &[Code::InvalidJson, Code::ValidationFailed, Code::NotFound, Code::BodyTooLarge, Code::NotSupported];
const DIALS: &[Code] = &[
    Code::InvalidJson,
    Code::ValidationFailed,
    Code::BodyTooLarge,
    Code::Untrusted,
    Code::TimedOut,
    Code::ValidationFailed,
    Code::NotFound,
    Code::LoginRefused,
    Code::Untrusted,
    Code::PermissionDenied,
    Code::ObjectMissing,
    Code::NotSupported,
    Code::Unreachable,
    Code::ConnectionLost,
    Code::Exhausted,
];

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary);
    Routes::default()
        .add(
            op("get", "/connections", "listConnections", "All connections")
                .query(&[Param::text(
                    "search",
                    "case-insensitive text in name, host or type, or in the names of what the connection contains",
                )])
                .answers::<ConnectionList>(200),
            get(list),
        )
        .add(
            op("post", "/connections", "createConnection", "Store a connection")
                .writes()
                .takes::<ConnectionRequest>()
                .example(examples::connection())
                .answers::<Created>(201)
                .fails(WRITES)
                .once(),
            post(create),
        )
        .add(
            op("delete", "/connections", "deleteAllConnections", "Delete all connections")
                .writes()
                .confirms()
                .answers::<Deleted>(200)
                .fails(&[Code::Conflict]),
            delete(delete_all),
        )
        .add(
            op("post", "/connections/test", "testConnection", "Try a connection without storing it")
                .reads()
                .takes::<ConnectionRequest>()
                .example(examples::connection())
                .answers::<Ping>(200)
                .fails(DIALS),
            post(test),
        )
        .add(
            op("get", "/connections/{id}", "getConnection", "One connection").answers::<ConnectionResponse>(200).fails(&[Code::NotFound]),
            get(read_one),
        )
        .add(
            op("put", "/connections/{id}", "updateConnection", "Replace a connection; absent secrets stay")
                .writes()
                .takes::<ConnectionRequest>()
                .example(examples::connection())
                .answers::<ConnectionResponse>(200)
                .fails(WRITES),
            put(update),
        )
        .add(
            op("delete", "/connections/{id}", "deleteConnection", "Delete a connection")
                .writes()
                .answers::<Deleted>(200)
                .fails(&[Code::NotFound, Code::Conflict]),
            delete(delete_one),
        )
        .add(
            op("put", "/connections/{id}/clone", "cloneConnection", "Copy a connection")
                .writes()
                .answers::<ConnectionResponse>(200)
                .fails(&[Code::NotFound]),
            put(clone),
        )
        .add(op("post", "/connections/{id}/ping", "pingConnection", "Log in once").reads().answers::<Ping>(200).fails(DIALS), post(ping))
        .add(
            op("get", "/connections/{id}/ping", "pingConnectionOldMethod", "Older form of `pingConnection`")
                .answers::<Ping>(200)
                .older_than("pingConnection")
                .fails(DIALS),
            get(ping_without_body),
        )
}

#[derive(Deserialize)]
struct Search {
    search: Option<String>,
}

async fn list(State(state): State<AppState>, Params(Search { search }): Params<Search>) -> ApiResult<Json<ConnectionList>> {
    let connections = state.store.connections().await?;
    let Some(search) = search.filter(|text| !text.is_empty()) else {
        let items: Vec<ConnectionResponse> = connections.iter().map(Into::into).collect();
        let total = connections.len();
        return Ok(Json(ConnectionList {
            total,
            filtered: total,
            matched_paths: None,
            database_search_coverage: None,
            search: None,
            items,
        }));
    };
    let lower = search.to_lowercase();
    let mut indexed_connections = 0;
    let mut matched_paths = Map::new();
    let mut items = Vec::new();
    for connection in &connections {
        let inside = state.search.matches(&state, connection, &search);
        indexed_connections += usize::from(inside.is_some());
        let paths = inside.filter(|paths| !paths.is_empty());
        let endpoint = connection.s3().and_then(|spec| spec.endpoint.as_deref());
        let host = connection.database().map(|spec| spec.host.as_str()).or(endpoint).unwrap_or_default();
        let is_named = [connection.name.as_str(), host, connection.engine.as_str()].iter().any(|text| text.to_lowercase().contains(&lower));
        if is_named || paths.is_some() {
            items.push(connection.into());
        }
        if let Some(paths) = paths {
            matched_paths.insert(connection.id.to_string(), paths.into());
        }
    }
    let total_connections = connections.len();
    let coverage = Coverage { indexed_connections, total_connections, complete: indexed_connections == total_connections };
    Ok(Json(ConnectionList {
        total: total_connections,
        filtered: items.len(),
        matched_paths: Some(matched_paths),
        database_search_coverage: Some(coverage),
        search: Some(search),
        items,
    }))
}

async fn create(State(state): State<AppState>, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<(StatusCode, Json<Created>)> {
    let connection = parse(body, None)?;
    trail.object(connection.id.as_str());
    state.store.create_connection(&connection).await?;
    Ok((StatusCode::CREATED, Json(Created { id: connection.id.to_string(), created: connection.created })))
}

async fn read_one(State(state): State<AppState>, PathId(id): PathId<ConnectionId>) -> ApiResult<Json<ConnectionResponse>> {
    Ok(Json((&state.store.connection(&id).await?).into()))
}

async fn update(
    State(state): State<AppState>,
    PathId(id): PathId<ConnectionId>,
    JsonBody(body): JsonBody,
) -> ApiResult<Json<ConnectionResponse>> {
    let stored = state.store.connection(&id).await?;
    let connection = parse(body, Some(&stored))?;
    state.store.update_connection(&connection).await?;
    Ok(Json((&connection).into()))
}

async fn delete_one(State(state): State<AppState>, PathId(id): PathId<ConnectionId>) -> ApiResult<Json<Deleted>> {
    state.store.delete_connection(&id).await?;
    Ok(Json(Deleted { deleted: 1 }))
}

async fn delete_all(State(state): State<AppState>, headers: HeaderMap) -> ApiResult<Json<Deleted>> {
    confirmed(&headers)?;
    // Nothing is deleted unless everything can be.
    let connections = state.store.connections().await?;
    if !state.store.configs().await?.is_empty() {
        return Err(crate::ApiError::new(Code::Conflict, "stream configs use connections; delete the configs first"));
    }
    for connection in &connections {
        state.store.delete_connection(&connection.id).await?;
    }
    Ok(Json(Deleted { deleted: connections.len() }))
}

async fn clone(
    State(state): State<AppState>,
    PathId(id): PathId<ConnectionId>,
    trail: Trail,
    _: NoBody,
) -> ApiResult<Json<ConnectionResponse>> {
    let mut connection = state.store.connection(&id).await?;
    let taken: Vec<String> = state.store.connections().await?.into_iter().map(|connection| connection.name).collect();
    connection.name = distinct(&connection.name, &taken);
    connection.id = ConnectionId::mint();
    trail.object(connection.id.as_str());
    connection.created = chrono::Utc::now().timestamp();
    state.store.create_connection(&connection).await?;
    Ok(Json((&connection).into()))
}

async fn test(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<Ping>> {
    dial(&state, &parse(body, None)?).await
}

async fn ping(State(state): State<AppState>, PathId(id): PathId<ConnectionId>, _: NoBody) -> ApiResult<Json<Ping>> {
    dial(&state, &state.store.connection(&id).await?).await.map_err(crate::ApiError::failed_ping)
}

async fn ping_without_body(state: State<AppState>, id: PathId<ConnectionId>) -> ApiResult<Json<Ping>> {
    ping(state, id, NoBody).await
}

async fn dial(state: &AppState, connection: &Connection) -> ApiResult<Json<Ping>> {
    if let ConnectionSpec::Files(files) = &connection.spec {
        let folder = millrace_connectors::file::resolve(&state.files, &files.base_path, None)?;
        if !folder.is_dir() {
            return Err(crate::ApiError::invalid("spec.files.basePath", format!("`{}` is no folder", files.base_path)));
        }
        return Ok(Json(Ping { ping: "ok" }));
    }
    if let ConnectionSpec::S3(spec) = &connection.spec {
        let access = s3::access(spec, SettingNames::Connection)?;
        let bucket = spec.scope.as_ref().and_then(|scope| scope.bucket.as_deref()).filter(|bucket| !bucket.is_empty());
        s3::Store::new(&access).check(bucket).await.map_err(|error| {
            let is_bucket = error.field_name() == Some("bucket");
            if is_bucket { error.field("spec.s3.scope.bucket") } else { error }
        })?;
        return Ok(Json(Ping { ping: "ok" }));
    }
    let mut session = millrace_connectors::connector(connection.engine)?.session(connection, None).await?;
    session.ping().await?;
    Ok(Json(Ping { ping: "ok" }))
}

/// `name (copy)`, `name (copy 2)`, …
pub(super) fn distinct(name: &str, taken: &[String]) -> String {
    let first = format!("{name} (copy)");
    let others = (2..).map(|number| format!("{name} (copy {number})"));
    std::iter::once(first).chain(others).find(|candidate| !taken.contains(candidate)).unwrap_or_default()
}
