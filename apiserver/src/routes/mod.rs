//! Handlers, by group.

mod configs;
mod connections;
pub(crate) mod data;
mod file_changes;
pub(crate) mod files;
pub(crate) mod fs;
mod logs;
mod older;
mod older_streams;
pub(crate) mod query;
pub(crate) mod s3;
pub(crate) mod sql;
pub(crate) mod streams;
pub(crate) mod structure;
pub(crate) mod swagger;
mod system;
mod user;

use crate::route::Routes;

pub use fs::named_roots;

/// All endpoints.
pub(crate) fn all() -> Routes {
    connections::routes()
        .join(configs::routes())
        .join(streams::routes())
        .join(older_streams::routes())
        .join(structure::routes())
        .join(data::routes())
        .join(sql::routes())
        .join(query::routes())
        .join(files::routes())
        .join(fs::routes())
        .join(s3::routes())
        .join(logs::routes())
        .join(system::routes())
        .join(swagger::routes())
        .join(user::routes())
        .also(older::NAMES)
}
