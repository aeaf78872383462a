//! The rules, evaluated as a cluster's API server evaluates them.
#![allow(clippy::unwrap_used)]

use kube_cel::Validator;
use serde_json::Value;

use crate::{definitions, rules};

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

/// Good and bad objects.
fn cases() -> Value {
    serde_norway::from_str(include_str!("../tests/refused.yaml")).unwrap()
}

fn file_of(kind: &str) -> String {
    format!("{}s.yaml", kind.to_lowercase())
}

/// A good object with the values at some pointers set, or taken away.
fn changed(good: &Value, set: &Value) -> Value {
    let mut object = good.clone();
    for (path, value) in set.as_object().unwrap() {
        let (parent, name) = path.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Value::Null => drop(parent.remove(name)),
            value => drop(parent.insert(name.to_owned(), value.clone())),
        }
    }
    object
}

#[test]
fn good_objects_and_samples_break_no_rule() {
    for (kind, good) in cases()["good"].as_object().unwrap() {
        assert_eq!(broken(&schema(&file_of(kind)), good, None), [""; 0]);
        assert_eq!(broken(&schema(&file_of(kind)), good, Some(good)), [""; 0]);
    }
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("samples");
    let mut count = 0;
    for entry in std::fs::read_dir(samples).unwrap() {
        let path = entry.unwrap().path();
        let object: Value = serde_norway::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let kind = object["kind"].as_str().unwrap().to_owned();
        assert_eq!(broken(&schema(&file_of(&kind)), &object, None), [""; 0], "{}", path.display());
        match kind.as_str() {
            "Connection" => drop(serde_json::from_value::<crate::Connection>(object).unwrap()),
            _ => drop(serde_json::from_value::<crate::StreamConfig>(object).unwrap()),
        }
        count += 1;
    }
    assert!(count >= 4, "{count} samples");
}

#[test]
fn objects_that_break_a_rule_are_told_its_sentence() {
    let cases = cases();
    let mut told = std::collections::BTreeSet::new();
    for (list, is_update) in [("creates", false), ("updates", true)] {
        for case in cases[list].as_array().unwrap() {
            let kind = case["kind"].as_str().unwrap();
            let good = &cases["good"][kind];
            let found = broken(&schema(&file_of(kind)), &changed(good, &case["set"]), is_update.then_some(good));
            let sentence = case["sentence"].as_str().unwrap();
            assert!(found.iter().any(|found| found == sentence), "{case}: {found:?}");
            told.insert(sentence.to_owned());
        }
    }
    let is_told = |message: &str| match message.split_once(rules::TYPE) {
        Some((before, after)) => told.iter().any(|told| told.starts_with(before) && told.ends_with(after)),
        None => told.contains(message),
    };
    let tables = [rules::CONNECTION_RULES, rules::CONFIG_RULES, rules::CONFIG_CHANGES, rules::STREAM_RULES];
    let untold: Vec<&str> = tables.iter().copied().flatten().map(|rule| rule.message).filter(|message| !is_told(message)).collect();
    assert_eq!(untold, [""; 0], "rules that no case breaks");
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
