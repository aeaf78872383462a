//! Runs exactly one task: a convert (the one-off copy of a database with its structure), a probe, a clean-up.
//!
//! ```text
//!  convert ─▶ prepare (claim, cut, catalog, plan, tables, splits)
//!          ─▶ lanes   (reader → encoder → writer, one split after the other, table finished when its last split is)
//!          ─▶ finish  (foreign keys, ledger)
//!      control: pause and stop      progress: counters      report: events on the bus
//! ```
#![warn(missing_docs)]

mod cleanup;
pub mod control;
pub mod convert;
pub mod metrics;
mod pipeline;
pub mod pod;
pub mod progress;
