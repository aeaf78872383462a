//! The newest log records, numbered, for every event stream of this server.
//!
//! ```text
//!  bus ─▶ one listener ─▶ ring: numbers first … next, bounded in records and bytes ─▶ readers, each with a number of its own
//! ```
//!
//! Readers hold no records: one that is slower than the ring forgets finds its number gone, is told how many it missed, and goes on with the oldest that is
//! left. So memory does not grow with readers, and a client that comes back with `Last-Event-ID` goes on where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt as _, stream};
use millrace_core::bus::{Body, Delivery};
use tokio::sync::watch;

use crate::state::AppState;
use crate::wire::logs::{lagged, record};

/// Records that are remembered.
const MOST: usize = 4096;
/// Bytes of all remembered records.
const MOST_BYTES: usize = 4 << 20;

/// A record as it goes over the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The event's name.
    pub(crate) name: &'static str,
    /// The event's data.
    pub(crate) data: String,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A record and its id.
    Record(String, Arc<Record>),
    /// So many records are no longer remembered.
    Missed(u64),
    /// The reader's place is one of another server or of an earlier process; it goes on with what comes now.
    UnknownPlace,
}

struct Ring {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    /// The number of the oldest record.
    first: u64,
}

impl Ring {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn push(&mut self, record: Record) {
        self.bytes += record.data.len();
        self.records.push_back(Arc::new(record));
        // The newest stays, however large it is.
        while self.records.len() > MOST || self.bytes > MOST_BYTES && self.records.len() > 1 {
            if let Some(oldest) = self.records.pop_front() {
                self.bytes -= oldest.data.len();
                self.first += 1;
            }
        }
    }
}

/// The newest log records; cheap to clone.
#[derive(Clone)]
pub struct LiveRecords(Arc<Shared>);

struct Shared {
    /// Tells this process' ids from those of others.
    epoch: String,
    ring: Mutex<Ring>,
    next: watch::Sender<u64>,
}

impl Default for LiveRecords {
    fn default() -> Self {
        let ring = Mutex::new(Ring { records: VecDeque::new(), bytes: 0, first: 0 });
        Self(Arc::new(Shared { epoch: format!("{:016x}", rand::random::<u64>()), ring, next: watch::channel(0).0 }))
    }
}

impl LiveRecords {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Whole after every statement.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, record: Record) {
        let mut ring = self.lock();
        ring.push(record);
        let next = ring.next();
        drop(ring);
        self.0.next.send_replace(next);
    }

    /// Records from now on, or from behind the one that the reader saw last.
    pub(crate) fn read(&self, last_seen: Option<&str>) -> impl Stream<Item = Item> + use<> {
        let now = self.lock().next();
        let last_seen = last_seen.filter(|id| !id.is_empty());
        let place = last_seen.map(|id| self.place(id).filter(|number| *number < now));
        let (cursor, unknown) = match place {
            None => (now, None),
            Some(Some(number)) => (number + 1, None),
            Some(None) => (now, Some(Item::UnknownPlace)),
        };
        let reader = Reader { live: self.clone(), cursor, next: self.0.next.subscribe() };
        stream::iter(unknown).chain(stream::unfold(reader, async |mut reader| Some((reader.item().await?, reader))))
    }

    /// The number in an id of this process.
    fn place(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        if epoch == self.0.epoch { number.parse().ok() } else { None }
    }
}

struct Reader {
    live: LiveRecords,
    /// The number that comes next.
    cursor: u64,
    next: watch::Receiver<u64>,
}

impl Reader {
    async fn item(&mut self) -> Option<Item> {
        loop {
            self.next.borrow_and_update();
            if let Some(item) = self.step() {
                return Some(item);
            }
            self.next.changed().await.ok()?;
        }
    }

    fn step(&mut self) -> Option<Item> {
        let ring = self.live.lock();
        let Some(offset) = self.cursor.checked_sub(ring.first) else {
            let missed = ring.first - self.cursor;
            self.cursor = ring.first;
            return Some(Item::Missed(missed));
        };
        let record = ring.records.get(usize::try_from(offset).ok()?)?.clone();
        let id = format!("{}-{}", self.live.0.epoch, self.cursor);
        self.cursor += 1;
        Some(Item::Record(id, record))
    }
}

/// Listens to the bus until the server stops.
pub(crate) fn listen(state: &AppState) {
    let live = state.live.clone();
    let mut events = state.bus.subscribe().take_until(state.shutdown.clone().cancelled_owned()).boxed();
    tokio::spawn(async move {
        while let Some(delivery) = events.next().await {
            live.push(match delivery {
                Delivery::Event(event) => {
                    let name = if matches!(event.body, Body::Sql(_)) { "sql" } else { "log" };
                    Record { name, data: record(&event).to_string() }
                }
                Delivery::Lagged(count) => Record { name: "log", data: lagged(count).to_string() },
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn push(live: &LiveRecords, texts: impl IntoIterator<Item = impl ToString>) {
        texts.into_iter().for_each(|text| live.push(Record { name: "log", data: text.to_string() }));
    }

    /// What is there without waiting: data of records, and what else the reader is told.
    fn ready(items: impl Stream<Item = Item>) -> (Vec<String>, Vec<Item>, Option<String>) {
        let (mut texts, mut told, mut last) = (Vec::new(), Vec::new(), None);
        let mut items = Box::pin(items);
        while let Some(Some(item)) = items.next().now_or_never() {
            match item {
                Item::Record(id, record) => {
                    texts.push(record.data.clone());
                    last = Some(id);
                }
                other => told.push(other),
            }
        }
        (texts, told, last)
    }

    #[tokio::test]
    async fn readers_begin_now_and_go_on_behind_what_they_saw_last() {
        let live = LiveRecords::default();
        push(&live, [1, 2]);
        let fresh = live.read(None);
        push(&live, [3, 4]);
        let (texts, told, last) = ready(fresh);
        assert_eq!((texts, told.len()), (vec!["3".to_owned(), "4".to_owned()], 0));
        push(&live, [5, 6]);
        assert_eq!(ready(live.read(last.as_deref())).0, ["5", "6"]);
        assert_eq!(ready(live.read(Some(""))).0, [""; 0]);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let live = LiveRecords::default();
        let mut records = Box::pin(live.read(None));
        let other = live.clone();
        let (item, ()) = tokio::join!(records.next(), async move { push(&other, ["late"]) });
        assert!(matches!(item, Some(Item::Record(_, record)) if record.data == "late"));
    }

    #[tokio::test]
    async fn slow_readers_are_told_how_many_they_missed() {
        let live = LiveRecords::default();
        let slow = live.read(None);
        push(&live, 0..MOST + 10);
        let (texts, told, _) = ready(slow);
        assert_eq!(told, [Item::Missed(10)]);
        assert_eq!((texts.len(), texts[0].as_str()), (MOST, "10"));
    }

    #[test]
    fn large_records_make_room_by_their_bytes() {
        let live = LiveRecords::default();
        let kept = || {
            let ring = live.lock();
            (ring.records.len(), ring.bytes)
        };
        push(&live, (0..10).map(|_| "x".repeat(MOST_BYTES / 4)));
        assert_eq!(kept(), (4, MOST_BYTES));
        push(&live, ["x".repeat(MOST_BYTES + 1)]);
        assert_eq!(kept(), (1, MOST_BYTES + 1));
    }

    #[tokio::test]
    async fn ids_of_other_servers_and_nonsense_are_told_and_begin_now() {
        let (live, other) = (LiveRecords::default(), LiveRecords::default());
        push(&live, [1, 2]);
        let foreign = format!("{}-0", other.0.epoch);
        let future = format!("{}-2", live.0.epoch);
        for id in [foreign.as_str(), future.as_str(), "nonsense", "-", "9"] {
            let (texts, told, _) = ready(live.read(Some(id)));
            assert_eq!((texts.len(), told), (0, vec![Item::UnknownPlace]), "{id}");
        }
    }
}
