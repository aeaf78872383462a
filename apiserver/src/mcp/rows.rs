//! Tools that show rows of tables and views.

use millrace_core::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bounds::{MOST_BYTES, sample};
use super::catalog::object;
use super::tool::Tool;
use crate::errors::{ApiError, ApiResult, Code};
use crate::place::{Place, PlaceNames};
use crate::routes::data::rows_of;
use crate::state::AppState;
use crate::wire::data::DataParams;

pub(super) fn tools() -> Vec<Tool> {
    vec![
        Tool::new(
            "dbconvert_preview_table",
            "Preview a table",
            "Some rows of a table, by its key unless another order is asked for.",
            table,
        ),
        Tool::new("dbconvert_preview_view", "Preview a view", "Some rows of a view.", view),
    ]
}

/// Which rows of which table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TableTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// The table's schema; the engine's default if absent.
    schema: Option<String>,
    /// The table's name.
    table: String,
    /// A condition in the engine's dialect, without the word WHERE.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// Columns to order by, separated by commas.
    order_by: Option<String>,
    /// `ASC` or `DESC` for each of them, separated by commas.
    order_dir: Option<String>,
    /// At most so many rows: 100 if absent, never more than 1000.
    limit: Option<u64>,
}

/// Which rows of which view.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ViewTakes {
    /// The connection's `id`.
    connection_id: String,
    /// The connection's default database if absent.
    database: Option<String>,
    /// The view's schema; the engine's default if absent.
    schema: Option<String>,
    /// The view's name.
    view: String,
    /// A condition in the engine's dialect, without the word WHERE.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// Columns to order by, separated by commas.
    order_by: Option<String>,
    /// `ASC` or `DESC` for each of them, separated by commas.
    order_dir: Option<String>,
    /// At most so many rows: 100 if absent, never more than 1000.
    limit: Option<u64>,
}

/// Some rows. Numbers that a double cannot carry exactly are strings.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sample {
    /// Names of the columns, in order.
    pub(super) columns: Vec<String>,
    /// Their types as the engine spells them; empty where it does not say.
    pub(super) column_types: Vec<String>,
    /// One array per row.
    pub(super) rows: Vec<Vec<Value>>,
    /// Rows answered.
    pub(super) count: usize,
    /// Whether there are more rows than these.
    pub(super) truncated: bool,
    /// At most so many rows are answered.
    pub(super) limit_applied: u64,
}

async fn table(state: AppState, takes: TableTakes) -> ApiResult<Sample> {
    let names = object("table", takes.connection_id, takes.database, takes.schema, takes.table)?;
    let wanted = Wanted { condition: takes.condition, order_by: takes.order_by, order_dir: takes.order_dir, limit: takes.limit };
    preview(&state, names, wanted).await
}

async fn view(state: AppState, takes: ViewTakes) -> ApiResult<Sample> {
    let names = object("view", takes.connection_id, takes.database, takes.schema, takes.view)?;
    let wanted = Wanted { condition: takes.condition, order_by: takes.order_by, order_dir: takes.order_dir, limit: takes.limit };
    preview(&state, names, wanted).await
}

/// Which rows are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) condition: Option<String>,
    pub(super) order_by: Option<String>,
    pub(super) order_dir: Option<String>,
    pub(super) limit: Option<u64>,
}

async fn preview(state: &AppState, names: PlaceNames, wanted: Wanted) -> ApiResult<Sample> {
    let place = Place::of(state, names).await?;
    read(state, &place, wanted).await
}

/// Some rows of a place's object. One more than wanted is asked for, which tells whether there are more.
pub(super) async fn read(state: &AppState, place: &Place, wanted: Wanted) -> ApiResult<Sample> {
    place.database_name()?;
    let limit_applied = sample(wanted.limit);
    let params = DataParams {
        limit: Some(limit_applied + 1),
        skip_count: true,
        condition: wanted.condition,
        order_by: wanted.order_by,
        order_dir: wanted.order_dir,
        most_bytes: Some(MOST_BYTES),
        ..DataParams::default()
    };
    let page = rows_of(state, place, &params, false).await?;
    if page.rows.get().len() > MOST_BYTES {
        return Err(too_large());
    }
    let mut rows: Vec<Vec<Value>> =
        serde_json::from_str(page.rows.get()).map_err(|error| Error::internal("rows have another form").because(error))?;
    let wanted = usize::try_from(limit_applied).unwrap_or(usize::MAX);
    let truncated = rows.len() > wanted;
    rows.truncate(wanted);
    Ok(Sample { columns: page.columns, column_types: page.column_types, count: rows.len(), rows, truncated, limit_applied })
}

/// Rows that no model could read.
pub(super) fn too_large() -> ApiError {
    ApiError::new(Code::Exhausted, format!("the rows are larger than {} KiB; ask for fewer", MOST_BYTES >> 10)).detail("field", "limit")
}
