//! The database at a glance, in few statements: what there is, how large it is, who is connected, whether changes could be captured, and what to mind.

use millrace_core::Result;
use millrace_core::overview::{
    Activity, ConnectionCount, DatabaseOverview, EXACT_COUNT_LIMIT, Health, LongRunning, Note, ObjectCounts, ReplicationSlot, TableRows,
    TableSize, WalHealth,
};
use tokio_postgres::Row;

use super::super::error::classify;
use super::super::names::qualified;
use super::PgExplorer;

/// Somebody who changes a table holds locks that sizes and counts would wait for; a look does not wait long.
const BEGIN: &str = "BEGIN READ ONLY; SET LOCAL lock_timeout = '2s'; SET LOCAL statement_timeout = '8s'";

/// Counting shall not take longer than all the rest.
const PATIENCE: &str = "SAVEPOINT counts; SET LOCAL lock_timeout = '100ms'; SET LOCAL statement_timeout = '300ms'";

/// A table that is larger is not counted, whatever its estimate says: it may be out of date.
const EXACT_COUNT_BYTES: i64 = 2 << 20;

/// So many tables are counted.
const EXACT_COUNT_TABLES: usize = 200;

/// A slot that nobody reads and that keeps so much is worth a warning.
const RETAINED_WARNING: u64 = 1 << 30;

const FACTS: &str = "SELECT current_setting('server_version'), pg_encoding_to_char(b.encoding)::text, b.datcollate::text,
        CASE WHEN has_database_privilege(b.oid, 'CONNECT') THEN pg_database_size(b.oid) END, current_setting('wal_level'),
        current_setting('max_connections')::int8, current_setting('max_replication_slots')::int8, current_setting('max_wal_senders')::int8,
        (SELECT count(*) FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
        (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
            AND p.prokind IN ('f', 'w') AND NOT EXISTS (SELECT FROM pg_depend d
                WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
    FROM pg_database b WHERE b.datname = current_database()";

/// The numbers of a partitioned table are those of its partitions.
const TABLES: &str = "WITH RECURSIVE relation AS (
        SELECT c.oid, n.nspname, c.relname, c.relkind, c.reltuples, CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END AS bytes,
            (SELECT h.inhparent FROM pg_inherits h WHERE h.inhrelid = c.oid AND c.relispartition) AS parent,
            EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'),
    tree AS (SELECT oid AS root, oid FROM relation WHERE parent IS NULL UNION ALL SELECT tree.root, r.oid FROM tree JOIN relation r ON r.parent = tree.oid),
    total AS (SELECT t.root, sum(r.bytes)::int8 AS bytes, sum(CASE WHEN r.relkind = 'p' THEN 0 ELSE greatest(r.reltuples, 0) END)::float8 AS estimate
        FROM tree t JOIN relation r ON r.oid = t.oid GROUP BY t.root)
    SELECT r.nspname::text, r.relname::text, r.relkind::text, t.bytes, t.estimate, r.has_key, has_table_privilege(r.oid, 'SELECT')
        AND has_schema_privilege(r.nspname, 'USAGE')
    FROM total t JOIN relation r ON r.oid = t.root ORDER BY r.nspname, r.relname";

/// Others' statements are hidden from users without `pg_read_all_stats`; the rows are there all the same.
const ACTIVITY: &str =
    "SELECT a.pid::int8, coalesce(a.usename::text, ''), left(coalesce(a.query, ''), 500), a.backend_type = 'client backend',
        a.state = 'active' AND a.pid <> pg_backend_pid(), extract(epoch FROM clock_timestamp() - a.query_start)::float8
    FROM pg_stat_activity a ORDER BY a.query_start";

const SLOTS: &str = "SELECT slot_name::text, coalesce(plugin::text, ''), active, coalesce(restart_lsn::text, ''),
        greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::int8
    FROM pg_replication_slots ORDER BY slot_name";

struct Table {
    schema: String,
    name: String,
    kind: String,
    bytes: i64,
    estimate: f64,
    has_key: bool,
    is_readable: bool,
    exact: Option<u64>,
}

impl Table {
    fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "p" | "f")
    }
}

/// Looks at the database.
pub(super) async fn overview(explorer: &PgExplorer) -> Result<DatabaseOverview> {
    explorer.client.batch_execute(BEGIN).await.map_err(classify)?;
    let looked = look(explorer).await;
    explorer.roll_back().await;
    looked
}

async fn look(explorer: &PgExplorer) -> Result<DatabaseOverview> {
    let (facts, tables, activity, slots) =
        futures::try_join!(explorer.ask(FACTS, &[]), explorer.ask(TABLES, &[]), explorer.ask(ACTIVITY, &[]), explorer.ask(SLOTS, &[]))?;
    let Some(facts) = facts.first() else {
        return Err(millrace_core::Error::new(millrace_core::Kind::ObjectMissing, "the database is gone"));
    };
    let mut tables: Vec<Table> = tables.iter().map(table).collect();
    count_small(explorer, &mut tables).await;
    let max_connections: i64 = facts.get(5);
    let wal = wal(facts, &slots);
    let notes = notes(&tables, &wal);
    let counts = ObjectCounts {
        schemas: Some(number(facts, 8)),
        tables: tables.iter().filter(|table| table.is_table()).count() as u64,
        views: tables.iter().filter(|table| !table.is_table()).count() as u64,
        functions: Some(number(facts, 9)),
    };
    let mut by_size: Vec<TableSize> = tables
        .iter()
        .filter(|table| table.is_table())
        .map(|table| TableSize { name: table.full_name(), size_bytes: table.bytes.max(0).unsigned_abs() })
        .collect();
    by_size.sort_by_key(|table| std::cmp::Reverse(table.size_bytes));
    let mut by_rows: Vec<TableRows> = tables
        .iter()
        .filter(|table| table.is_table())
        .map(|table| TableRows { name: table.full_name(), approx_rows: table.estimate.max(0.0) as u64, exact_rows: table.exact })
        .collect();
    by_rows.sort_by_key(|table| std::cmp::Reverse(table.exact_rows.unwrap_or(table.approx_rows)));
    Ok(DatabaseOverview {
        engine: "postgres".to_owned(),
        version: facts.get(0),
        encoding: facts.get(1),
        collation: facts.get(2),
        counts,
        size_bytes: facts.get::<_, Option<i64>>(3).unwrap_or_default().max(0).unsigned_abs(),
        all_tables_by_size: by_size,
        all_tables_by_rows: by_rows,
        activity: activity_of(&activity, max_connections),
        health: Health { wal: Some(wal), binlog: None },
        notes,
    })
}

fn number(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).max(0).unsigned_abs()
}

fn table(row: &Row) -> Table {
    Table {
        schema: row.get(0),
        name: row.get(1),
        kind: row.get(2),
        bytes: row.get::<_, Option<i64>>(3).unwrap_or_default(),
        estimate: row.get::<_, Option<f64>>(4).unwrap_or_default(),
        has_key: row.get(5),
        is_readable: row.get(6),
        exact: None,
    }
}

/// Counts small tables in one statement; if that takes too long or is not allowed, there are only estimates.
async fn count_small(explorer: &PgExplorer, tables: &mut [Table]) {
    let small: Vec<usize> = (0..tables.len())
        .filter(|index| {
            let table = &tables[*index];
            matches!(table.kind.as_str(), "r" | "p")
                && table.is_readable
                && table.estimate <= EXACT_COUNT_LIMIT as f64
                && table.bytes <= EXACT_COUNT_BYTES
        })
        .take(EXACT_COUNT_TABLES)
        .collect();
    if small.is_empty() {
        return;
    }
    let each = |index: &usize| format!("SELECT {index}::int8, count(*) FROM {}", qualified(&tables[*index].schema, &tables[*index].name));
    let sql = small.iter().map(each).collect::<Vec<_>>().join(" UNION ALL ");
    let counted = async {
        explorer.client.batch_execute(PATIENCE).await.map_err(classify)?;
        explorer.ask(&sql, &[]).await
    };
    match counted.await {
        Ok(rows) => {
            for row in rows {
                let count = number(&row, 1);
                tables[number(&row, 0) as usize].exact = Some(count).filter(|count| *count <= EXACT_COUNT_LIMIT);
            }
        }
        Err(error) => tracing::debug!(error = %error, "small tables could not be counted"),
    }
}

fn activity_of(rows: &[Row], max_connections: i64) -> Activity {
    let is_active = |row: &&Row| row.get::<_, Option<bool>>(4).unwrap_or_default();
    let seconds = |row: &Row| row.get::<_, Option<f64>>(5).unwrap_or_default();
    // Where the server hides what a backend is, it hides that of others too; every row is a backend.
    let is_client = |row: &&Row| row.get::<_, Option<bool>>(3).unwrap_or(true);
    let long = rows.iter().filter(|row| is_active(row) && is_client(row) && seconds(row) >= 60.0).take(10);
    Activity {
        connections: ConnectionCount { used: rows.iter().filter(is_client).count() as u64, max: u64::try_from(max_connections).ok() },
        active_sessions: rows.iter().filter(|row| is_active(row) && is_client(row)).count() as u64,
        long_running: long
            .map(|row| LongRunning {
                pid: Some(row.get(0)),
                thread_id: None,
                user: row.get(1),
                query: row.get(2),
                duration: duration(seconds(row) as u64),
            })
            .collect(),
    }
}

/// `1h 2m 3s`
fn duration(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m {seconds}s"),
        _ => format!("{hours}h {minutes}m {seconds}s"),
    }
}

fn wal(facts: &Row, slots: &[Row]) -> WalHealth {
    let most = number(facts, 6);
    let slots: Vec<ReplicationSlot> = slots
        .iter()
        .map(|row| ReplicationSlot {
            name: row.get(0),
            plugin: row.get(1),
            active: row.get(2),
            restart_lsn: row.get(3),
            retained_bytes: row.get::<_, Option<i64>>(4).unwrap_or_default().max(0).unsigned_abs(),
        })
        .collect();
    WalHealth {
        level: facts.get(4),
        free_replication_slots: Some(most.saturating_sub(slots.len() as u64)),
        max_replication_slots: Some(most),
        max_wal_senders: Some(number(facts, 7)),
        slots,
    }
}

fn notes(tables: &[Table], wal: &WalHealth) -> Vec<Note> {
    let note = |severity: &str, message: String| Note { severity: severity.to_owned(), message, doc: None };
    let mut notes = Vec::new();
    if wal.level != "logical" {
        let text = format!("`wal_level` is `{}`: changes can be captured only with `logical`; set it and restart the server", wal.level);
        notes.push(note("warn", text));
    } else if wal.free_replication_slots == Some(0) {
        notes.push(note("warn", "no replication slot is free: drop one that nobody needs, or raise `max_replication_slots`".to_owned()));
    }
    for slot in wal.slots.iter().filter(|slot| !slot.active && slot.retained_bytes >= RETAINED_WARNING) {
        let text = format!(
            "nobody reads from the replication slot `{}`, which keeps {} MiB of log: read from it or drop it",
            slot.name,
            slot.retained_bytes >> 20
        );
        notes.push(note("warn", text));
    }
    let keyless: Vec<String> = tables
        .iter()
        .filter(|table| matches!(table.kind.as_str(), "r" | "p") && !table.has_key)
        .map(|table| format!("`{}`", table.full_name()))
        .collect();
    if let Some(first) = keyless.get(..keyless.len().min(5)).filter(|first| !first.is_empty()) {
        let more = if keyless.len() > first.len() { ", …" } else { "" };
        let (count, noun) = (keyless.len(), if keyless.len() == 1 { "table has" } else { "tables have" });
        let text = format!(
            "{count} {noun} no primary key: changes of its rows can be captured only with a replica identity ({}{more})",
            first.join(", ")
        );
        notes.push(note("info", text));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!([duration(59), duration(61), duration(3723)], ["59s", "1m 1s", "1h 2m 3s"]);
    }

    #[test]
    fn notes_name_what_is_the_matter() {
        let slot = ReplicationSlot { name: "old".into(), retained_bytes: 2 << 30, ..ReplicationSlot::default() };
        let wal = WalHealth { level: "replica".into(), slots: vec![slot], ..WalHealth::default() };
        let table = Table {
            schema: "public".into(),
            name: "log".into(),
            kind: "r".into(),
            bytes: 0,
            estimate: 0.0,
            has_key: false,
            is_readable: true,
            exact: None,
        };
        let told: Vec<String> = notes(&[table], &wal).into_iter().map(|note| note.message).collect();
        assert!(told[0].contains("`logical`") && told[1].contains("`old`") && told[2].contains("`public.log`"), "{told:?}");
        assert!(notes(&[], &WalHealth { level: "logical".into(), ..WalHealth::default() }).is_empty());
    }
}
