//! The custom resources' definitions on a real Kubernetes API server.

use std::io::Write as _;

use millrace_tests::servers::kubernetes::{ApiServer, PROGRAM_VARIABLE, kube_program};
use reqwest::Method;
use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "/apis/millrace.dev/v1alpha1/namespaces/default";

pub(crate) fn read(path: &str) -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds").join(path);
    serde_norway::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn place(kind: &str) -> String {
    format!("{NAMESPACE}/{}s", kind.to_lowercase())
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

/// An API server that knows the definitions; none, loudly, where it cannot be had.
pub(crate) async fn server() -> Option<ApiServer> {
    let Some(program) = kube_program() else {
        let text = "LEFT OUT: no Kubernetes API server on this machine; `./x deps` builds one where there is a Go toolchain";
        let _ = writeln!(std::io::stderr(), "{text} ({PROGRAM_VARIABLE})");
        return None;
    };
    let server = ApiServer::start(program).await.unwrap();
    for file in ["connections", "streamconfigs", "streams"] {
        server.define(&read(&format!("yaml/{file}.yaml"))).await.unwrap();
    }
    Some(server)
}

#[tokio::test]
async fn an_api_server_takes_the_definitions_and_samples_and_refuses_what_they_forbid() {
    let Some(server) = server().await else { return };
    for sample in ["connection-mariadb", "connection-postgresql", "streamconfig", "streamconfig-selected"] {
        let object = read(&format!("samples/{sample}.yaml"));
        let path = format!("{}?fieldValidation=Strict", place(object["kind"].as_str().unwrap()));
        let (status, answer) = server.call(Method::POST, &path, Some(&object)).await.unwrap();
        assert_eq!(status, 201, "{sample}: {answer}");
    }
    let cases = read("tests/refused.yaml");
    for (kind, good) in cases["good"].as_object().unwrap() {
        let (status, answer) = server.call(Method::POST, &format!("{}?fieldValidation=Strict", place(kind)), Some(good)).await.unwrap();
        assert_eq!(status, 201, "{kind}: {answer}");
    }
    let mut wrong = Vec::new();
    for (list, is_update) in [("creates", false), ("updates", true)] {
        for case in cases[list].as_array().unwrap() {
            let kind = case["kind"].as_str().unwrap();
            let object = changed(&cases["good"][kind], &case["set"], if is_update { "good" } else { "bad" });
            let (status, answer) = if is_update {
                let (_, stored) = server.call(Method::GET, &format!("{}/good", place(kind)), None).await.unwrap();
                let mut object = object;
                object["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
                server.call(Method::PUT, &format!("{}/good", place(kind)), Some(&object)).await.unwrap()
            } else {
                server.call(Method::POST, &place(kind), Some(&object)).await.unwrap()
            };
            let causes = answer["details"]["causes"].as_array().cloned().unwrap_or_default();
            let is_told = causes.iter().any(|cause| {
                cause["field"] == case["field"]
                    && cause["message"].as_str().unwrap_or_default().contains(case["sentence"].as_str().unwrap())
            });
            if status != 422 || !is_told {
                wrong.push(format!("{case}\n  {status} {}", json!(causes)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
