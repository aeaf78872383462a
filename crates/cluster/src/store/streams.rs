//! Runs. The controller writes their status; the API server makes them and says what they should be doing.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Resource as _;
use millrace_core::id::{ConfigId, RunId, StreamId};
use millrace_core::stats::StatsReport;
use millrace_core::stream::{Reason, Stream, StreamState};
use millrace_core::{Error, Kind, Result};
use millrace_crds::{
    ConfigReference, DesiredState, RUN_ID_ANNOTATION, STARTED_BY_ANNOTATION, Stream as Object, StreamConfig as ConfigObject, StreamSpec,
    TRACEPARENT_ANNOTATION, created_at, object_id,
};
use serde_json::json;

use super::configs::{Names, to_core};
use super::{ClusterStore, FIELD_MANAGER, Kept as _, metadata};
use crate::error::{failed, is_conflict, is_missing};

/// Where a run stands; one that nobody has looked at is ready.
pub(crate) fn phase(object: &Object) -> StreamState {
    object.status.as_ref().and_then(|status| status.phase).unwrap_or(StreamState::Ready)
}

impl ClusterStore {
    pub(super) async fn read_streams(&self, config: Option<&ConfigId>) -> Result<Vec<Stream>> {
        let names = self.names().await?;
        let mut objects = self.all::<Object>().await?;
        objects.retain(|object| config.is_none_or(|config| object.spec.config_ref.id == config.as_str()));
        objects.sort_by_cached_key(|object| std::cmp::Reverse((created_at(&object.metadata), run_number(object))));
        Ok(objects.iter().filter_map(|object| read(object, &names, None).ok()).collect())
    }

    pub(super) async fn read_stream(&self, id: &StreamId) -> Result<Stream> {
        let object = self.glance::<Object, _>(id, "stream").await?;
        // Without NATS there are the counters of the resource.
        let stats = if self.nats.is_connected() { self.nats.last_stats(id, 1).await.unwrap_or_default() } else { Vec::new() };
        let stats = stats.into_iter().next();
        match read(&object, &self.names().await?, stats.clone()) {
            Ok(stream) => Ok(stream),
            Err(_) => read(&object, &self.names_now().await?, stats),
        }
    }

    /// A run as the cluster holds it now.
    pub(crate) async fn stream_now(&self, id: &StreamId) -> Result<Stream> {
        let object: Object = self.find(id, "stream").await?;
        read(&object, &self.names_now().await?, None)
    }

    /// Whether a run of a config could begin now; answers all runs.
    pub(crate) async fn open_gate(&self, config: &ConfigId) -> Result<Vec<Object>> {
        let all: Vec<Object> = self.all_now().await?;
        let active: Vec<&Object> = all.iter().filter(|object| !phase(object).is_terminal()).collect();
        if active.iter().any(|object| object.spec.config_ref.id == config.as_str()) || active.len() >= self.max_active_streams {
            return Err(gate_closed(&active));
        }
        Ok(all)
    }

    /// The gate: a config's runs are numbered, and a number can be created once. So of two starts at once one finds the name taken.
    pub(super) async fn make_stream(&self, stream: &Stream) -> Result<()> {
        let config: ConfigObject = self.find(&stream.config_id, "stream config").await?;
        let all = self.open_gate(&stream.config_id).await?;
        let is_own = |object: &&Object| object.spec.config_ref.id == stream.config_id.as_str();
        let last = all.iter().filter(is_own).map(run_number).max().unwrap_or(0);
        let number = last.max(config.status.as_ref().map_or(0, |status| status.last_run)) + 1;
        let name = format!("{}-{number}", config.name_any());
        let mut metadata = metadata(&name, stream.id.as_str(), &name, stream.started_at / 1000);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(RUN_ID_ANNOTATION.to_owned(), stream.run_id.to_string());
        annotations.extend(millrace_service::traceparent().map(|trace| (TRACEPARENT_ANNOTATION.to_owned(), trace)));
        if let Some(key) = &stream.started_by {
            annotations.insert(STARTED_BY_ANNOTATION.to_owned(), key.clone());
        }
        metadata.owner_references = config.controller_owner_ref(&()).map(|owner| vec![owner]);
        let reference = ConfigReference {
            name: config.name_any(),
            id: stream.config_id.to_string(),
            generation: config.metadata.generation.unwrap_or(0),
        };
        let spec = StreamSpec { config_ref: reference, config: config.spec.clone(), desired: DesiredState::Running };
        match self.api::<Object>().create(&PostParams::default(), &Object { metadata, spec, status: None }).await {
            Ok(made) => self.keep_within_limit(&made).await,
            Err(error) if is_conflict(&error) => {
                let all: Vec<Object> = self.all_now().await?;
                let active: Vec<&Object> = all.iter().filter(|object| !phase(object).is_terminal()).collect();
                Err(gate_closed(&active))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Starts of different configs do not meet in a name. So each looks again once it is there, and those that are too many in one order withdraw.
    async fn keep_within_limit(&self, made: &Object) -> Result<()> {
        let all: Vec<Object> = self.all_now().await?;
        let before: Vec<&Object> = all
            .iter()
            .take_while(|object| object.metadata.uid != made.metadata.uid)
            .filter(|object| !phase(object).is_terminal())
            .collect();
        if before.len() < self.max_active_streams {
            Object::mirror(self).written(&made.metadata).await;
            return Ok(());
        }
        let error = gate_closed(&before);
        match self.api::<Object>().delete(&made.name_any(), &DeleteParams::default()).await {
            Err(failure) if !is_missing(&failure) => Err(failed(failure)),
            _ => Err(error),
        }
    }

    /// Stores a state, unless the run has ended.
    pub(super) async fn change_stream(&self, stream: &Stream) -> Result<Stream> {
        let object: Object = self.find(&stream.id, "stream").await?;
        if !phase(&object).is_terminal() {
            let patch = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Stream", "status": {"phase": stream.state}});
            let parameters = PatchParams::apply(FIELD_MANAGER).force();
            let written = self.api::<Object>().patch_status(&object.name_any(), &parameters, &Patch::Apply(patch)).await.map_err(failed)?;
            Object::mirror(self).written(&written.metadata).await;
        }
        self.read_stream(&stream.id).await
    }

    pub(super) async fn remove_stream(&self, id: &StreamId) -> Result<()> {
        let object: Object = self.find(id, "stream").await?;
        if !phase(&object).is_terminal() {
            return Err(Error::new(Kind::Conflict, "the stream is active; stop it first").field("stream_state"));
        }
        let leaving = self.api::<Object>().delete(&object.name_any(), &DeleteParams::default()).await.map_err(failed)?.left();
        Object::mirror(self).removed(&object.metadata, leaving.as_ref()).await;
        Ok(())
    }

    /// Says what a run should be doing.
    pub(crate) async fn want(&self, id: &StreamId, desired: DesiredState) -> Result<()> {
        let object: Object = self.find(id, "stream").await?;
        let patch = Patch::Merge(json!({"spec": {"desired": desired}}));
        let written = self.api::<Object>().patch(&object.name_any(), &PatchParams::default(), &patch).await.map_err(failed)?;
        Object::mirror(self).written(&written.metadata).await;
        Ok(())
    }

    /// Whether Git owns the life of a config's runs; nobody does of a config that is gone.
    pub(crate) async fn is_declarative(&self, id: &ConfigId) -> Result<bool> {
        match self.find::<ConfigObject, _>(id, "stream config").await {
            Ok(config) => Ok(config.spec.state.is_some()),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn run_number(object: &Object) -> u64 {
    object.name_any().rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

fn gate_closed(active: &[&Object]) -> Error {
    let error = Error::new(Kind::Conflict, "another stream is active; stop it first").field("stream_state");
    let ids = active.iter().filter_map(|object| object_id::<StreamId>(&object.metadata).ok());
    ids.fold(error, |error, id| error.with("stream", id.to_string()))
}

fn read(object: &Object, names: &Names, stats: Option<StatsReport>) -> Result<Stream> {
    let status = object.status.clone().unwrap_or_default();
    let state = phase(object);
    let annotation = |name: &str| object.annotations().get(name).cloned();
    let id: StreamId = object_id(&object.metadata)?;
    let counters = status.counters.unwrap_or_default();
    let run_id = annotation(RUN_ID_ANNOTATION).and_then(|text| text.parse().ok());
    let millis = |time: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| time.0.as_millisecond();
    let is_user = state == StreamState::Paused && object.spec.desired == DesiredState::Paused;
    Ok(Stream {
        run_id: run_id.unwrap_or_else(|| run_id_of(&id)),
        config_id: object
            .spec
            .config_ref
            .id
            .parse()
            .map_err(|error| Error::internal("a stream names a malformed config").because(error))?,
        spec: to_core(&object.spec.config, names)?,
        state,
        reason: is_user.then_some(Reason::UserRequest),
        started_at: status.started_at.as_ref().map_or(created_at(&object.metadata) * 1000, millis),
        ended_at: status.ended_at.as_ref().map(millis),
        rows_written: stats.as_ref().map_or(counters.rows_written, |report| report.target.rows.max(counters.rows_written)),
        rows_failed: stats.as_ref().map_or(0, |report| report.target.failed),
        bytes: stats.as_ref().map_or(counters.bytes, |report| report.target.bytes.max(counters.bytes)),
        error: status.message.filter(|_| state == StreamState::Failed),
        started_by: annotation(STARTED_BY_ANNOTATION),
        stats,
        id,
    })
}

/// The row of the history of a run that was not started through the API.
fn run_id_of(id: &StreamId) -> RunId {
    let rest = id.as_str().strip_prefix(StreamId::PREFIX).unwrap_or_default();
    format!("{}{rest}", RunId::PREFIX).parse().unwrap_or_else(|_| RunId::mint())
}
