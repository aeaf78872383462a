//! Tools about connections: which there are, and what can be queried.

use millrace_core::connection::{Connection, ConnectionSpec, SslMode};
use millrace_core::id::ConnectionId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounds::Listed;
use super::tool::Tool;
use crate::alias;
use crate::errors::ApiResult;
use crate::extract::parse_id;
use crate::state::AppState;

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "dbconvert_list_connections",
            "List connections",
            "Stored connections to databases, folders of files and object stores. Begin here: other tools take the `id` as `connectionId`.",
            list,
        ),
        Tool::new(
            "dbconvert_get_connection",
            "Get a connection",
            "One connection: where it leads and how its transport is protected. Passwords, keys and certificates are never answered.",
            get,
        ),
    ]
}

/// The tool that only a process of its own has.
pub(super) fn data_sources() -> Tool {
    Tool::new(
        "dbconvert_list_data_sources",
        "List data sources",
        "Everything that can be read: connections with the alias that federated statements know them by, and folders of this machine that file tools open.",
        sources,
    )
}

/// Which connections.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListTakes {
    /// Only those whose name, host or type holds this text, in any case.
    search: Option<String>,
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

/// A connection in a list.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ConnectionEntry {
    /// The `connectionId` of other tools.
    id: String,
    /// What people call it.
    name: String,
    /// `mysql`, `postgresql`, `files`, …
    #[serde(rename = "type")]
    kind: &'static str,
    /// Unix seconds.
    created: i64,
    /// Its default database.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    /// The provider, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_provider: Option<String>,
}

impl From<&Connection> for ConnectionEntry {
    fn from(connection: &Connection) -> Self {
        Self {
            id: connection.id.to_string(),
            name: connection.name.clone(),
            kind: connection.engine.as_str(),
            created: connection.created,
            database: connection.database().and_then(|spec| spec.database.clone()),
            cloud_provider: connection.cloud_provider.clone(),
        }
    }
}

async fn list(state: AppState, takes: ListTakes) -> ApiResult<Listed<ConnectionEntry>> {
    let connections = state.store.connections().await?;
    let search = takes.search.unwrap_or_default().to_lowercase();
    let is_meant = |connection: &&Connection| {
        let host = connection.database().map_or("", |spec| spec.host.as_str());
        search.is_empty()
            || [connection.name.as_str(), host, connection.engine.as_str()].iter().any(|text| text.to_lowercase().contains(&search))
    };
    Ok(Listed::of(connections.iter().filter(is_meant).map(Into::into).collect(), takes.offset, takes.limit))
}

/// Which connection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GetTakes {
    /// The connection's `id`.
    connection_id: String,
}

/// A connection without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ConnectionAnswer {
    /// The `connectionId` of other tools.
    id: String,
    /// What people call it.
    name: String,
    /// `mysql`, `postgresql`, `files`, …
    #[serde(rename = "type")]
    kind: &'static str,
    /// Unix seconds.
    created: i64,
    /// Where it leads and who logs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<ConnectionSpec>,
    /// How its transport is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl: Option<SslAnswer>,
    /// The provider, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud_provider: Option<String>,
}

/// How a transport is protected, without certificates.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SslAnswer {
    /// How far the server is checked.
    mode: SslMode,
    /// Whether a certificate authority is named.
    has_ca: bool,
    /// Whether the client shows a certificate.
    has_client_certificate: bool,
}

async fn get(state: AppState, takes: GetTakes) -> ApiResult<ConnectionAnswer> {
    let id: ConnectionId = parse_id(&takes.connection_id)?;
    let connection = state.store.connection(&id).await?;
    Ok(ConnectionAnswer {
        id: connection.id.to_string(),
        name: connection.name,
        kind: connection.engine.as_str(),
        created: connection.created,
        ssl: connection.ssl.map(|ssl| SslAnswer {
            mode: ssl.mode,
            has_ca: ssl.ca.is_some(),
            has_client_certificate: ssl.client_cert.is_some(),
        }),
        // What this version cannot check for secrets is not answered.
        spec: Some(connection.spec).filter(|spec| !matches!(spec, ConnectionSpec::Other(_))),
        cloud_provider: connection.cloud_provider,
    })
}

/// Which sources.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SourcesTakes {
    /// Entries to skip.
    offset: Option<u64>,
    /// At most so many entries: 100 if absent, never more than 500.
    limit: Option<u64>,
}

/// Something that can be read.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DataSource {
    /// `connection` or `folder`.
    kind: &'static str,
    /// The connection's name, or the folder's path.
    name: String,
    /// The `connectionId` of other tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_id: Option<String>,
    /// `mysql`, `postgresql`, `files`, …
    #[serde(rename = "type")]
    engine: &'static str,
    /// What federated statements call it, unless they name their connections themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    /// The folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

async fn sources(state: AppState, takes: SourcesTakes) -> ApiResult<Listed<DataSource>> {
    let connections = state.store.connections().await?;
    let implied = alias::implied(&connections);
    let source = |connection: &Connection| DataSource {
        kind: "connection",
        name: connection.name.clone(),
        connection_id: Some(connection.id.to_string()),
        engine: connection.engine.as_str(),
        aliases: implied.iter().filter(|source| source.connection.id == connection.id).map(|source| source.alias.clone()).collect(),
        path: match &connection.spec {
            ConnectionSpec::Files(files) => Some(files.base_path.clone()),
            _ => None,
        },
    };
    let mut all: Vec<DataSource> = connections.iter().map(source).collect();
    all.extend(state.files.allowed.iter().filter(|root| root.is_dir()).map(|root| DataSource {
        kind: "folder",
        name: root.display().to_string(),
        connection_id: None,
        engine: "files",
        aliases: Vec::new(),
        path: Some(root.display().to_string()),
    }));
    Ok(Listed::of(all, takes.offset, takes.limit))
}
