//! What every role shares: tracing, probes and shutdown.

mod ops;

pub use ops::{Ready, readiness, serve_ops};

use std::io::IsTerminal as _;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Which records are written: `MILLRACE_LOG=debug`, `MILLRACE_LOG=millrace_worker=trace,info`.
const FILTER_VARIABLE: &str = "MILLRACE_LOG";

/// Writes records to stderr: for people on a terminal, as JSON lines otherwise.
pub fn init_tracing() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as tests make it, keeps the first subscriber.
    let _ = if std::io::stderr().is_terminal() { builder.try_init() } else { builder.json().try_init() };
}

/// A token that SIGTERM and SIGINT cancel; the second signal ends the process at once.
pub fn shutdown_on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancelled = token.clone();
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if is_first {
                tracing::info!("stopping; a second signal stops at once");
                cancelled.cancel();
            } else {
                std::process::exit(130);
            }
        }
    });
    Ok(token)
}
