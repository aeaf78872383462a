//! Random tables: whatever MariaDB stores arrives, and the servers themselves say so.

use millrace_tests::database::{MySqlDatabase, PgDatabase};
use millrace_tests::dataset::random;
use millrace_tests::digest::assert_equal;
use millrace_tests::process::run;
use millrace_tests::servers::shared;

/// Random schemas of one run.
const TABLES: usize = 320;

/// Always the same tables, unless others are asked for.
fn seed() -> u64 {
    std::env::var("MILLRACE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_260_101)
}

#[tokio::test]
async fn random_tables_arrive_value_by_value() {
    let servers = shared().await;
    let source = MySqlDatabase::create(&servers.mysql, "random").await.unwrap();
    let tables = random(seed(), TABLES);
    let mut statements = vec!["SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO'".to_owned()];
    statements.extend(tables.iter().flat_map(|table| table.statements.clone()));
    source.execute(&statements).await.unwrap();
    let target = PgDatabase::create(&servers.postgres, "random").await.unwrap();
    let url = |scheme: &str, server: &millrace_tests::servers::Server, database: &str| {
        format!("{scheme}://{}@{}:{}/{database}", server.user, server.host, server.port)
    };
    let (from, to) = (url("mysql", &servers.mysql, &source.name), url("postgres", &servers.postgres, &target.name));
    let env =
        [("MILLRACE_SOURCE_PASSWORD", servers.mysql.password.as_str()), ("MILLRACE_TARGET_PASSWORD", servers.postgres.password.as_str())];
    let (code, out, err) = run(&["copy", &from, &to], &env).await.unwrap();
    let last = out.lines().last().unwrap_or_default();
    assert_eq!(code, 0, "seed {}: {last} {err}", seed());
    let mut rows = 0;
    for table in &tables {
        let digest = assert_equal(&source.pool, &source.name, &target.client, "public", &table.name).await;
        let digest = digest.unwrap_or_else(|error| panic!("seed {}: {error:#}\n{}", seed(), table.statements.join(";\n")));
        rows += digest.rows;
    }
    assert!(rows > TABLES as u64 * 10, "{rows} rows are too few to say anything");
}
