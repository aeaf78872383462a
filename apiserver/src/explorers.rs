//! Sessions in which people look into databases: few per connection, used again, closed when idle.
//!
//! ```text
//!  request ─▶ permit of the connection ─▶ pool of (connection as it is now, database) ─▶ Lease ─▶ Explorer
//!                                                                 dropped in the middle of a call: cancelled at the server, thrown away
//!                                                                 dropped after a user's own statements: reset, then back in the pool
//! ```

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts};
use millrace_core::connection::Connection;
use millrace_core::explore::{Canceller, Explorer};
use millrace_core::{Error, Kind, Result};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// How long a request waits for a session.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a session may take to forget what a user's own statements left in it.
const TIDYING: Duration = Duration::from_secs(10);
/// How long whoever gives a session back waits for that.
const END: Duration = Duration::from_secs(1);
/// How often idle sessions are looked for, at most.
const SWEEP: Duration = Duration::from_secs(15);
/// Pools and permits that are remembered.
const REMEMBERED: u64 = 1_000;

/// What sessions may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExplorerLimits {
    /// Sessions that one connection may have open for people at a time.
    pub per_connection: usize,
    /// A session that nobody has used for so long is closed.
    pub idle: Duration,
}

impl Default for ExplorerLimits {
    fn default() -> Self {
        Self { per_connection: 16, idle: Duration::from_secs(60) }
    }
}

/// The sessions; cheap to clone.
#[derive(Clone)]
pub struct Explorers(Arc<Parts>);

struct Parts {
    limits: ExplorerLimits,
    pools: Cache<Key, Pool<Door>>,
    permits: Cache<String, Arc<Semaphore>>,
    sweeper: OnceLock<()>,
}

/// A connection as it is now (a changed one has other sessions) and a database.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    connection: String,
    revision: u64,
    database: Option<String>,
}

/// Opens sessions.
struct Door {
    connection: Connection,
    database: Option<String>,
}

/// A session, and whether a user's own statements have run in it.
struct Room {
    explorer: Box<dyn Explorer>,
    is_dirty: bool,
}

impl managed::Manager for Door {
    type Type = Room;
    type Error = Error;

    async fn create(&self) -> Result<Room> {
        let connector = millrace_connectors::connector(self.connection.engine)?;
        let explorer = connector.explore(&self.connection, self.database.as_deref()).await?;
        Ok(Room { explorer, is_dirty: false })
    }

    async fn recycle(&self, room: &mut Room, _: &Metrics) -> RecycleResult<Error> {
        if !room.is_dirty && room.explorer.is_reusable() { Ok(()) } else { Err(RecycleError::message("the session is not at rest")) }
    }
}

impl Default for Explorers {
    fn default() -> Self {
        Self::new(ExplorerLimits::default())
    }
}

impl Explorers {
    /// No sessions yet.
    pub fn new(limits: ExplorerLimits) -> Self {
        let limits = ExplorerLimits { per_connection: limits.per_connection.max(1), idle: limits.idle.max(Duration::from_secs(1)) };
        Self(Arc::new(Parts {
            limits,
            pools: Cache::builder().max_capacity(REMEMBERED).time_to_idle(limits.idle * 5).build(),
            permits: Cache::builder().max_capacity(REMEMBERED).time_to_idle(limits.idle * 60).build(),
            sweeper: OnceLock::new(),
        }))
    }

    /// A session in a database; the connection's default if none is named.
    ///
    /// Errors: those of [`millrace_core::connector::Connector::explore`]; [`Kind::ServerExhausted`] if too many requests use the connection.
    pub(crate) async fn lease(&self, connection: &Connection, database: Option<&str>) -> Result<Lease> {
        if connection.database().is_none() {
            let text = format!("this request needs a database, and the connection is of type `{}`", connection.engine.as_str());
            return Err(Error::not_supported("connectionId", text));
        }
        self.0.sweeper.get_or_init(|| sweep(&self.0));
        let most = self.0.limits.per_connection;
        let busy = || {
            let text = format!("{most} requests use the connection `{}` already; try again later", connection.name);
            Error::new(Kind::ServerExhausted, text)
        };
        let id = connection.id.to_string();
        let permits = self.0.permits.get_with(id.clone(), || Arc::new(Semaphore::new(most)));
        let permit = tokio::time::timeout(PATIENCE, permits.acquire_owned()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let key = Key { connection: id, revision: revision(connection), database: database.map(str::to_owned) };
        let pool = self.0.pools.get_with(key, || {
            let door = Door { connection: connection.clone(), database: database.map(str::to_owned) };
            // Without a runtime there are no time-outs, and none are set: whoever waits has waited for the permit.
            Pool::builder(door).max_size(most).timeouts(Timeouts::default()).build().unwrap_or_else(|_| unreachable!("no time-outs"))
        });
        let room = pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            _ => busy(),
        })?;
        let canceller = Arc::from(room.explorer.canceller());
        Ok(Lease { room: Some(room), canceller, is_at_rest: true, permit: Some(permit) })
    }
}

/// Closes idle sessions until the pools are gone.
fn sweep(parts: &Arc<Parts>) {
    let idle = parts.limits.idle;
    let parts = Arc::downgrade(parts);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP.min(idle / 2)).await;
            let Some(parts) = parts.upgrade() else { return };
            for (_, pool) in &parts.pools {
                pool.retain(|_, metrics| metrics.last_used() < idle);
            }
            parts.pools.run_pending_tasks();
        }
    });
}

/// Tells a connection from what it was before a change.
pub(crate) fn revision(connection: &Connection) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(connection).unwrap_or_default().hash(&mut hasher);
    for (path, secret) in connection.secrets() {
        path.hash(&mut hasher);
        secret.expose().hash(&mut hasher);
    }
    hasher.finish()
}

/// A session for one request. Dropped in the middle of a call, it ends the statement at the server.
pub(crate) struct Lease {
    room: Option<Object<Door>>,
    canceller: Arc<dyn Canceller>,
    is_at_rest: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// The session, for one call; its outcome goes to [`Lease::settle`].
    pub(crate) fn explorer(&mut self) -> Result<&mut dyn Explorer> {
        self.is_at_rest = false;
        let room = self.room.as_mut().ok_or_else(|| Error::internal("the session is gone"))?;
        Ok(room.explorer.as_mut())
    }

    /// The session, for a call that runs a user's own statements.
    pub(crate) fn explorer_for_user(&mut self) -> Result<&mut dyn Explorer> {
        if let Some(room) = &mut self.room {
            room.is_dirty = true;
        }
        self.explorer()
    }

    /// Says that a call has ended, and how.
    pub(crate) fn settle<T>(&mut self, outcome: Result<T>) -> Result<T> {
        let is_broken = |error: &Error| {
            matches!(error.kind(), Kind::TimedOut | Kind::Cancelled | Kind::ConnectionLost | Kind::ProtocolViolated | Kind::Internal)
        };
        // One that is in the middle of an answer goes now: in the pool it would hold its locks until somebody else wants it. What a user's own statements leave
        // can be undone, see below.
        let is_over = self.room.as_ref().is_some_and(|room| room.is_dirty || room.explorer.is_reusable());
        self.is_at_rest = is_over && !outcome.as_ref().is_err_and(is_broken);
        outcome
    }

    /// The statements of the last call, for records.
    pub(crate) fn statements(&mut self) -> Vec<String> {
        self.room.as_mut().map(|room| room.explorer.take_statements()).unwrap_or_default()
    }
}

impl Lease {
    /// Gives the session back, and returns once nothing is left of what a user's own statements did in it; not later than after a second.
    pub(crate) async fn end(mut self) {
        if let Some(tidying) = self.give_back() {
            let _ = tokio::time::timeout(END, tidying).await;
        }
    }

    fn give_back(&mut self) -> Option<JoinHandle<()>> {
        let mut room = self.room.take()?;
        if self.is_at_rest && !room.is_dirty {
            return None;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            drop(Object::take(room));
            return None;
        };
        let canceller = self.canceller.clone();
        if !self.is_at_rest {
            // What the session is in the middle of is unknown: nobody gets it again.
            drop(Object::take(room));
            return Some(runtime.spawn(cancel(canceller)));
        }
        // Now, not when somebody wants it next: a transaction that was left open holds its locks until then.
        let permit = self.permit.take();
        Some(runtime.spawn(async move {
            match within(TIDYING, room.explorer.reset()).await {
                Ok(()) => room.is_dirty = false,
                Err(error) => {
                    tracing::debug!(error = %error.chain(), "a session that was used could not be reset; it is closed");
                    drop((Object::take(room), permit));
                    cancel(canceller).await;
                }
            }
        }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Ends what a session runs at its server, though the session is gone.
async fn cancel(canceller: Arc<dyn Canceller>) {
    if let Err(error) = within(TIDYING, canceller.cancel()).await {
        tracing::debug!(error = %error.chain(), "a statement could not be ended at its server");
    }
}

/// Ends a call that takes too long.
pub(crate) async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::new(Kind::TimedOut, format!("the database did not answer within {} s", deadline.as_secs()))),
    }
}
