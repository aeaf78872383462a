//! From a stream to what one attempt needs: a ConfigMap with its task and a Job. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, ConfigMapVolumeSource, KeyToPath, PodTemplateSpec, SecretVolumeSource, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use millrace_core::config::check_supported;
use millrace_core::id::ConnectionId;
use millrace_core::task::{Exit, SecretFile, TASK_VERSION, TaskKind, TaskSpec};
use millrace_core::{Error, Result, validate};
use millrace_crds::{Connection, SecretKey, Stream, object_id};

use crate::context::Context;
use crate::names::{self, label};

/// Where a worker finds its task and its secrets.
const TASK_DIR: &str = "/etc/millrace/task";
const SECRETS_DIR: &str = "/etc/millrace/secrets";
/// How often Kubernetes itself restarts a worker within an attempt; then the attempt is over.
const RESTARTS: i32 = 3;
/// Marks a stream's Jobs and pods.
pub(crate) const STREAM_LABEL: &str = "millrace.dev/stream";
/// Marks an attempt's Jobs and pods.
pub(super) const ATTEMPT_LABEL: &str = "millrace.dev/attempt";

/// What one attempt needs.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) task: ConfigMap,
    pub(crate) job: Job,
}

/// What one attempt needs; fails for a definition that the REST API would refuse, with the same sentence and field.
pub(super) fn build(stream: &Stream, attempt: u32, connections: &[Connection], context: &Context) -> Result<Built> {
    let id = |name: &str| -> Result<ConnectionId> {
        let found = connections.iter().find(|connection| connection.metadata.name.as_deref() == Some(name));
        object_id(&found.ok_or_else(|| Error::internal("a connection was not dereferenced"))?.metadata)
    };
    names::check(&stream.name_any(), names::MAX_STREAM)?;
    let spec = stream.spec.config.to_core(id)?;
    validate::check(&spec)?;
    check_supported(&spec).map_err(Error::first_of)?;
    let workers = spec.workers();
    let config = stream.spec.config_ref.id.parse().map_err(|error| Error::invalid("configRef.id", "it is not an id").because(error))?;
    let kind = TaskKind::Convert { stream: object_id(&stream.metadata)?, config, attempt, workers, spec: Box::new(spec) };
    let labels = BTreeMap::from([
        (STREAM_LABEL.to_owned(), label(&stream.name_any())),
        (ATTEMPT_LABEL.to_owned(), attempt.to_string()),
        ("app.kubernetes.io/name".to_owned(), "millrace".to_owned()),
        ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
    ]);
    let metadata = ObjectMeta {
        name: Some(format!("{}-{attempt}", stream.name_any())),
        namespace: Some(context.namespace.clone()),
        labels: Some(labels),
        owner_references: stream.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    task_and_job(metadata, kind, connections, workers as i32, context)
}

/// A task's ConfigMap and Job under the given name, with the connections' Secrets mounted.
pub(crate) fn task_and_job(
    metadata: ObjectMeta,
    kind: TaskKind,
    connections: &[Connection],
    workers: i32,
    context: &Context,
) -> Result<Built> {
    let mut mounts = Mounts::default();
    let mut task = TaskSpec {
        version: TASK_VERSION,
        namespace: context.namespace.clone(),
        kind,
        connections: Vec::new(),
        secrets: Vec::new(),
        traceparent: millrace_service::traceparent(),
    };
    for connection in connections {
        let core = connection.to_core()?;
        let password = connection.spec.secret_ref.as_ref().map(|key| ("spec.database.password", key));
        let client_key = connection.spec.ssl.as_ref().and_then(|ssl| ssl.client_key_ref.as_ref()).map(|key| ("ssl.client_key", key));
        for (field, key) in password.into_iter().chain(client_key) {
            task.secrets.push(SecretFile { connection: core.id.clone(), field: field.to_owned(), path: mounts.path(key) });
        }
        task.connections.push(core);
    }
    let text = serde_json::to_string(&task).map_err(|error| Error::internal("a task has no JSON form").because(error))?;
    let name = metadata.name.clone().unwrap_or_default();
    let labels = metadata.labels.clone().unwrap_or_default();
    let job = Job { metadata: metadata.clone(), spec: Some(job_spec(&name, labels, workers, mounts, &context.template)), status: None };
    Ok(Built { task: ConfigMap { metadata, data: Some(BTreeMap::from([("task.json".to_owned(), text)])), ..ConfigMap::default() }, job })
}

/// Secrets that are mounted, each in a folder of its own, and only the keys that are needed.
#[derive(Default)]
struct Mounts(Vec<(String, Vec<String>)>);

impl Mounts {
    fn path(&mut self, key: &SecretKey) -> String {
        let place = match self.0.iter().position(|(name, _)| *name == key.name) {
            Some(place) => place,
            None => {
                self.0.push((key.name.clone(), Vec::new()));
                self.0.len() - 1
            }
        };
        if !self.0[place].1.contains(&key.key) {
            self.0[place].1.push(key.key.clone());
        }
        format!("{SECRETS_DIR}/{place}/{}", key.key)
    }

    fn volumes(self, task: &str) -> (Vec<Volume>, Vec<VolumeMount>) {
        let config = ConfigMapVolumeSource { name: task.to_owned(), ..ConfigMapVolumeSource::default() };
        let mut volumes = vec![Volume { name: "task".to_owned(), config_map: Some(config), ..Volume::default() }];
        for (place, (name, keys)) in self.0.into_iter().enumerate() {
            let items = keys.iter().map(|key| KeyToPath { key: key.clone(), path: key.clone(), mode: None }).collect();
            let secret = SecretVolumeSource { secret_name: Some(name), items: Some(items), ..SecretVolumeSource::default() };
            volumes.push(Volume { name: format!("secret-{place}"), secret: Some(secret), ..Volume::default() });
        }
        let path = |name: &str| name.strip_prefix("secret-").map_or_else(|| TASK_DIR.to_owned(), |place| format!("{SECRETS_DIR}/{place}"));
        let mount = |volume: &Volume| VolumeMount {
            name: volume.name.clone(),
            mount_path: path(&volume.name),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        let mounts = volumes.iter().map(mount).collect();
        (volumes, mounts)
    }
}

fn job_spec(name: &str, labels: BTreeMap<String, String>, workers: i32, mounts: Mounts, template: &PodTemplateSpec) -> JobSpec {
    let mut template = template.clone();
    template.metadata.get_or_insert_default().labels.get_or_insert_default().extend(labels);
    let pod = template.spec.get_or_insert_default();
    pod.restart_policy = Some("Never".to_owned());
    pod.automount_service_account_token = Some(false);
    let (volumes, volume_mounts) = mounts.volumes(name);
    pod.volumes.get_or_insert_default().extend(volumes);
    for container in pod.containers.iter_mut().filter(|container| container.name == "worker") {
        container.args = Some(vec!["worker".to_owned(), "--task".to_owned(), format!("{TASK_DIR}/task.json")]);
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
        container.volume_mounts.get_or_insert_default().extend(volume_mounts.clone());
    }
    let on_exit = |codes: &[Exit], action: &str| PodFailurePolicyRule {
        action: action.to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some("worker".to_owned()),
            operator: "In".to_owned(),
            values: codes.iter().map(|exit| i32::from(exit.code())).collect(),
        }),
        ..PodFailurePolicyRule::default()
    };
    let disrupted = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
        }]),
        ..PodFailurePolicyRule::default()
    };
    JobSpec {
        completion_mode: Some("Indexed".to_owned()),
        completions: Some(workers),
        parallelism: Some(workers),
        backoff_limit_per_index: Some(RESTARTS),
        max_failed_indexes: Some(0),
        pod_replacement_policy: Some("Failed".to_owned()),
        pod_failure_policy: Some(PodFailurePolicy { rules: vec![disrupted, on_exit(&[Exit::Failed, Exit::Fenced], "FailJob")] }),
        template,
        ..JobSpec::default()
    }
}
