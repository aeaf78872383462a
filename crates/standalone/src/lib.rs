//! The one-process Millrace: SQLite store, in-process bus, local orchestrator.

pub mod bus;
