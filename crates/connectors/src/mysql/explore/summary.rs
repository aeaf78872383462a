//! Statistics of columns, computed by the server.

use millrace_core::Result;
use millrace_core::catalog::LogicalType;
use millrace_core::explore::{ColumnSummary, Summary, SummaryRequest};
use millrace_core::json_rows::is_exact_double;
use serde_json::Value;

use super::super::wire::TextRow;
use super::object::{Object, ObjectColumn};
use super::{MySqlExplorer, qualified, quote};

/// The seed of samples: every statement of one summary sees about the same rows.
const SEED: u32 = 20_301;

/// What of a column is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    Number,
    Text,
    Bytes,
    Ordered,
    Presence,
}

impl MySqlExplorer {
    pub(super) async fn summary(&mut self, request: &SummaryRequest) -> Result<Summary> {
        let database = self.database()?;
        let object = Object::read(self.wire(), &database, &request.object.name).await?;
        let sample = request.sample_percent.map(|percent| format!("RAND({SEED}) < {}", percent / 100.0));
        let from = match &sample {
            Some(sample) => format!("(SELECT * FROM {} WHERE {sample}) AS sampled", qualified(&object.database, &object.name)),
            None => qualified(&object.database, &object.name),
        };
        self.begin_reading().await?;
        let made = self.summary_of(&object, &from).await;
        self.end_reading(made).await
    }

    async fn summary_of(&mut self, object: &Object, from: &str) -> Result<Summary> {
        let mut list = vec!["COUNT(*)".to_owned()];
        list.extend(object.columns.iter().flat_map(|column| aggregates(column).map(|(_, sql)| sql)));
        let sql = format!("SELECT {} FROM {from}", list.join(", "));
        self.statements.push(sql.clone());
        let rows = self.wire().query_text(&sql).await?;
        let Some(row) = rows.first() else { return Ok(Summary::default()) };
        let row_count = integer(row, 0);
        let mut place = 1;
        let mut columns = Vec::with_capacity(object.columns.len());
        for column in &object.columns {
            let mut summary = summary(column, row, place, row_count);
            place += AGGREGATES;
            if interest(column) == Interest::Number && summary.count > 0 {
                summary.q25 = self.quantile(column, from, summary.count, 0.25).await?;
                summary.q50 = self.quantile(column, from, summary.count, 0.50).await?;
                summary.q75 = self.quantile(column, from, summary.count, 0.75).await?;
            }
            columns.push(summary);
        }
        Ok(Summary { row_count, columns })
    }

    /// The value below which a share of the values lies: the nearest one that is there.
    async fn quantile(&mut self, column: &ObjectColumn, from: &str, count: u64, share: f64) -> Result<Option<f64>> {
        let name = quote(&column.name);
        let offset = ((count - 1) as f64 * share).round() as u64;
        let shown = shown(column);
        let sql = format!("SELECT {shown} FROM {from} WHERE {name} IS NOT NULL ORDER BY {name} LIMIT 1 OFFSET {offset}");
        let rows = self.wire().query_text(&sql).await?;
        Ok(rows.first().and_then(|row| single(column, row.at(0)?).parse().ok()))
    }
}

/// Figures of each column in the one statement.
const AGGREGATES: usize = 9;

fn interest(column: &ObjectColumn) -> Interest {
    match column.logical {
        LogicalType::Int { .. } | LogicalType::Decimal { .. } | LogicalType::Float32 | LogicalType::Float64 | LogicalType::Year => {
            Interest::Number
        }
        LogicalType::Char(_) | LogicalType::Varchar(_) | LogicalType::Text | LogicalType::Enum(_) | LogicalType::Set(_) => Interest::Text,
        LogicalType::Binary(_) | LogicalType::Bytes => Interest::Bytes,
        LogicalType::Spatial { .. } | LogicalType::Json | LogicalType::JsonText | LogicalType::Unsupported(_) => Interest::Presence,
        _ => Interest::Ordered,
    }
}

/// A value of a column in a statement whose answer is text.
fn shown(column: &ObjectColumn) -> String {
    let name = quote(&column.name);
    match column.logical {
        LogicalType::Bit(_) => format!("{name} + 0"),
        LogicalType::Enum(_) | LogicalType::Set(_) => format!("CAST({name} AS CHAR)"),
        LogicalType::Text => format!("LEFT({name}, 255)"),
        // As text, the server rounds singles to six digits (MySQL manual, "Problems with Floating-Point Values").
        LogicalType::Float32 => format!("{name} + 0e0"),
        _ => name,
    }
}

/// A number's text as rows show it: the double that a single was widened to has digits that are not the single's.
fn single(column: &ObjectColumn, text: &str) -> String {
    match (&column.logical, text.parse::<f32>()) {
        (LogicalType::Float32, Ok(single)) => single.to_string(),
        _ => text.to_owned(),
    }
}

/// Name and statement of each figure: count, different values, least, greatest, mean, deviation, shortest, longest, mean length.
fn aggregates(column: &ObjectColumn) -> [(&'static str, String); AGGREGATES] {
    let name = quote(&column.name);
    let interest = interest(column);
    let when = |is_wanted: bool, sql: String| if is_wanted { sql } else { "NULL".to_owned() };
    let is_ordered = matches!(interest, Interest::Number | Interest::Text | Interest::Ordered);
    let is_long = matches!(
        column.logical,
        LogicalType::Text | LogicalType::Bytes | LogicalType::Json | LogicalType::JsonText | LogicalType::Spatial { .. }
    );
    let distinct = if is_long { format!("COUNT(DISTINCT MD5({name}))") } else { format!("COUNT(DISTINCT {name})") };
    let shown = shown(column);
    // Bits are compared as a number and shown as digits.
    let extreme = |function: &str| match column.logical {
        LogicalType::Bit(bits) => format!("LPAD(BIN({function}({shown})), {bits}, '0')"),
        _ => format!("{function}({shown})"),
    };
    let has_length = matches!(interest, Interest::Text | Interest::Bytes);
    let length = if interest == Interest::Bytes { format!("LENGTH({name})") } else { format!("CHAR_LENGTH({name})") };
    [
        ("count", format!("COUNT({name})")),
        ("distinct", distinct),
        ("min", when(is_ordered, extreme("MIN"))),
        ("max", when(is_ordered, extreme("MAX"))),
        ("avg", when(interest == Interest::Number, format!("AVG({name})"))),
        ("std", when(interest == Interest::Number, format!("STDDEV_SAMP({name})"))),
        ("shortest", when(has_length, format!("MIN({length})"))),
        ("longest", when(has_length, format!("MAX({length})"))),
        ("mean length", when(has_length, format!("AVG({length})"))),
    ]
}

fn integer(row: &TextRow, place: usize) -> u64 {
    row.at(place).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn summary(column: &ObjectColumn, row: &TextRow, place: usize, row_count: u64) -> ColumnSummary {
    let is_number = interest(column) == Interest::Number;
    let value = |at: usize| match row.at(place + at) {
        None => Value::Null,
        Some(text) if is_number && is_exact_double(&single(column, text)) => {
            let text = single(column, text);
            serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text))
        }
        Some(text) if matches!(column.logical, LogicalType::Timestamp(_)) => Value::from(format!("{text}+00")),
        Some(text) => Value::from(text),
    };
    let float = |at: usize| row.at(place + at).and_then(|text| text.parse::<f64>().ok());
    let length = |at: usize| row.at(place + at).and_then(|text| text.parse::<u64>().ok());
    let count = integer(row, place);
    let nulls = row_count.saturating_sub(count);
    ColumnSummary {
        name: column.name.clone(),
        native_type: column.full_type.clone(),
        min: value(2),
        max: value(3),
        approx_unique: integer(row, place + 1),
        avg: float(4),
        std: float(5),
        min_length: length(6),
        max_length: length(7),
        avg_length: float(8),
        count,
        null_percentage: if row_count == 0 { 0.0 } else { nulls as f64 * 100.0 / row_count as f64 },
        ..ColumnSummary::default()
    }
}
