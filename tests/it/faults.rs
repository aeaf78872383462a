//! Everything that can break in the middle of a run, under both answers to a lost moment. The matrix is written to `docs/crash-matrix.md`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use millrace_bus::LocalBus;
use millrace_connectors::connector;
use millrace_core::connection::Engine;
use millrace_core::id::{ConfigId, StreamId};
use millrace_core::stream::StreamState;
use millrace_tests::database::{MySqlDatabase, PgDatabase, pg_client, unique};
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{self, Server as Database, shared};
use millrace_tests::suites;
use millrace_worker::control::Control;
use millrace_worker::convert::ConvertTask;
use millrace_worker::progress::Progress;
use serde_json::{Value, json};

use crate::support::{LONG, Server, source};

const ROWS: u64 = 200_000;

/// How long a connection is held.
const HELD: Duration = Duration::from_secs(30);

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ProcessKilled,
    SourceKilled,
    TargetKilled,
    SourceCut,
    TargetCut,
    SourceHeld,
    TargetHeld,
}

const FAULTS: [(Fault, &str); 7] = [
    (Fault::ProcessKilled, "Millrace is killed (SIGKILL), started again and the run resumed"),
    (Fault::SourceKilled, "the source server is killed and started again"),
    (Fault::TargetKilled, "the target server is killed and started again"),
    (Fault::SourceCut, "all connections to the source are cut"),
    (Fault::TargetCut, "all connections to the target are cut"),
    (Fault::SourceHeld, "the network to the source holds still for 30 s"),
    (Fault::TargetHeld, "the network to the target holds still for 30 s"),
];

/// What one run showed.
struct Seen {
    cuts_lost: u64,
    is_consistent: bool,
    /// Rows that were written and rolled back, and the rows of one split.
    repeated: i64,
    split_rows: i64,
}

/// One run of its own servers, broken once in the middle.
async fn broken_run(fault: Fault, policy: &'static str) -> Seen {
    let own = matches!(fault, Fault::SourceKilled | Fault::TargetKilled);
    let private = if own {
        let started = tokio::task::spawn_blocking(move || match fault {
            Fault::SourceKilled => servers::start_mariadb(&[]).unwrap(),
            _ => servers::start_postgres(&[]).unwrap(),
        });
        Some(started.await.unwrap())
    } else {
        None
    };
    let servers = shared().await;
    let mysql = private.as_ref().filter(|_| fault == Fault::SourceKilled).unwrap_or(&servers.mysql);
    let postgres = private.as_ref().filter(|_| fault == Fault::TargetKilled).unwrap_or(&servers.postgres);
    let database = MySqlDatabase::create(mysql, "fault").await.unwrap();
    database.execute(&products(ROWS)).await.unwrap();
    let (to_source, to_target) =
        (FaultProxy::start("127.0.0.1", mysql.port).await.unwrap(), FaultProxy::start("127.0.0.1", postgres.port).await.unwrap());
    let mut server = Server::start().await;
    let (from, to) = (Database::through(mysql, to_source.port), Database::through(postgres, to_target.port));
    let (config, target) = server.config_between(&from, &database, &to).await;
    server.change(&config, json!({"onCutLost": policy, "parallelism": 2})).await;
    // About half of the rows have been read.
    let (stream, ()) = tokio::join!(server.start_config(&config), to_source.hold_at(7_000_000));
    match fault {
        Fault::ProcessKilled => {
            server.kill_and_restart().await;
            to_source.release();
            let resumed = server.api.post(&format!("/streams/{stream}/resume"), Value::Null).await.unwrap();
            assert_eq!(resumed.status, 200, "{resumed:?}");
        }
        Fault::SourceKilled | Fault::TargetKilled => {
            let private = private.as_ref().unwrap();
            tokio::task::block_in_place(|| {
                private.kill();
                private.start_again().unwrap();
            });
            to_source.release();
        }
        Fault::SourceCut | Fault::TargetCut => {
            if fault == Fault::SourceCut { &to_source } else { &to_target }.cut();
            to_source.release();
        }
        Fault::SourceHeld | Fault::TargetHeld => {
            let proxy = if fault == Fault::SourceHeld { &to_source } else { &to_target };
            proxy.hold();
            if fault == Fault::TargetHeld {
                to_source.release();
            }
            tokio::time::sleep(HELD).await;
            proxy.release();
        }
    }
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "FINISHED", "{fault:?} {policy}: {stats}");
    let database = MySqlDatabase::open(mysql, &database.name).await.unwrap();
    let pg = PgDatabase::open(postgres, &target).await.unwrap();
    let digest = assert_equal(&database.pool, &database.name, &pg.client, "public", "products").await.unwrap();
    assert_eq!((digest.rows, &stats["target"]["counter"]), (ROWS, &json!(ROWS)));
    let open = pg.texts("SELECT count(*)::text FROM millrace.split WHERE committed_at IS NULL").await.unwrap();
    assert_eq!(open, ["0"]);
    pg.client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
    let number = async |sql: &str| pg.texts(sql).await.unwrap()[0].parse::<i64>().unwrap_or(0);
    Seen {
        cuts_lost: stats["cutsLost"].as_u64().unwrap(),
        is_consistent: stats["consistentCut"].as_bool().unwrap(),
        repeated: number("SELECT n_tup_ins::text FROM pg_stat_user_tables WHERE relname = 'products'").await - ROWS as i64,
        split_rows: number("SELECT max(row_count)::text FROM millrace.split").await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_matrix_of_faults() {
    let mut runs: Vec<BoxFuture<'static, (Fault, &'static str, Seen)>> = Vec::new();
    for (fault, _) in FAULTS {
        for policy in ["restart", "continue"] {
            runs.push(async move { (fault, policy, broken_run(fault, policy).await) }.boxed());
        }
    }
    // The held ones wait most of their time.
    let seen: Vec<(Fault, &str, Seen)> = futures::stream::iter(runs.into_iter().rev()).buffer_unordered(6).collect().await;
    let mut text = String::from(
        "# What happens when something breaks in the middle of a run\n\n\
         Written by the test `faults::the_matrix_of_faults`, which breaks a copy of 200,000 rows from MariaDB to PostgreSQL half-way, waits for its end and compares\n\
         source and target by digest. \"Lost\" is the source's consistent moment; a run under `continue` that lost it says so (`consistentCut: false`).\n\n\
         | what breaks | `onCutLost: restart` | `onCutLost: continue` |\n|---|---|---|\n",
    );
    for (fault, what) in FAULTS {
        let mut cells = Vec::new();
        for policy in ["restart", "continue"] {
            let (_, _, seen) = seen.iter().find(|(found, at, _)| *found == fault && *at == policy).unwrap();
            let is_lost = matches!(fault, Fault::ProcessKilled | Fault::SourceKilled | Fault::SourceCut);
            assert_eq!(seen.cuts_lost, u64::from(is_lost), "{fault:?} {policy}");
            assert_eq!(seen.is_consistent, !(is_lost && policy == "continue"), "{fault:?} {policy}");
            cells.push(match (is_lost, policy) {
                (false, _) => "finished, digests equal; the moment is kept".to_owned(),
                (true, "restart") => "finished, digests equal; lost, everything read again at one new moment".to_owned(),
                _ => {
                    // Two lanes, so at most two splits were under way.
                    let most = 2 * seen.split_rows;
                    assert!(seen.repeated <= most, "{fault:?}: {} rows repeated, {most} under way", seen.repeated);
                    "finished, digests equal; lost and said; repeated: at most the splits under way".to_owned()
                }
            });
        }
        text.push_str(&format!("| {what} | {} | {} |\n", cells[0], cells[1]));
    }
    text.push_str(
        "\nBeside these, each its own test: 20 kills at random moments under either policy; a target database or table that is dropped, a full target disk,\n\
         a table that is dropped at the source, a value that breaks a target's constraint: the run is FAILED, names the table, and nothing half-written is counted.\n",
    );
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/crash-matrix.md"), text).unwrap();
}

/// Kills the server at random moments, 20 times, and resumes; whenever a run finishes, `check` looks at its target and a new one is started.
async fn twenty_kills<F: Future<Output = ()>>(policy: &str, database: &MySqlDatabase, check: impl Fn(PgDatabase, Value, u32) -> F) {
    let servers = shared().await;
    let mut server = Server::start().await;
    let mut kills = 0;
    while kills < 20 {
        let (config, target) = server.config_between(&servers.mysql, database, &servers.postgres).await;
        server.change(&config, json!({"onCutLost": policy, "parallelism": 2})).await;
        let stream = server.start_config(&config).await;
        let mut kills_here = 0;
        let stats = loop {
            if kills < 20 {
                tokio::time::sleep(Duration::from_millis(u64::from(rand::random::<u16>() % 1200))).await;
            } else {
                server.api.wait_for_end(&stream, LONG).await.unwrap();
            }
            let stats = server.api.get(&format!("/streams/{stream}/stats")).await.unwrap().body;
            if stats["status"] == "FINISHED" {
                break stats;
            }
            assert_eq!(stats["status"], "RUNNING", "{stats}");
            server.kill_and_restart().await;
            (kills, kills_here) = (kills + 1, kills_here + 1);
            let stats = server.api.get(&format!("/streams/{stream}/stats")).await.unwrap().body;
            if stats["status"] == "FINISHED" {
                break stats; // it was stored just before
            }
            assert_eq!((&stats["status"], &stats["reason"]), (&json!("PAUSED"), &json!("INTERRUPTED")), "{stats}");
            let resumed = server.api.post(&format!("/streams/{stream}/resume"), Value::Null).await.unwrap();
            assert_eq!(resumed.status, 200, "{resumed:?}");
        };
        check(PgDatabase::open(&servers.postgres, &target).await.unwrap(), stats, kills_here).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_continue_repeat_only_what_was_under_way() {
    let database = source("kills", &products(1_000_000)).await;
    twenty_kills("continue", &database, async |pg, stats, kills| {
        let digest = assert_equal(&database.pool, &database.name, &pg.client, "public", "products").await.unwrap();
        assert_eq!(digest.rows, 1_000_000);
        let number = async |sql: &str| pg.texts(sql).await.unwrap()[0].parse::<i64>().unwrap();
        let repeated = number("SELECT n_tup_ins::text FROM pg_stat_user_tables WHERE relname = 'products'").await - 1_000_000;
        let split = number("SELECT max(row_count)::text FROM millrace.split").await;
        assert!(repeated <= i64::from(kills) * 2 * split, "{repeated} rows were written again after {kills} kills; a split has {split}");
        let epochs = number("SELECT count(DISTINCT epoch)::text FROM millrace.split").await;
        // What is said of the moment is what the ledger shows: an interrupted run that had committed nothing is still of one moment.
        assert_eq!(stats["consistentCut"], epochs == 1, "{epochs} {stats}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_restart_while_the_source_is_written_give_one_moment() {
    let database = source("kills", &products(300_000)).await;
    // Every transaction moves an amount between two rows and adds one row to each of two tables.
    let more = [
        "CREATE TABLE log (id INT PRIMARY KEY AUTO_INCREMENT, n INT)",
        "CREATE TABLE balance (id INT PRIMARY KEY, amount BIGINT NOT NULL)",
        "INSERT INTO balance SELECT seq, 1000 FROM seq_1_to_1000",
    ];
    database.execute(&more.map(str::to_owned)).await.unwrap();
    let writer = MySqlDatabase::open(&shared().await.mysql, &database.name).await.unwrap();
    let writing = tokio::spawn(async move {
        for n in 0u32.. {
            let (a, b) = (1 + n % 1000, 1 + n * 7 % 1000);
            let statements = [
                "BEGIN".to_owned(),
                format!("UPDATE balance SET amount = amount - 5 WHERE id = {a}"),
                format!("UPDATE balance SET amount = amount + 5 WHERE id = {b}"),
                format!("INSERT INTO log (n) VALUES ({n})"),
                "COMMIT".to_owned(),
            ];
            writer.execute(&statements).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    twenty_kills("restart", &database, async |pg, stats, _| {
        assert_eq!(stats["consistentCut"], true, "{stats}");
        assert_eq!(pg.texts("SELECT sum(amount)::text FROM balance").await.unwrap(), ["1000000"]);
        // The amounts that the log's rows have moved are those that the balances show.
        let moved = "SELECT count(*)::text FROM (SELECT id, 1000 - 5 * (SELECT count(*) FROM log WHERE 1 + n % 1000 = b.id)
            + 5 * (SELECT count(*) FROM log WHERE 1 + (n::bigint * 7) % 1000 = b.id) AS wanted, amount FROM balance b) x WHERE wanted <> amount";
        assert_eq!(pg.texts(moved).await.unwrap(), ["0"], "log and balance are of one moment");
        let digest = assert_equal(&database.pool, &database.name, &pg.client, "public", "products").await.unwrap();
        assert_eq!(digest.rows, 300_000);
    })
    .await;
    writing.abort();
}

#[tokio::test]
async fn a_run_that_finished_before_its_process_could_say_so_is_not_made_again() {
    let servers = shared().await;
    for policy in ["restart", "continue"] {
        let database = source("unsaid", &products(1_000)).await;
        let target = PgDatabase::create(&servers.postgres, "unsaid").await.unwrap();
        let from = suites::session::connection(connector(Engine::MySql).unwrap(), &servers.mysql, Some(&database.name));
        let to = suites::session::connection(connector(Engine::PostgreSql).unwrap(), &servers.postgres, None);
        let spec = json!({"name": "c", "mode": "convert", "source": {"connections": [{"connectionId": from.id, "database": database.name}]},
            "target": {"id": to.id, "spec": {"db": {"database": target.name}}}, "onCutLost": policy});
        let task = ConvertTask {
            stream: StreamId::mint(),
            config: ConfigId::mint(),
            spec: serde_json::from_value(spec).unwrap(),
            sources: vec![from],
            target: to,
        };
        let mut made = BTreeSet::new();
        // The second process finds in its own store a run that was broken off.
        for _ in 0..2 {
            let (progress, (_wish, control)) = (Arc::new(Progress::new(0)), Control::channel());
            let outcome = millrace_worker::convert::run(task.clone(), progress.clone(), control, Arc::new(LocalBus::default())).await;
            assert_eq!(outcome.state, StreamState::Finished, "{:?}", outcome.error.map(|error| error.chain()));
            let report = progress.report(false);
            assert_eq!((report.target.rows, report.tables[0].state, report.is_consistent), (1_000, StreamState::Finished, true));
            made.extend(target.texts("SELECT 'products'::regclass::oid::text").await.unwrap());
        }
        assert_eq!(
            (made.len(), target.texts("SELECT count(*)::text FROM products").await.unwrap()),
            (1, vec!["1000".to_owned()]),
            "{policy}"
        );
    }
}

#[tokio::test]
async fn a_dropped_target_fails_the_run_and_nothing_is_reported_as_done() {
    let servers = shared().await;
    let server = Server::start().await;
    let database = source("dropped", &products(ROWS)).await;
    for sql in ["DROP TABLE products", "DROP DATABASE"] {
        let (proxy, config, target) = server.config_behind_proxy(&database).await;
        let (stream, ()) = tokio::join!(server.start_config(&config), proxy.hold_at(3_000_000));
        if sql == "DROP DATABASE" {
            let admin = pg_client(&servers.postgres, "postgres").await.unwrap();
            admin.batch_execute(&format!("DROP DATABASE \"{target}\" WITH (FORCE)")).await.unwrap();
        } else {
            let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
            let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            pg.texts(end).await.unwrap();
            pg.client.batch_execute(sql).await.unwrap();
        }
        proxy.release();
        let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
        assert_eq!((&stats["status"], &stats["tables"][0]["status"]), (&json!("FAILED"), &json!("FAILED")), "{sql}: {stats}");
        assert!(stats["error"].as_str().unwrap().contains("does not exist"), "{stats}");
    }
}

#[tokio::test]
async fn a_full_target_disk_fails_the_run_with_exactly_the_committed_rows() {
    let servers = shared().await;
    // A full disk stops checkpoints, so this server is nobody else's.
    let postgres = tokio::task::spawn_blocking(|| servers::start_postgres(&[]).unwrap()).await.unwrap();
    let place = postgres.sub_dir("small").unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs"]).arg(&place).status();
    if !mounted.is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "LEFT OUT: a small disk cannot be mounted here, so a full target disk was not tried");
        return;
    }
    let admin = pg_client(&postgres, "postgres").await.unwrap();
    let (space, target) = (unique("small"), unique("full"));
    let inner = place.join("space");
    std::fs::create_dir(&inner).unwrap();
    let owner = std::fs::metadata(place.parent().unwrap()).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    std::os::unix::fs::chown(&inner, Some(owner.uid()), Some(owner.gid())).unwrap();
    admin.batch_execute(&format!("CREATE TABLESPACE {space} LOCATION '{}'", inner.display())).await.unwrap();
    admin.batch_execute(&format!("CREATE DATABASE {target} TABLESPACE {space}")).await.unwrap();
    let server = Server::start().await;
    let database = source("full", &products(ROWS * 2)).await;
    let from = server.api.connect("from", "mysql", &servers.mysql, &database.name).await.unwrap();
    let to = server.api.connect("to", "postgresql", &postgres, &target).await.unwrap();
    let config = server.api.convert(&from, &database.name, &to, &target).await.unwrap();
    let stream = server.start_config(&config).await;
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "FAILED", "{stats}");
    assert!(stats["error"].as_str().unwrap().to_lowercase().contains("no space left"), "{stats}");
    let pg = PgDatabase::open(&postgres, &target).await.unwrap();
    let rows = pg.texts("SELECT count(*)::text FROM products").await.unwrap()[0].clone();
    let ledger =
        pg.texts("SELECT coalesce(sum(row_count), 0)::text FROM millrace.split WHERE committed_at IS NOT NULL").await.unwrap()[0].clone();
    assert_eq!((stats["target"]["counter"].to_string(), rows.clone()), (ledger, rows), "reported, recorded and present rows are the same");
    postgres.kill();
    let _ = std::process::Command::new("umount").arg("--lazy").arg(&place).status();
}

#[tokio::test]
async fn a_table_dropped_at_the_source_fails_alone() {
    let servers = shared().await;
    let server = Server::start().await;
    let mut statements = products(ROWS);
    statements.push("CREATE TABLE short (id INT PRIMARY KEY)".into());
    statements.push("INSERT INTO short VALUES (1)".into());
    statements.push("CREATE TABLE altered (id INT PRIMARY KEY)".into());
    statements.push("INSERT INTO altered VALUES (1)".into());
    let database = source("gone", &statements).await;
    let (proxy, config, target) = server.config_behind_proxy(&database).await;
    server.change(&config, json!({"parallelism": 1})).await;
    let (stream, ()) = tokio::join!(server.start_config(&config), proxy.hold_at(3_000_000));
    database
        .execute(&["SET lock_wait_timeout = 20".into(), "DROP TABLE short".into(), "ALTER TABLE altered MODIFY id BIGINT".into()])
        .await
        .unwrap();
    proxy.release();
    let stats = server.api.wait_for_end(&stream, LONG).await.unwrap();
    assert_eq!(stats["status"], "FAILED", "{stats}");
    let table = |name: &str| stats["tables"].as_array().unwrap().iter().find(|table| table["table"] == name).unwrap()["status"].clone();
    assert_eq!((table("short"), table("altered"), table("products")), (json!("FAILED"), json!("FAILED"), json!("FINISHED")), "{stats}");
    let pg = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(assert_equal(&database.pool, &database.name, &pg.client, "public", "products").await.unwrap().rows, ROWS);
    assert_eq!(pg.texts("SELECT count(*)::text FROM short").await.unwrap(), ["0"]);
}
