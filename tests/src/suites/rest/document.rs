//! The OpenAPI document's examples, as somebody who follows the document would send them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, source};
use crate::api::Response;
use crate::database::{PgDatabase, unique};
use crate::dataset::products;
use crate::proxy::FaultProxy;
use crate::schema::Schemas;
use crate::servers::{shared, shared_objects};

/// What the examples call things, and what they are called here.
struct World {
    names: BTreeMap<&'static str, Value>,
    port: u16,
    /// The way to the object store.
    _store: FaultProxy,
}

const CONNECTION: &str = "conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
const TARGET: &str = "conn_2NxQ3Z5bN7x9sR2tV6uK8pC0dE1";
const CONFIG: &str = "config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
const STREAM: &str = "stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
const RUN: &str = "run_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
const FILE: &str = "/home/ada/customers.csv";

/// Operations that want a stream that moves rows: each group has one of its own.
const ACTIVE: &[&[&str]] = &[&["pauseStream", "resumeStream"], &["stopStream"], &["actOnStream"], &["stopCurrentStream"]];
/// Operations that start a config.
const STARTS: &[&str] = &["startStream", "startStreamOldPath", "createAndStart"];
/// Operations that take away what others need, in this order.
const LAST: &[&str] =
    &["deleteRun", "deleteRuns", "deleteStreamConfig", "deleteAllStreamConfigs", "deleteConnection", "deleteAllConnections"];
/// Operations with tests of their own: an endless answer, and the server's end.
const ELSEWHERE: &[&str] = &["streamLogs", "shutdown", "restart"];

/// Names within longer texts.
const PARTS: &[&str] = &["my1.shop.", FILE, "s3://exports/"];
const STORE: &str = "conn_2NxQ3Z6cP8y0tS3uW7vL9qD1eF2";

/// Every operation, called by its own example, answers with success and as its schema says. `folder` is one that the server opens; without one the operations
/// on files are left out.
pub async fn every_example_works_and_its_answer_is_as_described(place: &Place, folder: Option<&Path>) {
    let document = place.api.get("/openapi.json").await.unwrap().body;
    let schemas = Schemas::of(&document);
    let all = operations(&document);
    let mut world = World::make(place, folder).await;
    let named = |id: &str| all.iter().find(|call| call.id == id).unwrap_or_else(|| panic!("there is no operation `{id}`"));
    let mut called = 0;
    for call in all.iter().filter(|call| ![ACTIVE.concat().as_slice(), LAST, ELSEWHERE].concat().contains(&call.id.as_str())) {
        if folder.is_none() && call.is_of_files() {
            continue;
        }
        if STARTS.contains(&call.id.as_str()) {
            world.make_room(place).await;
        }
        let answer = call.send(place, &world, &schemas).await;
        if let Some(stream) = answer.body["id"].as_str().filter(|id| id.starts_with("stream_")) {
            let stats = place.api.wait_for_end(stream, place.patience).await.unwrap();
            assert_eq!(stats["status"], "FINISHED", "{}: {stats}", call.id);
            world.saw(place, stream).await;
        }
        called += 1;
    }
    let moved = source("moved", &products(100_000)).await;
    for group in ACTIVE {
        let (proxy, config, _) = place.config_behind_proxy(&moved).await;
        let started = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap();
        let stream = started.text("id").unwrap();
        proxy.hold_at(1_000_000).await;
        let finished = world.names.insert(STREAM, json!(stream));
        for id in *group {
            named(id).send(place, &world, &schemas).await;
            proxy.release();
            called += 1;
        }
        place.api.wait_for_end(&stream, place.patience).await.unwrap();
        world.names.insert(STREAM, finished.unwrap());
    }
    for id in LAST {
        named(id).send(place, &world, &schemas).await;
        called += 1;
    }
    assert!(folder.is_none() || called == all.len() - ELSEWHERE.len(), "{called} of {} were called", all.len());
}

/// As [`every_example_works_and_its_answer_is_as_described`], where the server opens no folder.
pub async fn every_example_works(place: &Place) {
    every_example_works_and_its_answer_is_as_described(place, None).await;
}

/// A bucket with an object and a connection to it.
async fn objects(place: &Place) -> (FaultProxy, [(&'static str, Value); 7]) {
    let store = shared_objects().await;
    // It listens to this machine alone; servers elsewhere come by another way.
    let (proxy, seen) = place.proxy(&store.server).await;
    let address = format!("{}:{}", seen.host, seen.port);
    let endpoint = format!("http://{address}");
    let spec = json!({"name": "lake", "type": "s3", "spec": {"s3": {"region": "us-east-1", "endpoint": endpoint,
        "credentials": {"accessKey": store.server.user, "secretKey": store.server.password}}}});
    let connection = place.api.post("/connections", spec).await.unwrap().text("id").unwrap();
    let bucket = unique("exports").replace('_', "-");
    let end = Instant::now() + place.patience;
    loop {
        // Its parts are not all up when it begins to listen.
        let made = place.api.post("/files/s3/buckets", json!({"bucket": bucket, "connectionId": connection})).await.unwrap();
        if made.status == 201 {
            break;
        }
        assert!(Instant::now() < end, "{made:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let path = format!("s3://{bucket}/2026/manifest.json");
    let body =
        json!({"manifest": {"files": [format!("s3://{bucket}/2026/customers.csv")]}, "outputPath": path, "connectionId": connection});
    let written = place.api.post("/files/s3/manifests/write", body).await.unwrap();
    assert_eq!(written.status, 200, "{written:?}");
    // The query engine reaches the store, follows the manifest, and finds that what it lists is not there.
    let read = place.api.get(&format!("/files/data?path={path}&connectionId={connection}")).await.unwrap();
    let said = read.body["error"].as_str().unwrap_or_default();
    assert!(read.status == 404 && said.contains(&format!("s3://{bucket}/2026/customers.csv")), "{read:?}");
    let names = [
        ("AKEXPORTS", json!(store.server.user)),
        ("another secret", json!(store.server.password)),
        (STORE, json!(connection)),
        ("exports", json!(bucket)),
        ("s3://exports/", json!(format!("s3://{bucket}/"))),
        ("exports-2026", json!(unique("exports").replace('_', "-"))),
        ("localhost:9000", json!(address)),
    ];
    (proxy, names)
}

/// An operation with its example.
struct Call {
    id: String,
    method: Method,
    path: String,
    description: Value,
}

fn operations(document: &Value) -> Vec<Call> {
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            calls.push(Call {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                path: path.clone(),
                description: operation.clone(),
            });
        }
    }
    calls
}

impl Call {
    /// Whether it wants a file that the server opens.
    fn is_of_files(&self) -> bool {
        self.path.starts_with("/fs") || self.path.starts_with("/files") && !self.path.starts_with("/files/s3")
    }

    /// Sends the example; asserts that it succeeds as described.
    async fn send(&self, place: &Place, world: &World, schemas: &Schemas) -> Response {
        let mut path = self.path.clone();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let mut headers = Vec::new();
        for parameter in self.description["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let example = parameter.get("example").map(|example| world.real(example));
            let text = example.map(|example| example.as_str().map_or_else(|| example.to_string(), str::to_owned));
            match (parameter["in"].as_str().unwrap(), text) {
                ("path", text) => {
                    path = path.replace(&format!("{{{name}}}"), &text.unwrap_or_else(|| panic!("{path}: no example of `{name}`")))
                }
                ("query", Some(text)) => {
                    query.append_pair(name, &text);
                }
                ("header", _) if name == "X-Confirm-Delete" => headers.push((name, "true")),
                (_, None) if parameter["required"] == true => panic!("{}: no example of `{name}`", self.id),
                _ => {}
            }
        }
        let query = query.finish();
        let path = if query.is_empty() { path } else { format!("{path}?{query}") };
        let content = self.description["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
        let answer = match content {
            None => place.api.call_with(self.method.clone(), &path, None, &headers).await,
            Some((media, content)) => {
                let example = world.real(content.get("example").unwrap_or_else(|| panic!("{}: no example of the body", self.id)));
                if media == "text/plain" {
                    headers.push(("Content-Type", "text/plain"));
                    place.api.call_text(self.method.clone(), &path, example.as_str().unwrap(), &headers).await
                } else {
                    place.api.call_with(self.method.clone(), &path, Some(example), &headers).await
                }
            }
        };
        let answer = answer.unwrap();
        let described = &self.description["responses"][answer.status.to_string()];
        assert!((200..300).contains(&answer.status) && described.is_object(), "{} {path}: {answer:?}", self.id);
        for header in described["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            // Nothing is replayed here.
            let is_sent = answer.headers.contains_key(header) || header == "Idempotency-Replayed";
            assert!(is_sent, "{}: `{header}` is described and not sent", self.id);
        }
        if let Some(content) = described["content"].get("application/json") {
            schemas.check(&self.id, &content["schema"], &answer.body);
        } else if let Some((media, _)) = described["content"].as_object().and_then(|content| content.iter().next()) {
            let sent = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
            assert!(sent.starts_with(media.as_str()), "{}: {sent}", self.id);
        }
        answer
    }
}

impl World {
    async fn make(place: &Place, folder: Option<&Path>) -> Self {
        let shop = source(
            "shop",
            &[
                "CREATE TABLE customers (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50), balance DECIMAL(10,2))".into(),
                "INSERT INTO customers (name, balance) VALUES ('Ada', 9.50), ('Bo', 0.25), ('Zoë', 7)".into(),
                "CREATE VIEW customer_names AS SELECT name FROM customers".into(),
            ],
        )
        .await;
        let accounts = PgDatabase::create(&shared().await.postgres, "accounts").await.unwrap();
        accounts
            .client
            .batch_execute("CREATE TABLE accounts (id int PRIMARY KEY, name text); INSERT INTO accounts VALUES (1, 'Ada')")
            .await
            .unwrap();
        let connection = place.api.connect("my", "mysql", &place.mysql, &shop.name).await.unwrap();
        let target = place.api.connect("pg", "postgresql", &place.postgres, &accounts.name).await.unwrap();
        let warehouse = unique("warehouse");
        let config = place.api.convert(&connection, &shop.name, &target, &warehouse).await.unwrap();
        let started = place.api.post(&format!("/stream-configs/{config}/start"), Value::Null).await.unwrap().text("id").unwrap();
        place.api.wait_for_end(&started, place.patience).await.unwrap();
        let mut names = BTreeMap::from([
            (CONNECTION, json!(connection)),
            (TARGET, json!(target)),
            (CONFIG, json!(config)),
            ("shop", json!(shop.name)),
            ("warehouse", json!(warehouse)),
            ("archive", json!(unique("archive"))),
            ("db.example.com", json!(place.mysql.host)),
            ("reader", json!(place.mysql.user)),
            ("secret", json!(place.mysql.password)),
            ("my1.shop.", json!(format!("my1.{}.", shop.name))),
        ]);
        if let Some(folder) = folder {
            let file = folder.join("customers.csv");
            std::fs::write(&file, "id,name,balance\n1,Ada,9.50\n2,Bo,0.25\n3,Zoë,7.00\n").unwrap();
            names.insert(FILE, json!(file));
            names.insert("/home/ada", json!(folder));
        }
        let (store, of_store) = objects(place).await;
        names.extend(of_store);
        let mut world = Self { names, port: place.mysql.port, _store: store };
        world.saw(place, &started).await;
        world
    }

    /// The config may write over what it has written, and new ones write elsewhere.
    async fn make_room(&mut self, place: &Place) {
        let config = self.names[CONFIG].as_str().unwrap().to_owned();
        place.change(&config, json!({"target": {"spec": {"db": {"schemaPolicy": "drop_and_recreate"}}}})).await;
        self.names.insert("warehouse", json!(unique("warehouse")));
    }

    /// A stream that has ended becomes the one that the examples mean.
    async fn saw(&mut self, place: &Place, stream: &str) {
        let config = self.names[CONFIG].as_str().unwrap().to_owned();
        let history = place.api.get(&format!("/stream-configs/{config}/history")).await.unwrap().body;
        let run = history.as_array().unwrap().iter().find(|run| run["streamId"] == stream || run["streamID"] == stream);
        // A stream of another config leaves everything as it is.
        if let Some(run) = run {
            self.names.insert(STREAM, json!(stream));
            self.names.insert(RUN, run["id"].clone());
        }
    }

    /// An example in this world.
    fn real(&self, example: &Value) -> Value {
        match example {
            Value::String(text) => match self.names.get(text.as_str()) {
                Some(value) => value.clone(),
                // Within statements.
                None => json!(PARTS.iter().fold(text.clone(), |text, name| match self.names.get(name) {
                    Some(Value::String(real)) => text.replace(name, real),
                    _ => text,
                })),
            },
            Value::Array(items) => items.iter().map(|item| self.real(item)).collect(),
            Value::Object(fields) => {
                let port = |name: &str, value: &Value| if name == "port" { json!(self.port) } else { self.real(value) };
                fields.iter().map(|(name, value)| (name.clone(), port(name, value))).collect()
            }
            other => other.clone(),
        }
    }
}
