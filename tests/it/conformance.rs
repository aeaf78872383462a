//! Every implementation keeps its trait's contract.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_bus::{LocalBus, Nats, NatsConfig};
use millrace_cluster::ClusterStore;
use millrace_connectors::connector;
use millrace_core::config::TargetSpec;
use millrace_core::connection::Engine;
use millrace_core::connector::Scope;
use millrace_core::federation::{FederatedQuery, QueryTier, Want};
use millrace_core::store::ConfigStore;
use millrace_core::stream::{Stream, StreamState};
use millrace_core::{Kind, Secret};
use millrace_query::{ChildQueryTier, QueryLimits, RemoteConfig, RemoteQueryTier, RemoteServer};
use millrace_standalone::allow_all::AllowAll;
use millrace_standalone::keys::{KeyTerms, LocalKeys};
use millrace_standalone::orchestrator::LocalOrchestrator;
use millrace_standalone::remote::RemoteEntitlement;
use millrace_standalone::store::Store;
use millrace_tests::database::{MySqlDatabase, PgDatabase, unique};
use millrace_tests::dataset::products;
use millrace_tests::entitlement_service::EntitlementService;
use millrace_tests::process::binary;
use millrace_tests::proxy::FaultProxy;
use millrace_tests::servers::{Server, shared, start_nats};
use millrace_tests::suites;
use millrace_tests::tls::Certificates;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn the_sqlite_store() {
    let dir = tempfile::tempdir().unwrap();
    suites::config_store::conformance(Arc::new(Store::open(dir.path()).await.unwrap())).await;
}

/// Without nodes, controller or NATS: the store is the Kubernetes API server's alone.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_cluster() {
    let Some(server) = crate::crds::server().await else { return };
    let nowhere = NatsConfig { url: "nats://127.0.0.1:1".to_owned(), token: None, namespace: "default".to_owned() };
    let nats = Nats::connect(&nowhere, "tests").await.unwrap();
    let store = ClusterStore::connect(Some(&server.kubeconfig().unwrap()), "default", nats, 4).await.unwrap();
    suites::config_store::conformance(Arc::new(store)).await;
}

/// Two servers of a cluster, of which the second hears everything late.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_of_a_cluster_has_written_a_slow_one_answers_at_once() {
    const LATE: Duration = Duration::from_millis(150);
    let Some(server) = crate::crds::server().await else { return };
    let nats = tokio::task::spawn_blocking(start_nats).await.unwrap().unwrap();
    let proxy = FaultProxy::start("127.0.0.1", server.port()).await.unwrap();
    let store = async |kubeconfig: PathBuf| {
        let config = NatsConfig { url: format!("nats://127.0.0.1:{}", nats.port), token: None, namespace: "default".to_owned() };
        let nats = Nats::connect(&config, "tests").await.unwrap();
        nats.connected(Duration::from_secs(30)).await;
        ClusterStore::connect(Some(&kubeconfig), "default", nats, 4).await.unwrap()
    };
    let writer = store(server.kubeconfig().unwrap()).await;
    let reader = store(server.kubeconfig_through(proxy.port).unwrap()).await;
    let engine = connector(Engine::PostgreSql).unwrap();
    let connection = suites::session::connection(engine, &shared().await.postgres, None);
    let config = suites::config_store::config(&connection, &connection);
    writer.create_connection(&connection).await.unwrap();
    writer.create_config(&config).await.unwrap();
    let states = async || reader.streams(None).await.unwrap().into_iter().map(|stream| stream.state).collect::<Vec<_>>();
    for round in 0..8 {
        // The first rounds are for the watches to begin.
        if round == 4 {
            // Nobody is asked where nothing is new.
            proxy.hold();
            let remembered = tokio::time::timeout(Duration::from_secs(20), states()).await;
            assert!(remembered.expect("the cluster is asked").is_empty());
            proxy.release();
            proxy.delay(LATE);
        }
        let stream = suites::config_store::stream(&config);
        writer.create_stream(&stream).await.unwrap();
        assert_eq!(states().await.len(), 1, "round {round}");
        writer.update_stream(&Stream { state: StreamState::Finished, ..stream.clone() }).await.unwrap();
        assert_eq!(reader.stream(&stream.id).await.unwrap().state, StreamState::Finished, "round {round}");
        writer.delete_stream(&stream.id).await.unwrap();
        let gone = reader.stream(&stream.id).await.map_err(|error| error.kind());
        assert_eq!(gone.err(), Some(Kind::NotFound), "round {round}");
        assert!(states().await.is_empty(), "round {round}");
    }
}

#[tokio::test]
async fn sealed_secrets_are_lost_with_their_key_only_loudly() {
    let servers = shared().await;
    let dir = tempfile::tempdir().unwrap();
    let connection = suites::session::connection(connector(Engine::MySql).unwrap(), &servers.mysql, None);
    let store: Arc<dyn ConfigStore> = Arc::new(Store::open(dir.path()).await.unwrap());
    store.create_connection(&connection).await.unwrap();
    drop(store);
    std::fs::remove_file(dir.path().join("secret.key")).unwrap();
    let error = Store::open(dir.path()).await.err().expect("a missing key is not replaced");
    assert!(error.message().contains("secret.key"), "{error}");
}

#[tokio::test]
async fn the_local_bus() {
    suites::bus::conformance(Arc::new(LocalBus::default())).await;
}

#[tokio::test]
async fn the_local_keys() {
    let dir = tempfile::tempdir().unwrap();
    let keys = LocalKeys::new(Store::open(dir.path()).await.unwrap());
    let key = keys.create(&KeyTerms::default()).await.unwrap().1;
    suites::entitlement::conformance(Arc::new(keys), key).await;
}

#[tokio::test]
async fn the_remote_entitlement() {
    let key = Secret::new("mr_known");
    let service = EntitlementService::start("mr_known").await;
    let provider = RemoteEntitlement::new(&service.url).unwrap();
    suites::entitlement::conformance(Arc::new(provider), key).await;
}

#[tokio::test]
async fn mysql_sessions() {
    let server = &shared().await.mysql;
    let database = MySqlDatabase::create(server, "suite").await.unwrap();
    suites::session::conformance(connector(Engine::MySql).unwrap(), server, &database.name).await;
}

#[tokio::test]
async fn postgres_sessions() {
    let server = &shared().await.postgres;
    let database = PgDatabase::create(server, "suite").await.unwrap();
    suites::session::conformance(connector(Engine::PostgreSql).unwrap(), server, &database.name).await;
}

/// The kernel asks a silent peer whether it is there: `tr` in `/proc/net/tcp` is 2 while the timer for that runs (Linux, Documentation/networking/proc_net_tcp).
#[tokio::test]
async fn a_peer_that_has_gone_without_a_word_is_noticed() {
    let servers = shared().await;
    for (engine, server) in [(Engine::MySql, &servers.mysql), (Engine::PostgreSql, &servers.postgres)] {
        let proxy = FaultProxy::start("127.0.0.1", server.port).await.unwrap();
        let engine_of = connector(engine).unwrap();
        let connection = suites::session::connection(engine_of, &Server::through(server, proxy.port), None);
        let mut session = engine_of.session(&connection, None).await.unwrap();
        session.ping().await.unwrap();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let peer = format!(":{:04X}", proxy.port);
        let timers: Vec<&str> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.len() > 5 && fields[2].ends_with(&peer) && fields[3] == "01")
            .map(|fields| fields[5].split(':').next().unwrap_or_default())
            .collect();
        assert_eq!(timers, ["02"], "{engine:?}");
    }
}

#[tokio::test]
async fn the_mysql_source() {
    let server = &shared().await.mysql;
    let database = MySqlDatabase::create(server, "suite").await.unwrap();
    let rows = suites::source::ROWS;
    let statements = [
        "CREATE TABLE numbered (id INT PRIMARY KEY, v INT NOT NULL)".to_owned(),
        format!("INSERT INTO numbered SELECT seq, seq * 2 FROM seq_1_to_{rows}"),
        "CREATE TABLE nothing (id INT PRIMARY KEY)".to_owned(),
        "ANALYZE TABLE numbered".to_owned(),
    ];
    database.execute(&statements).await.unwrap();
    let engine = connector(Engine::MySql).unwrap();
    let connection = suites::session::connection(engine, server, None);
    let change = async || database.execute(&["INSERT INTO numbered VALUES (1000000, 2000000)".to_owned()]).await.unwrap();
    suites::source::conformance(engine, &connection, &database.name, change).await;
}

#[tokio::test]
async fn the_postgres_sink() {
    let server = &shared().await.postgres;
    let database = PgDatabase::create(server, "suite").await.unwrap();
    let engine = connector(Engine::PostgreSql).unwrap();
    let connection = suites::session::connection(engine, server, None);
    let scope = Scope { database: Some(database.name.clone()), schema: None };
    let count = async || database.client.query_one("SELECT count(*) FROM t", &[]).await.ok().map(|row| row.get::<_, i64>(0) as u64);
    suites::sink::conformance(engine, &connection, &scope, count).await;
}

#[tokio::test]
async fn postgres_forgets_a_deleted_definition_and_keeps_what_is_the_users() {
    let servers = shared().await;
    let database = PgDatabase::create(&servers.postgres, "forgetting").await.unwrap();
    let connection = suites::session::connection(connector(Engine::PostgreSql).unwrap(), &servers.postgres, None);
    let scope = Scope { database: Some(database.name.clone()), schema: None };
    let sql = async |text: &str| {
        let Some(rest) = text.strip_prefix("SELECT") else {
            database.client.batch_execute(text).await.unwrap();
            return None;
        };
        database.client.query_one(&format!("SELECT{rest}"), &[]).await.ok().map(|row| row.get::<_, i64>(0))
    };
    suites::sink::forgetting(connector(Engine::PostgreSql).unwrap(), &connection, &scope, sql).await;
}

#[tokio::test]
async fn the_local_orchestrator() {
    let servers = shared().await;
    let database = MySqlDatabase::create(&servers.mysql, "suite").await.unwrap();
    database.execute(&products(200_000)).await.unwrap();
    let proxy = FaultProxy::start("127.0.0.1", servers.mysql.port).await.unwrap();
    let slow = Server::through(&servers.mysql, proxy.port);
    let source = suites::session::connection(connector(Engine::MySql).unwrap(), &slow, Some(&database.name));
    let target = suites::session::connection(connector(Engine::PostgreSql).unwrap(), &servers.postgres, None);
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn ConfigStore> = Arc::new(Store::open(dir.path()).await.unwrap());
    let mut config = suites::config_store::config(&source, &target);
    if let TargetSpec::Db(db) = &mut config.spec.target.spec {
        db.database = unique("suite");
    }
    store.create_connection(&source).await.unwrap();
    store.create_connection(&target).await.unwrap();
    store.create_config(&config).await.unwrap();
    let orchestrator = LocalOrchestrator::new(store.clone(), Arc::new(LocalBus::default()), Arc::new(AllowAll));
    suites::orchestrator::conformance(Arc::new(orchestrator), store, &config, &proxy).await;
}

#[tokio::test]
async fn the_child_process_query_tier() {
    let tier = ChildQueryTier::new(binary().unwrap(), QueryLimits::default());
    query_tier(Arc::new(tier)).await;
}

/// A query tier of one's own that listens with these certificates; answers its address.
async fn remote_tier(certificates: &Certificates) -> String {
    let config = RemoteConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        token: Secret::new("a-token"),
        certificate_pem: certificates.server.certificate.clone().into_bytes(),
        key_pem: certificates.server.key.clone().into_bytes(),
    };
    let tier = ChildQueryTier::new(binary().unwrap(), QueryLimits::default());
    let server = RemoteServer::bind(config, Arc::new(tier)).await.unwrap();
    let port = server.address().port();
    tokio::spawn(server.serve(CancellationToken::new()));
    format!("https://localhost:{port}")
}

#[tokio::test]
async fn the_remote_query_tier() {
    let certificates = Certificates::new("nobody").unwrap();
    let url = remote_tier(&certificates).await;
    query_tier(Arc::new(RemoteQueryTier::new(&url, Secret::new("a-token"), certificates.ca.as_bytes()).unwrap())).await;
}

#[tokio::test]
async fn the_remote_query_tier_is_neither_asked_nor_believed_without_proof() {
    let certificates = Certificates::new("nobody").unwrap();
    let url = remote_tier(&certificates).await;
    let ask = async |token: &str, authority: &str| {
        let tier = RemoteQueryTier::new(&url, Secret::new(token), authority.as_bytes()).unwrap();
        let query = FederatedQuery { sql: "SELECT 1".to_owned(), sources: Vec::new(), want: Want::All };
        tier.run(query, CancellationToken::new()).await.map_err(|error| error.kind())
    };
    assert!(ask("a-token", &certificates.ca).await.is_ok());
    assert_eq!(ask("a-tokem", &certificates.ca).await, Err(Kind::Internal));
    assert_eq!(ask("a-token", &Certificates::new("nobody").unwrap().ca).await, Err(Kind::ServerExhausted));
    // A peer that connects and says nothing keeps nobody waiting.
    let address = url.strip_prefix("https://").unwrap();
    let _silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(4), ask("a-token", &certificates.ca)).await;
    assert!(asked.expect("a silent peer blocks").is_ok());
}

async fn query_tier(tier: Arc<dyn QueryTier>) {
    let server = &shared().await.postgres;
    let database = PgDatabase::create(server, "suite").await.unwrap();
    database.client.batch_execute("CREATE TABLE numbers AS SELECT n::bigint FROM generate_series(1, 5000) n").await.unwrap();
    let connection = suites::session::connection(connector(Engine::PostgreSql).unwrap(), server, Some(&database.name));
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name LIKE 'millrace_%' AND state <> 'idle'",
        database.name
    );
    let running = async || database.client.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) as u64;
    suites::query_tier::conformance(tier, connection, running).await;
}
