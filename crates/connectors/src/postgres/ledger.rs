//! The ledger in PostgreSQL: tables in the schema `millrace` of the target database.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::TableName;
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::ledger::{CommittedSplit, CutNumber, Epoch, LEDGER_VERSION, Ledger, LedgerKey, TableRecord};
use millrace_core::split::Split;
use millrace_core::{Error, Kind, Result};
use tokio_postgres::Transaction;

use super::error::{classify, is_missing_table};
use super::fleet::LEASE_SECONDS;
use super::session::ControlSession;

/// Held while the ledger is created, so that two first runs do not create it at once ("millrace" as a number).
const CREATE_LOCK: i64 = 0x6d69_6c6c_7261;

/// How long tables of the ledger are waited for when columns are added.
const LOCK_PATIENCE: &str = "10s";

const CREATE_VERSION: &str = "
    CREATE SCHEMA IF NOT EXISTS millrace;
    CREATE TABLE IF NOT EXISTS millrace.ledger (version integer NOT NULL);
";

const CREATE: &str = "
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
    ALTER TABLE millrace.target_table
        ADD COLUMN IF NOT EXISTS is_created boolean NOT NULL DEFAULT true,
        ADD COLUMN IF NOT EXISTS fingerprint text NOT NULL DEFAULT '',
        ADD COLUMN IF NOT EXISTS keys_at timestamptz;
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
    ALTER TABLE millrace.split
        ADD COLUMN IF NOT EXISTS epoch bigint NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS losses text,
        ADD COLUMN IF NOT EXISTS byte_count bigint NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS worker integer;
    ALTER TABLE millrace.run
        ADD COLUMN IF NOT EXISTS attempt integer NOT NULL DEFAULT 0,
        ADD COLUMN IF NOT EXISTS lead bigint,
        ADD COLUMN IF NOT EXISTS led_until timestamptz,
        ADD COLUMN IF NOT EXISTS cut text,
        ADD COLUMN IF NOT EXISTS plan text;
    ALTER TABLE millrace.target_table ADD COLUMN IF NOT EXISTS failure text;
    CREATE TABLE IF NOT EXISTS millrace.worker (
        stream text NOT NULL REFERENCES millrace.run ON DELETE CASCADE,
        worker integer NOT NULL,
        epoch bigint NOT NULL,
        attempt integer NOT NULL,
        report text,
        seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (stream, worker)
    );
    INSERT INTO millrace.ledger SELECT 2 WHERE NOT EXISTS (SELECT FROM millrace.ledger);
    UPDATE millrace.ledger SET version = 2 WHERE version < 2;
";

/// Tables that unfinished runs of a config have created. By identity, not by name: a table that the user made in place of ours is the user's.
pub(super) const UNFINISHED_TABLES: &str =
    "SELECT DISTINCT t.schema_name, t.table_name FROM millrace.target_table t JOIN millrace.run r USING (stream)
    JOIN pg_class c ON c.oid = t.table_oid AND c.relname = t.table_name
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schema_name
    WHERE r.config = $1 AND r.finished_at IS NULL AND t.is_created";

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
            transaction.batch_execute(CREATE_VERSION).await.map_err(classify)?;
            let version: Option<i32> =
                transaction.query_opt("SELECT version FROM millrace.ledger", &[]).await.map_err(classify)?.map(|row| row.get(0));
            if let Some(version) = version.filter(|version| *version > LEDGER_VERSION) {
                return Err(Error::new(
                    Kind::TargetConflict,
                    format!("the target's ledger has version {version}; this program knows {LEDGER_VERSION}"),
                ));
            }
            // What fleets need was added to version 2: whoever knows that version can still work beside it.
            let sql = "SELECT to_regclass('millrace.worker') IS NOT NULL";
            let has_workers: bool = transaction.query_one(sql, &[]).await.map_err(classify)?.get(0);
            if version != Some(LEDGER_VERSION) || !has_workers {
                transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_PATIENCE}'")).await.map_err(classify)?;
                transaction.batch_execute(CREATE).await.map_err(classify)?;
            }
            let epoch = take_place(&transaction, key).await?;
            transaction.commit().await.map_err(classify)?;
            Ok(epoch)
        }
        .boxed()
    }

    fn unfinished_run<'a>(&'a self, config: &'a ConfigId) -> BoxFuture<'a, Result<Option<StreamId>>> {
        async move {
            let sql = "SELECT stream, finished_at IS NULL FROM millrace.run WHERE config = $1 ORDER BY claimed_at DESC LIMIT 1";
            let row = match self.session.client().await?.query_opt(sql, &[&config.as_str()]).await {
                Ok(row) => row,
                Err(error) if is_missing_table(&error) => None,
                Err(error) => return Err(classify(error)),
            };
            let Some(row) = row.filter(|row| row.get(1)) else { return Ok(None) };
            let id: String = row.get(0);
            id.parse().map(Some).map_err(|error| Error::internal("the target's ledger names a malformed stream").because(error))
        }
        .boxed()
    }

    fn unfinished_tables<'a>(&'a self, config: &'a ConfigId) -> BoxFuture<'a, Result<Vec<TableName>>> {
        async move {
            match self.session.client().await?.query(UNFINISHED_TABLES, &[&config.as_str()]).await {
                Ok(rows) => Ok(rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect()),
                Err(error) if is_missing_table(&error) => Ok(Vec::new()),
                Err(error) => Err(classify(error)),
            }
        }
        .boxed()
    }

    fn is_finished<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<bool>> {
        async move {
            let sql = "SELECT EXISTS (SELECT FROM millrace.run WHERE stream = $1 AND finished_at IS NOT NULL)";
            let row = self.session.client().await?.query_one(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
            Ok(row.get(0))
        }
        .boxed()
    }

    fn tables<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Vec<TableRecord>>> {
        async move {
            let client = self.session.client().await?;
            let sql = "SELECT schema_name, table_name, is_created, fingerprint, keys_at IS NOT NULL FROM millrace.target_table
                WHERE stream = $1 ORDER BY 1, 2";
            let rows = match client.query(sql, &[&key.stream.as_str()]).await {
                Ok(rows) => rows,
                Err(error) if is_missing_table(&error) => return Ok(Vec::new()),
                Err(error) => return Err(classify(error)),
            };
            let mut records: Vec<TableRecord> = rows
                .iter()
                .map(|row| TableRecord {
                    target: TableName { schema: row.get(0), name: row.get(1) },
                    is_created: row.get(2),
                    fingerprint: row.get(3),
                    is_finished: row.get(4),
                    splits: Vec::new(),
                })
                .collect();
            let sql = "SELECT schema_name, table_name, ordinal, range, CASE WHEN committed_at IS NOT NULL THEN row_count END, epoch, losses
                FROM millrace.split WHERE stream = $1 ORDER BY 1, 2, 3";
            for row in client.query(sql, &[&key.stream.as_str()]).await.map_err(classify)? {
                let target = TableName { schema: row.get(0), name: row.get(1) };
                let Some(record) = records.iter_mut().find(|record| record.target == target) else { continue };
                let range = serde_json::from_str(row.get(3))
                    .map_err(|error| Error::internal("the target's ledger holds a split that cannot be read").because(error))?;
                let split = Split { table: 0, ordinal: row.get::<_, i32>(2) as u32, range, estimated_rows: 0 };
                let losses = row.get::<_, Option<String>>(6).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                let committed =
                    row.get::<_, Option<i64>>(4).map(|rows| CommittedSplit { rows: rows as u64, cut: CutNumber(row.get(5)), losses });
                record.splits.push((split, committed));
            }
            Ok(records)
        }
        .boxed()
    }

    fn record_splits<'a>(
        &'a self,
        key: &'a LedgerKey,
        epoch: Epoch,
        target: &'a TableName,
        splits: &'a [Split],
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let ordinals: Vec<i32> = splits.iter().map(|split| split.ordinal as i32).collect();
            let ranges: Vec<String> = splits
                .iter()
                .map(|split| serde_json::to_string(&split.range))
                .collect::<std::result::Result<_, _>>()
                .map_err(|error| Error::internal("a split has no text form").because(error))?;
            let sql = "INSERT INTO millrace.split (stream, schema_name, table_name, ordinal, range)
                SELECT $1, $2, $3, * FROM unnest($4::int4[], $5::text[])";
            let mut client = self.session.client().await?;
            let transaction = client.transaction().await.map_err(classify)?;
            check_lead(&transaction, key, epoch).await?;
            transaction.execute(sql, &[&key.stream.as_str(), &target.schema, &target.name, &ordinals, &ranges]).await.map_err(classify)?;
            transaction.commit().await.map_err(classify)
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
            check_lead(&transaction, key, epoch).await?;
            transaction
                .execute("UPDATE millrace.run SET finished_at = now() WHERE stream = $1", &[&key.stream.as_str()])
                .await
                .map_err(classify)?;
            transaction.commit().await.map_err(classify)
        }
        .boxed()
    }
}

/// Who holds the lead has not been replaced: a worker with the lead's epoch is there.
pub(super) const HAS_LEADER: &str = "EXISTS (SELECT FROM millrace.worker w WHERE w.stream = r.stream AND w.epoch = r.lead)";

/// A place in the run with a new epoch, and the lead if nobody has it.
async fn take_place(transaction: &Transaction<'_>, key: &LedgerKey) -> Result<Epoch> {
    let (stream, worker, attempt) = (key.stream.as_str(), key.worker as i32, key.attempt as i32);
    let sql = "INSERT INTO millrace.run (stream, config, epoch, attempt) VALUES ($1, $2, 1, $3)
        ON CONFLICT (stream) DO UPDATE SET epoch = run.epoch + 1, claimed_at = now(), attempt = greatest(run.attempt, $3)
        RETURNING epoch, attempt";
    let row = transaction.query_one(sql, &[&stream, &key.config.as_str(), &attempt]).await.map_err(classify)?;
    if row.get::<_, i32>(1) > attempt {
        return Err(Error::new(Kind::Fenced, "a later attempt has taken this run over"));
    }
    let epoch: i64 = row.get(0);
    // Waits for commits under way, whose workers are then over.
    transaction
        .execute("DELETE FROM millrace.worker WHERE stream = $1 AND (attempt < $2 OR worker = $3)", &[&stream, &attempt, &worker])
        .await
        .map_err(classify)?;
    let sql = "INSERT INTO millrace.worker (stream, worker, epoch, attempt) VALUES ($1, $2, $3, $4)";
    transaction.execute(sql, &[&stream, &worker, &epoch, &attempt]).await.map_err(classify)?;
    let sql = format!(
        "UPDATE millrace.run r SET lead = $2, led_until = clock_timestamp() + make_interval(secs => {LEASE_SECONDS})
        WHERE stream = $1 AND NOT {HAS_LEADER}"
    );
    transaction.execute(&sql, &[&stream, &epoch]).await.map_err(classify)?;
    Ok(Epoch(epoch))
}

/// Fails if a newer worker has claimed the same place in the run; until the transaction ends, none can.
pub(super) async fn check_epoch(transaction: &Transaction<'_>, key: &LedgerKey, epoch: Epoch) -> Result<()> {
    let row = transaction.query_opt(CHECK_EPOCH, &[&key.stream.as_str(), &(key.worker as i32)]).await.map_err(classify)?;
    fence(row.map(|row| row.get(0)), epoch)
}

/// The epoch of a worker, held until the transaction ends.
pub(super) const CHECK_EPOCH: &str = "SELECT epoch FROM millrace.worker WHERE stream = $1 AND worker = $2 FOR SHARE";

/// As [`check_lead`], as far as it can be seen without holding anybody up.
pub(super) async fn look_lead(transaction: &Transaction<'_>, key: &LedgerKey, epoch: Epoch) -> Result<()> {
    let sql =
        "SELECT r.lead FROM millrace.run r JOIN millrace.worker w USING (stream) WHERE stream = $1 AND worker = $2 AND w.epoch = r.lead";
    let row = transaction.query_opt(sql, &[&key.stream.as_str(), &(key.worker as i32)]).await.map_err(classify)?;
    fence(row.and_then(|row| row.get(0)), epoch)
}

/// Fails if another worker leads the run, or a newer one has claimed this one's place; until the transaction ends, none can.
pub(super) async fn check_lead(transaction: &Transaction<'_>, key: &LedgerKey, epoch: Epoch) -> Result<()> {
    check_epoch(transaction, key, epoch).await?;
    let sql = "SELECT lead FROM millrace.run WHERE stream = $1 FOR SHARE";
    let row = transaction.query_opt(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
    fence(row.and_then(|row| row.get(0)), epoch)
}

/// Compares the epoch that the target has with ours.
pub(super) fn fence(found: Option<i64>, epoch: Epoch) -> Result<()> {
    match found {
        Some(found) if found == epoch.0 => Ok(()),
        _ => Err(Error::new(Kind::Fenced, "a newer worker has taken this run over")),
    }
}
