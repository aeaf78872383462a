//! What all reconcilers work with.

use std::collections::HashMap;
use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::api::DeleteParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};
use millrace_bus::Nats;
use millrace_core::id::StreamId;
use millrace_core::stats::StatsReport;
use millrace_core::{Error, Result};
use serde::de::DeserializeOwned;

use crate::{ConnectionProbes, ControllerConfig};

/// The name under which the controller applies.
pub(crate) const FIELD_MANAGER: &str = "millrace-controller";
/// Bytes of an event's text; the cluster takes 1024.
const MOST_OF_A_NOTE: usize = 1000;
/// Objects are looked at again so often without a reason.
pub(crate) const RESYNC: Duration = Duration::from_secs(300);

/// What went wrong in a reconcile; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the cluster refused: {0}")]
    Kube(#[from] kube::Error),
    #[error("{}", .0.chain())]
    Core(#[from] Error),
}

impl Failure {
    /// Writes it down; that somebody else has changed an object meanwhile is the normal course.
    pub(crate) fn tell(&self, object: &str, what: &'static str) {
        match self {
            Self::Kube(kube::Error::Api(status)) if status.code == 409 => tracing::debug!(object, error = %self, what),
            _ => tracing::warn!(object, error = %self, what),
        }
    }
}

/// Live counters by run and worker.
type Live = HashMap<StreamId, HashMap<u32, StatsReport>>;

pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) nats: Nats,
    pub(crate) namespace: String,
    pub(crate) template: PodTemplateSpec,
    pub(crate) max_active_streams: usize,
    pub(crate) connection_probes: ConnectionProbes,
    /// Held while it is decided whether another stream may begin, and until it is there.
    pub(crate) turn: tokio::sync::Mutex<()>,
    recorder: Recorder,
    live: Mutex<Live>,
    is_terminating: AtomicBool,
}

impl Context {
    pub(crate) fn new(client: Client, nats: Nats, config: &ControllerConfig) -> Result<Self> {
        let path = &config.worker_template;
        let invalid = || Error::invalid("--worker-template", format!("`{}` is not a pod template", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| invalid().because(error))?;
        let template: PodTemplateSpec = serde_norway::from_str(&text).map_err(|error| invalid().because(error))?;
        let has_worker = template.spec.as_ref().is_some_and(|spec| spec.containers.iter().any(|container| container.name == "worker"));
        if !has_worker {
            return Err(invalid().because("it has no container `worker`"));
        }
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(config.identity.clone()) };
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            nats,
            namespace: config.namespace.clone(),
            template,
            max_active_streams: config.max_active_streams,
            connection_probes: config.connection_probes,
            turn: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            is_terminating: AtomicBool::new(false),
        })
    }

    pub(crate) fn api<K: Resource<Scope = kube::core::NamespaceResourceScope>>(&self) -> Api<K>
    where
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Deletes an object, and what it owns after it; answers whether it was there.
    pub(crate) async fn delete<K>(&self, name: &str) -> Result<bool, Failure>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.api::<K>().delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Hears counters; never returns.
    pub(crate) async fn listen(&self) {
        loop {
            if let Ok(mut stats) = self.nats.all_stats().await {
                while let Some((stream, worker, report)) = stats.next().await {
                    self.live().entry(stream).or_default().insert(worker, report);
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What a run's workers said last.
    pub(crate) fn stats(&self, stream: &StreamId) -> Vec<StatsReport> {
        self.live().get(stream).map(|workers| workers.values().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn forget(&self, stream: &StreamId) {
        self.live().remove(stream);
    }

    /// Whether the namespace is being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        self.is_terminating.load(Ordering::Relaxed)
    }

    /// The namespace is being deleted; answers whether that is news.
    pub(crate) fn set_terminating(&self) -> bool {
        !self.is_terminating.swap(true, Ordering::Relaxed)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        // Whole after every statement.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event beside an object; one that cannot be written is let go.
    pub(crate) async fn event<K>(&self, object: &K, is_warning: bool, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let event = Event {
            type_: if is_warning { EventType::Warning } else { EventType::Normal },
            reason: reason.to_owned(),
            note: Some(note.get(..note.floor_char_boundary(MOST_OF_A_NOTE)).unwrap_or_default().to_owned()),
            // Events of the same reason and action are counted as repetitions of the first, whose text they keep.
            action: format!("Reconcile{:08x}", digest(note)),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            tracing::debug!(%error, "an event could not be written");
        }
    }
}

/// Tells texts apart.
fn digest(text: &str) -> u32 {
    let mut hasher = std::hash::DefaultHasher::new();
    text.hash(&mut hasher);
    (hasher.finish() & u64::from(u32::MAX)) as u32
}

/// Whether somebody has asked for hands off.
pub(crate) fn is_paused<K: Resource>(object: &K) -> bool {
    object.meta().annotations.as_ref().and_then(|all| all.get(millrace_crds::PAUSE_ANNOTATION)).is_some_and(|value| value == "true")
}
