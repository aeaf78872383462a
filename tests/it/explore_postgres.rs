//! Looking into PostgreSQL databases and editing their rows, on a real server.

mod change;
mod rows;
mod run;
mod structure;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::{Connection, Engine};
use millrace_core::explore::{Explorer, ResultColumn, ResultSink, StatementEnd};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::structure::ObjectName;
use millrace_core::{Error, Kind, Result};
use millrace_tests::database::PgDatabase;
use millrace_tests::servers::shared;
use millrace_tests::suites::session::connection;
use serde_json::Value;

fn way(database: &str, servers: &millrace_tests::servers::Servers) -> Connection {
    connection(millrace_connectors::connector(Engine::PostgreSql).unwrap(), &servers.postgres, Some(database))
}

/// A database made by statements, and somebody who looks into it.
async fn explored(name: &str, sql: &str) -> (PgDatabase, Box<dyn Explorer>) {
    let database = PgDatabase::create(&shared().await.postgres, name).await.unwrap();
    database.client.batch_execute(sql).await.unwrap();
    let explorer = explorer(&database.name).await;
    (database, explorer)
}

async fn explorer(database: &str) -> Box<dyn Explorer> {
    let connection = way(database, shared().await);
    millrace_connectors::connector(Engine::PostgreSql).unwrap().explore(&connection, None).await.unwrap()
}

fn object(name: &str) -> ObjectName {
    match name.split_once('.') {
        Some((schema, name)) => ObjectName { schema: Some(schema.to_owned()), name: name.to_owned() },
        None => ObjectName { schema: None, name: name.to_owned() },
    }
}

/// Rows as they were collected.
fn parsed(rows: &mut JsonRows) -> Vec<Value> {
    serde_json::from_str(&format!("[{}]", rows.take())).unwrap()
}

/// Keeps all results; may stop reading after some sends.
struct Kept {
    rows: JsonRows,
    columns: Vec<Vec<ResultColumn>>,
    results: Vec<Vec<Value>>,
    ends: Vec<StatementEnd>,
    text: String,
    sends: usize,
    most_sends: usize,
}

impl Kept {
    fn new() -> Self {
        Self {
            rows: JsonRows::new(Numbers::StringIfInexact),
            columns: Vec::new(),
            results: Vec::new(),
            ends: Vec::new(),
            text: String::new(),
            sends: 0,
            most_sends: usize::MAX,
        }
    }
}

impl ResultSink for Kept {
    fn begin<'a>(&'a mut self, columns: &'a [ResultColumn]) -> BoxFuture<'a, Result<()>> {
        self.columns.push(columns.to_vec());
        async { Ok(()) }.boxed()
    }

    fn rows(&mut self) -> &mut JsonRows {
        &mut self.rows
    }

    fn send(&mut self) -> BoxFuture<'_, Result<()>> {
        self.sends += 1;
        let taken = self.rows.take();
        self.text.push_str(&taken);
        let is_over = self.sends > self.most_sends;
        async move { if is_over { Err(Error::new(Kind::Cancelled, "nobody reads any more")) } else { Ok(()) } }.boxed()
    }

    fn end(&mut self, end: StatementEnd) -> BoxFuture<'_, Result<()>> {
        let text = std::mem::take(&mut self.text) + &self.rows.take();
        self.results.push(serde_json::from_str(&format!("[{text}]")).unwrap());
        self.ends.push(end);
        async { Ok(()) }.boxed()
    }
}
