//! Fleets of worker pods: together they are quicker, and whoever of them, or of those who look after them, is killed, the copy is right.

use std::time::{Duration, Instant};

use millrace_tests::database::PgDatabase;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::shared;
use serde_json::{Value, json};

use crate::kube::{Kube, Scene, condition, kube, try_run};

/// Narrow rows, so that even a slow wire carries a split of ten thousand within seconds.
const ROWS: u64 = 4_000_000;
/// Bytes a second between source and workers: undisturbed, the run takes three minutes or more.
const WIRE: u64 = 300_000;
/// What the protocol sends before each row (MySQL manual, "MySQL Packets").
const ROW_HEADER: u64 = 4;
const UNDISTURBED: Duration = Duration::from_secs(180);
/// The run ends within this, however it is disturbed.
const PATIENCE: Duration = Duration::from_secs(900);
const KILL_EVERY: Duration = Duration::from_secs(8);
/// Chaos ends once so much of the rows is there: the end is then left to come.
const CHAOS_UNTIL: u64 = ROWS * 9 / 10;

fn narrow(rows: u64) -> Vec<String> {
    vec![
        "CREATE TABLE narrow (id INT PRIMARY KEY, v INT NOT NULL)".to_owned(),
        format!("INSERT INTO narrow SELECT seq, seq * 7 % 1000003 FROM seq_1_to_{rows}"),
        "ANALYZE TABLE narrow".to_owned(),
    ]
}

/// A target whose table is there, with a trigger that counts every row that is committed.
async fn counting_target(name: &str) -> PgDatabase {
    let target = PgDatabase::create(&shared().await.postgres, name).await.unwrap();
    let statements = "CREATE TABLE narrow (id int PRIMARY KEY, v int NOT NULL);
        CREATE TABLE counted (rows bigint NOT NULL);
        CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.counted SELECT count(*) FROM new_rows; RETURN NULL; END $$;
        CREATE TRIGGER counter AFTER INSERT ON narrow REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_rows()";
    target.client.batch_execute(statements).await.unwrap();
    target
}

fn into_existing(scene: &Scene, target: &PgDatabase, more: Value) -> Value {
    let mut definition = scene.definition(more);
    definition["spec"]["target"]["spec"]["db"] =
        json!({"database": target.name, "schemaPolicy": "validate_existing", "writeMode": "append"});
    definition
}

#[tokio::test]
async fn four_pods_share_a_run_and_its_status_speaks_for_all() {
    let kube = kube().await;
    let scene = Scene::new("four", &narrow(600_000)).await;
    kube.apply(&[scene.definition(json!({"parallelism": 4}))]).await;
    let job = kube.until("job", &format!("{}-1", scene.stream()), "there", |object| object.is_object()).await;
    assert_eq!((&job["spec"]["completions"], &job["spec"]["completionMode"]), (&json!(4), &json!("Indexed")));
    let stream = kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert_eq!(stream["status"]["counters"]["rowsWritten"], 600_000, "{stream:#}");
    assert_eq!(condition(&stream, "ConsistentCut").0, "True");
    let target = PgDatabase::open(&shared().await.postgres, &scene.target).await.unwrap();
    assert_equal(&scene.source.pool, &scene.source.name, &target.client, "public", "narrow").await.unwrap();
    let workers = target.texts("SELECT count(DISTINCT worker)::text FROM millrace.split").await.unwrap();
    assert_ne!(workers, ["1"], "one pod did it all");
}

/// One blow against a part of the installation.
async fn blow(kube: &Kube, scene: &Scene, turn: u32) {
    let kill = async |selector: &str| {
        let names = kube.running(selector).await;
        if let Some(name) = (!names.is_empty()).then(|| &names[rand::random_range(0..names.len())]) {
            kube.kill_pod(name).await;
        }
    };
    match turn % 8 {
        0 | 3 | 6 => kill(&format!("millrace.dev/stream={}", scene.stream())).await,
        // SIGKILL within the pod, as the kernel's out-of-memory killer sends it.
        1 | 4 => {
            let (_, pids) = try_run("pgrep", &["-f", "/usr/bin/millrace worker --task"], None).await;
            let pids: Vec<i32> = pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| belongs_to(*pid, scene)).collect();
            if !pids.is_empty() {
                let pid = nix::unistd::Pid::from_raw(pids[rand::random_range(0..pids.len())]);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        2 => kill("app.kubernetes.io/component=controller").await,
        5 => kill("app.kubernetes.io/component=nats").await,
        _ => kill("app.kubernetes.io/component=apiserver").await,
    }
}

/// Whether a worker's process carries out a run of this scene: its host's name is its pod's.
fn belongs_to(pid: i32, scene: &Scene) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(format!("HOSTNAME={}", scene.stream()).as_bytes()))
}

#[tokio::test]
async fn chaos_loses_and_doubles_nothing() {
    let kube = Kube::install("controller.replicas=2,apiserver.replicas=2,query.enabled=false").await;
    let scene = Scene::new_in(&kube, "chaos", &narrow(ROWS)).await;
    let target = counting_target("chaos").await;
    scene.proxy.limit(WIRE);
    kube.apply(&[into_existing(&scene, &target, json!({"parallelism": 4, "onCutLost": "continue"}))]).await;
    kube.until("stream", &scene.stream(), "running", |object| object["status"]["phase"] == "RUNNING").await;
    let committed = async || {
        let sql = "SELECT coalesce(sum(row_count), 0)::bigint FROM millrace.split WHERE committed_at IS NOT NULL";
        target.client.query_one(sql, &[]).await.map_or(0, |row| row.get::<_, i64>(0) as u64)
    };
    let (begun, mut turn) = (Instant::now(), 0);
    while committed().await < CHAOS_UNTIL {
        assert!(begun.elapsed() < PATIENCE, "only {} of {ROWS} rows after {turn} blows", committed().await);
        tokio::time::sleep(KILL_EVERY).await;
        blow(&kube, &scene, turn).await;
        turn += 1;
    }
    println!("{turn} blows in {} s", begun.elapsed().as_secs());
    let stream = kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    assert_equal(&scene.source.pool, &scene.source.name, &target.client, "public", "narrow").await.unwrap();
    let number = async |sql: &str| target.client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(number("SELECT sum(rows)::bigint FROM counted").await, ROWS as i64, "a split was applied twice");
    assert_eq!(number("SELECT sum(row_count)::bigint FROM millrace.split").await, ROWS as i64);
    assert_eq!(stream["status"]["counters"]["rowsWritten"], ROWS, "{stream:#}");
    // Undisturbed, the wire would have taken this long.
    let bytes = stream["status"]["counters"]["bytes"].as_u64().unwrap();
    assert!((bytes + ROWS * ROW_HEADER) / WIRE >= UNDISTURBED.as_secs(), "{bytes} bytes");
    // The status says whether all rows are of one moment, as the ledger knows it.
    let is_whole = number("SELECT count(DISTINCT epoch) FROM millrace.split").await == 1;
    assert_eq!(condition(&stream, "ConsistentCut").0, if is_whole { "True" } else { "False" }, "{stream:#}");
    assert!(is_whole || stream["status"]["cutsLost"].as_u64() > Some(0), "{stream:#}");
    kube.kubectl(&["delete", "streamconfig", &scene.name, "--timeout=120s"]).await;
    kube.helm(&["uninstall", "millrace", "--wait", "--timeout=150s"]).await;
    kube.delete_namespace().await;
}
