//! A database at a glance, in a handful of questions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use millrace_core::overview::{
    Activity, BinlogHealth, ConnectionCount, DatabaseOverview, EXACT_COUNT_LIMIT, Health, LongRunning, Note, ObjectCounts, TableRows,
    TableSize,
};
use millrace_core::{Error, Kind, Result};

use super::super::wire::{TextRow, Wire};
use super::{qualified, text_literal};

/// Tables that are counted exactly, at most.
const MAX_COUNTED: usize = 300;
/// A statement that has run for so long is shown, seconds.
const LONG_RUNNING: u64 = 60;
/// Statements that are shown, at most.
const MAX_RUNNING: usize = 10;
/// The most characters of a statement that are shown.
const MAX_TEXT: usize = 500;

pub(super) async fn overview(wire: &mut Wire, database: &str) -> Result<DatabaseOverview> {
    let schema = text_literal(database);
    let sql = format!("SELECT * FROM information_schema.schemata WHERE schema_name = {schema}");
    let schemata = wire.query_text(&sql).await?;
    let Some(own) = schemata.iter().find(|row| row.get("SCHEMA_NAME") == Some(database)) else {
        return Err(Error::new(Kind::ObjectMissing, format!("the database `{database}` does not exist or is not visible to this user")));
    };
    let sql = format!("SELECT * FROM information_schema.tables WHERE table_schema = {schema} ORDER BY table_name");
    let mut objects = wire.query_text(&sql).await?;
    objects.retain(|row| row.get("TABLE_SCHEMA") == Some(database));
    let (tables, views): (Vec<_>, Vec<_>) =
        objects.iter().filter(|row| row.get("TABLE_TYPE") != Some("SEQUENCE")).partition(|row| !row.text("TABLE_TYPE").contains("VIEW"));
    let sql = format!("SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = {schema} AND routine_type = 'FUNCTION'");
    let functions = wire.query_text(&sql).await?.first().and_then(|row| row.at(0)?.parse().ok());
    let exact = exact_rows(wire, database, &tables).await?;
    let mut by_size: Vec<TableSize> = tables.iter().map(|row| TableSize { name: row.text("TABLE_NAME"), size_bytes: size(row) }).collect();
    by_size.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.name.cmp(&b.name)));
    let mut by_rows: Vec<TableRows> = tables
        .iter()
        .map(|row| {
            let name = row.text("TABLE_NAME");
            TableRows { approx_rows: number(row, "TABLE_ROWS"), exact_rows: exact.get(&name).copied(), name }
        })
        .collect();
    by_rows.sort_by_key(|row| std::cmp::Reverse(row.exact_rows.unwrap_or(row.approx_rows)));
    let variables = variables(wire).await?;
    let binlog = binlog(&variables);
    let notes = notes(&binlog, &tables, &without_key(wire, &schema).await?);
    Ok(DatabaseOverview {
        engine: "mysql".to_owned(),
        version: wire.version().to_owned(),
        encoding: own.get("DEFAULT_CHARACTER_SET_NAME").map(str::to_owned),
        collation: own.get("DEFAULT_COLLATION_NAME").map(str::to_owned),
        counts: ObjectCounts { schemas: None, tables: tables.len() as u64, views: views.len() as u64, functions },
        size_bytes: tables.iter().map(|row| size(row)).sum(),
        all_tables_by_size: by_size,
        all_tables_by_rows: by_rows,
        activity: activity(wire, &variables).await?,
        health: Health { wal: None, binlog: Some(binlog) },
        notes,
    })
}

fn number(row: &TextRow, column: &str) -> u64 {
    row.get(column).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn size(row: &TextRow) -> u64 {
    number(row, "DATA_LENGTH") + number(row, "INDEX_LENGTH")
}

/// Counts small tables, all in one statement. A table that goes meanwhile leaves the estimates.
async fn exact_rows(wire: &mut Wire, database: &str, tables: &[&TextRow]) -> Result<BTreeMap<String, u64>> {
    let small: Vec<String> = tables
        .iter()
        .filter(|row| number(row, "TABLE_ROWS") <= EXACT_COUNT_LIMIT && row.get("ENGINE").is_some())
        .map(|row| row.text("TABLE_NAME"))
        .take(MAX_COUNTED)
        .collect();
    if small.is_empty() {
        return Ok(BTreeMap::new());
    }
    let one = |(index, name): (usize, &String)| format!("SELECT {index}, COUNT(*) FROM {}", qualified(database, name));
    let parts: Vec<String> = small.iter().enumerate().map(one).collect();
    let rows = match wire.query_text(&parts.join(" UNION ALL ")).await {
        Err(error) if matches!(error.kind(), Kind::ObjectMissing | Kind::PermissionDenied | Kind::StatementRefused) => Vec::new(),
        other => other?,
    };
    Ok(rows
        .iter()
        .filter_map(|row| {
            let index: usize = row.at(0)?.parse().ok()?;
            Some((small.get(index)?.clone(), row.at(1)?.parse().ok()?))
        })
        .collect())
}

async fn variables(wire: &mut Wire) -> Result<BTreeMap<String, String>> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', 'gtid_mode', 'gtid_strict_mode', \
               'server_id', 'max_connections')";
    let rows = wire.query_text(sql).await?;
    Ok(rows.iter().map(|row| (row.text("Variable_name"), row.text("Value"))).collect())
}

fn binlog(variables: &BTreeMap<String, String>) -> BinlogHealth {
    let text = |name: &str| variables.get(name).cloned();
    BinlogHealth {
        enabled: text("log_bin").is_some_and(|value| matches!(value.as_str(), "ON" | "1")),
        format: text("binlog_format"),
        row_image: text("binlog_row_image"),
        gtid_mode: text("gtid_mode").or_else(|| text("gtid_strict_mode")),
        server_id: text("server_id").and_then(|value| value.parse().ok()),
    }
}

async fn activity(wire: &mut Wire, variables: &BTreeMap<String, String>) -> Result<Activity> {
    let own = wire.thread_id().to_string();
    let rows = wire.query_text("SELECT * FROM information_schema.processlist").await?;
    let connected = wire.query_text("SHOW GLOBAL STATUS LIKE 'Threads_connected'").await?;
    let used = connected.first().map(|row| number(row, "Value")).unwrap_or(rows.len() as u64);
    let active: Vec<&TextRow> = rows
        .iter()
        .filter(|row| !matches!(row.text("COMMAND").as_str(), "Sleep" | "Daemon" | "Binlog Dump") && row.get("ID") != Some(&own))
        .collect();
    let mut long: Vec<&&TextRow> = active.iter().filter(|row| number(row, "TIME") >= LONG_RUNNING && row.get("INFO").is_some()).collect();
    long.sort_by_key(|row| std::cmp::Reverse(number(row, "TIME")));
    let long_running = long
        .into_iter()
        .take(MAX_RUNNING)
        .map(|row| LongRunning {
            pid: None,
            thread_id: row.get("ID").and_then(|text| text.parse().ok()),
            user: row.text("USER"),
            query: row.text("INFO").chars().take(MAX_TEXT).collect(),
            duration: duration(number(row, "TIME")),
        })
        .collect();
    Ok(Activity {
        connections: ConnectionCount { used, max: variables.get("max_connections").and_then(|value| value.parse().ok()) },
        active_sessions: active.len() as u64,
        long_running,
    })
}

/// `1h 2m 3s`
fn duration(seconds: u64) -> String {
    let mut text = String::new();
    if seconds >= 3600 {
        let _ = write!(text, "{}h ", seconds / 3600);
    }
    if seconds >= 60 {
        let _ = write!(text, "{}m ", seconds / 60 % 60);
    }
    let _ = write!(text, "{}s", seconds % 60);
    text
}

/// Tables without a primary key.
async fn without_key(wire: &mut Wire, schema: &str) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT t.table_name FROM information_schema.tables t LEFT JOIN information_schema.table_constraints c ON c.table_schema = t.table_schema
            AND c.table_name = t.table_name AND c.constraint_type = 'PRIMARY KEY'
         WHERE t.table_schema = {schema} AND t.table_type = 'BASE TABLE' AND c.constraint_name IS NULL ORDER BY 1"
    );
    Ok(wire.query_text(&sql).await?.iter().filter_map(|row| row.at(0)).map(str::to_owned).collect())
}

fn notes(binlog: &BinlogHealth, tables: &[&TextRow], without_key: &[String]) -> Vec<Note> {
    let mut notes = Vec::new();
    let mut note = |severity: &str, message: String| notes.push(Note { severity: severity.to_owned(), message, doc: None });
    if !binlog.enabled {
        note("warn", "the binary log is off: changes cannot be captured; set `log_bin` and start the server again".to_owned());
    } else {
        if binlog.format.as_deref().is_some_and(|format| format != "ROW") {
            note("warn", "changes are logged as statements: set `binlog_format` to ROW to capture them".to_owned());
        }
        if binlog.row_image.as_deref().is_some_and(|image| image != "FULL") {
            note("warn", "rows are logged in part: set `binlog_row_image` to FULL to capture changes".to_owned());
        }
    }
    let listed = |names: &[String]| {
        let shown: Vec<String> = names.iter().take(5).map(|name| format!("`{name}`")).collect();
        let more = names.len().saturating_sub(shown.len());
        if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
    };
    if !without_key.is_empty() {
        note("info", format!("without a primary key, rows cannot be told apart: {}", listed(without_key)));
    }
    let plain: Vec<String> = tables
        .iter()
        .filter(|row| matches!(row.get("ENGINE"), Some("MyISAM" | "Aria" | "MEMORY")))
        .map(|row| row.text("TABLE_NAME"))
        .collect();
    if !plain.is_empty() {
        note("info", format!("engines without transactions have no snapshots; a copy may see changes half: {}", listed(&plain)));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_written_for_people() {
        assert_eq!(duration(3), "3s");
        assert_eq!(duration(63), "1m 3s");
        assert_eq!(duration(3723), "1h 2m 3s");
    }
}
