//! A small client of the Model Context Protocol over streamable HTTP, as its specification of 2025-06-18 has it.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::Api;

/// The version that it speaks.
pub const VERSION: &str = "2025-06-18";
const PATH: &str = "/mcp";

/// A client that has greeted its server.
pub struct Mcp {
    api: Api,
    /// What the server answered to the greeting.
    pub greeting: Value,
    /// The session, where the server keeps one.
    pub session: Option<String>,
    next: AtomicU64,
}

/// What a tool answered.
#[derive(Debug, Clone)]
pub struct Called {
    /// Whether it failed.
    pub is_error: bool,
    /// Its structured content.
    pub body: Value,
}

impl Called {
    /// The code of a failure; empty for a success.
    pub fn code(&self) -> &str {
        if self.is_error { self.body["code"].as_str().unwrap_or_default() } else { "" }
    }
}

impl Mcp {
    /// Greets a server.
    pub async fn open(api: &Api) -> anyhow::Result<Self> {
        let mut client = Self { api: api.clone(), greeting: Value::Null, session: None, next: AtomicU64::new(1) };
        let hello = json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        let response = client.send(&client.request("initialize", hello)).await?;
        client.session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        client.greeting = answer(response).await?["result"].clone();
        let told = client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        anyhow::ensure!(told.status() == 202, "the greeting's end was answered with {}", told.status());
        Ok(client)
    }

    /// One request; the whole answer.
    pub async fn ask(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        answer(self.send(&self.request(method, params)).await?).await
    }

    /// Calls a tool; its name without `dbconvert_`.
    pub async fn call(&self, tool: &str, arguments: Value) -> anyhow::Result<Called> {
        let answer = self.ask("tools/call", json!({"name": format!("dbconvert_{tool}"), "arguments": arguments})).await?;
        let result = &answer["result"];
        if result.is_null() {
            bail!("no tool answered: {answer}");
        }
        let text = result["content"][0]["text"].as_str().context("a result without text")?;
        let body = result["structuredContent"].clone();
        anyhow::ensure!(serde_json::from_str::<Value>(text)? == body, "the text says something else than the structure: {result}");
        Ok(Called { is_error: result["isError"] == true, body })
    }

    /// Calls a tool that must succeed; answers its content.
    ///
    /// # Panics
    /// If it fails.
    pub async fn get(&self, tool: &str, arguments: Value) -> Value {
        let called = self.call(tool, arguments.clone()).await.expect("an answer");
        assert!(!called.is_error, "{tool} {arguments}: {called:?}");
        called.body
    }

    /// One request with this method of HTTP, in the session.
    pub async fn http(&self, method: Method, body: Option<&Value>) -> anyhow::Result<reqwest::Response> {
        let mut headers = vec![("Accept", "application/json, text/event-stream"), ("MCP-Protocol-Version", VERSION)];
        headers.extend(self.session.as_deref().map(|session| ("Mcp-Session-Id", session)));
        self.api.raw(method, PATH, &headers, body).await
    }

    async fn send(&self, body: &Value) -> anyhow::Result<reqwest::Response> {
        self.http(Method::POST, Some(body)).await
    }

    fn request(&self, method: &str, params: Value) -> Value {
        json!({"jsonrpc": "2.0", "id": self.next.fetch_add(1, Ordering::Relaxed), "method": method, "params": params})
    }
}

/// The answer of a response: JSON, or the one message of an event stream.
async fn answer(response: reqwest::Response) -> anyhow::Result<Value> {
    let status = response.status();
    let is_stream = response
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/event-stream"));
    let text = response.text().await?;
    anyhow::ensure!(status.is_success(), "{status}: {text}");
    if !is_stream {
        return Ok(serde_json::from_str(&text)?);
    }
    let mut messages =
        text.lines().filter_map(|line| line.strip_prefix("data:")).filter_map(|data| serde_json::from_str::<Value>(data.trim()).ok());
    messages.rfind(|message| message["id"].is_u64()).with_context(|| format!("no answer in {text}"))
}
