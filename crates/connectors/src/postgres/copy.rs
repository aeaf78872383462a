//! Writes splits by binary COPY. A split's rows and its ledger row are one transaction.
//!
//! ```text
//!  begin: BEGIN, COPY … FROM STDIN ─▶ send × n ─▶ commit: end of COPY, count, epoch FOR SHARE, ledger row, COMMIT
//! ```

use std::pin::Pin;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::SinkExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::Column;
use millrace_core::connector::SplitWriter;
use millrace_core::ledger::{CutNumber, Epoch, LedgerKey};
use millrace_core::plan::{ColumnPlan, Creation, RowsAction, TablePlan};
use millrace_core::split::Split;
use millrace_core::value::{RowEncoder, ValueError, ValueRef};
use millrace_core::{Error, Kind, Result};
use tokio_postgres::{Client, CopyInSink};

use super::encode::CopyEncoder;
use super::error::classify;
use super::ledger::{CHECK_EPOCH, fence};
use super::names::{qualified, quote};

/// The table of a transaction's own.
const STAGE: &str = "millrace_stage";

/// A connection that writes splits.
pub(super) struct PgSplitWriter {
    client: Client,
    key: LedgerKey,
    epoch: Epoch,
    cut: CutNumber,
    encoder: Option<CopyEncoder>,
    open: Option<Open>,
    losses: Vec<u64>,
    idle: NoSplit,
}

struct Open {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    schema: String,
    table: String,
    ordinal: i32,
    /// Moves the rows from the transaction's own table into the target.
    upsert: Option<String>,
    columns: Vec<String>,
}

impl PgSplitWriter {
    pub(super) fn new(client: Client, key: LedgerKey, epoch: Epoch, cut: CutNumber) -> Self {
        Self { client, key, epoch, cut, encoder: None, open: None, losses: Vec::new(), idle: NoSplit }
    }

    async fn start(&mut self, table: &TablePlan, columns: &[ColumnPlan], split: &Split) -> Result<()> {
        let find = |target: &ColumnPlan| table.source.columns.iter().find(|column| column.name == target.source);
        let sources: Vec<&Column> = columns.iter().filter_map(find).collect();
        if sources.len() != columns.len() {
            return Err(Error::internal("a planned column is not in the catalog"));
        }
        self.client.batch_execute("BEGIN").await.map_err(classify)?;
        let list: Vec<String> = columns.iter().map(|column| quote(&column.target)).collect();
        // No list at all would mean all columns, generated ones included, but COPY leaves those out by itself.
        let list = if list.is_empty() { String::new() } else { format!(" ({})", list.join(", ")) };
        let target = qualified(&table.target.schema, &table.target.name);
        // Rows that may exist already pass through a table of this transaction's own.
        let (into, upsert) = match &table.rows {
            RowsAction::Upsert { key } if table.creation == Creation::Use => {
                let names: Vec<String> = columns.iter().map(|column| quote(&column.target)).collect();
                let sql = format!("CREATE TEMP TABLE {STAGE} ON COMMIT DROP AS SELECT {} FROM {target} LIMIT 0", names.join(", "));
                self.client.batch_execute(&sql).await.map_err(classify)?;
                (format!("pg_temp.{STAGE}"), Some(upsert(&target, &names, columns, key)))
            }
            _ => (target, None),
        };
        let copy = format!("COPY {into}{list} FROM STDIN (FORMAT binary)");
        let sink = self.client.copy_in(&copy).await.map_err(classify)?;
        self.encoder = Some(CopyEncoder::new(&sources, columns)?);
        self.open = Some(Open {
            sink: Box::pin(sink),
            schema: table.target.schema.clone(),
            table: table.target.name.clone(),
            ordinal: split.ordinal as i32,
            upsert,
            columns: columns.iter().map(|column| column.target.clone()).collect(),
        });
        Ok(())
    }

    async fn send_block(&mut self) -> Result<u64> {
        let (Some(encoder), Some(open)) = (&mut self.encoder, &mut self.open) else { return Ok(0) };
        let block = encoder.take();
        let length = block.len() as u64;
        if length > 0 {
            open.sink.feed(block).await.map_err(|error| name_table(classify(error), open))?;
        }
        Ok(length)
    }

    /// What policies did in this split, for the ledger.
    fn losses_text(&self, columns: &[String]) -> Option<String> {
        let losses = self.encoder.as_ref()?.losses();
        let counted: Vec<(&String, u64)> =
            columns.iter().zip(losses).filter(|(_, count)| **count > 0).map(|(name, count)| (name, *count)).collect();
        if counted.is_empty() { None } else { serde_json::to_string(&counted).ok() }
    }

    async fn end_split(&mut self, rows: u64, bytes: u64) -> Result<()> {
        if let Some(encoder) = &mut self.encoder {
            encoder.put_trailer();
        }
        self.send_block().await?;
        let Some(mut open) = self.open.take() else { return Err(Error::internal("no split is open")) };
        let written = open.sink.as_mut().finish().await.map_err(|error| name_table(classify(error), &open))?;
        if written != rows {
            self.client.batch_execute("ROLLBACK").await.map_err(classify)?;
            let text = format!("the target counted {written} rows of `{}`, not {rows}", open.table);
            return Err(name_table(Error::new(Kind::ProtocolViolated, text), &open));
        }
        if let Some(sql) = &open.upsert {
            self.client.batch_execute(sql).await.map_err(|error| name_table(classify(error), &open))?;
        }
        // A fleet that reads another moment by now may have made the tables anew: rows of an older moment must not come into them.
        // Only now, and until the COMMIT, so that a worker that hangs here does not keep a newer one from claiming the run.
        let row = self.client.query_opt(CHECK_EPOCH, &[&self.key.stream.as_str(), &(self.key.worker as i32)]).await.map_err(classify)?;
        fence(row.map(|row| row.get(0)), self.epoch)?;
        let losses = self.losses_text(&open.columns);
        let sql = "UPDATE millrace.split SET row_count = $5, committed_at = now(), epoch = $6, losses = $7, byte_count = $8, worker = $9
            WHERE stream = $1 AND schema_name = $2 AND table_name = $3 AND ordinal = $4 AND committed_at IS NULL
                AND (SELECT cut IS NULL OR (cut::json ->> 'number')::bigint = $6 FROM millrace.run WHERE stream = $1)";
        let stream = self.key.stream.as_str();
        let marked = self
            .client
            .execute(
                sql,
                &[
                    &stream,
                    &open.schema,
                    &open.table,
                    &open.ordinal,
                    &(rows as i64),
                    &self.cut.0,
                    &losses,
                    &(bytes as i64),
                    &(self.key.worker as i32),
                ],
            )
            .await
            .map_err(classify)?;
        if marked != 1 {
            self.client.batch_execute("ROLLBACK").await.map_err(classify)?;
            return Err(Error::new(Kind::Conflict, "a split is not in the ledger, or is there as written already"));
        }
        self.client.batch_execute("COMMIT").await.map_err(classify)?;
        self.losses = self.encoder.take().map_or_else(Vec::new, |encoder| encoder.losses().to_vec());
        Ok(())
    }
}

impl SplitWriter for PgSplitWriter {
    fn begin<'a>(&'a mut self, table: &'a TablePlan, columns: &'a [ColumnPlan], split: &'a Split) -> BoxFuture<'a, Result<()>> {
        self.start(table, columns, split).boxed()
    }

    fn encoder(&mut self) -> &mut dyn RowEncoder {
        match &mut self.encoder {
            Some(encoder) => encoder,
            None => &mut self.idle,
        }
    }

    fn send(&mut self) -> BoxFuture<'_, Result<u64>> {
        self.send_block().boxed()
    }

    fn commit(&mut self, rows: u64, bytes: u64) -> BoxFuture<'_, Result<()>> {
        self.end_split(rows, bytes).boxed()
    }

    fn abort(&mut self) -> BoxFuture<'_, Result<()>> {
        async {
            // Dropping the sink ends the COPY with a failure, which leaves the transaction to be rolled back.
            self.open = None;
            self.encoder = None;
            self.client.batch_execute("ROLLBACK").await.map_err(classify)
        }
        .boxed()
    }

    fn take_losses(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.losses)
    }
}

/// Overwrites rows that have the same key. Identities keep the source's value.
fn upsert(target: &str, names: &[String], columns: &[ColumnPlan], key: &[String]) -> String {
    let list = names.join(", ");
    let key_list: Vec<String> = key.iter().map(|name| quote(name)).collect();
    let sets: Vec<String> = columns
        .iter()
        .filter(|column| !key.contains(&column.target))
        .map(|column| format!("{0} = EXCLUDED.{0}", quote(&column.target)))
        .collect();
    let action = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
    format!(
        "INSERT INTO {target} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM pg_temp.{STAGE} ON CONFLICT ({}) DO {action}",
        key_list.join(", ")
    )
}

fn name_table(error: Error, open: &Open) -> Error {
    if error.detail("table").is_some() { error } else { error.with("table", open.table.clone()) }
}

/// Refuses rows while no split is open.
struct NoSplit;

impl RowEncoder for NoSplit {
    fn begin_row(&mut self) {}

    fn value(&mut self, column: usize, _: ValueRef<'_>) -> Result<(), ValueError> {
        Err(ValueError::new(column, "no split is open"))
    }

    fn end_row(&mut self) {}

    fn abandon_row(&mut self) {}

    fn is_full(&self) -> bool {
        true
    }
}
