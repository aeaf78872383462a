//! Readers and writers: one folder and one feature per engine, entered in [`connector`] once.
//!
//! A folder never uses another one; what they share is `millrace-core` and the transport's protection.
#![warn(missing_docs)]

#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "s3")]
pub mod s3;

#[cfg(feature = "mysql")]
mod bodies;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod numbers;
#[cfg(feature = "mysql")]
mod statements;
mod tls;

pub use tls::{check_tls, pem_text};

use millrace_core::connection::Engine;
use millrace_core::connector::Connector;
use millrace_core::{Error, Result};

/// The connector of an engine; [`millrace_core::Kind::NotSupported`] for engines that this build does not speak to.
pub fn connector(engine: Engine) -> Result<&'static dyn Connector> {
    match engine {
        #[cfg(feature = "mysql")]
        Engine::MySql => Ok(&mysql::MySql),
        #[cfg(feature = "postgres")]
        Engine::PostgreSql => Ok(&postgres::PostgreSql),
        other => Err(Error::not_supported("type", format!("connections of type `{}` are not supported yet", other.as_str()))),
    }
}
