//! Sessions of browsers that every API server of a cluster finds: entries of one Secret, each sealed with its own token, which only the browser has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as Object;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use millrace_apiserver::{MOST_SESSIONS, SESSION_LIFETIME, SessionStore};
use millrace_core::{Error, Result, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::{failed, is_conflict, is_missing};
use crate::fresh::Fresh;

const NAME: &str = "millrace-sessions";
const TOKEN_BYTES: usize = 32;
/// A token seals one key once, so its nonce need not differ.
const NONCE: [u8; 24] = [0; 24];

/// Between the beginnings of two reads. Anybody may show a cookie, and each is looked up where all servers find it.
const SPACING: Duration = Duration::from_millis(20);

/// Sessions of one namespace.
#[derive(Clone)]
pub struct ClusterSessions {
    object: Api<Object>,
    all: Fresh<BTreeMap<String, Entry>>,
}

/// What is kept of a session.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    /// The key, sealed with the token.
    sealed: Vec<u8>,
    /// SHA-256 of the key, by which all its sessions are found.
    key: String,
    /// Unix seconds.
    opened_at: i64,
}

impl ClusterSessions {
    /// The sessions of a namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { object: Api::namespaced(client, namespace), all: Fresh::new(SPACING) }
    }

    /// All sessions as they are now.
    async fn entries(&self) -> Result<Arc<BTreeMap<String, Entry>>> {
        let read = async {
            let data = self.object.get_opt(NAME).await.map_err(failed)?.and_then(|object| object.data).unwrap_or_default();
            Ok(data.into_iter().filter_map(|(name, bytes)| Some((name, serde_json::from_slice(&bytes.0).ok()?))).collect())
        };
        self.all.get(read).await
    }

    /// Adds and removes entries, each by itself, so that servers do not undo each other's change.
    async fn change(&self, added: Option<(&str, &Entry)>, removed: &[String]) -> Result<()> {
        let mut data: Map<String, Value> = removed.iter().map(|name| (name.clone(), Value::Null)).collect();
        if let Some((name, entry)) = added {
            let text = serde_json::to_vec(entry).map_err(|error| Error::internal("a session has no JSON form").because(error))?;
            data.insert(name.to_owned(), json!(ByteString(text)));
        }
        let patch = Patch::Merge(json!({"data": data}));
        loop {
            match self.object.patch(NAME, &PatchParams::default(), &patch).await {
                Ok(_) => return Ok(()),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(failed(error)),
            }
            let empty = Object { metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }, ..Object::default() };
            match self.object.create(&PostParams::default(), &empty).await {
                Err(error) if !is_conflict(&error) => return Err(failed(error)),
                _ => {}
            }
        }
    }

    async fn open_session(&self, key: &Secret) -> Result<String> {
        let token: [u8; TOKEN_BYTES] = rand::random();
        let sealed = XChaCha20Poly1305::new(&Key::from(token)).encrypt(&XNonce::from(NONCE), key.expose().as_bytes());
        let sealed = sealed.map_err(|_| Error::internal("a key cannot be sealed"))?;
        let entry = Entry { sealed, key: hex(&Sha256::digest(key.expose().as_bytes())), opened_at: chrono::Utc::now().timestamp() };
        let known = self.entries().await?;
        let (mut live, over): (Vec<_>, Vec<_>) = known.iter().partition(|(_, entry)| is_live(entry));
        let mut removed: Vec<String> = over.into_iter().map(|(name, _)| name.clone()).collect();
        live.sort_by_key(|(_, entry)| entry.opened_at);
        let surplus = (live.len() + 1).saturating_sub(MOST_SESSIONS);
        removed.extend(live.into_iter().take(surplus).map(|(name, _)| name.clone()));
        self.change(Some((&hex(&Sha256::digest(token)), &entry)), &removed).await?;
        Ok(hex(&token))
    }

    async fn key_of(&self, token: &str) -> Option<Secret> {
        let token = unhex(token)?;
        let entry = self.entries().await.ok()?.get(&hex(&Sha256::digest(token)))?.clone();
        let opened = XChaCha20Poly1305::new(&Key::from(token)).decrypt(&XNonce::from(NONCE), entry.sealed.as_slice()).ok()?;
        is_live(&entry).then_some(Secret::new(String::from_utf8(opened).ok()?))
    }

    async fn forget_key(&self, key: &Secret) -> Result<()> {
        let hash = hex(&Sha256::digest(key.expose().as_bytes()));
        let entries = self.entries().await?;
        let removed: Vec<String> = entries.iter().filter(|(_, entry)| entry.key == hash).map(|(name, _)| name.clone()).collect();
        if removed.is_empty() { Ok(()) } else { self.change(None, &removed).await }
    }
}

impl SessionStore for ClusterSessions {
    fn open(&self, key: Secret) -> BoxFuture<'_, Result<String>> {
        async move { self.open_session(&key).await }.boxed()
    }

    fn key<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Secret>> {
        self.key_of(token).boxed()
    }

    fn forget<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<()>> {
        self.forget_key(key).boxed()
    }
}

fn is_live(entry: &Entry) -> bool {
    chrono::Utc::now().timestamp() - entry.opened_at < SESSION_LIFETIME.as_secs() as i64
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; TOKEN_BYTES]> {
    let mut bytes = [0; TOKEN_BYTES];
    if text.len() != 2 * TOKEN_BYTES || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is() {
        let token = [7; TOKEN_BYTES];
        assert_eq!(unhex(&hex(&token)), Some(token));
        for wrong in ["", "zz", &"zz".repeat(32), &"ü".repeat(32), &hex(&token)[1..]] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
