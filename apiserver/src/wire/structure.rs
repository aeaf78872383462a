//! What connections contain, on the wire.

use std::collections::BTreeMap;

use millrace_core::connection::Engine;
use millrace_core::connector::DatabaseEntry;
use millrace_core::structure::{
    DatabaseStructure, ObjectName, ObjectNames, Routine, Sequence, TableDdl, TableStructure, Trigger, ViewDdl, ViewStructure,
};
use schemars::JsonSchema;
use serde::Serialize;

/// A database of a connection.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "DatabaseInfo")]
pub(crate) struct DatabaseInfo {
    /// Its name.
    name: String,
    /// Whether it belongs to the server itself.
    is_system: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_reason: Option<String>,
    /// Its schemas, where the engine has them and the server lets them be seen from outside of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    schemas: Option<Vec<SchemaInfo>>,
}

/// A schema of a database.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SchemaInfo")]
pub(crate) struct SchemaInfo {
    /// Its name.
    name: String,
    /// Whether it belongs to the server itself.
    is_system: bool,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_reason: Option<String>,
}

impl DatabaseInfo {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it belongs to the server itself.
    pub(crate) fn is_system(&self) -> bool {
        self.is_system
    }
}

impl From<DatabaseEntry> for DatabaseInfo {
    fn from(entry: DatabaseEntry) -> Self {
        let schemas = (!entry.schemas.is_empty()).then(|| entry.schemas.into_iter().map(|name| SchemaInfo::new(name, None)).collect());
        Self { name: entry.name, is_system: entry.system_reason.is_some(), system_reason: entry.system_reason, schemas }
    }
}

impl SchemaInfo {
    /// A schema; PostgreSQL keeps its own under known names.
    pub(crate) fn new(name: String, reason: Option<String>) -> Self {
        let known = match name.as_str() {
            "information_schema" => Some("describes the database"),
            "pg_catalog" => Some("the server's own tables"),
            "pg_toast" => Some("the server's store of large values"),
            _ => None,
        };
        let system_reason = reason.or_else(|| known.map(str::to_owned));
        Self { is_system: system_reason.is_some(), name, system_reason }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it belongs to the server itself.
    pub(crate) fn is_system(&self) -> bool {
        self.is_system
    }
}

/// Everything about a database's objects, by opaque keys (`schema.name`, or the name where there are no schemas).
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DatabaseMetadata {
    tables: BTreeMap<String, TableStructure>,
    views: BTreeMap<String, ViewStructure>,
    triggers: BTreeMap<String, Trigger>,
    functions: BTreeMap<String, Routine>,
    procedures: BTreeMap<String, Routine>,
    sequences: BTreeMap<String, Sequence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schemas: Option<Vec<String>>,
}

impl DatabaseMetadata {
    pub(crate) fn new(structure: DatabaseStructure, engine: Engine) -> Self {
        let has_schemas = has_schemas(engine);
        let key = |schema: &str, name: &str| if has_schemas { format!("{schema}.{name}") } else { name.to_owned() };
        let routine_key = |routine: &Routine| match &routine.signature {
            // Several functions may share a name.
            Some(signature) if has_schemas => format!("{}({signature})", key(&routine.schema, &routine.name)),
            _ => key(&routine.schema, &routine.name),
        };
        let (functions, procedures): (Vec<_>, Vec<_>) =
            structure.routines.into_iter().partition(|routine| routine.routine_type != "procedure");
        let routines = |list: Vec<Routine>| list.into_iter().map(|routine| (routine_key(&routine), routine)).collect();
        let trigger_key = |trigger: &Trigger| {
            // On PostgreSQL a trigger's name is its table's own affair.
            if has_schemas { format!("{}.{}", key(&trigger.schema, &trigger.table_name), trigger.name) } else { trigger.name.clone() }
        };
        Self {
            tables: structure.tables.into_iter().map(|table| (key(&table.schema, &table.name), table)).collect(),
            views: structure.views.into_iter().map(|view| (key(&view.schema, &view.name), view)).collect(),
            triggers: structure.triggers.into_iter().map(|trigger| (trigger_key(&trigger), trigger)).collect(),
            functions: routines(functions),
            procedures: routines(procedures),
            sequences: structure.sequences.into_iter().map(|sequence| (key(&sequence.schema, &sequence.name), sequence)).collect(),
            schemas: has_schemas.then_some(structure.schemas),
        }
    }
}

/// Whether databases of an engine have schemas.
fn has_schemas(engine: Engine) -> bool {
    !matches!(engine, Engine::MySql | Engine::Files)
}

/// The names of a database's objects.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DatabaseSummary {
    database: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    schemas: Option<Vec<String>>,
    tables: Vec<String>,
    views: Vec<String>,
    stats: SummaryStats,
}

/// How many objects.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SummaryStats {
    tables: usize,
    views: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    schemas: Option<usize>,
}

impl DatabaseSummary {
    pub(crate) fn new(database: &str, names: ObjectNames, engine: Engine) -> Self {
        let schemas: Option<Vec<String>> = has_schemas(engine).then(|| names.schemas.into_iter().map(|(name, _)| name).collect());
        let stats = SummaryStats { tables: names.tables.len(), views: names.views.len(), schemas: schemas.as_ref().map(Vec::len) };
        Self { database: database.to_owned(), schemas, tables: listed(names.tables), views: listed(names.views), stats }
    }
}

/// Names as they stand in lists: with the schema unless it is the default one.
pub(crate) fn listed(names: Vec<ObjectName>) -> Vec<String> {
    names.into_iter().map(|object| if object.schema.as_deref() == Some("public") { object.name } else { object.to_string() }).collect()
}

/// How a table is made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TableDdlResponse {
    pub(crate) table: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
    pub(crate) ddl: TableDdl,
}

/// How a view is made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ViewDdlResponse {
    pub(crate) view: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
    pub(crate) ddl: ViewDdl,
}

/// A request was carried out.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {
    /// `success`
    pub(crate) status: &'static str,
}
