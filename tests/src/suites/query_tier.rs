//! The contract of `QueryTier`: only what is named, nothing left running, one crash one query.

use std::sync::Arc;
use std::time::Duration;

use millrace_core::Kind;
use millrace_core::connection::Connection;
use millrace_core::federation::{AliasedSource, FederatedQuery, QueryTier, Want};
use tokio_util::sync::CancellationToken;

/// Runs the suite. `source` is attached as `pg1` and must hold `public.numbers` with many rows; `running` answers how many statements on it are
/// under way at its server.
pub async fn conformance<F: Future<Output = u64>>(tier: Arc<dyn QueryTier>, source: Connection, running: impl Fn() -> F) {
    let query = |sql: &str| FederatedQuery {
        sql: sql.to_owned(),
        sources: vec![AliasedSource { alias: "pg1".into(), connection: source.clone(), database: None }],
        want: Want::All,
    };
    let token = CancellationToken::new();
    let one = tier.run(query("SELECT count(*) > 0 AS found FROM pg1.public.numbers"), token.clone()).await.expect("rows");
    assert_eq!((one.columns, one.rows), (vec!["found".to_owned()], vec![vec![serde_json::Value::Bool(true)]]));
    for (sql, kind) in [
        ("DROP TABLE pg1.public.numbers", Kind::StatementRefused),
        ("SELECT * FROM postgres_query('pg1', 'SELECT 1')", Kind::StatementRefused),
        ("SELECT * FROM pg1.public.nowhere", Kind::ObjectMissing),
        ("SELECT * FROM pg1.public.numbers a, pg1.public.numbers b", Kind::ServerExhausted),
    ] {
        assert_eq!(tier.run(query(sql), token.clone()).await.expect_err(sql).kind(), kind, "{sql}");
    }
    for (wanted, rows, is_cut) in [(2, 2, true), (3, 3, false), (9, 3, false)] {
        let first = FederatedQuery { want: Want::First(wanted), ..query("SELECT * FROM (VALUES (3), (1), (2)) t(n)") };
        let first = tier.run(first, token.clone()).await.expect("rows");
        assert_eq!((first.rows.len(), first.is_cut), (rows, is_cut), "{wanted}");
    }
    let plan = FederatedQuery { want: Want::Plan, ..query("SELECT count(*) FROM pg1.public.numbers") };
    let plan = tier.run(plan, token.clone()).await.expect("a plan");
    assert!(plan.rows[0][0].to_string().to_uppercase().contains("AGGREGATE"), "{plan:?}");
    // Long at the engine and at the server; cancelled, it leaves nothing running at either.
    let long = "SELECT sum(a.n * b.n * c.n) FROM pg1.public.numbers a, pg1.public.numbers b, pg1.public.numbers c";
    let cancelled = token.child_token();
    let waiting = tier.run(query(long), cancelled.clone());
    let canceller = async {
        tokio::time::sleep(Duration::from_millis(700)).await; // long enough to be under way; shorter would only cancel earlier
        cancelled.cancel();
    };
    let (result, ()) = tokio::join!(waiting, canceller);
    assert_eq!(result.expect_err("cancelled").kind(), Kind::Cancelled);
    // A dropped future is a client that went away.
    let _ = tokio::time::timeout(Duration::from_millis(500), tier.run(query(long), token.clone())).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while running().await > 0 {
        assert!(std::time::Instant::now() < deadline, "a cancelled statement still runs at its server");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tier.run(query("SELECT 1"), token).await.expect("the tier goes on");
}
