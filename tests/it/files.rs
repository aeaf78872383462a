//! Data files over the REST API: what is read, what is refused, and that a change leaves the old file or the new one.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use millrace_tests::api::Response;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Server;

/// A server that opens one folder of its test.
struct Place {
    server: Server,
    dir: tempfile::TempDir,
}

impl Place {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = dir.path().join("open").display().to_string();
        std::fs::create_dir(&roots).unwrap();
        let mut all = vec![("MILLRACE_FILE_ROOTS", roots.as_str()), ("HOME", roots.as_str())];
        all.extend(env);
        Self { server: Server::start_in(&[], &all).await, dir }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join("open").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    async fn get(&self, route: &str, path: &Path, more: &str) -> Response {
        let path: String = url::form_urlencoded::byte_serialize(path.display().to_string().as_bytes()).collect();
        self.server.api.get(&format!("{route}?path={path}{more}")).await.unwrap()
    }

    /// The rows of a file by column, without their ordinals.
    async fn rows(&self, path: &Path) -> Vec<Value> {
        let response = self.get("/files/data", path, "").await;
        assert_eq!(response.status, 200, "{response:?}");
        response.body["data"].as_array().unwrap().clone()
    }

    async fn query(&self, sql: &str) -> Response {
        let scope = self.dir.path().join("open").display().to_string();
        self.server.api.post("/files/query", json!({"query": sql, "scopePath": scope})).await.unwrap()
    }

    async fn apply(&self, path: &Path, change: Value, etag: Option<&str>) -> Response {
        let mut body = json!({"path": path});
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let headers: Vec<(&str, &str)> = etag.map(|etag| ("If-Match", etag)).into_iter().collect();
        self.server.api.call_with(Method::POST, "/files/rows/apply", Some(body), &headers).await.unwrap()
    }

    /// A file as DuckDB writes it.
    async fn parquet(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("open").join(name);
        let bytes = include_bytes!("files/types.parquet");
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn ungzip(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

fn code(response: &Response) -> &str {
    response.body["code"].as_str().unwrap_or_default()
}

const ODD_CSV: &str = "id;name;zip;note\r\n1;\"Smith; J\";00501;\"say \"\"hi\"\"\"\r\n2;;01000;\"\"\r\n3;\"two\r\nlines\";99999;1e5\r\n";

#[tokio::test]
async fn files_are_described_paged_counted_sniffed_summarised_and_queried() {
    let place = Place::start().await;
    let csv = place.write("a.csv", "id,name,at\n1,x,2024-01-01\n2,y,2024-01-02\n3,,2024-01-03\n");
    let meta = place.get("/files/meta", &csv, "&stats=true").await.body;
    assert_eq!((&meta["rowCount"], &meta["columnCount"], &meta["format"]), (&json!(3), &json!(3), &json!("csv")), "{meta}");
    assert_eq!(meta["csvDialect"]["delimiter"], ",");
    assert_eq!(meta["columns"][2]["type"], "DATE");
    let page = place.get("/files/data", &csv, "&order_by=id&order_dir=DESC&where=id%20%3E%201&limit=1").await;
    assert_eq!(page.body["data"], json!([{"id": 3, "name": null, "at": "2024-01-03", "__rowid": 2}]), "{page:?}");
    assert_eq!(page.body["total"], 2);
    assert!(page.etag.is_some());
    let skipped = place.get("/files/data", &csv, "&skipCount=true&offset=1&max_rows=2").await.body;
    assert_eq!((skipped["data"].as_array().unwrap().len(), &skipped["total"]), (1, &json!(-1)));
    assert_eq!(place.get("/files/count", &csv, "&where=name%20is%20null").await.body["count"], 1);
    let sniffed = place.server.api.post("/files/csv/sniff", json!({"path": csv, "format": "csv"})).await.unwrap().body;
    assert_eq!((&sniffed["hasHeader"], &sniffed["columns"][0]["type"]), (&json!(true), &json!("BIGINT")), "{sniffed}");
    assert!(sniffed["prompt"].as_str().unwrap().contains("read_csv"));
    let summary = place.server.api.post("/files/summary", json!({"path": csv})).await.unwrap().body;
    assert_eq!((&summary["rowCount"], &summary["columns"][1]["count"]), (&json!(3), &json!(2)), "{summary}");
    assert_eq!((&summary["columns"][0]["avg"], &summary["columns"][1]["maxLength"]), (&json!(2.0), &json!(1)));
    let jsonl = place.write("b.jsonl", "{\"id\":1,\"total\":1.5}\n{\"id\":3,\"total\":2.5}\n");
    assert_eq!(place.rows(&jsonl).await[1], json!({"id": 3, "total": 2.5, "__rowid": 1}));
    let joined = place.query("SELECT a.name, b.total FROM read_csv('a.csv') a JOIN 'b.jsonl' b USING (id) ORDER BY id").await;
    assert_eq!(joined.body["rows"], json!([["x", 1.5], [null, 2.5]]), "{joined:?}");
    let json = place.write("c.json", "[{\"a\": 1, \"b\": [\"x\"]}, {\"a\": 2.5}]");
    let structure = place.get("/files/meta", &json, "").await.body["jsonStructure"].clone();
    assert_eq!((&structure["rootType"], &structure["isHomogeneous"]), (&json!("array"), &json!(false)), "{structure}");
    assert_eq!(structure["arrayInfo"], json!({"elementCount": 2, "elementType": "object", "isHomogeneous": false, "maxDepth": 2}));
    assert_eq!(structure["pathStats"]["$.a"], json!({"jsonPath": "$.a", "occurrences": 2, "type": "number", "isRequired": true}));
    assert_eq!(structure["pathStats"]["$.b[*]"]["type"], "string");
    let structure = place.get("/files/meta", &jsonl, "&stats=true").await.body["jsonStructure"].clone();
    assert_eq!(
        (&structure["rootType"], &structure["arrayInfo"], &structure["isHomogeneous"]),
        (&json!("object"), &Value::Null, &json!(true))
    );
    place.write("parts/1.csv", "n\n1\n");
    place.write("parts/2.csv", "n\n2\n");
    assert_eq!(place.get("/files/count", &place.dir.path().join("open/parts"), "").await.body["count"], 2);
    assert_eq!(place.query("SELECT sum(n) FROM read_csv('parts/*.csv')").await.body["rows"], json!([[3]]));
}

#[tokio::test]
async fn nothing_outside_the_roots_is_read_listed_or_written() {
    let place = Place::start().await;
    place.write("a.csv", "a\n1\n");
    std::fs::write(place.dir.path().join("secret.csv"), "s\nhunter2\n").unwrap();
    std::os::unix::fs::symlink(place.dir.path().join("secret.csv"), place.dir.path().join("open/link.csv")).unwrap();
    std::os::unix::fs::symlink(place.dir.path(), place.dir.path().join("open/up")).unwrap();
    let open = place.dir.path().join("open");
    for path in ["/etc/passwd", "link.csv", "up/secret.csv", "../secret.csv", "a.csv\0", "%2e%2e/secret.csv", "http://127.0.0.1/x.csv"] {
        let whole = if path.contains("://") { PathBuf::from(path) } else { open.join(path) };
        for route in ["/files/meta", "/files/data", "/files/count"] {
            let response = place.get(route, &whole, "").await;
            assert!((400..500).contains(&response.status), "{route} {path}: {response:?}");
            assert!(!response.body.to_string().contains("hunter2"));
        }
        let response = place.apply(&whole, json!({"inserts": [{"values": {"s": "x"}}]}), None).await;
        assert!((400..500).contains(&response.status), "{path}: {response:?}");
    }
    assert_eq!(code(&place.get("/files/meta", &open.join("link.csv"), "").await), "PATH_REFUSED");
    for sql in [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_csv('link.csv')",
        "SELECT * FROM 'up/secret.csv'",
        "SELECT * FROM read_csv('up/*.csv')",
        "SELECT * FROM read_csv('../secret.csv')",
        "SELECT * FROM read_csv('a' || '.csv')",
        "SELECT * FROM read_text('a.csv')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
        "COPY (SELECT 1) TO 'x.csv'",
        "ATTACH 'x.db'",
        "SELECT * FROM read_csv('a.csv') WHERE a IN (SELECT * FROM read_blob('a.csv'))",
        "SELECT getenv('HOME')",
        "SELECT json_serialize_plan('SELECT * FROM read_csv(''/etc/passwd'')')",
        "SELECT 1; SELECT 2",
    ] {
        let response = place.query(sql).await;
        assert!((400..500).contains(&response.status), "{sql}: {response:?}");
        assert!(!response.body.to_string().contains("hunter2"), "{sql}");
    }
    for condition in
        ["1=1) UNION SELECT (1", "1 IN (SELECT 1 FROM read_csv('/etc/passwd'))", "1), (2", "json_serialize_plan('SELECT 1') IS NULL"]
    {
        let condition: String = url::form_urlencoded::byte_serialize(condition.as_bytes()).collect();
        let response = place.get("/files/data", &open.join("a.csv"), &format!("&where={condition}")).await;
        assert_eq!(code(&response), "STATEMENT_REFUSED", "{response:?}");
    }
    assert_eq!(std::fs::read_to_string(place.dir.path().join("secret.csv")).unwrap(), "s\nhunter2\n");
    let data = place.server.dir.path().join("x.csv");
    std::fs::write(&data, "a\n1\n").unwrap();
    assert_eq!(code(&place.get("/files/meta", &data, "").await), "PATH_REFUSED");
}

#[tokio::test]
async fn changed_csv_files_keep_their_dialect_and_every_other_value() {
    let place = Place::start().await;
    let csv = place.write("odd.csv", ODD_CSV);
    let change = json!({"edits": [{"rowId": 0, "changes": {"note": "a;b"}}], "deletes": [{"rowId": 1}],
        "inserts": [{"values": {"id": 4, "name": null, "zip": "00001"}}]});
    let response = place.apply(&csv, change, None).await;
    assert_eq!(response.body, json!({"status": "success", "updated": 1, "inserted": 1, "deleted": 1}), "{response:?}");
    let text = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(text, "id;name;zip;note\r\n1;\"Smith; J\";00501;\"a;b\"\r\n3;\"two\r\nlines\";99999;1e5\r\n4;;00001;\r\n");
    let before = place.write("odd2.csv", ODD_CSV);
    let response = place.apply(&before, json!({"edits": [{"rowId": 2, "changes": {"name": "x"}}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    let kept = "id;name;zip;note\r\n1;\"Smith; J\";00501;\"say \"\"hi\"\"\"\r\n2;;01000;\"\"\r\n3;x;99999;1e5\r\n";
    assert_eq!(std::fs::read_to_string(&before).unwrap(), kept);
    let packed = place.write("a.csv.gz", gzip("a,b\n1,007\n2,x\n"));
    let response = place.apply(&packed, json!({"edits": [{"rowId": 1, "changes": {"b": "y"}}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(ungzip(&packed), "a,b\n1,007\n2,y\n");
}

#[tokio::test]
async fn changed_json_files_keep_every_other_digit() {
    let place = Place::start().await;
    let json_file =
        place.write("a.json", "[\n  {\"id\": 1.50, \"big\": 123456789012345678901234567890},\n  {\"id\": 2, \"big\": null}\n]\n");
    let response = place.apply(&json_file, json!({"edits": [{"rowId": 1, "changes": {"id": 9}}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    let text = std::fs::read_to_string(&json_file).unwrap();
    assert!(text.contains("1.50") && text.contains("123456789012345678901234567890"), "{text}");
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((read.as_array().unwrap().len(), &read[1]), (2, &json!({"id": 9, "big": null})));
    let lines = place.write("b.jsonl.gz", gzip("{\"a\":1,\"t\":\"x\"}\n{\"a\":2,\"t\":\"007\"}\n"));
    let change = json!({"deletes": [{"rowId": 0}], "inserts": [{"values": {"t": "y", "a": "9007199254740993"}}]});
    let response = place.apply(&lines, change, None).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(ungzip(&lines), "{\"a\":2,\"t\":\"007\"}\n{\"a\":9007199254740993,\"t\":\"y\"}\n");
}

#[tokio::test]
async fn changed_parquet_files_keep_types_and_compression() {
    let place = Place::start().await;
    let path = place.parquet("t.parquet").await;
    let before = place.get("/files/meta", &path, "").await.body;
    let response = place
        .apply(&path, json!({"edits": [{"rowId": 0, "changes": {"d": "1.25", "l": [7], "b": "\\x00z"}}], "deletes": [{"rowId": 1}]}), None)
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let after = place.get("/files/meta", &path, "").await.body;
    assert_eq!(before["columns"], after["columns"]);
    assert_eq!((&after["rowCount"], &after["formatInfo"]["compression"]), (&json!(2), &before["formatInfo"]["compression"]));
    assert_eq!(after["formatInfo"]["compression"], json!(["ZSTD"]));
    let rows = place.rows(&path).await;
    assert_eq!((&rows[0]["d"], &rows[0]["l"], &rows[0]["b"]), (&json!(1.25), &json!([7]), &json!("\\x00z")), "{rows:?}");
    assert_eq!((&rows[1]["i"], &rows[1]["d"]), (&json!(3), &Value::Null), "{rows:?}");
}

/// Changes of one value of the first row that are refused, and leave the file as it is.
async fn refuses(place: &Place, path: &Path, column: &str, values: &[Value]) {
    let before = std::fs::read(path).unwrap();
    for value in values {
        for change in [json!({"edits": [{"rowId": 0, "changes": {column: value}}]}), json!({"inserts": [{"values": {column: value}}]})] {
            let response = place.apply(path, change, None).await;
            assert_eq!(code(&response), "VALUE_REFUSED", "{column} {value}: {response:?}");
            assert!(response.body["error"].as_str().unwrap().contains(&format!("`{column}`")), "{response:?}");
            assert!(std::fs::read(path).unwrap() == before, "{column} {value}");
        }
    }
}

#[tokio::test]
async fn values_that_a_type_would_round_or_cut_are_refused() {
    let place = Place::start().await;
    let parquet = place.parquet("t.parquet").await;
    refuses(&place, &parquet, "i", &[json!(1.5), json!("1.5"), json!("1e3")]).await;
    refuses(&place, &parquet, "d", &[json!("12.345"), json!(12.345), json!("1e-3")]).await;
    refuses(&place, &parquet, "l", &[json!([1.5])]).await;
    let text = "id,day,at,ok\n1,2024-01-01,2024-01-01 10:00:00,true\n2,2024-01-02,2024-01-02 11:30:00,false\n";
    let csv = place.write("a.csv", text);
    let jsonl = place.write(
        "a.jsonl",
        "{\"id\":1,\"day\":\"2024-01-01\",\"at\":\"2024-01-01 10:00:00\"}\n{\"id\":2,\"day\":\"2024-01-02\",\"at\":\"2024-01-02 11:30:00\"}\n",
    );
    for file in [&csv, &jsonl] {
        refuses(&place, file, "id", &[json!(1.5), json!("9007199254740993.0"), json!("word")]).await;
        refuses(&place, file, "day", &[json!("2024-01-01 23:00"), json!("2024-13-01")]).await;
        refuses(&place, file, "at", &[json!("2024-01-01 10:00:00+02"), json!("2024-01-01 10:00:00.1234567")]).await;
    }
    let change =
        json!({"edits": [{"rowId": 0, "changes": {"id": "9007199254740993", "day": "2024-02-29", "at": "2024-02-29T12:00:00Z", "ok": 0}}]});
    let response = place.apply(&csv, change, None).await;
    assert_eq!(response.status, 200, "{response:?}");
    let changed = "id,day,at,ok\n9007199254740993,2024-02-29,2024-02-29 12:00:00,false\n2,2024-01-02,2024-01-02 11:30:00,false\n";
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), changed);
    let response = place.apply(&parquet, json!({"edits": [{"rowId": 0, "changes": {"i": "7", "d": "12.340"}}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
}

#[tokio::test]
async fn dates_are_written_as_the_file_writes_them() {
    let place = Place::start().await;
    // The row that is changed lies beyond what the engine looks at to learn a file's types.
    let mut text = String::from("id,day,at\n");
    for id in 0..40_000 {
        text.push_str(&format!("{id},{:02}/{:02}/2024,{:02}/{:02}/2024 10:00:00\n", id % 28 + 1, id % 12 + 1, id % 28 + 1, id % 12 + 1));
    }
    let csv = place.write("a.csv", &text);
    let change = json!({"edits": [{"rowId": 39_999, "changes": {"day": "2024-01-25", "at": "2024-01-25 11:30:00"}}],
        "inserts": [{"values": {"id": 40_000, "day": "2023-12-31"}}]});
    let response = place.apply(&csv, change, None).await;
    assert_eq!(response.status, 200, "{response:?}");
    let changed = std::fs::read_to_string(&csv).unwrap();
    assert!(changed.ends_with("\n39999,25/01/2024,25/01/2024 11:30:00\n40000,31/12/2023,\n"), "{}", &changed[changed.len() - 200..]);
    let page = place.get("/files/data", &csv, "&offset=39999&limit=2").await;
    let rows = json!([{"id": 39_999, "day": "2024-01-25", "at": "2024-01-25 11:30:00", "__rowid": 39_999},
        {"id": 40_000, "day": "2023-12-31", "at": null, "__rowid": 40_000}]);
    assert_eq!(page.body["data"], rows, "{page:?}");
    refuses(&place, &csv, "at", &[json!("2024-01-25 11:30:00.5")]).await;
    // After this nothing would say which of the numbers is the month.
    let one = place.write("one.csv", "id,day\n1,25/01/2024\n");
    let response = place.apply(&one, json!({"edits": [{"rowId": 0, "changes": {"day": "2024-02-05"}}]}), None).await;
    let kept = std::fs::read_to_string(&one).unwrap();
    let rows = place.rows(&one).await;
    match response.status {
        200 => assert_eq!(rows[0]["day"], "2024-02-05", "{kept}"),
        _ => assert_eq!((code(&response), kept.as_str()), ("VALUE_REFUSED", "id,day\n1,25/01/2024\n"), "{response:?}"),
    }
}

#[tokio::test]
async fn an_empty_text_in_csv_is_no_null() {
    let place = Place::start().await;
    let csv = place.write("a.csv", "id,name\n1,x\n2,\n3,\"\"\n");
    let response = place.apply(&csv, json!({"edits": [{"rowId": 0, "changes": {"name": ""}}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    let names: Vec<Value> = place.rows(&csv).await.iter().map(|row| row["name"].clone()).collect();
    assert_eq!(names, [json!(""), json!(null), json!("")]);
    assert_eq!(place.get("/files/count", &csv, "&where=name%3D%27%27").await.body["count"], 2);
    let summary = place.server.api.post("/files/summary", json!({"path": csv})).await.unwrap().body;
    assert_eq!(summary["columns"][1]["count"], 2, "{summary}");
    // Numbers stay numbers where a program has quoted nothing, in the first rows or later.
    let quoted = place.write("b.csv", "\"id\",\"name\"\n\"1\",\"x\"\n\"\",\"\"\n");
    let rows = place.rows(&quoted).await;
    assert_eq!(rows[1], json!({"id": null, "name": null, "__rowid": 1}), "{rows:?}");
    let mut late = String::from("id,name\n");
    for id in 0..30_000 {
        late.push_str(&format!("{id},\"x\"\n"));
    }
    late.push_str("\"\",y\n");
    let late = place.write("c.csv", late);
    let page = place.get("/files/data", &late, "&offset=29999&limit=5").await;
    assert_eq!(page.body["data"][1], json!({"id": null, "name": "y", "__rowid": 30_000}), "{page:?}");
}

#[tokio::test]
async fn numbers_inside_of_values_keep_their_digits() {
    let place = Place::start().await;
    let jsonl = place.write("a.jsonl", "{\"id\":1,\"l\":[9007199254740993,2],\"s\":{\"n\":9007199254740993,\"t\":\"1\"}}\n");
    let kept = json!({"id": 1, "l": ["9007199254740993", 2], "s": {"n": "9007199254740993", "t": "1"}, "__rowid": 0});
    assert_eq!(place.rows(&jsonl).await[0], kept);
    let changes = json!({"l": kept["l"], "s": kept["s"], "id": 2});
    let response = place.apply(&jsonl, json!({"edits": [{"rowId": 0, "changes": changes}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    let text = "{\"id\":2,\"l\":[9007199254740993,2],\"s\":{\"n\":9007199254740993,\"t\":\"1\"}}\n";
    assert_eq!(std::fs::read_to_string(&jsonl).unwrap(), text);
    let answer = place.query("SELECT [123456789012345678.12::DECIMAL(20,2), 0.5], {'a': 9007199254740993, 'b': 'x'}").await;
    assert_eq!(answer.body["rows"], json!([[["123456789012345678.12", 0.5], {"a": "9007199254740993", "b": "x"}]]), "{answer:?}");
}

#[tokio::test]
async fn a_file_whose_name_could_be_a_pattern_is_that_file() {
    let place = Place::start().await;
    for (name, twin) in [("data[1].csv", "data1.csv"), ("a*b.csv", "axb.csv"), ("q?.csv", "qq.csv"), ("j[1].json", "j1.json")] {
        let row = |value: &str| if name.ends_with("json") { format!("[{{\"a\":\"{value}\"}}]") } else { format!("a\n{value}\n") };
        let path = place.write(name, row("own"));
        place.write(twin, row("other"));
        assert_eq!(place.rows(&path).await, [json!({"a": "own", "__rowid": 0})], "{name}");
        assert_eq!(place.get("/files/count", &path, "").await.body["count"], 1, "{name}");
        assert_eq!(place.get("/files/meta", &path, "&stats=true").await.status, 200, "{name}");
        let reader = if name.ends_with("json") { "read_json" } else { "read_csv" };
        for sql in [format!("SELECT a FROM {reader}('{name}')"), format!("SELECT a FROM '{name}'")] {
            let answer = place.query(&sql).await;
            assert_eq!(answer.body["rows"], json!([["own"]]), "{sql}: {answer:?}");
        }
        let response = place.apply(&path, json!({"edits": [{"rowId": 0, "changes": {"a": "new"}}]}), None).await;
        assert_eq!(response.status, 200, "{name}: {response:?}");
        assert_eq!(place.rows(&path).await[0]["a"], "new", "{name}");
        assert_eq!(place.rows(&path.with_file_name(twin)).await[0]["a"], "other", "{name}");
    }
    let all = place.query("SELECT count(*) FROM read_csv('*.csv')").await;
    assert_eq!(all.body["rows"], json!([[6]]), "{all:?}");
    let listed = place.get("/files/count", &place.dir.path().join("open/data*.csv"), "").await;
    assert_eq!(listed.body["count"], 2, "{listed:?}");
}

#[tokio::test]
async fn rows_that_nobody_changed_lose_nothing() {
    let place = Place::start().await;
    let old = place.write("int96.parquet", include_bytes!("files/int96.parquet"));
    let before = std::fs::read(&old).unwrap();
    let response = place.apply(&old, json!({"edits": [{"rowId": 0, "changes": {"id": 7}}]}), None).await;
    assert_eq!((response.status, code(&response)), (422, "NOT_SUPPORTED"), "{response:?}");
    assert!(response.body["error"].as_str().unwrap().contains("INT96"), "{response:?}");
    assert_eq!(std::fs::read(&old).unwrap(), before);
    let marked = place.write("a.csv", "\u{feff}id,name\n1,x\n2,y\n");
    let response = place.apply(&marked, json!({"edits": [{"rowId": 1, "changes": {"name": "z"}}], "deletes": [{"rowId": 0}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(std::fs::read_to_string(&marked).unwrap(), "\u{feff}id,name\n2,z\n");
    let packed = place.write("a.csv.gz", gzip("\u{feff}id,name\n1,x\n"));
    let response = place.apply(&packed, json!({"edits": [{"rowId": 0, "changes": {"name": "z"}}]}), None).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(ungzip(&packed), "\u{feff}id,name\n1,z\n");
}

#[tokio::test]
async fn the_etag_of_many_files_is_short_and_tells_each_of_them() {
    let place = Place::start().await;
    for number in 0..300 {
        place.write(&format!("many/{number}.csv"), "n\n1\n");
    }
    let pattern = place.dir.path().join("open/many/*.csv");
    let etag = async || place.get("/files/data", &pattern, "&limit=1").await.etag.unwrap();
    let first = etag().await;
    assert!((16..100).contains(&first.len()), "{first}");
    assert_eq!(etag().await, first);
    place.write("many/150.csv", "n\n2\n");
    assert_ne!(etag().await, first);
}

#[tokio::test]
async fn a_change_is_done_whole_or_not_at_all() {
    let place = Place::start().await;
    let csv = place.write("a.csv", "id,name\n1,x\n2,y\n");
    for (change, expected) in [
        (json!({"edits": [{"rowId": 0, "changes": {"name": "z"}}, {"rowId": 2, "changes": {"name": "z"}}]}), "VALIDATION_FAILED"),
        (json!({"edits": [{"rowId": 0, "changes": {"nome": "z"}}]}), "VALIDATION_FAILED"),
        (json!({"edits": [{"rowId": 0, "changes": {"name": "z"}}], "deletes": [{"rowId": 0}]}), "VALIDATION_FAILED"),
        (json!({"edits": [{"rowId": 0, "changes": {"id": "word", "name": "z"}}]}), "VALUE_REFUSED"),
        (json!({}), "VALIDATION_FAILED"),
    ] {
        let response = place.apply(&csv, change, None).await;
        assert_eq!(code(&response), expected, "{response:?}");
        assert_eq!(std::fs::read_to_string(&csv).unwrap(), "id,name\n1,x\n2,y\n");
    }
    let left: Vec<_> = std::fs::read_dir(csv.parent().unwrap()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    place.write("parts/1.csv", "n\n1\n");
    let response = place.apply(&place.dir.path().join("open/parts"), json!({"deletes": [{"rowId": 0}]}), None).await;
    assert_eq!(code(&response), "NOT_SUPPORTED", "{response:?}");
}

#[tokio::test]
async fn of_two_editors_who_saw_the_same_file_one_is_told_to_read_again() {
    let place = Place::start().await;
    let csv = place.write("a.csv", "id,name\n1,x\n2,y\n");
    let etag = place.get("/files/data", &csv, "").await.etag.unwrap();
    let change = |name: &str| json!({"edits": [{"rowId": 0, "changes": {"name": name}}]});
    let (one, two) = tokio::join!(place.apply(&csv, change("one"), Some(&etag)), place.apply(&csv, change("two"), Some(&etag)));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412], "{one:?} {two:?}");
    let (winner, loser) = if one.status == 200 { ("one", &two) } else { ("two", &one) };
    assert_eq!(code(loser), "FILE_CHANGED");
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), format!("id,name\n1,{winner}\n2,y\n"));
    let fresh = if one.status == 200 { one.etag } else { two.etag };
    assert_eq!(place.apply(&csv, change("three"), fresh.as_deref()).await.status, 200);
}

#[tokio::test]
async fn a_killed_change_leaves_the_old_file_or_the_new_one_and_its_copy_is_swept() {
    for (moment, is_new) in [("copied", false), ("synced", false), ("renamed", true)] {
        let mut place = Place::start_with(&[("MILLRACE_FAILPOINT", &format!("rewrite-{moment}"))]).await;
        let csv = place.write("a.csv", "id,name\n1,x\n2,y\n");
        let response = place.apply(&csv, json!({"deletes": [{"rowId": 0}]}), None).await;
        assert_eq!(response.status, 500, "{moment}: {response:?}");
        let expected = if is_new { "id,name\n2,y\n" } else { "id,name\n1,x\n2,y\n" };
        assert_eq!(std::fs::read_to_string(&csv).unwrap(), expected, "{moment}");
        let count = || std::fs::read_dir(csv.parent().unwrap()).unwrap().count();
        assert_eq!(count(), if is_new { 1 } else { 2 }, "{moment}");
        // The failpoint goes with the restart; so do the roots, but for the home directory.
        place.server.process.kill().await;
        let roots = csv.parent().unwrap().display().to_string();
        let dir = place.server.dir.path().to_owned();
        let (process, base) = millrace_tests::process::Process::serve_with(&dir, &[], &[("MILLRACE_FILE_ROOTS", &roots)]).await.unwrap();
        place.server.process = process;
        place.server.api.base = base;
        assert_eq!(place.apply(&csv, json!({"inserts": [{"values": {"id": 5, "name": "n"}}]}), None).await.status, 200);
        assert_eq!(count(), 1, "{moment}");
        assert_eq!(std::fs::read_to_string(&csv).unwrap(), format!("{expected}5,n\n"), "{moment}");
    }
}

#[tokio::test]
async fn folders_are_listed_with_formats_and_tables_and_hidden_entries_are_left_out() {
    let place = Place::start().await;
    let csv = place.write("a.csv.gz", gzip("a\n1\n"));
    place.write("note.txt", "x");
    place.write(".hidden.csv", "x");
    place.write("parts/1.parquet", "x");
    place.write("parts/manifest.json", "{}");
    place.write("mixed/1.csv", "a\n");
    place.write("mixed/2.jsonl", "{}");
    let open = csv.parent().unwrap();
    let listing = place.get("/fs/list", open, "&connectionType=files").await.body;
    let seen: Vec<(&str, &Value, &Value)> = listing["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), &entry["format"], &entry["isTable"]))
        .collect();
    let expected =
        [("mixed", &Value::Null, &json!(false)), ("parts", &json!("parquet"), &json!(true)), ("a.csv.gz", &json!("csv"), &Value::Null)];
    assert_eq!(seen, expected, "{listing}");
    assert_eq!(place.get("/fs/list", Path::new("/etc"), "").await.status, 403);
    let roots = place.server.api.get("/fs/roots").await.unwrap().body;
    assert!(roots.as_array().unwrap().contains(&json!(open)), "{roots}");
    let writable = |path: PathBuf| {
        let api = place.server.api.clone();
        async move { api.post("/fs/writable", json!({"path": path})).await.unwrap().body }
    };
    assert_eq!(writable(open.join("new.csv")).await, json!({"ok": true}));
    assert_eq!(writable("/etc".into()).await["ok"], false);
}

#[tokio::test]
async fn connections_of_type_files_are_kept_tested_and_give_relative_paths_a_place() {
    let place = Place::start().await;
    place.write("a.csv", "a\n1\n");
    let open = place.dir.path().join("open");
    let body = json!({"name": "exports", "type": "files", "spec": {"files": {"basePath": open}}});
    let api = &place.server.api;
    assert_eq!(api.post("/connections/test", body.clone()).await.unwrap().body, json!({"ping": "ok"}));
    let id = api.post("/connections", body).await.unwrap().text("id").unwrap();
    assert_eq!(api.post(&format!("/connections/{id}/ping"), Value::Null).await.unwrap().status, 200);
    assert_eq!(api.get(&format!("/files/count?path=a.csv&connectionId={id}")).await.unwrap().body["count"], 1);
    let queried = api.post("/files/query", json!({"query": "SELECT * FROM 'a.csv'", "connectionId": id})).await.unwrap();
    assert_eq!(queried.body["rows"], json!([[1]]), "{queried:?}");
    let outside = json!({"name": "etc", "type": "file", "path": "/etc"});
    assert_eq!(code(&api.post("/connections/test", outside).await.unwrap()), "PATH_REFUSED");
    let relative = json!({"name": "x", "type": "files", "spec": {"files": {"basePath": "exports"}}});
    assert_eq!(code(&api.post("/connections", relative).await.unwrap()), "VALIDATION_FAILED");
}
