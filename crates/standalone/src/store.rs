//! The store of one process: SQLite, one writer, everything durable when a call returns.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::bus::{Event, Level};
use millrace_core::config::StreamConfig;
use millrace_core::connection::Connection;
use millrace_core::id::{ConfigId, ConnectionId, InstallId, StreamId};
use millrace_core::store::ConfigStore;
use millrace_core::stream::{Reason, Stream, StreamState};
use millrace_core::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, Sqlite, Transaction};

use crate::seal::Seal;

const FILE: &str = "millrace.db";
/// Reads at once.
const READERS: u32 = 2;

/// The store of one data directory.
#[derive(Clone)]
pub struct Store {
    /// One connection: SQLite has one writer anyway, and a queue here is fairer than its busy loop.
    pub(crate) pool: SqlitePool,
    /// For what every request asks, so that it waits for no write to become durable. A read sees all that was written before it began.
    readers: SqlitePool,
    seal: Seal,
}

impl Store {
    /// Opens (creating it if need be) the database of a data directory and brings its tables up to date.
    pub async fn open(data_dir: &Path) -> Result<Self> {
        let cannot =
            |error: std::io::Error| Error::internal(format!("cannot use the data directory `{}`", data_dir.display())).because(error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(cannot)?;
        let path = data_dir.join(FILE);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        // A connection to a file of our own does not break, so it is not tried before each use.
        let connections = |most| SqlitePoolOptions::new().max_connections(most).test_before_acquire(false);
        let pool = connections(1).connect_with(options.clone()).await.map_err(failed("open the store"))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(cannot)?;
        sqlx::migrate!("./migrations")
            .run(&pool)
            .await
            .map_err(|error| Error::internal(format!("the store `{}` cannot be brought up to date", path.display())).because(error))?;
        let sealed: i64 =
            sqlx::query_scalar("SELECT count(*) FROM connection_secret").fetch_one(&pool).await.map_err(failed("read the store"))?;
        let readers = connections(READERS).connect_lazy_with(options);
        Ok(Self { seal: Seal::open(data_dir, sealed == 0)?, pool, readers })
    }

    /// This installation's id, minted once.
    pub async fn install_id(&self) -> Result<InstallId> {
        let minted = InstallId::mint();
        sqlx::query("INSERT INTO setting (name, value) VALUES ('install_id', ?) ON CONFLICT DO NOTHING")
            .bind(minted.as_str())
            .execute(&self.pool)
            .await
            .map_err(failed("write the store"))?;
        let text: String = sqlx::query_scalar("SELECT value FROM setting WHERE name = 'install_id'")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("read the store"))?;
        text.parse().map_err(|error| Error::internal("the stored install id is damaged").because(error))
    }

    /// Marks streams that a former process left unfinished: paused, interrupted. To be called once, before any stream is started.
    pub async fn mark_interrupted(&self) -> Result<Vec<Stream>> {
        let mut interrupted = Vec::new();
        for mut stream in self.streams(None).await? {
            if !stream.state.is_terminal() {
                stream.state = StreamState::Paused;
                stream.reason = Some(Reason::Interrupted);
                interrupted.push(self.update_stream(&stream).await?);
            }
        }
        Ok(interrupted)
    }

    async fn write_connection(&self, connection: &Connection, is_new: bool) -> Result<()> {
        let id = connection.id.as_str();
        let document = to_json(connection)?;
        let mut transaction = self.pool.begin().await.map_err(failed("write the store"))?;
        if is_new {
            sqlx::query("INSERT INTO connection (id, created, document) VALUES (?, ?, ?)")
                .bind(id)
                .bind(connection.created)
                .bind(document)
                .execute(&mut *transaction)
                .await
                .map_err(|error| conflict_or(error, "the connection exists already"))?;
        } else {
            let written = sqlx::query("UPDATE connection SET document = ? WHERE id = ?")
                .bind(document)
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
            found(written.rows_affected(), "connection", id)?;
            sqlx::query("DELETE FROM connection_secret WHERE connection = ?")
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
        }
        for (path, secret) in connection.secrets() {
            sqlx::query("INSERT INTO connection_secret (connection, path, sealed) VALUES (?, ?, ?)")
                .bind(id)
                .bind(path)
                .bind(self.seal.seal(id, path, secret)?)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
        }
        transaction.commit().await.map_err(failed("write the store"))
    }

    async fn read_connections(&self, id: Option<&str>) -> Result<Vec<Connection>> {
        // One statement, so that a document and its secrets are of the same moment.
        const ALL: &str =
            "SELECT id, document, path, sealed FROM connection LEFT JOIN connection_secret ON connection = id ORDER BY created, id";
        const ONE: &str = "SELECT id, document, path, sealed FROM connection LEFT JOIN connection_secret ON connection = id WHERE id = ?";
        let query = match id {
            Some(id) => sqlx::query(ONE).bind(id),
            None => sqlx::query(ALL),
        };
        let rows = query.fetch_all(&self.readers).await.map_err(failed("read the store"))?;
        let mut connections: Vec<Connection> = Vec::new();
        for row in rows {
            let (id, path, sealed): (&str, Option<&str>, Option<&[u8]>) = (row.get(0), row.get(2), row.get(3));
            // The rows of a connection follow each other, one for each of its secrets.
            if connections.last().is_none_or(|last| last.id.as_str() != id) {
                connections.push(from_json(row.get(1))?);
            }
            if let (Some(path), Some(sealed), Some(connection)) = (path, sealed, connections.last_mut()) {
                connection.restore_secret(path, self.seal.open_secret(id, path, sealed)?);
            }
        }
        Ok(connections)
    }

    async fn write_config(&self, config: &StreamConfig, is_new: bool) -> Result<()> {
        let id = config.id.as_str();
        let document = to_json(config)?;
        let mut transaction = self.pool.begin().await.map_err(failed("write the store"))?;
        if is_new {
            sqlx::query("INSERT INTO config (id, created, document) VALUES (?, ?, ?)")
                .bind(id)
                .bind(config.created)
                .bind(document)
                .execute(&mut *transaction)
                .await
                .map_err(|error| conflict_or(error, "the config exists already"))?;
        } else {
            let written = sqlx::query("UPDATE config SET document = ? WHERE id = ?")
                .bind(document)
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
            found(written.rows_affected(), "config", id)?;
            sqlx::query("DELETE FROM config_connection WHERE config = ?")
                .bind(id)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
        }
        let sources = config.spec.source.connections.iter().map(|source| &source.connection_id);
        for connection in sources.chain([&config.spec.target.id]) {
            sqlx::query("INSERT INTO config_connection (config, connection) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(id)
                .bind(connection.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(|error| match is_foreign_key(&error) {
                    true => not_found("connection", connection.as_str()),
                    false => failed("write the store")(error),
                })?;
        }
        transaction.commit().await.map_err(failed("write the store"))
    }

    async fn delete(&self, table: &'static str, what: &'static str, id: &str, busy: &'static str) -> Result<()> {
        let sql = match table {
            "connection" => "DELETE FROM connection WHERE id = ?",
            _ => "DELETE FROM config WHERE id = ?",
        };
        let deleted = sqlx::query(sql).bind(id).execute(&self.pool).await.map_err(|error| match is_foreign_key(&error) {
            true => Error::new(Kind::Conflict, busy),
            false => failed("write the store")(error),
        })?;
        found(deleted.rows_affected(), what, id)
    }

    async fn blocked(&self, config: Option<&ConfigId>) -> Result<Option<Error>> {
        let streams = self.streams(config).await?;
        let blocking: Vec<&Stream> = streams.iter().filter(|stream| !stream.state.is_terminal()).collect();
        if blocking.is_empty() {
            return Ok(None);
        }
        let mut error = Error::new(Kind::Conflict, "another stream is active; stop it first").field("stream_state");
        for stream in blocking {
            error = error.with("stream", stream.id.as_str());
        }
        Ok(Some(error))
    }

    async fn insert_stream(&self, stream: &Stream) -> Result<()> {
        let inserted = sqlx::query("INSERT INTO stream (id, config, started_at, unfinished, document) VALUES (?, ?, ?, ?, ?)")
            .bind(stream.id.as_str())
            .bind(stream.config_id.as_str())
            .bind(stream.started_at)
            .bind(!stream.state.is_terminal())
            .bind(to_json(stream)?)
            .execute(&self.pool)
            .await;
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if is_unique(&error) => match self.blocked(None).await? {
                Some(blocked) => Err(blocked),
                // The one that was in the way has ended since.
                None => Err(Error::new(Kind::Conflict, "another stream was being started; try again").field("stream_state")),
            },
            Err(error) => Err(failed("write the store")(error)),
        }
    }

    async fn replace_stream(&self, stream: &Stream) -> Result<Stream> {
        let mut transaction = self.pool.begin().await.map_err(failed("write the store"))?;
        let mut stored = read_stream(&mut transaction, &stream.id).await?;
        // What has ended stays as it ended: a late report cannot change it.
        if !stored.state.is_terminal() {
            stored = stream.clone();
            sqlx::query("UPDATE stream SET unfinished = ?, document = ? WHERE id = ?")
                .bind(!stored.state.is_terminal())
                .bind(to_json(&stored)?)
                .bind(stored.id.as_str())
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
        }
        transaction.commit().await.map_err(failed("write the store"))?;
        Ok(stored)
    }
}

/// Events kept per run; the oldest go first.
const EVENTS_PER_RUN: i64 = 10_000;

impl Store {
    async fn write_events(&self, events: &[Event]) -> Result<()> {
        let mut transaction = self.pool.begin().await.map_err(failed("write the store"))?;
        let mut streams: Vec<&str> = Vec::new();
        for event in events {
            let Some(stream) = event.stream.as_ref().map(StreamId::as_str) else { continue };
            if !streams.contains(&stream) {
                streams.push(stream);
            }
            let sql = "INSERT INTO run_event (stream, level, document) SELECT id, ?, ? FROM stream WHERE id = ?";
            sqlx::query(sql)
                .bind(event.level as i64)
                .bind(to_json(event)?)
                .bind(stream)
                .execute(&mut *transaction)
                .await
                .map_err(failed("write the store"))?;
        }
        for stream in streams {
            let sql = "DELETE FROM run_event WHERE stream = ?1 AND sequence <=
                (SELECT sequence FROM run_event WHERE stream = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2)";
            sqlx::query(sql).bind(stream).bind(EVENTS_PER_RUN).execute(&mut *transaction).await.map_err(failed("write the store"))?;
        }
        transaction.commit().await.map_err(failed("write the store"))
    }
}

impl ConfigStore for Store {
    fn connections(&self) -> BoxFuture<'_, Result<Vec<Connection>>> {
        self.read_connections(None).boxed()
    }

    fn connection<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<Connection>> {
        async move {
            let found = self.read_connections(Some(id.as_str())).await?.pop();
            found.ok_or_else(|| not_found("connection", id.as_str()))
        }
        .boxed()
    }

    fn create_connection<'a>(&'a self, connection: &'a Connection) -> BoxFuture<'a, Result<()>> {
        self.write_connection(connection, true).boxed()
    }

    fn update_connection<'a>(&'a self, connection: &'a Connection) -> BoxFuture<'a, Result<()>> {
        self.write_connection(connection, false).boxed()
    }

    fn delete_connection<'a>(&'a self, id: &'a ConnectionId) -> BoxFuture<'a, Result<()>> {
        self.delete("connection", "connection", id.as_str(), "a stream config uses this connection; delete the config first").boxed()
    }

    fn configs(&self) -> BoxFuture<'_, Result<Vec<StreamConfig>>> {
        async {
            let rows = sqlx::query("SELECT document FROM config ORDER BY created, id")
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read the store"))?;
            rows.iter().map(|row| from_json(row.get(0))).collect()
        }
        .boxed()
    }

    fn config<'a>(&'a self, id: &'a ConfigId) -> BoxFuture<'a, Result<StreamConfig>> {
        async move {
            let row = sqlx::query("SELECT document FROM config WHERE id = ?")
                .bind(id.as_str())
                .fetch_optional(&self.pool)
                .await
                .map_err(failed("read the store"))?;
            from_json(row.ok_or_else(|| not_found("config", id.as_str()))?.get(0))
        }
        .boxed()
    }

    fn create_config<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<()>> {
        self.write_config(config, true).boxed()
    }

    fn update_config<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<()>> {
        self.write_config(config, false).boxed()
    }

    fn delete_config<'a>(&'a self, id: &'a ConfigId) -> BoxFuture<'a, Result<()>> {
        async move {
            if let Some(blocked) = self.blocked(Some(id)).await? {
                return Err(blocked);
            }
            self.delete("config", "config", id.as_str(), "the config is in use").await?;
            sqlx::query("DELETE FROM run_event WHERE stream IN (SELECT id FROM stream WHERE config = ?)")
                .bind(id.as_str())
                .execute(&self.pool)
                .await
                .map_err(failed("write the store"))?;
            sqlx::query("DELETE FROM stream WHERE config = ?")
                .bind(id.as_str())
                .execute(&self.pool)
                .await
                .map_err(failed("write the store"))?;
            Ok(())
        }
        .boxed()
    }

    fn streams<'a>(&'a self, config: Option<&'a ConfigId>) -> BoxFuture<'a, Result<Vec<Stream>>> {
        async move {
            let rows = sqlx::query("SELECT document FROM stream WHERE ?1 IS NULL OR config = ?1 ORDER BY started_at DESC, id DESC")
                .bind(config.map(ConfigId::as_str))
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read the store"))?;
            rows.iter().map(|row| from_json(row.get(0))).collect()
        }
        .boxed()
    }

    fn stream<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>> {
        async move {
            let mut transaction = self.pool.begin().await.map_err(failed("read the store"))?;
            read_stream(&mut transaction, id).await
        }
        .boxed()
    }

    fn create_stream<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, Result<()>> {
        self.insert_stream(stream).boxed()
    }

    fn update_stream<'a>(&'a self, stream: &'a Stream) -> BoxFuture<'a, Result<Stream>> {
        self.replace_stream(stream).boxed()
    }

    fn delete_stream<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<()>> {
        async move {
            let sql = "DELETE FROM stream WHERE id = ? AND unfinished = 0";
            let deleted = sqlx::query(sql).bind(id.as_str()).execute(&self.pool).await.map_err(failed("write the store"))?;
            if deleted.rows_affected() == 0 {
                // Fails with NotFound if there is none.
                self.stream(id).await?;
                return Err(Error::new(Kind::Conflict, "the run has not ended; stop it first")
                    .field("stream_state")
                    .with("stream", id.as_str()));
            }
            let sql = "DELETE FROM run_event WHERE stream = ?";
            sqlx::query(sql).bind(id.as_str()).execute(&self.pool).await.map_err(failed("write the store"))?;
            Ok(())
        }
        .boxed()
    }

    fn setting<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        async move {
            let sql = "SELECT value FROM setting WHERE name = ?";
            sqlx::query_scalar(sql).bind(name).fetch_optional(&self.pool).await.map_err(failed("read the store"))
        }
        .boxed()
    }

    fn set_setting<'a>(&'a self, name: &'a str, value: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            let sql = "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
            sqlx::query(sql).bind(name).bind(value).execute(&self.pool).await.map_err(failed("write the store"))?;
            Ok(())
        }
        .boxed()
    }

    fn keep_events<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, Result<()>> {
        self.write_events(events).boxed()
    }

    fn events<'a>(&'a self, stream: &'a StreamId, level: Level, limit: usize) -> BoxFuture<'a, Result<Vec<Event>>> {
        async move {
            let sql = "SELECT document FROM run_event WHERE stream = ? AND level >= ? ORDER BY sequence DESC LIMIT ?";
            let rows = sqlx::query(sql)
                .bind(stream.as_str())
                .bind(level as i64)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(&self.pool)
                .await
                .map_err(failed("read the store"))?;
            rows.iter().rev().map(|row| from_json(row.get(0))).collect()
        }
        .boxed()
    }
}

async fn read_stream(transaction: &mut Transaction<'_, Sqlite>, id: &StreamId) -> Result<Stream> {
    let row = sqlx::query("SELECT document FROM stream WHERE id = ?")
        .bind(id.as_str())
        .fetch_optional(&mut **transaction)
        .await
        .map_err(failed("read the store"))?;
    from_json(row.ok_or_else(|| not_found("stream", id.as_str()))?.get(0))
}

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("a document has no JSON form").because(error))
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::internal("a stored document is damaged").because(error))
}

fn found(rows: u64, what: &str, id: &str) -> Result<()> {
    if rows == 0 { Err(not_found(what, id)) } else { Ok(()) }
}

fn not_found(what: &str, id: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {what} `{id}`")).with("id", id)
}

pub(crate) fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |error| Error::internal(format!("cannot {what}")).because(error)
}

fn conflict_or(error: sqlx::Error, text: &'static str) -> Error {
    if is_unique(&error) { Error::new(Kind::Conflict, text) } else { failed("write the store")(error) }
}

fn is_unique(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

fn is_foreign_key(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_foreign_key_violation())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_read_while_a_write_is_under_way() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let mut transaction = store.pool.begin().await.unwrap();
        sqlx::query("INSERT INTO setting (name, value) VALUES ('slow', 'disk')").execute(&mut *transaction).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(10), store.connections()).await;
        assert!(read.unwrap().unwrap().is_empty());
    }
}
