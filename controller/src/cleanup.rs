//! A definition that is deleted with `deletionPolicy: Delete`: its streams end, then one worker removes what they have left at the target.
//!
//! ```text
//!  deleted ─▶ streams are deleted and end ─▶ cleanup Job ─┬─ done ───────────────────────────────▶ the finalizer goes
//!                                                         └─ refused, no Secret, 5 minutes … ─▶ a warning names what stays ─▶ the finalizer goes
//! ```
//!
//! Best effort: a definition never stays because a target is away.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use millrace_core::connector::Scope;
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::stream::StreamState;
use millrace_core::task::{Exit, TaskKind, TaskReport};
use millrace_crds::{CLEANUP_FINALIZER, Connection, DeletionPolicy, Stream, StreamConfig, StreamConfigStatus, object_id};

use crate::context::{Context, Failure};
use crate::names::{joined, label};
use crate::stream::{apply_built, phase, task_and_job};
use crate::stream_config::{CLEANUP_LABEL, streams_of, write};
use crate::{finalizers, probe, trouble};

/// How long a definition may be kept, seconds.
const PATIENCE: i64 = 300;
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A target that was away is asked again after this, seconds; after longer the longer it is away.
const TRY_AGAIN_AFTER: i64 = 10;
/// The garbage collector's finalizer of `--cascade=orphan`.
const ORPHAN: &str = "orphan";
/// Abandoned runs that are remembered, the newest.
const REMEMBERED: usize = 200;

/// The definition that a Job cleans up after.
pub(crate) fn of_job(job: Job) -> Option<ObjectRef<StreamConfig>> {
    Some(ObjectRef::new(job.annotations().get(CLEANUP_LABEL)?).within(&job.namespace()?))
}

/// Remembers runs that ended without what they were to do: of those alone the clean-up removes tables. What a limit has ended is what the user wanted.
pub(crate) fn note_abandoned(status: &mut StreamConfigStatus, streams: &[Stream]) {
    for stream in streams.iter().filter(|stream| matches!(phase(stream), StreamState::Failed | StreamState::Stopped)) {
        note(status, stream);
    }
}

fn note(status: &mut StreamConfigStatus, stream: &Stream) {
    let Ok(id) = object_id::<StreamId>(&stream.metadata) else { return };
    let id = id.to_string();
    if !status.abandoned_runs.contains(&id) {
        status.abandoned_runs.push(id);
        let surplus = status.abandoned_runs.len().saturating_sub(REMEMBERED);
        status.abandoned_runs.drain(..surplus);
    }
}

/// One step of a deletion.
pub(crate) async fn advance(config: &StreamConfig, context: &Context) -> Result<Action, Failure> {
    if !finalizers::has(config, CLEANUP_FINALIZER) {
        return Ok(Action::await_change());
    }
    if config.spec.deletion_policy == DeletionPolicy::Retain {
        return let_go(config, context).await;
    }
    if finalizers::has(config, ORPHAN) {
        // Which streams are to stay is known once the garbage collector has parted them from their owner.
        return Ok(Action::requeue(LOOK_EVERY));
    }
    let streams = streams_of(config, context).await?;
    let (own, others): (Vec<Stream>, Vec<Stream>) = streams.into_iter().partition(|stream| is_owned(stream, config));
    if !own.is_empty() && !is_overdue(config) {
        end_streams(config, &own, context).await?;
        return Ok(Action::requeue(LOOK_EVERY));
    }
    if !others.is_empty() {
        let text = "streams were kept, so the entries in the target's ledger that they need are kept, too";
        context.event(config, false, "LedgerKept", text).await;
        return let_go(config, context).await;
    }
    if own.is_empty() && config.status.as_ref().is_none_or(|status| status.last_run == 0) {
        // Nothing was ever written.
        return let_go(config, context).await;
    }
    work(config, context).await
}

fn is_owned(stream: &Stream, config: &StreamConfig) -> bool {
    stream.owner_references().iter().any(|owner| Some(&owner.uid) == config.metadata.uid.as_ref())
}

/// Deletes streams; each stays until its workers are gone.
async fn end_streams(config: &StreamConfig, streams: &[Stream], context: &Context) -> Result<(), Failure> {
    let mut status = config.status.clone().unwrap_or_default();
    note_abandoned(&mut status, streams);
    // What is ended here is abandoned, too.
    streams.iter().filter(|stream| !phase(stream).is_terminal()).for_each(|stream| note(&mut status, stream));
    write(config, status, context).await?;
    for stream in streams.iter().filter(|stream| stream.metadata.deletion_timestamp.is_none()) {
        context.delete::<Stream>(&stream.name_any()).await?;
    }
    Ok(())
}

/// Makes the Job, or looks at it.
async fn work(config: &StreamConfig, context: &Context) -> Result<Action, Failure> {
    let name = job_name(config);
    let Some(job) = context.api::<Job>().get_opt(&name).await? else {
        if is_overdue(config) {
            return abandon(config, "there was no time left", context).await;
        }
        let connection = config.spec.target.connection.as_str();
        let Some(found) = context.api::<Connection>().get_opt(connection).await? else {
            return abandon(config, &format!("there is no Connection `{connection}` in this namespace"), context).await;
        };
        return start(config, &name, found, context).await;
    };
    let pods = context.api::<Pod>().list(&ListParams::default().labels(&format!("job-name={name}"))).await?.items;
    let report = pods.iter().find_map(probe::report_of);
    match report {
        Some(report) if report.state == StreamState::Finished => {
            context.event(config, false, "CleanedUp", report.summary.as_deref().unwrap_or_default()).await;
            return let_go(config, context).await;
        }
        Some(report) if is_overdue(config) || !may_be_tried_again(&report) => {
            return abandon(config, report.error.as_deref().unwrap_or("the clean-up failed"), context).await;
        }
        Some(_) => {
            // The target may be back by the next time. Until then the Job stays: its removal would be seen and a new one made at once.
            let wait = wait_before_the_next(config, &job);
            if wait.is_zero() {
                context.delete::<Job>(&job_name(config)).await?;
            }
            return Ok(Action::requeue(wait.max(LOOK_EVERY)));
        }
        None => {}
    }
    let trouble = trouble::of(&job, &pods, context).await?;
    match trouble {
        Some((_, text)) if is_overdue(config) || is_missing_secret(&text) => abandon(config, &text, context).await,
        None if is_overdue(config) => abandon(config, "it took too long", context).await,
        _ => Ok(Action::requeue(LOOK_EVERY)),
    }
}

async fn start(config: &StreamConfig, name: &str, connection: Connection, context: &Context) -> Result<Action, Failure> {
    let Some(db) = &config.spec.target.spec.db else { return let_go(config, context).await };
    let Ok(id) = object_id::<ConfigId>(&config.metadata) else {
        return abandon(config, "the label `millrace.dev/id` holds no id, so nobody knows its entries", context).await;
    };
    let abandoned = config.status.iter().flat_map(|status| &status.abandoned_runs).filter_map(|run| run.parse().ok()).collect();
    let scope = Scope { database: Some(db.database.clone()), schema: db.schema.clone() };
    let labels = BTreeMap::from([
        (CLEANUP_LABEL.to_owned(), label(&config.name_any())),
        ("app.kubernetes.io/name".to_owned(), "millrace".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
    ]);
    // Without an owner: where a definition is deleted in the foreground, the garbage collector would delete the Job first.
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(CLEANUP_LABEL.to_owned(), config.name_any())])),
        ..ObjectMeta::default()
    };
    let mut built = task_and_job(metadata, TaskKind::Cleanup { config: id, scope, abandoned }, &[connection], 1, context)?;
    if let Some(spec) = built.job.spec.as_mut() {
        spec.active_deadline_seconds = Some(PATIENCE);
        spec.ttl_seconds_after_finished = i32::try_from(PATIENCE).ok();
    }
    apply_built(&built, context).await?;
    Ok(Action::requeue(LOOK_EVERY))
}

fn job_name(config: &StreamConfig) -> String {
    // A definition of the same name may come right after this one.
    let uid: String = config.metadata.uid.iter().flat_map(|uid| uid.chars()).take(8).collect();
    joined(&config.name_any(), &format!("cleanup-{uid}"))
}

fn is_overdue(config: &StreamConfig) -> bool {
    let deleted_at = config.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_second());
    deleted_at.is_some_and(|at| Timestamp::now().as_second() - at > PATIENCE)
}

/// How long the next try has still to wait: as long as half of the time for which the definition had been deleted when the last one began.
fn wait_before_the_next(config: &StreamConfig, job: &Job) -> Duration {
    let second = |time: Option<&Time>| time.map(|time| time.0.as_second());
    let Some(began_at) = second(job.metadata.creation_timestamp.as_ref()) else { return Duration::ZERO };
    let deleted_at = second(config.metadata.deletion_timestamp.as_ref()).unwrap_or(began_at);
    let due_at = began_at + TRY_AGAIN_AFTER.max((began_at - deleted_at) / 2);
    Duration::from_secs(u64::try_from(due_at - Timestamp::now().as_second()).unwrap_or(0))
}

fn may_be_tried_again(report: &TaskReport) -> bool {
    let name = report.kind.as_deref().unwrap_or_default();
    let kind = millrace_core::Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
    kind.is_some_and(|kind| Exit::of(kind) == Exit::TryAgain)
}

/// The kubelet's words for a Secret, or a key of one, that a pod is to mount and that is not there.
fn is_missing_secret(text: &str) -> bool {
    text.contains("secret") && (text.contains("not found") || text.contains("non-existent"))
}

/// Gives the clean-up up and names what stays.
async fn abandon(config: &StreamConfig, why: &str, context: &Context) -> Result<Action, Failure> {
    let id = object_id::<ConfigId>(&config.metadata).map_or_else(|_| config.name_any(), |id| id.to_string());
    let target = &config.spec.target;
    let database = target.spec.db.as_ref().map(|db| db.database.as_str()).unwrap_or_default();
    let text = format!(
        "abandoned: the entries of `{id}` in the ledger (schema `millrace`) of the database `{database}` of Connection `{}`, and tables that its runs have not \
         finished: {why}",
        target.connection
    );
    tracing::warn!(config = config.name_any(), text, "a clean-up was given up");
    context.event(config, true, "CleanupAbandoned", &text).await;
    let_go(config, context).await
}

async fn let_go(config: &StreamConfig, context: &Context) -> Result<Action, Failure> {
    context.delete::<Job>(&job_name(config)).await?;
    finalizers::set(config, CLEANUP_FINALIZER, false, context).await?;
    Ok(Action::await_change())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(phase: &str) -> Stream {
        let id = StreamId::mint().to_string();
        serde_json::from_value(json!({
            "apiVersion": "millrace.dev/v1alpha1", "kind": "Stream", "metadata": {"name": "s", "labels": {"millrace.dev/id": id}},
            "spec": {"configRef": {"name": "c", "id": "x", "generation": 1}, "config": {"name": "c", "mode": "convert",
                "source": {"connections": [{"connection": "a"}]}, "target": {"connection": "b", "spec": {"db": {"database": "d"}}}}},
            "status": {"phase": phase},
        }))
        .unwrap()
    }

    #[test]
    fn only_runs_that_failed_or_were_stopped_are_abandoned_and_each_once() {
        let mut status = StreamConfigStatus::default();
        let streams = ["FINISHED", "FAILED", "RUNNING", "STOPPED", "TIME_LIMIT_REACHED"].map(stream);
        note_abandoned(&mut status, &streams);
        note_abandoned(&mut status, &streams);
        let ids: Vec<String> = [&streams[1], &streams[3]].map(|stream| stream.labels()["millrace.dev/id"].clone()).into();
        assert_eq!(status.abandoned_runs, ids);
        let many: Vec<Stream> = (0..REMEMBERED + 5).map(|_| stream("FAILED")).collect();
        note_abandoned(&mut status, &many);
        assert_eq!(status.abandoned_runs.len(), REMEMBERED);
        assert!(!status.abandoned_runs.contains(&ids[0]));
    }

    #[test]
    fn tries_are_further_apart_the_longer_the_target_is_away() {
        let now = Timestamp::now().as_second();
        let at = |second| Some(Time(Timestamp::from_second(second).unwrap()));
        let config = |deleted_at| {
            let spec = json!({"name": "c", "mode": "convert", "source": {"connections": [{"connection": "a"}]},
                "target": {"connection": "b", "spec": {"db": {"database": "d"}}}});
            let mut config = StreamConfig::new("c", serde_json::from_value(spec).unwrap());
            config.metadata.deletion_timestamp = at(deleted_at);
            config
        };
        let job = |second| Job { metadata: ObjectMeta { creation_timestamp: at(second), ..ObjectMeta::default() }, ..Job::default() };
        let wait = |deleted_at, began_at| wait_before_the_next(&config(deleted_at), &job(began_at)).as_secs();
        assert_eq!(wait(now - 40, now - 30), 0, "the first wait is over");
        assert!((9..=10).contains(&wait(now - 2, now)));
        assert!((58..=60).contains(&wait(now - 121, now)));
        assert_eq!(wait(now - 200, now - 90), 0);
    }

    #[test]
    fn a_missing_secret_is_told_from_other_troubles() {
        assert!(is_missing_secret(r#"MountVolume.SetUp failed for volume "secret-0" : secret "millrace-conn-x" not found"#));
        assert!(is_missing_secret(r#"MountVolume.SetUp failed for volume "secret-0" : references non-existent secret key: password"#));
        assert!(!is_missing_secret("0/1 nodes are available: 1 Insufficient memory"));
    }
}
