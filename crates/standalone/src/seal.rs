//! Seals secrets at rest with a key that lies beside the database, readable by its owner only.
//!
//! A sealed secret is a version byte, a random nonce of 24 bytes and XChaCha20-Poly1305 of the text. What it belongs to (connection and path) is
//! authenticated with it, so a sealed secret that is moved to another row does not open.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use millrace_core::{Error, Result, Secret};

const KEY_FILE: &str = "secret.key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const VERSION: u8 = 1;

/// Seals and opens secrets.
#[derive(Clone)]
pub struct Seal(XChaCha20Poly1305);

impl Seal {
    /// Reads the data directory's key, creating it if `may_create`. A missing key is never replaced while sealed secrets exist: they would be lost.
    pub fn open(data_dir: &Path, may_create: bool) -> Result<Self> {
        let path = data_dir.join(KEY_FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound && may_create => create(&path)?,
            Err(error) => {
                return Err(
                    Error::internal(format!("cannot read the key file `{}` that opens the stored secrets", path.display())).because(error)
                );
            }
        };
        let key: [u8; KEY_BYTES] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| Error::internal(format!("the key file `{}` does not hold {KEY_BYTES} bytes", path.display())))?;
        Ok(Self(XChaCha20Poly1305::new(&Key::from(key))))
    }

    /// Seals a secret for its owner and path.
    pub fn seal(&self, owner: &str, path: &str, secret: &Secret) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: secret.expose().as_bytes(), aad: &bound_to(owner, path) };
        let text = self.0.encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::internal("a secret cannot be sealed"))?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Opens what [`Seal::seal`] made for the same owner and path.
    pub fn open_secret(&self, owner: &str, path: &str, sealed: &[u8]) -> Result<Secret> {
        let damaged =
            || Error::internal(format!("the stored secret `{path}` of `{owner}` cannot be opened with this data directory's key"));
        let (&version, rest) = sealed.split_first().ok_or_else(damaged)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
        if version != VERSION {
            return Err(damaged());
        }
        let payload = Payload { msg: text, aad: &bound_to(owner, path) };
        let plain = self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| damaged())?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| damaged())
    }
}

fn bound_to(owner: &str, path: &str) -> Vec<u8> {
    format!("{owner}\n{path}").into_bytes()
}

/// Written beside and renamed without replacing, so that two first starts agree on one key.
fn create(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::internal(format!("cannot create the key file `{}`", path.display())).because(error);
    let key: [u8; KEY_BYTES] = rand::random();
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
    let linked = fs::hard_link(&beside, path);
    let _ = fs::remove_file(&beside);
    match linked {
        Ok(()) => Ok(key.to_vec()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => fs::read(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_opens_only_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let seal = Seal::open(dir.path(), true).unwrap();
        let sealed = seal.seal("conn_a", "spec.database.password", &Secret::new("hunter2")).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(seal.open_secret("conn_a", "spec.database.password", &sealed).unwrap().expose(), "hunter2");
        assert!(seal.open_secret("conn_b", "spec.database.password", &sealed).is_err());
        let mut changed = sealed;
        *changed.last_mut().unwrap() ^= 1;
        assert!(seal.open_secret("conn_a", "spec.database.password", &changed).is_err());
    }

    #[test]
    fn the_key_is_private_kept_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = Seal::open(dir.path(), true).unwrap();
        let path = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let sealed = first.seal("o", "p", &Secret::new("x")).unwrap();
        assert_eq!(Seal::open(dir.path(), true).unwrap().open_secret("o", "p", &sealed).unwrap().expose(), "x");
        fs::remove_file(&path).unwrap();
        assert!(Seal::open(dir.path(), false).is_err());
    }
}
