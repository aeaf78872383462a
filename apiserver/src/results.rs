//! Results of statements, written as JSON while they come.
//!
//! ```text
//!  Explorer::run ─▶ Results (text) ──64 KiB──▶ channel ─▶ body of the response
//!                         └ nothing has been sent yet when a statement fails: a proper error instead
//! ```
//!
//! One statement is sent on as its rows come, so a large result needs little memory. Results of several statements are kept back up to [`KEPT_BACK`], so that an
//! error can still be answered as one, with the results of what went before.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::explore::{AffectedObject, ResultColumn, ResultSink, StatementEnd};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Error, Kind, Result};
use serde_json::json;
use tokio::sync::mpsc::Sender;

/// So much of several results is kept back, bytes.
const KEPT_BACK: usize = 8 << 20;
/// The beginning of results of several statements.
const SEVERAL: &str = "{\"results\":[";

/// Takes results and sends them on.
pub(crate) struct Results {
    rows: JsonRows,
    out: Sender<Bytes>,
    text: String,
    has_sent: bool,
    is_single: bool,
    has_rows: bool,
    ended: usize,
    affected_rows: Option<u64>,
    affected: BTreeSet<AffectedObject>,
    total_rows: u64,
    commands: Vec<String>,
}

impl Results {
    pub(crate) fn new(numbers: Numbers, out: Sender<Bytes>) -> Self {
        Self {
            rows: JsonRows::new(numbers),
            out,
            text: String::new(),
            has_sent: false,
            is_single: true,
            has_rows: false,
            ended: 0,
            affected_rows: None,
            affected: BTreeSet::new(),
            total_rows: 0,
            commands: Vec::new(),
        }
    }

    /// What was created, changed or dropped.
    pub(crate) fn affected(&self) -> &BTreeSet<AffectedObject> {
        &self.affected
    }

    /// What each of the statements that ended was.
    pub(crate) fn commands(&self) -> &[String] {
        &self.commands
    }

    /// Rows of all results, and rows that were changed.
    pub(crate) fn row_count(&self) -> u64 {
        self.total_rows + self.affected_rows.unwrap_or(0)
    }

    /// All statements have ended well.
    pub(crate) async fn finish(&mut self, duration_ms: u64) -> Result<()> {
        if self.is_single && self.ended == 0 {
            self.text.push_str("{\"columns\":[],\"rows\":[]");
        }
        if !self.is_single {
            self.text.push_str("],\"columns\":[],\"rows\":[]");
        }
        if let Some(count) = self.affected_rows {
            let _ = write!(self.text, ",\"affected_rows\":{count}");
        }
        if !self.affected.is_empty() {
            let _ = write!(self.text, ",\"affectedObjects\":{}", json!(self.affected));
        }
        let _ = write!(self.text, ",\"status\":\"success\",\"executionTimeMs\":{duration_ms}}}");
        self.pass_on().await
    }

    /// A statement has failed: the results of those before it as a JSON array, if nothing has been sent yet.
    pub(crate) fn earlier(&self) -> Option<String> {
        if self.has_sent {
            return None;
        }
        let complete = self.text.strip_prefix(SEVERAL).unwrap_or_default();
        Some(format!("[{complete}]"))
    }

    async fn pass_on(&mut self) -> Result<()> {
        self.has_sent = true;
        let chunk = Bytes::from(std::mem::take(&mut self.text));
        self.out.send(chunk).await.map_err(|_| Error::new(Kind::Cancelled, "the client has gone away"))
    }
}

impl ResultSink for Results {
    fn expect(&mut self, statements: usize) {
        self.is_single = statements <= 1;
        if !self.is_single {
            self.text.push_str(SEVERAL);
        }
    }

    fn begin<'a>(&'a mut self, columns: &'a [ResultColumn]) -> BoxFuture<'a, Result<()>> {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let types: Vec<&str> = columns.iter().map(|column| column.native_type.as_str()).collect();
        let comma = if !self.is_single && self.ended > 0 { "," } else { "" };
        let _ = write!(self.text, "{comma}{{\"columns\":{},\"columnTypes\":{},\"rows\":[", json!(names), json!(types));
        self.rows.begin_result(columns);
        self.has_rows = true;
        async { Ok(()) }.boxed()
    }

    fn rows(&mut self) -> &mut JsonRows {
        &mut self.rows
    }

    fn send(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            let text = self.rows.take();
            self.text.push_str(&text);
            if self.is_single && !self.text.is_empty() || self.text.len() > KEPT_BACK {
                self.pass_on().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn end(&mut self, end: StatementEnd) -> BoxFuture<'_, Result<()>> {
        async move {
            let rest = self.rows.take();
            self.text.push_str(&rest);
            let command = json!(end.command);
            match (self.has_rows, self.is_single) {
                (true, is_single) => {
                    let count = self.rows.count();
                    self.total_rows += count;
                    let _ = write!(self.text, "],\"commandTag\":{command},\"truncated\":{}", end.is_cut);
                    let _ = if is_single { write!(self.text, ",\"count\":{count}") } else { Ok(()) };
                }
                (false, true) => _ = write!(self.text, "{{\"columns\":[],\"rows\":[],\"commandTag\":{command}"),
                (false, false) => {
                    let comma = if self.ended > 0 { "," } else { "" };
                    let _ = write!(self.text, "{comma}{{\"commandTag\":{command}");
                }
            }
            if !self.is_single {
                if let Some(count) = end.rows_affected {
                    let _ = write!(self.text, ",\"rowsAffected\":{count}");
                }
                self.text.push('}');
            }
            if let Some(count) = end.rows_affected {
                self.affected_rows = Some(self.affected_rows.unwrap_or(0) + count);
            }
            self.affected.extend(end.affected);
            self.commands.push(end.command);
            self.has_rows = false;
            self.ended += 1;
            if self.text.len() > KEPT_BACK {
                self.pass_on().await?;
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use millrace_core::value::{RowEncoder as _, ValueRef};
    use serde_json::Value;

    use super::*;

    fn column(name: &str) -> ResultColumn {
        ResultColumn { name: name.into(), native_type: "int4".into(), ..ResultColumn::default() }
    }

    async fn select(results: &mut Results, values: &[i64]) {
        results.begin(&[column("a")]).await.unwrap();
        for value in values {
            results.rows().begin_row();
            results.rows().value(0, ValueRef::Int(*value)).unwrap();
            results.rows().end_row();
        }
        results.end(StatementEnd { command: "SELECT".into(), ..StatementEnd::default() }).await.unwrap();
    }

    async fn update(results: &mut Results, rows: u64) {
        let end = StatementEnd {
            command: "UPDATE".into(),
            rows_affected: Some(rows),
            affected: Some(AffectedObject::Table),
            ..StatementEnd::default()
        };
        results.end(end).await.unwrap();
    }

    fn results() -> (Results, tokio::sync::mpsc::Receiver<Bytes>) {
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        (Results::new(Numbers::default(), sender), receiver)
    }

    async fn whole(mut results: Results, mut receiver: tokio::sync::mpsc::Receiver<Bytes>) -> Value {
        results.finish(5).await.unwrap();
        drop(results);
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&all).unwrap()
    }

    #[tokio::test]
    async fn one_statement_fills_the_rows() {
        let (mut one, receiver) = results();
        one.expect(1);
        select(&mut one, &[1, 2]).await;
        let body = whole(one, receiver).await;
        assert_eq!(body["columns"], json!(["a"]));
        assert_eq!(body["rows"], json!([[1], [2]]));
        assert_eq!((&body["count"], &body["truncated"], &body["status"]), (&json!(2), &json!(false), &json!("success")));
        assert!(body["results"].is_null());

        let (mut one, receiver) = results();
        one.expect(1);
        update(&mut one, 3).await;
        let body = whole(one, receiver).await;
        assert_eq!((&body["affected_rows"], &body["rows"], &body["affectedObjects"]), (&json!(3), &json!([]), &json!(["table"])));

        let (mut none, receiver) = results();
        none.expect(0);
        assert_eq!(whole(none, receiver).await["rows"], json!([]));
    }

    #[tokio::test]
    async fn several_statements_fill_results_and_are_kept_back_for_an_error() {
        let (mut several, receiver) = results();
        several.expect(3);
        update(&mut several, 2).await;
        select(&mut several, &[7]).await;
        let earlier: Value = serde_json::from_str(&several.earlier().unwrap()).unwrap();
        assert_eq!((earlier.as_array().unwrap().len(), &earlier[0]["rowsAffected"], &earlier[1]["rows"]), (2, &json!(2), &json!([[7]])));
        update(&mut several, 1).await;
        let body = whole(several, receiver).await;
        assert_eq!(body["results"].as_array().unwrap().len(), 3);
        assert_eq!((&body["affected_rows"], &body["rows"]), (&json!(3), &json!([])));
    }
}
