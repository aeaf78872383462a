//! What is measured, and that whatever asks for it (dashboards, alerts, the documentation) asks for something that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use millrace_tests::collector::{Collector, Span};
use millrace_tests::dataset::{products, shop};
use millrace_tests::servers::shared;
use promql_parser::parser::{Expr, VectorSelector, parse};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

/// Labels that a scrape adds.
const OF_THE_SCRAPE: [&str; 5] = ["namespace", "pod", "container", "job", "instance"];
/// A label of what failed, which no run here need show.
const OF_TROUBLE: &str = "error_type";
/// Metrics that a controller or a process with NATS emits, which no run here has; their crates' tests hold their lists to what is emitted.
const ELSEWHERE: [&[&str]; 2] = [&millrace_controller::metrics::NAMES, &millrace_bus::metrics::NAMES];

/// Label names by metric, as one scrape shows them.
type Emitted = BTreeMap<String, BTreeSet<String>>;

#[tokio::test]
async fn dashboards_alerts_and_documentation_name_metrics_that_a_run_emits() {
    let emitted = scrape_of_a_run().await;
    let roles: [&[&str]; 4] = [
        &millrace_worker::metrics::NAMES,
        &millrace_worker::metrics::NAMES_OF_TROUBLE,
        &millrace_apiserver::metrics::NAMES,
        &millrace_query::metrics::NAMES,
    ];
    for name in roles.into_iter().flatten() {
        assert!(emitted.contains_key(*name), "{name} is listed, but was not emitted: {:?}", emitted.keys());
    }
    let is_elsewhere = |name: &str| ELSEWHERE.iter().any(|names| names.contains(&name));
    let mut wrong = Vec::new();
    let mut asked = BTreeSet::new();
    for (place, query) in queries() {
        for selector in selectors(&query).unwrap_or_else(|error| panic!("{place}: `{query}`: {error}")) {
            let name = selector.name.clone().unwrap_or_else(|| panic!("{place}: `{query}` selects no metric by its name"));
            let base = base_name(&name, &emitted, &is_elsewhere);
            asked.insert(base.clone());
            match emitted.get(&base) {
                Some(labels) => {
                    let used = selector.matchers.matchers.iter().map(|matcher| matcher.name.as_str());
                    let unknown = used.filter(|label| !labels.contains(*label) && !OF_THE_SCRAPE.contains(label) && *label != OF_TROUBLE);
                    wrong.extend(unknown.map(|label| format!("{place}: `{name}` has no label `{label}`, but {labels:?}")));
                }
                None if is_elsewhere(&base) => {}
                None => wrong.push(format!("{place}: nothing emits `{name}`")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let documentation = std::fs::read_to_string(repository().join("docs/howto/telemetry.md")).unwrap();
    assert!(asked.len() > 15, "the dashboards ask for too little to be those of the chart: {asked:?}");
    let ours = emitted.keys().map(String::as_str).chain(ELSEWHERE.into_iter().flatten().copied());
    let missing: Vec<&str> = ours.filter(|name| *name != "target_info" && !documentation.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/howto/telemetry.md does not tell of {missing:?}");
}

#[tokio::test]
async fn one_trace_shows_the_start_the_task_and_its_tables_and_holds_no_data() {
    let collector = Collector::start().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let mut server = Server::start_in(&[], &env).await;
    let shop = source("traced", &shop(0.0005)).await;
    let (config, _) = server.config(&shop).await;
    let client = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let path = format!("/stream-configs/{config}/start");
    let started = server.api.call_with(reqwest::Method::POST, &path, Some(Value::Null), &[("traceparent", client)]).await.unwrap();
    let stats = server.api.wait_for_end(&started.text("id").unwrap(), LONG).await.unwrap();
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let sql = format!("SELECT count(*) FROM my1.{0}.orders WHERE note <> 'S3cret-literal'", shop.name);
    server.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
    assert_eq!(server.process.terminate().await, Some(0));

    let request = collector.wait_for("POST /api/v1/stream-configs/{id}/start").await.unwrap();
    let task = collector.wait_for("task convert").await.unwrap();
    let spans = collector.spans();
    let hex: String = request.trace.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, &client[3..35]);
    assert_eq!((&task.trace, &task.parent), (&request.trace, &request.id));
    assert!([&request, &task].into_iter().all(|span| span.service == "millrace-serve"));
    assert_eq!(request.attributes["http.response.status_code"], "200", "{request:?}");
    let children = |parent: &Span| spans.iter().filter(|span| span.parent == parent.id).cloned().collect::<Vec<Span>>();
    let tables: Vec<Span> = children(&task).into_iter().filter(|span| span.name.starts_with("table ")).collect();
    assert_eq!(tables.len(), stats["tables"].as_array().map_or(0, Vec::len), "{tables:?}");
    let splits: Vec<Span> = tables.iter().flat_map(children).filter(|span| span.name == "split").collect();
    assert!(splits.len() >= tables.len() && splits.iter().all(|split| split.trace == request.trace), "{splits:?}");
    assert!(spans.iter().any(|span| span.name == "statement"));
    for name in ["millrace.stream.rows.written", "http.server.request.duration", "process.memory.usage"] {
        assert!(collector.metrics().contains(name), "{name} is not among {:?}", collector.metrics());
    }
    let servers = shared().await;
    for secret in [server.key.as_str(), &servers.mysql.password, &servers.postgres.password, "S3cret-literal", "SELECT"] {
        assert!(!collector.holds(secret), "`{secret}` left the process");
    }
}

#[tokio::test]
async fn without_an_endpoint_or_a_listener_nothing_is_told() {
    let collector = Collector::start().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_SDK_DISABLED", "true")];
    let mut server = Server::start_in(&[], &env).await;
    assert_eq!(server.api.get("/health").await.unwrap().status, 200);
    assert!(!server.process.output().contains("operations on"));
    assert_eq!(server.process.terminate().await, Some(0));
    assert!(collector.spans().is_empty() && collector.metrics().is_empty());
}

/// Runs a convert whose source is cut once, a query and a refusal; answers what is to be scraped then.
async fn scrape_of_a_run() -> Emitted {
    let mut server = Server::start_with(&["--ops-listen", "127.0.0.1:0"]).await;
    let line = server.process.wait_for("operations on ").await.unwrap();
    let ops = line.split("operations on ").nth(1).unwrap().trim().to_owned();
    let get = async |path: &str| reqwest::get(format!("{ops}{path}")).await.unwrap();
    assert_eq!((get("/livez").await.status().as_u16(), get("/readyz").await.status().as_u16()), (200, 200));
    let rows = source("measured", &products(50_000)).await;
    let (proxy, config, _) = server.config_behind_proxy(&rows).await;
    let held = proxy.hold_at(200_000);
    let (stream, ()) = tokio::join!(server.start_config(&config), held);
    proxy.cut();
    proxy.release();
    server.api.wait_for_end(&stream, LONG).await.unwrap();
    let shop = source("measured_too", &shop(0.0005)).await;
    let (config, _) = server.config(&shop).await;
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let sql = format!("SELECT count(*) FROM my1.{}.orders", shop.name);
    server.api.post("/query/federated", json!({"sql": sql})).await.unwrap();
    server.api.post("/query/federated", json!({"sql": "DROP TABLE x"})).await.unwrap();
    let response = get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    let written = format!("millrace_config_id=\"{config}\"");
    let written: u64 = text
        .lines()
        .filter(|line| line.starts_with("millrace_stream_rows_written_total{") && line.contains(&written))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(stats["target"]["counter"].as_u64(), Some(written), "{stats}");
    emitted(&text)
}

/// Reads Prometheus' text format.
fn emitted(text: &str) -> Emitted {
    let mut found: Emitted = millrace_service::metrics::names(text).into_iter().map(|name| (name.to_owned(), BTreeSet::new())).collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').map_or((line.split(' ').next().unwrap_or_default(), ""), |(name, rest)| (name, rest));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end).filter(|base| found.contains_key(*base)));
        let Some(known) = found.get_mut(base.unwrap_or(name)) else { panic!("`{line}` has no type") };
        let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
        known.extend(labels.split("\",").filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned()));
    }
    found
}

fn base_name(name: &str, emitted: &Emitted, is_elsewhere: &impl Fn(&str) -> bool) -> String {
    let is_known = |base: &&str| emitted.contains_key(*base) || is_elsewhere(base);
    let base = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end)).find(is_known);
    base.unwrap_or(name).to_owned()
}

/// All queries of the chart with where they stand.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let folder = repository().join("charts/millrace/dashboards");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for path in files {
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let place = path.file_name().unwrap().to_string_lossy().into_owned();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                found.push((format!("{place}, {}", panel["title"]), plain(target["expr"].as_str().unwrap())));
            }
        }
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["definition"].as_str() else { continue };
            let selector = query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(',')).unwrap().0;
            found.push((format!("{place}, {}", variable["name"]), plain(selector)));
        }
    }
    let rules = std::fs::read_to_string(repository().join("charts/millrace/rules/alerts.yaml")).unwrap();
    let rules: Value = serde_norway::from_str(&rules).unwrap();
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        found.push((format!("alert {}", rule["alert"]), rule["expr"].as_str().unwrap().to_owned()));
    }
    found
}

/// A query with Grafana's variables filled in.
fn plain(query: &str) -> String {
    let query = query.replace("$__rate_interval", "5m");
    ["$namespace", "$config", "$stream"].into_iter().fold(query, |query, variable| query.replace(variable, "x"))
}

fn selectors(query: &str) -> Result<Vec<VectorSelector>, String> {
    struct Found(Vec<VectorSelector>);
    impl ExprVisitor for Found {
        type Error = std::convert::Infallible;
        fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
            match expression {
                Expr::VectorSelector(selector) => self.0.push(selector.clone()),
                Expr::MatrixSelector(selector) => self.0.push(selector.vs.clone()),
                _ => {}
            }
            Ok(true)
        }
    }
    let mut found = Found(Vec::new());
    let Ok(_) = walk_expr(&mut found, &parse(query)?);
    Ok(found.0)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
