//! What every role shares: traces, metrics, probes and shutdown.
//!
//! ```text
//!  spans ──────▶ records on stderr
//!        ├─────▶ the audit log: stdout or a file
//!        └─────▶ OTLP, when OTEL_EXPORTER_OTLP_ENDPOINT names a collector
//!  instruments ▶ one meter provider ─┬▶ `/metrics` on the ops listener
//!                                    └▶ OTLP, when it names one
//! ```

mod audit;
pub mod metrics;
mod ops;
mod otlp;
mod process;
mod trace;

pub use audit::{AUDIT, AuditSink};
pub use ops::{Ready, readiness, serve_ops};
pub use trace::{Telemetry, continue_trace, init_tracing, init_tracing_with, traceparent};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
