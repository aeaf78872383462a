//! Values that all servers of an installation find by a key, for a while: a JetStream key-value bucket.

use std::time::Duration;

use async_nats::jetstream::kv::{Config, CreateErrorKind, Operation, Store, UpdateErrorKind};
use bytes::Bytes;
use millrace_core::{Error, Kind, Result};
use tokio::sync::Mutex;

use crate::nats::{Nats, unavailable};

/// Bytes of all values of a bucket; the oldest goes first.
const MOST_BYTES: i64 = 64 << 20;
/// The largest value, bytes; NATS takes no message of more than 1 MiB.
const LARGEST: i32 = 900 << 10;
/// How often a number is raised again because somebody else was quicker.
const TRIES: u32 = 20;

/// A bucket of values. What the server loses is gone.
pub struct Remembered {
    nats: Nats,
    bucket: String,
    age: Duration,
    store: Mutex<Option<Store>>,
}

impl Remembered {
    /// A bucket by its name, whose values stay this long; asks the server nothing yet.
    pub fn new(nats: Nats, name: &str, age: Duration) -> Self {
        let bucket = nats.subjects.retained(name);
        Self { nats, bucket, age, store: Mutex::default() }
    }

    /// Does something with the bucket, once more with a new one if the server has lost it. Nothing that was done to a lost one is left, so nothing is done twice.
    async fn with<T, F>(&self, action: impl Fn(Store) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        if !self.nats.is_connected() {
            return Err(Error::new(Kind::Unreachable, "NATS is away"));
        }
        let known = self.store.lock().await.clone();
        if let Some(store) = known {
            match action(store).await {
                Err(error) if error.kind() == Kind::Unreachable && self.is_lost().await => {}
                other => return other,
            }
        }
        let store = self.open().await?;
        *self.store.lock().await = Some(store.clone());
        action(store).await
    }

    /// Whether the server answers and has no such bucket.
    async fn is_lost(&self) -> bool {
        use async_nats::jetstream::ErrorCode;
        use async_nats::jetstream::context::GetStreamErrorKind;
        match self.nats.context.get_stream(format!("KV_{}", self.bucket)).await {
            Ok(_) => false,
            Err(error) => {
                matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
            }
        }
    }

    async fn open(&self) -> Result<Store> {
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
    }

    /// Keeps a value unless the key has one; answers whether it was kept.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool> {
        let value = Bytes::from(value);
        self.with(|store| {
            let value = value.clone();
            async move {
                match store.create(key, value).await {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
                    Err(error) => Err(unavailable(error)),
                }
            }
        })
        .await
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.with(|store| async move { Ok(store.get(key).await.map_err(unavailable)?.map(Into::into)) }).await
    }

    /// Replaces the value of a key.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS, or for a value that is too large.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<()> {
        let value = Bytes::from(value);
        self.with(|store| {
            let value = value.clone();
            async move { store.put(key, value).await.map(drop).map_err(unavailable) }
        })
        .await
    }

    /// The number of a key; 0 if there is none.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn number(&self, key: &str) -> Result<u64> {
        Ok(self.get(key).await?.and_then(|bytes| number(&bytes)).unwrap_or(0))
    }

    /// Raises the number of a key to this one, unless it is as high already, and makes it stay from now on.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS; [`Kind::Contention`] if many raise it at once.
    pub async fn raise(&self, key: &str, least: u64) -> Result<()> {
        for _ in 0..TRIES {
            let is_raised = self
                .with(|store| async move {
                    let entry = store.entry(key).await.map_err(unavailable)?;
                    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
                    let known = entry.filter(|entry| entry.operation == Operation::Put).and_then(|entry| number(&entry.value));
                    let bytes = least.max(known.unwrap_or(0)).to_be_bytes().to_vec();
                    match store.update(key, bytes.into(), revision).await {
                        Ok(_) => Ok(true),
                        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
                        Err(error) => Err(unavailable(error)),
                    }
                })
                .await?;
            if is_raised {
                return Ok(());
            }
        }
        Err(Error::new(Kind::Contention, format!("the number `{key}` is raised by many at once")))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Unreachable`] without NATS.
    pub async fn remove(&self, key: &str) -> Result<()> {
        self.with(|store| async move { store.purge(key).await.map_err(unavailable) }).await
    }
}

fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
