//! One trace over the processes of a cluster: API server, controller and worker, beside a real Kubernetes API server and without nodes. What a node would do
//! (start the worker with its task and its secrets) is done here.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use millrace_tests::api::Api;
use millrace_tests::collector::{Collector, Span};
use millrace_tests::database::unique;
use millrace_tests::dataset::shop;
use millrace_tests::process::{Process, run};
use millrace_tests::servers::kubernetes::{ApiServer, PROGRAM_VARIABLE, kube_program};
use millrace_tests::servers::{free_port, shared};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{LONG, source};

const TEMPLATE: &str = "spec: {containers: [{name: worker, image: none}]}";
/// Nobody listens there: what moves data and carries traces does without NATS.
const NATS: &str = "nats://127.0.0.1:9";

#[tokio::test]
async fn one_trace_goes_from_the_api_over_the_controller_to_the_tables_of_a_worker() {
    let Some(program) = kube_program() else {
        let text = "LEFT OUT: no Kubernetes API server on this machine; `./x deps` builds one where there is a Go toolchain";
        let _ = writeln!(std::io::stderr(), "{text} ({PROGRAM_VARIABLE})");
        return;
    };
    let kubernetes = ApiServer::start(program).await.unwrap();
    for file in ["connections", "streamconfigs", "streams"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../crds/yaml/{file}.yaml"));
        let definition: Value = serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        kubernetes.define(&definition).await.unwrap();
    }
    let collector = Collector::start().await;
    let config = kubernetes.kubeconfig().unwrap().display().to_string();
    let env = [("KUBECONFIG", config.as_str()), ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(file("template.yaml"), TEMPLATE).unwrap();
    let (code, key, errors) = run(&["cluster-keys", "create"], &env).await.unwrap();
    assert_eq!(code, 0, "{errors}");

    let (listen, ops, controller_ops) = (free_address(), free_address(), free_address());
    let args = ["apiserver", "--listen", &listen, "--ops-listen", &ops, "--nats-url", NATS];
    let mut server = Process::spawn_with(&args, &env).unwrap();
    server.wait_for("serving").await.unwrap();
    let template = file("template.yaml");
    let args = ["controller", "--ops-listen", &controller_ops, "--nats-url", NATS, "--worker-template", &template, "--identity", "tests"];
    let mut controller = Process::spawn_with(&args, &env).unwrap();
    controller.wait_for("leading").await.unwrap();

    let mut api = Api::new(&format!("http://{listen}"));
    api.key = Some(key.trim().to_owned());
    start(&api).await;
    let task = task(&kubernetes).await;
    let args = ["worker", "--task", &file("task.json"), "--termination-log", &file("report.json")];
    std::fs::write(file("task.json"), with_secrets(task, dir.path()).await.to_string()).unwrap();
    let (code, out, errors) = run(&args, &env).await.unwrap();
    assert_eq!(code, 0, "{out}{errors}");

    let scrape = reqwest::get(format!("http://{controller_ops}/metrics")).await.unwrap().text().await.unwrap();
    let names = millrace_service::metrics::names(&scrape);
    for name in millrace_controller::metrics::NAMES.iter().chain(&millrace_bus::metrics::NAMES) {
        assert!(names.contains(name), "{name} is not in {scrape}");
    }
    assert!(scrape.contains("millrace_controller_leader 1\n") && scrape.contains("millrace_controller_attempts_total 1\n"), "{scrape}");
    assert_eq!((server.terminate().await, controller.terminate().await), (Some(0), Some(0)));

    let request = collector.wait_for("POST /api/v1/stream-configs/{id}/start").await.unwrap();
    let reconcile = collector.wait_for("reconcile stream").await.unwrap();
    let task = collector.wait_for("task convert").await.unwrap();
    let services = [&request, &reconcile, &task].map(|span| span.service.as_str());
    assert_eq!(services, ["millrace-apiserver", "millrace-controller", "millrace-worker"]);
    assert_eq!((&reconcile.trace, &reconcile.parent), (&request.trace, &request.id));
    assert_eq!((&task.trace, &task.parent), (&request.trace, &reconcile.id));
    let spans = collector.spans();
    let tables: Vec<&Span> = spans.iter().filter(|span| span.parent == task.id && span.name.starts_with("table ")).collect();
    assert!(!tables.is_empty() && tables.iter().all(|table| table.trace == request.trace), "{spans:?}");
    assert!(tables.iter().all(|table| spans.iter().any(|split| split.parent == table.id && split.name == "split")), "{spans:?}");
}

/// Makes connections and a definition, and starts it.
async fn start(api: &Api) {
    let servers = shared().await;
    let database = source("traced_cluster", &shop(0.0005)).await;
    let from = api.connect("from", "mysql", &servers.mysql, &database.name).await.unwrap();
    let to = api.connect("to", "postgresql", &servers.postgres, &unique("target")).await.unwrap();
    let config = api.convert(&from, &database.name, &to, &unique("target")).await.unwrap();
    let started = api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
    started.text("id").unwrap();
}

/// What the controller has written for the worker.
async fn task(kubernetes: &ApiServer) -> Value {
    let end = Instant::now() + LONG;
    loop {
        let (_, maps) = kubernetes.call(Method::GET, "/api/v1/namespaces/default/configmaps", None).await.unwrap();
        let texts = maps["items"].as_array().into_iter().flatten().filter_map(|map| map["data"]["task.json"].as_str());
        // Beside it stand probes of the connections.
        let found = texts.map(|text| serde_json::from_str::<Value>(text).unwrap()).find(|task| task["kind"]["convert"].is_object());
        if let Some(task) = found {
            return task;
        }
        assert!(Instant::now() < end, "no task came: {maps}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The task with its secrets in this folder, as a node would mount them.
async fn with_secrets(mut task: Value, dir: &Path) -> Value {
    let servers = shared().await;
    let connections = task["connections"].as_array().cloned().unwrap();
    for (place, secret) in task["secrets"].as_array_mut().unwrap().iter_mut().enumerate() {
        let connection = connections.iter().find(|connection| connection["id"] == secret["connection"]).unwrap();
        let is_mysql = connection.to_string().contains(&format!("\"port\":{}", servers.mysql.port));
        let path = dir.join(format!("secret-{place}"));
        std::fs::write(&path, if is_mysql { &servers.mysql.password } else { &servers.postgres.password }).unwrap();
        secret["path"] = json!(path);
    }
    task
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}
