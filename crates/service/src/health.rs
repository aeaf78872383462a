//! Liveness and readiness over HTTP, for Kubernetes' probes.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Answers `/livez` always and `/readyz` while `is_ready`, until the token is cancelled.
///
/// # Errors
/// An address that is not free.
pub async fn serve_health(
    address: SocketAddr,
    is_ready: impl Fn() -> bool + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let is_ready = Arc::new(is_ready);
    let ready = move || {
        let is_ready = is_ready.clone();
        async move { if is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE } }
    };
    let router = Router::new().route("/livez", get(|| async { StatusCode::OK })).route("/readyz", get(ready));
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "health is not answered any more");
        }
    });
    Ok(())
}
