//! Manifests: made, stored, found, filtered, merged, and listings that they answer.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, told};

#[tokio::test]
async fn manifests_are_made_stored_read_filtered_and_merged() {
    let place = Place::start().await;
    let files: Vec<String> = ["in/a.csv", "in/b.csv", "in/deep/c.csv"].iter().map(|key| place.path(key)).collect();
    for key in ["in/a.csv", "in/b.csv", "in/deep/c.csv"] {
        place.put(key, "a\n1\n").await;
    }
    let made =
        place.call(Method::POST, "/files/s3/manifests/create", json!({"files": files, "metadata": {"row_count": 3, "owner": "me"}})).await;
    let manifest = made.body["manifest"].clone();
    assert_eq!((&manifest["version"], &manifest["files"]), (&json!("1.0"), &json!(files)), "{made:?}");
    assert_eq!((&manifest["metadata"]["file_format"], &manifest["metadata"]["owner"]), (&json!("csv"), &json!("me")));
    let stats = &made.body["stats"];
    assert_eq!(
        (&stats["file_count"], &stats["s3_files"], &stats["local_files"], &stats["total_row_count"]),
        (&json!(3), &json!(3), &json!(0), &json!(3))
    );
    let output = place.path("in/manifest.json");
    let written = place.post("/files/s3/manifests/write", json!({"manifest": manifest, "outputPath": output})).await;
    assert_eq!((written.status, &written.body["outputPath"]), (200, &json!(output)), "{written:?}");
    for path in [output.clone(), place.path("in/")] {
        let read = place.get("/files/s3/manifest", &[("path", &path)]).await;
        assert_eq!((&read.body["manifest"], &read.etag), (&manifest, &written.etag), "{path}: {read:?}");
    }
    let filtered = place.post("/files/s3/manifests/filter", json!({"pattern": "in/*.csv", "sourcePath": output})).await.body;
    assert_eq!((&filtered["manifest"]["files"], filtered["stats"].get("total_row_count")), (&json!(files[..2]), None), "{filtered}");
    let other = json!({"files": [place.path("out/x.csv"), files[0]]});
    let merged = place.post("/files/s3/manifests/merge", json!({"sourcePaths": [output], "manifests": [other]})).await.body;
    assert_eq!((&merged["stats"]["file_count"], &merged["manifest"]["files"][3]), (&json!(4), &json!(place.path("out/x.csv"))), "{merged}");
    // Rows of what a manifest lists.
    for path in [output.clone(), place.path("in/"), place.path("in")] {
        assert_eq!(place.get("/files/count", &[("path", &path)]).await.body["count"], 3, "{path}");
    }
    let refused = place.post("/files/rows/apply", json!({"path": output, "deletes": [{"rowId": 0}]})).await;
    assert_eq!(told(&refused), (422, "NOT_SUPPORTED", "path"));
}

#[tokio::test]
async fn a_manifest_is_replaced_only_on_the_condition_that_is_given() {
    let place = Place::start().await;
    let body = |file: &str| json!({"manifest": {"files": [place.path(file)]}, "outputPath": place.path("m/manifest.json"), "connectionId": place.connection});
    let write =
        async |file: &str, headers: &[(&str, &str)]| place.call_with(Method::POST, "/files/s3/manifests/write", body(file), headers).await;
    let first = write("a.csv", &[("If-None-Match", "*")]).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(told(&write("b.csv", &[("If-None-Match", "*")]).await), (412, "PRECONDITION_FAILED", "path"));
    let etag = first.etag.unwrap();
    assert_eq!(write("b.csv", &[("If-Match", &etag)]).await.status, 200);
    assert_eq!(told(&write("c.csv", &[("If-Match", &etag)]).await), (412, "PRECONDITION_FAILED", "path"));
    assert!(place.content("m/manifest.json").await.contains("b.csv"));
    let secret = json!({"accessKey": place.objects.reader, "secretKey": place.objects.reader_secret});
    let mut reader = place.spec();
    reader["spec"]["s3"]["credentials"] = secret;
    let id = place.call(Method::POST, "/connections", reader).await.text("id").unwrap();
    let mut forbidden = body("d.csv");
    forbidden["connectionId"] = json!(id);
    let answer = place.call(Method::POST, "/files/s3/manifests/write", forbidden).await;
    assert_eq!(told(&answer), (422, "CONNECTION_PERMISSION_DENIED", "path"), "{answer:?}");
}

#[tokio::test]
async fn listings_are_answered_from_a_manifest_unless_the_store_is_to_be_asked() {
    let place = Place::start().await;
    place.put("in/a.csv", "a\n1\n").await;
    place.put("in/new.csv", "a\n1\n").await;
    let files: Vec<String> = (0..12).map(|n| place.path(&format!("in/{n:02}.csv"))).chain([place.path("in/deep/x.csv")]).collect();
    place.put("in/manifest.json", json!({"files": files, "objects": [{"path": files[0], "size": 9}]}).to_string()).await;
    let bucket = place.bucket.as_str();
    let first = place.get("/files/s3/list", &[("bucket", bucket), ("prefix", "in/"), ("maxKeys", "10"), ("recursive", "false")]).await.body;
    assert_eq!(
        (&first["manifest_used"], &first["manifest_path"], &first["count"]),
        (&json!(true), &json!(place.path("in/manifest.json")), &json!(10))
    );
    assert_eq!((&first["objects"][0]["key"], &first["objects"][0]["size"]), (&json!("in/00.csv"), &json!(9)));
    let token = first["next_token"].as_str().unwrap();
    let second = place
        .get(
            "/files/s3/list",
            &[("bucket", bucket), ("prefix", "in/"), ("maxKeys", "10"), ("recursive", "false"), ("continuationToken", token)],
        )
        .await
        .body;
    assert_eq!((&second["count"], &second["prefixes"], &second["next_token"]), (&json!(3), &json!(["in/deep/"]), &json!("")), "{second}");
    let asked = place.get("/files/s3/list", &[("bucket", bucket), ("prefix", "in/"), ("refresh", "true")]).await.body;
    assert_eq!((&asked["manifest_used"], &asked["count"]), (&json!(false), &json!(3)), "{asked}");
    // Only the name makes no manifest.
    place.put("other/manifest.json", "[1, 2]").await;
    place.put("other/a.csv", "a\n1\n").await;
    let other = place.get("/files/s3/list", &[("bucket", bucket), ("prefix", "other/")]).await.body;
    assert_eq!((&other["manifest_used"], &other["count"]), (&json!(false), &json!(2)), "{other}");
    assert_eq!(place.get("/files/count", &[("path", &place.path("other/"))]).await.body["count"], 1);
    // The newest of several, and those of a folder of manifests.
    place.put("many/manifest-1.json", json!({"files": [place.path("many/old.csv")]}).to_string()).await;
    place.put("many/manifest-2.json", json!({"files": [place.path("many/new.csv")]}).to_string()).await;
    place.put("kept/manifests/x.json", json!({"files": [place.path("kept/x.csv")]}).to_string()).await;
    for (prefix, key) in [("many/", "many/new.csv"), ("kept/", "kept/x.csv")] {
        let answer = place.get("/files/s3/list", &[("bucket", bucket), ("prefix", prefix)]).await.body;
        assert_eq!((&answer["objects"][0]["key"], &answer["count"]), (&json!(key), &json!(1)), "{answer}");
    }
}

#[tokio::test]
async fn wrong_manifests_name_their_field() {
    let place = Place::start().await;
    place.put("a.csv", "a\n1\n").await;
    place.put("x/manifest.json", "not json").await;
    place.put("local/manifest.json", json!({"files": ["/etc/passwd"]}).to_string()).await;
    let file = place.path("a.csv");
    let good = json!({"files": [file]});
    let create = "/files/s3/manifests/create";
    for (route, body, wanted) in [
        (create, json!({}), (400, "VALIDATION_FAILED", "files")),
        (create, json!({"files": []}), (400, "VALIDATION_FAILED", "files")),
        (create, json!({"files": [file, file]}), (400, "VALIDATION_FAILED", "files[1]")),
        (create, json!({"files": ["s3://bucket/a/../b"]}), (400, "VALIDATION_FAILED", "files[0]")),
        ("/files/s3/manifests/filter", json!({"pattern": "*"}), (400, "VALIDATION_FAILED", "sourcePath")),
        ("/files/s3/manifests/filter", json!({"pattern": "[", "manifest": good}), (400, "VALIDATION_FAILED", "pattern")),
        ("/files/s3/manifests/filter", json!({"pattern": "*", "sourcePath": place.path("no.json")}), (404, "NOT_FOUND", "sourcePath")),
        (
            "/files/s3/manifests/filter",
            json!({"pattern": "*", "sourcePath": place.path("x/manifest.json")}),
            (400, "VALIDATION_FAILED", "sourcePath"),
        ),
        ("/files/s3/manifests/merge", json!({}), (400, "VALIDATION_FAILED", "manifests")),
        ("/files/s3/manifests/merge", json!({"sourcePaths": [file, place.path("no.json")]}), (400, "VALIDATION_FAILED", "sourcePaths[0]")),
        (
            "/files/s3/manifests/write",
            json!({"manifest": good, "outputPath": place.path("data.json")}),
            (400, "VALIDATION_FAILED", "outputPath"),
        ),
        (
            "/files/s3/manifests/write",
            json!({"manifest": good, "outputPath": "/tmp/manifest.json"}),
            (400, "VALIDATION_FAILED", "outputPath"),
        ),
        (
            "/files/s3/manifests/write",
            json!({"manifest": {"files": []}, "outputPath": place.path("manifest.json")}),
            (400, "VALIDATION_FAILED", "manifest.files"),
        ),
    ] {
        let mut body = body;
        if route != create {
            body["connectionId"] = json!(place.connection);
        }
        let answer = place.call(Method::POST, route, body.clone()).await;
        assert_eq!(told(&answer), wanted, "{route} {body}: {answer:?}");
    }
    for (path, wanted) in [
        (place.path("no.json"), (404, "NOT_FOUND", "path")),
        (place.path("empty/"), (404, "NOT_FOUND", "path")),
        (place.path("a.csv"), (400, "VALIDATION_FAILED", "path")),
    ] {
        let answer = place.get("/files/s3/manifest", &[("path", &path)]).await;
        assert_eq!(told(&answer), wanted, "{path}: {answer:?}");
    }
    // A manifest is no way to the server's own files.
    let local = place.get("/files/data", &[("path", &place.path("local/manifest.json"))]).await;
    assert_eq!(told(&local), (422, "NOT_SUPPORTED", "path"), "{local:?}");
    let stats: Value = place.get("/files/s3/manifest", &[("path", &place.path("local/"))]).await.body["stats"].clone();
    assert_eq!((&stats["local_files"], &stats["s3_files"]), (&json!(1), &json!(0)));
}
