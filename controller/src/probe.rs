//! Tries to log in from where workers run: at first, when the spec changes, when somebody asks for it, and again after one that failed. An operator may leave it to
//! those who ask.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::{Resource as _, ResourceExt as _};
use millrace_core::stream::StreamState;
use millrace_core::task::{TaskKind, TaskReport};
use millrace_crds::{Connection, ConnectionStatus, PROBE_ANNOTATION, ProbeRecord};

use crate::conditions::{set, word};
use crate::context::{Context, Failure, RESYNC};
use crate::names::{joined, label};
use crate::stream::{apply_built, task_and_job};
use crate::{ConnectionProbes, trouble};

/// One under way is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The wait after the first failure, and the longest, seconds.
const FIRST_WAIT: i64 = 15;
const LONGEST_WAIT: i64 = 600;

/// Starts a probe where one is due, or looks at the one under way.
pub(crate) async fn advance(connection: &Connection, status: &mut ConnectionStatus, context: &Context) -> Result<Action, Failure> {
    let generation = connection.metadata.generation.unwrap_or(0);
    let request = connection.annotations().get(PROBE_ANNOTATION).cloned();
    let mut record = status.probe.clone().unwrap_or_default();
    if is_due(&record, generation, request.as_deref(), context.connection_probes) {
        if record.is_running {
            context.delete::<Job>(&job_name(connection, record.number)).await?;
        }
        record = ProbeRecord { number: record.number + 1, generation, request, is_running: true, failures: 0, next_at: None };
        start(connection, &record, context).await?;
    } else if record.is_running {
        look(connection, status, &mut record, context).await?;
    } else if !may_try_again(&record, context.connection_probes) {
        record.next_at = None;
    } else if record.next_at.as_ref().is_some_and(|at| at.0 <= Timestamp::now()) {
        record = ProbeRecord { number: record.number + 1, generation, is_running: true, next_at: None, ..record };
        start(connection, &record, context).await?;
    }
    if record.number > 0 && record.generation != generation && !record.is_running {
        // Where probes are on request, nobody has tried the server as it is named now.
        status.server_version = None;
        tell(connection, status, None, "SpecChanged", "the spec has changed since the last probe", context).await;
    }
    let wait = match (&record.next_at, record.is_running) {
        (_, true) => LOOK_EVERY,
        (Some(at), false) => Duration::from_secs((at.0.as_second() - Timestamp::now().as_second()).clamp(1, LONGEST_WAIT).unsigned_abs()),
        (None, false) => RESYNC,
    };
    status.probe = Some(record);
    Ok(Action::requeue(wait))
}

/// Whether somebody asks anew, or the newest try is not of the spec as it is.
fn is_due(record: &ProbeRecord, generation: i64, request: Option<&str>, probes: ConnectionProbes) -> bool {
    let is_asked = request.is_some() && record.request.as_deref() != request;
    let is_of_another_spec = record.number == 0 || record.generation != generation;
    is_asked || is_of_another_spec && (probes == ConnectionProbes::Always || record.is_running)
}

/// A failure of which nobody has asked is no reason to try again where probes are on request: it was one of before.
fn may_try_again(record: &ProbeRecord, probes: ConnectionProbes) -> bool {
    probes == ConnectionProbes::Always || record.request.is_some()
}

fn job_name(connection: &Connection, number: u64) -> String {
    joined(&connection.name_any(), &format!("probe-{number}"))
}

async fn start(connection: &Connection, record: &ProbeRecord, context: &Context) -> Result<(), Failure> {
    let labels = BTreeMap::from([
        (PROBE_ANNOTATION.to_owned(), label(&connection.name_any())),
        ("app.kubernetes.io/name".to_owned(), "millrace".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
    ]);
    let metadata = ObjectMeta {
        name: Some(job_name(connection, record.number)),
        labels: Some(labels),
        owner_references: connection.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let connections = [connection.clone()];
    apply_built(&task_and_job(metadata, TaskKind::Probe, &connections, 1, context)?, context).await
}

/// Takes the answer of the probe under way, or says why there is none yet.
async fn look(connection: &Connection, status: &mut ConnectionStatus, record: &mut ProbeRecord, context: &Context) -> Result<(), Failure> {
    let name = job_name(connection, record.number);
    let job = context.api::<Job>().get_opt(&name).await?;
    let pods = context.api::<Pod>().list(&ListParams::default().labels(&format!("job-name={name}"))).await?.items;
    let report = pods.iter().find_map(report_of);
    match (report, job) {
        (Some(report), _) => settle(connection, status, record, &report, context).await,
        (None, None) => {
            // Somebody has removed it.
            fail(record);
        }
        (None, Some(job)) if is_failed(&job) => {
            tell(connection, status, None, "ProbeBrokeOff", "the probe's pod ended without an answer", context).await;
            fail(record);
        }
        (None, Some(job)) => {
            if let Some((word, text)) = trouble::of(&job, &pods, context).await? {
                // Nobody has tried the server: what was known of it may still be so, or not.
                tell(connection, status, None, &word, &text, context).await;
            }
            return Ok(());
        }
    }
    context.delete::<Job>(&name).await?;
    Ok(())
}

async fn settle(connection: &Connection, status: &mut ConnectionStatus, record: &mut ProbeRecord, report: &TaskReport, context: &Context) {
    let text = report.error.clone().unwrap_or_default();
    if report.state == StreamState::Finished {
        status.server_version.clone_from(&report.server_version);
        tell(connection, status, Some(true), "LoggedIn", &text, context).await;
        record.is_running = false;
        record.failures = 0;
        record.next_at = None;
        return;
    }
    let word = report.kind.clone().unwrap_or_else(|| "Failed".to_owned());
    let text = report.field.as_ref().map_or_else(|| text.clone(), |field| format!("{field}: {text}"));
    tell(connection, status, Some(false), &word, &text, context).await;
    fail(record);
}

/// What only somebody who reads certificates and keys can see to be wrong with this generation of the spec, as the REST API says it.
pub(crate) fn refusal(status: &ConnectionStatus, generation: i64) -> Option<String> {
    let word = format!("{:?}", millrace_core::Kind::Invalid);
    let reachable = status.conditions.iter().find(|condition| condition.type_ == "Reachable")?;
    let is_refused = reachable.reason == word && reachable.observed_generation == Some(generation);
    is_refused.then(|| reachable.message.clone())
}

/// Says whether the server can be reached, as far as a probe knows; an event tells what is new.
async fn tell(connection: &Connection, status: &mut ConnectionStatus, truth: Option<bool>, reason: &str, text: &str, context: &Context) {
    let is_known = |known: &Condition| {
        known.type_ == "Reachable" && (known.status.as_str(), known.reason.as_str()) == (word(truth), reason) && known.message == text
    };
    if !status.conditions.iter().any(is_known) {
        let title = match truth {
            Some(true) => "Reachable",
            Some(false) => "Unreachable",
            None => "NotProbed",
        };
        context.event(connection, truth != Some(true), title, text).await;
    }
    set(&mut status.conditions, connection.metadata.generation.unwrap_or(0), "Reachable", truth, reason, text);
}

/// The next try comes later after every failure.
fn fail(record: &mut ProbeRecord) {
    record.is_running = false;
    let wait = (FIRST_WAIT << record.failures.min(10)).min(LONGEST_WAIT);
    record.failures += 1;
    record.next_at = Timestamp::from_second(Timestamp::now().as_second() + wait).ok().map(Time);
}

fn is_failed(job: &Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Failed" && condition.status == "True")
}

/// What a task's pod said at its end.
pub(crate) fn report_of(pod: &Pod) -> Option<TaskReport> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let messages = containers.iter().filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.message.as_deref());
    messages.filter_map(TaskReport::parse).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_made_for_a_new_spec_and_for_a_new_wish() {
        let is_due = |record: &ProbeRecord, generation, request| is_due(record, generation, request, ConnectionProbes::Always);
        let mut record = ProbeRecord::default();
        assert!(is_due(&record, 1, None));
        record = ProbeRecord { number: 1, generation: 1, ..record };
        assert!(!is_due(&record, 1, None));
        assert!(is_due(&record, 2, None));
        assert!(is_due(&record, 1, Some("now")));
        record.request = Some("now".to_owned());
        assert!(!is_due(&record, 1, Some("now")));
        assert!(is_due(&record, 1, Some("again")));
        // Taking the annotation away asks for nothing.
        assert!(!is_due(&record, 1, None));
    }

    #[test]
    fn where_probes_are_on_request_a_spec_is_tried_only_if_somebody_asks() {
        let is_due = |record: &ProbeRecord, generation, request| is_due(record, generation, request, ConnectionProbes::OnRequest);
        let mut record = ProbeRecord::default();
        assert!(!is_due(&record, 1, None));
        assert!(is_due(&record, 1, Some("now")));
        record = ProbeRecord { number: 1, generation: 1, request: Some("now".to_owned()), is_running: true, ..record };
        assert!(!is_due(&record, 1, Some("now")));
        // An answer about the spec as it was would be of no use to whoever asked.
        assert!(is_due(&record, 2, Some("now")));
        record.is_running = false;
        assert!(!is_due(&record, 2, Some("now")));
        assert!(is_due(&record, 2, Some("again")));
        assert!(may_try_again(&record, ConnectionProbes::OnRequest));
        let unasked = ProbeRecord { request: None, ..record };
        assert!(!may_try_again(&unasked, ConnectionProbes::OnRequest) && may_try_again(&unasked, ConnectionProbes::Always));
    }

    #[test]
    fn failures_make_the_wait_longer_up_to_a_bound() {
        let mut record = ProbeRecord { number: 1, ..ProbeRecord::default() };
        let mut waits = Vec::new();
        for _ in 0..9 {
            fail(&mut record);
            let now = Timestamp::now().as_second();
            waits.push(record.next_at.as_ref().map_or(0, |at| at.0.as_second() - now));
        }
        assert!((FIRST_WAIT - 1..=FIRST_WAIT).contains(&waits[0]), "{waits:?}");
        assert!(waits.windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
        assert!((LONGEST_WAIT - 1..=LONGEST_WAIT).contains(&waits[8]), "{waits:?}");
    }
}
