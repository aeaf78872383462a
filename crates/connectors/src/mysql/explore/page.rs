//! Pages of rows, by offset and from a place on.

use millrace_core::catalog::{Column, LogicalType};
use millrace_core::explore::{Cursor, OrderBy, Page, PageRequest, ResultColumn};
use millrace_core::json_rows::{JsonRows, value_text};
use millrace_core::structure::ObjectName;
use millrace_core::value::{RowEncoder, ValueError, ValueRef};
use millrace_core::{Error, Kind, Result};

use super::super::queries;
use super::super::values::{RowDecoder, RowError};
use super::super::wire::{Announced, Answered, Param, ResultColumn as Announcement, Row, Wire};
use super::bind::{Piece, bound};
use super::object::{Object, ObjectColumn};
use super::{MySqlExplorer, qualified, quote};

impl MySqlExplorer {
    pub(super) async fn read_page(&mut self, page: &PageRequest, rows: &mut JsonRows) -> Result<Page> {
        let database = self.database()?;
        let object = Object::read(self.wire(), &database, &page.object.name).await?;
        let order = whole_order(&object, &page.order)?;
        let piece = statement(&object, page, &order)?;
        self.statements.push(piece.sql.clone());
        let long = order.iter().filter(|by| object.column(&by.column).is_some_and(is_long)).count();
        self.begin_reading().await?;
        let widened = if long > 0 { self.widen_sorting(long, page.limit.saturating_add(page.offset)).await } else { Ok(()) };
        let read = match widened {
            Ok(()) => read(self.wire(), &object, &piece, page.limit, &order, rows).await,
            Err(error) => Err(error),
        };
        let read = self.end_reading(read).await;
        if long > 0 && (read.is_ok() || self.is_clean) {
            // A session that sorts otherwise than the server is set up is not given to anybody else.
            self.is_clean &= self.narrow_sorting().await.is_ok();
        }
        let (columns, last) = read.map_err(wrong_condition)?;
        // Without a key, rows that are alike in the order's columns could be told from each other by nothing.
        let has_end = !object.key.columns().is_empty() && order.iter().all(|by| object.column(&by.column).is_some_and(is_comparable));
        let next = last.filter(|_| has_end).map(|values| Cursor { values: cut_all(&object, &order, values), order });
        Ok(Page { columns, next })
    }

    /// Has the server sort by all that takes part in an order of so many long columns. The room for it must hold some rows, or the server refuses to sort, and should
    /// hold those of the page, or it sorts by way of files.
    async fn widen_sorting(&mut self, columns: usize, rows: u64) -> Result<()> {
        self.wire().execute_text(&format!("SET SESSION max_sort_length = {SORT_LENGTH}")).await?;
        let row = SORT_LENGTH * columns as u64;
        let room = rows.saturating_add(1).saturating_mul(row).min(MOST_ROOM).max(row * LEAST_ROWS);
        match self.wire().execute_text(&format!("SET SESSION sort_buffer_size = GREATEST(@@SESSION.sort_buffer_size, {room})")).await {
            // A server that lets nobody change it sorts with what it has.
            Err(error) if error.detail("errno").is_some() => Ok(()),
            other => other,
        }
    }

    async fn narrow_sorting(&mut self) -> Result<()> {
        self.wire().execute_text("SET SESSION max_sort_length = DEFAULT").await?;
        match self.wire().execute_text("SET SESSION sort_buffer_size = DEFAULT").await {
            Err(error) if error.detail("errno").is_some() => Ok(()),
            other => other,
        }
    }

    pub(super) async fn count_rows(&mut self, object: &ObjectName, condition: Option<&str>) -> Result<u64> {
        let database = self.database()?;
        let object = Object::read(self.wire(), &database, &object.name).await?;
        let condition = condition.map_or(String::new(), |text| format!(" WHERE (\n{text}\n)"));
        let sql = format!("SELECT COUNT(*) FROM {}{condition}", qualified(&object.database, &object.name));
        self.statements.push(sql.clone());
        self.begin_reading().await?;
        let counted = self.wire().query_text(&sql).await;
        let rows = self.end_reading(counted).await.map_err(wrong_condition)?;
        let count = rows.first().and_then(|row| row.at(0)?.parse().ok());
        count.ok_or_else(|| Error::new(Kind::ProtocolViolated, "the server answered no count"))
    }
}

/// Only the condition can be at fault.
fn wrong_condition(error: Error) -> Error {
    match error.kind() {
        Kind::StatementRefused | Kind::ObjectMissing | Kind::ValueRefused => {
            Error::new(Kind::StatementRefused, error.message().to_owned()).field("where").because(error)
        }
        _ => error,
    }
}

/// The user's order, and after it the key's columns that it leaves open.
fn whole_order(object: &Object, wanted: &[OrderBy]) -> Result<Vec<OrderBy>> {
    let mut order = wanted.to_vec();
    for by in &order {
        object.known_column(&by.column).map_err(|error| error.field("order_by"))?;
    }
    for column in object.key.columns() {
        if !order.iter().any(|by| by.column.eq_ignore_ascii_case(column)) {
            order.push(OrderBy { column: column.clone(), descending: false, nulls_first: None });
        }
    }
    Ok(order)
}

/// By so many characters texts are sorted; longer ones take part in an order with these, so that a cursor cuts where the server sorts.
const SORTED_CHARACTERS: usize = 2048;
/// As above, of bytes.
const SORTED_BYTES: usize = 16_384;
/// Servers sort by the first bytes of a value's weights (`max_sort_length`); so many hold those of all characters that are sorted by.
const SORT_LENGTH: u64 = 32_768;
/// What servers sort by if nobody says otherwise is enough for the weights of so many characters.
const SHORT_TEXT: u32 = 255;
/// As above, of bytes.
const SHORT_BYTES: usize = 1024;
/// Servers merge so many rows at a time, and one more; with less room they refuse to sort (`MERGEBUFF2`).
const LEAST_ROWS: u64 = 16;
/// The most room that a page's rows are given for sorting, bytes.
const MOST_ROOM: u64 = 32 << 20;

/// How a column takes part in an order: labels by their texts, because an index of theirs means nothing to a cursor, and exactly, because labels that a collation
/// holds for equal are different rows.
fn sorted(object: &Object, column: &ObjectColumn) -> String {
    let name = quote(&column.name);
    match column.logical {
        LogicalType::Enum(_) | LogicalType::Set(_) => format!("CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin"),
        _ => cut_at(object, column).map_or(name.clone(), |length| format!("LEFT({name}, {length})")),
    }
}

/// How much of a column's values takes part in an order; none for all. A key's columns tell rows apart, so they take part whole.
fn cut_at(object: &Object, column: &ObjectColumn) -> Option<usize> {
    match column.logical {
        _ if object.key.columns().iter().any(|key| key.eq_ignore_ascii_case(&column.name)) => None,
        LogicalType::Text => Some(SORTED_CHARACTERS),
        LogicalType::Varchar(length) if length as usize > SORTED_CHARACTERS => Some(SORTED_CHARACTERS),
        LogicalType::Bytes if bytes_of(column) > SORTED_BYTES => Some(SORTED_BYTES),
        _ => None,
    }
}

/// Whether the server's own setting would leave out what comes late in a column's values.
fn is_long(column: &ObjectColumn) -> bool {
    match column.logical {
        LogicalType::Text => true,
        LogicalType::Varchar(length) => length > SHORT_TEXT,
        LogicalType::Bytes => bytes_of(column) > SHORT_BYTES,
        _ => false,
    }
}

/// How many bytes `varbinary(n)` holds; a blob as many as there are.
fn bytes_of(column: &ObjectColumn) -> usize {
    let length = column.full_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    length.and_then(|(length, _)| length.trim().parse().ok()).unwrap_or(usize::MAX)
}

/// The part of a value's text that takes part in an order.
fn cut<'a>(object: &Object, column: &ObjectColumn, text: &'a str) -> &'a str {
    // Two characters stand for each byte, and two for what begins them.
    let length = cut_at(object, column).map(|length| if column.logical == LogicalType::Bytes { length * 2 + 2 } else { length });
    length.and_then(|length| text.char_indices().nth(length)).map_or(text, |(end, _)| &text[..end])
}

/// A place by no more than what says where it is.
fn cut_all(object: &Object, order: &[OrderBy], values: Vec<Option<String>>) -> Vec<Option<String>> {
    let one = |(by, value): (&OrderBy, Option<String>)| {
        let value = value?;
        Some(object.column(&by.column).map_or(value.as_str(), |column| cut(object, column, &value)).to_owned())
    };
    order.iter().zip(values).map(one).collect()
}

/// Whether a value's text can say which values come after it.
fn is_comparable(column: &ObjectColumn) -> bool {
    !matches!(column.logical, LogicalType::Json | LogicalType::Spatial { .. } | LogicalType::Unsupported(_))
}

/// MySQL's habit: NULL is less than everything.
fn nulls_first(by: &OrderBy) -> bool {
    by.nulls_first.unwrap_or(!by.descending)
}

fn statement(object: &Object, page: &PageRequest, order: &[OrderBy]) -> Result<Piece> {
    let columns: Vec<String> = object.columns.iter().map(|column| quote(&column.name)).collect();
    let mut piece = Piece::new(format!("SELECT {} FROM {}", columns.join(", "), qualified(&object.database, &object.name)));
    let mut conditions = Vec::new();
    conditions.extend(page.condition.as_deref().map(|text| Piece::new(format!("(\n{text}\n)"))));
    if let Some(cursor) = &page.after {
        if cursor.order != order || cursor.values.len() != order.len() {
            return Err(Error::invalid("after", "the cursor belongs to another order"));
        }
        conditions.push(after(object, cursor)?);
    }
    if !conditions.is_empty() {
        piece.push(Piece::new(" WHERE "));
        piece.push(Piece::join(conditions, " AND "));
    }
    let mut keys = Vec::new();
    for by in order {
        let column = object.known_column(&by.column)?;
        let direction = if by.descending { " DESC" } else { "" };
        if column.is_nullable && nulls_first(by) == by.descending {
            keys.push(format!("ISNULL({}){}", quote(&column.name), if nulls_first(by) { " DESC" } else { "" }));
        }
        keys.push(format!("{}{direction}", sorted(object, column)));
    }
    if !keys.is_empty() {
        piece.push(Piece::new(format!(" ORDER BY {}", keys.join(", "))));
    }
    // One more tells whether there is a next page.
    piece.push(Piece::new(format!(" LIMIT {}", page.limit.saturating_add(1))));
    if page.offset > 0 {
        piece.push(Piece::new(format!(" OFFSET {}", page.offset)));
    }
    Ok(piece)
}

/// Rows behind a place: `a > ? OR (a = ? AND (b > ? OR …))`, with a plain bound on the first column in front, which an index can use.
fn after(object: &Object, cursor: &Cursor) -> Result<Piece> {
    let mut alternatives = Vec::new();
    let mut equal: Vec<Piece> = Vec::new();
    for (by, value) in cursor.order.iter().zip(&cursor.values) {
        let column = object.known_column(&by.column)?;
        if let Some(behind) = behind(object, column, by, value.as_deref(), false)? {
            let mut all = equal.clone();
            all.push(behind);
            alternatives
                .push(Piece { sql: format!("({})", Piece::join(all.clone(), " AND ").sql), params: Piece::join(all, " AND ").params });
        }
        equal.push(same(object, column, value.as_deref())?);
    }
    if alternatives.is_empty() {
        return Ok(Piece::new("FALSE"));
    }
    let any = Piece::join(alternatives, " OR ");
    let mut whole = Vec::new();
    if let (Some(by), Some(Some(value))) = (cursor.order.first(), cursor.values.first()) {
        let column = object.known_column(&by.column)?;
        whole.extend(behind(object, column, by, Some(value), true)?);
    }
    whole.push(Piece { sql: format!("({})", any.sql), params: any.params });
    Ok(Piece::join(whole, " AND "))
}

/// A condition that a column's value comes behind a value, or is it (`or_same`); none if nothing does.
fn behind(object: &Object, column: &ObjectColumn, by: &OrderBy, value: Option<&str>, or_same: bool) -> Result<Option<Piece>> {
    let name = sorted(object, column);
    let Some(value) = value else {
        // Behind NULL come values, unless NULLs come last.
        return Ok(nulls_first(by).then(|| Piece::new(format!("{name} IS NOT NULL"))));
    };
    let value = parameter(object, column, value)?;
    let operator = match (by.descending, or_same) {
        (false, false) => ">",
        (false, true) => ">=",
        (true, false) => "<",
        (true, true) => "<=",
    };
    let compared = Piece { sql: format!("{name} {operator} {}", value.sql), params: value.params };
    Ok(Some(if column.is_nullable && !nulls_first(by) {
        Piece { sql: format!("({} OR {name} IS NULL)", compared.sql), params: compared.params }
    } else {
        compared
    }))
}

fn same(object: &Object, column: &ObjectColumn, value: Option<&str>) -> Result<Piece> {
    let name = sorted(object, column);
    let Some(value) = value else { return Ok(Piece::new(format!("{name} IS NULL"))) };
    let value = parameter(object, column, value)?;
    Ok(Piece { sql: format!("{name} = {}", value.sql), params: value.params })
}

fn parameter(object: &Object, column: &ObjectColumn, text: &str) -> Result<Piece> {
    let text = cut(object, column, text);
    match column.logical {
        LogicalType::Enum(_) | LogicalType::Set(_) => Ok(Piece { sql: "?".into(), params: vec![Param::Text(text.to_owned())] }),
        _ => bound(column, text, "after"),
    }
}

/// What the server announces, as the types by which rows are read, and as what clients are told.
pub(super) fn columns(announced: &[Announced]) -> (Vec<Column>, Vec<ResultColumn>) {
    let columns: Vec<Column> = announced.iter().map(queries::column).collect();
    let results = columns
        .iter()
        .map(|column| ResultColumn {
            name: column.name.clone(),
            native_type: column.native_type.clone(),
            nullable: Some(column.nullable),
            bits: match column.logical {
                LogicalType::Bit(bits) => Some(bits),
                _ => None,
            },
        })
        .collect();
    (columns, results)
}

pub(super) fn decoder(announced: &[Announced], columns: &[Column]) -> Result<RowDecoder> {
    let kinds: Vec<Announcement> = announced
        .iter()
        .map(|column| Announcement {
            kind: column.kind,
            is_unsigned: column.flags.contains(mysql_common::constants::ColumnFlags::UNSIGNED_FLAG),
        })
        .collect();
    RowDecoder::new(columns, &kinds)
}

/// Why a row could not be taken over.
pub(super) fn row_error(error: RowError) -> Error {
    match error {
        RowError::Refused(error) => Error::new(Kind::ValueRefused, error.to_string()),
        RowError::Malformed => Error::new(Kind::ProtocolViolated, "the server sent a malformed row"),
    }
}

type Read = (Vec<ResultColumn>, Option<Vec<Option<String>>>);

/// Reads at most `limit` rows; the order's values of the last one if there are more.
async fn read(wire: &mut Wire, object: &Object, piece: &Piece, limit: u64, order: &[OrderBy], rows: &mut JsonRows) -> Result<Read> {
    let Answered::Rows(announced) = wire.start(&piece.sql, &piece.params).await? else {
        return Err(Error::new(Kind::ProtocolViolated, "the server answered no rows"));
    };
    let (columns, mut results) = columns(&announced);
    for (result, column) in results.iter_mut().zip(&object.columns) {
        result.native_type.clone_from(&column.full_type);
    }
    let decoder = decoder(&announced, &columns)?;
    let wanted = order.iter().map(|by| object.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&by.column)).unwrap_or(0));
    rows.begin_result(&results);
    let mut kept =
        Kept { bits: results.iter().map(|column| column.bits).collect(), last: vec![None; order.len()], wanted: wanted.collect(), rows };
    let mut has_more = false;
    loop {
        match wire.buffered_row() {
            Some(Row::Values(_)) if kept.rows.count() == limit => has_more = true,
            Some(Row::Values(packet)) => {
                decoder.decode(packet, &mut kept).map_err(row_error)?;
                kept.rows.check_size()?;
            }
            Some(Row::End) => break wire.end_rows().await?,
            Some(Row::Refused(error)) => {
                wire.end_rows().await?;
                return Err(error);
            }
            None => wire.wait_for_row().await?,
        }
    }
    let last = has_more.then_some(kept.last);
    Ok((results, last))
}

/// Passes rows on and keeps the last one's values of some columns.
struct Kept<'a> {
    rows: &'a mut JsonRows,
    wanted: Vec<usize>,
    bits: Vec<Option<u16>>,
    last: Vec<Option<String>>,
}

impl RowEncoder for Kept<'_> {
    fn begin_row(&mut self) {
        self.rows.begin_row();
    }

    fn value(&mut self, column: usize, value: ValueRef<'_>) -> Result<(), ValueError> {
        for (place, _) in self.wanted.iter().enumerate().filter(|(_, wanted)| **wanted == column) {
            self.last[place] = value_text(value, self.bits.get(column).copied().flatten());
        }
        self.rows.value(column, value)
    }

    fn end_row(&mut self) {
        self.rows.end_row();
    }

    fn abandon_row(&mut self) {
        self.rows.abandon_row();
    }

    fn is_full(&self) -> bool {
        self.rows.is_full()
    }
}
