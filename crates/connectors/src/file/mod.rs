//! Data files: where they may lie, what a folder holds, whether a file is still the one that somebody saw.
//!
//! ```text
//!  path of a request ─▶ resolve (no `..`, no NUL; symbolic links followed, then compared with the roots) ─▶ listing · etag · the query tier
//! ```
//!
//! Rows are read and written by the query tier; nothing here looks at more than names and metadata, but for the etag's hash.

mod etag;
mod listing;
mod roots;

pub use etag::etag;
pub use listing::{FolderEntry, is_writable, list, table_files};
pub use roots::{expand, is_pattern, resolve};
