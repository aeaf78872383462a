//! Clients that generators make of the OpenAPI document, and requests that a fuzzer makes of it.
//!
//! The generators are Python's and Node's; `./x` installs them and names their folder in `MILLRACE_API_TOOLS`. Without them these tests say that they were
//! left out.
#![allow(clippy::print_stdout)] // what is left out is said loudly

use std::path::{Path, PathBuf};
use std::process::Output;

use millrace_tests::database::{MySqlDatabase, unique};
use millrace_tests::dataset::products;
use millrace_tests::servers::{start_mariadb, start_postgres};
use millrace_tests::suites::rest::source;
use serde_json::json;

use crate::support::Server;

const ROWS: u64 = 1_000;

fn tools() -> Option<PathBuf> {
    let folder = std::env::var_os("MILLRACE_API_TOOLS").map(PathBuf::from);
    if folder.is_none() {
        println!("LEFT OUT: generated clients, because MILLRACE_API_TOOLS names no folder of generators");
    }
    folder
}

/// Runs a program to its end.
async fn run(program: &Path, args: &[&str], dir: &Path, env: &[(&str, String)]) -> Output {
    let child = tokio::process::Command::new(program)
        .args(args)
        .current_dir(dir)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(std::time::Duration::from_secs(900), child).await.expect("it ends").unwrap()
}

/// As [`run`]; answers what it printed.
async fn succeed(program: &Path, args: &[&str], dir: &Path, env: &[(&str, String)]) -> String {
    let output = run(program, args, dir, env).await;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} {args:?}: {printed}", program.display());
    printed
}

/// Writes the server's document into a folder.
async fn document(server: &Server, folder: &Path) {
    let document = server.api.get("/openapi.json").await.unwrap().body;
    std::fs::write(folder.join("openapi.json"), document.to_string()).unwrap();
}

/// What the quick start works with.
async fn given(server: &Server) -> (&'static str, String) {
    let shop = source("quick", &products(ROWS)).await;
    let place = |server: &millrace_tests::servers::Server| json!({"host": server.host, "port": server.port, "user": server.user, "password": server.password});
    let given = json!({"base": server.api.base, "key": server.key, "install": "install-of-a-test", "mysql": place(&server.mysql),
        "postgres": place(&server.postgres), "source": shop.name, "target": unique("quick"), "rows": ROWS});
    ("QUICK_START", given.to_string())
}

#[tokio::test]
async fn a_generated_python_client_runs_the_quick_start() {
    let Some(tools) = tools() else { return };
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    document(&server, folder.path()).await;
    let bin = tools.join("python/bin");
    let args = ["generate", "--path", "openapi.json", "--output-path", "millrace_client", "--meta", "none"];
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let printed = succeed(&bin.join("openapi-python-client"), &args, folder.path(), &[("PATH", path)]).await;
    // All that this generator cannot do: bodies of plain text, and YAML.
    let warnings: Vec<&str> = printed.lines().filter(|line| line.starts_with("Unable") || line.contains("nsupported content")).collect();
    assert!(
        warnings.iter().all(|line| line.contains("text/plain") || line.contains("application/yaml") || line.contains("text/html")),
        "{printed}"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/quick_start.py");
    let env = [given(&server).await, ("PYTHONPATH", folder.path().display().to_string())];
    let printed = succeed(&bin.join("python"), &[&script.to_string_lossy()], folder.path(), &env).await;
    assert!(printed.contains("quick start: done"), "{printed}");
}

#[tokio::test]
async fn a_generated_typescript_client_runs_the_quick_start() {
    let Some(tools) = tools() else { return };
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    document(&server, folder.path()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/quick_start.ts");
    std::fs::copy(script, folder.path().join("quick_start.ts")).unwrap();
    std::fs::write(folder.path().join("package.json"), json!({"type": "module"}).to_string()).unwrap();
    let modules = tools.join("node/node_modules");
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules")).unwrap();
    let bin = modules.join(".bin");
    succeed(&bin.join("openapi-typescript"), &["openapi.json", "--output", "schema.d.ts"], folder.path(), &[]).await;
    let options =
        "--strict --noEmitOnError --target es2022 --module esnext --moduleResolution bundler --lib es2022,dom quick_start.ts schema.d.ts";
    succeed(&bin.join("tsc"), &options.split(' ').collect::<Vec<_>>(), folder.path(), &[]).await;
    let printed = succeed(Path::new("node"), &["quick_start.js"], folder.path(), &[given(&server).await]).await;
    assert!(printed.contains("quick start: done"), "{printed}");
}

/// Requests that the document allows and requests that it forbids, thousands of them: none breaks the server, and every answer is as described.
#[tokio::test]
async fn a_fuzzer_of_the_document_finds_no_fault() {
    let Some(tools) = tools() else { return };
    // Servers of its own: what it makes there has odd names.
    let mysql = tokio::task::spawn_blocking(|| start_mariadb(&[])).await.unwrap().unwrap();
    let postgres = tokio::task::spawn_blocking(|| start_postgres(&[])).await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().display().to_string();
    let file = folder.path().join("customers.csv");
    std::fs::write(&file, "id,name,balance\n1,Ada,9.50\n2,Bo,0.25\n").unwrap();
    let server = Server::start_in(&[], &[("MILLRACE_FILE_ROOTS", &roots), ("HOME", &roots)]).await;
    let shop = MySqlDatabase::create(&mysql, "shop").await.unwrap();
    let statements = [
        "CREATE TABLE customers (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50), balance DECIMAL(10,2))",
        "INSERT INTO customers (name, balance) VALUES ('Ada', 9.50), ('Bo', 0.25)",
        "CREATE VIEW customer_names AS SELECT name FROM customers",
    ];
    shop.execute(&statements.map(str::to_owned)).await.unwrap();
    let my = server.api.connect("my1", "mysql", &mysql, &shop.name).await.unwrap();
    let pg = server.api.connect("pg1", "postgresql", &postgres, "postgres").await.unwrap();
    let mut document = server.api.get("/openapi.json").await.unwrap().body.to_string();
    for (example, real) in [
        ("\"conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0\"", format!("\"{my}\"")),
        ("\"conn_2NxQ3Z5bN7x9sR2tV6uK8pC0dE1\"", format!("\"{pg}\"")),
        ("\"shop\"", format!("\"{}\"", shop.name)),
        ("my1.shop.", format!("my1.{}.", shop.name)),
        ("\"db.example.com\"", format!("\"{}\"", mysql.host)),
        ("\"port\":3306", format!("\"port\":{}", mysql.port)),
        ("\"reader\"", format!("\"{}\"", mysql.user)),
        ("\"password\":\"secret\"", format!("\"password\":\"{}\"", mysql.password)),
        ("/home/ada/customers.csv", file.display().to_string()),
        ("\"/home/ada\"", format!("\"{roots}\"")),
    ] {
        assert!(document.contains(example), "no example holds {example}");
        document = document.replace(example, &real);
    }
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("openapi.json"), document).unwrap();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/schemathesis.toml").display().to_string();
    let base = format!("{}/api/v1", server.api.base);
    let args = ["--config-file", &config, "run", "openapi.json", "--url", &base, "--seed", "1", "--no-color"];
    let env =
        [("MILLRACE_KEY", server.key.clone()), ("MILLRACE_MYSQL", my), ("MILLRACE_POSTGRES", pg), ("MILLRACE_DATABASE", shop.name.clone())];
    let output = run(&tools.join("python/bin/st"), &args, work.path(), &env).await;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let cases = printed.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse::<u32>().ok()).unwrap_or(0);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert!(cases >= 2_000, "only {cases} cases: {printed}");
    assert_eq!(server.api.get("/health").await.unwrap().status, 200);
}
