//! Changing rows by their keys: all or none, and only rows that are exactly those that were meant.
//!
//! ```text
//!  values ─▶ text of each column's type ─▶ would the server round or cut it? ─▶ BEGIN
//!      per row: SELECT … FOR UPDATE by key ─ exactly one? etag as it was? ─▶ UPDATE | DELETE by key and place (tableoid, ctid)
//!  ─▶ COMMIT
//! ```
//!
//! The lock waits for whoever is changing the row and then sees what they have left; between it and the change nobody else comes in, so the row that is compared is
//! the row that is changed.

use millrace_core::explore::{ChangeRequest, ChangedRows, RowChanges, RowEdit, RowKey};
use millrace_core::json_rows::{JsonRows, Numbers};
use millrace_core::{Error, Kind, Result};
use serde_json::{Map, Value};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::super::error::{classify, refusal};
use super::PgExplorer;
use super::rows::{self, Form};
use super::sql::Sql;
use super::table::{Field, KeyKind, Shape, missing};
use super::values;

/// How long a change waits for somebody else's.
const LOCK_PATIENCE: &str = "10s";

/// So many values are asked for at a time; a result has at most 1664 columns (manual, "PostgreSQL Limits").
const MOST_CHECKS: usize = 500;

/// A column with its new value, and where the request holds it.
struct Given<'a> {
    field: &'a Field,
    text: Option<String>,
    at: String,
}

/// A comparison that holds if a value is kept as it is written.
struct Check<'a> {
    field: &'a Field,
    at: String,
    text: String,
    /// Of its two sides.
    casts: [String; 2],
}

/// Changes rows.
pub(super) async fn change(explorer: &mut PgExplorer, request: &ChangeRequest) -> Result<ChangedRows> {
    let shape = Shape::load(explorer, &request.table).await?;
    match shape.kind {
        'r' | 'p' => {}
        'f' => return Err(Error::new(Kind::NotSupported, "rows of foreign tables are changed where they are stored")),
        _ => return Err(missing(&request.table)),
    }
    let mut work = Work { forms: shape.forms(), shape: &shape, explorer, changed: ChangedRows::default() };
    // What is wrong with the values themselves is found before anything is locked.
    let steps = work.steps(&request.changes)?;
    work.keep_exact(&steps).await?;
    let opening = format!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '{LOCK_PATIENCE}'");
    work.explorer.client.batch_execute(&opening).await.map_err(|error| refusal(error, 0))?;
    let mut done = Ok(());
    for step in &steps {
        done = work.take(step).await;
        if done.is_err() {
            break;
        }
    }
    match done {
        Ok(()) => {
            work.explorer.client.batch_execute("COMMIT").await.map_err(|error| refusal(error, usize::MAX))?;
            Ok(work.changed)
        }
        Err(error) => {
            work.explorer.roll_back().await;
            Err(error)
        }
    }
}

struct Work<'a> {
    shape: &'a Shape,
    forms: Vec<Form>,
    explorer: &'a mut PgExplorer,
    changed: ChangedRows,
}

/// One row's change.
enum Step<'a> {
    Insert { given: Vec<Given<'a>>, is_upsert: bool },
    Edit { index: usize, keys: Vec<Given<'a>>, etag: Option<&'a str>, given: Vec<Given<'a>> },
    Delete { index: usize, keys: Vec<Given<'a>>, etag: Option<&'a str> },
}

impl<'a> Work<'a> {
    fn steps(&self, changes: &'a RowChanges) -> Result<Vec<Step<'a>>> {
        let place = |list: &str, index: usize, part: &str| format!("{list}[{index}].{part}");
        match changes {
            RowChanges::Insert(rows) | RowChanges::Upsert(rows) => {
                let is_upsert = matches!(changes, RowChanges::Upsert(_));
                if is_upsert && self.shape.key_kind != KeyKind::PrimaryKey {
                    return Err(Error::invalid("table", format!("`{}` has no primary key", self.shape.name)));
                }
                let step = |(index, values)| {
                    let at = place("inserts", index, "values");
                    let given = given(self.shape, values, &at)?;
                    if is_upsert {
                        self.has_key(values, &at)?;
                    }
                    Ok(Step::Insert { given, is_upsert })
                };
                rows.iter().enumerate().map(step).collect()
            }
            RowChanges::Edit(edits) => {
                let step = |(index, edit): (usize, &'a RowEdit)| {
                    let at = place("edits", index, "changes");
                    let given = given(self.shape, &edit.changes, &at)?;
                    if given.is_empty() {
                        return Err(Error::invalid(at, "no column is named"));
                    }
                    let keys = self.keys(&edit.keys, &place("edits", index, "keys"))?;
                    Ok(Step::Edit { index, keys, etag: edit.etag.as_deref(), given })
                };
                edits.iter().enumerate().map(step).collect()
            }
            RowChanges::Delete(deletes) => {
                let step = |(index, row): (usize, &'a RowKey)| {
                    let keys = self.keys(&row.keys, &place("deletes", index, "keys"))?;
                    Ok(Step::Delete { index, keys, etag: row.etag.as_deref() })
                };
                deletes.iter().enumerate().map(step).collect()
            }
        }
    }

    fn has_key(&self, values: &Map<String, Value>, at: &str) -> Result<()> {
        match self.shape.key.iter().map(|index| &self.shape.fields[*index]).find(|field| !values.contains_key(&field.name)) {
            Some(field) => Err(Error::invalid(format!("{at}.{}", field.name), "the primary key's column is missing")),
            None => Ok(()),
        }
    }

    /// Exactly the columns that name a row.
    fn keys(&self, keys: &Map<String, Value>, at: &str) -> Result<Vec<Given<'a>>> {
        let shape = self.shape;
        if shape.key.is_empty() {
            return Err(Error::invalid(at, format!("rows of `{}` cannot be told apart", shape.name)));
        }
        let is_key = |name: &str| shape.key.iter().any(|index| shape.fields[*index].name == name);
        if let Some(other) = keys.keys().find(|name| !is_key(name)) {
            return Err(Error::invalid(format!("{at}.{other}"), "this column is not part of the table's key"));
        }
        let key = |index: &usize| {
            let field = &shape.fields[*index];
            let at = format!("{at}.{}", field.name);
            let value = keys.get(&field.name).ok_or_else(|| Error::invalid(at.clone(), "the key's column is missing"))?;
            let text = values::text(value, field).map_err(|reason| Error::invalid(at.clone(), reason))?;
            Ok(Given { field, text, at })
        };
        shape.key.iter().map(key).collect()
    }

    /// Refuses values that the server would round or cut without a word: it is asked what it makes of each.
    async fn keep_exact(&self, steps: &[Step<'a>]) -> Result<()> {
        let mut checks = Vec::new();
        let mut add = |given: &'_ [Given<'a>], is_key: bool| {
            for given in given {
                let Some(text) = &given.text else { continue };
                let comparisons = values::exactness(given.field, text, is_key);
                checks.extend(comparisons.into_iter().map(|casts| Check {
                    field: given.field,
                    at: given.at.clone(),
                    text: text.clone(),
                    casts,
                }));
            }
        };
        for step in steps {
            match step {
                Step::Insert { given, .. } => add(given, false),
                Step::Edit { keys, given, .. } => {
                    add(keys, true);
                    add(given, false);
                }
                Step::Delete { keys, .. } => add(keys, true),
            }
        }
        for checks in checks.chunks(MOST_CHECKS) {
            let answers = match self.asked(checks).await? {
                Some(answers) => answers,
                // One of the values is none of its type, which the change itself will say; the others are asked for one by one.
                None => {
                    let mut answers = Vec::new();
                    for check in checks {
                        answers.extend(self.asked(std::slice::from_ref(check)).await?.unwrap_or_else(|| vec![true]));
                    }
                    answers
                }
            };
            if let Some((check, _)) = checks.iter().zip(answers).find(|(_, is_exact)| !is_exact) {
                let text = format!("the value does not fit `{}`: it would be rounded or cut", check.field.base_type);
                return Err(Error::invalid(check.at.clone(), text));
            }
        }
        Ok(())
    }

    /// Whether each comparison holds; none if one of the values is none of its type.
    async fn asked(&self, checks: &[Check<'_>]) -> Result<Option<Vec<bool>>> {
        let mut sql = Sql::new("SELECT ");
        for (index, check) in checks.iter().enumerate() {
            sql.push(if index == 0 { "" } else { ", " });
            let [kept, said] = &check.casts;
            sql.value(Some(&check.text));
            sql.push(kept);
            sql.push(" = ");
            sql.value(Some(&check.text));
            sql.push(said);
        }
        let messages = match self.explorer.client.simple_query(sql.sent()).await {
            Ok(messages) => messages,
            Err(refused) if refused.as_db_error().is_some() => return Ok(None),
            Err(broken) => return Err(classify(broken)),
        };
        let row = messages.iter().find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
        let row = row.ok_or_else(|| Error::new(Kind::ProtocolViolated, "the server answered no row"))?;
        (0..checks.len()).map(|at| Ok(rows::text(row, at)? != Some("f"))).collect::<Result<_>>().map(Some)
    }

    async fn take(&mut self, step: &Step<'a>) -> Result<()> {
        match step {
            Step::Insert { given, is_upsert } => self.insert(given, *is_upsert).await,
            Step::Edit { index, keys, etag, given } => {
                let (table_oid, ctid) = self.lock(*index, keys, *etag).await?;
                let mut sql = Sql::new("UPDATE ");
                sql.push(&self.shape.place());
                for (at, given) in given.iter().enumerate() {
                    sql.push(if at == 0 { " SET " } else { ", " });
                    sql.name(&given.field.name);
                    sql.push(" = ");
                    sql.value(given.text.as_deref());
                }
                self.by_key(&mut sql, keys, &table_oid, &ctid);
                self.returning(&mut sql);
                self.apply(*index, &sql, given, true).await
            }
            Step::Delete { index, keys, etag } => {
                let (table_oid, ctid) = self.lock(*index, keys, *etag).await?;
                let mut sql = Sql::new("DELETE FROM ");
                sql.push(&self.shape.place());
                self.by_key(&mut sql, keys, &table_oid, &ctid);
                self.apply(*index, &sql, &[], false).await
            }
        }
    }

    /// Locks the one row that the key names and compares it with what its editor has seen. Answers where it is stored.
    async fn lock(&mut self, index: usize, keys: &[Given<'a>], etag: Option<&str>) -> Result<(String, String)> {
        let mut sql = Sql::new("SELECT tableoid::text, ctid::text");
        for name in self.shape.names() {
            sql.push(", ");
            sql.name(name);
        }
        sql.push(" FROM ");
        sql.push(&self.shape.place());
        push_key(&mut sql, keys, self.shape.key_kind);
        sql.push(" LIMIT 2 FOR UPDATE");
        let (found, _) = self.query(&sql, keys).await?;
        let [row] = found.as_slice() else {
            let text = if found.is_empty() { "no row has this key" } else { "several rows have this key" };
            return Err(Error::new(Kind::Conflict, text).with("index", index.to_string()));
        };
        if let Some(etag) = etag {
            let tags = [self.etag(row, Numbers::StringIfInexact)?, self.etag(row, Numbers::Exact)?];
            if !tags.iter().any(|tag| tag == etag) {
                let text = "the row was changed by somebody else meanwhile";
                return Err(Error::new(Kind::Conflict, text).with("index", index.to_string()).with("reason", "etag"));
            }
        }
        Ok((rows::text(row, 0)?.unwrap_or_default().to_owned(), rows::text(row, 1)?.unwrap_or_default().to_owned()))
    }

    fn etag(&self, row: &SimpleQueryRow, numbers: Numbers) -> Result<String> {
        let mut rows = JsonRows::new(numbers).with_etags();
        rows.begin_result(&self.shape.columns());
        rows::add(row, 2, &self.forms, &mut rows)?;
        Ok(rows.take_etags().pop().unwrap_or_default())
    }

    fn by_key(&self, sql: &mut Sql, keys: &[Given<'a>], table_oid: &str, ctid: &str) {
        push_key(sql, keys, self.shape.key_kind);
        sql.push(" AND tableoid = ");
        sql.typed(Some(table_oid), "oid");
        sql.push(" AND ctid = ");
        sql.typed(Some(ctid), "tid");
    }

    fn returning(&self, sql: &mut Sql) {
        sql.push(" RETURNING ");
        sql.list(self.shape.names());
    }

    async fn insert(&mut self, given: &[Given<'a>], is_upsert: bool) -> Result<()> {
        let mut sql = Sql::new("INSERT INTO ");
        sql.push(&self.shape.place());
        if given.is_empty() {
            sql.push(" DEFAULT VALUES");
        } else {
            sql.push(" (");
            sql.list(given.iter().map(|given| given.field.name.as_str()));
            sql.push(") VALUES (");
            for (at, given) in given.iter().enumerate() {
                sql.push(if at == 0 { "" } else { ", " });
                sql.value(given.text.as_deref());
            }
            sql.push(")");
        }
        if is_upsert {
            let key: Vec<&str> = self.shape.key.iter().map(|index| self.shape.fields[*index].name.as_str()).collect();
            sql.push(" ON CONFLICT (");
            sql.list(key.iter().copied());
            sql.push(") DO UPDATE SET ");
            let others: Vec<&str> = given.iter().map(|given| given.field.name.as_str()).filter(|name| !key.contains(name)).collect();
            // A row that stays as it is is answered all the same.
            let set = if others.is_empty() { key } else { others };
            for (at, name) in set.iter().enumerate() {
                sql.push(if at == 0 { "" } else { ", " });
                sql.name(name);
                sql.push(" = EXCLUDED.");
                sql.name(name);
            }
        }
        self.returning(&mut sql);
        self.explorer.statements.push(sql.shown().to_owned());
        let (rows, _) = self.query(&sql, given).await?;
        self.keep(&rows)
    }

    /// Runs a change that must meet the one row that is locked.
    async fn apply(&mut self, index: usize, sql: &Sql, given: &[Given<'a>], answers_row: bool) -> Result<()> {
        self.explorer.statements.push(sql.shown().to_owned());
        let (rows, count) = self.query(sql, given).await?;
        if count != 1 {
            let text = "the row was not changed: a trigger or a rule of the table stands against it";
            return Err(Error::new(Kind::Conflict, text).with("index", index.to_string()));
        }
        if answers_row {
            return self.keep(&rows);
        }
        self.changed.count += 1;
        Ok(())
    }

    /// Keeps rows as they are stored now.
    fn keep(&mut self, found: &[SimpleQueryRow]) -> Result<()> {
        for row in found {
            let mut rows = JsonRows::new(Numbers::StringIfInexact);
            rows::add(row, 0, &self.forms, &mut rows)?;
            let values: Vec<Value> = serde_json::from_str(&rows.take()).map_err(|error| Error::internal(error.to_string()))?;
            self.changed.rows.push(Value::Object(self.shape.names().map(str::to_owned).zip(values).collect()));
            self.changed.count += 1;
        }
        Ok(())
    }

    /// The rows of a statement and the number of its tag.
    async fn query(&mut self, sql: &Sql, given: &[Given<'a>]) -> Result<(Vec<SimpleQueryRow>, u64)> {
        let messages = match self.explorer.client.simple_query(sql.sent()).await {
            Ok(messages) => messages,
            Err(error) => return Err(self.refusal(error, given).await),
        };
        let (mut rows, mut count) = (Vec::new(), 0);
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => rows.push(row),
                SimpleQueryMessage::CommandComplete(affected) => count = affected,
                _ => {}
            }
        }
        Ok((rows, count))
    }

    /// Names the value that a statement failed for, if it failed for one: the server says only that there is one.
    async fn refusal(&self, error: tokio_postgres::Error, given: &[Given<'a>]) -> Error {
        let is_value = error.code().is_some_and(|code| code.code().starts_with("22") || code.code() == "42804");
        // Only a place in the request would help.
        let error = refusal(error, usize::MAX);
        if !is_value {
            return error;
        }
        self.explorer.roll_back().await;
        for value in given {
            let mut probe = Sql::new("SELECT ");
            probe.typed(value.text.as_deref(), &value.field.native_type);
            match self.explorer.client.simple_query(probe.sent()).await {
                Ok(_) => {}
                Err(refused) if refused.as_db_error().is_some() => return unfit(value, &error),
                Err(broken) => return classify(broken),
            }
        }
        match given {
            [only] => unfit(only, &error),
            _ => Error::new(Kind::Invalid, error.message().to_owned()).with("sqlstate", error.detail("sqlstate").unwrap_or_default()),
        }
    }
}

fn unfit(given: &Given<'_>, error: &Error) -> Error {
    let text = format!("the value is not one of the type `{}`", given.field.native_type);
    Error::invalid(given.at.clone(), text).with("sqlstate", error.detail("sqlstate").unwrap_or_default())
}

/// Columns and values of a row.
fn given<'a>(shape: &'a Shape, values: &Map<String, Value>, at: &str) -> Result<Vec<Given<'a>>> {
    let one = |(name, value): (&String, &Value)| {
        let at = format!("{at}.{name}");
        let refused = |text: String| Error::invalid(at.clone(), text);
        let field = shape.field(name).ok_or_else(|| refused(format!("`{}` has no column `{name}`", shape.name)))?;
        if field.is_generated {
            return Err(refused("the server computes this column".to_owned()));
        }
        if field.is_identity_always {
            return Err(refused("the server numbers this column (`GENERATED ALWAYS AS IDENTITY`)".to_owned()));
        }
        let text = values::text(value, field).map_err(refused)?;
        Ok(Given { field, text, at: at.clone() })
    };
    values.iter().map(one).collect()
}

/// NULLs are values of a key that is made of all columns.
fn push_key(sql: &mut Sql, keys: &[Given<'_>], kind: KeyKind) {
    for (index, key) in keys.iter().enumerate() {
        sql.push(if index == 0 { " WHERE " } else { " AND " });
        sql.name(&key.field.name);
        match (&key.text, kind) {
            (None, KeyKind::FullRow) => sql.push(" IS NULL"),
            (text, _) => {
                sql.push(" = ");
                sql.typed(text.as_deref(), &key.field.cast);
            }
        }
    }
}
