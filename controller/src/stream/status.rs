//! What a stream's status says next. Pure, but for the clock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use millrace_core::stats::StatsReport;
use millrace_core::stream::StreamState;
use millrace_core::task::TaskReport;
use millrace_core::{Error, Kind};
use millrace_crds::{Counters, DesiredState, Stream, StreamStatus, object_id};

use super::apply::Observed;
use crate::conditions::{reason, sentence, set};
use crate::context::Context;

/// Counters are written at most so often while the phase stays.
const COUNTERS_EVERY: i64 = 30;
/// Attempts without a row in between after which a run is given up.
const FRUITLESS_ATTEMPTS: u32 = 6;
/// The longest wait between two attempts, seconds.
const LONGEST_WAIT: i64 = 60;

/// The next status, from what the cluster shows and what workers said.
pub(super) fn next(stream: &Stream, observed: &Observed, context: &Context) -> StreamStatus {
    let mut status = acknowledged(stream);
    let live = object_id(&stream.metadata).map(|id| context.stats(&id)).unwrap_or_default();
    let reports = observed.reports();
    let generation = stream.metadata.generation.unwrap_or(0);
    let before = status.phase;
    status.phase = Some(phase(stream, observed, &live, &reports, &mut status));
    let is_transition = status.phase != before;
    count(&mut status, &live, &reports, is_transition);
    describe(&mut status, generation, observed, &live);
    if status.phase.is_some_and(StreamState::is_terminal) {
        finish(&mut status, generation);
    }
    status
}

/// The status as it is, speaking of this generation.
pub(super) fn acknowledged(stream: &Stream) -> StreamStatus {
    let mut status = stream.status.clone().unwrap_or_default();
    status.observed_generation = stream.metadata.generation;
    let generation = stream.metadata.generation;
    status.conditions.iter_mut().for_each(|condition| condition.observed_generation = generation);
    status
}

fn phase(stream: &Stream, observed: &Observed, live: &[StatsReport], reports: &[TaskReport], status: &mut StreamStatus) -> StreamState {
    let before = status.phase.unwrap_or(StreamState::Ready);
    let is_stopping = stream.spec.desired == DesiredState::Stopped;
    if observed.job_is("Complete") {
        return completed(reports, live);
    }
    if observed.job_is("Failed") {
        if status.is_attempt_over && !is_stopping {
            return before;
        }
        return failed(is_stopping, reports, status, before);
    }
    match (&observed.job, status.attempt) {
        // A pod whose Job is gone may have a moment left to write.
        (None, _) if is_stopping => {
            if observed.has_writer() {
                before
            } else {
                StreamState::Stopped
            }
        }
        (None, 0) => StreamState::Ready,
        // Somebody deleted the Job; what is committed stays, and another attempt goes on.
        (None, _) => before,
        (Some(_), _) => live
            .iter()
            .map(|report| report.target.state)
            .filter(|state| !state.is_terminal())
            .reduce(StreamState::worst)
            .map_or(before, |said| if said == StreamState::Ready || said == StreamState::Undefined { before } else { said }),
    }
}

/// How an attempt ended whose workers have all succeeded in the end.
fn completed(reports: &[TaskReport], live: &[StatsReport]) -> StreamState {
    let said = reports.iter().map(|report| report.state).filter(|state| state.is_terminal());
    // A pod that was removed has taken its message along; what it published last still says how it ended, unless that was before a successor made it good.
    let published = live.iter().map(|report| report.target.state);
    let published = published.filter(|state| state.is_terminal() && *state != StreamState::Failed);
    said.reduce(StreamState::worst).or_else(|| published.reduce(StreamState::worst)).unwrap_or(StreamState::Finished)
}

/// An attempt has failed: for good, or to be tried again.
fn failed(is_stopping: bool, reports: &[TaskReport], status: &mut StreamStatus, before: StreamState) -> StreamState {
    if is_stopping {
        return StreamState::Stopped;
    }
    let written = reports.iter().map(|report| report.rows_written).max().unwrap_or(0);
    let has_moved = reports.iter().any(|report| report.rows_read > 0) || status.counters.unwrap_or_default().rows_read > 0;
    let fatal = reports.iter().find(|report| report.state == StreamState::Failed && is_final(report, has_moved));
    if let Some(report) = fatal {
        status.message.clone_from(&report.error);
        return StreamState::Failed;
    }
    status.fruitless_attempts += 1;
    if written > status.counters.unwrap_or_default().rows_written {
        status.fruitless_attempts = 0;
    }
    let why = reports.iter().find_map(|report| report.error.clone()).unwrap_or_else(|| "the workers broke off".to_owned());
    if status.fruitless_attempts >= FRUITLESS_ATTEMPTS {
        status.message = Some(format!("given up after {} attempts: {why}", status.attempt));
        return StreamState::Failed;
    }
    let wait = (1_i64 << status.fruitless_attempts.min(6)).min(LONGEST_WAIT);
    status.next_attempt_at = Timestamp::from_second(Timestamp::now().as_second() + wait).ok().map(Time);
    status.is_attempt_over = true;
    status.message = Some(format!("attempt {} broke off and is followed by another: {why}", status.attempt));
    before
}

/// Whether another attempt would fail, too. A login that is refused after rows have moved was good before: its password is being changed, and another attempt's
/// pods get the Secret as it is then.
fn is_final(report: &TaskReport, has_moved: bool) -> bool {
    let name = report.kind.as_deref().unwrap_or_default();
    if has_moved && name == format!("{:?}", Kind::LoginRefused) {
        return false;
    }
    let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
    kind.is_none_or(|kind| millrace_core::task::Exit::of(kind) == millrace_core::task::Exit::Failed)
}

/// Whether another attempt may begin now.
pub(super) fn may_try(status: &StreamStatus) -> bool {
    status.next_attempt_at.as_ref().is_none_or(|at| at.0 <= Timestamp::now())
}

fn count(status: &mut StreamStatus, live: &[StatsReport], reports: &[TaskReport], is_transition: bool) {
    let sum = |of: &dyn Fn(&StatsReport) -> u64| live.iter().map(of).sum::<u64>();
    // Of a fleet, whoever led says what the ledger had then.
    let said = |of: &dyn Fn(&TaskReport) -> u64| reports.iter().map(of).max().unwrap_or(0);
    let old = status.counters.unwrap_or_default();
    let mut counters = Counters {
        rows_read: sum(&|report| report.source.rows).max(said(&|report| report.rows_read)).max(old.rows_read),
        rows_written: sum(&|report| report.target.rows).max(said(&|report| report.rows_written)).max(old.rows_written),
        bytes: sum(&|report| report.source.bytes).max(said(&|report| report.bytes)).max(old.bytes),
        rows_per_second: old.rows_per_second,
    };
    let lost = live.iter().map(|report| report.cuts_lost).chain(reports.iter().map(|report| report.cuts_lost)).max().unwrap_or(0);
    status.cuts_lost = status.cuts_lost.max(lost);
    if !live.is_empty() || !reports.is_empty() {
        let is_consistent = live.iter().all(|report| report.is_consistent) && reports.iter().all(|report| report.is_consistent);
        status.consistent_cut = Some(is_consistent && status.consistent_cut.unwrap_or(true));
    }
    let now = Timestamp::now();
    let since_ms = status.counted_at.as_ref().map(|at| now.as_millisecond() - at.0.as_millisecond());
    let is_due = since_ms.is_none_or(|since| since >= COUNTERS_EVERY * 1000) || is_transition;
    if !is_due || counters == old && counters.rows_per_second == 0 {
        return;
    }
    // Since the last count; before there is one, since whoever speaks began.
    let began_ms = live.iter().map(|report| report.target.elapsed_ms).max().unwrap_or(0);
    let elapsed_ms = since_ms.and_then(|since| u64::try_from(since).ok()).unwrap_or(began_ms).max(1);
    let rows = counters.rows_written - old.rows_written;
    let phase = status.phase.unwrap_or(StreamState::Undefined);
    counters.rows_per_second = if phase.is_terminal() {
        // Of all of it.
        let began = status.started_at.as_ref().map_or(now, |at| at.0);
        let lasted_ms = u64::try_from(now.as_millisecond() - began.as_millisecond()).unwrap_or(0).max(1);
        counters.rows_written.saturating_mul(1000) / lasted_ms
    } else if phase == StreamState::Paused || status.is_attempt_over {
        0
    } else {
        rows.saturating_mul(1000) / elapsed_ms
    };
    status.counters = Some(counters);
    status.counted_at = Some(Time(now));
}

/// Conditions of a stream that has a Job.
fn describe(status: &mut StreamStatus, generation: i64, observed: &Observed, live: &[StatsReport]) {
    let phase = status.phase.unwrap_or(StreamState::Undefined);
    if status.attempt == 0 {
        return;
    }
    let is_moving = phase == StreamState::Running && !status.is_attempt_over && observed.obstacle.is_none();
    set(
        &mut status.conditions,
        generation,
        "Progressing",
        is_moving,
        &reason(phase.as_str()),
        status.message.as_deref().unwrap_or_default(),
    );
    let has_structure = live.iter().any(|report| report.target.rows > 0)
        || status.counters.is_some_and(|known| known.rows_written > 0)
        || phase == StreamState::Finished;
    set(&mut status.conditions, generation, "StructureReady", has_structure, if has_structure { "Created" } else { "Pending" }, "");
    let is_complete = phase == StreamState::Finished;
    set(&mut status.conditions, generation, "SnapshotComplete", is_complete, if is_complete { "Copied" } else { "Copying" }, "");
    let is_consistent = status.consistent_cut.unwrap_or(true);
    let why = if is_consistent { "OneMoment" } else { "CutLost" };
    set(&mut status.conditions, generation, "ConsistentCut", is_consistent, why, "");
    let trouble = observed.obstacle.clone().filter(|_| !phase.is_terminal());
    let before = status.conditions.iter().find(|condition| condition.type_ == "Degraded" && condition.status == "True");
    if before.is_some_and(|condition| status.message.as_ref() == Some(&condition.message)) {
        // What was told there is over, or is told again.
        status.message = None;
    }
    let (word, text) = trouble.clone().unwrap_or(("AsExpected".to_owned(), String::new()));
    set(&mut status.conditions, generation, "Degraded", trouble.is_some(), &word, &text);
    if let Some((_, text)) = trouble {
        status.message = Some(text);
    }
}

/// What every terminal phase says.
fn finish(status: &mut StreamStatus, generation: i64) {
    let phase = status.phase.unwrap_or(StreamState::Failed);
    let message = status.message.clone().filter(|_| phase == StreamState::Failed).unwrap_or_default();
    if phase != StreamState::Failed {
        status.message = None;
    }
    let word = reason(phase.as_str());
    set(&mut status.conditions, generation, "Progressing", false, &word, &message);
    set(&mut status.conditions, generation, "Finished", true, &word, &message);
    set(&mut status.conditions, generation, "Succeeded", phase == StreamState::Finished, &word, &message);
    status.ended_at.get_or_insert(Time(Timestamp::now()));
    status.next_attempt_at = None;
}

/// An attempt has begun.
pub(super) fn attempted(stream: &Stream, status: &mut StreamStatus, attempt: u32) {
    let generation = stream.metadata.generation.unwrap_or(0);
    status.attempt = attempt;
    status.is_attempt_over = false;
    status.next_attempt_at = None;
    status.phase = Some(status.phase.unwrap_or(StreamState::Ready));
    status.started_at.get_or_insert(Time(Timestamp::now()));
    let waited = status.conditions.iter().find(|condition| condition.type_ == "Accepted" && condition.status == "False");
    if waited.is_some_and(|condition| status.message.as_ref() == Some(&condition.message)) {
        // What it waited for is there.
        status.message = None;
    }
    set(&mut status.conditions, generation, "Accepted", true, "Valid", "");
    for kind in ["Finished", "Succeeded"] {
        set(&mut status.conditions, generation, kind, false, "Running", "");
    }
}

/// The definition is refused: the stream has failed.
pub(super) fn refused(stream: &Stream, status: &mut StreamStatus, error: &Error) {
    let generation = stream.metadata.generation.unwrap_or(0);
    let text = sentence(error);
    set(&mut status.conditions, generation, "Accepted", false, "Invalid", &text);
    status.phase = Some(StreamState::Failed);
    status.message = Some(text);
    finish(status, generation);
}

/// Something that the stream names is not there yet.
pub(super) fn waiting(stream: &Stream, status: &mut StreamStatus, problem: &str) {
    let generation = stream.metadata.generation.unwrap_or(0);
    set(&mut status.conditions, generation, "Accepted", false, "ReferenceMissing", problem);
    set(&mut status.conditions, generation, "Finished", false, "Waiting", problem);
    status.message = Some(problem.to_owned());
    status.phase = Some(status.phase.unwrap_or(StreamState::Ready));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream() -> Stream {
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Stream", "metadata": {"name": "s", "generation": 1},
            "spec": {"configRef": {"name": "c", "id": "x", "generation": 1}, "config": {"name": "c", "mode": "convert",
                "source": {"connections": [{"connection": "a"}]}, "target": {"connection": "b", "spec": {"db": {"database": "d"}}}}},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_waited_for_is_told_no_longer_than_that() {
        let (stream, mut status) = (stream(), StreamStatus::default());
        waiting(&stream, &mut status, "there is no Connection `a`");
        assert_eq!(status.message.as_deref(), Some("there is no Connection `a`"));
        attempted(&stream, &mut status, 1);
        assert_eq!(status.message, None);
        // Why the last attempt broke off stays.
        status.message = Some("attempt 1 broke off".to_owned());
        attempted(&stream, &mut status, 2);
        assert_eq!(status.message.as_deref(), Some("attempt 1 broke off"));
    }

    fn pod(name: &str, phase: &str, report: &TaskReport) -> serde_json::Value {
        json!({"metadata": {"name": name}, "status": {"phase": phase, "containerStatuses": [{"name": "worker", "image": "", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "message": report.message()}}}]}})
    }

    fn report(state: StreamState) -> TaskReport {
        TaskReport {
            state,
            ..serde_json::from_value(
                json!({"version": 1, "state": "FINISHED", "rowsRead": 0, "rowsWritten": 0, "rowsFailed": 0, "bytes": 0,
            "cutsLost": 0, "isConsistent": true}),
            )
            .unwrap()
        }
    }

    #[test]
    fn a_worker_whose_successor_made_it_good_is_no_failure() {
        let job = |condition: &str| json!({"metadata": {"name": "j"}, "status": {"conditions": [{"type": condition, "status": "True"}]}});
        let pods =
            json!([pod("a", "Failed", &report(StreamState::Failed)), pod("b", "Succeeded", &report(StreamState::EventLimitReached))]);
        let observed = |condition: &str| Observed {
            job: Some(serde_json::from_value(job(condition)).unwrap()),
            pods: serde_json::from_value(pods.clone()).unwrap(),
            obstacle: None,
        };
        let complete = observed("Complete");
        assert_eq!(completed(&complete.reports(), &[]), StreamState::EventLimitReached);
        assert_eq!(completed(&[], &[]), StreamState::Finished);
        // Of a Job that has failed, all count.
        assert_eq!(observed("Failed").reports().len(), 2);
    }

    #[test]
    fn a_login_that_is_refused_after_rows_have_moved_is_tried_again() {
        let refused = |kind: &str| TaskReport { kind: Some(kind.to_owned()), ..report(StreamState::Failed) };
        assert!(is_final(&refused("LoginRefused"), false) && !is_final(&refused("LoginRefused"), true));
        // A right that is missing at the end would copy everything again and again.
        assert!(is_final(&refused("PermissionDenied"), true));
    }
}
