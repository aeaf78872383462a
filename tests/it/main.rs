//! Integration tests on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod conformance;
mod convert;
mod crds;
mod faults;
mod kit;
mod property;
mod rest;
mod runs;
mod tls;
mod values;
mod writing;

mod support;
