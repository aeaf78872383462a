//! Starts and ends the programs of a cluster, all in one network namespace.

use std::fs::{File, read_to_string, write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tools::{self, Tools};
use super::{Cluster, NODE, PROVISIONER, cgroup, files};
use crate::shell::Step;

/// Addresses of Services; the same in every cluster, for they never leave it.
const SERVICES: &str = "10.96.0.0/16";
/// Where the network plugins' library keeps what it has made.
const CNI_RESULTS: &str = "/var/lib/cni/results";
const PATIENCE: Duration = Duration::from_secs(180);

pub(super) fn start(cluster: &Cluster, tools: &Tools) -> anyhow::Result<()> {
    let dir = &cluster.dir;
    for folder in ["pki", "log", "cni", "containerd", "pids", "pods", "volumes"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    // Without it, what passes between two pods on the bridge is not seen by NetworkPolicies. It may be built in.
    let _ = Step::program(Path::new("modprobe")).args(&["-q", "br_netfilter"]).quiet().run();
    let net = network(cluster)?;
    cgroup::create(cluster)?;
    files::certificates(dir, net)?;
    files::configuration(cluster, net)?;
    let file = |name: &str| dir.join(name).display().to_string();
    spawn(cluster, "containerd", Path::new("containerd"), &["-c".to_owned(), file("containerd.toml")])?;
    wait(|| Step::program(Path::new("ctr")).args(&["-a", &file("containerd.sock"), "version"]).quiet().run().is_ok(), "containerd")?;
    let kube = |name: &str, args: Vec<String>| {
        let all: Vec<String> = std::iter::once(name.to_owned()).chain(args).collect();
        spawn(cluster, name, &tools.kube, &all)
    };
    kube("etcd", vec![format!("--data-dir={}", file("etcd")), "--unsafe-no-fsync".to_owned()])?;
    kube("kube-apiserver", api_server(dir, net))?;
    kube("kubelet", kubelet(dir, net))?;
    // The others wait for a few seconds only, or not at all, and then end.
    wait(|| cluster.kubectl(&["get", "--raw", "/readyz"]).quiet().run().is_ok(), "the API server")?;
    kube("kube-controller-manager", controllers(dir, net))?;
    let admin = format!("--kubeconfig={}", file("admin.kubeconfig"));
    kube("kube-scheduler", vec![admin.clone(), "--leader-elect=false".to_owned()])?;
    let node = format!("--hostname-override={NODE}");
    // The machine's limit of connections stays as it is: it cannot be written from a network namespace.
    let proxy = ["--proxy-mode=iptables", "--conntrack-max-per-core=0", "--conntrack-min=0"].map(str::to_owned);
    let pods = format!("--cluster-cidr=10.{net}.0.0/24");
    kube("kube-proxy", [vec![admin.clone(), node.clone(), pods], proxy.into()].concat())?;
    kube("kube-router", vec![admin.clone(), node, format!("--service-cluster-ip-range={SERVICES}")])?;
    kube("metrics-server", metrics_server(dir))?;
    let volumes = [format!("--name={PROVISIONER}"), format!("--root={}", file("volumes")), format!("--node={NODE}")];
    kube("local-provisioner", [vec![admin], volumes.into()].concat())
}

fn api_server(dir: &Path, net: u8) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        "--secure-port=6443".to_owned(),
        format!("--advertise-address=10.{net}.255.2"),
        format!("--client-ca-file={}", file("pki/ca.crt")),
        format!("--tls-cert-file={}", file("pki/apiserver.crt")),
        format!("--tls-private-key-file={}", file("pki/apiserver.key")),
        format!("--service-account-key-file={}", file("pki/sa.pub")),
        format!("--service-account-signing-key-file={}", file("pki/sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--kubelet-client-certificate={}", file("pki/admin.crt")),
        format!("--kubelet-client-key={}", file("pki/admin.key")),
        // For what is served by others under this API: metrics.
        format!("--requestheader-client-ca-file={}", file("pki/ca.crt")),
        "--requestheader-allowed-names=front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", file("pki/front-proxy.crt")),
        format!("--proxy-client-key-file={}", file("pki/front-proxy.key")),
        "--allow-privileged".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

fn controllers(dir: &Path, net: u8) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", file("admin.kubeconfig")),
        format!("--service-account-private-key-file={}", file("pki/sa.key")),
        format!("--root-ca-file={}", file("pki/ca.crt")),
        "--use-service-account-credentials".to_owned(),
        "--leader-elect=false".to_owned(),
        format!("--cluster-cidr=10.{net}.0.0/24"),
    ]
}

fn kubelet(dir: &Path, net: u8) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--config={}", file("kubelet.yaml")),
        format!("--kubeconfig={}", file("node.kubeconfig")),
        format!("--hostname-override={NODE}"),
        format!("--root-dir={}", file("kubelet")),
        format!("--node-ip=10.{net}.255.2"),
    ]
}

fn metrics_server(dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", file("admin.kubeconfig")),
        format!("--authentication-kubeconfig={}", file("admin.kubeconfig")),
        format!("--authorization-kubeconfig={}", file("admin.kubeconfig")),
        "--secure-port=4443".to_owned(),
        format!("--cert-dir={}", file("metrics")),
        format!("--kubelet-certificate-authority={}", file("pki/ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--metric-resolution=15s".to_owned(),
    ]
}

pub(super) fn wait_until_ready(cluster: &Cluster) -> anyhow::Result<()> {
    wait(|| cluster.kubectl(&["wait", &format!("node/{NODE}"), "--for=condition=Ready", "--timeout=2s"]).quiet().run().is_ok(), "the node")
}

/// Programs of the cluster that run no more.
pub(super) fn ended(cluster: &Cluster) -> Vec<String> {
    let entries = std::fs::read_dir(cluster.dir.join("pids")).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let pid = read_to_string(entry.path()).unwrap_or_default();
            // Our own children stay as processes without a command line until we end.
            !std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Ends all processes, removes mounts, addresses and files.
pub(super) fn stop(cluster: &Cluster) -> anyhow::Result<()> {
    let dir = &cluster.dir;
    let pids: Vec<i32> = std::fs::read_dir(dir.join("pids"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| read_to_string(entry.path()).ok()?.trim().parse().ok())
        .collect();
    // The kubelet first dies with the rest; the API server would drain for a minute.
    for pid in pids {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let mark = format!("-address {}", dir.join("containerd.sock").display());
    for shim in processes().into_iter().filter(|(_, line)| line.contains("containerd-shim") && line.contains(&mark)) {
        for child in children(shim.0) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        let _ = kill(Pid::from_raw(shim.0), Signal::SIGKILL);
    }
    let root = format!("{}/", dir.display());
    for _ in 0..3 {
        let mounts = read_to_string("/proc/mounts").unwrap_or_default();
        let mut own: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| path.starts_with(&root)).collect();
        own.sort_unstable();
        for path in own.into_iter().rev() {
            let _ = Step::program(Path::new("umount")).args(&["-l", path]).quiet().run();
        }
    }
    cgroup::remove(cluster);
    for name in pod_namespaces(dir) {
        let _ = Step::program(Path::new("ip")).args(&["netns", "del", &name]).quiet().run();
    }
    if Path::new(&namespace(cluster)).exists() {
        let _ = Step::program(Path::new("ip")).args(&["netns", "del", &netns(cluster)]).quiet().run();
        let _ = Step::program(Path::new("ip")).args(&["link", "del", &format!("mr{}", cluster.name)]).quiet().run();
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("the cluster's files cannot be removed"),
        _ => Ok(()),
    }
}

/// Network namespaces of pods with an address of this cluster, as the network plugins' library keeps them; what it keeps of them goes, too.
fn pod_namespaces(dir: &Path) -> Vec<String> {
    let Ok(net) = read_to_string(dir.join("net")) else { return Vec::new() };
    let address = format!("\"10.{}.0.", net.trim());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(CNI_RESULTS).into_iter().flatten().flatten() {
        let text = read_to_string(entry.path()).unwrap_or_default();
        if text.contains(&address) {
            found.extend(text.split('"').filter_map(|word| word.strip_prefix("/var/run/netns/")).map(str::to_owned));
            let _ = std::fs::remove_file(entry.path());
        }
    }
    found.sort();
    found.dedup();
    found
}

fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

fn children(pid: i32) -> Vec<i32> {
    let text = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

fn netns(cluster: &Cluster) -> String {
    format!("millrace-{}", cluster.name)
}

fn namespace(cluster: &Cluster) -> String {
    format!("/run/netns/{}", netns(cluster))
}

/// A namespace joined to the host by a pair of links; answers the second byte of its addresses.
fn network(cluster: &Cluster) -> anyhow::Result<u8> {
    // Two that start at once would choose the same addresses.
    let _chosen = tools::lock("network")?;
    let ip = |args: &str| Step::program(Path::new("ip")).args(&args.split(' ').collect::<Vec<_>>()).run();
    let routes = Step::program(Path::new("ip")).args(&["-4", "address"]).output()?;
    let net = (101..=250_u8).find(|net| !routes.contains(&format!(" 10.{net}."))).context("no addresses are free")?;
    let (space, link) = (netns(cluster), format!("mr{}", cluster.name));
    ip(&format!("netns add {space}"))?;
    ip(&format!("link add {link} type veth peer name host0 netns {space}"))?;
    ip(&format!("address add 10.{net}.255.1/30 dev {link}"))?;
    ip(&format!("link set {link} up"))?;
    ip(&format!("-n {space} link set lo up"))?;
    ip(&format!("-n {space} address add 10.{net}.255.2/30 dev host0"))?;
    ip(&format!("-n {space} link set host0 up"))?;
    ip(&format!("-n {space} route add default via 10.{net}.255.1"))?;
    ip(&format!("route add 10.{net}.0.0/24 via 10.{net}.255.2"))?;
    write(cluster.dir.join("net"), net.to_string())?;
    Ok(net)
}

/// Starts a program in the cluster's namespace; it outlives this process.
fn spawn(cluster: &Cluster, name: &str, program: &Path, args: &[String]) -> anyhow::Result<()> {
    let log = File::create(cluster.dir.join(format!("log/{name}.log")))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace(cluster))).arg("--").arg(program).args(args);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    // Most of these are written in Go, whose garbage collector takes a quarter of a small machine's time when it is to save memory.
    command.env("GOGC", "400");
    let child = command.spawn().with_context(|| format!("`{name}` cannot be started"))?;
    Ok(write(cluster.dir.join("pids").join(name), child.id().to_string())?)
}

fn wait(is_there: impl Fn() -> bool, what: &str) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_there() {
        if Instant::now() > end {
            bail!("{what} is not ready after {} s; see the cluster's log folder", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
