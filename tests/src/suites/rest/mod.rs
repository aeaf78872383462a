//! The contract of the REST API, for every way in which Millrace is run: one process, and the API servers of a cluster.
//!
//! Each function wants a [`Place`] without connections, configs and streams. What is true of one mode only is asked of [`Place::mode`], by name.

pub mod accounts;
pub mod calls;
pub mod document;
pub mod ide;
pub mod refusals;
pub mod resend;
pub mod runs;
pub mod tools;

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::api::Api;
use crate::database::{MySqlDatabase, unique};
use crate::proxy::FaultProxy;
use crate::servers::{Server, shared};

/// How Millrace is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `millrace serve`: one active stream, and clients on the same machine may stop it.
    Standalone,
    /// `millrace apiserver`: several active streams, and nobody stops it through the API.
    Cluster,
}

/// Who may use what is not a stream operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browsing {
    /// Whoever reaches the server.
    Open,
    /// Owners of a key.
    Key,
}

/// An installation under test, and where it reaches the test's database servers.
pub struct Place {
    /// A client with a key.
    pub api: Api,
    /// The client's key.
    pub key: String,
    /// How it is run.
    pub mode: Mode,
    /// Who may browse.
    pub browsing: Browsing,
    /// MySQL or MariaDB, as the installation reaches it.
    pub mysql: Server,
    /// PostgreSQL, as the installation reaches it.
    pub postgres: Server,
    /// The address of this machine that the installation reaches.
    pub reached_at: String,
    /// How long a small run may take on a busy machine.
    pub patience: Duration,
    _proxies: Vec<FaultProxy>,
}

impl Place {
    /// A server on this machine.
    pub async fn standalone(api: Api, key: String, browsing: Browsing) -> Self {
        let servers = shared().await;
        let (mysql, postgres) = (Server::at(&servers.mysql, None, None), Server::at(&servers.postgres, None, None));
        let patience = Duration::from_secs(120);
        Self { api, key, mode: Mode::Standalone, browsing, mysql, postgres, reached_at: "127.0.0.1".into(), patience, _proxies: Vec::new() }
    }

    /// API servers of a cluster, whose pods reach this machine at this address. What earlier tests left is removed.
    pub async fn cluster(api: Api, key: String, reached_at: &str) -> anyhow::Result<Self> {
        let servers = shared().await;
        let mut proxies = Vec::new();
        let mut reached = async |server: &Server| -> anyhow::Result<Server> {
            let proxy = FaultProxy::start_on(reached_at, &server.host, server.port).await?;
            let seen = Server::at(server, Some(reached_at), Some(proxy.port));
            proxies.push(proxy);
            Ok(seen)
        };
        let (mysql, postgres) = (reached(&servers.mysql).await?, reached(&servers.postgres).await?);
        let place = Self {
            api,
            key,
            mode: Mode::Cluster,
            browsing: Browsing::Key,
            mysql,
            postgres,
            reached_at: reached_at.to_owned(),
            patience: Duration::from_secs(180),
            _proxies: proxies,
        };
        place.clear().await;
        Ok(place)
    }

    /// Ends all streams and removes everything that can be removed through the API.
    pub async fn clear(&self) {
        for stream in self.api.get("/streams").await.unwrap().body.as_array().into_iter().flatten() {
            let id = stream["id"].as_str().unwrap_or_default();
            self.api.post(&format!("/streams/{id}/stop"), Value::Null).await.unwrap();
            self.api.wait_for_end(id, self.patience).await.unwrap();
        }
        for path in ["/stream-configs", "/connections"] {
            let answer = self.api.call_with(Method::DELETE, path, None, &[("X-Confirm-Delete", "true")]).await.unwrap();
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        }
        let quiet = serde_json::json!({"sqlCaptureMode": "minimal", "forwardSQLLogs": false});
        assert_eq!(self.api.call(Method::PUT, "/system/sql-logging", Some(quiet)).await.unwrap().status, 200);
    }

    /// Connections and a config that copies a database; answers the config's id and the target's name.
    pub async fn config(&self, source: &MySqlDatabase) -> (String, String) {
        self.config_between(&self.mysql, source, &self.postgres).await
    }

    /// Connections and a config that copies a database between these servers; answers the config's id and the target's name.
    pub async fn config_between(&self, from: &Server, source: &MySqlDatabase, to: &Server) -> (String, String) {
        let target = unique("target");
        let from = self.api.connect("from", "mysql", from, &source.name).await.unwrap();
        let to = self.api.connect("to", "postgresql", to, &target).await.unwrap();
        (self.api.convert(&from, &source.name, &to, &target).await.unwrap(), target)
    }

    /// A proxy that the installation reaches, in front of one of the test's servers, and the server as it is reached through it.
    pub async fn proxy(&self, server: &Server) -> (FaultProxy, Server) {
        let proxy = FaultProxy::start_on(&self.reached_at, &server.host, server.port).await.unwrap();
        let slow = Server::at(server, Some(&self.reached_at), Some(proxy.port));
        (proxy, slow)
    }

    /// As [`Place::config`], with a proxy in front of the source.
    pub async fn config_behind_proxy(&self, source: &MySqlDatabase) -> (FaultProxy, String, String) {
        let (proxy, slow) = self.proxy(&shared().await.mysql).await;
        let (config, target) = self.config_between(&slow, source, &self.postgres).await;
        (proxy, config, target)
    }

    /// Changes fields of a stored config; objects are merged.
    pub async fn change(&self, config: &str, change: Value) {
        let path = format!("/stream-configs/{config}");
        let mut body = self.api.get(&path).await.unwrap().body;
        merge(&mut body, change);
        let answer = self.api.call(Method::PUT, &path, Some(body)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Waits until a stream's log holds a text.
    pub async fn wait_for_log(&self, stream: &str, text: &str) {
        let end = std::time::Instant::now() + self.patience;
        loop {
            let logs = self.api.get(&format!("/streams/{stream}/logs")).await.unwrap().body;
            if logs.to_string().contains(text) {
                return;
            }
            assert!(std::time::Instant::now() < end, "`{text}` is not in {logs}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a config; answers the stream's id.
    pub async fn start_config(&self, config: &str) -> String {
        self.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap()
    }

    /// Starts a config and waits for its end.
    pub async fn run(&self, config: &str) -> Value {
        let stream = self.start_config(config).await;
        self.api.wait_for_end(&stream, self.patience).await.unwrap()
    }
}

/// A MariaDB database with a dataset.
pub async fn source(name: &str, statements: &[String]) -> MySqlDatabase {
    let database = MySqlDatabase::create(&shared().await.mysql, name).await.unwrap();
    database.execute(statements).await.unwrap();
    database
}

/// Changes a document; objects are merged, anything else is replaced.
pub fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}
