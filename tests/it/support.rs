//! What several tests need.

use std::time::Duration;

use millrace_tests::api::Api;
use millrace_tests::database::MySqlDatabase;
use millrace_tests::process::{Process, run};
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{Server as Database, shared};
use serde_json::Value;

/// How long a small run may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A running server with a key and a data directory of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) api: Api,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) key: String,
    options: Vec<String>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with these further options.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        Self::start_in(options, &[]).await
    }

    /// Starts a server with these further options and environment variables; a restart does without the variables.
    pub(crate) async fn start_in(options: &[&str], env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (code, key, errors) = run(&["keys", "create", "--data-dir", dir.path().to_str().unwrap()], &[]).await.unwrap();
        assert_eq!(code, 0, "{errors}");
        let key = key.trim().to_owned();
        let (process, base) = Process::serve_with(dir.path(), options, env).await.unwrap();
        let mut api = Api::new(&base);
        api.key = Some(key.clone());
        Self { process, api, dir, key, options: options.iter().map(|option| (*option).to_owned()).collect() }
    }

    /// Starts a server under a setting of `auth.ide`.
    pub(crate) async fn start_auth(auth: &str) -> Self {
        Self::start_with(&["--auth-ide", auth]).await
    }

    /// Runs `millrace keys …` on this server's data; answers what it printed.
    pub(crate) async fn keys(&self, args: &[&str]) -> String {
        let dir = self.dir.path().display().to_string();
        let all: Vec<&str> = ["keys"].iter().chain(args).copied().chain(["--data-dir", &dir]).collect();
        let (code, out, errors) = run(&all, &[]).await.unwrap();
        assert_eq!(code, 0, "{errors}");
        out.trim().to_owned()
    }

    /// Kills the server and starts it again on the same data.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.process.kill().await;
        self.start_again().await;
    }

    /// Starts the server again after it has ended.
    pub(crate) async fn start_again(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        let (process, base) = Process::serve(self.dir.path(), &options).await.unwrap();
        self.process = process;
        self.api.base = base;
    }

    /// Connections and a config that copies a database; answers the config's id and the target's name.
    pub(crate) async fn config(&self, source: &MySqlDatabase) -> (String, String) {
        let servers = shared().await;
        let target = millrace_tests::database::unique("target");
        let from = self.api.connect("from", "mysql", &servers.mysql, &source.name).await.unwrap();
        let to = self.api.connect("to", "postgresql", &servers.postgres, &target).await.unwrap();
        (self.api.convert(&from, &source.name, &to, &target).await.unwrap(), target)
    }

    /// Connections and a config that copies a database between these servers; answers the config's id and the target's name.
    pub(crate) async fn config_between(&self, from: &Database, source: &MySqlDatabase, to: &Database) -> (String, String) {
        let target = millrace_tests::database::unique("target");
        let from = self.api.connect("from", "mysql", from, &source.name).await.unwrap();
        let to = self.api.connect("to", "postgresql", to, &target).await.unwrap();
        (self.api.convert(&from, &source.name, &to, &target).await.unwrap(), target)
    }

    /// Starts a config; answers the stream's id.
    pub(crate) async fn start_config(&self, config: &str) -> String {
        self.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap()
    }

    /// As [`Server::config`], with a proxy in front of the source.
    pub(crate) async fn config_behind_proxy(&self, source: &MySqlDatabase) -> (FaultProxy, String, String) {
        let servers = shared().await;
        let proxy = FaultProxy::start("127.0.0.1", servers.mysql.port).await.unwrap();
        let slow = Database::through(&servers.mysql, proxy.port);
        let target = millrace_tests::database::unique("target");
        let from = self.api.connect("from", "mysql", &slow, &source.name).await.unwrap();
        let to = self.api.connect("to", "postgresql", &servers.postgres, &target).await.unwrap();
        let config = self.api.convert(&from, &source.name, &to, &target).await.unwrap();
        (proxy, config, target)
    }

    /// Changes fields of a stored config; objects are merged.
    pub(crate) async fn change(&self, config: &str, change: Value) {
        let path = format!("/stream-configs/{config}");
        let mut body = self.api.get(&path).await.unwrap().body;
        merge(&mut body, change);
        let answer = self.api.call(reqwest::Method::PUT, &path, Some(body)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Waits until a stream's log holds a text.
    pub(crate) async fn wait_for_log(&self, stream: &str, text: &str) {
        let end = std::time::Instant::now() + LONG;
        loop {
            let logs = self.api.get(&format!("/streams/{stream}/logs")).await.unwrap().body;
            if logs.to_string().contains(text) {
                return;
            }
            assert!(std::time::Instant::now() < end, "`{text}` is not in {logs}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a config and waits for its end.
    pub(crate) async fn run(&self, config: &str) -> Value {
        let started = self.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        let stream = started.text("id").unwrap();
        self.api.wait_for_end(&stream, LONG).await.unwrap()
    }
}

/// A MariaDB database with a dataset.
pub(crate) async fn source(name: &str, statements: &[String]) -> MySqlDatabase {
    let database = MySqlDatabase::create(&shared().await.mysql, name).await.unwrap();
    database.execute(statements).await.unwrap();
    database
}

pub(crate) fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}
