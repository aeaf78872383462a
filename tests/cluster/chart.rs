//! The chart from its installation to its end, each time in a namespace and under a name of its own.

use std::time::{Duration, Instant};

use millrace_tests::database::unique;
use millrace_tests::dataset::products;
use serde_json::{Value, json};

use crate::kube::{CHART, Kube, LONG, Scene, kube, run, try_run};

/// Value files that the chart brings along.
const VALUE_FILES: [&str; 7] = ["autoscaling", "default", "external-nats", "guarded", "ha", "ingress-tls", "minimal"];

/// Values that are wrong, and what is said of each.
const WRONG: [(&str, &[&str]); 16] = [
    ("maxActiveStreams=0", &["/maxActiveStreams", "minimum: got 0, want 1"]),
    ("image.pullPolicy=Sometimes", &["/image/pullPolicy", "must be one of 'Always', 'IfNotPresent', 'Never'"]),
    ("apiserver.service.port=70000", &["/apiserver/service/port", "maximum", "65,535"]),
    ("apiserver.replicas=two", &["/apiserver/replicas", "got string, want integer"]),
    ("replicas=3", &["additional properties 'replicas' not allowed"]),
    ("controller.maxActiveStreams=20", &["/controller", "additional properties 'maxActiveStreams' not allowed"]),
    ("query.concurrent=0", &["/query/concurrent", "minimum: got 0, want 1"]),
    ("nats.enabled=false", &["/nats/url", "minLength"]),
    ("nats.url=http://nats:4222", &["/nats/url", "does not match pattern"]),
    ("nats.storage.size=lots", &["/nats/storage/size", "does not match pattern"]),
    ("ingress.path=api", &["/ingress/path", "does not match pattern '^/'"]),
    ("ingress.flavour=apache", &["/ingress/flavour", "must be one of 'nginx', 'haproxy', 'alb', 'none'"]),
    ("worker.resources.limits.memory=much", &["/worker/resources/limits/memory", "does not match pattern"]),
    ("networkPolicy.queryEgressExcept={10.0.0.0}", &["/networkPolicy/queryEgressExcept/0", "does not match pattern"]),
    ("apiserver.autoscaling.minReplicas=9", &["apiserver.autoscaling: `minReplicas` (9) is more than `maxReplicas` (4)"]),
    ("ingress.enabled=true,apiserver.enabled=false", &["there is nothing to route to without `apiserver.enabled`"]),
];

fn value_file(name: &str) -> String {
    format!("{CHART}/ci/{name}-values.yaml")
}

async fn list(kube: &Kube, kinds: &str, selector: &str) -> Vec<Value> {
    let text = kube.kubectl(&["get", kinds, "-l", selector, "-o", "json"]).await;
    serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
}

/// `kind/name` of all objects of a namespace but those that Kubernetes makes for itself or forgets by itself.
async fn objects(kube: &Kube) -> Vec<String> {
    let kinds = run("kubectl", &["api-resources", "--namespaced", "--verbs=list", "-o", "name"], None).await;
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let text = kube.kubectl(&["get", &kinds.join(","), "--ignore-not-found", "-o", "name"]).await;
    // Without words of warning, which are printed in between.
    let own = |name: &&str| !name.contains(' ') && !matches!(*name, "serviceaccount/default" | "configmap/kube-root-ca.crt");
    let mut names: Vec<String> = text.lines().filter(own).map(str::to_owned).collect();
    names.sort();
    names
}

/// Waits until a namespace holds only what is said, as `kind.group/` or `kind/name` that names begin with.
async fn assert_only_left(kube: &Kube, allowed: &[&str]) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let left = objects(kube).await;
        let surplus: Vec<&String> = left.iter().filter(|name| !allowed.iter().any(|start| name.starts_with(start))).collect();
        if surplus.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {surplus:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn assert_nothing_cluster_wide(release: &str) {
    let kinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings";
    let selector = format!("app.kubernetes.io/instance={release}");
    let left = run("kubectl", &["get", kinds, "-l", &selector, "-o", "name"], None).await;
    assert_eq!(left.trim(), "", "left behind");
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn has_our_finalizer(object: &Value) -> bool {
    object["metadata"]["finalizers"].to_string().contains("\"millrace.dev/")
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"].as_array().unwrap().iter().map(|status| status["restartCount"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn default_values_give_ready_pods_without_restarts_that_pass_the_chart_test_and_roll_on_an_upgrade() {
    let kube = Kube::new_namespace("plain").await;
    let release = unique("rel").replace('_', "-");
    let told = kube.helm(&["install", &release, CHART, "--wait", "--timeout=120s"]).await;
    assert!(told.contains("cluster-keys create") && told.contains("port-forward"), "{told}");
    let selector = format!("app.kubernetes.io/instance={release}");
    let pods = list(&kube, "pods", &selector).await;
    let mut components: Vec<&str> =
        pods.iter().map(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap()).collect();
    components.sort_unstable();
    assert_eq!(components, ["apiserver", "controller", "nats", "query"]);
    for pod in &pods {
        assert!(is_ready(pod) && restarts(pod) == 0, "{:#}", pod["status"]);
    }
    kube.helm(&["test", &release, "--timeout=90s"]).await;

    let deployment = format!("{release}-controller");
    let before = kube.get("deployment", &deployment).await;
    kube.helm(&["upgrade", &release, CHART, "--set", "logFilter=debug,controller.replicas=2", "--wait", "--timeout=120s"]).await;
    let after = kube.get("deployment", &deployment).await;
    assert_ne!(before["spec"]["template"], after["spec"]["template"]);
    assert_eq!(after["status"]["readyReplicas"], 2, "{:#}", after["status"]);
    assert_eq!(after["status"]["updatedReplicas"], 2, "{:#}", after["status"]);
    let seen = kube.kubectl(&["get", "pods", "-l", &selector, "-o", "jsonpath={.items[*].spec.containers[*].env}"]).await;
    assert!(seen.contains(r#""value":"debug""#), "{seen}");
    // What was made once stays: a new token would lock running workers out.
    let secrets = list(&kube, "secrets", &selector).await;
    kube.helm(&["upgrade", &release, CHART, "--wait", "--timeout=120s"]).await;
    for secret in secrets {
        let again = kube.get("secret", secret["metadata"]["name"].as_str().unwrap()).await;
        assert_eq!(secret["data"], again["data"]);
    }

    kube.helm(&["uninstall", &release, "--wait", "--timeout=180s"]).await;
    assert_only_left(&kube, &[]).await;
    assert_nothing_cluster_wide(&release).await;
    kube.kubectl(&["delete", "namespace", &kube.namespace, "--timeout=60s"]).await;
}

#[tokio::test]
async fn an_uninstall_ends_a_running_stream_leaves_only_what_people_made_and_lets_the_namespace_go() {
    let kube = Kube::new_namespace("ended").await;
    let release = unique("rel").replace('_', "-");
    kube.helm(&["install", &release, CHART, "--wait", "--timeout=120s"]).await;
    let scene = Scene::new_in(&kube, "ended", &products(200_000)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    scene.proxy.hold_at(2_000_000).await;
    let running = kube.until("stream", &scene.stream(), "running", |object| object["status"]["phase"] == "RUNNING").await;
    assert!(has_our_finalizer(&running), "{running:#}");

    kube.helm(&["uninstall", &release, "--wait", "--timeout=180s"]).await;
    let stream = kube.get("stream", &scene.stream()).await;
    assert_eq!(stream["status"]["phase"], "STOPPED", "{stream:#}");
    assert!(!has_our_finalizer(&stream), "{stream:#}");
    // The definition wants it to run: neither was it started again, nor does it stay held.
    let config = kube.get("streamconfig", &scene.name).await;
    assert_eq!(config["status"]["lastRun"], 1, "{config:#}");
    let annotations = config["metadata"]["annotations"].to_string();
    assert!(!annotations.contains("pause-reconciliation") && !annotations.contains("held-by-drain"), "{config:#}");
    assert!(!has_our_finalizer(&config), "{config:#}");
    assert_only_left(
        &kube,
        &[
            "stream.millrace.dev/",
            "streamconfig.millrace.dev/",
            "connection.millrace.dev/",
            &format!("secret/millrace-conn-{}", scene.name),
        ],
    )
    .await;
    for name in ["from", "to"] {
        assert!(kube.get("secret", &format!("millrace-conn-{}-{name}", scene.name)).await.is_object());
        let connection = kube.get("connection", &format!("{}-{name}", scene.name)).await;
        assert!(connection.is_object() && !has_our_finalizer(&connection), "{connection:#}");
    }
    assert_nothing_cluster_wide(&release).await;

    let deleted_at = Instant::now();
    run("kubectl", &["delete", "namespace", &kube.namespace, "--timeout=60s"], None).await;
    assert!(deleted_at.elapsed() < Duration::from_secs(60));
    scene.proxy.release();
}

#[tokio::test]
async fn every_value_file_is_clean_and_a_real_server_takes_what_it_renders() {
    let kube = kube().await;
    let mut found: Vec<String> = std::fs::read_dir(format!("{CHART}/ci"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches("-values.yaml").to_owned())
        .collect();
    found.sort();
    assert_eq!(found, VALUE_FILES, "a value file is tested by being named here");
    for name in VALUE_FILES {
        let file = value_file(name);
        let said = kube.helm(&["lint", CHART, "--strict", "-f", &file]).await;
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{name}: {said}");
        // A release and a namespace of another name: whatever is taken for granted shows.
        let objects = kube.helm(&["template", "dry", CHART, "-f", &file]).await;
        let args = ["-n", &kube.namespace, "apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", "-"];
        let (is_ok, said) = try_run("kubectl", &args, Some(&objects)).await;
        assert!(is_ok, "{name}: {said}");
        assert!(said.contains("configmap/dry-worker serverside-applied (server dry run)"), "{name}: {said}");
    }
}

#[tokio::test]
async fn wrong_values_are_refused_with_the_field_and_what_it_takes() {
    for (values, words) in WRONG {
        let (is_ok, said) = try_run("helm", &["template", "wrong", CHART, "--set", values], None).await;
        assert!(!is_ok, "`{values}` is taken");
        for word in words {
            assert!(said.contains(word), "`{values}` is refused without `{word}`: {said}");
        }
    }
}

/// A Job as the controller makes it, with something in its pod changed.
fn job(change: &Value) -> Value {
    let mut pod = json!({"restartPolicy": "Never", "serviceAccountName": "millrace-worker", "automountServiceAccountToken": false,
        "containers": [{"name": "worker", "image": "example.org/nothing"}],
        "volumes": [{"name": "a", "secret": {"secretName": "millrace-conn-shop"}}, {"name": "b", "secret": {"secretName": "millrace-nats"}}]});
    for (field, value) in change.as_object().unwrap() {
        pod[field] = value.clone();
    }
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "policy"}, "spec": {"template": {"spec": pod}}})
}

#[tokio::test]
async fn jobs_of_the_controller_are_kept_to_the_secrets_and_the_account_of_workers() {
    let kube = kube().await;
    let user = format!("--as=system:serviceaccount:{}:millrace-controller", kube.namespace);
    let create = async |change: Value| {
        let args = ["-n", &kube.namespace, "create", "--dry-run=server", &user, "-f", "-"];
        try_run("kubectl", &args, Some(&job(&change).to_string())).await
    };
    let env = |from: Value| json!([{"name": "worker", "image": "example.org/nothing", "env": [{"name": "A", "valueFrom": from}]}]);
    let refused = [
        (json!({"volumes": [{"name": "a", "secret": {"secretName": "millrace-keys"}}]}), "mount only Secrets named"),
        (
            json!({"volumes": [{"name": "a", "projected": {"sources": [{"secret": {"name": "millrace-keys"}}]}}]}),
            "mount only Secrets named",
        ),
        (json!({"volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}), "get no token"),
        (json!({"containers": env(json!({"secretKeyRef": {"name": "millrace-query", "key": "token"}}))}), "read only Secrets named"),
        (
            json!({"initContainers": [{"name": "i", "image": "example.org/nothing", "envFrom": [{"secretRef": {"name": "other"}}]}]}),
            "read only Secrets named",
        ),
        (json!({"serviceAccountName": "millrace-apiserver"}), "run as `millrace-worker`"),
        (json!({"automountServiceAccountToken": true}), "get no token"),
    ];
    // A policy is heeded a moment after it was made.
    let end = Instant::now() + LONG;
    while create(refused[0].0.clone()).await.0 {
        assert!(Instant::now() < end, "the policy is not heeded");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for (change, words) in refused {
        let (is_ok, said) = create(change.clone()).await;
        assert!(!is_ok && said.contains(words), "{change}: {said}");
    }
    for change in [json!({}), json!({"containers": env(json!({"secretKeyRef": {"name": "millrace-conn-shop", "key": "password"}}))})] {
        let (is_ok, said) = create(change.clone()).await;
        assert!(is_ok, "{change}: {said}");
    }
}
