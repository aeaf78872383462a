//! Connections to files in the place of databases: folders are databases, files and folders of files are tables.

use std::path::PathBuf;

use millrace_tests::api::Response;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Server;

/// A server that opens one folder, and a connection to it.
struct Place {
    server: Server,
    dir: tempfile::TempDir,
    connection: String,
}

impl Place {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shop = dir.path().join("open/shop");
        std::fs::create_dir_all(&shop).unwrap();
        let roots = dir.path().join("open").display().to_string();
        let server = Server::start_in(&[], &[("MILLRACE_FILE_ROOTS", roots.as_str()), ("HOME", roots.as_str())]).await;
        let body = json!({"name": "data", "type": "files", "spec": {"files": {"basePath": shop}}});
        let connection = server.api.post("/connections", body).await.unwrap().text("id").unwrap();
        let place = Self { server, dir, connection };
        place.write("orders.csv", "id,name\n1,x\n2,y\n3,z\n");
        place.write("notes.txt", "no table");
        place.write("parts/1.jsonl", "{\"n\":1}\n");
        place.write("parts/2.jsonl", "{\"n\":2}\n");
        place.write("mixed/a.csv", "a\n1\n");
        place.write("mixed/b.json", "[{\"b\": 1}]");
        std::fs::write(place.dir.path().join("open/other.csv"), "s\nhunter2\n").unwrap();
        place
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join("open/shop").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("open/shop").join(name)).unwrap()
    }

    async fn call(&self, method: Method, rest: &str, body: Option<Value>) -> Response {
        self.server.api.call(method, &format!("/connections/{}{rest}", self.connection), body).await.unwrap()
    }

    async fn get(&self, rest: &str) -> Value {
        let answer = self.call(Method::GET, rest, None).await;
        assert_eq!(answer.status, 200, "{rest}: {answer:?}");
        answer.body
    }
}

fn code(answer: &Response) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn folders_are_databases_and_files_are_tables() {
    let place = Place::start().await;
    let databases = place.get("/databases").await;
    let names: Vec<&str> = databases.as_array().unwrap().iter().map(|database| database["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop", "mixed", "parts"]);
    assert_eq!(place.get("/databases/shop/tables").await, json!(["orders.csv", "parts"]));
    assert_eq!(place.get("/tables").await, json!(["orders.csv", "parts"]), "the connection's own folder is its default");
    assert_eq!(place.get("/databases/mixed/tables").await, json!(["a.csv", "b.json"]));
    assert_eq!(place.get("/databases/shop/views").await, json!([]));

    let meta = place.get("/databases/shop/meta").await;
    let orders = &meta["tables"]["orders.csv"];
    assert_eq!((&orders["columns"][0]["name"], &orders["columns"][0]["dataType"]), (&json!("id"), &json!("BIGINT")), "{meta}");
    assert_eq!((&orders["isEditable"], &orders["editKeyColumns"]), (&json!(true), &json!(["__rowid"])));
    assert_eq!((&meta["tables"]["parts"]["isEditable"], &meta["schemas"]), (&json!(false), &Value::Null), "{meta}");
    assert!(meta["tables"]["parts"]["editabilityReason"].is_string());
    let summary = place.get("/databases/shop/meta?summary=true").await;
    assert_eq!((&summary["tables"], &summary["stats"]["tables"]), (&json!(["orders.csv", "parts"]), &json!(2)), "{summary}");
    assert_eq!(place.get("/databases/parts/tables/1.jsonl/meta").await["columns"][0]["name"], "n");
    place.write("broken.parquet", "no parquet");
    let broken = place.get("/databases/shop/meta?refresh=true").await;
    assert!(
        broken["tables"]["broken.parquet"]["editabilityReason"].is_string() && broken["tables"]["orders.csv"]["columns"][0].is_object()
    );

    let made = place.server.api.call_text(Method::POST, &format!("/connections/{}/databases", place.connection), "new", &[]).await.unwrap();
    assert_eq!(made.status, 200, "{made:?}");
    assert!(place.dir.path().join("open/shop/new").is_dir());
    assert_eq!(place.get("/databases/new/tables").await, json!([]));
}

#[tokio::test]
async fn rows_of_files_are_paged_counted_and_summarised() {
    let place = Place::start().await;
    let page = place.get("/databases/shop/tables/orders.csv/data?where=id%20%3E%201&order_by=id&order_dir=DESC&limit=1").await;
    assert_eq!((&page["columns"], &page["rows"]), (&json!(["id", "name", "__rowid"]), &json!([[3, "z", 2]])), "{page}");
    assert_eq!((&page["total_count"], &page["count"]), (&json!(2), &json!(1)));
    assert_eq!(page["etags"].as_array().unwrap().len(), 1);
    let folder = place.get("/databases/shop/tables/parts/data?skip_count=true").await;
    assert_eq!(
        (&folder["rows"], &folder["total_count"], &folder["etags"]),
        (&json!([[1, 0], [2, 1]]), &json!(0), &Value::Null),
        "{folder}"
    );
    assert_eq!(place.get("/databases/shop/tables/orders.csv/count?where=name%20%3D%20%27x%27").await["count"], 1);
    let summary = place.call(Method::POST, "/databases/shop/tables/orders.csv/summary", Some(json!({}))).await.body;
    assert_eq!((&summary["rowCount"], &summary["columns"][0]["max"]), (&json!(3), &json!("3")), "{summary}");
    let query = json!({"query": "SELECT id, name FROM 'orders.csv'"});
    let columns = place.call(Method::POST, "/databases/shop/query/columns", Some(query)).await.body;
    assert_eq!(columns["columns"], json!([{"name": "id", "type": "BIGINT"}, {"name": "name", "type": "VARCHAR"}]), "{columns}");
}

#[tokio::test]
async fn rows_of_single_files_are_changed_as_those_of_tables() {
    let place = Place::start().await;
    let base = "/databases/shop/tables/orders.csv/rows";
    let edit = |key: u64, name: &str, etag: Option<&Value>| {
        let mut edit = json!({"keys": {"__rowid": key}, "changes": {"name": name}});
        if let Some(etag) = etag {
            edit["etag"] = etag.clone();
        }
        json!({"edits": [edit]})
    };
    let etag = place.get("/databases/shop/tables/orders.csv/data").await["etags"][0].clone();
    let edited = place.call(Method::PATCH, &format!("{base}/edit"), Some(edit(1, "why", Some(&etag)))).await;
    assert_eq!(edited.body, json!({"status": "success", "updated": 1, "rows": [{"id": 2, "name": "why", "__rowid": 1}]}), "{edited:?}");
    let late = place.call(Method::PATCH, &format!("{base}/edit"), Some(edit(1, "late", Some(&etag)))).await;
    assert_eq!(code(&late), (412, "PRECONDITION_FAILED"), "{late:?}");
    let inserted = place.call(Method::POST, &format!("{base}/insert"), Some(json!({"inserts": [{"values": {"id": 4}}]}))).await;
    assert_eq!((inserted.status, &inserted.body["inserted"]), (200, &json!(1)), "{inserted:?}");
    let deleted = place.call(Method::DELETE, &format!("{base}/delete"), Some(json!({"deletes": [{"keys": {"__rowid": 0}}]}))).await;
    assert_eq!((deleted.status, &deleted.body["deleted"]), (200, &json!(1)), "{deleted:?}");
    assert_eq!(place.read("orders.csv"), "id,name\n2,why\n3,z\n4,\n");

    let folder =
        place.call(Method::POST, "/databases/shop/tables/parts/rows/insert", Some(json!({"inserts": [{"values": {"n": 3}}]}))).await;
    assert_eq!(code(&folder), (422, "NOT_SUPPORTED"), "{folder:?}");
    for (method, rest, body, expected, field) in [
        (
            Method::PATCH,
            "edit",
            json!({"edits": [{"keys": {"id": 2}, "changes": {"name": "x"}}]}),
            (400, "VALIDATION_FAILED"),
            "edits[0].keys",
        ),
        (Method::DELETE, "delete", json!({"deletes": [{"keys": {}}]}), (400, "VALIDATION_FAILED"), "deletes[0].keys"),
        (Method::POST, "insert", json!({"inserts": [{"values": {"id": 1}}], "onConflict": "update"}), (422, "NOT_SUPPORTED"), "onConflict"),
    ] {
        let answer = place.call(method, &format!("{base}/{rest}"), Some(body)).await;
        assert_eq!((code(&answer), &answer.body["details"]["field"]), (expected, &json!(field)), "{answer:?}");
    }
    let outside = place.call(Method::PATCH, &format!("{base}/edit"), Some(edit(9, "x", None))).await;
    assert_eq!(outside.status, 400, "{outside:?}");
    assert_eq!(place.read("orders.csv"), "id,name\n2,why\n3,z\n4,\n", "a change that fails changes nothing");
}

#[tokio::test]
async fn what_files_do_not_have_is_refused_and_nothing_leads_out_of_the_folder() {
    let place = Place::start().await;
    let root = place.dir.path().join("open").display().to_string();
    let encoded: String = url::form_urlencoded::byte_serialize(root.as_bytes()).collect();
    for (method, rest, body, expected) in [
        (Method::GET, "/databases/shop/schemas", None, (422, "NOT_SUPPORTED")),
        (Method::GET, "/databases/shop/overview", None, (422, "NOT_SUPPORTED")),
        (Method::GET, "/databases/shop/tables/orders.csv/ddl", None, (422, "NOT_SUPPORTED")),
        (Method::GET, "/databases/shop/views/orders.csv/ddl", None, (422, "NOT_SUPPORTED")),
        (Method::GET, "/databases/shop/views/orders.csv/meta", None, (422, "NOT_SUPPORTED")),
        (Method::POST, "/databases/shop/query", Some(json!({"query": "DROP TABLE x"})), (422, "NOT_SUPPORTED")),
        (Method::POST, "/query", Some(json!({"query": "SELECT 1"})), (422, "NOT_SUPPORTED")),
        (Method::GET, "/databases/shop/tables/orders.csv/data?after=abc", None, (422, "NOT_SUPPORTED")),
        (Method::GET, "/databases/shop/tables/orders.csv/data?schema=public", None, (400, "VALIDATION_FAILED")),
        (Method::GET, "/databases/shop/tables/orders.csv/data?order_by=nothing", None, (400, "VALIDATION_FAILED")),
        (Method::GET, "/databases/shop/tables/orders.csv/data?where=1)%20UNION%20SELECT%20(1", None, (422, "STATEMENT_REFUSED")),
        (Method::GET, "/databases/nowhere/tables", None, (422, "OBJECT_MISSING")),
        (Method::GET, "/databases/shop/tables/nothing.csv/meta", None, (422, "OBJECT_MISSING")),
        (Method::GET, "/databases/shop/tables/notes.txt/data", None, (422, "OBJECT_MISSING")),
        (Method::GET, "/databases/shop/tables/mixed/data", None, (422, "OBJECT_MISSING")),
        (Method::GET, &format!("/databases/{encoded}/tables"), None, (403, "PATH_REFUSED")),
        (Method::GET, "/databases/shop/tables/..%2F..%2Fother.csv/data", None, (422, "OBJECT_MISSING")),
        (
            Method::POST,
            "/databases/shop/query/columns",
            Some(json!({"query": "SELECT * FROM read_csv('/etc/passwd')"})),
            (403, "PATH_REFUSED"),
        ),
    ] {
        let answer = place.call(method, rest, body).await;
        assert_eq!(code(&answer), expected, "{rest}: {answer:?}");
        assert!(!answer.body.to_string().contains("hunter2"));
    }
    let up = place.call(Method::GET, "/databases/..%2F/tables", None).await;
    assert!((400..500).contains(&up.status), "{up:?}");
    for name in ["a%2Fb", "..", ".hidden", "parts"] {
        let name = name.replace("%2F", "/");
        let path = format!("/connections/{}/databases", place.connection);
        let made = place.server.api.call_text(Method::POST, &path, &name, &[]).await.unwrap();
        assert!([400, 409].contains(&made.status), "{name}: {made:?}");
    }
}
