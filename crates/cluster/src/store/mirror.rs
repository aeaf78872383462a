//! A kind's objects as the cluster's watch tells them, so that lists and counters ask nobody.
//!
//! ```text
//!  kube-apiserver ── watch ──▶ mirror ──▶ lists, runs by id
//!        ▲   └────── consistent GET, LIST ──▶ what is not in the mirror, and whatever a decision rests on
//!        └── writes: return once the mirror has heard of them, and the mark is raised
//!
//!  NATS ── mark: the newest version that any server has written ──▶ what is behind it waits, or asks the cluster
//! ```
//!
//! A watch runs some milliseconds behind, and each server's by another time. That is not seen: a write returns only when the watch has told of it here and the mark
//! says so to all; whoever reads looks at the mark first. And nothing is called missing, changed or started on the mirror's word. Without NATS, a write gives
//! the other servers a moment instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use millrace_bus::{Nats, Remembered};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::fresh::Fresh;

/// How long a write waits for the watch. What takes longer is seen later by lists, and at once by whoever asks for the object.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a read waits for the watch before it asks the cluster.
const READ_PATIENCE: Duration = Duration::from_millis(500);
/// How long NATS is waited for.
const MARK_PATIENCE: Duration = Duration::from_millis(500);
/// How much later than here a watch elsewhere may be told, if there is no mark.
const ELSEWHERE: Duration = Duration::from_millis(20);
/// A mark outlives any delay of a watch, and is forgotten before a cluster that was restored from a backup counts anew.
const MARK_AGE: Duration = Duration::from_secs(60);

/// The newest version of a kind's objects that any server has written, as NATS keeps it.
#[derive(Clone)]
pub(crate) struct Mark {
    kept: Arc<Remembered>,
    kind: &'static str,
    read: Fresh<u64>,
}

impl Mark {
    /// One mark for each of these kinds, in this installation's NATS.
    pub(crate) fn of<const N: usize>(nats: &Nats, kinds: [&'static str; N]) -> [Self; N] {
        let kept = Arc::new(Remembered::new(nats.clone(), "marks", MARK_AGE));
        kinds.map(|kind| Self { kept: kept.clone(), kind, read: Fresh::new(Duration::ZERO) })
    }

    /// Whether all servers know now.
    async fn raise(&self, version: u64) -> bool {
        matches!(tokio::time::timeout(MARK_PATIENCE, self.kept.raise(self.kind, version)).await, Ok(Ok(())))
    }

    /// 0 if nobody has written for a while, or without NATS.
    async fn get(&self) -> u64 {
        let read = self.read.get(self.kept.number(self.kind));
        tokio::time::timeout(MARK_PATIENCE, read).await.ok().and_then(Result::ok).map_or(0, |version| *version)
    }
}

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
    /// Whatever was written up to this version has been told.
    seen: Arc<AtomicU64>,
    mark: Mark,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl<K: Mirrored> Mirror<K> {
    /// Starts watching.
    pub(crate) fn new(api: Api<K>, mark: Mark) -> Self {
        let (objects, mut writer) = reflector::store();
        let (tell, told) = watch::channel(0);
        let (is_current, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (current, reached, marked) = (is_current.clone(), seen.clone(), mark.clone());
        // Who writes which field is nobody's business here, and is most of an object.
        let events =
            watcher(api, watcher::Config::default()).modify(|object: &mut K| object.managed_fields_mut().clear()).default_backoff();
        let watch = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            let mut before_list = 0;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        writer.apply_watcher_event(&event);
                        match event {
                            // The list is asked for once this returns, so it holds whatever the mark speaks of, also what it no longer holds.
                            watcher::Event::Init => before_list = marked.get().await,
                            watcher::Event::InitApply(_) => {}
                            watcher::Event::InitDone => {
                                reached.fetch_max(before_list, Ordering::AcqRel);
                                current.store(true, Ordering::Release);
                            }
                            // The event of a removal has the version of the removal.
                            watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
                                reached.fetch_max(version(object.meta()), Ordering::AcqRel);
                            }
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
        Self { objects, told, is_current, seen, mark, _watch: Arc::new(AbortOnDropHandle::new(watch)) }
    }

    /// Whether the mirror holds all that any server had written before this call; waits a little for it.
    pub(crate) async fn is_up_to_date(&self) -> bool {
        let wanted = self.mark.get().await;
        let has_seen = || self.seen.load(Ordering::Acquire) >= wanted;
        if !has_seen() {
            let mut told = self.told.clone();
            let _ = tokio::time::timeout(READ_PATIENCE, told.wait_for(|_| has_seen())).await;
        }
        has_seen()
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
        let is_told =
            |objects: &Store<K>| objects.find(|object| object.meta().uid == meta.uid && self::version(object.meta()) >= version).is_some();
        self.settle(is_told, version).await;
    }

    /// Returns once the watch has told that the object is gone or going.
    pub(crate) async fn removed(&self, meta: &ObjectMeta) {
        let is_left = |object: &K| object.meta().uid == meta.uid && object.meta().deletion_timestamp.is_none();
        self.settle(|objects| objects.find(is_left).is_none(), 0).await;
    }

    async fn settle(&self, is_told: impl Fn(&Store<K>) -> bool, version: u64) {
        let mut told = self.told.clone();
        let _ = tokio::time::timeout(PATIENCE, told.wait_for(|_| is_told(&self.objects))).await;
        if !self.mark.raise(version.max(self.seen.load(Ordering::Acquire))).await {
            tokio::time::sleep(ELSEWHERE).await;
        }
    }
}

/// Versions of a kind's objects are ordered numbers (KEP-5504).
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
