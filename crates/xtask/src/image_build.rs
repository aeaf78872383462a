//! Builds the image from the `Dockerfile` on bases made here, and looks at what came out. Nothing is pulled: buildah builds, mmdebstrap makes the bases.
//!
//! ```text
//!  mmdebstrap ─▶ runtime base (glibc) ──────────────────────────┐
//!  mmdebstrap + this machine's Rust toolchain ─▶ build base ─▶ buildah bud ─▶ image ─▶ inspect ─▶ run as its user ─▶ archive
//!                            this machine's settings, as secrets ─┘
//! ```

mod bases;
mod inspect;
mod run;
mod settings;
mod tiltfile;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::cluster::{Cluster, IMAGE};
use crate::deps;
use crate::shell::{Step, has, install, repository};

/// The Debian packages by their programs.
const PROGRAMS: [&str; 3] = ["buildah", "mmdebstrap", "runc"];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How it is compiled
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Load it into this test cluster
    #[arg(long, value_name = "NAME")]
    load: Option<String>,
    /// Only read the Tiltfile
    #[arg(long, conflicts_with = "load")]
    tiltfile: bool,
    /// Only look at the image that was built last
    #[arg(long)]
    no_build: bool,
    /// How `RUN` is kept apart: `chroot` asks least of the machine, `oci` uses runc
    #[arg(long, default_value = "chroot")]
    isolation: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    Release,
    Dev,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }
}

/// Buildah with a store of its own, so that nothing of the user's is touched.
struct Buildah {
    folder: PathBuf,
}

impl Buildah {
    fn step(&self, args: &[&str]) -> Step {
        let inside = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        Step::program(Path::new("buildah"))
            .args(&["--root", &inside("store"), "--runroot", &inside("state"), "--storage-driver", "overlay"])
            .args(args)
            // Cache mounts are kept below it.
            .env("TMPDIR", &inside("tmp"))
    }

    /// What it answers, without the end of the line.
    fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.step(args).output()?.trim_end().to_owned())
    }

    fn has_image(&self, name: &str) -> bool {
        self.step(&["inspect", "--type", "image", name]).quiet().run().is_ok()
    }
}

/// A container from an image, removed when it is dropped.
struct Working<'a> {
    buildah: &'a Buildah,
    name: String,
}

impl<'a> Working<'a> {
    fn from(buildah: &'a Buildah, image: &str) -> anyhow::Result<Self> {
        Ok(Self { buildah, name: buildah.ask(&["from", "--pull-never", image])? })
    }

    fn mount(&self) -> anyhow::Result<PathBuf> {
        Ok(self.buildah.ask(&["mount", &self.name])?.into())
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let _ = self.buildah.step(&["rm", &self.name]).quiet().run();
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    tiltfile::check(&repository())?;
    if options.tiltfile {
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) || !nix::unistd::geteuid().is_root() {
        bail!("bases are made as root on Linux on x86-64; elsewhere build the Dockerfile with bases of your own (docs/kubernetes.md)");
    }
    if !PROGRAMS.iter().all(|program| has(program)) {
        install(&PROGRAMS, "build the Dockerfile with bases of your own (docs/kubernetes.md)")?;
    }
    let folder = deps::cache()?.join("image");
    std::fs::create_dir_all(folder.join("tmp"))?;
    // One store, one builder: another waits.
    let lock = std::fs::File::create(folder.join("lock"))?;
    lock.lock().context("the lock of image builds cannot be had")?;
    let buildah = Buildah { folder };
    if !options.no_build {
        let (build_base, runtime_base) = (bases::build(&buildah)?, bases::runtime(&buildah)?);
        build(&buildah, options, &build_base, &runtime_base)?;
    }
    look_at(&buildah)?;
    if let Some(name) = &options.load {
        let archive = archive(&buildah)?;
        Cluster::named(name)?.load(&archive)?;
        println!("loaded `{IMAGE}` into the cluster `{name}`");
    }
    Ok(())
}

fn build(buildah: &Buildah, options: &Options, build_base: &str, runtime_base: &str) -> anyhow::Result<()> {
    let begun_at = Instant::now();
    let version = env!("CARGO_PKG_VERSION");
    let arguments = [("BUILD_BASE", build_base), ("RUNTIME_BASE", runtime_base), ("PROFILE", options.profile.name()), ("VERSION", version)];
    let mut step = buildah.step(&["bud", "--isolation", &options.isolation, "--network", "host", "--pull-never", "--file", "Dockerfile"]);
    for (name, value) in arguments {
        step = step.args(&["--build-arg", &format!("{name}={value}")]);
    }
    let settings = settings::Settings::of_this_machine(&buildah.folder)?;
    for (id, path) in settings.secrets() {
        step = step.args(&["--secret", &format!("id={id},src={}", path.display())]);
    }
    step.args(&["--tag", IMAGE, "."]).run()?;
    println!("built `{IMAGE}` ({}) in {} s", options.profile.name(), begun_at.elapsed().as_secs());
    Ok(())
}

/// Fails unless the image holds what it should and nothing else, and runs.
fn look_at(buildah: &Buildah) -> anyhow::Result<()> {
    let config: serde_json::Value = serde_json::from_str(&buildah.ask(&["inspect", "--type", "image", IMAGE])?)?;
    let config = &config["OCIv1"]["config"];
    inspect::config(config)?;
    let container = Working::from(buildah, IMAGE)?;
    let root = container.mount()?;
    let found = inspect::tree(&root)?;
    println!("the image has {} files, {} MiB; no shell, no setuid file, one program", found.files, found.bytes >> 20);
    let image = run::Image { root, config, folder: buildah.folder.join("bundle") };
    let version = image.run(&["/usr/bin/millrace", "--version"])?;
    println!("{}", version.trim_end());
    if version.trim_end() != format!("millrace {}", env!("CARGO_PKG_VERSION")) {
        bail!("`millrace --version` in the image says `{}`", version.trim_end());
    }
    let wanted = std::fs::read_to_string(repository().join("crds/yaml/connections.yaml"))?;
    if image.run(&["/usr/bin/millrace", "crds", "connections"])? != wanted {
        bail!("`millrace crds connections` in the image prints another definition than `crds/yaml/connections.yaml`");
    }
    // The loader itself says whether what is opened later finds its libraries: there is no shell to ask.
    for linked in ["libduckdb.so", "postgres_scanner.duckdb_extension", "mysql_scanner.duckdb_extension", "httpfs.duckdb_extension"] {
        image.run(&["/lib64/ld-linux-x86-64.so.2", "--list", &format!("/usr/lib/millrace/{linked}")])?;
    }
    println!("it runs as its user on a read-only root: version, definitions, libraries");
    Ok(())
}

/// The image as a file that containerd imports.
fn archive(buildah: &Buildah) -> anyhow::Result<PathBuf> {
    let archive = buildah.folder.join("millrace.tar");
    let _ = std::fs::remove_file(&archive);
    buildah.step(&["push", "--quiet", IMAGE, &format!("docker-archive:{}:{IMAGE}", archive.display())]).run()?;
    Ok(archive)
}
