//! The demo on a real cluster: the one that `KUBECONFIG` names, or one of our own, which is ended afterwards.

use anyhow::{Context as _, bail};
use nix::sys::signal::{SigSet, Signal};

use super::{Cluster, HOST_VARIABLE, IMAGE, missing};
use crate::built_tool;

const NAME: &str = "demo";

/// Runs it with these arguments of the user's.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let cluster = Cluster::named(NAME)?;
    let is_users_own = cluster.users_own().is_some();
    if is_users_own && std::env::var_os(HOST_VARIABLE).is_none() {
        bail!(
            "KUBECONFIG names a cluster of yours: give the address under which its pods reach this machine in {HOST_VARIABLE}, and make the \
             cluster find `{IMAGE}` (`./x cluster load-image` writes it), or unset KUBECONFIG for a cluster of the demo's own"
        );
    }
    if !is_users_own && let Some(reason) = missing() {
        bail!(
            "a cluster cannot be had here: {reason}; name one of yours in KUBECONFIG, or see `./x demo`, which needs none: \
             the same copy in one process"
        );
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let program = built_tool("millrace-demo")?.args(&args);
    // Ctrl-C is for the demo, which cleans up: were it ours too, nobody would be left to end the cluster. What we start does get it.
    let mut interrupt = SigSet::empty();
    interrupt.add(Signal::SIGINT);
    interrupt.thread_block().context("Ctrl-C cannot be put off")?;
    if is_users_own {
        cluster.up()?;
        return cluster.with_tools(program)?.run();
    }
    // One that an earlier demo has kept, or lost, is begun anew.
    let result =
        cluster.down().and_then(|()| cluster.up()).and_then(|()| cluster.load_image()).and_then(|()| cluster.with_tools(program)?.run());
    if result.is_ok() && args.contains(&"--keep") {
        println!("the cluster `{NAME}` is kept: KUBECONFIG={}; `./x cluster --name {NAME} down` ends it", cluster.kubeconfig().display());
        return Ok(());
    }
    println!("ending the cluster `{NAME}`");
    let ended = cluster.down();
    result.and(ended)
}
