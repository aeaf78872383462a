//! Stream configs.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{delete, get, post, put};
use millrace_core::config::{StreamConfig, StreamSpec};
use millrace_core::id::ConfigId;
use millrace_core::{Error, Kind};
use serde::Deserialize;
use serde_json::Value;

use super::connections::distinct;
use crate::errors::{ApiError, ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, NoBody, Params, PathId};
use crate::guard::confirmed;
use crate::param::{MOST, Param};
use crate::route::{Operation, Routes};
use crate::state::AppState;
use crate::wire::configs::{ConfigList, Deleted, PlanResponse, parse};

const TAG: &str = "stream configs";
pub(super) const WRITES: &[Code] = &[Code::InvalidJson, Code::ValidationFailed, Code::NotFound, Code::BodyTooLarge];

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary);
    Routes::default()
        .add(
            op("get", "/stream-configs", "listStreamConfigs", "All stream configs")
                .query(&[
                    Param::text("search", "case-insensitive text in the name or description"),
                    Param::number("limit", 0, MOST, "at most so many"),
                    Param::number("offset", 0, MOST, "leave out so many"),
                ])
                .answers::<ConfigList>(200)
                .fails(&[Code::ValidationFailed]),
            get(list),
        )
        .add(
            op("post", "/stream-configs", "createStreamConfig", "Store a stream config; without tables it means all tables")
                .writes()
                .takes::<StreamSpec>()
                .example(examples::config())
                .answers::<StreamConfig>(201)
                .fails(WRITES)
                .once(),
            post(create),
        )
        .add(
            op("delete", "/stream-configs", "deleteAllStreamConfigs", "Delete all stream configs with their histories")
                .writes()
                .confirms()
                .answers::<Deleted>(200)
                .fails(&[Code::StreamActive]),
            delete(delete_all),
        )
        .add(
            op("get", "/stream-configs/{id}", "getStreamConfig", "One stream config").answers::<StreamConfig>(200).fails(&[Code::NotFound]),
            get(read_one),
        )
        .add(
            op("put", "/stream-configs/{id}", "updateStreamConfig", "Replace a stream config")
                .writes()
                .takes::<StreamSpec>()
                .example(examples::config())
                .answers::<StreamConfig>(200)
                .fails(WRITES),
            put(update),
        )
        .add(
            op("delete", "/stream-configs/{id}", "deleteStreamConfig", "Delete a stream config with its history")
                .writes()
                .answers::<Deleted>(200)
                .fails(&[Code::NotFound, Code::StreamActive]),
            delete(delete_one),
        )
        .add(
            op(
                "post",
                "/stream-configs/{id}/plan",
                "planStreamConfig",
                "What a start would do with every column; starts and writes nothing",
            )
            .reads()
            .answers::<PlanResponse>(200)
            .fails(&[
                Code::NotFound,
                Code::NotSupported,
                Code::LoginRefused,
                Code::ObjectMissing,
                Code::PermissionDenied,
                Code::Unreachable,
            ]),
            post(plan),
        )
        .add(
            op("put", "/stream-configs/{id}/clone", "cloneStreamConfig", "Copy a stream config")
                .writes()
                .answers::<StreamConfig>(200)
                .fails(&[Code::NotFound]),
            put(clone),
        )
}

#[derive(Deserialize)]
struct Page {
    search: Option<String>,
    limit: Option<usize>,
    offset: Option<usize>,
}

async fn list(State(state): State<AppState>, Params(page): Params<Page>) -> ApiResult<Json<ConfigList>> {
    let configs = state.store.configs().await?;
    let total = configs.len();
    let search = page.search.filter(|text| !text.is_empty());
    let matches = |config: &StreamConfig| {
        let Some(search) = search.as_ref().map(|text| text.to_lowercase()) else { return true };
        let description = config.spec.description.as_deref().unwrap_or_default();
        [config.spec.name.as_str(), description].iter().any(|text| text.to_lowercase().contains(&search))
    };
    let found: Vec<StreamConfig> = configs.into_iter().filter(matches).collect();
    let filtered = found.len();
    let items = found.into_iter().skip(page.offset.unwrap_or(0)).take(page.limit.unwrap_or(usize::MAX)).collect();
    Ok(Json(ConfigList { items, total, filtered, search, limit: page.limit, offset: page.offset }))
}

async fn create(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<(StatusCode, Json<StreamConfig>)> {
    Ok((StatusCode::CREATED, Json(store(&state, body).await?)))
}

/// Keeps a new config.
pub(super) async fn store(state: &AppState, body: Value) -> ApiResult<StreamConfig> {
    let spec = parse(body, None)?;
    let config = StreamConfig { id: ConfigId::mint(), created: chrono::Utc::now().timestamp(), spec };
    check_connections(state, &config).await?;
    state.store.create_config(&config).await?;
    Ok(config)
}

async fn read_one(State(state): State<AppState>, PathId(id): PathId<ConfigId>) -> ApiResult<Json<StreamConfig>> {
    Ok(Json(state.store.config(&id).await?))
}

async fn update(State(state): State<AppState>, PathId(id): PathId<ConfigId>, JsonBody(body): JsonBody) -> ApiResult<Json<StreamConfig>> {
    let stored = state.store.config(&id).await?;
    let spec = parse(body, Some(&stored))?;
    let config = StreamConfig { spec, ..stored };
    state.store.update_config(&config).await?;
    Ok(Json(config))
}

async fn plan(State(state): State<AppState>, PathId(id): PathId<ConfigId>, _: NoBody) -> ApiResult<Json<PlanResponse>> {
    let config = state.store.config(&id).await?;
    Ok(Json((&state.orchestrator.plan(&config).await?).into()))
}

async fn delete_one(State(state): State<AppState>, PathId(id): PathId<ConfigId>) -> ApiResult<Json<Deleted>> {
    state.store.delete_config(&id).await?;
    Ok(Json(Deleted { deleted: 1 }))
}

async fn delete_all(State(state): State<AppState>, headers: HeaderMap) -> ApiResult<Json<Deleted>> {
    confirmed(&headers)?;
    // Nothing is deleted unless everything can be.
    let streams = state.store.streams(None).await?;
    if let Some(active) = streams.iter().find(|stream| !stream.state.is_terminal()) {
        let error = Error::new(Kind::Conflict, "a stream is active; stop it first").field("stream_state");
        return Err(error.with("stream", active.id.as_str()).into());
    }
    let configs = state.store.configs().await?;
    for config in &configs {
        state.store.delete_config(&config.id).await?;
    }
    Ok(Json(Deleted { deleted: configs.len() }))
}

async fn clone(State(state): State<AppState>, PathId(id): PathId<ConfigId>, _: NoBody) -> ApiResult<Json<StreamConfig>> {
    let mut config = state.store.config(&id).await?;
    let taken: Vec<String> = state.store.configs().await?.into_iter().map(|config| config.spec.name).collect();
    config.spec.name = distinct(&config.spec.name, &taken);
    config.id = ConfigId::mint();
    config.created = chrono::Utc::now().timestamp();
    state.store.create_config(&config).await?;
    Ok(Json(config))
}

/// Names the field whose connection does not exist.
async fn check_connections(state: &AppState, config: &StreamConfig) -> ApiResult<()> {
    let sources = config.spec.source.connections.iter().enumerate();
    let mut wanted: Vec<_> =
        sources.map(|(index, source)| (format!("source.connections[{index}].connectionId"), &source.connection_id)).collect();
    wanted.push(("target.id".to_owned(), &config.spec.target.id));
    for (field, id) in wanted {
        if let Err(error) = state.store.connection(id).await {
            let is_missing = error.kind() == Kind::NotFound;
            return Err(if is_missing { ApiError::invalid(field, error.message()) } else { error.into() });
        }
    }
    Ok(())
}
