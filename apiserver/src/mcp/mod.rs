//! Tools for language models: a server of the Model Context Protocol that only reads, at [`PATH`].
//!
//! ```text
//!  request ─▶ guard (host, origin, key) ─▶ rmcp (protocol, sessions) ─▶ Server ─▶ tool ─▶ the functions behind the REST handlers
//!                                                                          └ errors: the body of REST errors, as the tool's result
//! ```
//!
//! A process of its own keeps sessions, so that clients of older protocol versions can open an event stream (GET) and end their session (DELETE). In a cluster there
//! are none: any server answers any request.

mod bounds;
mod catalog;
mod compare;
mod connections;
mod files;
mod reading;
mod redact;
mod rows;
mod s3;
mod select;
mod server;
mod streams;
mod tool;
mod values;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get_service};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use crate::extract::MAX_BODY;
use crate::guard;
use crate::state::AppState;
use server::Server;

/// Where clients find it; outside of the REST API's base.
const PATH: &str = "/mcp";
/// A session that nobody has used for so long is over.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The endpoint.
pub(crate) fn router(state: &AppState) -> Router<AppState> {
    // Hosts and origins are looked at for the whole router, by the rules of `auth.ide`.
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(MAX_BODY)
        .with_legacy_session_mode(!state.is_cluster)
        .with_json_response(true)
        .with_cancellation_token(state.shutdown.child_token());
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(IDLE);
    let server = Server::new(state);
    let service = StreamableHttpService::new(move || Ok(server.clone()), Arc::new(sessions), config);
    let methods: MethodRouter<AppState> = get_service(service.clone()).post_service(service.clone()).delete_service(service);
    Router::new().route(PATH, methods.layer(from_fn_with_state(state.clone(), guard::tolerant)))
}
