//! Foreign keys that exist unvalidated: validates them, or counts what keeps them from being valid.

use millrace_core::connector::{ConstraintName, ConstraintsReport};
use millrace_core::{Kind, Result};
use tokio_postgres::Client;

use super::error::classify;
use super::names::{qualified, quote};

const UNVALIDATED: &str = "SELECT n.nspname::text, c.relname::text, k.conname::text, rn.nspname::text, r.relname::text,
        ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (n, p) JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY p),
        ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (n, p) JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY p)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
    WHERE k.contype = 'f' AND NOT k.convalidated AND n.nspname = $1 ORDER BY 1, 2, 3";

/// Validates all foreign keys of a schema.
pub(super) async fn validate(client: &Client, schema: &str) -> Result<ConstraintsReport> {
    let mut report = ConstraintsReport::default();
    for row in client.query(UNVALIDATED, &[&schema]).await.map_err(classify)? {
        let name = ConstraintName { schema: row.get(0), table: row.get(1), name: row.get(2) };
        let table = qualified(&name.schema, &name.table);
        let sql = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {}", quote(&name.name));
        match client.batch_execute(&sql).await.map_err(classify) {
            Ok(()) => report.validated.push(name),
            Err(error) if error.kind() == Kind::ConstraintViolated => {
                let referenced = qualified(row.get(3), row.get(4));
                let (own, there): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
                let filled: Vec<String> = own.iter().map(|column| format!("c.{} IS NOT NULL", quote(column))).collect();
                let equal: Vec<String> =
                    own.iter().zip(&there).map(|(own, there)| format!("p.{} = c.{}", quote(there), quote(own))).collect();
                let sql = format!(
                    "SELECT count(*) FROM {table} c WHERE {} AND NOT EXISTS (SELECT FROM {referenced} p WHERE {})",
                    filled.join(" AND "),
                    equal.join(" AND ")
                );
                let orphans: i64 = client.query_one(&sql, &[]).await.map_err(classify)?.get(0);
                report.violations.push((name, orphans.max(0) as u64));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}
