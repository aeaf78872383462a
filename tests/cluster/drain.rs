//! A node is drained in the middle of a run. It takes everything off the node, so this runs alone, after the other tests.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

mod kube;

use millrace_tests::database::PgDatabase;
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::shared;
use serde_json::json;

use kube::{Kube, Scene, TEST_LABEL, condition};

#[tokio::test]
async fn a_run_goes_on_after_its_node_was_drained() {
    // Budgets of others would keep their pods, whose successors have nowhere to go.
    let others = Kube { namespace: "default".to_owned() };
    others.kubectl(&["delete", "namespace", "-l", TEST_LABEL, "--timeout=180s"]).await;
    let kube = Kube::install("controller.replicas=1,apiserver.enabled=false,query.enabled=false,rbac.aggregate=false").await;
    let scene = Scene::new_in(&kube, "drained", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({"onCutLost": "continue"}))]).await;
    scene.reads(&kube, 6_000_000).await;
    let nodes = kube.kubectl(&["get", "nodes", "-o", "name"]).await;
    let node = nodes.lines().next().unwrap().strip_prefix("node/").unwrap().to_owned();
    let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s"];
    let (is_drained, said) = kube.try_kubectl(&drain).await;
    scene.proxy.release();
    // Nothing of ours runs, and what is to run has nowhere to go: whoever asks is told so, once somebody can say it.
    let running = kube.kubectl(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"]).await;
    kube.kubectl(&["uncordon", &node]).await;
    assert!(is_drained, "{said}");
    assert_eq!(running.lines().filter(|line| line.starts_with("pod/")).count(), 0, "{running}");
    let stream = kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    // Kubernetes itself replaced the pod: no attempt was lost by it.
    assert_eq!(stream["status"]["attempt"], 1, "{stream:#}");
    assert_eq!(condition(&stream, "Degraded").0, "False");
    let target = PgDatabase::open(&shared().await.postgres, &scene.target).await.unwrap();
    assert_equal(&scene.source.pool, &scene.source.name, &target.client, "public", "products").await.unwrap();
    kube.delete_namespace().await;
}
