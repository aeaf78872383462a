//! A small client of the REST API.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use reqwest::Method;
use serde_json::{Value, json};

use crate::servers::Server;

/// A client of one server, or of several that answer alike.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    /// `http://127.0.0.1:8020`
    pub base: String,
    /// Servers that are asked in turn with the first.
    others: Vec<String>,
    turn: Arc<AtomicUsize>,
    /// Sent as `Host`, where the address does not say it.
    pub host: Option<String>,
    /// Sent as `X-API-Key`.
    pub key: Option<String>,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `ETag`, if it came.
    pub etag: Option<String>,
    /// All headers.
    pub headers: reqwest::header::HeaderMap,
    /// `Set-Cookie`, if it came.
    pub cookie: Option<String>,
    /// The body; `null` if it is not JSON.
    pub body: Value,
}

impl Api {
    /// A client without a key.
    pub fn new(base: &str) -> Self {
        // The product's build of the HTTP client wants one; the second call finds it there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        Self { client, base: base.to_owned(), others: Vec::new(), turn: Arc::default(), host: None, key: None }
    }

    /// A client without a key that asks another server with each request.
    ///
    /// # Panics
    /// Without a server.
    pub fn in_turn(bases: &[String]) -> Self {
        let (first, others) = bases.split_first().expect("a server");
        Self { others: others.to_vec(), ..Self::new(first) }
    }

    /// The server whose turn it is, and the path there.
    fn url(&self, path: &str) -> String {
        self.place(&format!("/api/v1{path}"))
    }

    fn place(&self, path: &str) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % (self.others.len() + 1);
        let base = turn.checked_sub(1).map_or(&self.base, |other| &self.others[other]);
        format!("{base}{path}")
    }

    /// One request to a path that need not lie below `/api/v1`, with the key if there is one; the answer as it comes.
    pub async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> anyhow::Result<reqwest::Response> {
        let mut request = self.client.request(method, self.place(path));
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        if let Some(host) = self.host.as_ref().filter(|_| headers.iter().all(|(name, _)| *name != "Host")) {
            request = request.header("Host", host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Ok(request.send().await?)
    }

    /// One request to a path below `/api/v1`; with a key both headers are sent.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Response> {
        self.call_with(method, path, body, &[]).await
    }

    /// As [`Api::call`] with a plain text as body.
    pub async fn call_text(&self, method: Method, path: &str, body: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        self.send(method, path, headers, |request| request.body(body.to_owned())).await
    }

    /// As [`Api::call`] with further headers.
    pub async fn call_with(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
        let with_body = |request: reqwest::RequestBuilder| match &body {
            Some(body) => request.json(body),
            None => request,
        };
        self.send(method, path, headers, with_body).await
    }

    /// A GET, whose body is not looked into: for measuring the server alone. Answers the status and the body.
    pub async fn fetch(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = self.request(Method::GET, path, &[], |request| request).await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        with_body: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.request(method, self.url(path));
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key).header("X-Install-ID", "install-of-a-test");
        }
        if let Some(host) = self.host.as_ref().filter(|_| headers.iter().all(|(name, _)| *name != "Host")) {
            request = request.header("Host", host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        with_body(request).send().await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        with_body: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> anyhow::Result<Response> {
        let response = self.request(method, path, headers, with_body).await?;
        let status = response.status().as_u16();
        let cookie = response.headers().get("set-cookie").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let headers = response.headers().clone();
        let text = response.text().await?;
        Ok(Response { status, headers, etag, cookie, body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.call(Method::GET, path, None).await
    }

    /// A POST.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Response> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// The data of server-sent events, as they come.
    pub async fn events(&self, path: &str) -> anyhow::Result<BoxStream<'static, Value>> {
        let mut request = self.client.get(self.url(path));
        if let Some(key) = &self.key {
            request = request.header("X-API-Key", key);
        }
        if let Some(host) = &self.host {
            request = request.header("Host", host);
        }
        let response = request.send().await?.error_for_status()?;
        let mut rest = String::new();
        let events = response.bytes_stream().filter_map(async |bytes| bytes.ok()).flat_map(move |bytes| {
            rest.push_str(&String::from_utf8_lossy(&bytes));
            let mut events = Vec::new();
            while let Some((event, after)) = rest.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                events.extend(data.and_then(|data| serde_json::from_str(data).ok()));
                rest = after.to_owned();
            }
            futures::stream::iter(events)
        });
        Ok(events.boxed())
    }

    /// A connection to a server's database; answers its id.
    pub async fn connect(&self, name: &str, kind: &str, server: &Server, database: &str) -> anyhow::Result<String> {
        let body = connection(name, kind, server, database);
        let response = self.post("/connections", body).await?;
        response.text("id")
    }

    /// A convert config; answers its id.
    pub async fn convert(&self, source: &str, source_database: &str, target: &str, target_database: &str) -> anyhow::Result<String> {
        let body = json!({"name": "copy", "mode": "convert",
            "source": {"connections": [{"connectionId": source, "database": source_database}]},
            "target": {"id": target, "spec": {"db": {"database": target_database}}}});
        self.post("/stream-configs", body).await?.text("id")
    }

    /// Polls a stream until it has ended or the deadline passes; answers its last stats.
    pub async fn wait_for_end(&self, stream: &str, deadline: Duration) -> anyhow::Result<Value> {
        let end = Instant::now() + deadline;
        loop {
            let stats = self.get(&format!("/streams/{stream}/stats")).await?.body;
            let status = stats["status"].as_str().unwrap_or_default();
            if matches!(status, "FINISHED" | "FAILED" | "STOPPED" | "EVENT_LIMIT_REACHED" | "TIME_LIMIT_REACHED") {
                return Ok(stats);
            }
            if Instant::now() > end {
                bail!("the stream has not ended: {stats}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Response {
    /// A text member of the body.
    pub fn text(&self, name: &str) -> anyhow::Result<String> {
        match self.body[name].as_str() {
            Some(text) => Ok(text.to_owned()),
            None => bail!("no `{name}` in {self:?}"),
        }
    }
}

/// A connection's request body.
pub fn connection(name: &str, kind: &str, server: &Server, database: &str) -> Value {
    json!({"name": name, "type": kind, "spec": {"database": {"host": server.host, "port": server.port,
        "username": server.user, "password": server.password, "database": database}}})
}
