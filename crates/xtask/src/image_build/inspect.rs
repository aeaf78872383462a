//! What an image must be: its configuration and its files.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};

/// With this or more, the build stage or a whole distribution must have got in.
const TOO_LARGE: u64 = 512 << 20;
const SHELLS: [&str; 11] = ["sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "tcsh", "zsh"];
/// Folders of programs.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin"];
/// What must be there.
const WANTED: [&str; 7] = [
    "usr/bin/millrace",
    "usr/lib/millrace/libduckdb.so",
    "usr/lib/millrace/postgres_scanner.duckdb_extension",
    "usr/lib/millrace/mysql_scanner.duckdb_extension",
    "usr/lib/millrace/httpfs.duckdb_extension",
    "etc/ssl/certs/ca-certificates.crt",
    "etc/nsswitch.conf",
];
/// Of the build stage and of this machine.
const UNWANTED: [&str; 6] = ["src", "cache", "image", "root", "run/secrets", "etc/pip.conf"];

#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: usize,
    pub(super) bytes: u64,
    programs: BTreeSet<PathBuf>,
    wrong: Vec<String>,
}

/// The configuration: who runs what, where the extensions are, labels.
pub(super) fn config(config: &Value) -> anyhow::Result<()> {
    let wanted = [("User", json!("65532:65532")), ("Entrypoint", json!(["/usr/bin/millrace"]))];
    for (name, value) in wanted {
        if config[name] != value {
            bail!("the image's `{name}` is `{}` and must be `{value}`", config[name]);
        }
    }
    let env: Vec<&str> = config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !env.contains(&"MILLRACE_EXTENSION_DIR=/usr/lib/millrace") {
        bail!("the image does not say where the extensions are: {env:?}");
    }
    // A setting of the machine that built it is nobody else's business.
    if let Some(name) = env.iter().find(|name| ["PIP_", "NPM_", "npm_", "CARGO_"].iter().any(|prefix| name.starts_with(prefix))) {
        bail!("the image holds a setting of the build: `{name}`");
    }
    let version = &config["Labels"]["org.opencontainers.image.version"];
    if version != env!("CARGO_PKG_VERSION") {
        bail!("the image's label says version `{version}`");
    }
    Ok(())
}

/// The files: all that is needed, no shell, nothing with another's rights, one program.
pub(super) fn tree(root: &Path) -> anyhow::Result<Found> {
    let mut found = Found::default();
    visit(root, root, &mut found)?;
    for path in WANTED.iter().filter(|path| !root.join(path).is_file()) {
        found.wrong.push(format!("`/{path}` is missing"));
    }
    for path in UNWANTED.iter().filter(|path| root.join(path).exists()) {
        found.wrong.push(format!("`/{path}` is there"));
    }
    for program in found.programs.iter().filter(|program| **program != Path::new("usr/bin/millrace")) {
        found.wrong.push(format!("`/{}` is a program beside ours", program.display()));
    }
    match std::fs::metadata(root.join("tmp")) {
        Ok(data) if data.permissions().mode() & 0o7777 == 0o1777 => {}
        _ => found.wrong.push("`/tmp` is not there for everybody".to_owned()),
    }
    if found.bytes >= TOO_LARGE {
        found.wrong.push(format!("it has {} MiB", found.bytes >> 20));
    }
    if found.wrong.is_empty() { Ok(found) } else { bail!("the image is not as it must be: {}", found.wrong.join("; ")) }
}

fn visit(root: &Path, folder: &Path, found: &mut Found) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let data = std::fs::symlink_metadata(&path)?;
        let shown = path.strip_prefix(root)?;
        if data.is_dir() {
            visit(root, &path, found)?;
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        if SHELLS.contains(&name.as_str()) {
            found.wrong.push(format!("`/{}` is a shell", shown.display()));
        }
        if shown.parent().is_some_and(|parent| PROGRAMS.iter().any(|folder| parent == Path::new(folder))) {
            found.programs.insert(shown.to_owned());
        }
        if data.is_symlink() {
            continue;
        }
        let mode = data.permissions().mode();
        if mode & 0o6000 != 0 {
            found.wrong.push(format!("`/{}` runs with another's rights", shown.display()));
        }
        if mode & 0o002 != 0 {
            found.wrong.push(format!("`/{}` may be written by everybody", shown.display()));
        }
        if data.uid() != 0 {
            found.wrong.push(format!("`/{}` belongs to user {}", shown.display(), data.uid()));
        }
        found.files += 1;
        found.bytes += data.len();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree that is right, but for what is done to it; run as root, as image builds are.
    fn judged(name: &str, spoil: impl FnOnce(&Path)) -> String {
        let root = std::env::temp_dir().join(format!("millrace-tree-{name}-{}", std::process::id()));
        for path in WANTED {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "x").unwrap();
        }
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        spoil(&root);
        let judged = tree(&root).map_or_else(|error| error.to_string(), |_| String::new());
        std::fs::remove_dir_all(&root).unwrap();
        // Who is not root cannot make files of root.
        let reasons = judged.trim_start_matches("the image is not as it must be: ").split("; ");
        reasons.filter(|reason| !reason.contains("belongs to user")).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_tree_with_what_is_needed_and_no_more_is_right() {
        assert_eq!(judged("right", |_| ()), "");
    }

    #[test]
    fn a_shell_a_setuid_file_a_second_program_and_leftovers_are_found() {
        let judged = judged("wrong", |root| {
            std::os::unix::fs::symlink("millrace", root.join("usr/bin/sh")).unwrap();
            std::fs::write(root.join("usr/lib/helper"), "x").unwrap();
            std::fs::set_permissions(root.join("usr/lib/helper"), std::fs::Permissions::from_mode(0o4755)).unwrap();
            std::fs::create_dir_all(root.join("src")).unwrap();
            std::fs::remove_file(root.join("etc/nsswitch.conf")).unwrap();
            std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o755)).unwrap();
        });
        for wanted in [
            "`/usr/bin/sh` is a shell",
            "`/usr/bin/sh` is a program beside ours",
            "`/usr/lib/helper` runs with another's rights",
            "`/src` is there",
            "`/etc/nsswitch.conf` is missing",
            "`/tmp` is not there for everybody",
        ] {
            assert!(judged.contains(wanted), "{wanted}: {judged}");
        }
    }

    #[test]
    fn an_image_of_another_user_or_with_settings_of_the_build_is_refused() {
        let right = json!({
            "User": "65532:65532", "Entrypoint": ["/usr/bin/millrace"], "Env": ["MILLRACE_EXTENSION_DIR=/usr/lib/millrace"],
            "Labels": {"org.opencontainers.image.version": env!("CARGO_PKG_VERSION")},
        });
        config(&right).unwrap();
        for (name, value) in [
            ("User", json!("0:0")),
            ("Entrypoint", json!(["/bin/sh"])),
            ("Env", json!([])),
            ("Env", json!(["MILLRACE_EXTENSION_DIR=/usr/lib/millrace", "PIP_INDEX_URL=x"])),
            ("Labels", json!({})),
        ] {
            let mut wrong = right.clone();
            wrong[name] = value;
            assert!(config(&wrong).is_err(), "{name}");
        }
    }
}
