//! Older forms of the endpoints of streams that are more than another name. Those without an id mean the active stream, else the one that was started last.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::{delete, get, post};
use axum::{Extension, Json};
use millrace_core::entitlement::{Grant, StreamOperation};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::stream::Stream;

use super::configs;
use super::streams::{CONTROLS, STARTS, begin};
use crate::audit::Trail;
use crate::client::Client;
use crate::errors::{ApiError, ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, NoBody, PathId, parse_id, read};
use crate::guard;
use crate::route::{Access, Operation, Routes};
use crate::state::AppState;
use crate::wire::older_streams::{Acted, Action, ActionRequest, StoppedStream};
use crate::wire::streams::{Started, StreamDetail, StreamStats};
use millrace_core::config::StreamSpec;
use serde_json::json;

const TAG: &str = "streams";

/// The text format of Prometheus, with its content type.
type MetricsText = ([(HeaderName, &'static str); 1], String);

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(&[Code::NotFound]);
    let strict = |operation: Operation| operation.access(Access::Strict(StreamOperation::Operate)).writes();
    let metrics = |path, id, summary| op("get", path, id, summary).answers_text("text/plain");
    Routes::default()
        .add(
            op("get", "/streams/current/stats", "getCurrentStats", "Counters of the active or latest stream").answers::<StreamStats>(200),
            get(current_stats),
        )
        .add(
            op("get", "/streams/config", "getCurrentConfig", "The config of the active or latest stream").answers::<StreamDetail>(200),
            get(current_detail),
        )
        .add(
            strict(op("post", "/streams/{id}/action", "actOnStream", "Older form of starting, pausing, resuming and stopping"))
                .takes::<ActionRequest>()
                .example(json!({"action": "stop"}))
                .answers::<Acted>(200)
                .fails(&[Code::InvalidJson, Code::ValidationFailed, Code::BodyTooLarge])
                .fails(STARTS)
                .fails(CONTROLS),
            post(act),
        )
        .add(
            op("post", "/streams", "createAndStart", "Store a stream config and start it")
                .access(Access::Strict(StreamOperation::Start))
                .writes()
                .takes::<StreamSpec>()
                .example(examples::config())
                .answers::<Started>(200)
                .fails(configs::WRITES)
                .fails(STARTS)
                .once(),
            post(create_and_start),
        )
        .add(
            strict(op("delete", "/streams", "stopCurrentStream", "Stop the active stream")).answers::<StoppedStream>(200).fails(CONTROLS),
            delete(stop_current),
        )
        .add(metrics("/streams/source/metrics", "getSourceMetrics", "Counters of the reading side, for Prometheus"), get(source_metrics))
        .add(metrics("/streams/target/metrics", "getTargetMetrics", "Counters of the writing side, for Prometheus"), get(target_metrics))
}

async fn current(state: &AppState) -> ApiResult<Stream> {
    let mut streams = state.store.streams(None).await?;
    streams.sort_by_key(|stream| stream.state.is_terminal());
    streams.into_iter().next().ok_or_else(|| ApiError::new(Code::NotFound, "no stream was started yet"))
}

async fn current_stats(State(state): State<AppState>) -> ApiResult<Json<StreamStats>> {
    let (stream, report) = state.orchestrator.stats(&current(&state).await?.id).await?;
    Ok(Json(StreamStats::new(&stream, &report)))
}

async fn current_detail(State(state): State<AppState>) -> ApiResult<Json<StreamDetail>> {
    Ok(Json((&current(&state).await?).into()))
}

/// The id is a config's for `start`, a stream's for everything else.
async fn act(
    State(state): State<AppState>,
    Extension(client): Extension<Client>,
    trail: Trail,
    PathId(id): PathId<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> ApiResult<Json<Acted>> {
    let ActionRequest { action } = read(body)?;
    if action == Action::Start {
        // Whoever may operate streams may not yet start one.
        let grant = guard::authorise(&state, client, &headers, StreamOperation::Start).await?;
        let id: ConfigId = parse_id(&id)?;
        let started = begin(&state, &grant, &id).await?;
        trail.object(started.id.as_str());
        return Ok(Json(Acted { id: started.id, status: None }));
    }
    let id: StreamId = parse_id(&id)?;
    let stream = match action {
        Action::Pause => state.orchestrator.pause(&id).await?,
        Action::Resume => state.orchestrator.resume(&id).await?,
        Action::Start | Action::Stop => state.orchestrator.stop(&id, false).await?,
    };
    Ok(Json(Acted { id: stream.id.to_string(), status: Some(stream.state) }))
}

/// What could not be started is not kept: the client, who knows no id of it, would only send it again.
async fn create_and_start(
    State(state): State<AppState>,
    Extension(grant): Extension<Grant>,
    trail: Trail,
    JsonBody(body): JsonBody,
) -> ApiResult<Json<Started>> {
    let config = configs::store(&state, body).await?;
    let started = begin(&state, &grant, &config.id).await;
    if started.is_err() {
        state.store.delete_config(&config.id).await?;
    }
    let started = started?;
    trail.object(started.id.as_str());
    Ok(Json(started))
}

async fn stop_current(State(state): State<AppState>, _: NoBody) -> ApiResult<Json<StoppedStream>> {
    let stream = current(&state).await?;
    if stream.state.is_terminal() {
        return Err(ApiError::new(Code::NotFound, "no stream is active"));
    }
    Ok(Json((&state.orchestrator.stop(&stream.id, false).await?).into()))
}

async fn source_metrics(State(state): State<AppState>) -> ApiResult<MetricsText> {
    metrics(&state, "source", "source_events_in").await
}

async fn target_metrics(State(state): State<AppState>) -> ApiResult<MetricsText> {
    metrics(&state, "target", "target_events_out").await
}

/// The text format of Prometheus, version 0.0.4. Ids and states need no escaping.
async fn metrics(state: &AppState, side: &str, events: &str) -> ApiResult<MetricsText> {
    let mut streams = state.store.streams(None).await?;
    streams.sort_by_key(|stream| stream.state.is_terminal());
    let active = streams.iter().filter(|stream| !stream.state.is_terminal()).count();
    let mut durations = format!("# TYPE {side}_duration_seconds gauge\n");
    let mut counters = format!("# TYPE {events} counter\n");
    for stream in streams.iter().take(active.max(1)) {
        let (stream, report) = state.orchestrator.stats(&stream.id).await?;
        let stats = StreamStats::new(&stream, &report);
        let side = if side == "source" { stats.source() } else { stats.target() };
        let _ = writeln!(
            durations,
            "{}_duration_seconds{{status=\"{}\",streamID=\"{}\"}} {}",
            side.kind,
            side.status.as_str(),
            stream.id,
            side.elapsed
        );
        let _ = writeln!(counters, "{events}{{streamID=\"{}\"}} {}", stream.id, side.counter);
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], durations + &counters))
}
