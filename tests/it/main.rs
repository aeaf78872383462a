//! Integration tests on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod convert;
mod kit;
mod rest;
mod store;
mod support;
