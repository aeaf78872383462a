//! `millrace serve`: store, bus, orchestrator and API in one process.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_apiserver::{AppState, Explorers, Front, IdeAuth, ObjectSessions, Sessions, named_roots};
use millrace_core::entitlement::Entitlement;
use millrace_core::federation::QueryTier;
use millrace_core::files::FileRoots;
use millrace_core::{Error, Result};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::allow_all::AllowAll;
use crate::journal;
use crate::keys::LocalKeys;
use crate::orchestrator::LocalOrchestrator;
use crate::remote::RemoteEntitlement;
use crate::store::Store;
use millrace_bus::LocalBus;

/// How a server is started.
pub struct ServeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Who may browse; by default anybody on a loopback address, and owners of a key on others.
    pub auth: Option<IdeAuth>,
    /// Who knows keys.
    pub entitlement: EntitlementChoice,
    /// Runs federated statements.
    pub query: Arc<dyn QueryTier>,
    /// How it meets its clients.
    pub front: Front,
}

/// Who knows keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntitlementChoice {
    /// This data directory.
    Local,
    /// A service behind a URL.
    Remote(String),
    /// Nobody is asked.
    AllowAll,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By a signal or a request to stop.
    Stopped,
    /// By a request to begin anew.
    ToRestart,
}

/// Serves until the token is cancelled. `on_ready` is told the address once requests are answered.
///
/// # Errors
/// [`millrace_core::Kind::Invalid`] for an address that is not free or must not be open, [`millrace_core::Kind::Conflict`] if another server uses the data directory.
pub async fn serve(config: ServeConfig, shutdown: CancellationToken, on_ready: impl FnOnce(SocketAddr)) -> Result<Ended> {
    let is_local = config.listen.ip().is_loopback();
    let auth = config.auth.unwrap_or(if is_local { IdeAuth::Open } else { IdeAuth::Key });
    if auth == IdeAuth::Open && !is_local {
        return Err(Error::invalid(
            "--auth-ide",
            format!("`{}` is not a loopback address; a server that others reach needs `--auth-ide key`", config.listen),
        ));
    }
    let store = Store::open(&config.data_dir).await?;
    let _lock = lock(&config.data_dir.join("server.lock"))?;
    let entitlement: Arc<dyn Entitlement> = match &config.entitlement {
        EntitlementChoice::Local => Arc::new(LocalKeys::new(store.clone())),
        EntitlementChoice::Remote(url) => Arc::new(RemoteEntitlement::new(url)?),
        EntitlementChoice::AllowAll => {
            tracing::warn!("every request is let through, with or without a key, because `--entitlement allow-all` is set");
            Arc::new(AllowAll)
        }
    };
    for stream in store.mark_interrupted().await? {
        tracing::warn!(stream = %stream.id, "an unfinished stream was found; it is paused until it is resumed or stopped");
    }
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Error::invalid("--listen", format!("cannot listen on `{}`", config.listen)).because(error))?;
    let address = listener.local_addr().map_err(|error| Error::internal("the listener has no address").because(error))?;
    let bus = Arc::new(LocalBus::default());
    let shared: Arc<Store> = Arc::new(store.clone());
    let journal = tokio::spawn(journal::keep(bus.clone(), shared.clone()));
    let orchestrator = LocalOrchestrator::new(shared.clone(), bus.clone(), entitlement.clone());
    let restart = Arc::new(AtomicBool::new(false));
    let state = AppState {
        restart: restart.clone(),
        install_id: store.install_id().await?,
        default_export_path: config.data_dir.join("exports").display().to_string(),
        store: shared,
        orchestrator: Arc::new(orchestrator.clone()),
        bus,
        live: Default::default(),
        query: config.query,
        explorers: Explorers::new(config.front.explorers),
        catalogs: Default::default(),
        search: Default::default(),
        entitlement,
        auth,
        sessions: Arc::new(Sessions::default()),
        files: Arc::new(roots(&config.data_dir)),
        objects: ObjectSessions::default(),
        idempotency: Default::default(),
        policy: config.front.policy.clone(),
        is_cluster: false,
        shutdown,
    };
    on_ready(address);
    let served = millrace_apiserver::serve(listener, state, &config.front).await;
    orchestrator.shut_down().await;
    // The last records are written within the journal's patience.
    let _ = tokio::time::timeout(journal::GRACE, journal).await;
    served.map_err(|error| Error::internal("the server stopped").because(error))?;
    Ok(if restart.load(Ordering::SeqCst) { Ended::ToRestart } else { Ended::Stopped })
}

/// The user's home and the folders in `MILLRACE_FILE_ROOTS`; of the server's own data only the exports.
fn roots(data_dir: &std::path::Path) -> FileRoots {
    use etcetera::BaseStrategy as _;
    let home = etcetera::choose_base_strategy().ok().map(|strategy| strategy.home_dir().to_path_buf());
    let allowed = home.into_iter().chain(named_roots()).chain([data_dir.join("exports")]);
    FileRoots { allowed: allowed.collect(), denied: vec![data_dir.to_path_buf()] }
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
