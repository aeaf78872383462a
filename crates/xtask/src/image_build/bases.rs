//! The two bases, from Debian packages by mmdebstrap: one with glibc alone, one to build on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::{Buildah, Working};
use crate::shell::{Step, repository};

/// What `./x` would otherwise install in the build stage.
const BUILD_PACKAGES: &str = "build-essential,ca-certificates,npm,python3-pip";
const RUNTIME_PACKAGES: &str = "libc6";
/// Where the build base has the toolchain.
const TOOLCHAIN: &str = "/usr/local/rust";

/// A base with glibc and nothing else.
pub(super) fn runtime(buildah: &Buildah) -> anyhow::Result<String> {
    let suite = suite()?;
    once(buildah, "runtime", &[&suite, RUNTIME_PACKAGES], || {
        let archive = buildah.folder.join("runtime.tar");
        debian(&archive, "extract", RUNTIME_PACKAGES, &suite)?;
        // Beside packages it holds this machine's package sources, name and resolver: only libraries are taken.
        let root = buildah.folder.join("runtime");
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root)?;
        let (from, to) = (archive.to_string_lossy(), root.to_string_lossy());
        let parts = ["./lib", "./lib64", "./usr/lib"];
        Step::program(Path::new("tar")).args(&["-xf", &from, "-C", &to, "--exclude=*/gconv/*"]).args(&parts).run()?;
        let container = Working::from(buildah, "scratch")?;
        buildah.step(&["copy", "--quiet", &container.name, &to, "/"]).quiet().run()?;
        std::fs::remove_dir_all(&root)?;
        std::fs::remove_file(&archive)?;
        Ok(container)
    })
}

/// A Debian with a C compiler, npm, pip, and the Rust toolchain that builds this repository on this machine.
pub(super) fn build(buildah: &Buildah) -> anyhow::Result<String> {
    let suite = suite()?;
    let rustc = Step::program(Path::new("rustc")).args(&["--version", "--verbose"]).output()?;
    once(buildah, "build", &[&suite, BUILD_PACKAGES, &rustc], || {
        let archive = buildah.folder.join("build.tar");
        debian(&archive, "apt", BUILD_PACKAGES, &suite)?;
        let container = Working::from(buildah, "scratch")?;
        buildah.step(&["add", "--quiet", &container.name, &archive.to_string_lossy(), "/"]).quiet().run()?;
        std::fs::remove_file(&archive)?;
        let toolchain = Step::program(Path::new("rustc")).args(&["--print", "sysroot"]).output()?;
        // A toolchain may be a link to another.
        let toolchain = std::fs::canonicalize(toolchain.trim())?;
        for part in ["bin", "lib", "libexec"] {
            let from = toolchain.join(part);
            if from.is_dir() {
                let to = format!("{TOOLCHAIN}/{part}");
                buildah.step(&["copy", "--quiet", &container.name, &from.to_string_lossy(), &to]).quiet().run()?;
            }
        }
        let path = format!("PATH={TOOLCHAIN}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        buildah.step(&["config", "--env", &path, "--env", "HOME=/root", &container.name]).run()?;
        Ok(container)
    })
}

/// An image of this name, made unless there is one that was made from the same.
fn once<'a>(buildah: &'a Buildah, name: &str, from: &[&str], make: impl FnOnce() -> anyhow::Result<Working<'a>>) -> anyhow::Result<String> {
    let digest = Sha256::digest(from.join("\n"));
    let key: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let image = format!("localhost/millrace-base-{name}:{key}");
    if buildah.has_image(&image) {
        return Ok(image);
    }
    println!("making the {name} base");
    let begun_at = Instant::now();
    let container = make()?;
    buildah.step(&["commit", "--quiet", &container.name, &image]).quiet().run()?;
    println!("made the {name} base in {} s", begun_at.elapsed().as_secs());
    Ok(image)
}

fn debian(archive: &Path, variant: &str, packages: &str, suite: &str) -> anyhow::Result<()> {
    let mut args =
        vec![format!("--variant={variant}"), format!("--include={packages}"), suite.to_owned(), archive.to_string_lossy().into_owned()];
    // Packages come from where this machine gets its own.
    args.extend(sources().map(|path| path.to_string_lossy().into_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Of Debian's programs it needs Debian's own.
    let path = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
    Step::program(Path::new("/usr/bin/mmdebstrap")).args(&["--quiet"]).args(&args).env("PATH", path).run()
}

fn sources() -> Option<PathBuf> {
    let candidates = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"].map(PathBuf::from);
    candidates.into_iter().find(|path| std::fs::metadata(path).is_ok_and(|data| data.len() > 0))
}

/// This machine's own: the toolchain is copied from it, and asks for a glibc that is not older than the one it was made for.
fn suite() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/etc/os-release")?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(|value| value.trim_matches('"'));
    let is_debian = value("ID") == Some("debian");
    let suite = value("VERSION_CODENAME").filter(|_| is_debian);
    suite
        .map(str::to_owned)
        .with_context(|| format!("this is no Debian; build `{}` with bases of your own", repository().join("Dockerfile").display()))
}
