//! `millrace drain` and `millrace ready`: what a chart asks around an installation's life.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use millrace_cluster::drain::DrainConfig;

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Namespace of the custom resources
    #[arg(long, env = "MILLRACE_NAMESPACE", default_value = "default")]
    namespace: String,
    /// The controller's Deployment, which is scaled to none before finalizers are taken
    #[arg(long, value_name = "DEPLOYMENT")]
    controller: Option<String>,
    /// Seconds that streams get to stop
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience_seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ReadyArgs {
    /// Address of the API server
    #[arg(value_name = "URL")]
    url: String,
    /// Seconds to wait
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience_seconds: u64,
    /// Whatever certificate it shows: nothing secret is sent, and only whether it answers is asked
    #[arg(long)]
    any_certificate: bool,
}

/// Leaves a namespace so that nothing in it needs us any more.
pub(crate) async fn drain(args: DrainArgs) -> anyhow::Result<ExitCode> {
    let _telemetry = millrace_service::init_tracing("drain");
    let config =
        DrainConfig { namespace: args.namespace, controller: args.controller, patience: Duration::from_secs(args.patience_seconds) };
    let drained = millrace_cluster::drain::drain(&config).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    tracing::info!(stopped = drained.stopped, unfinished = drained.unfinished, freed = drained.freed, "drained");
    Ok(ExitCode::SUCCESS)
}

/// Waits for an API server.
pub(crate) async fn ready(args: ReadyArgs) -> anyhow::Result<ExitCode> {
    let patience = Duration::from_secs(args.patience_seconds);
    millrace_cluster::ready::wait_until_ready(&args.url, patience, args.any_certificate)
        .await
        .map_err(|error| anyhow::anyhow!(error.chain()))?;
    Ok(ExitCode::SUCCESS)
}
