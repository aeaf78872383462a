//! What a cluster's programs read: certificates and configuration.

use std::fs::write;
use std::path::Path;

use super::{Cluster, NODE, cgroup};
use crate::shell::Step;

/// One authority for everything, and who needs a certificate of it.
pub(super) fn certificates(dir: &Path, net: u8) -> anyhow::Result<()> {
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
        ("front-proxy", "/CN=front-proxy", "DNS:front-proxy"),
        ("node", &format!("/O=system:nodes/CN=system:node:{NODE}"), &format!("DNS:{NODE},{address}")),
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

/// What the programs read at their start.
pub(super) fn configuration(cluster: &Cluster, net: u8) -> anyhow::Result<()> {
    let dir = &cluster.dir;
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
        r#"{{"cniVersion":"0.4.0","name":"bridge","plugins":[{{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,
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
         evictionHard: {{memory.available: 100Mi, nodefs.available: 200Mi, imagefs.available: 200Mi}}\n\
         imageGCHighThresholdPercent: 100\nlocalStorageCapacityIsolation: true\nresolvConf: /etc/resolv.conf\n\
         cgroupRoot: {}\npodLogsDir: {d}/pods\n\
         syncFrequency: 5s\nfileCheckFrequency: 5s\n",
        cgroup::root(cluster)
    );
    Ok(write(dir.join("kubelet.yaml"), kubelet)?)
}
