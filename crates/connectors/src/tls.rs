//! Transport protection of database connections: the four modes of libpq's `sslmode`, for every engine alike.

use std::sync::Arc;

use base64::Engine as _;
use millrace_core::connection::{Connection, Ssl, SslMode};
use millrace_core::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What a connection's transport needs; none for plain TCP.
///
/// # Errors
/// [`millrace_core::Kind::Invalid`] naming the part of `ssl` that cannot be read.
pub(crate) fn client_config(connection: &Connection) -> Result<Option<Arc<ClientConfig>>> {
    match &connection.ssl {
        Some(ssl) if ssl.mode != SslMode::Disabled => build(ssl).map(|config| Some(Arc::new(config))),
        _ => Ok(None),
    }
}

/// Checks that the certificates and the key of a connection can be read.
///
/// # Errors
/// As the dial would give them.
pub fn check_tls(connection: &Connection) -> Result<()> {
    client_config(connection).map(|_| ())
}

/// The PEM text of a part of `ssl`, for engines that read their certificates from files.
pub fn pem_text(field: &'static str, encoded: &str) -> Result<String> {
    if encoded.trim_start().starts_with("-----BEGIN") {
        return Ok(encoded.to_owned());
    }
    let compact: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact);
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| Error::invalid(field, format!("`{field}` is not the base64 form of a PEM file")))
}

fn build(ssl: &Ssl) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("no TLS version is available").because(error))?;
    let verifier: Arc<dyn ServerCertVerifier> = match ssl.mode {
        SslMode::Disabled | SslMode::Require => Arc::new(Unchecked(provider)),
        SslMode::VerifyCa => Arc::new(AnyName(web_pki(ssl, provider)?)),
        SslMode::VerifyFull => web_pki(ssl, provider)?,
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    match (&ssl.client_cert, &ssl.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates("ssl.client_cert", certificate)?;
            let key = PrivateKeyDer::from_pem_slice(pem_text("ssl.client_key", key.expose())?.as_bytes())
                .map_err(|_| Error::invalid("ssl.client_key", "`ssl.client_key` holds no private key"))?;
            builder.with_client_auth_cert(chain, key).map_err(|_| {
                Error::invalid(
                    "ssl.client_key",
                    "`ssl.client_key` does not belong to `ssl.client_cert`, or is of a kind that is not supported",
                )
            })
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(_), None) => Err(Error::invalid("ssl.client_key", "`ssl.client_cert` needs `ssl.client_key`")),
        (None, Some(_)) => Err(Error::invalid("ssl.client_cert", "`ssl.client_key` needs `ssl.client_cert`")),
    }
}

fn web_pki(ssl: &Ssl, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    match &ssl.ca {
        Some(ca) => {
            for certificate in certificates("ssl.ca", ca)? {
                roots
                    .add(certificate)
                    .map_err(|error| Error::invalid("ssl.ca", format!("`ssl.ca` holds a certificate that is not usable: {error}")))?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| Error::invalid("ssl.ca", format!("`ssl.ca` cannot be used: {error}")))
}

fn certificates(field: &'static str, encoded: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = pem_text(field, encoded)?;
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Error::invalid(field, format!("`{field}` holds a damaged certificate")))?;
    if found.is_empty() { Err(Error::invalid(field, format!("`{field}` holds no certificate"))) } else { Ok(found) }
}

/// Encrypts and does not ask who is there.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain and lets any host name pass.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        // The name is looked at last, after the chain has been found good.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
