//! Rows of objects: described, paged, counted, sniffed, summarised, queried.

use std::io::Write as _;

use reqwest::Method;
use serde_json::json;

use super::{Place, told};
use crate::support::Server;

const TYPES: &[u8] = include_bytes!("../files/types.parquet");

#[tokio::test]
async fn objects_are_described_paged_counted_sniffed_summarised_and_queried() {
    let place = Place::start().await;
    let etag = place.put("in/a.csv", "id,name,at\n1,x,2024-01-01\n2,y,2024-01-02\n3,,2024-01-03\n").await;
    let csv = place.path("in/a.csv");
    let meta = place.get("/files/meta", &[("path", &csv), ("stats", "true")]).await.body;
    assert_eq!((&meta["rowCount"], &meta["size"], &meta["format"]), (&json!(3), &json!(55), &json!("csv")), "{meta}");
    assert_eq!((&meta["csvDialect"]["delimiter"], &meta["columns"][2]["type"]), (&json!(","), &json!("DATE")));
    let page =
        place.get("/files/data", &[("path", &csv), ("order_by", "id"), ("order_dir", "DESC"), ("where", "id > 1"), ("limit", "1")]).await;
    assert_eq!(page.body["data"], json!([{"id": 3, "name": null, "at": "2024-01-03", "__rowid": 2}]), "{page:?}");
    assert_eq!((&page.body["total"], page.etag), (&json!(2), Some(format!("\"{etag}\""))));
    assert_eq!(place.get("/files/count", &[("path", &csv), ("where", "name is null")]).await.body["count"], 1);
    let sniffed = place.post("/files/csv/sniff", json!({"path": csv})).await.body;
    assert_eq!((&sniffed["hasHeader"], &sniffed["columns"][0]["type"]), (&json!(true), &json!("BIGINT")), "{sniffed}");
    let summary = place.post("/files/summary", json!({"path": csv})).await.body;
    assert_eq!((&summary["rowCount"], &summary["columns"][1]["count"]), (&json!(3), &json!(2)), "{summary}");

    place.put("in/b.jsonl", "{\"id\":1,\"total\":1.5}\n{\"id\":3,\"total\":2.5}\n").await;
    let jsonl = place.get("/files/data", &[("path", &place.path("in/b.jsonl"))]).await.body;
    assert_eq!(jsonl["data"][1], json!({"id": 3, "total": 2.5, "__rowid": 1}));
    let sql = format!("SELECT a.name, b.total FROM read_csv('{csv}') a JOIN '{}' b USING (id) ORDER BY id", place.path("in/b.jsonl"));
    let joined = place.post("/files/query", json!({"query": sql})).await;
    assert_eq!(joined.body["rows"], json!([["x", 1.5], [null, 2.5]]), "{joined:?}");
    let columns = place.post("/files/query/columns", json!({"query": sql})).await.body;
    assert_eq!(columns["columns"][1], json!({"name": "total", "type": "DOUBLE"}), "{columns}");
    let relative = json!({"query": "SELECT count(*) FROM read_csv('a.csv')", "scopePath": place.path("in/")});
    assert_eq!(place.post("/files/query", relative).await.body["rows"], json!([[3]]));

    place.put("in/t.parquet", TYPES).await;
    let parquet = place.path("in/t.parquet");
    let meta = place.get("/files/meta", &[("path", &parquet)]).await.body;
    assert_eq!((&meta["rowCount"], &meta["formatInfo"]["compression"]), (&json!(3), &json!(["ZSTD"])), "{meta}");
    assert_eq!(place.post("/files/summary", json!({"path": parquet})).await.body["rowCount"], 3);
    let queried = place.post("/files/query", json!({"query": format!("SELECT sum(i) FROM read_parquet('{parquet}')")})).await;
    assert_eq!(queried.body["rows"], json!([[6]]), "{queried:?}");

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(b"a,b\n1,2\n").unwrap();
    place.put("in/z.csv.gz", gzip.finish().unwrap()).await;
    assert_eq!(place.get("/files/count", &[("path", &place.path("in/z.csv.gz"))]).await.body["count"], 1);
    assert!(!place.server.process.output().contains(&place.objects.server.password));
}

#[tokio::test]
async fn several_objects_are_one_table_and_wrong_paths_are_told() {
    let place = Place::start().await;
    for (key, content) in [
        ("p/1.csv", "n\n1\n"),
        ("p/2.csv", "n\n2\n"),
        ("p/_SUCCESS", ""),
        ("p/_notes.csv", "n\n9\n"),
        ("m/1.csv", "n\n1\n"),
        ("m/2.jsonl", "{\"n\":1}\n"),
        ("t.txt", "n\n1\n"),
    ] {
        place.put(key, content).await;
    }
    for key in ["p/", "p", "p/?.csv", "p/[12].csv"] {
        assert_eq!(place.get("/files/count", &[("path", &place.path(key))]).await.body["count"], 2, "{key}");
    }
    assert_eq!(place.get("/files/count", &[("path", &place.path("t.txt")), ("format", "csv")]).await.body["count"], 1);
    let sum = place.post("/files/query", json!({"query": format!("SELECT sum(n) FROM read_csv('{}')", place.path("p/*.csv"))})).await;
    assert_eq!(sum.body["rows"], json!([[3]]), "{sum:?}");
    for (path, wanted) in [
        (place.path("no.csv"), (404, "NOT_FOUND", "path")),
        (place.path("no/*.csv"), (404, "NOT_FOUND", "path")),
        ("s3://no-such-bucket/a.csv".to_owned(), (404, "NOT_FOUND", "path")),
        (place.path("m/"), (400, "VALIDATION_FAILED", "path")),
        (place.path("t.txt"), (400, "VALIDATION_FAILED", "format")),
        ("gs://bucket/a.csv".to_owned(), (422, "NOT_SUPPORTED", "path")),
        ("https://example.com/a.csv".to_owned(), (422, "NOT_SUPPORTED", "path")),
    ] {
        let answer = place.get("/files/data", &[("path", &path)]).await;
        assert_eq!(told(&answer), wanted, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn statements_reach_the_objects_that_they_name_and_nothing_else() {
    let place = Place::start().await;
    place.put("a.csv", "n\n1\n").await;
    let path = place.path("a.csv");
    for (sql, status, code) in [
        ("SELECT * FROM duckdb_secrets()".to_owned(), 422, "STATEMENT_REFUSED"),
        ("SELECT getenv('HOME')".to_owned(), 422, "STATEMENT_REFUSED"),
        ("SELECT * FROM read_text('s3://x/y')".to_owned(), 422, "STATEMENT_REFUSED"),
        (format!("SELECT * FROM read_csv('{path}' || '')"), 422, "STATEMENT_REFUSED"),
        (format!("COPY (SELECT 1) TO '{path}'"), 422, "STATEMENT_REFUSED"),
        ("CREATE SECRET x (TYPE s3)".to_owned(), 422, "STATEMENT_REFUSED"),
        (format!("SELECT * FROM read_csv('{path}'), read_csv('/etc/passwd')"), 403, "PATH_REFUSED"),
        ("SELECT * FROM read_csv('https://example.com/a.csv')".to_owned(), 422, "NOT_SUPPORTED"),
        (format!("SELECT * FROM read_csv('{}')", place.path("no.csv")), 404, "NOT_FOUND"),
        ("SELECT * FROM read_csv('s3://bucket/a/../b.csv')".to_owned(), 400, "VALIDATION_FAILED"),
    ] {
        let answer = place.post("/files/query", json!({"query": sql})).await;
        assert_eq!((answer.status, told(&answer).1), (status, code), "{sql}: {answer:?}");
    }
    let bare = place.call(Method::POST, "/files/query", json!({"query": format!("SELECT * FROM read_csv('{path}')")})).await;
    assert_eq!((bare.status, told(&bare).1), (400, "VALIDATION_FAILED"), "without a connection: {bare:?}");
    assert_eq!(place.call(Method::POST, "/files/s3/configure", place.session()).await.status, 200);
    let session = place.call(Method::POST, "/files/query", json!({"query": format!("SELECT n FROM read_csv('{path}')")})).await;
    assert_eq!(session.body["rows"], json!([[1]]), "with a session: {session:?}");
    // The credentials go over a pipe, and stand in no command line.
    let secret = place.objects.server.password.clone();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains(&secret));
    }
    assert!(!place.server.process.output().contains(&secret));
}

#[tokio::test]
async fn stores_that_the_operator_denies_are_reached_by_no_statement() {
    let place = Place::start().await;
    place.put("a.csv", "id,name\n1,x\n").await;
    let denied = Server::start_with(&["--denied-hosts", "127.0.0.0/8,::1"]).await;
    // The rules know nothing of the name; what it stands for is known when it is dialled.
    let mut spec = place.spec();
    spec["name"] = json!("named");
    spec["spec"]["s3"]["endpoint"] = json!(format!("http://localhost:{}", place.objects.server.port));
    let path = place.path("a.csv");
    for (server, is_denied) in [(&place.server, false), (&denied, true)] {
        let id = server.api.post("/connections", spec.clone()).await.unwrap().text("id").unwrap();
        let federated = format!("SELECT name FROM read_csv('named://{}/a.csv')", place.bucket);
        let edit = json!({"path": path, "connectionId": id, "edits": [{"rowId": 0, "changes": {"name": "y"}}]});
        for (method, route, body) in [
            (Method::POST, "/files/query".to_owned(), json!({"query": format!("SELECT name FROM read_csv('{path}')"), "connectionId": id})),
            (Method::POST, "/query/federated".to_owned(), json!({"sql": federated})),
            (Method::GET, format!("/files/data?path={path}&connectionId={id}"), json!(null)),
            (Method::POST, "/files/rows/apply".to_owned(), edit),
        ] {
            let answer = server.api.call(method, &route, (!body.is_null()).then_some(body)).await.unwrap();
            let wanted = if is_denied { (403, "HOST_NOT_ALLOWED", "spec.s3.endpoint") } else { (200, "", "") };
            assert_eq!(told(&answer), wanted, "{route}: {answer:?}");
        }
    }
    assert_eq!(place.content("a.csv").await, "id,name\n1,y\n");
}

#[tokio::test]
async fn federated_statements_read_objects_by_the_alias_of_their_store() {
    let place = Place::start().await;
    place.put("in/a.csv", "id,name\n1,x\n2,y\n").await;
    place.put("in/b.csv", "id,name\n3,z\n").await;
    let mut reader = place.spec();
    reader["name"] = json!("second");
    reader["spec"]["s3"]["credentials"] = json!({"accessKey": place.objects.reader, "secretKey": place.objects.reader_secret});
    let reader = place.call(Method::POST, "/connections", reader).await.text("id").unwrap();
    let query = async |sql: String, connections: serde_json::Value| {
        place.call(Method::POST, "/query/federated", json!({"query": sql, "connections": connections})).await
    };
    let bucket = &place.bucket;
    let sql = format!(
        "SELECT (SELECT count(*) FROM read_csv('aws://{bucket}/in/*.csv')), (SELECT max(name) FROM read_csv(['other://{bucket}/in/a.csv']))"
    );
    let both = json!([{"alias": "aws", "connectionId": place.connection}, {"alias": "other", "connectionId": reader}]);
    let answer = query(sql, both.clone()).await;
    assert_eq!(answer.body["rows"], json!([[3, "y"]]), "{answer:?}");
    // Without mappings by the connection's name, or by number.
    for alias in ["lake", "s31", "second", "s32"] {
        let answer = query(format!("SELECT count(*) FROM read_csv('{alias}://{bucket}/in/a.csv')"), json!(null)).await;
        assert_eq!(answer.body["rows"], json!([[2]]), "{alias}: {answer:?}");
    }
    for (sql, status, word) in [
        (format!("SELECT * FROM read_csv('aws://{bucket}/in/a.csv'), read_csv('nowhere://{bucket}/in/a.csv')"), 422, "nowhere"),
        (format!("SELECT * FROM read_csv('aws://{bucket}/in/a.csv'), read_csv('/etc/passwd')"), 422, "known aliases: aws"),
        (format!("SELECT * FROM read_csv('aws://{bucket}/in/a.csv'), read_text('aws://{bucket}/in/a.csv')"), 422, "read_text"),
        (format!("SELECT * FROM read_csv('aws://{bucket}/in/a.csv'), duckdb_secrets()"), 422, "duckdb_secrets"),
        (format!("SELECT * FROM read_csv('s3://{bucket}/in/a.csv')"), 422, "read_csv"),
        (format!("SELECT * FROM read_csv('aws://{bucket}/no.csv')"), 404, "no.csv"),
    ] {
        let answer = query(sql.clone(), both.clone()).await;
        assert!(answer.status == status && answer.body["error"].as_str().unwrap().contains(word), "{sql}: {answer:?}");
    }
}
