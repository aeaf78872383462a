//! Metrics: each is defined once, by its OpenTelemetry name, and read by two readers: `/metrics` and, where one is named, a collector.
//!
//! In Prometheus' text the dots of names and labels are underscores, the unit is a suffix (`_seconds`, `_bytes`) and counters end in `_total`.

use std::sync::OnceLock;

use opentelemetry::global;
use opentelemetry::metrics::Meter;
use opentelemetry_otlp::MetricExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

use crate::process;

/// Limits of the buckets of what usually takes milliseconds, in seconds; those that OpenTelemetry gives for HTTP.
pub const SHORT: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Limits of the buckets of what may take minutes, in seconds.
pub const LONG: [f64; 14] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// The process's provider, and what `/metrics` reads.
static INSTALLED: OnceLock<(SdkMeterProvider, Registry)> = OnceLock::new();

/// Makes the process measure; the first call counts.
pub(crate) fn install(resource: Resource, exporter: Option<MetricExporter>) -> SdkMeterProvider {
    let (provider, _) = INSTALLED.get_or_init(|| {
        let registry = Registry::new();
        let mut builder = SdkMeterProvider::builder().with_resource(resource);
        match opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build() {
            Ok(reader) => builder = builder.with_reader(reader),
            Err(error) => tracing::error!(%error, "`/metrics` stays empty"),
        }
        if let Some(exporter) = exporter {
            builder = builder.with_reader(PeriodicReader::builder(exporter).build());
        }
        let provider = builder.build();
        global::set_meter_provider(provider.clone());
        process::measure(&meter("millrace.process"));
        (provider, registry)
    });
    provider.clone()
}

/// Makes a process measure that exports nothing: tests of what roles emit.
pub fn install_local() {
    install(Resource::builder_empty().build(), None);
}

/// Makes instruments. Before telemetry is initialised, and in commands that do not initialise it, they measure nothing.
pub fn meter(scope: &'static str) -> Meter {
    global::meter(scope)
}

/// All metrics in Prometheus' text format; empty before telemetry is initialised.
pub fn text() -> String {
    let Some((_, registry)) = INSTALLED.get() else { return String::new() };
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_else(|error| {
        tracing::error!(%error, "metrics have no text form");
        String::new()
    })
}

/// Names of metrics in a text of Prometheus' format, in their order.
pub fn names(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    #[test]
    fn a_metric_is_shown_once_under_prometheus_name() {
        install_local();
        let counter = meter("test").u64_counter("test.bytes.moved").with_unit("By").build();
        counter.add(2, &[KeyValue::new("test.place", "a")]);
        counter.add(3, &[KeyValue::new("test.place", "a")]);
        let time = meter("test").f64_histogram("test.wait.duration").with_unit("s").with_boundaries(SHORT.to_vec()).build();
        time.record(0.2, &[]);
        let text = text();
        assert!(text.contains("test_bytes_moved_bytes_total{test_place=\"a\"} 5\n"), "{text}");
        assert!(text.contains("test_wait_duration_seconds_bucket{le=\"0.25\"} 1\n"), "{text}");
        assert!(text.contains("test_wait_duration_seconds_bucket{le=\"0.1\"} 0\n"), "{text}");
        let names = names(&text);
        assert_eq!(names.iter().filter(|name| name.starts_with("test_")).count(), 2, "{names:?}");
        for name in process::NAMES {
            assert!(names.contains(&name), "{name} is not in {text}");
        }
    }
}
