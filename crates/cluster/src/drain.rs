//! Before an uninstall: streams end, the controller goes, and nothing is left that only it could take away.
//!
//! ```text
//!  definitions held ─▶ streams stopped ─▶ controller scaled to none ─▶ workers' Jobs deleted ─▶ finalizers taken ─▶ definitions released
//! ```
//!
//! The order matters: a controller that still runs would start the streams of definitions whose `state` is `Running` again, and would put
//! its finalizer back as soon as it is taken. Custom resources and Secrets stay. Every step may be done twice, so a drain that was broken
//! off is simply started again.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt as _};
use millrace_core::{Error, Kind, Result};
use millrace_crds::{Connection, DesiredState, PAUSE_ANNOTATION, Stream, StreamConfig};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::error::{failed, is_conflict, is_missing};
use crate::store::{SETTINGS, phase};

/// What all our finalizers begin with.
const FINALIZER_PREFIX: &str = "millrace.dev/";
/// On definitions that a drain, and not a person, keeps from the controller.
const HELD_ANNOTATION: &str = "millrace.dev/held-by-drain";
/// What worker pods, their Jobs and their tasks have in common.
const WORKERS: &str = "app.kubernetes.io/name=millrace,app.kubernetes.io/component=worker";
/// The controllers' Lease.
const LEASE: &str = "millrace-controller";
/// How long pods may take to go once they were told.
const PODS_PATIENCE: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often finalizers are taken again because somebody else changed the object in between.
const TRIES: u32 = 10;

/// What a drain is told.
#[derive(Debug, Clone)]
pub struct DrainConfig {
    /// Where the custom resources are.
    pub namespace: String,
    /// The controller's Deployment; without one, it must have been ended by somebody else.
    pub controller: Option<String>,
    /// How long streams may take to stop.
    pub patience: Duration,
}

/// What a drain did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// Streams that were told to stop.
    pub stopped: usize,
    /// Streams that had not ended when the patience was over. Their workers were ended by force.
    pub unfinished: usize,
    /// Objects that lost finalizers.
    pub freed: usize,
}

/// Drains a namespace of the cluster that this process runs in or its `KUBECONFIG` names.
///
/// # Errors
/// [`Kind::Unreachable`] without a cluster, [`Kind::PermissionDenied`] where the account may not do it.
pub async fn drain(config: &DrainConfig) -> Result<Drained> {
    let client = Client::try_default().await.map_err(|error| Error::new(Kind::Unreachable, "there is no cluster").because(error))?;
    let drain = Drain { client, config };
    drain.hold().await?;
    let (stopped, unfinished) = drain.stop().await?;
    drain.end_controller().await?;
    drain.remove_workers().await?;
    let freed = drain.free::<Stream>().await? + drain.free::<StreamConfig>().await? + drain.free::<Connection>().await?;
    drain.remove_state().await?;
    drain.release().await?;
    Ok(Drained { stopped, unfinished, freed })
}

struct Drain<'a> {
    client: Client,
    config: &'a DrainConfig,
}

impl Drain<'_> {
    fn api<K: Resource<Scope = NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.config.namespace)
    }

    /// All objects of a kind, without what they say: an object that this version cannot read is drained too.
    async fn all<K>(&self) -> Result<Vec<PartialObjectMeta<K>>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        match self.api::<K>().list_metadata(&ListParams::default()).await {
            Ok(found) => Ok(found.items),
            // The definitions are gone already, and with them all objects.
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Keeps the controller from starting streams anew.
    async fn hold(&self) -> Result<()> {
        for config in self.all::<StreamConfig>().await? {
            if config.annotations().get(PAUSE_ANNOTATION).is_none_or(|value| value != "true") {
                self.annotate(&config.name_any(), json!("true")).await?;
            }
        }
        Ok(())
    }

    /// Gives the definitions back that were held; those that people paused stay paused.
    async fn release(&self) -> Result<()> {
        for config in self.all::<StreamConfig>().await? {
            if config.annotations().contains_key(HELD_ANNOTATION) {
                self.annotate(&config.name_any(), serde_json::Value::Null).await?;
            }
        }
        Ok(())
    }

    async fn annotate(&self, config: &str, value: serde_json::Value) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {PAUSE_ANNOTATION: value, HELD_ANNOTATION: value}}});
        ignoring_missing(self.api::<StreamConfig>().patch_metadata(config, &PatchParams::default(), &Patch::Merge(patch)).await)
    }

    /// Tells streams to stop until all have ended or the patience is over; answers how many were told and how many have not ended.
    async fn stop(&self) -> Result<(usize, usize)> {
        let end = Instant::now() + self.config.patience;
        let mut told = BTreeSet::new();
        loop {
            let unfinished = self.unfinished().await?;
            for stream in unfinished.iter().filter(|stream| stream.spec.desired != DesiredState::Stopped) {
                let patch = Patch::Merge(json!({"spec": {"desired": DesiredState::Stopped}}));
                ignoring_missing(self.api::<Stream>().patch(&stream.name_any(), &PatchParams::default(), &patch).await)?;
                tracing::info!(stream = stream.name_any(), "told to stop");
                told.insert(stream.name_any());
            }
            // Nobody ends a stream whose reconciliation is paused.
            let awaited = unfinished.iter().filter(|stream| stream.annotations().get(PAUSE_ANNOTATION).is_none_or(|value| value != "true"));
            if awaited.count() == 0 || Instant::now() > end {
                return Ok((told.len(), unfinished.len()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn unfinished(&self) -> Result<Vec<Stream>> {
        match self.api::<Stream>().list(&ListParams::default()).await {
            Ok(found) => Ok(found.items.into_iter().filter(|stream| !phase(stream).is_terminal()).collect()),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Scales the controller to none and waits until its pods are gone.
    async fn end_controller(&self) -> Result<()> {
        let Some(name) = &self.config.controller else { return Ok(()) };
        let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
        let scale = match self.api::<Deployment>().patch_scale(name, &PatchParams::default(), &none).await {
            Ok(scale) => scale,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
        self.wait_for_pods(&selector).await
    }

    /// Removes what workers ran from. Of streams that have ended, it would stay until somebody deletes them.
    async fn remove_workers(&self) -> Result<()> {
        let own = ListParams::default().labels(WORKERS);
        for job in self.api::<Job>().list_metadata(&own).await.map_err(failed)?.items {
            ignoring_missing(self.api::<Job>().delete(&job.name_any(), &DeleteParams::background()).await)?;
        }
        for task in self.api::<ConfigMap>().list_metadata(&own).await.map_err(failed)?.items {
            ignoring_missing(self.api::<ConfigMap>().delete(&task.name_any(), &DeleteParams::default()).await)?;
        }
        self.wait_for_pods(WORKERS).await
    }

    /// Removes what the controller and the API servers made for themselves. API keys stay: people hold their other half.
    async fn remove_state(&self) -> Result<()> {
        ignoring_missing(self.api::<Lease>().delete(LEASE, &DeleteParams::default()).await)?;
        ignoring_missing(self.api::<ConfigMap>().delete(SETTINGS, &DeleteParams::default()).await)
    }

    /// Returns once no pod of these is left, or they have had their time.
    async fn wait_for_pods(&self, selector: &str) -> Result<()> {
        let end = Instant::now() + PODS_PATIENCE;
        let pods = ListParams::default().labels(selector);
        while !selector.is_empty() && !self.api::<Pod>().list_metadata(&pods).await.map_err(failed)?.items.is_empty() {
            if Instant::now() > end {
                tracing::warn!(selector, "pods are still there");
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Takes our finalizers from all objects of a kind; those of others stay. Answers how many objects had some.
    async fn free<K>(&self) -> Result<usize>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let mut freed = 0;
        for attempt in 0..TRIES {
            let mut is_done = true;
            for object in self.all::<K>().await? {
                let Some(patch) = without_finalizers(&object) else { continue };
                match self.api::<K>().patch_metadata(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
                    Ok(_) => freed += 1,
                    Err(error) if is_missing(&error) => freed += 1,
                    Err(error) if is_conflict(&error) && attempt + 1 < TRIES => is_done = false,
                    Err(error) => return Err(failed(error)),
                }
            }
            if is_done {
                break;
            }
        }
        Ok(freed)
    }
}

/// What takes our finalizers from an object, if it has any. It holds only for the version that was looked at.
fn without_finalizers<K: Resource>(object: &K) -> Option<serde_json::Value> {
    let (own, others): (Vec<&String>, Vec<&String>) = object.finalizers().iter().partition(|name| name.starts_with(FINALIZER_PREFIX));
    if own.is_empty() {
        return None;
    }
    Some(json!({"metadata": {"finalizers": others, "resourceVersion": object.resource_version()}}))
}

fn ignoring_missing<T>(result: kube::Result<T>) -> Result<()> {
    match result {
        Err(error) if !is_missing(&error) => Err(failed(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn object(finalizers: &[&str]) -> ConfigMap {
        let finalizers = Some(finalizers.iter().map(|name| (*name).to_owned()).collect());
        let metadata = ObjectMeta { finalizers, resource_version: Some("7".to_owned()), ..ObjectMeta::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    #[test]
    fn only_our_finalizers_are_taken_and_only_from_the_version_that_was_seen() {
        assert_eq!(without_finalizers(&object(&[])), None);
        assert_eq!(without_finalizers(&object(&["example.org/mine"])), None);
        let patch = without_finalizers(&object(&["millrace.dev/workers", "example.org/mine", "millrace.dev/other"]));
        assert_eq!(patch, Some(json!({"metadata": {"finalizers": ["example.org/mine"], "resourceVersion": "7"}})));
    }
}
