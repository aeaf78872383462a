//! A Kubernetes of one node on this machine, for tests: its own network namespace, addresses and state, so that several do not meet.
//!
//! ```text
//!  host ── veth 10.N.255.1 ═ 10.N.255.2 ── namespace: API server, kubelet, containerd, pods 10.N.0.0/24 ── services 10.96.0.0/16
//!                                          ports 80 and 443: ingress controller; beside the kubelet: NetworkPolicies, metrics, volumes
//! ```
//!
//! With `KUBECONFIG` set to another cluster, that one is used as it is: nothing here starts, ends or changes it.

mod cgroup;
mod demo;
mod files;
mod image;
mod node;
mod suite;
mod tools;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::shell::Step;
pub(crate) use demo::run as demo;
pub(crate) use suite::run_or_leave_out as run_suite;
use tools::missing;

/// The tag under which this repository's image is loaded.
pub(crate) const IMAGE: &str = "docker.io/millrace/millrace:0.1.0";
/// NATS, for the chart's own template.
pub(crate) const NATS_IMAGE: &str = "docker.io/library/nats:2.12.1";

/// The address under which pods reach this machine; given by the user for a cluster of theirs.
const HOST_VARIABLE: &str = "MILLRACE_CLUSTER_HOST";
/// The file with the ingress controller's base URL.
const INGRESS: &str = "ingress";
/// Where clusters keep their files.
const PARENT: &str = "/var/tmp";
/// Its one node.
const NODE: &str = "node0";
/// Whom its storage class names.
const PROVISIONER: &str = "millrace.dev/local";
/// GiB that its files take: images, volumes, logs. With less, its agent would take pods off for want of disk.
const ROOM: u64 = 4;

/// A cluster by its name.
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

impl Cluster {
    pub(crate) fn named(name: &str) -> anyhow::Result<Self> {
        if name.is_empty() || name.len() > 8 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("a cluster's name has one to eight letters and digits");
        }
        Ok(Self { name: name.to_owned(), dir: Path::new(PARENT).join(format!("millrace-cluster-{name}")) })
    }

    /// The cluster of the user's own that `KUBECONFIG` names, if it names another than this.
    pub(crate) fn users_own(&self) -> Option<PathBuf> {
        let path = PathBuf::from(std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty())?);
        (path != self.own_kubeconfig()).then_some(path)
    }

    fn own_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// The one that `KUBECONFIG` names, or this one's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.users_own().unwrap_or_else(|| self.own_kubeconfig())
    }

    /// Starts it, with what runs in it loaded; what is up already stays.
    pub(crate) fn up(&self) -> anyhow::Result<()> {
        if let Some(path) = self.users_own() {
            tools::ensure_clients()?;
            self.kubectl(&["get", "--raw", "/readyz"])
                .quiet()
                .run()
                .with_context(|| format!("`{}` names no cluster that answers", path.display()))?;
            println!("KUBECONFIG names a cluster of yours, `{}`: it answers, it is used as it is, and none is started", path.display());
            return Ok(());
        }
        if let Some(reason) = missing() {
            bail!("a cluster cannot be had here: {reason}; name one in KUBECONFIG");
        }
        if self.own_kubeconfig().is_file() && self.kubectl(&["get", "--raw", "/readyz"]).quiet().run().is_ok() {
            println!("the cluster `{}` is up", self.name);
            return Ok(());
        }
        let tools = tools::ensure()?;
        let begun_at = Instant::now();
        self.down()?;
        let free = crate::scratch::free(Path::new(PARENT))?;
        if free < ROOM {
            bail!("a cluster takes {ROOM} GiB of disk in `{PARENT}`, of which {free} GiB are free: make room there");
        }
        self.start(&tools).map_err(|error| match node::ended(self) {
            ended if ended.is_empty() => error,
            ended => error.context(format!("`{}` ended; see `{}`", ended.join("`, `"), self.dir.join("log").display())),
        })?;
        println!("the cluster `{}` is up after {} s: KUBECONFIG={}", self.name, begun_at.elapsed().as_secs(), self.kubeconfig().display());
        Ok(())
    }

    fn start(&self, tools: &tools::Tools) -> anyhow::Result<()> {
        node::start(self, tools)?;
        self.load(&tools::image("docker.io/local/pause:1", &tools.pause)?)?;
        self.load(&tools::image("docker.io/local/coredns:1", &tools.coredns)?)?;
        self.load(&tools::image("docker.io/local/ingress:1", &tools.ingress)?)?;
        node::wait_until_ready(self)?;
        self.apply("coredns.yaml", include_str!("coredns.yaml"))?;
        self.apply("addons.yaml", &include_str!("addons.yaml").replace("NODE_ADDRESS", &format!("10.{}.255.2", self.net()?)))?;
        self.load(&tools::image(NATS_IMAGE, &tools.nats)?)?;
        std::fs::write(self.dir.join(INGRESS), format!("http://10.{}.255.2", self.net()?))?;
        let rollout = |what: &[&str]| self.kubectl(&[&["rollout", "status", "--timeout=180s"], what].concat()).quiet().run();
        rollout(&["-n", "kube-system", "deployment/coredns"])?;
        rollout(&["-n", "ingress", "daemonset/ingress"])?;
        let available = ["wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1beta1.metrics.k8s.io"];
        self.kubectl(&available).quiet().run().context("metrics are not served")
    }

    fn apply(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let manifest = self.dir.join(name);
        std::fs::write(&manifest, text)?;
        self.kubectl(&["apply", "--server-side", "-f", &manifest.to_string_lossy()]).quiet().run()
    }

    /// Ends it and removes every trace.
    pub(crate) fn down(&self) -> anyhow::Result<()> {
        if let Some(path) = self.users_own() {
            println!(
                "KUBECONFIG names a cluster of yours, `{}`: it is left as it is; unset KUBECONFIG to end `{}`",
                path.display(),
                self.name
            );
            return Ok(());
        }
        node::stop(self)
    }

    /// Builds this repository's image and loads it.
    pub(crate) fn load_image(&self) -> anyhow::Result<()> {
        let program = crate::shell::target_dir()?.join("debug/millrace");
        if self.users_own().is_some() {
            let folder = crate::shell::target_dir()?.join("image");
            std::fs::create_dir_all(&folder)?;
            let archive = image::millrace(&program, &folder)?;
            println!("wrote `{}`; KUBECONFIG names a cluster of yours: make it find this as `{IMAGE}`", archive.display());
            return Ok(());
        }
        let archive = image::millrace(&program, &self.dir)?;
        self.load(&archive)
    }

    /// Loads an image out of an archive.
    pub(crate) fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let socket = self.dir.join("containerd.sock");
        let (socket, archive) = (socket.to_string_lossy(), archive.to_string_lossy());
        Step::program(Path::new("ctr")).args(&["-a", &socket, "-n", "k8s.io", "images", "import", &archive]).quiet().run()
    }

    /// `kubectl` on this cluster.
    pub(crate) fn kubectl(&self, args: &[&str]) -> Step {
        Step::program(&tools::bin("kubectl")).args(args).env("KUBECONFIG", &self.kubeconfig().to_string_lossy())
    }

    /// `helm` on this cluster.
    pub(crate) fn helm(&self, args: &[&str]) -> Step {
        Step::program(&tools::bin("helm")).args(args).env("KUBECONFIG", &self.kubeconfig().to_string_lossy())
    }

    /// A step that finds kubectl and helm, this cluster, the address under which its pods reach this machine, and where its ingress controller listens.
    pub(crate) fn with_tools(&self, step: Step) -> anyhow::Result<Step> {
        let bin = tools::bin("kubectl");
        let bin = bin.parent().context("kubectl stands in a folder")?.to_string_lossy();
        let path = std::env::var("PATH").unwrap_or_default();
        let step = step.env("PATH", &format!("{bin}:{path}")).env("KUBECONFIG", &self.kubeconfig().to_string_lossy());
        if self.users_own().is_some() {
            // What was given by the user is inherited: `MILLRACE_CLUSTER_HOST`, and `MILLRACE_CLUSTER_INGRESS` where there is one.
            return Ok(step);
        }
        let ingress = std::fs::read_to_string(self.dir.join(INGRESS)).context("the cluster is not up")?;
        Ok(step.env(HOST_VARIABLE, &format!("10.{}.255.1", self.net()?)).env("MILLRACE_CLUSTER_INGRESS", &ingress))
    }

    /// The second byte of its addresses, as it was chosen at its start.
    fn net(&self) -> anyhow::Result<u8> {
        let text = std::fs::read_to_string(self.dir.join("net")).context("the cluster is not up")?;
        Ok(text.trim().parse()?)
    }
}
