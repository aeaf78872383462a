//! Runs by `kubectl apply`: to their end, through failures and interruptions.

use millrace_tests::database::PgDatabase;
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::shared;
use serde_json::{Value, json};

use crate::kube::{Scene, condition, host, kube};

async fn assert_arrived(scene: &Scene) {
    let target = PgDatabase::open(&shared().await.postgres, &scene.target).await.unwrap();
    assert_equal(&scene.source.pool, &scene.source.name, &target.client, "public", "products").await.unwrap();
}

/// A committed sample, as `kubectl apply` takes it.
fn sample(name: &str) -> Value {
    let path = format!("{}/../crds/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The samples of two connections and a definition; only what their comments leave to the reader is filled in: where the servers are, and who logs in. (The test's
/// server has no name that a certificate could be verified by.)
async fn samples(scene: &Scene) -> [Value; 5] {
    let servers = shared().await;
    let secret = |name: &str, password: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"password": password}});
    let (mut from, mut to, mut definition) = (sample("connection-mariadb"), sample("connection-postgresql"), sample("streamconfig"));
    from["spec"]["database"] =
        json!({"host": host(), "port": scene.proxy.port, "username": servers.mysql.user, "database": scene.source.name});
    to["spec"]["database"] = json!({"host": host(), "port": scene.to.port, "username": servers.postgres.user});
    to["spec"].as_object_mut().unwrap().remove("ssl");
    definition["spec"]["source"]["connections"][0]["database"] = json!(scene.source.name);
    definition["spec"]["target"]["spec"]["db"]["database"] = json!(scene.target);
    let name = |connection: &Value| connection["spec"]["secretRef"]["name"].as_str().unwrap().to_owned();
    [secret(&name(&from), &servers.mysql.password), secret(&name(&to), &servers.postgres.password), from, to, definition]
}

#[tokio::test]
async fn the_samples_move_a_million_rows_and_wait_returns_at_their_end() {
    let kube = kube().await;
    let mut scene = Scene::new("million", &products(1_000_000)).await;
    kube.apply(&samples(&scene).await).await;
    scene.name = "shop-to-warehouse".to_owned();
    kube.until("stream", &scene.stream(), "there", |object| object.is_object()).await;
    kube.kubectl(&["wait", "--for=condition=Finished", &format!("stream/{}", scene.stream()), "--timeout=120s"]).await;
    // Not before: whatever is asked now is the end.
    assert_arrived(&scene).await;
    let stream = kube.get("stream", &scene.stream()).await;
    assert_eq!(stream["status"]["phase"], "FINISHED", "{stream:#}");
    assert_eq!(condition(&stream, "Finished"), ("True".into(), "Finished".into()));
    assert_eq!(condition(&stream, "Succeeded"), ("True".into(), "Finished".into()));
    assert_eq!(condition(&stream, "ConsistentCut").0, "True");
    assert_eq!(stream["status"]["counters"]["rowsWritten"], 1_000_000, "{stream:#}");
    for condition in stream["status"]["conditions"].as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], stream["metadata"]["generation"], "{condition}");
    }
    let shown = kube.kubectl(&["get", "streams", &scene.stream()]).await;
    assert!(shown.contains("FINISHED") && shown.contains("1000000"), "{shown}");
    // A finished convert stays one: looking again at its definition starts nothing.
    kube.kubectl(&["annotate", "streamconfig", &scene.name, "test=again"]).await;
    let config = kube.get("streamconfig", &scene.name).await;
    assert_eq!(config["status"]["lastRun"], 1);
}

#[tokio::test]
async fn a_wrong_password_is_named_by_the_connection_and_by_the_failed_stream() {
    let kube = kube().await;
    let scene = Scene::new("password", &products(10)).await;
    kube.apply(&[scene.secret("from", "wrong")]).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    let stream = kube.until("stream", &scene.stream(), "failed", |object| object["status"]["phase"] == "FAILED").await;
    assert_eq!(condition(&stream, "Finished"), ("True".into(), "Failed".into()));
    assert_eq!(condition(&stream, "Succeeded"), ("False".into(), "Failed".into()));
    let described = kube.kubectl(&["describe", "stream", &scene.stream()]).await;
    assert!(described.to_lowercase().contains("password") || described.contains("login"), "{described}");
    assert!(!described.contains("wrong"), "a secret is in the description: {described}");
}

#[tokio::test]
async fn a_run_goes_on_when_its_pod_is_killed_and_says_that_the_cut_was_lost() {
    let kube = kube().await;
    let scene = Scene::new("killed", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({"onCutLost": "continue"}))]).await;
    scene.proxy.limit(2_000_000);
    // A run that had committed nothing would still be of one moment.
    scene.commits().await;
    scene.proxy.hold();
    let pods = kube.pods(&scene.stream()).await;
    assert_eq!(pods.len(), 1, "{pods:?}");
    assert!(kube.kill_pod(&pods[0]).await);
    scene.proxy.limit(0);
    scene.proxy.release();
    let stream = kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert_arrived(&scene).await;
    assert!(stream["status"]["cutsLost"].as_u64() >= Some(1), "{stream:#}");
    assert_eq!(condition(&stream, "ConsistentCut"), ("False".into(), "CutLost".into()));
}

#[tokio::test]
async fn a_definition_pauses_resumes_and_stops_its_stream() {
    let kube = kube().await;
    let scene = Scene::new("paused", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({"reportingInterval": 1}))]).await;
    scene.proxy.hold_at(2_000_000).await;
    kube.apply(&[scene.definition(json!({"reportingInterval": 1, "state": "Paused"}))]).await;
    kube.until("stream", &scene.stream(), "paused", |object| object["status"]["phase"] == "PAUSED").await;
    kube.apply(&[scene.definition(json!({"reportingInterval": 1}))]).await;
    kube.until("stream", &scene.stream(), "running", |object| object["status"]["phase"] == "RUNNING").await;
    kube.apply(&[scene.definition(json!({"reportingInterval": 1, "state": "Stopped"}))]).await;
    let stream = kube.until("stream", &scene.stream(), "stopped", |object| object["status"]["phase"] == "STOPPED").await;
    assert_eq!(condition(&stream, "Succeeded"), ("False".into(), "Stopped".into()));
    assert!(kube.pods(&scene.stream()).await.is_empty());
    scene.proxy.release();
}
