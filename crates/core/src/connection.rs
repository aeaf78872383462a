//! A connection: where a system is and how to log in.

use serde::{Deserialize, Serialize};

use crate::id::ConnectionId;
use crate::objects::{CredentialSource, UrlStyle};
use crate::secret::Secret;

/// The engine behind a connection; it decides the connector, the dialect and the alias prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Engine {
    /// MySQL, MariaDB and what speaks their protocol.
    MySql,
    /// PostgreSQL and what speaks its protocol.
    #[serde(rename = "postgresql")]
    PostgreSql,
    /// CSV, JSON, JSONL and Parquet files in a folder.
    Files,
    /// S3 and compatible object stores.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
    /// Snowflake.
    Snowflake,
}

impl Engine {
    /// The word on the wire (`type` of a connection).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::PostgreSql => "postgresql",
            Self::Files => "files",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Snowflake => "snowflake",
        }
    }

    /// Reads the word of the wire in any case, with the spellings that clients use.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "mysql" | "mariadb" => Some(Self::MySql),
            "postgresql" | "postgres" => Some(Self::PostgreSql),
            "files" | "file" => Some(Self::Files),
            "s3" => Some(Self::S3),
            "gcs" => Some(Self::Gcs),
            "azure" => Some(Self::Azure),
            "snowflake" => Some(Self::Snowflake),
            _ => None,
        }
    }

    /// The port that servers of this engine listen on by default; none for files and object stores.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::MySql => Some(3306),
            Self::PostgreSql => Some(5432),
            Self::Snowflake => Some(443),
            Self::Files | Self::S3 | Self::Gcs | Self::Azure => None,
        }
    }

    /// The prefix of generated aliases in federated queries (`pg1`, `my1`).
    pub fn alias_prefix(self) -> &'static str {
        match self {
            Self::MySql => "my",
            Self::PostgreSql => "pg",
            Self::Files => "files",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
            Self::Snowflake => "db",
        }
    }
}

/// A stored connection.
///
/// Its `Serialize` leaves every [`Secret`] out; a store keeps [`Connection::secrets`] apart, sealed, and puts them back
/// with [`Connection::restore_secrets`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Immutable.
    pub id: ConnectionId,
    /// What people call it.
    pub name: String,
    /// What it speaks.
    #[serde(rename = "type")]
    pub engine: Engine,
    /// Unix seconds; immutable.
    pub created: i64,
    /// How the transport is protected; absent means `disabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl: Option<Ssl>,
    /// The provider that a client detected; kept as it came.
    #[serde(rename = "cloud_provider", skip_serializing_if = "Option::is_none")]
    pub cloud_provider: Option<String>,
    /// Where it is and who logs in.
    pub spec: ConnectionSpec,
}

/// Where a system is and who logs in; exactly one form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum ConnectionSpec {
    /// A MySQL or PostgreSQL server.
    Database(DatabaseSpec),
    /// A local folder.
    Files(FilesSpec),
    /// S3 and compatible object stores.
    S3(S3Spec),
    /// A form that this version stores but cannot use yet (`gcs`, `azure`, `snowflake`).
    #[serde(untagged)]
    Other(OtherSpec),
}

/// A database server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct DatabaseSpec {
    /// Host name or address.
    pub host: String,
    /// TCP port; the engine's default when absent in a request.
    #[cfg_attr(feature = "schemars", schemars(with = "Option<u16>"))]
    pub port: u16,
    /// The database user.
    pub username: String,
    /// The database user's password.
    #[serde(default, skip_serializing)]
    pub password: Option<Secret>,
    /// Default database; without it the connection is server-level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// A folder of files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct FilesSpec {
    /// Absolute path of the folder.
    pub base_path: String,
}

/// An object store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct S3Spec {
    /// Such as `eu-central-1`; `auto` for services without regions.
    #[serde(default = "auto_region")]
    pub region: String,
    /// Who asks; without them the server's own environment says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Credentials>,
    /// Where the credentials come from; told by whether there are any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_source: Option<CredentialSource>,
    /// The profile in the server's file of credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_name: Option<String>,
    /// Host and port of a compatible service, with or without scheme; AWS if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How buckets stand in addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_style: Option<UrlStyle>,
    /// Whether requests go over TLS; the endpoint's scheme says it, too.
    #[serde(default, rename = "useSSL", skip_serializing_if = "Option::is_none")]
    pub use_ssl: Option<bool>,
    /// What may be browsed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<S3Scope>,
}

fn auto_region() -> String {
    "auto".to_owned()
}

/// Who asks an object store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct S3Credentials {
    /// The public half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<String>,
    /// The secret half.
    #[serde(default, skip_serializing)]
    pub secret_key: Option<Secret>,
    /// Goes with credentials that expire.
    #[serde(default, skip_serializing)]
    pub session_token: Option<Secret>,
    /// A path in a vault; refused, because no vault is asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<String>,
}

/// The part of an object store that may be browsed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct S3Scope {
    /// One bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Objects of that bucket whose keys begin so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A spec form that is refused on create: kept as a type so that the refusal can name the form.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum OtherSpec {
    /// Google Cloud Storage.
    Gcs(#[cfg_attr(feature = "schemars", schemars(with = "crate::config::KeptForm"))] serde_json::Map<String, serde_json::Value>),
    /// Azure Blob Storage.
    Azure(#[cfg_attr(feature = "schemars", schemars(with = "crate::config::KeptForm"))] serde_json::Map<String, serde_json::Value>),
    /// Snowflake.
    Snowflake(#[cfg_attr(feature = "schemars", schemars(with = "crate::config::KeptForm"))] serde_json::Map<String, serde_json::Value>),
}

/// Transport protection, as `api` clients send it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Ssl {
    /// How far the server is checked.
    pub mode: SslMode,
    /// Certificate authority, base64 of the PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Client certificate, base64 of the PEM file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<String>,
    /// Client key, base64 of the PEM file.
    #[serde(default, skip_serializing)]
    pub client_key: Option<Secret>,
}

/// How far the server's certificate is checked (the words of libpq's `sslmode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum SslMode {
    /// Plain TCP.
    Disabled,
    /// Encrypted, server not checked.
    Require,
    /// Encrypted, certificate chain checked.
    VerifyCa,
    /// Encrypted, chain and host name checked.
    VerifyFull,
}

/// The path that names an object store's secret key.
pub const S3_SECRET_KEY: &str = "spec.s3.credentials.secretKey";
/// The path that names an object store's session token.
pub const S3_SESSION_TOKEN: &str = "spec.s3.credentials.sessionToken";

impl Connection {
    /// Every secret of this connection with the path that names it.
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        let mut secrets = Vec::new();
        if let ConnectionSpec::Database(DatabaseSpec { password: Some(password), .. }) = &self.spec {
            secrets.push(("spec.database.password", password));
        }
        if let Some(Ssl { client_key: Some(key), .. }) = &self.ssl {
            secrets.push(("ssl.client_key", key));
        }
        if let ConnectionSpec::S3(S3Spec { credentials: Some(credentials), .. }) = &self.spec {
            secrets.extend(credentials.secret_key.as_ref().map(|secret| (S3_SECRET_KEY, secret)));
            secrets.extend(credentials.session_token.as_ref().map(|token| (S3_SESSION_TOKEN, token)));
        }
        secrets
    }

    /// Puts a stored secret back; an unknown path is ignored, because a later version may have written it.
    pub fn restore_secret(&mut self, path: &str, secret: Secret) {
        match (path, &mut self.spec) {
            ("spec.database.password", ConnectionSpec::Database(spec)) => spec.password = Some(secret),
            ("ssl.client_key", _) => {
                if let Some(ssl) = &mut self.ssl {
                    ssl.client_key = Some(secret);
                }
            }
            (S3_SECRET_KEY, ConnectionSpec::S3(spec)) => spec.credentials.get_or_insert_default().secret_key = Some(secret),
            (S3_SESSION_TOKEN, ConnectionSpec::S3(spec)) => spec.credentials.get_or_insert_default().session_token = Some(secret),
            _ => {}
        }
    }

    /// The object store's form, if this is one.
    pub fn s3(&self) -> Option<&S3Spec> {
        match &self.spec {
            ConnectionSpec::S3(spec) => Some(spec),
            _ => None,
        }
    }

    /// The database form, if this is one.
    pub fn database(&self) -> Option<&DatabaseSpec> {
        match &self.spec {
            ConnectionSpec::Database(spec) => Some(spec),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        serde_json::from_value(serde_json::json!({
            "id": ConnectionId::mint(), "name": "shop", "type": "mysql", "created": 1,
            "spec": {"database": {"host": "db", "port": 3306, "username": "u", "password": "hunter2"}}
        }))
        .unwrap()
    }

    #[test]
    fn serializing_a_connection_leaves_its_secrets_out() {
        let connection = connection();
        assert_eq!(connection.secrets().len(), 1);
        assert!(!serde_json::to_string(&connection).unwrap().contains("hunter2"));
        assert!(!format!("{connection:?}").contains("hunter2"));
    }

    #[test]
    fn the_secrets_of_an_object_store_are_left_out_and_put_back() {
        let full: Connection = serde_json::from_value(serde_json::json!({
            "id": ConnectionId::mint(), "name": "lake", "type": "s3", "created": 1,
            "spec": {"s3": {"region": "auto", "endpoint": "localhost:9000", "useSSL": false, "urlStyle": "path",
                "credentials": {"accessKey": "AK", "secretKey": "hunter2", "sessionToken": "hunter3"}}}
        }))
        .unwrap();
        let text = serde_json::to_string(&full).unwrap();
        assert!(text.contains("\"accessKey\":\"AK\"") && !text.contains("hunter"), "{text}");
        let mut read: Connection = serde_json::from_str(&text).unwrap();
        for (path, secret) in full.secrets() {
            read.restore_secret(path, secret.clone());
        }
        let secrets: Vec<&str> = read.secrets().into_iter().map(|(_, secret)| secret.expose()).collect();
        assert_eq!(secrets, ["hunter2", "hunter3"]);
    }

    #[test]
    fn a_restored_secret_is_the_same() {
        let full = connection();
        let mut read: Connection = serde_json::from_value(serde_json::to_value(&full).unwrap()).unwrap();
        assert!(read.secrets().is_empty());
        for (path, secret) in full.secrets() {
            read.restore_secret(path, secret.clone());
        }
        assert_eq!(read.secrets()[0].1.expose(), "hunter2");
    }
}
