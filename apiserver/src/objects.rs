//! Which object store a request is about, and what it names there.
//!
//! ```text
//!  connectionId ─▶ the connection ─┐
//!  none ─▶ the client's session ───┴▶ Site (store, scope) ─▶ find ─▶ FileSet for the query tier
//! ```
//!
//! A session is what `POST /files/s3/configure` has been told. It belongs to a client, which is told by its key and its install id, and is kept in this process:
//! other servers of a cluster do not know it, so clients of a cluster name a connection.

use std::time::Duration;

use axum::http::HeaderMap;
use millrace_connectors::s3::{self, ObjectPath, Store};
use millrace_core::connection::{Connection, ConnectionSpec, S3Credentials, S3Scope};
use millrace_core::federation::AliasedSource;
use millrace_core::files::{FileFormat, FileSet};
use millrace_core::id::ConnectionId;
use millrace_core::objects::{CredentialSource, ObjectAccess, SettingNames};
use millrace_core::validate::check_bucket;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::parse_id;
use crate::guard::shown_key;
use crate::state::AppState;

/// How long a session lasts after its last use.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; the one that was not used for the longest time goes first.
const MOST: u64 = 1000;

/// What clients have configured, in the memory of one process.
#[derive(Clone)]
pub struct ObjectSessions(Cache<[u8; 32], ObjectAccess>);

impl Default for ObjectSessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST).time_to_idle(LIFETIME).eviction_policy(EvictionPolicy::lru()).build())
    }
}

impl ObjectSessions {
    /// Keeps what a client has configured.
    pub(crate) fn keep(&self, client: [u8; 32], access: ObjectAccess) {
        self.0.insert(client, access);
    }

    fn of(&self, client: &[u8; 32]) -> Option<ObjectAccess> {
        self.0.get(client)
    }
}

/// What tells one client from another: its key and its install id. Clients of an open server that show neither are one.
pub(crate) async fn client(state: &AppState, headers: &HeaderMap) -> [u8; 32] {
    let key = shown_key(state, headers).await;
    let install = headers.get("x-install-id").map(|value| value.as_bytes()).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update((key.expose().len() as u64).to_be_bytes());
    hash.update(key.expose());
    hash.update(install);
    hash.finalize().into()
}

/// A store, and the part of it that may be browsed.
pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) scope: S3Scope,
}

impl Site {
    fn of(connection: &Connection) -> ApiResult<Self> {
        let ConnectionSpec::S3(spec) = &connection.spec else {
            return Err(ApiError::invalid("connectionId", "the connection is not of type `s3`"));
        };
        let access = s3::access(spec, SettingNames::Connection)?;
        Ok(Self { store: Store::new(&access), scope: spec.scope.clone().unwrap_or_default() })
    }

    fn of_session(access: &ObjectAccess) -> Self {
        Self { store: Store::new(access), scope: S3Scope::default() }
    }

    /// What relative paths stand below.
    pub(crate) fn base(&self) -> Option<ObjectPath> {
        let bucket = self.scope.bucket.as_deref().filter(|bucket| !bucket.is_empty())?;
        ObjectPath::new(bucket, self.scope.prefix.as_deref().unwrap_or_default()).ok()
    }

    /// The object that a path means.
    pub(crate) fn path(&self, path: &str) -> ApiResult<ObjectPath> {
        if path.is_empty() {
            return self.base().ok_or_else(|| ApiError::invalid("path", "a path is expected"));
        }
        Ok(ObjectPath::below(self.base().as_ref(), path)?)
    }

    /// The bucket and prefix to list, inside the scope.
    ///
    /// # Errors
    /// [`Code::PathRefused`] for what lies outside.
    pub(crate) fn part(&self, bucket: Option<&str>, prefix: Option<&str>) -> ApiResult<(String, String)> {
        let scope_bucket = self.scope.bucket.as_deref().filter(|bucket| !bucket.is_empty());
        let scope_prefix = self.scope.prefix.as_deref().unwrap_or_default();
        let bucket = bucket.filter(|bucket| !bucket.is_empty()).or(scope_bucket);
        let bucket = bucket.ok_or_else(|| ApiError::invalid("bucket", "name a bucket"))?;
        check_bucket(bucket).map_err(|text| ApiError::invalid("bucket", text))?;
        if scope_bucket.is_some_and(|scope| scope != bucket) {
            return Err(outside("bucket"));
        }
        let prefix = prefix.unwrap_or(scope_prefix);
        if !prefix.starts_with(scope_prefix) {
            return Err(outside("prefix"));
        }
        Ok((bucket.to_owned(), prefix.to_owned()))
    }

    /// The names of the buckets inside the scope.
    pub(crate) async fn buckets(&self) -> ApiResult<Vec<String>> {
        match self.scope.bucket.as_deref().filter(|bucket| !bucket.is_empty()) {
            // Whoever may see one bucket only cannot list them all.
            Some(bucket) => Ok(self.store.check(Some(bucket)).await.map(|()| vec![bucket.to_owned()])?),
            None => Ok(self.store.buckets().await?),
        }
    }
}

pub(crate) fn outside(field: &str) -> ApiError {
    ApiError::new(Code::PathRefused, "this lies outside the connection's scope").detail("field", field)
}

/// A connection by its id, if there is one in the request.
pub(crate) async fn connection(state: &AppState, id: Option<&str>) -> ApiResult<Option<Connection>> {
    let Some(id) = id.filter(|id| !id.is_empty()) else { return Ok(None) };
    let id: ConnectionId = parse_id(id)?;
    Ok(Some(state.store.connection(&id).await?))
}

/// The store of a request: its connection's, else its client's session's.
pub(crate) async fn site(state: &AppState, headers: &HeaderMap, id: Option<&str>) -> ApiResult<Site> {
    if let Some(connection) = connection(state, id).await? {
        return Site::of(&connection);
    }
    session(state, headers).await.ok_or_else(|| {
        let text = "name a connection of type `s3`, or configure a session by `POST /files/s3/configure`";
        ApiError::invalid("connectionId", text)
    })
}

async fn session(state: &AppState, headers: &HeaderMap) -> Option<Site> {
    let client = client(state, headers).await;
    state.objects.of(&client).map(|access| Site::of_session(&access))
}

/// The store that a statement may name objects of, if there is one, and whether it is a connection's.
pub(crate) async fn optional_site(state: &AppState, headers: &HeaderMap, id: Option<&str>) -> ApiResult<(Option<Site>, bool)> {
    match connection(state, id).await? {
        Some(connection) if connection.s3().is_some() => Ok((Some(Site::of(&connection)?), true)),
        _ => Ok((session(state, headers).await, false)),
    }
}

/// The objects of a request.
pub(crate) struct Objects {
    pub(crate) files: FileSet,
    /// Bytes.
    pub(crate) size: u64,
    /// Another text if one of them is another one.
    pub(crate) etag: String,
    /// Whether the path is one object's own.
    pub(crate) is_single: bool,
}

/// Finds the objects that a path names; none if it is no object's path.
pub(crate) async fn objects(
    state: &AppState,
    headers: &HeaderMap,
    path: &str,
    format: Option<FileFormat>,
    id: Option<&str>,
) -> ApiResult<Option<Objects>> {
    if path.contains("://") && !path.starts_with("file://") && !s3::is_object_path(path) {
        let text = "paths are local, or begin with `s3://`";
        return Err(ApiError::new(Code::NotSupported, text).detail("field", "path"));
    }
    let site = if s3::is_object_path(path) {
        site(state, headers, id).await?
    } else {
        match connection(state, id).await? {
            Some(connection) if connection.s3().is_some() => Site::of(&connection)?,
            _ => return Ok(None),
        }
    };
    let at = site.path(path)?;
    // A manifest whose format is said to be JSON is looked into as the file that it is.
    let found = s3::find(&site.store, &at, format != Some(FileFormat::Json)).await?;
    let told = if format.is_none() { found.format()? } else { None };
    let format = format.or(told).ok_or_else(|| ApiError::invalid("format", "the format is not told by the name; give `format`"))?;
    let is_single = found.mode == s3::Mode::Direct;
    let (size, etag) = (found.size(), found.etag.clone());
    let paths = found.objects.iter().map(|(path, _)| path.to_string()).collect();
    Ok(Some(Objects { files: FileSet { format, paths, access: Some(site.store.access().clone()) }, size, etag, is_single }))
}

/// The sources of a federated statement, with this server's own credentials for those of its object stores that leave them to it: the query tier has none.
pub(crate) fn resolved(mut sources: Vec<AliasedSource>, sql: &str) -> ApiResult<Vec<AliasedSource>> {
    let lower = sql.to_lowercase();
    for source in &mut sources {
        let ConnectionSpec::S3(spec) = &mut source.connection.spec else { continue };
        if lower.contains(&format!("{}://", source.alias.to_lowercase())) {
            let access = s3::access(spec, SettingNames::Connection)?;
            spec.credential_source = Some(CredentialSource::Static);
            spec.credentials = Some(S3Credentials {
                access_key: Some(access.access_key),
                secret_key: Some(access.secret_key),
                session_token: access.session_token,
                credentials_ref: None,
            });
        }
    }
    Ok(sources)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use millrace_core::Secret;
    use millrace_core::objects::ObjectLimits;

    use super::*;

    #[test]
    fn sessions_are_bounded_and_the_newest_are_kept() {
        let sessions = ObjectSessions::default();
        let access = ObjectAccess {
            endpoint: None,
            use_ssl: true,
            region: "us-east-1".into(),
            is_path_style: false,
            access_key: "AK".into(),
            secret_key: Secret::new("s"),
            session_token: None,
            limits: ObjectLimits::default(),
            names: SettingNames::Session,
        };
        let name = |number: u64| -> [u8; 32] { Sha256::digest(number.to_be_bytes()).into() };
        for number in 0..MOST + 100 {
            sessions.keep(name(number), access.clone());
            sessions.0.run_pending_tasks();
        }
        assert_eq!(sessions.0.entry_count(), MOST);
        assert!(sessions.of(&name(0)).is_none() && sessions.of(&name(MOST + 99)).is_some());
    }
}
