//! Object stores: sessions, buckets, listings, manifests.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use millrace_connectors::s3::{self, Condition, ObjectPath, Page, Paging, Store};
use millrace_core::Kind;
use millrace_core::objects::{Manifest, SettingNames};
use serde_json::json;

use crate::errors::{ApiError, ApiResult, Code};
use crate::examples;
use crate::extract::{JsonBody, Params, read};
use crate::objects::{self, Site};
use crate::param::Param;
use crate::route::{Effect, Operation, Routes};
use crate::state::AppState;
use crate::wire::s3::{
    BucketCreated, BucketRequest, Buckets, Configured, CreateManifest, EffectiveConfig, FilterManifest, ListParams, ManifestResponse,
    MergeManifests, ObjectListing, PathParams, PathValidation, SessionConfig, WriteManifest,
};

const TAG: &str = "objects";
/// Objects of one part of a listing.
const MOST_KEYS: u32 = 1000;
/// Begins the tokens of listings that a manifest gives; what follows is the place in it.
const MANIFEST_TOKEN: &str = "millrace-manifest:";
/// Manifests that one request merges.
const MOST_MERGED: usize = 100;
const ASKS: &[Code] = &[
    Code::ValidationFailed,
    Code::NotFound,
    Code::NotSupported,
    Code::LoginRefused,
    Code::Untrusted,
    Code::PermissionDenied,
    Code::Unreachable,
    Code::ConnectionLost,
    Code::ProtocolViolated,
    Code::Exhausted,
];
const CONNECTION: Param = Param::text("connectionId", "a connection of type `s3`; the client's session if absent").example(examples::STORE);
const REFRESH: Param = Param::flag("refresh", "accepted; the store is always asked");

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(ASKS);
    let body = |method, path, id, summary| op(method, path, id, summary).fails(&[Code::InvalidJson, Code::BodyTooLarge]);
    let example = json!({"credentialSource": "static", "endpoint": "localhost:9000", "region": "us-east-1", "urlStyle": "path", "useSSL": false,
        "credentials": {"accessKeyId": "AKEXPORTS", "secretAccessKey": "another secret"}});
    Routes::default()
        .add(
            body("post", "/files/s3/configure", "configureObjects", "Try an object store and remember it for this client")
                .effect(Effect::Operates)
                .takes::<SessionConfig>()
                .example(example)
                .answers::<Configured>(200),
            post(configure),
        )
        .add(
            op("get", "/files/s3/validate", "validateObjects", "How a path is best read")
                .query(&[
                    Param::text("path", "an object, a pattern, a prefix or a manifest; `s3://bucket/key`, or below the connection's scope")
                        .required()
                        .example(examples::MANIFEST),
                    CONNECTION,
                ])
                .answers::<PathValidation>(200),
            get(validate),
        )
        .add(
            op("get", "/files/s3/list", "listObjects", "What a bucket holds, in parts")
                .query(&[
                    Param::text("bucket", "the connection's scope if absent").example(examples::BUCKET),
                    Param::text("prefix", "only keys that begin so; the connection's scope if absent"),
                    Param::number("maxKeys", 1, MOST_KEYS as u64, "objects and prefixes of one part; 1000 if absent"),
                    Param::text("continuationToken", "`next_token` of the part before"),
                    CONNECTION,
                    Param::flag("refresh", "ask the store even if a manifest lies under the prefix"),
                    Param::flag("recursive", "`false` sums up what lies below further slashes as prefixes; true if absent"),
                ])
                .answers::<ObjectListing>(200)
                .fails(&[Code::PathRefused]),
            get(list),
        )
        .add(
            op("get", "/files/s3/buckets", "listBuckets", "Buckets that the credentials may see")
                .query(&[CONNECTION, REFRESH])
                .answers::<Buckets>(200),
            get(buckets),
        )
        .add(
            body("post", "/files/s3/buckets", "createBucket", "Make a bucket")
                .writes()
                .takes::<BucketRequest>()
                .example(json!({"bucket": "exports-2026", "connectionId": examples::STORE}))
                .answers::<BucketCreated>(201)
                .fails(&[Code::Conflict, Code::PathRefused]),
            post(create_bucket),
        )
        .join(manifests())
}

fn manifests() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).fails(ASKS).answers::<ManifestResponse>(200);
    let body = |path, id, summary| op("post", path, id, summary).fails(&[Code::InvalidJson, Code::BodyTooLarge]);
    Routes::default()
        .add(
            op("get", "/files/s3/manifest", "getManifest", "A stored manifest").header("ETag", "names the manifest as it is stored").query(
                &[
                    Param::text("path", "the manifest, or the prefix under which it lies").required().example(examples::MANIFEST),
                    CONNECTION,
                    REFRESH,
                ],
            ),
            get(manifest),
        )
        .add(
            body("/files/s3/manifests/create", "createManifest", "A manifest of these files; nothing is stored")
                .reads()
                .takes::<CreateManifest>()
                .example(json!({"files": [examples::OBJECT]})),
            post(create),
        )
        .add(
            body("/files/s3/manifests/filter", "filterManifest", "A manifest with some of its files; nothing is stored")
                .reads()
                .takes::<FilterManifest>()
                .example(json!({"pattern": "*.csv", "manifest": examples::manifest()})),
            post(filter),
        )
        .add(
            body("/files/s3/manifests/merge", "mergeManifests", "Several manifests as one; nothing is stored")
                .reads()
                .takes::<MergeManifests>()
                .example(json!({"manifests": [examples::manifest(), examples::manifest()]})),
            post(merge),
        )
        .add(
            body(
                "/files/s3/manifests/write",
                "writeManifest",
                "Store a manifest; with `If-Match` or `If-None-Match: *` only in the place of that one or none",
            )
            .writes()
            .takes::<WriteManifest>()
            .example(json!({"manifest": examples::manifest(), "outputPath": examples::MANIFEST, "connectionId": examples::STORE}))
            .header("ETag", "names the manifest as it was stored")
            .fails(&[Code::PreconditionFailed, Code::PathRefused]),
            post(write),
        )
}

async fn configure(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<Configured>> {
    let (spec, limits, threads) = read::<SessionConfig>(body)?.read()?;
    let mut access = s3::access(&spec, SettingNames::Session)?;
    access.limits = limits;
    Store::new(&access).check(None).await?;
    let config = EffectiveConfig::of(&access, threads);
    state.objects.keep(objects::client(&state, &headers).await, access);
    let message = "the store has accepted the credentials; requests of this client without `connectionId` go there".to_owned();
    Ok(Json(Configured { status: "success", message, config }))
}

async fn validate(
    State(state): State<AppState>,
    headers: HeaderMap,
    Params(params): Params<PathParams>,
) -> ApiResult<Json<PathValidation>> {
    let site = objects::site(&state, &headers, params.connection_id.as_deref()).await?;
    let at = site.path(&params.path)?;
    Ok(Json(s3::strategy(&site.store, &at).await?.into()))
}

async fn list(State(state): State<AppState>, headers: HeaderMap, Params(params): Params<ListParams>) -> ApiResult<Json<ObjectListing>> {
    let site = objects::site(&state, &headers, params.connection_id.as_deref()).await?;
    let (bucket, prefix) = site.part(params.bucket.as_deref(), params.prefix.as_deref())?;
    let limit = params.max_keys.unwrap_or(MOST_KEYS);
    if !(1..=MOST_KEYS).contains(&limit) {
        return Err(ApiError::invalid("maxKeys", format!("`maxKeys` lies between 1 and {MOST_KEYS}")));
    }
    let is_recursive = params.recursive.unwrap_or(true);
    let token = params.continuation_token.as_deref().filter(|token| !token.is_empty());
    let listed = match token.map(|token| token.strip_prefix(MANIFEST_TOKEN)) {
        // The first part decides who answers all parts.
        None if !params.refresh => from_manifest(&site, &bucket, &prefix, is_recursive, None, limit).await?,
        Some(Some(place)) => {
            let listed = from_manifest(&site, &bucket, &prefix, is_recursive, Some(place), limit).await?;
            Some(listed.ok_or_else(|| ApiError::invalid("continuationToken", "the manifest that gave this token is gone"))?)
        }
        _ => None,
    };
    let (page, manifest_path) = match listed {
        Some((page, path)) => (page, Some(path.to_string())),
        None => (site.store.page(&bucket, &prefix, Paging { is_recursive, limit, token }).await?, None),
    };
    Ok(Json(ObjectListing {
        count: page.objects.len() + page.prefixes.len(),
        total_size: page.objects.iter().map(|object| object.size).sum(),
        is_truncated: page.next.is_some(),
        next_token: page.next.unwrap_or_default(),
        objects: page.objects,
        prefixes: page.prefixes,
        bucket,
        prefix,
        manifest_used: manifest_path.is_some(),
        manifest_path,
    }))
}

/// The part of a listing that a manifest under the prefix gives, if there is one.
async fn from_manifest(
    site: &Site,
    bucket: &str,
    prefix: &str,
    is_recursive: bool,
    token: Option<&str>,
    limit: u32,
) -> ApiResult<Option<(Page, ObjectPath)>> {
    if !prefix.is_empty() && !prefix.ends_with('/') {
        return Ok(None);
    }
    let from = token.unwrap_or("0").parse::<usize>();
    let from = from.map_err(|_| ApiError::invalid("continuationToken", "this server did not give this token"))?;
    let Some(entry) = s3::find_manifest(&site.store, bucket, prefix).await? else { return Ok(None) };
    let path = ObjectPath::new(bucket, &entry.key)?;
    let manifest = match s3::read_manifest(&site.store, &path).await {
        Ok((manifest, _)) => manifest,
        // What has a manifest's name may be something else, or go away while it is read.
        Err(error) if matches!(error.kind(), Kind::Invalid | Kind::NotFound) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut page = s3::list_from_manifest(&manifest, bucket, prefix, is_recursive, from, limit as usize);
    page.next = page.next.map(|place| format!("{MANIFEST_TOKEN}{place}"));
    Ok(Some((page, path)))
}

async fn buckets(State(state): State<AppState>, headers: HeaderMap, Params(params): Params<ListParams>) -> ApiResult<Json<Buckets>> {
    let site = objects::site(&state, &headers, params.connection_id.as_deref()).await?;
    let buckets = site.buckets().await?;
    Ok(Json(Buckets { count: buckets.len(), buckets }))
}

async fn create_bucket(
    State(state): State<AppState>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> ApiResult<(StatusCode, Json<BucketCreated>)> {
    let request: BucketRequest = read(body)?;
    let site = objects::site(&state, &headers, request.connection_id.as_deref()).await?;
    if site.scope.bucket.as_ref().is_some_and(|scope| !scope.is_empty() && *scope != request.bucket) {
        return Err(objects::outside("bucket"));
    }
    let region = request.region.filter(|region| !region.is_empty());
    let region = site.store.create_bucket(&request.bucket, region.as_deref()).await?;
    Ok((StatusCode::CREATED, Json(BucketCreated { status: "success", bucket: request.bucket, region })))
}

async fn manifest(State(state): State<AppState>, headers: HeaderMap, Params(params): Params<PathParams>) -> ApiResult<Response> {
    let site = objects::site(&state, &headers, params.connection_id.as_deref()).await?;
    let mut at = site.path(&params.path)?;
    if at.key.is_empty() || at.key.ends_with('/') {
        let found = s3::find_manifest(&site.store, &at.bucket, &at.key).await?;
        let none = || ApiError::new(Code::NotFound, format!("there is no manifest below `{at}`")).detail("field", "path");
        at = ObjectPath::new(&at.bucket, &found.ok_or_else(none)?.key)?;
    }
    let (manifest, etag) = s3::read_manifest(&site.store, &at).await?;
    Ok(([(header::ETAG, format!("\"{etag}\""))], Json(ManifestResponse::new(manifest, None))).into_response())
}

async fn create(State(_): State<AppState>, JsonBody(body): JsonBody) -> ApiResult<Json<ManifestResponse>> {
    let request: CreateManifest = read(body)?;
    let manifest = s3::create_manifest(request.files, request.metadata, now())?;
    Ok(Json(ManifestResponse::new(manifest, None)))
}

async fn filter(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<ManifestResponse>> {
    let request: FilterManifest = read(body)?;
    let manifest = match (request.source_path, request.manifest) {
        (Some(path), None) => {
            let site = objects::site(&state, &headers, request.connection_id.as_deref()).await?;
            stored(&site, &path).await.map_err(|error| named(error, "sourcePath"))?
        }
        (None, Some(manifest)) => manifest,
        _ => return Err(ApiError::invalid("sourcePath", "give either `sourcePath` or `manifest`")),
    };
    Ok(Json(ManifestResponse::new(s3::filter_manifest(&manifest, &request.pattern)?, None)))
}

async fn merge(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Json<ManifestResponse>> {
    let request: MergeManifests = read(body)?;
    if request.source_paths.len() + request.manifests.len() > MOST_MERGED {
        return Err(ApiError::invalid("sourcePaths", format!("one request merges at most {MOST_MERGED} manifests")));
    }
    let mut all = Vec::new();
    if !request.source_paths.is_empty() {
        let site = objects::site(&state, &headers, request.connection_id.as_deref()).await?;
        for (index, path) in request.source_paths.iter().enumerate() {
            all.push(stored(&site, path).await.map_err(|error| named(error, &format!("sourcePaths[{index}]")))?);
        }
    }
    all.extend(request.manifests);
    Ok(Json(ManifestResponse::new(s3::merge_manifests(&all, now())?, None)))
}

async fn write(State(state): State<AppState>, headers: HeaderMap, JsonBody(body): JsonBody) -> ApiResult<Response> {
    let request: WriteManifest = read(body)?;
    let site = objects::site(&state, &headers, request.connection_id.as_deref()).await?;
    let at = site.path(&request.output_path).map_err(|error| named(error, "outputPath"))?;
    if !s3::is_manifest_name(&at.key) {
        let text = "manifests are known by their names: `manifest.json`, `_manifest.json`, `manifest-*.json`, or any `.json` in a folder `manifests`";
        return Err(ApiError::invalid("outputPath", text));
    }
    if request.manifest.files.is_empty() {
        return Err(ApiError::invalid("manifest.files", "a manifest lists at least one file"));
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(|text| text.trim().trim_matches('"').to_owned());
    let (if_match, if_none_match) = (header(header::IF_MATCH), header(header::IF_NONE_MATCH));
    let condition = match (&if_match, &if_none_match) {
        (Some(etag), None) if etag != "*" => Condition::Unchanged(etag),
        (None, Some(any)) if any == "*" => Condition::Absent,
        (None, None) => Condition::Always,
        _ => return Err(ApiError::invalid("If-Match", "give `If-Match` with an etag, or `If-None-Match: *`")),
    };
    let etag = s3::write_manifest(&site.store, &at, &request.manifest, condition).await?;
    let body = Json(ManifestResponse::new(request.manifest, Some(at.to_string())));
    Ok(([(header::ETAG, format!("\"{etag}\""))], body).into_response())
}

async fn stored(site: &Site, path: &str) -> ApiResult<Manifest> {
    let at = site.path(path)?;
    Ok(s3::read_manifest(&site.store, &at).await?.0)
}

/// An error about a path names the field that the path came in.
fn named(error: ApiError, field: &str) -> ApiError {
    if error.field() == Some("path") { error.detail("field", field) } else { error }
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
