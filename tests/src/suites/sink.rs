//! The contracts of `Sink`, `SplitWriter` and `Ledger`: crash between any two steps leaves either all of a split or nothing of it.

use millrace_core::Kind;
use millrace_core::catalog::{Catalog, Column, LogicalType, Table, TableName};
use millrace_core::config::{PlanOptions, SchemaPolicy, StructureOptions, WriteMode};
use millrace_core::connection::Connection;
use millrace_core::connector::{Connector, PlanRequest, Scope, SourcePart, SplitWriter, TargetFacts, WriteOptions};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::ledger::{Epoch, LedgerKey};
use millrace_core::plan::{Plan, TablePlan};
use millrace_core::split::{KeyBound, Split, SplitRange};
use millrace_core::value::ValueRef;

fn column(name: &str, nullable: bool) -> Column {
    Column {
        name: name.into(),
        native_type: "int".into(),
        logical: LogicalType::Int { bits: 32, unsigned: false },
        nullable,
        default: None,
        auto_increment: false,
        generated: None,
        comment: String::new(),
    }
}

fn catalog() -> Catalog {
    let table = Table {
        name: TableName { schema: "src".into(), name: "t".into() },
        columns: vec![column("id", false), column("v", true)],
        primary_key: vec!["id".into()],
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        checks: Vec::new(),
        next_auto_value: None,
        comment: String::new(),
        estimated_rows: None,
        estimated_bytes: None,
        refused: None,
        notes: Vec::new(),
        selection: Default::default(),
        all_columns: Vec::new(),
        query: None,
    };
    Catalog { tables: vec![table], others: Vec::new() }
}

fn splits() -> Vec<Split> {
    let bound = || Some(vec![KeyBound::Int(10)]);
    let range = |lower, upper| SplitRange::Key { columns: vec!["id".into()], lower, upper };
    vec![
        Split { table: 0, ordinal: 0, range: range(None, bound()), estimated_rows: 0 },
        Split { table: 0, ordinal: 1, range: range(bound(), None), estimated_rows: 0 },
    ]
}

async fn write(writer: &mut dyn SplitWriter, plan: &TablePlan, split: &Split, ids: std::ops::Range<i64>) {
    writer.begin(plan, &plan.columns, split).await.expect("a split begins");
    for id in ids {
        let rows = writer.encoder();
        rows.begin_row();
        rows.value(0, ValueRef::Int(id)).expect("an id");
        rows.value(1, ValueRef::Null).expect("a NULL");
        rows.end_row();
    }
    writer.send().await.expect("sent");
}

async fn plan(connector: &dyn Connector, connection: &Connection, scope: &Scope, config: &ConfigId) -> Plan {
    let sources = [SourcePart { alias: None, catalog: catalog(), facts: Vec::new() }];
    let options = WriteOptions {
        structure: StructureOptions::default(),
        schema_policy: SchemaPolicy::FailIfExists,
        write_mode: WriteMode::FailIfNotEmpty,
        is_structure_only: false,
        may_restart: true,
        plan: PlanOptions::default(),
    };
    let target: TargetFacts = connector.inspect(connection, scope, config, &sources).await.expect("facts");
    connector.plan(&PlanRequest { scope, sources: &sources, target: &target, options: &options }).expect("a plan")
}

/// Runs the suite against an empty target; `count` answers the rows of `t`, none while it does not exist.
pub async fn conformance<F: Future<Output = Option<u64>>>(
    connector: &dyn Connector,
    connection: &Connection,
    scope: &Scope,
    count: impl Fn() -> F,
) {
    let sink = connector.sink(connection, scope).await.expect("a sink");
    let ledger = sink.ledger();
    let key = LedgerKey { config: ConfigId::mint(), stream: StreamId::mint(), worker: 0, attempt: 0 };
    assert!(ledger.unfinished_tables(&key.config).await.expect("no ledger yet").is_empty());
    assert_eq!(ledger.unfinished_run(&key.config).await.expect("no ledger yet"), None);
    let first = plan(connector, connection, scope, &key.config).await;
    first.check().expect("nothing is refused, and the target is empty");
    let table = &first.tables[0];
    let old = ledger.claim(&key).await.expect("a claim");
    sink.create_tables(&key, old, &first).await.expect("tables");
    assert_eq!(ledger.unfinished_run(&key.config).await.expect("one"), Some(key.stream.clone()));
    let splits = splits();
    ledger.record_splits(&key, old, &table.target, &splits).await.expect("recorded");
    assert!(ledger.committed_splits(&key, &table.target).await.expect("none").is_empty());

    // Not committed: nothing is there, whether it is aborted, dropped or miscounted.
    let mut writer = sink.writer(&key, old, old.into()).await.expect("a writer");
    write(writer.as_mut(), table, &splits[0], 0..10).await;
    assert_eq!(count().await, Some(0));
    writer.abort().await.expect("aborted");
    write(writer.as_mut(), table, &splits[0], 0..10).await;
    drop(writer);
    let mut writer = sink.writer(&key, old, old.into()).await.expect("a writer");
    write(writer.as_mut(), table, &splits[0], 0..10).await;
    let error = writer.commit(11, 0).await.expect_err("a wrong count");
    assert_eq!(error.kind(), Kind::ProtocolViolated);
    assert_eq!(count().await, Some(0));

    // Committed: rows and record together, once.
    let mut writer = sink.writer(&key, old, old.into()).await.expect("a writer");
    write(writer.as_mut(), table, &splits[0], 0..10).await;
    writer.commit(10, 40).await.expect("committed");
    assert_eq!(count().await, Some(10));
    assert_eq!(ledger.committed_splits(&key, &table.target).await.expect("one"), [(0, 10)]);
    write(writer.as_mut(), table, &splits[0], 0..10).await;
    assert!(writer.commit(10, 40).await.is_err(), "a split is written once");
    assert_eq!(count().await, Some(10));

    // A newer worker takes over: the older one's next commit fails, and so does its finish.
    let mut writer = sink.writer(&key, old, old.into()).await.expect("a writer");
    write(writer.as_mut(), table, &splits[1], 10..20).await;
    let new = ledger.claim(&key).await.expect("a second claim");
    assert!(new > old);
    assert_eq!(writer.commit(10, 40).await.expect_err("fenced").kind(), Kind::Fenced);
    drop(writer);
    assert_eq!(ledger.finish(&key, old).await.expect_err("fenced").kind(), Kind::Fenced);
    assert_eq!(count().await, Some(10));

    // What is written is remembered for whoever goes on.
    let records = ledger.tables(&key).await.expect("records");
    assert_eq!((records.len(), records[0].is_created, records[0].is_finished), (1, true, false));
    assert_eq!(records[0].fingerprint, table.fingerprint());
    let committed: Vec<_> =
        records[0].splits.iter().map(|(split, done)| (split.ordinal, done.as_ref().map(|done| (done.rows, done.cut)))).collect();
    assert_eq!(committed, [(0, Some((10, old.into()))), (1, None)]);
    assert_eq!(records[0].splits[1].0.range, splits[1].range);

    // What it left may be replaced by the same config only; once finished, by nobody.
    let stranger = ConfigId::mint();
    assert!(ledger.unfinished_tables(&stranger).await.expect("none").is_empty());
    let theirs = plan(connector, connection, scope, &stranger).await;
    assert_eq!(theirs.check().expect_err("the table exists").kind(), Kind::TargetConflict);
    let other = LedgerKey { config: stranger, stream: StreamId::mint(), worker: 0, attempt: 0 };
    let epoch = ledger.claim(&other).await.expect("a claim");
    assert_eq!(sink.create_tables(&other, epoch, &first).await.expect_err("not theirs").kind(), Kind::TargetConflict);
    assert_eq!(count().await, Some(10), "nothing was touched");
    assert_eq!(ledger.unfinished_tables(&key.config).await.expect("one"), std::slice::from_ref(&table.target));
    plan(connector, connection, scope, &key.config).await.check().expect("ours to replace");
    sink.create_tables(&key, new, &first).await.expect("replaced");
    assert_eq!(count().await, Some(0));
    ledger.record_splits(&key, new, &table.target, &splits).await.expect("recorded anew");
    let mut writer = sink.writer(&key, new, new.into()).await.expect("a writer");
    for (split, ids) in splits.iter().zip([0..10, 10..25]) {
        let rows = (ids.end - ids.start) as u64;
        write(writer.as_mut(), table, split, ids).await;
        writer.commit(rows, 0).await.expect("committed");
    }
    sink.finish_table(&key, new, table).await.expect("keys");
    sink.finish_table(&key, new, table).await.expect("an answer may be lost, and the step tried again");
    assert!(ledger.tables(&key).await.expect("records")[0].is_finished);
    assert!(sink.finish_all(&first).await.expect("no foreign keys").is_empty());
    assert!(!ledger.is_finished(&key).await.expect("not yet"));
    ledger.finish(&key, new).await.expect("finished");
    assert!(ledger.is_finished(&key).await.expect("it is"));
    assert!(ledger.unfinished_tables(&key.config).await.expect("none").is_empty());
    assert_eq!(ledger.unfinished_run(&key.config).await.expect("none"), None);
    assert_eq!(count().await, Some(25));
}

/// What stays and what goes when a definition is deleted. `sql` runs statements in the target database, which is this test's own.
///
/// # Panics
/// On the first deviation.
pub async fn forgetting(connector: &dyn Connector, connection: &Connection, scope: &Scope, sql: impl AsyncFn(&str) -> Option<i64>) {
    let count = async || sql("SELECT count(*) FROM t").await;
    let nothing = connector.forget(connection, scope, &ConfigId::mint(), &[]).await.expect("a target without a ledger");
    assert_eq!((nothing.runs, nothing.dropped.len(), nothing.kept.len()), (0, 0, 0));

    // A run that nobody has said to be abandoned keeps its table; its record goes, so that it writes no more.
    let (key, epoch, first) = half_written(connector, connection, scope).await;
    let forgotten = connector.forget(connection, scope, &key.config, &[]).await.expect("forgotten");
    assert_eq!((forgotten.runs, forgotten.dropped.len()), (1, 0));
    assert_eq!(count().await, Some(10));
    let sink = connector.sink(connection, scope).await.expect("a sink");
    let mut writer = sink.writer(&key, epoch, epoch.into()).await.expect("a writer");
    write(writer.as_mut(), &first.tables[0], &splits()[1], 10..20).await;
    assert_eq!(writer.commit(10, 40).await.expect_err("fenced").kind(), Kind::Fenced);
    drop(writer);
    sql("DROP TABLE t").await;

    // An abandoned run's table goes.
    let (key, ..) = half_written(connector, connection, scope).await;
    let stranger = connector.forget(connection, scope, &ConfigId::mint(), std::slice::from_ref(&key.stream)).await.expect("another config");
    assert_eq!((stranger.runs, count().await), (0, Some(10)), "a run is its config's alone");
    let forgotten = connector.forget(connection, scope, &key.config, std::slice::from_ref(&key.stream)).await.expect("forgotten");
    assert_eq!((forgotten.runs, forgotten.dropped.as_slice()), (1, std::slice::from_ref(&first.tables[0].target)));
    assert_eq!(count().await, None);

    // Rows that the run did not write keep their table, and so does whatever depends on it.
    for (obstacle, way) in
        [("INSERT INTO t VALUES (99, NULL)", "DROP TABLE t"), ("CREATE VIEW on_t AS SELECT id FROM t", "DROP TABLE t CASCADE")]
    {
        let (key, ..) = half_written(connector, connection, scope).await;
        sql(obstacle).await;
        let forgotten = connector.forget(connection, scope, &key.config, std::slice::from_ref(&key.stream)).await.expect("forgotten");
        assert_eq!((forgotten.runs, forgotten.dropped.len(), forgotten.kept.len()), (1, 0, 1), "{obstacle}: {forgotten:?}");
        assert!(count().await >= Some(10), "{obstacle}");
        sql(way).await;
    }

    // A table that the user has put in the place of ours is the user's.
    let (key, ..) = half_written(connector, connection, scope).await;
    sql("DROP TABLE t; CREATE TABLE t (id int)").await;
    let forgotten = connector.forget(connection, scope, &key.config, std::slice::from_ref(&key.stream)).await.expect("forgotten");
    assert_eq!((forgotten.runs, forgotten.dropped.len(), count().await), (1, 0, Some(0)));
    sql("DROP TABLE t").await;

    // A finished run's table is the user's, whatever is said of the run.
    let (key, epoch, _) = half_written(connector, connection, scope).await;
    sink.ledger().finish(&key, epoch).await.expect("finished");
    let forgotten = connector.forget(connection, scope, &key.config, std::slice::from_ref(&key.stream)).await.expect("forgotten");
    assert_eq!((forgotten.runs, forgotten.dropped.len(), count().await), (1, 0, Some(10)));
    assert_eq!(sql("SELECT count(*) FROM millrace.run").await, Some(0));
    assert_eq!(sql("SELECT count(*) FROM millrace.split").await, Some(0));
}

/// A run that has created its table and committed the first of two splits.
async fn half_written(connector: &dyn Connector, connection: &Connection, scope: &Scope) -> (LedgerKey, Epoch, Plan) {
    let key = LedgerKey { config: ConfigId::mint(), stream: StreamId::mint(), worker: 0, attempt: 0 };
    let sink = connector.sink(connection, scope).await.expect("a sink");
    let plan = plan(connector, connection, scope, &key.config).await;
    let epoch = sink.ledger().claim(&key).await.expect("a claim");
    sink.create_tables(&key, epoch, &plan).await.expect("tables");
    sink.ledger().record_splits(&key, epoch, &plan.tables[0].target, &splits()).await.expect("recorded");
    let mut writer = sink.writer(&key, epoch, epoch.into()).await.expect("a writer");
    write(writer.as_mut(), &plan.tables[0], &splits()[0], 0..10).await;
    writer.commit(10, 40).await.expect("committed");
    (key, epoch, plan)
}
