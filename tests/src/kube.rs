//! kubectl and helm as people use them, and Millrace's objects as people write them: for the tests on a cluster and for the demo.

use std::process::Stdio;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Where the chart stands.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/millrace");

/// The address under which pods reach this machine.
pub const HOST_VARIABLE: &str = "MILLRACE_CLUSTER_HOST";

/// The base URL of the cluster's ingress controller, if it has one.
pub const INGRESS_VARIABLE: &str = "MILLRACE_CLUSTER_INGRESS";

/// The address of this machine that pods reach.
pub fn host() -> anyhow::Result<String> {
    std::env::var(HOST_VARIABLE).with_context(|| format!("{HOST_VARIABLE} is not set; `./x` sets it for its own clusters"))
}

/// Runs a program; answers whether it succeeded, and all that it printed.
pub async fn try_run(program: &str, args: &[&str], input: Option<&str>) -> anyhow::Result<(bool, String)> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("`{program}` cannot be run; `./x` brings it"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}

/// A connection whose password stands in the Secret `millrace-conn-NAME`.
pub fn connection(name: &str, engine: &str, host: &str, port: u16, user: &str) -> Value {
    json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Connection", "metadata": {"name": name}, "spec": {
        "type": engine, "database": {"host": host, "port": port, "username": user}, "secretRef": {"name": format!("millrace-conn-{name}")}}})
}

/// A convert of a database between two connections that runs as soon as it is applied.
pub fn convert(name: &str, from: &str, source: &str, to: &str, target: &str) -> Value {
    json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "StreamConfig", "metadata": {"name": name}, "spec": {
        "name": name, "mode": "convert", "state": "Running", "source": {"connections": [{"connection": from, "database": source}]},
        "target": {"connection": to, "spec": {"db": {"database": target}}}}})
}
