//! Several worker processes carry out one run, as the pods of an indexed Job do: together, through kills, without NATS, at one moment of a busy source.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace_bus::{Nats, NatsConfig, NatsWork};
use millrace_connectors::connector;
use millrace_core::catalog::TableName;
use millrace_core::connection::{Connection, Engine};
use millrace_core::fleet::{Seat, WorkItem, WorkQueue as _};
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::ledger::{CutNumber, LedgerKey};
use millrace_core::task::{SecretFile, TASK_VERSION, TaskKind, TaskReport, TaskSpec};
use millrace_tests::database::{MySqlDatabase, PgDatabase, unique};
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::process::Process;
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{Server, shared, start_mariadb, start_nats};
use millrace_tests::suites;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(180);

/// One run, and what its workers are started with.
struct Run {
    dir: tempfile::TempDir,
    stream: StreamId,
    target: String,
    nats: Server,
    /// In front of the source.
    proxy: FaultProxy,
    workers: u32,
}

impl Run {
    async fn new(source: &MySqlDatabase, workers: u32, more: Value) -> Self {
        Self::from(&shared().await.mysql, source, workers, more).await
    }

    /// As [`Run::new`], from another server.
    async fn from(mysql: &Server, source: &MySqlDatabase, workers: u32, more: Value) -> Self {
        let servers = shared().await;
        let proxy = FaultProxy::start("127.0.0.1", mysql.port).await.unwrap();
        let nats = tokio::task::spawn_blocking(|| start_nats().unwrap()).await.unwrap();
        let target = unique("fleet");
        let through = Server::through(mysql, proxy.port);
        let from = suites::session::connection(connector(Engine::MySql).unwrap(), &through, None);
        let to = suites::session::connection(connector(Engine::PostgreSql).unwrap(), &servers.postgres, None);
        let mut spec = json!({"name": "fleet", "mode": "convert", "parallelism": workers,
            "source": {"connections": [{"connectionId": from.id, "database": source.name}]},
            "target": {"id": to.id, "spec": {"db": {"database": target}}}});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let dir = tempfile::tempdir().unwrap();
        let mut secrets = Vec::new();
        for connection in [&from, &to] {
            secrets.extend(secret_files(connection, dir.path()));
        }
        let stream = StreamId::mint();
        let kind = TaskKind::Convert {
            stream: stream.clone(),
            config: ConfigId::mint(),
            attempt: 1,
            workers,
            spec: Box::new(serde_json::from_value(spec).unwrap()),
        };
        let task =
            TaskSpec { version: TASK_VERSION, namespace: "it".into(), kind, connections: vec![from, to], secrets, traceparent: None };
        let text = serde_json::to_string(&task).unwrap();
        assert!(!text.contains(&mysql.password), "a task holds no secret");
        std::fs::write(dir.path().join("task.json"), text).unwrap();
        Self { dir, stream, target, nats, proxy, workers }
    }

    fn report_path(&self, index: u32) -> PathBuf {
        self.dir.path().join(format!("report-{index}"))
    }

    fn worker(&self, index: u32) -> Process {
        let (task, report) = (self.dir.path().join("task.json"), self.report_path(index));
        let url = format!("nats://127.0.0.1:{}", self.nats.port);
        let (task, report, index) = (task.display().to_string(), report.display().to_string(), index.to_string());
        Process::spawn(&[
            "worker",
            "--task",
            &task,
            "--index",
            &index,
            "--nats-url",
            &url,
            "--termination-log",
            &report,
            "--ops-listen",
            "127.0.0.1:0",
        ])
        .unwrap()
    }

    fn all(&self) -> Vec<Process> {
        (0..self.workers).map(|index| self.worker(index)).collect()
    }

    fn report(&self, index: u32) -> TaskReport {
        TaskReport::parse(&std::fs::read_to_string(self.report_path(index)).unwrap()).unwrap()
    }

    async fn target(&self) -> PgDatabase {
        PgDatabase::open(&shared().await.postgres, &self.target).await.unwrap()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.target().await.texts(sql).await.unwrap()[0].parse().unwrap()
    }
}

fn secret_files(connection: &Connection, dir: &std::path::Path) -> Vec<SecretFile> {
    let file = |(field, secret): (&str, &millrace_core::Secret)| {
        let path = dir.join(format!("{}-{}", connection.id, field.replace('.', "-")));
        std::fs::write(&path, secret.expose()).unwrap();
        SecretFile { connection: connection.id.clone(), field: field.to_owned(), path: path.display().to_string() }
    };
    connection.secrets().into_iter().map(file).collect()
}

async fn source(rows: u64) -> MySqlDatabase {
    let source = MySqlDatabase::create(&shared().await.mysql, "fleet").await.unwrap();
    source.execute(&products(rows)).await.unwrap();
    source
}

async fn all_end_well(workers: &mut [Process]) {
    for worker in workers {
        let code = worker.wait().await;
        assert_eq!(code, Some(0), "{}", worker.output());
    }
}

#[tokio::test]
async fn four_workers_share_one_run_at_one_moment() {
    let source = source(400_000).await;
    let run = Run::new(&source, 4, json!({})).await;
    let mut workers = run.all();
    all_end_well(&mut workers).await;
    let pg = run.target().await;
    assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
    let splits = "SELECT count(DISTINCT epoch)::text FROM millrace.split WHERE committed_at IS NOT NULL";
    assert_eq!(run.number(splits).await, 1, "one moment");
    assert!(run.number("SELECT count(DISTINCT worker)::text FROM millrace.split").await > 1, "one worker did it all");
    assert_eq!(run.number("SELECT count(*)::text FROM millrace.split WHERE committed_at IS NULL").await, 0);
    // Whoever led has counted for all.
    let most = (0..4).map(|index| run.report(index).rows_written).max();
    assert_eq!(most, Some(400_000));
    assert!((0..4).all(|index| run.report(index).is_consistent && run.report(index).cuts_lost == 0));
    // Who comes late finds everything done.
    let mut late = run.worker(2);
    assert_eq!(late.wait().await, Some(0), "{}", late.output());
}

#[tokio::test]
async fn killed_workers_and_an_emptied_queue_neither_lose_nor_double_a_row() {
    let source = source(500_000).await;
    let mut run = Run::new(&source, 3, json!({"onCutLost": "continue"})).await;
    run.proxy.limit(2_500_000);
    let mut workers = run.all();
    run.proxy.wait_for_bytes(3_000_000).await;
    // Every worker of the first moment dies, one after the other, the leader among them, and the queue forgets everything once.
    for (round, bytes) in (0..4_u32).zip([6_000_000, 9_000_000, 12_000_000, 15_000_000]) {
        let index = round % 3;
        workers[index as usize].kill().await;
        if round == 1 {
            let nats = std::mem::replace(&mut run.nats, Server::through(&shared().await.postgres, 0));
            run.nats = tokio::task::spawn_blocking(move || {
                nats.begin_anew().unwrap();
                nats
            })
            .await
            .unwrap();
        }
        workers[index as usize] = run.worker(index);
        run.proxy.wait_for_bytes(bytes).await;
    }
    run.proxy.limit(0);
    all_end_well(&mut workers).await;
    let pg = run.target().await;
    assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
    assert_eq!(run.number("SELECT sum(row_count)::text FROM millrace.split").await, 500_000);
    let cuts = run.number("SELECT count(DISTINCT epoch)::text FROM millrace.split").await;
    let leader = (0..3).map(|index| run.report(index)).max_by_key(|report| report.rows_written).unwrap();
    assert_eq!(leader.rows_written, 500_000);
    assert_eq!(leader.is_consistent, cuts == 1, "{leader:?}, {cuts} moments");
    assert!(cuts == 1 || leader.cuts_lost > 0, "{leader:?}");
}

#[tokio::test]
async fn a_fleet_goes_on_without_nats() {
    let source = source(200_000).await;
    let run = Run::new(&source, 2, json!({})).await;
    run.proxy.limit(4_000_000);
    let mut workers = run.all();
    run.proxy.wait_for_bytes(2_000_000).await;
    run.nats.kill();
    run.proxy.limit(0);
    all_end_well(&mut workers).await;
    let pg = run.target().await;
    assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
    assert_eq!(run.number("SELECT sum(row_count)::text FROM millrace.split").await, 200_000);
}

#[tokio::test]
async fn of_two_workers_with_one_place_the_older_one_stops() {
    let source = source(200_000).await;
    let run = Run::new(&source, 2, json!({})).await;
    run.proxy.limit(3_000_000);
    let mut older = run.all();
    run.proxy.wait_for_bytes(3_000_000).await;
    let mut newer = run.worker(1);
    assert_eq!(older[1].wait().await, Some(4), "{}", older[1].output());
    run.proxy.limit(0);
    assert_eq!(newer.wait().await, Some(0), "{}", newer.output());
    assert_eq!(older[0].wait().await, Some(0), "{}", older[0].output());
    let pg = run.target().await;
    assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
}

#[tokio::test]
async fn a_later_attempt_ends_all_workers_of_the_earlier_one() {
    let database = PgDatabase::create(&shared().await.postgres, "attempts").await.unwrap();
    let connection = suites::session::connection(connector(Engine::PostgreSql).unwrap(), &shared().await.postgres, None);
    let scope = millrace_core::connector::Scope { database: Some(database.name.clone()), schema: None };
    let sink = connector(Engine::PostgreSql).unwrap().sink(&connection, &scope).await.unwrap();
    let (config, stream) = (ConfigId::mint(), StreamId::mint());
    let key = |seat: Seat| LedgerKey { config: config.clone(), stream: stream.clone(), worker: seat.worker, attempt: seat.attempt };
    let seat = |worker, attempt| Seat { worker, workers: 2, attempt };
    let (first, second, third) = (key(seat(0, 1)), key(seat(1, 1)), key(seat(1, 2)));
    let (a, b) = (sink.ledger().claim(&first).await.unwrap(), sink.ledger().claim(&second).await.unwrap());
    let fleet = sink.fleet().unwrap();
    let report = millrace_core::fleet::MemberReport::default();
    assert!(fleet.beat(&first, a, &report).await.unwrap().is_leader, "who comes first leads");
    assert!(!fleet.beat(&second, b, &report).await.unwrap().is_leader);
    let c = sink.ledger().claim(&third).await.unwrap();
    for (key, epoch) in [(&first, a), (&second, b)] {
        assert_eq!(fleet.beat(key, epoch, &report).await.unwrap_err().kind(), millrace_core::Kind::Fenced);
    }
    let view = fleet.beat(&third, c, &report).await.unwrap();
    assert!(view.is_leader, "the lead goes with its holder");
    assert_eq!(view.members.len(), 1);
    assert_eq!(sink.ledger().claim(&first).await.unwrap_err().kind(), millrace_core::Kind::Fenced, "there is no way back");
}

#[tokio::test]
async fn splits_that_are_offered_twice_are_copied_once() {
    let source = source(300_000).await;
    let run = Run::new(&source, 2, json!({})).await;
    run.proxy.limit(6_000_000);
    let mut workers = run.all();
    run.proxy.wait_for_bytes(3_000_000).await;
    // As after a lost acknowledgement, or by a leader that knows nothing of the one before.
    let pg = run.target().await;
    let cut: i64 = run.number("SELECT (cut::json ->> 'number') FROM millrace.run").await;
    let nats = NatsConfig { url: format!("nats://127.0.0.1:{}", run.nats.port), token: None, namespace: "it".into() };
    let nats = Nats::connect(&nats, "test").await.unwrap();
    while !nats.is_connected() {
        tokio::task::yield_now().await;
    }
    let queue = NatsWork::new(nats, run.stream.clone());
    let target = TableName { schema: "public".into(), name: "products".into() };
    let ordinals = pg.texts("SELECT ordinal::text FROM millrace.split").await.unwrap();
    let items: Vec<WorkItem> =
        ordinals.iter().map(|ordinal| WorkItem { target: target.clone(), ordinal: ordinal.parse().unwrap() }).collect();
    queue.offer(CutNumber(cut), 0, &items).await.unwrap();
    run.proxy.limit(0);
    all_end_well(&mut workers).await;
    assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
    assert_eq!(run.number("SELECT sum(row_count)::text FROM millrace.split").await, 300_000);
}

#[tokio::test]
async fn a_fleet_sees_one_moment_of_a_source_that_never_rests() {
    let servers = shared().await;
    let cuts = busy(&servers.mysql, &servers.mysql, 3).await;
    assert!(cuts > 1, "nobody helped the leader");
}

#[tokio::test]
async fn without_places_in_the_log_a_fleet_sees_one_moment_by_a_lock_or_reads_by_one_reader() {
    let mysql = tokio::task::spawn_blocking(|| start_mariadb(&["--skip-log-bin"]).unwrap()).await.unwrap();
    assert!(busy(&mysql, &mysql, 3).await > 1, "nobody helped the leader");
    // Without the privilege for the lock, one worker reads alone, by one connection.
    let admin = MySqlDatabase::create(&mysql, "grants").await.unwrap();
    let password = &mysql.password;
    admin.execute(&[format!("CREATE USER reader IDENTIFIED BY '{password}'"), "GRANT SELECT ON *.* TO reader".into()]).await.unwrap();
    let mut reader = Server::through(&mysql, mysql.port);
    reader.user = "reader".into();
    assert_eq!(busy(&mysql, &reader, 3).await, 1);
}

/// Copies from a source that is written to all the time; answers how many workers have written.
async fn busy(mysql: &Server, reader: &Server, workers: u32) -> i64 {
    let source = MySqlDatabase::create(mysql, "busy").await.unwrap();
    let accounts = |name: &str| {
        vec![
            format!("CREATE TABLE {name} (id INT PRIMARY KEY, amount BIGINT NOT NULL, filler CHAR(200) NOT NULL)"),
            format!("INSERT INTO {name} SELECT seq, 1000, REPEAT('x', 200) FROM seq_1_to_60000"),
            format!("ANALYZE TABLE {name}"),
        ]
    };
    source.execute(&[accounts("a"), accounts("b")].concat()).await.unwrap();
    let run = Run::from(reader, &source, workers, json!({})).await;
    run.proxy.limit(20_000_000);
    // Every transaction moves an amount from one table to the other: at any one moment the sum is the same.
    // One writer has the odd rows and one the even ones: in the same row they could lock each other out.
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let name = source.name.clone();
            async move {
                let own = MySqlDatabase::open(mysql, &name).await.unwrap();
                loop {
                    let id = 2 * rand::random_range(1..=30_000) - writer;
                    let (from, to) = if rand::random() { ("a", "b") } else { ("b", "a") };
                    let step = |table: &str, sign: &str| format!("UPDATE {table} SET amount = amount {sign} 7 WHERE id = {id}");
                    own.execute(&["BEGIN".to_owned(), step(from, "-"), step(to, "+"), "COMMIT".to_owned()]).await.unwrap();
                }
            }
        })
        .collect();
    let begun = Instant::now();
    let mut workers = run.all();
    tokio::select! {
        () = all_end_well(&mut workers) => {}
        _ = futures::future::join_all(writers) => unreachable!("writers do not end"),
        () = tokio::time::sleep(PATIENCE) => panic!("not done after {:?}", begun.elapsed()),
    }
    let sum = "SELECT (SELECT sum(amount) FROM a)::bigint + (SELECT sum(amount) FROM b)::bigint";
    assert_eq!(run.number(&format!("SELECT ({sum})::text")).await, 120_000_000);
    assert_eq!(run.number("SELECT count(DISTINCT epoch)::text FROM millrace.split").await, 1);
    run.number("SELECT count(DISTINCT worker)::text FROM millrace.split").await
}
