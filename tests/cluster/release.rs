//! A release with two API servers, which the tests of the REST API use one after the other.

use std::time::{Duration, Instant};

use base64::Engine as _;
use millrace_tests::api::Api;
use millrace_tests::kube::INGRESS_VARIABLE;
use millrace_tests::suites::rest::Place;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::kube::{CHART, Kube, LONG, condition, host};

const API_SERVERS: &str = "app.kubernetes.io/component=apiserver";

/// A namespace with a release in it, and a key.
pub(crate) struct Release {
    pub(crate) kube: Kube,
    key: String,
}

static SHARED: OnceCell<Release> = OnceCell::const_new();
/// The suite wants a place without connections, so tests take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// The installation.
pub(crate) async fn release() -> &'static Release {
    SHARED
        .get_or_init(|| async {
            let kube = Kube::new_namespace("rest").await;
            let host = format!("ingress.host={}.test", kube.namespace);
            // Hundreds of connections come and go, and none of their answers depends on a probe.
            let mut sets = vec!["--set", "apiserver.replicas=2,apiserver.service.type=NodePort,rbac.aggregate=false,uninstall.drain=false"];
            sets.extend(["--set", "controller.connectionProbes=on-request"]);
            if std::env::var_os(INGRESS_VARIABLE).is_some() {
                sets.extend(["--set", "ingress.enabled=true", "--set", &host]);
            }
            let args = [&["install", "millrace", CHART][..], &sets, &["--wait", "--timeout=180s"]].concat();
            kube.helm(&args).await;
            let out = kube.kubectl(&["exec", "deploy/millrace-apiserver", "--", "/usr/bin/millrace", "cluster-keys", "create"]).await;
            let key = out.lines().last().unwrap_or_default().trim().to_owned();
            assert!(key.starts_with("mr_"), "{out}");
            Release { kube, key }
        })
        .await
}

/// The installation without connections, configs and streams, for one test alone; requests go to the two API servers in turn.
pub(crate) async fn place() -> (MutexGuard<'static, ()>, Place) {
    let turn = TURN.lock().await;
    let release = release().await;
    (turn, Place::cluster(release.api().await, release.key.clone(), &host()).await.unwrap())
}

impl Release {
    /// The addresses of the API servers' pods, all ready.
    pub(crate) async fn api_servers(&self) -> Vec<String> {
        let end = Instant::now() + LONG;
        loop {
            let pods = self.kube.list("pod", API_SERVERS, "status.phase=Running").await;
            let there = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && condition(pod, "Ready").0 == "True");
            let bases: Vec<String> = there.map(|pod| format!("http://{}:8020", pod["status"]["podIP"].as_str().unwrap())).collect();
            if bases.len() == 2 {
                return bases;
            }
            assert!(Instant::now() < end, "there are not two API servers: {pods:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A client of all API servers in turn.
    pub(crate) async fn api(&self) -> Api {
        let mut api = Api::in_turn(&self.api_servers().await);
        api.key = Some(self.key.clone());
        api
    }

    /// A client of one of the API servers.
    pub(crate) fn client(&self, base: &str) -> Api {
        let mut api = Api::new(base);
        api.key = Some(self.key.clone());
        api
    }

    /// A client that comes from outside: by the ingress route if there is an ingress controller, else by the Service's port of the node.
    pub(crate) async fn from_outside(&self) -> Api {
        if let Ok(base) = std::env::var(INGRESS_VARIABLE) {
            let mut api = self.client(&base);
            api.host = Some(format!("{}.test", self.kube.namespace));
            // The ingress controller learns of a new route in a moment.
            let end = Instant::now() + LONG;
            while api.get("/health").await.is_ok_and(|answer| answer.body.is_null()) {
                assert!(Instant::now() < end, "the route does not come");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            return api;
        }
        let port = self.kube.kubectl(&["get", "service", "millrace-apiserver", "-o", "jsonpath={.spec.ports[0].nodePort}"]).await;
        let path = "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
        let address = self.kube.kubectl(&["get", "nodes", "-o", path]).await;
        self.client(&format!("http://{}:{}", address.trim(), port.trim()))
    }

    /// Makes a key beside the running servers.
    pub(crate) async fn new_key(&self) -> String {
        self.kube.kubectl(&["exec", "deploy/millrace-apiserver", "--", "/usr/bin/millrace", "cluster-keys", "create"]).await
    }

    /// Ends all API servers; returns when others have taken their place.
    pub(crate) async fn replace_api_servers(&self) {
        let before = self.api_servers().await;
        self.kube.kubectl(&["delete", "pods", "-l", API_SERVERS, "--force", "--grace-period=0"]).await;
        let end = Instant::now() + LONG;
        loop {
            let deployment = self.kube.get("deployment", "millrace-apiserver").await;
            if deployment["status"]["readyReplicas"] == 2 && self.api_servers().await.iter().all(|base| !before.contains(base)) {
                return;
            }
            assert!(Instant::now() < end, "the API servers do not come back");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Where NATS is, and its token. Its policy lets only pods of ours in, so the way leads through the node's agent.
    pub(crate) async fn nats(&self) -> (String, String) {
        static FORWARDED: OnceCell<u16> = OnceCell::const_new();
        let port = FORWARDED.get_or_init(|| self.kube.forward("pod/millrace-nats-0", 4222)).await;
        let secret = self.kube.get("secret", "millrace-nats").await;
        let token = base64::engine::general_purpose::STANDARD.decode(secret["data"]["token"].as_str().unwrap()).unwrap();
        (format!("nats://127.0.0.1:{port}"), String::from_utf8(token).unwrap())
    }
}
