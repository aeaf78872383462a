//! The one-process Millrace: SQLite store, in-process bus, local orchestrator.

pub mod allow_all;
pub mod journal;
pub mod keys;
pub mod orchestrator;
pub mod remote;
pub mod seal;
pub mod server;
pub mod store;
