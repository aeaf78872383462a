//! What a hostile client sends: the server stays up, answers others, and the data stays as it is.

use std::time::{Duration, Instant};

use millrace_tests::database::{MySqlDatabase, PgDatabase};
use millrace_tests::servers::shared;
use millrace_tests::suites::rest::Place;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Server;

/// Texts that end quotes of one kind or another and go on as SQL.
const ESCAPES: [&str; 8] = [
    "x\"; DROP TABLE precious; --",
    "x`; DROP TABLE precious; -- ",
    "x'; DROP TABLE precious; --",
    "x\\'; DROP TABLE precious; --",
    "x\" CASCADE; DELETE FROM precious WHERE \"a\"=\"a",
    "precious`, (SELECT SLEEP(30)) AS `y",
    "$$; DROP TABLE precious; $$",
    "\u{2019}; DROP TABLE precious; --",
];

struct Side {
    base: String,
}

async fn sides(place: &Place) -> Vec<Side> {
    let mysql = MySqlDatabase::create(&shared().await.mysql, "hostile").await.unwrap();
    mysql
        .execute(&["CREATE TABLE precious (a INT PRIMARY KEY, b TEXT)".into(), "INSERT INTO precious VALUES (1, 'x')".into()])
        .await
        .unwrap();
    let postgres = PgDatabase::create(&shared().await.postgres, "hostile").await.unwrap();
    postgres.client.batch_execute("CREATE TABLE precious (a INT PRIMARY KEY, b TEXT); INSERT INTO precious VALUES (1, 'x')").await.unwrap();
    let mut sides = Vec::new();
    for (engine, server, name) in [("mysql", &place.mysql, &mysql.name), ("postgresql", &place.postgres, &postgres.name)] {
        let id = place.api.connect(engine, engine, server, name).await.unwrap();
        sides.push(Side { base: format!("/connections/{id}/databases/{name}") });
    }
    sides
}

async fn assert_untouched(place: &Place, side: &Side) {
    let rows = place.api.get(&format!("{}/tables/precious/data", side.base)).await.unwrap();
    assert_eq!((rows.status, &rows.body["rows"], &rows.body["total_count"]), (200, &json!([[1, "x"]]), &json!(1)), "{rows:?}");
    assert_eq!(place.api.get("/health").await.unwrap().status, 200);
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[tokio::test]
async fn names_that_are_sql_are_only_names() {
    let server = Server::start().await;
    for side in sides(&server).await {
        for text in ESCAPES {
            let name = encoded(text);
            for path in [
                format!("/tables/{name}/data"),
                format!("/tables/{name}/meta"),
                format!("/tables/{name}/count"),
                format!("/views/{name}/ddl"),
                format!("/tables/precious/data?order_by=%22{}%22", encoded(&text.replace('"', "\"\""))),
                format!("/tables/precious/data?order_by=a&order_dir={name}"),
                format!("/tables/precious/data?after={name}"),
                format!("/tables/precious/data?schema={name}"),
                format!("/tables?schemas={name}"),
            ] {
                let begun_at = Instant::now();
                let answer = server.api.get(&format!("{}{path}", side.base)).await.unwrap();
                assert!(answer.status < 500, "{path}: {answer:?}");
                assert!(begun_at.elapsed() < Duration::from_secs(20), "{path} slept");
            }
            for (method, path, body) in [
                (Method::PATCH, "/tables/precious/rows/edit", json!({"edits": [{"keys": {"a": 1}, "changes": {(text): 1}}]})),
                (Method::PATCH, "/tables/precious/rows/edit", json!({"edits": [{"keys": {(text): 1}, "changes": {"b": 1}}]})),
                (Method::PATCH, "/tables/precious/rows/edit", json!({"edits": [{"keys": {"a": text}, "changes": {"b": "y"}}]})),
                (Method::POST, "/tables/precious/rows/insert", json!({"inserts": [{"values": {"a": text, "b": 1}}]})),
                (Method::DELETE, "/tables/precious/rows/delete", json!({"deletes": [{"keys": {"a": text}}]})),
                (Method::POST, "/tables/precious/rows/insert", json!({"schema": text, "inserts": [{"values": {"a": 2}}]})),
            ] {
                let answer = server.api.call(method, &format!("{}{path}", side.base), Some(body.clone())).await.unwrap();
                assert!((400..500).contains(&answer.status), "{body}: {answer:?}");
            }
        }
        // As a value it is a value.
        let edit = json!({"edits": [{"keys": {"a": 1}, "changes": {"b": ESCAPES[0]}}]});
        let answer = server.api.call(Method::PATCH, &format!("{}/tables/precious/rows/edit", side.base), Some(edit)).await.unwrap();
        assert_eq!((answer.status, answer.body["rows"][0]["b"].as_str()), (200, Some(ESCAPES[0])), "{answer:?}");
        let back = json!({"edits": [{"keys": {"a": 1}, "changes": {"b": "x"}}]});
        server.api.call(Method::PATCH, &format!("{}/tables/precious/rows/edit", side.base), Some(back)).await.unwrap();
        assert_untouched(&server, &side).await;
    }
}

#[tokio::test]
async fn odd_requests_are_refused_and_cost_nothing() {
    let server = Server::start().await;
    let sides = sides(&server).await;
    let address = server.api.base.trim_start_matches("http://").to_owned();
    let send = async |bytes: &[u8]| -> String {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await;
        String::from_utf8_lossy(&answer[..read.ok().and_then(Result::ok).unwrap_or(0)]).into_owned()
    };
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\r\n").into_bytes();
    for (request, expected) in [
        (get("/api/v1/connections/%00", ""), "HTTP/1.1 404"),
        (get("/api/v1/connections/%ff%fe", ""), "HTTP/1.1 4"),
        (get("/api/v1/../../etc/passwd", ""), "HTTP/1.1 404"),
        (get("/api/v1/%2e%2e/%2e%2e/etc/passwd", ""), "HTTP/1.1 404"),
        (get("/api/v1/connections", "X-Request-ID: a\r\nX-Request-ID: b\r\n"), "HTTP/1.1 200"),
        (get("/api/v1/connections", &format!("X-Padding: {}\r\n", "x".repeat(1 << 20))), "HTTP/1.1 431"),
        (get(&format!("/api/v1/connections?search={}", "x".repeat(1 << 17)), ""), "HTTP/1.1 4"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "HTTP/1.1 400"),
        // There is no WebSocket yet; whoever asks for one holds nothing.
        (get("/api/v1/lsp/ws", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), "HTTP/1.1 404"),
        (b"GET / HTTP/9.9\r\n\r\n".to_vec(), "HTTP/1.1 4"),
        (b"POST /api/v1/connections HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /".to_vec(), "HTTP/1.1 4"),
    ] {
        let answer = send(&request).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(80)]).into_owned();
        assert!(answer.starts_with(expected), "{shown}: {answer}");
    }
    let deep = "[".repeat(200_000);
    let wide = format!("{{\"query\": \"{}\"}}", "x".repeat(3 << 20));
    let many = format!("{{{}\"query\": \"SELECT 1\"}}", "\"a\":1,".repeat(300_000));
    for (body, status) in [(deep, 400), (wide, 413), (many, 400)] {
        let answer = server.api.call_text(Method::POST, &format!("{}/query", sides[0].base), &body, &[]).await.unwrap();
        assert_eq!(answer.status, status, "{} bytes: {answer:?}", body.len());
        assert!(answer.body["code"].is_string(), "{answer:?}");
    }
    for side in &sides {
        assert_untouched(&server, side).await;
    }
}

#[tokio::test]
async fn slow_clients_keep_nobody_else_waiting() {
    let server = Server::start_with(&["--header-timeout", "6"]).await;
    let sides = sides(&server).await;
    let address = server.api.base.trim_start_matches("http://").to_owned();
    let (mut slow, mut silent) = (Vec::new(), Vec::new());
    let since = Instant::now();
    for number in 0..300 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        if number % 3 > 0 {
            stream.write_all(b"POST /api/v1/connections HTTP/1.1\r\nHost: loc").await.unwrap();
        }
        silent.push(stream);
    }
    // Others who want large results and do not read them.
    let body = json!({"query": "WITH RECURSIVE n AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM n WHERE a < 900) SELECT x.a, y.a, z.a, 'xxxxxxxxxxxxxxxxxxxx' FROM n x, n y, n z"});
    let body = body.to_string();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /api/v1{}/query HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            sides[1].base,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let begun_at = Instant::now();
    for side in &sides {
        assert_untouched(&server, side).await;
    }
    assert!(begun_at.elapsed() < Duration::from_secs(10), "others waited for {:?}", begun_at.elapsed());
    let memory = server.process.peak_memory() / 1024;
    assert!(memory < 300, "the server holds what nobody reads: {memory} MiB");
    // Whoever sends no whole head is let go; those who sent one and read slowly are not.
    for stream in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(Ok(0) | Err(_))), "half a head is waited for after {:?}", since.elapsed());
    }
    assert!(since.elapsed() > Duration::from_secs(5), "let go after {:?}", since.elapsed());
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(30), slow[0].read(&mut byte)).await;
    assert!(matches!(read, Ok(Ok(1))), "{read:?}");
    // Once they are gone, what they had asked for ends at the database.
    drop(slow);
    let postgres = PgDatabase::open(&shared().await.postgres, "postgres").await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let running = postgres.texts("SELECT query FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%xxxxxxxxxxxxxxxxxxxx%' AND pid <> pg_backend_pid()").await.unwrap();
        if running.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "still running: {running:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer: Value = server.api.get("/connections").await.unwrap().body;
    assert_eq!(answer["total"], 2);
}

#[tokio::test]
async fn a_flood_of_requests_for_websockets_opens_none_and_keeps_nobody_waiting() {
    let server = Server::start().await;
    let sides = sides(&server).await;
    let address = server.api.base.trim_start_matches("http://").to_owned();
    let head = format!(
        "GET /api/v1/lsp/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    // Who believes that it was opened sends a frame that announces more than there will ever be.
    let sent = [head.as_bytes(), b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"].concat();
    let flood: Vec<_> = (0..400)
        .map(|_| {
            let (address, sent) = (address.clone(), sent.clone());
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                stream.write_all(&sent).await.unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                (answer, stream)
            })
        })
        .collect();
    let begun_at = Instant::now();
    for side in &sides {
        assert_untouched(&server, side).await;
    }
    assert!(begun_at.elapsed() < Duration::from_secs(10), "others waited for {:?}", begun_at.elapsed());
    for one in flood {
        let (answer, mut stream) = one.await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 404");
        // What follows is no request, so the connection ends.
        let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "a connection that was refused stays open");
    }
}
