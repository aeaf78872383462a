//! Looking into MySQL and MariaDB databases and editing their rows, on a real server.

mod change;
mod pages;
mod run;
mod structure;
mod values;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::Engine;
use millrace_core::explore::{Explorer, PageRequest, ResultColumn, ResultSink, RunRequest, StatementEnd};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::structure::ObjectName;
use millrace_core::{Error, Kind, Result};
use millrace_tests::database::MySqlDatabase;
use millrace_tests::servers::shared;
use millrace_tests::suites::session::connection;
use serde_json::Value;

/// A database made by statements, and somebody who looks into it.
async fn explored(name: &str, statements: &[&str]) -> (MySqlDatabase, Box<dyn Explorer>) {
    let database = MySqlDatabase::create(&shared().await.mysql, name).await.unwrap();
    let statements: Vec<String> = statements.iter().map(|text| (*text).to_owned()).collect();
    database.execute(&statements).await.unwrap();
    let explorer = explorer(&database.name).await;
    (database, explorer)
}

async fn explorer(database: &str) -> Box<dyn Explorer> {
    let connector = millrace_connectors::connector(Engine::MySql).unwrap();
    let connection = connection(connector, &shared().await.mysql, Some(database));
    connector.explore(&connection, None).await.unwrap()
}

fn object(name: &str) -> ObjectName {
    ObjectName { schema: None, name: name.to_owned() }
}

/// Rows as they were collected.
fn parsed(rows: &mut JsonRows) -> Vec<Value> {
    serde_json::from_str(&format!("[{}]", rows.take())).unwrap()
}

/// All rows of a small table with their etags, in the order of its key.
async fn rows_of(explorer: &mut Box<dyn Explorer>, table: &str) -> (Vec<Value>, Vec<String>) {
    let mut rows = JsonRows::new(Numbers::StringIfInexact).with_etags();
    let request = PageRequest { object: object(table), limit: 1000, is_editable: true, ..PageRequest::default() };
    explorer.page(&request, &mut rows).await.unwrap();
    (parsed(&mut rows), rows.take_etags())
}

/// Keeps all results; may stop reading after some sends.
struct Kept {
    rows: JsonRows,
    expected: usize,
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
            expected: 0,
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
    fn expect(&mut self, statements: usize) {
        self.expected = statements;
    }

    fn begin<'a>(&'a mut self, columns: &'a [ResultColumn]) -> BoxFuture<'a, Result<()>> {
        self.rows.begin_result(columns);
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

fn statements(sql: &str) -> RunRequest {
    RunRequest { sql: sql.to_owned(), max_rows: 1000, is_read_only: false }
}

/// Runs statements; what came, and how it ended.
async fn run(explorer: &mut Box<dyn Explorer>, request: &RunRequest) -> (Kept, Result<()>) {
    let mut kept = Kept::new();
    let ended = explorer.run(request, &mut kept).await;
    (kept, ended)
}
