//! Sessions of browsers, which cannot send headers on event streams and sockets: a cookie stands for a key that the server remembers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use millrace_core::Secret;
use sha2::{Digest as _, Sha256};

/// The cookie's name.
pub(crate) const COOKIE_NAME: &str = "millrace_session";

/// How long a session lasts.
pub(crate) const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Sessions at once; the oldest goes first.
const MOST: usize = 1000;

/// Keys of sessions, in memory only, by the hash of their cookie.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], (Secret, Instant)>>);

impl Sessions {
    /// Opens a session; answers its cookie's value.
    pub(crate) fn open(&self, key: Secret) -> String {
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.lock();
        sessions.retain(|_, (_, since)| since.elapsed() < LIFETIME);
        if sessions.len() >= MOST
            && let Some(oldest) = sessions.iter().min_by_key(|(_, (_, since))| *since).map(|(name, _)| *name)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(name(&token), (key, Instant::now()));
        token
    }

    /// The key of a request's session, if it has one.
    pub(crate) fn key(&self, headers: &HeaderMap) -> Option<Secret> {
        let sessions = self.lock();
        let (key, since) = sessions.get(&name(&token(headers)?))?;
        (since.elapsed() < LIFETIME).then(|| key.clone())
    }

    /// Ends a request's session and all others of the same key.
    pub(crate) fn forget(&self, headers: &HeaderMap, key: &Secret) {
        let own = self.key(headers);
        let is_same = |other: &Secret| other.expose() == key.expose() || own.as_ref().is_some_and(|own| own.expose() == other.expose());
        self.lock().retain(|_, (other, _)| !is_same(other));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], (Secret, Instant)>> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_stands_for_its_key_until_it_is_forgotten() {
        let sessions = Sessions::default();
        let token = sessions.open(Secret::new("mr_1"));
        let headers = |token: &str| {
            HeaderMap::from_iter([(COOKIE, format!("a=b; {COOKIE_NAME}={token}").parse().unwrap_or_else(|_| panic!("a cookie")))])
        };
        assert_eq!(sessions.key(&headers(&token)).map(|key| key.expose().to_owned()).as_deref(), Some("mr_1"));
        assert!(sessions.key(&headers("other")).is_none());
        sessions.forget(&headers(&token), &Secret::new(""));
        assert!(sessions.key(&headers(&token)).is_none());
    }
}
