//! A database per test, on the drivers that the product does not use for its rows, or uses differently.

use anyhow::Context as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio_postgres::NoTls;

use crate::servers::Server;

/// A MySQL or MariaDB database of one test.
pub struct MySqlDatabase {
    /// Its name.
    pub name: String,
    /// Connections to it.
    pub pool: MySqlPool,
}

/// A PostgreSQL database of one test.
pub struct PgDatabase {
    /// Its name.
    pub name: String,
    /// A connection to it, if it exists.
    pub client: tokio_postgres::Client,
}

/// A name that no other test has.
pub fn unique(name: &str) -> String {
    format!("{name}_{:08x}", rand::random::<u32>())
}

impl MySqlDatabase {
    /// Creates an empty database.
    pub async fn create(server: &Server, name: &str) -> anyhow::Result<Self> {
        let name = unique(name);
        let admin = mysql_pool(server, None).await?;
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE `{name}`"))).await?;
        admin.close().await;
        Ok(Self { pool: mysql_pool(server, Some(&name)).await?, name })
    }

    /// Opens one that exists, with connections of its own.
    pub async fn open(server: &Server, name: &str) -> anyhow::Result<Self> {
        Ok(Self { pool: mysql_pool(server, Some(name)).await?, name: name.to_owned() })
    }

    /// The first column of a query's rows as text.
    pub async fn texts(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        let rows = sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(row.try_get_unchecked::<Option<String>, _>(0)?.unwrap_or_default())).collect()
    }

    /// Runs statements that return nothing.
    pub async fn execute(&self, statements: &[String]) -> anyhow::Result<()> {
        let mut connection = self.pool.acquire().await?;
        for statement in statements {
            let short: String = statement.chars().take(200).collect();
            // Unprepared, because some statements cannot be prepared.
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await.with_context(|| short)?;
        }
        Ok(())
    }
}

impl PgDatabase {
    /// Creates an empty database.
    pub async fn create(server: &Server, name: &str) -> anyhow::Result<Self> {
        let name = unique(name);
        pg_client(server, "postgres").await?.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await?;
        Self::open(server, &name).await
    }

    /// Opens one that exists.
    pub async fn open(server: &Server, name: &str) -> anyhow::Result<Self> {
        Ok(Self { client: pg_client(server, name).await?, name: name.to_owned() })
    }

    /// The first column of a query's rows as text.
    pub async fn texts(&self, sql: &str) -> anyhow::Result<Vec<String>> {
        let rows = self.client.query(sql, &[]).await?;
        Ok(rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect())
    }
}

/// Connections to a MySQL server.
pub async fn mysql_pool(server: &Server, database: Option<&str>) -> anyhow::Result<MySqlPool> {
    let mut options = MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .password(&server.password)
        .ssl_mode(MySqlSslMode::Disabled)
        .timezone(Some("+00:00".to_owned()));
    if let Some(database) = database {
        options = options.database(database);
    }
    Ok(MySqlPoolOptions::new().max_connections(2).connect_with(options).await?)
}

/// A connection to a PostgreSQL database.
pub async fn pg_client(server: &Server, database: &str) -> anyhow::Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.host(&server.host).port(server.port).user(&server.user).password(&server.password).dbname(database);
    let (client, connection) = config.connect(NoTls).await.with_context(|| format!("cannot open the database `{database}`"))?;
    tokio::spawn(connection);
    Ok(client)
}
