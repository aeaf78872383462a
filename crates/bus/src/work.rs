//! Splits on a JetStream work queue: each goes to one worker at a time, and to another one when the first says nothing for a while.
//!
//! The queue lives in the server's memory. What it loses is offered again: boundaries stand in the target's ledger before they are offered, and a split that
//! is delivered twice can be committed once only.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::{AckKind, Message};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use millrace_core::fleet::{TakenWork, WorkItem, WorkQueue};
use millrace_core::id::StreamId;
use millrace_core::ledger::CutNumber;
use millrace_core::{Error, Kind, Result};
use tokio::sync::Mutex;

use crate::nats::{Nats, unavailable};

/// A worker that says nothing for so long is taken for dead.
const ACK_WAIT: Duration = Duration::from_secs(15);
/// How long a worker waits for an item at once.
const TAKE_WAIT: Duration = Duration::from_secs(1);
/// A consumer that nobody asks goes.
const INACTIVE: Duration = Duration::from_secs(3600);
/// Beyond [`TAKE_WAIT`], a server that does not answer is away.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Items that are offered at once, and how long the server may take for them.
const BATCH: usize = 500;
const OFFER_WITHIN: Duration = Duration::from_secs(10);

type Pull = Consumer<pull::Config>;

/// The queue of one run.
pub struct NatsWork {
    nats: Nats,
    stream: StreamId,
    consumers: Mutex<HashMap<(i64, usize), Pull>>,
}

impl NatsWork {
    /// The queue of a run; asks the server nothing yet.
    pub fn new(nats: Nats, stream: StreamId) -> Self {
        Self { nats, stream, consumers: Mutex::default() }
    }

    async fn consumer(&self, cut: i64, part: usize) -> Result<Pull> {
        if !self.nats.is_connected() {
            return Err(Error::new(Kind::Unreachable, "NATS is away"));
        }
        let mut consumers = self.consumers.lock().await;
        if let Some(found) = consumers.get(&(cut, part)) {
            return Ok(found.clone());
        }
        let name = format!("{}_{cut}_{part}", self.stream);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            filter_subject: self.nats.subjects.work(&self.stream, cut, part),
            max_ack_pending: -1,
            inactive_threshold: INACTIVE,
            ..pull::Config::default()
        };
        let made = match self.queue().await?.get_or_create_consumer(&name, config.clone()).await {
            Ok(made) => made,
            Err(_) => {
                // A server that has lost its memory has no stream either.
                self.nats.try_define().await?;
                self.queue().await?.get_or_create_consumer(&name, config).await.map_err(unavailable)?
            }
        };
        consumers.insert((cut, part), made.clone());
        Ok(made)
    }

    async fn queue(&self) -> Result<async_nats::jetstream::stream::Stream<()>> {
        self.nats.context.get_stream_no_info(self.nats.subjects.retained("work")).await.map_err(unavailable)
    }

    async fn offer_all(&self, cut: i64, part: usize, items: &[WorkItem]) -> Result<()> {
        // Made first: a work queue drops nothing, but a consumer tells what is outstanding.
        self.consumer(cut, part).await?;
        let subject = self.nats.subjects.work(&self.stream, cut, part);
        // In batches: the client has a limited number of answers under way, and waits for the next one for ever.
        for batch in items.chunks(BATCH) {
            let offered = async {
                let mut answers = Vec::with_capacity(batch.len());
                for item in batch {
                    let payload = serde_json::to_vec(item).map_err(|error| Error::internal("an item has no JSON form").because(error))?;
                    answers.push(self.nats.context.publish(subject.clone(), payload.into()).await.map_err(unavailable)?);
                }
                for answer in answers {
                    answer.await.map_err(unavailable)?;
                }
                Ok(())
            };
            let away = |_| Error::new(Kind::Unreachable, "NATS does not take more work");
            tokio::time::timeout(OFFER_WITHIN, offered).await.map_err(away)??;
        }
        Ok(())
    }

    async fn count(&self, cut: i64, part: usize) -> Result<u64> {
        let mut consumer = self.consumer(cut, part).await?;
        match consumer.info().await {
            Ok(info) => Ok(info.num_pending + info.num_ack_pending as u64),
            Err(error) => {
                self.forget(cut, part).await;
                Err(unavailable(error))
            }
        }
    }

    async fn next(&self, cut: i64, part: usize) -> Result<Option<Box<dyn TakenWork>>> {
        let consumer = self.consumer(cut, part).await?;
        let asked = async {
            let mut batch = consumer.batch().max_messages(1).expires(TAKE_WAIT).messages().await.map_err(unavailable)?;
            batch.next().await.transpose().map_err(|error| Error::new(Kind::Unreachable, "NATS does not answer").because(error.to_string()))
        };
        match tokio::time::timeout(TAKE_WAIT + ANSWER_WITHIN, asked).await {
            Ok(Ok(Some(message))) => match serde_json::from_slice(&message.payload) {
                Ok(item) => Ok(Some(Box::new(Taken { item, message }) as Box<dyn TakenWork>)),
                Err(_) => {
                    acknowledge(&message, AckKind::Term).await;
                    Ok(None)
                }
            },
            Ok(Ok(None)) if self.nats.is_connected() => Ok(None),
            Ok(Err(error)) => {
                // The consumer may be gone with the server's memory.
                self.forget(cut, part).await;
                Err(error)
            }
            _ => Err(Error::new(Kind::Unreachable, "NATS is away")),
        }
    }

    async fn forget(&self, cut: i64, part: usize) {
        self.consumers.lock().await.remove(&(cut, part));
    }
}

impl WorkQueue for NatsWork {
    fn offer<'a>(&'a self, cut: CutNumber, part: usize, items: &'a [WorkItem]) -> BoxFuture<'a, Result<()>> {
        self.offer_all(cut.0, part, items).boxed()
    }

    fn outstanding<'a>(&'a self, cut: CutNumber, part: usize) -> BoxFuture<'a, Result<u64>> {
        self.count(cut.0, part).boxed()
    }

    fn take<'a>(&'a self, cut: CutNumber, part: usize) -> BoxFuture<'a, Result<Option<Box<dyn TakenWork>>>> {
        self.next(cut.0, part).boxed()
    }

    fn clear(&self) -> BoxFuture<'_, Result<()>> {
        async {
            if !self.nats.is_connected() {
                return Err(Error::new(Kind::Unreachable, "NATS is away"));
            }
            let cleared = async {
                let queue = self.queue().await?;
                queue.purge().filter(self.nats.subjects.all_work(&self.stream)).await.map_err(unavailable)?;
                for ((cut, part), _) in self.consumers.lock().await.drain() {
                    let _ = queue.delete_consumer(&format!("{}_{cut}_{part}", self.stream)).await;
                }
                Ok(())
            };
            let away = |_| Error::new(Kind::Unreachable, "NATS does not answer");
            tokio::time::timeout(OFFER_WITHIN, cleared).await.map_err(away)?
        }
        .boxed()
    }
}

struct Taken {
    item: WorkItem,
    message: Message,
}

/// A word that is lost means that the item is delivered again, which does no harm.
async fn acknowledge(message: &Message, kind: AckKind) {
    match tokio::time::timeout(ANSWER_WITHIN, message.ack_with(kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an acknowledgement was not sent"),
        Err(_) => tracing::debug!("an acknowledgement was not sent: NATS takes nothing"),
    }
}

impl TakenWork for Taken {
    fn item(&self) -> &WorkItem {
        &self.item
    }

    fn keep_every(&self) -> Duration {
        ACK_WAIT / 3
    }

    fn keep(&self) -> BoxFuture<'_, ()> {
        acknowledge(&self.message, AckKind::Progress).boxed()
    }

    fn done(&self) -> BoxFuture<'_, ()> {
        acknowledge(&self.message, AckKind::Ack).boxed()
    }

    fn give_back(&self) -> BoxFuture<'_, ()> {
        acknowledge(&self.message, AckKind::Nak(None)).boxed()
    }
}
