//! Objects of S3 stores: what a path names, and how the engine gets at exactly that.
//!
//! The engine reads objects itself, through its extension `httpfs`, which reaches no host but by our [proxy](super::proxy). It is given the credentials as a secret of its own that holds for the buckets in question,
//! before it is locked down to the objects that were named; patterns are resolved here, and none is resolved by the engine.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::OnceLock;

use duckdb::Connection;
use millrace_connectors::s3::{ObjectPath, Store, find, is_object_path};
use millrace_core::hosts;
use millrace_core::objects::{ObjectAccess, SCHEME};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::attach::{identifier, literal};
use super::files::replace_paths;
use super::proxy::proxy;
use super::{extension_dir, load};
use crate::wire::{FailedKind, Failure, StoreSource, endpoint_field};

/// Runs what waits for a store to its end.
pub(super) fn wait<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    // Kept: connections belong to the runtime that opened them.
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().enable_all().build().ok());
    let runtime = runtime.as_ref().ok_or_else(|| Failure::new(FailedKind::Internal, "the query engine cannot wait for object stores"))?;
    Ok(runtime.block_on(work))
}

/// The objects that a path in a statement names.
pub(super) fn named(path: &str, scope: Option<&str>, access: Option<&ObjectAccess>) -> Result<Vec<String>, Failure> {
    let Some(access) = access else {
        let text = format!("`{path}`: a statement over objects needs a connection of type `s3` or a configured session");
        return Err(Failure::new(FailedKind::Invalid, text));
    };
    let base = scope.filter(|scope| is_object_path(scope)).map(ObjectPath::parse).transpose()?;
    let at = ObjectPath::below(base.as_ref(), path)?;
    admit(&at.bucket, access)?;
    let found = wait(find(&Store::new(access), &at, false))??;
    Ok(found.objects.into_iter().map(|(path, _)| path.to_string()).collect())
}

/// Tells a host that must not be dialled from one that cannot be reached, before anybody dials.
pub(super) fn admit(bucket: &str, access: &ObjectAccess) -> Result<(), Failure> {
    let endpoint = access.endpoint.clone().unwrap_or_else(|| format!("s3.{}.amazonaws.com", access.region));
    let port = endpoint.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    let (name, port) = port.unwrap_or((&endpoint, if access.use_ssl { 443 } else { 80 }));
    let host = if access.is_path_style { name.to_owned() } else { format!("{bucket}.{name}") };
    hosts::policy().resolve_blocking(&host, port, endpoint_field(access.names)).map(drop).map_err(Into::into)
}

/// Lets the engine reach the buckets of these paths, as `scheme` names them.
pub(super) fn open(connection: &Connection, paths: &[String], access: &ObjectAccess, scheme: &str) -> Result<(), Failure> {
    let buckets: BTreeSet<String> =
        paths.iter().filter(|path| is_object_path(path)).map(|path| Ok(ObjectPath::parse(path)?.bucket)).collect::<Result<_, Failure>>()?;
    if buckets.is_empty() {
        return Ok(());
    }
    buckets.iter().try_for_each(|bucket| admit(bucket, access))?;
    load(connection, &extension_dir()?, "httpfs")?;
    let mut settings = vec![
        ("KEY_ID", literal(&access.access_key)),
        ("SECRET", literal(access.secret_key.expose())),
        ("REGION", literal(&access.region)),
        ("URL_STYLE", literal(if access.is_path_style { "path" } else { "vhost" })),
        ("USE_SSL", access.use_ssl.to_string()),
    ];
    settings.extend(access.endpoint.as_ref().map(|host| ("ENDPOINT", literal(host))));
    settings.extend(access.session_token.as_ref().map(|token| ("SESSION_TOKEN", literal(token.expose()))));
    let settings: Vec<String> = settings.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
    // An error's text would hold the statement, and the statement holds the secret.
    let failed = |_| Failure::new(FailedKind::Internal, "the query engine cannot be told how to get at the object store");
    let proxy = proxy()?;
    let proxy = [
        ("http_proxy", proxy.address.to_string()),
        ("http_proxy_username", proxy.user.to_owned()),
        ("http_proxy_password", proxy.password.clone()),
    ];
    for (setting, value) in &proxy {
        connection.execute_batch(&format!("SET {setting} = {}", literal(value))).map_err(failed)?;
    }
    // Keys may hold what would be patterns and parameters.
    connection.execute_batch("SET s3_url_compatibility_mode = true").map_err(failed)?;
    for bucket in &buckets {
        let name = identifier(&format!("{scheme}{bucket}"));
        let scope = literal(&format!("{scheme}{bucket}/"));
        let statement = format!("CREATE SECRET {name} (TYPE s3, PROVIDER config, {}, SCOPE {scope})", settings.join(", "));
        connection.execute_batch(&statement).map_err(failed)?;
    }
    Ok(())
}

/// Schemes that the engine takes for S3: one for each store of a statement, so that equal names of buckets stay apart.
const SCHEMES: [&str; 3] = ["s3://", "s3a://", "s3n://"];

/// A federated statement's objects.
#[derive(Default)]
pub(super) struct Confined {
    /// Everything that may be read, as the engine names it.
    pub(super) paths: Vec<String>,
    /// Paths and access of each store, as `s3://` names them.
    stores: Vec<(Vec<String>, ObjectAccess)>,
}

impl Confined {
    /// Replaces the paths `alias://bucket/key` of a statement's reading functions by the objects that they name.
    pub(super) fn of(tree: &mut Value, stores: &[StoreSource]) -> Result<Self, Failure> {
        let mut confined = Self::default();
        if stores.is_empty() {
            return Ok(confined);
        }
        let mut used: Vec<&str> = Vec::new();
        let mut named: Vec<Vec<String>> = Vec::new();
        replace_paths(tree, &mut |path| {
            let (alias, rest) = path.split_once("://").ok_or_else(|| not_an_alias(path, stores))?;
            let store = stores.iter().find(|store| store.alias.eq_ignore_ascii_case(alias)).ok_or_else(|| not_an_alias(path, stores))?;
            let access = ObjectAccess::from(store.access.clone());
            let place = used.iter().position(|known| *known == store.alias).unwrap_or_else(|| {
                used.push(&store.alias);
                named.push(Vec::new());
                confined.stores.push((Vec::new(), access.clone()));
                used.len() - 1
            });
            let scheme = SCHEMES.get(place).ok_or_else(|| Failure::refused("a statement reads from at most three object stores"))?;
            let found = self::named(&format!("s3://{rest}"), None, Some(&access))?;
            confined.stores[place].0.extend(found.iter().cloned());
            let paths: Vec<String> = found.iter().map(|path| format!("{scheme}{}", &path[SCHEME.len()..])).collect();
            confined.paths.extend(paths.iter().cloned());
            Ok(paths)
        })?;
        Ok(confined)
    }

    /// Lets the engine reach the buckets of all of them.
    pub(super) fn open(&self, connection: &Connection) -> Result<(), Failure> {
        self.stores.iter().zip(SCHEMES).try_for_each(|((paths, access), scheme)| open(connection, paths, access, scheme))
    }
}

fn not_an_alias(path: &str, stores: &[StoreSource]) -> Failure {
    let known: Vec<&str> = stores.iter().map(|store| store.alias.as_str()).collect();
    Failure::refused(format!(
        "`{path}`: in a federated statement `read_csv`, `read_parquet` and `read_json` read `alias://bucket/key`; known aliases: {}",
        known.join(", ")
    ))
}
