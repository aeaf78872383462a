//! What a task says of itself in numbers and spans.
//!
//! ```text
//!  lanes ─▶ Meter (rows, bytes, changed values by table) ─┐
//!        ─▶ Progress (states, cuts)                       ├─▶ read when somebody asks, for runs of this process
//!        ─▶ instruments (commits, retries) ───────────────┘
//! ```
//!
//! Counters begin at zero in each process: what an earlier one had committed is not counted again, so sums over pods are right. What is read a second time
//! because a split failed is counted twice as read and once as written.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use millrace_core::id::{ConfigId, StreamId};
use millrace_core::stats::StatsReport;
use millrace_core::stream::StreamState;
use millrace_core::task::{TaskKind, TaskSpec};
use millrace_core::{Kind, Result};
use millrace_service::metrics::{LONG, meter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use tracing::Span;

use crate::progress::Progress;

/// Attributes of what follows.
const STREAM: &str = "millrace.stream.id";
const CONFIG: &str = "millrace.config.id";
const TABLE: &str = "millrace.table.name";
const STATE: &str = "millrace.state";
const ERROR: &str = "error.type";
/// Tables of a run that have numbers of their own; the others share one name.
const TABLES: usize = 200;
const OTHERS: &str = "other";
/// An ended run is shown so long, so that whoever looks once a minute sees how it ended.
const SHOWN_FOR: Duration = Duration::from_secs(600);
/// Ended runs that are shown at most.
const ENDED: usize = 16;

/// The metrics of this module in Prometheus' text.
pub const NAMES: [&str; 10] = [
    "millrace_stream_rows_read_total",
    "millrace_stream_rows_written_total",
    "millrace_stream_io_bytes_total",
    "millrace_stream_values_changed_total",
    "millrace_stream_state",
    "millrace_stream_tables",
    "millrace_stream_table_state",
    "millrace_stream_cut_consistent",
    "millrace_stream_cuts_lost_total",
    "millrace_stream_split_commit_duration_seconds",
];

/// As [`NAMES`], but only once something was tried again.
pub const NAMES_OF_TROUBLE: [&str; 1] = ["millrace_stream_retries_total"];

/// What this process has moved of one run, by table; only grows.
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<Tables>);

#[derive(Debug, Default)]
struct Tables {
    /// Where the plan's tables stand in `moved`.
    places: Vec<usize>,
    /// By the target's name. A run that starts over goes on counting.
    moved: Vec<(String, Moved)>,
    config: Option<KeyValue>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Moved {
    read: u64,
    written: u64,
    bytes: u64,
    changed: u64,
}

impl Meter {
    /// Names the plan's tables.
    pub(crate) fn name<'a>(&self, tables: impl Iterator<Item = &'a str>) {
        let mut inner = self.lock();
        inner.places = tables
            .map(|table| match inner.moved.iter().position(|(name, _)| name == table) {
                Some(place) => place,
                None => {
                    inner.moved.push((table.to_owned(), Moved::default()));
                    inner.moved.len() - 1
                }
            })
            .collect();
    }

    /// A reader gave rows.
    pub(crate) fn read(&self, table: usize, rows: u64, bytes: u64) {
        self.add(table, Moved { read: rows, bytes, ..Moved::default() });
    }

    /// Rows are durable, and policies changed values of them, by column.
    pub(crate) fn written(&self, table: usize, rows: u64, changed: &[u64]) {
        self.add(table, Moved { written: rows, changed: changed.iter().sum(), ..Moved::default() });
    }

    /// Measures a split's commit.
    pub(crate) async fn commit<T>(&self, commit: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let done = commit.await;
        let mut attributes: Vec<KeyValue> = self.lock().config.clone().into_iter().collect();
        attributes.extend(done.as_ref().err().map(|error| KeyValue::new(ERROR, word(error.kind()))));
        instruments().commits.record(started.elapsed().as_secs_f64(), &attributes);
        done
    }

    fn add(&self, table: usize, more: Moved) {
        let mut inner = self.lock();
        let Some(place) = inner.places.get(table).copied() else { return };
        if let Some((_, moved)) = inner.moved.get_mut(place) {
            moved.read += more.read;
            moved.written += more.written;
            moved.bytes += more.bytes;
            moved.changed += more.changed;
        }
    }

    /// What was moved by table, those beyond the limit together.
    fn moved(&self) -> Vec<(String, Moved)> {
        let inner = self.lock();
        let mut moved: Vec<(String, Moved)> = inner.moved.iter().take(TABLES).cloned().collect();
        let rest = inner.moved.get(TABLES..).unwrap_or_default();
        if !rest.is_empty() {
            let sum = rest.iter().fold(Moved::default(), |sum, (_, table)| Moved {
                read: sum.read + table.read,
                written: sum.written + table.written,
                bytes: sum.bytes + table.bytes,
                changed: sum.changed + table.changed,
            });
            moved.push((OTHERS.to_owned(), sum));
        }
        moved
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run of this process.
struct Run {
    stream: StreamId,
    config: ConfigId,
    progress: Arc<Progress>,
    ended: Option<Instant>,
}

/// Runs of this process, oldest first.
static RUNS: Mutex<Vec<Run>> = Mutex::new(Vec::new());

/// Shows a run from now on until a while after its end.
pub(crate) fn watch(stream: &StreamId, config: &ConfigId, progress: &Arc<Progress>) {
    instruments();
    progress.meter().lock().config = Some(KeyValue::new(CONFIG, config.to_string()));
    let mut runs = runs();
    runs.retain(|run| run.stream != *stream);
    runs.push(Run { stream: stream.clone(), config: config.clone(), progress: progress.clone(), ended: None });
}

/// A step failed and is tried again.
pub(crate) fn retried(kind: Kind) {
    let mut attributes = vec![KeyValue::new(ERROR, word(kind))];
    let runs = runs();
    let mut active = runs.iter().filter(|run| run.ended.is_none());
    // A process has one unfinished run at a time, so it is this one's.
    if let (Some(run), None) = (active.next(), active.next()) {
        attributes.push(KeyValue::new(CONFIG, run.config.to_string()));
    }
    drop(runs);
    instruments().retries.add(1, &attributes);
}

/// The span of a task: part of the trace that ordered it, if there is one.
pub fn task_span(traceparent: Option<&str>, kind: &'static str, stream: Option<&StreamId>, attempt: Option<u32>) -> Span {
    let name = format!("task {kind}");
    // A root of its own: it goes on after whoever ordered it has got an answer.
    let span = tracing::info_span!(parent: None, "task", otel.name = name, kind, stream = stream.map(tracing::field::display), attempt);
    millrace_service::continue_trace(&span, traceparent);
    span
}

/// The span of the task in a file; without a trace to join where that cannot be read, which whoever carries the task out says.
pub fn task_span_of(path: &Path) -> Span {
    let task = std::fs::read_to_string(path).ok().and_then(|text| TaskSpec::parse(&text).ok());
    match task.as_ref().map(|task| (&task.kind, task.traceparent.as_deref())) {
        Some((TaskKind::Convert { stream, attempt, .. }, trace)) => task_span(trace, "convert", Some(stream), Some(*attempt)),
        Some((TaskKind::Probe, trace)) => task_span(trace, "probe", None, None),
        Some((TaskKind::Cleanup { .. }, trace)) => task_span(trace, "cleanup", None, None),
        None => task_span(None, "unknown", None, None),
    }
}

fn runs() -> MutexGuard<'static, Vec<Run>> {
    let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    for run in runs.iter_mut().filter(|run| run.ended.is_none()) {
        run.ended = run.progress.has_ended().then(Instant::now);
    }
    // A run that was cut off has no end; nobody else holds its counters any more.
    let is_alive = |run: &Run| run.progress.has_ended() || Arc::strong_count(&run.progress) > 1;
    runs.retain(|run| is_alive(run) && run.ended.is_none_or(|ended| ended.elapsed() < SHOWN_FOR));
    let surplus = runs.iter().filter(|run| run.ended.is_some()).count().saturating_sub(ENDED);
    let mut seen = 0;
    runs.retain(|run| {
        seen += usize::from(run.ended.is_some());
        run.ended.is_none() || seen > surplus
    });
    runs
}

/// What of errors is bounded.
fn word(kind: Kind) -> String {
    format!("{kind:?}")
}

struct Instruments {
    commits: Histogram<f64>,
    retries: Counter<u64>,
}

fn instruments() -> &'static Instruments {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    INSTRUMENTS.get_or_init(|| {
        observe_moved();
        observe_states();
        let meter = meter("millrace.worker");
        Instruments {
            commits: meter
                .f64_histogram("millrace.stream.split.commit.duration")
                .with_unit("s")
                .with_description("Commits of splits at the target")
                .with_boundaries(LONG.to_vec())
                .build(),
            retries: meter
                .u64_counter("millrace.stream.retries")
                .with_unit("{retry}")
                .with_description("Steps that were tried again, by the error that broke them off")
                .build(),
        }
    })
}

type Number = fn(&Moved) -> u64;

fn observe_moved() {
    let meter = meter("millrace.worker");
    let counters: [(&'static str, &'static str, &'static str, Number); 4] = [
        ("millrace.stream.rows.read", "{row}", "Rows read from the source", |moved| moved.read),
        ("millrace.stream.rows.written", "{row}", "Rows that are durable in the target", |moved| moved.written),
        ("millrace.stream.io", "By", "Bytes of rows read from the source", |moved| moved.bytes),
        ("millrace.stream.values.changed", "{value}", "Values that a policy of the plan changed", |moved| moved.changed),
    ];
    for (name, unit, description, of) in counters {
        let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            for run in runs().iter() {
                for (table, moved) in run.progress.meter().moved() {
                    observer.observe(of(&moved), &run.attributes([KeyValue::new(TABLE, table)]));
                }
            }
        };
        meter.u64_observable_counter(name).with_unit(unit).with_description(description).with_callback(callback).build();
    }
}

type Look = fn(&StatsReport, &mut dyn FnMut(u64, Vec<KeyValue>));

fn observe_states() {
    let gauges: [(&'static str, &'static str, &'static str, Look); 4] = [
        ("millrace.stream.state", "", "1 for the state that the run is in", |report, tell| {
            tell(1, vec![KeyValue::new(STATE, report.target.state.as_str())]);
        }),
        ("millrace.stream.tables", "{table}", "Tables by state", |report, tell| {
            let mut counts: HashMap<&str, u64> = HashMap::new();
            report.tables.iter().for_each(|table| *counts.entry(table.state.as_str()).or_default() += 1);
            counts.into_iter().for_each(|(state, count)| tell(count, vec![KeyValue::new(STATE, state)]));
        }),
        ("millrace.stream.table.state", "", "1 for the state that a table is in", |report, tell| {
            for table in report.tables.iter().take(TABLES) {
                tell(1, vec![KeyValue::new(TABLE, table.table.clone()), KeyValue::new(STATE, table.state.as_str())]);
            }
        }),
        ("millrace.stream.cut.consistent", "", "1 while all rows are of one moment of each source", |report, tell| {
            tell(u64::from(report.is_consistent), Vec::new());
        }),
    ];
    let meter = meter("millrace.worker");
    for (name, unit, description, look) in gauges {
        let callback = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            for run in runs().iter() {
                look(&run.progress.report(false), &mut |value, attributes| observer.observe(value, &run.attributes(attributes)));
            }
        };
        meter.u64_observable_gauge(name).with_unit(unit).with_description(description).with_callback(callback).build();
    }
    meter
        .u64_observable_counter("millrace.stream.cuts.lost")
        .with_unit("{cut}")
        .with_description("How often a source's moment was lost")
        .with_callback(|observer| {
            runs().iter().for_each(|run| observer.observe(run.progress.report(false).cuts_lost.into(), &run.attributes([])));
        })
        .build();
}

impl Run {
    fn attributes(&self, more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        let own = [KeyValue::new(STREAM, self.stream.to_string()), KeyValue::new(CONFIG, self.config.to_string())];
        own.into_iter().chain(more).collect()
    }
}

/// The span of a table while it is worked on; none for other states.
pub(crate) fn table_span(parent: &Span, table: &str, state: StreamState) -> Option<Span> {
    let is_worked_on = state == StreamState::Running;
    is_worked_on.then(|| tracing::info_span!(parent: parent, "table", otel.name = format!("table {table}"), table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_metric_that_is_named_is_emitted_and_no_other() {
        millrace_service::metrics::install_local();
        let progress = Arc::new(Progress::new(0));
        let (stream, config) = (StreamId::mint(), ConfigId::mint());
        watch(&stream, &config, &progress);
        progress.set_tables([("public.a".to_owned(), None, None)]);
        let meter = progress.meter();
        meter.read(0, 5, 50);
        meter.written(0, 4, &[1, 2]);
        meter.commit(async { Ok(()) }).await.ok();
        retried(Kind::ConnectionLost);
        let text = millrace_service::metrics::text();
        let emitted: Vec<&str> =
            millrace_service::metrics::names(&text).into_iter().filter(|name| name.starts_with("millrace_stream_")).collect();
        let mut named: Vec<&str> = NAMES.into_iter().chain(NAMES_OF_TROUBLE).collect();
        named.sort_unstable();
        assert_eq!(emitted, named);
        let of = format!("millrace_config_id=\"{config}\",millrace_stream_id=\"{stream}\",millrace_table_name=\"public.a\"");
        for line in [format!("rows_read_total{{{of}}} 5"), format!("io_bytes_total{{{of}}} 50"), format!("values_changed_total{{{of}}} 3")]
        {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        assert!(text.contains("error_type=\"ConnectionLost\""), "{text}");
    }

    #[test]
    fn tables_beyond_the_limit_share_a_name_and_counters_survive_a_new_plan() {
        let meter = Meter::default();
        let names: Vec<String> = (0..TABLES + 2).map(|index| format!("t{index}")).collect();
        meter.name(names.iter().map(String::as_str));
        meter.read(TABLES, 1, 0);
        meter.read(TABLES + 1, 2, 0);
        meter.name(["t1", "t0"].into_iter());
        meter.read(0, 7, 0);
        let moved = meter.moved();
        assert_eq!(moved.len(), TABLES + 1);
        assert_eq!(moved[1], ("t1".to_owned(), Moved { read: 7, ..Moved::default() }));
        assert_eq!(moved[TABLES], (OTHERS.to_owned(), Moved { read: 3, ..Moved::default() }));
    }
}
