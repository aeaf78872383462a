//! The API server of a cluster, without state of its own: any number of them answer alike.
//!
//! ```text
//!  REST ─▶ ClusterStore: Connection, StreamConfig, Stream resources; Secrets; a ConfigMap of settings
//!       ─▶ ClusterOrchestrator: makes Stream resources and says what they should be doing; the controller does the rest
//!       ─▶ NatsBus: live events; JetStream: run logs and counters
//! ```
//!
//! Beside it: [`drain`] before an uninstall, and [`ready`] for whoever waits for an API server.
#![warn(missing_docs)]

mod answers;
pub mod drain;
mod error;
mod fresh;
pub mod keys;
mod orchestrator;
pub mod ready;
pub mod server;
mod sessions;
mod store;

pub use answers::ClusterAnswers;
pub use orchestrator::ClusterOrchestrator;
pub use sessions::ClusterSessions;
pub use store::ClusterStore;
