//! Integration tests on real servers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod auth;
mod clients;
mod conformance;
mod controller;
mod convert;
mod crds;
mod explore_mysql;
mod explore_postgres;
mod faults;
mod files;
mod fleet;
mod folders;
mod guarded;
mod hostile;
mod kit;
mod mcp;
mod objects;
mod property;
mod resend;
mod rest;
mod runs;
mod telemetry;
mod tls;
mod traced;
mod values;
mod writing;

mod support;
