//! Stream configs on the wire: the rules that the types cannot say.

use millrace_core::config::{StreamConfig, StreamSpec};
use millrace_core::plan::{ColumnPlan, Plan, TablePlan};
use millrace_core::validate::check;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::connections::immutable;
use crate::errors::{ApiError, ApiResult};
use crate::extract::read;

/// A page of configs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfigList {
    pub(crate) items: Vec<StreamConfig>,
    /// All configs.
    pub(crate) total: usize,
    /// Those that match the search.
    pub(crate) filtered: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) search: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<usize>,
}

/// How many were deleted.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Deleted {
    pub(crate) deleted: usize,
}

/// What a start would do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlanResponse {
    tables: Vec<PlannedTable>,
    /// What the user should know and belongs to no table.
    notes: Vec<String>,
}

/// What a start would do with one table.
#[derive(Debug, Serialize, JsonSchema)]
struct PlannedTable {
    /// Name at the source.
    name: String,
    /// Name at the target, with its schema.
    target: String,
    columns: Vec<PlannedColumn>,
    /// What cannot be carried over; any entry keeps the config from starting.
    refusals: Vec<String>,
    notes: Vec<String>,
}

/// What a start would do with one column.
#[derive(Debug, Serialize, JsonSchema)]
struct PlannedColumn {
    name: String,
    /// Type as the source spells it.
    from: String,
    /// Type as the target spells it.
    to: String,
    /// `exact`, `widened`, `policy(error)`, `policy(null)`, `policy(clamp)`, `policy(text)` or `refused`.
    verdict: String,
    reason: String,
}

impl From<&Plan> for PlanResponse {
    fn from(plan: &Plan) -> Self {
        let column = |column: &ColumnPlan| PlannedColumn {
            name: column.source.clone(),
            from: column.from.clone(),
            to: column.to.clone(),
            verdict: column.verdict.to_string(),
            reason: column.reason.clone(),
        };
        let table = |table: &TablePlan| PlannedTable {
            name: table.source.name.name.clone(),
            target: table.target.to_string(),
            columns: table.columns.iter().map(column).collect(),
            refusals: table
                .refusals
                .iter()
                .cloned()
                .chain(plan.obstacles.iter().filter(|obstacle| obstacle.table == table.target.name).map(|obstacle| obstacle.text.clone()))
                .collect(),
            notes: table.source.notes.iter().chain(&table.notes).cloned().collect(),
        };
        Self { tables: plan.tables.iter().map(table).collect(), notes: plan.notes.clone() }
    }
}

/// Reads a config's definition. `stored` is what an update replaces.
pub(crate) fn parse(body: Value, stored: Option<&StreamConfig>) -> ApiResult<StreamSpec> {
    let Value::Object(mut fields) = body else { return Err(ApiError::invalid("", "the body must be a JSON object")) };
    if let Some(stored) = stored {
        immutable(&fields, "id", &json!(stored.id))?;
        immutable(&fields, "created", &json!(stored.created))?;
    }
    fields.remove("id");
    fields.remove("created");
    // An empty object of limits or options means the same as none.
    fields.retain(|_, value| !value.is_null());
    let forms = fields.get("target").and_then(|target| target.get("spec")).and_then(Value::as_object);
    if forms.is_some_and(|forms| forms.values().filter(|form| !form.is_null()).count() != 1) {
        return Err(ApiError::invalid("target.spec", "the target must have exactly one form, such as `db`"));
    }
    let spec: StreamSpec = read(Value::Object(fields))?;
    check(&spec)?;
    if let Some(stored) = stored {
        let identity = |spec: &StreamSpec| -> Vec<_> {
            spec.source.connections.iter().map(|source| (source.alias.clone(), source.connection_id.clone())).collect()
        };
        if identity(&spec) != identity(&stored.spec) {
            return Err(ApiError::invalid("source.connections", "a config's source connections cannot be changed; make a new config"));
        }
        if spec.target.id != stored.spec.target.id {
            return Err(ApiError::invalid("target.id", "a config's target cannot be changed; make a new config"));
        }
    }
    Ok(spec)
}
