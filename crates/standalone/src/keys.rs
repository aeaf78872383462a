//! API keys of one installation: stored as hashes, known at once to a running server because every look-up asks the store.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::entitlement::{Denial, Entitlement, Grant};
use millrace_core::{Result, Secret};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::store::{Store, failed};

/// What a key looks like: a prefix by which leaks are found, and 256 random bits.
const PREFIX: &str = "mr_";

/// The subscription that a local key has.
const LOCAL_SUBSCRIPTION: &str = "unlimited";

/// Keys of one data directory.
#[derive(Clone)]
pub struct LocalKeys(Store);

impl LocalKeys {
    /// The keys in this store.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Makes a key with an unlimited local subscription. The key itself is returned once and stored nowhere.
    pub async fn create(&self, name: &str, now: i64) -> Result<Secret> {
        let bytes: [u8; 32] = rand::random();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = Secret::new(format!("{PREFIX}{digits}"));
        let hash = hash(&key);
        let id: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        sqlx::query("INSERT INTO api_key (id, name, hash, subscription, created_at) VALUES (?, ?, ?, ?, ?)")
            .bind(format!("key_{id}"))
            .bind(name)
            .bind(hash)
            .bind(LOCAL_SUBSCRIPTION)
            .bind(now)
            .execute(&self.0.pool)
            .await
            .map_err(failed("write the store"))?;
        Ok(key)
    }

    /// Looking up a hash of 256 random bits leaks nothing about keys by its time: who does not know the key cannot steer the hash.
    async fn look_up(&self, key: &Secret) -> Result<Grant, Denial> {
        if !key.expose().starts_with(PREFIX) {
            return Err(Denial::AuthenticationFailed);
        }
        let row = sqlx::query("SELECT id, subscription FROM api_key WHERE hash = ? AND revoked_at IS NULL")
            .bind(hash(key))
            .fetch_optional(&self.0.pool)
            .await
            .map_err(|_| Denial::Unavailable)?;
        let row = row.ok_or(Denial::AuthenticationFailed)?;
        Ok(Grant { key_id: row.get(0), subscription: row.get(1) })
    }
}

impl Entitlement for LocalKeys {
    fn identify<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>> {
        self.look_up(key).boxed()
    }

    fn authorise<'a>(&'a self, key: &'a Secret, install: &'a str) -> BoxFuture<'a, Result<Grant, Denial>> {
        async move {
            if install.trim().is_empty() {
                return Err(Denial::AuthenticationFailed);
            }
            self.look_up(key).await
        }
        .boxed()
    }
}

fn hash(key: &Secret) -> Vec<u8> {
    Sha256::digest(key.expose().as_bytes()).to_vec()
}
