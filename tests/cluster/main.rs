//! The whole on a real cluster: API server, scheduler, kubelet, pods. `./x it cluster` starts one and names it in `KUBECONFIG`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chart;
mod conformance;
mod fleet;
mod harness;
mod kube;
mod life;
mod lifecycle;
mod memory;
mod objects;
mod release;
mod rest;
mod runs;
mod trouble;
