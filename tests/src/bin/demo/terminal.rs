//! Commands as a person types them: shown, then run by the shell exactly as they are shown.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Longer than any command of the demo takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// A shell with variables that the shown commands name.
#[derive(Default)]
pub(crate) struct Terminal {
    /// What must not be shown.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Terminal {
    /// Shows a command, runs it, shows what it prints and answers it.
    pub(crate) async fn run(&self, command: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        self.watch(command, |line| {
            text.push_str(line);
            text.push('\n');
            false
        })
        .await?;
        Ok(text)
    }

    /// As [`Terminal::run`], ended at the first line of which this is true.
    pub(crate) async fn watch(&self, command: &str, is_last: impl FnMut(&str) -> bool) -> anyhow::Result<()> {
        show(command);
        self.execute(command, true, is_last).await
    }

    /// Puts what a command prints last into a variable, and answers it; that alone is not shown.
    pub(crate) async fn assign(&mut self, variable: &'static str, command: &str) -> anyhow::Result<String> {
        show(&format!("{variable}=$({command} | tail -n 1)"));
        let mut last = String::new();
        self.execute(command, false, |line| {
            line.clone_into(&mut last);
            false
        })
        .await?;
        self.variables.push((variable, last.clone()));
        Ok(last)
    }

    async fn execute(&self, command: &str, is_shown: bool, mut is_last: impl FnMut(&str) -> bool) -> anyhow::Result<()> {
        let mut child = Command::new("sh")
            // One stream, so that errors stand where they came; and the shell's own place, so that what ends it ends the command.
            .args(["-c", &format!("exec 2>&1\n{}{command}", if command.contains(['\n', '|']) { "" } else { "exec " })])
            .envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("`sh` cannot be run")?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let reading = async {
            while let Some(line) = lines.next_line().await? {
                if is_shown && !line.is_empty() {
                    println!("     {line}");
                }
                if is_last(&line) {
                    return Ok(true);
                }
            }
            anyhow::Ok(false)
        };
        let first = command.lines().next().unwrap_or_default();
        if tokio::time::timeout(PATIENCE, reading).await.with_context(|| format!("`{first}` takes too long"))?? {
            let _ = child.kill().await;
            return Ok(());
        }
        let status = child.wait().await?;
        if !status.success() {
            bail!("`{first}` failed");
        }
        Ok(())
    }
}

/// Shows a command without running it.
pub(crate) fn show(command: &str) {
    for (number, line) in command.lines().enumerate() {
        println!("   {} {line}", if number == 0 { "$" } else { " " });
    }
}
