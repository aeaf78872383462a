//! Stream configs on the wire: the rules that the types cannot say.

use std::collections::BTreeSet;

use millrace_core::config::{Mode, SourceConnection, StreamConfig, StreamSpec, TargetSpec, WriteMode};
use millrace_core::plan::{ColumnPlan, Plan, TablePlan};
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

fn check(spec: &StreamSpec) -> ApiResult<()> {
    if spec.name.trim().is_empty() {
        return Err(ApiError::invalid("name", "the name must not be blank"));
    }
    if spec.source.connections.is_empty() {
        return Err(ApiError::invalid("source.connections", "a config needs at least one source connection"));
    }
    let mut aliases = BTreeSet::new();
    for (index, source) in spec.source.connections.iter().enumerate() {
        check_source(spec, index, source)?;
        if spec.source.connections.len() > 1 && !aliases.insert(source.alias.as_deref().unwrap_or_default()) {
            return Err(ApiError::invalid(format!("source.connections[{index}].alias"), "aliases must be unique"));
        }
    }
    if let Some(options) = &spec.source.options
        && options.data_bundle_size == Some(0)
    {
        return Err(ApiError::invalid("source.options.dataBundleSize", "`dataBundleSize` must be greater than 0"));
    }
    if let (Mode::Cdc, TargetSpec::Db(db)) = (spec.mode, &spec.target.spec)
        && db.write_mode.is_some_and(|mode| mode != WriteMode::Upsert)
    {
        return Err(ApiError::invalid("target.spec.db.writeMode", "change data capture writes with `upsert` only"));
    }
    if let TargetSpec::Db(db) = &spec.target.spec
        && db.database.trim().is_empty()
    {
        return Err(ApiError::invalid("target.spec.db.database", "the target database must be named"));
    }
    if let TargetSpec::Db(db) = &spec.target.spec
        && db.schema.as_ref().is_some_and(|schema| schema.trim().is_empty())
    {
        return Err(ApiError::invalid("target.spec.db.schema", "the target schema must not be blank"));
    }
    check_rules(spec)?;
    if spec.parallelism == Some(0) {
        return Err(ApiError::invalid("parallelism", "`parallelism` must be greater than 0"));
    }
    Ok(())
}

fn check_rules(spec: &StreamSpec) -> ApiResult<()> {
    for (index, rule) in spec.plan.iter().flat_map(|plan| &plan.rules).enumerate() {
        let at = |field: &str| format!("plan.rules[{index}]{field}");
        if rule.table.is_none() && rule.column.is_none() && rule.source_type.is_none() {
            return Err(ApiError::invalid(at(""), "a rule names a table, a column or a type"));
        }
        if rule.to.is_none() && rule.on_loss.is_none() {
            return Err(ApiError::invalid(at(""), "a rule says `to` or `onLoss`"));
        }
        if rule.to.as_ref().is_some_and(|to| to.trim().is_empty()) {
            return Err(ApiError::invalid(at(".to"), "the target type must not be blank"));
        }
    }
    Ok(())
}

fn check_source(spec: &StreamSpec, index: usize, source: &SourceConnection) -> ApiResult<()> {
    let at = |field: &str| format!("source.connections[{index}].{field}");
    if let Some(alias) = &source.alias
        && !is_alias(alias)
    {
        return Err(ApiError::invalid(at("alias"), "an alias is a letter, then letters, digits and underscores"));
    }
    if spec.source.connections.len() > 1 && source.alias.is_none() {
        return Err(ApiError::invalid(at("alias"), "with several sources each needs an alias"));
    }
    for (t, table) in source.tables.iter().flatten().enumerate() {
        if table.name.is_empty() {
            return Err(ApiError::invalid(at(&format!("tables[{t}].name")), "the table's name must not be empty"));
        }
        if source.tables.iter().flatten().take(t).any(|other| other.name == table.name) {
            return Err(ApiError::invalid(at(&format!("tables[{t}].name")), "the table is selected twice"));
        }
    }
    for (q, query) in source.queries.iter().flatten().enumerate() {
        if query.name.trim().is_empty() || query.query.trim().is_empty() {
            return Err(ApiError::invalid(at(&format!("queries[{q}]")), "a query needs a name and SQL text"));
        }
        if spec.mode == Mode::Cdc {
            return Err(ApiError::invalid(at("queries"), "queries are for `convert` only"));
        }
        if source.queries.iter().flatten().take(q).any(|other| other.name == query.name) {
            return Err(ApiError::invalid(at(&format!("queries[{q}].name")), "two queries have the same name"));
        }
    }
    if (source.s3.is_some() || source.files.is_some()) && (source.database.is_some() || source.tables.is_some() || source.queries.is_some())
    {
        return Err(ApiError::invalid(at("database"), "file and S3 sources have no database, tables or queries"));
    }
    if let Some(s3) = &source.s3 {
        check_s3(s3, &at("s3"))?;
    }
    if let Some(files) = &source.files
        && (files.base_path.is_empty() || files.paths.is_empty())
    {
        return Err(ApiError::invalid(at("files"), "a file source needs `basePath` and at least one path"));
    }
    Ok(())
}

fn check_s3(s3: &millrace_core::config::S3Selection, at: &str) -> ApiResult<()> {
    let has_list = !s3.prefixes.is_empty() || !s3.objects.is_empty();
    if s3.bucket.is_empty() {
        return Err(ApiError::invalid(format!("{at}.bucket"), "the bucket must be named"));
    }
    if s3.prefixes.iter().any(|prefix| !prefix.ends_with('/')) {
        return Err(ApiError::invalid(format!("{at}.prefixes"), "a prefix ends with `/`"));
    }
    if s3.objects.iter().any(|object| object.ends_with('/')) {
        return Err(ApiError::invalid(format!("{at}.objects"), "an object does not end with `/`"));
    }
    if s3.manifest_path.is_some() == has_list {
        return Err(ApiError::invalid(format!("{at}.manifestPath"), "give prefixes and objects, or a manifest"));
    }
    Ok(())
}

/// A letter, then letters, digits and underscores.
pub(crate) fn is_alias(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
