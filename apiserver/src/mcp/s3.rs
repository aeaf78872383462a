//! Tools about object stores.

use axum::http::HeaderMap;
use millrace_connectors::s3::Paging;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::{Listed, list};
use super::tool::Tool;
use crate::errors::{ApiError, ApiResult};
use crate::objects::{Site, site as site_of};
use crate::state::AppState;

/// Objects that are asked for at once.
const PAGE: u32 = 1000;
/// Stores have no offsets: what is skipped is read.
const MOST_SKIPPED: u64 = 100_000;

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
    if takes.offset.unwrap_or(0) > MOST_SKIPPED {
        return Err(ApiError::invalid("offset", format!("at most {MOST_SKIPPED} objects can be skipped; give a longer `prefix`")));
    }
    let all = objects_of(&state, &takes, takes.offset.unwrap_or(0) + list(takes.limit)).await?;
    Ok(Listed::of(all, takes.offset, takes.limit))
}

/// The names of a connection's buckets.
async fn buckets_of(state: &AppState, connection: &str) -> ApiResult<Vec<String>> {
    site(state, connection).await?.buckets().await
}

/// The first `count` objects of a bucket below a prefix, in the order of their keys, and one more if there are more.
async fn objects_of(state: &AppState, takes: &ObjectsTakes, count: u64) -> ApiResult<Vec<ObjectEntry>> {
    let site = site(state, &takes.connection_id).await?;
    let (bucket, prefix) = site.part(Some(&takes.bucket), Some(&takes.prefix).filter(|prefix| !prefix.is_empty()).map(String::as_str))?;
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let paging = Paging { is_recursive: true, limit: PAGE, token: token.as_deref() };
        let page = site.store.page(&bucket, &prefix, paging).await?;
        found.extend(page.objects.into_iter().map(|object| ObjectEntry {
            key: object.key,
            size: object.size,
            last_modified: Some(object.last_modified).filter(|text| !text.is_empty()),
        }));
        token = page.next;
        if token.is_none() || found.len() as u64 > count {
            return Ok(found);
        }
    }
}

async fn site(state: &AppState, connection: &str) -> ApiResult<Site> {
    if connection.is_empty() {
        return Err(ApiError::invalid("connectionId", "name a connection of type `s3`"));
    }
    site_of(state, &HeaderMap::new(), Some(connection)).await
}
