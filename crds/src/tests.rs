//! The rules, evaluated as a cluster's API server evaluates them.
#![allow(clippy::unwrap_used)]

use kube_cel::Validator;
use serde_json::{Value, json};

use crate::definitions;

fn definition(file: &str) -> Value {
    let text = definitions().unwrap().into_iter().find(|(name, _)| *name == file).unwrap().1;
    serde_norway::from_str(&text).unwrap()
}

fn schema(file: &str) -> Value {
    definition(file)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Sentences of the rules that an object breaks.
fn broken(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let errors = Validator::new().validate(schema, object, old).err().map_or_else(Vec::new, |errors| errors.into_vec());
    errors.into_iter().map(|error| error.message).collect()
}

fn connection() -> Value {
    json!({"spec": {"type": "mysql", "database": {"host": "db", "username": "u"}, "secretRef": {"name": "millrace-conn-a", "key": "password"}}})
}

fn config() -> Value {
    json!({"spec": {"name": "c", "mode": "convert", "source": {"connections": [{"connection": "a"}]}, "target": {"connection": "b", "spec": {"db": {"database": "d"}}}}})
}

/// A good object with the value at a pointer set.
fn with(mut object: Value, path: &str, value: Value) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
    object
}

#[test]
fn good_objects_and_samples_break_no_rule() {
    assert_eq!(broken(&schema("connections.yaml"), &connection(), None), [""; 0]);
    assert_eq!(broken(&schema("streamconfigs.yaml"), &config(), None), [""; 0]);
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let mut count = 0;
    for entry in std::fs::read_dir(samples).unwrap() {
        let path = entry.unwrap().path();
        let object: Value = serde_norway::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let file = format!("{}s.yaml", object["kind"].as_str().unwrap().to_lowercase());
        assert_eq!(broken(&schema(&file), &object, None), [""; 0], "{}", path.display());
        match object["kind"].as_str() {
            Some("Connection") => drop(serde_json::from_value::<crate::Connection>(object).unwrap()),
            _ => drop(serde_json::from_value::<crate::StreamConfig>(object).unwrap()),
        }
        count += 1;
    }
    assert!(count >= 4, "{count} samples");
}

#[test]
fn connections_that_break_a_rule_are_told_its_sentence() {
    let schema = schema("connections.yaml");
    let cases = [
        ("/spec/s3", json!({"region": "auto"}), "the spec must have exactly one form, such as `database`"),
        ("/spec/type", json!("s3"), "a connection of this type has another form of spec"),
        ("/spec/database/host", json!(" "), "the host must not be empty"),
        ("/spec/database/username", json!(""), "the user name must not be empty"),
        ("/spec/secretRef/name", json!("admin-token"), "the name of a connection's Secret begins with `millrace-conn-`"),
        ("/spec/ssl", json!({"mode": "require", "clientCert": "x"}), "`ssl.client_cert` needs `ssl.client_key`"),
        (
            "/spec/ssl",
            json!({"mode": "require", "clientKeyRef": {"name": "millrace-conn-a", "key": "k"}}),
            "`ssl.client_key` needs `ssl.client_cert`",
        ),
        (
            "/spec/ssl",
            json!({"mode": "require", "clientCert": "x", "clientKeyRef": {"name": "other", "key": "k"}}),
            "the name of a connection's Secret begins with `millrace-conn-`",
        ),
    ];
    for (path, value, sentence) in cases {
        assert!(broken(&schema, &with(connection(), path, value.clone()), None).contains(&sentence.to_owned()), "{path} {value}");
    }
    let mut nothing = connection();
    nothing["spec"].as_object_mut().unwrap().remove("database");
    assert!(broken(&schema, &nothing, None).contains(&"the spec must have exactly one form, such as `database`".to_owned()));
    let files = json!({"spec": {"type": "files", "files": {"basePath": "data"}}});
    assert_eq!(broken(&schema, &files, None), ["the folder must be an absolute path"]);
    let tls = json!({"spec": {"type": "files", "files": {"basePath": "/data"}, "ssl": {"mode": "require"}}});
    assert_eq!(broken(&schema, &tls, None), ["`ssl` is for database connections"]);
    assert_eq!(broken(&schema, &with(connection(), "/spec/type", json!("postgresql")), Some(&connection())), ["`type` cannot be changed"]);
}

#[test]
fn configs_that_break_a_rule_are_told_its_sentence() {
    let schema = schema("streamconfigs.yaml");
    let source = |value: Value| with(config(), "/spec/source/connections", value);
    let one = |field: &str, value: Value| with(config(), &format!("/spec/source/connections/0/{field}"), value);
    let rule = |rule: Value| with(config(), "/spec/plan", json!({"rules": [rule]}));
    let cases = [
        (with(config(), "/spec/name", json!(" ")), "the name must not be blank"),
        (
            with(with(config(), "/spec/mode", json!("cdc")), "/spec/target/spec/db/writeMode", json!("append")),
            "change data capture writes with `upsert` only",
        ),
        (with(one("queries", json!([{"name": "q", "query": "SELECT 1"}])), "/spec/mode", json!("cdc")), "queries are for `convert` only"),
        (with(config(), "/spec/parallelism", json!(0)), "`parallelism` must be greater than 0"),
        (source(json!([])), "a config needs at least one source connection"),
        (source(json!([{"connection": "a"}, {"connection": "b", "alias": "b"}])), "with several sources each needs an alias"),
        (source(json!([{"connection": "a", "alias": "x"}, {"connection": "b", "alias": "x"}])), "aliases must be unique"),
        (one("alias", json!("1st")), "an alias is a letter, then letters, digits and underscores"),
        (one("tables", json!([{"name": ""}])), "the table's name must not be empty"),
        (one("queries", json!([{"name": "q", "query": " "}])), "a query needs a name and SQL text"),
        (one("s3", json!({"bucket": ""})), "the bucket must be named"),
        (one("s3", json!({"bucket": "b", "prefixes": ["p"]})), "a prefix ends with `/`"),
        (one("s3", json!({"bucket": "b", "objects": ["o/"]})), "an object does not end with `/`"),
        (one("s3", json!({"bucket": "b", "objects": ["o"], "manifestPath": "m"})), "give prefixes and objects, or a manifest"),
        (one("files", json!({"basePath": "/x", "paths": []})), "a file source needs `basePath` and at least one path"),
        (
            with(one("files", json!({"basePath": "/x", "paths": ["a"]})), "/spec/source/connections/0/database", json!("d")),
            "file and S3 sources have no database, tables or queries",
        ),
        (with(config(), "/spec/source/options", json!({"dataBundleSize": 0})), "`dataBundleSize` must be greater than 0"),
        (with(config(), "/spec/target/spec", json!({})), "the target must have exactly one form, such as `db`"),
        (with(config(), "/spec/target/spec/s3", json!({})), "the target must have exactly one form, such as `db`"),
        (with(config(), "/spec/target/spec/db/database", json!("")), "the target database must be named"),
        (with(config(), "/spec/target/spec/db/schema", json!(" ")), "the target schema must not be blank"),
        (rule(json!({"onLoss": "null"})), "a rule names a table, a column or a type"),
        (rule(json!({"type": "date"})), "a rule says `to` or `onLoss`"),
        (rule(json!({"column": "c", "to": " "})), "the target type must not be blank"),
    ];
    for (object, sentence) in cases {
        let found = broken(&schema, &object, None);
        assert!(found.contains(&sentence.to_owned()), "{object}: {found:?}");
    }
}

#[test]
fn what_cannot_be_changed_is_not_changed() {
    let configs = schema("streamconfigs.yaml");
    let changed = with(config(), "/spec/source/connections/0/connection", json!("other"));
    assert_eq!(broken(&configs, &changed, Some(&config())), ["a config's source connections cannot be changed; make a new config"]);
    let changed = with(config(), "/spec/target/connection", json!("other"));
    assert_eq!(broken(&configs, &changed, Some(&config())), ["a config's target cannot be changed; make a new config"]);
    let changed = with(config(), "/spec/name", json!("other"));
    assert_eq!(broken(&configs, &changed, Some(&config())), [""; 0]);
    let streams = schema("streams.yaml");
    let reference = json!({"name": "c", "id": "config_x", "generation": 1});
    let stream = |desired: &str| json!({"spec": {"configRef": reference, "config": config()["spec"], "desired": desired}});
    assert_eq!(broken(&streams, &stream("Paused"), Some(&stream("Running"))), [""; 0]);
    let sentence = "a stream that was stopped stays stopped; start the config again";
    assert_eq!(broken(&streams, &stream("Running"), Some(&stream("Stopped"))), [sentence]);
    let changed = with(stream("Running"), "/spec/config/name", json!("other"));
    assert_eq!(broken(&streams, &changed, Some(&stream("Running"))), ["a stream's copy of its config cannot be changed"]);
}

#[test]
fn every_field_is_described_and_nothing_is_open_but_what_is_meant_to_be() {
    fn walk(schema: &Value, path: &str, undescribed: &mut Vec<String>, open: &mut Vec<String>) {
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            open.push(path.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if !inner["description"].is_string() {
                undescribed.push(path.clone());
            }
            walk(inner, &path, undescribed, open);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], &format!("{path}[]"), undescribed, open);
        }
    }
    for file in ["connections.yaml", "streamconfigs.yaml", "streams.yaml"] {
        let (mut undescribed, mut open) = (Vec::new(), Vec::new());
        walk(&schema(file), "", &mut undescribed, &mut open);
        assert_eq!(undescribed, [""; 0], "{file}");
        let is_meant = |path: &String| path.contains(".target.spec.") || path.ends_with(".queries[].columns");
        open.retain(|path| !is_meant(path));
        assert_eq!(open, [""; 0], "{file}");
    }
}
