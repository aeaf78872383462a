//! Attaches sources, read-only, and then closes every other way out.

use duckdb::Connection;

use crate::wire::{FailedKind, Failure, Request, Source, SourceEngine};

/// Attaches one source under its alias.
pub(super) fn attach(connection: &Connection, source: &Source, tag: &str) -> Result<(), Failure> {
    let alias = identifier(&source.alias);
    let secret = identifier(&format!("secret_{}", source.alias));
    let (kind, place) = match source.engine {
        SourceEngine::Postgres => ("postgres", format!("application_name={tag}")),
        SourceEngine::MySql => ("mysql", String::new()),
    };
    let database = match (source.engine, &source.database) {
        (_, Some(database)) => format!(", DATABASE {}", literal(database)),
        (SourceEngine::Postgres, None) => ", DATABASE 'postgres'".to_owned(),
        (SourceEngine::MySql, None) => String::new(),
    };
    let statements = [
        format!(
            "CREATE SECRET {secret} (TYPE {kind}, HOST {}, PORT {}, USER {}, PASSWORD {}{database})",
            literal(&source.host),
            source.port,
            literal(&source.user),
            literal(&source.password),
        ),
        format!("ATTACH {} AS {alias} (TYPE {kind}, SECRET {secret}, READ_ONLY)", literal(&place)),
        format!("DROP SECRET {secret}"),
    ];
    statements.iter().try_for_each(|statement| connection.execute_batch(statement)).map_err(|error| cannot_attach(source, &error))
}

/// After this no setting can be changed, no file read, no further database attached.
pub(super) fn lock_down(connection: &Connection, request: &Request) -> Result<(), Failure> {
    let settings = [
        format!("SET memory_limit = '{}MB'", request.memory_mb),
        format!("SET threads = {}", request.threads.max(1)),
        format!("SET temp_directory = {}", literal(&request.temp_dir)),
        "SET enable_external_access = false".to_owned(),
        "SET lock_configuration = true".to_owned(),
    ];
    settings
        .iter()
        .try_for_each(|setting| connection.execute_batch(setting))
        .map_err(|error| Failure::new(FailedKind::Internal, format!("the query engine cannot be locked down: {error}")))
}

/// A text literal of DuckDB, which knows no backslash escapes.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A quoted name of DuckDB.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn cannot_attach(source: &Source, error: &duckdb::Error) -> Failure {
    let text = error.to_string();
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let kind = if has(&["access denied", "password authentication failed", "no password supplied", "authentication"]) {
        FailedKind::LoginRefused
    } else if has(&["unknown database", "does not exist"]) {
        FailedKind::ObjectMissing
    } else {
        FailedKind::Unreachable
    };
    let what = match kind {
        FailedKind::LoginRefused => "refused the login",
        FailedKind::ObjectMissing => "does not have the database",
        _ => "cannot be reached",
    };
    Failure::new(kind, format!("`{}` ({}:{}) {what}: {}", source.alias, source.host, source.port, first_line(&text)))
}

/// Drivers append hints over several lines.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
