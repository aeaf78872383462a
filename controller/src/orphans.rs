//! What is left of objects that are gone: messages of runs in JetStream, and Jobs whose owners went without them (`--cascade=orphan`, or a finalizer that somebody has
//! taken away). A Job takes its pods and its ConfigMap along.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::{Resource, ResourceExt as _};
use millrace_core::id::StreamId;
use millrace_crds::{Connection, PROBE_ANNOTATION, Stream, StreamConfig, object_id};
use serde::de::DeserializeOwned;

use crate::context::{Context, Failure};
use crate::names::label;
use crate::stream::STREAM_LABEL;
use crate::stream_config::CLEANUP_LABEL;

/// After a start, others settle first.
const FIRST_AFTER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(180);

/// Sweeps again and again; never returns.
pub(crate) async fn run(context: &Context) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        for result in [messages(context).await, jobs(context).await] {
            match result {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "orphans were removed"),
                Err(error) => tracing::warn!(%error, "orphans could not be looked for; it is tried again"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Forgets messages of runs whose Stream is gone.
async fn messages(context: &Context) -> Result<usize, Failure> {
    // In this order: a run that begins in between has its Stream before its first message.
    let retained = context.nats.retained_runs().await?;
    if retained.is_empty() {
        return Ok(0);
    }
    let streams = context.api::<Stream>().list(&ListParams::default()).await?.items;
    let known: BTreeSet<StreamId> = streams.iter().filter_map(|stream| object_id(&stream.metadata).ok()).collect();
    let mut count = 0;
    for run in retained.difference(&known) {
        context.nats.purge(run).await?;
        context.forget(run);
        count += 1;
    }
    Ok(count)
}

/// Deletes Jobs of ours whose Stream, Connection or StreamConfig is gone.
async fn jobs(context: &Context) -> Result<usize, Failure> {
    Ok(jobs_of::<Stream>(STREAM_LABEL, context).await?
        + jobs_of::<Connection>(PROBE_ANNOTATION, context).await?
        + jobs_of::<StreamConfig>(CLEANUP_LABEL, context).await?)
}

async fn jobs_of<K>(owner_label: &str, context: &Context) -> Result<usize, Failure>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let jobs = context.api::<Job>().list(&ListParams::default().labels(owner_label)).await?.items;
    if jobs.is_empty() {
        return Ok(0);
    }
    let owners = context.api::<K>().list(&ListParams::default()).await?.items;
    let labels: BTreeSet<String> = owners.iter().map(|owner| label(&owner.name_any())).collect();
    let is_orphan = |job: &&Job| {
        let owner = job.labels().get(owner_label);
        owner.is_some_and(|owner| !labels.contains(owner)) && job.metadata.deletion_timestamp.is_none()
    };
    let mut count = 0;
    for job in jobs.iter().filter(is_orphan) {
        count += usize::from(context.delete::<Job>(&job.name_any()).await?);
    }
    Ok(count)
}
