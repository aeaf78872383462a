//! Certificates of one test run: an authority, servers, clients.

use std::path::Path;

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// An authority with what it has signed, all as PEM text.
pub struct Certificates {
    /// The authority.
    pub ca: String,
    /// A server on `localhost`, but not on `127.0.0.1`.
    pub server: Signed,
    /// A client whose name is the test user's.
    pub client: Signed,
}

/// A certificate with its key.
pub struct Signed {
    /// PEM text.
    pub certificate: String,
    /// PEM text.
    pub key: String,
}

impl Certificates {
    /// Makes an authority and signs both.
    pub fn new(user: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority of a test run");
        let key = KeyPair::generate()?;
        let ca = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let sign = |name: &str, alternative: Vec<String>, purpose| -> anyhow::Result<Signed> {
            let mut params = CertificateParams::new(alternative)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate()?;
            Ok(Signed { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
        };
        Ok(Self {
            ca,
            server: sign("localhost", vec!["localhost".into()], ExtendedKeyUsagePurpose::ServerAuth)?,
            client: sign(user, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?,
        })
    }

    /// Writes the server's files into a directory that its operating system user can read; only it may read the key.
    pub fn write_server(&self, dir: &Path) -> anyhow::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let owner = std::fs::metadata(dir)?;
        for (name, text) in [("ca.pem", &self.ca), ("server.pem", &self.server.certificate), ("server.key", &self.server.key)] {
            let path = dir.join(name);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).context("the server's certificates need an owner")?;
        }
        Ok(())
    }
}
