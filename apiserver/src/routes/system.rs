//! Health, defaults, the API's own description.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::errors::{ApiError, ApiResult, Code};
use crate::route::{Access, Operation, Routes};
use crate::state::AppState;
use crate::wire::system::{Defaults, Health, Service, Services};

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
        .add(op("/services/status", "servicesStatus", "The server's parts").access(Access::Open).answers::<Services>(200), get(services))
        .add(
            op("/system/defaults", "systemDefaults", "What clients need to know first").access(Access::Open).answers::<Defaults>(200),
            get(defaults),
        )
        .add(op("/openapi.json", "openapi", "This document").answers::<serde_json::Value>(200), get(openapi))
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
    Json(Defaults { default_export_path: state.default_export_path.clone(), mode: "desktop", install_id: state.install_id.to_string() })
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], crate::openapi_json())
}
