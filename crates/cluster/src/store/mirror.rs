//! A kind's objects as the cluster's watch tells them, so that lists and counters ask nobody.
//!
//! ```text
//!  kube-apiserver ── watch ──▶ mirror ──▶ lists, runs by id
//!        ▲   └────── consistent GET, LIST ──▶ what is not in the mirror, and whatever a decision rests on
//!        └── writes: return once the mirror has heard of them
//! ```
//!
//! A watch runs some milliseconds behind. That is not seen, because a write returns only when the watch has told of it here and had a moment to tell the other
//! servers, which are told together; and because nothing is called missing, changed or started on the mirror's word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// How long a write waits for the watch. What takes longer is seen later by lists, and at once by whoever asks for the object.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much later than here a watch elsewhere may be told.
const ELSEWHERE: Duration = Duration::from_millis(20);

/// Kinds that are mirrored.
pub(crate) trait Mirrored:
    Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

impl Mirrored for millrace_crds::Connection {}
impl Mirrored for millrace_crds::StreamConfig {}
impl Mirrored for millrace_crds::Stream {}

/// The objects of one kind; cheap to clone. The watch ends with the last clone.
#[derive(Clone)]
pub(crate) struct Mirror<K: Mirrored> {
    objects: Store<K>,
    /// Changes with everything that the watch tells.
    told: watch::Receiver<u64>,
    /// Whether the watch has told of all objects and has not broken since.
    is_current: Arc<AtomicBool>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl<K: Mirrored> Mirror<K> {
    /// Starts watching.
    pub(crate) fn new(api: Api<K>) -> Self {
        let (objects, mut writer) = reflector::store();
        let (tell, told) = watch::channel(0);
        let is_current = Arc::new(AtomicBool::new(false));
        let current = is_current.clone();
        // Who writes which field is nobody's business here, and is most of an object.
        let events =
            watcher(api, watcher::Config::default()).modify(|object: &mut K| object.managed_fields_mut().clear()).default_backoff();
        let watch = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        writer.apply_watcher_event(&event);
                        match event {
                            watcher::Event::Init | watcher::Event::InitApply(_) => {}
                            watcher::Event::InitDone => current.store(true, Ordering::Release),
                            watcher::Event::Apply(_) | watcher::Event::Delete(_) => {}
                        }
                        tell.send_modify(|count| *count += 1);
                    }
                    Err(error) => {
                        // A watch that was merely ended by the server goes on by itself; any other starts with a list.
                        current.store(false, Ordering::Release);
                        tracing::debug!(%error, kind = %K::kind(&()), "the watch broke and is begun again");
                    }
                }
            }
        });
        Self { objects, told, is_current, _watch: Arc::new(AbortOnDropHandle::new(watch)) }
    }

    /// All objects, in no order; none while the watch does not know them all.
    pub(crate) fn all(&self) -> Option<Vec<Arc<K>>> {
        self.is_current.load(Ordering::Acquire).then(|| self.objects.state())
    }

    /// The first object that satisfies, if the mirror has one.
    pub(crate) fn find(&self, is_it: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        self.objects.find(is_it)
    }

    /// Returns once the watch has told of what was written: this version of the object, or a later one.
    pub(crate) async fn written(&self, meta: &ObjectMeta) {
        let version = version(meta);
        self.settle(|objects| objects.find(|object| object.meta().uid == meta.uid && self::version(object.meta()) >= version).is_some())
            .await;
    }

    /// Returns once the watch has told that the object is gone or going.
    pub(crate) async fn removed(&self, meta: &ObjectMeta) {
        let is_left = |object: &K| object.meta().uid == meta.uid && object.meta().deletion_timestamp.is_none();
        self.settle(|objects| objects.find(is_left).is_none()).await;
    }

    async fn settle(&self, is_told: impl Fn(&Store<K>) -> bool) {
        let mut told = self.told.clone();
        let _ = tokio::time::timeout(PATIENCE, told.wait_for(|_| is_told(&self.objects))).await;
        tokio::time::sleep(ELSEWHERE).await;
    }
}

/// Versions of a kind's objects are ordered numbers (KEP-5504).
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
