//! The account of a key, and sessions of browsers.

use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json};
use millrace_core::Secret;
use millrace_core::entitlement::Denial;

use crate::audit::Trail;
use crate::client::Client;
use crate::errors::{ApiResult, Code};
use crate::extract::NoBody;
use crate::guard::{shown_key, weigh};
use crate::route::{Access, BASE, Effect, Operation, Routes};
use crate::session::{self, COOKIE_NAME, LIFETIME};
use crate::state::AppState;
use crate::wire::user::{Session, UserConfigs, UserData};

const TAG: &str = "account";

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary);
    let denials: &[Code] = &[Code::AuthenticationFailed, Code::RateLimited, Code::EntitlementUnavailable];
    Routes::default()
        .add(
            op("get", "/user", "getUser", "The account of the request's key").access(Access::Open).answers::<UserData>(200).fails(denials),
            get(user),
        )
        .add(op("get", "/user/configs", "getUserConfigs", "How much is stored").answers::<UserConfigs>(200), get(configs))
        .add(
            op("post", "/user/clear-key", "clearKey", "Forget the key: ends its sessions").effect(Effect::Operates).answers::<Session>(200),
            post(clear_key),
        )
        .add(
            op("post", "/session", "openSession", "Open a session of a browser: answers a cookie that stands for the request's X-API-Key")
                .access(Access::Open)
                .effect(Effect::Operates)
                .answers::<Session>(200)
                .fails(denials),
            post(open_session),
        )
        .add(
            op("delete", "/session", "closeSession", "End the session")
                .access(Access::Open)
                .effect(Effect::Operates)
                .answers::<Session>(200),
            delete(close_session),
        )
}

async fn user(State(state): State<AppState>, Extension(client): Extension<Client>, headers: HeaderMap) -> ApiResult<Json<UserData>> {
    let key = shown_key(&state, &headers).await;
    let install = headers.get("x-install-id").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let account = weigh(&state, client, &key, state.entitlement.account(&key, install)).await?;
    Ok(Json((&account).into()))
}

async fn configs(State(state): State<AppState>) -> ApiResult<Json<UserConfigs>> {
    Ok(Json(UserConfigs { connections: state.store.connections().await?.len(), stream_configs: state.store.configs().await?.len() }))
}

async fn clear_key(State(state): State<AppState>, headers: HeaderMap, _: NoBody) -> ApiResult<Response> {
    end(&state, &headers).await
}

async fn open_session(
    State(state): State<AppState>,
    Extension(client): Extension<Client>,
    trail: Trail,
    headers: HeaderMap,
    _: NoBody,
) -> ApiResult<Response> {
    let sent = headers.get("x-api-key").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if sent.is_empty() {
        return Err(Denial::AuthenticationFailed.into());
    }
    let key = Secret::new(sent);
    let grant = weigh(&state, client, &key, state.entitlement.identify(&key)).await?;
    trail.key(&grant.key_id);
    let token = state.sessions.open(key).await?;
    let body = Session { status: "open", expires_in: Some(LIFETIME.as_secs()) };
    Ok(with_cookie(&state, body, &token, LIFETIME.as_secs()))
}

async fn close_session(State(state): State<AppState>, headers: HeaderMap) -> ApiResult<Response> {
    end(&state, &headers).await
}

/// Ends the sessions of the key that is shown, and of the one that the cookie stands for.
async fn end(state: &AppState, headers: &HeaderMap) -> ApiResult<Response> {
    let mut keys = vec![shown_key(state, headers).await];
    if let Some(token) = session::token(headers) {
        keys.extend(state.sessions.key(&token).await);
    }
    for key in keys.iter().filter(|key| !key.is_empty()) {
        state.sessions.forget(key).await?;
    }
    Ok(with_cookie(state, Session { status: "closed", expires_in: None }, "", 0))
}

/// Scripts cannot read the cookie, and other sites' pages cannot have it sent.
fn with_cookie(state: &AppState, body: Session, token: &str, seconds: u64) -> Response {
    let mut response = Json(body).into_response();
    let secure = if state.policy.is_tls { "; Secure" } else { "" };
    let cookie = format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path={BASE}; Max-Age={seconds}{secure}");
    if let Ok(mut value) = HeaderValue::from_str(&cookie) {
        value.set_sensitive(true);
        response.headers_mut().insert(SET_COOKIE, value);
    }
    response
}
