//! `millrace controller` and `millrace worker`: the roles of a cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use millrace_controller::ControllerConfig;
use millrace_core::Secret;
use millrace_worker::pod::PodConfig;

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
        let text = std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("--nats-token-file `{}`: {error}", path.display()))?;
        Ok(Some(Secret::new(text.trim())))
    }
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
    /// Where liveness and readiness are answered
    #[arg(long, env = "MILLRACE_HEALTH_LISTEN", default_value = "0.0.0.0:8081", value_name = "HOST:PORT")]
    health_listen: std::net::SocketAddr,
    /// Streams that may be unfinished at once
    #[arg(long, env = "MILLRACE_MAX_ACTIVE_STREAMS", default_value_t = 4)]
    max_active_streams: usize,
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
}

/// Reconciles until a signal.
pub(crate) async fn controller(args: ControllerArgs) -> anyhow::Result<ExitCode> {
    millrace_service::init_tracing();
    let shutdown = millrace_service::shutdown_on_signal()?;
    millrace_service::serve_health(args.health_listen, || true, shutdown.clone()).await?;
    let config = ControllerConfig {
        nats_token: args.nats.token()?,
        nats_url: args.nats.url.ok_or_else(|| anyhow::anyhow!("--nats-url is missing"))?,
        namespace: args.namespace,
        identity: args.identity,
        worker_template: args.worker_template,
        max_active_streams: args.max_active_streams,
    };
    millrace_controller::run(config, shutdown).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    Ok(ExitCode::SUCCESS)
}

/// Carries one task out.
pub(crate) async fn worker(args: WorkerArgs) -> anyhow::Result<ExitCode> {
    millrace_service::init_tracing();
    let shutdown = millrace_service::shutdown_on_signal()?;
    let token = args.nats.token()?;
    let nats = args.nats.url.map(|url| (url, token));
    let config = PodConfig { task: args.task, index: args.index, nats, termination_log: args.termination_log };
    Ok(ExitCode::from(millrace_worker::pod::run(config, shutdown).await.code()))
}
