//! Object stores over the REST API: every route with what it answers, what it refuses and whom it asks for a key; on a store that checks signatures.

mod edits;
mod listing;
mod manifests;
mod rows;
mod sessions;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use millrace_connectors::s3::{Condition, ObjectPath, Store, access};
use millrace_core::Secret;
use millrace_core::connection::{S3Credentials, S3Spec};
use millrace_core::objects::SettingNames;
use millrace_tests::api::Response;
use millrace_tests::database::unique;
use millrace_tests::servers::{ObjectStore, shared_objects};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Server;

/// A server, a bucket of its own, and a connection to the store where it lies.
struct Place {
    server: Server,
    objects: &'static ObjectStore,
    store: Store,
    bucket: String,
    connection: String,
}

/// The store of the tests as its owner sees it.
async fn owner(objects: &ObjectStore) -> Store {
    let spec = S3Spec {
        region: "us-east-1".into(),
        endpoint: Some(format!("http://127.0.0.1:{}", objects.server.port)),
        credentials: Some(S3Credentials {
            access_key: Some(objects.server.user.clone()),
            secret_key: Some(Secret::new(objects.server.password.clone())),
            ..S3Credentials::default()
        }),
        ..S3Spec::default()
    };
    Store::new(&access(&spec, SettingNames::Connection).unwrap())
}

impl Place {
    async fn start() -> Self {
        Self::start_auth("open").await
    }

    async fn start_auth(auth: &str) -> Self {
        let (server, objects) = (Server::start_auth(auth).await, shared_objects().await);
        let store = owner(objects).await;
        let bucket = unique("objects").replace('_', "-");
        // Its parts are not all up when it begins to listen.
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(error) = store.create_bucket(&bucket, None).await {
            assert!(Instant::now() < end, "{}", error.chain());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut place = Self { server, objects, store, bucket, connection: String::new() };
        let made = place.call(Method::POST, "/connections", place.spec()).await;
        assert_eq!(made.status, 201, "{made:?}");
        place.connection = made.text("id").unwrap();
        place
    }

    /// A good connection's request.
    fn spec(&self) -> Value {
        json!({"name": "lake", "type": "s3", "spec": {"s3": {"region": "us-east-1", "endpoint": format!("http://127.0.0.1:{}", self.objects.server.port),
            "credentials": {"accessKey": self.objects.server.user, "secretKey": self.objects.server.password}}}})
    }

    /// A good session's request.
    fn session(&self) -> Value {
        json!({"credentialSource": "static", "endpoint": format!("127.0.0.1:{}", self.objects.server.port), "region": "us-east-1", "urlStyle": "path",
            "useSSL": false, "credentials": {"accessKeyId": self.objects.server.user, "secretAccessKey": self.objects.server.password}})
    }

    /// A call; no answer holds a secret.
    async fn call(&self, method: Method, path: &str, body: Value) -> Response {
        self.call_with(method, path, body, &[]).await
    }

    async fn call_with(&self, method: Method, path: &str, body: Value, headers: &[(&str, &str)]) -> Response {
        let sent = (!body.is_null()).then_some(body);
        let answer = self.server.api.call_with(method, path, sent, headers).await.unwrap();
        for secret in [&self.objects.server.password, &self.objects.reader_secret] {
            assert!(!answer.body.to_string().contains(secret.as_str()), "{path} answers with a secret");
        }
        answer
    }

    /// A GET with query parameters, and the connection's id unless they say another one.
    async fn get(&self, path: &str, params: &[(&str, &str)]) -> Response {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(params);
        if params.iter().all(|(name, _)| *name != "connectionId") {
            query.append_pair("connectionId", &self.connection);
        }
        self.call(Method::GET, &format!("{path}?{}", query.finish()), Value::Null).await
    }

    /// A POST with the connection's id.
    async fn post(&self, path: &str, mut body: Value) -> Response {
        body["connectionId"] = json!(self.connection);
        self.call(Method::POST, path, body).await
    }

    fn at(&self, key: &str) -> ObjectPath {
        ObjectPath::new(&self.bucket, key).unwrap()
    }

    fn path(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Puts an object there; answers its etag.
    async fn put(&self, key: &str, content: impl AsRef<[u8]>) -> String {
        self.store.put(&self.at(key), content.as_ref().to_vec(), "text/plain", Condition::Always).await.unwrap()
    }

    async fn put_all(&self, keys: Vec<String>) {
        let puts = keys.iter().map(|key| async move { self.put(key, "a\n1\n").await });
        futures::stream::iter(puts).buffer_unordered(16).collect::<Vec<_>>().await;
    }

    async fn content(&self, key: &str) -> String {
        String::from_utf8(self.store.bytes(&self.at(key), 1 << 30).await.unwrap().0).unwrap()
    }
}

/// Status, code and field of a refusal.
fn told(answer: &Response) -> (u16, &str, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default(), answer.body["details"]["field"].as_str().unwrap_or_default())
}
