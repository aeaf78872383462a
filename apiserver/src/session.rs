//! Sessions of browsers, which cannot send headers on event streams and sockets: a cookie stands for a key that the server remembers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::{Result, Secret};
use sha2::{Digest as _, Sha256};

/// The cookie's name.
pub(crate) const COOKIE_NAME: &str = "millrace_session";

/// How long a session lasts.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Sessions at once; the oldest goes first.
pub const MOST: usize = 1000;

/// Keys of sessions, found by their token, which is what the cookie holds: 32 random bytes as hexadecimal digits.
///
/// Contract: a session that was opened is found until it is forgotten or [`LIFETIME`] is over, by every server that answers for the same installation; the token
/// is kept nowhere.
pub trait SessionStore: Send + Sync {
    /// Opens a session; answers its token.
    fn open(&self, key: Secret) -> BoxFuture<'_, Result<String>>;
    /// The key of a session, if there is one.
    fn key<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Secret>>;
    /// Ends all sessions of a key.
    fn forget<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<()>>;
}

/// Sessions in the memory of one process.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], (Secret, Instant)>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], (Secret, Instant)>> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionStore for Sessions {
    fn open(&self, key: Secret) -> BoxFuture<'_, Result<String>> {
        async move {
            let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
            let mut sessions = self.lock();
            sessions.retain(|_, (_, since)| since.elapsed() < LIFETIME);
            if sessions.len() >= MOST
                && let Some(oldest) = sessions.iter().min_by_key(|(_, (_, since))| *since).map(|(name, _)| *name)
            {
                sessions.remove(&oldest);
            }
            sessions.insert(name(&token), (key, Instant::now()));
            Ok(token)
        }
        .boxed()
    }

    fn key<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Secret>> {
        async move {
            let sessions = self.lock();
            let (key, since) = sessions.get(&name(token))?;
            (since.elapsed() < LIFETIME).then(|| key.clone())
        }
        .boxed()
    }

    fn forget<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<()>> {
        async move {
            self.lock().retain(|_, (other, _)| other.expose() != key.expose());
            Ok(())
        }
        .boxed()
    }
}

fn name(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The token of a request's session, if it has one.
pub(crate) fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cookie_stands_for_its_key_until_it_is_forgotten() {
        let sessions = Sessions::default();
        let key = Secret::new("mr_1");
        let opened = sessions.open(key.clone()).await.unwrap_or_else(|error| panic!("{error}"));
        let headers =
            HeaderMap::from_iter([(COOKIE, format!("a=b; {COOKIE_NAME}={opened}").parse().unwrap_or_else(|_| panic!("a cookie")))]);
        assert_eq!(token(&headers).as_deref(), Some(opened.as_str()));
        assert_eq!(sessions.key(&opened).await.map(|key| key.expose().to_owned()).as_deref(), Some("mr_1"));
        assert!(sessions.key("other").await.is_none());
        sessions.forget(&key).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(sessions.key(&opened).await.is_none());
    }
}
