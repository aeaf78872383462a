//! Which connection, database and object a request is about.

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use millrace_core::connection::{Connection, ConnectionSpec, Engine};
use millrace_core::id::ConnectionId;
use millrace_core::structure::ObjectName;
use serde::Deserialize;

use crate::errors::{ApiError, ApiResult, Code};
use crate::explorers::Lease;
use crate::extract::parse_id;
use crate::folders;
use crate::state::AppState;

/// The connection that a path names as `{id}`, and the database as `{db}` or `?database=`; the connection's default without either.
pub(crate) struct Place {
    pub(crate) connection: Connection,
    pub(crate) database: Option<String>,
    /// The object that the path names as `{table}` or `{view}`, in the schema `?schema=`.
    object: Option<ObjectName>,
}

#[derive(Deserialize)]
struct Named {
    schema: Option<String>,
    database: Option<String>,
}

impl FromRequestParts<AppState> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let params =
            RawPathParams::from_request_parts(parts, state).await.map_err(|error| ApiError::new(Code::NotFound, error.body_text()))?;
        let named: Query<Named> =
            Query::from_request_parts(parts, state).await.map_err(|error| ApiError::invalid("", error.body_text()))?;
        let param = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
        let names = PlaceNames {
            connection: param("id").unwrap_or_default(),
            database: param("db").or_else(|| named.0.database.clone()),
            schema: named.0.schema,
            object: param("table").or_else(|| param("view")),
        };
        Self::of(state, names).await
    }
}

/// How a request names a place.
#[derive(Debug, Default)]
pub(crate) struct PlaceNames {
    pub(crate) connection: String,
    pub(crate) database: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) object: Option<String>,
}

impl Place {
    /// The place of these names; the connection's default database if none is named.
    pub(crate) async fn of(state: &AppState, names: PlaceNames) -> ApiResult<Self> {
        let id: ConnectionId = parse_id(&names.connection)?;
        let connection = state.store.connection(&id).await?;
        let default = match &connection.spec {
            ConnectionSpec::Files(_) => Some(folders::ITSELF.to_owned()),
            _ => connection.database().and_then(|spec| spec.database.clone()),
        };
        let database = names.database.filter(|database| !database.is_empty()).or(default);
        let schema = names.schema.filter(|schema| !schema.is_empty());
        if schema.is_some() && connection.engine == Engine::MySql && schema != database {
            return Err(ApiError::invalid("schema", "MySQL has no schemas; leave `schema` out"));
        }
        if schema.is_some() && connection.engine == Engine::Files {
            return Err(ApiError::invalid("schema", "folders have no schemas; leave `schema` out"));
        }
        let schema = schema.filter(|_| connection.engine != Engine::MySql);
        let object = names.object.map(|name| ObjectName { schema, name });
        Ok(Self { connection, database, object })
    }

    /// A session in the database.
    pub(crate) async fn lease(&self, state: &AppState) -> ApiResult<Lease> {
        Ok(state.explorers.lease(&self.connection, self.database.as_deref()).await?)
    }

    /// A session at the server, in whatever database the connection names or every server has.
    pub(crate) async fn lease_at_server(&self, state: &AppState) -> ApiResult<Lease> {
        Ok(state.explorers.lease(&self.connection, None).await?)
    }

    /// The database's name.
    pub(crate) fn database_name(&self) -> ApiResult<&str> {
        self.database
            .as_deref()
            .ok_or_else(|| ApiError::invalid("database", "the connection has no default database; name one as `?database=`"))
    }

    /// The object that the path names.
    pub(crate) fn object(&self) -> ObjectName {
        self.object.clone().unwrap_or_default()
    }

    /// The object in the schema that a request's body names, if it names one.
    pub(crate) fn object_in(&self, schema: Option<String>) -> ApiResult<ObjectName> {
        let mut object = self.object();
        match schema.filter(|schema| !schema.is_empty()) {
            Some(schema) if self.connection.engine != Engine::MySql => object.schema = Some(schema),
            Some(schema) if self.database.as_deref() != Some(schema.as_str()) => {
                return Err(ApiError::invalid("schema", "MySQL has no schemas; leave `schema` out"));
            }
            _ => {}
        }
        Ok(object)
    }

    /// Whether backslashes escape in the engine's quotes.
    pub(crate) fn has_backslash_escapes(&self) -> bool {
        self.connection.engine == Engine::MySql
    }
}
