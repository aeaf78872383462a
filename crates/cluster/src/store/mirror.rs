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
//! says so to all; whoever reads looks at the mark first. And nothing is called missing, changed or started on the mirror's word. Who does not see the mark asks
//! the cluster, and who cannot raise it gives the other servers a moment instead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::mark::Mark;

/// How long a write waits for the watch. What takes longer is seen later by lists, and at once by whoever asks for the object.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a read waits for the watch before it asks the cluster.
const READ_PATIENCE: Duration = Duration::from_millis(500);
/// How much later than here a watch elsewhere may be told, if there is no mark.
const ELSEWHERE: Duration = Duration::from_millis(20);
/// The server ends a watch after so many seconds, and it is begun again where it was. One that has gone silent is noticed 5 s later, while marks still say what it
/// has missed.
const WATCH: u32 = 25;
const _: () = assert!((WATCH as u64 + 5) < super::mark::AGE.as_secs());

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
    api: Api<K>,
    objects: Store<K>,
    /// Changes with everything that the watch tells.
    told: watch::Receiver<u64>,
    /// Whether the watch has told of all objects and has not broken since.
    is_current: Arc<AtomicBool>,
    /// Whatever was written up to this version is among the objects; held while one is put there.
    seen: Arc<Mutex<u64>>,
    /// A mark that was waited for in vain: the watch may never tell of it by itself.
    missed: Arc<AtomicU64>,
    mark: Mark,
    _watch: Arc<AbortOnDropHandle<()>>,
}

/// What the watch's task works with.
struct Watching<K: Mirrored> {
    writer: reflector::store::Writer<K>,
    seen: Arc<Mutex<u64>>,
    is_current: Arc<AtomicBool>,
    mark: Mark,
    /// What a list that is under way holds at least.
    listed: u64,
}

impl<K: Mirrored> Watching<K> {
    async fn take(&mut self, event: watcher::Event<K>) {
        if matches!(event, watcher::Event::Init) {
            // The list is asked for after this, so it holds whatever the mark speaks of.
            self.listed = self.mark.get_at_start().await.unwrap_or(0);
        }
        let mut seen = lock(&self.seen);
        self.writer.apply_watcher_event(&event);
        match event {
            watcher::Event::Init => {}
            watcher::Event::InitApply(object) => self.listed = self.listed.max(version(object.meta())),
            // A cluster that was restored from a backup may count from less.
            watcher::Event::InitDone => *seen = self.listed,
            // The event of a removal has the version of the removal.
            watcher::Event::Apply(object) | watcher::Event::Delete(object) => *seen = (*seen).max(version(object.meta())),
        }
        drop(seen);
    }

    /// A watch that has broken goes on where it was, or starts with a list.
    fn tells_of_all(event: &watcher::Event<K>) -> bool {
        !matches!(event, watcher::Event::Init | watcher::Event::InitApply(_))
    }
}

impl<K: Mirrored> Mirror<K> {
    /// Starts watching.
    pub(crate) fn new(api: Api<K>, mark: Mark) -> Self {
        let (objects, writer) = reflector::store();
        let (tell, told) = watch::channel(0);
        let (is_current, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let mut watching = Watching { writer, seen: seen.clone(), is_current: is_current.clone(), mark: mark.clone(), listed: 0 };
        // Who writes which field is nobody's business here, and is most of an object.
        let events = watcher(api.clone(), watcher::Config::default().timeout(WATCH));
        let events = events.modify(|object: &mut K| object.managed_fields_mut().clear()).default_backoff();
        let watch = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let tells_of_all = Watching::tells_of_all(&event);
                        watching.take(event).await;
                        if tells_of_all {
                            watching.is_current.store(true, Ordering::Release);
                        }
                        tell.send_modify(|count| *count += 1);
                    }
                    Err(error) => {
                        watching.is_current.store(false, Ordering::Release);
                        tracing::debug!(%error, kind = %K::kind(&()), "the watch broke and is begun again");
                    }
                }
            }
        });
        let missed = Arc::new(AtomicU64::new(0));
        Self { api, objects, told, is_current, seen, missed, mark, _watch: Arc::new(AbortOnDropHandle::new(watch)) }
    }

    /// Whether the mirror holds all that any server had written before this call; waits a little for it.
    pub(crate) async fn is_up_to_date(&self) -> bool {
        let Some(wanted) = self.mark.get().await else { return false };
        let has_seen = || *lock(&self.seen) >= wanted;
        if !has_seen() && self.missed.load(Ordering::Acquire) < wanted {
            let mut told = self.told.clone();
            let _ = tokio::time::timeout(READ_PATIENCE, told.wait_for(|_| has_seen())).await;
        }
        if !has_seen() {
            self.missed.fetch_max(wanted, Ordering::AcqRel);
            return false;
        }
        self.is_current.load(Ordering::Acquire)
    }

    /// All objects, in no order; none while the watch does not know them all.
    pub(crate) fn all(&self) -> Option<Vec<Arc<K>>> {
        self.is_current.load(Ordering::Acquire).then(|| self.objects.state())
    }

    /// The first object that satisfies, if the mirror has one.
    pub(crate) fn find(&self, is_it: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        self.objects.find(is_it)
    }

    /// Returns once the watch has told of what was written, this version of the object or a later one, and the mark says so. Goes on if nobody waits any more.
    pub(crate) async fn written(&self, meta: &ObjectMeta) {
        let (mirror, uid, version) = (self.clone(), meta.uid.clone(), version(meta));
        let settled = tokio::spawn(async move {
            let is_told = |object: &K| object.meta().uid == uid && self::version(object.meta()) >= version;
            mirror.settle(|objects| objects.find(is_told).is_some(), version).await;
        });
        let _ = settled.await;
    }

    /// As [`Mirror::written`] for an object that is gone or going; `leaving` is the object as it stays for finalizers, if it does.
    pub(crate) async fn removed(&self, meta: &ObjectMeta, leaving: Option<&K>) {
        let (mirror, uid, version) = (self.clone(), meta.uid.clone(), leaving.map_or(0, |object| version(object.meta())));
        let settled = tokio::spawn(async move {
            let is_left = |object: &K| object.meta().uid == uid && object.meta().deletion_timestamp.is_none();
            mirror.settle(|objects| objects.find(is_left).is_none(), version).await;
        });
        let _ = settled.await;
    }

    async fn settle(&self, is_told: impl Fn(&Store<K>) -> bool, mut version: u64) {
        let mut told = self.told.clone();
        let mut seen = 0;
        let waiting = told.wait_for(|_| {
            // Nothing is put there meanwhile, so what is seen covers what is told.
            let reached = lock(&self.seen);
            seen = *reached;
            self.is_current.load(Ordering::Acquire) && is_told(&self.objects)
        });
        let is_told = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        if version == 0 {
            // The version of a removal is the watch's, or at most what a list has now.
            version = if is_told { seen } else { self.newest().await };
        }
        if !self.mark.raise(version).await {
            tokio::time::sleep(ELSEWHERE).await;
        }
    }

    /// The version of a list that is made now.
    async fn newest(&self) -> u64 {
        let list = self.api.list_metadata(&ListParams::default().limit(1)).await;
        list.ok().and_then(|list| list.metadata.resource_version?.parse().ok()).unwrap_or(0)
    }
}

fn lock(seen: &Mutex<u64>) -> MutexGuard<'_, u64> {
    // Whole after every statement.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Versions of a kind's objects are ordered numbers (KEP-5504).
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}
