//! Cuts a table into ranges of its first key column.
//!
//! Only types whose comparison with a parameter agrees with their index order are used: whole numbers, text, bytes, dates. (ENUM compares as
//! text but sorts by number; DECIMAL and FLOAT compare with text as doubles.) Whole numbers are cut by value, helped by the optimizer's row
//! estimates, which cost no scan; everything else by stepping along the index.

use millrace_core::Result;
use millrace_core::catalog::{LogicalType, Table};
use millrace_core::split::{KeyBound, Split, SplitRange};

use super::quote;
use super::reader::param;
use super::wire::{Param, Row, Wire};

/// No table is cut into more pieces than this.
const MAX_SPLITS: u64 = 10_000;

/// Plans a table's splits; `name` is its quoted name.
pub(super) async fn plan(wire: &mut Wire, name: &str, index: usize, table: &Table, target_rows: u64) -> Result<Vec<Split>> {
    let estimated = table.estimated_rows.unwrap_or(0);
    let whole = |range| vec![Split { table: index, ordinal: 0, range, estimated_rows: estimated }];
    // An order or a limit holds over the whole table, not over its pieces.
    if !table.selection.sorts.is_empty() || table.selection.limit.is_some() || table.query.is_some() {
        return Ok(whole(SplitRange::Whole));
    }
    let key_column = table.row_key().and_then(|key| table.column(key.first()?).cloned());
    let Some(column) = key_column.filter(|_| estimated > target_rows + target_rows / 2) else {
        return Ok(whole(SplitRange::Whole));
    };
    let target = target_rows.max(estimated / MAX_SPLITS).max(1);
    let quoted = quote(&column.name);
    let bounds = match column.logical {
        LogicalType::Int { .. } => by_value(wire, name, &quoted, estimated, target).await?,
        LogicalType::Char(_)
        | LogicalType::Varchar(_)
        | LogicalType::Uuid
        | LogicalType::Date
        | LogicalType::DateTime(_)
        | LogicalType::Timestamp(_) => by_step(wire, name, &quoted, target, false).await?,
        LogicalType::Binary(_) | LogicalType::Bytes => by_step(wire, name, &quoted, target, true).await?,
        _ => Vec::new(),
    };
    if bounds.is_empty() {
        return Ok(whole(SplitRange::Whole));
    }
    Ok(from_bounds(index, &column.name, bounds, estimated))
}

/// `n` inner bounds make `n + 1` touching splits.
fn from_bounds(table: usize, column: &str, bounds: Vec<KeyBound>, estimated: u64) -> Vec<Split> {
    let count = bounds.len() as u64 + 1;
    let mut edges: Vec<Option<Vec<KeyBound>>> = vec![None];
    edges.extend(bounds.into_iter().map(|bound| Some(vec![bound])));
    edges.push(None);
    edges
        .windows(2)
        .zip(0..)
        .map(|(edge, ordinal)| Split {
            table,
            ordinal,
            range: SplitRange::Key { columns: vec![column.to_owned()], lower: edge[0].clone(), upper: edge[1].clone() },
            estimated_rows: estimated / count,
        })
        .collect()
}

/// Equal steps between the smallest and the largest value; a step that the optimizer estimates to hold too many rows is halved again.
async fn by_value(wire: &mut Wire, name: &str, column: &str, estimated: u64, target: u64) -> Result<Vec<KeyBound>> {
    let rows = wire.query_text(&format!("SELECT MIN({column}), MAX({column}) FROM {name}")).await?;
    let value = |index: usize| rows.first().and_then(|row| row.at(index)).and_then(|text| text.parse::<i128>().ok());
    let (Some(low), Some(high)) = (value(0), value(1)) else { return Ok(Vec::new()) };
    let steps = i128::from(estimated.div_ceil(target)).min(high - low + 1).max(1);
    let mut pending: Vec<(i128, i128)> =
        (0..steps).map(|step| (low + (high - low + 1) * step / steps, low + (high - low + 1) * (step + 1) / steps)).rev().collect();
    let mut pieces: Vec<(i128, u64)> = Vec::new();
    while let Some((from, to)) = pending.pop() {
        let rows = estimate(wire, name, column, from, to).await?;
        let is_too_large = rows > 2 * target && to - from > 1 && ((pieces.len() + pending.len()) as u64) < MAX_SPLITS;
        if is_too_large {
            let middle = from + (to - from) / 2;
            pending.push((middle, to));
            pending.push((from, middle));
        } else {
            pieces.push((from, rows));
        }
    }
    Ok(join_small(pieces, target).into_iter().map(bound).collect())
}

/// Inner bounds of neighbouring pieces joined while they stay under the target.
fn join_small(pieces: Vec<(i128, u64)>, target: u64) -> Vec<i128> {
    let mut bounds = Vec::new();
    let mut collected = 0u64;
    for (index, (from, rows)) in pieces.into_iter().enumerate() {
        if index > 0 && collected + rows > target + target / 2 {
            bounds.push(from);
            collected = 0;
        }
        collected += rows;
    }
    bounds
}

async fn estimate(wire: &mut Wire, name: &str, column: &str, from: i128, to: i128) -> Result<u64> {
    let sql = format!("EXPLAIN SELECT {column} FROM {name} WHERE {column} >= {from} AND {column} < {to}");
    let rows = wire.query_text(&sql).await?;
    Ok(rows.first().and_then(|row| row.get("rows")).and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Every `target`-th value along the index.
async fn by_step(wire: &mut Wire, name: &str, column: &str, target: u64, is_binary: bool) -> Result<Vec<KeyBound>> {
    let mut bounds: Vec<KeyBound> = Vec::new();
    while (bounds.len() as u64) < MAX_SPLITS {
        let after = if bounds.is_empty() { String::new() } else { format!(" WHERE {column} > ?") };
        let params: Vec<Param> = bounds.last().map(param).into_iter().collect();
        // CAST gives dates in the one spelling that compares as a date again.
        let value = if is_binary { column.to_owned() } else { format!("CAST({column} AS CHAR)") };
        let sql = format!("SELECT {value} FROM {name}{after} ORDER BY {column} LIMIT 1 OFFSET {target}");
        let Some(bytes) = first_value(wire, &sql, &params).await? else { break };
        let next = if is_binary {
            KeyBound::Bytes(bytes)
        } else {
            match String::from_utf8(bytes) {
                Ok(text) => KeyBound::Text(text),
                Err(_) => break,
            }
        };
        // A step over many equal values can end on the value that it started from.
        if bounds.last() == Some(&next) {
            break;
        }
        bounds.push(next);
    }
    Ok(bounds)
}

/// The first row's only value in its text form.
async fn first_value(wire: &mut Wire, sql: &str, params: &[Param]) -> Result<Option<Vec<u8>>> {
    wire.open_rows(sql, params).await?;
    let mut value = None;
    loop {
        match wire.buffered_row() {
            Some(Row::Values(packet)) => {
                value = packet.get(2..).and_then(super::wire::lenenc_int).map(|(_, rest)| rest.to_vec());
            }
            Some(Row::End) => break,
            Some(Row::Refused(error)) => return Err(error),
            None => wire.wait_for_row().await?,
        }
    }
    wire.end_rows().await?;
    Ok(value)
}

fn bound(value: i128) -> KeyBound {
    match (i64::try_from(value), u64::try_from(value)) {
        (Ok(value), _) => KeyBound::Int(value),
        (_, Ok(value)) => KeyBound::UInt(value),
        // Between two values of one 64-bit column there is none outside both ranges.
        _ => KeyBound::Text(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_core::split::check_cover;

    #[test]
    fn bounds_make_touching_splits() {
        let splits = from_bounds(0, "id", vec![KeyBound::Int(10), KeyBound::Int(20)], 30);
        assert_eq!(splits.len(), 3);
        assert_eq!(check_cover(&splits), Ok(()));
        assert_eq!(check_cover(&from_bounds(0, "id", Vec::new(), 0)), Ok(()));
    }

    #[test]
    fn small_neighbours_are_joined() {
        let pieces = vec![(0, 10), (5, 10), (9, 90), (20, 100), (30, 0)];
        assert_eq!(join_small(pieces, 100), [20]);
    }

    #[test]
    fn bounds_of_unsigned_keys_keep_their_value() {
        assert_eq!(bound(i128::from(u64::MAX)), KeyBound::UInt(u64::MAX));
        assert_eq!(bound(-1), KeyBound::Int(-1));
    }
}
