//! One conformance suite per trait, run for every implementation (`tests/it/conformance.rs`, `tests/cluster/conformance.rs`).

pub mod bus;
pub mod config_store;
pub mod entitlement;
pub mod orchestrator;
pub mod query_tier;
pub mod rest;
pub mod session;
pub mod sink;
pub mod source;
