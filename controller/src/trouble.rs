//! Why pods do not run, in the cluster's own words: what their status says, and where it says nothing, what events do.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;

use crate::context::{Context, Failure};

/// An event older than this speaks of something that is over. The cluster repeats what goes on failing within a minute or two.
const STALE_AFTER: i64 = 180;
/// A pod that is being made for less than this is in no trouble yet, seconds.
const GRACE: i64 = 2;

/// A word and a sentence.
pub(crate) type Trouble = (String, String);

/// What keeps a Job's pods from running, if something does.
pub(crate) async fn of(job: &Job, pods: &[Pod], context: &Context) -> Result<Option<Trouble>, Failure> {
    if let Some(said) = pods.iter().find_map(said) {
        return Ok(Some(said));
    }
    for pod in pods.iter().filter(|pod| is_being_made(pod)) {
        if let Some(trouble) = newest_warning("Pod", &pod.name_any(), None, context).await? {
            return Ok(Some(trouble));
        }
    }
    if is_short_of_pods(job, pods) {
        return newest_warning("Job", &job.name_any(), Some("FailedCreate"), context).await;
    }
    Ok(None)
}

/// Why a container does not start, in a pod's status.
fn said(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let unscheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let word = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some((word, condition.message.clone().unwrap_or_default()));
    }
    let waiting = status.container_statuses.iter().flatten().filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    waiting
        .filter_map(|waiting| Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default())))
        .find(|(reason, _)| !matches!(reason.as_str(), "ContainerCreating" | "PodInitializing"))
}

/// Whether a pod has its node and its containers do not run yet: volumes, networks and Secrets that fail then are told by events only.
fn is_being_made(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let age = pod.creation_timestamp().map_or(0, |at| Timestamp::now().as_second() - at.0.as_second());
    let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    let is_leaving = pod.metadata.deletion_timestamp.is_some();
    status.phase.as_deref() == Some("Pending") && has_node && !is_leaving && age >= GRACE
}

/// Whether the cluster has made fewer pods than the Job wants at once.
fn is_short_of_pods(job: &Job, pods: &[Pod]) -> bool {
    let is_over = job.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed" | "SuccessCriteriaMet" | "FailureTarget") && condition.status == "True"
    });
    let wanted = job.spec.as_ref().and_then(|spec| spec.parallelism).unwrap_or(1);
    let counted = pods.iter().filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Failed")).count();
    !is_over && i32::try_from(counted).is_ok_and(|counted| counted < wanted)
}

/// The newest warning about an object.
async fn newest_warning(kind: &str, name: &str, reason: Option<&str>, context: &Context) -> Result<Option<Trouble>, Failure> {
    let reason = reason.map(|reason| format!(",reason={reason}")).unwrap_or_default();
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name},type=Warning{reason}");
    let events = context.api::<Event>().list(&ListParams::default().fields(&fields)).await?.items;
    let now = Timestamp::now().as_second();
    let recent = events.into_iter().filter_map(|event| Some((seen_at(&event)?, event))).filter(|(at, _)| now - at <= STALE_AFTER);
    let newest = recent.max_by_key(|(at, _)| *at).map(|(_, event)| event);
    Ok(newest.map(|event| (event.reason.unwrap_or_else(|| "Warning".to_owned()), event.message.unwrap_or_default())))
}

/// When an event was seen last, in seconds.
fn seen_at(event: &Event) -> Option<i64> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let single = event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0));
    series.or(single).or(event.creation_timestamp().map(|time| time.0)).map(|time| time.as_second())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": "2020-01-01T00:00:00Z"}, "spec": {"nodeName": "n", "containers": []}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_says_why_it_does_not_run() {
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
        assert_eq!(said(&pod(unscheduled)), Some(("Unschedulable".to_owned(), "0/1 nodes are available".to_owned())));
        let waiting = |reason: &str| {
            json!({"phase": "Pending", "containerStatuses": [{"name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": "no such image"}}}]})
        };
        assert_eq!(said(&pod(waiting("ErrImagePull"))), Some(("ErrImagePull".to_owned(), "no such image".to_owned())));
        assert_eq!(said(&pod(waiting("ContainerCreating"))), None);
        assert!(is_being_made(&pod(waiting("ContainerCreating"))));
        assert!(!is_being_made(&pod(json!({"phase": "Running"}))));
    }

    #[test]
    fn a_job_without_its_pods_is_in_trouble_until_it_is_over() {
        let job = |status: Value| -> Job {
            serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": {"parallelism": 2, "template": {}}, "status": status}))
                .unwrap()
        };
        let running = [pod(json!({"phase": "Running"}))];
        assert!(is_short_of_pods(&job(json!({})), &running));
        assert!(!is_short_of_pods(&job(json!({})), &[pod(json!({"phase": "Running"})), pod(json!({"phase": "Succeeded"}))]));
        assert!(is_short_of_pods(&job(json!({})), &[pod(json!({"phase": "Running"})), pod(json!({"phase": "Failed"}))]));
        let over = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        assert!(!is_short_of_pods(&job(over), &running));
    }
}
