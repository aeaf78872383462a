//! Logging in, and short questions.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Connection, DatabaseSpec, SslMode};
use millrace_core::connector::{DatabaseEntry, Session};
use millrace_core::{Error, Kind, Result};
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::{Client, Config, NoTls};

use super::error::{cannot_connect, classify};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The database that every server has, for connections that name none.
pub(super) const MAINTENANCE_DATABASE: &str = "postgres";

/// The database form of a connection, with a transport that we speak.
pub(super) fn spec(connection: &Connection) -> Result<&DatabaseSpec> {
    if connection.ssl.as_ref().is_some_and(|ssl| ssl.mode != SslMode::Disabled) {
        return Err(Error::not_supported("ssl.mode", "TLS to PostgreSQL is not supported yet; use `disabled`"));
    }
    connection
        .database()
        .ok_or_else(|| Error::new(Kind::Invalid, "a PostgreSQL connection needs the form `spec.database`").field("spec.database"))
}

/// Logs in; the connection's task ends with the client.
pub(super) async fn connect(spec: &DatabaseSpec, database: &str) -> Result<Client> {
    let place = format!("{}:{}", spec.host, spec.port);
    let mut config = Config::new();
    config
        .host(&spec.host)
        .port(spec.port)
        .user(&spec.username)
        .dbname(database)
        .application_name("millrace")
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(Duration::from_secs(60));
    if let Some(password) = &spec.password {
        config.password(password.expose());
    }
    let dial = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls));
    let (client, connection) = match dial.await {
        Ok(dialled) => dialled.map_err(|error| cannot_connect(&place, error))?,
        Err(_) => return Err(Error::new(Kind::Unreachable, format!("no answer from `{place}` within {} s", CONNECT_TIMEOUT.as_secs()))),
    };
    tokio::spawn(async move {
        // The client's next call tells its user the same.
        if let Err(error) = connection.await {
            tracing::debug!(error = %classify(error), "a connection to the target ended");
        }
    });
    Ok(client)
}

/// One session for short statements, opened again when it has broken.
pub(super) struct ControlSession {
    spec: DatabaseSpec,
    database: String,
    client: Mutex<Client>,
}

impl ControlSession {
    pub(super) fn new(spec: DatabaseSpec, database: String, client: Client) -> Self {
        Self { spec, database, client: Mutex::new(client) }
    }

    /// The session, alive as far as the driver knows.
    pub(super) async fn client(&self) -> Result<MutexGuard<'_, Client>> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            *client = connect(&self.spec, &self.database).await?;
        }
        Ok(client)
    }

    /// Another session on the same database.
    pub(super) async fn another(&self) -> Result<Client> {
        connect(&self.spec, &self.database).await
    }
}

/// A logged-in session.
pub(super) struct PgSession(pub(super) Client);

impl Session for PgSession {
    fn ping(&mut self) -> BoxFuture<'_, Result<()>> {
        async { self.0.batch_execute("SELECT 1").await.map_err(classify) }.boxed()
    }

    fn version(&mut self) -> BoxFuture<'_, Result<String>> {
        async {
            let row = self.0.query_one("SELECT current_setting('server_version')", &[]).await.map_err(classify)?;
            Ok(format!("PostgreSQL {}", row.get::<_, String>(0)))
        }
        .boxed()
    }

    fn databases(&mut self) -> BoxFuture<'_, Result<Vec<DatabaseEntry>>> {
        async {
            let sql = "SELECT datname::text, datistemplate, datname = current_database() FROM pg_database ORDER BY datname";
            let rows = self.0.query(sql, &[]).await.map_err(classify)?;
            let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)' ORDER BY nspname";
            let schemas: Vec<String> = self.0.query(sql, &[]).await.map_err(classify)?.iter().map(|row| row.get(0)).collect();
            let entry = |row: &tokio_postgres::Row| {
                let name: String = row.get(0);
                let is_template: bool = row.get(1);
                let is_current: bool = row.get(2);
                DatabaseEntry {
                    system_reason: match (is_template, name.as_str()) {
                        (true, _) => Some("template of new databases".to_owned()),
                        (false, MAINTENANCE_DATABASE) => Some("maintenance database".to_owned()),
                        _ => None,
                    },
                    schemas: if is_current { schemas.clone() } else { Vec::new() },
                    name,
                }
            };
            Ok(rows.iter().map(entry).collect())
        }
        .boxed()
    }
}
