//! A session whose server a test plays: what MariaDB cannot be made to send.

use millrace_core::connection::{Connection, ConnectionSpec, DatabaseSpec, Engine};
use millrace_core::explore::Explorer as _;
use millrace_core::id::ConnectionId;
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Error, Kind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::super::wire::{Answered, Row};
use super::*;

/// MYSQL_TYPE_VECTOR
const VECTOR: u8 = 242;

fn explorer() -> (MySqlExplorer, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let spec = DatabaseSpec { host: "localhost".into(), port: 3306, username: "u".into(), password: None, database: None };
    let connection = Connection {
        id: ConnectionId::mint(),
        name: "played".into(),
        engine: Engine::MySql,
        created: 0,
        ssl: None,
        cloud_provider: None,
        spec: ConnectionSpec::Database(spec),
    };
    let session = MySqlSession(Wire::over(near));
    (MySqlExplorer { session, connection, database: None, statements: Vec::new(), is_clean: true }, far)
}

async fn send(far: &mut DuplexStream, payloads: &[&[u8]]) {
    for payload in payloads {
        far.write_all(&[payload.len() as u8, 0, 0, 0]).await.unwrap();
        far.write_all(payload).await.unwrap();
    }
}

/// A definition of a column `v` of binary data.
fn definition(kind: u8) -> Vec<u8> {
    let mut packet = b"\x03def\x00\x00\x00\x01v\x00\x0c".to_vec();
    packet.extend([63, 0, 12, 0, 0, 0, kind, 0x80, 0, 0, 0, 0]);
    packet
}

const EOF: [u8; 5] = [0xFE, 0, 0, 2, 0];
/// The statement has one column and no parameter.
const PREPARED: [u8; 12] = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
/// Its bytes 1 to 4.
const ROW: [u8; 7] = [0, 0, 4, 1, 2, 3, 4];

async fn begin(explorer: &mut MySqlExplorer, far: &mut DuplexStream, kind: u8) -> Vec<super::super::wire::Announced> {
    send(far, &[&PREPARED, &definition(kind), &EOF, &[1], &definition(kind), &EOF, &ROW, &ROW]).await;
    match explorer.wire().start("SELECT v FROM t", &[]).await.unwrap() {
        Answered::Rows(announced) => announced,
        Answered::Done(_) => panic!("rows are expected"),
    }
}

#[tokio::test]
async fn vectors_are_shown_as_their_bytes() {
    let (mut explorer, mut far) = explorer();
    let announced = begin(&mut explorer, &mut far, VECTOR).await;
    let (types, shown) = page::columns(&announced);
    let decoder = page::decoder(&announced, &types).unwrap();
    let mut rows = JsonRows::new(Numbers::default());
    rows.begin_result(&shown);
    while let Some(Row::Values(packet)) = explorer.wire().buffered_row() {
        decoder.decode(packet, &mut rows).unwrap();
    }
    assert!(rows.take().starts_with(r#"["\\x01020304"]"#));
}

#[tokio::test]
async fn a_session_with_unread_rows_is_asked_nothing_more() {
    let (mut explorer, mut far) = explorer();
    begin(&mut explorer, &mut far, VECTOR).await;
    assert!(!explorer.is_reusable());
    let outcome: Result<()> = explorer.end_reading(Err(Error::new(Kind::DefinitionChanged, "another type"))).await;
    assert_eq!(outcome.map_err(|error| error.kind()), Err(Kind::DefinitionChanged));
    assert!(!explorer.is_reusable());
    assert!(explorer.reset().await.is_err());
    drop(explorer);
    let mut sent = Vec::new();
    far.read_to_end(&mut sent).await.unwrap();
    let sent = String::from_utf8_lossy(&sent);
    assert!(sent.contains("SELECT v FROM t") && !sent.contains("COMMIT"), "{sent:?}");
}
