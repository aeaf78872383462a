//! The `millrace` binary: arguments and wiring, no logic.
//!
//! Exit codes: 0 it worked, 1 the work failed, 2 the command cannot be carried out as given, 130 interrupted.

mod cluster;
mod copy;
mod front;
mod hooks;
mod serve;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "millrace", version, about = "Moves data between databases, exactly")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server: REST API, store and workers in one process
    Serve(serve::ServeArgs),
    /// Manage API keys
    #[command(subcommand)]
    Keys(serve::KeysCommand),
    /// Copy a database with its structure, once
    Copy(copy::CopyArgs),
    /// Show what a copy would do with every column, and do nothing
    Plan(copy::CopyArgs),
    /// Serve the REST API over the custom resources of a namespace (a cluster's part)
    Apiserver(cluster::ApiserverArgs),
    /// Manage API keys of a cluster
    #[command(subcommand)]
    ClusterKeys(cluster::ClusterKeysCommand),
    /// Reconcile the custom resources of a namespace (a cluster's part)
    Controller(cluster::ControllerArgs),
    /// Carry out one task, as the controller's Jobs do (a cluster's part)
    Worker(cluster::WorkerArgs),
    /// Answer federated statements for API servers (a cluster's part)
    Query(cluster::QueryArgs),
    /// Before an uninstall: stop the streams of a namespace and take our finalizers from its objects, which stay (a cluster's part)
    Drain(hooks::DrainArgs),
    /// Wait until an API server can serve
    Ready(hooks::ReadyArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Print the table of error codes
    Errors,
    /// Print which rows of the wire contract are served
    #[command(hide = true)]
    ApiCoverage,
    /// Print what becomes of every source type
    Fidelity,
    /// Print the definitions of the custom resources as YAML
    Crds {
        /// Only this file: connections, streamconfigs or streams
        kind: Option<String>,
    },
    /// Run one federated statement (used by the server)
    #[command(hide = true)]
    QueryOne,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The child answers one question and must be small: no runtime.
    if let Command::QueryOne = cli.command {
        return millrace_query::query_one();
    }
    let result = runtime().and_then(|runtime| runtime.block_on(run(cli.command)));
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "millrace: {error:#}");
        ExitCode::from(2)
    })
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Keys(command) => serve::keys(command).await,
        Command::Copy(args) => copy::copy(args).await,
        Command::Plan(args) => copy::plan(args).await,
        Command::Apiserver(args) => cluster::apiserver(args).await,
        Command::ClusterKeys(command) => cluster::keys(command).await,
        Command::Controller(args) => cluster::controller(args).await,
        Command::Worker(args) => cluster::worker(args).await,
        Command::Query(args) => cluster::query(args).await,
        Command::Drain(args) => hooks::drain(args).await,
        Command::Ready(args) => hooks::ready(args).await,
        Command::Openapi => print(&millrace_apiserver::openapi_json()),
        Command::Fidelity => print(&millrace_connectors::postgres::fidelity_markdown()),
        Command::Crds { kind } => crds(kind.as_deref()),
        Command::Errors => print(&millrace_apiserver::errors_markdown()),
        Command::ApiCoverage => print(&millrace_apiserver::coverage_markdown()),
        Command::QueryOne => Ok(ExitCode::FAILURE),
    }
}

fn crds(kind: Option<&str>) -> anyhow::Result<ExitCode> {
    let definitions = millrace_crds::definitions().map_err(anyhow::Error::msg)?;
    let wanted = |file: &str| kind.is_none_or(|kind| file.strip_suffix(".yaml") == Some(kind));
    let texts: Vec<String> = definitions.into_iter().filter(|(file, _)| wanted(file)).map(|(_, text)| text).collect();
    if texts.is_empty() {
        anyhow::bail!("there are the kinds connections, streamconfigs and streams");
    }
    print(&texts.join("---\n"))
}

/// Few threads: the work is waiting for servers, and every thread costs memory while the process idles.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn no_subcommand_names_an_argument_twice() {
        Cli::command().debug_assert();
    }
}
