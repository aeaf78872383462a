//! What a fleet agrees on, in the ledger's tables: `run` holds the lead, the moment and the plan, `worker` what each one says.
//!
//! The lead is a lease by the target's own clock: it ends when its holder has not beaten for [`LEASE_SECONDS`], or when another worker has taken the holder's
//! place. Beats have a session of their own, so that a long step of the leader does not keep it from beating.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::TableName;
use millrace_core::fleet::{FleetCut, FleetLedger, FleetView, Member, MemberReport, TableFailure, TableWork};
use millrace_core::ledger::{CutNumber, Epoch, LedgerKey};
use millrace_core::plan::Plan;
use millrace_core::split::Split;
use millrace_core::{Error, Kind, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;
use tokio_postgres::Row;

use super::error::classify;
use super::ledger::{HAS_LEADER, check_epoch, check_lead};
use super::session::ControlSession;

/// How long a lead counts that is not renewed.
pub(super) const LEASE_SECONDS: i32 = 8;
/// How long the target may take for a beat.
const BEAT_WITHIN: Duration = Duration::from_secs(4);
/// How long a worker counts as alive that is not heard of.
const ALIVE_SECONDS: i32 = 5;

/// The fleets of one target database.
pub(super) struct PgFleet {
    session: Arc<ControlSession>,
    beating: OnceCell<ControlSession>,
}

impl PgFleet {
    pub(super) fn new(session: Arc<ControlSession>) -> Self {
        Self { session, beating: OnceCell::new() }
    }

    async fn beating(&self) -> Result<&ControlSession> {
        self.beating.get_or_try_init(|| self.session.twin()).await
    }

    async fn beat_once(&self, key: &LedgerKey, epoch: Epoch, report: &MemberReport) -> Result<FleetView> {
        let stream = key.stream.as_str();
        let mut client = self.beating().await?.client().await?;
        let transaction = client.transaction().await.map_err(classify)?;
        let sql = "UPDATE millrace.worker SET seen_at = clock_timestamp(), report = $4 WHERE stream = $1 AND worker = $2 AND epoch = $3";
        let report = text(report)?;
        let found = transaction.execute(sql, &[&stream, &(key.worker as i32), &epoch.0, &report]).await.map_err(classify)?;
        if found == 0 {
            return Err(Error::new(Kind::Fenced, "a newer worker has taken this run over"));
        }
        let sql = format!(
            "UPDATE millrace.run r SET lead = $2, led_until = clock_timestamp() + make_interval(secs => {LEASE_SECONDS})
            WHERE stream = $1 AND (lead = $2 OR led_until < clock_timestamp() OR NOT {HAS_LEADER})"
        );
        transaction.execute(&sql, &[&stream, &epoch.0]).await.map_err(classify)?;
        let sql = "SELECT lead = $2, finished_at IS NOT NULL, cut FROM millrace.run WHERE stream = $1";
        let run = transaction.query_one(sql, &[&stream, &epoch.0]).await.map_err(classify)?;
        let sql = format!(
            "SELECT worker, epoch, seen_at > clock_timestamp() - make_interval(secs => {ALIVE_SECONDS}), report
            FROM millrace.worker WHERE stream = $1 ORDER BY worker"
        );
        let members = transaction.query(&sql, &[&stream]).await.map_err(classify)?;
        transaction.commit().await.map_err(classify)?;
        Ok(FleetView {
            is_leader: run.get::<_, Option<bool>>(0).unwrap_or(false),
            is_finished: run.get(1),
            cut: read(run.get(2))?,
            members: members.iter().map(member).collect::<Result<_>>()?,
        })
    }

    async fn work_of(&self, key: &LedgerKey) -> Result<Vec<TableWork>> {
        let sql = "SELECT t.schema_name, t.table_name, t.failure, t.keys_at IS NOT NULL, count(s.ordinal), count(s.committed_at),
                coalesce(sum(s.row_count) FILTER (WHERE s.committed_at IS NOT NULL), 0)::bigint,
                coalesce(sum(s.byte_count) FILTER (WHERE s.committed_at IS NOT NULL), 0)::bigint,
                array_agg(DISTINCT s.epoch) FILTER (WHERE s.committed_at IS NOT NULL),
                array_agg(s.losses) FILTER (WHERE s.losses IS NOT NULL)
            FROM millrace.target_table t LEFT JOIN millrace.split s USING (stream, schema_name, table_name)
            WHERE t.stream = $1 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2";
        let rows = self.session.client().await?.query(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
        rows.iter().map(table_work).collect()
    }
}

impl FleetLedger for PgFleet {
    fn beat<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, report: &'a MemberReport) -> BoxFuture<'a, Result<FleetView>> {
        async move {
            match tokio::time::timeout(BEAT_WITHIN, self.beat_once(key, epoch, report)).await {
                Ok(beaten) => beaten,
                Err(_) => {
                    // A connection that says nothing may be dead; a new one tells.
                    self.beating().await?.renew().await?;
                    Err(Error::new(Kind::TimedOut, "the target does not answer"))
                }
            }
        }
        .boxed()
    }

    fn next_cut<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch) -> BoxFuture<'a, Result<CutNumber>> {
        async move {
            let mut client = self.session.client().await?;
            let transaction = client.transaction().await.map_err(classify)?;
            check_lead(&transaction, key, epoch).await?;
            // From the same counter as epochs, so that neither is ever taken for the other.
            let sql = "UPDATE millrace.run SET epoch = epoch + 1 WHERE stream = $1 RETURNING epoch";
            let row = transaction.query_one(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
            transaction.commit().await.map_err(classify)?;
            Ok(CutNumber(row.get(0)))
        }
        .boxed()
    }

    fn set_cut<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, cut: &'a FleetCut, plan: Option<&'a Plan>) -> BoxFuture<'a, Result<()>> {
        async move {
            let (cut, plan) = (text(cut)?, plan.map(text).transpose()?);
            let mut client = self.session.client().await?;
            let transaction = client.transaction().await.map_err(classify)?;
            check_lead(&transaction, key, epoch).await?;
            let sql = "UPDATE millrace.run SET cut = $2, plan = coalesce($3, plan) WHERE stream = $1";
            transaction.execute(sql, &[&key.stream.as_str(), &cut, &plan]).await.map_err(classify)?;
            transaction.commit().await.map_err(classify)
        }
        .boxed()
    }

    fn plan<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Option<Plan>>> {
        async move {
            let sql = "SELECT plan FROM millrace.run WHERE stream = $1";
            let row = self.session.client().await?.query_opt(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
            read(row.and_then(|row| row.get(0)))
        }
        .boxed()
    }

    fn work<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Vec<TableWork>>> {
        self.work_of(key).boxed()
    }

    fn open_splits<'a>(&'a self, key: &'a LedgerKey) -> BoxFuture<'a, Result<Vec<(TableName, Split)>>> {
        async move {
            let sql = "SELECT s.schema_name, s.table_name, s.ordinal, s.range FROM millrace.split s
                JOIN millrace.target_table t USING (stream, schema_name, table_name)
                WHERE s.stream = $1 AND s.committed_at IS NULL AND t.failure IS NULL ORDER BY 1, 2, 3";
            let rows = self.session.client().await?.query(sql, &[&key.stream.as_str()]).await.map_err(classify)?;
            let split = |row: &Row| {
                let range = serde_json::from_str(row.get(3)).map_err(|error| unreadable().because(error))?;
                let target = TableName { schema: row.get(0), name: row.get(1) };
                Ok((target, Split { table: 0, ordinal: row.get::<_, i32>(2) as u32, range, estimated_rows: 0 }))
            };
            rows.iter().map(split).collect()
        }
        .boxed()
    }

    fn fail_table<'a>(
        &'a self,
        key: &'a LedgerKey,
        epoch: Epoch,
        cut: CutNumber,
        target: &'a TableName,
        failure: &'a TableFailure,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let failure = text(failure)?;
            let mut client = self.session.client().await?;
            let transaction = client.transaction().await.map_err(classify)?;
            check_epoch(&transaction, key, epoch).await?;
            let sql = "UPDATE millrace.target_table SET failure = $4
                WHERE stream = $1 AND schema_name = $2 AND table_name = $3 AND failure IS NULL AND keys_at IS NULL
                    AND (SELECT (cut::json ->> 'number')::bigint = $5 FROM millrace.run WHERE stream = $1)";
            let stream = key.stream.as_str();
            transaction.execute(sql, &[&stream, &target.schema, &target.name, &failure, &cut.0]).await.map_err(classify)?;
            transaction.commit().await.map_err(classify)
        }
        .boxed()
    }
}

fn member(row: &Row) -> Result<Member> {
    let report = read(row.get(3))?.unwrap_or_default();
    Ok(Member { worker: row.get::<_, i32>(0) as u32, epoch: Epoch(row.get(1)), is_alive: row.get(2), report })
}

fn table_work(row: &Row) -> Result<TableWork> {
    let mut losses: Vec<(String, u64)> = Vec::new();
    for entry in row.get::<_, Option<Vec<String>>>(9).unwrap_or_default() {
        for (column, count) in read::<Vec<(String, u64)>>(Some(entry))?.unwrap_or_default() {
            match losses.iter_mut().find(|(name, _)| *name == column) {
                Some((_, sum)) => *sum += count,
                None => losses.push((column, count)),
            }
        }
    }
    Ok(TableWork {
        target: TableName { schema: row.get(0), name: row.get(1) },
        failure: read::<TableFailure>(row.get(2))?,
        is_finished: row.get(3),
        splits: row.get::<_, i64>(4) as u64,
        committed: row.get::<_, i64>(5) as u64,
        rows: row.get::<_, i64>(6) as u64,
        bytes: row.get::<_, i64>(7) as u64,
        cuts: row.get::<_, Option<Vec<i64>>>(8).unwrap_or_default().into_iter().map(CutNumber).collect(),
        losses,
    })
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::internal("what a fleet agrees on has no text form").because(error))
}

fn read<T: DeserializeOwned>(text: Option<String>) -> Result<Option<T>> {
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| unreadable().because(error))
}

fn unreadable() -> Error {
    Error::internal("the target's ledger holds something that cannot be read")
}
