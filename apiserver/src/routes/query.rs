//! Federated queries.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use millrace_core::connection::Engine;
use millrace_core::explore::ObjectFilter;
use millrace_core::federation::{AliasedSource, FederatedQuery, QueryOutcome, Want};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::structure::{all_databases, all_names, all_schemas};
use crate::alias;
use crate::errors::{ApiError, ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, read};
use crate::objects;
use crate::place::{Place, PlaceNames};
use crate::route::{Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::query::{AliasSchemas, FederatedMapping, FederatedRequest, FederatedResponse, SchemasRequest, Validity};

pub(super) fn routes() -> Routes {
    let example = json!({"sql": "SELECT a.name, b.balance FROM pg1.public.accounts a JOIN my1.shop.customers b ON a.id = b.id"});
    let fails = &[
        Code::InvalidJson,
        Code::ValidationFailed,
        Code::StatementRefused,
        Code::ObjectMissing,
        Code::LoginRefused,
        Code::Unreachable,
        Code::Exhausted,
        Code::TimedOut,
    ];
    let op = |path, id, summary| Operation::new("post", path, id, "query", summary).reads().fails(fails);
    let operation = op("/query/federated", "queryFederated", "Run one reading statement across connections")
        .takes::<FederatedRequest>()
        .example(example)
        .answers::<FederatedResponse>(200);
    Routes::default()
        .add(operation, post(federated))
        .add(
            op("/query/federated/validate", "validateFederated", "Whether a statement across connections could run; it is not run")
                .takes::<FederatedRequest>()
                .example(json!({"sql": "SELECT 1 AS one"}))
                .answers::<Validity>(200),
            post(validate),
        )
        .add(
            op("/query/federated/schemas", "federatedSchemas", "What statements can name of each source")
                .takes::<SchemasRequest>()
                .may_be_empty()
                .example(json!({"connections": [{"alias": "my1", "connectionId": examples::CONNECTION, "database": examples::DATABASE}]}))
                .answers::<Vec<AliasSchemas>>(200),
            post(schemas),
        )
}

/// What is wrong with the statement is the answer; what keeps it from being looked at is an error.
async fn validate(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<Validity>> {
    match outcome_of(&state, read(body)?, Want::Plan).await {
        Ok(_) => Ok(Json(Validity { valid: true, errors: Vec::new() })),
        Err(error) if matches!(error.code(), Code::StatementRefused | Code::ObjectMissing) => {
            Ok(Json(Validity { valid: false, errors: vec![error.text().to_owned()] }))
        }
        Err(error) => Err(error),
    }
}

async fn schemas(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<Vec<AliasSchemas>>> {
    let request: SchemasRequest = if body.is_null() { SchemasRequest { connections: None } } else { read(body)? };
    let mut all = Vec::new();
    for source in sources(&state, request.connections.as_deref()).await? {
        all.push(schemas_of(&state, source).await?);
    }
    Ok(Json(all))
}

async fn schemas_of(state: &AppState, source: AliasedSource) -> ApiResult<AliasSchemas> {
    let names = PlaceNames { connection: source.connection.id.to_string(), database: source.database, ..PlaceNames::default() };
    let place = Place::of(state, names).await?;
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let is_mysql = place.connection.engine == Engine::MySql;
    if !is_mysql || place.database.is_some() {
        let found = all_names(state, &place, &ObjectFilter::default()).await?;
        for object in found.tables.into_iter().chain(found.views) {
            let schema = object.schema.or_else(|| place.database.clone()).unwrap_or_default();
            tables.entry(schema).or_default().push(object.name);
        }
    }
    let schemas = if is_mysql {
        let databases = all_databases(state, &place).await?;
        databases.iter().filter(|database| !database.is_system()).map(|database| database.name().to_owned()).collect()
    } else {
        all_schemas(state, &place, false).await?.iter().map(|schema| schema.name().to_owned()).collect()
    };
    Ok(AliasSchemas { alias: source.alias, schemas, tables })
}

/// The sources that a request names, else those that need no naming.
async fn sources(state: &AppState, mappings: Option<&[FederatedMapping]>) -> ApiResult<Vec<AliasedSource>> {
    let connections = state.store.connections().await?;
    match mappings {
        Some(mappings) if !mappings.is_empty() => alias::mapped(mappings, &connections),
        _ => Ok(alias::implied(&connections)),
    }
}

async fn federated(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<FederatedResponse>> {
    let outcome = outcome_of(&state, read(body)?, Want::All).await?;
    Ok(Json(FederatedResponse {
        count: outcome.rows.len(),
        columns: outcome.columns,
        rows: outcome.rows,
        status: "success",
        duration: outcome.duration_ms,
    }))
}

/// Runs a federated statement and records it. Dropping the future ends it.
pub(crate) async fn outcome_of(state: &AppState, request: FederatedRequest, want: Want) -> ApiResult<QueryOutcome> {
    let sql = match (request.sql, request.query) {
        (Some(sql), Some(query)) if sql != query => {
            return Err(ApiError::invalid("query", "give the statement as `sql` or as `query`, not both"));
        }
        (Some(sql), _) | (None, Some(sql)) if !sql.trim().is_empty() => sql,
        _ => return Err(ApiError::invalid("sql", "the statement is missing")),
    };
    let sources = objects::resolved(sources(state, request.connections.as_deref()).await?, &sql)?;
    // Ends the query when the client goes away, which drops this future.
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let started = std::time::Instant::now();
    let connection = sources.first().map_or(String::new(), |source| source.connection.id.to_string());
    let outcome = state.query.run(FederatedQuery { sql: sql.clone(), sources, want }, cancel).await;
    let seen = outcome.as_ref().map(|outcome| outcome.rows.len() as u64).map_err(|error| error.message().to_owned());
    let ran =
        Ran { connection: &connection, database: "federated", schema: None, table: None, tab: None, purpose: Purpose::Data, sql: &sql };
    sql::record(state, ran, started.elapsed().as_millis() as u64, seen).await;
    Ok(outcome?)
}
