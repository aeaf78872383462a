//! The one-process Millrace: SQLite store, in-process bus, local orchestrator.

pub mod bus;
pub mod keys;
pub mod orchestrator;
pub mod seal;
pub mod server;
pub mod store;
