//! The REST API of Millrace.
//!
//! ```text
//!  door (TLS, deadlines) ─▶ guard (request id, host, origin) ─▶ [key, as the endpoint asks] ─▶ routes/<group> ─▶ store · orchestrator · bus · query tier
//!                                                     wire/<group>: request and response types only
//!                                                     └─▶ /mcp: tools for language models, over the functions of the same routes
//! ```

mod alias;
mod audit;
mod catalogs;
mod client;
mod coverage;
mod door;
mod errors;
mod examples;
mod explorers;
mod extract;
mod folders;
mod guard;
mod guesses;
mod idempotency;
mod live;
mod mcp;
pub mod metrics;
mod objects;
mod openapi;
mod param;
mod place;
mod policy;
mod results;
mod route;
mod routes;
mod search;
mod session;
mod sql;
mod state;
mod tls;
mod wire;

pub use catalogs::Catalogs;
pub use client::Proxies;
pub use coverage::coverage_markdown;
pub use door::DoorLimits;
pub use errors::{ApiError, Code, ErrorBody, errors_markdown};
pub use explorers::{ExplorerLimits, Explorers};
pub use idempotency::{IdempotencyKeys, KEPT_FOR as ANSWERS_KEPT_FOR, SharedAnswers};
pub use live::LiveRecords;
pub use objects::ObjectSessions;
pub use policy::{Origins, Policy};
pub use routes::named_roots;
pub use search::SearchIndex;
pub use session::{LIFETIME as SESSION_LIFETIME, MOST as MOST_SESSIONS, SessionStore, Sessions};
pub use state::{AppState, IdeAuth};
pub use tls::{Tls, TlsFiles};

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;

/// The whole API as one router.
pub fn router(state: AppState) -> Router {
    routes::all()
        .router(&state)
        .merge(routes::swagger::assets())
        .merge(mcp::router(&state))
        .fallback(|| async { ApiError::new(Code::RouteNotFound, "there is no such path") })
        .method_not_allowed_fallback(|| async { ApiError::new(Code::MethodNotAllowed, "this path does not take this method") })
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::same_place))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::introduce))
        .layer(axum::middleware::from_fn(metrics::measure))
        .with_state(state)
}

/// How a server meets its clients.
#[derive(Clone, Default)]
pub struct Front {
    /// What the operator allows.
    pub policy: Policy,
    /// What connections of clients may take.
    pub door: DoorLimits,
    /// Certificate and key; plain HTTP without.
    pub tls: Option<Arc<Tls>>,
    /// What sessions in databases may take.
    pub explorers: ExplorerLimits,
}

/// Serves the API until the state's shutdown token is cancelled; requests under way are answered.
///
/// # Errors
/// Those of the operating system.
pub async fn serve(listener: tokio::net::TcpListener, state: AppState, front: &Front) -> std::io::Result<()> {
    let shutdown = state.shutdown.clone();
    catalogs::listen(&state);
    live::listen(&state);
    door::serve(listener, router(state), front.door, front.tls.clone(), shutdown).await
}

/// The OpenAPI document as it is committed.
pub fn openapi_json() -> String {
    let document = routes::all().document(env!("CARGO_PKG_VERSION"));
    // A JSON value always has a text form.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::new(Code::Internal, "the request failed inside the server").into_response()
}
