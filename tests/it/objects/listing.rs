//! Listings, keys with odd letters, strategies.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Place, told};

#[tokio::test]
async fn many_objects_are_listed_in_parts_each_once() {
    let place = Place::start().await;
    place.put_all((0..2500).map(|n| format!("many/{n:05}.csv")).collect()).await;
    let mut seen = BTreeSet::new();
    let (mut token, mut parts) = (String::new(), Vec::new());
    loop {
        let answer =
            place.get("/files/s3/list", &[("bucket", &place.bucket), ("prefix", "many/"), ("continuationToken", &token)]).await.body;
        for object in answer["objects"].as_array().unwrap() {
            assert!(seen.insert(object["key"].as_str().unwrap().to_owned()), "twice: {object}");
            assert!(
                object["size"] == 4
                    && object["etag"].as_str().unwrap().len() == 32
                    && !object["last_modified"].as_str().unwrap().is_empty()
            );
        }
        assert_eq!(answer["total_size"], 4 * answer["count"].as_u64().unwrap());
        parts.push(answer["count"].as_u64().unwrap());
        token = answer["next_token"].as_str().unwrap().to_owned();
        assert_eq!(answer["is_truncated"], !token.is_empty());
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), parts), (2500, vec![1000, 1000, 500]));
    let small = place.get("/files/s3/list", &[("bucket", &place.bucket), ("prefix", "many/"), ("maxKeys", "7")]).await.body;
    assert_eq!((&small["count"], &small["is_truncated"]), (&json!(7), &json!(true)));
    // A path that names them all is read as one table.
    assert_eq!(place.get("/files/count", &[("path", &place.path("many/*.csv"))]).await.body["count"], 2500);
}

#[tokio::test]
async fn one_level_has_prefixes_and_wrong_requests_name_their_field() {
    let place = Place::start().await;
    for key in ["a.csv", "d/b.csv", "d/e/c.csv", "f/g.csv"] {
        place.put(key, "a\n1\n").await;
    }
    let bucket = place.bucket.as_str();
    let level = place.get("/files/s3/list", &[("bucket", bucket), ("recursive", "false")]).await.body;
    let keys = |answer: &Value| answer["objects"].as_array().unwrap().iter().map(|object| object["key"].clone()).collect::<Vec<_>>();
    assert_eq!((keys(&level), &level["prefixes"], &level["count"]), (vec![json!("a.csv")], &json!(["d/", "f/"]), &json!(3)), "{level}");
    let below = place.get("/files/s3/list", &[("bucket", bucket), ("prefix", "d/"), ("recursive", "false")]).await.body;
    assert_eq!((keys(&below), &below["prefixes"]), (vec![json!("d/b.csv")], &json!(["d/e/"])), "{below}");
    let all = place.get("/files/s3/list", &[("bucket", bucket)]).await.body;
    assert_eq!((&all["count"], &all["manifest_used"], all.get("prefixes")), (&json!(4), &json!(false), None));
    for (params, wanted) in [
        (vec![("bucket", "no-such-bucket")], (404, "NOT_FOUND", "bucket")),
        (vec![("bucket", "a/b")], (400, "VALIDATION_FAILED", "bucket")),
        (vec![("prefix", "x")], (400, "VALIDATION_FAILED", "bucket")),
        (vec![("bucket", bucket), ("maxKeys", "0")], (400, "VALIDATION_FAILED", "maxKeys")),
        (vec![("bucket", bucket), ("maxKeys", "1001")], (400, "VALIDATION_FAILED", "maxKeys")),
        (vec![("bucket", bucket), ("continuationToken", "millrace-manifest:x")], (400, "VALIDATION_FAILED", "continuationToken")),
        (vec![("bucket", bucket), ("continuationToken", "millrace-manifest:3")], (400, "VALIDATION_FAILED", "continuationToken")),
    ] {
        let answer = place.get("/files/s3/list", &params).await;
        assert_eq!(told(&answer), wanted, "{params:?}: {answer:?}");
    }
}

#[tokio::test]
async fn keys_with_odd_letters_are_listed_read_and_edited() {
    let place = Place::start().await;
    let keys = [
        "with space.csv",
        "per%20cent.csv",
        "pl+us.csv",
        "ü/ñandú 日本.csv",
        "two..dots.csv",
        "q?uestion=1.csv",
        "st*r [1].csv",
        "#hash.csv",
        "quo'te\".csv",
        "a&b=c.csv",
        "y=2026/m=1/part.csv",
    ];
    for (number, key) in keys.iter().enumerate() {
        place.put(key, format!("n,t\n{number},x\n")).await;
    }
    let listed = place.get("/files/s3/list", &[("bucket", &place.bucket)]).await.body;
    let listed: BTreeSet<&str> = listed["objects"].as_array().unwrap().iter().filter_map(|object| object["key"].as_str()).collect();
    assert_eq!(listed, keys.into_iter().collect());
    for (number, key) in keys.iter().enumerate() {
        let path = place.path(key);
        let page = place.get("/files/data", &[("path", &path)]).await;
        assert_eq!((page.status, &page.body["data"][0]["n"]), (200, &json!(number)), "{key}: {page:?}");
        let sql = format!("SELECT n FROM read_csv('{}')", path.replace('\'', "''"));
        let queried = place.post("/files/query", json!({"query": sql})).await;
        assert_eq!(queried.body["rows"], json!([[number]]), "{key}: {queried:?}");
        let changed = place.post("/files/rows/apply", json!({"path": path, "edits": [{"rowId": 0, "changes": {"t": "y"}}]})).await;
        assert_eq!(changed.status, 200, "{key}: {changed:?}");
        assert_eq!(place.content(key).await, format!("n,t\n{number},y\n"), "{key}");
    }
    for path in ["s3://bucket/a/../b.csv", "s3://bucket/../b.csv", "s3://bucket/./b.csv", "s3:///a.csv"] {
        let answer = place.get("/files/data", &[("path", path)]).await;
        assert_eq!(told(&answer), (400, "VALIDATION_FAILED", "path"), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn the_strategy_follows_from_what_a_path_names() {
    let place = Place::start().await;
    for key in [
        "one/a.csv",
        "flat/a.csv",
        "flat/b.csv",
        "hive/y=2025/m=1/a.csv",
        "hive/y=2026/m=2/b.csv",
        "mixed/a.csv",
        "mixed/b.jsonl",
        "odd/y=1/a.csv",
        "odd/b.csv",
    ] {
        place.put(key, "a\n1\n").await;
    }
    place.put("listed/a.csv", "a\n1\n").await;
    place.put("listed/manifest.json", json!({"files": [place.path("listed/a.csv")]}).to_string()).await;
    place.put("empty/a.csv", "").await;
    for (key, valid, mode, hive) in [
        ("one/a.csv", true, "direct", None),
        ("flat/", true, "glob", None),
        ("flat", true, "glob", None),
        ("flat/*.csv", true, "glob", None),
        ("hive/", true, "hive", Some(json!(["y", "m"]))),
        ("hive/**/*.csv", true, "hive", Some(json!(["y", "m"]))),
        ("listed/", true, "manifest", None),
        ("listed/manifest.json", true, "manifest", None),
        ("mixed/", false, "glob", None),
        ("nothing/", false, "direct", None),
        ("nothing/*.csv", false, "glob", None),
    ] {
        let answer = place.get("/files/s3/validate", &[("path", &place.path(key))]).await.body;
        let found = (&answer["valid"], &answer["recommendedMode"], answer.get("hivePartitions"), &answer["isHivePartitioned"]);
        assert_eq!(found, (&json!(valid), &json!(mode), hive.as_ref(), &json!(hive.is_some())), "{key}: {answer}");
        assert!(answer["reason"].as_str().unwrap().len() > 5);
    }
    for (key, word) in [("mixed/", "formats"), ("empty/a.csv", "empty"), ("odd/**/*.csv", "partitions")] {
        let answer = place.get("/files/s3/validate", &[("path", &place.path(key))]).await.body;
        assert!(answer["warnings"].to_string().contains(word), "{key}: {answer}");
    }
    let hive = place.get("/files/data", &[("path", &place.path("hive/")), ("where", "y = 2026")]).await.body;
    assert_eq!((&hive["total"], &hive["data"][0]["m"]), (&json!(1), &json!(2)), "{hive}");
    for (path, wanted) in
        [("/local", (400, "VALIDATION_FAILED", "path")), ("", (400, "VALIDATION_FAILED", "path")), ("s3://no-such-bucket/a", (200, "", ""))]
    {
        let answer = place.get("/files/s3/validate", &[("path", path)]).await;
        assert_eq!(told(&answer), wanted, "{path}: {answer:?}");
    }
}
