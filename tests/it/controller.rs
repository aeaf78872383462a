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

#[tokio::test]
async fn a_definition_waits_for_its_turn_and_says_so_no_longer_than_it_does() {
    let Some(kubernetes) = server().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let template = dir.path().join("template.yaml").display().to_string();
    std::fs::write(&template, TEMPLATE).unwrap();
    let config = kubernetes.kubeconfig().unwrap().display().to_string();
    let ops = format!("127.0.0.1:{}", free_port());
    let args = ["controller", "--ops-listen", &ops, "--nats-url", NATS, "--worker-template", &template, "--max-active-streams", "1"];
    let mut controller = Process::spawn_with(&args, &[("KUBECONFIG", config.as_str())]).unwrap();
    controller.wait_for("leading").await.unwrap();
    let make = async |kind: &str, object: &Value| {
        let (status, answer) = kubernetes.call(Method::POST, &format!("{NAMESPACE}/{kind}"), Some(object)).await.unwrap();
        assert_eq!(status, 201, "{answer}");
    };
    for sample in ["connection-mariadb", "connection-postgresql"] {
        make("connections", &read(&format!("samples/{sample}.yaml"))).await;
    }
    let definition = |name: &str| {
        let mut object = read("samples/streamconfig.yaml");
        object["metadata"]["name"] = json!(name);
        object
    };
    make("streamconfigs", &definition("first")).await;
    until(&kubernetes, "streams/first-1", "there", |object| object["kind"] == "Stream").await;
    make("streamconfigs", &definition("second")).await;
    let waiting = until(&kubernetes, "streamconfigs/second", "waiting", |object| condition(object, "Waiting").is_some()).await;
    let told = condition(&waiting, "Waiting").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("TooManyStreams")), "{waiting:#}");
    let first = until(&kubernetes, "streamconfigs/first", "looked at", |object| object["status"]["activeStream"] == "first-1").await;
    assert!(condition(&first, "Waiting").is_none(), "{first:#}");

    let ended =
        json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Stream", "metadata": {"name": "first-1"}, "status": {"phase": "FINISHED"}});
    let path = format!("{NAMESPACE}/streams/first-1/status?fieldManager=test&force=true");
    let (status, answer) = kubernetes.call(Method::PATCH, &path, Some(&ended)).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    // Much sooner than all definitions are looked at again, which is after five minutes.
    until(&kubernetes, "streams/second-1", "there", |object| object["kind"] == "Stream").await;
    let is_over = |object: &Value| condition(object, "Waiting").is_some_and(|told| told["status"] == "False");
    let started = until(&kubernetes, "streamconfigs/second", "no longer waiting", is_over).await;
    assert_eq!(started["status"]["activeStream"], "second-1", "{started:#}");
    assert_eq!(controller.terminate().await, Some(0));
}
