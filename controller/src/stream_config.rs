//! Definitions: whether they hold, and the streams of those whose `state` is set.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Resource as _, ResourceExt as _};
use millrace_core::config::check_supported;
use millrace_core::id::ConfigId;
use millrace_core::stream::StreamState;
use millrace_core::{Error, Kind, validate};
use millrace_crds::{
    CLEANUP_FINALIZER, ConfigReference, Connection, DeletionPolicy, DesiredState, ID_LABEL, Stream, StreamConfig, StreamConfigStatus,
    StreamSpec, object_id,
};
use serde_json::json;

use crate::cleanup;
use crate::conditions::{sentence, set};
use crate::context::{Context, FIELD_MANAGER, Failure, RESYNC, is_paused};
use crate::stream::phase;
use crate::{finalizers, metrics, names};

/// A definition that waits for something is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The condition of a definition whose stream cannot begin yet.
const WAITING: &str = "Waiting";

/// Marks Jobs that clean up after a definition.
pub(crate) const CLEANUP_LABEL: &str = "millrace.dev/cleanup";

/// Reconciles definitions; never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let configs: Api<StreamConfig> = context.api();
    let streams: Api<Stream> = context.api();
    let jobs: Api<Job> = context.api();
    Controller::new(configs, watcher::Config::default())
        // Also those that nobody owns, by hand or after an orphaning deletion.
        .watches(streams, watcher::Config::default(), of_stream)
        .watches(jobs, watcher::Config::default().labels(CLEANUP_LABEL), cleanup::of_job)
        .run(|config, context| metrics::measure("StreamConfig", reconcile(config, context)), on_failure, context)
        .for_each(async |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a definition was not reconciled");
            }
        })
        .await;
}

/// The definition that a stream is of.
fn of_stream(stream: Stream) -> Option<ObjectRef<StreamConfig>> {
    Some(ObjectRef::new(&stream.spec.config_ref.name).within(&stream.namespace()?))
}

fn on_failure(config: Arc<StreamConfig>, error: &Failure, _: Arc<Context>) -> Action {
    error.tell(&config.name_any(), "a definition could not be reconciled; it is tried again");
    Action::requeue(Duration::from_secs(3))
}

async fn reconcile(config: Arc<StreamConfig>, context: Arc<Context>) -> Result<Action, Failure> {
    if config.metadata.deletion_timestamp.is_some() {
        return cleanup::advance(&config, &context).await;
    }
    if is_paused(&*config) || context.is_terminating() {
        return Ok(Action::requeue(RESYNC));
    }
    let is_held = config.spec.deletion_policy == DeletionPolicy::Delete;
    if finalizers::has(&*config, CLEANUP_FINALIZER) != is_held {
        // The object that comes back is looked at.
        finalizers::set(&*config, CLEANUP_FINALIZER, is_held, &context).await?;
        return Ok(Action::requeue(LOOK_EVERY));
    }
    let id: Result<ConfigId, Error> = object_id(&config.metadata);
    let mut status = config.status.clone().unwrap_or_default();
    let generation = config.metadata.generation.unwrap_or(0);
    status.observed_generation = config.metadata.generation;
    let mut streams = streams_of(&config, &context).await?;
    let verdict = match &id {
        Ok(_) => check(&config, &context).await?,
        Err(error) => Err(("Invalid", sentence(error))),
    };
    let is_accepted = verdict.is_ok();
    match &verdict {
        Ok(()) => set(&mut status.conditions, generation, "Accepted", true, "Valid", ""),
        Err((word, text)) => set(&mut status.conditions, generation, "Accepted", false, word, text),
    }
    let turn = match &id {
        Ok(id) if is_accepted => lead(&config, id, &streams, &mut status, &context).await?,
        _ => Turn::None,
    };
    let is_waiting = tell_of_turn(&config, &turn, &mut status, &context).await;
    if let Turn::Begins(stream) = turn {
        streams.push(*stream);
    }
    let newest = streams.last();
    // Also of streams that the API server made: a number is never used twice.
    status.last_run = status.last_run.max(newest.map_or(0, run_number));
    if let Some(newest) = newest.filter(|stream| run_number(stream) == status.last_run) {
        status.observed_nonce.clone_from(&newest.spec.config.run_nonce);
        status.phase = Some(phase(newest).as_str().to_owned());
    } else {
        // Somebody has deleted it. How it ended is remembered, if it did: nothing is run again for that.
        status.phase = status.phase.filter(|phase| StreamState::parse(phase).is_some_and(StreamState::is_terminal));
    }
    status.active_stream = newest.filter(|stream| !phase(stream).is_terminal()).map(|stream| stream.name_any());
    cleanup::note_abandoned(&mut status, &streams);
    let is_active = status.active_stream.is_some();
    set(&mut status.conditions, generation, "Progressing", is_active, if is_active { "StreamActive" } else { "Idle" }, "");
    write(&config, status, &context).await?;
    if is_accepted {
        // Once it is written what they were: the newest may be among them.
        trim_history(&config, &streams, &context).await?;
    }
    Ok(Action::requeue(if is_accepted && !is_waiting { RESYNC } else { LOOK_EVERY }))
}

/// A definition's streams, oldest first.
pub(crate) async fn streams_of(config: &StreamConfig, context: &Context) -> Result<Vec<Stream>, Failure> {
    let name = config.name_any();
    let all = context.api::<Stream>().list(&ListParams::default()).await?.items;
    let mut own: Vec<Stream> = all.into_iter().filter(|stream| stream.spec.config_ref.name == name).collect();
    own.sort_by_key(run_number);
    Ok(own)
}

/// The number at the end of a stream's name.
fn run_number(stream: &Stream) -> u64 {
    stream.name_any().rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// Whether the definition could be started: its rules, and its connections. A word and a sentence say why not.
async fn check(config: &StreamConfig, context: &Context) -> Result<Result<(), (&'static str, String)>, Failure> {
    let connections = context.api::<Connection>().list(&ListParams::default()).await?.items;
    let spec = config.spec.to_core(|name| {
        let found = connections.iter().find(|connection| connection.metadata.name.as_deref() == Some(name));
        let missing = || Error::new(Kind::NotFound, format!("there is no Connection `{name}` in this namespace"));
        object_id(&found.ok_or_else(missing)?.metadata)
    });
    let named = names::check(&config.name_any(), names::MAX_CONFIG);
    let verdict = named.and(spec).and_then(|spec| {
        validate::check(&spec)?;
        check_supported(&spec).map_err(Error::first_of)
    });
    Ok(verdict.map_err(|error| {
        let word = match error.kind() {
            Kind::NotFound => "ReferenceMissing",
            Kind::NotSupported => "NotSupported",
            _ => "Invalid",
        };
        (word, sentence(&error))
    }))
}

/// Whether a definition that owns its streams' lives begins one.
enum Turn {
    /// There is none to begin.
    None,
    /// It was made.
    Begins(Box<Stream>),
    /// As many as may be are active.
    Waits(String),
}

/// Says that a definition waits, as long as it does; answers whether.
async fn tell_of_turn(config: &StreamConfig, turn: &Turn, status: &mut StreamConfigStatus, context: &Context) -> bool {
    let generation = config.metadata.generation.unwrap_or(0);
    let waited = status.conditions.iter().find(|condition| condition.type_ == WAITING).map(|condition| condition.status == "True");
    match (turn, waited) {
        (Turn::Waits(text), waited) => {
            if waited != Some(true) {
                context.event(config, false, "Waiting", text).await;
            }
            set(&mut status.conditions, generation, WAITING, true, "TooManyStreams", text);
        }
        (_, Some(_)) => set(&mut status.conditions, generation, WAITING, false, "NothingToWaitFor", ""),
        (_, None) => {}
    }
    matches!(turn, Turn::Waits(_))
}

/// Where the definition owns its stream's life: starts it, or tells it what it should be doing.
async fn lead(
    config: &StreamConfig,
    id: &ConfigId,
    streams: &[Stream],
    status: &mut StreamConfigStatus,
    context: &Context,
) -> Result<Turn, Failure> {
    let Some(state) = config.spec.state else { return Ok(Turn::None) };
    let active = streams.iter().find(|stream| !phase(stream).is_terminal());
    if let Some(active) = active {
        // A stopped stream stays stopped, whatever is wanted next.
        if active.spec.desired != state && active.spec.desired != DesiredState::Stopped {
            let patch = json!({"spec": {"desired": state}});
            context.api::<Stream>().patch(&active.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        return Ok(Turn::None);
    }
    // The newest stream's copy is surer than the status, which may be written a moment later. One that is older than what the status speaks of says nothing.
    let newest = streams.last().filter(|last| run_number(last) >= status.last_run);
    let carried_out = newest.map_or(&status.observed_nonce, |last| &last.spec.config.run_nonce);
    let is_new = streams.is_empty() && status.last_run == 0 || config.spec.run_nonce != *carried_out;
    let ended_as = newest.map(|last| phase(last).as_str()).or(status.phase.as_deref());
    let is_after_stop = status.last_run > 0 && ended_as == Some(StreamState::Stopped.as_str());
    if state != DesiredState::Running || !(is_new || is_after_stop) {
        return Ok(Turn::None);
    }
    // One definition at a time: of several that look at once, each would find a place.
    let _turn = context.turn.lock().await;
    let unfinished = context.api::<Stream>().list(&ListParams::default()).await?.items;
    let unfinished = unfinished.iter().filter(|stream| !phase(stream).is_terminal()).count();
    if unfinished >= context.max_active_streams {
        return Ok(Turn::Waits(format!("{unfinished} streams are active, and no more may be; it starts when one of them ends")));
    }
    let number = streams.iter().map(run_number).max().unwrap_or(0).max(status.last_run) + 1;
    let stream = new_stream(config, id, number);
    match context.api::<Stream>().create(&PostParams::default(), &stream).await {
        Ok(made) => {
            status.last_run = number;
            status.observed_nonce.clone_from(&config.spec.run_nonce);
            context.event(config, false, "StreamCreated", &format!("`{}` was created", made.name_any())).await;
            Ok(Turn::Begins(Box::new(made)))
        }
        Err(kube::Error::Api(answer)) if answer.code == 409 => {
            status.last_run = number;
            Ok(Turn::None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A stream with a copy of its definition.
fn new_stream(config: &StreamConfig, id: &ConfigId, number: u64) -> Stream {
    let name = config.name_any();
    let stream_id = millrace_core::id::StreamId::mint();
    Stream {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{number}")),
            labels: Some(BTreeMap::from([(ID_LABEL.to_owned(), stream_id.to_string())])),
            owner_references: config.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: StreamSpec {
            config_ref: ConfigReference { name, id: id.to_string(), generation: config.metadata.generation.unwrap_or(0) },
            config: config.spec.clone(),
            desired: DesiredState::Running,
        },
        status: None,
    }
}

/// Removes the oldest ended streams beyond what the definition keeps.
async fn trim_history(config: &StreamConfig, streams: &[Stream], context: &Context) -> Result<(), Failure> {
    let ended: Vec<&Stream> = streams.iter().filter(|stream| phase(stream).is_terminal()).collect();
    let surplus = ended.len().saturating_sub(config.spec.history_limit as usize);
    for stream in ended.into_iter().take(surplus) {
        context.delete::<Stream>(&stream.name_any()).await?;
    }
    Ok(())
}

/// Writes the status of the object as it was read: what was concluded from an older one must not undo what was concluded from a newer one.
pub(crate) async fn write(config: &StreamConfig, status: StreamConfigStatus, context: &Context) -> Result<(), Failure> {
    if config.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let metadata = json!({"resourceVersion": config.resource_version()});
    let patch = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "StreamConfig", "metadata": metadata, "status": status});
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match context.api::<StreamConfig>().patch_status(&config.name_any(), &parameters, &Patch::Apply(patch)).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
