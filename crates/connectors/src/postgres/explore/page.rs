//! Pages of rows, and counts.
//!
//! An order ends with the columns of the key, so that it is one order and a page can begin after the last row of the one before. That place is given as a condition:
//!
//! ```text
//!  all rising (or all falling), no NULLs    (a, b, key) > (x, y, z)                           one range of an index
//!  else                                     a after x OR a = x AND (b after y OR b = y AND …)  with `a >= x` beside it where a has no NULLs
//! ```
//!
//! "After" minds the direction and where NULLs stand.

use futures::StreamExt as _;
use millrace_core::explore::{Cursor, Explorer as _, OrderBy, Page, PageRequest};
use millrace_core::json_rows::JsonRows;
use millrace_core::structure::ObjectName;
use millrace_core::{Error, Kind, Result};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::super::error::refusal;
use super::super::names::quote;
use super::PgExplorer;
use super::rows;
use super::split::split;
use super::sql::Sql;
use super::table::{Field, Shape};

/// One part of an order, with its column.
struct Part<'a> {
    field: &'a Field,
    by: OrderBy,
}

impl Part<'_> {
    /// NULLs are greatest if nobody says otherwise.
    fn has_nulls_first(&self) -> bool {
        self.by.nulls_first.unwrap_or(self.by.descending)
    }
}

/// Reads one page.
pub(super) async fn page(explorer: &mut PgExplorer, request: &PageRequest, rows: &mut JsonRows) -> Result<Page> {
    let shape = Shape::load(explorer, &request.object).await?;
    let order = full_order(&shape, request)?;
    let mut sql = Sql::new("SELECT ");
    sql.list(shape.names());
    sql.push(" FROM ");
    sql.push(&shape.place());
    let mut condition_at = None;
    push_where(&mut sql, request.condition.as_deref(), request.after.as_ref(), &order, &mut condition_at)?;
    push_order(&mut sql, &order);
    sql.push(&format!("\nLIMIT {}", request.limit.saturating_add(1).min(i64::MAX as u64)));
    if request.offset > 0 {
        sql.push(&format!(" OFFSET {}", request.offset.min(i64::MAX as u64)));
    }
    let columns = shape.columns();
    let forms = shape.forms();
    rows.begin_result(&columns);
    let places: Vec<usize> = order.iter().filter_map(|part| shape.fields.iter().position(|field| field.name == part.field.name)).collect();
    let has_next = request.is_editable && !shape.true_key().is_empty();
    let (mut count, mut last, mut next) = (0_u64, Vec::new(), None);
    let each = |row: &SimpleQueryRow| {
        count += 1;
        if count > request.limit {
            next = has_next.then(|| std::mem::take(&mut last)).filter(|_| request.limit > 0);
            return Ok(());
        }
        rows::add(row, 0, &forms, rows)?;
        rows.check_size()?;
        if has_next && count == request.limit {
            last = places.iter().map(|place| Ok(rows::text(row, *place)?.map(str::to_owned))).collect::<Result<_>>()?;
        }
        Ok(())
    };
    read(explorer, &sql, condition_at, each).await?;
    let next = next.map(|values| Cursor { order: order.into_iter().map(|part| part.by).collect(), values });
    Ok(Page { columns, next })
}

/// Counts rows.
pub(super) async fn count(explorer: &mut PgExplorer, object: &ObjectName, condition: Option<&str>) -> Result<u64> {
    let shape = Shape::load(explorer, object).await?;
    let mut sql = Sql::new("SELECT count(*) FROM ");
    sql.push(&shape.place());
    let mut condition_at = None;
    push_where(&mut sql, condition, None, &[], &mut condition_at)?;
    let mut count = None;
    let each = |row: &SimpleQueryRow| {
        count = rows::text(row, 0)?.and_then(|text| text.parse().ok());
        Ok(())
    };
    read(explorer, &sql, condition_at, each).await?;
    count.ok_or_else(|| Error::new(Kind::ProtocolViolated, "the server did not answer a count"))
}

/// Runs a query in a transaction that cannot write.
pub(super) async fn read(
    explorer: &mut PgExplorer,
    sql: &Sql,
    condition_at: Option<usize>,
    mut each: impl FnMut(&SimpleQueryRow) -> Result<()>,
) -> Result<()> {
    explorer.statements.push(sql.shown().to_owned());
    if let Some(at) = condition_at {
        // A simple query may hold several statements, a prepared one may not: what the condition says stays inside of this one, whatever it is.
        explorer.client.prepare(sql.sent()).await.map_err(|error| refusal(error, at))?;
    }
    let read = read_all(explorer, sql, &mut each).await;
    if read.is_err() {
        explorer.roll_back().await;
    }
    read
}

async fn read_all(explorer: &PgExplorer, sql: &Sql, each: &mut impl FnMut(&SimpleQueryRow) -> Result<()>) -> Result<()> {
    // A place in the text would be one in a text that nobody has written.
    let refused = |error| refusal(error, usize::MAX);
    let text = format!("BEGIN READ ONLY;\n{};\nCOMMIT", sql.sent());
    let mut messages = std::pin::pin!(explorer.client.simple_query_raw(&text).await.map_err(refused)?);
    let mut outcome = Ok(());
    while let Some(message) = messages.next().await {
        match message {
            Ok(SimpleQueryMessage::Row(row)) if outcome.is_ok() => {
                outcome = each(&row);
                if outcome.is_err() {
                    // What still comes is read away, so there should be little of it.
                    let _ = explorer.canceller().cancel().await;
                }
            }
            Ok(_) => {}
            // That the statement was ended is no news then.
            Err(error) => outcome = outcome.and(Err(refused(error))),
        }
    }
    outcome
}

/// The wanted order, and the key's columns where they are not in it.
fn full_order<'a>(shape: &'a Shape, request: &PageRequest) -> Result<Vec<Part<'a>>> {
    let mut order: Vec<Part<'a>> = Vec::new();
    for by in &request.order {
        let field = shape.field(&by.column).ok_or_else(|| {
            Error::new(Kind::ObjectMissing, format!("`{}` has no column `{}`", request.object, by.column)).with("column", by.column.clone())
        })?;
        // What stands twice decides nothing the second time.
        if !order.iter().any(|part| part.field.name == field.name) {
            order.push(Part { field, by: by.clone() });
        }
    }
    for index in shape.true_key() {
        let field = &shape.fields[*index];
        if !order.iter().any(|part| part.field.name == field.name) {
            order.push(Part { field, by: OrderBy { column: field.name.clone(), descending: false, nulls_first: None } });
        }
    }
    if let Some(after) = &request.after {
        let is_same = after.order.iter().eq(order.iter().map(|part| &part.by)) && after.values.len() == order.len();
        if !is_same || shape.true_key().is_empty() {
            return Err(Error::invalid("cursor", "the cursor belongs to another query"));
        }
    }
    Ok(order)
}

fn push_order(sql: &mut Sql, order: &[Part<'_>]) {
    for (index, part) in order.iter().enumerate() {
        sql.push(if index == 0 { "\nORDER BY " } else { ", " });
        sql.name(&part.field.name);
        if part.by.descending {
            sql.push(" DESC");
        }
        // Where there are no NULLs, indexes of either kind fit.
        if part.by.nulls_first.is_some() && part.field.is_nullable {
            sql.push(if part.has_nulls_first() { " NULLS FIRST" } else { " NULLS LAST" });
        }
    }
}

/// Adds the conditions; notes how many characters stand before the user's.
fn push_where(
    sql: &mut Sql,
    condition: Option<&str>,
    after: Option<&Cursor>,
    order: &[Part<'_>],
    condition_at: &mut Option<usize>,
) -> Result<()> {
    let mut word = "\nWHERE ";
    if let Some(condition) = condition.filter(|condition| !condition.trim().is_empty()) {
        let pieces = split(condition);
        if pieces.len() != 1 || pieces[0].is_open || pieces[0].is_unbalanced || pieces[0].text.len() != condition.trim().len() {
            return Err(Error::invalid("where", "the condition is not one expression"));
        }
        sql.push(word);
        sql.push("(\n");
        *condition_at = Some(sql.characters());
        sql.push(condition);
        sql.push("\n)");
        word = "\nAND ";
    }
    if let Some(after) = after {
        if after.values.iter().flatten().any(|value| value.contains('\0')) {
            return Err(Error::invalid("cursor", "the cursor holds a NUL character"));
        }
        sql.push(word);
        push_after(sql, order, &after.values);
    }
    Ok(())
}

/// Adds the condition of the rows behind a place.
fn push_after(sql: &mut Sql, order: &[Part<'_>], values: &[Option<String>]) {
    let has_nulls = order.iter().zip(values).any(|(part, value)| part.field.is_nullable || value.is_none());
    let Some((first, first_value)) = order.first().zip(values.first()) else { return };
    if !has_nulls && order.iter().all(|part| part.by.descending == first.by.descending) {
        sql.push("(");
        sql.list(order.iter().map(|part| part.field.name.as_str()));
        sql.push(if first.by.descending { ") < (" } else { ") > (" });
        for (index, (part, value)) in order.iter().zip(values).enumerate() {
            sql.push(if index == 0 { "" } else { ", " });
            sql.typed(value.as_deref(), &part.field.cast);
        }
        sql.push(")");
        return;
    }
    if !first.field.is_nullable {
        // A range that an index finds; the rest is for the rows at its start.
        sql.name(&first.field.name);
        sql.push(if first.by.descending { " <= " } else { " >= " });
        sql.typed(first_value.as_deref(), &first.field.cast);
        sql.push(" AND ");
    }
    for (part, value) in order.iter().zip(values) {
        sql.push("(");
        push_later(sql, part, value.as_deref());
        sql.push(" OR ");
        sql.name(&part.field.name);
        match value {
            None => sql.push(" IS NULL"),
            Some(value) => {
                sql.push(" = ");
                sql.typed(Some(value), &part.field.cast);
            }
        }
        sql.push(" AND ");
    }
    sql.push("false");
    sql.push(&")".repeat(order.len()));
}

/// Adds the condition that one column's value comes later than another.
fn push_later(sql: &mut Sql, part: &Part<'_>, value: Option<&str>) {
    let name = quote(&part.field.name);
    match (value, part.has_nulls_first()) {
        (None, true) => sql.push(&format!("{name} IS NOT NULL")),
        (None, false) => sql.push("false"),
        (Some(value), has_nulls_first) => {
            sql.push(&name);
            sql.push(if part.by.descending { " < " } else { " > " });
            sql.typed(Some(value), &part.field.cast);
            if part.field.is_nullable && !has_nulls_first {
                sql.push(&format!(" OR {name} IS NULL"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(parts: &[(&str, bool, bool, Option<bool>)], values: &[Option<&str>]) -> String {
        let fields: Vec<Field> = parts
            .iter()
            .map(|(name, is_nullable, ..)| Field {
                name: (*name).to_owned(),
                cast: "integer".to_owned(),
                is_nullable: *is_nullable,
                ..Field::default()
            })
            .collect();
        let by = |(column, _, descending, nulls_first): &(&str, bool, bool, Option<bool>)| OrderBy {
            column: (*column).to_owned(),
            descending: *descending,
            nulls_first: *nulls_first,
        };
        let order: Vec<Part<'_>> = fields.iter().zip(parts).map(|(field, part)| Part { field, by: by(part) }).collect();
        let values: Vec<Option<String>> = values.iter().map(|value| value.map(str::to_owned)).collect();
        let mut sql = Sql::default();
        push_after(&mut sql, &order, &values);
        sql.sent().to_owned()
    }

    #[test]
    fn one_direction_without_nulls_is_one_comparison_of_rows() {
        let rising = [("a", false, false, None), ("k", false, false, None)];
        assert_eq!(after(&rising, &[Some("1"), Some("2")]), "(\"a\", \"k\") > ('1'::integer, '2'::integer)");
        let falling = [("k", false, true, None)];
        assert_eq!(after(&falling, &[Some("2")]), "(\"k\") < ('2'::integer)");
    }

    #[test]
    fn mixed_directions_begin_with_a_range_and_nulls_stand_where_they_are_ordered() {
        let mixed = [("a", false, true, None), ("k", false, false, None)];
        assert_eq!(
            after(&mixed, &[Some("1"), Some("2")]),
            "\"a\" <= '1'::integer AND (\"a\" < '1'::integer OR \"a\" = '1'::integer AND (\"k\" > '2'::integer OR \"k\" = '2'::integer AND false))"
        );
        let last = [("a", true, false, None), ("k", false, false, None)];
        assert!(after(&last, &[Some("1"), Some("2")]).starts_with("(\"a\" > '1'::integer OR \"a\" IS NULL OR \"a\" = "));
        assert!(after(&last, &[None, Some("2")]).starts_with("(false OR \"a\" IS NULL AND ("));
        let first = [("a", true, false, Some(true)), ("k", false, false, None)];
        assert!(after(&first, &[None, Some("2")]).starts_with("(\"a\" IS NOT NULL OR \"a\" IS NULL AND ("));
        assert!(after(&first, &[Some("1"), Some("2")]).starts_with("(\"a\" > '1'::integer OR \"a\" = "));
    }
}
