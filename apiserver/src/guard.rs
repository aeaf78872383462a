//! What every request passes: request ids, the host and origin checks, the strict four's key.

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, VARY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use millrace_core::Secret;
use millrace_core::entitlement::{Denial, Grant, StreamOperation};
use svix_ksuid::{Ksuid, KsuidLike as _};

use crate::audit::Trail;
use crate::client::{Client, RequestId};
use crate::errors::{ApiError, ApiResult, Code};
use crate::state::{AppState, IdeAuth};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Request headers that clients of other loopback origins may send.
const ALLOWED_HEADERS: &str = "content-type, idempotency-key, if-match, last-event-id, mcp-method, mcp-name, mcp-protocol-version, mcp-session-id, x-api-key, x-confirm-delete, \
     x-install-id, x-request-id";

/// Notes who asks, and gives every response the request's id, minting one where the client sent none.
pub(crate) async fn introduce(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let sent = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let id = match sent {
        Some(id) if !id.is_empty() && id.len() <= 128 => id.to_owned(),
        _ => format!("req_{}", Ksuid::new(None::<std::time::SystemTime>, None)),
    };
    let client = state.policy.proxies.client(&request);
    request.extensions_mut().insert(client);
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Pages from elsewhere must not use this server. An open one answers under loopback names only: a name that an attacker points at 127.0.0.1 arrives with
/// that name in `Host`, a foreign page's request with its own `Origin`. Where keys are asked for, a page must come from the server's own place, because a
/// browser adds the session's cookie by itself. Further origins are let in by name; `null`, which a page of any place can have, is none.
pub(crate) async fn same_place(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host =
        headers.get(HOST).and_then(|value| value.to_str().ok()).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    if state.auth == IdeAuth::Open && !host.is_some_and(is_loopback) {
        return ApiError::new(Code::ForbiddenOrigin, "this server answers only under a loopback name; check the request's host")
            .into_response();
    }
    let origin = headers.get(ORIGIN).cloned();
    if let Some(origin) = &origin {
        let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        let is_own = |from: &str| host.is_some_and(|host| host.eq_ignore_ascii_case(from) || is_loopback(host) && is_loopback(from));
        let is_named = origin.to_str().is_ok_and(|origin| state.policy.origins.has(origin));
        if !is_named && !from.is_some_and(is_own) {
            return ApiError::new(Code::ForbiddenOrigin, "pages of this origin may not use this server").into_response();
        }
    }
    let is_preflight = request.method() == Method::OPTIONS && headers.contains_key("access-control-request-method");
    let mut response = if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if let Some(origin) = origin {
        allow_origin(response.headers_mut(), origin);
    }
    response
}

/// Lets the four stream operations through only with a valid key and install id; asked before anything else of the request is looked at. The handler finds
/// the [`Grant`] in the request.
pub(crate) async fn strict(State((state, operation)): State<(AppState, StreamOperation)>, mut request: Request, next: Next) -> Response {
    match authorise(&state, Client::of(&request), request.headers(), operation).await {
        Ok(grant) => {
            note(&request, &grant);
            request.extensions_mut().insert(grant);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Whether the request's key and install id may do this.
pub(crate) async fn authorise(state: &AppState, client: Client, headers: &HeaderMap, operation: StreamOperation) -> ApiResult<Grant> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (key, install) = (Secret::new(text("x-api-key")), text("x-install-id"));
    // Without an installation the key is not looked at, so it is no guess either.
    let guess = if install.trim().is_empty() { Secret::new("") } else { key.clone() };
    weigh(state, client, &guess, state.entitlement.authorise(&key, install, operation)).await
}

/// Asks whose key it is, unless too many wrong ones came from the same address.
///
/// Errors: [`Code::RateLimited`], and the codes of denials.
pub(crate) async fn weigh<T>(
    state: &AppState,
    client: Client,
    key: &Secret,
    answer: impl Future<Output = Result<T, Denial>>,
) -> ApiResult<T> {
    // A missing key guesses nothing.
    if key.is_empty() {
        return Ok(answer.await?);
    }
    state.policy.guesses.check(client)?;
    let answer = answer.await;
    if answer.as_ref().is_err_and(|denial| *denial == Denial::AuthenticationFailed) {
        state.policy.guesses.failed(client);
    }
    Ok(answer?)
}

/// Leaves the key's name in the audit log.
fn note(request: &Request, grant: &Grant) {
    if let Some(trail) = request.extensions().get::<Trail>() {
        trail.key(&grant.key_id);
    }
}

/// In read-only mode, refuses what writes.
pub(crate) async fn unless_read_only(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.policy.is_read_only {
        return ApiError::new(Code::ReadOnly, "this server is read-only").into_response();
    }
    next.run(request).await
}

/// Under `auth.ide=key`, lets through whoever shows a known key by header or by the cookie of a session.
pub(crate) async fn tolerant(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if state.auth == IdeAuth::Open {
        return next.run(request).await;
    }
    let key = shown_key(&state, request.headers()).await;
    match weigh(&state, Client::of(&request), &key, state.entitlement.identify(&key)).await {
        Ok(grant) => {
            note(&request, &grant);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// The key that a request shows; empty if none.
pub(crate) async fn shown_key(state: &AppState, headers: &HeaderMap) -> Secret {
    let sent = headers.get("x-api-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !sent.is_empty() {
        return Secret::new(sent);
    }
    let found = match crate::session::token(headers) {
        Some(token) => state.sessions.key(&token).await,
        None => None,
    };
    found.unwrap_or_else(|| Secret::new(""))
}

/// `X-Confirm-Delete: true`, in any case, for destructive bulk requests.
pub(crate) fn confirmed(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get("x-confirm-delete").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if value.eq_ignore_ascii_case("true") {
        return Ok(());
    }
    Err(ApiError::new(Code::ConfirmationRequired, "this deletes everything; send the header `X-Confirm-Delete: true`")
        .detail("field", "X-Confirm-Delete"))
}

fn allow_origin(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert("access-control-allow-origin", origin);
    headers.insert("access-control-allow-credentials", HeaderValue::from_static("true"));
    headers.insert("access-control-allow-methods", HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE, OPTIONS"));
    headers.insert("access-control-allow-headers", HeaderValue::from_static(ALLOWED_HEADERS));
    headers.insert(
        "access-control-expose-headers",
        HeaderValue::from_static("ETag, Idempotency-Replayed, Mcp-Session-Id, Retry-After, X-Cache, X-Request-ID"),
    );
    headers.insert("access-control-max-age", HeaderValue::from_static("600"));
    headers.append(VARY, HeaderValue::from_static("Origin"));
}

/// Whether `host[:port]` is a loopback name or address.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_names_are_told_from_names_that_only_look_like_them() {
        for host in ["localhost", "LOCALHOST:8020", "127.0.0.1", "127.0.0.1:8020", "127.9.9.9", "[::1]:8020", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8020", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]:80", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
