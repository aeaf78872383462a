//! Rows of tables and views: pages, counts, statistics, changes.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::routing::{delete, get, patch, post};
use millrace_core::explore::{ChangeRequest, ChangedRows, OrderBy, PageRequest, RowChanges, Summary, SummaryRequest, checked_condition};
use millrace_core::files::FilePage;
use millrace_core::json_rows::JsonRows;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::structure::{ASKS, answer};
use crate::audit::Trail;
use crate::catalogs::{self, Topic};
use crate::errors::{ApiError, ApiResult, Code};
use crate::explorers::within;
use crate::extract::{JsonBody, Params, read};
use crate::folders;
use crate::param::{MOST, Param};
use crate::place::Place;
use crate::route::{Operation, Routes};
use crate::sql::{self, Purpose, Ran};
use crate::state::AppState;
use crate::wire::data::{
    Count, DEFAULT_LIMIT, DataParams, DeleteRequest, EditRequest, Edited, InsertRequest, Inserted, MAX_LIMIT, OnConflict, RowsDeleted,
    SummaryBody, TableData, TableSummary, check_size,
};

const TAG: &str = "data";
/// How long a page may take.
const PAGE: Duration = Duration::from_secs(60);
/// The rows of a page are collected before they are sent, and may be so many bytes of text.
const MOST_BYTES: usize = 64 << 20;
/// How long counting and statistics may take.
const LONG: Duration = Duration::from_secs(120);
/// How long changes may take.
const CHANGE: Duration = Duration::from_secs(30);

const QUERY: &[Param] = &[
    Param::text("schema", "the object's schema; the engine's default if absent"),
    Param::number("limit", 0, MAX_LIMIT, "rows of the page; 100 if absent").example("50"),
    Param::number("offset", 0, MOST, "rows to skip; deep pages are quicker with `after`"),
    Param::text("after", "the `nextCursor` of the page before"),
    Param::text("order_by", "columns, separated by commas; a name with a comma in double quotes"),
    Param::text("order_dir", "`ASC` or `DESC` for each of them"),
    Param::text("order_nulls", "`FIRST` or `LAST` for each of them; the engine's habit if absent"),
    Param::text("where", "a condition in the engine's dialect, without the word WHERE"),
    Param::flag("skip_count", "do not count; `total_count` is 0 then"),
    Param::number("max_rows", 0, MOST, "the rows that paging can reach at all; 0, as if absent: all"),
    Param::one_of(
        "numbers",
        &["safe", "exact"],
        "`safe`: numbers that a double cannot carry are strings (the default); `exact`: they stay numbers",
    ),
    Param::text("tabId", "the client's tab, for records of statements"),
];
const COUNT_QUERY: &[Param] = &[
    Param::text("schema", "the object's schema; the engine's default if absent"),
    Param::text("where", "a condition in the engine's dialect, without the word WHERE"),
    Param::text("tabId", "the client's tab, for records of statements"),
];
const SUMMARY_QUERY: &[Param] = &[
    Param::text("schema", "the object's schema; the engine's default if absent"),
    Param::flag("refresh", "make them anew, whatever is remembered"),
];
const CHANGES: &[Code] = &[
    Code::InvalidJson,
    Code::BodyTooLarge,
    Code::Conflict,
    Code::PreconditionFailed,
    Code::ConstraintViolated,
    Code::ValueRefused,
    Code::PermissionDenied,
    Code::NotSupported,
    Code::ObjectMissing,
];

pub(super) fn routes() -> Routes {
    let op = |method, path, id, summary| {
        Operation::new(method, path, id, TAG, summary).fails(ASKS).fails(&[Code::ObjectMissing, Code::StatementRefused])
    };
    let summarizes = |operation: Operation| {
        operation
            .reads()
            .query(SUMMARY_QUERY)
            .takes::<SummaryBody>()
            .may_be_empty()
            .example(json!({"samplePercent": 25}))
            .answers::<TableSummary>(200)
    };
    Routes::default()
        .add(
            op("get", "/connections/{id}/databases/{db}/tables/{table}/data", "getTableData", "A page of a table's rows")
                .query(QUERY)
                .answers::<TableData>(200),
            get(table_data),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/views/{view}/data", "getViewData", "A page of a view's rows")
                .query(QUERY)
                .answers::<TableData>(200),
            get(view_data),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/tables/{table}/count", "countTable", "Count a table's rows exactly")
                .query(COUNT_QUERY)
                .answers::<Count>(200),
            get(count),
        )
        .add(
            op("get", "/connections/{id}/databases/{db}/views/{view}/count", "countView", "Count a view's rows exactly")
                .query(COUNT_QUERY)
                .answers::<Count>(200),
            get(count),
        )
        .add(
            summarizes(op(
                "post",
                "/connections/{id}/databases/{db}/tables/{table}/summary",
                "summarizeTable",
                "Statistics of each column of a table or view",
            )),
            post(summary),
        )
        .add(
            summarizes(op(
                "post",
                "/connections/{id}/databases/{db}/views/{view}/summary",
                "summarizeView",
                "Statistics of each column of a view",
            )),
            post(summary),
        )
        .join(changes())
}

fn changes() -> Routes {
    let op = |method, path, id, summary| Operation::new(method, path, id, TAG, summary).writes().fails(ASKS).fails(CHANGES);
    let deletes = json!({"deletes": [{"keys": {"id": 2}}]});
    Routes::default()
        .add(
            op("post", "/connections/{id}/databases/{db}/tables/{table}/rows/insert", "insertRows", "Add rows, all or none")
                .takes::<InsertRequest>()
                .example(json!({"inserts": [{"values": {"name": "Ada", "balance": "12.50"}}]}))
                .answers::<Inserted>(200)
                .once(),
            post(insert),
        )
        .add(
            op("patch", "/connections/{id}/databases/{db}/tables/{table}/rows/edit", "editRows", "Change rows by their keys, all or none")
                .takes::<EditRequest>()
                .example(json!({"edits": [{"keys": {"id": 1}, "changes": {"name": "Ada"}}]}))
                .answers::<Edited>(200),
            patch(edit),
        )
        .add(
            op(
                "delete",
                "/connections/{id}/databases/{db}/tables/{table}/rows/delete",
                "deleteRows",
                "Delete rows by their keys, all or none",
            )
            .takes::<DeleteRequest>()
            .example(deletes)
            .answers::<RowsDeleted>(200),
            delete(remove),
        )
        .add(
            op(
                "post",
                "/connections/{id}/databases/{db}/tables/{table}/rows/delete",
                "deleteRowsByPost",
                "As `deleteRows`, for clients that cannot send a body with DELETE",
            )
            .takes::<DeleteRequest>()
            .example(json!({"deletes": [{"keys": {"id": 3}}]}))
            .answers::<RowsDeleted>(200),
            post(remove),
        )
}

async fn table_data(state: State<AppState>, place: Place, params: Params<DataParams>) -> ApiResult<Json<TableData>> {
    Ok(Json(rows_of(&state, &place, &params.0, true).await?))
}

async fn view_data(state: State<AppState>, place: Place, params: Params<DataParams>) -> ApiResult<Json<TableData>> {
    Ok(Json(rows_of(&state, &place, &params.0, false).await?))
}

/// A page of a table's or view's rows.
pub(crate) async fn rows_of(state: &AppState, place: &Place, params: &DataParams, is_editable: bool) -> ApiResult<TableData> {
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT);
    if limit > MAX_LIMIT {
        return Err(ApiError::invalid("limit", format!("a page has at most {MAX_LIMIT} rows")).detail("value", limit));
    }
    let order = params.order()?;
    let reachable = if params.max_rows > 0 { params.max_rows } else { u64::MAX };
    if folders::is_folder(place) {
        let limit = limit.min(reachable.saturating_sub(params.offset));
        return rows_of_files(state, place, params, limit, order).await;
    }
    let (after, given) = params.cursor(&order)?.map_or((None, params.offset), |(cursor, given)| (Some(cursor), given));
    let limit = limit.min(reachable.saturating_sub(given));
    let condition = params.condition().map(|text| checked_condition(text, place.has_backslash_escapes())).transpose()?;
    let request = PageRequest {
        object: place.object(),
        limit,
        offset: params.offset,
        after,
        order,
        condition: condition.map(str::to_owned),
        is_editable,
    };
    let mut rows = JsonRows::new(params.numbers()?).at_most(params.most_bytes.unwrap_or(MOST_BYTES));
    if is_editable {
        rows = rows.with_etags();
    }
    let page = async {
        let mut lease = place.lease(state).await?;
        let started = Instant::now();
        let page = within(PAGE, lease.explorer()?.page(&request, &mut rows)).await;
        let page = lease.settle(page);
        let outcome = page.as_ref().map(|_| rows.count()).map_err(|error| error.message().to_owned());
        record(state, place, &mut lease, Purpose::Data, params.tab.as_deref(), started, outcome).await;
        Ok::<_, ApiError>(page?)
    };
    let total = async {
        if params.skip_count || limit == 0 && params.max_rows > 0 {
            return Ok(0);
        }
        counted(state, place, condition, params.tab.as_deref()).await.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
    };
    let (page, total) = tokio::try_join!(page, total)?;
    let total_count = if params.max_rows > 0 { total.min(i64::try_from(params.max_rows).unwrap_or(i64::MAX)) } else { total };
    let text = format!("[{}]", rows.take());
    let raw = RawValue::from_string(text).map_err(no_json)?;
    let behind = given.saturating_add(rows.count());
    Ok(TableData {
        column_types: page.columns.iter().map(|column| column.native_type.clone()).collect(),
        columns: page.columns.into_iter().map(|column| column.name).collect(),
        count: rows.count(),
        etags: rows.take_etags(),
        rows: raw,
        total_count,
        limit,
        offset: params.offset,
        status: "success",
        // A page without rows ends nowhere, and behind the last row that can be reached there is no page.
        next_cursor: page.next.filter(|_| rows.count() > 0 && behind < reachable).map(|cursor| params.seal(cursor, behind)),
    })
}

/// A page of rows of files, each with its ordinal as the last column.
async fn rows_of_files(state: &AppState, place: &Place, params: &DataParams, limit: u64, order: Vec<OrderBy>) -> ApiResult<TableData> {
    if params.after.is_some() {
        return Err(ApiError::new(Code::NotSupported, "pages of files begin at `offset`").detail("field", "after"));
    }
    let with_total = !params.skip_count;
    let page = FilePage { limit, offset: params.offset, order, condition: params.condition().map(str::to_owned), with_total };
    let (found, etag) = folders::page(state, place, page).await?;
    let total = found.total.map_or(0, |total| i64::try_from(total).unwrap_or(i64::MAX));
    let total_count = if params.max_rows > 0 { total.min(i64::try_from(params.max_rows).unwrap_or(i64::MAX)) } else { total };
    let count = found.rows.len();
    let rows = found.rows.into_iter().zip(found.ordinals).map(|(mut row, ordinal)| {
        row.push(ordinal.into());
        row
    });
    let (mut columns, mut column_types): (Vec<_>, Vec<_>) =
        found.columns.into_iter().map(|column| (column.name, column.native_type)).unzip();
    columns.push(folders::ORDINAL.to_owned());
    column_types.push("BIGINT".to_owned());
    let text = serde_json::to_string(&rows.collect::<Vec<Vec<Value>>>()).map_err(no_json)?;
    Ok(TableData {
        columns,
        column_types,
        rows: RawValue::from_string(text).map_err(no_json)?,
        count: count as u64,
        etags: etag.map_or_else(Vec::new, |etag| vec![etag; count]),
        total_count,
        limit,
        offset: params.offset,
        status: "success",
        next_cursor: None,
    })
}

fn no_json(error: serde_json::Error) -> millrace_core::Error {
    millrace_core::Error::internal("rows have no JSON form").because(error)
}

async fn count(State(state): State<AppState>, place: Place, Params(params): Params<DataParams>) -> ApiResult<Json<Count>> {
    if folders::is_folder(&place) {
        return Ok(Json(Count { count: folders::count(&state, &place, params.condition()).await?, status: "success" }));
    }
    let condition = params.condition().map(|text| checked_condition(text, place.has_backslash_escapes())).transpose()?;
    let count = counted(&state, &place, condition, params.tab.as_deref()).await?;
    Ok(Json(Count { count, status: "success" }))
}

async fn counted(state: &AppState, place: &Place, condition: Option<&str>, tab: Option<&str>) -> ApiResult<u64> {
    let object = place.object();
    let mut lease = place.lease(state).await?;
    let started = Instant::now();
    let count = within(LONG, lease.explorer()?.count(&object, condition)).await;
    let count = lease.settle(count);
    let outcome = count.as_ref().copied().map_err(|error| error.message().to_owned());
    record(state, place, &mut lease, Purpose::Count, tab, started, outcome).await;
    Ok(count?)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refresh {
    refresh: bool,
}

async fn summary(
    State(state): State<AppState>,
    place: Place,
    Params(asked): Params<Refresh>,
    JsonBody(body): JsonBody,
) -> ApiResult<axum::response::Response> {
    let body: SummaryBody = if body.is_null() { SummaryBody::default() } else { read(body)? };
    let percent = body.sample_percent.filter(|percent| *percent != 100.0);
    if percent.is_some_and(|percent| !(1.0..100.0).contains(&percent)) {
        return Err(ApiError::invalid("samplePercent", "a sample is 1 to 100 percent of the rows"));
    }
    let request = SummaryRequest { object: place.object(), sample_percent: percent };
    let topic = Topic::Summary(place.object(), percent.map(|percent| (percent * 1000.0) as u64));
    let make = async {
        let started = Instant::now();
        let summary = summarized(&state, &place, &request).await?;
        Ok(TableSummary {
            table: request.object.name.clone(),
            schema: request.object.schema.clone(),
            database: place.database.clone(),
            row_count: summary.row_count,
            column_count: summary.columns.len(),
            columns: summary.columns,
            execution_time_ms: started.elapsed().as_millis() as u64,
            sampled: percent.is_some(),
            sample_percent: percent,
            status: "success",
            cached_at: crate::wire::streams::iso(chrono::Utc::now().timestamp_millis()),
        })
    };
    Ok(answer(state.catalogs.get(&place.connection, place.database.as_deref(), topic, asked.refresh, make).await?))
}

async fn summarized(state: &AppState, place: &Place, request: &SummaryRequest) -> millrace_core::Result<Summary> {
    if folders::is_folder(place) {
        return folders::summary(state, place, request.sample_percent).await;
    }
    let mut lease = state.explorers.lease(&place.connection, place.database.as_deref()).await?;
    let started = Instant::now();
    let summary = within(LONG, lease.explorer()?.summarize(request)).await;
    let summary = lease.settle(summary);
    let outcome = summary.as_ref().map(|summary| summary.row_count).map_err(|error| error.message().to_owned());
    record(state, place, &mut lease, Purpose::Utility, None, started, outcome).await;
    summary
}

async fn insert(State(state): State<AppState>, place: Place, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Json<Inserted>> {
    let request: InsertRequest = read(body)?;
    check_size("inserts", request.inserts.len())?;
    let rows = request.inserts.into_iter().map(|row| row.values).collect();
    let changes = match request.on_conflict {
        OnConflict::Error => RowChanges::Insert(rows),
        OnConflict::Update => RowChanges::Upsert(rows),
    };
    let changed = change(&state, &place, request.schema, changes).await?;
    trail.rows(changed.count);
    Ok(Json(Inserted { status: "success", inserted: changed.count, rows: changed.rows }))
}

async fn edit(State(state): State<AppState>, place: Place, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Json<Edited>> {
    let request: EditRequest = read(body)?;
    check_size("edits", request.edits.len())?;
    let changed = change(&state, &place, request.schema, RowChanges::Edit(request.edits)).await?;
    trail.rows(changed.count);
    Ok(Json(Edited { status: "success", updated: changed.count, rows: changed.rows }))
}

async fn remove(State(state): State<AppState>, place: Place, trail: Trail, JsonBody(body): JsonBody) -> ApiResult<Json<RowsDeleted>> {
    let request: DeleteRequest = read(body)?;
    check_size("deletes", request.deletes.len())?;
    let changed = change(&state, &place, request.schema, RowChanges::Delete(request.deletes)).await?;
    trail.rows(changed.count);
    Ok(Json(RowsDeleted { status: "success", deleted: changed.count }))
}

async fn change(state: &AppState, place: &Place, schema: Option<String>, changes: RowChanges) -> ApiResult<ChangedRows> {
    if folders::is_folder(place) {
        let changed = folders::change(state, place, changes).await?;
        catalogs::changed(state, place.connection.id.as_str());
        return Ok(changed);
    }
    let request = ChangeRequest { table: place.object_in(schema)?, changes };
    let mut lease = place.lease(state).await?;
    let started = Instant::now();
    let changed = within(CHANGE, lease.explorer()?.change(&request)).await;
    let changed = lease.settle(changed);
    let outcome = changed.as_ref().map(|changed| changed.count).map_err(|error| error.message().to_owned());
    record(state, place, &mut lease, Purpose::Dml, None, started, outcome).await;
    Ok(changed?)
}

/// Publishes the statements of a call, the last one with its outcome.
pub(super) async fn record(
    state: &AppState,
    place: &Place,
    lease: &mut crate::explorers::Lease,
    purpose: Purpose,
    tab: Option<&str>,
    started: Instant,
    outcome: Result<u64, String>,
) {
    let object = place.object();
    for sql in lease.statements() {
        let ran = Ran {
            connection: place.connection.id.as_str(),
            database: place.database.as_deref().unwrap_or_default(),
            schema: object.schema.as_deref(),
            table: Some(object.name.as_str()).filter(|name| !name.is_empty()),
            tab,
            purpose,
            sql: &sql,
        };
        sql::record_at(state, place.connection.engine, ran, started.elapsed().as_millis() as u64, outcome.clone()).await;
    }
}
