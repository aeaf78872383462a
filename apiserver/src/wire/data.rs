//! Rows of tables and views, on the wire.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use millrace_core::explore::{ColumnSummary, Cursor, OrderBy, RowEdit, RowKey};
use millrace_core::json_rows::Numbers;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::errors::{ApiError, ApiResult};

/// Rows of a page when nobody says how many.
pub(crate) const DEFAULT_LIMIT: u64 = 100;
/// The most rows of a page.
pub(crate) const MAX_LIMIT: u64 = 10_000;
/// The most rows of one change.
const MAX_CHANGES: usize = 1_000;

/// Which rows are wanted, as the query string says it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DataParams {
    pub(crate) limit: Option<u64>,
    pub(crate) offset: u64,
    pub(crate) skip_count: bool,
    pub(crate) order_by: Option<String>,
    pub(crate) order_dir: Option<String>,
    pub(crate) order_nulls: Option<String>,
    #[serde(rename = "where")]
    pub(crate) condition: Option<String>,
    #[serde(rename = "tabId")]
    pub(crate) tab: Option<String>,
    pub(crate) max_rows: u64,
    pub(crate) after: Option<String>,
    pub(crate) numbers: Option<String>,
    /// What the rows of a page may be altogether; no parameter of requests.
    #[serde(skip)]
    pub(crate) most_bytes: Option<usize>,
}

impl DataParams {
    /// The condition, if there is one.
    pub(crate) fn condition(&self) -> Option<&str> {
        self.condition.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }

    /// What happens to numbers that a double cannot carry.
    pub(crate) fn numbers(&self) -> ApiResult<Numbers> {
        numbers(self.numbers.as_deref())
    }

    /// The order: `order_by` with the parallel lists `order_dir` and `order_nulls`.
    pub(crate) fn order(&self) -> ApiResult<Vec<OrderBy>> {
        let list = |text: &Option<String>| -> Vec<String> {
            text.as_deref().map(|text| text.split(',').map(|part| part.trim().to_ascii_uppercase()).collect()).unwrap_or_default()
        };
        let (directions, nulls) = (list(&self.order_dir), list(&self.order_nulls));
        let columns = column_list(self.order_by.as_deref().unwrap_or_default())?;
        for (name, parallel) in [("order_dir", &directions), ("order_nulls", &nulls)] {
            let has_more = parallel.len() > columns.len() && parallel.iter().any(|word| !word.is_empty());
            if has_more {
                return Err(ApiError::invalid(name, format!("`{name}` names more directions than `order_by` columns")));
            }
        }
        let one = |(at, column): (usize, String)| {
            let descending = match directions.get(at).map_or("", String::as_str) {
                "" | "ASC" => false,
                "DESC" => true,
                other => return Err(ApiError::invalid("order_dir", "a direction is `ASC` or `DESC`").detail("value", other)),
            };
            let nulls_first = match nulls.get(at).map_or("", String::as_str) {
                "" => None,
                "FIRST" => Some(true),
                "LAST" => Some(false),
                other => return Err(ApiError::invalid("order_nulls", "NULLs come `FIRST` or `LAST`").detail("value", other)),
            };
            Ok(OrderBy { column, descending, nulls_first })
        };
        columns.into_iter().enumerate().map(one).collect()
    }

    /// The place after which the page begins, and how many rows the pages before it had.
    pub(crate) fn cursor(&self, order: &[OrderBy]) -> ApiResult<Option<(Cursor, u64)>> {
        let Some(text) = self.after.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let read = || -> Option<Sealed> { serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
        let wrong = |text: &'static str| ApiError::invalid("after", text);
        let sealed = read().ok_or_else(|| wrong("this is not a `nextCursor` of an earlier page"))?;
        let is_same = sealed.query == query_mark(self.condition()) && sealed.cursor.order.starts_with(order);
        if !is_same || sealed.cursor.values.len() != sealed.cursor.order.len() {
            return Err(wrong("the cursor belongs to another condition or order"));
        }
        if self.offset > 0 {
            return Err(ApiError::invalid("offset", "a page begins at `after` or at `offset`, not at both"));
        }
        Ok(Some((sealed.cursor, sealed.given)))
    }

    /// The place of the next page, behind so many rows, as text.
    pub(crate) fn seal(&self, cursor: Cursor, given: u64) -> String {
        let sealed = Sealed { query: query_mark(self.condition()), given, cursor };
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&sealed).unwrap_or_default())
    }
}

/// A cursor with what it belongs to.
#[derive(Serialize, Deserialize)]
struct Sealed {
    query: String,
    #[serde(default)]
    given: u64,
    #[serde(flatten)]
    cursor: Cursor,
}

fn query_mark(condition: Option<&str>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(condition.unwrap_or_default().as_bytes())[..9])
}

/// Reads `numbers=`.
pub(crate) fn numbers(word: Option<&str>) -> ApiResult<Numbers> {
    match word {
        None | Some("" | "safe") => Ok(Numbers::StringIfInexact),
        Some("exact") => Ok(Numbers::Exact),
        Some(other) => Err(ApiError::invalid("numbers", "`numbers` is `safe` or `exact`").detail("value", other)),
    }
}

/// Names separated by commas; one that holds a comma stands in double quotes.
fn column_list(text: &str) -> ApiResult<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut left = quoted;
            loop {
                let Some((part, after)) = left.split_once('"') else {
                    return Err(ApiError::invalid("order_by", "a quoted column name does not end"));
                };
                name.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        left = more;
                    }
                    None => break (name, after.trim_start()),
                }
            }
        } else {
            let (name, _) = rest.split_once(',').unwrap_or((rest, ""));
            (name.trim().to_owned(), &rest[name.len()..])
        };
        if name.is_empty() {
            return Err(ApiError::invalid("order_by", "a column name is empty"));
        }
        names.push(name);
        rest = match after.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.is_empty() => after,
            None => return Err(ApiError::invalid("order_by", "columns are separated by commas")),
        };
    }
    Ok(names)
}

/// A page of rows.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableData {
    /// Names, in order.
    pub(crate) columns: Vec<String>,
    /// Their types as the engine spells them.
    pub(crate) column_types: Vec<String>,
    /// One array per row.
    #[schemars(with = "Vec<Vec<Value>>")]
    pub(crate) rows: Box<RawValue>,
    /// Rows of this page.
    pub(crate) count: u64,
    /// Rows that meet the condition; 0 if they were not to be counted.
    #[serde(rename = "total_count")]
    pub(crate) total_count: i64,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
    /// `success`
    pub(crate) status: &'static str,
    /// Sent back as `after`, it gives the next page at the same speed however far it is; absent on the last page, and without a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
    /// What each row is known by; sent back with an edit, it keeps the edit from a row that is another by then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub(crate) etags: Vec<String>,
}

/// A count.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Count {
    /// Rows that meet the condition.
    pub(crate) count: u64,
    /// `success`
    pub(crate) status: &'static str,
}

/// New rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct InsertRequest {
    /// The table's schema; the engine's default if absent.
    pub(crate) schema: Option<String>,
    /// At most 1000.
    pub(crate) inserts: Vec<NewRow>,
    /// What happens where the primary key is taken: `error` (the default) or `update`.
    #[serde(default)]
    pub(crate) on_conflict: OnConflict,
}

/// What happens where the primary key is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnConflict {
    /// Nothing is changed, and the request fails.
    #[default]
    Error,
    /// The row there gets the values.
    Update,
}

/// A new row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRow {
    /// Values by column; a column that is left out gets its default.
    pub(crate) values: Map<String, Value>,
}

/// New values in rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditRequest {
    /// The table's schema; the engine's default if absent.
    pub(crate) schema: Option<String>,
    /// At most 1000.
    pub(crate) edits: Vec<RowEdit>,
}

/// Rows that go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteRequest {
    /// The table's schema; the engine's default if absent.
    pub(crate) schema: Option<String>,
    /// At most 1000.
    pub(crate) deletes: Vec<RowKey>,
}

/// Refuses changes of no row and of too many.
pub(crate) fn check_size(field: &'static str, rows: usize) -> ApiResult<()> {
    match rows {
        0 => Err(ApiError::invalid(field, "there is nothing to change")),
        1..=MAX_CHANGES => Ok(()),
        _ => Err(ApiError::invalid(field, format!("at most {MAX_CHANGES} rows are changed at once"))),
    }
}

/// Rows that were added.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Inserted {
    /// `success`
    pub(crate) status: &'static str,
    /// How many.
    pub(crate) inserted: u64,
    /// As they are stored, with defaults and generated keys.
    pub(crate) rows: Vec<Value>,
}

/// Rows that were changed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Edited {
    /// `success`
    pub(crate) status: &'static str,
    /// How many.
    pub(crate) updated: u64,
    /// As they are stored now.
    pub(crate) rows: Vec<Value>,
}

/// Rows that went.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RowsDeleted {
    /// `success`
    pub(crate) status: &'static str,
    /// How many.
    pub(crate) deleted: u64,
}

/// How statistics are made.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SummaryBody {
    /// Only about so many percent of the rows, 1 to 100.
    pub(crate) sample_percent: Option<f64>,
}

/// Statistics of a table or view.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableSummary {
    pub(crate) table: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) database: Option<String>,
    /// Rows, of the sample if there is one.
    pub(crate) row_count: u64,
    pub(crate) column_count: usize,
    pub(crate) columns: Vec<ColumnSummary>,
    pub(crate) execution_time_ms: u64,
    /// Whether only a part of the rows was looked at.
    pub(crate) sampled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sample_percent: Option<f64>,
    /// `success`
    pub(crate) status: &'static str,
    /// When it was made; ISO 8601.
    pub(crate) cached_at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> DataParams {
        serde_json::from_value(serde_json::json!({"order_by": query})).unwrap_or_default()
    }

    #[test]
    fn columns_of_an_order_may_hold_commas_and_quotes() {
        let names = |text: &str| params(text).order().map(|order| order.into_iter().map(|by| by.column).collect::<Vec<_>>()).ok();
        assert_eq!(names("a, b"), Some(vec!["a".into(), "b".into()]));
        assert_eq!(names("\"a,b\" ,\"c\"\"d\""), Some(vec!["a,b".into(), "c\"d".into()]));
        assert_eq!(names(""), Some(vec![]));
        assert_eq!(names("a,,b"), None);
        assert_eq!(names("\"a"), None);
        assert_eq!(names("\"a\"b"), None);
    }

    #[test]
    fn a_cursor_is_taken_back_for_the_same_query_only() {
        let by = |column: &str| OrderBy { column: column.into(), descending: false, nulls_first: None };
        let cursor = Cursor { order: vec![by("a"), by("id")], values: vec![None, Some("7".into())] };
        let first = DataParams { condition: Some("x > 1".into()), ..DataParams::default() };
        let text = first.seal(cursor.clone(), 7);
        let next = |condition: &str, order: &[OrderBy], text: &str| {
            let params = DataParams { condition: Some(condition.into()), after: Some(text.into()), ..DataParams::default() };
            params.cursor(order).ok().flatten()
        };
        assert_eq!(next("x > 1", &[by("a")], &text), Some((cursor, 7)));
        assert_eq!(next("x > 2", &[by("a")], &text), None);
        assert_eq!(next("x > 1", &[by("b")], &text), None);
        assert_eq!(next("x > 1", &[by("a")], "abc"), None);
    }
}
