//! The words of Millrace: what is moved, where from, where to, and the rules that hold whatever the engine.
//!
//! ```text
//!  config ──▶ plan ──▶ cut ──▶ split ──▶ decoder → ValueRef → encoder ──▶ writer ──▶ ledger
//!  (what is    (per-     (one     (bounded    (per column, compiled       (one target   (what was
//!   wanted)     column    moment)  piece)      once, no allocation)        transaction)   written)
//!               verdicts)
//! ```
//!
//! Nothing here dials a server: drivers live in `millrace-connectors`, transport in the role crates.
#![warn(missing_docs)]

pub mod bus;
pub mod catalog;
pub mod config;
pub mod connection;
pub mod connector;
pub mod entitlement;
pub mod error;
pub mod explore;
pub mod federation;
pub mod files;
pub mod fleet;
pub mod hosts;
pub mod id;
pub mod json_rows;
pub mod ledger;
pub mod objects;
pub mod orchestrator;
pub mod overview;
pub mod plan;
pub mod position;
pub mod secret;
pub mod selection;
pub mod split;
pub mod stats;
pub mod store;
pub mod stream;
pub mod structure;
pub mod task;
pub mod validate;
pub mod value;

pub use error::{Disposition, Error, Kind, Result};
pub use secret::Secret;
