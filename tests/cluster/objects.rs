//! Bad objects: what the cluster or the controller says of them is what the REST API says of the same.

use millrace_tests::api::Api;
use millrace_tests::dataset::products;
use millrace_tests::process::Process;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::kube::{Scene, condition, kube};

fn cases() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/tests/refused.yaml");
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A good object with the values at some pointers set, or taken away.
fn changed(good: &Value, set: &Value, name: &str) -> Value {
    let mut object = good.clone();
    for (path, value) in set.as_object().unwrap() {
        let (parent, member) = path.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(member);
        } else {
            parent.insert(member.to_owned(), value.clone());
        }
    }
    object["metadata"]["name"] = json!(name);
    object
}

/// The REST API, asked for the same as an object asks for.
struct Rest {
    api: Api,
    /// A stored connection and its id, by the letters under which the table's definitions name theirs.
    ids: Map<String, Value>,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl Rest {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (process, base) = Process::serve(dir.path(), &["--entitlement", "allow-all"]).await.unwrap();
        let api = Api::new(&base);
        let mut ids = Map::new();
        for name in ["a", "b", "other"] {
            let body = json!({"name": name, "type": "mysql", "spec": {"database": {"host": "db", "username": "u", "password": "p"}}});
            let made = api.post("/connections", body).await.unwrap();
            assert_eq!(made.status, 201, "{}", made.body);
            ids.insert(name.to_owned(), made.body["id"].clone());
        }
        Self { api, ids, _process: process, _dir: dir }
    }

    fn id(&self, name: &Value) -> Value {
        self.ids.get(name.as_str().unwrap_or_default()).cloned().unwrap_or_else(|| name.clone())
    }

    /// An object's spec as the REST API takes it.
    fn body(&self, object: &Value) -> Value {
        let mut spec = object["spec"].clone();
        if object["kind"] == "Connection" {
            return self.connection(spec);
        }
        for source in spec["source"]["connections"].as_array_mut().unwrap() {
            source["connectionId"] = self.id(&source["connection"]);
            source.as_object_mut().unwrap().remove("connection");
        }
        spec["target"]["id"] = self.id(&spec["target"]["connection"]);
        spec["target"].as_object_mut().unwrap().remove("connection");
        spec
    }

    fn connection(&self, mut spec: Value) -> Value {
        let fields = spec.as_object_mut().unwrap();
        let (kind, ssl) = (fields.remove("type"), fields.remove("ssl"));
        let has_secret = fields.remove("secretRef").is_some();
        if has_secret && let Some(database) = fields.get_mut("database") {
            database["password"] = json!("p");
        }
        let mut body = json!({"name": "bad", "type": kind, "spec": fields});
        if let Some(ssl) = ssl {
            let key = ssl.get("clientKeyRef").map(|_| "key");
            body["ssl"] = json!({"mode": ssl["mode"], "ca": ssl["ca"], "client_cert": ssl["clientCert"], "client_key": key});
        }
        body
    }

    async fn create(&self, object: &Value) -> (u16, String, String) {
        let path = if object["kind"] == "Connection" { "/connections" } else { "/stream-configs" };
        said(&self.api.post(path, self.body(object)).await.unwrap())
    }

    /// What it says of a good config that is changed into a bad one.
    async fn change(&self, good: &Value, bad: &Value) -> (u16, String, String) {
        let made = self.api.post("/stream-configs", self.body(good)).await.unwrap();
        assert_eq!(made.status, 201, "{}", made.body);
        let path = format!("/stream-configs/{}", made.body["id"].as_str().unwrap());
        said(&self.api.call(Method::PUT, &path, Some(self.body(bad))).await.unwrap())
    }
}

/// Status, sentence and field of an answer.
fn said(answer: &millrace_tests::api::Response) -> (u16, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (answer.status, text(&answer.body["error"]), text(&answer.body["details"]["field"]))
}

/// A field of a resource in the words of REST: there is no `spec` around a config, connections are ids, and TLS stands beside the form.
fn in_rest(kind: &str, field: &str) -> String {
    let bare = field.strip_prefix("spec.").unwrap_or(field);
    if kind != "Connection" {
        return bare.replace("target.connection", "target.id");
    }
    match bare {
        "ssl.clientKeyRef" => "ssl.client_key".to_owned(),
        "ssl.clientCert" => "ssl.client_cert".to_owned(),
        bare if bare == "type" || bare.starts_with("ssl") => bare.to_owned(),
        _ => field.to_owned(),
    }
}

/// Rules about a whole list cannot name the element; REST does.
fn is_same_field(of_rest: &str, of_resource: &str) -> bool {
    of_rest == of_resource || of_rest.starts_with(&format!("{of_resource}["))
}

#[tokio::test]
async fn the_cluster_refuses_bad_objects_as_rest_does() {
    let kube = kube().await;
    let (rest, cases) = (Rest::start().await, cases());
    let (mut wrong, mut count, mut compared) = (Vec::new(), 0, 0);
    for (list, is_update) in [("creates", false), ("updates", true)] {
        for case in cases[list].as_array().unwrap() {
            let kind = case["kind"].as_str().unwrap();
            let good = changed(&cases["good"][kind], &json!({}), "refused");
            let bad = changed(&cases["good"][kind], &case["set"], "refused");
            let (is_taken, text) = if is_update {
                // Hands off, so that nothing but the object itself is looked at.
                let mut good = good.clone();
                good["metadata"]["annotations"] = json!({"millrace.dev/pause-reconciliation": "true"});
                kube.apply(&[good]).await;
                kube.try_apply(std::slice::from_ref(&bad)).await
            } else {
                kube.try_create(&bad).await
            };
            count += 1;
            let (sentence, field) = (case["sentence"].as_str().unwrap(), case["field"].as_str().unwrap());
            if is_taken || !text.contains(sentence) || !text.contains(&format!("{field}: ")) {
                wrong.push(format!("the cluster: {case}\n  {text}"));
            }
            if case.get("apart").is_some() {
                continue;
            }
            let (status, error, at) = if is_update { rest.change(&good, &bad).await } else { rest.create(&bad).await };
            compared += 1;
            if !(400..500).contains(&status) || error != sentence || !is_same_field(&at, &in_rest(kind, field)) {
                wrong.push(format!("REST: {case}\n  {status} `{error}` at `{at}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 40 && compared >= 30, "{count} cases, {compared} of them compared");
}

#[tokio::test]
async fn what_the_definitions_cannot_see_is_not_accepted_with_the_words_of_rest() {
    let kube = kube().await;
    let (rest, cases) = (Rest::start().await, cases());
    let scene = Scene::new("unaccepted", &products(1)).await;
    let mut made = Vec::new();
    for (number, case) in cases["unaccepted"].as_array().unwrap().iter().enumerate() {
        let kind = case["kind"].as_str().unwrap();
        let mut bad = changed(&cases["good"][kind], &case["set"], &format!("{}-{number}", scene.name));
        let (status, error, at) = rest.create(&bad).await;
        let (sentence, field) = (case["sentence"].as_str().unwrap(), case["field"].as_str().unwrap());
        assert!((400..500).contains(&status) && error == sentence && at == field, "REST: {case}\n  {status} `{error}` at `{at}`");
        if kind == "Connection" {
            // Its password is that of a server which is not asked.
            bad["spec"]["secretRef"]["name"] = json!(format!("millrace-conn-{}-from", scene.name));
        } else {
            bad["spec"]["source"]["connections"][0]["connection"] = json!(format!("{}-from", scene.name));
            bad["spec"]["target"]["connection"] = json!(format!("{}-to", scene.name));
        }
        kube.apply(&[bad]).await;
        made.push((kind.to_owned(), format!("{}-{number}", scene.name), format!("{field}: {sentence}")));
    }
    for (kind, name, text) in &made {
        let object = kube.until(kind, name, "refused", |object| condition(object, "Accepted").0 == "False").await;
        assert_eq!(&message(&object, "Accepted"), text, "{object:#}");
        let described = kube.kubectl(&["describe", kind, name]).await;
        assert!(described.contains(text), "{described}");
    }
    assert!(made.len() >= 6);
}

#[tokio::test]
async fn an_edit_of_what_cannot_change_is_refused_and_changes_nothing() {
    let kube = kube().await;
    let scene = Scene::new("fixed", &products(1)).await;
    kube.apply(&[scene.definition(json!({}))]).await;
    kube.until("stream", &scene.stream(), "finished", |object| object["status"]["phase"] == "FINISHED").await;
    let edits = [
        ("streamconfig", scene.name.clone(), r#"{"spec":{"target":{"connection":"other"}}}"#, "a config's target cannot be changed"),
        ("connection", format!("{}-to", scene.name), r#"{"spec":{"type":"mysql"}}"#, "`type` cannot be changed"),
        ("stream", scene.stream(), r#"{"spec":{"config":{"name":"other"}}}"#, "a stream's copy of its config cannot be changed"),
    ];
    for (kind, name, patch, sentence) in edits {
        let before = kube.get(kind, &name).await["spec"].clone();
        let (is_taken, text) = kube.try_kubectl(&["patch", kind, &name, "--type=merge", "-p", patch]).await;
        assert!(!is_taken && text.contains(sentence), "{kind}: {text}");
        assert_eq!(kube.get(kind, &name).await["spec"], before);
    }
}

fn message(object: &Value, kind: &str) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default();
    found["message"].as_str().unwrap_or_default().to_owned()
}
