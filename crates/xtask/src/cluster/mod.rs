//! A Kubernetes of one node on this machine, for tests: its own network namespace, addresses and state, so that several do not meet.
//!
//! ```text
//!  host ── veth 10.N.255.1 ═ 10.N.255.2 ── namespace: API server, kubelet, containerd, pods 10.N.0.0/24 ── services 10.96.0.0/16
//! ```

mod image;
mod node;
mod tools;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::shell::Step;
pub(crate) use tools::missing;

/// The tag under which this repository's image is loaded.
pub(crate) const IMAGE: &str = "docker.io/millrace/millrace:0.1.0";
/// NATS, for the chart's own template.
pub(crate) const NATS_IMAGE: &str = "docker.io/library/nats:2.12.1";

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
        Ok(Self { name: name.to_owned(), dir: Path::new("/var/tmp").join(format!("millrace-cluster-{name}")) })
    }

    /// The one that `KUBECONFIG` names, or this one's.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        std::env::var_os("KUBECONFIG").map_or_else(|| self.dir.join("admin.kubeconfig"), PathBuf::from)
    }

    /// Starts it, with what runs in it loaded; what is up already stays.
    pub(crate) fn up(&self) -> anyhow::Result<()> {
        if self.dir.join("admin.kubeconfig").is_file() && self.kubectl(&["get", "--raw", "/readyz"]).quiet().run().is_ok() {
            println!("the cluster `{}` is up", self.name);
            return Ok(());
        }
        let tools = tools::ensure()?;
        self.down()?;
        node::start(self, &tools)?;
        self.load(&tools.image("pause", "docker.io/local/pause:1", &tools.pause)?)?;
        self.load(&tools.image("coredns", "docker.io/local/coredns:1", &tools.coredns)?)?;
        self.load(&tools.image("nats-server", NATS_IMAGE, &tools.nats)?)?;
        node::wait_until_ready(self)?;
        let manifest = self.dir.join("coredns.yaml");
        std::fs::write(&manifest, include_str!("coredns.yaml"))?;
        self.kubectl(&["apply", "--server-side", "-f", &manifest.to_string_lossy()]).quiet().run()?;
        self.kubectl(&["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"]).quiet().run()?;
        println!("the cluster `{}` is up: KUBECONFIG={}", self.name, self.kubeconfig().display());
        Ok(())
    }

    /// Ends it and removes every trace.
    pub(crate) fn down(&self) -> anyhow::Result<()> {
        node::stop(self)
    }

    /// Builds this repository's image and loads it.
    pub(crate) fn load_image(&self) -> anyhow::Result<()> {
        let program = crate::shell::target_dir()?.join("debug/millrace");
        let archive = image::millrace(&program, &self.dir)?;
        self.load(&archive)
    }

    fn load(&self, archive: &Path) -> anyhow::Result<()> {
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

    /// A step that finds kubectl and helm, this cluster, and the address under which its pods reach this machine.
    pub(crate) fn with_tools(&self, step: Step) -> anyhow::Result<Step> {
        let bin = tools::bin("kubectl");
        let bin = bin.parent().context("kubectl stands in a folder")?.to_string_lossy();
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(step
            .env("PATH", &format!("{bin}:{path}"))
            .env("KUBECONFIG", &self.kubeconfig().to_string_lossy())
            .env("MILLRACE_CLUSTER_HOST", &format!("10.{}.255.1", self.net()?)))
    }

    /// The second byte of its addresses, as it was chosen at its start.
    fn net(&self) -> anyhow::Result<u8> {
        let text = std::fs::read_to_string(self.dir.join("net")).context("the cluster is not up")?;
        Ok(text.trim().parse()?)
    }
}
