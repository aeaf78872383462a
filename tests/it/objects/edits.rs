//! Edits of objects: all or none, and only of the object that was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use millrace_connectors::s3::{Condition, Store};
use millrace_core::Kind;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Place, told};

#[tokio::test]
async fn edits_are_refused_if_the_object_is_not_the_one_that_was_read() {
    let place = Place::start().await;
    place.put("a.csv", "id,name\n1,x\n2,y\n").await;
    let path = place.path("a.csv");
    let etag = place.get("/files/data", &[("path", &path)]).await.etag.unwrap();
    let change = |name: &str| json!({"path": path, "connectionId": place.connection, "edits": [{"rowId": 0, "changes": {"name": name}}]});
    let apply =
        async |name: &str, etag: &str| place.call_with(Method::POST, "/files/rows/apply", change(name), &[("If-Match", etag)]).await;
    let first = apply("first", &etag).await;
    assert_eq!((first.status, &first.body["updated"]), (200, &json!(1)), "{first:?}");
    let stale = apply("second", &etag).await;
    assert_eq!((stale.status, told(&stale).1), (412, "FILE_CHANGED"), "{stale:?}");
    assert_eq!(place.content("a.csv").await, "id,name\n1,first\n2,y\n");
    let now = place.get("/files/data", &[("path", &path)]).await.etag.unwrap();
    assert_eq!(first.etag.as_deref(), Some(now.as_str()), "the answer's etag is the new object's");
    assert_eq!(apply("second", &now).await.status, 200);
    for (method, route, body) in [
        (Method::POST, "/files/rows/insert", json!({"inserts": [{"values": {"id": 3, "name": "z"}}]})),
        (Method::PATCH, "/files/rows/edit", json!({"edits": [{"rowId": 2, "changes": {"name": "zz"}}]})),
        (Method::DELETE, "/files/rows/delete", json!({"deletes": [{"rowId": 1}]})),
    ] {
        let mut body = body;
        body["path"] = json!(path);
        body["connectionId"] = json!(place.connection);
        let answer = place.call(method, route, body).await;
        assert_eq!(answer.status, 200, "{route}: {answer:?}");
    }
    assert_eq!(place.content("a.csv").await, "id,name\n1,second\n3,zz\n");
}

/// A store that takes objects and whose answers get lost; it counts what it is sent.
async fn silent_store() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(AtomicU32::new(0)));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
            while !text.ends_with(b"the new object") {
                match stream.read(&mut bytes).await {
                    Ok(more) if more > 0 => text.extend_from_slice(&bytes[..more]),
                    _ => break,
                }
            }
            count.fetch_add(1, Ordering::SeqCst);
            let _ = stream.shutdown().await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_put_on_a_condition_is_not_repeated_when_its_answer_is_lost() {
    let place = Place::start().await;
    let (address, asked) = silent_store().await;
    let mut access = place.store.access().clone();
    access.endpoint = Some(address);
    let store = Store::new(&access);
    let put = async |condition| store.put(&place.at("a.csv"), b"the new object".to_vec(), "text/csv", condition).await.unwrap_err();
    for condition in [Condition::Unchanged("an-etag"), Condition::Absent] {
        let before = asked.load(Ordering::SeqCst);
        let error = put(condition).await;
        assert_eq!((error.kind(), asked.load(Ordering::SeqCst) - before), (Kind::ConnectionLost, 1), "{}", error.chain());
        assert!(error.message().contains("is not known"), "{}", error.chain());
    }
    // Whatever is there is replaced as often as it takes.
    let before = asked.load(Ordering::SeqCst);
    put(Condition::Always).await;
    assert!(asked.load(Ordering::SeqCst) - before > 1);
}

#[tokio::test]
async fn of_two_editors_at_once_one_wins_and_the_other_is_told() {
    let place = Place::start().await;
    for round in 0..3 {
        let key = format!("{round}.csv");
        place.put(&key, "id,name\n1,x\n").await;
        let path = place.path(&key);
        let etag = place.get("/files/data", &[("path", &path)]).await.etag.unwrap();
        let edit = async |name: &str| {
            let body = json!({"path": path, "connectionId": place.connection, "edits": [{"rowId": 0, "changes": {"name": name}}]});
            place.call_with(Method::POST, "/files/rows/apply", body, &[("If-Match", &etag)]).await
        };
        let (one, two) = tokio::join!(edit("one"), edit("two"));
        let mut codes = [(one.status, told(&one).1), (two.status, told(&two).1)];
        codes.sort_unstable();
        assert_eq!(codes, [(200, ""), (412, "FILE_CHANGED")], "{one:?} {two:?}");
        let winner = if one.status == 200 { "one" } else { "two" };
        assert_eq!(place.content(&key).await, format!("id,name\n1,{winner}\n"));
    }
}

#[tokio::test]
async fn every_format_is_edited_and_what_is_not_changed_stays() {
    let place = Place::start().await;
    place.put("a.jsonl", "{\"id\": 1, \"n\": 1.50}\n{\"id\": 2}\n").await;
    place.put("b.json", "[{\"id\": 1}, {\"id\": 2}]").await;
    place.put("t.parquet", include_bytes!("../files/types.parquet")).await;
    for (key, edit) in [("a.jsonl", json!({"id": 7})), ("b.json", json!({"id": 7})), ("t.parquet", json!({"d": "1.25"}))] {
        let body = json!({"path": place.path(key), "edits": [{"rowId": 0, "changes": edit}], "deletes": [{"rowId": 1}]});
        let answer = place.post("/files/rows/apply", body).await;
        assert_eq!((answer.status, &answer.body["deleted"]), (200, &json!(1)), "{key}: {answer:?}");
    }
    assert_eq!(place.content("a.jsonl").await, "{\"id\":7,\"n\":1.50}\n");
    let rows = place.get("/files/data", &[("path", &place.path("b.json"))]).await.body;
    assert_eq!(rows["data"], json!([{"id": 7, "__rowid": 0}]));
    let rows = place.get("/files/data", &[("path", &place.path("t.parquet"))]).await.body;
    assert_eq!((&rows["total"], &rows["data"][0]["d"]), (&json!(2), &json!(1.25)), "{rows}");
    let head = place.store.head(&place.at("a.jsonl")).await.unwrap();
    assert!(format!("{head:?}").contains("text/plain"), "the type that the object had stays: {head:?}");
}

#[tokio::test]
async fn a_large_object_is_put_in_parts_on_the_same_condition() {
    let place = Place::start().await;
    let line = "x".repeat(999);
    let rows = 20_000;
    let mut text = String::from("id,name\n");
    for id in 0..rows {
        text.push_str(&format!("{id},{line}\n"));
    }
    assert!(text.len() > 16 << 20);
    place.put("large.csv", &text).await;
    let path = place.path("large.csv");
    let etag = place.get("/files/data", &[("path", &path), ("limit", "1"), ("skipCount", "true")]).await.etag.unwrap();
    let edit = async |etag: &str| {
        let body = json!({"path": path, "connectionId": place.connection, "edits": [{"rowId": 19_999, "changes": {"name": "last"}}]});
        place.call_with(Method::POST, "/files/rows/apply", body, &[("If-Match", etag)]).await
    };
    let answer = edit(&etag).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.etag.unwrap().contains("-3"), "the object came in three parts");
    let content = place.content("large.csv").await;
    assert!(content.ends_with("\n19999,last\n") && content.lines().count() == rows + 1);
    assert_eq!(edit(&etag).await.status, 412);
    // The condition holds for the last request of an upload, too.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new");
    std::fs::write(&file, text).unwrap();
    let head = place.store.head(&place.at("large.csv")).await.unwrap();
    let refused = place.store.put_file(&place.at("large.csv"), &file, &head, Condition::Unchanged("0123")).await.unwrap_err();
    assert_eq!(refused.detail("reason"), Some("etag"), "{refused}");
    assert_eq!(place.content("large.csv").await, content);
}

#[tokio::test]
async fn what_may_not_be_changed_is_not() {
    let place = Place::start().await;
    place.put("p/1.csv", "n\n1\n").await;
    place.put("p/2.csv", "n\n1\n").await;
    let edit =
        |path: String, id: &str, changes: Value| json!({"path": path, "connectionId": id, "edits": [{"rowId": 0, "changes": changes}]});
    let mut reader = place.spec();
    reader["spec"]["s3"]["credentials"] = json!({"accessKey": place.objects.reader, "secretKey": place.objects.reader_secret});
    let reader = place.call(Method::POST, "/connections", reader).await.text("id").unwrap();
    let own = place.connection.as_str();
    for (body, wanted) in [
        (edit(place.path("p/"), own, json!({"n": 2})), (422, "NOT_SUPPORTED", "path")),
        (edit(place.path("p/*.csv"), own, json!({"n": 2})), (422, "NOT_SUPPORTED", "path")),
        (edit(place.path("no.csv"), own, json!({"n": 2})), (404, "NOT_FOUND", "path")),
        (edit(place.path("p/1.csv"), own, json!({"m": 2})), (400, "VALIDATION_FAILED", "")),
        (edit(place.path("p/1.csv"), own, json!({"n": "text"})), (422, "VALUE_REFUSED", "")),
        (edit(place.path("p/1.csv"), &reader, json!({"n": 2})), (422, "CONNECTION_PERMISSION_DENIED", "")),
    ] {
        let answer = place.call(Method::POST, "/files/rows/apply", body.clone()).await;
        assert_eq!(told(&answer), wanted, "{body}: {answer:?}");
    }
    assert_eq!(place.content("p/1.csv").await, "n\n1\n");
}
