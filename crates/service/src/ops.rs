//! What operations ask a process over HTTP: liveness and readiness, for Kubernetes' probes, and metrics, for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A mark that a role sets once it can serve, and the question whether it is set.
pub fn readiness() -> (Ready, impl Fn() -> bool + Send + Sync + 'static) {
    let mark = Arc::new(AtomicBool::new(false));
    let asked = mark.clone();
    (Ready(mark), move || asked.load(Ordering::Relaxed))
}

/// Set once a role can serve.
#[derive(Debug, Clone)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// From now on `/readyz` answers well.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Answers `/livez` and `/metrics` always and `/readyz` while `is_ready`, until the token is cancelled; answers where it listens.
///
/// # Errors
/// An address that is not free.
pub async fn serve_ops(
    address: SocketAddr,
    is_ready: impl Fn() -> bool + Send + Sync + 'static,
    shutdown: CancellationToken,
) -> std::io::Result<SocketAddr> {
    let is_ready = Arc::new(is_ready);
    let ready = move || {
        let is_ready = is_ready.clone();
        async move { if is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE } }
    };
    let router = Router::new()
        .route("/livez", get(|| async { StatusCode::OK }))
        .route("/readyz", get(ready))
        .route("/metrics", get(|| async { ([(CONTENT_TYPE, TEXT_FORMAT)], metrics::text()) }));
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "probes and scrapes are not answered any more");
        }
    });
    Ok(address)
}
