//! Reads that many wait for: never older than the caller, one at a time.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::{Error, Kind, Result};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long a read may take. Everybody waits for it.
const WITHIN: Duration = Duration::from_secs(5);

/// When a read began, and what it answered.
type Read<T> = (Instant, Result<Arc<T>, (Kind, String)>);

/// What was read last. Whatever a caller gets was read after it had come, so that a change which it knows of is in it; callers at once share
/// one read, so that a flood of them is none for the cluster.
pub(crate) struct Fresh<T> {
    last: Arc<Mutex<Option<Read<T>>>>,
    spacing: Duration,
}

impl<T> Clone for Fresh<T> {
    fn clone(&self) -> Self {
        Self { last: Arc::clone(&self.last), spacing: self.spacing }
    }
}

impl<T> Fresh<T> {
    /// Nothing read yet. So much time lies between the beginnings of two reads, at least.
    pub(crate) fn new(spacing: Duration) -> Self {
        Self { last: Arc::default(), spacing }
    }

    /// What the read answers, if it is done, or what one for somebody else did that began after this call.
    ///
    /// # Errors
    /// Those of the read; [`Kind::TimedOut`] if it takes longer than 5 s. Callers at once share an error, too.
    pub(crate) async fn get(&self, read: impl Future<Output = Result<T>>) -> Result<Arc<T>> {
        let came_at = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((began_at, outcome)) = &*last {
            if *began_at >= came_at {
                return outcome.clone().map_err(|(kind, text)| Error::new(kind, text));
            }
            tokio::time::sleep_until(*began_at + self.spacing).await;
        }
        let began_at = Instant::now();
        let slow = || Error::new(Kind::TimedOut, format!("there was no answer within {} s", WITHIN.as_secs()));
        let outcome = tokio::time::timeout(WITHIN, read).await.unwrap_or_else(|_| Err(slow())).map(Arc::new);
        let shared = outcome.as_ref().map(Arc::clone).map_err(|error| (error.kind(), error.message().to_owned()));
        *last = Some((began_at, shared));
        outcome
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn callers_at_once_share_a_read_that_began_after_they_came() {
        let (fresh, reads) = (Fresh::new(Duration::ZERO), AtomicUsize::new(0));
        let read = async || {
            let number = reads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(number)
        };
        // The first one's read began before the others came; theirs is the second.
        let first = fresh.get(read());
        let others = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            futures::future::join_all((0..50).map(|_| fresh.get(read()))).await
        };
        let (first, others) = tokio::join!(first, others);
        assert_eq!(*first.unwrap(), 0);
        assert!(others.into_iter().all(|other| *other.unwrap() == 1));
        assert_eq!(reads.load(Ordering::SeqCst), 2);
        // Nothing is remembered for those who come later.
        assert_eq!(*fresh.get(read()).await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_read_is_tried_again_by_the_next_caller() {
        let fresh = Fresh::new(Duration::ZERO);
        fresh.get(async { Err::<u8, _>(Error::internal("no")) }).await.unwrap_err();
        tokio::time::advance(Duration::from_nanos(1)).await;
        assert_eq!(*fresh.get(async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_an_answer_holds_nobody_up_for_long() {
        let (fresh, begun_at) = (Fresh::<u8>::new(Duration::ZERO), Instant::now());
        let ask = || fresh.get(std::future::pending());
        let others = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            futures::future::join_all((0..50).map(|_| ask())).await
        };
        let (first, others) = tokio::join!(ask(), others);
        assert!(std::iter::once(first).chain(others).all(|answer| answer.unwrap_err().kind() == Kind::TimedOut));
        // The first one's, and the one that all others share.
        assert_eq!(begun_at.elapsed(), 2 * WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_keep_their_distance() {
        let fresh = Fresh::new(Duration::from_millis(20));
        let begun_at = Instant::now();
        for _ in 0..3 {
            fresh.get(async { Ok(()) }).await.unwrap();
            tokio::time::advance(Duration::from_nanos(1)).await;
        }
        assert!((40..42).contains(&begun_at.elapsed().as_millis()), "{:?}", begun_at.elapsed());
    }
}
