//! Decides whether a statement may run, on DuckDB's own parsed tree.
//!
//! DuckDB's settings are not the boundary: with external access off its scanner extensions still dial, and `postgres_execute` writes through a
//! read-only attachment. So the statement is parsed by DuckDB (`json_serialize_sql`, which takes SELECT statements only) and the whole tree
//! is walked against lists of what is allowed. A kind of node, table function or function that is on no list is refused: what a later version
//! adds is closed until somebody opens it. What runs afterwards is the checked tree written out again, not the text that came.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;

use crate::wire::{Failure, Source, SourceEngine};

/// Kinds of statement and query nodes.
const NODES: [&str; 3] = ["SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"];
/// Kinds of table references that hold no name of their own.
const REFERENCES: [&str; 4] = ["JOIN", "SUBQUERY", "EMPTY", "EXPRESSION_LIST"];
/// What follows a query.
const MODIFIERS: [&str; 4] = ["ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"];
/// Directions of a sort key.
const ORDERS: [&str; 3] = ["ORDER_DEFAULT", "ASCENDING", "DESCENDING"];
/// Classes of expressions.
const EXPRESSIONS: [&str; 16] = [
    "COLUMN_REF",
    "CONSTANT",
    "FUNCTION",
    "COMPARISON",
    "CONJUNCTION",
    "OPERATOR",
    "CAST",
    "CASE",
    "BETWEEN",
    "SUBQUERY",
    "WINDOW",
    "STAR",
    "COLLATE",
    "LAMBDA",
    "LAMBDA_REF",
    "POSITIONAL_REFERENCE",
];
/// Table functions that look at nothing outside the statement and the attached catalogs.
const TABLE_FUNCTIONS: [&str; 9] = [
    "range",
    "generate_series",
    "unnest",
    "duckdb_databases",
    "duckdb_schemas",
    "duckdb_tables",
    "duckdb_views",
    "duckdb_columns",
    "duckdb_types",
];
/// Table functions that read the data files which their first argument names.
pub(crate) const FILE_FUNCTIONS: [&str; 9] = [
    "read_csv",
    "read_csv_auto",
    "read_parquet",
    "parquet_scan",
    "read_json",
    "read_json_auto",
    "read_ndjson",
    "read_ndjson_auto",
    "sniff_csv",
];
/// Functions that only compute from what they are given, or tell the time. Written once from the `duckdb_functions()` of the pinned version and gone through by hand:
/// left out is whatever parses or runs text as SQL (`json_serialize_plan` binds the table functions that its text names, and that dials), reads settings,
/// variables or catalogs, waits, logs, keeps counters, or is the engine's own inside.
const FUNCTIONS: &str = include_str!("functions.txt");
/// `SHOW` forms over the attached catalogs.
const SHOWS: [&str; 3] = ["\"databases\"", "\"tables\"", "__show_tables_expanded"];
/// System schemas whose tables describe the attached catalogs.
const SYSTEM_SCHEMAS: [&str; 1] = ["information_schema"];

/// What a statement needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// The aliases that it names.
    pub(crate) aliases: BTreeSet<String>,
    /// Whether it looks at the list of all catalogs, so that all sources must be attached.
    pub(crate) wants_all: bool,
}

/// Checks the tree of one statement.
pub(crate) fn check(tree: &Value, sources: &[Source]) -> Result<Checked, Failure> {
    walk(tree, Walk { sources, files: None, reads_objects: false, scope: Vec::new(), checked: Checked::default() })
}

/// As [`check`], for a statement whose reading functions have been found to name objects of its sources only.
pub(crate) fn check_with_objects(tree: &Value, sources: &[Source]) -> Result<Checked, Failure> {
    walk(tree, Walk { sources, files: None, reads_objects: true, scope: Vec::new(), checked: Checked::default() })
}

/// Checks the tree of one statement over files. Those that it names, as `files` says, have been found to be allowed.
pub(crate) fn check_files(tree: &Value, files: &BTreeSet<String>) -> Result<(), Failure> {
    walk(tree, Walk { sources: &[], files: Some(files), reads_objects: false, scope: Vec::new(), checked: Checked::default() }).map(|_| ())
}

/// Whether statements may call a function, by its name in small letters.
fn is_allowed(function: &str) -> bool {
    static ALLOWED: LazyLock<BTreeSet<&str>> = LazyLock::new(|| FUNCTIONS.split_whitespace().collect());
    ALLOWED.contains(function)
}

fn walk(tree: &Value, mut walk: Walk<'_>) -> Result<Checked, Failure> {
    if tree["error"] == Value::Bool(true) {
        return Err(not_a_select(tree));
    }
    let statements = tree["statements"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [statement] = statements else {
        return Err(Failure::refused(format!("one statement is expected, not {}", statements.len())));
    };
    walk.any(&statement["node"])?;
    Ok(walk.checked)
}

struct Walk<'a> {
    sources: &'a [Source],
    /// Files that stand for tables; none in federated statements.
    files: Option<&'a BTreeSet<String>>,
    /// Whether federated statements may call reading functions.
    reads_objects: bool,
    /// Names of common table expressions that the place at hand can see.
    scope: Vec<String>,
    checked: Checked,
}

impl Walk<'_> {
    fn any(&mut self, value: &Value) -> Result<(), Failure> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.any(item)),
            Value::Object(_) => self.object(value),
            _ => Ok(()),
        }
    }

    fn object(&mut self, value: &Value) -> Result<(), Failure> {
        let class = value["class"].as_str();
        let kind = value["type"].as_str();
        if let Some(class) = class {
            return self.expression(value, class);
        }
        match kind {
            None => self.fields(value),
            Some("BASE_TABLE") => self.table(value),
            Some("TABLE_FUNCTION") => self.table_function(value),
            Some("SHOW_REF") => self.show(value),
            Some(kind) if NODES.contains(&kind) => self.node(value),
            Some(kind) if REFERENCES.contains(&kind) || MODIFIERS.contains(&kind) || ORDERS.contains(&kind) => self.fields(value),
            // How a type in a cast is spelled (`DECIMAL_TYPE_INFO`).
            Some(kind) if kind.ends_with("_TYPE_INFO") => Ok(()),
            Some(other) => Err(Failure::refused(format!("`{other}` is not allowed in a federated statement"))),
        }
    }

    fn fields(&mut self, value: &Value) -> Result<(), Failure> {
        let Some(fields) = value.as_object() else { return Ok(()) };
        fields.values().try_for_each(|field| self.any(field))
    }

    fn expression(&mut self, value: &Value, class: &str) -> Result<(), Failure> {
        if !EXPRESSIONS.contains(&class) {
            return Err(Failure::refused(format!("expressions of the class `{class}` are not allowed in a federated statement")));
        }
        if class == "CONSTANT" {
            return Ok(());
        }
        if let Some(name) = value["function_name"].as_str().filter(|name| !name.is_empty()) {
            function(name)?;
        }
        self.fields(value)
    }

    /// A query with its common table expressions: each sees those before it, and itself only if it is recursive. (Seeing itself otherwise would let
    /// `WITH "x.csv" AS (FROM "x.csv")` read a file.)
    fn node(&mut self, value: &Value) -> Result<(), Failure> {
        let outer = self.scope.len();
        for entry in value["cte_map"]["map"].as_array().into_iter().flatten() {
            let name = entry["key"].as_str().unwrap_or_default().to_owned();
            let is_recursive = entry["value"]["query"]["node"]["type"] == "RECURSIVE_CTE_NODE";
            if is_recursive {
                self.scope.push(name.clone());
            }
            self.any(&entry["value"])?;
            if !is_recursive {
                self.scope.push(name);
            }
        }
        let fields = value.as_object().into_iter().flatten();
        let result = fields.filter(|(name, _)| *name != "cte_map").try_for_each(|(_, field)| self.any(field));
        self.scope.truncate(outer);
        result
    }

    fn table(&mut self, value: &Value) -> Result<(), Failure> {
        let part = |name: &str| value[name].as_str().unwrap_or_default();
        let (catalog, schema, table) = (part("catalog_name"), part("schema_name"), part("table_name"));
        self.any(&value["at_clause"])?;
        if catalog.is_empty() && schema.is_empty() {
            if self.scope.iter().any(|name| name.eq_ignore_ascii_case(table)) {
                return Ok(());
            }
            if self.files.is_some_and(|files| files.contains(table)) {
                return Ok(());
            }
            return Err(self.unqualified(table));
        }
        if catalog.is_empty() && SYSTEM_SCHEMAS.iter().any(|name| name.eq_ignore_ascii_case(schema)) {
            self.checked.wants_all = true;
            return Ok(());
        }
        if catalog.is_empty() {
            return Err(self.two_parts(schema, table));
        }
        match self.sources.iter().find(|source| source.alias.eq_ignore_ascii_case(catalog)) {
            Some(source) => {
                self.checked.aliases.insert(source.alias.clone());
                Ok(())
            }
            None => Err(self.unknown_alias(catalog)),
        }
    }

    fn table_function(&mut self, value: &Value) -> Result<(), Failure> {
        let function = &value["function"];
        let name = function["function_name"].as_str().unwrap_or_default();
        if (self.files.is_some() || self.reads_objects)
            && function["class"] == "FUNCTION"
            && FILE_FUNCTIONS.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
        {
            return self.any(&function["children"]);
        }
        if function["class"] != "FUNCTION" || !TABLE_FUNCTIONS.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return Err(Failure::refused(format!("the table function `{name}` is not allowed in a federated statement")));
        }
        self.checked.wants_all |= name.to_ascii_lowercase().starts_with("duckdb_");
        self.any(&function["children"])
    }

    fn show(&mut self, value: &Value) -> Result<(), Failure> {
        if !value["query"].is_null() {
            return self.any(&value["query"]);
        }
        let table = value["table_name"].as_str().unwrap_or_default();
        if SHOWS.iter().any(|allowed| allowed.eq_ignore_ascii_case(table)) {
            self.checked.wants_all = true;
            return Ok(());
        }
        Err(self.unqualified(table))
    }

    fn unqualified(&self, table: &str) -> Failure {
        if self.files.is_some() {
            return Failure::refused(format!(
                "the table `{table}` is no data file; write `read_csv('…')`, `read_parquet('…')` or `read_json('…')`"
            ));
        }
        Failure::refused(format!(
            "the table `{table}` has no alias; write `alias.schema.table` (PostgreSQL) or `alias.database.table` (MySQL); {}",
            self.known()
        ))
    }

    fn two_parts(&self, first: &str, table: &str) -> Failure {
        let source = self.sources.iter().find(|source| source.alias.eq_ignore_ascii_case(first));
        match source.map(|source| source.engine) {
            Some(SourceEngine::MySql) => {
                Failure::refused(format!("`{first}.{table}` lacks the database; write `{first}.database.{table}`"))
            }
            Some(SourceEngine::Postgres) => Failure::refused(format!("`{first}.{table}` lacks the schema; write `{first}.public.{table}`")),
            None => self.unknown_alias(first),
        }
    }

    fn unknown_alias(&self, alias: &str) -> Failure {
        Failure::refused(format!("the alias `{alias}` is unknown; {}", self.known()))
    }

    fn known(&self) -> String {
        let known: Vec<&str> = self.sources.iter().map(|source| source.alias.as_str()).collect();
        if known.is_empty() { "there are no database connections".to_owned() } else { format!("known aliases: {}", known.join(", ")) }
    }
}

fn function(name: &str) -> Result<(), Failure> {
    if is_allowed(&name.to_lowercase()) {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "the function `{name}` is not allowed here; statements call functions that only compute from their arguments"
    )))
}

fn not_a_select(tree: &Value) -> Failure {
    let message = tree["error_message"].as_str().unwrap_or("the statement cannot be parsed");
    if tree["error_type"] == "not implemented" {
        return Failure::refused("only reading statements (SELECT, WITH … SELECT, DESCRIBE, SHOW) are allowed in a federated query");
    }
    Failure::refused(message.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the pinned engine has beside, and nobody may call.
    const REFUSED: &str = "combine constant_or_null create_sort_key current_connection_id current_query current_query_id current_setting \
        current_transaction_id currval finalize get_block_size get_type getenv getvariable icu_sort_key in_search_path json_deserialize_sql \
        json_execute_serialized_sql json_serialize_plan json_serialize_sql make_type nextval parse_duckdb_log_message pg_get_constraintdef \
        pg_get_viewdef pg_sleep query query_table replace_type set_config sleep_ms stats timetz_byte_comparable txid_current \
        variant_bytes_to_variant variant_normalize variant_to_parquet_variant vector_type write_log";

    #[test]
    fn every_function_of_the_engine_has_been_looked_at() {
        let refused: BTreeSet<&str> = REFUSED.split_whitespace().collect();
        assert_eq!(refused.iter().find(|name| is_allowed(name)), None);
        let connection = duckdb::Connection::open_in_memory().unwrap();
        let sql = "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'macro') ORDER BY 1";
        let names: Vec<String> = connection.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert!(names.len() > 500, "{}", names.len());
        let is_known = |name: &str| {
            is_allowed(name) || refused.contains(name) || ["__internal_", "icu_collate_"].iter().any(|prefix| name.starts_with(prefix))
        };
        let unknown: Vec<&String> = names.iter().filter(|name| !is_known(name)).collect();
        assert!(unknown.is_empty(), "neither allowed in functions.txt nor refused here: {unknown:?}");
    }
}
