//! `millrace serve` and `millrace keys`.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use millrace_apiserver::IdeAuth;
use millrace_query::{ChildQueryTier, QueryLimits};
use millrace_service::AuditSink;
use millrace_standalone::keys::{KeyEntry, KeyTerms, LocalKeys, Subscription};
use millrace_standalone::server::{Ended, EntitlementChoice, ServeConfig, default_data_dir, serve as serve_api};
use millrace_standalone::store::Store;

use crate::front::{FrontArgs, HostArgs};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "MILLRACE_LISTEN", default_value = "127.0.0.1:8020", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Where connections, configs, keys and history are kept [default: the user's data directory]
    #[arg(long, env = "MILLRACE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Who may browse [default: open on a loopback address, key on others]
    #[arg(long, env = "MILLRACE_AUTH_IDE", value_enum)]
    auth_ide: Option<Auth>,
    /// Who knows keys
    #[arg(long, env = "MILLRACE_ENTITLEMENT", value_enum, default_value = "local")]
    entitlement: Provider,
    /// The entitlement service, for `--entitlement remote`
    #[arg(long, env = "MILLRACE_ENTITLEMENT_URL", value_name = "URL", required_if_eq("entitlement", "remote"))]
    entitlement_url: Option<String>,
    /// Where liveness, readiness and metrics are answered; nowhere by default
    #[arg(long, env = "MILLRACE_OPS_LISTEN", value_name = "HOST:PORT")]
    ops_listen: Option<SocketAddr>,
    /// File to which the audit log is appended, one JSON object per line; it is part of the other records when absent
    #[arg(long, env = "MILLRACE_AUDIT_LOG", value_name = "FILE")]
    audit_log: Option<PathBuf>,
    #[command(flatten)]
    front: FrontArgs,
    #[command(flatten)]
    hosts: HostArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Auth {
    /// Anybody who reaches the server may browse; for loopback addresses
    Open,
    /// Everything but health, readiness and defaults needs a key or a session
    Key,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Provider {
    /// Keys of the data directory
    Local,
    /// A service: see --entitlement-url
    Remote,
    /// Let every request through, with or without a key
    AllowAll,
}

/// Where keys are kept.
#[derive(Debug, Args)]
pub(crate) struct KeyStore {
    /// The server's data directory [default: the user's data directory]
    #[arg(long, env = "MILLRACE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What a key has.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// What the key is for
    #[arg(long)]
    name: Option<String>,
    /// unlimited, active, past_due, canceled or evaluation
    #[arg(long, value_name = "WORD", value_parser = subscription)]
    subscription: Option<Subscription>,
    /// Installations that may use the key at once; any number by default
    #[arg(long, value_name = "N")]
    seats: Option<u32>,
    /// Bytes that an evaluation may convert
    #[arg(long, value_name = "BYTES")]
    evaluation_bytes: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make an API key; it is printed once and stored only as a hash
    Create {
        #[command(flatten)]
        store: KeyStore,
        #[command(flatten)]
        terms: Terms,
    },
    /// Show all keys without their secrets
    List {
        #[command(flatten)]
        store: KeyStore,
    },
    /// Change what a key has
    Change {
        /// The key's id, as `list` shows it
        id: String,
        #[command(flatten)]
        store: KeyStore,
        #[command(flatten)]
        terms: Terms,
    },
    /// Give a key a new secret, which is printed once; the old one is refused from now on
    Rotate {
        /// The key's id, as `list` shows it
        id: String,
        #[command(flatten)]
        store: KeyStore,
    },
    /// Refuse a key from now on
    Revoke {
        /// The key's id, as `list` shows it
        id: String,
        #[command(flatten)]
        store: KeyStore,
    },
    /// Unbind an installation from a key, or bind it again
    Install {
        /// The key's id, as `list` shows it
        id: String,
        /// The installation's id
        install: String,
        /// Bind it again
        #[arg(long)]
        activate: bool,
        #[command(flatten)]
        store: KeyStore,
    },
}

fn subscription(text: &str) -> Result<Subscription, String> {
    let words: Vec<&str> = Subscription::ALL.iter().map(|subscription| subscription.as_str()).collect();
    Subscription::parse(text).ok_or_else(|| format!("it can be one of {}", words.join(", ")))
}

/// Runs the server until a signal.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let audit = args.audit_log.as_deref().map(open_audit_log).transpose()?;
    let telemetry = millrace_service::init_tracing_with("serve", audit.map_or(AuditSink::Records, AuditSink::File));
    args.hosts.install()?;
    let front = args.front.front()?;
    let scheme = args.front.scheme();
    let shutdown = millrace_service::shutdown_on_signal()?;
    let (ready, is_ready) = millrace_service::readiness();
    if let Some(address) = args.ops_listen {
        let address = millrace_service::serve_ops(address, is_ready, shutdown.clone()).await?;
        writeln!(std::io::stdout(), "millrace operations on http://{address}")?;
    }
    let config = ServeConfig {
        listen: args.listen,
        data_dir: data_dir(args.data_dir)?,
        auth: args.auth_ide.map(|auth| match auth {
            Auth::Open => IdeAuth::Open,
            Auth::Key => IdeAuth::Key,
        }),
        entitlement: match (args.entitlement, args.entitlement_url) {
            (Provider::Local, _) => EntitlementChoice::Local,
            (Provider::Remote, url) => EntitlementChoice::Remote(url.unwrap_or_default()),
            (Provider::AllowAll, _) => EntitlementChoice::AllowAll,
        },
        query: Arc::new(ChildQueryTier::from_current_program(QueryLimits::default())?),
        front,
    };
    let on_ready = |address| {
        ready.set();
        let _ = writeln!(std::io::stdout(), "millrace listening on {scheme}://{address}");
        let _ = std::io::stdout().flush();
    };
    let ended = serve_api(config, shutdown, on_ready).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    if ended == Ended::ToRestart {
        drop(telemetry);
        return Err(begin_anew());
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by the program as it lies on the disk now, with the same arguments; answers only if that fails.
fn begin_anew() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return anyhow::Error::new(error).context("this program cannot be found again"),
    };
    let error = std::process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
    anyhow::Error::new(error).context(format!("`{}` cannot be started again", program.display()))
}

/// Opens the audit log for its owner alone.
fn open_audit_log(path: &Path) -> anyhow::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let opened = File::options().create(true).append(true).mode(0o600).open(path);
    opened.map_err(|error| anyhow::anyhow!("--audit-log `{}`: {error}", path.display()))
}

/// Manages keys, beside a running server or without one.
pub(crate) async fn keys(command: KeysCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        KeysCommand::Create { store, terms } => open(store).await?.create(&terms.into()).await.map(|(_, key)| key.expose().to_owned()),
        KeysCommand::List { store } => open(store).await?.list().await.map(|keys| {
            let lines: Vec<String> = keys.iter().map(line).collect();
            lines.join("\n")
        }),
        KeysCommand::Change { id, store, terms } => open(store).await?.change(&id, &terms.into()).await.map(|()| String::new()),
        KeysCommand::Rotate { id, store } => open(store).await?.rotate(&id).await.map(|key| key.expose().to_owned()),
        KeysCommand::Revoke { id, store } => open(store).await?.revoke(&id).await.map(|()| String::new()),
        KeysCommand::Install { id, install, activate, store } => {
            open(store).await?.set_install(&id, &install, activate).await.map(|()| String::new())
        }
    };
    let text = text.map_err(|error| anyhow::anyhow!(error.chain()))?;
    if !text.is_empty() {
        writeln!(std::io::stdout(), "{text}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(store: KeyStore) -> anyhow::Result<LocalKeys> {
    let store = Store::open(&data_dir(store.data_dir)?).await.map_err(|error| anyhow::anyhow!(error.chain()))?;
    Ok(LocalKeys::new(store))
}

/// One key for people: id, state, subscription, seats, name.
fn line(key: &KeyEntry) -> String {
    let state = if key.revoked_at.is_some() { "revoked" } else { "valid" };
    let active = key.installs.iter().filter(|(_, is_active)| *is_active).count();
    let seats = key.seats.map_or_else(|| "any".to_owned(), |seats| seats.to_string());
    let installs: Vec<String> =
        key.installs.iter().map(|(id, is_active)| format!("{id}{}", if *is_active { "" } else { " (deactivated)" })).collect();
    format!("{}\t{state}\t{}\t{active}/{seats} seats\t{}\t{}", key.id, key.subscription, key.name, installs.join(", "))
}

impl From<Terms> for KeyTerms {
    fn from(terms: Terms) -> Self {
        Self { name: terms.name, subscription: terms.subscription, seats: terms.seats, evaluation_bytes: terms.evaluation_bytes }
    }
}

fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match given {
        Some(dir) => Ok(dir),
        None => default_data_dir().map_err(|error| anyhow::anyhow!(error.chain())),
    }
}
