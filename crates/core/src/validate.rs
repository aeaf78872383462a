//! The rules of a definition that its types cannot say: one function for the REST API and for the controller, pure.

use std::collections::BTreeSet;

use crate::config::{Mode, S3Selection, SourceConnection, StreamSpec, TargetSpec, WriteMode};
use crate::connection::{Connection, ConnectionSpec, DatabaseSpec, FilesSpec, OtherSpec};
use crate::error::{Error, Result};

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
        ConnectionSpec::Other(OtherSpec::S3(_)) => Err(not_yet("s3")),
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

/// The refusal of a form of connection that this version stores but cannot use.
pub fn not_yet(form: &str) -> Error {
    Error::not_supported(format!("spec.{form}"), "only database connections are supported yet")
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
