//! Which crate may use which: `core ← connectors ← roles ← standalone ← millrace`; anything may use `service`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::shell::{Step, repository};

/// Each crate with the crates of ours that it may use. Tests and tools stand outside.
const ALLOWED: [(&str, &[&str]); 12] = [
    ("millrace-core", &[]),
    ("millrace-service", &[]),
    ("millrace-crds", &["millrace-core"]),
    ("millrace-connectors", &["millrace-core"]),
    ("millrace-bus", &["millrace-core", "millrace-service"]),
    ("millrace-controller", &["millrace-core", "millrace-crds", "millrace-bus", "millrace-service"]),
    ("millrace-worker", &["millrace-core", "millrace-connectors", "millrace-bus", "millrace-service"]),
    ("millrace-apiserver", &["millrace-core", "millrace-connectors", "millrace-service"]),
    ("millrace-query", &["millrace-core", "millrace-connectors", "millrace-service"]),
    ("millrace-cluster", &["millrace-core", "millrace-crds", "millrace-bus", "millrace-service", "millrace-worker", "millrace-apiserver"]),
    (
        "millrace-standalone",
        &[
            "millrace-core",
            "millrace-connectors",
            "millrace-bus",
            "millrace-service",
            "millrace-worker",
            "millrace-apiserver",
            "millrace-query",
        ],
    ),
    (
        "millrace",
        &[
            "millrace-core",
            "millrace-connectors",
            "millrace-crds",
            "millrace-bus",
            "millrace-cluster",
            "millrace-controller",
            "millrace-service",
            "millrace-worker",
            "millrace-apiserver",
            "millrace-query",
            "millrace-standalone",
        ],
    ),
];

/// Crates outside the order: the test kit and the tools.
const OUTSIDE: [&str; 3] = ["millrace-tests", "millrace-digest", "xtask"];

/// Fails for any other arrow, for a second crate that links DuckDB, and for a connector that uses another one.
pub(crate) fn check() -> anyhow::Result<()> {
    let metadata: Value = serde_json::from_str(&Step::cargo(&["metadata", "--format-version=1", "--no-deps"]).output()?)?;
    let mut wrong = wrong_arrows(&metadata)?;
    wrong.extend(crossing_connectors(&repository().join("crates/connectors/src"))?);
    if wrong.is_empty() { Ok(()) } else { bail!("dependencies that the design forbids: {}", wrong.join(", ")) }
}

fn wrong_arrows(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().context("cargo lists no packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let used: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|dependency| dependency["kind"] != "dev")
            .filter_map(|dependency| dependency["name"].as_str())
            .collect();
        if OUTSIDE.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} is not in the order"));
            continue;
        };
        let ours = used.iter().filter(|dependency| dependency.starts_with("millrace") && !allowed.contains(dependency));
        wrong.extend(ours.map(|dependency| format!("{name} → {dependency}")));
        if used.contains("duckdb") && name != "millrace-query" {
            wrong.push(format!("{name} → duckdb"));
        }
    }
    Ok(wrong)
}

fn crossing_connectors(folder: &Path) -> anyhow::Result<Vec<String>> {
    let names: Vec<String> = std::fs::read_dir(folder)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let mut wrong = Vec::new();
    for name in &names {
        let mut folders = vec![folder.join(name)];
        while let Some(dir) = folders.pop() {
            for entry in std::fs::read_dir(dir)?.flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
                let crossed = names.iter().filter(|other| *other != name && text.contains(&format!("crate::{other}")));
                wrong.extend(crossed.map(|other| format!("connectors/{name} → connectors/{other}")));
            }
        }
    }
    Ok(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(name: &str, dependency: &str) -> Value {
        json!({"packages": [{"name": name, "dependencies": [{"name": dependency, "kind": null}]}]})
    }

    #[test]
    fn arrows_against_the_order_are_found() {
        assert!(wrong_arrows(&metadata("millrace-worker", "millrace-core")).unwrap().is_empty());
        assert_eq!(wrong_arrows(&metadata("millrace-core", "millrace-worker")).unwrap(), ["millrace-core → millrace-worker"]);
        assert_eq!(wrong_arrows(&metadata("millrace-apiserver", "millrace-query")).unwrap(), ["millrace-apiserver → millrace-query"]);
        assert_eq!(wrong_arrows(&metadata("millrace-apiserver", "duckdb")).unwrap(), ["millrace-apiserver → duckdb"]);
        assert_eq!(wrong_arrows(&metadata("millrace-new", "serde")).unwrap(), ["millrace-new is not in the order"]);
    }
}
