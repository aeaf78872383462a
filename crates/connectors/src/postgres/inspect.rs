//! What a target holds already. Nothing is created or changed.

use millrace_core::Result;
use millrace_core::connection::Connection;
use millrace_core::connector::{ExistingColumn, ExistingTable, Scope, SourcePart, TargetFacts};
use millrace_core::id::ConfigId;
use tokio_postgres::Client;

use super::error::{classify, is_missing_table};
use super::ledger::UNFINISHED_TABLES;
use super::names::qualified;
use super::plan::target_names_of;
use super::session::{self, MAINTENANCE_DATABASE};
use super::sink::DEFAULT_SCHEMA;

const RELATIONS: &str =
    "SELECT c.oid, c.relname::text, c.relkind IN ('r', 'p') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY($2) ORDER BY 2";

/// Names of relations and types, but for those that belong to these tables. Indexes, sequences and types share a schema's names with tables.
const TAKEN: &str = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_index i ON i.indexrelid = c.oid
        LEFT JOIN pg_depend d ON c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
        JOIN pg_class o ON o.oid = coalesce(i.indrelid, d.refobjid, c.oid)
        WHERE n.nspname = $1 AND NOT o.relname = ANY($2)
    UNION SELECT t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = $1 AND t.typtype IN ('e', 'd', 'r') AND NOT EXISTS (SELECT FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
            WHERE a.atttypid = t.oid AND c.relnamespace = t.typnamespace AND c.relname = ANY($2))
    ORDER BY 1";

/// Domains are read as what they are made of: that is how their values travel.
const COLUMNS: &str = "SELECT a.attname::text,
        CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) ELSE format_type(a.atttypid, a.atttypmod) END,
        ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder),
        NOT a.attnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL, a.attgenerated <> ''
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

const KEYS: &str = "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts ORDER BY k.place)
    FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
    ORDER BY i.indisprimary DESC, i.indexrelid";

const REFERENCES: &str = "SELECT DISTINCT r.relname::text FROM pg_constraint k JOIN pg_class r ON r.oid = k.confrelid
    WHERE k.conrelid = $1 AND k.contype = 'f' AND r.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = $1) ORDER BY 1";

const UNFINISHED_ROWS: &str = "SELECT coalesce(sum(s.row_count), 0)::bigint FROM millrace.split s
    JOIN millrace.run r USING (stream) JOIN millrace.target_table t USING (stream, schema_name, table_name)
    WHERE r.config = $1 AND r.finished_at IS NULL AND NOT t.is_created AND s.schema_name = $2 AND s.table_name = $3";

/// Looks at what the planned tables would meet.
pub(super) async fn inspect(connection: &Connection, scope: &Scope, config: &ConfigId, sources: &[SourcePart]) -> Result<TargetFacts> {
    let spec = session::spec(connection)?;
    let database = scope.database.as_deref().or(spec.database.as_deref()).unwrap_or(MAINTENANCE_DATABASE);
    let client = match session::connect(connection, database).await {
        // It will be created.
        Err(error) if error.detail("sqlstate") == Some("3D000") => return Ok(TargetFacts::default()),
        other => other?,
    };
    let schema = scope.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
    let ours = match client.query(UNFINISHED_TABLES, &[&config.as_str()]).await {
        Ok(rows) => rows.iter().map(|row| (row.get(0), row.get(1))).collect(),
        Err(error) if is_missing_table(&error) => Vec::<(String, String)>::new(),
        Err(error) => return Err(classify(error)),
    };
    let names: Vec<String> = target_names_of(sources, schema).into_iter().map(|table| table.name).collect();
    let mut facts = TargetFacts::default();
    for row in client.query(RELATIONS, &[&schema, &names]).await.map_err(classify)? {
        let (oid, name, is_table): (u32, String, bool) = (row.get(0), row.get(1), row.get(2));
        if ours.iter().any(|(at, table)| at == schema && *table == name) {
            continue;
        }
        facts.tables.push(if is_table {
            table(&client, config, schema, name, oid).await?
        } else {
            ExistingTable { name, ..ExistingTable::default() }
        });
    }
    let own: Vec<&str> = names.iter().chain(ours.iter().map(|(_, table)| table)).map(String::as_str).collect();
    facts.taken = client.query(TAKEN, &[&schema, &own]).await.map_err(classify)?.iter().map(|row| row.get(0)).collect();
    let sql = "SELECT e.extname::text, n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1";
    facts.extensions = client.query(sql, &[]).await.map_err(classify)?.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(facts)
}

async fn table(client: &Client, config: &ConfigId, schema: &str, name: String, oid: u32) -> Result<ExistingTable> {
    let texts = |rows: Vec<tokio_postgres::Row>| -> Vec<String> { rows.iter().map(|row| row.get(0)).collect() };
    let column = |row: &tokio_postgres::Row| ExistingColumn {
        name: row.get(0),
        native_type: row.get(1),
        labels: row.get(2),
        is_nullable: row.get(3),
        has_default: row.get(4),
        is_generated: row.get(5),
    };
    let empty = format!("SELECT NOT EXISTS (SELECT FROM {})", qualified(schema, &name));
    let unfinished_rows = match client.query_one(UNFINISHED_ROWS, &[&config.as_str(), &schema, &name]).await {
        Ok(row) => row.get::<_, i64>(0).max(0) as u64,
        // No ledger, or one of an older version.
        Err(error) if is_missing_table(&error) || error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_COLUMN) => 0,
        Err(error) => return Err(classify(error)),
    };
    Ok(ExistingTable {
        is_table: true,
        is_empty: client.query_one(&empty, &[]).await.map_err(classify)?.get(0),
        columns: client.query(COLUMNS, &[&oid]).await.map_err(classify)?.iter().map(column).collect(),
        keys: client.query(KEYS, &[&oid]).await.map_err(classify)?.iter().map(|row| row.get(0)).collect(),
        references: texts(client.query(REFERENCES, &[&oid]).await.map_err(classify)?),
        unfinished_rows,
        name,
    })
}
