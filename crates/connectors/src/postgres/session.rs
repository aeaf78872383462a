//! Logging in, and short questions.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Connection, DatabaseSpec};
use millrace_core::connector::{DatabaseEntry, Session};
use millrace_core::{Error, Kind, Result, hosts};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, MutexGuard};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{cannot_connect, classify};
use crate::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Where a connection's host stands.
const HOST: &str = "spec.database.host";

/// The database that every server has, for connections that name none.
pub(super) const MAINTENANCE_DATABASE: &str = "postgres";

/// The server, too, is to notice within half a minute that a client has gone without a word: until then the client's session holds its locks. Of these settings
/// (PostgreSQL manual, "Connection Settings") older servers know only some. `tcp_user_timeout` is not among them: it would also end sessions whose peer takes nothing
/// for a while, such as a COPY that waits for a lock, or a reader that is slow (tcp(7)).
const KEEPALIVES: &str =
    "SELECT set_config(name, value, false) FROM (VALUES ('tcp_keepalives_idle', '15'), ('tcp_keepalives_interval', '5'),
    ('tcp_keepalives_count', '4')) AS wanted (name, value)
    WHERE EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name = wanted.name)";
/// While a statement runs, the server looks whether its client is still there.
const LOOKS: &str = "SELECT set_config(name, '10000', false) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'";

/// The database form of a connection.
pub(super) fn spec(connection: &Connection) -> Result<&DatabaseSpec> {
    connection
        .database()
        .ok_or_else(|| Error::new(Kind::Invalid, "a PostgreSQL connection needs the form `spec.database`").field("spec.database"))
}

/// Logs in; the connection's task ends with the client.
pub(super) async fn connect(connection: &Connection, database: &str) -> Result<Client> {
    let spec = spec(connection)?;
    let place = format!("{}:{}", spec.host, spec.port);
    let tls = tls::client_config(connection)?;
    let mut config = Config::new();
    config
        .port(spec.port)
        .user(&spec.username)
        .dbname(database)
        .application_name("millrace")
        .connect_timeout(CONNECT_TIMEOUT)
        .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
        .keepalives_idle(Duration::from_secs(15))
        .keepalives_interval(Duration::from_secs(5))
        .keepalives_retries(4);
    if let Some(password) = &spec.password {
        config.password(password.expose());
    }
    let dial = async {
        // The driver dials these addresses and knows the name by which the server's certificate is checked.
        for address in hosts::resolve(&spec.host, spec.port, HOST).await? {
            config.host(&spec.host).hostaddr(address.ip());
        }
        match tls {
            None => {
                let (client, connection) = config.connect(NoTls).await.map_err(|error| cannot_connect(&place, error))?;
                serve(connection);
                Ok(client)
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls_connector(&tls)).await.map_err(|error| cannot_connect(&place, error))?;
                serve(connection);
                Ok(client)
            }
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, dial).await {
        Ok(dialled) => {
            let client: Client = dialled?;
            // Limits that a role or a database sets are meant for people; loads and index builds take as long as they take.
            let unlimited = client.batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0");
            // On their way together.
            let (unlimited, keeps, looks) = tokio::join!(unlimited, client.batch_execute(KEEPALIVES), client.batch_execute(LOOKS));
            unlimited.map_err(classify)?;
            for error in [keeps, looks].into_iter().filter_map(std::result::Result::err) {
                // Some servers cannot do this on their platform.
                tracing::debug!(error = %classify(error), "the server notices a vanished client later");
            }
            Ok(client)
        }
        Err(_) => Err(Error::new(Kind::Unreachable, format!("no answer from `{place}` within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// Runs a connection in the background until its client is gone.
fn serve<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        // The client's next call tells its user the same.
        if let Err(error) = connection.await {
            tracing::debug!(error = %classify(error), "a connection to the target ended");
        }
    });
}

fn tls_connector(config: &Arc<rustls::ClientConfig>) -> MakeRustlsConnect {
    MakeRustlsConnect::new(config.as_ref().clone())
}

/// Ends what a session runs; an idle one is not disturbed.
pub(super) async fn cancel(token: CancelToken, connection: &Connection) -> Result<()> {
    match tls::client_config(connection)? {
        None => token.cancel_query(NoTls).await.map_err(classify),
        Some(tls) => token.cancel_query(tls_connector(&tls)).await.map_err(classify),
    }
}

/// One session for short statements, opened again when it has broken.
pub(super) struct ControlSession {
    connection: Connection,
    database: String,
    client: Mutex<Client>,
}

impl ControlSession {
    pub(super) fn new(connection: Connection, database: String, client: Client) -> Self {
        Self { connection, database, client: Mutex::new(client) }
    }

    /// The session, alive as far as the driver knows.
    pub(super) async fn client(&self) -> Result<MutexGuard<'_, Client>> {
        let mut client = self.client.lock().await;
        if client.is_closed() {
            *client = connect(&self.connection, &self.database).await?;
        }
        Ok(client)
    }

    /// Another session on the same database.
    pub(super) async fn another(&self) -> Result<Client> {
        connect(&self.connection, &self.database).await
    }

    /// Lets the session go and opens another one in its place.
    pub(super) async fn renew(&self) -> Result<()> {
        let fresh = self.another().await?;
        *self.client.lock().await = fresh;
        Ok(())
    }

    /// Another one of its kind.
    pub(super) async fn twin(&self) -> Result<Self> {
        Ok(Self::new(self.connection.clone(), self.database.clone(), self.another().await?))
    }

    /// How its sessions are reached.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
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
        databases(&self.0).boxed()
    }
}

/// Databases that the user sees, with the schemas of the current one.
pub(super) async fn databases(client: &Client) -> Result<Vec<DatabaseEntry>> {
    let sql = "SELECT datname::text, datistemplate, datname = current_database() FROM pg_database ORDER BY datname";
    let rows = client.query(sql, &[]).await.map_err(classify)?;
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)' ORDER BY nspname";
    let schemas: Vec<String> = client.query(sql, &[]).await.map_err(classify)?.iter().map(|row| row.get(0)).collect();
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
