//! What connections contain, remembered for a short while, as the text that goes to clients.
//!
//! An entry ends after [`TTL`], on request, and when anybody changes a definition through any of the API servers ([`Body::CatalogChanged`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures::StreamExt as _;
use millrace_core::bus::{Body, Delivery, Event, Level, Side};
use millrace_core::connection::Connection;
use millrace_core::explore::ObjectFilter;
use millrace_core::structure::ObjectName;
use millrace_core::{Error, Result};
use moka::future::Cache;
use serde::Serialize;

use crate::explorers::revision;
use crate::state::AppState;

/// How long structure and overviews are remembered.
const TTL: Duration = Duration::from_secs(30);
/// How long statistics are remembered: they are dear and say when they were made.
const SUMMARY_TTL: Duration = Duration::from_secs(600);
/// The most that is remembered, bytes of text.
const CAPACITY: u64 = 64 << 20;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// All objects.
    Structure(ObjectFilter),
    /// Their names.
    Names(ObjectFilter),
    /// One table.
    Table(ObjectName),
    /// One view.
    View(ObjectName),
    /// The database at a glance.
    Overview,
    /// Statistics of a table or view, of so many thousandths of a percent of its rows.
    Summary(ObjectName, Option<u64>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    connection: String,
    revision: u64,
    database: Option<String>,
    topic: Topic,
}

/// An answer as it goes to clients.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    /// JSON.
    pub(crate) body: Bytes,
    /// Whether it was there already.
    pub(crate) is_hit: bool,
}

/// The memory; cheap to clone.
#[derive(Clone)]
pub struct Catalogs {
    short: Cache<Key, Remembered>,
    long: Cache<Key, Remembered>,
}

impl Default for Catalogs {
    fn default() -> Self {
        let cache = |ttl| {
            Cache::builder()
                .max_capacity(CAPACITY)
                .weigher(|_: &Key, value: &Remembered| u32::try_from(value.body.len()).unwrap_or(u32::MAX).saturating_add(200))
                .time_to_live(ttl)
                .support_invalidation_closures()
                .build()
        };
        Self { short: cache(TTL), long: cache(SUMMARY_TTL) }
    }
}

impl Catalogs {
    /// What is remembered, else what `make` makes, once for all who ask at the same time. `refresh` forgets first.
    pub(crate) async fn get<T: Serialize>(
        &self,
        connection: &Connection,
        database: Option<&str>,
        topic: Topic,
        refresh: bool,
        make: impl Future<Output = Result<T>>,
    ) -> Result<Remembered> {
        let cache = if matches!(topic, Topic::Summary(..)) { &self.long } else { &self.short };
        let key =
            Key { connection: connection.id.to_string(), revision: revision(connection), database: database.map(str::to_owned), topic };
        if refresh {
            cache.invalidate(&key).await;
        } else if let Some(found) = cache.get(&key).await {
            return Ok(Remembered { is_hit: true, ..found });
        }
        let made = cache.try_get_with(key, async {
            let value = make.await?;
            let body = serde_json::to_vec(&value).map_err(|error| Error::internal("an answer has no JSON form").because(error))?;
            Ok(Remembered { body: body.into(), is_hit: false })
        });
        made.await.map_err(|error: Arc<Error>| again(&error))
    }

    /// Forgets what is remembered of a connection.
    fn forget(&self, connection: &str) {
        for cache in [&self.short, &self.long] {
            let connection = connection.to_owned();
            if cache.invalidate_entries_if(move |key, _| key.connection == connection).is_err() {
                cache.invalidate_all();
            }
        }
    }
}

/// An error for another one who waited for the same answer.
fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned());
    if let Some(field) = error.field_name() {
        copy = copy.field(field);
    }
    error.details().iter().fold(copy, |copy, (name, value)| copy.with(name, value.clone()))
}

/// Forgets what is remembered of a connection, here and at the other API servers.
pub(crate) fn changed(state: &AppState, connection: &str) {
    state.catalogs.forget(connection);
    state.search.forget(connection);
    state.bus.publish(Event {
        at: Utc::now().timestamp_millis(),
        level: Level::Debug,
        side: Side::Api,
        stream: None,
        node: None,
        message: "a connection's contents were changed".to_owned(),
        body: Body::CatalogChanged { connection: connection.to_owned() },
    });
}

/// Listens to what the other API servers change, until the server stops.
pub(crate) fn listen(state: &AppState) {
    let (catalogs, search) = (state.catalogs.clone(), state.search.clone());
    let mut events = state.bus.subscribe().take_until(state.shutdown.clone().cancelled_owned()).boxed();
    tokio::spawn(async move {
        while let Some(delivery) = events.next().await {
            match delivery {
                Delivery::Event(event) => {
                    if let Body::CatalogChanged { connection } = &event.body {
                        catalogs.forget(connection);
                        search.forget(connection);
                    }
                }
                // Something was missed, perhaps a change.
                Delivery::Lagged(_) => {
                    catalogs.short.invalidate_all();
                    catalogs.long.invalidate_all();
                }
            }
        }
    });
}
