//! PostgreSQL of one's own.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{Launch, Server, USER, free_port, fresh_dir, is_root, password, program, run, spawn, wait_until_listening};

const OS_USER: &str = "postgres";

/// Starts a server with password authentication, UTF-8 and these further settings (`name=value`).
pub fn start(settings: &[&str]) -> anyhow::Result<Server> {
    start_in(settings, |_| Ok(Vec::new()))
}

/// As [`start`], with further settings for files that are first put into the server's directory.
pub fn start_in(settings: &[&str], prepare: impl FnOnce(&std::path::Path) -> anyhow::Result<Vec<String>>) -> anyhow::Result<Server> {
    let bin = [("/usr/lib/postgresql", "bin/postgres")];
    let server = program("PostgreSQL (package `postgresql`)", &["postgres"], &bin)?;
    let initdb = program("PostgreSQL (package `postgresql`)", &["initdb"], &[("/usr/lib/postgresql", "bin/initdb")])?;
    let dir = fresh_dir("postgres", is_root().then_some(OS_USER))?;
    let (data, password_file) = (dir.join("data"), dir.join("password"));
    let (port, password) = (free_port(), password());
    std::fs::write(&password_file, &password)?;
    let text = |option: &str, path: &std::path::Path| format!("{option}={}", path.display());
    run(
        &initdb,
        &[
            text("--pgdata", &data),
            text("--pwfile", &password_file),
            format!("--username={USER}"),
            "--auth=scram-sha-256".into(),
            "--encoding=UTF8".into(),
            "--locale=C".into(),
            "--no-sync".into(),
        ],
        OS_USER,
    )?;
    let log = dir.join("server.log");
    let mut args: Vec<String> = vec!["-D".into(), data.display().to_string()];
    let fixed = [
        format!("port={port}"),
        "listen_addresses=127.0.0.1".into(),
        "unix_socket_directories=".into(),
        "wal_level=logical".into(),
        "max_connections=200".into(),
        "max_wal_size=4GB".into(),
        "log_min_messages=warning".into(),
        format!("timezone={}", super::ZONE),
    ];
    let prepared = prepare(&dir)?;
    for setting in fixed.into_iter().chain(settings.iter().map(|setting| (*setting).to_owned())).chain(prepared) {
        args.extend(["-c".to_owned(), setting]);
    }
    let mut child = spawn(&server, args.clone(), OS_USER, &log)?;
    wait_until_listening(&mut child, port, &log)?;
    let launch = Launch { program: server, args, os_user: OS_USER, log };
    wait_until_ready(port, &password)?;
    Ok(Server {
        host: "127.0.0.1".into(),
        port,
        user: USER.into(),
        password,
        child: Some(Mutex::new(child)),
        dir: Some(dir),
        launch: Some(launch),
    })
}

/// The port listens before the server lets anybody in.
fn wait_until_ready(port: u16, password: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user(USER).password(password).dbname("postgres");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match config.connect(tokio_postgres::NoTls).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
}
