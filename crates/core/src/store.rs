//! Where connections, configs and runs are kept: SQLite in one process, custom resources in a cluster.

use futures::future::BoxFuture;

use crate::bus::{Event, Level};
use crate::config::StreamConfig;
use crate::connection::Connection;
use crate::error::Result;
use crate::id::{ConfigId, ConnectionId, StreamId};
use crate::stream::Stream;

/// Keeps what users define and the history of runs.
///
/// Contract, checked by one conformance suite for every implementation:
/// - a write that returned is durable and seen by every later read, also after a crash of the process;
/// - `create_*` fails with [`crate::Kind::Conflict`] if the id exists; `update_*`, `get_*` and `delete_*` of an unknown id fail with
///   [`crate::Kind::NotFound`]; lists are ordered by creation, oldest first;
/// - secrets are sealed at rest and come back with the connection;
/// - `create_stream` is the gate: in one atomic step it fails with [`crate::Kind::Conflict`], field `stream_state` and a detail
///   `stream` per blocking id, when an unfinished stream exists that the store's limit on active streams forbids;
/// - `update_stream` never changes a terminal state (see [`crate::stream::StreamState::after`]) and returns what is stored.
pub trait ConfigStore: Send + Sync {
    /// All connections.
    fn connections(&self) -> BoxFuture<'_, Result<Vec<Connection>>>;
    /// One connection with its secrets.
    fn connection<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<Connection>>;
    /// Stores a new connection.
    fn create_connection<'a>(&'a self, connection: &'a Connection) -> BoxFuture<'a, Result<()>>;
    /// Replaces a connection; `id` and `created` stay.
    fn update_connection<'a>(&'a self, connection: &'a Connection) -> BoxFuture<'a, Result<()>>;
    /// Removes a connection; [`crate::Kind::Conflict`] while a config uses it.
    fn delete_connection<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<()>>;

    /// All configs.
    fn configs(&self) -> BoxFuture<'_, Result<Vec<StreamConfig>>>;
    /// One config.
    fn config<'a>(&'a self, id: &'a ConfigId) -> BoxFuture<'a, Result<StreamConfig>>;
    /// Stores a new config.
    fn create_config<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<()>>;
    /// Replaces a config; `id` and `created` stay.
    fn update_config<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<()>>;
    /// Removes a config and its history; [`crate::Kind::Conflict`] while one of its streams is unfinished.
    fn delete_config<'a>(&'a self, id: &'a ConfigId) -> BoxFuture<'a, Result<()>>;

    /// Streams, newest first; of one config if named.
    fn streams<'a>(&'a self, config: Option<&'a ConfigId>) -> BoxFuture<'a, Result<Vec<Stream>>>;
    /// One stream.
    fn stream<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>>;
    /// Passes the gate and stores a new stream.
    fn create_stream<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, Result<()>>;
    /// Stores a stream's state and counters.
    fn update_stream<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, Result<Stream>>;
    /// Removes a finished stream from the history; [`crate::Kind::Conflict`] while it is unfinished.
    fn delete_stream<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<()>>;

    /// A setting; none if it was never set.
    fn setting<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>>;
    /// Keeps a setting.
    fn set_setting<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Keeps events of runs; those of a run that is not in the history are dropped.
    fn keep_events<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, Result<()>>;
    /// The newest kept events of a run, at most `limit`, at least as loud as `level`, oldest first. They go with the run.
    fn events<'a>(&'a self, stream: &'a StreamId, level: Level, limit: usize) -> BoxFuture<'a, Result<Vec<Event>>>;
}
