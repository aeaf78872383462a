//! What the controller says of itself: reconciles by kind, streams by phase, attempts, and whether it leads.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use millrace_core::stream::StreamState;
use millrace_crds::{Stream, TRACEPARENT_ANNOTATION};
use millrace_service::metrics::{SHORT, meter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use tracing::Span;

use crate::context::Failure;
use crate::stream::phase;

/// The metrics of this module in Prometheus' text.
pub const NAMES: [&str; 5] = [
    "millrace_controller_reconcile_duration_seconds",
    "millrace_controller_attempts_total",
    "millrace_controller_streams_ended_total",
    "millrace_controller_streams",
    "millrace_controller_leader",
];

const PHASE: &str = "millrace.state";

static LEADS: AtomicBool = AtomicBool::new(false);
/// The streams that the leader sees.
static STREAMS: Mutex<Option<Store<Stream>>> = Mutex::new(None);

/// Streams whose end was counted last: only a look or two may come after an end with what was known before it.
static COUNTED: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());
const REMEMBERED: usize = 256;

struct Instruments {
    reconciles: Histogram<f64>,
    attempts: Counter<u64>,
    ended: Counter<u64>,
}

fn instruments() -> &'static Instruments {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    INSTRUMENTS.get_or_init(|| {
        observe();
        let meter = meter("millrace.controller");
        let attempts = meter
            .u64_counter("millrace.controller.attempts")
            .with_unit("{attempt}")
            .with_description("Attempts of streams that were begun")
            .build();
        let ended = meter
            .u64_counter("millrace.controller.streams.ended")
            .with_unit("{stream}")
            .with_description("Streams that ended, by how")
            .build();
        // From nothing, so that a first failure is seen as an increase.
        attempts.add(0, &[]);
        StreamState::ALL.into_iter().filter(|state| state.is_terminal()).for_each(|state| ended.add(0, &[of(state)]));
        let reconciles = meter
            .f64_histogram("millrace.controller.reconcile.duration")
            .with_unit("s")
            .with_description("Looks at one object, with the error if it failed")
            .with_boundaries(SHORT.to_vec())
            .build();
        Instruments { reconciles, attempts, ended }
    })
}

fn observe() {
    let meter = meter("millrace.controller");
    meter
        .u64_observable_gauge("millrace.controller.leader")
        .with_description("1 while this controller leads")
        .with_callback(|observer| observer.observe(LEADS.load(Ordering::Relaxed).into(), &[]))
        .build();
    meter
        .u64_observable_gauge("millrace.controller.streams")
        .with_unit("{stream}")
        .with_description("Streams by phase, as the leader sees them")
        .with_callback(|observer| {
            for (phase, count) in streams() {
                observer.observe(count, &[of(phase)]);
            }
        })
        .build();
}

fn of(phase: StreamState) -> KeyValue {
    KeyValue::new(PHASE, phase.as_str())
}

/// How many streams are in each phase, those without any included; nothing while another controller leads.
fn streams() -> HashMap<StreamState, u64> {
    let store = STREAMS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(store) = store.filter(|_| LEADS.load(Ordering::Relaxed)) else { return HashMap::new() };
    let mut counts: HashMap<StreamState, u64> = StreamState::ALL.into_iter().map(|state| (state, 0)).collect();
    store.state().iter().for_each(|stream| *counts.entry(phase(stream)).or_default() += 1);
    counts
}

/// Counts the streams of this store from now on.
pub(crate) fn watch(store: Store<Stream>) {
    *STREAMS.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
}

/// Whether this controller leads.
pub(crate) fn leads(leads: bool) {
    instruments();
    LEADS.store(leads, Ordering::Relaxed);
}

/// Failures that are told apart.
pub(crate) trait Classified {
    /// A word out of few.
    fn word(&self) -> String;
}

impl Classified for Failure {
    fn word(&self) -> String {
        match self {
            Self::Kube(kube::Error::Api(answer)) => format!("KubeApi{}", answer.code),
            Self::Kube(_) => "KubeApi".to_owned(),
            Self::Core(error) => format!("{:?}", error.kind()),
        }
    }
}

impl Classified for kube::runtime::finalizer::Error<Failure> {
    fn word(&self) -> String {
        match self {
            Self::ApplyFailed(failure) | Self::CleanupFailed(failure) => failure.word(),
            _ => "Finalizer".to_owned(),
        }
    }
}

/// Measures one look at an object of this kind.
pub(crate) async fn measure<T, E: Classified>(kind: &'static str, look: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let started = Instant::now();
    let done = look.await;
    let mut attributes = vec![KeyValue::new("millrace.resource.kind", kind)];
    attributes.extend(done.as_ref().err().map(|error| KeyValue::new("error.type", error.word())));
    instruments().reconciles.record(started.elapsed().as_secs_f64(), &attributes);
    done
}

/// An attempt was begun.
pub(crate) fn attempted() {
    instruments().attempts.add(1, &[]);
}

/// A stream has this phase now; it is counted once when it has ended, however often that is written.
pub(crate) fn ended(uid: Option<String>, phase: Option<StreamState>) {
    let (Some(phase), Some(id)) = (phase.filter(|phase| phase.is_terminal()), uid) else { return };
    let mut counted = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    if counted.len() >= REMEMBERED {
        counted.pop_front();
    }
    if !counted.contains(&id) {
        counted.push_back(id);
        instruments().ended.add(1, &[of(phase)]);
    }
}

/// The span of an attempt's beginning, in the trace of the request that made the stream.
pub(crate) fn attempt_span(stream: &Stream, attempt: u32) -> Span {
    let span = tracing::info_span!("reconcile", otel.name = "reconcile stream", stream = stream.name_any(), attempt);
    millrace_service::continue_trace(&span, stream.annotations().get(TRACEPARENT_ANNOTATION).map(String::as_str));
    span
}

#[cfg(test)]
mod tests {
    use millrace_core::{Error, Kind};

    use super::*;

    #[tokio::test]
    async fn every_metric_that_is_named_is_emitted() {
        millrace_service::metrics::install_local();
        leads(true);
        let (store, _) = kube::runtime::reflector::store();
        watch(store);
        measure("Stream", async { Ok::<(), Failure>(()) }).await.ok();
        measure("Connection", async { Err::<(), _>(Failure::Core(Error::new(Kind::NotFound, "gone"))) }).await.ok();
        attempted();
        for phase in [StreamState::Running, StreamState::Failed, StreamState::Failed] {
            ended(Some("a".to_owned()), Some(phase));
        }
        let text = millrace_service::metrics::text();
        let emitted: Vec<&str> =
            millrace_service::metrics::names(&text).into_iter().filter(|name| name.starts_with("millrace_controller_")).collect();
        let mut named = NAMES;
        named.sort_unstable();
        assert_eq!(emitted, named);
        for line in [
            "millrace_controller_leader 1",
            "millrace_controller_attempts_total 1",
            "millrace_controller_streams_ended_total{millrace_state=\"FAILED\"} 1",
            "millrace_controller_streams_ended_total{millrace_state=\"FINISHED\"} 0",
            "millrace_controller_streams{millrace_state=\"RUNNING\"} 0",
            "millrace_controller_reconcile_duration_seconds_count{error_type=\"NotFound\",millrace_resource_kind=\"Connection\"} 1",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in {text}");
        }
        assert!(!text.contains("millrace_controller_streams_ended_total{millrace_state=\"RUNNING\"}"), "{text}");
    }
}
