//! Records of statements, as the setting of `/system/sql-logging` asks for them.

use millrace_core::Result;
use millrace_core::bus::{Body, Event, Level, Side, SqlRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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

/// Publishes a statement, as the setting asks for it. `outcome` is the count of rows, or why it failed.
pub(crate) async fn record(state: &AppState, ran: Ran<'_>, duration_ms: u64, outcome: std::result::Result<u64, String>) {
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
        query: if is_redacted { without_literals(ran.sql) } else { ran.sql.to_owned() },
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

/// The statement with every quoted text and number as `?`.
pub(crate) fn without_literals(sql: &str) -> String {
    use sqlparser::tokenizer::{Token, Tokenizer};
    let Ok(tokens) = Tokenizer::new(&sqlparser::dialect::DuckDbDialect {}, sql).tokenize() else { return "?".to_owned() };
    let text = |token: &Token| match token {
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::SingleQuotedByteStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::TripleSingleQuotedString(_) => "?".to_owned(),
        // Comments may hold anything.
        Token::Whitespace(_) => " ".to_owned(),
        other => other.to_string(),
    };
    tokens.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::without_literals;

    #[test]
    fn literals_and_comments_are_left_out() {
        let sql = "SELECT a, 'S3cret', 42 /* S3cret */ FROM \"T\" WHERE b = $$S3cret$$ -- S3cret";
        let text = without_literals(sql);
        assert!(!text.contains("S3cret") && !text.contains("42"), "{text}");
        assert!(text.contains("SELECT a, ?, ?") && text.contains("\"T\""), "{text}");
        assert_eq!(without_literals("SELECT 'open"), "?");
    }
}
