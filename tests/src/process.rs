//! The `millrace` binary as a process: spawn, watch, kill, restart.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// A running `millrace`.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    lines: watch::Receiver<usize>,
}

/// The binary: `MILLRACE_BIN`, else beside this test's own executable.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("MILLRACE_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).map(|dir| dir.join("millrace")).find(|path| path.is_file());
    found.with_context(|| format!("there is no `millrace` beside `{}`; build it with `./x build`", own.display()))
}

impl Process {
    /// Starts `millrace` with these arguments; what it prints is collected.
    pub fn spawn(args: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_with(args, &[])
    }

    /// As [`Process::spawn`], with these environment variables.
    pub fn spawn_with(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut child = Command::new(binary()?)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = Arc::new(Mutex::new(String::new()));
        let (count, lines) = watch::channel(0);
        let count = Arc::new(count);
        let stdout = child.stdout.take().context("stdout")?;
        let stderr = child.stderr.take().context("stderr")?;
        tokio::spawn(collect(BufReader::new(stdout), output.clone(), count.clone()));
        tokio::spawn(collect(BufReader::new(stderr), output.clone(), count));
        Ok(Self { child, output, lines })
    }

    /// Starts `millrace serve` on a free port with this data directory; answers the process and its base address.
    pub async fn serve(data_dir: &Path, more: &[&str]) -> anyhow::Result<(Self, String)> {
        Self::serve_with(data_dir, more, &[]).await
    }

    /// As [`Process::serve`], with these environment variables.
    pub async fn serve_with(data_dir: &Path, more: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(Self, String)> {
        let dir = data_dir.display().to_string();
        let mut args = vec!["serve", "--listen", "127.0.0.1:0", "--data-dir", &dir];
        args.extend(more);
        let mut process = Self::spawn_with(&args, env)?;
        let line = process.wait_for("listening on ").await?;
        let address = line.split("listening on ").nth(1).unwrap_or_default().trim().to_owned();
        Ok((process, address))
    }

    /// Waits for a line that holds this text.
    pub async fn wait_for(&mut self, text: &str) -> anyhow::Result<String> {
        let output = self.output.clone();
        let find = || output.lock().expect("no panic").lines().find(|line| line.contains(text)).map(str::to_owned);
        if find().is_none() {
            let lines = &mut self.lines;
            let waiting = async { while lines.changed().await.is_ok() && find().is_none() {} };
            let _ = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        }
        match find() {
            Some(line) => Ok(line),
            None => bail!("`{text}` was not printed; printed was: {}", self.output()),
        }
    }

    /// All that was printed so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("no panic").clone()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// The most memory that it has used, KiB (`VmHWM`).
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// SIGTERM, and waits until it is gone; answers its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), nix::sys::signal::Signal::SIGTERM);
        self.wait().await
    }

    /// Waits until it ends; answers its exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        let status = tokio::time::timeout(Duration::from_secs(120), self.child.wait()).await;
        status.ok()?.ok()?.code()
    }
}

/// Runs `millrace` to its end; answers exit code, stdout and stderr.
pub async fn run(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<(i32, String, String)> {
    let output = Command::new(binary()?).args(args).envs(env.iter().copied()).stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
}

async fn collect(mut from: impl tokio::io::AsyncBufRead + Unpin, output: Arc<Mutex<String>>, count: Arc<watch::Sender<usize>>) {
    let mut line = String::new();
    while let Ok(1..) = from.read_line(&mut line).await {
        output.lock().expect("no panic").push_str(&line);
        line.clear();
        count.send_modify(|count| *count += 1);
    }
}
