//! Compares a MySQL table with its copy in PostgreSQL over one canonical text of every value.
//!
//! Both servers write the text themselves, by expressions chosen from the source's column type, so that nothing of the product takes part. Only
//! floats are fetched as numbers, because MySQL prints fewer digits than they have. A row's digest is SHA-256 over its length-prefixed values; a
//! table's is the sum of its rows' digests, which does not depend on their order and tells duplicates apart.

use anyhow::{Context as _, bail};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use sqlx::mysql::{MySqlPool, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};
use tokio_postgres::Client;

/// What a table holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableDigest {
    /// Rows.
    pub rows: u64,
    /// The sum of the rows' digests, modulo 2^128.
    pub sum: u128,
}

/// How one column is read on both sides.
#[derive(Debug, Clone)]
struct ColumnText {
    mysql: String,
    postgres: String,
    float: Option<Width>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Single,
    Double,
}

/// Fails, naming the first rows that differ, unless both tables hold the same rows.
pub async fn assert_equal(mysql: &MySqlPool, database: &str, postgres: &Client, schema: &str, table: &str) -> anyhow::Result<TableDigest> {
    let columns = columns(mysql, database, table).await?;
    let source = mysql_digest(mysql, database, table, &columns).await.with_context(|| format!("reading the source of `{table}`"))?;
    let target = postgres_digest(postgres, schema, table, &columns).await.with_context(|| format!("reading the copy of `{table}`"))?;
    if source != target {
        let example = first_difference(mysql, database, postgres, schema, table, &columns).await?;
        bail!("`{table}` differs: source {source:?}, target {target:?}; {example}");
    }
    Ok(source)
}

/// Names of the base tables of a MySQL database.
pub async fn table_names(mysql: &MySqlPool, database: &str) -> anyhow::Result<Vec<String>> {
    let sql =
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = ? AND table_type = 'BASE TABLE' ORDER BY 1";
    Ok(sqlx::query_scalar(sql).bind(database).fetch_all(mysql).await?)
}

async fn columns(mysql: &MySqlPool, database: &str, table: &str) -> anyhow::Result<Vec<ColumnText>> {
    let sql = "SELECT CAST(c.column_name AS CHAR), CAST(c.data_type AS CHAR), CAST(c.column_type AS CHAR)
        FROM information_schema.columns c WHERE c.table_schema = ? AND c.table_name = ? ORDER BY c.ordinal_position";
    let rows = sqlx::query(sql).bind(database).bind(table).fetch_all(mysql).await?;
    Ok(rows.iter().map(|row| column_text(row.get(0), row.get(1), row.get(2))).collect())
}

fn column_text(name: &str, data_type: &str, column_type: &str) -> ColumnText {
    let (m, p) = (format!("`{}`", name.replace('`', "``")), format!("\"{}\"", name.replace('"', "\"\"")));
    let text = |mysql: String, postgres: String| ColumnText { mysql, postgres, float: None };
    match data_type {
        "float" => ColumnText { mysql: m, postgres: format!("{p}::text"), float: Some(Width::Single) },
        "double" => ColumnText { mysql: m, postgres: format!("{p}::text"), float: Some(Width::Double) },
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            text(format!("LOWER(HEX({m}))"), format!("encode({p}, 'hex')"))
        }
        "bit" if column_type == "bit(1)" => {
            text(format!("CAST({m} + 0 AS CHAR)"), format!("CASE WHEN {p} THEN '1' ELSE '0' END || left({p}::text, 0)"))
        }
        "bit" => {
            let bits = column_type.trim_start_matches("bit(").trim_end_matches(')');
            text(format!("LPAD(BIN({m} + 0), {bits}, '0')"), format!("{p}::text"))
        }
        "date" => text(format!("DATE_FORMAT({m}, '%Y-%m-%d')"), format!("to_char({p}, 'YYYY-MM-DD')")),
        "datetime" => text(format!("DATE_FORMAT({m}, '%Y-%m-%d %H:%i:%s.%f')"), format!("to_char({p}, 'YYYY-MM-DD HH24:MI:SS.US')")),
        "timestamp" => text(
            format!("DATE_FORMAT({m}, '%Y-%m-%d %H:%i:%s.%f')"),
            format!("to_char({p} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"),
        ),
        "time" => text(
            format!("CAST(CAST(ROUND(TIME_TO_SEC({m}) * 1000000) AS SIGNED) AS CHAR)"),
            format!("(extract(epoch from {p}) * 1000000)::bigint::text"),
        ),
        // The spellings differ: `::1.2.3.4` on one side is `::102:304` on the other.
        "inet4" => text(format!("LOWER(HEX(CAST({m} AS BINARY(4))))"), format!("encode(substring(inet_send({p}) from 5), 'hex')")),
        "inet6" => text(format!("LOWER(HEX(CAST({m} AS BINARY(16))))"), format!("encode(substring(inet_send({p}) from 5), 'hex')")),
        "year" => text(format!("CAST({m} + 0 AS CHAR)"), format!("{p}::text")),
        "set" => text(format!("CAST({m} AS CHAR)"), format!("array_to_string({p}, ',')")),
        _ => text(format!("CAST({m} AS CHAR)"), format!("{p}::text")),
    }
}

async fn mysql_digest(pool: &MySqlPool, database: &str, table: &str, columns: &[ColumnText]) -> anyhow::Result<TableDigest> {
    let sql = mysql_select(database, table, columns);
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(pool);
    let mut digest = TableDigest::default();
    while let Some(row) = rows.try_next().await? {
        digest.add(&mysql_values(&row, columns)?);
    }
    Ok(digest)
}

async fn postgres_digest(client: &Client, schema: &str, table: &str, columns: &[ColumnText]) -> anyhow::Result<TableDigest> {
    let sql = postgres_select(schema, table, columns);
    let rows = client.query_raw(&sql, std::iter::empty::<&str>()).await?;
    let mut rows = std::pin::pin!(rows);
    let mut digest = TableDigest::default();
    while let Some(row) = rows.try_next().await? {
        digest.add(&postgres_values(&row, columns)?);
    }
    Ok(digest)
}

fn mysql_select(database: &str, table: &str, columns: &[ColumnText]) -> String {
    let list: Vec<&str> = columns.iter().map(|column| column.mysql.as_str()).collect();
    format!("SELECT {} FROM `{database}`.`{}`", list.join(", "), table.replace('`', "``"))
}

fn postgres_select(schema: &str, table: &str, columns: &[ColumnText]) -> String {
    let list: Vec<&str> = columns.iter().map(|column| column.postgres.as_str()).collect();
    format!("SELECT {} FROM \"{schema}\".\"{}\"", list.join(", "), table.replace('"', "\"\""))
}

type Values = Vec<Option<String>>;

fn mysql_values(row: &MySqlRow, columns: &[ColumnText]) -> anyhow::Result<Values> {
    columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            Ok(match column.float {
                Some(Width::Single) => row.try_get::<Option<f32>, _>(index)?.map(|value| format!("{:08x}", value.to_bits())),
                Some(Width::Double) => row.try_get::<Option<f64>, _>(index)?.map(|value| format!("{:016x}", value.to_bits())),
                None => row.try_get_unchecked::<Option<String>, _>(index)?,
            })
        })
        .collect()
}

fn postgres_values(row: &tokio_postgres::Row, columns: &[ColumnText]) -> anyhow::Result<Values> {
    columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let text: Option<String> = row.try_get(index)?;
            Ok(match (column.float, text) {
                (Some(Width::Single), Some(text)) => Some(format!("{:08x}", text.parse::<f32>()?.to_bits())),
                (Some(Width::Double), Some(text)) => Some(format!("{:016x}", text.parse::<f64>()?.to_bits())),
                (_, text) => text,
            })
        })
        .collect()
}

impl TableDigest {
    fn add(&mut self, values: &Values) {
        let mut hash = Sha256::new();
        for value in values {
            match value {
                None => hash.update([0]),
                Some(text) => {
                    hash.update([1]);
                    hash.update((text.len() as u64).to_le_bytes());
                    hash.update(text.as_bytes());
                }
            }
        }
        let bytes: [u8; 16] = hash.finalize()[..16].try_into().unwrap_or_default();
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(bytes));
    }
}

/// A row that only one side has, for the failure's text.
async fn first_difference(
    mysql: &MySqlPool,
    database: &str,
    postgres: &Client,
    schema: &str,
    table: &str,
    columns: &[ColumnText],
) -> anyhow::Result<String> {
    let source = sqlx::query(AssertSqlSafe(mysql_select(database, table, columns))).fetch_all(mysql).await?;
    let target = postgres.query(&postgres_select(schema, table, columns), &[]).await?;
    let mut source: Vec<Values> = source.iter().map(|row| mysql_values(row, columns)).collect::<anyhow::Result<_>>()?;
    let mut target: Vec<Values> = target.iter().map(|row| postgres_values(row, columns)).collect::<anyhow::Result<_>>()?;
    source.sort();
    target.sort();
    let only = |a: &[Values], b: &[Values]| a.iter().find(|row| b.binary_search(row).is_err()).cloned();
    Ok(format!("only in the source: {:?}; only in the target: {:?}", only(&source, &target), only(&target, &source)))
}
