//! What `./x` calls: everything that is done with this repository, in one place.
#![allow(clippy::print_stdout)] // it talks to people

mod arrows;
mod chart_docs;
mod cluster;
mod deps;
mod image_build;
mod scratch;
mod shell;
mod sizes;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

use cluster::Cluster;
use scratch::Scratch;
use shell::{Step, repository};

#[derive(Debug, Parser)]
#[command(name = "x", about = "Builds, checks, tests and shows Millrace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch what a build and the tests need: libduckdb, its extensions, database servers
    Deps {
        /// Only what a build needs
        #[arg(long)]
        build_only: bool,
    },
    /// Build the image from the Dockerfile with buildah, on bases made here, and look at what came out
    Image(image_build::Options),
    /// Build the binary
    Build {
        /// Optimised, for use
        #[arg(long)]
        release: bool,
    },
    /// Formatting, lints, sizes, dependency arrows, generated files, licences
    Check,
    /// Check, then all tests on real servers, then those on a real cluster
    Test {
        /// Leave the checks out
        #[arg(long)]
        no_check: bool,
    },
    /// Integration tests only, those whose name holds the filter
    It {
        /// Part of a test's name
        filter: Option<String>,
    },
    /// Make the generated files anew
    Gen {
        /// Only say whether they are stale
        #[arg(long)]
        check: bool,
    },
    /// Show a copy of a sample shop from MariaDB to PostgreSQL through the REST API, or by pods on a real Kubernetes
    Demo {
        /// `--source mysql://… --target postgres://…`, `--cluster`, `--scale 0.1`, `--keep`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// A Kubernetes of one node on this machine, for tests
    Cluster {
        /// Which one, where there are several
        #[arg(long, default_value = "dev")]
        name: String,
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Measure ourselves and peers
    Bench {
        /// What is measured: `convert`
        what: String,
        /// Further arguments of the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Start it
    Up,
    /// End it and remove every trace
    Down,
    /// Build this repository's image and load it
    LoadImage,
    /// Run kubectl on it
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run helm on it
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

/// Generated files: where they stand and which subcommand of `millrace` prints them.
const GENERATED: [(&str, &[&str]); 10] = [
    ("apiserver/openapi.json", &["openapi"]),
    ("docs/api-coverage.md", &["api-coverage"]),
    ("docs/errors.md", &["errors"]),
    ("docs/fidelity.md", &["fidelity"]),
    ("crds/yaml/connections.yaml", &["crds", "connections"]),
    ("crds/yaml/streamconfigs.yaml", &["crds", "streamconfigs"]),
    ("crds/yaml/streams.yaml", &["crds", "streams"]),
    ("charts/millrace/crds/connections.yaml", &["crds", "connections"]),
    ("charts/millrace/crds/streamconfigs.yaml", &["crds", "streamconfigs"]),
    ("charts/millrace/crds/streams.yaml", &["crds", "streams"]),
];

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Deps { build_only: true } => deps::ensure(false),
        Command::Deps { build_only: false } => {
            deps::ensure(true)?;
            deps::kubernetes();
            Ok(())
        }
        Command::Image(options) => image_build::run(&options),
        Command::Build { release } => build(release),
        Command::Check => check(),
        Command::Test { no_check } => test(no_check),
        Command::It { filter } => it(filter),
        Command::Gen { check } => generate(check),
        Command::Demo { args } if args.iter().any(|arg| arg == "--cluster") => cluster::demo(&args),
        Command::Demo { args } => tool("millrace-demo", &args),
        Command::Cluster { name, command } => on_cluster(&name, command),
        Command::Bench { what, args } => bench(&what, &args),
    }
}

fn build(release: bool) -> anyhow::Result<()> {
    deps::ensure(false)?;
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    Step::cargo(&["build", "--package", "millrace"]).args(profile).features(deps::features()).run()?;
    let folder = if release { "release" } else { "debug" };
    println!("built {}", shell::target_dir()?.join(folder).join("millrace").display());
    Ok(())
}

/// Builds the binary for tests, with the packages that give its dependencies the features they have in `cargo test --workspace`: nothing is compiled twice.
fn build_for_tests() -> anyhow::Result<PathBuf> {
    Step::cargo(&["build", "--workspace", "--bins", "--test", "it"]).features(deps::features()).run()?;
    Ok(shell::target_dir()?.join("debug/millrace"))
}

fn on_cluster(name: &str, command: ClusterCommand) -> anyhow::Result<()> {
    let cluster = Cluster::named(name)?;
    fn words(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    match command {
        ClusterCommand::Up => cluster.up(),
        ClusterCommand::Down => cluster.down(),
        ClusterCommand::LoadImage => {
            build(false)?;
            cluster.load_image()
        }
        ClusterCommand::Kubectl { args } => cluster.kubectl(&words(&args)).run(),
        ClusterCommand::Helm { args } => cluster.helm(&words(&args)).run(),
    }
}

fn check() -> anyhow::Result<()> {
    deps::ensure(false)?;
    Step::cargo(&["fmt", "--all", "--check"]).run().context("run `cargo fmt --all`")?;
    // The cluster's suites are no part of `cargo test`, so "all" does not mean them.
    let targets = ["--all-targets", "--test", "cluster", "--test", "cluster-drain"];
    Step::cargo(&["clippy", "--quiet", "--workspace"]).args(&targets).features(deps::features()).args(&["--", "-D", "warnings"]).run()?;
    sizes::check(&repository())?;
    arrows::check()?;
    generate(true)?;
    if Step::cargo(&["deny", "--version"]).quiet().run().is_ok() {
        Step::cargo(&["deny", "check", "licenses", "bans", "sources"]).run()?;
    } else {
        println!("cargo-deny is not installed; licences and bans were not checked");
    }
    println!("checks passed");
    Ok(())
}

fn test(no_check: bool) -> anyhow::Result<()> {
    deps::ensure(true)?;
    if !no_check {
        check()?;
    }
    // Integration tests run the binary, which `cargo test` alone would not build for another package.
    build_for_tests()?;
    let scratch = Scratch::new()?;
    scratch.of(with_servers(Step::cargo(&["test", "--workspace"]).features(deps::features()))?).run()?;
    drop(scratch);
    cluster::run_suite(None)
}

/// Tells tests where the programs of NATS, the object store and Kubernetes are.
fn with_servers(mut step: Step) -> anyhow::Result<Step> {
    const NATS: &str = "MILLRACE_NATS_PROGRAM";
    const API_TOOLS: &str = "MILLRACE_API_TOOLS";
    const OBJECTS: &str = "MILLRACE_S3_PROGRAM";
    const KUBERNETES: &str = "MILLRACE_KUBE_PROGRAM";
    if std::env::var_os(NATS).is_none() {
        step = step.env(NATS, &deps::nats()?.to_string_lossy());
    }
    if std::env::var_os(API_TOOLS).is_none() {
        match deps::api_tools() {
            Ok(folder) => step = step.env(API_TOOLS, &folder.to_string_lossy()),
            Err(error) => println!("LEFT OUT: generated clients, because their generators are not here: {error:#}"),
        }
    }
    if std::env::var_os(OBJECTS).is_none() {
        step = step.env(OBJECTS, &deps::object_store()?.to_string_lossy());
    }
    if std::env::var_os(KUBERNETES).is_none()
        && let Some(program) = deps::kubernetes()
    {
        step = step.env(KUBERNETES, &program.to_string_lossy());
    }
    Ok(step)
}

fn it(filter: Option<String>) -> anyhow::Result<()> {
    if let Some((_, filter)) = filter
        .as_deref()
        .filter(|filter| *filter == "cluster" || filter.starts_with("cluster::"))
        .map(|filter| (filter, filter.strip_prefix("cluster::")))
    {
        return cluster::run_suite(filter);
    }
    deps::ensure(true)?;
    build_for_tests()?;
    let filter: Vec<&str> = filter.as_deref().into_iter().collect();
    // Of the whole workspace, so that dependencies are not built again with fewer features than `./x test` gives them.
    let step = Step::cargo(&["test", "--workspace", "--test", "it"]).features(deps::features()).args(&["--"]).args(&filter);
    let scratch = Scratch::new()?;
    scratch.of(with_servers(step)?).run()
}

fn generate(is_check: bool) -> anyhow::Result<()> {
    deps::ensure(false)?;
    let millrace = build_for_tests()?;
    let mut stale = Vec::new();
    let mut wanted = vec![chart_docs::readme(&repository())?];
    for (path, command) in GENERATED {
        wanted.push((repository().join(path), Step::program(&millrace).args(command).output()?));
    }
    for (path, text) in wanted {
        if std::fs::read_to_string(&path).unwrap_or_default() == text {
            continue;
        }
        if is_check {
            stale.push(path.display().to_string());
        } else {
            std::fs::write(&path, text)?;
            println!("wrote {}", path.display());
        }
    }
    if !stale.is_empty() {
        bail!("generated files are stale; run `./x gen`: {}", stale.join(", "));
    }
    Ok(())
}

/// Runs a program of the test kit, with the binary built first.
fn tool(name: &str, args: &[String]) -> anyhow::Result<()> {
    built_tool(name)?.args(&args.iter().map(String::as_str).collect::<Vec<_>>()).run()
}

/// Builds a program of the test kit, and the binary that it runs.
fn built_tool(name: &str) -> anyhow::Result<Step> {
    deps::ensure(true)?;
    Step::cargo(&["build", "--workspace", "--bins"]).features(deps::features()).run()?;
    Ok(Step::program(&shell::target_dir()?.join("debug").join(name)))
}

/// Runs a benchmark of the optimised binary, which is what people use.
fn bench(what: &str, args: &[String]) -> anyhow::Result<()> {
    let name = match what {
        "convert" => {
            // The benchmark is told where the peers are; what is not there is left out by name.
            if !args.iter().any(|arg| arg == "--alone") {
                deps::peers();
            }
            "millrace-bench"
        }
        "api" => "millrace-bench-api",
        other => bail!("there is no benchmark `{other}`; there are `convert` and `api`"),
    };
    build(true)?;
    let binary = shell::target_dir()?.join("release/millrace");
    let mut step =
        built_tool(name)?.env("MILLRACE_BIN", &binary.to_string_lossy()).args(&args.iter().map(String::as_str).collect::<Vec<_>>());
    for (name, value) in deps::peer_env() {
        step = step.env(name, &value.to_string_lossy());
    }
    step.run()
}
