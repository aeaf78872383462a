//! Tools about object stores. This build has no object stores: [`buckets_of`] and [`objects_of`] are the places to fill in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::Listed;
use super::tool::Tool;
use crate::errors::{ApiError, ApiResult, Code};
use crate::state::AppState;

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new("dbconvert_list_s3_buckets", "List buckets", "Buckets of an object store.", buckets),
        Tool::new("dbconvert_list_s3_objects", "List objects", "Objects of a bucket, below a prefix.", objects),
    ]
}

/// Which object store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct BucketsTakes {
    /// The connection's `id`.
    connection_id: String,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

/// A bucket.
#[derive(Debug, Serialize, JsonSchema)]
struct BucketEntry {
    /// Its name.
    name: String,
}

async fn buckets(state: AppState, takes: BucketsTakes) -> ApiResult<Listed<BucketEntry>> {
    let names = buckets_of(&state, &takes.connection_id).await?;
    Ok(Listed::of(names.into_iter().map(|name| BucketEntry { name }).collect(), takes.offset, takes.limit))
}

/// Which objects.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ObjectsTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The bucket's name.
    bucket: String,
    /// Only objects whose key begins so.
    #[serde(default)]
    prefix: String,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

/// An object of a bucket.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ObjectEntry {
    /// Its key.
    key: String,
    /// Bytes.
    size: u64,
    /// ISO 8601.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
}

async fn objects(state: AppState, takes: ObjectsTakes) -> ApiResult<Listed<ObjectEntry>> {
    let all = objects_of(&state, &takes.connection_id, &takes.bucket, &takes.prefix).await?;
    Ok(Listed::of(all, takes.offset, takes.limit))
}

/// The names of a connection's buckets.
async fn buckets_of(state: &AppState, connection: &str) -> ApiResult<Vec<String>> {
    Err(unavailable(state, connection).await)
}

/// The objects of a bucket below a prefix.
async fn objects_of(state: &AppState, connection: &str, _bucket: &str, _prefix: &str) -> ApiResult<Vec<ObjectEntry>> {
    Err(unavailable(state, connection).await)
}

/// What is wrong: the connection, else that this build has no object stores.
async fn unavailable(state: &AppState, connection: &str) -> ApiError {
    let found = match crate::extract::parse_id(connection) {
        Ok(id) => state.store.connection(&id).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    match found {
        Ok(_) => ApiError::new(Code::NotSupported, "object stores are not supported yet").detail("field", "connectionId"),
        Err(error) => error,
    }
}
