//! Attaches sources, read-only, and then closes every other way out.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use duckdb::Connection;
use millrace_core::connection::SslMode;
use millrace_core::hosts::{self, REASON};

use super::files::masked;
use crate::wire::{FailedKind, Failure, HOST, Request, Source, SourceEngine};

/// How long one of several addresses may take to answer.
const DIAL_WITHIN: Duration = Duration::from_secs(2);

/// Attaches one source under its alias.
pub(super) fn attach(connection: &Connection, source: &Source, request: &Request) -> Result<(), Failure> {
    let tag = &request.tag;
    let alias = identifier(&source.alias);
    let secret = identifier(&format!("secret_{}", source.alias));
    let protection = protection(source, &request.temp_dir)
        .map_err(|error| Failure::new(FailedKind::Internal, format!("the certificates cannot be kept for the query: {error}")))?;
    let address = address(source)?;
    let (kind, host, place) = match source.engine {
        // libpq dials the address and checks the certificate by the name.
        SourceEngine::Postgres => ("postgres", source.host.clone(), format!("application_name={tag} hostaddr={address}{protection}")),
        // This driver knows no such pair. Where the certificate's name counts, it also keeps other hosts from answering in this one's place.
        SourceEngine::MySql => {
            let is_named = source.tls.as_ref().is_some_and(|tls| tls.mode == SslMode::VerifyFull);
            let host = if is_named { source.host.clone() } else { address.to_string() };
            ("mysql", host, protection.trim_start().to_owned())
        }
    };
    let database = match (source.engine, &source.database) {
        (_, Some(database)) => format!(", DATABASE {}", literal(database)),
        (SourceEngine::Postgres, None) => ", DATABASE 'postgres'".to_owned(),
        (SourceEngine::MySql, None) => String::new(),
    };
    let statements = [
        format!(
            "CREATE SECRET {secret} (TYPE {kind}, HOST {}, PORT {}, USER {}, PASSWORD {}{database})",
            literal(&host),
            source.port,
            literal(&source.user),
            literal(&source.password),
        ),
        format!("ATTACH {} AS {alias} (TYPE {kind}, SECRET {secret}, READ_ONLY)", literal(&place)),
        format!("DROP SECRET {secret}"),
    ];
    statements.iter().try_for_each(|statement| connection.execute_batch(statement)).map_err(|error| cannot_attach(source, &error))
}

/// An address of a source that may be dialled.
fn address(source: &Source) -> Result<IpAddr, Failure> {
    let found = hosts::policy().resolve_blocking(&source.host, source.port, HOST).map_err(|error| {
        let kind = if error.detail("reason") == Some(REASON) { FailedKind::HostRefused } else { FailedKind::Unreachable };
        Failure::new(kind, format!("`{}`: {}", source.alias, error.message()))
    })?;
    // A name often has both kinds, and servers often listen on one only: the first that somebody answers at.
    let answers = |address: &&SocketAddr| TcpStream::connect_timeout(address, DIAL_WITHIN).is_ok();
    let chosen = if found.len() > 1 { found.iter().find(answers) } else { None };
    Ok(chosen.or(found.first()).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), SocketAddr::ip))
}

/// The transport's part of the connection string. Certificates go through files of this query's own directory, because the drivers read them there.
fn protection(source: &Source, dir: &str) -> std::io::Result<String> {
    let Some(tls) = &source.tls else { return Ok(String::new()) };
    let (mode, names) = match source.engine {
        SourceEngine::Postgres => {
            let mode = match tls.mode {
                SslMode::Disabled => "disable",
                SslMode::Require => "require",
                SslMode::VerifyCa => "verify-ca",
                SslMode::VerifyFull => "verify-full",
            };
            (format!("sslmode={mode}"), ["sslrootcert", "sslcert", "sslkey"])
        }
        SourceEngine::MySql => {
            let mode = match tls.mode {
                SslMode::Disabled => "disabled",
                SslMode::Require => "required",
                SslMode::VerifyCa => "verify_ca",
                SslMode::VerifyFull => "verify_identity",
            };
            (format!("ssl_mode={mode}"), ["ssl_ca", "ssl_cert", "ssl_key"])
        }
    };
    let mut text = format!(" {mode}");
    if tls.mode == SslMode::Disabled {
        return Ok(text);
    }
    // With `require` libpq would check the certificate too if it were given an authority.
    let ca = tls.ca.as_ref().filter(|_| tls.mode != SslMode::Require);
    for (name, pem) in names.iter().zip([ca, tls.certificate.as_ref(), tls.key.as_ref()]) {
        if let Some(pem) = pem {
            let path = std::path::Path::new(dir).join(format!("{}-{name}.pem", source.alias));
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(pem.as_bytes())?;
            text.push_str(&format!(" {name}={}", path.display()));
        }
    }
    Ok(text)
}

/// What an engine may use.
pub(super) struct Bounds<'a> {
    pub(super) memory_mb: u64,
    pub(super) threads: u32,
    pub(super) temp_dir: &'a str,
    /// The only files that it may open, beside its own temporary ones.
    pub(super) paths: &'a [String],
}

/// After this no setting can be changed, no file read but the named ones, no further database attached.
pub(super) fn lock_down(connection: &Connection, bounds: &Bounds<'_>) -> Result<(), Failure> {
    // A path that is read with its signs of patterns masked is looked up by both texts.
    let paths: BTreeSet<String> = bounds.paths.iter().flat_map(|path| [literal(path), literal(&masked(path))]).collect();
    let paths: Vec<String> = paths.into_iter().collect();
    let settings = [
        format!("SET memory_limit = '{}MB'", bounds.memory_mb),
        format!("SET threads = {}", bounds.threads.max(1)),
        format!("SET temp_directory = {}", literal(bounds.temp_dir)),
        format!("SET allowed_paths = [{}]", paths.join(", ")),
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

/// What a driver's words mean. They quote names and ids of ours, which may hold any letters, so short words count as words only, and after whole phrases.
fn attach_kind(text: &str) -> FailedKind {
    let lower = text.to_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    let is_of_tls = |word: &str| ["certificate", "ssl", "tls"].iter().any(|start| word.starts_with(start));
    if has(&["access denied", "password authentication failed", "no password supplied"]) {
        FailedKind::LoginRefused
    } else if lower.split(|letter: char| !letter.is_ascii_alphanumeric()).any(is_of_tls) {
        FailedKind::Untrusted
    } else if has(&["authentication"]) {
        FailedKind::LoginRefused
    } else if has(&["unknown database", "does not exist"]) {
        FailedKind::ObjectMissing
    } else {
        FailedKind::Unreachable
    }
}

fn cannot_attach(source: &Source, error: &duckdb::Error) -> Failure {
    let text = error.to_string();
    let kind = attach_kind(&text);
    let what = match kind {
        FailedKind::LoginRefused => "refused the login",
        FailedKind::ObjectMissing => "does not have the database",
        FailedKind::Untrusted => "is not trusted",
        _ => "cannot be reached",
    };
    Failure::new(kind, format!("`{}` ({}:{}) {what}: {}", source.alias, source.host, source.port, first_line(&text)))
}

/// Drivers append hints over several lines.
pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_holds_the_letters_of_tls_is_none() {
        let at = "IO Error: Unable to connect to Postgres at \"application_name=millrace_3MlRJj0S2tAzYAjKtLSoPPTRW4L\": connection to server failed:";
        for (said, kind) in [
            ("FATAL:  password authentication failed for user \"u\"", FailedKind::LoginRefused),
            ("FATAL:  database \"d\" does not exist", FailedKind::ObjectMissing),
            ("Connection refused", FailedKind::Unreachable),
            ("SSL error: certificate verify failed", FailedKind::Untrusted),
            ("server does not support SSL, but SSL was required", FailedKind::Untrusted),
            ("TLS handshake failed", FailedKind::Untrusted),
        ] {
            assert_eq!(attach_kind(&format!("{at} {said}")), kind, "{said}");
        }
    }
}
