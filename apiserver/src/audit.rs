//! The audit log: one event per request that writes, with who, what and how it ended, and no value.
//!
//! ```text
//!  route ─▶ keep(): a trail in the request ─▶ access check: whose key ─▶ handler: rows, kinds of statements ─▶ outcome
//!                                                                                    last holder gone ─▶ event `audit`
//! ```
//!
//! The event is written when nobody holds the trail any more: a result that streams ends long after its answer's head, and a request whose client went away ends
//! without any answer. What is named are ids, databases and objects; statements are their kinds and a digest of the text without its literals, by which the same
//! statement is known again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::RequestExt as _;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use millrace_service::AUDIT;
use sha2::{Digest as _, Sha256};

use crate::client::{Client, RequestId};
use crate::errors::Code;

/// Installs name themselves; longer names are no names.
const LONGEST_INSTALL: usize = 128;
/// Kinds of statements that are listed.
const MOST_KINDS: usize = 20;

/// What a request leaves behind; cheap to clone, and written when the last clone is gone.
#[derive(Clone, Default)]
pub(crate) struct Trail(Option<Arc<Entry>>);

struct Entry {
    operation: &'static str,
    request: String,
    client: String,
    install: Option<String>,
    named: Named,
    since: Instant,
    said: Mutex<Said>,
}

/// What the path names.
#[derive(Default)]
struct Named {
    connection: Option<String>,
    config: Option<String>,
    stream: Option<String>,
    run: Option<String>,
    database: Option<String>,
    object: Option<String>,
}

#[derive(Default)]
struct Said {
    key: Option<String>,
    object: Option<String>,
    rows: Option<u64>,
    kinds: Option<String>,
    digest: Option<String>,
    outcome: Option<Outcome>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    status: u16,
    code: Option<&'static str>,
}

impl Trail {
    fn say(&self, words: impl FnOnce(&mut Said)) {
        if let Some(entry) = &self.0 {
            // Whole after every statement.
            words(&mut entry.said.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Whose key it was, by its public name.
    pub(crate) fn key(&self, id: &str) {
        self.say(|said| said.key = Some(id.to_owned()));
    }

    /// What was made or changed, where the path does not say it.
    pub(crate) fn object(&self, name: impl Into<String>) {
        self.say(|said| said.object = Some(name.into()));
    }

    /// Rows that were changed.
    pub(crate) fn rows(&self, count: u64) {
        self.say(|said| said.rows = Some(count));
    }

    /// Which statements ran: their kinds, and the text without literals, of which only a digest is kept.
    pub(crate) fn statements(&self, kinds: &[String], without_literals: &str) {
        let digest = Sha256::digest(without_literals.as_bytes());
        self.say(|said| {
            said.kinds = Some(kinds.iter().take(MOST_KINDS).map(String::as_str).collect::<Vec<_>>().join("; "));
            said.digest = Some(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect());
        });
    }

    /// It failed after its answer had begun.
    pub(crate) fn failed(&self, code: Code) {
        self.say(|said| said.outcome = Some(Outcome { status: code.status(), code: Some(code.as_str()) }));
    }

    /// What was answered; what failed since then is not taken back.
    fn answered(&self, response: &Response) {
        let code = response.extensions().get::<Code>().map(|code| code.as_str());
        self.say(|said| {
            said.outcome.get_or_insert(Outcome { status: response.status().as_u16(), code });
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let said = self.said.get_mut().unwrap_or_else(PoisonError::into_inner);
        let outcome = match said.outcome {
            None => "abandoned",
            Some(Outcome { status: 200..=399, .. }) => "done",
            Some(Outcome { status: 401 | 403 | 429, .. }) => "refused",
            Some(_) => "failed",
        };
        tracing::info!(
            target: AUDIT,
            operation = self.operation,
            outcome,
            status = said.outcome.map(|outcome| outcome.status),
            code = said.outcome.and_then(|outcome| outcome.code),
            key = said.key.as_deref(),
            install = self.install.as_deref(),
            client = self.client,
            request = self.request,
            connection = self.named.connection.as_deref(),
            config = self.named.config.as_deref(),
            stream = self.named.stream.as_deref(),
            run = self.named.run.as_deref(),
            database = self.named.database.as_deref(),
            object = said.object.as_deref().or(self.named.object.as_deref()),
            rows = said.rows,
            statements = said.kinds.as_deref(),
            digest = said.digest.as_deref(),
            duration_ms = self.since.elapsed().as_millis() as u64,
            "write",
        );
    }
}

/// Keeps a trail of a request that writes.
pub(crate) async fn keep((operation, path, is_open): (&'static str, &'static str, bool), mut request: Request, next: Next) -> Response {
    let named = named(path, &mut request).await;
    let install = request.headers().get("x-install-id").and_then(|value| value.to_str().ok());
    let entry = Entry {
        operation,
        request: request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
        client: Client::of(&request).0.to_string(),
        install: install.filter(|install| !install.is_empty() && install.len() <= LONGEST_INSTALL).map(str::to_owned),
        named,
        since: Instant::now(),
        said: Mutex::new(Said { key: is_open.then(|| "open".to_owned()), ..Said::default() }),
    };
    let trail = Trail(Some(Arc::new(entry)));
    request.extensions_mut().insert(trail.clone());
    let response = next.run(request).await;
    trail.answered(&response);
    response
}

async fn named(path: &'static str, request: &mut Request) -> Named {
    let mut named = Named::default();
    let Ok(params) = request.extract_parts::<RawPathParams>().await else { return named };
    for (name, value) in &params {
        let place = match name {
            "id" if path.starts_with("/connections/") => &mut named.connection,
            "id" if path.starts_with("/streams/") => &mut named.stream,
            "id" | "configId" => &mut named.config,
            "runId" => &mut named.run,
            "db" => &mut named.database,
            _ => &mut named.object,
        };
        *place = Some(value.to_owned());
    }
    named
}

/// The trail of a request; on routes that only read, one that leads nowhere.
impl<S: Send + Sync> FromRequestParts<S> for Trail {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
