//! Which connection a federated statement means by an alias.

use std::collections::BTreeMap;

use millrace_core::connection::{Connection, Engine};
use millrace_core::federation::AliasedSource;

use crate::errors::{ApiError, ApiResult};
use crate::wire::query::FederatedMapping;
use millrace_core::validate::is_alias;

/// The sources of explicit mappings.
pub(crate) fn mapped(mappings: &[FederatedMapping], connections: &[Connection]) -> ApiResult<Vec<AliasedSource>> {
    let mut sources: Vec<AliasedSource> = Vec::new();
    for (index, mapping) in mappings.iter().enumerate() {
        let at = |field: &str| format!("connections[{index}].{field}");
        if !is_alias(&mapping.alias) {
            return Err(ApiError::invalid(at("alias"), "an alias is a letter, then letters, digits and underscores"));
        }
        if sources.iter().any(|source| source.alias.eq_ignore_ascii_case(&mapping.alias)) {
            return Err(ApiError::invalid(at("alias"), format!("the alias `{}` is used twice", mapping.alias)));
        }
        let connection = connections.iter().find(|connection| connection.id == mapping.connection_id);
        let connection = connection
            .ok_or_else(|| ApiError::invalid(at("connectionId"), format!("there is no connection `{}`", mapping.connection_id)))?;
        let database = mapping.database.clone().filter(|database| !database.is_empty());
        sources.push(AliasedSource { alias: mapping.alias.clone(), connection: connection.clone(), database });
    }
    Ok(sources)
}

/// Without mappings every connection of a database or an object store can be named: by its name if that is an alias, else (and also) by a generated alias, numbered per type in
/// order of creation. A name wins over a generated alias.
pub(crate) fn implied(connections: &[Connection]) -> Vec<AliasedSource> {
    let source = |alias: String, connection: &Connection| AliasedSource { alias, connection: connection.clone(), database: None };
    let usable = || connections.iter().filter(|connection| connection.database().is_some() || connection.s3().is_some());
    let mut sources: Vec<AliasedSource> = Vec::new();
    for connection in usable().filter(|connection| is_alias(&connection.name)) {
        if !sources.iter().any(|taken| taken.alias.eq_ignore_ascii_case(&connection.name)) {
            sources.push(source(connection.name.clone(), connection));
        }
    }
    let mut numbers: BTreeMap<&'static str, u32> = BTreeMap::new();
    for connection in usable() {
        let prefix = Engine::alias_prefix(connection.engine);
        let number = numbers.entry(prefix).or_default();
        *number += 1;
        let alias = format!("{prefix}{number}");
        if !sources.iter().any(|taken| taken.alias.eq_ignore_ascii_case(&alias)) {
            sources.push(source(alias, connection));
        }
    }
    sources
}
