//! Statements of users, one after the other.

use millrace_core::explore::{READ_ONLY, ResultColumn, ResultSink, RunRequest, StatementEnd};
use millrace_core::value::{RowEncoder as _, ValueRef};
use millrace_core::{Error, Kind, Result};
use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};

use super::super::wire::{Answered, Done, Row, TextResult};
use super::MySqlExplorer;
use super::page::{columns, decoder, row_error};
use crate::statements::{self, Statement};

/// So much of a result that is cut off is read and dropped before the server is told to stop, bytes.
const DRAIN_LIMIT: usize = 4 << 20;
/// The client's word for another end of statements.
const DELIMITER: &str = "DELIMITER";

impl MySqlExplorer {
    pub(super) async fn describe(&mut self, sql: &str) -> Result<Vec<ResultColumn>> {
        let statements = statements::split(&MySqlDialect {}, sql);
        let [statement] = statements.as_slice() else {
            return Err(Error::new(Kind::StatementRefused, format!("one statement is expected, not {}", statements.len())));
        };
        let announced = self.wire().describe(&statement.text).await?;
        Ok(columns(&announced).1)
    }

    pub(super) async fn run_all(&mut self, request: &RunRequest, results: &mut dyn ResultSink) -> Result<()> {
        self.is_clean = false;
        let statements = statements::split(&MySqlDialect {}, &request.sql);
        if request.is_read_only {
            statements::check_reading(&statements).map_err(|error| error.with("reason", READ_ONLY))?;
            check_no_files(&statements)?;
            self.wire().execute_text("SET SESSION TRANSACTION READ ONLY").await?;
            // Quotes and backslashes must mean to the server what they meant to the check, whatever the server is set up for.
            self.wire().execute_text("SET SESSION sql_mode = ''").await?;
        } else {
            // What people write is meant for the server as it is set up.
            self.wire().execute_text("SET SESSION sql_mode = @@GLOBAL.sql_mode").await?;
        }
        results.expect(statements.len());
        for (number, statement) in (1..).zip(&statements) {
            let ran = self.run_one(statement, request.max_rows, results).await;
            ran.map_err(|error| error.with("statement", number.to_string()))?;
        }
        Ok(())
    }

    async fn run_one(&mut self, statement: &Statement, max_rows: u64, results: &mut dyn ResultSink) -> Result<()> {
        if statement.command == DELIMITER {
            let text = "DELIMITER is a word of a client program; a routine's body needs none here: its `;` are understood";
            return Err(Error::new(Kind::StatementRefused, text));
        }
        match self.wire().start(&statement.text, &[]).await {
            Ok(answered) => self.pass_on(statement, answered, max_rows, results).await,
            // ER_UNSUPPORTED_PS
            Err(error) if error.detail("errno") == Some("1295") => {
                let result = self.wire().run_text(&statement.text).await?;
                pass_text_on(statement, result, max_rows, results).await
            }
            Err(error) => Err(error),
        }
    }

    /// All results of a statement; a procedure may have several, of which the first with rows is shown.
    async fn pass_on(&mut self, statement: &Statement, answered: Answered, max_rows: u64, results: &mut dyn ResultSink) -> Result<()> {
        let mut answered = answered;
        let mut end = StatementEnd { command: statement.command.clone(), affected: statement.affected, ..StatementEnd::default() };
        let mut has_rows = false;
        loop {
            let has_more = match answered {
                Answered::Rows(announced) => {
                    let (columns, shown) = columns(&announced);
                    let decoder = decoder(&announced, &columns)?;
                    let is_shown = !has_rows;
                    if is_shown {
                        results.begin(&shown).await?;
                        has_rows = true;
                    }
                    let max_rows = if is_shown { max_rows } else { 0 };
                    end.is_cut |= self.rows(&decoder, max_rows, statement.is_reading(), is_shown.then_some(&mut *results)).await?;
                    self.wire().has_more_results()
                }
                Answered::Done(Done { affected_rows, has_more, .. }) => {
                    if changes_rows(&statement.command) {
                        end.rows_affected = Some(affected_rows);
                    }
                    has_more
                }
            };
            if !has_more {
                // After rows the statement is still to be closed; elsewhere that is done.
                self.wire().end_rows().await?;
                break;
            }
            answered = self.wire().next_result().await?;
        }
        results.end(end).await
    }

    /// Passes on at most `max_rows` rows; answers whether there were more. What only reads (`may_end`) is ended when much is left; a statement that writes goes on to
    /// its end, for ending it would take back what it has done, or leave a procedure half way.
    async fn rows(
        &mut self,
        decoder: &super::super::values::RowDecoder,
        max_rows: u64,
        may_end: bool,
        mut results: Option<&mut dyn ResultSink>,
    ) -> Result<bool> {
        let (mut count, mut dropped, mut is_killed) = (0_u64, 0_usize, false);
        loop {
            match self.session.0.buffered_row() {
                Some(Row::Values(packet)) => match &mut results {
                    Some(results) if count < max_rows => {
                        decoder.decode(packet, results.rows()).map_err(row_error)?;
                        count += 1;
                        if results.rows().is_full() {
                            results.send().await?;
                        }
                    }
                    _ => {
                        dropped += packet.len();
                        if may_end && dropped > DRAIN_LIMIT && !is_killed {
                            is_killed = true;
                            millrace_core::explore::Explorer::canceller(self).cancel().await?;
                        }
                    }
                },
                Some(Row::End) => {
                    if is_killed {
                        // The end came first: the next statement takes the blow.
                        let _ = self.wire().query_text("SELECT SLEEP(0.05)").await;
                    }
                    return Ok(dropped > 0 && results.is_some());
                }
                Some(Row::Refused(error)) => {
                    self.wire().end_rows().await?;
                    // ER_QUERY_INTERRUPTED: it was we.
                    let is_ours = is_killed && error.kind() == Kind::Cancelled;
                    return if is_ours { Ok(results.is_some()) } else { Err(error) };
                }
                None => self.wire().wait_for_row().await?,
            }
        }
    }
}

/// A transaction that cannot write still lets the server write files. Comments that the server executes could hide them.
fn check_no_files(statements: &[Statement]) -> Result<()> {
    for (number, statement) in (1..).zip(statements) {
        let refused = |text: &'static str| Err(refusal(text).with("statement", format!("{number}")));
        let Ok(tokens) = Tokenizer::new(&MySqlDialect {}, &statement.text).tokenize() else {
            return refused("only statements that can be told apart into words are allowed here");
        };
        for token in &tokens {
            match token {
                Token::Word(word) if word.quote_style.is_none() && is_file_word(&word.value) => {
                    return refused("only reading is allowed here, not writing files");
                }
                Token::Whitespace(Whitespace::MultiLineComment(text)) if text.starts_with('!') || text.starts_with("M!") => {
                    return refused("only reading is allowed here, not comments that the server executes");
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn refusal(text: &'static str) -> Error {
    Error::new(Kind::StatementRefused, text).with("reason", READ_ONLY)
}

fn is_file_word(word: &str) -> bool {
    ["OUTFILE", "DUMPFILE"].iter().any(|other| word.eq_ignore_ascii_case(other))
}

fn changes_rows(command: &str) -> bool {
    matches!(command, "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" | "CALL" | "EXECUTE")
}

async fn pass_text_on(statement: &Statement, result: TextResult, max_rows: u64, results: &mut dyn ResultSink) -> Result<()> {
    let mut end = StatementEnd { command: statement.command.clone(), affected: statement.affected, ..StatementEnd::default() };
    if result.names.is_empty() {
        end.rows_affected = changes_rows(&statement.command).then_some(result.done.affected_rows);
        return results.end(end).await;
    }
    let columns: Vec<ResultColumn> =
        result.names.into_iter().map(|name| ResultColumn { name, native_type: "text".to_owned(), nullable: None, bits: None }).collect();
    results.begin(&columns).await?;
    end.is_cut = result.rows.len() as u64 > max_rows;
    for row in result.rows.iter().take(usize::try_from(max_rows).unwrap_or(usize::MAX)) {
        let rows = results.rows();
        rows.begin_row();
        for (index, value) in row.iter().enumerate() {
            let value = value.as_deref().map_or(ValueRef::Null, ValueRef::Text);
            rows.value(index, value).map_err(|error| Error::internal(error.to_string()))?;
        }
        rows.end_row();
        if rows.is_full() {
            results.send().await?;
        }
    }
    results.end(end).await
}
