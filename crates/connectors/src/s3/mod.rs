//! S3 and compatible object stores: who is asked where, listings, objects, manifests.
//!
//! ```text
//!  S3Spec ─▶ endpoint · credentials ─▶ ObjectAccess ─▶ Store ─▶ list · head · get · put (if it has not changed)
//!                                          └──────────────────▶ the query tier's children, which read rows themselves
//!  path of a request ─▶ ObjectPath ─▶ find: one object · a pattern · a prefix · a manifest ─▶ the objects that it names
//! ```
//!
//! Rows are read and written by the query tier; nothing here looks into an object but into manifests. The endpoint of every request is decided
//! in [`Endpoint::of`] and nowhere else.

mod access;
mod client;
mod credentials;
mod endpoint;
mod error;
mod find;
mod list;
mod manifest;
mod object;
mod path;
mod strategy;

pub use access::access;
pub use client::Store;
pub use endpoint::{Endpoint, Provider, provider_of};
pub use find::{Found, find};
pub use list::{Page, Paging};
pub use manifest::{
    LARGEST_MANIFEST, create_manifest, filter_manifest, find_manifest, is_manifest_name, list_from_manifest, merge_manifests,
    read_manifest, write_manifest,
};
pub use object::{Condition, Head, LARGEST_EDITED};
pub use path::{ObjectPath, is_object_path};
pub use strategy::{Mode, Strategy, strategy};
