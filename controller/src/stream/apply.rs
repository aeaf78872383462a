//! What the cluster holds of a stream, and what is changed there.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource as _, ResourceExt as _};
use millrace_core::task::TaskReport;
use millrace_core::{Error, Kind};
use millrace_crds::{DesiredState, Stream, StreamStatus};
use serde_json::json;

use super::STOP_PATIENCE;
use super::build::{ATTEMPT_LABEL, Built, STREAM_LABEL};
use crate::context::{Context, FIELD_MANAGER, Failure};
use crate::names::label;
use crate::trouble::{self, Trouble};

/// The pods of a stream that is deleted may take so long to end before somebody is told.
const PODS_PATIENCE: Duration = Duration::from_secs(60);
/// They are looked at so often at first.
const PODS_LOOK: Duration = Duration::from_millis(200);

/// A stream's newest attempt as the cluster shows it.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) job: Option<Job>,
    /// The newest attempt's pods.
    pub(super) pods: Vec<Pod>,
    /// Why its pods do not run, if the cluster says so.
    pub(super) obstacle: Option<Trouble>,
}

impl Observed {
    /// What workers of this attempt said at their end. Once all indexes of the Job have succeeded, what others said is over: their successors made it good.
    pub(super) fn reports(&self) -> Vec<TaskReport> {
        let is_complete = self.job_is("Complete");
        let pods = self.pods.iter().filter(|pod| !is_complete || phase_of(pod) == Some("Succeeded"));
        let containers = pods.filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref()).flatten();
        let messages = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.message.as_deref());
        messages.filter_map(TaskReport::parse).collect()
    }

    /// Whether one of the attempt's pods may still write. One that should have been gone for a minute is on a node that is lost; whoever begins next fences it.
    pub(super) fn has_writer(&self) -> bool {
        let is_lost = |pod: &Pod| {
            let due = pod.metadata.deletion_timestamp.as_ref();
            due.is_some_and(|due| Timestamp::now().as_second() - due.0.as_second() > PODS_PATIENCE.as_secs().cast_signed())
        };
        self.pods.iter().any(|pod| !is_over(pod) && !is_lost(pod))
    }

    /// Whether the Job has this condition.
    pub(super) fn job_is(&self, kind: &str) -> bool {
        let conditions = self.job.as_ref().and_then(|job| job.status.as_ref()?.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == kind && condition.status == "True"))
    }
}

/// Selects what is labelled with a stream. Of names that are too long for a label nothing is made, but they are asked for, too.
fn of_stream(stream: &Stream) -> String {
    format!("{STREAM_LABEL}={}", label(&stream.name_any()))
}

pub(super) async fn observe(stream: &Stream, context: &Context) -> Result<Observed, Failure> {
    let attempt = stream.status.as_ref().map_or(0, |status| status.attempt);
    if attempt == 0 {
        // A controller that died between making the Job and saying so has left one; it is found by its name when it is made again.
        return Ok(Observed::default());
    }
    let name = format!("{}-{attempt}", stream.name_any());
    let job = context.api::<Job>().get_opt(&name).await?;
    let selector = format!("{},{ATTEMPT_LABEL}={attempt}", of_stream(stream));
    let mut pods = context.api::<Pod>().list(&ListParams::default().labels(&selector)).await?.items;
    if let Some(uid) = job.as_ref().and_then(|job| job.metadata.uid.as_ref()) {
        // A stream of the same name that was deleted may have left pods.
        pods.retain(|pod| pod.owner_references().iter().any(|owner| owner.uid == *uid));
    }
    let obstacle = match &job {
        Some(job) => trouble::of(job, &pods, context).await?,
        None => None,
    };
    Ok(Observed { job, pods, obstacle })
}

/// Makes what an attempt needs. What is there already stays as it is.
pub(crate) async fn create(built: &Built, context: &Context) -> Result<(), Failure> {
    let name = built.task.name_any();
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    context.api::<ConfigMap>().patch(&name, &parameters, &Patch::Apply(&typed("v1", "ConfigMap", &built.task))).await?;
    match context
        .api::<Job>()
        .create(&PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }, &built.job)
        .await
    {
        Ok(job) => own_task(built, &job, context).await,
        Err(kube::Error::Api(status)) if status.code == 409 => match context.api::<Job>().get_opt(&name).await? {
            Some(job) => own_task(built, &job, context).await,
            None => Ok(()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The task goes with its Job, also where the owner of both goes without them.
async fn own_task(built: &Built, job: &Job, context: &Context) -> Result<(), Failure> {
    let mut task = ConfigMap { metadata: built.task.metadata.clone(), data: built.task.data.clone(), ..ConfigMap::default() };
    task.metadata.owner_references.get_or_insert_default().extend(job.owner_ref(&()));
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    context.api::<ConfigMap>().patch(&task.name_any(), &parameters, &Patch::Apply(&typed("v1", "ConfigMap", &task))).await?;
    Ok(())
}

/// Deletes the attempt's Job; its pods get SIGTERM.
pub(super) async fn delete_job(observed: &Observed, context: &Context) -> Result<(), Failure> {
    let Some(job) = &observed.job else { return Ok(()) };
    let is_over = observed.job_is("Complete") || observed.job_is("Failed");
    if is_over || job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    context.delete::<Job>(&job.name_any()).await?;
    Ok(())
}

/// Deletes the Jobs of all attempts, also of one that a controller has made and died before it could say so; their pods go with them.
pub(super) async fn delete_jobs(stream: &Stream, context: &Context) -> Result<(), Failure> {
    let selector = ListParams::default().labels(&of_stream(stream));
    for job in context.api::<Job>().list(&selector).await?.items {
        context.delete::<Job>(&job.name_any()).await?;
    }
    Ok(())
}

/// A worker that does not obey a stop in time loses its pod.
pub(super) async fn hurry_stop(stream: &Stream, observed: &Observed, context: &Context) -> Result<(), Failure> {
    let asked = stream.annotations().get(millrace_crds::STOPPED_AT_ANNOTATION).and_then(|text| text.parse::<Timestamp>().ok());
    if stream.spec.desired != DesiredState::Stopped {
        return Ok(());
    }
    let Some(asked) = asked else {
        let now = json!({"metadata": {"annotations": {millrace_crds::STOPPED_AT_ANNOTATION: Timestamp::now().to_string()}}});
        context.api::<Stream>().patch(&stream.name_any(), &PatchParams::default(), &Patch::Merge(now)).await?;
        return Ok(());
    };
    if Timestamp::now().as_second() - asked.as_second() > STOP_PATIENCE {
        delete_job(observed, context).await?;
    }
    Ok(())
}

/// Returns once no pod of the stream can write any more, or says which one can.
pub(super) async fn wait_for_pods(stream: &Stream, context: &Context) -> Result<(), Failure> {
    let selector = ListParams::default().labels(&of_stream(stream));
    let begun_at = Instant::now();
    loop {
        let pods = context.api::<Pod>().list(&selector).await?.items;
        let Some(pod) = pods.iter().find(|pod| !is_over(pod)) else { return Ok(()) };
        let waited = begun_at.elapsed();
        if waited > PODS_PATIENCE {
            let text = format!("the pod `{}` has not ended yet; where its node is lost, delete the pod with --force", pod.name_any());
            context.event(stream, true, "WorkerRemains", &text).await;
            return Err(Error::new(Kind::TimedOut, text).into());
        }
        tokio::time::sleep((waited / 10).clamp(PODS_LOOK, 25 * PODS_LOOK)).await;
    }
}

/// Whether all of a pod's processes have ended for good.
fn is_over(pod: &Pod) -> bool {
    matches!(phase_of(pod), Some("Succeeded" | "Failed"))
}

fn phase_of(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// Writes a stream's status, unless it says what is there already.
pub(super) async fn write_status(stream: &Stream, status: StreamStatus, context: &Context) -> Result<(), Failure> {
    if stream.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let phase = status.phase;
    let message = status.message.clone().unwrap_or_default();
    let api: Api<Stream> = context.api();
    let patch = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Stream", "status": status});
    api.patch_status(&stream.name_any(), &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch)).await?;
    let before = stream.status.as_ref().and_then(|status| status.phase);
    if let Some(phase) = phase.filter(|phase| Some(*phase) != before) {
        let is_warning = phase == millrace_core::stream::StreamState::Failed;
        context.event(stream, is_warning, &crate::conditions::reason(phase.as_str()), &message).await;
        super::announce::announce(stream, phase, context).await;
    }
    Ok(())
}

/// A body of a server-side apply names its type.
fn typed<T: serde::Serialize>(version: &str, kind: &str, object: &T) -> serde_json::Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = json!(version);
    value["kind"] = json!(kind);
    value
}
