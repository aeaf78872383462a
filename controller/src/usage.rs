//! Who names a connection.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use kube::api::ListParams;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use millrace_crds::{Connection, IN_USE_FINALIZER, Stream, StreamConfig, StreamConfigSpec};
use serde::de::DeserializeOwned;

use crate::context::{Context, Failure};
use crate::finalizers;
use crate::stream::phase;

/// So many are named in a sentence.
const NAMED: usize = 5;

/// The connections that a definition names, each once.
pub(crate) fn names(spec: &StreamConfigSpec) -> Vec<String> {
    let sources = spec.source.connections.iter().map(|source| source.connection.clone());
    let mut names: Vec<String> = sources.chain([spec.target.connection.clone()]).collect();
    names.sort();
    names.dedup();
    names
}

/// Definitions and streams as watches show them.
pub(crate) struct Users {
    pub(crate) context: Arc<Context>,
    configs: Store<StreamConfig>,
    streams: Store<Stream>,
}

impl Users {
    /// With the changes that are to make their connections be looked at; the stores have them by then.
    pub(crate) fn watch(context: Arc<Context>) -> (Self, impl Changes<StreamConfig>, impl Changes<Stream>) {
        let (configs, config_changes) = watched(context.api());
        let (streams, stream_changes) = watched(context.api());
        (Self { context, configs, streams }, config_changes, stream_changes)
    }

    /// Definitions and unfinished streams that name a connection. A definition counts until it is gone: its clean-up logs in once more.
    ///
    /// A watch may be behind, so one that is held is let go only after a look at what the cluster has.
    pub(crate) async fn of(&self, connection: &Connection) -> Result<Vec<String>, Failure> {
        let name = connection.name_any();
        let known = named(&name, self.configs.state().iter().map(Arc::as_ref), self.streams.state().iter().map(Arc::as_ref));
        // A store that is not there yet knows too few.
        let is_ready = self.configs.wait_until_ready().now_or_never().is_some() && self.streams.wait_until_ready().now_or_never().is_some();
        if is_ready && (!known.is_empty() || !finalizers::has(connection, IN_USE_FINALIZER)) {
            return Ok(known);
        }
        let all = ListParams::default();
        let configs = self.context.api::<StreamConfig>().list(&all).await?.items;
        let streams = self.context.api::<Stream>().list(&all).await?.items;
        Ok(named(&name, configs.iter(), streams.iter()))
    }
}

/// Objects that have changed or gone.
pub(crate) trait Changes<K>: futures::Stream<Item = watcher::Result<K>> + Send + 'static {}
impl<K, S: futures::Stream<Item = watcher::Result<K>> + Send + 'static> Changes<K> for S {}

/// Those of one kind, and their changes, each after the store has it. A store takes a list only when it is whole, so its objects are held back until then.
fn watched<K>(api: Api<K>) -> (Store<K>, impl Changes<K>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let mut listed = Vec::new();
    let changes = watcher(api, watcher::Config::default()).reflect(writer).flat_map(move |event| {
        let changed = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => vec![Ok(object)],
            Ok(watcher::Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.push(object);
                Vec::new()
            }
            Ok(watcher::Event::InitDone) => listed.drain(..).map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        futures::stream::iter(changed)
    });
    (store, changes)
}

fn named<'a>(connection: &str, configs: impl Iterator<Item = &'a StreamConfig>, streams: impl Iterator<Item = &'a Stream>) -> Vec<String> {
    let uses = |spec: &StreamConfigSpec| names(spec).iter().any(|name| name == connection);
    let configs = configs.filter(|config| uses(&config.spec)).map(|config| format!("StreamConfig `{}`", config.name_any()));
    let streams = streams.filter(|stream| !phase(stream).is_terminal() && uses(&stream.spec.config));
    let streams = streams.map(|stream| format!("Stream `{}`", stream.name_any()));
    // Stores have no order, and the sentence about users is to be news only if they are others.
    let sorted = |mut users: Vec<String>| {
        users.sort();
        users
    };
    [sorted(configs.collect()), sorted(streams.collect())].concat()
}

/// The first few users, and how many more there are.
pub(crate) fn sentence(users: &[String]) -> String {
    let mut text = users.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if users.len() > NAMED {
        text.push_str(&format!(" and {} more", users.len() - NAMED));
    }
    text
}

/// The connections that are to be looked at when a definition has changed.
pub(crate) fn of_config(config: StreamConfig) -> Vec<ObjectRef<Connection>> {
    references(config.namespace(), &config.spec)
}

/// The connections that are to be looked at when a stream has changed.
pub(crate) fn of_stream(stream: Stream) -> Vec<ObjectRef<Connection>> {
    references(stream.namespace(), &stream.spec.config)
}

fn references(namespace: Option<String>, spec: &StreamConfigSpec) -> Vec<ObjectRef<Connection>> {
    let namespace = namespace.unwrap_or_default();
    names(spec).iter().map(|name| ObjectRef::new(name).within(&namespace)).collect()
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn many_users_are_counted() {
        let users: Vec<String> = (1..=7).map(|number| format!("Stream `s-{number}`")).collect();
        assert_eq!(sentence(&users[..2]), "Stream `s-1`, Stream `s-2`");
        assert!(sentence(&users).ends_with("Stream `s-5` and 2 more"), "{}", sentence(&users));
    }
}
