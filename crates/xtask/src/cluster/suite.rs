//! The tests on a real cluster: the one that `KUBECONFIG` names, or one of our own, which is ended afterwards.

use std::time::Instant;

use anyhow::bail;

use super::{Cluster, HOST_VARIABLE, IMAGE, missing};
use crate::scratch::Scratch;
use crate::shell::Step;
use crate::{build_for_tests, deps};

/// Lines of a pod's log that are shown after a failure.
const TAIL: &str = "--tail=80";

/// Tests of one release, which they take turns with. They run beside all others: among them, they would keep threads waiting for their turn.
const TAKE_TURNS: [&str; 3] = ["conformance::", "memory::", "rest::"];
const ONE_AT_A_TIME: &str = "--test-threads=1";
/// Of the others. Most tests wait for pods most of the time, so more of them run at once than there are processors to a small machine.
const THREADS: &str = "--test-threads=2";

/// So many failed tests are tried again; more are no accident.
const AGAIN: usize = 6;

const NAME: &str = "it";

/// Says loudly that the suite was left out, and why; or runs it.
pub(crate) fn run_or_leave_out(filter: Option<&str>) -> anyhow::Result<()> {
    match reason_to_leave_out() {
        Some(reason) => {
            println!("LEFT OUT: tests on a real cluster, because {reason}");
            Ok(())
        }
        None => run(filter),
    }
}

/// Why the suite cannot run here, if so.
fn reason_to_leave_out() -> Option<String> {
    let Ok(cluster) = Cluster::named(NAME) else { return None };
    if cluster.users_own().is_none() {
        return missing();
    }
    // Named on purpose: tests are never installed into whatever cluster happens to be the user's.
    std::env::var_os(HOST_VARIABLE).is_none().then(|| {
        format!(
            "KUBECONFIG names a cluster of yours, and {HOST_VARIABLE} is not set: give the address under which its pods reach this machine, and \
             make the cluster find `{IMAGE}` (`./x cluster load-image` writes it), or unset KUBECONFIG for a cluster of its own"
        )
    })
}

/// Runs those tests whose name holds the filter; shows what the cluster knows when they fail.
fn run(filter: Option<&str>) -> anyhow::Result<()> {
    deps::ensure(true)?;
    build_for_tests()?;
    let cluster = Cluster::named(NAME)?;
    let is_kept = std::env::var_os("MILLRACE_KEEP_CLUSTER").is_some();
    let begun_at = Instant::now();
    let result = prepare(&cluster).and_then(|()| {
        println!("the cluster was built and started in {} s", begun_at.elapsed().as_secs());
        let begun_at = Instant::now();
        let result = tests(&cluster, filter);
        println!("the suite on the cluster took {} s", begun_at.elapsed().as_secs());
        result
    });
    if result.is_err() {
        show(&cluster);
    }
    if is_kept {
        println!("the cluster `{NAME}` is kept: KUBECONFIG={}", cluster.kubeconfig().display());
        return result;
    }
    match (result, cluster.down()) {
        (Err(error), Err(other)) => {
            println!("the cluster could not be ended either: {other:#}");
            Err(error)
        }
        (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(())) => Ok(()),
    }
}

fn prepare(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.up()?;
    if cluster.users_own().is_some() {
        println!("`{IMAGE}` must be within the cluster's reach");
        return Ok(());
    }
    cluster.load_image()
}

fn tests(cluster: &Cluster, filter: Option<&str>) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let step = |name: &str| -> anyhow::Result<Step> {
        // Of the whole workspace, so that dependencies have the features that they have in `cargo test --workspace`, and are not built again.
        let step = Step::cargo(&["test", "--workspace", "--test", name]);
        let step = step.env("MILLRACE_S3_PROGRAM", &deps::object_store()?.to_string_lossy());
        Ok(scratch.of(cluster.with_tools(step)?).features(deps::features()).args(&["--"]))
    };
    let suite = |name: &str, parts: &[Vec<&str>]| {
        let steps = parts.iter().map(|args| Ok(step(name)?.args(args))).collect::<anyhow::Result<Vec<_>>>()?;
        let results: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = steps.into_iter().map(|step| scope.spawn(|| step.run_tests())).collect();
            running.into_iter().map(|part| part.join().unwrap_or_else(|_| bail!("nobody looked after the suite `{name}`"))).collect()
        });
        let mut failed = Vec::new();
        for result in results {
            let (is_ok, names) = result?;
            if !is_ok && names.is_empty() {
                bail!("the suite `{name}` failed");
            }
            failed.extend(names);
        }
        if failed.is_empty() {
            return Ok(());
        }
        if failed.len() > AGAIN {
            bail!("the suite `{name}` failed");
        }
        // A whole cluster on a small machine: what failed while much else ran is tried once more, alone, and named.
        println!("==== TRIED AGAIN, ALONE: {}", failed.join(", "));
        let again: Vec<&str> = failed.iter().map(String::as_str).collect();
        step(name)?.args(&["--exact", ONE_AT_A_TIME]).args(&again).run()
    };
    match filter {
        Some(filter) => suite("cluster", &[vec![THREADS, filter]])?,
        None => {
            let others = TAKE_TURNS.iter().flat_map(|part| ["--skip", part]).chain([THREADS]).collect();
            // Not all of them need their turn: one runs beside whoever has it.
            suite("cluster", &[others, [&[THREADS], &TAKE_TURNS[..]].concat()])?;
        }
    }
    if cluster.users_own().is_some() {
        println!("LEFT OUT: tests that take everything off a node, because the cluster is yours");
        return Ok(());
    }
    // After all others: it takes everything off the node.
    suite("cluster-drain", &[filter.into_iter().collect()])
}

/// What is needed to understand a failure once the cluster is gone. Whatever cannot be shown is passed over.
fn show(cluster: &Cluster) {
    println!("==== what the cluster knew when it failed");
    let kubectl = |args: &[&str]| {
        println!("---- kubectl {}", args.join(" "));
        let _ = cluster.kubectl(args).run();
    };
    kubectl(&["get", "pods,jobs,pvc", "-A", "-o", "wide"]);
    kubectl(&["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]);
    if cluster.users_own().is_some() {
        // The logs of strangers are none of our business.
        return;
    }
    let all = cluster
        .kubectl(&["get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}"])
        .output()
        .unwrap_or_default();
    for (namespace, pod) in all.lines().filter_map(|line| line.split_once(' ')) {
        let logs = ["-n", namespace, "logs", pod, "--all-containers", TAIL];
        kubectl(&logs);
        // Only where a container was started again is there an earlier one.
        let _ = cluster.kubectl(&[&logs[..], &["--previous"]].concat()).quiet_errors().run();
    }
    for name in ["kube-apiserver", "kubelet", "containerd", "kube-router"] {
        let path = cluster.dir.join(format!("log/{name}.log"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        println!("---- {}\n{}", path.display(), lines[lines.len().saturating_sub(30)..].join("\n"));
    }
}
