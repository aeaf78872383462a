//! Runs other programs.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_owned()
}

/// Where cargo builds.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let text = Step::cargo(&["metadata", "--format-version=1", "--no-deps"]).output()?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let dir = metadata["target_directory"].as_str().context("cargo names no target directory")?;
    Ok(dir.into())
}

/// One program to run.
pub(crate) struct Step {
    command: Command,
    shown: String,
}

impl Step {
    /// Cargo in the repository's root.
    pub(crate) fn cargo(args: &[&str]) -> Self {
        Self::program(Path::new(&std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))).args(args)
    }

    /// Any program.
    pub(crate) fn program(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.current_dir(repository());
        // Set by the cargo that runs us; build scripts watch some of them, and would build their crates again for another value.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name.as_ref());
            }
        }
        Self { command, shown: program.file_name().unwrap_or_default().to_string_lossy().into_owned() }
    }

    /// Further arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(arg);
        }
        self
    }

    /// Cargo features, if any.
    pub(crate) fn features(self, features: &'static [&'static str]) -> Self {
        self.args(features)
    }

    /// A variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Prints nothing.
    pub(crate) fn quiet(mut self) -> Self {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self
    }

    /// Prints no errors.
    pub(crate) fn quiet_errors(mut self) -> Self {
        self.command.stderr(Stdio::null());
        self
    }

    /// Another working folder.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Runs it; fails unless it succeeds.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        let status = self.command.status().with_context(|| format!("cannot run `{}`", self.shown))?;
        if status.success() { Ok(()) } else { bail!("`{}` failed", self.shown) }
    }

    /// Runs tests, showing what they print; answers whether they succeeded, and the names of those that failed. Fails if they did not come to their end.
    pub(crate) fn run_tests(mut self) -> anyhow::Result<(bool, Vec<String>)> {
        let mut child = self.command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{}`", self.shown))?;
        let mut failed = Vec::new();
        let mut is_ended = false;
        for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let line = line?;
            println!("{line}");
            is_ended |= line.starts_with("test result: ");
            if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
                failed.push(name.to_owned());
            }
        }
        let is_ok = child.wait()?.success();
        if !is_ended {
            bail!("`{}` broke off", self.shown);
        }
        Ok((is_ok, failed))
    }

    /// Runs it; answers what it printed.
    pub(crate) fn output(mut self) -> anyhow::Result<String> {
        let output = self.command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{}`", self.shown))?;
        if !output.status.success() {
            bail!("`{}` failed", self.shown);
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Whether a program is in the path or where Debian keeps servers.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).is_file())
}

/// Installs Debian packages, if this is Debian and we may; says what to do otherwise.
pub(crate) fn install(packages: &[&str], otherwise: &str) -> anyhow::Result<()> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !is_root || !has("apt-get") {
        bail!("`{}` is missing: install it as root, or {otherwise}", packages.join("`, `"));
    }
    println!("installing {}", packages.join(", "));
    Step::program(Path::new("apt-get")).args(&["update", "-qq"]).quiet().run()?;
    Step::program(Path::new("apt-get"))
        .args(&["install", "-y", "-qq", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .quiet()
        .run()
}
