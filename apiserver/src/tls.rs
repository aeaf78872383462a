//! TLS of the API: a certificate and its key from files, read again when they change, as Kubernetes and ACME clients change them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::to_bytes;
use axum::response::IntoResponse as _;
use millrace_core::{Error, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::errors::{ApiError, Code};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The first byte of a client that speaks TLS: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
}

/// Certificate and key as they are now.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] naming `--tls-cert` or `--tls-key` if one cannot be used.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>> {
        let (certificate, key) = read(&files)?;
        let current = RwLock::new(Arc::new(config(&certificate, &key)?));
        Ok(Arc::new(Self { files, current }))
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Takes new files as they come. What cannot be used is logged once, and the old ones stay: a certificate and a key may be written one after the other.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut seen = read(&self.files).ok();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let Ok(found) = read(&self.files) else { continue };
            if seen.as_ref() == Some(&found) {
                continue;
            }
            match config(&found.0, &found.1) {
                Ok(fresh) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                    tracing::info!("the certificate was replaced");
                }
                Err(error) => tracing::warn!(error = %error.chain(), "the new certificate cannot be used; the old one stays"),
            }
            seen = Some(found);
        }
    }
}

/// Certificate and key, PEM.
fn read(files: &TlsFiles) -> Result<(Vec<u8>, Vec<u8>)> {
    let of = |argument: &'static str, path: &Path| {
        std::fs::read(path).map_err(|error| Error::invalid(argument, format!("`{}` cannot be read", path.display())).because(error))
    };
    Ok((of("--tls-cert", &files.certificate)?, of("--tls-key", &files.key)?))
}

fn config(certificate: &[u8], key: &[u8]) -> Result<ServerConfig> {
    let wrong = |argument: &'static str, text: &'static str| Error::invalid(argument, text);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| wrong("--tls-cert", "the file holds a damaged certificate").because(error))?;
    if chain.is_empty() {
        return Err(wrong("--tls-cert", "the file holds no certificate (PEM)"));
    }
    // The reader's error is left out: it might quote the key.
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| wrong("--tls-key", "the file holds no private key (PEM)"))?;
    // The safe default is TLS 1.3 and 1.2.
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS cannot be set up").because(error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| {
            wrong("--tls-key", "the key does not belong to the certificate, or is of a kind that is not supported").because(error)
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Begins TLS with a client; one that speaks plain HTTP is told so.
pub(crate) async fn hello(tls: &Tls, mut stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] == HANDSHAKE {
        return tls.acceptor().accept(stream).await;
    }
    let answer = ApiError::new(Code::TlsRequired, "this port speaks TLS; use `https://`").into_response();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, 4096).await.unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        parts.status,
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    // Closing with unread bytes would reset the connection, and the answer with it.
    let mut rest = [0; 1024];
    for _ in 0..64 {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Err(io::Error::other("the client speaks plain HTTP"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_argument() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        assert!(config(&certificate, &key).is_ok());
        for (certificate, key, argument) in [
            (b"".as_slice(), key.as_slice(), "--tls-cert"),
            (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", &key, "--tls-cert"),
            (&certificate, b"", "--tls-key"),
            (&certificate, &other, "--tls-key"),
        ] {
            let error = config(certificate, key).unwrap_err();
            assert_eq!(error.field_name(), Some(argument), "{}", error.chain());
            assert!(!error.chain().contains("PRIVATE"), "{}", error.chain());
        }
    }

    #[test]
    fn nothing_older_than_tls_1_2_is_spoken() {
        let (certificate, key) = pair();
        let config = config(&certificate, &key).unwrap();
        let versions = rustls::ALL_VERSIONS.iter().map(|version| version.version);
        let all: Vec<_> = versions.collect();
        assert_eq!(all, [rustls::ProtocolVersion::TLSv1_3, rustls::ProtocolVersion::TLSv1_2], "the library knows no older ones");
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
    }
}
