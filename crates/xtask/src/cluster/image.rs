//! Images without a container engine: one layer, in the archive form that containerd imports.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::IMAGE;
use crate::shell::Step;

/// Writes an archive with one layer that holds these files (from, to), and `/tmp`.
pub(super) fn write(archive: &Path, reference: &str, entrypoint: &[&str], files: &[(PathBuf, String)], user: &str) -> anyhow::Result<()> {
    let stage = archive.with_extension("stage");
    let _ = std::fs::remove_dir_all(&stage);
    let root = stage.join("root");
    std::fs::create_dir_all(root.join("tmp"))?;
    std::fs::set_permissions(root.join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    for (from, to) in files {
        let target = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().context("a file has a folder")?)?;
        std::fs::copy(from, &target).with_context(|| format!("`{}` cannot be copied", from.display()))?;
    }
    let layer = stage.join("layer.tar");
    let tar = |args: &[&str]| Step::program(Path::new("tar")).args(args).quiet().run();
    tar(&["--sort=name", "--owner=0", "--group=0", "--mtime=@0", "-cf", &layer.to_string_lossy(), "-C", &root.to_string_lossy(), "."])?;
    let digest = digest(&std::fs::read(&layer)?);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": user, "Env": ["PATH=/usr/bin:/bin", "MILLRACE_EXTENSION_DIR=/usr/lib/millrace"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    std::fs::write(stage.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]);
    std::fs::write(stage.join("manifest.json"), manifest.to_string())?;
    let stage_name = stage.to_string_lossy().into_owned();
    tar(&["-cf", &archive.to_string_lossy(), "-C", &stage_name, "manifest.json", "config.json", "layer.tar"])?;
    std::fs::remove_dir_all(&stage)?;
    Ok(())
}

/// This repository's image: the program, what it is linked with, DuckDB's extensions, certificates.
pub(super) fn millrace(program: &Path, dir: &Path) -> anyhow::Result<PathBuf> {
    let stripped = dir.join("millrace.stripped");
    Step::program(Path::new("strip")).args(&["--strip-debug", "-o", &stripped.to_string_lossy(), &program.to_string_lossy()]).run()?;
    let mut files = vec![(stripped, "/usr/bin/millrace".to_owned())];
    let linked = Step::program(Path::new("ldd")).args(&[&program.to_string_lossy()]).output()?;
    for line in linked.lines() {
        let path = line.split_once("=>").map_or(line, |(_, path)| path).split_whitespace().next().unwrap_or_default();
        if path.starts_with('/') {
            let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
            // The loader must stand where the program names it; libraries where the loader looks.
            let to = if name.starts_with("ld-linux") { format!("/lib64/{name}") } else { format!("/usr/lib/x86_64-linux-gnu/{name}") };
            files.push((std::fs::canonicalize(path)?, to));
        }
    }
    for entry in std::fs::read_dir(crate::shell::repository().join(".deps/duckdb"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".duckdb_extension") {
            files.push((std::fs::canonicalize(entry.path())?, format!("/usr/lib/millrace/{name}")));
        }
    }
    let certificates = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    if certificates.is_file() {
        files.push((certificates, "/etc/ssl/certs/ca-certificates.crt".to_owned()));
    }
    let archive = dir.join("millrace.tar");
    write(&archive, IMAGE, &["/usr/bin/millrace"], &files, "65532:65532")?;
    Ok(archive)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
