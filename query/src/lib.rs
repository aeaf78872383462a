//! The query tier: federated statements, each in a child process of its own. The only crate that links DuckDB.
//!
//! ```text
//!  tier (in the server): admission ─▶ warm or new child ─▶ request over stdin ─▶ answer over stdout ─▶ deadline, cancel, kill
//!  child: load extensions ─▶ read the request ─▶ check the parsed tree ─▶ attach what it names, read-only ─▶ lock down ─▶ run ─▶ answer
//! ```
//!
//! A crash of DuckDB, or a statement that cannot be interrupted, costs its child and nothing else.

mod cancel;
mod check;
mod child;
pub mod metrics;
mod remote;
mod tier;
mod wire;

pub use child::query_one;
pub use remote::{RemoteConfig, RemoteQueryTier, RemoteServer};
pub use tier::{ChildQueryTier, QueryLimits};
