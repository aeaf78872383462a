//! One start of a definition: from its resource to Jobs, and from their ends to its status.
//!
//! ```text
//!  attempt 1 ─▶ Job ─┬─ done ─────────────▶ terminal phase
//!                    ├─ failed for good ──▶ FAILED
//!                    └─ broken off ──▶ wait ──▶ attempt 2 ─▶ …
//! ```
//!
//! A Job is created once and never edited; whatever is to change is a new attempt, after the old one's pods are gone.

mod announce;
mod apply;
mod build;
mod dereference;
mod status;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use millrace_bus::Command;
use millrace_core::stream::StreamState;
use millrace_crds::{DesiredState, Stream, StreamStatus, WORKERS_FINALIZER};
use tracing::Instrument as _;

use crate::context::{Context, Failure, RESYNC, is_paused};
use crate::metrics;

pub(crate) use apply::create as apply_built;
pub(crate) use build::{STREAM_LABEL, task_and_job};

/// A running stream is looked at so often: commands are said again, counters are taken.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A worker that was asked to stop may take so long before its pod is deleted.
pub(crate) const STOP_PATIENCE: i64 = 15;

/// Reconciles streams; never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let streams: Api<Stream> = context.api();
    let jobs: Api<Job> = context.api();
    let pods: Api<Pod> = context.api();
    let controller = Controller::new(streams, watcher::Config::default())
        .owns(jobs, watcher::Config::default())
        // A Job's status says nothing of a pod that cannot start.
        .watches(pods, watcher::Config::default().labels(STREAM_LABEL), of_pod);
    metrics::watch(controller.store());
    controller
        .run(|stream, context| metrics::measure("Stream", reconcile(stream, context)), on_failure, context)
        .for_each(async |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a stream was not reconciled");
            }
        })
        .await;
}

/// The stream that a pod works for.
fn of_pod(pod: Pod) -> Option<ObjectRef<Stream>> {
    let stream = pod.labels().get(STREAM_LABEL)?;
    Some(ObjectRef::new(stream).within(&pod.namespace()?))
}

fn on_failure(stream: Arc<Stream>, error: &kube::runtime::finalizer::Error<Failure>, _: Arc<Context>) -> Action {
    tracing::warn!(stream = stream.name_any(), %error, "a stream could not be reconciled; it is tried again");
    Action::requeue(Duration::from_secs(3))
}

async fn reconcile(stream: Arc<Stream>, context: Arc<Context>) -> Result<Action, kube::runtime::finalizer::Error<Failure>> {
    let is_leaving = stream.metadata.deletion_timestamp.is_some();
    if (is_paused(&*stream) || context.is_terminating()) && !is_leaving {
        return Ok(Action::requeue(RESYNC));
    }
    let streams: Api<Stream> = context.api();
    finalizer(&streams, WORKERS_FINALIZER, stream, async |event| match event {
        Event::Apply(stream) => advance(&stream, &context).await,
        Event::Cleanup(stream) => clean_up(&stream, &context).await,
    })
    .await
}

/// The way: dereference → validate → build → apply → status.
async fn advance(stream: &Stream, context: &Context) -> Result<Action, Failure> {
    if phase(stream).is_terminal() {
        return end(stream, context).await;
    }
    let observed = apply::observe(stream, context).await?;
    let mut next = status::next(stream, &observed, context);
    if next.phase.is_some_and(StreamState::is_terminal) {
        apply::delete_job(&observed, context).await?;
    } else if (observed.job.is_none() || next.is_attempt_over) && stream.spec.desired != DesiredState::Stopped {
        if !status::may_try(&next) {
            apply::write_status(stream, next, context).await?;
            return Ok(Action::requeue(LOOK_EVERY));
        }
        let span = metrics::attempt_span(stream, next.attempt + 1);
        attempt(stream, &mut next, context).instrument(span).await?;
    } else {
        command(stream, context).await?;
        apply::hurry_stop(stream, &observed, context).await?;
    }
    let phase = next.phase;
    apply::write_status(stream, next, context).await?;
    metrics::ended(stream.uid(), phase);
    Ok(Action::requeue(LOOK_EVERY))
}

/// Begins the next attempt, if everything that the stream names is there.
async fn attempt(stream: &Stream, next: &mut StreamStatus, context: &Context) -> Result<(), Failure> {
    match dereference::dereference(stream, context).await? {
        Ok(connections) => {
            let attempt = next.attempt + 1;
            match build::build(stream, attempt, &connections, context) {
                Ok(built) => {
                    apply::create(&built, context).await?;
                    status::attempted(stream, next, attempt);
                    metrics::attempted();
                    context.event(stream, false, "Started", &format!("attempt {attempt} has begun")).await;
                }
                Err(error) => status::refused(stream, next, &error),
            }
        }
        Err(problem) => status::waiting(stream, next, &problem),
    }
    Ok(())
}

/// After the end: nothing but the generation that status speaks of.
async fn end(stream: &Stream, context: &Context) -> Result<Action, Failure> {
    let status = stream.status.clone().unwrap_or_default();
    if status.observed_generation != stream.metadata.generation {
        apply::write_status(stream, status::acknowledged(stream), context).await?;
    }
    Ok(Action::requeue(RESYNC))
}

async fn command(stream: &Stream, context: &Context) -> Result<(), Failure> {
    let wish = match stream.spec.desired {
        DesiredState::Running => Command::Run,
        DesiredState::Paused => Command::Pause,
        DesiredState::Stopped => Command::Stop,
    };
    context.nats.command(&millrace_crds::object_id(&stream.metadata)?, wish).await;
    Ok(())
}

/// A stream that is deleted loses its workers first, then its logs and counters, then its object.
async fn clean_up(stream: &Stream, context: &Context) -> Result<Action, Failure> {
    apply::delete_jobs(stream, context).await?;
    // The finalizer goes once this returns, so the pods must be gone before.
    apply::wait_for_pods(stream, context).await?;
    // Somebody may have written something else into the label: then there is nothing under its name.
    let Ok(id) = millrace_crds::object_id(&stream.metadata) else { return Ok(Action::await_change()) };
    context.forget(&id);
    if let Err(error) = context.nats.purge(&id).await {
        tracing::debug!(error = %error.chain(), "the run's logs age out by themselves");
    }
    Ok(Action::await_change())
}

pub(crate) fn phase(stream: &Stream) -> StreamState {
    stream.status.as_ref().and_then(|status| status.phase).unwrap_or(StreamState::Undefined)
}
