//! Records of statements, as the setting of `/system/sql-logging` asks for them.

use std::any::TypeId;

use millrace_core::Result;
use millrace_core::bus::{Body, Event, Level, Side, SqlRecord};
use millrace_core::connection::Engine;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlparser::dialect::{Dialect, DuckDbDialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::tokenizer::{Token, Tokenizer, Whitespace};
use svix_ksuid::{Ksuid, KsuidLike as _};

use crate::state::AppState;
use crate::wire::streams::iso;

const SETTING: &str = "sql_logging";

/// How much of statements is captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CaptureMode {
    /// Nothing.
    Off,
    /// Statements without their literals.
    #[default]
    Minimal,
    /// Whole statements.
    Verbose,
}

/// The setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SqlLogging {
    pub(crate) sql_capture_mode: CaptureMode,
    /// Whether records go to event streams.
    #[serde(rename = "forwardSQLLogs")]
    pub(crate) forward: bool,
}

/// The stored setting.
pub(crate) async fn setting(state: &AppState) -> Result<SqlLogging> {
    let stored = state.store.setting(SETTING).await?;
    Ok(stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// Stores the setting.
pub(crate) async fn change(state: &AppState, setting: SqlLogging) -> Result<()> {
    let text = serde_json::to_string(&setting).unwrap_or_default();
    state.store.set_setting(SETTING, &text).await
}

/// What a statement was run for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Rows for people.
    Data,
    /// How many rows there are.
    Count,
    /// A definition was changed.
    SchemaChange,
    /// Rows were changed.
    Dml,
    /// Statistics and the like.
    Utility,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Data => "DATA_QUERY",
            Self::Count => "COUNT_QUERY",
            Self::SchemaChange => "SCHEMA_CHANGE",
            Self::Dml => "DML_OPERATION",
            Self::Utility => "UTILITY",
        }
    }
}

/// A statement that ran, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Ran<'a> {
    pub(crate) connection: &'a str,
    pub(crate) database: &'a str,
    pub(crate) schema: Option<&'a str>,
    pub(crate) table: Option<&'a str>,
    pub(crate) tab: Option<&'a str>,
    pub(crate) purpose: Purpose,
    pub(crate) sql: &'a str,
}

/// Publishes a statement that DuckDB ran, as the setting asks for it. `outcome` is the count of rows, or why it failed.
pub(crate) async fn record(state: &AppState, ran: Ran<'_>, duration_ms: u64, outcome: std::result::Result<u64, String>) {
    record_at(state, Engine::Files, ran, duration_ms, outcome).await;
}

/// As [`record`], for a statement that a connection's own engine ran.
pub(crate) async fn record_at(state: &AppState, engine: Engine, ran: Ran<'_>, duration_ms: u64, outcome: std::result::Result<u64, String>) {
    let setting = setting(state).await.unwrap_or_default();
    if !setting.forward || setting.sql_capture_mode == CaptureMode::Off {
        return;
    }
    let is_redacted = setting.sql_capture_mode == CaptureMode::Minimal;
    let at = chrono::Utc::now().timestamp_millis();
    let record = SqlRecord {
        id: format!("sql_{}", Ksuid::new(None::<std::time::SystemTime>, None)),
        connection_id: ran.connection.to_owned(),
        database: ran.database.to_owned(),
        schema: ran.schema.map(str::to_owned),
        table_name: ran.table.map(str::to_owned),
        tab_id: ran.tab.map(str::to_owned),
        query: if is_redacted { without_literals(engine, ran.sql) } else { ran.sql.to_owned() },
        purpose: ran.purpose.as_str().to_owned(),
        started_at: iso(at - duration_ms as i64),
        duration_ms,
        row_count: outcome.as_ref().copied().unwrap_or(0),
        // A server's message quotes values.
        error: outcome.err().map(|text| if is_redacted { "the statement failed".to_owned() } else { text }),
        redacted: is_redacted,
    };
    state.bus.publish(Event {
        at,
        level: Level::Debug,
        side: Side::Api,
        stream: None,
        node: None,
        message: "a statement ran".to_owned(),
        body: Body::Sql(Box::new(record)),
    });
}

/// The statement with every quoted text and number as `?`; nothing but `?` where it cannot be told for sure what is quoted.
pub(crate) fn without_literals(engine: Engine, sql: &str) -> String {
    // Where a server's setting decides how quotes are read, and nobody here knows it, both ways must come to the same.
    let readings: &[&dyn Dialect] = match engine {
        Engine::MySql => &[&MySqlDialect {}, &PlainBackslashes],
        Engine::PostgreSql => &[&PostgreSqlDialect {}],
        // DuckDB runs these.
        Engine::Files | Engine::S3 | Engine::Gcs | Engine::Azure => &[&DuckDbDialect {}, &PostgreSqlDialect {}],
        Engine::Snowflake => &[],
    };
    let mut texts = readings.iter().map(|dialect| redacted(*dialect, sql));
    let Some(Some(text)) = texts.next() else { return "?".to_owned() };
    if texts.flatten().all(|other| other == text) { text } else { "?".to_owned() }
}

/// None for what is no tokens of this dialect.
fn redacted(dialect: &dyn Dialect, sql: &str) -> Option<String> {
    let tokens = Tokenizer::new(dialect, sql).tokenize().ok()?;
    tokens.iter().map(shown).collect()
}

/// A token as it may be seen; none if a server might read its end elsewhere.
fn shown(token: &Token) -> Option<String> {
    Some(match token {
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::SingleQuotedByteStringLiteral(_)
        | Token::DoubleQuotedByteStringLiteral(_)
        | Token::SingleQuotedRawStringLiteral(_)
        | Token::DoubleQuotedRawStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::QuoteDelimitedStringLiteral(_)
        | Token::NationalQuoteDelimitedStringLiteral(_)
        | Token::TripleSingleQuotedString(_)
        | Token::TripleDoubleQuotedString(_)
        | Token::TripleSingleQuotedByteStringLiteral(_)
        | Token::TripleDoubleQuotedByteStringLiteral(_)
        | Token::TripleSingleQuotedRawStringLiteral(_)
        | Token::TripleDoubleQuotedRawStringLiteral(_) => "?".to_owned(),
        // Some engines nest comments.
        Token::Whitespace(Whitespace::MultiLineComment(text)) if text.contains("/*") => return None,
        // Comments may hold anything.
        Token::Whitespace(_) => " ".to_owned(),
        other => other.to_string(),
    })
}

/// MySQL with NO_BACKSLASH_ESCAPES (manual, "Server SQL Modes").
#[derive(Debug)]
struct PlainBackslashes;

impl Dialect for PlainBackslashes {
    fn dialect(&self) -> TypeId {
        MySqlDialect {}.dialect()
    }

    fn is_identifier_start(&self, character: char) -> bool {
        MySqlDialect {}.is_identifier_start(character)
    }

    fn is_identifier_part(&self, character: char) -> bool {
        MySqlDialect {}.is_identifier_part(character)
    }

    fn is_delimited_identifier_start(&self, character: char) -> bool {
        MySqlDialect {}.is_delimited_identifier_start(character)
    }

    fn supports_numeric_prefix(&self) -> bool {
        MySqlDialect {}.supports_numeric_prefix()
    }

    fn supports_multiline_comment_hints(&self) -> bool {
        MySqlDialect {}.supports_multiline_comment_hints()
    }

    fn requires_single_line_comment_whitespace(&self) -> bool {
        MySqlDialect {}.requires_single_line_comment_whitespace()
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::connection::Engine;

    use super::without_literals;

    const ENGINES: [Engine; 3] = [Engine::MySql, Engine::PostgreSql, Engine::Files];

    #[test]
    fn literals_and_comments_are_left_out() {
        for engine in ENGINES {
            let sql = "SELECT a, 'S3cret', 42 /* S3cret */ FROM T WHERE b = 'S3cret' -- S3cret";
            let text = without_literals(engine, sql);
            assert!(!text.contains("S3cret") && !text.contains("42"), "{text}");
            assert!(text.contains("SELECT a, ?, ?") && text.contains("FROM T"), "{text}");
            assert_eq!(without_literals(engine, "SELECT 'open"), "?");
        }
        for engine in [Engine::PostgreSql, Engine::Files] {
            let text = without_literals(engine, "SELECT $$S3cret$$, $x$S3cret$x$ FROM \"T\"");
            assert!(!text.contains("S3cret") && text.contains("\"T\""), "{text}");
        }
        assert_eq!(without_literals(Engine::Snowflake, "SELECT 1"), "?");
    }

    #[test]
    fn each_engine_quotes_in_its_own_way() {
        let mysql = |sql| without_literals(Engine::MySql, sql);
        assert_eq!(mysql("ALTER USER app IDENTIFIED BY \"hunter2\""), "ALTER USER app IDENTIFIED BY ?");
        assert_eq!(mysql("SELECT `a b`, 'it''s', x'5365', 0x5365 # S3cret").trim_end(), "SELECT `a b`, ?, ?, ?");
        // What is quoted depends on the server's setting.
        for sql in ["SELECT 'a\\', S3cret, \\'b'", "SELECT 'a\\', 'S3cret', \"\\'\"", "SELECT \"a\\\", S3cret, \\\"b\""] {
            assert!(!mysql(sql).contains("S3cret"), "{sql}: {}", mysql(sql));
        }
        assert_eq!(mysql("SELECT 'C:\\\\', 1"), "SELECT ?, ?");
        let postgres = |sql| without_literals(Engine::PostgreSql, sql);
        assert_eq!(postgres("SELECT E'a\\', S3cret, \\'b', U&'S3cret', 1"), "SELECT ?, ?, ?");
        assert_eq!(postgres("ALTER ROLE \"app\" PASSWORD 'S3cret'"), "ALTER ROLE \"app\" PASSWORD ?");
        let duckdb = |sql| without_literals(Engine::Files, sql);
        for sql in ["SELECT E'a\\', S3cret, \\'b'", "SELECT 1 /* a /* b */ S3cret */"] {
            assert!(!duckdb(sql).contains("S3cret"), "{sql}: {}", duckdb(sql));
        }
    }
}
