//! What a server's operator allows, the same in both modes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use millrace_core::{Error, Result};
use tokio::time::{Instant, Sleep};
use url::Url;

use crate::client::Proxies;
use crate::errors::{ApiError, Code};
use crate::guesses::KeyGuesses;
use crate::state::AppState;

/// What a server's operator allows; cheap to clone.
#[derive(Clone)]
pub struct Policy {
    /// Nothing is changed and nothing started: such requests are refused, and statements of users run where the engine refuses writes.
    pub is_read_only: bool,
    /// Whether clients come by `https`, so that cookies need not be sent otherwise.
    pub is_tls: bool,
    /// Pages of these origins may use the server, beside its own.
    pub origins: Origins,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Proxies,
    /// Wrong keys so far.
    pub guesses: KeyGuesses,
    /// A request that is no stream of events and no statement of a user's is answered within this time.
    pub answer_within: Duration,
    /// Between two pieces of a request's body.
    pub body_within: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            is_read_only: false,
            is_tls: false,
            origins: Origins::default(),
            proxies: Proxies::default(),
            guesses: KeyGuesses::default(),
            answer_within: Duration::from_secs(300),
            body_within: Duration::from_secs(30),
        }
    }
}

/// Origins of pages, exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<[String]>);

impl Origins {
    /// Origins as browsers write them: `https://ide.example.com`, `http://localhost:5173`.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] naming `--cors-origins`, for `*`, `null`, paths and whatever else is no origin.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let origin = |text: &String| {
            let text = text.trim();
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            // A browser leaves the scheme's own port out and writes names in small letters, as the parsed form does.
            let exact = url.map(|url| url.origin().ascii_serialization()).filter(|origin| origin.eq_ignore_ascii_case(text));
            exact.ok_or_else(|| {
                Error::invalid(
                    "--cors-origins",
                    format!("`{text}` is no origin such as `https://ide.example.com`, without path and default port"),
                )
            })
        };
        texts.iter().map(origin).collect::<Result<Vec<_>>>().map(|origins| Self(origins.into()))
    }

    /// Whether a page of this origin is let in.
    pub(crate) fn has(&self, origin: &str) -> bool {
        self.0.iter().any(|known| known == origin)
    }
}

/// Limits the time of a request: of its body's pieces, and, unless it streams, of its answer.
pub(crate) async fn in_time(State((state, streams)): State<(AppState, bool)>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = if body.is_end_stream() { body } else { Body::new(Paced::new(body, state.policy.body_within)) };
    let answer = next.run(Request::from_parts(parts, body));
    if streams {
        return answer.await;
    }
    let limit = state.policy.answer_within;
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => ApiError::new(Code::TimedOut, format!("the request took longer than {} s", limit.as_secs())).into_response(),
    }
}

/// A body whose pieces have to come in time.
struct Paced {
    body: Body,
    pause: Duration,
    alarm: Pin<Box<Sleep>>,
}

/// The next piece did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the body did not come within {} s", .0.as_secs())]
pub(crate) struct Stalled(pub(crate) Duration);

impl Paced {
    fn new(body: Body, pause: Duration) -> Self {
        Self { body, pause, alarm: Box::pin(tokio::time::sleep(pause)) }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_ready() {
            this.alarm.as_mut().reset(Instant::now() + this.pause);
            return frame;
        }
        this.alarm.as_mut().poll(context).map(|()| Some(Err(axum::Error::new(Stalled(this.pause)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::Origins;

    fn parse(text: &str) -> bool {
        Origins::parse(&[text.to_owned()]).is_ok()
    }

    #[test]
    fn only_whole_origins_are_taken() {
        for text in ["https://ide.example.com", "http://localhost:5173", "https://[::1]:8443", " https://a.example "] {
            assert!(parse(text), "{text}");
        }
        for text in
            ["*", "null", "", "ide.example.com", "https://a.example/", "https://a.example/path", "https://a.example:443", "file:///x"]
        {
            assert!(!parse(text), "{text}");
        }
        let origins = Origins::parse(&["https://a.example".to_owned()]).unwrap_or_default();
        assert!(origins.has("https://a.example"));
        for other in ["http://a.example", "https://a.example:8443", "https://b.a.example", "https://a.example.evil", "null"] {
            assert!(!origins.has(other), "{other}");
        }
    }
}
