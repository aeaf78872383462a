//! A connection that speaks the MySQL client/server protocol and hands out rows as the bytes that arrived.
//!
//! ```text
//!  socket ─▶ PacketBuffer (one reused block) ─▶ &[u8] of a packet ─▶ row decoder
//! ```
//!
//! Handshake, authentication and packet forms come from `mysql_common`; what is ours is the reading loop, because every client crate at
//! hand copies each row and each text into memory of its own, and that copy is most of the cost of a bulk read.
//! Facts about the protocol: MySQL Source Code Documentation, "Client/Server Protocol"; MariaDB Knowledge Base, "Clients & Utilities / Server
//! protocol".

mod auth;
mod buffer;
mod command;
mod statement;

pub(crate) use command::{Announced, Param, ResultColumn, Row, TextRow, lenenc_int};
pub(crate) use statement::{Answered, Done, TextResult};

use std::sync::Arc;
use std::time::Duration;

use millrace_core::connection::{Connection, DatabaseSpec};
use millrace_core::{Error, Kind, Result, hosts};
use mysql_common::constants::CapabilityFlags;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

use super::error::{io_error, server_error};
use buffer::PacketBuffer;

/// How long a dial with its handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// When a silent peer is asked whether it is there, how often, and how many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 4;
/// Where a connection's host stands.
const HOST: &str = "spec.database.host";

/// The largest payload of one packet; longer ones are sent in parts.
const MAX_PAYLOAD: usize = 0xFF_FFFF;

/// A plain or a protected socket. Reads are large blocks, so the indirection costs nothing that can be measured.
trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// One connection.
pub(crate) struct Wire {
    stream: Box<dyn Socket>,
    is_protected: bool,
    buffer: PacketBuffer,
    sequence: u8,
    capabilities: CapabilityFlags,
    version: String,
    thread_id: u32,
    /// What closes the statement whose rows are being read.
    close_after_rows: Option<Vec<u8>>,
    /// Whether another result follows the rows that have ended.
    has_more_results: bool,
    /// Whether an answer has begun whose end has not been read.
    has_unread: bool,
    place: String,
}

impl Wire {
    /// Dials, logs in and leaves the session in the state that every reader relies on: UTF-8, UTC, no exotic SQL mode.
    pub(crate) async fn connect(connection: &Connection, database: Option<&str>) -> Result<Self> {
        let spec = super::spec(connection)?;
        let tls = tls::client_config(connection)?;
        let place = format!("{}:{}", spec.host, spec.port);
        let dial = async {
            let mut wire = Self::dial(spec, tls, &place, database).await?;
            wire.prepare_session().await?;
            Ok(wire)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, dial).await.unwrap_or_else(|_| {
            Err(Error::new(Kind::Unreachable, format!("no answer from `{place}` within {} s", CONNECT_TIMEOUT.as_secs())))
        })
    }

    /// Leaves the session in the state that every reader relies on.
    async fn prepare_session(&mut self) -> Result<()> {
        // NO_BACKSLASH_ESCAPES and ANSI_QUOTES would change how names and literals are read; PAD_CHAR_TO_FULL_LENGTH would change CHAR values.
        self.execute_text("SET NAMES utf8mb4").await?;
        self.execute_text("SET SESSION sql_mode = '', time_zone = '+00:00', autocommit = 1").await?;
        if !self.is_mariadb() {
            // MySQL 8 answers AUTO_INCREMENT and row counts from a cache that may be a day old; older servers do not know the setting.
            match self.execute_text("SET SESSION information_schema_stats_expiry = 0").await {
                Err(error) if error.detail("errno") != Some("1193") => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What the server calls itself (`10.11.6-MariaDB-…`, `8.0.36`).
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Whether the server is a MariaDB.
    pub(crate) fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }

    /// The server's number for this connection.
    pub(crate) fn thread_id(&self) -> u32 {
        self.thread_id
    }

    async fn dial(spec: &DatabaseSpec, tls: Option<Arc<ClientConfig>>, place: &str, database: Option<&str>) -> Result<Self> {
        let addresses = hosts::resolve(&spec.host, spec.port, HOST).await?;
        let stream = TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|error| Error::new(Kind::Unreachable, format!("cannot connect to `{place}`")).because(error))?;
        stream.set_nodelay(true).map_err(|error| io_error(place, error))?;
        // A peer that has gone without a word is noticed within half a minute, also by who only reads.
        let alive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_TRIES);
        SockRef::from(&stream).set_tcp_keepalive(&alive).map_err(|error| io_error(place, error))?;
        let mut wire = Self {
            stream: Box::new(stream),
            is_protected: false,
            buffer: PacketBuffer::new(),
            sequence: 0,
            capabilities: CapabilityFlags::empty(),
            version: String::new(),
            thread_id: 0,
            close_after_rows: None,
            has_more_results: false,
            has_unread: false,
            place: place.to_owned(),
        };
        wire.log_in(spec, tls, database).await?;
        Ok(wire)
    }

    /// A session over a stream that a test holds the other end of.
    #[cfg(test)]
    pub(crate) fn over(stream: impl AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            is_protected: false,
            buffer: PacketBuffer::new(),
            sequence: 0,
            capabilities: CapabilityFlags::CLIENT_PROTOCOL_41,
            version: "9.0.0".to_owned(),
            thread_id: 1,
            close_after_rows: None,
            has_more_results: false,
            has_unread: false,
            place: "a test".to_owned(),
        }
    }

    /// Goes on under TLS; nothing of the old socket may be left unread.
    async fn protect(&mut self, tls: Arc<ClientConfig>, host: &str) -> Result<()> {
        let untrusted = |text: String| Error::new(Kind::Untrusted, text).field("ssl");
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| untrusted(format!("`{host}` is no name that a certificate could hold")))?;
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let protected = TlsConnector::from(tls).connect(name, plain).await.map_err(|error| match error.get_ref() {
            Some(inner) if inner.is::<rustls::Error>() => untrusted(format!("no trusted connection to `{}`: {inner}", self.place)),
            _ => io_error(&self.place, error),
        })?;
        self.stream = Box::new(protected);
        self.is_protected = true;
        Ok(())
    }

    /// The next packet's payload, waiting for it.
    async fn packet(&mut self) -> Result<&[u8]> {
        loop {
            if self.buffer.has_packet() {
                break;
            }
            self.fill().await?;
        }
        let (payload, sequence) = self.buffer.take();
        self.sequence = sequence.wrapping_add(1);
        Ok(payload)
    }

    /// Reads what the socket has, at least one byte.
    async fn fill(&mut self) -> Result<()> {
        let read = self.buffer.fill(&mut self.stream).await.map_err(|error| io_error(&self.place, error))?;
        if read == 0 {
            return Err(Error::new(Kind::ConnectionLost, format!("`{}` closed the connection", self.place)));
        }
        Ok(())
    }

    /// Sends one payload, in parts if it is long, continuing the current sequence.
    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut framed = Vec::with_capacity(payload.len() + 8);
        let mut rest = payload;
        loop {
            let part = &rest[..rest.len().min(MAX_PAYLOAD)];
            framed.extend_from_slice(&(part.len() as u32).to_le_bytes()[..3]);
            framed.push(self.sequence);
            framed.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = &rest[part.len()..];
            // A part of the full length is followed by another one, even if that is empty.
            if part.len() < MAX_PAYLOAD {
                break;
            }
        }
        self.stream.write_all(&framed).await.map_err(|error| io_error(&self.place, error))?;
        // A protected socket keeps what it is given until it is told to send.
        self.stream.flush().await.map_err(|error| io_error(&self.place, error))
    }

    /// Starts a command.
    async fn command(&mut self, payload: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send(payload).await
    }

    /// The error that an ERR packet carries.
    fn refusal(&self, packet: &[u8]) -> Error {
        server_error(&self.place, packet, self.capabilities)
    }

    /// A packet does not have the form that the protocol gives it here.
    fn malformed(&self, what: &'static str) -> Error {
        Error::new(Kind::ProtocolViolated, format!("`{}` sent a malformed {what}", self.place))
    }
}
