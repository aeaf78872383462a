//! The names of what is there.

use millrace_core::Result;
use millrace_core::explore::ObjectFilter;
use millrace_core::structure::{ObjectName, ObjectNames};
use tokio_postgres::types::{ToSql, Type};

use super::PgExplorer;

/// `$1`: schemas that are wanted, all if empty; `$2`: whether the system's are too. Tables of others' sessions are nobody else's concern.
pub(super) const IN_SCOPE: &str = "CASE WHEN cardinality($1::text[]) > 0 THEN n.nspname = ANY($1::text[])
    ELSE n.nspname !~ '^pg_(toast|temp)' AND ($2::bool OR n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') END";

/// What an extension has brought along is the extension's: PostGIS alone has a thousand functions.
pub(super) const ROUTINES: &str = "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE IN_SCOPE AND p.prokind IN ('f', 'p', 'w') AND NOT EXISTS (SELECT FROM pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')";

const SCHEMAS: &str = "SELECT n.nspname::text FROM pg_namespace n WHERE IN_SCOPE ORDER BY n.nspname";

const RELATIONS: &str =
    "SELECT n.nspname::text, c.relname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE IN_SCOPE AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') AND NOT c.relispartition ORDER BY n.nspname, c.relname";

/// Why a schema counts as the system's.
fn system_reason(schema: &str) -> Option<String> {
    let reason = match schema {
        "pg_catalog" => "system catalog",
        "information_schema" => "standard views of the catalog",
        "pg_toast" => "parts of large values",
        _ if schema.starts_with("pg_temp") || schema.starts_with("pg_toast_temp") => "temporary tables of a session",
        _ if schema.starts_with("pg_") => "reserved by PostgreSQL",
        _ => return None,
    };
    Some(reason.to_owned())
}

/// Puts the scope's condition into a query.
pub(super) fn scoped(sql: &str) -> String {
    sql.replace("IN_SCOPE", IN_SCOPE)
}

/// All names.
pub(super) async fn names(explorer: &PgExplorer, wanted: &ObjectFilter) -> Result<ObjectNames> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&wanted.schemas, Type::TEXT_ARRAY), (&wanted.with_system, Type::BOOL)];
    let routines = scoped(&format!("SELECT DISTINCT n.nspname::text, p.proname::text, p.prokind::text {ROUTINES} ORDER BY 1, 2"));
    let (schemas, relations, routines) = (scoped(SCHEMAS), scoped(RELATIONS), routines);
    let (schemas, relations, routines) =
        futures::try_join!(explorer.ask(&schemas, &params), explorer.ask(&relations, &params), explorer.ask(&routines, &params))?;
    let mut names = ObjectNames::default();
    for row in schemas {
        let schema: String = row.get(0);
        names.schemas.push((schema.clone(), system_reason(&schema)));
    }
    for row in relations {
        let list = match row.get::<_, &str>(2) {
            "v" | "m" => &mut names.views,
            "S" => &mut names.sequences,
            _ => &mut names.tables,
        };
        list.push(ObjectName { schema: Some(row.get(0)), name: row.get(1) });
    }
    for row in routines {
        let list = if row.get::<_, &str>(2) == "p" { &mut names.procedures } else { &mut names.functions };
        list.push(ObjectName { schema: Some(row.get(0)), name: row.get(1) });
    }
    Ok(names)
}
