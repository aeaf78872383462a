//! Short questions: ping, version, databases.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Result;
use millrace_core::connector::{DatabaseEntry, Session};

use super::wire::Wire;

/// A logged-in session.
pub(super) struct MySqlSession(pub(super) Wire);

impl Session for MySqlSession {
    fn ping(&mut self) -> BoxFuture<'_, Result<()>> {
        self.0.ping().boxed()
    }

    fn version(&mut self) -> BoxFuture<'_, Result<String>> {
        async { Ok(self.0.version().to_owned()) }.boxed()
    }

    fn databases(&mut self) -> BoxFuture<'_, Result<Vec<DatabaseEntry>>> {
        async {
            let rows = self.0.query_text("SHOW DATABASES").await?;
            let entry = |name: String| DatabaseEntry { system_reason: system_reason(&name).map(str::to_owned), name, schemas: Vec::new() };
            Ok(rows.iter().filter_map(|row| row.at(0)).map(|name| entry(name.to_owned())).collect())
        }
        .boxed()
    }
}

fn system_reason(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "information_schema" => Some("describes all databases"),
        "performance_schema" => Some("server measurements"),
        "mysql" => Some("server accounts and settings"),
        "sys" => Some("views over the server's measurements"),
        _ => None,
    }
}
