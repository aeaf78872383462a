//! A namespace that is being deleted: nothing of ours may keep it. Its pods go first, this one among them, and nobody would be left to do what finalizers wait for.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use millrace_crds::{Connection, Stream, StreamConfig};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::{Context, Failure};

/// The namespace is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What all our finalizers begin with.
const OURS: &str = "millrace.dev/";
/// Jobs of workers.
const WORKERS: &str = "app.kubernetes.io/name=millrace,app.kubernetes.io/component=worker";

/// Looks whether the namespace is to go, and lets it; never returns.
pub(crate) async fn watch(context: &Context) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let_go_if_terminating(context).await;
    }
}

/// Takes our finalizers away if the namespace is being deleted; workers lose their pods with it.
pub(crate) async fn let_go_if_terminating(context: &Context) {
    let api: Api<Namespace> = Api::all(context.client.clone());
    let is_terminating = match api.get_opt(&context.namespace).await {
        Ok(namespace) => namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()),
        Err(error) => {
            tracing::debug!(%error, "the namespace could not be looked at");
            false
        }
    };
    if !is_terminating {
        return;
    }
    if context.set_terminating() {
        tracing::warn!("the namespace is being deleted: ledgers at targets keep their entries, and finalizers are let go");
    }
    let results =
        [end_jobs(context).await, free::<Stream>(context).await, free::<StreamConfig>(context).await, free::<Connection>(context).await];
    for error in results.into_iter().filter_map(Result::err) {
        tracing::warn!(%error, "finalizers could not be let go");
    }
}

/// The cluster keeps a failed pod of a Job until its successor is there, which no namespace that is being deleted lets come: Jobs must go for their pods to go.
async fn end_jobs(context: &Context) -> Result<(), Failure> {
    for job in context.api::<Job>().list(&ListParams::default().labels(WORKERS)).await?.items {
        context.delete::<Job>(&job.name_any()).await?;
    }
    Ok(())
}

async fn free<K>(context: &Context) -> Result<(), Failure>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = context.api();
    for object in api.list(&ListParams::default()).await?.items {
        let others: Vec<&String> = object.finalizers().iter().filter(|finalizer| !finalizer.starts_with(OURS)).collect();
        if others.len() == object.finalizers().len() {
            continue;
        }
        let patch = json!({"metadata": {"finalizers": others}});
        match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    Ok(())
}
