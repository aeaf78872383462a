//! Settings of this machine that the build stage needs to reach packages: authorities, mirrors, accounts. They go in as secrets and into no layer.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables that say how package clients reach their registries.
const PREFIXES: [&str; 8] =
    ["PIP_", "NPM_CONFIG_", "npm_config_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_", "CARGO_NET_", "CARGO_HTTP_"];
/// Files with authorities: what variables name, then what Debian has.
const AUTHORITIES: [&str; 2] = ["SSL_CERT_FILE", "CARGO_HTTP_CAINFO"];
const DEBIAN_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Removes what it wrote when it is dropped.
pub(super) struct Settings {
    env: PathBuf,
    secrets: Vec<(&'static str, PathBuf)>,
}

impl Settings {
    pub(super) fn of_this_machine(folder: &Path) -> anyhow::Result<Self> {
        let env = folder.join("env");
        write_private(&env, &variables(std::env::vars_os()))?;
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let named = AUTHORITIES.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let candidates: [(&'static str, Vec<PathBuf>); 4] = [
            ("authorities", named.chain([DEBIAN_AUTHORITIES.into()]).collect()),
            ("cargo", vec![cargo.join("config.toml"), cargo.join("config")]),
            ("npm", vec![home.join(".npmrc")]),
            ("pip", vec![home.join(".config/pip/pip.conf"), home.join(".pip/pip.conf"), "/etc/pip.conf".into()]),
        ];
        let mut secrets = vec![("env", env.clone())];
        for (id, paths) in candidates {
            secrets.extend(paths.into_iter().find(|path| path.is_file()).map(|path| (id, path)));
        }
        Ok(Self { env, secrets })
    }

    /// Ids of the `Dockerfile` and files.
    pub(super) fn secrets(&self) -> &[(&'static str, PathBuf)] {
        &self.secrets
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.env);
    }
}

/// Assignments for a shell. Paths are left out: they are of this machine.
fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> String {
    let mut lines: Vec<String> = all
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !value.starts_with('/'))
        .map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''")))
        .collect();
    lines.sort();
    lines.concat()
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = std::fs::remove_file(path);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_package_clients_reach_a_shell_as_they_are_and_nothing_else_does() {
        let all = [
            ("PIP_INDEX_URL", "http://localhost/it's"),
            ("PIP_CERT", "/etc/ssl/own.crt"),
            ("CARGO_PKG_NAME", "xtask"),
            ("AWS_SECRET_ACCESS_KEY", "no"),
            ("CARGO_NET_RETRY", "3"),
        ];
        let text = variables(all.into_iter().map(|(name, value)| (name.into(), value.into())));
        assert_eq!(text, "CARGO_NET_RETRY='3'\nPIP_INDEX_URL='http://localhost/it'\\''s'\n");
        let shown = std::process::Command::new("sh").args(["-c", &format!("{text} printf %s \"$PIP_INDEX_URL\"")]).output().unwrap();
        assert_eq!(shown.stdout, b"http://localhost/it's");
    }
}
