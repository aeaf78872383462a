//! Who leads, who may what, and what stays after a stream is gone.

use std::time::{Duration, Instant};

use millrace_tests::dataset::products;
use serde_json::json;

use crate::kube::{Scene, condition, kube};

#[tokio::test]
async fn another_controller_takes_over_within_twenty_seconds() {
    let kube = kube().await;
    let holder = async || kube.get("lease", "millrace-controller").await["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let first = holder().await;
    assert!(!first.is_empty());
    let killed_at = Instant::now();
    assert!(kube.kill_pod(&first).await);
    loop {
        let now = holder().await;
        if !now.is_empty() && now != first {
            break;
        }
        assert!(killed_at.elapsed() < Duration::from_secs(20), "`{first}` still holds the lease");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_missing_connection_is_waited_for_and_a_deleted_stream_leaves_nothing() {
    let kube = kube().await;
    let scene = Scene::new("waits", &products(10)).await;
    let mut definition = scene.definition(json!({}));
    definition["spec"]["target"]["connection"] = json!("not-there");
    kube.apply(&[definition]).await;
    let config = kube
        .until("streamconfig", &scene.name, "refused", |object| crate::kube::condition(object, "Accepted").1 == "ReferenceMissing")
        .await;
    assert!(config.to_string().contains("there is no Connection `not-there`"), "{config:#}");
    kube.kubectl(&["delete", "streamconfig", &scene.name]).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    kube.kubectl(&["delete", "streamconfig", &scene.name]).await;
    kube.until("stream", &scene.stream(), "gone", |object| object.is_null()).await;
    let label = format!("millrace.dev/stream={}", scene.stream());
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let left = kube.left(&label).await;
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "left behind: {left:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn names_that_leave_no_room_for_those_of_pods_are_refused_and_hold_nothing() {
    let kube = kube().await;
    let scene = Scene::new("long", &products(10)).await;
    let mut definition = scene.definition(json!({}));
    let long = format!("{}-{}", scene.name, "x".repeat(62 - scene.name.len() - 1));
    definition["metadata"]["name"] = json!(long);
    kube.apply(&[definition]).await;
    let refused = kube.until("streamconfig", &long, "refused", |object| condition(object, "Accepted").0 == "False").await;
    assert!(
        refused.to_string().contains("metadata.name: its Jobs and pods are named after it, so it may have 48 characters"),
        "{refused:#}"
    );
    // A Stream by hand, as that definition would have made it.
    kube.apply(&[scene.definition(json!({}))]).await;
    let mut stream = kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    let name = format!("{long}-1");
    stream["metadata"] = json!({"name": name});
    stream.as_object_mut().unwrap().remove("status");
    kube.apply(&[stream]).await;
    let failed = kube.until("stream", &name, "failed", |object| object["status"]["phase"] == "FAILED").await;
    assert!(failed["status"]["message"].as_str().unwrap().contains("55 characters"), "{failed:#}");
    kube.kubectl(&["delete", "stream", &name, "--timeout=40s"]).await;
    kube.kubectl(&["delete", "streamconfig", &long, "--timeout=40s"]).await;
}

#[tokio::test]
async fn service_accounts_may_do_what_the_committed_list_says_and_no_more() {
    let kube = kube().await;
    // The account of the uninstall exists only while one is under way.
    let hook = kube.helm(&["template", "millrace", crate::kube::CHART, "--show-only", "templates/uninstall.yaml"]).await;
    let (_, job) = hook.rsplit_once("---").unwrap();
    assert!(job.contains("kind: Job"), "{job}");
    crate::kube::run("kubectl", &["-n", &kube.namespace, "apply", "-f", "-"], Some(hook.strip_suffix(job).unwrap())).await;
    let mut found = String::new();
    for account in ["controller", "apiserver", "query", "worker", "drain", "default"] {
        let name = if account == "default" { account.to_owned() } else { format!("millrace-{account}") };
        kube.kubectl(&["get", "serviceaccount", &name]).await;
        let user = format!("--as=system:serviceaccount:{}:{name}", kube.namespace);
        let (is_ok, rules) = kube.try_kubectl(&["auth", "can-i", "--list", "--no-headers", &user]).await;
        assert!(is_ok, "{rules}");
        let mut lines: Vec<String> = rules
            .lines()
            .filter(|line| !line.contains("selfsubject") && !line.trim_start().starts_with('['))
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").replace(&kube.namespace, "<namespace>"))
            .collect();
        lines.sort();
        found.push_str(&format!("{account}\n"));
        lines.iter().for_each(|line| found.push_str(&format!("  {line}\n")));
    }
    kube.kubectl(&["delete", "serviceaccount,role,rolebinding", "millrace-drain"]).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/rights.txt");
    if std::env::var_os("MILLRACE_UPDATE").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(path).unwrap_or_default(), "rights differ from `{path}`");
}
