//! Objects of S3 and compatible stores: how to get at them, what a store lists, manifests.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::secret::Secret;

/// What the paths of objects begin with.
pub const SCHEME: &str = "s3://";

/// How a bucket stands in an address: decided by the endpoint, in the path, or as the first part of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum UrlStyle {
    /// As the endpoint's provider wants it; in the path of unknown ones.
    #[default]
    Auto,
    /// `https://host/bucket/key`
    Path,
    /// `https://bucket.host/key`
    Virtual,
}

/// Where the credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum CredentialSource {
    /// The server's own environment, or its file of credentials.
    Aws,
    /// The request.
    Static,
}

/// What a client called the settings that an error names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SettingNames {
    /// Those of a stored connection: `spec.s3.endpoint`, `spec.s3.credentials.accessKey`, …
    #[default]
    Connection,
    /// Those of a session: `endpoint`, `credentials.accessKeyId`, …
    Session,
}

/// Bounds of what one request may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLimits {
    /// Objects that one path may name.
    pub objects: usize,
    /// Bytes of the objects that one path may name.
    pub bytes: Option<u64>,
    /// How long a statement may take, if less than the query tier's own bound.
    pub time: Option<Duration>,
}

impl Default for ObjectLimits {
    fn default() -> Self {
        Self { objects: 10_000, bytes: None, time: None }
    }
}

/// Everything that is needed to reach a store and to sign requests.
///
/// It has no `Serialize`: whoever sends it on writes its secrets into a message of his own (see [`OpenAccess`]).
#[derive(Debug, Clone)]
pub struct ObjectAccess {
    /// `host` or `host:port` without a scheme; AWS's own for the region if absent.
    pub endpoint: Option<String>,
    /// Whether requests go over TLS.
    pub use_ssl: bool,
    /// Region that requests are signed for.
    pub region: String,
    /// Whether the bucket stands in the path.
    pub is_path_style: bool,
    /// The public half of the credentials.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Secret,
    /// Goes with credentials that expire.
    pub session_token: Option<Secret>,
    /// Bounds.
    pub limits: ObjectLimits,
    /// How errors name the settings.
    pub names: SettingNames,
}

impl PartialEq for ObjectAccess {
    fn eq(&self, other: &Self) -> bool {
        OpenAccess::from(self) == OpenAccess::from(other)
    }
}

impl Eq for ObjectAccess {}

/// An [`ObjectAccess`] with its secrets readable, for the protected channels between processes; it is never logged or kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAccess {
    endpoint: Option<String>,
    use_ssl: bool,
    region: String,
    is_path_style: bool,
    access_key: String,
    secret_key: String,
    session_token: Option<String>,
    limits: ObjectLimits,
    names: SettingNames,
}

impl From<&ObjectAccess> for OpenAccess {
    fn from(access: &ObjectAccess) -> Self {
        Self {
            endpoint: access.endpoint.clone(),
            use_ssl: access.use_ssl,
            region: access.region.clone(),
            is_path_style: access.is_path_style,
            access_key: access.access_key.clone(),
            secret_key: access.secret_key.expose().to_owned(),
            session_token: access.session_token.as_ref().map(|token| token.expose().to_owned()),
            limits: access.limits,
            names: access.names,
        }
    }
}

impl From<OpenAccess> for ObjectAccess {
    fn from(open: OpenAccess) -> Self {
        Self {
            endpoint: open.endpoint,
            use_ssl: open.use_ssl,
            region: open.region,
            is_path_style: open.is_path_style,
            access_key: open.access_key,
            secret_key: Secret::new(open.secret_key),
            session_token: open.session_token.map(Secret::new),
            limits: open.limits,
            names: open.names,
        }
    }
}

/// An object as a listing or a manifest tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ObjectEntry {
    /// Its name in the bucket.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// ISO 8601; empty if unknown.
    pub last_modified: String,
    /// Without quotes; empty if unknown.
    pub etag: String,
    /// Such as `STANDARD`; empty if unknown.
    pub storage_class: String,
}

/// A list of files that belong together, so that readers need not ask the store for one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Manifest {
    /// `1.0`
    #[serde(default = "version")]
    pub version: String,
    /// `s3://bucket/key`, or paths of local files.
    pub files: Vec<String>,
    /// What is known of the files, in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<Vec<ManifestObject>>,
    /// Facts about all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<ManifestMetadata>,
}

fn version() -> String {
    "1.0".to_owned()
}

/// What a manifest knows of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ManifestObject {
    /// As in `files`.
    pub path: String,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
    /// Without quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Such as `STANDARD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
}

/// Facts about a manifest's files; what else stands there is kept as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ManifestMetadata {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_size: Option<u64>,
    /// Rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_count: Option<u64>,
    /// ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// `csv`, `json`, `jsonl` or `parquet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_format: Option<String>,
    /// The run that wrote the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A manifest's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ManifestStats {
    /// All files.
    pub file_count: usize,
    /// Those in object stores.
    pub s3_files: usize,
    /// Those on disks.
    pub local_files: usize,
    /// The manifest's.
    pub version: String,
    /// If the manifest says it, or the size of every file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_size_bytes: Option<u64>,
    /// If the manifest says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_row_count: Option<u64>,
    /// ISO 8601, if the manifest says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

impl Manifest {
    /// What is known of a file.
    pub fn object(&self, path: &str) -> Option<&ManifestObject> {
        self.objects.iter().flatten().find(|object| object.path == path)
    }

    /// The size of all files together, if the size of every one is known.
    pub fn known_size(&self) -> Option<u64> {
        let sizes: std::collections::BTreeMap<&str, u64> =
            self.objects.iter().flatten().filter_map(|object| Some((object.path.as_str(), object.size?))).collect();
        self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(*sizes.get(file.as_str())?))
    }

    /// Its numbers.
    pub fn stats(&self) -> ManifestStats {
        let s3_files = self.files.iter().filter(|file| file.starts_with(SCHEME)).count();
        let metadata = self.metadata.as_ref();
        ManifestStats {
            file_count: self.files.len(),
            s3_files,
            local_files: self.files.len() - s3_files,
            version: self.version.clone(),
            total_size_bytes: metadata.and_then(|metadata| metadata.total_size).or_else(|| self.known_size()),
            total_row_count: metadata.and_then(|metadata| metadata.row_count),
            created_at: metadata.and_then(|metadata| metadata.created_at.clone()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn access_shows_no_secret_and_passes_a_channel_whole() {
        let access = ObjectAccess {
            endpoint: Some("localhost:9000".into()),
            use_ssl: false,
            region: "us-east-1".into(),
            is_path_style: true,
            access_key: "AK".into(),
            secret_key: Secret::new("hunter2"),
            session_token: Some(Secret::new("hunter3")),
            limits: ObjectLimits::default(),
            names: SettingNames::Session,
        };
        assert!(!format!("{access:?}").contains("hunter"));
        let sent = serde_json::to_string(&OpenAccess::from(&access)).unwrap();
        let read: OpenAccess = serde_json::from_str(&sent).unwrap();
        assert_eq!(ObjectAccess::from(read), access);
    }

    #[test]
    fn a_manifest_keeps_what_it_does_not_know_of_its_metadata() {
        let text = r#"{"files":["s3://b/a.csv"],"metadata":{"row_count":3,"owner":"me"}}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!((manifest.version.as_str(), manifest.metadata.as_ref().unwrap().row_count), ("1.0", Some(3)));
        assert!(serde_json::to_string(&manifest).unwrap().contains("\"owner\":\"me\""));
    }
}
