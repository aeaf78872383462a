//! Every trait's implementation in the cluster keeps its contract.

use std::sync::Arc;

use millrace_bus::{Nats, NatsBus, NatsConfig};
use millrace_cluster::{ClusterOrchestrator, ClusterStore};
use millrace_connectors::connector;
use millrace_core::Secret;
use millrace_core::config::TargetSpec;
use millrace_core::connection::Engine;
use millrace_core::store::ConfigStore;
use millrace_tests::database::unique;
use millrace_tests::dataset::products;
use millrace_tests::servers::shared;
use millrace_tests::suites;
use millrace_tests::suites::rest::source;

use crate::kube::Kube;
use crate::release::{place, release};

async fn nats(namespace: &str) -> Nats {
    let (url, token) = release().await.nats().await;
    let config = NatsConfig { url, token: Some(Secret::new(token)), namespace: namespace.to_owned() };
    Nats::connect(&config, "tests").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_cluster() {
    release().await;
    let kube = Kube::new_namespace("suite").await;
    let store = ClusterStore::connect(None, &kube.namespace, nats(&kube.namespace).await, 4).await.unwrap();
    suites::config_store::conformance(Arc::new(store)).await;
    kube.kubectl(&["delete", "namespace", &kube.namespace, "--wait=false"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_of_a_cluster() {
    let kube = Kube::new_namespace("suite").await;
    let keys = millrace_cluster::keys::ClusterKeys::connect(&kube.namespace).await.unwrap();
    let (id, key) = keys.create("suite", None).await.unwrap();
    suites::entitlement::conformance(Arc::new(keys.clone()), key).await;
    keys.revoke(&id).await.unwrap();
    assert_eq!(keys.list().await.unwrap().iter().filter(|entry| entry.revoked_at.is_some()).count(), 1);
    kube.kubectl(&["delete", "namespace", &kube.namespace, "--wait=false"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_of_a_cluster() {
    // Subjects of a namespace of its own: nobody else is heard.
    let bus = NatsBus::new(nats(&unique("bus").replace('_', "-")).await, true);
    suites::bus::conformance(Arc::new(bus)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrator_of_a_cluster() {
    let (_turn, place) = place().await;
    let source = source("suite", &products(200_000)).await;
    let (proxy, slow) = place.proxy(&shared().await.mysql).await;
    let from = suites::session::connection(connector(Engine::MySql).unwrap(), &slow, Some(&source.name));
    let to = suites::session::connection(connector(Engine::PostgreSql).unwrap(), &place.postgres, None);
    let mut config = suites::config_store::config(&from, &to);
    if let TargetSpec::Db(db) = &mut config.spec.target.spec {
        db.database = unique("suite");
    }
    let namespace = &release().await.kube.namespace;
    let store = ClusterStore::connect(None, namespace, nats(namespace).await, 4).await.unwrap();
    store.create_connection(&from).await.unwrap();
    store.create_connection(&to).await.unwrap();
    store.create_config(&config).await.unwrap();
    let orchestrator = ClusterOrchestrator::new(store.clone());
    suites::orchestrator::conformance(Arc::new(orchestrator), Arc::new(store), &config, &proxy).await;
}
