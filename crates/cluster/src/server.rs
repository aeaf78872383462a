//! `millrace apiserver`: the REST API over custom resources and NATS.

use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use millrace_apiserver::{AppState, Explorers, Front, IdeAuth, IdempotencyKeys, ObjectSessions, named_roots};
use millrace_bus::{Nats, NatsBus, NatsConfig};
use millrace_core::federation::QueryTier;
use millrace_core::files::FileRoots;
use millrace_core::{Error, Kind, Result, Secret};
use millrace_service::Ready;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answers::ClusterAnswers;
use crate::keys::ClusterKeys;
use crate::orchestrator::ClusterOrchestrator;
use crate::sessions::ClusterSessions;
use crate::store::ClusterStore;

/// How an API server of a cluster is started.
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the custom resources are.
    pub namespace: String,
    /// Where NATS is.
    pub nats_url: String,
    /// Shown to NATS.
    pub nats_token: Option<Secret>,
    /// Streams that may be unfinished at once.
    pub max_active_streams: usize,
    /// Runs federated statements.
    pub query: Arc<dyn QueryTier>,
    /// Set once requests are answered.
    pub ready: Ready,
    /// How it meets its clients.
    pub front: Front,
}

/// Serves until the token is cancelled. Browsing needs a key, as whatever is reached from elsewhere does.
///
/// # Errors
/// [`Kind::Unreachable`] without a cluster, [`Kind::Invalid`] for an address that is not free.
pub async fn serve(config: ServerConfig, shutdown: CancellationToken) -> Result<()> {
    let client = Client::try_default().await.map_err(|error| Error::new(Kind::Unreachable, "there is no cluster").because(error))?;
    let nats = NatsConfig { url: config.nats_url, token: config.nats_token, namespace: config.namespace.clone() };
    let nats = Nats::connect(&nats, "apiserver").await?;
    let defining = nats.clone();
    tokio::spawn(async move { defining.define().await });
    let store = ClusterStore::new(client.clone(), &config.namespace, nats.clone(), config.max_active_streams);
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|error| Error::invalid("--listen", format!("cannot listen on `{}`", config.listen)).because(error))?;
    let state = AppState {
        install_id: store.install_id().await?,
        default_export_path: String::new(),
        store: Arc::new(store.clone()),
        orchestrator: Arc::new(ClusterOrchestrator::new(store)),
        idempotency: IdempotencyKeys::shared(Arc::new(ClusterAnswers::new(nats.clone()))),
        bus: Arc::new(NatsBus::new(nats, true)),
        live: Default::default(),
        query: config.query,
        explorers: Explorers::new(config.front.explorers),
        catalogs: Default::default(),
        search: Default::default(),
        entitlement: Arc::new(ClusterKeys::new(client.clone(), &config.namespace)),
        auth: IdeAuth::Key,
        sessions: Arc::new(ClusterSessions::new(client, &config.namespace)),
        files: Arc::new(FileRoots { allowed: named_roots(), denied: Vec::new() }),
        objects: ObjectSessions::default(),
        policy: config.front.policy.clone(),
        is_cluster: true,
        restart: Default::default(),
        shutdown,
    };
    config.ready.set();
    tracing::info!(address = %config.listen, "serving");
    millrace_apiserver::serve(listener, state, &config.front).await.map_err(|error| Error::internal("the server stopped").because(error))
}
