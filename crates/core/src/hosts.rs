//! Where connections may lead: an operator's rules about hosts, and the addresses that clouds keep their credentials at.
//!
//! ```text
//!  host of a connection ─▶ denied or allowed by name ─▶ its addresses now ─▶ those that are neither denied nor outside of what is allowed ─▶ dial these
//! ```
//!
//! A name is resolved once, and what is dialled are the addresses that were looked at: a name server that answers differently the second time (DNS rebinding)
//! gains nothing. The rules are those of the process, set once at its start by [`install`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::OnceLock;

use ipnet::IpNet;

use crate::error::{Error, Kind, Result};

/// The detail `reason` of a refusal by these rules.
pub const REASON: &str = "host_not_allowed";

/// Where clouds tell their machines credentials: AWS, Google, Azure and others; AWS by IPv6; Alibaba.
const METADATA: [&str; 3] = ["169.254.0.0/16", "fd00:ec2::254/128", "100.100.100.200/32"];

/// Addresses of IPv4 in IPv6 by a translator (RFC 6052).
const TRANSLATED: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

static INSTALLED: OnceLock<HostPolicy> = OnceLock::new();

/// Which hosts may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPolicy {
    /// Only these; all if empty.
    allowed: Vec<Rule>,
    /// Not these, even if they are allowed.
    denied: Vec<Rule>,
    /// What both were read from.
    said: (Vec<String>, Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// A name, in small letters.
    Name(String),
    /// All names below this one: `.example.com`.
    Below(String),
    /// Addresses.
    Network(IpNet),
}

impl Default for HostPolicy {
    fn default() -> Self {
        let denied = METADATA.iter().filter_map(|text| text.parse().ok()).map(Rule::Network).collect();
        Self { allowed: Vec::new(), denied, said: Default::default() }
    }
}

/// Sets the rules of this process; the first call counts.
pub fn install(policy: HostPolicy) {
    let _ = INSTALLED.set(policy);
}

/// The rules of this process; without [`install`], everything but clouds' metadata is allowed.
pub fn policy() -> &'static HostPolicy {
    INSTALLED.get_or_init(HostPolicy::default)
}

/// The addresses of a host that may be dialled, in the resolver's order; `field` names where the host stands (`spec.database.host`).
///
/// # Errors
/// [`Kind::Invalid`] with the field and the detail `reason` = [`REASON`] if the rules allow none; [`Kind::Unreachable`] for an unknown name.
pub async fn resolve(host: &str, port: u16, field: &'static str) -> Result<Vec<SocketAddr>> {
    policy().resolve(host, port, field).await
}

impl HostPolicy {
    /// Rules from texts: names (`db.example.com`), all names below one (`.example.com` or `*.example.com`), addresses and networks (`10.0.0.0/8`).
    /// Clouds' metadata stays denied.
    ///
    /// # Errors
    /// [`Kind::Invalid`] naming `--allowed-hosts` or `--denied-hosts`.
    pub fn parse(allowed: &[String], denied: &[String]) -> Result<Self> {
        let mut policy = Self { allowed: rules("--allowed-hosts", allowed)?, ..Self::default() };
        policy.denied.extend(rules("--denied-hosts", denied)?);
        policy.said = (allowed.to_vec(), denied.to_vec());
        Ok(policy)
    }

    /// The texts of what is allowed and denied, for a process that is to have the same rules.
    pub fn said(&self) -> (&[String], &[String]) {
        (&self.said.0, &self.said.1)
    }

    /// What can be said of a host before its name is resolved.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn check_name(&self, host: &str, field: &'static str) -> Result<()> {
        let host = normal(host);
        if let Ok(address) = host.parse::<IpAddr>() {
            return if self.allows(&host, address) { Ok(()) } else { Err(refused(&host, field)) };
        }
        let has = |rules: &[Rule]| rules.iter().any(|rule| rule.has_name(&host));
        // Networks that are allowed may hold the name's addresses.
        let may_be_allowed =
            self.allowed.is_empty() || has(&self.allowed) || self.allowed.iter().any(|rule| matches!(rule, Rule::Network(_)));
        if has(&self.denied) || !may_be_allowed { Err(refused(&host, field)) } else { Ok(()) }
    }

    async fn resolve(&self, host: &str, port: u16, field: &'static str) -> Result<Vec<SocketAddr>> {
        self.check_name(host, field)?;
        let host = normal(host);
        let found = tokio::net::lookup_host((host.as_str(), port)).await.map(Iterator::collect);
        self.choose(&host, found, field)
    }

    /// As [`resolve`], for places without a runtime; waits for the name server.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn resolve_blocking(&self, host: &str, port: u16, field: &'static str) -> Result<Vec<SocketAddr>> {
        self.check_name(host, field)?;
        let host = normal(host);
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        self.choose(&host, found, field)
    }

    fn choose(&self, host: &str, found: io::Result<Vec<SocketAddr>>, field: &'static str) -> Result<Vec<SocketAddr>> {
        let unknown = || Error::new(Kind::Unreachable, format!("the name `{host}` is not known")).field(field);
        let found = found.map_err(|error| unknown().because(error))?;
        if found.is_empty() {
            return Err(unknown());
        }
        let allowed: Vec<SocketAddr> = found.into_iter().filter(|found| self.allows(host, found.ip())).collect();
        if allowed.is_empty() { Err(refused(host, field)) } else { Ok(allowed) }
    }

    /// Whether an address of a host may be dialled.
    fn allows(&self, host: &str, address: IpAddr) -> bool {
        let has = |rules: &[Rule]| rules.iter().any(|rule| rule.has_name(host) || meant(address).iter().any(|address| rule.has(*address)));
        !has(&self.denied) && (self.allowed.is_empty() || has(&self.allowed))
    }
}

impl Rule {
    fn has_name(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name == host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            Self::Network(_) => false,
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address))
    }
}

/// An address, and those that it stands for. Dialling the unspecified address (`0.0.0.0`, `::`) reaches the machine itself, as loopback does (Linux, ip(7)).
fn meant(address: IpAddr) -> Vec<IpAddr> {
    let canonical = address.to_canonical();
    if canonical.is_unspecified() {
        return vec![canonical, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let translated = match canonical {
        IpAddr::V6(address) if address.segments()[..6] == TRANSLATED => {
            let [.., a, b, c, d] = address.octets();
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        _ => None,
    };
    std::iter::once(canonical).chain(translated).collect()
}

/// A host as rules know it: small letters, no brackets, no dot at its end.
fn normal(host: &str) -> String {
    let host = host.trim();
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

fn rules(argument: &'static str, texts: &[String]) -> Result<Vec<Rule>> {
    let rule = |text: &String| {
        let text = normal(text);
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Rule::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Rule::Network(address.into()));
        }
        let suffix = text.strip_prefix('*').unwrap_or(&text);
        let name = suffix.strip_prefix('.').unwrap_or(suffix);
        let is_name = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.'));
        match (is_name, suffix.starts_with('.'), text.starts_with('*')) {
            (true, true, _) => Ok(Rule::Below(suffix.to_owned())),
            (true, false, false) => Ok(Rule::Name(text)),
            _ => Err(Error::invalid(
                argument,
                format!("`{text}` is neither a name, nor `.name` or `*.name`, nor an address or a network such as `10.0.0.0/8`"),
            )),
        }
    };
    texts.iter().filter(|text| !text.trim().is_empty()).map(rule).collect()
}

fn refused(host: &str, field: &'static str) -> Error {
    Error::invalid(field, format!("the operator of this server does not let it connect to `{host}`")).with("reason", REASON)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FIELD: &str = "spec.database.host";

    fn policy(allowed: &[&str], denied: &[&str]) -> HostPolicy {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        HostPolicy::parse(&owned(allowed), &owned(denied)).unwrap()
    }

    #[test]
    fn metadata_of_clouds_is_out_of_reach_however_it_is_written() {
        for policy in [HostPolicy::default(), policy(&["169.254.0.0/16"], &[])] {
            for host in ["169.254.169.254", "[fd00:ec2::254]", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "100.100.100.200"] {
                let error = policy.check_name(host, FIELD).unwrap_err();
                assert_eq!((error.field_name(), error.detail("reason")), (Some(FIELD), Some(REASON)), "{host}");
            }
        }
        for host in ["127.0.0.1", "10.0.0.1", "db.example.com", "::1"] {
            assert!(HostPolicy::default().check_name(host, FIELD).is_ok(), "{host}");
        }
    }

    #[test]
    fn names_and_networks_are_allowed_and_denied() {
        let policy = policy(&["db.example.com", "*.data.example.com", "10.0.0.0/8"], &["old.data.example.com", "10.9.0.0/16"]);
        for host in ["db.example.com", "DB.Example.com.", "a.data.example.com", "10.1.2.3"] {
            assert!(policy.check_name(host, FIELD).is_ok(), "{host}");
        }
        for host in ["old.data.example.com", "10.9.1.1", "11.0.0.1"] {
            assert!(policy.check_name(host, FIELD).is_err(), "{host}");
        }
        assert!(policy.allows("a.data.example.com", "93.184.216.34".parse().unwrap()), "a name that is trusted");
        assert!(!policy.allows("a.data.example.com", "169.254.169.254".parse().unwrap()), "but not to point there");
        assert!(!policy.allows("a.data.example.com", "10.9.0.1".parse().unwrap()));
        assert!(policy.allows("other.example.com", "10.1.0.1".parse().unwrap()), "an address that is allowed");
        assert!(!policy.allows("data.example.com", "11.0.0.1".parse().unwrap()), "only below the name");
        assert!(!policy.allows("evildata.example.com", "11.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_list_of_names_leaves_no_other_name() {
        let policy = policy(&[".example.com"], &[]);
        assert!(policy.check_name("db.example.com", FIELD).is_ok());
        for host in ["example.com", "db.example.org", "10.0.0.1"] {
            assert!(policy.check_name(host, FIELD).is_err(), "{host}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_argument() {
        for text in ["10.0.0.0/33", "*", "a b", "db*.example.com", "https://db.example.com", "."] {
            let error = HostPolicy::parse(&[], &[text.to_owned()]).unwrap_err();
            assert_eq!(error.field_name(), Some("--denied-hosts"), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_the_addresses_that_it_has_now() {
        let error = policy(&[], &["127.0.0.0/8", "::1"]).resolve("localhost", 5432, FIELD).await.unwrap_err();
        assert_eq!(error.detail("reason"), Some(REASON));
        // The unspecified address is the machine itself.
        for host in ["0.0.0.0", "::", "[::]"] {
            for denied in ["127.0.0.0/8", "::1"] {
                let error = policy(&[], &[denied]).resolve(host, 5432, FIELD).await.unwrap_err();
                assert_eq!(error.detail("reason"), Some(REASON), "{host} {denied}");
            }
        }
        let found = policy(&["127.0.0.0/8"], &[]).resolve("localhost", 5432, FIELD).await.unwrap();
        assert!(
            !found.is_empty() && found.iter().all(|found| found.ip().is_loopback() && found.is_ipv4() && found.port() == 5432),
            "{found:?}"
        );
    }
}
