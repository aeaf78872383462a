//! The child: one statement, then the end.

mod attach;
mod files;
mod objects;
mod proxy;
mod run;

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use duckdb::{Config, Connection};
use millrace_core::objects::ObjectAccess;

use crate::wire::{Answer, Errand, FailedKind, Failure, FilesErrand, Request, Work};

/// Where the extensions lie, if not where they were at build time.
const EXTENSION_DIR_VARIABLE: &str = "MILLRACE_EXTENSION_DIR";

/// The main of `millrace query-one`: warms up, reads one request from stdin, answers on stdout.
pub fn query_one() -> ExitCode {
    // The server may be killed at any time; a child without it has nobody to answer.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
    let warm = Warm::start();
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).is_err() || line.trim().is_empty() {
        return ExitCode::SUCCESS; // a warm child that is not needed any more
    }
    let answer = match serde_json::from_str::<Errand>(&line) {
        Ok(errand) => {
            // Before anything is resolved: the first rules of a process are its rules.
            let warm = errand.hosts.install().and(warm);
            match errand.work {
                Work::Statement(request) => answer(warm, &request),
                Work::Files(errand) => answer_files(warm, &errand),
            }
        }
        Err(_) => Answer::Failed { kind: FailedKind::Internal, message: "the request has an unknown form".to_owned() },
    };
    let mut out = std::io::stdout().lock();
    let written = serde_json::to_writer(&mut out, &answer).is_ok() && out.write_all(b"\n").is_ok() && out.flush().is_ok();
    if written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// DuckDB with its extensions loaded, before any statement or secret has been seen.
struct Warm {
    connection: Connection,
}

impl Warm {
    fn start() -> Result<Self, Failure> {
        let engine = |error: duckdb::Error| Failure::new(FailedKind::Internal, format!("the query engine cannot start: {error}"));
        let config = Config::default()
            .enable_autoload_extension(false)
            .and_then(|config| config.with("autoinstall_known_extensions", "false"))
            .and_then(|config| config.with("allow_community_extensions", "false"))
            .map_err(engine)?;
        let connection = Connection::open_in_memory_with_flags(config).map_err(engine)?;
        let dir = extension_dir()?;
        for name in ["postgres_scanner", "mysql_scanner"] {
            load(&connection, &dir, name)?;
        }
        Ok(Self { connection })
    }
}

/// Loads an extension from the folder where they lie; never from the network.
fn load(connection: &Connection, dir: &Path, name: &str) -> Result<(), Failure> {
    let path = dir.join(format!("{name}.duckdb_extension"));
    connection
        .execute_batch(&format!("LOAD {}", attach::literal(&path.to_string_lossy())))
        .map_err(|error| Failure::new(FailedKind::Internal, format!("the DuckDB extension `{}` cannot be loaded: {error}", path.display())))
}

fn extension_dir() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("lib/duckdb-extensions")));
    let candidates = [
        std::env::var_os(EXTENSION_DIR_VARIABLE).map(PathBuf::from),
        beside,
        option_env!("MILLRACE_BUILD_EXTENSION_DIR").map(PathBuf::from),
    ];
    candidates.into_iter().flatten().find(|dir| dir.is_dir()).ok_or_else(|| {
        Failure::new(FailedKind::Internal, format!("the DuckDB extensions are not found; name their folder in {EXTENSION_DIR_VARIABLE}"))
    })
}

fn answer(warm: Result<Warm, Failure>, request: &Request) -> Answer {
    match warm.and_then(|warm| run::run(&warm.connection, request)) {
        Ok(run::Rows { columns, rows, is_cut }) => Answer::Rows { columns, rows, is_cut },
        Err(failure) => Answer::Failed { kind: failure.kind, message: without_secrets(failure.message, request) },
    }
}

fn answer_files(warm: Result<Warm, Failure>, errand: &FilesErrand) -> Answer {
    let access = errand.access.clone().map(ObjectAccess::from);
    match warm.and_then(|warm| files::run(&warm, errand, access.as_ref())) {
        Ok(answer) => Answer::Files(Box::new(answer)),
        Err(failure) => {
            let message = access.iter().fold(failure.message, without_keys);
            Answer::Failed { kind: failure.kind, message }
        }
    }
}

/// Whatever a driver puts into its message, no password leaves the child.
fn without_secrets(message: String, request: &Request) -> String {
    let passwords = request.sources.iter().map(|source| source.password.as_str()).filter(|secret| !secret.is_empty());
    let message = passwords.fold(message, |message, secret| message.replace(secret, "***"));
    request.stores.iter().fold(message, |message, store| without_keys(message, &store.access.clone().into()))
}

fn without_keys(message: String, access: &ObjectAccess) -> String {
    let secrets = std::iter::once(&access.secret_key).chain(&access.session_token).filter(|secret| !secret.is_empty());
    secrets.fold(message, |message, secret| message.replace(secret.expose(), "***"))
}
