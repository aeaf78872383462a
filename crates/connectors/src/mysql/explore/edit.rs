//! Changes of rows: all or none, each of exactly the row that is named.

use millrace_core::explore::{ChangeRequest, ChangedRows, RowChanges, RowEdit, RowKey};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Error, Kind, Result};
use serde_json::{Map, Value};

use super::super::wire::{Answered, Done, Row};
use super::bind::{Piece, assigned, matches};
use super::object::{Object, ObjectColumn, RowKeyColumns};
use super::page::{columns, decoder, row_error};
use super::{MySqlExplorer, qualified, quote};

type Values = Map<String, Value>;

/// WARN_DATA_TRUNCATED: a mere note even in strict mode where a date loses its time.
const TRUNCATED: &str = "1265";

impl MySqlExplorer {
    pub(super) async fn change_rows(&mut self, request: &ChangeRequest) -> Result<ChangedRows> {
        let database = self.database()?;
        let object = Object::read(self.wire(), &database, &request.table.name).await?;
        if object.is_view {
            return Err(Error::not_supported("", format!("`{}` is a view; change the rows of its tables", object.name)));
        }
        let count = match &request.changes {
            RowChanges::Insert(rows) | RowChanges::Upsert(rows) => rows.len(),
            RowChanges::Edit(edits) => edits.len(),
            RowChanges::Delete(keys) => keys.len(),
        };
        if count > 1 && !object.is_transactional {
            let text = format!("the engine {} of `{}` cannot take changes back; change one row at a time", object.engine, object.name);
            return Err(Error::not_supported("", text));
        }
        self.is_clean = false;
        // Values that do not fit are refused instead of cut or clamped.
        self.wire().execute_text("SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO'").await?;
        self.wire().execute_text("START TRANSACTION").await?;
        let changed = match &request.changes {
            RowChanges::Insert(rows) => self.insert_all(&object, rows, false).await,
            RowChanges::Upsert(rows) => self.insert_all(&object, rows, true).await,
            RowChanges::Edit(edits) => self.edit_all(&object, edits).await,
            RowChanges::Delete(keys) => self.delete_all(&object, keys).await,
        };
        match changed {
            Ok(rows) => {
                self.wire().execute_text("COMMIT").await?;
                self.wire().execute_text("SET SESSION sql_mode = ''").await?;
                self.is_clean = true;
                Ok(ChangedRows { count: count as u64, rows })
            }
            // What is unread would be taken for the answer of what comes next.
            Err(error) if self.wire().has_unread() => Err(error),
            Err(error) => {
                // A broken session is thrown away, which ends its transaction, too.
                if self.wire().execute_text("ROLLBACK").await.is_ok() && self.wire().execute_text("SET SESSION sql_mode = ''").await.is_ok()
                {
                    self.is_clean = true;
                }
                Err(error)
            }
        }
    }

    async fn insert_all(&mut self, object: &Object, rows: &[Values], or_update: bool) -> Result<Vec<Value>> {
        if or_update && !matches!(object.key, RowKeyColumns::Primary(_)) {
            return Err(Error::not_supported("onConflict", format!("`{}` has no primary key by which a row could be found", object.name)));
        }
        let mut stored = Vec::new();
        for (index, values) in rows.iter().enumerate() {
            let row = self.insert(object, values, index, or_update).await;
            stored.extend(row.map_err(|error| error.with("index", index.to_string()))?);
        }
        Ok(stored)
    }

    async fn insert(&mut self, object: &Object, values: &Values, index: usize, or_update: bool) -> Result<Option<Value>> {
        let at = format!("inserts[{index}].values");
        let columns = written(object, values, &at)?;
        let has_key = !object.key.columns().is_empty() && object.key.columns().iter().all(|name| value_of(values, name).is_some());
        if or_update && has_key {
            let keys: Values = keys_of(object, values);
            let found = self.find(object, &keys, &at, 2).await?;
            if !found.is_empty() {
                let changes: Values =
                    values.iter().filter(|(name, _)| !is_key(object, name)).map(|(name, value)| (name.clone(), value.clone())).collect();
                if !changes.is_empty() {
                    self.update(object, &keys, &changes, &at).await?;
                }
                return Ok(self.find(object, &keys, &at, 1).await?.into_iter().next().map(|(row, _)| row));
            }
        }
        let mut names = Vec::new();
        let mut pieces = Vec::new();
        for (column, value) in columns {
            names.push(quote(&column.name));
            pieces.push(assigned(column, value, &format!("{at}.{}", column.name))?);
        }
        let mut piece = Piece::new(format!("INSERT INTO {} ({}) VALUES (", qualified(&object.database, &object.name), names.join(", ")));
        piece.push(Piece::join(pieces, ", "));
        piece.push(Piece::new(")"));
        let done = self.write(&piece).await?;
        // The row as it is stored, by whatever names it.
        let mut keys = keys_of(object, values);
        if let Some(column) = object.automatic_column()
            && done.last_insert_id > 0
            && is_key(object, &column.name)
        {
            keys.retain(|name, _| !name.eq_ignore_ascii_case(&column.name));
            keys.insert(column.name.clone(), Value::from(done.last_insert_id));
        }
        if object.key.columns().is_empty() || object.key.columns().iter().any(|name| value_of(&keys, name).is_none()) {
            return Ok(None);
        }
        Ok(self.find(object, &keys, &at, 1).await?.into_iter().next().map(|(row, _)| row))
    }

    async fn edit_all(&mut self, object: &Object, edits: &[RowEdit]) -> Result<Vec<Value>> {
        let mut stored = Vec::new();
        for (index, edit) in edits.iter().enumerate() {
            let at = format!("edits[{index}]");
            if edit.changes.is_empty() {
                return Err(Error::invalid(format!("{at}.changes"), "there is nothing to change"));
            }
            written(object, &edit.changes, &format!("{at}.changes"))?;
            let edited = async {
                self.exactly_one(object, &edit.keys, edit.etag.as_deref(), &format!("{at}.keys")).await?;
                self.update(object, &edit.keys, &edit.changes, &at).await?;
                let mut keys = edit.keys.clone();
                for (name, value) in edit.changes.iter().filter(|(name, _)| is_key(object, name) || object.key.columns().is_empty()) {
                    keys.retain(|key, _| !key.eq_ignore_ascii_case(name));
                    keys.insert(name.clone(), value.clone());
                }
                if object.key.columns().is_empty() {
                    // These have other values by now.
                    keys.retain(|name, _| object.column(name).is_some_and(|column| !column.is_generated && !column.is_refreshed));
                }
                let mut found = self.find(object, &keys, &at, 2).await?;
                let is_sure = found.iter().all(|(row, _)| *row == found[0].0);
                found.truncate(if is_sure { 1 } else { 0 });
                Ok(found)
            };
            let found = edited.await.map_err(|error: Error| error.with("index", index.to_string()))?;
            stored.extend(found.into_iter().map(|(row, _)| row));
        }
        Ok(stored)
    }

    async fn delete_all(&mut self, object: &Object, keys: &[RowKey]) -> Result<Vec<Value>> {
        for (index, key) in keys.iter().enumerate() {
            let at = format!("deletes[{index}].keys");
            let deleted = async {
                self.exactly_one(object, &key.keys, key.etag.as_deref(), &at).await?;
                let mut piece = Piece::new(format!("DELETE FROM {} WHERE ", qualified(&object.database, &object.name)));
                piece.push(condition(object, &key.keys, &at)?);
                piece.push(Piece::new(" LIMIT 1"));
                match self.write(&piece).await?.affected_rows {
                    1 => Ok(()),
                    other => Err(Error::new(Kind::ProtocolViolated, format!("{other} rows were deleted instead of one"))),
                }
            };
            deleted.await.map_err(|error| error.with("index", index.to_string()))?;
        }
        Ok(Vec::new())
    }

    /// Locks the one row that a key meets.
    async fn exactly_one(&mut self, object: &Object, keys: &Values, etag: Option<&str>, at: &str) -> Result<()> {
        check_keys(object, keys, at)?;
        let found = self.find(object, keys, at, 2).await?;
        let conflict = |text: String| Err(Error::new(Kind::Conflict, text).field(at));
        match found.as_slice() {
            [] => conflict(format!("no row of `{}` has this key", object.name)),
            [(_, own)] => match etag {
                Some(etag) if !own.iter().any(|own| own == etag) => {
                    let text = format!("the row of `{}` has changed since it was read", object.name);
                    Err(Error::new(Kind::Conflict, text).field(at).with("reason", "etag"))
                }
                _ => Ok(()),
            },
            _ => conflict(format!("several rows of `{}` are alike; an edit must mean one", object.name)),
        }
    }

    async fn update(&mut self, object: &Object, keys: &Values, changes: &Values, at: &str) -> Result<()> {
        let mut assignments = Vec::new();
        for (column, value) in written(object, changes, &format!("{at}.changes"))? {
            let mut piece = Piece::new(format!("{} = ", quote(&column.name)));
            piece.push(assigned(column, value, &format!("{at}.changes.{}", column.name))?);
            assignments.push(piece);
        }
        let mut piece = Piece::new(format!("UPDATE {} SET ", qualified(&object.database, &object.name)));
        piece.push(Piece::join(assignments, ", "));
        piece.push(Piece::new(" WHERE "));
        piece.push(condition(object, keys, &format!("{at}.keys"))?);
        piece.push(Piece::new(" LIMIT 1"));
        self.write(&piece).await.map(|_| ())
    }

    /// Rows that a key meets, locked, each with its etags in either form of numbers.
    async fn find(&mut self, object: &Object, keys: &Values, at: &str, limit: u64) -> Result<Vec<(Value, [String; 2])>> {
        let list: Vec<String> = object.columns.iter().map(|column| quote(&column.name)).collect();
        let mut piece = Piece::new(format!("SELECT {} FROM {} WHERE ", list.join(", "), qualified(&object.database, &object.name)));
        piece.push(condition(object, keys, at)?);
        piece.push(Piece::new(format!(" LIMIT {limit} FOR UPDATE")));
        let wire = self.wire();
        let announced = match wire.start(&piece.sql, &piece.params).await {
            Ok(Answered::Rows(announced)) => announced,
            Ok(Answered::Done(_)) => return Err(Error::new(Kind::ProtocolViolated, "the server answered no rows")),
            // ER_CANT_AGGREGATE_2COLLATIONS: the text has characters that the column's character set does not have, so no row has it.
            Err(error) if error.detail("errno") == Some("1267") => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let (types, results) = columns(&announced);
        let decoder = decoder(&announced, &types)?;
        // Whoever read the row chose the form in which numbers stand in it.
        let mut rows = JsonRows::new(Numbers::StringIfInexact).with_etags();
        let mut exact = JsonRows::new(Numbers::Exact).with_etags();
        rows.begin_result(&results);
        exact.begin_result(&results);
        loop {
            match wire.buffered_row() {
                Some(Row::Values(packet)) => {
                    decoder.decode(packet, &mut rows).map_err(row_error)?;
                    decoder.decode(packet, &mut exact).map_err(row_error)?;
                }
                Some(Row::End) => break wire.end_rows().await?,
                Some(Row::Refused(error)) => {
                    wire.end_rows().await?;
                    return Err(error);
                }
                None => wire.wait_for_row().await?,
            }
        }
        let text = format!("[{}]", rows.take());
        let values: Vec<Vec<Value>> = serde_json::from_str(&text).map_err(|error| Error::internal("rows are no JSON").because(error))?;
        let object = |values: Vec<Value>| Value::Object(results.iter().map(|column| column.name.clone()).zip(values).collect());
        let etags = rows.take_etags().into_iter().zip(exact.take_etags()).map(|(safe, exact)| [safe, exact]);
        Ok(values.into_iter().map(object).zip(etags).collect())
    }

    /// Runs a statement that changes rows; warnings are errors, because they mean that a value was changed on its way.
    async fn write(&mut self, piece: &Piece) -> Result<Done> {
        self.statements.push(piece.sql.clone());
        let done = match self.wire().start(&piece.sql, &piece.params).await? {
            Answered::Done(done) => done,
            Answered::Rows(_) => return Err(Error::new(Kind::ProtocolViolated, "a change answered rows")),
        };
        if done.warnings > 0 {
            let warnings = self.wire().query_text("SHOW WARNINGS").await?;
            if let Some(warning) = warnings.iter().find(|row| row.get("Level") != Some("Note") || row.get("Code") == Some(TRUNCATED)) {
                return Err(Error::new(Kind::ValueRefused, format!("the server would change the value: {}", warning.text("Message"))));
            }
        }
        Ok(done)
    }
}

/// The columns that values are for; unknown and generated ones are refused by their fields.
fn written<'a>(object: &'a Object, values: &'a Values, at: &str) -> Result<Vec<(&'a ObjectColumn, &'a Value)>> {
    let one = |(name, value): (&'a String, &'a Value)| {
        let field = format!("{at}.{name}");
        let column = object.column(name).ok_or_else(|| {
            Error::invalid(field.clone(), format!("`{}` has no column `{name}`", object.name)).with("column", name.clone())
        })?;
        if column.is_generated {
            return Err(Error::invalid(field, format!("column `{}` is computed by the server", column.name)).with("column", name.clone()));
        }
        Ok((column, value))
    };
    values.iter().map(one).collect()
}

fn value_of<'a>(values: &'a Values, column: &str) -> Option<&'a Value> {
    values.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, value)| value)
}

fn is_key(object: &Object, name: &str) -> bool {
    object.key.columns().iter().any(|column| column.eq_ignore_ascii_case(name))
}

fn keys_of(object: &Object, values: &Values) -> Values {
    values.iter().filter(|(name, _)| is_key(object, name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Exactly the columns that name a row.
fn check_keys(object: &Object, keys: &Values, at: &str) -> Result<()> {
    let wanted: Vec<&str> = match object.key.columns() {
        [] => object.columns.iter().map(|column| column.name.as_str()).collect(),
        columns => columns.iter().map(String::as_str).collect(),
    };
    if let Some(name) = wanted.iter().find(|name| value_of(keys, name).is_none()) {
        return Err(Error::invalid(
            format!("{at}.{name}"),
            format!("a row of `{}` is named by {}; `{name}` is missing", object.name, wanted.join(", ")),
        ));
    }
    if let Some(name) = keys.keys().find(|name| !wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))) {
        return Err(Error::invalid(format!("{at}.{name}"), format!("a row of `{}` is named by {} alone", object.name, wanted.join(", "))));
    }
    Ok(())
}

fn condition(object: &Object, keys: &Values, at: &str) -> Result<Piece> {
    let in_key = !object.key.columns().is_empty();
    let mut pieces = Vec::new();
    for (name, value) in keys {
        let field = format!("{at}.{name}");
        let column =
            object.column(name).ok_or_else(|| Error::invalid(field.clone(), format!("`{}` has no column `{name}`", object.name)))?;
        pieces.push(matches(column, value, in_key, &field)?);
    }
    Ok(Piece::join(pieces, " AND "))
}
