//! MariaDB of one's own.

use std::sync::Mutex;

use super::{Launch, Server, USER, free_port, fresh_dir, is_root, password, program, run, spawn, wait_until_listening};

const OS_USER: &str = "mysql";

/// Starts a server with a binary log, UTF-8 and these further options.
pub fn start(options: &[&str]) -> anyhow::Result<Server> {
    start_in(options, |_| Ok(Vec::new()))
}

/// As [`start`], with further options for files that are first put into the server's directory.
pub fn start_in(options: &[&str], prepare: impl FnOnce(&std::path::Path) -> anyhow::Result<Vec<String>>) -> anyhow::Result<Server> {
    let server = program("MariaDB (package `mariadb-server`)", &["mariadbd", "mysqld"], &[])?;
    let install = program("MariaDB (package `mariadb-server`)", &["mariadb-install-db", "mysql_install_db"], &[])?;
    let dir = fresh_dir("mariadb", is_root().then_some(OS_USER))?;
    let data = dir.join("data");
    // Servers that start sweep what looks like a temporary table out of this folder, also what belongs to others that share it.
    let temporary = format!("--tmpdir={}", dir.display());
    run(
        &install,
        &[
            "--no-defaults".into(),
            format!("--datadir={}", data.display()),
            temporary.clone(),
            "--auth-root-authentication-method=normal".into(),
            "--skip-test-db".into(),
        ],
        OS_USER,
    )?;
    let (port, password) = (free_port(), password());
    let init = dir.join("init.sql");
    let accounts = format!(
        "DELETE FROM mysql.global_priv WHERE User = '';\nFLUSH PRIVILEGES;\n\
         CREATE USER '{USER}'@'%' IDENTIFIED BY '{password}';\nGRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
    );
    std::fs::write(&init, accounts)?;
    let log = dir.join("server.log");
    let mut args: Vec<String> = vec![
        "--no-defaults".into(),
        format!("--datadir={}", data.display()),
        format!("--socket={}", dir.join("socket").display()),
        format!("--pid-file={}", dir.join("pid").display()),
        format!("--init-file={}", init.display()),
        format!("--port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--log-bin=binlog".into(),
        "--binlog-format=ROW".into(),
        "--server-id=1".into(),
        "--character-set-server=utf8mb4".into(),
        "--max-connections=300".into(),
        "--skip-name-resolve".into(),
        temporary,
    ];
    args.extend(options.iter().map(|option| (*option).to_owned()));
    args.extend(prepare(&dir)?);
    let mut child = spawn(&server, args.clone(), OS_USER, &log)?;
    wait_until_listening(&mut child, port, &log)?;
    let launch = Launch { program: server, args, os_user: OS_USER, log };
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
