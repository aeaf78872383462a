//! Runs exactly one task.
#![warn(missing_docs)]

pub mod control;
pub mod convert;
pub mod progress;
