//! Connections: a probe logs in from where workers run, and says what answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Resource as _, ResourceExt as _};
use millrace_core::stream::StreamState;
use millrace_core::task::{TaskKind, TaskReport};
use millrace_crds::{Connection, ConnectionStatus};
use serde_json::json;

use crate::conditions::set;
use crate::context::{Context, FIELD_MANAGER, Failure, RESYNC, is_paused};
use crate::metrics;
use crate::stream::apply_built;
use crate::stream::task_and_job;

/// A probe under way is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Kubernetes tries a failed probe again so often within one look.
const PROBE_LABEL: &str = "millrace.dev/probe";

/// Reconciles connections; never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let connections: Api<Connection> = context.api();
    let jobs: Api<Job> = context.api();
    Controller::new(connections, watcher::Config::default())
        .owns(jobs, watcher::Config::default().labels(PROBE_LABEL))
        .run(|connection, context| metrics::measure("Connection", reconcile(connection, context)), on_failure, context)
        .for_each(async |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection was not reconciled");
            }
        })
        .await;
}

fn on_failure(connection: Arc<Connection>, error: &Failure, _: Arc<Context>) -> Action {
    tracing::warn!(connection = connection.name_any(), %error, "a connection could not be reconciled; it is tried again");
    Action::requeue(Duration::from_secs(3))
}

async fn reconcile(connection: Arc<Connection>, context: Arc<Context>) -> Result<Action, Failure> {
    if is_paused(&*connection) || connection.metadata.deletion_timestamp.is_some() {
        return Ok(Action::requeue(RESYNC));
    }
    let generation = connection.metadata.generation.unwrap_or(0);
    let mut status = connection.status.clone().unwrap_or_default();
    let is_known = status.conditions.iter().any(|known| known.type_ == "Reachable" && known.observed_generation == Some(generation));
    status.observed_generation = connection.metadata.generation;
    set(&mut status.conditions, generation, "Accepted", true, "Valid", "");
    if connection.spec.database.is_none() || is_known {
        write(&connection, status, &context).await?;
        return Ok(Action::requeue(RESYNC));
    }
    let name = format!("{}-probe-{generation}", connection.name_any());
    let jobs: Api<Job> = context.api();
    if jobs.get_opt(&name).await?.is_none() {
        let labels = BTreeMap::from([
            (PROBE_LABEL.to_owned(), connection.name_any()),
            ("app.kubernetes.io/name".to_owned(), "millrace".to_owned()),
            ("app.kubernetes.io/component".to_owned(), "worker".to_owned()),
        ]);
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels),
            owner_references: connection.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let connections = [Connection::clone(&connection)];
        apply_built(&task_and_job(metadata, TaskKind::Probe, &connections, 1, &context)?, &context).await?;
    }
    let pods = context.api::<Pod>().list(&ListParams::default().labels(&format!("job-name={name}"))).await?.items;
    let Some(report) = pods.iter().find_map(said) else {
        write(&connection, status, &context).await?;
        return Ok(Action::requeue(LOOK_EVERY));
    };
    let is_reachable = report.state == StreamState::Finished;
    let word = if is_reachable { "LoggedIn".to_owned() } else { report.kind.clone().unwrap_or_else(|| "Failed".to_owned()) };
    let text = report.error.clone().unwrap_or_default();
    set(&mut status.conditions, generation, "Reachable", is_reachable, &word, &text);
    status.server_version.clone_from(&report.server_version);
    context.event(&*connection, !is_reachable, if is_reachable { "Reachable" } else { "Unreachable" }, &text).await;
    write(&connection, status, &context).await?;
    let _ = jobs.delete(&name, &DeleteParams::background()).await;
    Ok(Action::requeue(RESYNC))
}

/// What a probe's pod said at its end.
fn said(pod: &Pod) -> Option<TaskReport> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    TaskReport::parse(container.state.as_ref()?.terminated.as_ref()?.message.as_deref()?)
}

async fn write(connection: &Connection, status: ConnectionStatus, context: &Context) -> Result<(), Failure> {
    if connection.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let patch = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Connection", "status": status});
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    context.api::<Connection>().patch_status(&connection.name_any(), &parameters, &Patch::Apply(patch)).await?;
    Ok(())
}
