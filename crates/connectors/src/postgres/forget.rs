//! After a definition is deleted: its entries in the ledger go, and what its abandoned runs have left half made.
//!
//! A table is dropped only if all of this holds: an abandoned run has created it (by identity, not by name), that run never finished, no other run has recorded the
//! same table, it holds exactly the rows that the run has committed, and nothing else depends on it. Whatever fails one of these stays and is named.

use millrace_core::catalog::TableName;
use millrace_core::connection::Connection;
use millrace_core::connector::{Forgotten, Scope};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::ledger::LEDGER_VERSION;
use millrace_core::{Error, Kind, Result};
use tokio_postgres::Transaction;

use super::error::{classify, is_missing_table};
use super::names::qualified;
use super::session::{self, MAINTENANCE_DATABASE};
use super::sink::{LOCK_PATIENCE, drop_tables};

/// Tables that these runs have created and not finished, with the rows that they have committed, and whether a run beside them knows the same table.
const LEFT: &str = "SELECT t.schema_name, t.table_name,
        coalesce((SELECT sum(s.row_count) FROM millrace.split s WHERE s.stream = t.stream AND s.schema_name = t.schema_name
            AND s.table_name = t.table_name AND s.committed_at IS NOT NULL), 0)::bigint,
        EXISTS (SELECT FROM millrace.target_table o WHERE o.table_oid = t.table_oid AND o.stream <> t.stream)
    FROM millrace.target_table t JOIN millrace.run r USING (stream)
    JOIN pg_class c ON c.oid = t.table_oid AND c.relname = t.table_name
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schema_name
    WHERE r.config = $1 AND r.stream = ANY($2) AND r.finished_at IS NULL AND t.is_created ORDER BY 1, 2";

pub(super) async fn forget(connection: &Connection, scope: &Scope, config: &ConfigId, abandoned: &[StreamId]) -> Result<Forgotten> {
    let spec = session::spec(connection)?;
    let database = scope.database.as_deref().or(spec.database.as_deref()).unwrap_or(MAINTENANCE_DATABASE);
    let mut client = match session::connect(connection, database).await {
        Err(error) if error.detail("sqlstate") == Some("3D000") => return Ok(Forgotten::default()),
        other => other?,
    };
    let version: i32 = match client.query_opt("SELECT version FROM millrace.ledger", &[]).await {
        Ok(row) => row.map_or(LEDGER_VERSION, |row| row.get(0)),
        Err(error) if is_missing_table(&error) => return Ok(Forgotten::default()),
        Err(error) => return Err(classify(error)),
    };
    if version > LEDGER_VERSION {
        let text = format!("the target's ledger has version {version}; this program knows {LEDGER_VERSION}");
        return Err(Error::new(Kind::TargetConflict, text));
    }
    let transaction = client.transaction().await.map_err(classify)?;
    transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_PATIENCE}'")).await.map_err(classify)?;
    // Whoever still writes for this config finds its run gone with its next commit, and is fenced.
    let runs =
        transaction.query("SELECT stream FROM millrace.run WHERE config = $1 FOR UPDATE", &[&config.as_str()]).await.map_err(classify)?;
    let mut forgotten = Forgotten { runs: runs.len() as u64, ..Forgotten::default() };
    // A ledger of an older version does not say who created a table.
    if version == LEDGER_VERSION {
        let candidates = left_behind(&transaction, config, abandoned, &mut forgotten).await?;
        drop_careful(&transaction, candidates, &mut forgotten).await?;
    }
    transaction.execute("DELETE FROM millrace.run WHERE config = $1", &[&config.as_str()]).await.map_err(classify)?;
    transaction.commit().await.map_err(classify)?;
    Ok(forgotten)
}

/// Locks the abandoned runs' tables and answers those that hold nothing but what these runs have written.
async fn left_behind(
    transaction: &Transaction<'_>,
    config: &ConfigId,
    abandoned: &[StreamId],
    forgotten: &mut Forgotten,
) -> Result<Vec<TableName>> {
    let ids: Vec<&str> = abandoned.iter().map(StreamId::as_str).collect();
    let mut candidates = Vec::new();
    for row in transaction.query(LEFT, &[&config.as_str(), &ids]).await.map_err(classify)? {
        let table = TableName { schema: row.get(0), name: row.get(1) };
        let (written, is_shared): (i64, bool) = (row.get(2), row.get(3));
        if is_shared {
            forgotten.kept.push((table, "another run has used it".to_owned()));
            continue;
        }
        let name = qualified(&table.schema, &table.name);
        transaction.batch_execute(&format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE")).await.map_err(classify)?;
        let found: i64 = transaction.query_one(&format!("SELECT count(*) FROM {name}"), &[]).await.map_err(classify)?.get(0);
        if found == written {
            candidates.push(table);
        } else {
            forgotten.kept.push((table, format!("it holds {found} rows, of which the run wrote {written}")));
        }
    }
    Ok(candidates)
}

/// Drops tables together, so that foreign keys among them do not matter; if something else depends on one, each that can be dropped alone.
async fn drop_careful(transaction: &Transaction<'_>, candidates: Vec<TableName>, forgotten: &mut Forgotten) -> Result<()> {
    if try_drop(transaction, &candidates).await?.is_none() {
        forgotten.dropped.extend(candidates);
        return Ok(());
    }
    for table in candidates {
        match try_drop(transaction, std::slice::from_ref(&table)).await? {
            None => forgotten.dropped.push(table),
            Some(refusal) => forgotten.kept.push((table, refusal.message().to_owned())),
        }
    }
    Ok(())
}

/// Answers the refusal of a drop that something stands in the way of.
async fn try_drop(transaction: &Transaction<'_>, tables: &[TableName]) -> Result<Option<Error>> {
    transaction.batch_execute("SAVEPOINT tables").await.map_err(classify)?;
    let refusal = match drop_tables(transaction, tables).await {
        Ok(()) => None,
        Err(error) if matches!(error.kind(), Kind::TargetConflict | Kind::PermissionDenied) => {
            transaction.batch_execute("ROLLBACK TO SAVEPOINT tables").await.map_err(classify)?;
            Some(error)
        }
        Err(error) => return Err(error),
    };
    transaction.batch_execute("RELEASE SAVEPOINT tables").await.map_err(classify)?;
    Ok(refusal)
}
