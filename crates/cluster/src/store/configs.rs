//! Definitions.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};
use millrace_core::config::{StreamConfig, StreamSpec};
use millrace_core::id::{ConfigId, ConnectionId};
use millrace_core::{Error, Kind, Result};
use millrace_crds::{Connection, Stream, StreamConfig as Object, StreamConfigSpec, created_at, object_id};

use super::streams::phase;
use super::{ClusterStore, Kept as _, TRIES, metadata, resource_name};
use crate::error::{failed, is_conflict, is_missing};

/// Connections' names and ids, each found by the other.
pub(super) struct Names(Vec<(String, ConnectionId)>);

impl Names {
    fn of<'a>(connections: impl Iterator<Item = &'a Connection>) -> Self {
        let pair = |connection: &Connection| Some((connection.name_any(), object_id(&connection.metadata).ok()?));
        Self(connections.filter_map(pair).collect())
    }

    pub(super) fn id(&self, name: &str) -> Result<ConnectionId> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, id)| id.clone());
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no Connection `{name}` in this namespace")))
    }

    fn name(&self, id: &str) -> Result<String> {
        let found = self.0.iter().find(|(_, known)| known.as_str() == id).map(|(name, _)| name.clone());
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no connection `{id}`")))
    }
}

impl ClusterStore {
    /// Connections as the mirror knows them.
    pub(super) async fn names(&self) -> Result<Names> {
        let connections = self.all::<Connection>().await?;
        Ok(Names::of(connections.iter().map(|connection| &**connection)))
    }

    /// Connections as the cluster holds them now.
    pub(super) async fn names_now(&self) -> Result<Names> {
        let connections = self.all_now::<Connection>().await?;
        Ok(Names::of(connections.iter()))
    }

    pub(super) async fn read_configs(&self) -> Result<Vec<StreamConfig>> {
        // As it is now: whatever another server has written is in it.
        let objects = self.all_now::<Object>().await?;
        let mut names = self.names().await?;
        // One that names a connection that is not there cannot be said in the API's words; the controller says why.
        if objects.iter().any(|object| to_core(&object.spec, &names).is_err()) {
            names = self.names_now().await?;
        }
        let read = |object: &Object| {
            let spec = to_core(&object.spec, &names).ok()?;
            Some(StreamConfig { id: object_id(&object.metadata).ok()?, created: created_at(&object.metadata), spec })
        };
        Ok(objects.iter().filter_map(read).collect())
    }

    pub(super) async fn read_config(&self, id: &ConfigId) -> Result<StreamConfig> {
        let object: Object = self.find(id, "stream config").await?;
        let spec = match to_core(&object.spec, &self.names().await?) {
            Ok(spec) => spec,
            Err(_) => to_core(&object.spec, &self.names_now().await?)?,
        };
        Ok(StreamConfig { id: id.clone(), created: created_at(&object.metadata), spec })
    }

    pub(super) async fn make_config(&self, config: &StreamConfig) -> Result<()> {
        let exists = || Error::new(Kind::Conflict, format!("the stream config `{}` exists", config.id));
        if self.find::<Object, _>(&config.id, "stream config").await.is_ok() {
            return Err(exists());
        }
        let spec = self.to_object(&config.spec).await?;
        let name = resource_name(&config.spec.name, config.id.as_str());
        let object = Object { metadata: metadata(&name, config.id.as_str(), &config.spec.name, config.created), spec, status: None };
        match self.api::<Object>().create(&PostParams::default(), &object).await {
            Ok(made) => {
                Object::mirror(self).written(&made.metadata).await;
                Ok(())
            }
            Err(error) if is_conflict(&error) => Err(exists()),
            Err(error) => Err(failed(error)),
        }
    }

    pub(super) async fn change_config(&self, config: &StreamConfig) -> Result<()> {
        let spec = self.to_object(&config.spec).await?;
        for _ in 0..TRIES {
            let mut object: Object = self.find(&config.id, "stream config").await?;
            let old = std::mem::replace(&mut object.spec, spec.clone());
            // What only clusters know stays.
            object.spec.state = old.state;
            object.spec.run_nonce = old.run_nonce;
            object.spec.deletion_policy = old.deletion_policy;
            object.spec.history_limit = old.history_limit;
            match self.api::<Object>().replace(&object.name_any(), &PostParams::default(), &object).await {
                Ok(written) => {
                    Object::mirror(self).written(&written.metadata).await;
                    return Ok(());
                }
                // The controller has written a status in between.
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(Kind::Contention, "the definition is changed by many at once"))
    }

    pub(super) async fn remove_config(&self, id: &ConfigId) -> Result<()> {
        let object: Object = self.find(id, "stream config").await?;
        let streams: Vec<Stream> = self.all_now().await?;
        let own: Vec<&Stream> = streams.iter().filter(|stream| stream.spec.config_ref.id == id.as_str()).collect();
        if own.iter().any(|stream| !phase(stream).is_terminal()) {
            return Err(Error::new(Kind::Conflict, "a stream of this config is active; stop it first").field("stream_state"));
        }
        for stream in own {
            let leaving = match self.api::<Stream>().delete(&stream.name_any(), &DeleteParams::default()).await {
                Err(error) if !is_missing(&error) => return Err(failed(error)),
                answer => answer.ok().and_then(|answer| answer.left()),
            };
            Stream::mirror(self).removed(&stream.metadata, leaving.as_ref()).await;
        }
        let leaving = self.api::<Object>().delete(&object.name_any(), &DeleteParams::default()).await.map_err(failed)?.left();
        Object::mirror(self).removed(&object.metadata, leaving.as_ref()).await;
        Ok(())
    }

    async fn to_object(&self, spec: &StreamSpec) -> Result<StreamConfigSpec> {
        let names = self.names_now().await?;
        StreamConfigSpec::from_core(spec, |id| names.name(id))
    }
}

pub(super) fn to_core(spec: &StreamConfigSpec, names: &Names) -> Result<StreamSpec> {
    spec.to_core(|name| names.id(name))
}
