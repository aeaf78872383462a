//! Ends a query at its backends: killing the child alone would leave a long statement running there.

use std::collections::BTreeSet;

use millrace_core::connection::Engine;
use millrace_core::federation::AliasedSource;

/// Cancels what the child's sessions run, as far as the backends can be asked.
pub(crate) async fn cancel(sources: &[AliasedSource], tag: &str, child: Option<u32>) {
    let ports = child.map(local_ports).unwrap_or_default();
    for source in sources {
        let ended = match source.connection.engine {
            Engine::PostgreSql => millrace_connectors::postgres::cancel_tagged(&source.connection, tag).await,
            Engine::MySql if !ports.is_empty() => {
                let ports: Vec<u16> = ports.iter().copied().collect();
                millrace_connectors::mysql::kill_queries_from_ports(&source.connection, &ports).await
            }
            _ => continue,
        };
        if let Err(error) = ended {
            tracing::warn!(alias = %source.alias, error = %error.chain(), "a cancelled query may still run at its source");
        }
    }
}

/// Local ports of a process's TCP connections: its sockets' inodes, looked up in the kernel's tables (proc(5), `/proc/net/tcp`).
fn local_ports(pid: u32) -> BTreeSet<u16> {
    let sockets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    tables
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, inode) = (fields.get(1)?, fields.get(9)?);
            sockets.contains(*inode).then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
        })
        .collect()
}
