//! Statements of users.

use std::time::Duration;

use millrace_core::Kind;
use millrace_core::connection::{ConnectionSpec, Engine};
use millrace_core::explore::{AffectedObject, Explorer, RunRequest};
use millrace_core::secret::Secret;
use millrace_tests::servers::shared;
use millrace_tests::suites::session::connection;
use serde_json::json;

use super::{Kept, explored, run, statements};

#[tokio::test]
async fn several_statements_run_in_one_session() {
    let (database, mut explorer) = explored("several", &[]).await;
    let sql = "CREATE TABLE t (a INT, b TEXT); INSERT INTO t VALUES (1, 'x;y'), (2, 'it''s \\'; DROP TABLE t; -- ');
        SET @n = 5; UPDATE t SET a = a + @n; SELECT a, b FROM t ORDER BY a /* ; */; # nothing ; here
        DELETE FROM t WHERE a = 6; DROP TABLE t;";
    let (kept, ended) = run(&mut explorer, &statements(sql)).await;
    ended.unwrap();
    assert_eq!(kept.expected, 7);
    let commands: Vec<&str> = kept.ends.iter().map(|end| end.command.as_str()).collect();
    assert_eq!(commands, ["CREATE TABLE", "INSERT", "SET", "UPDATE", "SELECT", "DELETE", "DROP TABLE"]);
    let affected: Vec<Option<u64>> = kept.ends.iter().map(|end| end.rows_affected).collect();
    assert_eq!(affected, [None, Some(2), None, Some(2), None, Some(1), None]);
    assert_eq!(kept.ends[0].affected, Some(AffectedObject::Table));
    assert_eq!(kept.results[4], [json!([6, "x;y"]), json!([7, "it's '; DROP TABLE t; -- "])]);
    assert!(database.texts("SHOW TABLES").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_failure_ends_the_run_and_is_numbered() {
    let (database, mut explorer) = explored("late", &["CREATE TABLE t (a INT PRIMARY KEY)"]).await;
    let sql = "INSERT INTO t VALUES (1); SELECT * FROM t; INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)";
    let (kept, ended) = run(&mut explorer, &statements(sql)).await;
    let error = ended.unwrap_err();
    assert_eq!((error.kind(), error.detail("statement")), (Kind::ConstraintViolated, Some("3")));
    assert_eq!((kept.ends.len(), &kept.results[1]), (2, &vec![json!([1])]));
    assert_eq!(database.texts("SELECT CAST(a AS CHAR) FROM t").await.unwrap(), ["1"]);
    // An error in the middle of rows.
    let late = "SELECT 1; SELECT IF(seq = 50000, (SELECT 1 UNION SELECT 2), seq) FROM seq_1_to_60000";
    let (_, ended) = run(&mut explorer, &RunRequest { max_rows: 100_000, ..statements(late) }).await;
    assert_eq!(ended.unwrap_err().detail("statement"), Some("2"));
    let (kept, ended) = run(&mut explorer, &statements("SELECT 3")).await;
    ended.unwrap();
    assert_eq!(kept.results, [[json!([3])]]);
}

#[tokio::test]
async fn calls_with_several_results_end_where_they_end() {
    let (database, mut explorer) = explored(
        "calls",
        &[
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "CREATE PROCEDURE two() BEGIN SELECT 1 AS a, 'x' AS b; SELECT 2; INSERT INTO t VALUES (1), (2); END",
            "CREATE PROCEDURE much() BEGIN SELECT seq, REPEAT('x', 100) FROM seq_1_to_200000; SELECT seq, REPEAT('y', 100) FROM seq_1_to_100000;
                INSERT INTO t VALUES (3); END",
            "CREATE PROCEDURE fails() BEGIN SELECT 1; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END",
        ],
    )
    .await;
    let (kept, ended) = run(&mut explorer, &statements("CALL two(); SELECT 9")).await;
    ended.unwrap();
    assert_eq!(kept.results, [vec![json!([1, "x"])], vec![json!([9])]]);
    // What is cut off of a procedure's results does not end the procedure.
    let (kept, ended) = run(&mut explorer, &RunRequest { max_rows: 3, ..statements("CALL much(); SELECT 9") }).await;
    ended.unwrap();
    assert_eq!((kept.results[0].len(), kept.ends[0].is_cut, &kept.results[1]), (3, true, &vec![json!([9])]));
    assert_eq!(database.texts("SELECT CAST(a AS CHAR) FROM t ORDER BY a").await.unwrap(), ["1", "2", "3"]);
    let (_, ended) = run(&mut explorer, &statements("CALL fails()")).await;
    assert_eq!(ended.unwrap_err().detail("statement"), Some("1"));
    assert_eq!(run(&mut explorer, &statements("SELECT 9")).await.0.results, [[json!([9])]]);
}

#[tokio::test]
async fn a_cut_result_ends_soon_and_the_session_goes_on() {
    let (_database, mut explorer) = explored("cut", &[]).await;
    let sql = "SELECT seq, REPEAT('x', 50) FROM seq_1_to_20000000; SELECT 1; SELECT SLEEP(0.2)";
    let began = std::time::Instant::now();
    let (kept, ended) = run(&mut explorer, &RunRequest { max_rows: 10, ..statements(sql) }).await;
    ended.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((kept.results[0].len(), kept.ends[0].is_cut), (10, true));
    assert_eq!((&kept.results[1], kept.ends[1].is_cut), (&vec![json!([1])], false));
    assert_eq!(kept.results[2], [json!([0])]);
    // Exactly as many rows as are wanted are not cut.
    let (kept, ended) = run(&mut explorer, &RunRequest { max_rows: 10, ..statements("SELECT seq FROM seq_1_to_10") }).await;
    ended.unwrap();
    assert_eq!((kept.results[0].len(), kept.ends[0].is_cut), (10, false));
}

#[tokio::test]
async fn changes_whose_rows_are_cut_are_still_made() {
    let (database, mut explorer) = explored(
        "returning",
        &["CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(100))", "INSERT INTO t SELECT seq, REPEAT('x', 100) FROM seq_1_to_150000"],
    )
    .await;
    let (kept, ended) = run(&mut explorer, &RunRequest { max_rows: 5, ..statements("DELETE FROM t RETURNING a, b") }).await;
    ended.unwrap();
    assert_eq!((kept.results[0].len(), kept.ends[0].is_cut), (5, true));
    assert_eq!(database.texts("SELECT CAST(COUNT(*) AS CHAR) FROM t").await.unwrap(), ["0"]);
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_a_session_that_is_not_used_again() {
    let (_database, mut explorer) = explored("gone", &[]).await;
    let mut kept = Kept::new();
    kept.most_sends = 0;
    // Rows with numbers from 1024 to 2047 look like answers without an error to who does not know that they are rows.
    let request = RunRequest { max_rows: u64::MAX, ..statements("SELECT seq, REPEAT('x', 50) FROM seq_1_to_1500") };
    assert_eq!(explorer.run(&request, &mut kept).await.unwrap_err().kind(), Kind::Cancelled);
    assert!(!explorer.is_reusable());
    assert!(explorer.reset().await.is_err());
    assert!(!explorer.is_reusable());
}

#[tokio::test]
async fn a_cancelled_statement_ends_and_leaves_the_session() {
    let (_database, mut explorer) = explored("cancel", &[]).await;
    let canceller = explorer.canceller();
    // Nothing runs: nothing is disturbed.
    canceller.cancel().await.unwrap();
    assert_eq!(run(&mut explorer, &statements("SELECT 1")).await.0.results, [[json!([1])]]);
    let mut kept = Kept::new();
    let request = statements("SELECT COUNT(*) FROM seq_1_to_10000000 a, seq_1_to_10000000 b");
    let (ended, ()) = tokio::join!(explorer.run(&request, &mut kept), async {
        // A cancel that comes before the statement does nothing, so it is repeated until it has met.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            canceller.cancel().await.unwrap();
        }
    });
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
    explorer.reset().await.unwrap();
    assert_eq!(run(&mut explorer, &statements("SELECT 2")).await.0.results, [[json!([2])]]);
}

#[tokio::test]
async fn read_only_runs_change_nothing() {
    let (database, mut explorer) = explored(
        "read_only",
        &[
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "CREATE SEQUENCE s",
            "CREATE FUNCTION grows() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (1); RETURN 1; END",
        ],
    )
    .await;
    let file = format!("/tmp/{}", database.name);
    let outfile = format!("SELECT 1 INTO OUTFILE '{file}'");
    let hidden = format!("SELECT 1 /*! INTO OUTFILE '{file}' */ FROM DUAL");
    let for_mariadb = format!("SELECT 1 /*M! INTO DUMPFILE '{file}' */ FROM DUAL");
    let writes = [
        "INSERT INTO t VALUES (1)",
        "SELECT grows()",
        "WITH x AS (SELECT 1) SELECT grows() FROM x",
        "SET SESSION TRANSACTION READ WRITE; INSERT INTO t VALUES (1)",
        "/*!50000 INSERT INTO t VALUES (1) */",
        "SELECT 1; DROP TABLE t",
        "CREATE TABLE u (a INT)",
        "SELECT NEXT VALUE FOR s",
        &outfile,
        &hidden,
        &for_mariadb,
    ];
    for sql in writes {
        let (_, ended) = run(&mut explorer, &RunRequest { is_read_only: true, ..statements(sql) }).await;
        assert!(ended.is_err(), "{sql}");
        assert!(!std::path::Path::new(&file).exists(), "{sql}");
        explorer.reset().await.unwrap();
    }
    // Texts are read as they were checked, whatever the server is set up for.
    let sql = r#"SELECT @@sql_mode, "a\" INTO OUTFILE 'x' -- ""#;
    let (kept, ended) = run(&mut explorer, &RunRequest { is_read_only: true, ..statements(sql) }).await;
    ended.unwrap();
    assert_eq!(kept.results[0], [json!(["", "a\" INTO OUTFILE 'x' -- "])]);
    explorer.reset().await.unwrap();
    let reads = "SELECT 'a /*! b */' FROM t; SHOW TABLES; EXPLAIN SELECT 1; DESCRIBE t; WITH x AS (SELECT 1) SELECT * FROM x; (SELECT 'INTO OUTFILE')";
    let (_, ended) = run(&mut explorer, &RunRequest { is_read_only: true, ..statements(reads) }).await;
    ended.unwrap();
    assert_eq!(database.texts("SHOW TABLES").await.unwrap(), ["s", "t"]);
    assert!(database.texts("SELECT CAST(a AS CHAR) FROM t").await.unwrap().is_empty());
    // The session can write again for the next one.
    explorer.reset().await.unwrap();
    run(&mut explorer, &statements("INSERT INTO t VALUES (7)")).await.1.unwrap();
}

#[tokio::test]
async fn a_reset_takes_back_what_a_user_has_left() {
    let (database, mut explorer) = explored("reset", &["CREATE TABLE t (a INT)"]).await;
    let sql = "SET @mine = 1; SET sql_mode = 'ANSI_QUOTES'; USE mysql; CREATE TEMPORARY TABLE tmp (a INT); BEGIN";
    // USE makes `tmp` one of another database.
    let sql = sql.replace("CREATE TEMPORARY TABLE tmp", &format!("CREATE TEMPORARY TABLE {}.tmp", database.name));
    let (_, ended) = run(&mut explorer, &statements(&format!("{sql}; INSERT INTO {}.t VALUES (1)", database.name))).await;
    ended.unwrap();
    assert!(!explorer.is_reusable());
    explorer.reset().await.unwrap();
    assert!(explorer.is_reusable());
    let (kept, ended) =
        run(&mut explorer, &statements("SELECT @mine, DATABASE(), \"text\", @@time_zone; SELECT * FROM t; SHOW TABLES")).await;
    ended.unwrap();
    assert_eq!(kept.results[0], [json!([null, database.name, "text", "+00:00"])]);
    assert!(kept.results[1].is_empty());
    assert_eq!(kept.results[2], [json!(["t"])]);
}

#[tokio::test]
async fn a_database_that_a_user_has_chosen_is_not_the_next_ones() {
    let (database, _) = explored("chosen", &[]).await;
    let connector = millrace_connectors::connector(Engine::MySql).unwrap();
    let connection = connection(connector, &shared().await.mysql, None);
    let mut explorer = connector.explore(&connection, None).await.unwrap();
    run(&mut explorer, &statements("SELECT 1")).await.1.unwrap();
    explorer.reset().await.unwrap();
    assert!(explorer.is_reusable());
    run(&mut explorer, &statements(&format!("USE {}", database.name))).await.1.unwrap();
    explorer.reset().await.unwrap_err();
    assert!(!explorer.is_reusable(), "a session that had no database is not used again");
}

#[tokio::test]
async fn files_of_this_machine_are_never_sent() {
    let (database, mut explorer) = explored("local_files", &["CREATE TABLE t (a TEXT)"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let sql = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE t", file.path().display());
    let (_, ended) = run(&mut explorer, &statements(&sql)).await;
    assert!(ended.is_err());
    assert!(database.texts("SELECT a FROM t").await.unwrap().is_empty());
    explorer.reset().await.unwrap();
    assert_eq!(run(&mut explorer, &statements("SELECT 1")).await.0.results, [[json!([1])]]);
}

#[tokio::test]
async fn words_of_client_programs_and_placeholders_are_refused_with_words() {
    let (_database, mut explorer) = explored("words", &[]).await;
    for (sql, word) in [("DELIMITER //\nSELECT 1 //", "DELIMITER"), ("SELECT ?", "placeholders")] {
        let (_, ended) = run(&mut explorer, &statements(sql)).await;
        let error = ended.unwrap_err();
        assert!(error.kind() == Kind::StatementRefused && error.message().contains(word), "{error:?}");
    }
    let sql = "CREATE PROCEDURE p() BEGIN DECLARE i INT DEFAULT 0; WHILE i < 2 DO SET i = i + 1; END WHILE; SELECT i; END; CALL p()";
    let (kept, ended) = run(&mut explorer, &statements(sql)).await;
    ended.unwrap();
    assert_eq!(kept.results[1], [json!([2])]);
}

#[tokio::test]
async fn bodies_without_a_block_are_one_statement() {
    let (database, mut explorer) = explored("bodies", &["CREATE TABLE x (a INT)", "CREATE TABLE event (id INT, begin DATETIME)"]).await;
    let sql = "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW IF NEW.a < 0 THEN SET NEW.a = 0; ELSEIF NEW.a > IF(TRUE, 9, 8) THEN SET NEW.a = 9; END IF;
        INSERT INTO x VALUES (-5), (4), (50); SELECT a FROM x ORDER BY a;
        CREATE PROCEDURE p(n INT) WHILE n > 0 DO SET n = n - 1; SET @n = n; END WHILE; CALL p(3); SELECT @n;
        CREATE TABLE event2 (id INT, begin DATETIME); SELECT 1";
    let (kept, ended) = run(&mut explorer, &statements(sql)).await;
    ended.unwrap();
    assert_eq!(kept.expected, 8);
    assert_eq!((&kept.results[2], &kept.results[5]), (&vec![json!([0]), json!([4]), json!([9])], &vec![json!([0])]));
    assert_eq!(database.texts("SHOW TABLES").await.unwrap(), ["event", "event2", "x"]);
}

#[tokio::test]
async fn statements_are_ended_by_their_ports_only_if_they_are_ones_own() {
    let (database, mut own) = explored("ports", &[]).await;
    let user = format!("other_{}", &database.name[database.name.len() - 8..]);
    let account = [format!("CREATE USER {user}@'%' IDENTIFIED BY 'x'"), format!("GRANT SELECT ON {}.* TO {user}@'%'", database.name)];
    database.execute(&account).await.unwrap();
    let connector = millrace_connectors::connector(Engine::MySql).unwrap();
    let connection = connection(connector, &shared().await.mysql, Some(&database.name));
    let mut of_other = connection.clone();
    if let ConnectionSpec::Database(spec) = &mut of_other.spec {
        (spec.username, spec.password) = (user.clone(), Some(Secret::new("x".to_owned())));
    }
    let mut other = connector.explore(&of_other, None).await.unwrap();
    let (own_port, other_port) = (port(&mut own).await, port(&mut other).await);
    assert_eq!(millrace_connectors::mysql::kill_queries_from_ports(&connection, &[other_port]).await.unwrap(), 0);
    assert_eq!(millrace_connectors::mysql::kill_queries_from_ports(&connection, &[own_port, other_port]).await.unwrap(), 1);
    database.execute(&[format!("DROP USER {user}@'%'")]).await.unwrap();
}

/// The port from which a session came.
async fn port(explorer: &mut Box<dyn Explorer>) -> u16 {
    let (kept, _) = run(explorer, &statements("SELECT host FROM information_schema.processlist WHERE id = CONNECTION_ID()")).await;
    kept.results[0][0][0].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn columns_are_known_without_running() {
    let (database, mut explorer) = explored("columns", &["CREATE TABLE t (a BIGINT UNSIGNED NOT NULL, b BIT(3))"]).await;
    let columns = explorer.columns("SELECT a, b, 'x' AS a FROM t").await.unwrap();
    let names: Vec<(&str, &str)> = columns.iter().map(|column| (column.name.as_str(), column.native_type.as_str())).collect();
    assert_eq!((names[0], names[1].0, names[2].0), (("a", "longlong unsigned"), "b", "a"));
    assert_eq!((columns[0].nullable, columns[1].nullable, columns[1].bits), (Some(false), Some(true), Some(3)));
    assert!(explorer.columns("INSERT INTO t VALUES (1, 1)").await.unwrap().is_empty());
    assert!(database.texts("SELECT CAST(a AS CHAR) FROM t").await.unwrap().is_empty());
    assert!(explorer.columns("SELECT 1; SELECT 2").await.is_err());
    assert_eq!(explorer.columns("SELECT * FROM nowhere").await.unwrap_err().kind(), Kind::ObjectMissing);
}
