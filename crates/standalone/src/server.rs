//! `millrace serve`: store, bus, orchestrator and API in one process.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_apiserver::AppState;
use millrace_core::federation::QueryTier;
use millrace_core::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::bus::LocalBus;
use crate::keys::LocalKeys;
use crate::orchestrator::LocalOrchestrator;
use crate::store::Store;

/// How a server is started.
pub struct ServeConfig {
    /// Where to listen; a loopback address.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Runs federated statements.
    pub query: Arc<dyn QueryTier>,
}

/// Serves until the token is cancelled. `on_ready` is told the address once requests are answered.
///
/// # Errors
/// [`millrace_core::Kind::Invalid`] for an address that is not loopback or not free, [`millrace_core::Kind::Conflict`] if another server uses the data directory.
pub async fn serve(config: ServeConfig, shutdown: CancellationToken, on_ready: impl FnOnce(SocketAddr)) -> Result<()> {
    if !config.listen.ip().is_loopback() {
        return Err(Error::invalid(
            "--listen",
            format!(
                "`{}` is not a loopback address; without key authentication the server listens on loopback addresses only",
                config.listen
            ),
        ));
    }
    let store = Store::open(&config.data_dir).await?;
    let _lock = lock(&config.data_dir.join("server.lock"))?;
    for stream in store.mark_interrupted().await? {
        tracing::warn!(stream = %stream.id, "an unfinished stream was found; it is paused until it is resumed or stopped");
    }
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Error::invalid("--listen", format!("cannot listen on `{}`", config.listen)).because(error))?;
    let address = listener.local_addr().map_err(|error| Error::internal("the listener has no address").because(error))?;
    let bus = Arc::new(LocalBus::default());
    let shared: Arc<Store> = Arc::new(store.clone());
    let orchestrator = LocalOrchestrator::new(shared.clone(), bus.clone());
    let state = AppState {
        install_id: store.install_id().await?,
        default_export_path: config.data_dir.join("exports").display().to_string(),
        store: shared,
        orchestrator: Arc::new(orchestrator.clone()),
        bus,
        query: config.query,
        entitlement: Arc::new(LocalKeys::new(store)),
        shutdown,
    };
    on_ready(address);
    let served = millrace_apiserver::serve(listener, state).await;
    orchestrator.shut_down().await;
    served.map_err(|error| Error::internal("the server stopped").because(error))
}

/// One server per data directory; the lock goes with the process, however it ends.
fn lock(path: &std::path::Path) -> Result<File> {
    let failed = |error: std::io::Error| Error::internal(format!("cannot lock `{}`", path.display())).because(error);
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            millrace_core::Kind::Conflict,
            format!("another server uses this data directory (`{}` is locked)", path.display()),
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The user's data directory for Millrace.
pub fn default_data_dir() -> Result<PathBuf> {
    use etcetera::BaseStrategy as _;
    let strategy = etcetera::choose_base_strategy().map_err(|error| {
        Error::invalid("--data-dir", "this user has no home directory; name a data directory").because(error.to_string())
    })?;
    Ok(strategy.data_dir().join("millrace"))
}
