//! The server's folders.

use std::path::PathBuf;

use axum::Json;
use axum::extract::State;
use axum::routing::{get, post};
use millrace_connectors::file;
use millrace_core::{Error, Kind};

use super::files::base_of;
use crate::errors::{ApiResult, Code};
use crate::extract::{JsonBody, Params, read};
use crate::param::Param;
use crate::route::{Operation, Routes};
use crate::state::AppState;
use crate::wire::fs::{ListParams, Listing, PathRequest, Writable};
use serde_json::json;

const TAG: &str = "filesystem";

/// The folders that an operator opens, separated by colons.
pub fn named_roots() -> Vec<PathBuf> {
    let named = std::env::var_os("MILLRACE_FILE_ROOTS").unwrap_or_default();
    std::env::split_paths(&named).filter(|path| path.is_absolute()).collect()
}

pub(super) fn routes() -> Routes {
    let fails = &[Code::ValidationFailed, Code::NotFound, Code::PathRefused];
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(fails);
    Routes::default()
        .add(
            op("get", "/fs/list", "listFolder", "What a folder of the server holds")
                .query(&[
                    Param::text("path", "absolute; the first root, which is the home directory, if absent"),
                    Param::text("connectionType", "only folders and files of formats that such connections read"),
                    Param::text("connectionId", "a connection of type `files`; its folder if there is no path"),
                ])
                .answers::<Listing>(200),
            get(list),
        )
        .add(
            op("post", "/fs/writable", "isWritable", "Whether a folder or file of the server can be written")
                .reads()
                .takes::<PathRequest>()
                .example(json!({"path": "/home/ada"}))
                .answers::<Writable>(200)
                .fails(&[Code::InvalidJson]),
            post(writable),
        )
        .add(Operation::new("get", "/fs/roots", "listRoots", TAG, "Folders that this server opens").answers::<Vec<String>>(200), get(roots))
}

async fn list(State(state): State<AppState>, Params(params): Params<ListParams>) -> ApiResult<Json<Listing>> {
    Ok(Json(listing_of(&state, params).await?))
}

/// What a folder holds.
pub(crate) async fn listing_of(state: &AppState, params: ListParams) -> ApiResult<Listing> {
    let base = base_of(state, params.connection_id.as_deref()).await?;
    let first = state.files.allowed.first().map(|root| root.display().to_string());
    let path = params.path.filter(|path| !path.is_empty()).or_else(|| base.clone()).or(first).unwrap_or_else(|| "/".to_owned());
    let found = file::resolve(&state.files, &path, base.as_deref())?;
    let only_data = params.connection_type.is_some_and(|kind| !kind.is_empty());
    let (roots, folder) = (state.files.clone(), found.clone());
    let entries = blocking(move || file::list(&roots, &folder, only_data)).await?;
    Ok(Listing { path: found.display().to_string(), entries: entries.into_iter().map(Into::into).collect() })
}

async fn writable(State(state): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<Writable>> {
    let request: PathRequest = read(body)?;
    let found = match file::resolve(&state.files, &request.path, None) {
        // What is not there yet can be made if its folder can be written.
        Err(error) if error.kind() == Kind::NotFound => {
            let parent = std::path::Path::new(&request.path).parent().map(|parent| parent.display().to_string());
            file::resolve(&state.files, &parent.unwrap_or_default(), None)
        }
        found => found,
    };
    let outcome = match found {
        Ok(path) => blocking(move || file::is_writable(&path)).await,
        Err(error) => Err(error),
    };
    Ok(Json(Writable { ok: outcome.is_ok(), error: outcome.err().map(|error| error.chain()) }))
}

async fn roots(State(state): State<AppState>) -> Json<Vec<String>> {
    Json(state.files.allowed.iter().filter(|root| root.is_dir()).map(|root| root.display().to_string()).collect())
}

/// Runs what waits for a disk beside the requests.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> millrace_core::Result<T> + Send + 'static,
) -> millrace_core::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal("work on files broke down").because(error))?
}
