//! The kit itself: a comparator that cannot fail proves nothing.

use millrace_tests::database::{MySqlDatabase, PgDatabase, mysql_pool, pg_client};
use millrace_tests::digest::assert_equal;
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::shared;

async fn pair(mysql: &str, postgres: &str) -> anyhow::Result<()> {
    let servers = shared().await;
    let source = MySqlDatabase::create(&servers.mysql, "kit").await?;
    let target = PgDatabase::create(&servers.postgres, "kit").await?;
    source.execute(&["CREATE TABLE t (id INT, v VARCHAR(10), f FLOAT)".to_owned(), format!("INSERT INTO t VALUES {mysql}")]).await?;
    target.client.batch_execute(&format!("CREATE TABLE t (id int, v varchar(10), f real); INSERT INTO t VALUES {postgres}")).await?;
    assert_equal(&source.pool, &source.name, &target.client, "public", "t").await.map(|_| ())
}

#[tokio::test]
async fn equal_tables_compare_equal_whatever_their_order() {
    pair("(1, 'a', 0.1), (2, NULL, NULL), (2, NULL, NULL)", "(2, NULL, NULL), (1, 'a', 0.1), (2, NULL, NULL)").await.unwrap();
}

#[tokio::test]
async fn every_kind_of_difference_is_found() {
    for (mysql, postgres) in [
        ("(1, 'a', 1)", "(1, 'b', 1)"),
        ("(1, '', 1)", "(1, NULL, 1)"),
        ("(1, 'a', 1), (1, 'a', 1)", "(1, 'a', 1)"),
        ("(1, 'a', 1), (1, 'a', 1), (2, 'b', 1)", "(1, 'a', 1), (2, 'b', 1), (2, 'b', 1)"),
        ("(1, 'a', 0.1)", "(1, 'a', 0.10000002)"),
        ("(1, 'a ', 1)", "(1, 'a', 1)"),
    ] {
        let error = pair(mysql, postgres).await.expect_err(mysql).to_string();
        assert!(error.contains("differs"), "{error}");
    }
}

#[tokio::test]
async fn the_proxy_cuts_connections() {
    let servers = shared().await;
    let proxy = FaultProxy::start("127.0.0.1", servers.postgres.port).await.unwrap();
    let through = millrace_tests::servers::Server::through(&servers.postgres, proxy.port);
    let client = pg_client(&through, "postgres").await.unwrap();
    client.batch_execute("SELECT 1").await.unwrap();
    proxy.cut();
    assert!(client.batch_execute("SELECT 1").await.is_err());
    assert!(mysql_pool(&servers.mysql, None).await.is_ok());
}
