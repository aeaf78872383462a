//! The newest version of a kind's objects that any API server has written, as NATS keeps it for all of them (ADR 11).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_bus::{Nats, Remembered};
use millrace_core::Result;
use tokio::time::Instant;

use crate::fresh::Fresh;

/// How long NATS is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// NATS that did not answer in time is not asked for so long.
const REST: Duration = Duration::from_secs(5);
/// A mark outlives any delay that a watch does not notice by itself.
pub(super) const AGE: Duration = Duration::from_secs(60);

/// A kind's mark; cheap to clone.
#[derive(Clone)]
pub(crate) struct Mark(Arc<Parts>);

struct Parts {
    nats: Nats,
    kept: Arc<Remembered>,
    kind: &'static str,
    read: Fresh<u64>,
    /// The highest version that this process wants it to be.
    wanted: AtomicU64,
    /// The highest version to which this process has raised it.
    raised: tokio::sync::Mutex<u64>,
    silent_until: Mutex<Option<Instant>>,
}

impl Mark {
    /// One mark for each of these kinds, in this installation's NATS.
    pub(super) fn of<const N: usize>(nats: &Nats, kinds: [&'static str; N]) -> [Self; N] {
        let kept = Arc::new(Remembered::new(nats.clone(), "marks", AGE));
        kinds.map(|kind| {
            Self(Arc::new(Parts {
                nats: nats.clone(),
                kept: kept.clone(),
                kind,
                read: Fresh::new(Duration::ZERO),
                wanted: AtomicU64::new(0),
                raised: tokio::sync::Mutex::new(0),
                silent_until: Mutex::new(None),
            }))
        })
    }

    /// Raises it to a version that this process has just written; answers whether all servers can know now.
    pub(super) async fn raise(&self, version: u64) -> bool {
        let parts = &self.0;
        parts.wanted.fetch_max(version, Ordering::AcqRel);
        let raising = async {
            // Who waits here is served by the one before, if that began late enough.
            let mut raised = parts.raised.lock().await;
            if *raised >= version {
                return Ok(());
            }
            let wanted = parts.wanted.load(Ordering::Acquire);
            parts.kept.raise(parts.kind, wanted).await?;
            *raised = wanted;
            Ok(())
        };
        self.ask(raising).await.is_some()
    }

    /// 0 if nobody has written for a while; none if NATS does not say.
    pub(super) async fn get(&self) -> Option<u64> {
        self.ask(self.0.read.get(self.0.kept.number(self.0.kind))).await.map(|version| *version)
    }

    /// As [`Mark::get`], when the process has just begun and NATS may not be there yet.
    pub(super) async fn get_at_start(&self) -> Option<u64> {
        self.0.nats.connected(PATIENCE * 2).await;
        self.get().await
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T>>) -> Option<T> {
        let is_silent = self.silent_until().is_some_and(|end| Instant::now() < end);
        if is_silent || !self.0.nats.is_connected() {
            return None;
        }
        match tokio::time::timeout(PATIENCE, question).await {
            Ok(answer) => answer.ok(),
            Err(_) => {
                *self.silent_until() = Some(Instant::now() + REST);
                None
            }
        }
    }

    fn silent_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // Whole after every statement.
        self.0.silent_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
