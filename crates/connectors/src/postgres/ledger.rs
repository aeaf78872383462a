//! The ledger in PostgreSQL: three tables in the schema `millrace` of the target database.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::TableName;
use millrace_core::id::ConfigId;
use millrace_core::ledger::{Epoch, LEDGER_VERSION, Ledger, LedgerKey};
use millrace_core::split::Split;
use millrace_core::{Error, Kind, Result};
use tokio_postgres::Transaction;

use super::error::{classify, is_missing_table};
use super::session::ControlSession;

/// Held while the ledger is created, so that two first runs do not create it at once ("millrace" as a number).
const CREATE_LOCK: i64 = 0x6d69_6c6c_7261;

const CREATE: &str = "
    CREATE SCHEMA IF NOT EXISTS millrace;
    CREATE TABLE IF NOT EXISTS millrace.ledger (version integer NOT NULL);
    CREATE TABLE IF NOT EXISTS millrace.run (
        stream text PRIMARY KEY,
        config text NOT NULL,
        epoch bigint NOT NULL,
        finished_at timestamptz,
        claimed_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS millrace.target_table (
        stream text NOT NULL REFERENCES millrace.run ON DELETE CASCADE,
        schema_name text NOT NULL,
        table_name text NOT NULL,
        table_oid oid NOT NULL,
        PRIMARY KEY (stream, schema_name, table_name)
    );
    CREATE TABLE IF NOT EXISTS millrace.split (
        stream text NOT NULL REFERENCES millrace.run ON DELETE CASCADE,
        schema_name text NOT NULL,
        table_name text NOT NULL,
        ordinal integer NOT NULL,
        range text NOT NULL,
        row_count bigint,
        committed_at timestamptz,
        PRIMARY KEY (stream, schema_name, table_name, ordinal)
    );
    INSERT INTO millrace.ledger SELECT 1 WHERE NOT EXISTS (SELECT FROM millrace.ledger);
";

/// The ledger of one target database.
pub(super) struct PgLedger {
    pub(super) session: Arc<ControlSession>,
}

impl Ledger for PgLedger {
    fn claim<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Epoch>> {
        async move {
            let mut client = self.session.client().await?;
            let transaction = client.transaction().await.map_err(classify)?;
            transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&CREATE_LOCK]).await.map_err(classify)?;
            transaction.batch_execute(CREATE).await.map_err(classify)?;
            let version: i32 = transaction.query_one("SELECT version FROM millrace.ledger", &[]).await.map_err(classify)?.get(0);
            if version > LEDGER_VERSION {
                return Err(Error::new(
                    Kind::TargetConflict,
                    format!("the target's ledger has version {version}; this program knows {LEDGER_VERSION}"),
                ));
            }
            let sql = "INSERT INTO millrace.run (stream, config, epoch) VALUES ($1, $2, 1)
                ON CONFLICT (stream) DO UPDATE SET epoch = run.epoch + 1, claimed_at = now() RETURNING epoch";
            let row = transaction.query_one(sql, &[&key.stream.as_str(), &key.config.as_str()]).await.map_err(classify)?;
            // A new attempt plans its splits anew, at a new cut: what an earlier one recorded no longer counts.
            transaction.execute("DELETE FROM millrace.split WHERE stream = $1", &[&key.stream.as_str()]).await.map_err(classify)?;
            let epoch = Epoch(row.get(0));
            transaction.commit().await.map_err(classify)?;
            Ok(epoch)
        }
        .boxed()
    }

    fn unfinished_tables<'a>(&'a self, config: &'a ConfigId) -> BoxFuture<'a, Result<Vec<TableName>>> {
        async move {
            // By identity, not by name: a table that the user made in place of ours is the user's.
            let sql = "SELECT DISTINCT t.schema_name, t.table_name FROM millrace.target_table t JOIN millrace.run r USING (stream)
                JOIN pg_class c ON c.oid = t.table_oid AND c.relname = t.table_name
                JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schema_name
                WHERE r.config = $1 AND r.finished_at IS NULL";
            match self.session.client().await?.query(sql, &[&config.as_str()]).await {
                Ok(rows) => Ok(rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect()),
                Err(error) if is_missing_table(&error) => Ok(Vec::new()),
                Err(error) => Err(classify(error)),
            }
        }
        .boxed()
    }

    fn record_splits<'a>(&'a self, key: &'a LedgerKey, target: &'a TableName, splits: &'a [Split]) -> BoxFuture<'a, Result<()>> {
        async move {
            let ordinals: Vec<i32> = splits.iter().map(|split| split.ordinal as i32).collect();
            let ranges: Vec<String> = splits
                .iter()
                .map(|split| serde_json::to_string(&split.range))
                .collect::<std::result::Result<_, _>>()
                .map_err(|error| Error::internal("a split has no text form").because(error))?;
            let sql = "INSERT INTO millrace.split (stream, schema_name, table_name, ordinal, range)
                SELECT $1, $2, $3, * FROM unnest($4::int4[], $5::text[])";
            let client = self.session.client().await?;
            client.execute(sql, &[&key.stream.as_str(), &target.schema, &target.name, &ordinals, &ranges]).await.map_err(classify)?;
            Ok(())
        }
        .boxed()
    }

    fn committed_splits<'a>(&'a self, key: &'a LedgerKey, target: &'a TableName) -> BoxFuture<'a, Result<Vec<(u32, u64)>>> {
        async move {
            let sql = "SELECT ordinal, row_count FROM millrace.split
                WHERE stream = $1 AND schema_name = $2 AND table_name = $3 AND committed_at IS NOT NULL ORDER BY ordinal";
            let client = self.session.client().await?;
            let rows = client.query(sql, &[&key.stream.as_str(), &target.schema, &target.name]).await.map_err(classify)?;
            Ok(rows.iter().map(|row| (row.get::<_, i32>(0) as u32, row.get::<_, i64>(1) as u64)).collect())
        }
        .boxed()
    }

    fn finish<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut client = self.session.client().await?;
            let transaction = client.transaction().await.map_err(classify)?;
            check_epoch(&transaction, key, epoch).await?;
            transaction
                .execute("UPDATE millrace.run SET finished_at = now() WHERE stream = $1", &[&key.stream.as_str()])
                .await
                .map_err(classify)?;
            transaction.commit().await.map_err(classify)
        }
        .boxed()
    }
}

/// Fails if a newer worker has claimed the run; until the transaction ends, none can.
pub(super) async fn check_epoch(transaction: &Transaction<'_>, key: &LedgerKey, epoch: Epoch) -> Result<()> {
    let sql = "SELECT epoch FROM millrace.run WHERE stream = $1 FOR SHARE";
    let row = transaction.query_opt(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
    fence(row.map(|row| row.get(0)), epoch)
}

/// Compares the epoch that the target has with ours.
pub(super) fn fence(found: Option<i64>, epoch: Epoch) -> Result<()> {
    match found {
        Some(found) if found == epoch.0 => Ok(()),
        _ => Err(Error::new(Kind::Fenced, "a newer worker has taken this run over")),
    }
}
