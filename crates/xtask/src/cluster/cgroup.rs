//! A cluster's own branch of the control groups: kubelets kill what they find in theirs and do not know.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Cluster;

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";

/// The branch's name, as kubelets want it.
pub(super) fn root(cluster: &Cluster) -> String {
    format!("/millrace-{}", cluster.name)
}

/// The tops of all hierarchies: one with version 2, one for each controller with version 1, and both where both are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            (kind.starts_with("cgroup") && path.starts_with(MOUNT)).then(|| PathBuf::from(path))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Makes the branch in every hierarchy.
pub(super) fn create(cluster: &Cluster) -> anyhow::Result<()> {
    for top in hierarchies() {
        // Version 2 hands a controller down only where it is told so; one that cannot be handed down is not missed here.
        for controller in std::fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default().split_whitespace() {
            let _ = std::fs::write(top.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let branch = branch(&top, cluster);
        std::fs::create_dir_all(&branch).with_context(|| format!("`{}` cannot be made", branch.display()))?;
        for name in ["cpuset.cpus", "cpuset.mems"] {
            // Version 1 lets nothing run in a set without processors and memory.
            if let Ok(all) = std::fs::read_to_string(top.join(name)) {
                let _ = std::fs::write(branch.join(name), all.trim());
            }
        }
    }
    Ok(())
}

/// Removes the branch; what still runs in it was killed before.
pub(super) fn remove(cluster: &Cluster) {
    for top in hierarchies() {
        remove_below(&branch(&top, cluster));
    }
}

fn branch(top: &Path, cluster: &Cluster) -> PathBuf {
    top.join(root(cluster).trim_start_matches('/'))
}

fn remove_below(group: &Path) {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| remove_below(&entry.path()));
    let _ = std::fs::remove_dir(group);
}
