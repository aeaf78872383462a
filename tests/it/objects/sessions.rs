//! Connections, sessions, buckets, keys.

use millrace_tests::mcp::Mcp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Place, told};

#[tokio::test]
async fn connections_of_object_stores_are_tested_kept_and_never_show_their_secrets() {
    let place = Place::start().await;
    let path = format!("/connections/{}", place.connection);
    let stored = place.call(Method::GET, &path, Value::Null).await.body;
    let s3 = &stored["spec"]["s3"];
    assert_eq!((&stored["type"], &s3["credentials"]), (&json!("s3"), &json!({"accessKey": place.objects.server.user})), "{stored}");
    assert_eq!(place.call(Method::POST, &format!("{path}/ping"), Value::Null).await.body, json!({"ping": "ok"}));
    assert_eq!(place.call(Method::POST, "/connections/test", place.spec()).await.body, json!({"ping": "ok"}));
    // What clients send back: everything but the secrets, or stars in their place.
    for secret in [Value::Null, json!(""), json!("********")] {
        let mut again = stored.clone();
        again["name"] = json!("renamed");
        again["spec"]["s3"]["credentials"]["secretKey"] = secret;
        assert_eq!(place.call(Method::PUT, &path, again).await.status, 200);
        assert_eq!(place.call(Method::POST, &format!("{path}/ping"), Value::Null).await.status, 200);
    }
    let elsewhere = |field: &str, value: Value| {
        let mut again = stored.clone();
        again["spec"]["s3"][field] = value;
        again
    };
    for changed in [elsewhere("endpoint", json!("http://elsewhere.example")), elsewhere("credentials", json!({"accessKey": "other"}))] {
        let answer = place.call(Method::PUT, &path, changed).await;
        assert_eq!(told(&answer), (400, "VALIDATION_FAILED", "spec.s3.credentials.secretKey"), "{answer:?}");
    }
    // Some clients call object stores files.
    let mut files = place.spec();
    files["type"] = json!("files");
    let id = place.call(Method::POST, "/connections", files).await.text("id").unwrap();
    assert_eq!(place.call(Method::GET, &format!("/connections/{id}"), Value::Null).await.body["type"], "s3");
    let clone = place.call(Method::PUT, &format!("{path}/clone"), Value::Null).await.text("id").unwrap();
    assert_eq!(place.call(Method::POST, &format!("/connections/{clone}/ping"), Value::Null).await.status, 200);
    let secret = place.objects.server.password.as_bytes();
    for file in std::fs::read_dir(place.server.dir.path()).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "the secret stands in {}", file.path().display());
    }
    assert!(!place.server.process.output().contains(&place.objects.server.password));
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_told_by_its_field() {
    let place = Place::start().await;
    let with = |pointer: &str, value: Value| {
        let mut spec = place.spec();
        *spec.pointer_mut(pointer).unwrap() = value;
        spec
    };
    let mut scoped = place.spec();
    scoped["spec"]["s3"]["scope"] = json!({"bucket": "no-such-bucket"});
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let database = place.server.mysql.port;
    for (spec, wanted) in [
        (with("/spec/s3/credentials/secretKey", json!("Wr0ng")), (422, "CONNECTION_LOGIN_REFUSED", "spec.s3.credentials.secretKey")),
        (with("/spec/s3/credentials/accessKey", json!("Nobody")), (422, "CONNECTION_LOGIN_REFUSED", "spec.s3.credentials.accessKey")),
        (scoped, (404, "NOT_FOUND", "spec.s3.scope.bucket")),
        (with("/spec/s3/endpoint", json!(format!("http://127.0.0.1:{free}"))), (502, "CONNECTION_UNREACHABLE", "spec.s3.endpoint")),
        (with("/spec/s3/endpoint", json!("http://host.invalid")), (502, "CONNECTION_UNREACHABLE", "spec.s3.endpoint")),
        (
            with("/spec/s3/endpoint", json!(format!("https://127.0.0.1:{}", place.objects.server.port))),
            (422, "CONNECTION_UNTRUSTED", "spec.s3.useSSL"),
        ),
        (with("/spec/s3/credentials", Value::Null), (422, "CONNECTION_LOGIN_REFUSED", "spec.s3.credentials")),
    ] {
        let answer = place.call(Method::POST, "/connections/test", spec.clone()).await;
        assert_eq!(told(&answer), wanted, "{spec}: {answer:?}");
        assert!(!answer.body.to_string().contains("Wr0ng"));
    }
    let answer =
        place.call(Method::POST, "/connections/test", with("/spec/s3/endpoint", json!(format!("http://127.0.0.1:{database}")))).await;
    assert_eq!((answer.status, told(&answer).2), (502, "spec.s3.endpoint"), "a database is no object store: {answer:?}");
}

#[tokio::test]
async fn a_session_belongs_to_the_client_that_configured_it() {
    let place = Place::start().await;
    let answer = place.call(Method::POST, "/files/s3/configure", place.session()).await;
    assert_eq!((answer.status, &answer.body["status"]), (200, &json!("success")), "{answer:?}");
    let endpoint = format!("127.0.0.1:{}", place.objects.server.port);
    let config = json!({"endpoint": endpoint, "region": "us-east-1", "urlStyle": "path", "useSSL": false, "threads": 1});
    assert_eq!(answer.body["config"], config);
    let own = place.call(Method::GET, "/files/s3/buckets", Value::Null).await;
    assert!(own.body["buckets"].as_array().unwrap().contains(&json!(place.bucket)), "{own:?}");
    // Whoever shows another install id or no key is somebody else.
    let mut other = place.server.api.clone();
    other.key = None;
    for headers in [&[][..], &[("X-API-Key", place.server.key.as_str()), ("X-Install-ID", "another")][..]] {
        let answer = other.call_with(Method::GET, "/files/s3/buckets", None, headers).await.unwrap();
        assert_eq!(told(&answer), (400, "VALIDATION_FAILED", "connectionId"), "{answer:?}");
    }
    let with = |pointer: &str, value: Value| {
        let mut session = place.session();
        *session.pointer_mut(pointer).unwrap() = value;
        session
    };
    let added = |name: &str, value: Value| {
        let mut session = place.session();
        session[name] = value;
        session
    };
    for (body, wanted) in [
        (with("/credentials/secretAccessKey", json!("Wr0ng")), (422, "CONNECTION_LOGIN_REFUSED", "credentials.secretAccessKey")),
        (with("/credentials/accessKeyId", json!("Nobody")), (422, "CONNECTION_LOGIN_REFUSED", "credentials.accessKeyId")),
        (with("/credentials/accessKeyId", json!("")), (400, "VALIDATION_FAILED", "credentials.accessKeyId")),
        (with("/endpoint", json!("https://127.0.0.1:1")), (400, "VALIDATION_FAILED", "useSSL")),
        (with("/endpoint", json!("127.0.0.1:1")), (502, "CONNECTION_UNREACHABLE", "endpoint")),
        (with("/urlStyle", json!("odd")), (400, "VALIDATION_FAILED", "urlStyle")),
        (with("/credentialSource", json!("aws")), (400, "VALIDATION_FAILED", "credentials")),
        (added("performance", json!({"threads": 0})), (400, "VALIDATION_FAILED", "performance.threads")),
        (added("limits", json!({"maxScanBytes": 0})), (400, "VALIDATION_FAILED", "limits.maxScanBytes")),
        (added("extra", json!(1)), (400, "VALIDATION_FAILED", "extra")),
    ] {
        let answer = place.call(Method::POST, "/files/s3/configure", body.clone()).await;
        assert_eq!(told(&answer), wanted, "{answer:?}");
    }
    // A refused configuration leaves the one before.
    assert_eq!(place.call(Method::GET, "/files/s3/buckets", Value::Null).await.status, 200);
    // Its bounds hold.
    place.put("two/1.csv", "a\n1\n").await;
    place.put("two/2.csv", "a\n1\n").await;
    let count = format!("/files/count?path={}", place.path("two/"));
    assert_eq!(place.call(Method::GET, &count, Value::Null).await.body, json!({"count": 2}));
    for limits in [json!({"maxListObjects": 1}), json!({"maxScanBytes": 7})] {
        assert_eq!(place.call(Method::POST, "/files/s3/configure", added("limits", limits.clone())).await.status, 200);
        let answer = place.call(Method::GET, &count, Value::Null).await;
        assert_eq!(told(&answer), (400, "VALIDATION_FAILED", "path"), "{limits}: {answer:?}");
    }
}

#[tokio::test]
async fn under_key_every_route_asks_for_one() {
    let place = Place::start_auth("key").await;
    let path = place.path("a.csv");
    place.put("a.csv", "a\n1\n").await;
    let id = &place.connection;
    let manifest = json!({"files": [path]});
    for (method, route, body) in [
        (Method::POST, "/files/s3/configure".to_owned(), place.session()),
        (Method::GET, format!("/files/s3/validate?path={path}&connectionId={id}"), Value::Null),
        (Method::GET, format!("/files/s3/list?bucket={}&connectionId={id}", place.bucket), Value::Null),
        (Method::GET, format!("/files/s3/buckets?connectionId={id}"), Value::Null),
        (Method::POST, "/files/s3/buckets".to_owned(), json!({"bucket": format!("{}-2", place.bucket), "connectionId": id})),
        (Method::POST, "/files/s3/manifests/create".to_owned(), manifest.clone()),
        (
            Method::POST,
            "/files/s3/manifests/write".to_owned(),
            json!({"manifest": manifest, "outputPath": place.path("in/manifest.json"), "connectionId": id}),
        ),
        (Method::GET, format!("/files/s3/manifest?path={}&connectionId={id}", place.path("in/")), Value::Null),
        (Method::POST, "/files/s3/manifests/filter".to_owned(), json!({"pattern": "*.csv", "manifest": manifest})),
        (Method::POST, "/files/s3/manifests/merge".to_owned(), json!({"manifests": [manifest]})),
        (Method::GET, format!("/files/data?path={path}&connectionId={id}"), Value::Null),
    ] {
        let mut bare = place.server.api.clone();
        bare.key = None;
        let sent = (!body.is_null()).then(|| body.clone());
        let refused = bare.call(method.clone(), &route, sent).await.unwrap();
        assert_eq!(told(&refused), (401, "AUTHENTICATION_FAILED", ""), "{method} {route}");
        let answer = place.call(method.clone(), &route, body).await;
        assert!(matches!(answer.status, 200 | 201), "{method} {route}: {answer:?}");
    }
}

#[tokio::test]
async fn buckets_are_made_listed_and_bounded_by_the_scope() {
    let place = Place::start().await;
    let new = format!("{}-new", place.bucket);
    let answer = place.post("/files/s3/buckets", json!({"bucket": new})).await;
    assert_eq!((answer.status, answer.body), (201, json!({"status": "success", "bucket": new, "region": "us-east-1"})));
    let listed = place.get("/files/s3/buckets", &[]).await.body;
    assert!(listed["buckets"].as_array().unwrap().contains(&json!(new)), "{listed}");
    assert_eq!(listed["count"], listed["buckets"].as_array().unwrap().len());
    for (bucket, wanted) in [
        (new.as_str(), (409, "CONFLICT", "bucket")),
        ("Upper-Case", (400, "VALIDATION_FAILED", "bucket")),
        ("ab", (400, "VALIDATION_FAILED", "bucket")),
        ("../etc", (400, "VALIDATION_FAILED", "bucket")),
    ] {
        let answer = place.post("/files/s3/buckets", json!({"bucket": bucket})).await;
        assert_eq!(told(&answer), wanted, "{bucket}: {answer:?}");
    }
    let mut scoped = place.spec();
    scoped["spec"]["s3"]["scope"] = json!({"bucket": place.bucket, "prefix": "in/"});
    let id = place.call(Method::POST, "/connections", scoped).await.text("id").unwrap();
    place.put("in/a.csv", "a\n1\n").await;
    place.put("out/b.csv", "a\n1\n").await;
    assert_eq!(place.get("/files/s3/buckets", &[("connectionId", &id)]).await.body["buckets"], json!([place.bucket]));
    let listed = place.get("/files/s3/list", &[("connectionId", &id)]).await.body;
    assert_eq!((&listed["objects"][0]["key"], &listed["count"]), (&json!("in/a.csv"), &json!(1)), "{listed}");
    assert_eq!(place.get("/files/count", &[("connectionId", &id), ("path", "a.csv")]).await.body["count"], 1);
    for (params, field) in
        [([("bucket", new.as_str()), ("prefix", "in/")], "bucket"), ([("bucket", &place.bucket), ("prefix", "out/")], "prefix")]
    {
        let mut all = params.to_vec();
        all.push(("connectionId", &id));
        let answer = place.get("/files/s3/list", &all).await;
        assert_eq!(told(&answer), (403, "PATH_REFUSED", field), "{answer:?}");
    }
    // Tools for language models see no more.
    let mcp = Mcp::open(&place.server.api).await.unwrap();
    assert_eq!(mcp.get("list_s3_buckets", json!({"connectionId": id})).await["items"], json!([{"name": place.bucket}]));
    let seen = mcp.get("list_s3_objects", json!({"connectionId": id, "bucket": place.bucket})).await;
    assert_eq!((&seen["items"][0]["key"], &seen["total"]), (&json!("in/a.csv"), &json!(1)), "{seen}");
    for outside in [json!({"bucket": new}), json!({"bucket": place.bucket, "prefix": "out/"})] {
        let mut arguments = outside;
        arguments["connectionId"] = json!(id);
        let called = mcp.call("list_s3_objects", arguments).await.unwrap();
        assert!(called.is_error && called.body["code"] == "PATH_REFUSED", "{called:?}");
    }
    let outside = place.call(Method::POST, "/files/s3/buckets", json!({"bucket": format!("{new}-2"), "connectionId": id})).await;
    assert_eq!(told(&outside), (403, "PATH_REFUSED", "bucket"));
}

#[tokio::test]
async fn requests_without_a_store_or_with_another_kind_of_connection_are_refused() {
    let place = Place::start().await;
    let database = place.server.api.connect("db", "mysql", &place.server.mysql, "mysql").await.unwrap();
    for (id, wanted) in [
        ("", (400, "VALIDATION_FAILED", "connectionId")),
        (database.as_str(), (400, "VALIDATION_FAILED", "connectionId")),
        ("conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0", (404, "NOT_FOUND", "")),
    ] {
        for (route, path) in [
            ("/files/s3/buckets", ""),
            ("/files/s3/list", ""),
            ("/files/s3/validate", "s3://bucket/a"),
            ("/files/s3/manifest", "s3://bucket/a"),
            ("/files/data", "s3://bucket/a.csv"),
        ] {
            let answer = place.get(route, &[("connectionId", id), ("path", path), ("bucket", "bucket")]).await;
            assert_eq!(told(&answer), wanted, "{route} {id}: {answer:?}");
        }
    }
}
