//! Request and response types, by group.

pub(crate) mod configs;
pub(crate) mod connections;
pub(crate) mod data;
pub(crate) mod files;
pub(crate) mod fs;
pub(crate) mod logs;
pub(crate) mod older_streams;
pub(crate) mod query;
pub(crate) mod s3;
pub(crate) mod sql;
pub(crate) mod streams;
pub(crate) mod structure;
pub(crate) mod system;
pub(crate) mod user;
