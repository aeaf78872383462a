//! Values that all servers of an installation find by a key, for a while: a JetStream key-value bucket.

use std::time::Duration;

use async_nats::jetstream::kv::{Config, CreateErrorKind, Store};
use millrace_core::{Error, Result};
use tokio::sync::OnceCell;

use crate::nats::{Nats, unavailable};

/// Bytes of all values of a bucket; the oldest goes first.
const MOST_BYTES: i64 = 64 << 20;
/// The largest value, bytes; NATS takes no message of more than 1 MiB.
const LARGEST: i32 = 900 << 10;

/// A bucket of values. What the server loses is gone.
pub struct Remembered {
    nats: Nats,
    bucket: String,
    age: Duration,
    store: OnceCell<Store>,
}

impl Remembered {
    /// A bucket by its name, whose values stay this long; asks the server nothing yet.
    pub fn new(nats: Nats, name: &str, age: Duration) -> Self {
        let bucket = nats.subjects.retained(name);
        Self { nats, bucket, age, store: OnceCell::new() }
    }

    async fn store(&self) -> Result<&Store> {
        if !self.nats.is_connected() {
            return Err(Error::new(millrace_core::Kind::Unreachable, "NATS is away"));
        }
        let open = async || {
            if let Ok(store) = self.nats.context.get_key_value(&self.bucket).await {
                return Ok(store);
            }
            let config = Config {
                bucket: self.bucket.clone(),
                history: 1,
                max_age: self.age,
                max_bytes: MOST_BYTES,
                max_value_size: LARGEST,
                ..Config::default()
            };
            self.nats.context.create_key_value(config).await.map_err(unavailable)
        };
        self.store.get_or_try_init(open).await
    }

    /// Keeps a value unless the key has one; answers whether it was kept.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool> {
        match self.store().await?.create(key, value.into()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.store().await?.get(key).await.map_err(unavailable)?.map(Into::into))
    }

    /// Replaces the value of a key.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS, or for a value that is too large.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<()> {
        self.store().await?.put(key, value.into()).await.map(drop).map_err(unavailable)
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn remove(&self, key: &str) -> Result<()> {
        self.store().await?.purge(key).await.map_err(unavailable)
    }
}
