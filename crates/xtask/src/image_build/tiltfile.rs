//! Reads the Tiltfile with Starlark's own interpreter and holds what it asks of Tilt against this repository. Tilt itself is not run.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::deps;
use crate::shell::{Step, has};

/// So many lines and no more: it is there to be read.
const LINES: usize = 40;
/// Where the interpreter with Tilt's functions stands.
const READER: &str = "tests/tiltfile";

pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root.join("Tiltfile"))?;
    if text.lines().count() >= LINES {
        bail!("the Tiltfile has {} lines; {LINES} are too many", text.lines().count());
    }
    if !has("go") {
        println!("LEFT OUT: reading the Tiltfile, because there is no Go toolchain");
        return Ok(());
    }
    let sources = root.join(READER);
    let program = deps::cache()?.join(format!("tiltfile-{}", deps::go_sources(std::slice::from_ref(&sources))?));
    if !program.is_file() {
        let unfinished = program.with_extension(std::process::id().to_string());
        let to = unfinished.to_string_lossy();
        Step::program(Path::new("go")).args(&["build", "-mod=readonly", "-trimpath", "-o", &to, "."]).dir(&sources).run()?;
        std::fs::rename(&unfinished, &program)?;
    }
    let file = root.join("Tiltfile");
    let read = |step: Step| step.args(&[&file.to_string_lossy()]);
    let answer = read(Step::program(&program)).env("BUILD_BASE", "build").env("RUNTIME_BASE", "runtime").output()?;
    let calls = answer.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    judge(root, &calls)?;
    if read(Step::program(&program)).env("BUILD_BASE", "").quiet().run().is_ok() {
        bail!("the Tiltfile goes on without bases");
    }
    println!("the Tiltfile is read: {} calls; what Tilt does with them is not tried", calls.len());
    Ok(())
}

/// Fails where it names what is not there, or leaves out one of: definitions, image, chart, ports.
fn judge(root: &Path, calls: &[Value]) -> anyhow::Result<()> {
    let of = |function: &str| calls.iter().filter(|call| call["function"] == function).collect::<Vec<_>>();
    let files: Vec<&str> =
        of("k8s_yaml").iter().filter_map(|call| call["args"][0].as_array()).flatten().filter_map(Value::as_str).collect();
    let mut definitions = std::fs::read_dir(root.join("crds/yaml"))?.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    definitions.sort();
    let wanted: Vec<String> = definitions.iter().map(|name| format!("crds/yaml/{}", name.to_string_lossy())).collect();
    if files != wanted {
        bail!("the Tiltfile applies {files:?}, and the definitions are {wanted:?}");
    }
    let image = of("docker_build").first().copied().context("the Tiltfile builds no image")?["args"][0].as_str().unwrap_or_default();
    let values = std::fs::read_to_string(root.join("charts/millrace/values.yaml"))?;
    let repository = values.lines().find_map(|line| line.trim().strip_prefix("repository: ")).unwrap_or_default();
    if image.is_empty() || repository.strip_prefix("docker.io/").unwrap_or(repository) != image {
        bail!("the Tiltfile builds `{image}`, and the chart runs `{repository}`");
    }
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile"))?;
    for name in of("docker_build")[0]["named"]["build_args"].as_object().into_iter().flatten().map(|(name, _)| name) {
        if !dockerfile.lines().any(|line| line == format!("ARG {name}") || line.starts_with(&format!("ARG {name}="))) {
            bail!("the Tiltfile gives `{name}`, which the Dockerfile does not ask for");
        }
    }
    let chart = of("local").iter().flat_map(|call| call["args"][0].as_array()).flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    if !chart.starts_with(&["helm", "template"]) || !chart.contains(&"charts/millrace") || !chart.contains(&"--no-hooks") {
        bail!("the Tiltfile does not render the chart without its hooks: {chart:?}");
    }
    let forwarded = of("k8s_resource");
    if forwarded.is_empty() {
        bail!("the Tiltfile forwards no port");
    }
    for call in forwarded {
        let name = call["args"][0].as_str().unwrap_or_default();
        let template = name.strip_prefix("millrace-").map(|part| root.join(format!("charts/millrace/templates/{part}.yaml")));
        if !template.is_some_and(|template| template.is_file()) {
            bail!("the Tiltfile forwards a port of `{name}`, which the chart does not have");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::shell::repository;

    fn calls() -> Vec<Value> {
        let definitions = ["crds/yaml/connections.yaml", "crds/yaml/streamconfigs.yaml", "crds/yaml/streams.yaml"];
        vec![
            json!({"function": "k8s_yaml", "args": [definitions]}),
            json!({"function": "docker_build", "args": ["millrace/millrace", "."], "named": {"build_args": {"PROFILE": "dev"}}}),
            json!({"function": "local", "args": [["helm", "template", "x", "charts/millrace", "--no-hooks"]]}),
            json!({"function": "k8s_resource", "args": ["millrace-nats"], "named": {}}),
        ]
    }

    #[test]
    fn the_tiltfile_of_this_repository_is_read_and_names_what_is_there() {
        check(&repository()).unwrap();
    }

    #[test]
    fn a_tiltfile_that_leaves_something_out_or_names_what_is_not_there_is_refused() {
        judge(&repository(), &calls()).unwrap();
        for missing in 0..calls().len() {
            let mut calls = calls();
            calls.remove(missing);
            assert!(judge(&repository(), &calls).is_err(), "without call {missing}");
        }
        for (index, args) in [(0, json!([["crds/yaml/gone.yaml"]])), (1, json!(["other/image"])), (3, json!(["millrace-other"]))] {
            let mut calls = calls();
            calls[index]["args"] = args;
            assert!(judge(&repository(), &calls).is_err(), "with another call {index}");
        }
        let mut calls = calls();
        calls[1]["named"]["build_args"] = json!({"NO_SUCH": "x"});
        assert!(judge(&repository(), &calls).is_err(), "with an argument that is not asked for");
    }
}
