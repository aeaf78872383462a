//! Whether NATS is there, and what was given up because it was not.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_service::metrics::meter;
use opentelemetry::metrics::Counter;

/// The metrics of this module in Prometheus' text; only processes that use NATS emit them.
pub const NAMES: [&str; 2] = ["millrace_bus_connected", "millrace_bus_messages_dropped_total"];

/// Whether this process's connection is up; it has one.
static IS_CONNECTED: AtomicBool = AtomicBool::new(false);

fn dropped_messages() -> &'static Counter<u64> {
    static DROPPED: OnceLock<Counter<u64>> = OnceLock::new();
    DROPPED.get_or_init(|| {
        let meter = meter("millrace.bus");
        meter
            .u64_observable_gauge("millrace.bus.connected")
            .with_description("1 while the connection to NATS is up")
            .with_callback(|observer| observer.observe(IS_CONNECTED.load(Ordering::Relaxed).into(), &[]))
            .build();
        let dropped = meter
            .u64_counter("millrace.bus.messages.dropped")
            .with_unit("{message}")
            .with_description("Messages that were given up because NATS was away for long")
            .build();
        dropped.add(0, &[]); // seen before the first loss
        dropped
    })
}

/// The connection came up or went away.
pub(crate) fn connected(is_connected: bool) {
    dropped_messages();
    IS_CONNECTED.store(is_connected, Ordering::Relaxed);
}

/// A message was given up.
pub(crate) fn dropped() {
    dropped_messages().add(1, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_that_is_named_is_emitted_before_anything_is_lost() {
        millrace_service::metrics::install_local();
        connected(false);
        let text = millrace_service::metrics::text();
        assert!(text.contains("millrace_bus_connected 0\n") && text.contains("millrace_bus_messages_dropped_total 0\n"), "{text}");
        connected(true);
        dropped();
        let text = millrace_service::metrics::text();
        assert!(text.contains("millrace_bus_connected 1\n") && text.contains("millrace_bus_messages_dropped_total 1\n"), "{text}");
        let emitted: Vec<&str> =
            millrace_service::metrics::names(&text).into_iter().filter(|name| name.starts_with("millrace_bus_")).collect();
        assert_eq!(emitted, NAMES);
    }
}
