//! The REST API of Millrace.
//!
//! ```text
//!  request ─▶ guard (request id, host, origin) ─▶ [key, as the endpoint asks] ─▶ routes/<group> ─▶ store · orchestrator · bus · query tier
//!                                                     wire/<group>: request and response types only
//!                                                     └─▶ /mcp: tools for language models, over the functions of the same routes
//! ```

mod alias;
mod catalogs;
mod coverage;
mod errors;
mod explorers;
mod extract;
mod folders;
mod guard;
mod idempotency;
mod live;
mod mcp;
pub mod metrics;
mod place;
mod results;
mod route;
mod routes;
mod search;
mod session;
mod sql;
mod state;
mod wire;

pub use catalogs::Catalogs;
pub use coverage::coverage_markdown;
pub use errors::{ApiError, Code, ErrorBody, errors_markdown};
pub use explorers::Explorers;
pub use idempotency::IdempotencyKeys;
pub use live::LiveRecords;
pub use routes::named_roots;
pub use search::SearchIndex;
pub use session::{LIFETIME as SESSION_LIFETIME, MOST as MOST_SESSIONS, SessionStore, Sessions};
pub use state::{AppState, IdeAuth};

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use tower_http::catch_panic::CatchPanicLayer;

/// The whole API as one router.
pub fn router(state: AppState) -> Router {
    routes::all()
        .router(&state)
        .merge(mcp::router(&state))
        .fallback(|| async { ApiError::new(Code::RouteNotFound, "there is no such path") })
        .method_not_allowed_fallback(|| async { ApiError::new(Code::MethodNotAllowed, "this path does not take this method") })
        .layer(axum::middleware::from_fn_with_state(state.clone(), guard::same_place))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(guard::request_id))
        .layer(axum::middleware::from_fn(metrics::measure))
        .with_state(state)
}

/// Serves the API until the state's shutdown token is cancelled; requests under way are answered.
pub async fn serve(listener: tokio::net::TcpListener, state: AppState) -> std::io::Result<()> {
    let shutdown = state.shutdown.clone();
    catalogs::listen(&state);
    live::listen(&state);
    let service = router(state).into_make_service_with_connect_info::<std::net::SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await
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
