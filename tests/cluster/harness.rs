//! What the other tests rely on is really there: routes from outside, policies that block, numbers for scaling, volumes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::kube::{Kube, LONG, host, run};

/// NATS, loaded for the chart: it listens, dials and writes.
const IMAGE: &str = "docker.io/library/nats:2.12.1";

/// A namespace that goes when the test ends well.
async fn namespace(name: &str) -> Kube {
    let kube = Kube::new_namespace(name).await;
    // Without it no pod is admitted.
    kube.kubectl(&["wait", "--for=create", "serviceaccount/default", "--timeout=60s"]).await;
    kube
}

async fn remove(kube: &Kube) {
    run("kubectl", &["delete", "namespace", &kube.namespace, "--wait=false"], None).await;
}

fn pod(name: &str, args: &[&str]) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "nats", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": args}]}})
}

fn ingress(name: &str, host: &str, port: u16) -> Value {
    let service = json!({"name": name, "port": {"number": port}});
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": {
        "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]}}]}})
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

/// A connection to the ingress controller on which this request was sent.
async fn ask(host: &str, path: &str, more: &str) -> TcpStream {
    let base = std::env::var("MILLRACE_CLUSTER_INGRESS").expect("run this by `./x it cluster`");
    let address = base.trim_start_matches("http://");
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut text = String::new();
    let mut block = [0; 4096];
    while !text.contains(wanted) {
        let read = timeout(LONG, stream.read(&mut block)).await.expect("nothing arrives").unwrap();
        assert!(read > 0, "ended before `{wanted}`: {text}");
        text.push_str(&String::from_utf8_lossy(&block[..read]));
    }
    text
}

/// Asks until the status is one of these.
async fn until_status(host: &str, wanted: &[&str]) {
    let end = Instant::now() + LONG;
    loop {
        let mut stream = ask(host, "/varz", "Connection: close\r\n").await;
        let answer = timeout(LONG, async { read_until(&mut stream, "\r\n").await }).await.unwrap();
        if wanted.iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} "))) {
            return;
        }
        assert!(Instant::now() < end, "none of {wanted:?}: {answer}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn an_ingress_passes_event_streams_and_websockets_on_without_holding_them_back() {
    let kube = namespace("ingress").await;
    let server = TcpListener::bind((host(), 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let name = format!("{}.test", kube.namespace);
    let shown_name = name.clone();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "outside", "labels": {"kubernetes.io/service-name": "outside"}},
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [host()], "conditions": {"ready": true}}]});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "outside"},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]}});
    kube.apply(&[service, slice, ingress("outside", &name, 80)]).await;
    let (seen, mut was_seen) = tokio::sync::mpsc::channel::<()>(1);
    let serving = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("GET /events "));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: first\n\n").await.unwrap();
        // The second is not even made before the first was seen at the other end.
        was_seen.recv().await.unwrap();
        stream.write_all(b"data: second\n\n").await.unwrap();
        drop(stream);
        let (mut stream, _) = server.accept().await.unwrap();
        let request = read_until(&mut stream, "\r\n\r\n").await.to_lowercase();
        for header in ["upgrade: websocket", &format!("host: {shown_name}"), "x-forwarded-proto: http", "x-forwarded-for: "] {
            assert!(request.contains(header), "`{header}` is missing: {request}");
        }
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.unwrap();
        let sent = read_until(&mut stream, "ping").await;
        stream.write_all(sent.replace("ping", "pong").as_bytes()).await.unwrap();
        // Held open until the client goes.
        let _ = stream.read(&mut [0; 16]).await;
    });
    let end = Instant::now() + LONG;
    let mut stream = loop {
        let mut stream = ask(&name, "/events", "").await;
        let answer = read_until(&mut stream, "\r\n").await;
        if answer.starts_with("HTTP/1.1 200 ") {
            if !answer.contains("data: first") {
                read_until(&mut stream, "data: first").await;
            }
            break stream;
        }
        assert!(Instant::now() < end, "no route: {answer}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    seen.send(()).await.unwrap();
    read_until(&mut stream, "data: second").await;
    let upgrade =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let mut stream = ask(&name, "/socket", upgrade).await;
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream.write_all(b"ping").await.unwrap();
    read_until(&mut stream, "pong").await;
    drop(stream);
    serving.await.unwrap();
    remove(&kube).await;
}

#[tokio::test]
async fn a_network_policy_blocks_what_comes_in_and_lets_the_named_namespace_through() {
    let kube = namespace("into").await;
    let name = format!("{}.test", kube.namespace);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"name": "http", "port": 80, "targetPort": 8222}]}});
    kube.apply(&[pod("server", &["-m", "8222"]), service, ingress("server", &name, 80)]).await;
    until_status(&name, &["200"]).await;
    kube.apply(&[policy("none", json!({"podSelector": {}, "policyTypes": ["Ingress"]}))]).await;
    until_status(&name, &["502", "503", "504"]).await;
    let from = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]);
    let allowed = json!({"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": [{"from": from}]});
    kube.apply(&[policy("controller", allowed)]).await;
    until_status(&name, &["200"]).await;
    remove(&kube).await;
}

#[tokio::test]
async fn a_network_policy_blocks_what_goes_out() {
    let kube = namespace("out").await;
    let listener = TcpListener::bind((host(), 0)).await.unwrap();
    let route = format!("nats://{}:{}", host(), listener.local_addr().unwrap().port());
    // A server with a peer dials it every second for as long as it is not there.
    kube.apply(&[pod("dialler", &["--cluster", "nats://0.0.0.0:6222", "--cluster_name", "test", "--routes", &route])]).await;
    for _ in 0..3 {
        drop(timeout(LONG, listener.accept()).await.expect("the pod does not dial").unwrap());
    }
    kube.apply(&[policy("none", json!({"podSelector": {}, "policyTypes": ["Egress"]}))]).await;
    let end = Instant::now() + LONG;
    while let Ok(accepted) = timeout(Duration::from_secs(8), listener.accept()).await {
        drop(accepted.unwrap());
        assert!(Instant::now() < end, "the pod still dials");
    }
    kube.kubectl(&["delete", "networkpolicy", "none"]).await;
    drop(timeout(LONG, listener.accept()).await.expect("it was not the policy").unwrap());
    remove(&kube).await;
}

#[tokio::test]
async fn a_claim_without_a_class_is_bound_to_a_folder_that_a_plain_user_may_write() {
    let kube = namespace("volume").await;
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}});
    let mut writer = pod("writer", &["-js", "-sd", "/data", "-m", "8222"]);
    let spec = &mut writer["spec"];
    spec["securityContext"] = json!({"runAsUser": 65532, "runAsNonRoot": true, "fsGroup": 65532});
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    spec["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": 8222}, "periodSeconds": 1});
    kube.apply(&[claim, writer]).await;
    kube.kubectl(&["wait", "--for=condition=Ready", "pod/writer", "--timeout=180s"]).await;
    assert_eq!(kube.get("pvc", "data").await["status"]["phase"], "Bound");
    remove(&kube).await;
}

#[tokio::test]
async fn there_are_numbers_for_nodes_and_pods() {
    let kube = namespace("top").await;
    kube.apply(&[pod("busy", &["-m", "8222"])]).await;
    let end = Instant::now() + LONG;
    loop {
        let (is_ok, pods) = kube.try_kubectl(&["top", "pods", "--no-headers"]).await;
        if is_ok && pods.starts_with("busy ") {
            break;
        }
        assert!(Instant::now() < end, "{pods}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let nodes = kube.kubectl(&["top", "nodes", "--no-headers"]).await;
    assert!(nodes.contains('%'), "{nodes}");
    remove(&kube).await;
}

#[tokio::test]
async fn monitors_and_rules_can_be_made() {
    let kube = namespace("monitor").await;
    let made = |kind: &str| json!({"apiVersion": "monitoring.coreos.com/v1", "kind": kind, "metadata": {"name": "any"}, "spec": {"groups": [{"name": "a"}]}});
    kube.apply(&[made("ServiceMonitor"), made("PodMonitor"), made("PrometheusRule")]).await;
    let rule = kube.get("prometheusrule", "any").await;
    assert_eq!(rule["spec"]["groups"][0]["name"], "a", "unknown fields are kept: {rule}");
    remove(&kube).await;
}
