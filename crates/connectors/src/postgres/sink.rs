//! The target: tables before the rows, keys and constraints after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::{ForeignKey, TableName};
use millrace_core::connection::Connection;
use millrace_core::connector::{Scope, Sink, SplitWriter};
use millrace_core::fleet::FleetLedger;
use millrace_core::ledger::{CutNumber, Epoch, Ledger, LedgerKey};
use millrace_core::plan::{Creation, Plan, RowsAction, TablePlan};
use millrace_core::{Error, Kind, Result};
use tokio_postgres::{Client, Transaction};

use super::copy::PgSplitWriter;
use super::ddl;
use super::error::classify;
use super::fleet::PgFleet;
use super::ledger::{PgLedger, UNFINISHED_TABLES, check_lead, look_lead};
use super::names::{qualified, quote};
use super::session::{self, ControlSession, MAINTENANCE_DATABASE, connect};

/// The schema of tables when a config names none.
pub(super) const DEFAULT_SCHEMA: &str = "public";

/// Memory of one index build. Sorting in memory is what makes indexes after the rows cheap.
const INDEX_MEMORY: &str = "256MB";

/// How long the tables' locks are waited for.
pub(super) const LOCK_PATIENCE: &str = "10s";

/// One target database.
pub(super) struct PgSink {
    schema: String,
    session: Arc<ControlSession>,
    ledger: PgLedger,
    fleet: PgFleet,
}

impl PgSink {
    /// Connects, creating the database if it is missing and the user may.
    pub(super) async fn open(connection: &Connection, scope: &Scope) -> Result<Self> {
        let spec = session::spec(connection)?;
        let database = scope.database.clone().or_else(|| spec.database.clone()).unwrap_or_else(|| MAINTENANCE_DATABASE.to_owned());
        let client = match connect(connection, &database).await {
            Err(error) if error.detail("sqlstate") == Some("3D000") => {
                create_database(connection, &database).await?;
                connect(connection, &database).await?
            }
            other => other?,
        };
        let session = Arc::new(ControlSession::new(connection.clone(), database, client));
        let schema = scope.schema.clone().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
        Ok(Self { ledger: PgLedger { session: session.clone() }, fleet: PgFleet::new(session.clone()), schema, session })
    }

    async fn create(&self, key: &LedgerKey, epoch: Epoch, plan: &Plan) -> Result<()> {
        let mut client = self.session.client().await?;
        let transaction = client.transaction().await.map_err(classify)?;
        // Without locks: this may take long, and the leader's beats need these rows meanwhile. Before the commit it is checked again.
        look_lead(&transaction, key, epoch).await?;
        transaction.batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_PATIENCE}'")).await.map_err(classify)?;
        take_back(&transaction, key, plan).await?;
        if self.schema != DEFAULT_SCHEMA {
            transaction.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&self.schema))).await.map_err(classify)?;
        }
        let targets = |wanted: &dyn Fn(&TablePlan) -> bool| -> Vec<TableName> {
            plan.tables.iter().filter(|table| wanted(table)).map(|table| table.target.clone()).collect()
        };
        drop_tables(&transaction, &targets(&|table| table.creation == Creation::Replace)).await?;
        let truncated = targets(&|table| table.creation == Creation::Use && table.rows == RowsAction::Truncate);
        if !truncated.is_empty() {
            let names: Vec<String> = truncated.iter().map(|table| qualified(&table.schema, &table.name)).collect();
            transaction.batch_execute(&format!("TRUNCATE {}", names.join(", "))).await.map_err(classify)?;
        }
        for table in &plan.tables {
            if table.creation == Creation::Use {
                check_use(&transaction, table).await?;
            } else {
                for statement in ddl::create_table(table) {
                    transaction.batch_execute(&statement).await.map_err(|error| at_table(classify(error), table))?;
                }
            }
            let record = "INSERT INTO millrace.target_table (stream, schema_name, table_name, table_oid, is_created, fingerprint)
                SELECT $1, $2::text, $3::text, c.oid, $4, $5 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $2::text AND c.relname = $3::text";
            let (stream, is_created) = (key.stream.as_str(), table.creation != Creation::Use);
            let fingerprint = table.fingerprint();
            transaction
                .execute(record, &[&stream, &table.target.schema, &table.target.name, &is_created, &fingerprint])
                .await
                .map_err(classify)?;
        }
        check_lead(&transaction, key, epoch).await?;
        transaction.commit().await.map_err(classify)
    }

    async fn finish_one(&self, key: &LedgerKey, epoch: Epoch, plan: &TablePlan) -> Result<()> {
        let mut client = self.index_session().await?;
        // One transaction, so that a worker that comes later finds all of it or nothing.
        let transaction = client.client_mut()?.transaction().await.map_err(classify)?;
        // A commit whose answer was lost may have happened.
        if is_finished(&transaction, key, plan).await? {
            return Ok(());
        }
        let mut failures = Vec::new();
        for part in ddl::finish_table(plan) {
            if let Some(question) = &part.is_there
                && transaction.query_one(question, &[]).await.map_err(classify)?.get(0)
            {
                continue;
            }
            transaction.batch_execute("SAVEPOINT part").await.map_err(classify)?;
            if let Err(error) = transaction.batch_execute(&part.sql).await {
                let error = classify(error);
                if !is_about_the_data(&error) {
                    return Err(at_table(error, plan));
                }
                transaction.batch_execute("ROLLBACK TO SAVEPOINT part").await.map_err(classify)?;
                failures.push((part.what, error));
            }
            transaction.batch_execute("RELEASE SAVEPOINT part").await.map_err(classify)?;
        }
        check_lead(&transaction, key, epoch).await?;
        if failures.is_empty() {
            let sql = "UPDATE millrace.target_table SET keys_at = now() WHERE stream = $1 AND schema_name = $2 AND table_name = $3";
            let (stream, target) = (key.stream.as_str(), &plan.target);
            transaction.execute(sql, &[&stream, &target.schema, &target.name]).await.map_err(classify)?;
        }
        transaction.commit().await.map_err(classify)?;
        client.close();
        let Some((_, first)) = failures.first() else { return Ok(()) };
        let texts: Vec<String> = failures.iter().map(|(what, error)| format!("{what}: {}", error.message())).collect();
        Err(at_table(Error::new(first.kind(), format!("`{}`: {}", plan.target.name, texts.join("; "))), plan))
    }

    async fn finish_keys(&self, plan: &Plan) -> Result<Vec<Error>> {
        let by_source: BTreeMap<(usize, &TableName), &TablePlan> =
            plan.tables.iter().map(|table| ((table.part, &table.source.name), table)).collect();
        let mut failures = Vec::new();
        if plan.tables.iter().all(|table| table.creation == Creation::Use || table.source.foreign_keys.is_empty()) {
            return Ok(failures);
        }
        let client = self.index_session().await?;
        for table in plan.tables.iter().filter(|table| table.creation != Creation::Use) {
            for key in &table.source.foreign_keys {
                let Some(referenced) = by_source.get(&(table.part, &key.referenced)) else { continue };
                if let Err(error) = add_key(client.client()?, table, key, referenced).await {
                    if !is_about_the_data(&error) {
                        return Err(at_table(error, table));
                    }
                    let text = format!("the foreign key `{}` of `{}`: {}", key.name, table.target.name, error.message());
                    failures.push(at_table(Error::new(error.kind(), text), table));
                }
            }
        }
        client.close();
        Ok(failures)
    }

    /// A session that builds indexes; dropped in the middle, it ends what it runs, which would otherwise hold its locks to the end.
    async fn index_session(&self) -> Result<IndexSession> {
        let client = self.session.another().await?;
        client.batch_execute(&format!("SET maintenance_work_mem = '{INDEX_MEMORY}'")).await.map_err(classify)?;
        Ok(IndexSession { client: Some(client), session: self.session.clone() })
    }
}

impl Sink for PgSink {
    fn ledger(&self) -> &dyn Ledger {
        &self.ledger
    }

    fn create_tables<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, plan: &'a Plan) -> BoxFuture<'a, Result<()>> {
        self.create(key, epoch, plan).boxed()
    }

    fn fleet(&self) -> Option<&dyn FleetLedger> {
        Some(&self.fleet)
    }

    fn writer<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, cut: CutNumber) -> BoxFuture<'a, Result<Box<dyn SplitWriter>>> {
        async move {
            let client = self.session.another().await?;
            Ok(Box::new(PgSplitWriter::new(client, key.clone(), epoch, cut)) as Box<dyn SplitWriter>)
        }
        .boxed()
    }

    fn finish_table<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch, plan: &'a TablePlan) -> BoxFuture<'a, Result<()>> {
        self.finish_one(key, epoch, plan).boxed()
    }

    fn finish_all<'a>(&'a self, plan: &'a Plan) -> BoxFuture<'a, Result<Vec<Error>>> {
        self.finish_keys(plan).boxed()
    }
}

async fn is_finished(transaction: &Transaction<'_>, key: &LedgerKey, plan: &TablePlan) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM millrace.target_table
        WHERE stream = $1 AND schema_name = $2 AND table_name = $3 AND keys_at IS NOT NULL)";
    let row = transaction.query_one(sql, &[&key.stream.as_str(), &plan.target.schema, &plan.target.name]).await.map_err(classify)?;
    Ok(row.get(0))
}

/// Removes what unfinished runs of this config have created and what this run has written into tables in use, with their records.
async fn take_back(transaction: &Transaction<'_>, key: &LedgerKey, plan: &Plan) -> Result<()> {
    let (stream, config) = (key.stream.as_str(), key.config.as_str());
    let rows = transaction.query(UNFINISHED_TABLES, &[&config]).await.map_err(classify)?;
    let ours: Vec<TableName> = rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect();
    drop_tables(transaction, &ours).await?;
    // A commit of an older moment that is under way ends first, so that its rows are seen below.
    let used = "SELECT t.schema_name, t.table_name FROM millrace.target_table t
        JOIN pg_namespace n ON n.nspname = t.schema_name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
        WHERE t.stream = $1 AND NOT t.is_created ORDER BY 1, 2";
    for row in transaction.query(used, &[&stream]).await.map_err(classify)? {
        let table = qualified(row.get(0), row.get(1));
        transaction.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await.map_err(classify)?;
    }
    let written = "SELECT t.schema_name, t.table_name, coalesce(sum(s.row_count), 0)::bigint FROM millrace.target_table t
        JOIN millrace.split s USING (stream, schema_name, table_name)
        WHERE t.stream = $1 AND NOT t.is_created AND s.committed_at IS NOT NULL GROUP BY 1, 2";
    for row in transaction.query(written, &[&stream]).await.map_err(classify)? {
        let (schema, name, rows): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        let is_emptied = |table: &&TablePlan| table.target.name == name && table.target.schema == schema;
        if plan.tables.iter().find(is_emptied).is_some_and(|table| table.rows == RowsAction::Truncate) {
            continue;
        }
        let table = qualified(&schema, &name);
        let found: i64 = transaction.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.map_err(classify)?.get(0);
        if found != rows {
            let text = format!("`{name}` holds {found} rows, of which this run wrote {rows}: they cannot be told apart to start again");
            return Err(Error::new(Kind::TargetConflict, text).with("table", name));
        }
        transaction.batch_execute(&format!("TRUNCATE {table}")).await.map_err(classify)?;
    }
    let forget = "DELETE FROM millrace.split s USING millrace.target_table t, millrace.run r
        WHERE s.stream = t.stream AND s.schema_name = t.schema_name AND s.table_name = t.table_name AND t.stream = r.stream
            AND r.config = $1 AND r.finished_at IS NULL AND (t.is_created OR t.stream = $2)";
    transaction.execute(forget, &[&config, &stream]).await.map_err(classify)?;
    let forget = "DELETE FROM millrace.target_table t USING millrace.run r
        WHERE t.stream = r.stream AND r.config = $1 AND r.finished_at IS NULL AND (t.is_created OR t.stream = $2)";
    transaction.execute(forget, &[&config, &stream]).await.map_err(classify)?;
    Ok(())
}

/// Drops tables with the enumerations that copies have made for them.
pub(super) async fn drop_tables(transaction: &Transaction<'_>, tables: &[TableName]) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip();
    let types = "SELECT DISTINCT t.oid::regtype::text FROM unnest($1::text[], $2::text[]) w (s, n)
        JOIN pg_namespace ns ON ns.nspname = w.s JOIN pg_class c ON c.relnamespace = ns.oid AND c.relname = w.n
        JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped JOIN pg_type t ON t.oid = a.atttypid AND t.typtype = 'e'
        WHERE obj_description(t.oid, 'pg_type') = $3";
    let made: Vec<String> =
        transaction.query(types, &[&schemas, &names, &ddl::TYPE_COMMENT]).await.map_err(classify)?.iter().map(|row| row.get(0)).collect();
    transaction.batch_execute(&ddl::drop_tables(tables)).await.map_err(classify)?;
    if !made.is_empty() {
        transaction.batch_execute(&format!("DROP TYPE {}", made.join(", "))).await.map_err(classify)?;
    }
    Ok(())
}

/// Between the plan and now rows may have come.
async fn check_use(transaction: &Transaction<'_>, table: &TablePlan) -> Result<()> {
    if table.rows != RowsAction::Load {
        return Ok(());
    }
    let name = qualified(&table.target.schema, &table.target.name);
    let sql = format!("SELECT EXISTS (SELECT FROM {name})");
    let has_rows: bool = transaction.query_one(&sql, &[]).await.map_err(classify)?.get(0);
    if has_rows {
        let text = format!("`{}` has rows; `writeMode` is `fail_if_not_empty`", table.target.name);
        return Err(at_table(Error::new(Kind::TargetConflict, text).field("target.spec.db.writeMode"), table));
    }
    Ok(())
}

/// Adds a foreign key unvalidated, then validates it: one that does not hold stays for `validate-constraints` and is still an error.
async fn add_key(client: &Client, table: &TablePlan, key: &ForeignKey, referenced: &TablePlan) -> Result<()> {
    let sql =
        "SELECT k.convalidated FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relname = $2 AND k.conname = $3";
    let found = client.query_opt(sql, &[&table.target.schema, &table.target.name, &key.name]).await.map_err(classify)?;
    match found.map(|row| row.get::<_, bool>(0)) {
        Some(true) => return Ok(()),
        Some(false) => {}
        None => match client.batch_execute(&ddl::foreign_key(table, key, referenced)).await.map_err(classify) {
            // A leader before this one was still at it.
            Err(error) if error.detail("sqlstate") == Some("42710") => {}
            other => other?,
        },
    }
    client.batch_execute(&ddl::validate(&table.target, &key.name)).await.map_err(classify)
}

/// Cancels what it runs unless it was closed.
struct IndexSession {
    client: Option<Client>,
    session: Arc<ControlSession>,
}

impl IndexSession {
    fn client(&self) -> Result<&Client> {
        self.client.as_ref().ok_or_else(|| Error::internal("a closed session"))
    }

    fn client_mut(&mut self) -> Result<&mut Client> {
        self.client.as_mut().ok_or_else(|| Error::internal("a closed session"))
    }

    /// Nothing runs any more.
    fn close(mut self) {
        self.client = None;
    }
}

impl Drop for IndexSession {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let (token, session) = (client.cancel_token(), self.session.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { session::cancel(token, session.connection()).await });
        }
    }
}

async fn create_database(connection: &Connection, database: &str) -> Result<()> {
    let client = connect(connection, MAINTENANCE_DATABASE).await?;
    match client.batch_execute(&format!("CREATE DATABASE {}", quote(database))).await {
        Ok(()) => Ok(()),
        // Somebody else was quicker, so it is there; of two at the same moment one fails at the catalog's index.
        Err(error) if matches!(error.code().map(tokio_postgres::error::SqlState::code), Some("42P04" | "23505")) => Ok(()),
        Err(error) => {
            let error = classify(error);
            let text = format!("the target database `{database}` does not exist and cannot be created");
            Err(Error::new(error.kind(), text).field("target.spec.db.database").because(error))
        }
    }
}

/// Whether the statement failed because of what the table holds, so that other statements can still succeed.
fn is_about_the_data(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::ConstraintViolated | Kind::ValueRefused | Kind::StatementRefused | Kind::TargetConflict | Kind::ServerExhausted
    )
}

fn at_table(error: Error, table: &TablePlan) -> Error {
    if error.detail("table").is_some() { error } else { error.with("table", table.target.name.clone()) }
}
