//! Copies from MariaDB to PostgreSQL: every value, every constraint, the memory.

use millrace_tests::database::PgDatabase;
use millrace_tests::dataset::{odd, products, shop};
use millrace_tests::digest::{assert_equal, table_names};
use millrace_tests::process::run;
use millrace_tests::servers::{Server, shared};

use crate::support::source;

fn url(scheme: &str, server: &Server, database: &str) -> String {
    format!("{scheme}://{}@{}:{}/{database}", server.user, server.host, server.port)
}

/// Runs `millrace copy`; answers its exit code and what it printed.
async fn copy(from: &str, to: &str, more: &[&str]) -> (i32, String) {
    let servers = shared().await;
    let (from, to) = (url("mysql", &servers.mysql, from), url("postgres", &servers.postgres, to));
    let mut args = vec!["copy", from.as_str(), to.as_str()];
    args.extend(more);
    let env =
        [("MILLRACE_SOURCE_PASSWORD", servers.mysql.password.as_str()), ("MILLRACE_TARGET_PASSWORD", servers.postgres.password.as_str())];
    let (code, out, err) = run(&args, &env).await.unwrap();
    (code, out + &err)
}

async fn assert_copied(name: &str, statements: &[String]) -> PgDatabase {
    let servers = shared().await;
    let source = source(name, statements).await;
    let target = millrace_tests::database::unique(name);
    let (code, output) = copy(&source.name, &target, &[]).await;
    assert_eq!(code, 0, "{output}");
    let target = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    for table in table_names(&source.pool, &source.name).await.unwrap() {
        assert_equal(&source.pool, &source.name, &target.client, "public", &table).await.unwrap();
    }
    target
}

#[tokio::test]
async fn the_odd_database_arrives_with_equal_digests_constraints_and_sequences() {
    let target = assert_copied("odd", &odd()).await;
    let keys = target
        .texts("SELECT conname::text FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(keys, ["fk_chicken", "fk_composite", "fk_egg", "fk_tree"]);
    let primary = target
        .texts("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'p' AND conrelid = 'composite'::regclass")
        .await
        .unwrap();
    assert_eq!(primary, ["PRIMARY KEY (a, b)"]);
    // `by_v` stands in three tables; PostgreSQL has one name space for all.
    let indexes = target
        .texts("SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public' AND indexname LIKE '%by_v' ORDER BY 1")
        .await
        .unwrap();
    assert_eq!(indexes, ["by_v", "composite_by_v", "indexed_by_v"]);
    let prefix = target.texts("SELECT indexdef FROM pg_indexes WHERE indexname = 'indexed_by_v'").await.unwrap();
    assert!(prefix[0].contains("UNIQUE") && prefix[0].contains("\"left\"((name)::text, 10)"), "{prefix:?}");
    for (sql, next) in [
        ("INSERT INTO auto_far (t) VALUES ('c') RETURNING id::text", "5000000002"),
        ("INSERT INTO auto_small (t) VALUES ('c') RETURNING id::text", "8"),
        ("INSERT INTO empty_table (x) VALUES (DEFAULT) RETURNING id::text || '/' || x::text", "1/7"),
        ("INSERT INTO texts (id) VALUES (99) RETURNING concat_ws('/', e, s, j, b1, b13)", "it's/{one,two}/{\"a\": 1}/t/0000000000101"),
    ] {
        assert_eq!(target.texts(sql).await.unwrap(), [next], "{sql}");
    }
    let comment = target.texts("SELECT obj_description('indexed'::regclass)").await.unwrap();
    assert_eq!(comment, ["it's a \"comment\""]);
    for refused in [
        "INSERT INTO egg VALUES (9, 99)",
        "INSERT INTO indexed (id, name) VALUES (-1, 'x')",
        "INSERT INTO texts (id, e) VALUES (98, 'not a label')",
        "INSERT INTO composite VALUES (1, 'k1', 5)",
    ] {
        assert!(target.client.batch_execute(refused).await.is_err(), "{refused}");
    }
    let time_types = target
        .texts("SELECT data_type::text FROM information_schema.columns WHERE table_name = 'moments' AND column_name IN ('clock', 'span') ORDER BY column_name")
        .await
        .unwrap();
    assert_eq!(time_types, ["time without time zone", "interval"]);
}

#[tokio::test]
async fn a_shop_arrives_whole() {
    let target = assert_copied("shop", &shop(0.05)).await;
    let keys = target
        .texts("SELECT count(*)::text FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace")
        .await
        .unwrap();
    assert_eq!(keys, ["10"]);
}

#[tokio::test]
async fn splits_cover_tables_of_every_kind_of_key() {
    let statements: Vec<String> = [
        "CREATE TABLE gaps (id BIGINT PRIMARY KEY, v INT)",
        "INSERT INTO gaps SELECT IF(seq <= 40000, seq, seq * 1000000007), seq FROM seq_1_to_60000",
        "CREATE TABLE huge (id BIGINT UNSIGNED PRIMARY KEY, v INT)",
        "INSERT INTO huge SELECT 18446744073709551615 - seq, seq FROM seq_0_to_49999",
        "CREATE TABLE negative (id BIGINT PRIMARY KEY, v INT)",
        "INSERT INTO negative SELECT -9223372036854775808 + CAST(seq AS SIGNED) * 99999999999999, seq FROM seq_0_to_49999",
        "CREATE TABLE named (name VARCHAR(30) COLLATE utf8mb4_unicode_ci PRIMARY KEY, v INT)",
        "INSERT INTO named SELECT CONCAT(ELT(1 + seq % 4, 'ä', 'A', 'z', '日'), seq), seq FROM seq_1_to_50000",
        "CREATE TABLE raw (id BINARY(8) PRIMARY KEY, v INT)",
        "INSERT INTO raw SELECT UNHEX(LEFT(MD5(seq), 16)), seq FROM seq_1_to_50000",
        "CREATE TABLE dated (at DATETIME(6) PRIMARY KEY, v INT)",
        "INSERT INTO dated SELECT '2000-01-01' + INTERVAL seq * 1001 MICROSECOND, seq FROM seq_1_to_50000",
        "CREATE TABLE skewed (a INT, b INT, PRIMARY KEY (a, b))",
        "INSERT INTO skewed SELECT IF(seq % 10 = 0, seq, 5), seq FROM seq_1_to_50000",
        "ANALYZE TABLE gaps, huge, negative, named, raw, dated, skewed",
    ]
    .map(str::to_owned)
    .into();
    let target = assert_copied("keys", &statements).await;
    let splits = target
        .texts("SELECT table_name || ' ' || (count(*) > 1) FROM millrace.split GROUP BY table_name ORDER BY table_name COLLATE \"C\"")
        .await
        .unwrap();
    assert_eq!(splits, ["dated true", "gaps true", "huge true", "named true", "negative true", "raw true", "skewed true"]);
}

#[tokio::test]
async fn zero_dates_become_null_and_are_counted_or_fail_their_table_by_name() {
    let servers = shared().await;
    let statements: Vec<String> = [
        "SET sql_mode = ''",
        "CREATE TABLE lax (id INT PRIMARY KEY, d DATE)",
        "INSERT INTO lax VALUES (1, '0000-00-00'), (2, '2021-00-00'), (3, '2021-01-01')",
        "CREATE TABLE strict (id INT PRIMARY KEY, d DATETIME NOT NULL)",
        "INSERT INTO strict VALUES (7, '0000-00-00 00:00:00')",
        "CREATE TABLE fine (id INT PRIMARY KEY)",
        "INSERT INTO fine VALUES (1)",
    ]
    .map(str::to_owned)
    .into();
    let source = source("zero", &statements).await;
    let target = millrace_tests::database::unique("zero");
    let (code, output) = copy(&source.name, &target, &[]).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("lax.d: 2 values"), "{output}");
    assert!(output.contains("column `d`") && output.contains("strict`") && output.contains("id=7"), "{output}");
    let target = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_eq!(target.texts("SELECT count(*)::text FROM fine").await.unwrap(), ["1"]);
    assert_eq!(target.texts("SELECT count(*)::text FROM strict").await.unwrap(), ["0"]);
}

#[tokio::test]
async fn a_refused_value_early_in_a_large_table_fails_it_alone_and_names_its_place() {
    let servers = shared().await;
    let statements: Vec<String> = [
        "CREATE TABLE a_large (v VARCHAR(200), n INT)",
        "INSERT INTO a_large VALUES ('a\\0b', 0)",
        "INSERT INTO a_large SELECT REPEAT('x', 150), seq FROM seq_1_to_150000",
        "CREATE TABLE fine (id INT PRIMARY KEY, v INT)",
        "INSERT INTO fine SELECT seq, seq FROM seq_1_to_30000",
        "ANALYZE TABLE a_large, fine",
    ]
    .map(str::to_owned)
    .into();
    let source = source("nul", &statements).await;
    let target = millrace_tests::database::unique("nul");
    let (code, output) = copy(&source.name, &target, &["--parallelism", "1"]).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("column `v`") && output.contains("a_large") && output.contains("NUL character"), "{output}");
    let target = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_equal(&source.pool, &source.name, &target.client, "public", "fine").await.unwrap();
    assert_eq!(target.texts("SELECT count(*)::text FROM a_large").await.unwrap(), ["0"]);
}

#[tokio::test]
async fn a_table_that_fails_while_another_lane_still_writes_it_fails_alone() {
    let servers = shared().await;
    let statements: Vec<String> = [
        "CREATE TABLE large (id INT PRIMARY KEY, v VARCHAR(200))",
        "INSERT INTO large SELECT seq, IF(seq = 2, 'a\\0b', REPEAT('x', 150)) FROM seq_1_to_120000",
        "CREATE TABLE fine (id INT PRIMARY KEY, v INT)",
        "INSERT INTO fine SELECT seq, seq FROM seq_1_to_30000",
        "ANALYZE TABLE large, fine",
    ]
    .map(str::to_owned)
    .into();
    let source = source("lanes", &statements).await;
    let target = millrace_tests::database::unique("lanes");
    let (code, output) = copy(&source.name, &target, &["--parallelism", "2"]).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("column `v`") && output.contains("id=2") && !output.contains("INTERNAL"), "{output}");
    let target = PgDatabase::open(&servers.postgres, &target).await.unwrap();
    assert_equal(&source.pool, &source.name, &target.client, "public", "fine").await.unwrap();
}

#[tokio::test]
async fn what_cannot_arrive_is_refused_by_name_before_anything_is_made() {
    let servers = shared().await;
    let statements: Vec<String> = [
        "CREATE TABLE versioned (id INT PRIMARY KEY) WITH SYSTEM VERSIONING",
        "CREATE TABLE checked (a INT, CONSTRAINT odd_check CHECK (a / 2 > 1))",
    ]
    .map(str::to_owned)
    .into();
    let source = source("refused", &statements).await;
    let target = PgDatabase::create(&servers.postgres, "refused").await.unwrap();
    let (code, output) = copy(&source.name, &target.name, &[]).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("versioned`: it is system-versioned") && output.contains("odd_check"), "{output}");
    assert_eq!(
        target.texts("SELECT count(*)::text FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')").await.unwrap(),
        ["0"]
    );
}

#[tokio::test]
async fn a_target_table_that_exists_is_left_alone() {
    let servers = shared().await;
    let source = source("exists", &products(10)).await;
    let target = PgDatabase::create(&servers.postgres, "exists").await.unwrap();
    target.client.batch_execute("CREATE TABLE products (mine int); INSERT INTO products VALUES (1)").await.unwrap();
    let (code, output) = copy(&source.name, &target.name, &[]).await;
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("`products` exists already"), "{output}");
    assert_eq!(target.texts("SELECT mine::text FROM products").await.unwrap(), ["1"]);
}

#[tokio::test]
async fn wrong_logins_hosts_and_tables_are_named() {
    let servers = shared().await;
    let source = source("wrong", &products(10)).await;
    let (code, output) = copy(&source.name, "wrong_target", &["--table", "nowhere"]).await;
    assert_eq!(code, 1);
    assert!(output.contains("nowhere` does not exist") && output.contains("ObjectMissing"), "{output}");
    let from = url("mysql", &servers.mysql, &source.name);
    let to = url("postgres", &servers.postgres, "wrong_target");
    let env = [("MILLRACE_SOURCE_PASSWORD", "not-the-password"), ("MILLRACE_TARGET_PASSWORD", servers.postgres.password.as_str())];
    let (code, out, err) = run(&["copy", &from, &to], &env).await.unwrap();
    assert_eq!(code, 1);
    assert!(out.contains("LoginRefused") && !(out + &err).contains("not-the-password"));
    let (code, out, _) = run(&["copy", "mysql://u@host.invalid/d", &to], &env).await.unwrap();
    assert_eq!(code, 1);
    assert!(out.contains("Unreachable") && out.contains("host.invalid"), "{out}");
}
