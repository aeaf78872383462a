//! `./x demo`: moves a sample shop from a real MariaDB to a real PostgreSQL through the REST API, shows it, proves it, cleans up.
//! With `--cluster` by pods on a real Kubernetes.
#![allow(clippy::print_stdout)] // it talks to people

mod cluster;
mod parts;
mod terminal;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use millrace_tests::api::{Api, connection};
use millrace_tests::database::unique;
use millrace_tests::process::{Process, run as run_millrace};
use millrace_tests::servers::{Server, from_text, start_postgres};
use serde_json::{Value, json};

use parts::{call, member, sample_source, verify};

/// What the user asked for.
#[derive(Default)]
struct Options {
    source: Option<(Server, String)>,
    target: Option<(Server, String)>,
    scale: f64,
    keep: bool,
    is_on_cluster: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let options = options()?;
    if options.is_on_cluster {
        return cluster::demo(&options).await;
    }
    tokio::select! {
        result = demo(options) => result,
        // Servers and directories go with their owners, which this drops.
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted; everything is cleaned up")),
    }
}

async fn demo(options: Options) -> anyhow::Result<()> {
    println!("1. Two real database servers");
    let (mysql, source) = match options.source {
        Some((server, database)) => (server, database),
        None => sample_source(options.scale).await?,
    };
    let (postgres, target) = match options.target {
        Some((server, database)) => (server, database),
        None => (tokio::task::spawn_blocking(|| start_postgres(&[])).await??, unique("shop_copy")),
    };
    println!("   MySQL/MariaDB at {}:{}, PostgreSQL at {}:{}", mysql.host, mysql.port, postgres.host, postgres.port);

    println!("2. The server: `millrace keys create`, `millrace serve`");
    let dir = tempfile::tempdir()?;
    let data_dir = dir.path().display().to_string();
    let (code, key, error) = run_millrace(&["keys", "create", "--data-dir", &data_dir], &[]).await?;
    if code != 0 {
        bail!("no key: {error}");
    }
    let (mut process, base) = Process::serve(dir.path(), &[]).await?;
    let mut api = Api::new(&base);
    api.key = Some(key.trim().to_owned());
    println!("   listening on {base}");

    println!("3. The four calls of the quick start");
    let from = call(&api, "/connections", connection("shop", "mysql", &mysql, &source)).await?;
    let to = call(&api, "/connections", connection("copy", "postgresql", &postgres, &target)).await?;
    let (from, to) = (member(&from, "id")?, member(&to, "id")?);
    let config = json!({"name": "full_migration", "mode": "convert",
        "source": {"connections": [{"connectionId": from, "database": source}]},
        "target": {"id": to, "spec": {"db": {"database": target}}}});
    let config = member(&call(&api, "/stream-configs", config).await?, "id")?;
    let started = Instant::now();
    let stream = member(&call(&api, &format!("/stream-configs/{config}/start"), Value::Null).await?, "id")?;
    println!("   curl {base}/api/v1/streams/{stream}/stats -H \"X-API-Key: $KEY\"\n");
    let stats = watch(&api, &stream).await?;
    let seconds = started.elapsed().as_secs_f64();
    let rows = stats["target"]["counter"].as_u64().unwrap_or(0);
    println!("   {rows} rows in {seconds:.1} s, {:.0} rows/s, keys and indexes included", rows as f64 / seconds);
    for notice in stats["notices"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        println!("   note: {notice}");
    }

    println!("4. Proof: every table's rows and digests, read by other drivers");
    verify(&mysql, &source, &postgres, &target).await?;

    println!("5. One statement over both servers");
    let table = stats["tables"][0]["table"].as_str().context("no table")?.to_owned();
    let sql = match options_is_sample(&source) {
        true => format!(
            "SELECT c.state, count(*) AS orders, sum(o.total) AS total FROM pg1.public.customers c JOIN my1.{source}.orders o ON o.customer_id = c.id GROUP BY ALL ORDER BY 1"
        ),
        false => format!(
            "SELECT (SELECT count(*) FROM pg1.public.\"{table}\") AS copy, (SELECT count(*) FROM my1.{source}.\"{table}\") AS source"
        ),
    };
    let answer = call(&api, "/query/federated", json!({"sql": sql})).await?;
    println!("   {}\n", answer["rows"]);
    println!("Where to go next: README.md; docs/architecture.md; {base}/api/v1/openapi.json;");
    println!("  `millrace copy mysql://USER@HOST/DB postgres://USER@HOST/DB` does the same in one command.");
    if options.keep {
        println!("\nKept until Ctrl-C: {base}, key in $KEY: {}", key.trim());
        tokio::signal::ctrl_c().await?;
    }
    process.terminate().await;
    Ok(())
}

/// The sample's database has a name of ours.
fn options_is_sample(source: &str) -> bool {
    source.starts_with("shop_")
}

/// Shows the tables' progress until the run has ended.
async fn watch(api: &Api, stream: &str) -> anyhow::Result<Value> {
    let is_terminal = std::io::stdout().is_terminal();
    let clear = if is_terminal { "\x1b[K" } else { "" };
    let mut shown = 0;
    loop {
        let stats = api.get(&format!("/streams/{stream}/stats")).await?.body;
        let tables = stats["tables"].as_array().cloned().unwrap_or_default();
        let status = stats["status"].as_str().unwrap_or_default().to_owned();
        let is_end = !matches!(status.as_str(), "RUNNING" | "READY" | "PAUSED");
        if is_terminal || is_end {
            if is_terminal && shown > 0 {
                print!("\x1b[{shown}A");
            }
            for table in &tables {
                let rate = table["rate"].as_f64().unwrap_or(0.0) / 1e6;
                println!(
                    "   {:<18} {:>10} rows {rate:>8.1} MB/s  {}{clear}",
                    text(table, "table"),
                    table["rowsRead"],
                    text(table, "status")
                );
            }
            shown = tables.len();
            std::io::stdout().flush()?;
        }
        if is_end {
            if status != "FINISHED" {
                bail!("the run ended as {status}: {}", stats["error"]);
            }
            return Ok(stats);
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn options() -> anyhow::Result<Options> {
    let mut options = Options { scale: 1.0, ..Options::default() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--source" => {
                options.source = Some(from_text(&value()?, 3306).context("--source is not mysql://user:password@host:port/database")?)
            }
            "--target" => {
                options.target = Some(from_text(&value()?, 5432).context("--target is not postgres://user:password@host:port/database")?)
            }
            "--scale" => options.scale = value()?.parse().context("--scale is not a number")?,
            "--keep" => options.keep = true,
            "--cluster" => options.is_on_cluster = true,
            other => bail!("unknown option `{other}`; there are --source URL, --target URL, --scale N, --keep, --cluster"),
        }
    }
    Ok(options)
}
