//! Statistics of every column, by DuckDB's SUMMARIZE.

use duckdb::Connection;
use millrace_core::explore::ColumnSummary;
use millrace_core::files::FileAnswer;
use serde_json::Value;

use crate::child::attach::identifier;
use crate::child::run::{describe, fetch};
use crate::wire::Failure;

/// Columns of one file; each gives one row.
const MOST_COLUMNS: u64 = 10_000;

pub(super) fn run(connection: &Connection, reader: &str, sample_percent: Option<f64>) -> Result<FileAnswer, Failure> {
    let sample = sample_percent.filter(|percent| *percent < 100.0);
    let sample = sample.map_or(String::new(), |percent| format!(" USING SAMPLE {percent} PERCENT (bernoulli, 20)"));
    let source = format!("SELECT * FROM {reader}{sample}");
    let known = describe(connection, &source)?;
    let (_, rows) = fetch(connection, &format!("SELECT * FROM (SUMMARIZE {source})"), MOST_COLUMNS)?;
    // Lengths are not part of SUMMARIZE; one more pass counts rows and measures texts.
    let mut measures = vec!["count(*)".to_owned()];
    for column in &known {
        let name = identifier(&column.name);
        measures.push(format!("count({name})"));
        match column.native_type.as_str() {
            "VARCHAR" => measures.extend(["min", "max", "avg"].map(|function| format!("{function}(length({name}))"))),
            "BLOB" => measures.extend(["min", "max", "avg"].map(|function| format!("{function}(octet_length({name}))"))),
            _ => measures.extend(["NULL", "NULL", "NULL"].map(str::to_owned)),
        }
    }
    let measures: Vec<String> = measures.iter().zip(1..).map(|(measure, place)| format!("{measure} AS m{place}")).collect();
    let (_, measured) = fetch(connection, &format!("SELECT {} FROM ({source})", measures.join(", ")), 1)?;
    let measured = measured.into_iter().next().unwrap_or_default();
    let row_count = measured.first().and_then(Value::as_u64).unwrap_or_default();
    let of_column = |index: usize| measured.get(1 + index * 4..5 + index * 4).unwrap_or_default();
    let columns = rows.iter().enumerate().map(|(index, row)| column(row, of_column(index), row_count)).collect();
    Ok(FileAnswer::Summarized { row_count, columns })
}

/// One row: name, type, min, max, approx_unique, avg, std, q25, q50, q75, count, null_percentage.
fn column(row: &[Value], measures: &[Value], rows: u64) -> ColumnSummary {
    let number = |place: usize| row.get(place).and_then(|value| value.as_f64().or_else(|| value.as_str()?.parse().ok()));
    let length = |place: usize| measures.get(place).and_then(Value::as_u64);
    let name = |place: usize| row.get(place).and_then(Value::as_str).unwrap_or_default().to_owned();
    let count = length(0).unwrap_or_default();
    ColumnSummary {
        name: name(0),
        native_type: name(1),
        min: row.get(2).cloned().unwrap_or_default(),
        max: row.get(3).cloned().unwrap_or_default(),
        approx_unique: row.get(4).and_then(Value::as_u64).unwrap_or_default(),
        avg: number(5),
        std: number(6),
        q25: number(7),
        q50: number(8),
        q75: number(9),
        min_length: length(1),
        max_length: length(2),
        avg_length: measures.get(3).and_then(Value::as_f64),
        count,
        null_percentage: if rows == 0 { 0.0 } else { (rows - count.min(rows)) as f64 * 100.0 / rows as f64 },
    }
}
