//! Reads splits at the cut.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::{Column, LogicalType, Table};
use millrace_core::connection::Connection;
use millrace_core::connector::{Batch, ColumnFact, SourceReader};
use millrace_core::split::{KeyBound, Split, SplitRange};
use millrace_core::value::RowEncoder;
use millrace_core::{Error, Kind, Result};

use super::values::{KeyText, RowDecoder, RowError};
use super::wire::{Param, Row, Wire};
use super::{quote, selection, splits};

/// The most that is read and dropped before the server is told to stop, bytes.
const DRAIN_LIMIT: usize = 4 << 20;

/// A connection inside its consistent snapshot.
pub(super) struct MySqlReader {
    wire: Wire,
    connection: Connection,
    database: String,
    open: Option<Open>,
}

/// A split whose rows are being read.
struct Open {
    table: String,
    columns: Vec<Column>,
    key: Vec<String>,
    decoder: RowDecoder,
    is_ended: bool,
}

impl MySqlReader {
    pub(super) fn new(wire: Wire, connection: Connection, database: String) -> Self {
        Self { wire, connection, database, open: None }
    }

    fn table_name(&self, table: &Table) -> String {
        format!("{}.{}", quote(&self.database), quote(&table.name.name))
    }

    async fn open_split(&mut self, table: &Table, columns: &[Column], split: &Split) -> Result<()> {
        let mut list: Vec<String> = columns.iter().map(|column| quote(&column.name)).collect();
        if list.is_empty() {
            // A table may have generated columns only; its rows still count.
            list.push("1".to_owned());
        }
        let mut sql = match &table.query {
            Some(query) => query.clone(),
            None => format!("SELECT {} FROM {}", list.join(", "), self.table_name(table)),
        };
        let (mut conditions, mut params) = selection::conditions(table, &table.all_columns)?;
        if let SplitRange::Key { columns, lower, upper } = &split.range {
            let [column] = columns.as_slice() else {
                return Err(Error::internal("a split over several key columns"));
            };
            for (bound, operator) in [(lower, ">="), (upper, "<")] {
                if let Some([bound]) = bound.as_deref() {
                    conditions.push(format!("{} {operator} ?", quote(column)));
                    params.push(param(bound));
                }
            }
        }
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        sql.push_str(&selection::order_and_limit(table));
        let announced = self.wire.open_rows(&sql, &params).await.map_err(lost_cut)?;
        let decoder = RowDecoder::new(columns, &announced)?;
        self.open = Some(Open {
            table: table.name.to_string(),
            columns: columns.to_vec(),
            key: table.row_key().unwrap_or_default(),
            decoder,
            is_ended: false,
        });
        Ok(())
    }

    async fn read_batch(&mut self, rows: &mut dyn RowEncoder) -> Result<Batch> {
        let Some(open) = &mut self.open else { return Err(Error::internal("no split is open")) };
        let mut batch = Batch { is_last: open.is_ended, ..Batch::default() };
        while !open.is_ended && !rows.is_full() {
            match self.wire.buffered_row() {
                Some(Row::Values(packet)) => {
                    open.decoder.decode(packet, rows).map_err(|error| row_error(open, packet, error))?;
                    batch.rows += 1;
                    batch.bytes += packet.len() as u64;
                }
                Some(Row::End) => {
                    open.is_ended = true;
                    batch.is_last = true;
                    self.wire.end_rows().await.map_err(lost_cut)?;
                }
                Some(Row::Refused(error)) => {
                    // Nothing follows an error; who waited for the rest would wait forever.
                    open.is_ended = true;
                    let error = lost_cut(error);
                    if error.kind() != Kind::CutLost {
                        self.wire.end_rows().await.map_err(lost_cut)?;
                    }
                    return Err(error);
                }
                None => self.wire.wait_for_row().await.map_err(lost_cut)?,
            }
        }
        Ok(batch)
    }

    /// Leaves the split, so that the snapshot can be used again: what is left is read and dropped; if that is much, the server is told to stop sending. (Closing
    /// the connection would be quicker, but the snapshot lives in it.)
    async fn drain(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.is_ended {
            return Ok(());
        }
        let mut dropped = 0;
        let mut is_told = false;
        loop {
            match self.wire.buffered_row() {
                Some(Row::Values(packet)) => dropped += packet.len(),
                Some(Row::End) => return self.wire.end_rows().await.map_err(lost_cut),
                // ER_QUERY_INTERRUPTED: the statement is over, the transaction with its snapshot is not.
                Some(Row::Refused(error)) if is_told && error.detail("errno") == Some("1317") => {
                    return self.wire.end_rows().await.map_err(lost_cut);
                }
                Some(Row::Refused(error)) => return Err(lost_cut(error)),
                None => self.wire.wait_for_row().await.map_err(lost_cut)?,
            }
            if dropped > DRAIN_LIMIT && !is_told {
                is_told = true;
                let mut other = Wire::connect(&self.connection, None).await?;
                other.execute_text(&format!("KILL QUERY {}", self.wire.thread_id())).await?;
                other.quit().await;
            }
        }
    }

    /// One scan answers all questions about a table.
    async fn probe_columns(&mut self, table: &Table) -> Result<Vec<ColumnFact>> {
        let of = |wanted: &dyn Fn(&LogicalType) -> bool| -> Vec<String> {
            table.columns.iter().filter(|column| wanted(&column.logical)).map(|column| column.name.clone()).collect()
        };
        let times = of(&|logical| matches!(logical, LogicalType::Time(_)));
        let spatial = of(&|logical| matches!(logical, LogicalType::Spatial { .. }));
        if times.is_empty() && spatial.is_empty() || table.query.is_some() {
            return Ok(Vec::new());
        }
        let mut tests: Vec<String> = times
            .iter()
            .map(|name| {
                let name = quote(name);
                format!("COALESCE(MIN({name}) >= '00:00:00' AND MAX({name}) <= '24:00:00', 1)")
            })
            .collect();
        tests.extend(spatial.iter().map(|name| {
            let name = quote(name);
            format!("IF(MIN(ST_SRID({name})) <=> MAX(ST_SRID({name})), COALESCE(MIN(ST_SRID({name})), 0), NULL)")
        }));
        let sql = format!("SELECT {} FROM {}", tests.join(", "), self.table_name(table));
        let rows = self.wire.query_text(&sql).await.map_err(lost_cut)?;
        let answer = |index: usize| rows.first().and_then(|row| row.at(index));
        let mut facts: Vec<ColumnFact> = Vec::new();
        facts.extend(
            times.iter().enumerate().filter(|(index, _)| answer(*index) == Some("1")).map(|(_, name)| ColumnFact::TimeOfDay(name.clone())),
        );
        facts.extend(
            spatial
                .iter()
                .enumerate()
                .filter_map(|(index, name)| Some(ColumnFact::Srid(name.clone(), answer(times.len() + index)?.parse().ok()?))),
        );
        Ok(facts)
    }
}

impl SourceReader for MySqlReader {
    fn probe<'a>(&'a mut self, table: &'a Table) -> BoxFuture<'a, Result<Vec<ColumnFact>>> {
        self.probe_columns(table).boxed()
    }

    fn split<'a>(&'a mut self, index: usize, table: &'a Table, target_rows: u64) -> BoxFuture<'a, Result<Vec<Split>>> {
        async move {
            let name = self.table_name(table);
            splits::plan(&mut self.wire, &name, index, table, target_rows).await.map_err(lost_cut)
        }
        .boxed()
    }

    fn open<'a>(&'a mut self, table: &'a Table, columns: &'a [Column], split: &'a Split) -> BoxFuture<'a, Result<()>> {
        self.open_split(table, columns, split).boxed()
    }

    fn next_batch<'a>(&'a mut self, rows: &'a mut dyn RowEncoder) -> BoxFuture<'a, Result<Batch>> {
        self.read_batch(rows).boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, Result<()>> {
        self.drain().boxed()
    }
}

/// A bound as a parameter.
pub(super) fn param(bound: &KeyBound) -> Param {
    match bound {
        KeyBound::Int(value) => Param::Int(*value),
        KeyBound::UInt(value) => Param::UInt(*value),
        KeyBound::Text(text) => Param::Text(text.clone()),
        KeyBound::Bytes(bytes) => Param::Bytes(bytes.clone()),
    }
}

/// The snapshot lives in its connection: without the one there is not the other.
fn lost_cut(error: Error) -> Error {
    match error.kind() {
        Kind::ConnectionLost | Kind::Unreachable => {
            Error::new(Kind::CutLost, "the connection that holds the source's snapshot was lost").because(error)
        }
        _ => error,
    }
}

fn row_error(open: &Open, packet: &[u8], error: RowError) -> Error {
    let key = KeyText::new(&open.columns, &open.key).describe(&open.decoder, packet);
    let at = key.as_ref().map_or(String::new(), |key| format!(" of the row {key}"));
    let error = match error {
        RowError::Malformed => Error::new(Kind::ProtocolViolated, format!("a row of `{}` cannot be decoded", open.table)),
        RowError::Refused(refused) => {
            let column = open.columns.get(refused.column).map_or("", |column| column.name.as_str());
            let reason = refused.reason;
            Error::new(Kind::ValueRefused, format!("column `{column}` of `{}`{at}: {reason}", open.table)).with("column", column.to_owned())
        }
    };
    let error = error.with("table", open.table.clone());
    match key {
        Some(key) => error.with("key", key),
        None => error,
    }
}
