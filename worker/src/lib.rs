//! Runs exactly one task: today a convert, the one-off copy of a database with its structure.
//!
//! ```text
//!  convert ─▶ prepare (claim, cut, catalog, plan, tables, splits)
//!          ─▶ lanes   (reader → encoder → writer, one split after the other, table finished when its last split is)
//!          ─▶ finish  (foreign keys, ledger)
//!      control: pause and stop      progress: counters      report: events on the bus
//! ```
#![warn(missing_docs)]

pub mod control;
pub mod convert;
pub mod metrics;
mod pipeline;
pub mod pod;
pub mod progress;
