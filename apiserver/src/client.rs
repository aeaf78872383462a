//! Who asks: the address that a request comes from, and the request's id.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderMap;
use ipnet::IpNet;
use millrace_core::{Error, Result};

/// The request's id, as it is answered.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// The address that a request comes from, behind proxies that are trusted to name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(pub(crate) IpAddr);

impl Client {
    /// The client of a request that has been introduced.
    pub(crate) fn of(request: &Request) -> Self {
        request.extensions().get().copied().unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    /// What counts as one client: an IPv4 address, or the network of 64 bits that an IPv6 host chooses its addresses from.
    pub(crate) fn counted(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        }
    }
}

/// Proxies whose `X-Forwarded-For` is believed; nobody's by default.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Networks and addresses, such as `10.0.0.0/8` and `::1`.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] naming `--trusted-proxies`.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let network = |text: &String| {
            let text = text.trim();
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse::<IpNet>().ok().or_else(address).ok_or_else(|| {
                Error::invalid("--trusted-proxies", format!("`{text}` is neither an address nor a network such as `10.0.0.0/8`"))
            })
        };
        texts.iter().map(network).collect::<Result<Vec<_>>>().map(|networks| Self(networks.into()))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the peer's, unless that is a trusted proxy; then the last address of the list that is none. What stands before it anybody can write.
    pub(crate) fn client(&self, request: &Request) -> Client {
        let peer = request.extensions().get::<ConnectInfo<std::net::SocketAddr>>().map(|info| info.0.ip());
        Client(self.seen_through(peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), request.headers()))
    }

    fn seen_through(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer.to_canonical();
        let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        let mut named = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while self.has(address) {
            match named.next().and_then(without_port) {
                Some(before) => address = before.to_canonical(),
                None => break,
            }
        }
        address
    }
}

/// `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]`, `[::1]:80`.
fn without_port(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.split_once(']')?.0.parse().ok();
    let with_port = || text.rsplit_once(':')?.0.parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    text.parse().ok().or_else(bracketed).or_else(with_port)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seen(proxies: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::parse(&proxies.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap();
        let name = axum::http::HeaderName::from_static("x-forwarded-for");
        let headers: HeaderMap = forwarded.iter().map(|line| (name.clone(), line.parse().unwrap())).collect();
        proxies.seen_through(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        assert_eq!(seen(&[], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.0/8"], "11.0.0.1", &["1.2.3.4"]), "11.0.0.1");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(
            seen(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9, 1.2.3.4:5678, 10.0.0.7"]),
            "1.2.3.4",
            "what the client wrote is not believed"
        );
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["9.9.9.9", "1.2.3.4"]), "1.2.3.4");
        assert_eq!(seen(&["10.0.0.0/8", "::1"], "::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(seen(&["10.0.0.0/8"], "10.0.0.1", &["nonsense"]), "10.0.0.1");
        assert_eq!(seen(&["10.0.0.0/8"], "::ffff:10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert!(Proxies::parse(&["ten".to_owned()]).is_err());
    }

    #[test]
    fn hosts_with_many_addresses_are_counted_once() {
        let counted = |text: &str| Client(text.parse().unwrap()).counted().to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
    }
}
