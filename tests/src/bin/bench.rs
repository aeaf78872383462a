//! `./x bench convert`: the same table moved by Millrace and by peers, in turn, on the same servers; speed next to correctness.
//!
//! Servers run with their default durability (fsync, synchronous commit, logged tables). Figures are whole processes: wall time, CPU of the tool itself,
//! its peak resident memory. A tool whose copy differs from the source is said so.
#![allow(clippy::print_stdout)] // it talks to people

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use millrace_tests::database::{MySqlDatabase, PgDatabase, pg_client, unique};
use millrace_tests::dataset::{products, wide};
use millrace_tests::digest::assert_equal;
use millrace_tests::process::binary;
use millrace_tests::servers::{Server, start_mariadb, start_postgres};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What one run cost.
struct Cost {
    wall: f64,
    cpu: f64,
    peak_kib: u64,
    is_equal: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tool {
    Millrace,
    Pgloader,
    Sling,
    DuckDb,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Millrace => "millrace",
            Self::Pgloader => "pgloader",
            Self::Sling => "sling",
            Self::DuckDb => "DuckDB CREATE TABLE AS (no key)",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is copied.
#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    rows: u64,
}

async fn bench() -> anyhow::Result<()> {
    let (mut rows, mut runs, mut with_peers, mut name) = (None, 3usize, true, "products");
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok()).with_context(|| format!("{arg} needs a number"));
        match arg.as_str() {
            "--rows" => rows = Some(number()?),
            "--runs" => runs = number()? as usize,
            "--wide" => name = "wide",
            "--alone" => with_peers = false,
            other => bail!("unknown option `{other}`; there are --rows N, --runs N, --wide, --alone"),
        }
    }
    let table = Table { name, rows: rows.unwrap_or(if name == "wide" { 200_000 } else { 1_000_000 }) };
    // In UTC: some peers shift moments by the servers' zone, and their digests are to tell of more than that.
    let mysql = tokio::task::spawn_blocking(|| start_mariadb(&["--innodb-buffer-pool-size=2G", "--default-time-zone=+00:00"])).await??;
    let postgres = tokio::task::spawn_blocking(|| start_postgres(&["shared_buffers=256MB", "timezone=UTC"])).await??;
    let source = MySqlDatabase::create(&mysql, "bench").await?;
    source.execute(&if name == "wide" { wide(table.rows) } else { products(table.rows) }).await?;
    let mut tools = vec![Tool::Millrace];
    for tool in [Tool::Pgloader, Tool::Sling, Tool::DuckDb].into_iter().filter(|_| with_peers) {
        if tool.is_installed() {
            tools.push(tool);
        } else {
            println!("{} is not installed and left out", tool.name());
        }
    }
    println!("{} rows of {name}, MariaDB to PostgreSQL with primary key, {runs} runs in turn, {}\n", table.rows, binary()?.display());
    // Not counted: a new server has to make its log's files, which later runs use again.
    one_run(Tool::Millrace, table, &mysql, &source, &postgres).await?;
    let mut costs: Vec<Vec<Cost>> = tools.iter().map(|_| Vec::new()).collect();
    let mut failed = vec![false; tools.len()];
    for _ in 0..runs {
        for (index, tool) in tools.iter().enumerate().filter(|(index, _)| !failed[*index]).collect::<Vec<_>>() {
            match one_run(*tool, table, &mysql, &source, &postgres).await {
                Ok(cost) => costs[index].push(cost),
                Err(error) if *tool != Tool::Millrace => {
                    println!("{} FAILS and is left out from here on: {error:#}\n", tool.name());
                    failed[index] = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
    let (tools, costs): (Vec<Tool>, Vec<Vec<Cost>>) = tools.into_iter().zip(costs).filter(|(_, costs)| !costs.is_empty()).unzip();
    report(table.rows, &tools, &costs);
    Ok(())
}

impl Tool {
    fn is_installed(self) -> bool {
        match self {
            Self::Millrace => true,
            Self::Pgloader => is_installed("pgloader"),
            Self::Sling => peer(SLING).is_some_and(|path| path.is_file()),
            Self::DuckDb => peer("duckdb").is_some_and(|path| path.is_dir()) && is_installed("python3"),
        }
    }
}

const SLING: &str = "sling_linux_amd64/bin/sling-linux-amd64";

/// What DuckDB does: both servers attached, one statement.
const CTAS: &str = "import duckdb, os
c = duckdb.connect(config={'allow_unsigned_extensions': 'false'})
for e in ('postgres_scanner', 'mysql_scanner'):
    c.execute(\"LOAD '\" + os.environ['EXTENSIONS'] + '/' + e + \".duckdb_extension'\")
c.execute(\"ATTACH '\" + os.environ['MY'] + \"' AS m (TYPE mysql, READ_ONLY)\")
c.execute(\"ATTACH '\" + os.environ['PG'] + \"' AS p (TYPE postgres)\")
c.execute('CREATE TABLE p.public.' + os.environ['NAME'] + ' AS SELECT * FROM m.' + os.environ['NAME'])
";

/// A file of the folder in which peers are installed.
fn peer(path: &str) -> Option<std::path::PathBuf> {
    Some(std::path::PathBuf::from(std::env::var_os("MILLRACE_BENCH_PEERS")?).join(path))
}

async fn one_run(tool: Tool, table: Table, mysql: &Server, source: &MySqlDatabase, postgres: &Server) -> anyhow::Result<Cost> {
    let target = unique("bench");
    let admin = pg_client(postgres, "postgres").await?;
    admin.batch_execute(&format!("CREATE DATABASE \"{target}\"")).await?;
    // What an earlier run left to be written must not be paid by this one.
    admin.batch_execute("CHECKPOINT").await?;
    let (command, schema) = command(tool, table, mysql, source, postgres, &target)?;
    let mut cost = tokio::task::spawn_blocking(move || measure(command)).await??;
    let copy = PgDatabase::open(postgres, &target).await?;
    let compared = assert_equal(&source.pool, &source.name, &copy.client, &schema, table.name).await;
    if let Err(difference) = &compared {
        let text: String = format!("{difference:#}").chars().take(300).collect();
        println!("{}: {text}", tool.name());
    }
    cost.is_equal = compared.is_ok();
    drop(copy);
    admin.batch_execute(&format!("DROP DATABASE \"{target}\" WITH (FORCE)")).await?;
    Ok(cost)
}

/// A tool's command line, and the schema that it writes to.
fn command(
    tool: Tool,
    table: Table,
    mysql: &Server,
    source: &MySqlDatabase,
    postgres: &Server,
    target: &str,
) -> anyhow::Result<(Command, String)> {
    let place = |scheme: &str, server: &Server, password: &str, database: &str| {
        format!("{scheme}://{}{password}@{}:{}/{database}", server.user, server.host, server.port)
    };
    let my_password = format!(":{}", mysql.password);
    let pg_password = format!(":{}", postgres.password);
    Ok(match tool {
        Tool::Millrace => {
            let mut command = Command::new(binary()?);
            command
                .args(["copy", &place("mysql", mysql, "", &source.name), &place("postgres", postgres, "", target)])
                .env("MILLRACE_SOURCE_PASSWORD", &mysql.password)
                .env("MILLRACE_TARGET_PASSWORD", &postgres.password);
            (command, "public".to_owned())
        }
        Tool::Pgloader => {
            let mut command = Command::new("pgloader");
            command.args([place("mysql", mysql, &my_password, &source.name), place("postgresql", postgres, &pg_password, target)]);
            (command, source.name.clone())
        }
        Tool::Sling => {
            let mut command = Command::new(peer(SLING).context("sling")?);
            let stream = format!("{}.{}", source.name, table.name);
            let object = format!("public.{}", table.name);
            command
                .args([
                    "run",
                    "--src-conn",
                    "MY",
                    "--src-stream",
                    &stream,
                    "--tgt-conn",
                    "PG",
                    "--tgt-object",
                    &object,
                    "--mode",
                    "full-refresh",
                ])
                .env("MY", place("mysql", mysql, &my_password, &source.name))
                .env("PG", format!("{}?sslmode=disable", place("postgres", postgres, &pg_password, target)))
                .env("SLING_HOME_DIR", std::env::temp_dir())
                .env("SLING_DISABLE_TELEMETRY", "true");
            (command, "public".to_owned())
        }
        Tool::DuckDb => {
            let mut command = Command::new("python3");
            let text = |server: &Server, user: &str, database: &str, name: &str| {
                format!("host={} port={} {user}={} password={} {name}={database}", server.host, server.port, server.user, server.password)
            };
            command
                .args(["-c", CTAS])
                .env("PYTHONPATH", peer("").context("duckdb")?)
                .env("EXTENSIONS", std::env::var("MILLRACE_BENCH_EXTENSIONS").unwrap_or_default())
                .env("MY", text(mysql, "user", &source.name, "database"))
                .env("PG", text(postgres, "user", target, "dbname"))
                .env("NAME", table.name);
            (command, "public".to_owned())
        }
    })
}

/// Runs a command to its end; its CPU time is the system's own account of ended children.
fn measure(mut command: Command) -> anyhow::Result<Cost> {
    let cpu = || {
        getrusage(UsageWho::RUSAGE_CHILDREN)
            .map(|usage| (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
    };
    let before = cpu()?;
    let started = Instant::now();
    let errors = tempfile::NamedTempFile::new()?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors.reopen()?).spawn()?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let text = std::fs::read_to_string(&status_file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak_kib = line.trim().trim_end_matches(" kB").parse().unwrap_or(0).max(peak_kib);
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        let text = std::fs::read_to_string(errors.path()).unwrap_or_default();
        let end: String = text.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
        bail!("`{}` failed with {status}: {end}", Path::new(command.get_program()).display());
    }
    Ok(Cost { wall: started.elapsed().as_secs_f64(), cpu: cpu()? - before, peak_kib, is_equal: false })
}

fn report(rows: u64, tools: &[Tool], costs: &[Vec<Cost>]) {
    let median = |values: Vec<f64>| {
        let mut values = values;
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("| tool | seconds (median, min–max) | rows/s | CPU s of the tool | peak MiB | digests |");
    println!("|---|---|---|---|---|---|");
    let mut medians = Vec::new();
    for (tool, costs) in tools.iter().zip(costs) {
        let walls: Vec<f64> = costs.iter().map(|cost| cost.wall).collect();
        let (least, most) = (walls.iter().copied().fold(f64::MAX, f64::min), walls.iter().copied().fold(0.0, f64::max));
        let wall = median(walls);
        medians.push(wall);
        println!(
            "| {} | {wall:.2} ({least:.2}–{most:.2}) | {:.0} | {:.2} | {:.0} | {} |",
            tool.name(),
            rows as f64 / wall,
            median(costs.iter().map(|cost| cost.cpu).collect()),
            costs.iter().map(|cost| cost.peak_kib).max().unwrap_or(0) as f64 / 1024.0,
            if costs.iter().all(|cost| cost.is_equal) { "equal" } else { "DIFFERENT" },
        );
    }
    for (tool, wall) in tools.iter().zip(&medians).skip(1) {
        println!("\nmillrace is {:.1} times as fast as {}", wall / medians[0], tool.name());
    }
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
