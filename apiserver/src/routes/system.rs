//! Health, defaults, the API's own description.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use axum::{Extension, Json};

use crate::client::Client;
use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::{JsonBody, NoBody, read};
use crate::route::{Access, Effect, Operation, Routes};
use crate::sql::{self, SqlLogging};
use crate::state::AppState;
use crate::wire::system::{Defaults, Health, Service, Services, SqlLoggingChange, Stopping, Version};

const TAG: &str = "system";

pub(super) fn routes() -> Routes {
    let op = |path, id, summary| Operation::new("get", path, id, TAG, summary);
    Routes::default()
        .add(op("/health", "health", "Whether the server is alive").access(Access::Open).answers::<Health>(200), get(health))
        .add(
            op("/ready", "ready", "Whether the server and its store can serve")
                .access(Access::Open)
                .answers::<Health>(200)
                .fails(&[Code::Unavailable]),
            get(ready),
        )
        .add(op("/services/status", "servicesStatus", "The server's parts").answers::<Services>(200), get(services))
        .add(
            op("/system/defaults", "systemDefaults", "What clients need to know first").access(Access::Open).answers::<Defaults>(200),
            get(defaults),
        )
        .add(op("/system/sql-logging", "getSqlLogging", "How statements are logged").answers::<SqlLogging>(200), get(sql_logging))
        .add(
            Operation::new("put", "/system/sql-logging", "updateSqlLogging", TAG, "Change how statements are logged; absent fields stay")
                .writes()
                .takes::<SqlLoggingChange>()
                .answers::<SqlLogging>(200)
                .fails(&[Code::InvalidJson, Code::ValidationFailed]),
            put(change_sql_logging),
        )
        .add(op("/system/logging", "getSqlLoggingOldName", "Older name of `getSqlLogging`").answers::<SqlLogging>(200), get(sql_logging))
        .add(
            Operation::new("put", "/system/logging", "updateSqlLoggingOldName", TAG, "Older name of `updateSqlLogging`")
                .writes()
                .takes::<SqlLoggingChange>()
                .answers::<SqlLogging>(200)
                .fails(&[Code::InvalidJson, Code::ValidationFailed]),
            put(change_sql_logging),
        )
        .add(
            Operation::new(
                "post",
                "/system/shutdown",
                "shutdown",
                TAG,
                "Stop the server; runs are interrupted and can be resumed. From this machine only",
            )
            .effect(Effect::Operates)
            .answers::<Stopping>(200),
            post(shutdown),
        )
        .add(op("/openapi.json", "openapi", "This document").answers::<serde_json::Value>(200), get(openapi))
        .add(op("/openapi.yaml", "openapiYaml", "This document as YAML").answers_text("application/yaml"), get(openapi_yaml))
        .add(op("/version", "version", "The server's version").access(Access::Open).answers::<Version>(200), get(version))
}

async fn health() -> Json<Health> {
    Json(Health { ping: "ok", status: "ok" })
}

async fn ready(State(state): State<AppState>) -> ApiResult<Json<Health>> {
    if state.shutdown.is_cancelled() {
        return Err(ApiError::new(Code::Unavailable, "the server is stopping"));
    }
    match state.store.configs().await {
        Ok(_) => Ok(health().await),
        Err(error) => Err(ApiError::new(Code::Unavailable, error.message())),
    }
}

async fn services(State(state): State<AppState>) -> Json<Services> {
    let store = if state.store.configs().await.is_ok() { "passing" } else { "critical" };
    let parts =
        [("stream-api", "passing"), ("stream-reader", "passing"), ("stream-writer", "passing"), ("store", store), ("sql-lsp", "unknown")];
    Json(Services { services: parts.map(|(name, status)| Service { name, status }).into() })
}

async fn defaults(State(state): State<AppState>) -> Json<Defaults> {
    Json(Defaults {
        default_export_path: state.default_export_path.clone(),
        mode: if state.is_cluster { "server" } else { "desktop" },
        install_id: state.install_id.to_string(),
    })
}

async fn sql_logging(State(state): State<AppState>) -> ApiResult<Json<SqlLogging>> {
    Ok(Json(sql::setting(&state).await?))
}

async fn change_sql_logging(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<SqlLogging>> {
    let change: SqlLoggingChange = read(body)?;
    let mut setting = sql::setting(&state).await?;
    setting.sql_capture_mode = change.sql_capture_mode.unwrap_or(setting.sql_capture_mode);
    setting.forward = change.forward.unwrap_or(setting.forward);
    sql::change(&state, setting).await?;
    Ok(Json(setting))
}

async fn shutdown(State(state): State<AppState>, Extension(client): Extension<Client>, _: NoBody) -> ApiResult<Json<Stopping>> {
    if state.is_cluster {
        return Err(ApiError::new(Code::RouteNotFound, "there is no such path"));
    }
    // Not the peer: behind a proxy of this machine that is trusted, everybody would be local.
    if !client.0.is_loopback() {
        return Err(ApiError::new(Code::ForbiddenOrigin, "only callers on the server's own machine may stop it"));
    }
    tracing::info!("the server stops, because a client asked for it");
    state.shutdown.cancel();
    Ok(Json(Stopping { status: "shutting_down" }))
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], crate::openapi_json())
}

async fn openapi_yaml() -> ApiResult<impl IntoResponse> {
    let document: serde_json::Value = serde_json::from_str(&crate::openapi_json()).unwrap_or_default();
    let text = serde_norway::to_string(&document)
        .map_err(|error| millrace_core::Error::internal("the document has no YAML form").because(error))?;
    Ok(([(CONTENT_TYPE, "application/yaml")], text))
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}
