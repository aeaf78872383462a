//! What is begun is finished: connections in use stay, deleted definitions clean up, history is kept within its limit, and nothing is left of what is gone.

use std::process::Stdio;
use std::time::{Duration, Instant};

use millrace_bus::{Nats, NatsConfig};
use millrace_core::Secret;
use millrace_core::bus::Level;
use millrace_core::id::StreamId;
use millrace_tests::database::PgDatabase;
use millrace_tests::dataset::products;
use millrace_tests::servers::shared;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::kube::{Kube, LONG, Scene, condition, kube};

/// Rows of a query's first number in a scene's target.
async fn ask(scene: &Scene, sql: &str) -> i64 {
    let target = PgDatabase::open(&shared().await.postgres, &scene.target).await.unwrap();
    target.client.query_one(sql, &[]).await.unwrap().get(0)
}

const RUNS: &str = "SELECT count(*) FROM millrace.run";
const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE tablename = 'products'";

async fn finished(kube: &Kube, stream: &str) -> Value {
    kube.until("stream", stream, "finished", |object| object["status"]["phase"] == "FINISHED").await
}

async fn gone(kube: &Kube, kind: &str, name: &str) {
    kube.until(kind, name, "gone", Value::is_null).await;
}

/// Waits until an event with this reason says this.
async fn event(kube: &Kube, name: &str, reason: &str, text: &str) {
    let end = Instant::now() + LONG;
    loop {
        let found = kube.events(name, reason).await;
        if found.iter().any(|message| message.contains(text)) {
            return;
        }
        assert!(Instant::now() < end, "no event `{reason}` of `{name}` says `{text}`: {found:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn a_connection_stays_until_nothing_names_it_and_a_finished_runs_table_is_the_users() {
    let kube = kube().await;
    let scene = Scene::new("inuse", &products(100)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    finished(kube, &scene.stream()).await;
    let connection = format!("{}-to", scene.name);
    kube.kubectl(&["delete", "connection", &connection, "--wait=false"]).await;
    let held = kube.until("connection", &connection, "held", |object| condition(object, "InUse").1 == "DeletionWaits").await;
    let used_by = format!("StreamConfig `{}`", scene.name);
    assert!(held.to_string().contains(&used_by), "{held:#}");
    event(kube, &connection, "DeletionWaits", &used_by).await;
    assert_eq!(ask(&scene, RUNS).await, 1);
    // The definition's clean-up logs in once more, so the connection goes after it.
    kube.kubectl(&["delete", "streamconfig", &scene.name]).await;
    gone(kube, "connection", &connection).await;
    event(kube, &scene.name, "CleanedUp", "the record of 1 run was removed").await;
    assert_eq!((ask(&scene, RUNS).await, ask(&scene, "SELECT count(*) FROM products").await), (0, 100));
    // Nothing names the other one any more, so nothing keeps it.
    let from = kube
        .until("connection", &format!("{}-from", scene.name), "free", |object| {
            object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
    assert_eq!(condition(&from, "InUse"), ("False".into(), "Unused".into()));
}

#[tokio::test]
async fn a_deleted_definition_ends_its_stream_and_removes_what_that_left_unfinished() {
    let kube = kube().await;
    let scene = Scene::new("abandoned", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    scene.reads(kube, 3_000_000).await;
    let target = async || ask(&scene, TABLES).await;
    assert_eq!(target().await, 1);
    let begun = Instant::now();
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--cascade=foreground", "--timeout=150s"]).await;
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    gone(kube, "stream", &scene.stream()).await;
    event(kube, &scene.name, "CleanedUp", "unfinished tables were dropped: `public.products`").await;
    assert_eq!((ask(&scene, RUNS).await, target().await), (0, 0));
    let label = format!("millrace.dev/cleanup={}", scene.name);
    let end = Instant::now() + LONG;
    while !kube.left(&label).await.is_empty() {
        assert!(Instant::now() < end, "the clean-up left something");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    scene.proxy.release();
}

#[tokio::test]
async fn a_definition_that_retains_leaves_the_ledger_as_it_is() {
    let kube = kube().await;
    let scene = Scene::new("retained", &products(10)).await;
    kube.apply(&[scene.definition(json!({"deletionPolicy": "Retain"}))]).await;
    finished(kube, &scene.stream()).await;
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--timeout=150s"]).await;
    gone(kube, "stream", &scene.stream()).await;
    assert_eq!(ask(&scene, RUNS).await, 1);
    assert_eq!(kube.events(&scene.name, "CleanedUp").await, [""; 0]);
}

#[tokio::test]
async fn a_clean_up_without_its_secret_or_connection_is_given_up_and_named() {
    let kube = kube().await;
    let scene = Scene::new("nosecret", &products(10)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    finished(kube, &scene.stream()).await;
    kube.kubectl(&["delete", "secret", &format!("millrace-conn-{}-to", scene.name)]).await;
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--timeout=150s"]).await;
    event(kube, &scene.name, "CleanupAbandoned", &scene.target).await;
    event(kube, &scene.name, "CleanupAbandoned", "not found").await;
    assert_eq!(ask(&scene, RUNS).await, 1);

    let scene = Scene::new("noconn", &products(10)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    finished(kube, &scene.stream()).await;
    let connection = format!("{}-to", scene.name);
    // Somebody insists.
    let end = Instant::now() + LONG;
    kube.kubectl(&["annotate", "connection", &connection, "millrace.dev/pause-reconciliation=true"]).await;
    kube.kubectl(&["delete", "connection", &connection, "--wait=false"]).await;
    while !kube.get("connection", &connection).await.is_null() {
        kube.try_kubectl(&["patch", "connection", &connection, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await;
        assert!(Instant::now() < end, "the connection stays");
    }
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--timeout=150s"]).await;
    event(kube, &scene.name, "CleanupAbandoned", &format!("there is no Connection `{connection}`")).await;
}

#[tokio::test]
async fn a_connection_is_probed_again_after_a_failure_and_when_somebody_asks() {
    let kube = kube().await;
    let scene = Scene::new("probes", &products(1)).await;
    let name = format!("{}-from", scene.name);
    let first = kube.until("connection", &name, "reachable", |object| condition(object, "Reachable").0 == "True").await;
    assert_eq!(condition(&first, "Accepted"), ("True".into(), "Valid".into()));
    assert_eq!(first["status"]["probe"]["number"], 1, "{first:#}");
    let server = shared().await;
    kube.apply(&[scene.secret("from", "wrong")]).await;
    kube.kubectl(&["annotate", "connection", &name, "millrace.dev/probe=now"]).await;
    let refused = kube.until("connection", &name, "refused", |object| condition(object, "Reachable").0 == "False").await;
    assert_eq!(condition(&refused, "Reachable").1, "LoginRefused");
    // By the time that somebody looks, it may have been tried again.
    let [number, failures] = ["number", "failures"].map(|name| refused["status"]["probe"][name].as_u64().unwrap());
    assert!(failures >= 1 && number == failures + 1, "{refused:#}");
    event(kube, &name, "Unreachable", "").await;
    // Nobody asks: it is tried again by itself.
    kube.apply(&[scene.secret("from", &server.mysql.password)]).await;
    let mended = kube.until("connection", &name, "mended", |object| condition(object, "Reachable").0 == "True").await;
    assert!(mended["status"]["probe"]["number"].as_u64() >= Some(3), "{mended:#}");
    assert_eq!(mended["status"]["probe"]["failures"], 0, "{mended:#}");
}

#[tokio::test]
async fn a_nonce_runs_a_finished_convert_again_and_history_is_kept_within_its_limit() {
    let kube = kube().await;
    let scene = Scene::new("nonce", &products(10)).await;
    let definition = |nonce: &str| {
        let mut definition = scene.definition(json!({"runNonce": nonce, "historyLimit": 1}));
        definition["spec"]["target"]["spec"]["db"]["schemaPolicy"] = json!("drop_and_recreate");
        definition
    };
    kube.apply(&[definition("a")]).await;
    finished(kube, &scene.stream()).await;
    // Looking again starts nothing.
    kube.kubectl(&["annotate", "streamconfig", &scene.name, "test=again"]).await;
    kube.apply(&[definition("b")]).await;
    finished(kube, &format!("{}-2", scene.name)).await;
    gone(kube, "stream", &scene.stream()).await;
    let config = kube.until("streamconfig", &scene.name, "idle", |object| condition(object, "Progressing").1 == "Idle").await;
    assert_eq!((&config["status"]["lastRun"], &config["status"]["observedNonce"]), (&json!(2), &json!("b")), "{config:#}");
    kube.apply(&[definition("b")]).await;
    let streams = kube.list("stream", "", "").await;
    let own: Vec<&str> =
        streams.iter().filter_map(|stream| stream["metadata"]["name"].as_str()).filter(|name| name.starts_with(&scene.name)).collect();
    assert_eq!(own, [format!("{}-2", scene.name)]);
}

#[tokio::test]
async fn hands_stay_off_while_reconciliation_is_paused() {
    let kube = kube().await;
    let scene = Scene::new("handsoff", &products(10)).await;
    let mut definition = scene.definition(json!({}));
    definition["metadata"]["annotations"] = json!({"millrace.dev/pause-reconciliation": "true"});
    kube.apply(&[definition]).await;
    // Another definition that comes later is through, so this one would be, too.
    let other = Scene::new("handson", &products(10)).await;
    kube.apply(&[other.definition(json!({}))]).await;
    finished(kube, &other.stream()).await;
    let config = kube.get("streamconfig", &scene.name).await;
    assert!(config["status"].is_null() && config["metadata"]["finalizers"].is_null(), "{config:#}");
    kube.kubectl(&["annotate", "streamconfig", &scene.name, "millrace.dev/pause-reconciliation-"]).await;
    finished(kube, &scene.stream()).await;
}

#[tokio::test]
async fn what_is_left_of_streams_that_are_gone_is_removed() {
    let kube = Kube::install("controller.replicas=1,apiserver.enabled=false,query.enabled=false,rbac.aggregate=false").await;
    let scene = Scene::new_in(&kube, "orphans", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    scene.reads(&kube, 2_000_000).await;
    let stream = kube.until("stream", &scene.stream(), "running", |object| object["status"]["phase"] == "RUNNING").await;
    let id: StreamId = stream["metadata"]["labels"]["millrace.dev/id"].as_str().unwrap().parse().unwrap();
    let (nats, _forward) = nats(&kube).await;
    wait_for(async || !nats.events(&id, Level::Info, 10).await.unwrap().is_empty(), "events of the run are retained").await;
    // While nobody looks, it loses its finalizer and goes, and its Job stays without an owner.
    kube.kubectl(&["scale", "deployment/millrace-controller", "--replicas=0"]).await;
    kube.kubectl(&["wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=controller", "--timeout=150s"]).await;
    kube.kubectl(&["patch", "stream", &scene.stream(), "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await;
    kube.kubectl(&["patch", "streamconfig", &scene.name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await;
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--cascade=orphan", "--timeout=150s"]).await;
    kube.kubectl(&["delete", "stream", &scene.stream(), "--cascade=orphan", "--timeout=150s"]).await;
    let job = format!("{}-1", scene.stream());
    assert!(kube.get("job", &job).await.is_object());
    kube.kubectl(&["scale", "deployment/millrace-controller", "--replicas=1"]).await;
    gone(&kube, "job", &job).await;
    gone(&kube, "configmap", &job).await;
    wait_for(async || nats.events(&id, Level::Info, 10).await.unwrap().is_empty(), "events of the run are purged").await;
    scene.proxy.release();

    // The namespace itself goes with a stream that is running, although nobody has uninstalled anything.
    let scene = Scene::new_in(&kube, "leaving", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    scene.reads(&kube, 2_000_000).await;
    let took = kube.delete_namespace().await;
    assert!(took < Duration::from_secs(60), "deleting the namespace took {took:?}");
    scene.proxy.release();
}

async fn wait_for(is_so: impl AsyncFn() -> bool, what: &str) {
    let end = Instant::now() + LONG;
    while !is_so().await {
        assert!(Instant::now() < end, "it does not come true that {what}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The installation's NATS, through a forwarded port that lasts as long as its process.
async fn nats(kube: &Kube) -> (Nats, tokio::process::Child) {
    let args = ["-n", &kube.namespace, "port-forward", "service/millrace-nats", "0:4222"];
    let mut forward = tokio::process::Command::new("kubectl").args(args).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    // `Forwarding from 127.0.0.1:PORT -> 4222`
    let line = lines.next_line().await.unwrap().unwrap();
    let port: u16 = line.split("127.0.0.1:").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let secret = kube.get("secret", "millrace-nats").await;
    let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, secret["data"]["token"].as_str().unwrap()).unwrap();
    let config = NatsConfig {
        url: format!("nats://127.0.0.1:{port}"),
        token: Some(Secret::new(String::from_utf8(token).unwrap())),
        namespace: kube.namespace.clone(),
    };
    let nats = Nats::connect(&config, "test").await.unwrap();
    wait_for(async || nats.is_connected(), "NATS is reached").await;
    (nats, forward)
}
