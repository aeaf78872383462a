//! Custom resources as the store. Objects made here carry their id as a label; those made by `kubectl apply` get one derived from creation and UID.

mod configs;
mod connections;
mod mark;
mod mirror;
mod streams;

pub(crate) use streams::phase;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Api, Client, Resource};
use millrace_bus::Nats;
use millrace_core::bus::{Event, Level};
use millrace_core::config::StreamConfig;
use millrace_core::connection::Connection;
use millrace_core::id::{ConfigId, ConnectionId, InstallId, StreamId};
use millrace_core::store::ConfigStore;
use millrace_core::stream::Stream;
use millrace_core::{Error, Kind, Result};
use millrace_crds::{CREATED_ANNOTATION, ID_LABEL, NAME_ANNOTATION, ObjectId, object_id};
use serde_json::json;

use crate::error::failed;
use mark::Mark;
use mirror::{Mirror, Mirrored};

/// The name under which the API server writes.
pub(crate) const FIELD_MANAGER: &str = "millrace-apiserver";
/// The ConfigMap of settings.
pub(crate) const SETTINGS: &str = "millrace-settings";
const INSTALL_ID: &str = "install-id";
/// How often a change is made again because somebody else was quicker.
const TRIES: u32 = 10;

/// The store of one namespace.
#[derive(Clone)]
pub struct ClusterStore {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) nats: Nats,
    pub(crate) max_active_streams: usize,
    connections: Mirror<millrace_crds::Connection>,
    configs: Mirror<millrace_crds::StreamConfig>,
    streams: Mirror<millrace_crds::Stream>,
}

/// Where the mirror of a kind is.
pub(crate) trait Kept: Mirrored {
    /// The mirror of this kind.
    fn mirror(store: &ClusterStore) -> &Mirror<Self>;
}

impl Kept for millrace_crds::Connection {
    fn mirror(store: &ClusterStore) -> &Mirror<Self> {
        &store.connections
    }
}

impl Kept for millrace_crds::StreamConfig {
    fn mirror(store: &ClusterStore) -> &Mirror<Self> {
        &store.configs
    }
}

impl Kept for millrace_crds::Stream {
    fn mirror(store: &ClusterStore) -> &Mirror<Self> {
        &store.streams
    }
}

impl ClusterStore {
    /// The store of a namespace; starts watching it.
    pub fn new(client: Client, namespace: &str, nats: Nats, max_active_streams: usize) -> Self {
        let [connections, configs, streams] = Mark::of(&nats, ["connections", "streamconfigs", "streams"]);
        Self {
            connections: Mirror::new(Api::namespaced(client.clone(), namespace), connections),
            configs: Mirror::new(Api::namespaced(client.clone(), namespace), configs),
            streams: Mirror::new(Api::namespaced(client.clone(), namespace), streams),
            client,
            namespace: namespace.to_owned(),
            nats,
            max_active_streams,
        }
    }

    /// The store of a namespace of the cluster that a kubeconfig names; without one, of the cluster that this process runs in or its `KUBECONFIG` names.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] without a cluster.
    pub async fn connect(kubeconfig: Option<&Path>, namespace: &str, nats: Nats, max_active_streams: usize) -> Result<Self> {
        let nowhere = || Error::new(Kind::Unreachable, "there is no cluster");
        let client = match kubeconfig {
            None => Client::try_default().await.map_err(|error| nowhere().because(error))?,
            Some(path) => {
                let read = kube::config::Kubeconfig::read_from(path).map_err(|error| nowhere().because(error))?;
                let config = kube::Config::from_custom_kubeconfig(read, &kube::config::KubeConfigOptions::default()).await;
                Client::try_from(config.map_err(|error| nowhere().because(error))?).map_err(|error| nowhere().because(error))?
            }
        };
        Ok(Self::new(client, namespace, nats, max_active_streams))
    }

    pub(crate) fn api<K: Resource<Scope = kube::core::NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// This installation's id, minted once.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn install_id(&self) -> Result<InstallId> {
        loop {
            if let Some(id) = self.read_setting(INSTALL_ID).await?.and_then(|text| text.parse().ok()) {
                return Ok(id);
            }
            let minted = ConfigMap {
                metadata: ObjectMeta { name: Some(SETTINGS.to_owned()), ..ObjectMeta::default() },
                data: Some(BTreeMap::from([(INSTALL_ID.to_owned(), InstallId::mint().to_string())])),
                ..ConfigMap::default()
            };
            // Only one replica's id is created; the others read it.
            match self.api::<ConfigMap>().create(&kube::api::PostParams::default(), &minted).await {
                Ok(_) => {}
                Err(error) if crate::error::is_conflict(&error) => {
                    if self.read_setting(INSTALL_ID).await?.is_none() {
                        self.write_setting(INSTALL_ID, InstallId::mint().as_str()).await?;
                    }
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    async fn read_setting(&self, name: &str) -> Result<Option<String>> {
        let found = self.api::<ConfigMap>().get_opt(SETTINGS).await.map_err(failed)?;
        Ok(found.and_then(|settings| settings.data?.remove(name)))
    }

    async fn write_setting(&self, name: &str, value: &str) -> Result<()> {
        let patch = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": SETTINGS}, "data": {name: value}});
        // A field manager per setting, so that writing one does not take another away.
        let parameters = PatchParams::apply(&format!("{FIELD_MANAGER}-{name}")).force();
        self.api::<ConfigMap>().patch(SETTINGS, &parameters, &Patch::Apply(patch)).await.map_err(failed)?;
        Ok(())
    }

    /// The object with this id as the cluster holds it now.
    pub(crate) async fn find<K, I>(&self, id: &I, what: &str) -> Result<K>
    where
        K: Kept,
        I: ObjectId + PartialEq + std::fmt::Display,
    {
        let is_it = |object: &K| is_there(object) && object_id::<I>(object.meta()).is_ok_and(|found| found == *id);
        // The mirror knows the name under which to ask.
        if let Some(name) = K::mirror(self).find(is_it).and_then(|known| known.meta().name.clone())
            && let Some(found) = self.api::<K>().get_opt(&name).await.map_err(failed)?
            && is_it(&found)
        {
            return Ok(found);
        }
        let labelled = self.api::<K>().list(&ListParams::default().labels(&format!("{ID_LABEL}={id}"))).await.map_err(failed)?;
        if let Some(found) = labelled.items.into_iter().find(is_it) {
            return Ok(found);
        }
        let others = self.api::<K>().list(&ListParams::default().labels(&format!("!{ID_LABEL}"))).await.map_err(failed)?;
        let found = others.items.into_iter().find(is_it);
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no {what} `{id}`")))
    }

    /// The object with this id, from the mirror if it holds all that any server has written.
    pub(crate) async fn glance<K, I>(&self, id: &I, what: &str) -> Result<Arc<K>>
    where
        K: Kept,
        I: ObjectId + PartialEq + std::fmt::Display,
    {
        let is_it = |object: &K| is_there(object) && object_id::<I>(object.meta()).is_ok_and(|found| found == *id);
        let mirror = K::mirror(self);
        match mirror.find(is_it) {
            Some(_) if mirror.is_up_to_date().await => match mirror.find(is_it) {
                Some(known) => Ok(known),
                None => self.find(id, what).await.map(Arc::new),
            },
            _ => self.find(id, what).await.map(Arc::new),
        }
    }

    /// All objects of a kind that are not being deleted, oldest first, from the mirror if it holds all that any server has written.
    pub(crate) async fn all<K: Kept>(&self) -> Result<Vec<Arc<K>>> {
        let mirror = K::mirror(self);
        let known = if mirror.is_up_to_date().await { mirror.all() } else { None };
        let Some(mut items) = known else {
            return Ok(self.all_now::<K>().await?.into_iter().map(Arc::new).collect());
        };
        items.retain(|item| is_there(&**item));
        items.sort_by_cached_key(|item| age(&**item));
        Ok(items)
    }

    /// As [`ClusterStore::all`], as the cluster holds them now.
    pub(crate) async fn all_now<K: Kept>(&self) -> Result<Vec<K>> {
        let mut items = self.api::<K>().list(&ListParams::default()).await.map_err(failed)?.items;
        items.retain(is_there);
        items.sort_by_cached_key(age);
        Ok(items)
    }
}

/// Orders objects by their creation.
fn age<K: Resource>(object: &K) -> (i64, i64, String) {
    let meta = object.meta();
    let made = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    (millrace_crds::created_at(meta), made, meta.name.clone().unwrap_or_default())
}

fn is_there<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_none()
}

/// A resource's metadata for something made through the API.
pub(crate) fn metadata(name: &str, id: &str, display: &str, created: i64) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([(ID_LABEL.to_owned(), id.to_owned())])),
        annotations: Some(BTreeMap::from([
            (NAME_ANNOTATION.to_owned(), display.to_owned()),
            (CREATED_ANNOTATION.to_owned(), created.to_string()),
        ])),
        ..ObjectMeta::default()
    }
}

/// A resource's name: what people call it, as far as Kubernetes takes it, and the end of its id.
pub(crate) fn resource_name(display: &str, id: &str) -> String {
    let mut slug = String::new();
    for letter in display.chars().map(|letter| letter.to_ascii_lowercase()) {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() == 30 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    let end: String = id.chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect();
    // Letters in lower case are told apart less well, so more of the id goes in by a digest of it.
    let digest = sha2_hex(id, 4);
    format!("{}-{}{digest}", if slug.is_empty() { "x" } else { slug }, end.to_ascii_lowercase())
}

fn sha2_hex(text: &str, digits: usize) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>().chars().take(digits).collect()
}

impl ConfigStore for ClusterStore {
    fn connections(&self) -> BoxFuture<'_, Result<Vec<Connection>>> {
        self.read_connections().boxed()
    }
    fn connection<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<Connection>> {
        self.read_connection(id).boxed()
    }
    fn create_connection<'a>(&'a self, connection: &'a Connection) -> BoxFuture<'a, Result<()>> {
        self.make_connection(connection).boxed()
    }
    fn update_connection<'a>(&'a self, connection: &'a Connection) -> BoxFuture<'a, Result<()>> {
        self.change_connection(connection).boxed()
    }
    fn delete_connection<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<()>> {
        self.remove_connection(id).boxed()
    }
    fn configs(&self) -> BoxFuture<'_, Result<Vec<StreamConfig>>> {
        self.read_configs().boxed()
    }
    fn config<'a>(&'a self, id: &'a ConfigId) -> BoxFuture<'a, Result<StreamConfig>> {
        self.read_config(id).boxed()
    }
    fn create_config<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<()>> {
        self.make_config(config).boxed()
    }
    fn update_config<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<()>> {
        self.change_config(config).boxed()
    }
    fn delete_config<'a>(&'a self, id: &'a ConfigId) -> BoxFuture<'a, Result<()>> {
        self.remove_config(id).boxed()
    }
    fn streams<'a>(&'a self, config: Option<&'a ConfigId>) -> BoxFuture<'a, Result<Vec<Stream>>> {
        self.read_streams(config).boxed()
    }
    fn stream<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>> {
        self.read_stream(id).boxed()
    }
    fn create_stream<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, Result<()>> {
        self.make_stream(stream).boxed()
    }
    fn update_stream<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, Result<Stream>> {
        self.change_stream(stream).boxed()
    }
    fn delete_stream<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<()>> {
        self.remove_stream(id).boxed()
    }
    fn setting<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        self.read_setting(name).boxed()
    }
    fn set_setting<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<()>> {
        self.write_setting(name, value).boxed()
    }
    /// JetStream retains what was published; nothing is kept twice.
    fn keep_events<'a>(&'a self, _: &'a [Event]) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
    fn events<'a>(&'a self, stream: &'a StreamId, level: Level, limit: usize) -> BoxFuture<'a, Result<Vec<Event>>> {
        async move { self.nats.events(stream, level, limit).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::resource_name;

    #[test]
    fn any_name_becomes_one_that_kubernetes_takes() {
        for name in ["Ümläut & Co.", "", "---", "a very long name that goes on and on and on for ever", "shop"] {
            let made = resource_name(name, "conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0");
            assert!(made.len() <= 45 && made.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{made}");
            assert!(made.starts_with(|c: char| c.is_ascii_alphanumeric()), "{made}");
        }
        assert_ne!(resource_name("a", "conn_xxxxxxAbCdEf"), resource_name("a", "conn_xxxxxxaBcDeF"));
    }
}
