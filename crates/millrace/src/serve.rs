//! `millrace serve` and `millrace keys`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use millrace_query::ChildQueryTier;
use millrace_standalone::keys::LocalKeys;
use millrace_standalone::server::{ServeConfig, default_data_dir, serve as serve_api};
use millrace_standalone::store::Store;

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "MILLRACE_LISTEN", default_value = "127.0.0.1:8020", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Where connections, configs, keys and history are kept [default: the user's data directory]
    #[arg(long, env = "MILLRACE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make an API key; it is printed once and stored only as a hash
    Create {
        /// The server's data directory [default: the user's data directory]
        #[arg(long, env = "MILLRACE_DATA_DIR", value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// What the key is for
        #[arg(long, default_value = "")]
        name: String,
    },
}

/// Runs the server until a signal.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    millrace_service::init_tracing();
    let shutdown = millrace_service::shutdown_on_signal()?;
    let config =
        ServeConfig { listen: args.listen, data_dir: data_dir(args.data_dir)?, query: Arc::new(ChildQueryTier::from_current_program()?) };
    let on_ready = |address| {
        let _ = writeln!(std::io::stdout(), "millrace listening on http://{address}");
        let _ = std::io::stdout().flush();
    };
    serve_api(config, shutdown, on_ready).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    Ok(ExitCode::SUCCESS)
}

/// Manages keys, beside a running server or without one.
pub(crate) async fn keys(command: KeysCommand) -> anyhow::Result<ExitCode> {
    let KeysCommand::Create { data_dir: dir, name } = command;
    let store = Store::open(&data_dir(dir)?).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() as i64;
    let key = LocalKeys::new(store).create(&name, now).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    writeln!(std::io::stdout(), "{}", key.expose())?;
    Ok(ExitCode::SUCCESS)
}

fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match given {
        Some(dir) => Ok(dir),
        None => default_data_dir().map_err(|error| anyhow::anyhow!(error.chain())),
    }
}
