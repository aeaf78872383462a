//! Real database servers, started once per process on free ports, in a directory that goes with them.
//!
//! A server dies with the process that started it, even if that is killed: it is started from a thread that lives as long as the process, with a
//! parent-death signal. `MILLRACE_TEST_MYSQL_URL` and `MILLRACE_TEST_POSTGRES_URL` name servers of one's own instead.

pub mod kubernetes;
mod mariadb;
mod nats;
mod postgres;
mod s3;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::OnceCell;

pub use mariadb::{start as start_mariadb, start_in as start_mariadb_in};
pub use nats::start as start_nats;
pub use postgres::{start as start_postgres, start_in as start_postgres_in};
pub use s3::{ObjectStore, shared_objects, start as start_objects};

/// The user of every test connection.
pub const USER: &str = "millrace_test";

/// The servers' time zone.
pub const ZONE: &str = "America/Chicago";

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// Loopback address.
    pub host: String,
    /// Free port.
    pub port: u16,
    /// Privileged user.
    pub user: String,
    /// Its password, random per run.
    pub password: String,
    child: Option<std::sync::Mutex<Child>>,
    dir: Option<PathBuf>,
    launch: Option<Launch>,
}

/// How a server was started.
#[derive(Debug, Clone)]
struct Launch {
    program: PathBuf,
    args: Vec<String>,
    os_user: &'static str,
    log: PathBuf,
}

/// The two servers of this process.
#[derive(Debug)]
pub struct Servers {
    /// MariaDB or MySQL.
    pub mysql: Server,
    /// PostgreSQL.
    pub postgres: Server,
}

static SHARED: OnceCell<Servers> = OnceCell::const_new();

/// The servers that all tests of this process share.
///
/// # Panics
/// If a server is missing or does not start: a test run without its servers has failed.
pub async fn shared() -> &'static Servers {
    SHARED
        .get_or_init(|| async {
            let started = tokio::task::spawn_blocking(|| {
                let mysql = from_url("MILLRACE_TEST_MYSQL_URL", 3306).unwrap_or_else(|| start_mariadb(&[]).expect("MariaDB"));
                let postgres = from_url("MILLRACE_TEST_POSTGRES_URL", 5432).unwrap_or_else(|| start_postgres(&[]).expect("PostgreSQL"));
                Servers { mysql, postgres }
            });
            started.await.expect("servers")
        })
        .await
}

impl Server {
    /// A connection URL with the password, as `millrace copy` takes it.
    pub fn url(&self, scheme: &str, database: &str) -> String {
        format!("{scheme}://{}:{}@{}:{}/{database}", self.user, self.password, self.host, self.port)
    }

    /// The same server as it is reached through another port.
    pub fn through(other: &Self, port: u16) -> Self {
        Self::at(other, Some("127.0.0.1"), Some(port))
    }

    /// The same server as it is reached at another address or port.
    pub fn at(other: &Self, host: Option<&str>, port: Option<u16>) -> Self {
        Self {
            host: host.unwrap_or(&other.host).to_owned(),
            port: port.unwrap_or(other.port),
            user: other.user.clone(),
            password: other.password.clone(),
            child: None,
            dir: None,
            launch: None,
        }
    }

    /// SIGKILL, as a crash or the kernel's out-of-memory killer would.
    pub fn kill(&self) {
        if let Some(child) = &self.child {
            let mut child = child.lock().expect("no panic while stopping");
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a killed server again on its data and waits until it listens.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let (Some(child), Some(launch)) = (&self.child, &self.launch) else { bail!("this server was not started here") };
        // Processes of PostgreSQL outlive their parent for a moment and hold its memory.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut started = spawn(&launch.program, launch.args.clone(), launch.os_user, &launch.log)?;
            match wait_until_listening(&mut started, self.port, &launch.log) {
                Ok(()) => {
                    *child.lock().expect("no panic while starting") = started;
                    return Ok(());
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// A directory of this server that its operating system user owns.
    pub fn sub_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let (Some(dir), Some(launch)) = (&self.dir, &self.launch) else { bail!("this server was not started here") };
        let dir = dir.join(name);
        std::fs::create_dir(&dir)?;
        if is_root() {
            let (uid, gid) = ids(launch.os_user)?;
            std::os::unix::fs::chown(&dir, Some(uid), Some(gid))?;
        }
        Ok(dir)
    }

    /// Stops the server and removes its data.
    pub fn stop(&self) {
        if let Some(child) = &self.child {
            let mut child = child.lock().expect("no panic while stopping");
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A server of somebody's own: `scheme://user:password@host:port`.
fn from_url(variable: &str, default_port: u16) -> Option<Server> {
    let url = std::env::var(variable).ok()?;
    from_text(&url, default_port).map(|(server, _)| server)
}

/// A server and a database of somebody's own: `scheme://user:password@host:port/database`.
pub fn from_text(url: &str, default_port: u16) -> Option<(Server, String)> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (login, place) = rest.rsplit_once('@')?;
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (place, database) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = place.rsplit_once(':').unwrap_or((place, ""));
    let server = Server {
        host: host.to_owned(),
        port: port.parse().unwrap_or(default_port),
        user: user.to_owned(),
        password: password.to_owned(),
        child: None,
        dir: None,
        launch: None,
    };
    Some((server, database.to_owned()))
}

/// Below what the kernel gives to connections that go out, and to services of a cluster's nodes: nobody takes a port before its server listens, or while it is
/// started again.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// A port that nobody listens at, and that no other caller in this process gets.
///
/// # Panics
/// If a thousand tries find none.
pub fn free_port() -> u16 {
    static GIVEN: std::sync::Mutex<BTreeSet<u16>> = std::sync::Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no panic while choosing");
    let is_free = |port: &u16| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = std::iter::repeat_with(|| rand::random_range(PORTS)).take(1000).find(is_free).expect("a free port");
    given.insert(port);
    port
}

/// 24 random letters and digits with a prefix that a search for leaks finds.
fn password() -> String {
    let digits: String = rand::random::<[u8; 12]>().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("S3cret{digits}")
}

/// A directory of this process for one server; those of processes that are gone are removed.
fn fresh_dir(name: &str, owner: Option<&str>) -> anyhow::Result<PathBuf> {
    let root = std::env::temp_dir();
    for entry in std::fs::read_dir(&root)?.flatten() {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let pid = file_name.strip_prefix("millrace-test-").and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = root.join(format!("millrace-test-{}-{name}-{:08x}", std::process::id(), rand::random::<u32>()));
    std::fs::create_dir(&dir)?;
    if let Some(owner) = owner {
        let (uid, gid) = ids(owner)?;
        std::os::unix::fs::chown(&dir, Some(uid), Some(gid))?;
    }
    Ok(dir)
}

fn ids(user: &str) -> anyhow::Result<(u32, u32)> {
    let user = nix::unistd::User::from_name(user)?.with_context(|| format!("there is no user `{user}`"))?;
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The first of these files that exists.
fn program(what: &str, candidates: &[&str], patterns: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let in_path = candidates.iter().flat_map(|name| path.split(':').chain(["/usr/sbin"]).map(move |dir| Path::new(dir).join(name)));
    let mut found: Vec<PathBuf> = patterns
        .iter()
        .flat_map(|(dir, rest)| std::fs::read_dir(dir).into_iter().flatten().flatten().map(move |entry| entry.path().join(rest)))
        .collect();
    found.sort();
    let mut all = found.into_iter().rev().chain(in_path);
    match all.find(|path| path.is_file()) {
        Some(program) => Ok(program),
        None => bail!(
            "{what} is not installed: run `./x deps` as root, install it, or name a server in MILLRACE_TEST_MYSQL_URL and MILLRACE_TEST_POSTGRES_URL"
        ),
    }
}

/// Starts a program as `user` (when we are root) that dies with this process.
fn spawn(program: &Path, args: Vec<String>, user: &str, log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::create(log)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    // Far from UTC and with summer time, so that a moment that is moved by a zone is noticed.
    command.env("TZ", ZONE);
    command.arg(program).args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // The signal is sent when the thread that started the program ends, so that thread must not.
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("server".into()).spawn(move || {
        let _ = sender.send(command.spawn());
        loop {
            std::thread::park();
        }
    })?;
    Ok(receiver.recv()??)
}

/// Runs a program as `user` (when we are root) to its end.
fn run(program: &Path, args: &[String], user: &str) -> anyhow::Result<()> {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = command.args(args).stdin(Stdio::null()).current_dir("/").output()?;
    if !output.status.success() {
        bail!("`{}` failed: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Waits until something listens on the port; fails with the log's end if the server has died.
fn wait_until_listening(child: &mut Child, port: u16, log: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        if let Ok(Some(status)) = child.try_wait() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let end: Vec<&str> = text.lines().rev().take(15).collect();
            bail!("the server ended with {status}: {}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        if Instant::now() > deadline {
            bail!("the server does not listen on port {port} after 60 s");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
