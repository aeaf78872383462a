//! Object stores on the wire.

use std::time::Duration;

use millrace_connectors::s3::Strategy;
use millrace_core::Secret;
use millrace_core::connection::{S3Credentials, S3Spec};
use millrace_core::objects::{
    CredentialSource, Manifest, ManifestMetadata, ManifestStats, ObjectAccess, ObjectEntry, ObjectLimits, UrlStyle,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::errors::{ApiError, ApiResult};

/// Threads that a client may ask for.
const MOST_THREADS: u32 = 64;

/// How a client reaches an object store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SessionConfig {
    /// `aws`: the server's own environment or file of credentials; `static`: the request's.
    credential_source: Option<CredentialSource>,
    /// The profile in the server's file of credentials.
    profile_name: Option<String>,
    /// Host and port of a compatible service, with or without scheme; AWS if absent.
    endpoint: Option<String>,
    /// Such as `eu-central-1`; `auto` for services without regions.
    #[serde(default)]
    region: String,
    /// How buckets stand in addresses.
    url_style: Option<UrlStyle>,
    /// Whether requests go over TLS.
    #[serde(rename = "useSSL")]
    use_ssl: Option<bool>,
    /// For `static`.
    credentials: Option<SessionCredentials>,
    #[serde(default)]
    performance: SessionPerformance,
    #[serde(default)]
    limits: SessionLimits,
}

/// Who asks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionCredentials {
    access_key_id: Option<String>,
    secret_access_key: Option<Secret>,
    session_token: Option<Secret>,
}

/// How much a session may use of the server.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionPerformance {
    /// 1 to 64; the server's own bound holds beside it.
    threads: Option<u32>,
    /// Accepted; each statement has an engine of its own, which keeps nothing.
    #[allow(dead_code)]
    enable_file_cache: Option<bool>,
}

/// Bounds of one request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SessionLimits {
    /// Objects that one path may name; 10000 if absent.
    max_list_objects: Option<usize>,
    /// Bytes of the objects that one path may name.
    max_scan_bytes: Option<u64>,
    /// Seconds that a statement may take; the server's own bound holds beside it.
    #[serde(rename = "queryTimeoutS")]
    query_timeout_s: Option<u64>,
}

impl SessionConfig {
    /// The spec that a connection of the same settings would have, and the bounds.
    pub(crate) fn read(self) -> ApiResult<(S3Spec, ObjectLimits, u32)> {
        let threads = self.performance.threads.unwrap_or(1);
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(ApiError::invalid("performance.threads", format!("`threads` lies between 1 and {MOST_THREADS}")));
        }
        let default = ObjectLimits::default();
        for (field, is_zero) in [
            ("limits.maxListObjects", self.limits.max_list_objects == Some(0)),
            ("limits.maxScanBytes", self.limits.max_scan_bytes == Some(0)),
            ("limits.queryTimeoutS", self.limits.query_timeout_s == Some(0)),
        ] {
            if is_zero {
                return Err(ApiError::invalid(field, "a bound is greater than 0"));
            }
        }
        let limits = ObjectLimits {
            objects: self.limits.max_list_objects.unwrap_or(default.objects).min(100_000),
            bytes: self.limits.max_scan_bytes,
            time: self.limits.query_timeout_s.map(Duration::from_secs),
        };
        let given = self.credentials.is_some();
        if given && self.credential_source == Some(CredentialSource::Aws) {
            return Err(ApiError::invalid("credentials", "keys are not given where the server's own are used"));
        }
        let credentials = self.credentials.map(|credentials| S3Credentials {
            access_key: credentials.access_key_id,
            secret_key: credentials.secret_access_key,
            session_token: credentials.session_token,
            credentials_ref: None,
        });
        let spec = S3Spec {
            region: if self.region.is_empty() { "auto".to_owned() } else { self.region },
            credentials,
            credential_source: self.credential_source.or(given.then_some(CredentialSource::Static)),
            profile_name: self.profile_name,
            endpoint: self.endpoint,
            url_style: self.url_style,
            use_ssl: self.use_ssl,
            scope: None,
        };
        Ok((spec, limits, threads))
    }
}

/// What has been configured.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Configured {
    /// `success`
    pub(crate) status: &'static str,
    pub(crate) message: String,
    pub(crate) config: EffectiveConfig,
}

/// The settings that hold.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EffectiveConfig {
    /// Empty for AWS.
    endpoint: String,
    region: String,
    /// `path` or `virtual`
    url_style: &'static str,
    #[serde(rename = "useSSL")]
    use_ssl: bool,
    threads: u32,
}

impl EffectiveConfig {
    pub(crate) fn of(access: &ObjectAccess, threads: u32) -> Self {
        Self {
            endpoint: access.endpoint.clone().unwrap_or_default(),
            region: access.region.clone(),
            url_style: if access.is_path_style { "path" } else { "virtual" },
            use_ssl: access.use_ssl,
            threads,
        }
    }
}

/// A path at a store.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PathParams {
    pub(crate) path: String,
    pub(crate) connection_id: Option<String>,
}

/// Which part of a bucket.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ListParams {
    pub(crate) bucket: Option<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) max_keys: Option<u32>,
    pub(crate) continuation_token: Option<String>,
    pub(crate) connection_id: Option<String>,
    pub(crate) refresh: bool,
    pub(crate) recursive: Option<bool>,
}

/// How a path is best read.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PathValidation {
    valid: bool,
    /// `direct`, `glob`, `hive` or `manifest`
    recommended_mode: &'static str,
    reason: String,
    is_hive_partitioned: bool,
    /// The columns that folders hold values of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    hive_partitions: Vec<String>,
    warnings: Vec<String>,
}

impl From<Strategy> for PathValidation {
    fn from(strategy: Strategy) -> Self {
        Self {
            valid: strategy.is_valid,
            recommended_mode: strategy.mode.as_str(),
            reason: strategy.reason,
            is_hive_partitioned: !strategy.partitions.is_empty(),
            hive_partitions: strategy.partitions,
            warnings: strategy.warnings,
        }
    }
}

/// A part of what a bucket holds.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ObjectListing {
    pub(crate) objects: Vec<ObjectEntry>,
    /// Where keys go on below a further slash; only without `recursive`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub(crate) prefixes: Vec<String>,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    /// Objects and prefixes of this part.
    pub(crate) count: usize,
    pub(crate) is_truncated: bool,
    /// For the next part; empty if this is the last.
    pub(crate) next_token: String,
    /// Bytes of this part's objects.
    pub(crate) total_size: u64,
    pub(crate) manifest_used: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) manifest_path: Option<String>,
}

/// Buckets.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Buckets {
    pub(crate) buckets: Vec<String>,
    pub(crate) count: usize,
}

/// A new bucket.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct BucketRequest {
    /// 3 to 63 lower case letters, digits, dots and hyphens.
    pub(crate) bucket: String,
    /// The connection's if absent.
    pub(crate) region: Option<String>,
    /// A connection of type `s3`; the client's session if absent.
    pub(crate) connection_id: Option<String>,
}

/// A bucket that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BucketCreated {
    /// `success`
    pub(crate) status: &'static str,
    pub(crate) bucket: String,
    pub(crate) region: String,
}

/// A manifest with its numbers.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ManifestResponse {
    manifest: Manifest,
    stats: ManifestStats,
    /// Where it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_path: Option<String>,
}

impl ManifestResponse {
    pub(crate) fn new(manifest: Manifest, output_path: Option<String>) -> Self {
        Self { stats: manifest.stats(), manifest, output_path }
    }
}

/// Files that a manifest is to list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateManifest {
    /// `s3://bucket/key`, or absolute paths.
    pub(crate) files: Vec<String>,
    pub(crate) metadata: Option<ManifestMetadata>,
}

/// Which of a manifest's files are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FilterManifest {
    /// A pattern (`*`, `**`, `?`, `[…]`) of names; of keys if it has a slash; of whole paths if it has a scheme.
    pub(crate) pattern: String,
    /// A stored manifest.
    pub(crate) source_path: Option<String>,
    /// A manifest.
    pub(crate) manifest: Option<Manifest>,
    /// A connection of type `s3`; the client's session if absent.
    pub(crate) connection_id: Option<String>,
}

/// Manifests that become one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MergeManifests {
    /// Stored manifests; they come first.
    #[serde(default)]
    pub(crate) source_paths: Vec<String>,
    /// Manifests.
    #[serde(default)]
    pub(crate) manifests: Vec<Manifest>,
    /// A connection of type `s3`; the client's session if absent.
    pub(crate) connection_id: Option<String>,
}

/// A manifest that is to be stored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WriteManifest {
    pub(crate) manifest: Manifest,
    /// `s3://bucket/key`, under a name by which manifests are known.
    pub(crate) output_path: String,
    /// A connection of type `s3`; the client's session if absent.
    pub(crate) connection_id: Option<String>,
}
