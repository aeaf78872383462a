//! Starts and ends the programs of a cluster, all in one network namespace.

use std::fs::{File, read_to_string, write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Cluster;
use super::tools::Tools;
use crate::shell::Step;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn start(cluster: &Cluster, tools: &Tools) -> anyhow::Result<()> {
    let dir = &cluster.dir;
    for folder in ["pki", "log", "cni", "containerd", "pids"] {
        std::fs::create_dir_all(dir.join(folder))?;
    }
    let net = network(cluster)?;
    certificates(dir, net)?;
    configuration(dir, net)?;
    let file = |name: &str| dir.join(name).display().to_string();
    spawn(cluster, "containerd", Path::new("containerd"), &["-c".to_owned(), file("containerd.toml")])?;
    wait(|| Step::program(Path::new("ctr")).args(&["-a", &file("containerd.sock"), "version"]).quiet().run().is_ok(), "containerd")?;
    let kube = |name: &str, args: &[String]| {
        let all: Vec<String> = std::iter::once(name.to_owned()).chain(args.iter().cloned()).collect();
        spawn(cluster, name, &tools.kube, &all)
    };
    kube("etcd", &[format!("--data-dir={}", file("etcd")), "--unsafe-no-fsync".to_owned()])?;
    kube("kube-apiserver", &api_server(dir, net))?;
    kube(
        "kube-controller-manager",
        &[
            format!("--kubeconfig={}", file("admin.kubeconfig")),
            format!("--service-account-private-key-file={}", file("pki/sa.key")),
            format!("--root-ca-file={}", file("pki/ca.crt")),
            "--use-service-account-credentials".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--cluster-cidr=10.{net}.0.0/24"),
        ],
    )?;
    kube("kube-scheduler", &[format!("--kubeconfig={}", file("admin.kubeconfig")), "--leader-elect=false".to_owned()])?;
    kube(
        "kubelet",
        &[
            format!("--config={}", file("kubelet.yaml")),
            format!("--kubeconfig={}", file("node.kubeconfig")),
            "--hostname-override=node0".to_owned(),
            format!("--root-dir={}", file("kubelet")),
            format!("--node-ip=10.{net}.255.2"),
        ],
    )?;
    kube(
        "kube-proxy",
        &[
            format!("--kubeconfig={}", file("admin.kubeconfig")),
            "--hostname-override=node0".to_owned(),
            format!("--cluster-cidr=10.{net}.0.0/24"),
            "--proxy-mode=iptables".to_owned(),
        ],
    )?;
    wait(|| cluster.kubectl(&["get", "--raw", "/readyz"]).quiet().run().is_ok(), "the API server")
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
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--kubelet-client-certificate={}", file("pki/admin.crt")),
        format!("--kubelet-client-key={}", file("pki/admin.key")),
        "--allow-privileged".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

pub(super) fn wait_until_ready(cluster: &Cluster) -> anyhow::Result<()> {
    wait(|| cluster.kubectl(&["wait", "node/node0", "--for=condition=Ready", "--timeout=2s"]).quiet().run().is_ok(), "the node")
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
    if Path::new(&namespace(cluster)).exists() {
        let _ = Step::program(Path::new("ip")).args(&["netns", "del", &netns(cluster)]).quiet().run();
        let _ = Step::program(Path::new("ip")).args(&["link", "del", &format!("mr{}", cluster.name)]).quiet().run();
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("the cluster's files cannot be removed"),
        _ => Ok(()),
    }
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

fn certificates(dir: &Path, net: u8) -> anyhow::Result<()> {
    let pki = dir.join("pki");
    let openssl = |args: &[&str]| Step::program(Path::new("openssl")).args(args).dir(&pki).quiet().run();
    let key = |name: &str| openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", &format!("{name}.key")]);
    key("ca")?;
    openssl(&["req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=test-ca", "-days", "30", "-out", "ca.crt"])?;
    let address = format!("IP:10.{net}.255.2");
    let names = format!(
        "DNS:localhost,DNS:kubernetes.default.svc.cluster.local,DNS:kubernetes.default.svc,DNS:kubernetes.default,DNS:kubernetes,IP:127.0.0.1,IP:10.96.0.1,{address}"
    );
    for (name, subject, alternatives) in [
        ("apiserver", "/CN=kube-apiserver", names.as_str()),
        ("admin", "/O=system:masters/CN=admin", "DNS:admin"),
        ("node", "/O=system:nodes/CN=system:node:node0", &format!("DNS:node0,{address}")),
    ] {
        key(name)?;
        let (request, extension) = (format!("{name}.csr"), format!("{name}.ext"));
        openssl(&["req", "-new", "-key", &format!("{name}.key"), "-subj", subject, "-out", &request])?;
        write(pki.join(&extension), format!("subjectAltName={alternatives}"))?;
        let certificate = format!("{name}.crt");
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-out",
            &certificate,
            "-extfile",
            &extension,
        ])?;
    }
    key("sa")?;
    openssl(&["ec", "-in", "sa.key", "-pubout", "-out", "sa.pub"])
}

fn configuration(dir: &Path, net: u8) -> anyhow::Result<()> {
    let d = dir.display();
    for name in ["admin", "node"] {
        let text = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"https://10.{net}.255.2:6443\", certificate-authority: {d}/pki/ca.crt}}}}]\n\
             users: [{{name: u, user: {{client-certificate: {d}/pki/{name}.crt, client-key: {d}/pki/{name}.key}}}}]\n\
             contexts: [{{name: d, context: {{cluster: c, user: u}}}}]\ncurrent-context: d\n"
        );
        write(dir.join(format!("{name}.kubeconfig")), text)?;
    }
    let bridge = format!(
        r#"{{"cniVersion":"0.4.0","name":"bridge","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
"ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.{net}.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}],"dataDir":"{d}/ipam"}}}},
{{"type":"portmap","capabilities":{{"portMappings":true}}}}]}}"#
    );
    write(dir.join("cni/10-bridge.conflist"), bridge)?;
    let containerd = format!(
        "version = 2\nroot = \"{d}/containerd/root\"\nstate = \"{d}/containerd/state\"\n[grpc]\n  address = \"{d}/containerd.sock\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"docker.io/local/pause:1\"\n  restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"{d}/cni\"\n"
    );
    write(dir.join("containerd.toml"), containerd)?;
    let kubelet = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {d}/pki/ca.crt}}}}\n\
         authorization: {{mode: Webhook}}\ncgroupDriver: cgroupfs\nfailCgroupV1: false\nfailSwapOn: false\n\
         containerRuntimeEndpoint: unix://{d}/containerd.sock\nclusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\n\
         tlsCertFile: {d}/pki/node.crt\ntlsPrivateKeyFile: {d}/pki/node.key\n\
         evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}\n\
         imageGCHighThresholdPercent: 100\nlocalStorageCapacityIsolation: true\nresolvConf: /etc/resolv.conf\n\
         syncFrequency: 5s\nfileCheckFrequency: 5s\n"
    );
    Ok(write(dir.join("kubelet.yaml"), kubelet)?)
}

/// Starts a program in the cluster's namespace; it outlives this process.
fn spawn(cluster: &Cluster, name: &str, program: &Path, args: &[String]) -> anyhow::Result<()> {
    let log = File::create(cluster.dir.join(format!("log/{name}.log")))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace(cluster))).arg("--").arg(program).args(args);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
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
