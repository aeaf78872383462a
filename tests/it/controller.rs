//! The controller beside a real Kubernetes API server, without nodes: what it decides, and what it says of it.

use std::time::{Duration, Instant};

use millrace_tests::process::Process;
use millrace_tests::servers::free_port;
use millrace_tests::servers::kubernetes::ApiServer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::crds::{NAMESPACE, read, server};
use crate::support::LONG;

const TEMPLATE: &str = "spec: {containers: [{name: worker, image: none}]}";
/// Nobody listens there: who decides about streams does without NATS.
const NATS: &str = "nats://127.0.0.1:9";

/// Looks at an object until it is so.
async fn until(kubernetes: &ApiServer, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + LONG;
    loop {
        let (_, object) = kubernetes.call(Method::GET, &format!("{NAMESPACE}/{path}"), None).await.unwrap();
        if is_so(&object) {
            return object;
        }
        assert!(Instant::now() < end, "{path} is never {what}: {object:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

async fn make(kubernetes: &ApiServer, kind: &str, object: &Value) {
    let (status, answer) = kubernetes.call(Method::POST, &format!("{NAMESPACE}/{kind}"), Some(object)).await.unwrap();
    assert_eq!(status, 201, "{answer}");
}

/// A Kubernetes API server with a controller beside it and the samples' connections.
struct Scene {
    kubernetes: ApiServer,
    controller: Process,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// Definitions that are there before the controller comes are looked at all at once.
    async fn new(most_streams: &str, definitions: &[Value]) -> Option<Self> {
        let kubernetes = server().await?;
        for sample in ["connection-mariadb", "connection-postgresql"] {
            make(&kubernetes, "connections", &read(&format!("samples/{sample}.yaml"))).await;
        }
        for definition in definitions {
            make(&kubernetes, "streamconfigs", definition).await;
        }
        let dir = tempfile::tempdir().unwrap();
        let template = dir.path().join("template.yaml").display().to_string();
        std::fs::write(&template, TEMPLATE).unwrap();
        let config = kubernetes.kubeconfig().unwrap().display().to_string();
        let ops = format!("127.0.0.1:{}", free_port());
        let args =
            ["controller", "--ops-listen", &ops, "--nats-url", NATS, "--worker-template", &template, "--max-active-streams", most_streams];
        let mut controller = Process::spawn_with(&args, &[("KUBECONFIG", config.as_str())]).unwrap();
        controller.wait_for("leading").await.unwrap();
        Some(Self { kubernetes, controller, _dir: dir })
    }

    async fn define(&self, definition: &Value) {
        make(&self.kubernetes, "streamconfigs", definition).await;
    }

    async fn until(&self, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&self.kubernetes, path, what, is_so).await
    }

    /// Says of a stream's first Job that it has succeeded, as the cluster would, and waits until the stream has finished.
    async fn finish(&self, stream: &str) {
        const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
        let job = format!("{stream}-1");
        let end = Instant::now() + LONG;
        while self.kubernetes.call(Method::GET, &format!("{JOBS}/{job}"), None).await.unwrap().0 != 200 {
            assert!(Instant::now() < end, "`{job}` is never there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let now = "2026-01-01T00:00:00Z";
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now});
        let status = json!({"startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]});
        let ended = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job}, "status": status});
        let path = format!("{JOBS}/{job}/status?fieldManager=test&force=true");
        let (status, answer) = self.kubernetes.call(Method::PATCH, &path, Some(&ended)).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        self.until(&format!("streams/{stream}"), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    }

    async fn is_there(&self, stream: &str) {
        self.until(&format!("streams/{stream}"), "there", |object| object["kind"] == "Stream").await;
    }
}

fn definition(name: &str) -> Value {
    let mut object = read("samples/streamconfig.yaml");
    object["metadata"]["name"] = json!(name);
    object
}

#[tokio::test]
async fn a_definition_waits_for_its_turn_and_says_so_no_longer_than_it_does() {
    let Some(mut scene) = Scene::new("1", &[]).await else { return };
    scene.define(&definition("first")).await;
    scene.is_there("first-1").await;
    scene.define(&definition("second")).await;
    let waiting = scene.until("streamconfigs/second", "waiting", |object| condition(object, "Waiting").is_some()).await;
    let told = condition(&waiting, "Waiting").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("TooManyStreams")), "{waiting:#}");
    let first = scene.until("streamconfigs/first", "looked at", |object| object["status"]["activeStream"] == "first-1").await;
    assert!(condition(&first, "Waiting").is_none(), "{first:#}");
    scene.finish("first-1").await;
    // Much sooner than all definitions are looked at again, which is after five minutes.
    scene.is_there("second-1").await;
    let is_over = |object: &Value| condition(object, "Waiting").is_some_and(|told| told["status"] == "False");
    let started = scene.until("streamconfigs/second", "no longer waiting", is_over).await;
    assert_eq!(started["status"]["activeStream"], "second-1", "{started:#}");
    assert_eq!(scene.controller.terminate().await, Some(0));
}

#[tokio::test]
async fn of_definitions_that_come_at_once_no_more_begin_than_may() {
    let names: Vec<String> = (0..6).map(|number| format!("at-once-{number}")).collect();
    let definitions: Vec<Value> = names.iter().map(|name| definition(name)).collect();
    let Some(scene) = Scene::new("2", &definitions).await else { return };
    let mut waiting = 0;
    for name in &names {
        let told = |object: &Value| object["status"]["activeStream"].is_string() || condition(object, "Waiting").is_some();
        let object = scene.until(&format!("streamconfigs/{name}"), "decided", told).await;
        waiting += usize::from(condition(&object, "Waiting").is_some());
    }
    let (_, streams) = scene.kubernetes.call(Method::GET, &format!("{NAMESPACE}/streams"), None).await.unwrap();
    assert_eq!((streams["items"].as_array().unwrap().len(), waiting), (2, 4), "{streams:#}");
}

#[tokio::test]
async fn deleting_the_newest_stream_runs_nothing_again() {
    let Some(scene) = Scene::new("4", &[]).await else { return };
    let mut object = definition("kept");
    object["spec"]["runNonce"] = json!("a");
    scene.define(&object).await;
    scene.is_there("kept-1").await;
    scene.finish("kept-1").await;
    let (status, answer) = {
        let wish =
            json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "StreamConfig", "metadata": {"name": "kept"}, "spec": {"runNonce": "b"}});
        let path = format!("{NAMESPACE}/streamconfigs/kept?fieldManager=test&force=true");
        scene.kubernetes.call(Method::PATCH, &path, Some(&wish)).await.unwrap()
    };
    assert_eq!(status, 200, "{answer}");
    scene.is_there("kept-2").await;
    scene.finish("kept-2").await;
    let ended = |object: &Value| object["status"]["phase"] == "FINISHED" && object["status"]["lastRun"] == 2;
    scene.until("streamconfigs/kept", "told of the end", ended).await;
    let (status, answer) = scene.kubernetes.call(Method::DELETE, &format!("{NAMESPACE}/streams/kept-2"), None).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    scene.until("streams/kept-2", "gone", |object| object["kind"] == "Status").await;
    // Whatever is decided after the deletion is decided once another definition, made later, has its stream.
    scene.define(&definition("later")).await;
    scene.is_there("later-1").await;
    let (_, streams) = scene.kubernetes.call(Method::GET, &format!("{NAMESPACE}/streams"), None).await.unwrap();
    let names: Vec<&str> = streams["items"].as_array().unwrap().iter().filter_map(|stream| stream["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["kept-1", "later-1"]);
    let kept = scene.until("streamconfigs/kept", "there", |object| object["kind"] == "StreamConfig").await;
    assert_eq!((&kept["status"]["observedNonce"], &kept["status"]["phase"]), (&json!("b"), &json!("FINISHED")), "{kept:#}");
    // One that is deleted before its end has not ended somehow, and is not under way either.
    scene.until("streamconfigs/later", "under way", |object| object["status"]["phase"].is_string()).await;
    let (status, answer) = scene.kubernetes.call(Method::DELETE, &format!("{NAMESPACE}/streams/later-1"), None).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    scene.until("streamconfigs/later", "at rest", |object| object["status"]["phase"].is_null()).await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_yet_is_not_accepted_and_never_runs() {
    let Some(scene) = Scene::new("4", &[]).await else { return };
    let mut object = definition("changes");
    object["spec"]["mode"] = json!("cdc");
    scene.define(&object).await;
    let refused = scene.until("streamconfigs/changes", "looked at", |object| condition(object, "Accepted").is_some()).await;
    let told = condition(&refused, "Accepted").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("NotSupported")), "{refused:#}");
    assert_eq!(told["message"], "mode: change data capture is not supported yet; use `convert`");
    assert!(refused["status"]["activeStream"].is_null(), "{refused:#}");
}
