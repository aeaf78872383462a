//! What an idle control plane costs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::release::{place, release};

/// MiB of controller, API server and query tier with its warm pool, one pod each.
const MOST: f64 = 150.0;

/// Proportional set sizes of pods by their UID, MiB: each shared page is divided among those who share it.
fn memory() -> BTreeMap<String, f64> {
    let mut pods: BTreeMap<String, f64> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pod) = std::fs::read_to_string(entry.path().join("cgroup")).ok().and_then(|text| pod_of(&text)) else { continue };
        *pods.entry(pod).or_default() += pss(&entry.path()).unwrap_or(0.0);
    }
    pods
}

/// The UID of the pod that a process belongs to, out of its control groups.
fn pod_of(cgroups: &str) -> Option<String> {
    let at = cgroups.find("/pod").or_else(|| cgroups.find("-pod"))?;
    let uid: String = cgroups[at + 4..].chars().take_while(|letter| letter.is_ascii_hexdigit() || matches!(letter, '-' | '_')).collect();
    Some(uid.replace('_', "-"))
}

fn pss(process: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

#[tokio::test]
async fn an_idle_control_plane_takes_no_more_than_150_mib() {
    let (_turn, place) = place().await;
    // The warm pool is there once somebody has asked.
    let answer = place.api.post("/query/federated", serde_json::json!({"sql": "SELECT 1 AS one"})).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let pods = release().await.kube.list("pod", "", "status.phase=Running").await;
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let measured = memory();
        // Of several pods of a kind the largest counts.
        let largest = |component: &str| {
            let own = pods.iter().filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == component);
            own.filter_map(|pod| measured.get(pod["metadata"]["uid"].as_str()?).copied()).fold(0.0, f64::max)
        };
        let parts = ["controller", "apiserver", "query"].map(|component| (component, largest(component)));
        assert!(parts.iter().all(|(_, mib)| *mib > 1.0), "not all pods were measured: {parts:?} of {measured:?}");
        let sum: f64 = parts.iter().map(|(_, mib)| mib).sum();
        if sum <= MOST || Instant::now() > end {
            println!("an idle control plane takes {sum:.1} MiB: {parts:.1?}");
            assert!(sum <= MOST, "{sum:.1} MiB: {parts:.1?}");
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
