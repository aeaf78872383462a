//! Statistics of columns, computed by the server in one pass over the table, or over several if it has very many columns.

use millrace_core::explore::{ColumnSummary, Summary, SummaryRequest};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Error, Kind, Result};
use serde_json::Value;
use tokio_postgres::SimpleQueryRow;
use tokio_postgres::types::Type;

use super::super::names::quote;
use super::PgExplorer;
use super::page::read;
use super::rows::{self, Form};
use super::sql::Sql;
use super::table::{Field, Shape};

/// A statement answers at most 1,664 columns (manual, "PostgreSQL Limits").
const FIELDS_AT_ONCE: usize = 100;

/// Larger tables are not sorted for the number of their different values; the planner's statistics say it.
const DISTINCT_ROWS: f64 = 1_000_000.0;

/// From so many pages on whole pages are sampled.
const SAMPLED_PAGES: i32 = 10_000;

/// Different values as `ANALYZE` has estimated them: their number, or the share of rows if negative.
const DISTINCT: &str = "SELECT attname::text, n_distinct::float8 FROM pg_stats WHERE schemaname = $1 AND tablename = $2 AND NOT inherited";

/// What is computed of one column; the index of each value among the answered ones.
#[derive(Debug, Default)]
struct Plan {
    count: usize,
    min: Option<usize>,
    max: Option<usize>,
    distinct: Option<usize>,
    numbers: Option<usize>,
    lengths: Option<usize>,
}

/// Summarizes all columns.
pub(super) async fn summarize(explorer: &mut PgExplorer, request: &SummaryRequest) -> Result<Summary> {
    let percent = request.sample_percent.filter(|percent| *percent < 100.0);
    if percent.is_some_and(|percent| percent <= 0.0) {
        return Err(Error::invalid("samplePercent", "a sample has more than 0 and at most 100 percent"));
    }
    let shape = Shape::load(explorer, &request.object).await?;
    let estimates = if percent.is_none() && shape.estimated_rows > DISTINCT_ROWS { estimates(explorer, &shape).await? } else { Vec::new() };
    let mut summary = Summary::default();
    let chunks: Vec<&[Field]> = if shape.fields.is_empty() { vec![&[]] } else { shape.fields.chunks(FIELDS_AT_ONCE).collect() };
    for fields in chunks {
        let mut forms = vec![Form::Int];
        let mut sql = Sql::new("SELECT count(*)");
        let plans: Vec<Plan> = fields
            .iter()
            .map(|field| {
                let is_estimated = estimates.iter().any(|(name, _)| *name == field.name);
                push_field(&mut sql, &mut forms, field, !is_estimated)
            })
            .collect();
        push_from(&mut sql, &shape, percent);
        let values = one_row(explorer, &sql, &forms).await?;
        summary.row_count = whole(&values[0]);
        for (field, plan) in fields.iter().zip(&plans) {
            let estimate = estimates.iter().find(|(name, _)| *name == field.name).map(|(_, distinct)| *distinct);
            summary.columns.push(column(field, plan, &values, summary.row_count, estimate));
        }
    }
    Ok(summary)
}

async fn estimates(explorer: &PgExplorer, shape: &Shape) -> Result<Vec<(String, f64)>> {
    let rows = explorer.ask(DISTINCT, &[(&shape.schema, Type::TEXT), (&shape.name, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn push_from(sql: &mut Sql, shape: &Shape, percent: Option<f64>) {
    sql.push(" FROM ");
    sql.push(&shape.place());
    if let Some(percent) = percent {
        match shape.kind {
            'r' | 'p' | 'm' => {
                let method = if shape.pages >= SAMPLED_PAGES { "SYSTEM" } else { "BERNOULLI" };
                sql.push(&format!(" TABLESAMPLE {method} ({percent})"));
            }
            _ => sql.push(&format!(" WHERE random() < {percent} / 100.0")),
        }
    }
}

/// Adds the expressions of one column.
fn push_field(sql: &mut Sql, forms: &mut Vec<Form>, field: &Field, counts_distinct: bool) -> Plan {
    let name = quote(&field.name);
    let mut add = |expression: String, form: Form| {
        sql.push(&format!(",\n    {expression}"));
        forms.push(form);
        forms.len() - 1
    };
    let mut plan = Plan { count: add(format!("count({name})"), Form::Int), ..Plan::default() };
    if let Some((least, greatest)) = ends(field, &name) {
        plan.min = Some(add(least, field.form()));
        plan.max = Some(add(greatest, field.form()));
    }
    if counts_distinct {
        let value = if field.is_comparable { name.clone() } else { format!("{name}::text") };
        plan.distinct = Some(add(format!("count(DISTINCT {value})"), Form::Int));
    }
    if field.form().is_number() && field.base_oid != Type::OID.oid() {
        let double = double(field, &name);
        plan.numbers = Some(add(format!("avg({double})"), Form::Float64));
        add(format!("stddev_samp({double})"), Form::Float64);
        for share in ["0.25", "0.5", "0.75"] {
            add(format!("percentile_cont({share}) WITHIN GROUP (ORDER BY {double})"), Form::Float64);
        }
    }
    if let Some(length) = length(field, &name) {
        plan.lengths = Some(add(format!("min({length})"), Form::Int));
        add(format!("max({length})"), Form::Int);
        add(format!("avg({length})::float8"), Form::Float64);
    }
    plan
}

/// The least and greatest value, of types that the server has these aggregates for, and of some more.
fn ends(field: &Field, name: &str) -> Option<(String, String)> {
    let both = |value: &str| Some((format!("min({value})"), format!("max({value})")));
    match field.base_oid {
        // boolean
        16 => Some((format!("bool_and({name})"), format!("bool_or({name})"))),
        // uuid: its text has the same order
        2950 => both(&format!("({name}::text COLLATE \"C\")")),
        // varchar, name
        1043 | 19 => both(&format!("{name}::text")),
        // int8, int2, int4, text, oid, float4, float8, money, inet, bpchar, date, time, timestamp, timestamptz, interval, timetz, numeric, pg_lsn
        20 | 21 | 23 | 25 | 26 | 700 | 701 | 790 | 869 | 1042 | 1082 | 1083 | 1114 | 1184 | 1186 | 1266 | 1700 | 3220 => both(name),
        _ if field.is_enum => both(name),
        _ => None,
    }
}

/// A number as a double; what a double cannot hold (and a numeric's `NaN`) is left out.
fn double(field: &Field, name: &str) -> String {
    if field.form() == Form::Decimal { format!("CASE WHEN abs({name}) < 1e308 THEN {name}::float8 END") } else { format!("{name}::float8") }
}

fn length(field: &Field, name: &str) -> Option<String> {
    match field.base_oid {
        // bytea
        17 => Some(format!("octet_length({name})")),
        // name, text, bpchar, varchar
        19 | 25 | 1042 | 1043 => Some(format!("length({name}::text)")),
        _ => None,
    }
}

async fn one_row(explorer: &mut PgExplorer, sql: &Sql, forms: &[Form]) -> Result<Vec<Value>> {
    let mut json = JsonRows::new(Numbers::StringIfInexact);
    let each = |row: &SimpleQueryRow| rows::add(row, 0, forms, &mut json);
    read(explorer, sql, None, each).await?;
    let values: Vec<Value> = serde_json::from_str(&json.take()).map_err(|error| Error::internal(error.to_string()))?;
    if values.len() == forms.len() { Ok(values) } else { Err(Error::new(Kind::ProtocolViolated, "the server did not answer a summary")) }
}

fn column(field: &Field, plan: &Plan, values: &[Value], rows: u64, estimate: Option<f64>) -> ColumnSummary {
    let at = |index: Option<usize>, more: usize| index.and_then(|index| values.get(index + more)).cloned().unwrap_or_default();
    let count = whole(&values[plan.count]);
    let approx_unique = match (plan.distinct, estimate) {
        (None, Some(share)) if share < 0.0 => (-share * rows as f64).round() as u64,
        (None, Some(distinct)) => distinct as u64,
        (index, _) => whole(&at(index, 0)),
    };
    let length = |more| plan.lengths.and(at(plan.lengths, more).as_u64());
    ColumnSummary {
        name: field.name.clone(),
        native_type: field.native_type.clone(),
        min: at(plan.min, 0),
        max: at(plan.max, 0),
        approx_unique,
        avg: at(plan.numbers, 0).as_f64(),
        std: at(plan.numbers, 1).as_f64(),
        q25: at(plan.numbers, 2).as_f64(),
        q50: at(plan.numbers, 3).as_f64(),
        q75: at(plan.numbers, 4).as_f64(),
        min_length: length(0),
        max_length: length(1),
        avg_length: at(plan.lengths, 2).as_f64(),
        count,
        null_percentage: if rows == 0 { 0.0 } else { (rows - count.min(rows)) as f64 * 100.0 / rows as f64 },
    }
}

/// A count; beyond what a double holds it is a string.
fn whole(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or_default()
}
