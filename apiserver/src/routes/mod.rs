//! Handlers, by group.

mod configs;
mod connections;
pub(crate) mod data;
pub(crate) mod files;
pub(crate) mod fs;
mod logs;
pub(crate) mod query;
pub(crate) mod sql;
pub(crate) mod streams;
pub(crate) mod structure;
mod system;
mod user;

use crate::route::Routes;

pub use fs::named_roots;

/// All endpoints.
pub(crate) fn all() -> Routes {
    connections::routes()
        .join(configs::routes())
        .join(streams::routes())
        .join(structure::routes())
        .join(data::routes())
        .join(sql::routes())
        .join(query::routes())
        .join(files::routes())
        .join(fs::routes())
        .join(logs::routes())
        .join(system::routes())
        .join(user::routes())
}
