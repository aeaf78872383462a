//! Ends a query at its backends: killing the child alone would leave a long statement running there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use millrace_core::connection::{Connection, Engine};
use millrace_core::federation::AliasedSource;
use millrace_core::hosts;

/// Where a connection's host stands.
const HOST: &str = "spec.database.host";

/// Cancels what the child's sessions run, as far as the backends can be asked.
pub(crate) async fn cancel(sources: &[AliasedSource], tag: &str, child: Option<u32>) {
    let sockets = child.map(sockets).unwrap_or_default();
    for source in sources {
        let ended = match source.connection.engine {
            Engine::PostgreSql => millrace_connectors::postgres::cancel_tagged(&source.connection, tag).await,
            Engine::MySql if !sockets.is_empty() => {
                let ports = ports_to(&sockets, &source.connection).await;
                millrace_connectors::mysql::kill_queries_from_ports(&source.connection, &ports).await
            }
            _ => continue,
        };
        if let Err(error) = ended {
            tracing::warn!(alias = %source.alias, error = %error.chain(), "a cancelled query may still run at its source");
        }
    }
}

/// A TCP connection of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    /// The port on this side.
    local: u16,
    remote: SocketAddr,
}

/// Local ports of the connections that lead to a server: another server's sessions may come from the same ports.
async fn ports_to(sockets: &BTreeSet<Socket>, connection: &Connection) -> Vec<u16> {
    let Some(spec) = connection.database() else { return Vec::new() };
    let addresses = hosts::resolve(&spec.host, spec.port, HOST).await.unwrap_or_default();
    let is_server =
        |remote: SocketAddr| addresses.iter().any(|address| (address.ip().to_canonical(), address.port()) == (remote.ip(), remote.port()));
    sockets.iter().filter(|socket| is_server(socket.remote)).map(|socket| socket.local).collect()
}

/// A process's TCP connections: its sockets' inodes, looked up in the kernel's tables (proc(5), `/proc/net/tcp`).
fn sockets(pid: u32) -> BTreeSet<Socket> {
    let inodes: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| socket(line, &inodes)).collect()
}

/// One line of a kernel's table, if it is of one of these sockets.
fn socket(line: &str, inodes: &BTreeSet<String>) -> Option<Socket> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, remote, inode) = (fields.get(1)?, fields.get(2)?, fields.get(9)?);
    if !inodes.contains(*inode) {
        return None;
    }
    let local = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    let (address, port) = remote.rsplit_once(':')?;
    Some(Socket { local, remote: SocketAddr::new(address_of(address)?, u16::from_str_radix(port, 16).ok()?) })
}

/// An address as the kernel prints it: words of 32 bits in the order of the network, each printed as a number of this machine.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::connection::{ConnectionSpec, DatabaseSpec};

    use super::*;

    #[test]
    fn lines_of_the_kernel_tell_both_ends() {
        let line = |local: &str, remote: &str| {
            format!("   1: {local} {remote} 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 4 30 10 -1")
        };
        let inodes = BTreeSet::from(["4711".to_owned()]);
        let read = |local: &str, remote: &str| socket(&line(local, remote), &inodes);
        let here = |text: &str| u32::from_ne_bytes(text.parse::<std::net::Ipv4Addr>().unwrap().octets());
        let of = |text: &str, port: u16| Some(Socket { local: 0xC350, remote: SocketAddr::new(text.parse().unwrap(), port) });
        assert_eq!(read("0100007F:C350", &format!("{:08X}:0CEA", here("10.1.2.3"))), of("10.1.2.3", 3306));
        let mapped = format!("0000000000000000{:08X}{:08X}:0CEA", u32::from_ne_bytes([0, 0, 255, 255]), here("10.1.2.3"));
        assert_eq!(read("0100007F:C350", &mapped), of("10.1.2.3", 3306));
        let loopback = format!("{}{:08X}:1538", "0".repeat(24), u32::from_ne_bytes([0, 0, 0, 1]));
        assert_eq!(read("0100007F:C350", &loopback), of("::1", 5432));
        assert_eq!(socket(&line("0100007F:C350", "0100007F:0CEA"), &BTreeSet::new()), None);
        assert_eq!(read("0100007F:C350", "0100:0CEA"), None);
    }

    #[tokio::test]
    async fn only_connections_to_the_server_count() {
        let (one, other) = (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let (to_one, to_other) = (
            std::net::TcpStream::connect(one.local_addr().unwrap()).unwrap(),
            std::net::TcpStream::connect(other.local_addr().unwrap()).unwrap(),
        );
        let found = sockets(std::process::id());
        let ports = |stream: &std::net::TcpStream| stream.local_addr().unwrap().port();
        assert!([&to_one, &to_other].iter().all(|stream| found.iter().any(|socket| socket.local == ports(stream))));
        let spec = DatabaseSpec {
            host: "127.0.0.1".into(),
            port: one.local_addr().unwrap().port(),
            username: String::new(),
            password: None,
            database: None,
        };
        let connection = Connection {
            id: millrace_core::id::ConnectionId::mint(),
            name: "one".into(),
            engine: Engine::MySql,
            created: 0,
            ssl: None,
            cloud_provider: None,
            spec: ConnectionSpec::Database(spec),
        };
        assert_eq!(ports_to(&found, &connection).await, [ports(&to_one)]);
    }
}
