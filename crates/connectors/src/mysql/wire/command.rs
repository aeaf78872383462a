//! Commands: text queries for short questions, prepared statements for rows in the binary form.

use millrace_core::{Error, Kind, Result};
use mysql_common::constants::{CapabilityFlags, ColumnFlags, ColumnType};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{Column, StmtPacket};

use super::Wire;

const COM_QUIT: u8 = 0x01;
pub(super) const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0E;
pub(super) const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;
pub(super) const COM_RESET_CONNECTION: u8 = 0x1F;
pub(super) const COM_STMT_CLOSE: u8 = 0x19;

/// One row of a text result: the columns' names are looked up without regard to case.
#[derive(Debug, Clone)]
pub(crate) struct TextRow {
    names: std::sync::Arc<[String]>,
    values: Vec<Option<String>>,
}

impl TextRow {
    /// The column's text; `None` for NULL and for columns that the server's version does not have.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let index = self.names.iter().position(|n| n.eq_ignore_ascii_case(name))?;
        self.values[index].as_deref()
    }

    /// The column's text, empty for NULL.
    pub(crate) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// The text at a place.
    pub(crate) fn at(&self, index: usize) -> Option<&str> {
        self.values.get(index)?.as_deref()
    }
}

/// What the server says about a column of a result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResultColumn {
    /// The type on the wire.
    pub(crate) kind: ColumnType,
    /// Whether integers are unsigned.
    pub(crate) is_unsigned: bool,
}

/// What the server announces about a column of a statement that it has prepared.
#[derive(Debug, Clone)]
pub(crate) struct Announced {
    pub(crate) name: String,
    pub(crate) kind: ColumnType,
    pub(crate) flags: ColumnFlags,
    /// Bytes for texts; digits with sign and point for decimals.
    pub(crate) length: u32,
    pub(crate) decimals: u8,
    pub(crate) charset: u16,
}

/// A parameter of a prepared statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Param {
    Int(i64),
    UInt(u64),
    Text(String),
    Bytes(Vec<u8>),
    Double(f64),
}

impl Wire {
    /// One round trip.
    pub(crate) async fn ping(&mut self) -> Result<()> {
        self.command(&[COM_PING]).await?;
        self.expect_ok().await
    }

    /// Runs a statement that returns no rows.
    pub(crate) async fn execute_text(&mut self, sql: &str) -> Result<()> {
        self.send_query(sql).await?;
        self.expect_ok().await
    }

    /// Runs a statement and collects its rows as text; for short results.
    pub(crate) async fn query_text(&mut self, sql: &str) -> Result<Vec<TextRow>> {
        self.send_query(sql).await?;
        let count = self.result_header().await?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let column = self.column().await?;
            names.push(column.name_str().into_owned());
        }
        self.expect_eof().await?;
        let names: std::sync::Arc<[String]> = names.into();
        let mut rows = Vec::new();
        loop {
            let packet = self.packet().await?;
            if is_eof(packet) {
                return Ok(rows);
            }
            if packet.first() == Some(&0xFF) {
                let packet = packet.to_vec();
                return Err(self.refusal(&packet));
            }
            let Some(values) = text_values(packet, count) else { return Err(self.malformed("text row")) };
            rows.push(TextRow { names: names.clone(), values });
        }
    }

    /// Prepares a statement; what the server announces about it is passed over.
    pub(super) async fn prepare(&mut self, sql: &str) -> Result<StmtPacket> {
        let mut payload = vec![COM_STMT_PREPARE];
        payload.extend_from_slice(sql.as_bytes());
        self.command(&payload).await?;
        let packet = self.packet().await?.to_vec();
        if packet.first() == Some(&0xFF) {
            return Err(self.refusal(&packet));
        }
        let statement: StmtPacket = ParseBuf(&packet).parse(()).map_err(|_| self.malformed("statement"))?;
        for count in [statement.num_params(), statement.num_columns()] {
            for _ in 0..count {
                self.packet().await?;
            }
            if count > 0 {
                self.expect_eof().await?;
            }
        }
        Ok(statement)
    }

    /// Prepares a statement and executes it; rows then follow in the binary form until [`Wire::next_row`] says that they have ended.
    pub(crate) async fn open_rows(&mut self, sql: &str, params: &[Param]) -> Result<Vec<ResultColumn>> {
        let statement = self.prepare(sql).await?;
        if usize::from(statement.num_params()) != params.len() {
            return Err(Error::internal("a statement has another number of parameters than values"));
        }
        self.command(&execute_payload(statement.statement_id(), params)).await?;
        let count = self.result_header().await?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let column = self.column().await?;
            columns.push(ResultColumn { kind: column.column_type(), is_unsigned: column.flags().contains(ColumnFlags::UNSIGNED_FLAG) });
        }
        self.expect_eof().await?;
        // The server keeps the statement until its result has been read; closing needs no answer, so it is sent ahead of time.
        let mut close = vec![COM_STMT_CLOSE];
        close.extend_from_slice(&statement.statement_id().to_le_bytes());
        self.close_after_rows = Some(close);
        Ok(columns)
    }

    /// Prepares a statement, to learn its columns; none for a statement that returns no rows.
    pub(crate) async fn describe(&mut self, sql: &str) -> Result<Vec<Announced>> {
        let mut payload = vec![COM_STMT_PREPARE];
        payload.extend_from_slice(sql.as_bytes());
        self.command(&payload).await?;
        let packet = self.packet().await?.to_vec();
        if packet.first() == Some(&0xFF) {
            return Err(self.refusal(&packet));
        }
        let statement: StmtPacket = ParseBuf(&packet).parse(()).map_err(|_| self.malformed("statement"))?;
        for _ in 0..statement.num_params() {
            self.packet().await?;
        }
        if statement.num_params() > 0 {
            self.expect_eof().await?;
        }
        let mut columns = Vec::new();
        for _ in 0..statement.num_columns() {
            let column = self.column().await?;
            columns.push(super::statement::announced(&column));
        }
        if statement.num_columns() > 0 {
            self.expect_eof().await?;
        }
        let mut close = vec![COM_STMT_CLOSE];
        close.extend_from_slice(&statement.statement_id().to_le_bytes());
        self.command(&close).await?;
        if statement.num_params() > 0 {
            return Err(Error::new(Kind::Invalid, "the statement has placeholders (`?`), for which there are no values"));
        }
        Ok(columns)
    }

    /// A row that has already arrived, without waiting: `None` means that more must be read first ([`Wire::wait_for_row`]).
    pub(crate) fn buffered_row(&mut self) -> Option<Row<'_>> {
        if !self.buffer.has_packet() {
            return None;
        }
        let capabilities = self.capabilities;
        let place = &self.place;
        let (packet, sequence) = self.buffer.take();
        self.sequence = sequence.wrapping_add(1);
        Some(match packet.first() {
            Some(0x00) => Row::Values(packet),
            Some(0xFE) if is_eof(packet) => {
                self.has_more_results = super::statement::eof_status(packet) & super::statement::MORE_RESULTS != 0;
                self.has_unread = self.has_more_results;
                Row::End
            }
            Some(0xFF) => {
                self.has_unread = false;
                Row::Refused(super::server_error(place, packet, capabilities))
            }
            _ => Row::Refused(Error::new(Kind::ProtocolViolated, format!("`{place}` sent a malformed row"))),
        })
    }

    /// Waits until more of the result has arrived.
    pub(crate) async fn wait_for_row(&mut self) -> Result<()> {
        self.fill().await
    }

    /// To be called once after [`Row::End`].
    pub(crate) async fn end_rows(&mut self) -> Result<()> {
        match self.close_after_rows.take() {
            Some(close) => self.command(&close).await,
            None => Ok(()),
        }
    }

    /// Says goodbye; an error no longer matters.
    pub(crate) async fn quit(mut self) {
        let _ = self.command(&[COM_QUIT]).await;
    }

    async fn send_query(&mut self, sql: &str) -> Result<()> {
        let mut payload = vec![COM_QUERY];
        payload.extend_from_slice(sql.as_bytes());
        self.command(&payload).await
    }

    pub(super) async fn expect_ok(&mut self) -> Result<()> {
        let packet = self.packet().await?;
        match packet.first() {
            Some(0x00) => Ok(()),
            Some(0xFF) => {
                let packet = packet.to_vec();
                Err(self.refusal(&packet))
            }
            _ => Err(self.malformed("answer")),
        }
    }

    /// The number of columns of a result; 0 for a statement without rows.
    async fn result_header(&mut self) -> Result<usize> {
        let packet = self.packet().await?;
        match packet.first() {
            Some(0x00) => Ok(0),
            Some(0xFF) => {
                let packet = packet.to_vec();
                Err(self.refusal(&packet))
            }
            Some(_) => {
                let count = lenenc_int(packet).map(|(count, _)| count);
                count.map(|count| count as usize).ok_or_else(|| self.malformed("result header"))
            }
            None => Err(self.malformed("result header")),
        }
    }

    pub(super) async fn column(&mut self) -> Result<Column> {
        let packet = self.packet().await?;
        let column = ParseBuf(packet).parse(());
        column.map_err(|_| self.malformed("column definition"))
    }

    pub(super) async fn expect_eof(&mut self) -> Result<()> {
        debug_assert!(!self.capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF));
        let is_end = is_eof(self.packet().await?);
        if is_end { Ok(()) } else { Err(self.malformed("end of column definitions")) }
    }
}

/// What came next in a binary result.
pub(crate) enum Row<'a> {
    /// The whole packet: header, null bitmap, values.
    Values(&'a [u8]),
    /// No more rows.
    End,
    /// The server gave up.
    Refused(Error),
}

pub(super) fn is_eof(packet: &[u8]) -> bool {
    packet.first() == Some(&0xFE) && packet.len() < 9
}

pub(super) fn execute_payload(statement: u32, params: &[Param]) -> Vec<u8> {
    let mut payload = vec![COM_STMT_EXECUTE];
    payload.extend_from_slice(&statement.to_le_bytes());
    payload.push(0); // no cursor
    payload.extend_from_slice(&1u32.to_le_bytes()); // iterations
    if params.is_empty() {
        return payload;
    }
    payload.resize(payload.len() + params.len().div_ceil(8), 0); // no NULLs
    payload.push(1); // types follow
    for param in params {
        let (kind, unsigned) = match param {
            Param::Int(_) => (ColumnType::MYSQL_TYPE_LONGLONG, 0),
            Param::UInt(_) => (ColumnType::MYSQL_TYPE_LONGLONG, 0x80),
            Param::Text(_) => (ColumnType::MYSQL_TYPE_VAR_STRING, 0),
            Param::Bytes(_) => (ColumnType::MYSQL_TYPE_BLOB, 0),
            Param::Double(_) => (ColumnType::MYSQL_TYPE_DOUBLE, 0),
        };
        payload.extend_from_slice(&[kind as u8, unsigned]);
    }
    for param in params {
        match param {
            Param::Int(value) => payload.extend_from_slice(&value.to_le_bytes()),
            Param::UInt(value) => payload.extend_from_slice(&value.to_le_bytes()),
            Param::Text(text) => put_lenenc(&mut payload, text.as_bytes()),
            Param::Bytes(bytes) => put_lenenc(&mut payload, bytes),
            Param::Double(value) => payload.extend_from_slice(&value.to_le_bytes()),
        }
    }
    payload
}

fn put_lenenc(payload: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len();
    match length {
        0..=250 => payload.push(length as u8),
        251..=0xFFFF => {
            payload.push(0xFC);
            payload.extend_from_slice(&(length as u16).to_le_bytes());
        }
        0x1_0000..=0xFF_FFFF => {
            payload.push(0xFD);
            payload.extend_from_slice(&(length as u32).to_le_bytes()[..3]);
        }
        _ => {
            payload.push(0xFE);
            payload.extend_from_slice(&(length as u64).to_le_bytes());
        }
    }
    payload.extend_from_slice(bytes);
}

/// A length-encoded integer and what follows it; 0xFB (NULL) and 0xFF are none.
pub(crate) fn lenenc_int(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xFA => return Some((u64::from(first), rest)),
        0xFC => 2,
        0xFD => 3,
        0xFE => 8,
        _ => return None,
    };
    let mut value = [0; 8];
    value[..width].copy_from_slice(rest.get(..width)?);
    Some((u64::from_le_bytes(value), &rest[width..]))
}

pub(super) fn text_values(mut packet: &[u8], count: usize) -> Option<Vec<Option<String>>> {
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        if packet.first() == Some(&0xFB) {
            values.push(None);
            packet = &packet[1..];
            continue;
        }
        let (length, rest) = lenenc_int(packet)?;
        let length = usize::try_from(length).ok()?;
        values.push(Some(String::from_utf8_lossy(rest.get(..length)?).into_owned()));
        packet = &rest[length..];
    }
    Some(values)
}
