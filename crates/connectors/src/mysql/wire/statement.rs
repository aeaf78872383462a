//! Statements of any kind: what they answer, be it rows, a count, or several results one after the other.

use millrace_core::{Error, Kind, Result};
use mysql_common::packets::Column;

use super::Wire;
use super::command::{Announced, COM_QUERY, COM_RESET_CONNECTION, COM_STMT_CLOSE, Param, execute_payload, is_eof, lenenc_int, text_values};

/// The server's flag for "another result follows".
pub(super) const MORE_RESULTS: u16 = 0x0008;

/// What a statement, or the next part of it, has answered.
#[derive(Debug)]
pub(crate) enum Answered {
    /// Rows follow, in the binary form.
    Rows(Vec<Announced>),
    /// It has ended without rows.
    Done(Done),
}

/// How a statement without rows ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Rows that were changed.
    pub(crate) affected_rows: u64,
    /// The first number that an automatic key has given.
    pub(crate) last_insert_id: u64,
    /// Warnings and notes.
    pub(crate) warnings: u16,
    /// Whether another result follows.
    pub(crate) has_more: bool,
}

/// The result of a statement that cannot be prepared, whole.
#[derive(Debug, Default)]
pub(crate) struct TextResult {
    /// Names of the columns; none for a statement without rows.
    pub(crate) names: Vec<String>,
    /// Values as the server writes them.
    pub(crate) rows: Vec<Vec<Option<String>>>,
    /// How it ended.
    pub(crate) done: Done,
}

impl Wire {
    /// Prepares a statement and executes it. Rows are then read with [`Wire::buffered_row`]; at their end [`Wire::next_result`] or [`Wire::end_rows`] follows.
    pub(crate) async fn start(&mut self, sql: &str, params: &[Param]) -> Result<Answered> {
        let statement = self.prepare(sql).await?;
        let mut close = vec![COM_STMT_CLOSE];
        close.extend_from_slice(&statement.statement_id().to_le_bytes());
        if usize::from(statement.num_params()) != params.len() {
            self.command(&close).await?;
            return Err(Error::new(Kind::StatementRefused, "the statement has placeholders (`?`), for which there are no values"));
        }
        self.command(&execute_payload(statement.statement_id(), params)).await?;
        self.close_after_rows = Some(close);
        self.answered().await
    }

    /// The next part of what a statement answers, after the end of rows or of a part without rows that says that more follows.
    pub(crate) async fn next_result(&mut self) -> Result<Answered> {
        self.answered().await
    }

    /// Whether an answer has begun whose end has not been read. Such a session answers nothing else: only dropping it helps.
    pub(crate) fn has_unread(&self) -> bool {
        self.has_unread
    }

    /// Whether another result follows the rows that have ended.
    pub(crate) fn has_more_results(&self) -> bool {
        self.has_more_results
    }

    async fn answered(&mut self) -> Result<Answered> {
        self.has_unread = true;
        let packet = self.packet().await?.to_vec();
        match packet.first() {
            Some(0x00) => {
                let done = done(&packet).ok_or_else(|| self.malformed("answer"))?;
                self.has_unread = done.has_more;
                if !done.has_more {
                    self.end_rows().await?;
                }
                Ok(Answered::Done(done))
            }
            Some(0xFF) => {
                let error = self.refusal(&packet);
                self.has_unread = false;
                self.end_rows().await?;
                Err(error)
            }
            Some(0xFB) => Err(Error::new(Kind::StatementRefused, "a server must not ask for files of this machine")),
            Some(_) => {
                let count = lenenc_int(&packet).map(|(count, _)| count).ok_or_else(|| self.malformed("result header"))?;
                let mut columns = Vec::new();
                for _ in 0..count {
                    columns.push(announced(&self.column().await?));
                }
                self.expect_eof().await?;
                Ok(Answered::Rows(columns))
            }
            None => Err(self.malformed("answer")),
        }
    }

    /// Runs a statement that cannot be prepared; all its results but the last are dropped.
    pub(crate) async fn run_text(&mut self, sql: &str) -> Result<TextResult> {
        let mut payload = vec![COM_QUERY];
        payload.extend_from_slice(sql.as_bytes());
        self.command(&payload).await?;
        loop {
            let result = self.text_result().await?;
            if !result.done.has_more {
                return Ok(result);
            }
        }
    }

    async fn text_result(&mut self) -> Result<TextResult> {
        let names = match self.answered().await? {
            Answered::Done(done) => return Ok(TextResult { done, ..TextResult::default() }),
            Answered::Rows(columns) => columns.into_iter().map(|column| column.name).collect::<Vec<_>>(),
        };
        let mut rows = Vec::new();
        loop {
            let packet = self.packet().await?.to_vec();
            if is_eof(&packet) {
                let done = Done { has_more: eof_status(&packet) & MORE_RESULTS != 0, ..Done::default() };
                self.has_unread = done.has_more;
                return Ok(TextResult { names, rows, done });
            }
            if packet.first() == Some(&0xFF) {
                self.has_unread = false;
                return Err(self.refusal(&packet));
            }
            rows.push(text_values(&packet, names.len()).ok_or_else(|| self.malformed("text row"))?);
        }
    }

    /// Brings the session back to what it was after the login: no transaction, no temporary tables, no settings. Fails on servers that do not know the command
    /// (before MySQL 5.7.3 and MariaDB 10.2.4).
    ///
    /// Fails while an answer is unread: its packets would be taken for the answers of what comes next.
    pub(crate) async fn reset(&mut self) -> Result<()> {
        if self.has_unread {
            return Err(Error::new(Kind::ProtocolViolated, "the answer of the last statement has not been read to its end"));
        }
        self.command(&[COM_RESET_CONNECTION]).await?;
        self.expect_ok().await?;
        self.prepare_session().await
    }
}

pub(super) fn announced(column: &Column) -> Announced {
    Announced {
        name: column.name_str().into_owned(),
        kind: column.column_type(),
        flags: column.flags(),
        length: column.column_length(),
        decimals: column.decimals(),
        charset: column.character_set(),
    }
}

/// An OK packet: header, affected rows, last insert id, status, warnings.
fn done(packet: &[u8]) -> Option<Done> {
    let (affected_rows, rest) = lenenc_int(packet.get(1..)?)?;
    let (last_insert_id, rest) = lenenc_int(rest)?;
    let (status, rest) = rest.split_first_chunk::<2>()?;
    let (warnings, _) = rest.split_first_chunk::<2>()?;
    Some(Done {
        affected_rows,
        last_insert_id,
        warnings: u16::from_le_bytes(*warnings),
        has_more: u16::from_le_bytes(*status) & MORE_RESULTS != 0,
    })
}

/// The status of an EOF packet: header, warnings, status.
pub(super) fn eof_status(packet: &[u8]) -> u16 {
    packet.get(3..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ok_packet_says_what_was_changed_and_whether_more_follows() {
        let packet = [0x00, 0xFC, 0x10, 0x27, 0x07, 0x0A, 0x00, 0x03, 0x00];
        assert_eq!(done(&packet), Some(Done { affected_rows: 10_000, last_insert_id: 7, warnings: 3, has_more: true }));
        assert_eq!(done(&packet[..5]), None);
        assert_eq!(eof_status(&[0xFE, 0, 0, 0x08, 0]) & MORE_RESULTS, MORE_RESULTS);
        assert_eq!(eof_status(&[0xFE]), 0);
    }
}
