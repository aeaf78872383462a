//! Requests that are sent again because their answer got lost.

use reqwest::Method;
use serde_json::Value;

use super::{Place, source};
use crate::api::connection;
use crate::dataset::products;

const KEY: &str = "Idempotency-Key";

/// The same request with the same key, to whichever server.
pub async fn creations_and_starts_that_are_sent_again_happen_once(server: &Place) {
    let send =
        async |path: &str, body: Value, key: &str| server.api.call_with(Method::POST, path, Some(body), &[(KEY, key)]).await.unwrap();
    let body = connection("once", "mysql", &server.mysql, "mysql");
    let first = send("/connections", body.clone(), "k1").await;
    let again = send("/connections", body.clone(), "k1").await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.status, 201);
    assert_eq!(server.api.get("/connections").await.unwrap().body["total"], 1);
    let other = send("/connections", connection("twice", "mysql", &server.mysql, "mysql"), "k1").await;
    assert_eq!((other.status, other.body["code"].as_str()), (409, Some("IDEMPOTENCY_CONFLICT")), "{other:?}");
    assert_eq!(other.body["details"]["field"], KEY);

    let source = source("resend", &products(10)).await;
    let (config, _) = server.config(&source).await;
    let start = format!("/stream-configs/{config}/start");
    let started = send(&start, Value::Null, "k1").await;
    assert_eq!(started.status, 200, "keys are per path: {started:?}");
    server.api.wait_for_end(&started.text("id").unwrap(), server.patience).await.unwrap();
    assert_eq!(send(&start, Value::Null, "k1").await.body, started.body);
    let runs = server.api.get(&format!("/stream-configs/{config}/runs")).await.unwrap().body;
    assert_eq!(runs.as_array().unwrap().len(), 1, "{runs}");
    let mut bare = server.api.clone();
    bare.key = None;
    let refused = bare.call_with(Method::POST, &start, Some(Value::Null), &[(KEY, "k1")]).await.unwrap();
    assert_eq!(
        (refused.status, refused.body["code"].as_str()),
        (401, Some("AUTHENTICATION_FAILED")),
        "answers are shown to their callers only"
    );
}
