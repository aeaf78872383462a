//! `./x demo --cluster`: the sample shop moved by pods on a real Kubernetes, as a person would do it: helm and kubectl, then the REST API.
//!
//! ```text
//!  MariaDB ◀── proxy ─┐ address of this machine ┌─ pods: controller, REST API, query tier, NATS, two workers per run
//!  PostgreSQL ◀ proxy ┘ that pods reach         └─ ingress ◀── the calls shown as curl
//! ```

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use millrace_tests::api::Api;
use millrace_tests::database::pg_client;
use millrace_tests::kube::{self, INGRESS_VARIABLE};
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{Server, start_postgres};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Options;
use crate::parts::{call, get, member, sample_source, verify};
use crate::terminal::{Terminal, show};

/// Where everything of the demo stands.
const NAMESPACE: &str = "millrace-demo";
/// The ingress' host; it need not resolve, because it is sent as a header.
const HOST: &str = "millrace-demo.test";
/// Bytes a second of the run that loses a worker, at scale 1: slow enough to be met in its middle.
const THROTTLE: f64 = 4e6;
/// How long a run may take to show its first rows on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The databases, and how pods reach them.
struct Stage {
    mysql: Server,
    postgres: Server,
    /// The sample's database.
    source: String,
    from: FaultProxy,
    to: FaultProxy,
    /// The address under which pods reach this machine.
    host: String,
    scale: f64,
}

/// Tells the story and cleans up after it, also when it fails or is interrupted.
pub(crate) async fn demo(options: &Options) -> anyhow::Result<()> {
    if options.source.is_some() || options.target.is_some() {
        bail!("--source and --target are not for --cluster: its databases must be reached by pods, and are started here");
    }
    let host = kube::host()?;
    let (is_there, said) = kube::try_run("kubectl", &["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"], None).await?;
    if !is_there {
        bail!("the cluster does not answer: {}", said.trim());
    }
    if !said.trim().is_empty() {
        bail!("the cluster has a namespace `{NAMESPACE}` already; if it is of an earlier demo: {}", removal().join(" && "));
    }
    let stage = tokio::select! {
        stage = Stage::new(host, options.scale) => stage?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    let told = tokio::select! {
        told = story(&stage) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    if let (Ok((_, api)), true) = (&told, options.keep) {
        println!(
            "\nThe databases run until Ctrl-C, the release stays after it: {}, $KEY is {}",
            api.base,
            api.key.as_deref().unwrap_or_default()
        );
        println!("To remove it: {}", removal().join(" && "));
        return Ok(tokio::signal::ctrl_c().await?);
    }
    if told.as_ref().is_err_and(|error| error.to_string() != "interrupted") {
        for what in ["pods,jobs,streams", "events"] {
            let _ = Terminal::default().run(&format!("kubectl -n {NAMESPACE} get {what}")).await;
        }
    }
    println!("\nCleaning up");
    for command in removal() {
        // What was never there cannot be removed.
        if let Err(error) = Terminal::default().run(&command).await {
            println!("     {error:#}");
        }
    }
    told.map(|_| ())
}

/// How everything of the demo goes from a cluster, but the definitions, which belong to all releases.
fn removal() -> [String; 2] {
    [
        format!("helm uninstall millrace --namespace {NAMESPACE} --ignore-not-found --wait --timeout=180s"),
        format!("kubectl delete namespace {NAMESPACE} --ignore-not-found --timeout=180s"),
    ]
}

/// All of it; answers a client of the REST API that came last, and what forwards it, if something does.
async fn story(stage: &Stage) -> anyhow::Result<(Option<Child>, Api)> {
    let mut terminal = Terminal::default();
    terminal.variables.push(("SHOP_PASSWORD", stage.mysql.password.clone()));
    terminal.variables.push(("COPY_PASSWORD", stage.postgres.password.clone()));

    println!("2. Millrace, by its chart");
    install(&terminal).await?;

    println!("3. A secret for each password, two connections, one definition of a run with two workers");
    stage.define(&terminal).await?;

    println!("4. The run");
    let started = Instant::now();
    watch(&terminal, "shop-1").await?;
    println!("   {:.1} s from the definition to the end, pods and indexes included\n", started.elapsed().as_secs_f64());
    terminal.run(&format!("kubectl -n {NAMESPACE} wait --for=condition=Finished stream/shop-1 --timeout=60s")).await?;
    terminal.run(&format!("kubectl -n {NAMESPACE} get streams,streamconfigs,connections")).await?;
    // The part from this heading to the next of its depth.
    let part = "awk '/^  [A-Z]/ {on = /Conditions:/} on'";
    terminal.run(&format!("kubectl -n {NAMESPACE} describe stream shop-1 | {part}")).await?;

    println!("5. Proof: every table's rows and digests, read by other drivers");
    verify(&stage.mysql, &stage.source, &stage.postgres, "shop_copy").await?;

    println!("6. The REST API shows the same, and joins both servers in one statement");
    let key =
        terminal.assign("KEY", &format!("kubectl -n {NAMESPACE} exec deploy/millrace-apiserver -- millrace cluster-keys create")).await?;
    let (forward, mut api) = reach_api().await?;
    api.key = Some(key);
    ask(&api, &stage.source).await?;

    println!("7. A second run, one of whose workers is killed in its middle");
    stage.lose_a_worker(&terminal).await?;

    println!("\nWhere to go next: docs/kubernetes.md; crds/samples/; charts/millrace/README.md; apiserver/openapi.json");
    Ok((forward, api))
}

impl Stage {
    async fn new(host: String, scale: f64) -> anyhow::Result<Self> {
        println!("1. Two real database servers on this machine, which pods reach at {host}");
        let (mysql, source) = sample_source(scale).await?;
        let postgres = tokio::task::spawn_blocking(|| start_postgres(&[])).await??;
        // A run would make it; but a connection that names a database is probed before.
        pg_client(&postgres, "postgres").await?.batch_execute("CREATE DATABASE shop_copy").await?;
        let proxy = async |server: &Server| {
            FaultProxy::start_on(&host, &server.host, server.port)
                .await
                .with_context(|| format!("`{host}` (MILLRACE_CLUSTER_HOST) is no address of this machine where one can listen"))
        };
        let (from, to) = (proxy(&mysql).await?, proxy(&postgres).await?);
        println!("   MariaDB at {host}:{}, PostgreSQL at {host}:{}", from.port, to.port);
        Ok(Self { mysql, postgres, source, from, to, host, scale })
    }

    async fn define(&self, terminal: &Terminal) -> anyhow::Result<()> {
        for (name, variable) in [("shop", "SHOP_PASSWORD"), ("copy", "COPY_PASSWORD")] {
            let secret =
                format!("kubectl -n {NAMESPACE} create secret generic millrace-conn-{name} --from-literal=password=\"${variable}\"");
            terminal.run(&secret).await?;
        }
        let mut shop = kube::connection("shop", "mysql", &self.host, self.from.port, &self.mysql.user);
        let mut copy = kube::connection("copy", "postgresql", &self.host, self.to.port, &self.postgres.user);
        // Statements over both name no database of PostgreSQL: they look where the connection says.
        shop["spec"]["database"]["database"] = json!(self.source);
        copy["spec"]["database"]["database"] = json!("shop_copy");
        apply(terminal, &[shop, copy]).await?;
        let mut run = kube::convert("shop", "shop", &self.source, "copy", "shop_copy");
        run["spec"]["parallelism"] = json!(2);
        apply(terminal, &[run]).await
    }

    /// Kills a worker of a second run once rows have arrived, and shows that the run ends well.
    async fn lose_a_worker(&self, terminal: &Terminal) -> anyhow::Result<()> {
        let mut run = kube::convert("again", "shop", &self.source, "copy", "shop_again");
        run["spec"]["parallelism"] = json!(2);
        // Nobody writes to the shop, so the rows that are read at another moment are the same.
        run["spec"]["onCutLost"] = json!("continue");
        self.from.limit((THROTTLE * self.scale.max(0.01)) as u64);
        apply(terminal, &[run]).await?;
        rows_arrive("again-1").await?;
        let pods = format!("kubectl -n {NAMESPACE} get pods -l millrace.dev/stream=again-1");
        let listed = terminal.run(&format!("{pods} --field-selector=status.phase=Running -o name")).await?;
        let pod = listed.lines().find(|line| line.starts_with("pod/")).context("no worker runs")?;
        terminal.run(&format!("kubectl -n {NAMESPACE} delete {pod} --force --grace-period=0")).await?;
        self.from.limit(0);
        watch(terminal, "again-1").await?;
        if terminal.run(&pods).await?.contains(pod.trim_start_matches("pod/")) {
            bail!("`{pod}` was not killed");
        }
        let each = r#"{range .status.conditions[*]}{.type}: {.status} ({.reason}) {.message}{"\n"}{end}"#;
        terminal.run(&format!("kubectl -n {NAMESPACE} get stream again-1 -o jsonpath='{each}'")).await?;
        verify(&self.mysql, &self.source, &self.postgres, "shop_again").await
    }
}

/// Installs the chart, with a route if the cluster has an ingress controller.
async fn install(terminal: &Terminal) -> anyhow::Result<()> {
    if let Some(path) = std::env::var_os("KUBECONFIG") {
        show(&format!("export KUBECONFIG={}", path.display()));
    }
    let route = std::env::var_os(INGRESS_VARIABLE).map_or(String::new(), |_| format!(" --set ingress.enabled=true,ingress.host={HOST}"));
    let install = "helm install millrace charts/millrace";
    terminal.run(&format!("{install} --namespace {NAMESPACE} --create-namespace{route} --hide-notes --wait --timeout=300s")).await?;
    terminal.run(&format!("kubectl -n {NAMESPACE} get pods")).await?;
    Ok(())
}

/// Applies objects, shown as the YAML that a person would write.
async fn apply(terminal: &Terminal, objects: &[Value]) -> anyhow::Result<()> {
    let texts: Vec<String> = objects.iter().map(serde_norway::to_string).collect::<Result<_, _>>()?;
    terminal.run(&format!("kubectl -n {NAMESPACE} apply -f - <<'EOF'\n{}EOF", texts.join("---\n"))).await?;
    Ok(())
}

/// Shows a stream's progress until it has ended; fails unless it has finished.
async fn watch(terminal: &Terminal, stream: &str) -> anyhow::Result<()> {
    let mut phase = String::new();
    let command = format!("kubectl -n {NAMESPACE} get streams --field-selector=metadata.name={stream} --watch");
    terminal
        .watch(&command, |line| {
            let ended = ["FINISHED", "FAILED", "STOPPED"].into_iter().find(|phase| line.split_whitespace().any(|word| word == *phase));
            phase = ended.unwrap_or_default().to_owned();
            ended.is_some()
        })
        .await?;
    if phase != "FINISHED" {
        terminal.run(&format!("kubectl -n {NAMESPACE} describe stream {stream}")).await?;
        bail!("the stream `{stream}` ended as `{phase}`");
    }
    Ok(())
}

/// Returns once a stream has written rows.
async fn rows_arrive(stream: &str) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let args =
        ["-n", NAMESPACE, "get", "stream", stream, "--ignore-not-found", "-o", "jsonpath={.status.phase} {.status.counters.rowsWritten}"];
    loop {
        let (_, said) = kube::try_run("kubectl", &args, None).await?;
        match said.trim().split_once(' ') {
            Some(("RUNNING", rows)) if rows.parse().unwrap_or(0_u64) > 0 => return Ok(()),
            Some((phase @ ("FINISHED" | "FAILED"), _)) => bail!("`{stream}` is {phase} before one of its workers could be killed"),
            _ if Instant::now() > end => bail!("`{stream}` has written no row after {} s: {said}", PATIENCE.as_secs()),
            _ => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A client that comes through the ingress, or through a forwarded port where the cluster has no ingress controller.
async fn reach_api() -> anyhow::Result<(Option<Child>, Api)> {
    if let Ok(base) = std::env::var(INGRESS_VARIABLE) {
        let mut api = Api::new(&base);
        api.host = Some(HOST.to_owned());
        return Ok((None, api));
    }
    let words = ["-n", NAMESPACE, "port-forward", "service/millrace-apiserver", ":8020"];
    show(&format!("kubectl {} &", words.join(" ")));
    let mut child = Command::new("kubectl").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let line = lines.next_line().await?.context("no port is forwarded")?;
    let address = line.split_whitespace().nth(2).with_context(|| format!("`{line}` names no address"))?;
    // Whoever forwards must be able to go on printing.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((Some(child), Api::new(&format!("http://{address}"))))
}

async fn ask(api: &Api, source: &str) -> anyhow::Result<()> {
    let configs = get(api, "/stream-configs").await?;
    let config = member(&configs["items"][0], "id")?;
    let runs = get(api, &format!("/stream-configs/{config}/history")).await?;
    if runs[0]["status"] != "FINISHED" {
        bail!("the REST API says otherwise than kubectl: {runs}");
    }
    let sql = format!(
        "SELECT c.state, count(*) AS orders, sum(o.total) AS total FROM pg1.public.customers c JOIN my1.{source}.orders o ON o.customer_id = c.id GROUP BY ALL ORDER BY 1"
    );
    let answer = call(api, "/query/federated", json!({"sql": sql})).await?;
    println!("   {}\n", answer["rows"]);
    Ok(())
}
