//! What handlers work with.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use millrace_core::bus::Bus;
use millrace_core::entitlement::Entitlement;
use millrace_core::federation::QueryTier;
use millrace_core::files::FileRoots;
use millrace_core::id::InstallId;
use millrace_core::orchestrator::Orchestrator;
use millrace_core::store::ConfigStore;
use tokio_util::sync::CancellationToken;

use crate::catalogs::Catalogs;
use crate::explorers::Explorers;
use crate::idempotency::IdempotencyKeys;
use crate::live::LiveRecords;
use crate::objects::ObjectSessions;
use crate::policy::Policy;
use crate::search::SearchIndex;
use crate::session::SessionStore;

/// Who may use what is not a stream operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdeAuth {
    /// Whoever reaches the server; for loopback addresses.
    Open,
    /// Owners of a known key, by header or by the cookie of a session.
    Key,
}

/// The API server's parts; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    /// Connections, configs, streams.
    pub store: Arc<dyn ConfigStore>,
    /// Starts and stops runs.
    pub orchestrator: Arc<dyn Orchestrator>,
    /// Live events.
    pub bus: Arc<dyn Bus>,
    /// The newest of them, for event streams.
    pub live: LiveRecords,
    /// Federated statements.
    pub query: Arc<dyn QueryTier>,
    /// Sessions in which people look into databases.
    pub explorers: Explorers,
    /// What connections contain, remembered for a short while.
    pub catalogs: Catalogs,
    /// Where texts stand inside of connections.
    pub search: SearchIndex,
    /// Who may operate streams.
    pub entitlement: Arc<dyn Entitlement>,
    /// Who may browse.
    pub auth: IdeAuth,
    /// Browsers that have logged in.
    pub sessions: Arc<dyn SessionStore>,
    /// What clients have configured of object stores.
    pub objects: ObjectSessions,
    /// Answers to requests that may be sent again.
    pub idempotency: IdempotencyKeys,
    /// This installation.
    pub install_id: InstallId,
    /// Where exports go when nobody says otherwise.
    pub default_export_path: String,
    /// Folders whose files may be looked into.
    pub files: Arc<FileRoots>,
    /// What the operator allows.
    pub policy: Policy,
    /// Whether this is one of a cluster's servers, which nobody stops through the API.
    pub is_cluster: bool,
    /// Set when the server is to begin anew once it has stopped; only one that runs alone can.
    pub restart: Arc<AtomicBool>,
    /// Cancelled when the server stops; ends event streams.
    pub shutdown: CancellationToken,
}
