//! The rules of a definition that its types cannot say: one function for the REST API and for the controller, pure.

use std::collections::BTreeSet;

use crate::config::{Mode, S3Selection, SourceConnection, StreamSpec, TargetSpec, WriteMode};
use crate::connection::{Connection, ConnectionSpec, DatabaseSpec, FilesSpec, OtherSpec, S3Spec};
use crate::error::{Error, Result};
use crate::objects::CredentialSource;

/// Checks what the types of a definition cannot say.
///
/// # Errors
/// [`crate::Kind::Invalid`] with the field, as the REST API names it.
pub fn check(spec: &StreamSpec) -> Result<()> {
    if spec.name.trim().is_empty() {
        return Err(Error::invalid("name", "the name must not be blank"));
    }
    if spec.source.connections.is_empty() {
        return Err(Error::invalid("source.connections", "a config needs at least one source connection"));
    }
    let mut aliases = BTreeSet::new();
    for (index, source) in spec.source.connections.iter().enumerate() {
        check_source(spec, index, source)?;
        if spec.source.connections.len() > 1 && !aliases.insert(source.alias.as_deref().unwrap_or_default()) {
            return Err(Error::invalid(format!("source.connections[{index}].alias"), "aliases must be unique"));
        }
    }
    if let Some(options) = &spec.source.options
        && options.data_bundle_size == Some(0)
    {
        return Err(Error::invalid("source.options.dataBundleSize", "`dataBundleSize` must be greater than 0"));
    }
    if let (Mode::Cdc, TargetSpec::Db(db)) = (spec.mode, &spec.target.spec)
        && db.write_mode.is_some_and(|mode| mode != WriteMode::Upsert)
    {
        return Err(Error::invalid("target.spec.db.writeMode", "change data capture writes with `upsert` only"));
    }
    if let TargetSpec::Db(db) = &spec.target.spec
        && db.database.trim().is_empty()
    {
        return Err(Error::invalid("target.spec.db.database", "the target database must be named"));
    }
    if let TargetSpec::Db(db) = &spec.target.spec
        && db.schema.as_ref().is_some_and(|schema| schema.trim().is_empty())
    {
        return Err(Error::invalid("target.spec.db.schema", "the target schema must not be blank"));
    }
    check_rules(spec)?;
    if spec.parallelism == Some(0) {
        return Err(Error::invalid("parallelism", "`parallelism` must be greater than 0"));
    }
    Ok(())
}

/// Checks what the types of a connection cannot say.
///
/// # Errors
/// [`crate::Kind::Invalid`] or [`crate::Kind::NotSupported`] with the field, as the REST API names it.
pub fn check_connection(connection: &Connection) -> Result<()> {
    match &connection.spec {
        ConnectionSpec::Database(spec) => check_database(spec),
        ConnectionSpec::Files(spec) => check_files(spec),
        ConnectionSpec::S3(spec) => check_object_store(spec),
        ConnectionSpec::Other(OtherSpec::Gcs(_)) => Err(not_yet("gcs")),
        ConnectionSpec::Other(OtherSpec::Azure(_)) => Err(not_yet("azure")),
        ConnectionSpec::Other(OtherSpec::Snowflake(_)) => Err(not_yet("snowflake")),
    }
}

/// Checks a database server's address and user.
///
/// # Errors
/// As [`check_connection`].
pub fn check_database(spec: &DatabaseSpec) -> Result<()> {
    if spec.host.trim().is_empty() {
        return Err(Error::invalid("spec.database.host", "the host must not be empty"));
    }
    if spec.port == 0 {
        return Err(Error::invalid("spec.database.port", "the port must lie between 1 and 65535"));
    }
    if spec.username.trim().is_empty() {
        return Err(Error::invalid("spec.database.username", "the user name must not be empty"));
    }
    Ok(())
}

/// Checks a folder's path.
///
/// # Errors
/// [`crate::Kind::Invalid`] with the field.
pub fn check_files(spec: &FilesSpec) -> Result<()> {
    let path = std::path::Path::new(&spec.base_path);
    if !path.is_absolute() || spec.base_path.contains('\0') {
        return Err(Error::invalid("spec.files.basePath", "the folder must be an absolute path"));
    }
    if path.components().any(|component| component == std::path::Component::ParentDir) {
        return Err(Error::invalid("spec.files.basePath", "the folder's path must not hold `..`"));
    }
    Ok(())
}

/// Checks an object store's settings; its endpoint is looked at where it is dialled, too.
///
/// # Errors
/// [`crate::Kind::Invalid`] or [`crate::Kind::NotSupported`] with the field.
pub fn check_object_store(spec: &S3Spec) -> Result<()> {
    let at = |field: &str| format!("spec.s3.{field}");
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !is_word(&spec.region) {
        return Err(Error::invalid(at("region"), "the region must be a word such as `us-east-1` or `auto`"));
    }
    if let Some(endpoint) = &spec.endpoint {
        check_endpoint(endpoint).map_err(|text| Error::invalid(at("endpoint"), text))?;
    }
    let credentials = spec.credentials.as_ref();
    if credentials.is_some_and(|credentials| credentials.credentials_ref.is_some()) {
        return Err(Error::not_supported(at("credentials.credentialsRef"), "vaults are not asked yet; give the keys themselves"));
    }
    if credentials.is_some_and(|credentials| credentials.session_token.is_some() && credentials.secret_key.is_none()) {
        return Err(Error::invalid(at("credentials.secretKey"), "a session token goes with a secret key"));
    }
    let (has_key, has_secret) =
        credentials.map_or((false, false), |credentials| (credentials.access_key.is_some(), credentials.secret_key.is_some()));
    let wants_keys = spec.credential_source == Some(CredentialSource::Static);
    match (has_key, has_secret) {
        (true, true) if spec.credential_source == Some(CredentialSource::Aws) => {
            return Err(Error::invalid(at("credentials"), "keys are not given where the server's own are used"));
        }
        (false, true) => return Err(Error::invalid(at("credentials.accessKey"), "the access key is missing")),
        (false, false) if wants_keys => return Err(Error::invalid(at("credentials.accessKey"), "the access key is missing")),
        _ => {}
    }
    let scope = spec.scope.clone().unwrap_or_default();
    if scope.prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()) && scope.bucket.as_ref().is_none_or(String::is_empty) {
        return Err(Error::invalid(at("scope.bucket"), "a prefix needs its bucket"));
    }
    if let Some(bucket) = scope.bucket.as_ref().filter(|bucket| !bucket.is_empty()) {
        check_bucket(bucket).map_err(|text| Error::invalid(at("scope.bucket"), text))?;
    }
    Ok(())
}

/// Whether a text is the address of a service: `[http[s]://]host[:port][/]`.
///
/// # Errors
/// What is wrong with it.
pub fn check_endpoint(text: &str) -> Result<(), &'static str> {
    let lower = text.trim().to_ascii_lowercase();
    let rest = lower.strip_prefix("https://").or_else(|| lower.strip_prefix("http://")).unwrap_or(&lower);
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains("://") {
        return Err("the endpoint's scheme must be `http` or `https`");
    }
    if rest.contains('@') {
        return Err("the endpoint must not hold credentials");
    }
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => rest.rsplit_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if is_host && is_port { Ok(()) } else { Err("the endpoint must be a host with an optional port, without a path") }
}

/// Whether a text can be a bucket's name.
///
/// # Errors
/// The rule that it breaks.
pub fn check_bucket(name: &str) -> Result<(), &'static str> {
    // Upper case, underscores and up to 255 letters stood in old names of AWS, which can still be read.
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let has_ends = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if (3..=255).contains(&name.len()) && name.bytes().all(is_known) && has_ends && !name.contains("..") {
        return Ok(());
    }
    Err("a bucket's name has 3 to 63 letters, digits, dots and hyphens")
}

/// The refusal of a form of connection that this version stores but cannot use.
pub fn not_yet(form: &str) -> Error {
    Error::not_supported(format!("spec.{form}"), "only connections of databases, files and S3 are supported yet")
}

fn check_rules(spec: &StreamSpec) -> Result<()> {
    for (index, rule) in spec.plan.iter().flat_map(|plan| &plan.rules).enumerate() {
        let at = |field: &str| format!("plan.rules[{index}]{field}");
        if rule.table.is_none() && rule.column.is_none() && rule.source_type.is_none() {
            return Err(Error::invalid(at(""), "a rule names a table, a column or a type"));
        }
        if rule.to.is_none() && rule.on_loss.is_none() {
            return Err(Error::invalid(at(""), "a rule says `to` or `onLoss`"));
        }
        if rule.to.as_ref().is_some_and(|to| to.trim().is_empty()) {
            return Err(Error::invalid(at(".to"), "the target type must not be blank"));
        }
    }
    Ok(())
}

fn check_source(spec: &StreamSpec, index: usize, source: &SourceConnection) -> Result<()> {
    let at = |field: &str| format!("source.connections[{index}].{field}");
    if let Some(alias) = &source.alias
        && !is_alias(alias)
    {
        return Err(Error::invalid(at("alias"), "an alias is a letter, then letters, digits and underscores"));
    }
    if spec.source.connections.len() > 1 && source.alias.is_none() {
        return Err(Error::invalid(at("alias"), "with several sources each needs an alias"));
    }
    for (t, table) in source.tables.iter().flatten().enumerate() {
        if table.name.is_empty() {
            return Err(Error::invalid(at(&format!("tables[{t}].name")), "the table's name must not be empty"));
        }
        if source.tables.iter().flatten().take(t).any(|other| other.name == table.name) {
            return Err(Error::invalid(at(&format!("tables[{t}].name")), "the table is selected twice"));
        }
    }
    for (q, query) in source.queries.iter().flatten().enumerate() {
        if query.name.trim().is_empty() || query.query.trim().is_empty() {
            return Err(Error::invalid(at(&format!("queries[{q}]")), "a query needs a name and SQL text"));
        }
        if spec.mode == Mode::Cdc {
            return Err(Error::invalid(at("queries"), "queries are for `convert` only"));
        }
        if source.queries.iter().flatten().take(q).any(|other| other.name == query.name) {
            return Err(Error::invalid(at(&format!("queries[{q}].name")), "two queries have the same name"));
        }
    }
    if (source.s3.is_some() || source.files.is_some()) && (source.database.is_some() || source.tables.is_some() || source.queries.is_some())
    {
        return Err(Error::invalid(at("database"), "file and S3 sources have no database, tables or queries"));
    }
    if let Some(s3) = &source.s3 {
        check_s3(s3, &at("s3"))?;
    }
    if let Some(files) = &source.files
        && (files.base_path.is_empty() || files.paths.is_empty())
    {
        return Err(Error::invalid(at("files"), "a file source needs `basePath` and at least one path"));
    }
    Ok(())
}

fn check_s3(s3: &S3Selection, at: &str) -> Result<()> {
    let has_list = !s3.prefixes.is_empty() || !s3.objects.is_empty();
    if s3.bucket.is_empty() {
        return Err(Error::invalid(format!("{at}.bucket"), "the bucket must be named"));
    }
    if s3.prefixes.iter().any(|prefix| !prefix.ends_with('/')) {
        return Err(Error::invalid(format!("{at}.prefixes"), "a prefix ends with `/`"));
    }
    if s3.objects.iter().any(|object| object.ends_with('/')) {
        return Err(Error::invalid(format!("{at}.objects"), "an object does not end with `/`"));
    }
    if s3.manifest_path.is_some() == has_list {
        return Err(Error::invalid(format!("{at}.manifestPath"), "give prefixes and objects, or a manifest"));
    }
    Ok(())
}

/// Whether a text is a letter, then letters, digits and underscores.
pub fn is_alias(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
