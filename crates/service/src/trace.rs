//! Spans and records: to stderr always, to a collector when one is named; and the trace context that processes hand on.
//!
//! Spans stand for requests, tasks, tables and splits, never for rows. Their attributes hold names and counts: no value of a row, no secret, no statement.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::audit::{AUDIT, AuditSink};
use crate::{metrics, otlp};

/// Which records are written: `MILLRACE_LOG=debug`, `MILLRACE_LOG=millrace_worker=trace,info`.
const FILTER_VARIABLE: &str = "MILLRACE_LOG";
/// Whose spans a collector gets: ours, not those of libraries.
const OURS: &str = "millrace";
/// Whose records come from the exporter.
const EXPORTER: &str = "opentelemetry";
/// How long the end waits for a collector.
const FLUSH_PATIENCE: Duration = Duration::from_secs(3);
/// W3C Trace Context's name of where a trace goes on.
const TRACEPARENT: &str = "traceparent";

/// What telemetry waits to be sent; dropping it sends that, and so ends telemetry.
#[derive(Debug)]
#[must_use = "dropping it ends telemetry"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: SdkMeterProvider,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces {
            let _ = traces.shutdown_with_timeout(FLUSH_PATIENCE);
        }
        let _ = self.metrics.shutdown_with_timeout(FLUSH_PATIENCE);
    }
}

/// Writes records to stderr (for people on a terminal, as JSON lines otherwise), measures, and exports both as `OTEL_*` variables say: without an
/// endpoint nothing leaves the process. Called once, inside the runtime; a second call, as tests make it, keeps the first subscriber.
pub fn init_tracing(role: &str) -> Telemetry {
    init_tracing_with(role, AuditSink::Records)
}

/// As [`init_tracing`], with the audit log in a place of its own.
pub fn init_tracing_with(role: &str, audit: AuditSink) -> Telemetry {
    let resource = resource(role);
    let spans = otlp::span_exporter();
    let traces = spans.as_ref().ok().and_then(Option::as_ref).is_some();
    let (exporter, mut failures) = match spans {
        Ok(exporter) => (exporter, Vec::new()),
        Err(error) => (None, vec![error]),
    };
    let traces = traces.then(|| {
        let builder = SdkTracerProvider::builder().with_resource(resource.clone());
        exporter.into_iter().fold(builder, |builder, exporter| builder.with_batch_exporter(exporter)).build()
    });
    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref());
    let records = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let records = if std::io::stderr().is_terminal() { records.boxed() } else { records.json().boxed() };
    let exported = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(OURS))
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // Records may quote what a server said, so they stay on stderr.
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with(OURS)))
            .with_filter(LevelFilter::INFO)
    });
    let has_audit = audit.is_apart();
    let here = filter_fn(move |metadata| !has_audit || metadata.target() != AUDIT);
    let records = records.with_filter(filter).with_filter(here);
    let _ = tracing_subscriber::registry().with(records).with(exported).with(audit.layer()).try_init();
    let metrics = match otlp::metric_exporter() {
        Ok(exporter) => metrics::install(resource, exporter),
        Err(error) => {
            failures.push(error);
            metrics::install(resource, None)
        }
    };
    for error in failures {
        tracing::error!(error, "telemetry is not exported");
    }
    Telemetry { traces, metrics }
}

/// The exporter's own records are of use only when something is wrong, unless they are asked for.
fn filter(wanted: Option<&str>) -> EnvFilter {
    let read =
        |text: &str| EnvFilter::try_new(if text.contains(EXPORTER) { text.to_owned() } else { format!("{text},{EXPORTER}=warn") }).ok();
    wanted.filter(|text| !text.is_empty()).and_then(read).or_else(|| read("info")).unwrap_or_default()
}

/// Who says it all: `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` win over what is known here.
fn resource(role: &str) -> Resource {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut known = vec![
        KeyValue::new("service.name", format!("millrace-{role}")),
        KeyValue::new("service.namespace", OURS),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    if set("KUBERNETES_SERVICE_HOST").is_some() {
        known.extend(set("MILLRACE_NAMESPACE").map(|name| KeyValue::new("k8s.namespace.name", name)));
        if let Some(pod) = set("HOSTNAME") {
            known.extend([KeyValue::new("k8s.pod.name", pod.clone()), KeyValue::new("service.instance.id", pod)]);
        }
    }
    let builder = Resource::builder_empty()
        .with_attributes(known)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    set("OTEL_SERVICE_NAME").into_iter().fold(builder, |builder, name| builder.with_service_name(name)).build()
}

/// Where the trace of the current span goes on, for another process; none while nothing is exported.
pub fn traceparent() -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&tracing::Span::current().context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes a span that has not been entered yet part of the trace that another process handed on; what is no trace context changes nothing.
pub fn continue_trace(span: &tracing::Span, traceparent: Option<&str>) {
    let Some(text) = traceparent else { return };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), text.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    // Without a collector there is no trace to join.
    let _ = span.set_parent(context);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exporter_is_silent_unless_it_is_asked_for() {
        assert_eq!(filter(None).to_string(), "opentelemetry=warn,info");
        assert_eq!(filter(Some("millrace_worker=trace,info")).to_string(), "millrace_worker=trace,opentelemetry=warn,info");
        assert_eq!(filter(Some("opentelemetry=debug,info")).to_string(), "opentelemetry=debug,info");
        assert_eq!(filter(Some("=,=")).to_string(), "opentelemetry=warn,info");
    }

    #[test]
    fn a_service_is_named_after_its_role() {
        let resource = resource("query");
        assert_eq!(resource.get(&"service.name".into()).map(|name| name.to_string()).as_deref(), Some("millrace-query"));
        assert!(resource.get(&"service.version".into()).is_some() && resource.get(&"telemetry.sdk.name".into()).is_some());
    }

    #[test]
    fn a_trace_goes_on_where_another_process_left_it() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let handed = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let span = tracing::info_span!("task");
            continue_trace(&span, Some(handed));
            let _entered = span.enter();
            let own = traceparent().unwrap_or_default();
            assert_eq!(own.get(3..35), handed.get(3..35), "{own}");
            assert_ne!(own, handed);
        });
    }

    #[test]
    fn what_is_no_trace_context_is_let_be() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("task");
            continue_trace(&span, Some("nonsense"));
            assert!(span.in_scope(traceparent).is_some());
        });
        assert_eq!(traceparent(), None);
    }
}
