//! Where a system is and how to log in.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use millrace_core::connection::{Engine, SslMode};
use millrace_core::objects::{CredentialSource, UrlStyle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a system is and how to log in. Exactly one form is given, the one of its type; credentials stand in a Secret.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Connection",
    namespaced,
    status = "ConnectionStatus",
    shortname = "mrconn",
    category = "millrace",
    doc = "Where a system is and how to log in.",
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.type"}"#,
    printcolumn = r#"{"name": "Host", "type": "string", "jsonPath": ".spec.database.host"}"#,
    printcolumn = r#"{"name": "Reachable", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Reachable\")].status"}"#,
    printcolumn = r#"{"name": "Version", "type": "string", "jsonPath": ".status.serverVersion", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSpec {
    /// The engine; cannot be changed.
    #[serde(rename = "type")]
    pub engine: Engine,
    /// A MySQL, MariaDB or PostgreSQL server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseForm>,
    /// S3 or a compatible object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Form>,
    /// Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<GcsForm>,
    /// Azure Blob Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureForm>,
    /// A Snowflake account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snowflake: Option<SnowflakeForm>,
    /// A folder of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesForm>,
    /// The key of a Secret in the same namespace that holds the credentials: a password, or a JSON object with the form's secret fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
    /// Transport protection of a database connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl: Option<TlsForm>,
}

/// A key of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret; its name begins with `millrace-conn-`.
    pub name: String,
    /// The key in it.
    #[serde(default = "password_key")]
    pub key: String,
}

fn password_key() -> String {
    "password".to_owned()
}

/// A database server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseForm {
    /// Name or address.
    pub host: String,
    /// The engine's own port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The user that logs in.
    pub username: String,
    /// Default database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// Where browsing an object store starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// Bucket, or Azure's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Start of the objects' names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// An S3 store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Form {
    /// Region; may be `auto`.
    pub region: String,
    /// Address of a compatible service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How buckets stand in addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_style: Option<UrlStyle>,
    /// Whether requests go over TLS; the endpoint's scheme says it, too.
    #[serde(default, rename = "useSSL", skip_serializing_if = "Option::is_none")]
    pub use_ssl: Option<bool>,
    /// Where the credentials come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_source: Option<CredentialSource>,
    /// The profile in the server's file of credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_name: Option<String>,
    /// The public half of the credentials; the secret key stands in the Secret, and beside it, under `sessionToken`, the token of credentials that expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Login>,
    /// Where browsing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Place>,
}

/// The public half of an S3 store's credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Login {
    /// The access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
}

/// Google Cloud Storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsForm {
    /// Region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Address of a compatible service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where browsing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Place>,
}

/// Azure Blob Storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureForm {
    /// Storage account.
    pub account_name: String,
    /// Application that logs in, with `tenantID`.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The application's tenant.
    #[serde(rename = "tenantID", default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Address of a compatible service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Where browsing starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Place>,
}

/// A Snowflake account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnowflakeForm {
    /// Such as `xy12345.us-east-1`.
    pub account: String,
    /// The user that logs in.
    pub username: String,
    /// Default database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Default schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Warehouse that computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warehouse: Option<String>,
    /// Role of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// A folder of files on a volume that workers and the query tier mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilesForm {
    /// Absolute folder.
    pub base_path: String,
}

/// Transport protection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsForm {
    /// What is checked.
    pub mode: SslMode,
    /// Certificates to trust, PEM in base64; the system's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The client's certificate, PEM in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<String>,
    /// The key of a Secret that holds the client certificate's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key_ref: Option<SecretKey>,
}

/// What is known of a connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionStatus {
    /// The generation that was looked at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `Reachable`, `CdcReady`, `InUse`.
    pub conditions: Vec<Condition>,
    /// As the server says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The newest try to log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeRecord>,
}

/// A try to log in from where workers run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeRecord {
    /// Tries so far; each is a Job of its own.
    pub number: u64,
    /// The generation that was tried.
    pub generation: i64,
    /// The value of the annotation `millrace.dev/probe` that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Whether its answer is still to come.
    pub is_running: bool,
    /// Failed tries since the last good one.
    pub failures: u32,
    /// When the next one is made, after a failed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Time>,
}
