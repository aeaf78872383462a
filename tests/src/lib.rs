//! The test kit: real servers on free ports, a database per test, datasets, a digest comparator, a fault proxy, a process harness.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a kit that cannot go on ends the test

pub mod api;
pub mod collector;
pub mod database;
pub mod dataset;
pub mod entitlement_service;
pub mod kube;
pub mod mcp;
pub mod process;
pub mod proxy;
pub mod schema;
pub mod servers;
pub mod suites;
pub mod tls;

pub use millrace_digest as digest;
