//! Statements of users, and the session around them.

use std::time::{Duration, Instant};

use millrace_core::Kind;
use millrace_core::explore::{AffectedObject, Explorer, READ_ONLY, RunRequest};
use millrace_core::{Error, Result};
use serde_json::json;

use super::{Kept, explored, object};

async fn run(explorer: &mut dyn Explorer, sql: &str, is_read_only: bool) -> (Kept, Result<()>) {
    run_at_most(explorer, sql, is_read_only, 1_000).await
}

async fn run_at_most(explorer: &mut dyn Explorer, sql: &str, is_read_only: bool, max_rows: u64) -> (Kept, Result<()>) {
    let mut kept = Kept::new();
    let ran = explorer.run(&RunRequest { sql: sql.into(), max_rows, is_read_only }, &mut kept).await;
    (kept, ran)
}

fn refused(outcome: (Kept, Result<()>)) -> Error {
    outcome.1.unwrap_err()
}

#[tokio::test]
async fn statements_answer_one_after_the_other() {
    let (database, mut explorer) = explored("statements", "").await;
    let sql = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'a;b'), (2, $$c;'d$$); -- nothing; here
        SELECT id, note, 1 AS id FROM t ORDER BY 1; UPDATE t SET note = 'x' WHERE id = 1 RETURNING note;
        WITH gone AS (DELETE FROM t WHERE id = 2 RETURNING id) SELECT * FROM gone; SHOW TimeZone; SELECT * INTO other FROM t; SELECT FROM t; TABLE t";
    let (kept, ran) = run(explorer.as_mut(), sql, false).await;
    ran.unwrap();
    let ends: Vec<(&str, Option<u64>, Option<AffectedObject>)> =
        kept.ends.iter().map(|end| (end.command.as_str(), end.rows_affected, end.affected)).collect();
    let table = Some(AffectedObject::Table);
    assert_eq!(
        ends,
        [
            ("CREATE TABLE", None, table),
            ("INSERT", Some(2), None),
            ("SELECT", None, None),
            ("UPDATE", Some(1), None),
            ("SELECT", None, None),
            ("SHOW", None, None),
            ("SELECT", Some(1), table),
            ("SELECT", None, None),
            ("TABLE", None, None),
        ]
    );
    assert_eq!(kept.results[2], [json!([1, "a;b", 1]), json!([2, "c;'d", 1])]);
    assert_eq!(kept.results[3], [json!(["x"])]);
    assert_eq!(kept.results[4], [json!([2])]);
    assert_eq!(kept.results[5], [json!(["UTC"])]);
    assert_eq!(kept.results[8], [json!([1, "x"])]);
    assert_eq!(kept.columns[0][2].name, "id");
    assert_eq!(database.texts("SELECT note FROM t").await.unwrap(), ["x"]);
    assert_eq!(explorer.take_statements().len(), 9);
}

#[tokio::test]
async fn a_late_error_keeps_what_went_before_and_says_where_it_is() {
    let (database, mut explorer) = explored("late", "CREATE TABLE t (id int)").await;
    let sql = "INSERT INTO t VALUES (1);\nSELECT 'ä';\nSELECT zz FROM t; INSERT INTO t VALUES (2)";
    let (kept, ran) = run(explorer.as_mut(), sql, false).await;
    let error = ran.unwrap_err();
    assert_eq!((error.kind(), error.detail("statement"), error.detail("sqlstate")), (Kind::ObjectMissing, Some("3"), Some("42703")));
    assert_eq!(error.detail("position"), Some("46"), "{error:?}");
    assert_eq!(kept.ends.len(), 2);
    assert_eq!(database.texts("SELECT id::text FROM t").await.unwrap(), ["1"]);
    // What fails while it runs, in a query and beside it, and in a transaction of the user's.
    for (sql, state) in [
        ("SELECT 1 / (id - 1) FROM t", "22012"),
        ("UPDATE t SET id = 1 / (id - 1)", "22012"),
        ("BEGIN; INSERT INTO t VALUES (3); SELECT 1 / (id - 1) FROM t; COMMIT", "22012"),
        ("SELECT 'secret'::int", "22P02"),
        ("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$", "P0001"),
        ("CREATE TABLE t ()", "42P07"),
    ] {
        let error = refused(run(explorer.as_mut(), sql, false).await);
        assert_eq!((error.kind(), error.detail("sqlstate")), (Kind::StatementRefused, Some(state)), "{sql} {error:?}");
        assert!(!error.message().contains("secret"), "{error:?}");
        explorer.reset().await.unwrap();
    }
    assert_eq!(database.texts("SELECT id::text FROM t").await.unwrap(), ["1"]);
    for sql in ["", " ; -- nothing", "COPY t TO STDOUT", "COPY t FROM STDIN"] {
        assert_eq!(refused(run(explorer.as_mut(), sql, false).await).kind(), Kind::StatementRefused, "{sql}");
    }
}

#[tokio::test]
async fn long_results_are_cut_and_the_rest_is_never_made() {
    let (_, mut explorer) = explored("cut", "").await;
    let begun = Instant::now();
    let sql = "SELECT n, repeat('x', 100) FROM generate_series(1, 100000000000) n; SELECT 7";
    // A function scan would be stored first; this one streams.
    let sql = sql.replace("FROM generate_series(1, 100000000000) n", "FROM (SELECT generate_series(1, 100000000000) AS n) x");
    let (kept, ran) = run_at_most(explorer.as_mut(), &sql, false, 5_000).await;
    ran.unwrap();
    assert_eq!((kept.results[0].len(), kept.ends[0].is_cut), (5_000, true));
    assert!(kept.sends > 3, "{}", kept.sends);
    assert_eq!((&kept.results[1], kept.ends[1].is_cut), (&vec![json!([7])], false));
    assert!(begun.elapsed() < Duration::from_secs(30));
    for (max_rows, is_cut) in [(2, true), (3, false)] {
        for sql in [
            "VALUES (1), (2), (3)",
            "WITH x AS (SELECT 1) SELECT * FROM x, generate_series(1, 3)",
            "EXPLAIN (COSTS OFF) SELECT 1 UNION SELECT 2",
        ] {
            let (kept, ran) = run_at_most(explorer.as_mut(), sql, true, max_rows).await;
            ran.unwrap();
            assert_eq!(kept.ends[0].is_cut, is_cut || sql.starts_with("EXPLAIN"), "{sql}");
            assert_eq!(kept.results[0].len() as u64, max_rows, "{sql}");
        }
    }
}

#[tokio::test]
async fn a_cancelled_statement_ends_and_an_absent_reader_ends_it_too() {
    let (database, mut explorer) = explored("cancel", "").await;
    let canceller = explorer.canceller();
    let watch = async {
        let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        while database.texts(sql).await.unwrap() == ["0"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        canceller.cancel().await.unwrap();
        std::future::pending::<()>().await;
    };
    let ran = async { refused(run(explorer.as_mut(), "SELECT 1; SELECT pg_sleep(600)", false).await) };
    let error = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! { error = ran => error, () = watch => unreachable!() }
    });
    let error = error.await.unwrap();
    assert_eq!((error.kind(), error.detail("statement")), (Kind::Cancelled, Some("2")), "{error:?}");
    run(explorer.as_mut(), "SELECT 1", false).await.1.unwrap();
    let mut kept = Kept::new();
    kept.most_sends = 1;
    let sql = "SELECT repeat('x', 1000) FROM (SELECT generate_series(1, 100000)) x".into();
    let error = explorer.run(&RunRequest { sql, max_rows: 100_000, is_read_only: false }, &mut kept).await.unwrap_err();
    assert_eq!((error.kind(), kept.sends), (Kind::Cancelled, 2));
}

#[tokio::test]
async fn reading_cannot_write_whatever_is_tried() {
    let sql =
        "CREATE TABLE t (id int); CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (9); RETURN 1; END';
        CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN COMMIT; INSERT INTO t VALUES (9); END'; CREATE SEQUENCE s";
    let (database, mut explorer) = explored("reading", sql).await;
    for sql in [
        "INSERT INTO t VALUES (1)",
        "SELECT f()",
        "CREATE TABLE u ()",
        "CALL p()",
        "COMMIT; INSERT INTO t VALUES (1)",
        "BEGIN READ WRITE; INSERT INTO t VALUES (1); COMMIT",
        "SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1)",
        "SET default_transaction_read_only = off; INSERT INTO t VALUES (1)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO t VALUES (1)",
        "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); END $$",
        "SELECT set_config('transaction_read_only', 'off', false), f()",
        "PREPARE x AS INSERT INTO t VALUES (1); EXECUTE x",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING id) SELECT * FROM x",
        "SELECT nextval('s')",
        "SELECT * FROM t FOR UPDATE",
        "COPY t TO PROGRAM 'cat'",
        "TRUNCATE t",
        "DROP TABLE t",
        "DO $$ BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ''cat > /dev/null'''; END $$",
        "NOTIFY heard",
        "LISTEN heard",
        "LOAD 'plpgsql'",
        "LOCK TABLE t IN ACCESS SHARE MODE",
        "SET work_mem = '1MB'",
        "RESET ALL",
        "CHECKPOINT",
        "PREPARE x AS SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "ANALYZE t",
    ] {
        let error = refused(run(explorer.as_mut(), sql, true).await);
        assert_eq!(error.kind(), Kind::StatementRefused, "{sql} {error:?}");
        explorer.reset().await.unwrap();
        assert!(explorer.is_reusable());
    }
    assert_eq!(database.texts("SELECT id::text FROM t").await.unwrap(), Vec::<String>::new());
    let (kept, ran) = run(explorer.as_mut(), "SELECT count(*) FROM t; SHOW transaction_read_only; EXPLAIN SELECT 1", true).await;
    ran.unwrap();
    assert_eq!(kept.results[..2], [[json!([0])], [json!(["on"])]]);
    let others = "(SELECT 1) UNION (SELECT 2); VALUES (1); TABLE t; WITH x AS (SELECT 1) SELECT * FROM x; explain (analyze) SELECT 1";
    run(explorer.as_mut(), others, true).await.1.unwrap();
    let error = refused(run(explorer.as_mut(), "SELECT 1; NOTIFY heard", true).await);
    assert_eq!((error.detail("reason"), error.detail("statement")), (Some(READ_ONLY), Some("2")));
}

#[tokio::test]
async fn the_server_is_told_to_notice_when_we_are_gone() {
    let (_database, mut explorer) = explored("noticed", "SELECT 1").await;
    let sql = "SHOW tcp_keepalives_idle; SHOW tcp_keepalives_interval; SHOW tcp_keepalives_count; SHOW client_connection_check_interval";
    let (kept, ended) = run(explorer.as_mut(), sql, false).await;
    ended.unwrap();
    assert_eq!(kept.results, [[json!(["15"])], [json!(["5"])], [json!(["4"])], [json!(["10s"])]]);
}

#[tokio::test]
async fn a_reset_session_is_as_it_began() {
    let (database, mut explorer) = explored("reset", "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (m mood)").await;
    assert!(explorer.is_reusable());
    let left =
        "SET TimeZone = 'Asia/Tokyo'; SET search_path = nowhere; CREATE TEMP TABLE x (); PREPARE q AS SELECT 1; SELECT pg_advisory_lock(7);
        BEGIN; INSERT INTO public.t VALUES ('sad')";
    run(explorer.as_mut(), left, false).await.1.unwrap();
    assert!(!explorer.is_reusable());
    explorer.reset().await.unwrap();
    assert!(explorer.is_reusable());
    let asked = "SHOW TimeZone; SHOW search_path; SELECT count(*) FROM pg_class WHERE relname = 'x'; SELECT count(*) FROM pg_locks WHERE locktype = 'advisory';
        SELECT count(*) FROM pg_prepared_statements WHERE from_sql; SELECT m FROM t";
    let (kept, ran) = run(explorer.as_mut(), asked, false).await;
    ran.unwrap();
    let found: Vec<String> = kept.results.iter().map(|rows| serde_json::to_string(rows).unwrap()).collect();
    assert_eq!(found, ["[[\"UTC\"]]", "[[\"\\\"$user\\\", public\"]]", "[[0]]", "[[0]]", "[[0]]", "[]"]);
    // What takes the driver's own statements or the settings leaves a session that works.
    for sql in ["DISCARD ALL", "DEALLOCATE ALL", "RESET ALL"] {
        let (kept, ran) = run(explorer.as_mut(), &format!("{sql}; SELECT NULL::mood, 'epoch'::timestamptz; SHOW TimeZone"), false).await;
        ran.unwrap();
        assert_eq!(kept.results[1..], [[json!([null, "1970-01-01 00:00:00+00"])], [json!(["UTC"])]], "{sql}");
    }
    // A session that the server has ended is noticed and opened again.
    let end = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.texts(end).await.unwrap();
    let error = explorer.count(&object("t"), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ConnectionLost);
    assert!(!explorer.is_reusable());
    explorer.reset().await.unwrap();
    assert_eq!(explorer.count(&object("t"), None).await.unwrap(), 0);
}

#[tokio::test]
async fn columns_are_told_without_running() {
    let (database, mut explorer) = explored("columns", "CREATE TABLE t (id int, v varchar(7))").await;
    let columns = explorer.columns("INSERT INTO t VALUES (1, 'a') RETURNING *, v || 'x' AS \"odd; name\";").await.unwrap();
    let told: Vec<(&str, &str)> = columns.iter().map(|column| (column.name.as_str(), column.native_type.as_str())).collect();
    assert_eq!(told, [("id", "integer"), ("v", "character varying(7)"), ("odd; name", "text")]);
    assert!(explorer.columns("CREATE TABLE u ()").await.unwrap().is_empty());
    assert_eq!(explorer.columns("SELECT 1; SELECT 2").await.unwrap_err().kind(), Kind::StatementRefused);
    assert_eq!(explorer.columns("SELEC 1").await.unwrap_err().detail("position"), Some("1"));
    assert_eq!(database.texts("SELECT count(*)::text FROM t").await.unwrap(), ["0"]);
}
