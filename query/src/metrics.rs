//! What the query tier says of itself: statements by how they ended, how many run and wait, and its child processes. Never their text.

use std::sync::OnceLock;
use std::time::Instant;

use millrace_core::Result;
use millrace_core::federation::QueryOutcome;
use millrace_service::metrics::{LONG, meter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, UpDownCounter};

/// The metrics of this module in Prometheus' text.
pub const NAMES: [&str; 4] =
    ["millrace_query_duration_seconds", "millrace_query_active", "millrace_query_queued", "millrace_query_children"];

struct Instruments {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
    queued: UpDownCounter<i64>,
    children: UpDownCounter<i64>,
}

fn instruments() -> &'static Instruments {
    static INSTRUMENTS: OnceLock<Instruments> = OnceLock::new();
    INSTRUMENTS.get_or_init(|| {
        let meter = meter("millrace.query");
        let count = |name: &'static str, unit: &'static str, description: &'static str| {
            let counter = meter.i64_up_down_counter(name).with_unit(unit).with_description(description).build();
            counter.add(0, &[]); // seen before the first statement
            counter
        };
        Instruments {
            duration: meter
                .f64_histogram("millrace.query.duration")
                .with_unit("s")
                .with_description("Statements from request to last row, by outcome")
                .with_boundaries(LONG.to_vec())
                .build(),
            active: count("millrace.query.active", "{statement}", "Statements that run"),
            queued: count("millrace.query.queued", "{statement}", "Statements that wait to be let in"),
            children: count("millrace.query.children", "{process}", "Child processes, the warm one included"),
        }
    })
}

/// Something that there is one more of until this is dropped.
pub(crate) struct Counted(&'static UpDownCounter<i64>);

impl Counted {
    pub(crate) fn active() -> Self {
        Self::of(&instruments().active)
    }

    pub(crate) fn queued() -> Self {
        Self::of(&instruments().queued)
    }

    pub(crate) fn child() -> Self {
        Self::of(&instruments().children)
    }

    fn of(counter: &'static UpDownCounter<i64>) -> Self {
        counter.add(1, &[]);
        Self(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}

/// A statement, measured when it ends; one whose client went away counts as cancelled.
pub(crate) struct Statement {
    started: Instant,
    is_told: bool,
}

impl Statement {
    pub(crate) fn begin() -> Self {
        instruments();
        Self { started: Instant::now(), is_told: false }
    }

    pub(crate) fn end(mut self, result: &Result<QueryOutcome>) {
        match result {
            Ok(_) => self.tell("Answered", false),
            Err(error) => self.tell(&format!("{:?}", error.kind()), true),
        }
    }

    fn tell(&mut self, outcome: &str, is_error: bool) {
        self.is_told = true;
        let mut attributes = vec![KeyValue::new("millrace.query.outcome", outcome.to_owned())];
        attributes.extend(is_error.then(|| KeyValue::new("error.type", outcome.to_owned())));
        instruments().duration.record(self.started.elapsed().as_secs_f64(), &attributes);
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell("Cancelled", true);
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::{Error, Kind};

    use super::*;

    #[test]
    fn every_metric_that_is_named_is_emitted_and_statements_are_told_by_their_end() {
        millrace_service::metrics::install_local();
        Statement::begin().end(&Ok(QueryOutcome::default()));
        Statement::begin().end(&Err(Error::new(Kind::StatementRefused, "no")));
        drop(Statement::begin());
        let child = Counted::child();
        let text = millrace_service::metrics::text();
        drop(child);
        let emitted: Vec<&str> =
            millrace_service::metrics::names(&text).into_iter().filter(|name| name.starts_with("millrace_query_")).collect();
        let mut named = NAMES;
        named.sort_unstable();
        assert_eq!(emitted, named);
        for outcome in ["Answered", "StatementRefused", "Cancelled"] {
            assert!(text.contains(&format!("millrace_query_outcome=\"{outcome}\"")), "{outcome} is not in {text}");
        }
        assert!(text.contains("millrace_query_children 1\n"), "{text}");
    }
}
