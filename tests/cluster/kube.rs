//! One installation that all tests share, and what they ask of it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use ::kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams};
use ::kube::{Api, Client};
use millrace_tests::database::{MySqlDatabase, PgDatabase, unique};
pub(crate) use millrace_tests::kube::CHART;
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{Server, shared};
use serde_json::{Value, json};
use tokio::io::AsyncBufReadExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// How long anything may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// Marks namespaces of tests.
pub(crate) const TEST_LABEL: &str = "millrace.dev/test=true";

/// A namespace with a release in it.
pub(crate) struct Kube {
    pub(crate) namespace: String,
}

static SHARED: OnceCell<Kube> = OnceCell::const_new();

/// The installation, with two controllers.
pub(crate) async fn kube() -> &'static Kube {
    SHARED.get_or_init(|| Kube::install("controller.replicas=2,maxActiveStreams=20")).await
}

/// Runs a program; answers what it printed.
///
/// # Panics
/// If it fails.
pub(crate) async fn run(program: &str, args: &[&str], input: Option<&str>) -> String {
    let (is_ok, out) = try_run(program, args, input).await;
    assert!(is_ok, "{program} {}: {out}", args.join(" "));
    out
}

/// As [`run`], answering also whether it succeeded.
pub(crate) async fn try_run(program: &str, args: &[&str], input: Option<&str>) -> (bool, String) {
    millrace_tests::kube::try_run(program, args, input).await.expect("run this by `./x it cluster`")
}

/// Kinds that tests look at again and again. A program for every look would keep a small machine busy.
fn resource(kind: &str) -> Option<ApiResource> {
    let (group, version, name, plural) = match kind {
        "connection" => ("millrace.dev", "v1alpha1", "Connection", "connections"),
        "stream" => ("millrace.dev", "v1alpha1", "Stream", "streams"),
        "streamconfig" => ("millrace.dev", "v1alpha1", "StreamConfig", "streamconfigs"),
        "configmap" => ("", "v1", "ConfigMap", "configmaps"),
        "event" => ("", "v1", "Event", "events"),
        "pod" => ("", "v1", "Pod", "pods"),
        "secret" => ("", "v1", "Secret", "secrets"),
        "lease" => ("coordination.k8s.io", "v1", "Lease", "leases"),
        "deployment" => ("apps", "v1", "Deployment", "deployments"),
        "job" => ("batch", "v1", "Job", "jobs"),
        _ => return None,
    };
    Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, name), plural))
}

/// A client of this test's own thread, whose runtime it belongs to.
async fn client() -> Client {
    thread_local! {
        static CLIENT: OnceCell<Client> = const { OnceCell::const_new() };
    }
    if let Some(client) = CLIENT.with(|cell| cell.get().cloned()) {
        return client;
    }
    // The second call finds it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = Client::try_default().await.expect("run this by `./x it cluster`");
    CLIENT.with(|cell| {
        let _ = cell.set(made.clone());
    });
    made
}

impl Kube {
    /// An empty namespace, which says that it is a test's.
    pub(crate) async fn new_namespace(prefix: &str) -> Self {
        let namespace = unique(prefix).replace('_', "-");
        run("kubectl", &["create", "namespace", &namespace], None).await;
        run("kubectl", &["label", "namespace", &namespace, TEST_LABEL], None).await;
        Self { namespace }
    }

    /// A release in a namespace of its own, with these values.
    pub(crate) async fn install(values: &str) -> Self {
        let kube = Self::new_namespace("mr").await;
        kube.helm(&["install", "millrace", CHART, "--set", values, "--wait", "--timeout=150s"]).await;
        kube
    }

    /// A port of this machine that leads to a pod's, as long as this process lives.
    pub(crate) async fn forward(&self, pod: &str, port: u16) -> u16 {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "kubectl", "-n", &self.namespace, "port-forward", pod, &format!(":{port}")]);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        // The signal comes when the thread that started the program ends, so that thread must not.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
                let mut lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
                let _ = sender.send(lines.next_line().await.unwrap().unwrap_or_default());
                while let Ok(Some(_)) = lines.next_line().await {}
                let _ = child.wait().await;
            });
        });
        let line = tokio::time::timeout(LONG, receiver).await.expect("no answer").unwrap();
        let found = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
        found.unwrap_or_else(|| panic!("{pod} cannot be reached: {line}"))
    }

    /// `helm` in the namespace.
    pub(crate) async fn helm(&self, args: &[&str]) -> String {
        run("helm", &[&["-n", self.namespace.as_str()], args].concat(), None).await
    }

    /// `kubectl` in the namespace.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        run("kubectl", &[&["-n", self.namespace.as_str()], args].concat(), None).await
    }

    /// As [`Kube::kubectl`], answering also whether it succeeded.
    pub(crate) async fn try_kubectl(&self, args: &[&str]) -> (bool, String) {
        try_run("kubectl", &[&["-n", self.namespace.as_str()], args].concat(), None).await
    }

    /// Applies objects.
    pub(crate) async fn apply(&self, objects: &[Value]) {
        let (is_ok, out) = self.try_apply(objects).await;
        assert!(is_ok, "kubectl apply: {out}");
    }

    /// As [`Kube::apply`], answering whether the cluster took them and what it said.
    pub(crate) async fn try_apply(&self, objects: &[Value]) -> (bool, String) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        try_run("kubectl", &["-n", &self.namespace, "apply", "-f", "-"], Some(&list)).await
    }

    /// Asks the cluster whether it would create an object, and what it says.
    pub(crate) async fn try_create(&self, object: &Value) -> (bool, String) {
        try_run("kubectl", &["-n", &self.namespace, "create", "--dry-run=server", "-f", "-"], Some(&object.to_string())).await
    }

    /// Objects of a kind with these labels and fields, as JSON.
    pub(crate) async fn list(&self, kind: &str, labels: &str, fields: &str) -> Vec<Value> {
        let chosen = ListParams::default().labels(labels).fields(fields);
        let list = self.objects(kind).await.expect("a kind that is listed").list(&chosen).await.unwrap();
        list.items.into_iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    async fn objects(&self, kind: &str) -> Option<Api<DynamicObject>> {
        Some(Api::namespaced_with(client().await, &self.namespace, &resource(kind)?))
    }

    /// Names of the objects that Kubernetes has for us with this label: jobs, pods, ConfigMaps.
    pub(crate) async fn left(&self, label: &str) -> Vec<String> {
        let mut names = Vec::new();
        for kind in ["job", "pod", "configmap"] {
            let found = self.list(kind, label, "").await;
            names.extend(found.iter().map(|object| format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap())));
        }
        names
    }

    /// Messages of the events about an object that have this reason.
    pub(crate) async fn events(&self, name: &str, reason: &str) -> Vec<String> {
        let found = self.list("event", "", &format!("involvedObject.name={name},reason={reason}")).await;
        found.iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Ends a pod as if its node had gone; whether it was there.
    pub(crate) async fn kill_pod(&self, name: &str) -> bool {
        self.objects("pod").await.expect("pods are known").delete(name, &DeleteParams::default().grace_period(0)).await.is_ok()
    }

    /// Removes a namespace; answers how long that took.
    pub(crate) async fn delete_namespace(&self) -> Duration {
        let begun = Instant::now();
        run("kubectl", &["delete", "namespace", &self.namespace, "--timeout=120s"], None).await;
        begun.elapsed()
    }

    /// An object as JSON; null if it is not there.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        if let Some(objects) = self.objects(kind).await
            && let Ok(found) = objects.get_opt(name).await
        {
            return found.map_or(Value::Null, |object| serde_json::to_value(object).unwrap());
        }
        let text = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]).await;
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Waits until a look at an object satisfies.
    pub(crate) async fn until(&self, kind: &str, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LONG;
        loop {
            let object = self.get(kind, name).await;
            if is_so(&object) {
                return object;
            }
            assert!(Instant::now() < end, "{kind}/{name} does not become {what}: {object:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Names of pods that run.
    pub(crate) async fn running(&self, labels: &str) -> Vec<String> {
        let found = self.list("pod", labels, "status.phase=Running").await;
        found.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Names of a stream's pods that run.
    pub(crate) async fn pods(&self, stream: &str) -> Vec<String> {
        self.running(&format!("millrace.dev/stream={stream}")).await
    }
}

/// A source, a target's name, and their objects.
pub(crate) struct Scene {
    pub(crate) source: MySqlDatabase,
    pub(crate) target: String,
    pub(crate) name: String,
    /// In front of the source.
    pub(crate) proxy: FaultProxy,
    /// In front of the target.
    pub(crate) to: FaultProxy,
}

/// The address of this machine that pods reach.
pub(crate) fn host() -> String {
    millrace_tests::kube::host().expect("run this by `./x it cluster`")
}

impl Scene {
    /// A source with these statements, its connections and their Secrets.
    pub(crate) async fn new(name: &str, statements: &[String]) -> Self {
        Self::new_in(kube().await, name, statements).await
    }

    /// As [`Scene::new`], in another installation.
    pub(crate) async fn new_in(kube: &Kube, name: &str, statements: &[String]) -> Self {
        let servers = shared().await;
        let source = MySqlDatabase::create(&servers.mysql, name).await.unwrap();
        source.execute(statements).await.unwrap();
        let proxy = FaultProxy::start_on(&host(), &servers.mysql.host, servers.mysql.port).await.unwrap();
        let to = FaultProxy::start_on(&host(), &servers.postgres.host, servers.postgres.port).await.unwrap();
        let scene = Self { source, target: unique(name), name: unique(name).replace('_', "-"), proxy, to };
        kube.apply(&scene.objects().await).await;
        scene
    }

    /// Its connections and their Secrets.
    pub(crate) async fn objects(&self) -> Vec<Value> {
        let servers = shared().await;
        vec![
            self.secret("from", &servers.mysql.password),
            self.secret("to", &servers.postgres.password),
            self.connection("from", "mysql", &servers.mysql, self.proxy.port),
            self.connection("to", "postgresql", &servers.postgres, self.to.port),
        ]
    }

    pub(crate) fn secret(&self, side: &str, password: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("millrace-conn-{}-{side}", self.name)}, "stringData": {"password": password}})
    }

    fn connection(&self, side: &str, engine: &str, server: &Server, port: u16) -> Value {
        millrace_tests::kube::connection(&format!("{}-{side}", self.name), engine, &host(), port, &server.user)
    }

    /// The definition, with further fields of its spec.
    pub(crate) fn definition(&self, more: Value) -> Value {
        let (from, to) = (format!("{}-from", self.name), format!("{}-to", self.name));
        let mut object = millrace_tests::kube::convert(&self.name, &from, &self.source.name, &to, &self.target);
        for (field, value) in more.as_object().into_iter().flatten() {
            object["spec"][field] = value.clone();
        }
        object
    }

    /// Waits until its first stream has read so many bytes and is seen running; from then on nothing passes until the proxy is released.
    pub(crate) async fn reads(&self, kube: &Kube, bytes: u64) {
        self.proxy.hold_at(bytes).await;
        kube.until("stream", &self.stream(), "running", |object| object["status"]["phase"] == "RUNNING").await;
    }

    /// Waits until its first stream has committed rows.
    pub(crate) async fn commits(&self) {
        let committed = "SELECT count(*)::text FROM millrace.split WHERE committed_at IS NOT NULL";
        let end = Instant::now() + LONG;
        loop {
            // There is no such database before the stream makes it, and no ledger in it for a moment.
            let target = PgDatabase::open(&shared().await.postgres, &self.target).await;
            if let Ok(target) = target
                && target.texts(committed).await.is_ok_and(|count| count != ["0"])
            {
                return;
            }
            assert!(Instant::now() < end, "`{}` commits nothing", self.name);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The name of its first stream.
    pub(crate) fn stream(&self) -> String {
        format!("{}-1", self.name)
    }
}

/// A condition's status and reason.
pub(crate) fn condition(object: &Value, kind: &str) -> (String, String) {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}
