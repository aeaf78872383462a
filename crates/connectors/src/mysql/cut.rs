//! One consistent moment of a server, seen by several connections.
//!
//! `START TRANSACTION WITH CONSISTENT SNAPSHOT` opens a read view at its own moment. Two of them are the same moment if no transaction
//! committed between them. MariaDB tells: each snapshot knows the binlog position at which it was opened (`binlog_snapshot_file`,
//! `binlog_snapshot_position`; MariaDB Knowledge Base, "Enhancements for START TRANSACTION WITH CONSISTENT SNAPSHOT"), so:
//!
//! 1. open all snapshots, compare their positions, and open those again that lag behind the newest, up to [`TRIES`] times;
//! 2. without positions, or when writers are too busy to let them agree: open them under one brief `FLUSH TABLES WITH READ LOCK`;
//! 3. without the privilege for that: one snapshot alone, which needs no agreement.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::connection::Connection;
use millrace_core::connector::{Cut, CutMethod, SharedCut, SourceReader};
use millrace_core::position::Position;
use millrace_core::{Error, Kind, Result};

use super::reader::MySqlReader;
use super::wire::Wire;

/// How often lagging snapshots are opened again before the global lock is tried.
const TRIES: usize = 20;

/// How long the global lock may wait for running statements, and all others behind it, before it is given up.
const LOCK_WAIT_SECONDS: u32 = 5;

/// How long the global lock outlives a process that has vanished.
const LOCK_LEFT_SECONDS: u32 = 15;

/// How long the server keeps a connection that waits for a paused or slow target.
const HOLD_SECONDS: u32 = 86_400;

type Place = Option<(String, u64)>;

/// Opens the cut.
pub(super) async fn open(connection: &Connection, database: &str, control: &mut Wire, lanes: usize) -> Result<Cut> {
    let mut wires = connections(connection, database, lanes).await?;
    let server = server_identity(control).await?;
    let (method, place) = if wires.len() == 1 {
        (CutMethod::SingleSnapshot, snapshot(&mut wires[0]).await?)
    } else if let Some(place) = agree(&mut wires).await? {
        (CutMethod::SamePosition, Some(place))
    } else {
        match under_lock(control, &mut wires).await {
            Ok(place) => (CutMethod::GlobalLock, place),
            Err(error) if matches!(error.kind(), Kind::PermissionDenied | Kind::Contention | Kind::TimedOut) => {
                tracing::info!(error = %error, "no global read lock; reading with one connection");
                wires.truncate(1);
                (CutMethod::SingleSnapshot, snapshot(&mut wires[0]).await?)
            }
            Err(error) => return Err(error),
        }
    };
    Ok(Cut {
        position: place.map(|(file, offset)| Position::Binlog { server, file, offset }),
        method,
        readers: readers(wires, connection, database),
    })
}

/// One process's snapshots of a moment that several processes read.
pub(super) struct SharedSnapshots {
    connection: Connection,
    database: String,
    server: String,
    wires: Vec<Wire>,
}

/// Connections for snapshots that others will have to agree with.
pub(super) async fn share(connection: &Connection, database: &str, control: &mut Wire, lanes: usize) -> Result<SharedSnapshots> {
    let wires = connections(connection, database, lanes).await?;
    let server = server_identity(control).await?;
    Ok(SharedSnapshots { connection: connection.clone(), database: database.to_owned(), server, wires })
}

impl SharedCut for SharedSnapshots {
    fn snapshot(&mut self) -> BoxFuture<'_, Result<Option<Position>>> {
        async move {
            let place = agree(&mut self.wires).await?;
            Ok(place.map(|(file, offset)| Position::Binlog { server: self.server.clone(), file, offset }))
        }
        .boxed()
    }

    fn into_readers(self: Box<Self>) -> Vec<Box<dyn SourceReader>> {
        let Self { connection, database, wires, .. } = *self;
        readers(wires, &connection, &database)
    }
}

fn readers(wires: Vec<Wire>, connection: &Connection, database: &str) -> Vec<Box<dyn SourceReader>> {
    let reader = |wire| Box::new(MySqlReader::new(wire, connection.clone(), database.to_owned())) as Box<dyn SourceReader>;
    wires.into_iter().map(reader).collect()
}

async fn connections(connection: &Connection, database: &str, lanes: usize) -> Result<Vec<Wire>> {
    let mut wires = Vec::with_capacity(lanes.max(1));
    for _ in 0..lanes.max(1) {
        match reader_connection(connection, database).await {
            Ok(wire) => wires.push(wire),
            // A server that is short of connections still serves fewer lanes.
            Err(error) if error.kind() == Kind::ServerExhausted && !wires.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(wires)
}

async fn reader_connection(connection: &Connection, database: &str) -> Result<Wire> {
    let mut wire = Wire::connect(connection, Some(database)).await?;
    wire.execute_text(&format!(
        "SET SESSION net_write_timeout = {HOLD_SECONDS}, net_read_timeout = {HOLD_SECONDS}, wait_timeout = {HOLD_SECONDS}"
    ))
    .await?;
    // A server-wide limit on statements would cut long reads. Each server knows only one of the two names.
    let unlimited = if wire.is_mariadb() { "max_statement_time" } else { "max_execution_time" };
    if let Err(error) = wire.execute_text(&format!("SET SESSION {unlimited} = 0")).await
        && error.detail("errno") != Some("1193")
    {
        return Err(error);
    }
    wire.execute_text("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    Ok(wire)
}

/// Opens (again) one connection's snapshot and asks for its place in the binlog.
async fn snapshot(wire: &mut Wire) -> Result<Place> {
    wire.execute_text("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    let rows = wire.query_text("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let value = |name: &str| {
        let row = rows.iter().find(|row| row.at(0).is_some_and(|n| n.eq_ignore_ascii_case(name)))?;
        row.at(1).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let file = value("Binlog_snapshot_file");
    let offset = value("Binlog_snapshot_position").and_then(|offset| offset.parse().ok());
    Ok(file.zip(offset))
}

/// Opens all snapshots until they agree; none if the server tells no places or they never agree.
async fn agree(wires: &mut [Wire]) -> Result<Place> {
    let mut opened = Vec::with_capacity(wires.len());
    for wire in wires.iter_mut() {
        opened.push(snapshot(wire).await?);
    }
    // Only now: under a lock, snapshots without a place are of one moment too, and all of them must be open.
    let Some(mut places) = opened.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    for _ in 0..TRIES {
        let Some(newest) = places.iter().max_by_key(|(file, offset)| (log_number(file), *offset)).cloned() else { return Ok(None) };
        if places.iter().all(|place| *place == newest) {
            return Ok(Some(newest));
        }
        for (wire, place) in wires.iter_mut().zip(&mut places) {
            if *place != newest {
                *place = snapshot(wire).await?.unwrap_or_default();
            }
        }
    }
    Ok(None)
}

/// Opens all snapshots while nobody can commit. The lock is let go even if a snapshot fails.
async fn under_lock(control: &mut Wire, wires: &mut [Wire]) -> Result<Place> {
    hold(control).await?;
    let opened = tokio::time::timeout(Duration::from_secs(u64::from(LOCK_WAIT_SECONDS)), async {
        let mut place = None;
        for wire in wires.iter_mut() {
            place = snapshot(wire).await?;
        }
        if place.is_none() {
            place = master_status(control).await;
        }
        Ok::<Place, Error>(place)
    })
    .await;
    release(control).await?;
    opened.unwrap_or_else(|_| Err(Error::new(Kind::TimedOut, "the snapshots could not be opened while the tables were locked")))
}

/// Takes the global read lock.
pub(super) async fn hold(control: &mut Wire) -> Result<()> {
    // Should this process vanish without a word, the server lets everybody commit again soon.
    let limits = format!("SET SESSION lock_wait_timeout = {LOCK_WAIT_SECONDS}, wait_timeout = {LOCK_LEFT_SECONDS}");
    control.execute_text(&limits).await?;
    control.execute_text("FLUSH TABLES WITH READ LOCK").await.map(|_| ())
}

/// Gives it back.
pub(super) async fn release(control: &mut Wire) -> Result<()> {
    control.execute_text("UNLOCK TABLES").await.map(|_| ())
}

/// The current end of the binlog; none without binlog or privilege.
async fn master_status(control: &mut Wire) -> Place {
    let mut rows = control.query_text("SHOW MASTER STATUS").await;
    if rows.is_err() {
        rows = control.query_text("SHOW BINARY LOG STATUS").await; // the name since MySQL 8.4
    }
    let row = rows.ok()?.into_iter().next()?;
    Some((row.get("File")?.to_owned(), row.get("Position")?.parse().ok()?))
}

/// What tells this server's log from every other one: `server_uuid` (MySQL), `server_uid` (MariaDB 10.11), else the server's number and host.
async fn server_identity(control: &mut Wire) -> Result<String> {
    for variable in ["server_uuid", "server_uid"] {
        match control.query_text(&format!("SELECT @@GLOBAL.{variable}")).await {
            Ok(rows) => {
                if let Some(value) = rows.first().and_then(|row| row.at(0)).filter(|value| !value.is_empty()) {
                    return Ok(value.replace('/', "_"));
                }
            }
            Err(error) if error.detail("errno") == Some("1193") => {}
            Err(error) => return Err(error),
        }
    }
    let rows = control.query_text("SELECT CONCAT(@@GLOBAL.server_id, '@', @@hostname)").await?;
    Ok(rows.first().map(|row| row.text("CONCAT(@@GLOBAL.server_id, '@', @@hostname)").replace('/', "_")).unwrap_or_default())
}

fn log_number(file: &str) -> u64 {
    file.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}
