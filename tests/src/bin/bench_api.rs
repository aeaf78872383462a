//! `./x bench api`: how fast the REST API answers about a database on the same machine, how many clients it bears, and what a large result costs in memory.
//!
//! Figures are of whole requests over HTTP on one connection, one after the other, after a warm-up; the server is a process of its own.
#![allow(clippy::print_stdout)] // it talks to people

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use millrace_tests::api::Api;
use millrace_tests::database::{MySqlDatabase, PgDatabase};
use millrace_tests::process::{Process, run};
use millrace_tests::servers::{Server, start_mariadb, start_postgres};
use serde_json::{Value, json};

/// Requests per figure.
const ROUNDS: usize = 1000;
/// How long a server may take to come to rest.
const REST: Duration = Duration::from_secs(300);
/// Tables of the database whose overview is asked for.
const TABLES: usize = 100;
/// Clients that ask at the same time, and requests of each.
const CLIENTS: usize = 500;
const REQUESTS: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    match bench().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("bench: a request failed or an answer was wrong");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Side {
    engine: &'static str,
    base: String,
    connection: String,
}

async fn bench() -> anyhow::Result<bool> {
    let mut rows = 10_000_000_u64;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rows" => rows = args.next().and_then(|text| text.parse().ok()).context("--rows needs a number")?,
            other => bail!("unknown option `{other}`; there is --rows N"),
        }
    }
    let mysql = tokio::task::spawn_blocking(|| start_mariadb(&["--innodb-buffer-pool-size=2G"])).await??;
    let postgres = tokio::task::spawn_blocking(|| start_postgres(&["shared_buffers=1GB"])).await??;
    let my = MySqlDatabase::create(&mysql, "api").await?;
    let pg = PgDatabase::create(&postgres, "api").await?;
    fill(&my, &pg, rows).await?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().display().to_string();
    let (_, key, _) = run(&["keys", "create", "--data-dir", &data], &[]).await?;
    let (server, base) = Process::serve(dir.path(), &[]).await?;
    let mut api = Api::new(&base);
    api.key = Some(key.trim().to_owned());
    let mut is_right = true;
    for side in [side(&api, "mysql", &mysql, &my.name).await?, side(&api, "postgresql", &postgres, &pg.name).await?] {
        println!("\n{} · {rows} rows · {TABLES} further tables", side.engine);
        is_right &= figures(&api, &side, rows).await?;
        is_right &= crowd(&api, &side).await?;
        is_right &= large_result(&api, &server, &side).await?;
    }
    Ok(is_right)
}

async fn side(api: &Api, engine: &'static str, server: &Server, database: &str) -> anyhow::Result<Side> {
    let connection = api.connect(engine, engine, server, database).await?;
    Ok(Side { engine, base: format!("/connections/{connection}/databases/{database}"), connection })
}

async fn fill(my: &MySqlDatabase, pg: &PgDatabase, rows: u64) -> anyhow::Result<()> {
    println!("filling {rows} rows into each server …");
    let mut statements = vec![
        "CREATE TABLE big (id BIGINT PRIMARY KEY, name VARCHAR(100), price DECIMAL(10,2), made_at DATETIME)".to_owned(),
        format!("INSERT INTO big SELECT seq, CONCAT('product ', seq), ROUND(seq % 10000 / 7, 2), '2020-01-01' FROM seq_1_to_{rows}"),
        "ANALYZE TABLE big".to_owned(),
    ];
    statements.extend(
        (0..TABLES).map(|n| format!("CREATE TABLE small{n} (id INT PRIMARY KEY, a BIGINT REFERENCES big (id), b TEXT, KEY by_a (a))")),
    );
    statements.extend((0..TABLES).map(|n| format!("INSERT INTO small{n} SELECT seq, NULL, 'x' FROM seq_1_to_200")));
    my.execute(&statements).await?;
    let mut text = format!(
        "CREATE TABLE big (id bigint PRIMARY KEY, name varchar(100), price numeric(10,2), made_at timestamp);
         INSERT INTO big SELECT n, 'product ' || n, round((n % 10000)::numeric / 7, 2), '2020-01-01' FROM generate_series(1, {rows}) n;"
    );
    for n in 0..TABLES {
        text.push_str(&format!(
            "CREATE TABLE small{n} (id int PRIMARY KEY, a int, b text); CREATE INDEX ON small{n} (a);
             INSERT INTO small{n} SELECT n, NULL, 'x' FROM generate_series(1, 200) n;"
        ));
    }
    pg.client.batch_execute(&text).await?;
    // Servers that still write what was filled in would be measured instead of what is asked.
    pg.client.batch_execute("VACUUM ANALYZE").await?;
    pg.client.batch_execute("CHECKPOINT").await?;
    my.execute(&["SET GLOBAL innodb_max_dirty_pages_pct = 0".to_owned()]).await?;
    let end = Instant::now() + REST;
    loop {
        let sql = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_BUFFER_POOL_PAGES_DIRTY'";
        let (dirty,): (String,) = sqlx::query_as(sql).fetch_one(&my.pool).await?;
        if dirty == "0" {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("MariaDB still has {dirty} pages to write after {} s", REST.as_secs());
        }
        // It tells nobody when it is done.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn figures(api: &Api, side: &Side, rows: u64) -> anyhow::Result<bool> {
    let middle = rows / 2;
    // The cursor of the page that ends in the middle of the table.
    let before = api.get(&format!("{}/tables/big/data?limit=100&skip_count=true&order_by=id&offset={}", side.base, middle - 100)).await?;
    let cursor = before.body["nextCursor"].as_str().context("no cursor")?.to_owned();
    let paths = [
        ("structure, remembered", "/meta".to_owned()),
        ("overview, anew", "/overview?refresh=true".to_owned()),
        ("first page of 100 rows", "/tables/big/data?limit=100&skip_count=true".to_owned()),
        ("page in the middle, by cursor", format!("/tables/big/data?limit=100&skip_count=true&order_by=id&after={cursor}")),
    ];
    let mut is_right = true;
    for (what, path) in paths {
        let path = format!("{}{path}", side.base);
        let rounds = if what.starts_with("overview") { ROUNDS / 10 } else { ROUNDS };
        let mut times = Vec::with_capacity(rounds);
        for round in 0..rounds + 5 {
            let begun_at = Instant::now();
            let (status, body) = api.fetch(&path).await?;
            let took = begun_at.elapsed();
            is_right &= status == 200;
            if what.starts_with("page") {
                let page: Value = serde_json::from_str(&body)?;
                is_right &= page["rows"][0][0] == json!(middle + 1);
            }
            if round >= 5 {
                times.push(took);
            }
        }
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        println!("  {what:<32} p50 {:7.2} ms   p99 {:7.2} ms", at(0.5), at(0.99));
    }
    Ok(is_right)
}

/// Many clients at once, each with a mixture of requests.
async fn crowd(api: &Api, side: &Side) -> anyhow::Result<bool> {
    let begun_at = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let (api, base, connection) = (api.clone(), side.base.clone(), side.connection.clone());
        tokio::spawn(async move {
            let mut failed = Vec::new();
            let mut slowest = Duration::ZERO;
            for request in 0..REQUESTS {
                let path = match (client + request) % 4 {
                    0 => format!("{base}/tables/small{}/data?limit=20", client % TABLES),
                    1 => format!("{base}/meta"),
                    2 => format!("{base}/tables/big/data?limit=50&skip_count=true&order_by=id"),
                    _ => format!("/connections/{connection}"),
                };
                let begun_at = Instant::now();
                match api.fetch(&path).await {
                    Ok((200, _)) => {}
                    Ok((status, body)) => failed.push(format!("{status}: {body}")),
                    Err(error) => failed.push(format!("{error:#}")),
                }
                slowest = slowest.max(begun_at.elapsed());
            }
            (failed, slowest)
        })
    });
    let mut failed = Vec::new();
    let mut slowest = Duration::ZERO;
    for client in futures::future::join_all(clients).await {
        let (more, time) = client?;
        failed.extend(more);
        slowest = slowest.max(time);
    }
    let seconds = begun_at.elapsed().as_secs_f64();
    println!(
        "  {CLIENTS} clients, {REQUESTS} requests each       {:7.0} requests/s, slowest {:.0} ms, {} failed",
        (CLIENTS * REQUESTS) as f64 / seconds,
        slowest.as_secs_f64() * 1000.0,
        failed.len()
    );
    if let Some(first) = failed.first() {
        println!("    the first: {first}");
    }
    Ok(failed.is_empty())
}

/// A result of a million rows, read as it comes.
async fn large_result(api: &Api, server: &Process, side: &Side) -> anyhow::Result<bool> {
    let client = reqwest::Client::new();
    let url = format!("{}/api/v1{}/query", api.base, side.base);
    let begun_at = Instant::now();
    let body: Value = json!({"query": "SELECT * FROM big WHERE id <= 1000000"});
    let mut chunks = client.post(url).json(&body).send().await?.error_for_status()?.bytes_stream();
    let (mut bytes, mut tail) = (0_u64, Vec::new());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        bytes += chunk.len() as u64;
        tail.extend_from_slice(&chunk);
        let surplus = tail.len().saturating_sub(300);
        tail.drain(..surplus);
    }
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let is_right = tail.contains("\"count\":1000000") && tail.contains("\"truncated\":false");
    println!(
        "  1,000,000 rows as one result     {:7.2} s, {} MB, server's peak memory {} MiB{}",
        begun_at.elapsed().as_secs_f64(),
        bytes / 1_000_000,
        server.peak_memory() / 1024,
        if is_right { "" } else { "; THE RESULT IS NOT WHOLE" }
    );
    Ok(is_right)
}
