//! Turns what is wanted (Connections, StreamConfigs, Streams) into Jobs of worker pods, and says how far they are.
//!
//! ```text
//!  StreamConfig with `state` ─▶ Stream ─▶ dereference ─▶ validate ─▶ build ─▶ apply (ConfigMap, Job) ─▶ status
//!  Connection ─▶ probe Job ─▶ Reachable                    held while something names it
//!  StreamConfig, deleted ─▶ its Streams end ─▶ cleanup Job ─▶ gone
//! ```
//!
//! It never dials a database and reads no Secret. One controller of a namespace leads, by a Lease; another takes over when it goes.
#![warn(missing_docs)]

mod cleanup;
mod conditions;
mod connection;
mod context;
mod finalizers;
pub mod metrics;
mod names;
mod namespace;
mod orphans;
mod probe;
mod stream;
mod stream_config;
mod trouble;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use millrace_bus::{Nats, NatsConfig};
use millrace_core::{Error, Kind, Result, Secret};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use kube_lease_manager::LeaseManagerBuilder;

use context::Context;

/// The Lease of whoever leads: how long it counts unrenewed, and how long before that it is renewed.
const LEASE: &str = "millrace-controller";
const LEASE_SECONDS: u64 = 12;
const LEASE_GRACE_SECONDS: u64 = 4;
/// How often it is asked whose it is.
const CONFIRM_EVERY: Duration = Duration::from_secs(3);
/// How long the end waits for the lease to be given back.
const RELEASE_PATIENCE: Duration = Duration::from_secs(3);
/// How long the end may take to let go what a namespace that is being deleted holds; a pod gets half a minute.
const LET_GO_PATIENCE: Duration = Duration::from_secs(20);

/// When a login is tried from where workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionProbes {
    /// For each new Connection, whenever its spec changes, and on request.
    Always,
    /// Whenever the annotation [`millrace_crds::PROBE_ANNOTATION`] has a new value.
    OnRequest,
}

/// What a controller is started with.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// The namespace that is watched.
    pub namespace: String,
    /// Names this process among others; the pod's name.
    pub identity: String,
    /// Where NATS is.
    pub nats_url: String,
    /// Shown to NATS.
    pub nats_token: Option<Secret>,
    /// A pod template (YAML) with a container `worker`, from which workers are made.
    pub worker_template: PathBuf,
    /// Streams that may be unfinished at once.
    pub max_active_streams: usize,
    /// When connections are probed.
    pub connection_probes: ConnectionProbes,
}

/// Leads when it may, until the token is cancelled. Returns an error when the lead was lost, so that the process starts afresh.
///
/// # Errors
/// [`Kind::Invalid`] for a template that cannot be read, [`Kind::Unreachable`] without a cluster, [`Kind::Fenced`] when another one leads.
pub async fn run(config: ControllerConfig, shutdown: CancellationToken) -> Result<()> {
    let client = Client::try_default().await.map_err(|error| Error::new(Kind::Unreachable, "there is no cluster").because(error))?;
    let nats = NatsConfig { url: config.nats_url.clone(), token: config.nats_token.clone(), namespace: config.namespace.clone() };
    let nats = Nats::connect(&nats, "controller").await?;
    let context = Arc::new(Context::new(client.clone(), nats.clone(), &config)?);
    let result = lead(client, nats, context.clone(), &config, shutdown).await;
    // Pods go before what they look after, so this is the last moment.
    let _ = tokio::time::timeout(LET_GO_PATIENCE, namespace::let_go_if_terminating(&context)).await;
    result
}

async fn lead(client: Client, nats: Nats, context: Arc<Context>, config: &ControllerConfig, shutdown: CancellationToken) -> Result<()> {
    let lost = |error: kube_lease_manager::LeaseManagerError| Error::new(Kind::Unreachable, "the lease cannot be had").because(error);
    let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
        .with_namespace(config.namespace.clone())
        .with_identity(config.identity.clone())
        .with_duration(LEASE_SECONDS)
        .with_grace(LEASE_GRACE_SECONDS)
        .build()
        .await
        .map_err(lost)?;
    let (mut leads, mut holding) = manager.watch().await;
    metrics::leads(false);
    tokio::select! {
        _ = leads.wait_for(|leads| *leads) => {}
        ended = &mut holding => return ended_early(ended),
        () = shutdown.cancelled() => return Ok(()),
    }
    tracing::info!(identity = config.identity, "leading");
    metrics::leads(true);
    let defining = tokio::spawn(async move { nats.define().await });
    let result = tokio::select! {
        () = stream::run(context.clone()) => Ok(()),
        () = stream_config::run(context.clone()) => Ok(()),
        () = connection::run(context.clone()) => Ok(()),
        () = context.listen() => Ok(()),
        () = orphans::run(&context) => Ok(()),
        () = namespace::watch(&context) => Ok(()),
        _ = leads.wait_for(|leads| !*leads) => Err(Error::new(Kind::Fenced, "another controller leads now")),
        error = doubt(&client, config) => Err(error),
        ended = &mut holding => return ended_early(ended),
        () = shutdown.cancelled() => Ok(()),
    };
    metrics::leads(false);
    defining.abort();
    // Once nobody listens, the lease is released, so that another one takes over at once.
    drop(leads);
    let _ = tokio::time::timeout(RELEASE_PATIENCE, holding).await;
    result
}

/// Returns once the lead is somebody else's, or may be: whoever renews the lease here waits for the cluster as long as it takes, and another one counts its time.
async fn doubt(client: &Client, config: &ControllerConfig) -> Error {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &config.namespace);
    let mut confirmed_at = Instant::now();
    loop {
        tokio::time::sleep(CONFIRM_EVERY).await;
        let asked_at = Instant::now();
        if let Ok(Ok(lease)) = tokio::time::timeout(CONFIRM_EVERY, leases.get(LEASE)).await {
            let holder = lease.spec.and_then(|spec| spec.holder_identity);
            if holder.as_ref() != Some(&config.identity) {
                return Error::new(Kind::Fenced, "another controller leads now");
            }
            confirmed_at = asked_at;
        }
        if confirmed_at.elapsed() > Duration::from_secs(LEASE_SECONDS) {
            return Error::new(Kind::Unreachable, "nobody says any more who leads");
        }
    }
}

fn ended_early<T, E: std::error::Error + Send + Sync + 'static>(
    ended: std::result::Result<std::result::Result<T, E>, tokio::task::JoinError>,
) -> Result<()> {
    let error = Error::new(Kind::Unreachable, "the lease is not held any more");
    match ended {
        Ok(Err(cause)) => Err(error.because(cause)),
        _ => Err(error),
    }
}
