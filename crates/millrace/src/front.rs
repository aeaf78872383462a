//! Arguments by which an operator says who may do what, the same for `serve` and `apiserver`, and where connections may lead, for every role that dials.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millrace_apiserver::{DoorLimits, ExplorerLimits, Front, Origins, Policy, Proxies, Tls, TlsFiles};
use millrace_core::hosts::{self, HostPolicy};

#[derive(Debug, Args)]
pub(crate) struct FrontArgs {
    /// Certificate chain (PEM): serve HTTPS; read again when it changes
    #[arg(long, env = "MILLRACE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, env = "MILLRACE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Change nothing and start nothing; statements run where the engine refuses writes
    #[arg(long, env = "MILLRACE_READ_ONLY", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value_t = false, value_name = "BOOL")]
    read_only: bool,
    /// Origins whose pages may use the API, beside its own: `https://ide.example.com,http://localhost:5173`
    #[arg(long, env = "MILLRACE_CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGINS")]
    cors_origins: Vec<String>,
    /// Proxies whose X-Forwarded-For names the client: addresses and networks
    #[arg(long, env = "MILLRACE_TRUSTED_PROXIES", value_delimiter = ',', value_name = "NETWORKS")]
    trusted_proxies: Vec<String>,
    /// Connections of clients at once; others wait
    #[arg(long, env = "MILLRACE_MAX_CONNECTIONS", default_value_t = DoorLimits::default().connections, value_name = "N")]
    max_connections: usize,
    /// Seconds within which a request's head must come
    #[arg(long, env = "MILLRACE_HEADER_TIMEOUT", default_value_t = DoorLimits::default().head.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    header_timeout: u64,
    /// Seconds that a connection may wait for its next request
    #[arg(long, env = "MILLRACE_KEEP_ALIVE", default_value_t = DoorLimits::default().idle.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    keep_alive: u64,
    /// Seconds within which a request is answered; streams of events and statements have limits of their own
    #[arg(long, env = "MILLRACE_REQUEST_TIMEOUT", default_value_t = Policy::default().answer_within.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
    /// Seconds within which the next piece of a request's body must come
    #[arg(long, env = "MILLRACE_BODY_TIMEOUT", default_value_t = Policy::default().body_within.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    body_timeout: u64,
    /// Sessions that each connection may have open for people
    #[arg(long, env = "MILLRACE_SESSIONS_PER_CONNECTION", default_value_t = ExplorerLimits::default().per_connection, value_name = "N")]
    sessions_per_connection: usize,
    /// Seconds after which such a session is closed when nobody uses it
    #[arg(long, env = "MILLRACE_SESSION_IDLE", default_value_t = ExplorerLimits::default().idle.as_secs(), value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    session_idle: u64,
}

impl FrontArgs {
    /// Reads and checks what is said.
    pub(crate) fn front(&self) -> anyhow::Result<Front> {
        let wrong = |error: millrace_core::Error| anyhow::anyhow!("{}: {}", error.field_name().unwrap_or_default(), error.chain());
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                Some(Tls::load(TlsFiles { certificate: certificate.clone(), key: key.clone() }).map_err(wrong)?)
            }
            _ => None,
        };
        let policy = Policy {
            is_read_only: self.read_only,
            is_tls: tls.is_some(),
            origins: Origins::parse(&said(&self.cors_origins)).map_err(wrong)?,
            proxies: Proxies::parse(&said(&self.trusted_proxies)).map_err(wrong)?,
            answer_within: Duration::from_secs(self.request_timeout),
            body_within: Duration::from_secs(self.body_timeout),
            ..Policy::default()
        };
        let door = DoorLimits {
            head: Duration::from_secs(self.header_timeout),
            idle: Duration::from_secs(self.keep_alive),
            connections: self.max_connections,
            ..DoorLimits::default()
        };
        let explorers = ExplorerLimits { per_connection: self.sessions_per_connection, idle: Duration::from_secs(self.session_idle) };
        Ok(Front { policy, door, tls, explorers })
    }

    /// How clients come.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls_cert.is_some() { "https" } else { "http" }
    }
}

/// Where connections to databases and object stores may lead.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Hosts that connections may lead to: names, `.example.com`, addresses, networks; all when empty
    #[arg(long, env = "MILLRACE_ALLOWED_HOSTS", value_delimiter = ',', value_name = "HOSTS")]
    allowed_hosts: Vec<String>,
    /// Hosts that they may not lead to, whatever is allowed; clouds' metadata addresses never
    #[arg(long, env = "MILLRACE_DENIED_HOSTS", value_delimiter = ',', value_name = "HOSTS")]
    denied_hosts: Vec<String>,
}

impl HostArgs {
    /// Makes them this process's rules.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        let policy = HostPolicy::parse(&said(&self.allowed_hosts), &said(&self.denied_hosts));
        hosts::install(policy.map_err(|error| anyhow::anyhow!("{}: {}", error.field_name().unwrap_or_default(), error.chain()))?);
        Ok(())
    }
}

/// An empty variable says nothing.
fn said(texts: &[String]) -> Vec<String> {
    texts.iter().filter(|text| !text.trim().is_empty()).cloned().collect()
}
