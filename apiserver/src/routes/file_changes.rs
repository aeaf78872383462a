//! Changes of one file's rows.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, patch, post};
use millrace_core::files::{FileAnswer, FileChange, FileRequest};
use serde_json::{Value, json};

use super::files::{ASKS, TAG, ask, named, unexpected};
use crate::audit::Trail;
use crate::errors::{ApiError, ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, read};
use crate::route::{Operation, Routes};
use crate::state::AppState;
use crate::wire::files::{RowsChanged, RowsRequest};

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary, example: &[(&str, Value)]| {
        let mut body = json!({"path": examples::FILE});
        for (name, value) in example {
            body[*name] = value.clone();
        }
        Operation::new(method, path, id, TAG, summary)
            .writes()
            .takes::<RowsRequest>()
            .example(body)
            .answers::<RowsChanged>(200)
            .matches()
            .header("ETag", "names the file as it is now")
            .fails(ASKS)
            .fails(&[Code::FileChanged, Code::ValueRefused, Code::PermissionDenied])
    };
    let edits = ("edits", json!([{"rowId": 0, "changes": {"name": "Ada"}}]));
    let inserts = ("inserts", json!([{"values": {"id": 9, "name": "Grace", "balance": "12.50"}}]));
    let deletes = ("deletes", json!([{"rowId": 1}]));
    let all = [edits.clone(), inserts.clone(), deletes.clone()];
    Routes::default()
        .add(op("post", "/files/rows/apply", "applyFileRows", "Edit, insert and delete rows of one file, all or none", &all), post(apply))
        .add(op("post", "/files/rows/insert", "insertFileRows", "Add rows to one file, all or none", &[inserts]), post(insert))
        .add(op("patch", "/files/rows/edit", "editFileRows", "Edit rows of one file, all or none", &[edits]), patch(edit))
        .add(op("delete", "/files/rows/delete", "deleteFileRows", "Delete rows of one file, all or none", &[deletes]), delete(remove))
}

async fn apply(State(state): State<AppState>, headers: HeaderMap, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Response> {
    change(&state, &headers, &trail, read(body)?).await
}

async fn insert(State(state): State<AppState>, headers: HeaderMap, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: RowsRequest = read(body)?;
    only("inserts", &request)?;
    change(&state, &headers, &trail, request).await
}

async fn edit(State(state): State<AppState>, headers: HeaderMap, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: RowsRequest = read(body)?;
    only("edits", &request)?;
    change(&state, &headers, &trail, request).await
}

async fn remove(State(state): State<AppState>, headers: HeaderMap, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: RowsRequest = read(body)?;
    only("deletes", &request)?;
    change(&state, &headers, &trail, request).await
}

/// A path for one kind of change takes no other.
fn only(wanted: &str, request: &RowsRequest) -> ApiResult<()> {
    let given = [("edits", request.edits.len()), ("inserts", request.inserts.len()), ("deletes", request.deletes.len())];
    match given.into_iter().find(|(name, count)| *name != wanted && *count > 0) {
        Some((name, _)) => Err(ApiError::invalid(name, format!("this request takes `{wanted}` only; `/files/rows/apply` takes all"))),
        None => Ok(()),
    }
}

async fn change(state: &AppState, headers: &HeaderMap, trail: &Trail, request: RowsRequest) -> ApiResult<Response> {
    let found = named(state, headers, &request.path, request.format, request.connection_id.as_deref()).await?;
    if !found.is_single {
        return Err(ApiError::new(Code::NotSupported, "only single files can be changed, not folders, patterns or manifests")
            .detail("field", "path"));
    }
    trail.object(request.path.as_str());
    let (updated, inserted, deleted) = (request.edits.len(), request.inserts.len(), request.deletes.len());
    if updated + inserted + deleted == 0 {
        return Err(ApiError::invalid("edits", "there is nothing to change"));
    }
    let wanted = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok()).map(|text| text.trim().trim_matches('"').to_owned());
    let change = FileChange {
        edits: request.edits.into_iter().map(|edit| (edit.row_id, edit.changes)).collect(),
        inserts: request.inserts.into_iter().map(|insert| insert.values).collect(),
        deletes: request.deletes.into_iter().map(|delete| delete.row_id).collect(),
        // What is changed is what is there now, if the client does not say what it has seen.
        etag: wanted.filter(|etag| etag != "*").or(found.etag),
    };
    match ask(state, FileRequest::Rewrite { files: found.files, change }).await? {
        FileAnswer::Rewritten { etag } => {
            trail.rows((updated + inserted + deleted) as u64);
            let body = Json(RowsChanged { status: "success", updated, inserted, deleted });
            Ok(([(header::ETAG, format!("\"{etag}\""))], body).into_response())
        }
        _ => Err(unexpected()),
    }
}
