//! `millrace controller` and `millrace worker`: the roles of a cluster.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use millrace_cluster::keys::ClusterKeys;
use millrace_cluster::server::ServerConfig;
use millrace_controller::{ConnectionProbes, ControllerConfig};
use millrace_core::Secret;
use millrace_core::federation::QueryTier;
use millrace_query::{ChildQueryTier, QueryLimits, RemoteConfig, RemoteQueryTier, RemoteServer};
use millrace_service::AuditSink;
use millrace_worker::pod::PodConfig;
use tracing::Instrument as _;

use crate::front::{FrontArgs, HostArgs};

/// Where NATS is.
#[derive(Debug, Args)]
pub(crate) struct NatsArgs {
    /// Address of NATS
    #[arg(long = "nats-url", env = "MILLRACE_NATS_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the token that NATS asks for
    #[arg(long = "nats-token-file", env = "MILLRACE_NATS_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl NatsArgs {
    fn token(&self) -> anyhow::Result<Option<Secret>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        Ok(Some(Secret::new(read("--nats-token-file", path)?.trim())))
    }
}

/// Where probes and scrapes are answered.
#[derive(Debug, Args)]
pub(crate) struct OpsArgs {
    /// Where liveness, readiness and metrics are answered
    #[arg(id = "ops_listen", long = "ops-listen", env = "MILLRACE_OPS_LISTEN", default_value = "0.0.0.0:8081", value_name = "HOST:PORT")]
    listen: std::net::SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Namespace to watch
    #[arg(long, env = "MILLRACE_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Names this process among others
    #[arg(long, env = "HOSTNAME", default_value = "controller")]
    identity: String,
    #[command(flatten)]
    nats: NatsArgs,
    /// Pod template (YAML) from which workers are made
    #[arg(long, env = "MILLRACE_WORKER_TEMPLATE", value_name = "FILE")]
    worker_template: PathBuf,
    #[command(flatten)]
    ops: OpsArgs,
    /// Streams that may be unfinished at once
    #[arg(long, env = "MILLRACE_MAX_ACTIVE_STREAMS", default_value_t = 4)]
    max_active_streams: usize,
    /// When a login is tried from where workers run
    #[arg(long, env = "MILLRACE_CONNECTION_PROBES", value_enum, default_value_t = Probes::Always)]
    connection_probes: Probes,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Probes {
    /// For each new Connection, whenever its spec changes, and on request
    Always,
    /// Whenever the annotation `millrace.dev/probe` has a new value
    OnRequest,
}

#[derive(Debug, Args)]
pub(crate) struct ApiserverArgs {
    /// Address to listen on
    #[arg(long, env = "MILLRACE_LISTEN", default_value = "0.0.0.0:8020", value_name = "HOST:PORT")]
    listen: std::net::SocketAddr,
    /// Namespace of the custom resources
    #[arg(long, env = "MILLRACE_NAMESPACE", default_value = "default")]
    namespace: String,
    #[command(flatten)]
    nats: NatsArgs,
    /// Streams that may be unfinished at once
    #[arg(long, env = "MILLRACE_MAX_ACTIVE_STREAMS", default_value_t = 4)]
    max_active_streams: usize,
    /// The query tier, `https://host:port`; without it, statements run in children of this process
    #[arg(long, env = "MILLRACE_QUERY_URL", value_name = "URL", requires = "query_token_file", requires = "query_ca_file")]
    query_url: Option<String>,
    /// File with the token that the query tier asks for
    #[arg(long, env = "MILLRACE_QUERY_TOKEN_FILE", value_name = "FILE")]
    query_token_file: Option<PathBuf>,
    /// File with the authority that signed the query tier's certificate (PEM)
    #[arg(long, env = "MILLRACE_QUERY_CA_FILE", value_name = "FILE")]
    query_ca_file: Option<PathBuf>,
    #[command(flatten)]
    ops: OpsArgs,
    #[command(flatten)]
    front: FrontArgs,
    #[command(flatten)]
    hosts: HostArgs,
}

impl ApiserverArgs {
    fn query_tier(&self) -> anyhow::Result<Arc<dyn QueryTier>> {
        let (Some(url), Some(token), Some(authority)) = (&self.query_url, &self.query_token_file, &self.query_ca_file) else {
            return Ok(Arc::new(ChildQueryTier::from_current_program(QueryLimits::default())?));
        };
        let token = Secret::new(read("--query-token-file", token)?.trim());
        let authority = read("--query-ca-file", authority)?;
        let tier = RemoteQueryTier::new(url, token, authority.as_bytes()).map_err(|error| anyhow::anyhow!(error.chain()))?;
        Ok(Arc::new(tier))
    }
}

/// The query tier as a process of its own.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// Address to listen on
    #[arg(long, env = "MILLRACE_LISTEN", default_value = "0.0.0.0:8030", value_name = "HOST:PORT")]
    listen: std::net::SocketAddr,
    /// File with the token that callers must show
    #[arg(long, env = "MILLRACE_QUERY_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// Certificate chain (PEM)
    #[arg(long, env = "MILLRACE_TLS_CERT_FILE", value_name = "FILE")]
    tls_cert_file: PathBuf,
    /// The certificate's key (PEM)
    #[arg(long, env = "MILLRACE_TLS_KEY_FILE", value_name = "FILE")]
    tls_key_file: PathBuf,
    /// Statements at once; others wait
    #[arg(long, env = "MILLRACE_QUERY_CONCURRENT", default_value_t = QueryLimits::default().concurrent)]
    concurrent: usize,
    /// Memory of one statement's engine, MiB
    #[arg(long, env = "MILLRACE_QUERY_MEMORY_MB", default_value_t = QueryLimits::default().memory_mb)]
    memory_mb: u64,
    #[command(flatten)]
    ops: OpsArgs,
    #[command(flatten)]
    hosts: HostArgs,
}

fn read(argument: &str, path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("{argument} `{}`: {error}", path.display()))
}

/// Answers statements until a signal.
pub(crate) async fn query(args: QueryArgs) -> anyhow::Result<ExitCode> {
    let _telemetry = millrace_service::init_tracing("query");
    args.hosts.install()?;
    let shutdown = millrace_service::shutdown_on_signal()?;
    let limits = QueryLimits { concurrent: args.concurrent, memory_mb: args.memory_mb, ..QueryLimits::default() };
    let config = RemoteConfig {
        listen: args.listen,
        token: Secret::new(read("--token-file", &args.token_file)?.trim()),
        certificate_pem: read("--tls-cert-file", &args.tls_cert_file)?.into_bytes(),
        key_pem: read("--tls-key-file", &args.tls_key_file)?.into_bytes(),
    };
    let tier = Arc::new(ChildQueryTier::from_current_program(limits)?);
    let server = RemoteServer::bind(config, tier).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    millrace_service::serve_ops(args.ops.listen, || true, shutdown.clone()).await?;
    tracing::info!(address = %server.address(), "answering statements");
    server.serve(shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// Keys of a cluster, in the API server's pod: `kubectl exec deploy/millrace-apiserver -- millrace cluster-keys create`.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterKeysCommand {
    /// Make an API key; it is printed once and stored only as a hash
    Create {
        /// Namespace of the keys
        #[arg(long, env = "MILLRACE_NAMESPACE", default_value = "default")]
        namespace: String,
        /// What the key is for
        #[arg(long, default_value = "")]
        name: String,
        /// Installations that may use the key at once; any number by default
        #[arg(long, value_name = "N")]
        seats: Option<u32>,
    },
    /// Show all keys without their secrets
    List {
        /// Namespace of the keys
        #[arg(long, env = "MILLRACE_NAMESPACE", default_value = "default")]
        namespace: String,
    },
    /// Refuse a key from now on
    Revoke {
        /// Namespace of the keys
        #[arg(long, env = "MILLRACE_NAMESPACE", default_value = "default")]
        namespace: String,
        /// The key's id, as `list` shows it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// The task
    #[arg(long, value_name = "FILE")]
    task: PathBuf,
    /// Which of the task's workers this is
    #[arg(long, env = "JOB_COMPLETION_INDEX", default_value_t = 0)]
    index: u32,
    #[command(flatten)]
    nats: NatsArgs,
    /// Where the report is left for Kubernetes
    #[arg(long, default_value = "/dev/termination-log", value_name = "FILE")]
    termination_log: PathBuf,
    #[command(flatten)]
    ops: OpsArgs,
    #[command(flatten)]
    hosts: HostArgs,
}

/// Serves until a signal.
pub(crate) async fn apiserver(args: ApiserverArgs) -> anyhow::Result<ExitCode> {
    let _telemetry = millrace_service::init_tracing_with("apiserver", AuditSink::Stdout);
    args.hosts.install()?;
    let front = args.front.front()?;
    let shutdown = millrace_service::shutdown_on_signal()?;
    let query = args.query_tier()?;
    let (ready, is_ready) = millrace_service::readiness();
    millrace_service::serve_ops(args.ops.listen, is_ready, shutdown.clone()).await?;
    let config = ServerConfig {
        listen: args.listen,
        nats_token: args.nats.token()?,
        nats_url: args.nats.url.ok_or_else(|| anyhow::anyhow!("--nats-url is missing"))?,
        namespace: args.namespace,
        max_active_streams: args.max_active_streams,
        query,
        ready,
        front,
    };
    millrace_cluster::server::serve(config, shutdown).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    Ok(ExitCode::SUCCESS)
}

/// Manages keys of a cluster.
pub(crate) async fn keys(command: ClusterKeysCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        ClusterKeysCommand::Create { namespace, name, seats } => {
            connect(&namespace).await?.create(&name, seats).await.map(|(_, key)| key.expose().to_owned())
        }
        ClusterKeysCommand::List { namespace } => connect(&namespace).await?.list().await.map(|keys| {
            let line = |key: &millrace_cluster::keys::Entry| {
                let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
                let seats = key.seats.map_or_else(|| "any".to_owned(), |seats| seats.to_string());
                format!("{}\t{state}\t{}/{seats} seats\t{}", key.id, key.installs.len(), key.name)
            };
            keys.iter().map(line).collect::<Vec<_>>().join("\n")
        }),
        ClusterKeysCommand::Revoke { namespace, id } => connect(&namespace).await?.revoke(&id).await.map(|()| String::new()),
    };
    let text = text.map_err(|error| anyhow::anyhow!(error.chain()))?;
    if !text.is_empty() {
        writeln!(std::io::stdout(), "{text}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn connect(namespace: &str) -> anyhow::Result<ClusterKeys> {
    ClusterKeys::connect(namespace).await.map_err(|error| anyhow::anyhow!(error.chain()))
}

/// Reconciles until a signal.
pub(crate) async fn controller(args: ControllerArgs) -> anyhow::Result<ExitCode> {
    let _telemetry = millrace_service::init_tracing("controller");
    let shutdown = millrace_service::shutdown_on_signal()?;
    millrace_service::serve_ops(args.ops.listen, || true, shutdown.clone()).await?;
    let config = ControllerConfig {
        nats_token: args.nats.token()?,
        nats_url: args.nats.url.ok_or_else(|| anyhow::anyhow!("--nats-url is missing"))?,
        namespace: args.namespace,
        identity: args.identity,
        worker_template: args.worker_template,
        max_active_streams: args.max_active_streams,
        connection_probes: match args.connection_probes {
            Probes::Always => ConnectionProbes::Always,
            Probes::OnRequest => ConnectionProbes::OnRequest,
        },
    };
    millrace_controller::run(config, shutdown).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    Ok(ExitCode::SUCCESS)
}

/// Carries one task out.
pub(crate) async fn worker(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    let _telemetry = millrace_service::init_tracing("worker");
    args.hosts.install()?;
    let shutdown = millrace_service::shutdown_on_signal()?;
    let token = args.nats.token()?;
    let nats = args.nats.url.map(|url| (url, token));
    millrace_service::serve_ops(args.ops.listen, || true, shutdown.clone()).await?;
    let span = millrace_worker::metrics::task_span_of(&args.task);
    let config = PodConfig { task: args.task, index: args.index, nats, termination_log: args.termination_log };
    Ok(ExitCode::from(millrace_worker::pod::run(config, shutdown).instrument(span).await.code()))
}
