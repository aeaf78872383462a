//! Federated queries.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use millrace_core::federation::FederatedQuery;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::alias;
use crate::errors::{ApiError, ApiResult, Code};
use crate::extract::{JsonBody, read};
use crate::objects;
use crate::route::{Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::query::{FederatedRequest, FederatedResponse};

pub(super) fn routes() -> Routes {
    let example = json!({"sql": "SELECT a.name, b.total FROM pg1.public.accounts a JOIN my1.sales.orders b ON a.id = b.account_id"});
    let operation = Operation::new("post", "/query/federated", "queryFederated", "query", "Run one reading statement across connections")
        .reads()
        .takes::<FederatedRequest>()
        .example(example)
        .answers::<FederatedResponse>(200)
        .fails(&[
            Code::InvalidJson,
            Code::ValidationFailed,
            Code::StatementRefused,
            Code::ObjectMissing,
            Code::LoginRefused,
            Code::Unreachable,
            Code::Exhausted,
            Code::TimedOut,
        ]);
    Routes::default().add(operation, post(federated))
}

async fn federated(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<FederatedResponse>> {
    let request: FederatedRequest = read(body)?;
    let sql = match (request.sql, request.query) {
        (Some(sql), Some(query)) if sql != query => {
            return Err(ApiError::invalid("query", "give the statement as `sql` or as `query`, not both"));
        }
        (Some(sql), _) | (None, Some(sql)) if !sql.trim().is_empty() => sql,
        _ => return Err(ApiError::invalid("sql", "the statement is missing")),
    };
    let connections = state.store.connections().await?;
    let sources = match request.connections.as_deref() {
        Some(mappings) if !mappings.is_empty() => alias::mapped(mappings, &connections)?,
        _ => alias::implied(&connections),
    };
    let sources = objects::resolved(sources, &sql)?;
    // Ends the query when the client goes away, which drops this future.
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let started = std::time::Instant::now();
    let connection = sources.first().map_or(String::new(), |source| source.connection.id.to_string());
    let outcome = state.query.run(FederatedQuery { sql: sql.clone(), sources }, cancel).await;
    let seen = outcome.as_ref().map(|outcome| outcome.rows.len() as u64).map_err(|error| error.message().to_owned());
    let ran =
        Ran { connection: &connection, database: "federated", schema: None, table: None, tab: None, purpose: Purpose::Data, sql: &sql };
    sql::record(&state, ran, started.elapsed().as_millis() as u64, seen).await;
    let outcome = outcome?;
    Ok(Json(FederatedResponse {
        count: outcome.rows.len(),
        columns: outcome.columns,
        rows: outcome.rows,
        status: "success",
        duration: outcome.duration_ms,
    }))
}
