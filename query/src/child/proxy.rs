//! The only way by which the engine reaches object stores: a proxy inside this process, which holds the operator's rules about hosts.
//!
//! The engine's HTTP client resolves names itself and knows no rules. It is told to ask this proxy for everything, which resolves the name under the rules and dials
//! the addresses that it has looked at. So a name that changes its address between a check and the dial gains nothing, nor does a store that redirects elsewhere.
//!
//! ```text
//!  engine ──password──▶ 127.0.0.1:port ─▶ is the host allowed, by its addresses now? ─▶ one of these addresses
//! ```
//!
//! It understands what the engine sends and no more: `CONNECT`, and `GET` and `HEAD` without bodies.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_core::hosts::{self, HostPolicy};
use subtle::ConstantTimeEq as _;
use svix_ksuid::{Ksuid, KsuidLike as _};

use crate::wire::{FailedKind, Failure};

/// An address that does not answer is given up.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// The largest head of a request; signatures and tokens are the longest parts.
const LARGEST_HEAD: usize = 64 << 10;
/// Whom the password belongs to.
const USER: &str = "engine";
/// The field of errors about hosts; they are told to nobody but the engine.
const FIELD: &str = "endpoint";

/// Where the engine finds the proxy, and what it has to show.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    pub(super) user: &'static str,
    /// Keeps other programs of this machine out.
    pub(super) password: String,
}

/// The proxy of this process, under its rules.
pub(super) fn proxy() -> Result<&'static Proxy, Failure> {
    static PROXY: OnceLock<Option<Proxy>> = OnceLock::new();
    let proxy = PROXY.get_or_init(|| start(hosts::policy()).ok());
    proxy.as_ref().ok_or_else(|| Failure::new(FailedKind::Internal, "the query engine cannot open its way to object stores"))
}

fn start(policy: &'static HostPolicy) -> io::Result<Proxy> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let password = Ksuid::new(None::<std::time::SystemTime>, None).to_string();
    let shown = format!("Basic {}", STANDARD.encode(format!("{USER}:{password}")));
    thread::Builder::new().name("proxy".into()).spawn(move || {
        for client in listener.incoming().flatten() {
            let shown = shown.clone();
            // Without a thread the connection is dropped, and the engine says that it was.
            let _ = thread::Builder::new().name("proxied".into()).spawn(move || serve(client, &shown, policy));
        }
    })?;
    Ok(Proxy { address, user: USER, password })
}

/// Serves one connection of the engine to its end.
fn serve(mut client: TcpStream, shown: &str, policy: &HostPolicy) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut read = Vec::new();
    let Some(head) = next_head(&mut client, &mut read)? else { return Ok(()) };
    let (target, upstream) = match Head::parse(&head).ok_or(Refusal::NotUnderstood).and_then(|head| {
        let upstream = admitted(&head, shown, policy)?;
        Ok((head, upstream))
    }) {
        Ok(found) => found,
        Err(refusal) => {
            return client.write_all(format!("HTTP/1.1 {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", refusal.status()).as_bytes());
        }
    };
    let (mut to, from) = (upstream.try_clone()?, upstream);
    let back = client.try_clone()?;
    if target.is_tunnel {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        to.write_all(&read)?;
    } else {
        to.write_all(target.rewritten().as_bytes())?;
    }
    let answers = thread::Builder::new().name("proxied-back".into()).spawn(move || pump(from, back))?;
    let asked = if target.is_tunnel { pump(client, to) } else { ask_on(client, to, read, &target.authority) };
    let _ = answers.join();
    asked
}

/// Sends further requests of a connection on, as long as they are for the same host.
fn ask_on(mut client: TcpStream, mut to: TcpStream, mut read: Vec<u8>, authority: &str) -> io::Result<()> {
    while let Some(head) = next_head(&mut client, &mut read)? {
        let Some(next) = Head::parse(&head).filter(|next| !next.is_tunnel && next.authority == authority) else { break };
        to.write_all(next.rewritten().as_bytes())?;
    }
    to.shutdown(Shutdown::Write)
}

/// Copies one direction to its end, and hands the end on. What is on its way in the other direction still arrives, unless this one broke.
fn pump(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to).map(|_| ());
    let _ = to.shutdown(Shutdown::Write);
    if copied.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    copied
}

/// The bytes of the next head, up to its empty line; what was read beyond it stays.
fn next_head(client: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            let head = std::mem::replace(read, rest);
            return Ok(String::from_utf8(head).ok());
        }
        let mut block = [0; 4096];
        let count = client.read(&mut block)?;
        if count == 0 || read.len() > LARGEST_HEAD {
            return Ok(None);
        }
        read.extend_from_slice(&block[..count]);
    }
}

/// Why a request is not sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotUnderstood,
    WrongPassword,
    HostRefused,
    Unreachable,
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::NotUnderstood => "405 Method Not Allowed",
            Self::WrongPassword => "407 Proxy Authentication Required",
            Self::HostRefused => "403 Forbidden",
            Self::Unreachable => "502 Bad Gateway",
        }
    }
}

/// What a request's head says.
struct Head<'a> {
    /// Whether everything that follows is for the host itself.
    is_tunnel: bool,
    method: &'a str,
    /// `host` or `host:port`.
    authority: String,
    /// Path and query.
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let headers = lines.take_while(|line| !line.is_empty()).map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())));
        let headers = headers.collect::<Option<Vec<_>>>()?;
        let has_body = headers.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding") || name.eq_ignore_ascii_case("content-length") && *value != "0"
        });
        let (is_tunnel, authority, path) = match method {
            "CONNECT" => (true, target, ""),
            "GET" | "HEAD" if !has_body => {
                let rest = target.strip_prefix("http://")?;
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (false, authority, path)
            }
            _ => return None,
        };
        let is_host = !authority.is_empty() && !authority.contains('@');
        is_host.then(|| Self { is_tunnel, method, authority: authority.to_owned(), path, headers })
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
    }

    fn host(&self) -> Option<(&str, u16)> {
        let after_brackets = self.authority.rfind(']').map_or(0, |end| end + 1);
        match self.authority[after_brackets..].rfind(':') {
            Some(colon) => {
                let (host, port) = self.authority.split_at(after_brackets + colon);
                Some((host, port[1..].parse().ok()?))
            }
            None => Some((&self.authority, if self.is_tunnel { 443 } else { 80 })),
        }
    }

    /// The head as the store itself expects it.
    fn rewritten(&self) -> String {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        let mut text = format!("{} {slash}{} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in self.headers.iter().filter(|(name, _)| !name.to_ascii_lowercase().starts_with("proxy-")) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    }
}

/// A connection to the host of a request that may be sent on.
fn admitted(head: &Head<'_>, shown: &str, policy: &HostPolicy) -> Result<TcpStream, Refusal> {
    let password = head.header("proxy-authorization").unwrap_or_default();
    if !bool::from(password.as_bytes().ct_eq(shown.as_bytes())) {
        return Err(Refusal::WrongPassword);
    }
    let (host, port) = head.host().ok_or(Refusal::NotUnderstood)?;
    let found = policy.resolve_blocking(host, port, FIELD).map_err(|error| match error.detail("reason") {
        Some(hosts::REASON) => Refusal::HostRefused,
        _ => Refusal::Unreachable,
    })?;
    let upstream = found.iter().find_map(|address| TcpStream::connect_timeout(address, DIAL_WITHIN).ok()).ok_or(Refusal::Unreachable)?;
    upstream.set_nodelay(true).map_err(|_| Refusal::Unreachable)?;
    Ok(upstream)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A proxy under rules of its own.
    fn under(denied: &[&str]) -> Proxy {
        let denied: Vec<String> = denied.iter().map(|rule| (*rule).to_owned()).collect();
        start(Box::leak(Box::new(HostPolicy::parse(&[], &denied).unwrap()))).unwrap()
    }

    /// Sends text to the proxy; answers everything that comes back.
    fn ask(proxy: &Proxy, request: &str) -> String {
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let password = STANDARD.encode(format!("{}:{}", proxy.user, proxy.password));
        stream.write_all(request.replace("{password}", &password).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A store that answers each connection with what it was asked.
    fn store() -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut block = [0; 4096];
                    let count = client.read(&mut block).unwrap();
                    client.write_all(b"store: ").unwrap();
                    client.write_all(&block[..count]).unwrap();
                });
            }
        });
        port
    }

    #[test]
    fn requests_reach_the_store_as_it_expects_them() {
        let port = store();
        let request = "GET http://localhost:{port}/b/a.csv?x=1 HTTP/1.1\r\nHost: localhost\r\nProxy-Authorization: Basic {password}\r\n\
            Proxy-Connection: Keep-Alive\r\nRange: bytes=0-7\r\n\r\n";
        let answer = ask(&under(&[]), &request.replace("{port}", &port.to_string()));
        assert_eq!(answer, "store: GET /b/a.csv?x=1 HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-7\r\n\r\n");
        let request = format!("CONNECT localhost:{port} HTTP/1.1\r\nProxy-Authorization: Basic {{password}}\r\n\r\nhello");
        assert_eq!(ask(&under(&[]), &request), "HTTP/1.1 200 Connection established\r\n\r\nstore: hello");
    }

    #[test]
    fn a_name_is_judged_by_its_addresses_when_it_is_dialled() {
        let port = store();
        let denied = under(&["127.0.0.0/8", "::1"]);
        for request in [
            format!("CONNECT localhost:{port} HTTP/1.1\r\nProxy-Authorization: Basic {{password}}\r\n\r\n"),
            format!("GET http://localhost:{port}/ HTTP/1.1\r\nProxy-Authorization: Basic {{password}}\r\n\r\n"),
            "GET http://169.254.169.254/latest HTTP/1.1\r\nProxy-Authorization: Basic {password}\r\n\r\n".to_owned(),
            format!("GET http://[::ffff:127.0.0.1]:{port}/ HTTP/1.1\r\nProxy-Authorization: Basic {{password}}\r\n\r\n"),
        ] {
            let answer = ask(&denied, &request);
            assert!(answer.starts_with("HTTP/1.1 403 "), "{request}: {answer}");
        }
    }

    #[test]
    fn other_programs_and_other_requests_are_refused() {
        let port = store();
        for (request, status) in [
            (format!("GET http://localhost:{port}/ HTTP/1.1\r\n\r\n"), "407"),
            (format!("CONNECT localhost:{port} HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n"), "407"),
            (format!("PUT http://localhost:{port}/ HTTP/1.1\r\nProxy-Authorization: Basic {{password}}\r\n\r\n"), "405"),
            (
                format!("GET http://localhost:{port}/ HTTP/1.1\r\nContent-Length: 1\r\nProxy-Authorization: Basic {{password}}\r\n\r\nx"),
                "405",
            ),
            ("GET / HTTP/1.1\r\nProxy-Authorization: Basic {password}\r\n\r\n".to_owned(), "405"),
        ] {
            let answer = ask(&under(&[]), &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
    }
}
