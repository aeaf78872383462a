//! Answers to requests with an `Idempotency-Key`, which every API server of a cluster finds. Each is sealed with the request's own secret, which NATS never sees.

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_apiserver::{ANSWERS_KEPT_FOR, SharedAnswers};
use millrace_bus::{Nats, Remembered};
use millrace_core::{Error, Result};

const NONCE_BYTES: usize = 24;

/// Answers of one installation.
pub struct ClusterAnswers(Remembered);

impl ClusterAnswers {
    /// The answers in this installation's NATS.
    pub fn new(nats: Nats) -> Self {
        Self(Remembered::new(nats, "answers", ANSWERS_KEPT_FOR))
    }
}

fn seal(secret: &[u8; 32], value: &[u8]) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let sealed = XChaCha20Poly1305::new(&Key::from(*secret)).encrypt(&XNonce::from(nonce), value);
    let sealed = sealed.map_err(|_| Error::internal("an answer cannot be sealed"))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn open(secret: &[u8; 32], sealed: &[u8]) -> Result<Vec<u8>> {
    let broken = || Error::internal("a kept answer cannot be opened");
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or_else(broken)?;
    XChaCha20Poly1305::new(&Key::from(*secret)).decrypt(&XNonce::from(*nonce), sealed).map_err(|_| broken())
}

impl SharedAnswers for ClusterAnswers {
    fn claim<'a>(&'a self, key: &'a str, secret: &'a [u8; 32], value: Vec<u8>) -> BoxFuture<'a, Result<bool>> {
        async move { self.0.create(key, seal(secret, &value)?).await }.boxed()
    }

    fn read<'a>(&'a self, key: &'a str, secret: &'a [u8; 32]) -> BoxFuture<'a, Result<Option<Vec<u8>>>> {
        async move { self.0.get(key).await?.map(|sealed| open(secret, &sealed)).transpose() }.boxed()
    }

    fn write<'a>(&'a self, key: &'a str, secret: &'a [u8; 32], value: Vec<u8>) -> BoxFuture<'a, Result<()>> {
        async move { self.0.put(key, seal(secret, &value)?).await }.boxed()
    }

    fn forget<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { self.0.remove(key).await }.boxed()
    }
}
