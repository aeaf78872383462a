//! Keys that another service knows, asked over HTTP.
//!
//! ```text
//!  POST {base}/authorise   X-API-Key, X-Install-ID, {"operation": "identify" | "start" | "operate"}   → {keyId, subscription}
//!  GET  {base}/account     X-API-Key, X-Install-ID                                                    → Account
//!  POST {base}/usage       {"keyId", "convertBytes" | "cdcSeconds"}                                   → {"warning": … | null}
//! ```
//!
//! 401 is a wrong key; 402 and 403 carry `{code}` with one of the API's permission codes; everything else is "cannot be reached". Good answers are
//! kept: for a minute, and, while the service cannot be reached, for a day where only the key's owner is asked for (browsing goes on, starting does not).

use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::entitlement::{Account, Denial, Entitlement, EvaluationWarning, Grant, StreamOperation, Usage};
use millrace_core::{Error, Result, Secret};
use moka::sync::Cache;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The whole of one question.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long a good answer is not asked for again.
const FRESH: Duration = Duration::from_secs(60);
/// How long it serves while the service cannot be reached.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Answers kept.
const KEPT: u64 = 10_000;

/// A provider behind a URL.
pub struct RemoteEntitlement {
    client: Client,
    base: String,
    answers: Cache<[u8; 32], (Grant, Instant)>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
}

#[derive(Deserialize)]
struct Warned {
    warning: Option<EvaluationWarning>,
}

impl RemoteEntitlement {
    /// A provider at `http(s)://host/path`.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] for something that is no such URL.
    pub fn new(base: &str) -> Result<Self> {
        let is_http = base.starts_with("http://") || base.starts_with("https://");
        if !is_http || reqwest::Url::parse(base).is_err() {
            return Err(Error::invalid(
                "--entitlement-url",
                "the entitlement service needs a URL that begins with `http://` or `https://`",
            ));
        }
        // Fails only if there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| Error::internal("no HTTP client").because(error))?;
        let answers = Cache::builder().max_capacity(KEPT).time_to_live(STALE).build();
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), answers })
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder, key: Option<&Secret>, install: &str) -> Result<T, Denial> {
        let mut request = request.header("X-Install-ID", install);
        if let Some(key) = key {
            let mut value = reqwest::header::HeaderValue::from_str(key.expose()).map_err(|_| Denial::AuthenticationFailed)?;
            value.set_sensitive(true);
            request = request.header("X-API-Key", value);
        }
        let response = request.send().await.map_err(|error| {
            tracing::warn!(error = %error.without_url(), "the entitlement service did not answer");
            Denial::Unavailable
        })?;
        match response.status() {
            StatusCode::OK => response.json().await.map_err(|_| Denial::Unavailable),
            StatusCode::UNAUTHORIZED => Err(Denial::AuthenticationFailed),
            StatusCode::PAYMENT_REQUIRED | StatusCode::FORBIDDEN => {
                let refusal: Refusal = response.json().await.map_err(|_| Denial::Unavailable)?;
                Err(match refusal.code.as_str() {
                    "SEAT_LIMIT_REACHED" => Denial::SeatLimitReached,
                    "DEVICE_DEACTIVATED" => Denial::DeviceDeactivated,
                    "PAYMENT_REQUIRED" => Denial::PaymentRequired,
                    "AUTHENTICATION_FAILED" => Denial::AuthenticationFailed,
                    _ => Denial::Unavailable,
                })
            }
            _ => Err(Denial::Unavailable),
        }
    }

    async fn grant(&self, key: &Secret, install: &str, operation: &'static str) -> Result<Grant, Denial> {
        if key.is_empty() {
            return Err(Denial::AuthenticationFailed);
        }
        // Without the key itself in memory.
        let name: [u8; 32] = Sha256::digest(format!("{}\0{install}\0{operation}", key.expose())).into();
        let kept = self.answers.get(&name);
        if let Some((grant, at)) = &kept
            && at.elapsed() < FRESH
        {
            return Ok(grant.clone());
        }
        let request = self.client.post(format!("{}/authorise", self.base)).json(&json!({"operation": operation}));
        match self.ask::<Grant>(request, Some(key), install).await {
            Ok(grant) => {
                self.answers.insert(name, (grant.clone(), Instant::now()));
                Ok(grant)
            }
            Err(Denial::Unavailable) if operation == "identify" => kept.map(|(grant, _)| grant).ok_or(Denial::Unavailable),
            Err(denial) => {
                if denial != Denial::Unavailable {
                    self.answers.invalidate(&name);
                }
                Err(denial)
            }
        }
    }
}

impl Entitlement for RemoteEntitlement {
    fn identify<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>> {
        self.grant(key, "", "identify").boxed()
    }

    fn authorise<'a>(&'a self, key: &'a Secret, install: &'a str, operation: StreamOperation) -> BoxFuture<'a, Result<Grant, Denial>> {
        async move {
            if install.trim().is_empty() {
                return Err(Denial::AuthenticationFailed);
            }
            let word = match operation {
                StreamOperation::Start => "start",
                StreamOperation::Operate => "operate",
            };
            self.grant(key, install, word).await
        }
        .boxed()
    }

    fn account<'a>(&'a self, key: &'a Secret, install: &'a str) -> BoxFuture<'a, Result<Account, Denial>> {
        async move {
            if key.is_empty() {
                return Err(Denial::AuthenticationFailed);
            }
            self.ask(self.client.get(format!("{}/account", self.base)), Some(key), install).await
        }
        .boxed()
    }

    fn record<'a>(&'a self, key_id: &'a str, usage: Usage) -> BoxFuture<'a, Option<EvaluationWarning>> {
        async move {
            let mut body: Value = json!({"keyId": key_id});
            match usage {
                Usage::ConvertBytes(bytes) => body["convertBytes"] = bytes.into(),
                Usage::CdcSeconds(seconds) => body["cdcSeconds"] = seconds.into(),
            }
            let request = self.client.post(format!("{}/usage", self.base)).json(&body);
            self.ask::<Warned>(request, None, "").await.ok()?.warning
        }
        .boxed()
    }
}
