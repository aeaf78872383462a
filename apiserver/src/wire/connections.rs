//! Connections on the wire.

use millrace_connectors::s3::Endpoint;
use millrace_core::Secret;
use millrace_core::connection::{Connection, ConnectionSpec, DatabaseSpec, Engine, FilesSpec, S3Credentials, S3Spec, Ssl, SslMode};
use millrace_core::id::ConnectionId;
use millrace_core::objects::{CredentialSource, SettingNames};
use millrace_core::validate::{check_database, check_files, check_object_store, not_yet};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::read;
use crate::wire::structure::DatabaseInfo;

/// A connection as a client writes it: nested `spec`, or the flat form with `host`, `port`, `username`, `password`, `database`.
#[derive(JsonSchema)]
#[allow(dead_code)] // describes what `parse` reads by hand
#[schemars(rename = "ConnectionRequest")]
pub(crate) struct ConnectionRequest {
    /// What people call it.
    name: String,
    /// `mysql`, `postgresql`, `files` or `s3`, in any case.
    #[schemars(rename = "type")]
    kind: String,
    /// Where it is and who logs in.
    spec: Option<ConnectionSpec>,
    /// How the transport is protected.
    ssl: Option<Ssl>,
    /// The provider that a client detected.
    cloud_provider: Option<String>,
}

/// A connection as it is answered: without secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionResponse {
    id: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    created: i64,
    databases_info: Vec<DatabaseInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssl: Option<Ssl>,
    #[serde(rename = "cloud_provider", skip_serializing_if = "Option::is_none")]
    cloud_provider: Option<String>,
    spec: ConnectionSpec,
}

/// The answer to a create.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Created {
    /// The new id.
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: i64,
}

/// All connections.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionList {
    pub(crate) items: Vec<ConnectionResponse>,
    /// All connections.
    pub(crate) total: usize,
    /// Those that match the search.
    pub(crate) filtered: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) search: Option<String>,
    /// Where objects inside a connection match, by its id; only with a search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matched_paths: Option<Map<String, Value>>,
    /// How much of the connections' contents the search could look into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database_search_coverage: Option<Coverage>,
}

/// How much of the connections' contents a search could look into.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Coverage {
    pub(crate) indexed_connections: usize,
    pub(crate) total_connections: usize,
    pub(crate) complete: bool,
}

/// The answer to a ping.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Ping {
    /// `ok`.
    pub(crate) ping: &'static str,
}

impl From<&Connection> for ConnectionResponse {
    fn from(connection: &Connection) -> Self {
        Self {
            id: connection.id.to_string(),
            name: connection.name.clone(),
            kind: connection.engine.as_str().to_owned(),
            created: connection.created,
            databases_info: Vec::new(),
            ssl: connection.ssl.clone(),
            cloud_provider: connection.cloud_provider.clone(),
            spec: connection.spec.clone(),
        }
    }
}

/// What clients send back that the server itself has said, and what only their own pages use.
const TOLERATED: [&str; 4] = ["id", "created", "databasesInfo", "status"];
const FLAT: [&str; 7] = ["host", "port", "username", "password", "database", "defaultDatabase", "path"];

/// Reads a connection. `stored` is what an update replaces; a secret that is absent, empty or masked stays as it was, unless the place changes.
pub(crate) fn parse(body: Value, stored: Option<&Connection>) -> ApiResult<Connection> {
    let Value::Object(mut fields) = body else { return Err(ApiError::invalid("", "the body must be a JSON object")) };
    if let Some(stored) = stored {
        immutable(&fields, "id", &json!(stored.id))?;
        immutable(&fields, "created", &json!(stored.created))?;
    }
    for name in TOLERATED {
        fields.remove(name);
    }
    let name = text(&mut fields, "name")?
        .filter(|name| !name.trim().is_empty())
        .ok_or_else(|| ApiError::invalid("name", "a connection needs a name"))?;
    let kind = text(&mut fields, "type")?.ok_or_else(|| ApiError::invalid("type", "a connection needs a type"))?;
    let engine = Engine::parse(&kind).ok_or_else(|| {
        ApiError::invalid("type", "the type must be one of mysql, postgresql, files, s3, gcs, azure, snowflake").detail("value", kind)
    })?;
    let spec = spec(&mut fields, engine)?;
    // Some clients store object stores as files; what they are is said by the spec.
    let engine = if matches!(spec, ConnectionSpec::S3(_)) { Engine::S3 } else { engine };
    let ssl: Option<Ssl> = match fields.remove("ssl") {
        None | Some(Value::Null) => None,
        Some(ssl) => Some(read(ssl).map_err(|error| under(error, "ssl"))?),
    };
    if fields.remove("ssh").is_some_and(|ssh| !ssh.is_null()) {
        return Err(ApiError::new(Code::NotSupported, "SSH tunnels are not supported yet").detail("field", "ssh"));
    }
    let cloud_provider = text(&mut fields, "cloud_provider")?;
    if let Some(unknown) = fields.keys().next() {
        return Err(ApiError::invalid(unknown.clone(), format!("unknown field `{unknown}`")));
    }
    let mut connection = Connection {
        id: stored.map_or_else(ConnectionId::mint, |stored| stored.id.clone()),
        created: stored.map_or_else(|| chrono::Utc::now().timestamp(), |stored| stored.created),
        name,
        engine,
        ssl,
        cloud_provider,
        spec,
    };
    if let Some(stored) = stored {
        keep_secrets(&mut connection, stored)?;
    }
    if let ConnectionSpec::S3(spec) = &connection.spec {
        complete(spec, connection.ssl.as_ref())?;
    }
    millrace_connectors::check_tls(&connection)?;
    Ok(connection)
}

fn spec(fields: &mut Map<String, Value>, engine: Engine) -> ApiResult<ConnectionSpec> {
    let nested = match fields.remove("spec") {
        None | Some(Value::Null) => flat(fields, engine),
        Some(Value::Object(forms)) => {
            if let Some(mixed) = FLAT.iter().find(|name| fields.contains_key(**name)) {
                return Err(ApiError::invalid(*mixed, "give either `spec` or the flat fields, not both"));
            }
            forms
        }
        Some(_) => return Err(ApiError::invalid("spec", "the spec must be a JSON object")),
    };
    let mut forms = nested.into_iter().filter(|(_, form)| !form.is_null());
    let (Some((form, content)), None) = (forms.next(), forms.next()) else {
        return Err(ApiError::invalid("spec", "the spec must have exactly one form, such as `database`"));
    };
    match (form.as_str(), engine) {
        ("database", Engine::MySql | Engine::PostgreSql) => database(content, engine).map(ConnectionSpec::Database),
        ("files", Engine::Files) => {
            let files: FilesSpec = read(content).map_err(|error| under(error, "spec.files"))?;
            check_files(&files)?;
            Ok(ConnectionSpec::Files(files))
        }
        ("s3", Engine::S3 | Engine::Files) => {
            let mut spec: S3Spec = read(content).map_err(|error| under(error, "spec.s3"))?;
            tidy(&mut spec);
            check_object_store(&spec)?;
            Endpoint::of(&spec, SettingNames::Connection)?;
            Ok(ConnectionSpec::S3(spec))
        }
        ("gcs" | "azure" | "snowflake", _) => Err(not_yet(&form).into()),
        ("database" | "files" | "s3", _) => {
            Err(ApiError::invalid(format!("spec.{form}"), format!("a connection of type `{}` has another form of spec", engine.as_str())))
        }
        _ => Err(ApiError::invalid(format!("spec.{form}"), format!("unknown form `{form}`"))),
    }
}

/// The older flat form as the nested one.
fn flat(fields: &mut Map<String, Value>, engine: Engine) -> Map<String, Value> {
    let mut content = Map::new();
    let mut nested = Map::new();
    if engine == Engine::Files {
        content.extend(fields.remove("path").map(|path| ("basePath".to_owned(), path)));
        nested.insert("files".to_owned(), Value::Object(content));
        return nested;
    }
    for name in ["host", "port", "username", "password", "database"] {
        content.extend(fields.remove(name).map(|value| (name.to_owned(), value)));
    }
    if let Some(database) = fields.remove("defaultDatabase") {
        content.entry("database").or_insert(database);
    }
    nested.insert("database".to_owned(), Value::Object(content));
    nested
}

fn database(mut content: Value, engine: Engine) -> ApiResult<DatabaseSpec> {
    if let Some(fields) = content.as_object_mut() {
        if fields.get("port").is_none_or(Value::is_null) {
            fields.insert("port".to_owned(), engine.default_port().into());
        }
        if fields.get("database").and_then(Value::as_str) == Some("") {
            fields.remove("database");
        }
    }
    let spec: DatabaseSpec = read(content).map_err(|error| under(error, "spec.database"))?;
    check_database(&spec)?;
    millrace_core::hosts::policy().check_name(&spec.host, "spec.database.host")?;
    Ok(spec)
}

/// Clients send what they leave open as empty texts, and what they must not know as stars.
fn tidy(spec: &mut S3Spec) {
    let clear = |text: &mut Option<String>| *text = text.take().filter(|text| !text.trim().is_empty());
    clear(&mut spec.endpoint);
    clear(&mut spec.profile_name);
    if let Some(scope) = &mut spec.scope {
        clear(&mut scope.bucket);
        clear(&mut scope.prefix);
    }
    if spec.region.is_empty() {
        "auto".clone_into(&mut spec.region);
    }
    let Some(credentials) = &mut spec.credentials else { return };
    clear(&mut credentials.access_key);
    clear(&mut credentials.credentials_ref);
    credentials.secret_key = credentials.secret_key.take().filter(|secret| !is_masked(secret));
    credentials.session_token = credentials.session_token.take().filter(|token| !is_masked(token));
    let S3Credentials { access_key, secret_key, session_token, credentials_ref } = credentials;
    if access_key.is_none() && secret_key.is_none() && session_token.is_none() && credentials_ref.is_none() {
        spec.credentials = None;
    }
}

fn is_masked(secret: &Secret) -> bool {
    secret.is_empty() || secret.expose().chars().all(|c| c == '*')
}

/// What a stored object store must have once its secrets are put back.
fn complete(spec: &S3Spec, ssl: Option<&Ssl>) -> ApiResult<()> {
    if ssl.is_some_and(|ssl| ssl.mode != SslMode::Disabled) {
        return Err(ApiError::invalid("ssl", "`ssl` is for database connections; object stores have `spec.s3.useSSL`"));
    }
    let has_key = spec.credentials.as_ref().is_some_and(|credentials| credentials.access_key.is_some());
    let has_secret = spec.credentials.as_ref().is_some_and(|credentials| credentials.secret_key.is_some());
    if has_key && !has_secret {
        return Err(ApiError::invalid("spec.s3.credentials.secretKey", "the secret key is missing"));
    }
    if has_key && spec.credential_source == Some(CredentialSource::Aws) {
        return Err(ApiError::invalid("spec.s3.credentials", "keys are not given where the server's own are used"));
    }
    Ok(())
}

/// The credentials of an object store stay if they are not given again, and neither its place nor who asks there has changed.
fn keep_keys(spec: &mut S3Spec, stored: &Connection) -> ApiResult<()> {
    let given = spec.credentials.as_ref();
    let asks_elsewhere = given.is_none() && spec.credential_source == Some(CredentialSource::Aws);
    if asks_elsewhere || given.is_some_and(|given| given.secret_key.is_some()) {
        return Ok(());
    }
    let Some(old) = stored.s3() else { return Ok(()) };
    let Some(known) = old.credentials.as_ref().filter(|known| known.secret_key.is_some()) else { return Ok(()) };
    let place = |spec: &S3Spec| Endpoint::of(spec, SettingNames::Connection).map(|endpoint| (endpoint.host, endpoint.use_ssl)).ok();
    let is_other = given.is_some_and(|given| given.access_key.is_some() && given.access_key != known.access_key);
    if place(spec) != place(old) || is_other {
        let text = "a new endpoint, access key or TLS mode needs the connection's secrets again";
        return Err(ApiError::invalid("spec.s3.credentials.secretKey", text));
    }
    spec.credentials = Some(known.clone());
    Ok(())
}

/// Who can change the place that a stored secret is sent to, or how that place is checked, could otherwise have it sent to himself.
fn keep_secrets(connection: &mut Connection, stored: &Connection) -> ApiResult<()> {
    if let ConnectionSpec::S3(spec) = &mut connection.spec {
        return keep_keys(spec, stored);
    }
    let is_given = |secret: &Option<Secret>| secret.as_ref().is_some_and(|secret| !is_masked(secret));
    let trust = |connection: &Connection| {
        let ssl = connection.ssl.as_ref().filter(|ssl| ssl.mode != SslMode::Disabled);
        ssl.map(|ssl| (ssl.mode, ssl.ca.clone()))
    };
    let is_same_place = match (connection.database(), stored.database()) {
        (Some(new), Some(old)) => {
            (&new.host, new.port) == (&old.host, old.port) && connection.engine == stored.engine && trust(connection) == trust(stored)
        }
        _ => false,
    };
    let again = |field: &'static str| ApiError::invalid(field, "a new host, port, type or TLS mode needs the connection's secrets again");
    if let Some(ssl) = &mut connection.ssl
        && !is_given(&ssl.client_key)
    {
        let old = stored.ssl.as_ref().and_then(|ssl| ssl.client_key.clone()).filter(|_| ssl.client_cert.is_some());
        if old.is_some() && !is_same_place {
            return Err(again("ssl.client_key"));
        }
        ssl.client_key = old;
    }
    let ConnectionSpec::Database(spec) = &mut connection.spec else { return Ok(()) };
    if is_given(&spec.password) {
        return Ok(());
    }
    let old = stored.database().and_then(|spec| spec.password.clone());
    if old.is_some() && !is_same_place {
        return Err(again("spec.database.password"));
    }
    spec.password = old;
    Ok(())
}

/// A field that may be said again but not changed.
pub(crate) fn immutable(fields: &Map<String, Value>, name: &str, stored: &Value) -> ApiResult<()> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value == stored => Ok(()),
        Some(_) => Err(ApiError::invalid(name, format!("`{name}` cannot be changed"))),
    }
}

fn text(fields: &mut Map<String, Value>, name: &str) -> ApiResult<Option<String>> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(name, format!("`{name}` must be text"))),
    }
}

/// Puts an error's field under a path.
pub(crate) fn under(error: ApiError, path: &str) -> ApiError {
    let field = match error.field() {
        Some("") | None => path.to_owned(),
        Some(field) => format!("{path}.{field}"),
    };
    error.detail("field", field)
}
