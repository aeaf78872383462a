//! Streams and their history.

use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Extension, Json};
use millrace_core::bus::{Event, Level};
use millrace_core::config::TargetSpec;
use millrace_core::connector::Scope;
use millrace_core::entitlement::{Grant, StreamOperation};
use millrace_core::id::{ConfigId, RunId, StreamId};
use millrace_core::stream::Stream;
use millrace_core::{Error, Kind};
use serde::Deserialize;
use serde_json::Value;

use crate::audit::Trail;
use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::{NoBody, Params, PathId, parse_id};
use crate::param::{MOST, Param};
use crate::route::{Access, Operation, Routes};
use crate::state::AppState;
use crate::wire::configs::Deleted;
use crate::wire::logs::record;
use crate::wire::streams::{ConstraintsResult, Started, StreamDetail, StreamRun, StreamStats, StreamStatus, StreamSummary};

const TAG: &str = "streams";
pub(super) const STARTS: &[Code] = &[
    Code::NotFound,
    Code::StreamActive,
    Code::ManagedDeclaratively,
    Code::TargetConflict,
    Code::NotSupported,
    Code::PlanRefused,
    Code::LoginRefused,
    Code::ObjectMissing,
    Code::PermissionDenied,
    Code::Unreachable,
];

pub(super) const CONTROLS: &[Code] = &[Code::NotFound, Code::Conflict, Code::ManagedDeclaratively];

/// Stored log records answered when the client names no limit, and at most.
const LOG_LIMIT: usize = 500;
const LOG_LIMIT_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary);
    let strict = |path, id, summary| op("post", path, id, summary).access(Access::Strict(StreamOperation::Operate)).writes();
    Routes::default()
        .add(
            strict("/stream-configs/{id}/start", "startStream", "Start a config")
                .access(Access::Strict(StreamOperation::Start))
                .answers::<Started>(200)
                .fails(STARTS)
                .once(),
            post(start),
        )
        .add(
            strict("/streams/{id}/pause", "pauseStream", "Suspend a stream, keeping its progress")
                .answers::<StreamStatus>(200)
                .fails(CONTROLS),
            post(pause),
        )
        .add(
            strict("/streams/{id}/resume", "resumeStream", "Let a suspended or interrupted stream go on")
                .answers::<StreamStatus>(200)
                .fails(STARTS),
            post(resume),
        )
        .add(
            strict("/streams/{id}/stop", "stopStream", "End a stream")
                .query(&[Param::flag("force", "do not wait for an orderly end")])
                .answers::<StreamStatus>(200)
                .fails(&[Code::NotFound, Code::ManagedDeclaratively]),
            post(stop),
        )
        .add(op("get", "/streams", "listStreams", "All streams, the newest first").answers::<Vec<StreamSummary>>(200), get(list))
        .add(
            op("get", "/streams/{id}", "getStream", "One stream with the config that it runs")
                .answers::<StreamDetail>(200)
                .fails(&[Code::NotFound]),
            get(read_one),
        )
        .add(
            op("get", "/streams/{id}/stats", "getStreamStats", "Counters of a stream, live while it runs")
                .answers::<StreamStats>(200)
                .fails(&[Code::NotFound]),
            get(stats),
        )
        .add(
            op("get", "/streams/{id}/logs", "getStreamLogs", "Log records of a stream, oldest first")
                .query(&[
                    Param::one_of("level", &["debug", "info", "warn", "error"], "records that are at least so loud"),
                    Param::number("limit", 0, MOST, "the newest so many; 500 if absent, never more than 10000"),
                ])
                .answers::<Vec<Value>>(200)
                .fails(&[Code::NotFound, Code::ValidationFailed]),
            get(logs),
        )
        .add(
            op("post", "/stream/{configId}/validate-constraints", "validateConstraints", "Validate foreign keys of a config's target")
                .writes()
                .answers::<ConstraintsResult>(200)
                .fails(STARTS),
            post(validate_constraints),
        )
        .add(
            op("get", "/stream-configs/{id}/history", "getHistory", "Runs of a config, the newest first")
                .answers::<Vec<StreamRun>>(200)
                .fails(&[Code::NotFound]),
            get(history),
        )
        .add(
            op("delete", "/stream-configs/{id}/runs", "deleteRuns", "Delete all ended runs of a config")
                .writes()
                .answers::<Deleted>(200)
                .fails(&[Code::NotFound]),
            delete(delete_runs),
        )
        .add(
            op("delete", "/stream-configs/{id}/runs/{runId}", "deleteRun", "Delete an ended run")
                .writes()
                .answers::<Deleted>(200)
                .fails(&[Code::NotFound, Code::StreamActive]),
            delete(delete_run),
        )
}

async fn start(
    State(state): State<AppState>,
    Extension(grant): Extension<Grant>,
    PathId(id): PathId<ConfigId>,
    trail: Trail,
    _: NoBody,
) -> ApiResult<Json<Started>> {
    let started = begin(&state, &grant, &id).await?;
    trail.object(started.id.as_str());
    Ok(Json(started))
}

/// Starts a config in the name of a key.
pub(super) async fn begin(state: &AppState, grant: &Grant, id: &ConfigId) -> ApiResult<Started> {
    let config = state.store.config(id).await?;
    let stream = state.orchestrator.start(&config, Some(&grant.key_id)).await?;
    Ok(Started { id: stream.id.to_string() })
}

async fn pause(State(state): State<AppState>, PathId(id): PathId<StreamId>, _: NoBody) -> ApiResult<Json<StreamStatus>> {
    Ok(Json((&state.orchestrator.pause(&id).await?).into()))
}

async fn resume(State(state): State<AppState>, PathId(id): PathId<StreamId>, _: NoBody) -> ApiResult<Json<StreamStatus>> {
    Ok(Json((&state.orchestrator.resume(&id).await?).into()))
}

#[derive(Deserialize)]
struct Force {
    #[serde(default)]
    force: bool,
}

async fn stop(
    State(state): State<AppState>,
    PathId(id): PathId<StreamId>,
    Params(Force { force }): Params<Force>,
    _: NoBody,
) -> ApiResult<Json<StreamStatus>> {
    Ok(Json((&state.orchestrator.stop(&id, force).await?).into()))
}

async fn list(State(state): State<AppState>) -> ApiResult<Json<Vec<StreamSummary>>> {
    Ok(Json(all_streams(&state).await?.iter().map(Into::into).collect()))
}

/// All streams, those that have not ended first.
pub(crate) async fn all_streams(state: &AppState) -> ApiResult<Vec<Stream>> {
    let mut streams = state.store.streams(None).await?;
    streams.sort_by_key(|stream| stream.state.is_terminal());
    Ok(streams)
}

async fn read_one(State(state): State<AppState>, PathId(id): PathId<StreamId>) -> ApiResult<Json<StreamDetail>> {
    Ok(Json((&state.store.stream(&id).await?).into()))
}

async fn stats(State(state): State<AppState>, PathId(id): PathId<StreamId>) -> ApiResult<Json<StreamStats>> {
    let (stream, report) = state.orchestrator.stats(&id).await?;
    Ok(Json(StreamStats::new(&stream, &report)))
}

#[derive(Deserialize)]
struct LogQuery {
    level: Option<Level>,
    limit: Option<usize>,
}

async fn logs(State(state): State<AppState>, PathId(id): PathId<StreamId>, Params(query): Params<LogQuery>) -> ApiResult<Json<Vec<Value>>> {
    let limit = query.limit.unwrap_or(LOG_LIMIT).min(LOG_LIMIT_MAX);
    let events = events_of(&state, &id, query.level.unwrap_or(Level::Debug), limit).await?;
    Ok(Json(events.iter().map(record).collect()))
}

/// The newest events of a stream, at most `limit`, at least as loud as `level`, oldest first.
pub(crate) async fn events_of(state: &AppState, id: &StreamId, level: Level, limit: usize) -> ApiResult<Vec<Event>> {
    state.store.stream(id).await?;
    // All servers of a cluster answer from what is retained for all of them; what one has heard by itself is all there is only while that cannot be asked.
    if state.is_cluster {
        return Ok(state.store.events(id, level, limit).await.unwrap_or_else(|_| state.bus.recent(id, level, limit)));
    }
    let live = state.bus.recent(id, level, limit);
    // What an earlier process said is in the store; what this one says may not be there yet.
    let since = live.first().map_or(i64::MAX, |event| event.at);
    let mut events = state.store.events(id, level, limit).await?;
    events.retain(|event| event.at < since);
    events.extend(live);
    let first = events.len().saturating_sub(limit);
    Ok(events.split_off(first))
}

async fn validate_constraints(
    State(state): State<AppState>,
    PathId(id): PathId<ConfigId>,
    _: NoBody,
) -> ApiResult<Json<ConstraintsResult>> {
    let config = state.store.config(&id).await?;
    let TargetSpec::Db(db) = &config.spec.target.spec else {
        return Err(Error::not_supported("target.spec", "only database targets have constraints").into());
    };
    let target = state.store.connection(&config.spec.target.id).await?;
    let scope = Scope { database: Some(db.database.clone()), schema: db.schema.clone() };
    let report = millrace_connectors::connector(target.engine)?.validate_constraints(&target, &scope).await?;
    Ok(Json((&report).into()))
}

async fn history(State(state): State<AppState>, PathId(id): PathId<ConfigId>) -> ApiResult<Json<Vec<StreamRun>>> {
    Ok(Json(runs(&state, &id).await?.iter().map(Into::into).collect()))
}

async fn delete_runs(State(state): State<AppState>, PathId(id): PathId<ConfigId>) -> ApiResult<Json<Deleted>> {
    let mut deleted = 0;
    for run in runs(&state, &id).await?.iter().filter(|run| run.state.is_terminal()) {
        state.store.delete_stream(&run.id).await?;
        deleted += 1;
    }
    Ok(Json(Deleted { deleted }))
}

async fn delete_run(State(state): State<AppState>, Path((config, run)): Path<(String, String)>) -> ApiResult<Json<Deleted>> {
    let (config, run): (ConfigId, RunId) = (parse_id(&config)?, parse_id(&run)?);
    let found = runs(&state, &config).await?.into_iter().find(|stream| stream.run_id == run);
    let stream = found.ok_or_else(|| ApiError::new(Code::NotFound, format!("there is no run `{run}`")).detail("id", run.as_str()))?;
    state.store.delete_stream(&stream.id).await?;
    Ok(Json(Deleted { deleted: 1 }))
}

/// Runs of a config that exists; a config's history goes with it.
async fn runs(state: &AppState, id: &ConfigId) -> Result<Vec<Stream>, Error> {
    match state.store.config(id).await {
        Ok(_) => state.store.streams(Some(id)).await,
        Err(error) if error.kind() == Kind::NotFound => Err(error),
        Err(error) => Err(error),
    }
}
