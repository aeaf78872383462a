//! The target: tables before the rows, keys and constraints after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::catalog::TableName;
use millrace_core::connection::DatabaseSpec;
use millrace_core::connector::{Scope, Sink, SplitWriter};
use millrace_core::ledger::{Epoch, Ledger, LedgerKey};
use millrace_core::plan::{Plan, TablePlan};
use millrace_core::{Error, Kind, Result};
use tokio_postgres::{Client, NoTls};

use super::copy::PgSplitWriter;
use super::ddl;
use super::error::classify;
use super::ledger::{PgLedger, check_epoch};
use super::names::quote;
use super::session::{ControlSession, MAINTENANCE_DATABASE, connect};

/// The schema of tables when a config names none.
pub(super) const DEFAULT_SCHEMA: &str = "public";

/// Memory of one index build. Sorting in memory is what makes indexes after the rows cheap.
const INDEX_MEMORY: &str = "256MB";

/// One target database.
pub(super) struct PgSink {
    schema: String,
    session: Arc<ControlSession>,
    ledger: PgLedger,
}

impl PgSink {
    /// Connects, creating the database if it is missing and the user may.
    pub(super) async fn open(spec: DatabaseSpec, scope: &Scope) -> Result<Self> {
        let database = scope.database.clone().or_else(|| spec.database.clone()).unwrap_or_else(|| MAINTENANCE_DATABASE.to_owned());
        let client = match connect(&spec, &database).await {
            Err(error) if error.detail("sqlstate") == Some("3D000") => {
                create_database(&spec, &database).await?;
                connect(&spec, &database).await?
            }
            other => other?,
        };
        let session = Arc::new(ControlSession::new(spec, database, client));
        let schema = scope.schema.clone().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned());
        Ok(Self { ledger: PgLedger { session: session.clone() }, schema, session })
    }

    async fn create(&self, key: &LedgerKey, epoch: Epoch, plan: &Plan, leftover: &[TableName]) -> Result<()> {
        let mut client = self.session.client().await?;
        let transaction = client.transaction().await.map_err(classify)?;
        check_epoch(&transaction, key, epoch).await?;
        for table in leftover {
            transaction.batch_execute(&ddl::drop_table(table)).await.map_err(classify)?;
        }
        let forget = "DELETE FROM millrace.target_table t USING millrace.run r
            WHERE t.stream = r.stream AND r.config = $1 AND r.finished_at IS NULL";
        transaction.execute(forget, &[&key.config.as_str()]).await.map_err(classify)?;
        if self.schema != DEFAULT_SCHEMA {
            transaction.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(&self.schema))).await.map_err(classify)?;
        }
        for table in &plan.tables {
            for statement in ddl::create_table(table) {
                transaction.batch_execute(&statement).await.map_err(|error| at_table(classify(error), table))?;
            }
            let record = "INSERT INTO millrace.target_table (stream, schema_name, table_name, table_oid)
                SELECT $1, $2::text, $3::text, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $2::text AND c.relname = $3::text";
            let stream = key.stream.as_str();
            transaction.execute(record, &[&stream, &table.target.schema, &table.target.name]).await.map_err(classify)?;
        }
        transaction.commit().await.map_err(classify)
    }

    async fn check(&self, plan: &Plan, leftover: &[TableName]) -> Result<()> {
        let names: Vec<&str> = plan.tables.iter().map(|table| table.target.name.as_str()).collect();
        let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = ANY($2) ORDER BY 1";
        let rows = self.session.client().await?.query(sql, &[&self.schema, &names]).await.map_err(classify)?;
        let existing: Vec<String> = rows
            .iter()
            .map(|row| row.get::<_, String>(0))
            .filter(|name| !leftover.iter().any(|table| table.schema == self.schema && table.name == *name))
            .collect();
        let Some(first) = existing.first() else { return Ok(()) };
        let text = format!(
            "`{}` exists already in schema `{}` of the target; `schemaPolicy` is `fail_if_exists`",
            existing.join("`, `"),
            self.schema
        );
        Err(Error::new(Kind::TargetConflict, text).with("table", first.clone()))
    }

    async fn finish_one(&self, plan: &TablePlan) -> Result<()> {
        let client = self.index_session().await?;
        let mut failures = Vec::new();
        for (what, statement) in ddl::finish_table(plan) {
            if let Err(error) = client.0.batch_execute(&statement).await {
                let error = classify(error);
                if !is_about_the_data(&error) {
                    return Err(at_table(error, plan));
                }
                failures.push((what, error));
            }
        }
        let Some((_, first)) = failures.first() else { return Ok(()) };
        let texts: Vec<String> = failures.iter().map(|(what, error)| format!("{what}: {}", error.message())).collect();
        Err(at_table(Error::new(first.kind(), format!("`{}`: {}", plan.target.name, texts.join("; "))), plan))
    }

    async fn finish_keys(&self, plan: &Plan) -> Result<Vec<Error>> {
        let by_source: BTreeMap<&TableName, &TablePlan> = plan.tables.iter().map(|table| (&table.source.name, table)).collect();
        let client = self.index_session().await?;
        let mut failures = Vec::new();
        for table in &plan.tables {
            for key in &table.source.foreign_keys {
                let Some(referenced) = by_source.get(&key.referenced) else { continue };
                if let Err(error) = client.0.batch_execute(&ddl::foreign_key(table, key, referenced)).await {
                    let error = classify(error);
                    if !is_about_the_data(&error) {
                        return Err(at_table(error, table));
                    }
                    let text = format!("the foreign key `{}` of `{}`: {}", key.name, table.target.name, error.message());
                    failures.push(at_table(Error::new(error.kind(), text), table));
                }
            }
        }
        Ok(failures)
    }

    /// A session that builds indexes; dropped in the middle, it ends what it runs, which would otherwise hold its locks to the end.
    async fn index_session(&self) -> Result<IndexSession> {
        let client = self.session.another().await?;
        client.batch_execute(&format!("SET maintenance_work_mem = '{INDEX_MEMORY}'")).await.map_err(classify)?;
        Ok(IndexSession(client))
    }
}

impl Sink for PgSink {
    fn check_target<'a>(&'a self, plan: &'a Plan, leftover: &'a [TableName]) -> BoxFuture<'a, Result<()>> {
        self.check(plan, leftover).boxed()
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.ledger
    }

    fn create_tables<'a>(
        &'a self,
        key: &'a LedgerKey,
        epoch: Epoch,
        plan: &'a Plan,
        leftover: &'a [TableName],
    ) -> BoxFuture<'a, Result<()>> {
        self.create(key, epoch, plan, leftover).boxed()
    }

    fn writer<'a>(&'a self, key: &'a LedgerKey, epoch: Epoch) -> BoxFuture<'a, Result<Box<dyn SplitWriter>>> {
        async move {
            let client = self.session.another().await?;
            Ok(Box::new(PgSplitWriter::new(client, key.clone(), epoch)) as Box<dyn SplitWriter>)
        }
        .boxed()
    }

    fn finish_table<'a>(&'a self, plan: &'a TablePlan) -> BoxFuture<'a, Result<()>> {
        self.finish_one(plan).boxed()
    }

    fn finish_all<'a>(&'a self, plan: &'a Plan) -> BoxFuture<'a, Result<Vec<Error>>> {
        self.finish_keys(plan).boxed()
    }
}

struct IndexSession(Client);

impl Drop for IndexSession {
    fn drop(&mut self) {
        let token = self.0.cancel_token();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // An idle session is not disturbed by this.
            runtime.spawn(async move { token.cancel_query(NoTls).await });
        }
    }
}

async fn create_database(spec: &DatabaseSpec, database: &str) -> Result<()> {
    let client = connect(spec, MAINTENANCE_DATABASE).await?;
    client.batch_execute(&format!("CREATE DATABASE {}", quote(database))).await.map_err(|error| {
        let error = classify(error);
        let text = format!("the target database `{database}` does not exist and cannot be created");
        Error::new(error.kind(), text).field("target.spec.db.database").because(error)
    })
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
