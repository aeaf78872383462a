//! The bus of one process: a broadcast to subscribers, and the newest events of each run.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use futures::stream::BoxStream;
use millrace_core::bus::{Body, Bus, Delivery, Event, Level};
use millrace_core::id::StreamId;
use tokio::sync::broadcast;

/// How far a subscriber may fall behind.
const CAPACITY: usize = 4096;
/// Events kept per run.
const KEPT_PER_RUN: usize = 2000;
/// Runs whose events are kept.
const KEPT_RUNS: usize = 64;

/// The bus of one process.
pub struct LocalBus {
    sender: broadcast::Sender<Event>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    runs: HashMap<StreamId, VecDeque<Event>>,
    /// Oldest first.
    order: VecDeque<StreamId>,
}

impl Default for LocalBus {
    fn default() -> Self {
        Self { sender: broadcast::channel(CAPACITY).0, kept: Mutex::default() }
    }
}

impl LocalBus {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A queue is whole after every statement, so a panic elsewhere does no harm.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn push(&mut self, stream: &StreamId, event: Event) {
        if !self.runs.contains_key(stream) {
            if self.order.len() == KEPT_RUNS
                && let Some(oldest) = self.order.pop_front()
            {
                self.runs.remove(&oldest);
            }
            self.order.push_back(stream.clone());
        }
        let events = self.runs.entry(stream.clone()).or_default();
        if events.len() == KEPT_PER_RUN {
            // Counters repeat; what happened does not. So the oldest counter goes first.
            let is_counter = |event: &Event| matches!(event.body, Body::Side(_) | Body::Table(_));
            let victim = events.iter().position(is_counter).unwrap_or(0);
            events.remove(victim);
        }
        events.push_back(event);
    }
}

impl Bus for LocalBus {
    fn publish(&self, event: Event) {
        if let Some(stream) = event.stream.clone() {
            self.kept().push(&stream, event.clone());
        }
        // Without subscribers there is nobody to tell.
        let _ = self.sender.send(event);
    }

    fn subscribe(&self) -> BoxStream<'static, Delivery> {
        let receiver = tokio_stream::wrappers::BroadcastStream::new(self.sender.subscribe());
        receiver
            .map(|received| match received {
                Ok(event) => Delivery::Event(Box::new(event)),
                Err(tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged(count)) => Delivery::Lagged(count),
            })
            .boxed()
    }

    fn recent(&self, stream: &StreamId, level: Level, limit: usize) -> Vec<Event> {
        let kept = self.kept();
        let Some(events) = kept.runs.get(stream) else { return Vec::new() };
        let mut newest: Vec<Event> = events.iter().rev().filter(|event| event.level >= level).take(limit).cloned().collect();
        newest.reverse();
        newest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use millrace_core::bus::Side;

    fn event(stream: &StreamId, level: Level, at: i64) -> Event {
        Event { at, level, side: Side::Source, stream: Some(stream.clone()), node: None, message: at.to_string(), body: Body::General }
    }

    #[tokio::test]
    async fn a_subscriber_sees_what_is_published_after_it_came() {
        let (bus, stream) = (LocalBus::default(), StreamId::mint());
        bus.publish(event(&stream, Level::Info, 1));
        let mut events = bus.subscribe();
        bus.publish(event(&stream, Level::Info, 2));
        let Some(Delivery::Event(seen)) = events.next().await else { panic!("no event") };
        assert_eq!(seen.at, 2);
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_what_it_missed_and_blocks_nobody() {
        let (bus, stream) = (LocalBus::default(), StreamId::mint());
        let mut events = bus.subscribe();
        for at in 0..CAPACITY as i64 + 10 {
            bus.publish(event(&stream, Level::Info, at));
        }
        assert_eq!(events.next().await, Some(Delivery::Lagged(10)));
    }

    #[test]
    fn recent_events_are_the_newest_ones_oldest_first_from_a_level_up() {
        let (bus, stream) = (LocalBus::default(), StreamId::mint());
        for at in 0..10 {
            bus.publish(event(&stream, if at % 2 == 0 { Level::Debug } else { Level::Warn }, at));
        }
        let at: Vec<i64> = bus.recent(&stream, Level::Info, 3).iter().map(|event| event.at).collect();
        assert_eq!(at, [5, 7, 9]);
        assert!(bus.recent(&StreamId::mint(), Level::Debug, 3).is_empty());
    }

    #[test]
    fn a_full_run_forgets_counters_before_what_happened() {
        let (bus, stream) = (LocalBus::default(), StreamId::mint());
        bus.publish(event(&stream, Level::Error, 0));
        let estimate = crate::local::tests::counter(&stream);
        for _ in 0..KEPT_PER_RUN + 5 {
            bus.publish(estimate.clone());
        }
        assert_eq!(bus.recent(&stream, Level::Error, 10).len(), 1);
    }

    fn counter(stream: &StreamId) -> Event {
        let stats = millrace_core::stats::TableStats {
            table: "t".into(),
            state: millrace_core::stream::StreamState::Running,
            rows_read: 0,
            rows_written: 0,
            failed: 0,
            bytes: 0,
            elapsed_ms: 0,
            estimated_rows: None,
            estimated_bytes: None,
            error: None,
        };
        Event { body: Body::Table(stats), ..event(stream, Level::Info, 1) }
    }
}
