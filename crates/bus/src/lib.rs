//! How parts of Millrace tell each other what happens: [`LocalBus`] in one process, [`NatsBus`] among processes.
#![warn(missing_docs)]

mod local;
pub mod metrics;
mod nats;
mod remembered;
pub mod subjects;
mod work;

pub use local::LocalBus;
pub use nats::{Command, Nats, NatsBus, NatsConfig};
pub use remembered::Remembered;
pub use work::NatsWork;
