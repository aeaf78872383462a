//! NATS: events and counters of running work, and what is wanted of it.
//!
//! ```text
//!  worker ── events.<stream> ──▶ JetStream (limits by count, age, size) ──▶ run logs
//!         ── stats.<stream>.<worker> ──▶ JetStream (newest only) ──▶ live counters
//!  leader ── work.<stream>.<cut>.<part> ──▶ JetStream work queue ──▶ one worker of the fleet, acknowledged after its commit
//!  controller ── commands.<stream> ──▶ worker (level-triggered: said again and again)
//! ```
//!
//! Nothing here is the record. What cannot be sent waits in bounded buffers and is then dropped, oldest never before newest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use millrace_core::bus::{Bus, Delivery, Event, Level};
use millrace_core::id::StreamId;
use millrace_core::stats::StatsReport;
use millrace_core::{Error, Kind, Result, Secret};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::local::LocalBus;
use crate::metrics;
use crate::subjects::Subjects;

/// Messages that wait for a lost connection, beside what the client itself holds.
const WAITING: usize = 10_000;
/// Events that are retained: of one run, for how long, and bytes of all runs.
const EVENTS_PER_RUN: i64 = 10_000;
const EVENTS_AGE: Duration = Duration::from_secs(14 * 24 * 3600);
const EVENTS_BYTES: i64 = 512 << 20;
const STATS_BYTES: i64 = 64 << 20;
/// Splits that wait: those of a run that is gone age out.
const WORK_AGE: Duration = Duration::from_secs(24 * 3600);
const WORK_BYTES: i64 = 64 << 20;
/// How long one try to connect may take: a policy that lets a new pod in only in a moment drops what comes before.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const CONNECT_LOOK: Duration = Duration::from_millis(50);
/// How long an answer of JetStream may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a message may wait to be taken.
const SEND_WITHIN: Duration = Duration::from_millis(500);

/// Where NATS is.
#[derive(Debug, Clone)]
pub struct NatsConfig {
    /// `nats://host:4222`.
    pub url: String,
    /// Shown on connecting, if the server asks for one.
    pub token: Option<Secret>,
    /// Parts the server among installations.
    pub namespace: String,
}

/// What is wanted of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Move data.
    Run,
    /// Hold still.
    Pause,
    /// End.
    Stop,
}

/// A connection that mends itself; cheap to clone.
#[derive(Clone)]
pub struct Nats {
    pub(crate) client: async_nats::Client,
    pub(crate) context: jetstream::Context,
    pub(crate) subjects: Subjects,
}

impl Nats {
    /// Starts connecting; returns at once, also while the server is not there.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a malformed address.
    pub async fn connect(config: &NatsConfig, role: &str) -> Result<Self> {
        let mut options = async_nats::ConnectOptions::new()
            .name(format!("millrace {role}"))
            .retry_on_initial_connect()
            .connection_timeout(CONNECT_WITHIN)
            .reconnect_delay_callback(|attempts| Duration::from_millis((50 * attempts as u64).min(2000)))
            .event_callback(|event| async move {
                match event {
                    async_nats::Event::Connected => metrics::connected(true),
                    async_nats::Event::Disconnected | async_nats::Event::Closed => metrics::connected(false),
                    _ => {}
                }
                tracing::debug!(%event, "nats");
            });
        metrics::connected(false);
        if let Some(token) = &config.token {
            options = options.token(token.expose().to_owned());
        }
        let client = options.connect(&config.url).await.map_err(|error| {
            Error::new(Kind::Invalid, format!("the address of NATS cannot be used: `{}`", config.url)).because(error).field("nats.url")
        })?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        Ok(Self { client, context, subjects: Subjects::new(&config.namespace) })
    }

    /// Makes the retained streams, or brings their limits up to date; tries until it succeeds.
    pub async fn define(&self) {
        let mut wait = Duration::from_millis(100);
        while let Err(error) = self.try_define().await {
            tracing::debug!(error = %error.chain(), "JetStream is not ready");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    pub(crate) async fn try_define(&self) -> Result<()> {
        let events = Config {
            name: self.subjects.retained("events"),
            subjects: vec![self.subjects.all("events")],
            max_messages_per_subject: EVENTS_PER_RUN,
            max_age: EVENTS_AGE,
            max_bytes: EVENTS_BYTES,
            discard: DiscardPolicy::Old,
            allow_direct: true,
            ..Config::default()
        };
        let stats = Config {
            name: self.subjects.retained("stats"),
            subjects: vec![self.subjects.all("stats")],
            max_messages_per_subject: 1,
            max_bytes: STATS_BYTES,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            allow_direct: true,
            ..Config::default()
        };
        // What is lost with the server's memory is offered again from the ledger.
        let work = Config {
            name: self.subjects.retained("work"),
            subjects: vec![self.subjects.all("work")],
            retention: RetentionPolicy::WorkQueue,
            max_age: WORK_AGE,
            max_bytes: WORK_BYTES,
            discard: DiscardPolicy::New,
            storage: StorageType::Memory,
            ..Config::default()
        };
        for config in [events, stats, work] {
            self.context.create_or_update_stream(config).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// Whether the server is there.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// Returns once the server is there, or after so long.
    pub async fn connected(&self, patience: Duration) {
        let end = tokio::time::Instant::now() + patience;
        while !self.is_connected() && tokio::time::Instant::now() < end {
            tokio::time::sleep(CONNECT_LOOK).await;
        }
    }

    /// Sends what waits, for at most so long.
    pub async fn flush(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.client.flush()).await;
    }

    /// Says what is wanted of a run, to those who are there; it is said again and again.
    pub async fn command(&self, stream: &StreamId, command: Command) {
        if !self.is_connected() {
            return;
        }
        self.send(self.subjects.commands(stream), &command).await;
    }

    /// What is wanted of a run, each time that somebody says it.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] once the connection is closed for good.
    pub async fn commands(&self, stream: &StreamId) -> Result<BoxStream<'static, Command>> {
        let messages = self.client.subscribe(self.subjects.commands(stream)).await.map_err(unavailable)?;
        Ok(messages.filter_map(async |message| serde_json::from_slice(&message.payload).ok()).boxed())
    }

    /// Says that something happened, for those who have no bus.
    pub async fn publish_event(&self, event: &Event) {
        self.send(self.subjects.events(event.stream.as_ref()), event).await;
    }

    /// Counters of one worker.
    pub async fn publish_stats(&self, stream: &StreamId, worker: u32, report: &StatsReport) {
        self.send(self.subjects.stats(stream, worker), report).await;
    }

    /// Counters of all workers as they come: run, worker, counters.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] once the connection is closed for good.
    pub async fn all_stats(&self) -> Result<BoxStream<'static, (StreamId, u32, StatsReport)>> {
        let messages = self.client.subscribe(self.subjects.all("stats")).await.map_err(unavailable)?;
        let read = |message: async_nats::Message| {
            let mut parts = message.subject.as_str().rsplit('.');
            let worker = parts.next()?.parse().ok()?;
            let stream = parts.next()?.parse().ok()?;
            Some((stream, worker, serde_json::from_slice(&message.payload).ok()?))
        };
        Ok(messages.filter_map(move |message| std::future::ready(read(message))).boxed())
    }

    /// The newest counters of a run's workers, in their order.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] while JetStream does not answer.
    pub async fn last_stats(&self, stream: &StreamId, workers: u32) -> Result<Vec<StatsReport>> {
        let retained = self.context.get_stream_no_info(self.subjects.retained("stats")).await.map_err(unavailable)?;
        let mut reports = Vec::new();
        for worker in 0..workers.max(1) {
            let found = tokio::time::timeout(PATIENCE, retained.direct_get_last_for_subject(self.subjects.stats(stream, worker))).await;
            if let Ok(Ok(message)) = found
                && let Ok(report) = serde_json::from_slice(&message.payload)
            {
                reports.push(report);
            }
        }
        Ok(reports)
    }

    /// The newest retained events of a run, at most `limit`, at least as loud as `level`, oldest first.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] while JetStream does not answer.
    pub async fn events(&self, stream: &StreamId, level: Level, limit: usize) -> Result<Vec<Event>> {
        let retained = self.context.get_stream_no_info(self.subjects.retained("events")).await.map_err(unavailable)?;
        let subject = self.subjects.events(Some(stream));
        let config = jetstream::consumer::pull::OrderedConfig { filter_subject: subject, ..Default::default() };
        let mut consumer = retained.create_consumer(config).await.map_err(unavailable)?;
        let pending = consumer.info().await.map_err(unavailable)?.num_pending;
        let mut found = std::collections::VecDeque::new();
        let mut messages = consumer.messages().await.map_err(unavailable)?;
        for _ in 0..pending {
            let Ok(Some(Ok(message))) = tokio::time::timeout(PATIENCE, messages.next()).await else { break };
            let Ok(event) = serde_json::from_slice::<Event>(&message.payload) else { continue };
            if event.level >= level {
                found.push_back(event);
                if found.len() > limit {
                    found.pop_front();
                }
            }
        }
        Ok(found.into())
    }

    /// Forgets what is retained of a run.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] while JetStream does not answer.
    pub async fn purge(&self, stream: &StreamId) -> Result<()> {
        for (kind, subject) in [("events", self.subjects.events(Some(stream))), ("stats", self.subjects.all_stats(stream))] {
            let retained = self.context.get_stream_no_info(self.subjects.retained(kind)).await.map_err(unavailable)?;
            retained.purge().filter(subject).await.map_err(unavailable)?;
        }
        Ok(())
    }

    /// Runs of which something is retained.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] while JetStream does not answer.
    pub async fn retained_runs(&self) -> Result<BTreeSet<StreamId>> {
        let mut runs = BTreeSet::new();
        for kind in ["events", "stats"] {
            let retained = self.context.get_stream_no_info(self.subjects.retained(kind)).await.map_err(unavailable)?;
            let mut subjects = retained.info_with_subjects(self.subjects.all(kind)).await.map_err(unavailable)?;
            while let Some((subject, _)) = subjects.try_next().await.map_err(unavailable)? {
                runs.extend(self.subjects.run_of(&subject));
            }
        }
        Ok(runs)
    }

    async fn send<T: Serialize + Sync>(&self, subject: String, body: &T) {
        let Ok(payload) = serde_json::to_vec(body) else { return };
        // The client keeps some messages for a server that is away; after those it would wait for it.
        match tokio::time::timeout(SEND_WITHIN, self.client.publish(subject, payload.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a message was not sent"),
            Err(_) => tracing::debug!("a message was not sent: NATS takes nothing"),
        }
    }
}

pub(crate) fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Unreachable, "NATS does not answer").because(error)
}

/// The bus of a cluster.
#[derive(Clone)]
pub struct NatsBus {
    waiting: mpsc::Sender<Event>,
    dropped: Arc<AtomicU64>,
    local: Arc<LocalBus>,
}

impl NatsBus {
    /// A bus that publishes, and if it listens hands out what all processes publish.
    pub fn new(nats: Nats, listens: bool) -> Self {
        let (waiting, mut events) = mpsc::channel::<Event>(WAITING);
        let local = Arc::new(LocalBus::default());
        let publisher = nats.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                publisher.send(publisher.subjects.events(event.stream.as_ref()), &event).await;
            }
        });
        if listens {
            let heard = local.clone();
            tokio::spawn(async move {
                let Ok(mut messages) = nats.client.subscribe(nats.subjects.all("events")).await else { return };
                while let Some(message) = messages.next().await {
                    if let Ok(event) = serde_json::from_slice::<Event>(&message.payload) {
                        heard.publish(event);
                    }
                }
            });
        }
        Self { waiting, dropped: Arc::default(), local }
    }

    /// Waits until what was published is handed to the connection, for at most so long.
    pub async fn drain(&self, patience: Duration) {
        let end = tokio::time::Instant::now() + patience;
        while self.waiting.capacity() < WAITING && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Bus for NatsBus {
    fn publish(&self, event: Event) {
        let is_full = self.waiting.try_send(event).is_err();
        if is_full {
            metrics::dropped();
        }
        if is_full && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("events are dropped, because NATS has been away for long");
        }
    }

    fn subscribe(&self) -> BoxStream<'static, Delivery> {
        self.local.subscribe()
    }

    fn recent(&self, stream: &StreamId, level: Level, limit: usize) -> Vec<Event> {
        self.local.recent(stream, level, limit)
    }
}
