//! What an operator allows: wrong keys, origins, read-only servers, the audit log, TLS, hosts, limits of time and sessions.

use std::path::Path;
use std::time::{Duration, Instant};

use millrace_tests::api::{Api, connection};
use millrace_tests::database::{MySqlDatabase, PgDatabase};
use millrace_tests::process::{Process, run};
use millrace_tests::servers::shared;
use millrace_tests::tls::Certificates;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::Server;

fn code(answer: &millrace_tests::api::Response) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// A database per engine with the table `precious`, and the paths of their databases.
async fn sides(server: &Server) -> Vec<String> {
    let mysql = MySqlDatabase::create(&shared().await.mysql, "guarded").await.unwrap();
    let fill = ["CREATE TABLE precious (a INT PRIMARY KEY, b TEXT)".into(), "INSERT INTO precious VALUES (1, 'x')".into()];
    mysql.execute(&fill).await.unwrap();
    let postgres = PgDatabase::create(&shared().await.postgres, "guarded").await.unwrap();
    postgres.client.batch_execute("CREATE TABLE precious (a INT PRIMARY KEY, b TEXT); INSERT INTO precious VALUES (1, 'x')").await.unwrap();
    let mut paths = Vec::new();
    for (engine, at, name) in [("mysql", &server.mysql, &mysql.name), ("postgresql", &server.postgres, &postgres.name)] {
        let id = server.api.connect(engine, engine, at, name).await.unwrap();
        paths.push(format!("/connections/{id}/databases/{name}"));
    }
    paths
}

#[tokio::test]
async fn wrong_keys_make_their_sender_wait_and_nobody_else() {
    let server = Server::start_with(&["--auth-ide", "key", "--trusted-proxies", "127.0.0.1,10.0.0.0/8"]).await;
    let mut bare = server.api.clone();
    bare.key = None;
    let ask = async |key: &str, from: &str| {
        bare.call_with(Method::GET, "/connections", None, &[("X-API-Key", key), ("X-Forwarded-For", from)]).await.unwrap()
    };
    for number in 0..20 {
        // What the client itself writes in front is not believed.
        let from = format!("198.51.100.{number}, 203.0.113.7, 10.1.1.1");
        assert_eq!(code(&ask(&format!("mr_{number}"), &from).await), (401, "AUTHENTICATION_FAILED"), "{number}");
    }
    let refused = ask("mr_wrong", "203.0.113.7").await;
    assert_eq!(code(&refused), (429, "RATE_LIMITED"), "{refused:?}");
    assert_eq!(refused.body["category"], "limit");
    assert_eq!(ask(&server.key, "203.0.113.7").await.status, 429, "a guess that is right is one of them");
    let text = raw(
        &server.api.base,
        &format!(
            "GET /api/v1/user HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {}\r\nX-Forwarded-For: 203.0.113.7\r\nConnection: close\r\n\r\n",
            server.key
        ),
    )
    .await;
    let wait = text.lines().find_map(|line| line.strip_prefix("retry-after: ")).and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(text.starts_with("HTTP/1.1 429") && wait.is_some_and(|wait| (1..=7).contains(&wait)), "{text}");
    assert_eq!(ask(&server.key, "203.0.113.8").await.status, 200, "another address");
    let strict = "/streams/stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0/stop";
    let headers = [("X-API-Key", "mr_wrong"), ("X-Install-ID", "one"), ("X-Forwarded-For", "203.0.113.7")];
    assert_eq!(code(&bare.call_with(Method::POST, strict, None, &headers).await.unwrap()), (429, "RATE_LIMITED"));
    assert_eq!(bare.call_with(Method::GET, "/connections", None, &[("X-Forwarded-For", "203.0.113.7")]).await.unwrap().status, 401);
    assert_eq!(bare.get("/health").await.unwrap().status, 200);
    assert!(!server.process.output().contains("mr_wrong"));
}

/// Sends bytes and reads until the server closes.
async fn raw(base: &str, request: &str) -> String {
    let address = base.rsplit("//").next().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn pages_of_named_origins_are_let_in_and_no_others() {
    let ask = async |server: &Server, method: &str, origin: &str| {
        let preflight = "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: x-api-key\r\n";
        let more = if method == "OPTIONS" { preflight } else { "" };
        let request =
            format!("{method} /api/v1/connections HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: {origin}\r\n{more}Connection: close\r\n\r\n");
        raw(&server.api.base, &request).await.to_lowercase()
    };
    let usual = Server::start().await;
    let named = Server::start_with(&["--cors-origins", "https://ide.example.com,https://two.example.com:8443"]).await;
    for method in ["OPTIONS", "GET"] {
        for origin in ["https://ide.example.com", "https://two.example.com:8443"] {
            let answer = ask(&named, method, origin).await;
            assert!(answer.starts_with("http/1.1 20"), "{method} {origin}: {answer}");
            assert!(answer.contains(&format!("access-control-allow-origin: {origin}\r\n")), "{answer}");
            assert!(answer.contains("access-control-allow-headers: ") && answer.contains("x-confirm-delete"), "{answer}");
            assert!(answer.contains("access-control-expose-headers: ") && answer.contains("x-cache"), "{answer}");
            assert!(answer.contains("vary: origin"), "{answer}");
            assert!(ask(&usual, method, origin).await.starts_with("http/1.1 403"), "{method} {origin}");
        }
        for origin in ["null", "https://ide.example.com.evil.example", "http://ide.example.com", "https://two.example.com", "*"] {
            for server in [&usual, &named] {
                let answer = ask(server, method, origin).await;
                assert!(answer.starts_with("http/1.1 403") && answer.contains("forbidden_origin"), "{method} {origin}: {answer}");
                assert!(!answer.contains("access-control-allow-origin"), "{answer}");
            }
        }
        assert!(ask(&usual, method, "http://localhost:5173").await.starts_with("http/1.1 20"), "another port of the same machine");
    }
    for wrong in ["*", "null", "https://ide.example.com/"] {
        let dir = tempfile::tempdir().unwrap();
        let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", dir.path().to_str().unwrap(), "--cors-origins", wrong];
        let (exit, _, error) = run(&args, &[]).await.unwrap();
        assert!(exit == 2 && error.contains("--cors-origins"), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn a_read_only_server_refuses_every_route_that_writes_and_engines_refuse_statements() {
    let mut server = Server::start().await;
    let sides = sides(&server).await;
    assert_eq!(server.process.terminate().await, Some(0));
    let (process, base) = Process::serve(server.dir.path(), &["--read-only"]).await.unwrap();
    server.process = process;
    server.api.base = base;
    let document = server.api.get("/openapi.json").await.unwrap().body;
    let (mut refused, mut let_pass) = (0, 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let effect = operation["x-effect"].as_str().unwrap_or_else(|| panic!("{method} {path} does not say what it does"));
            assert!(method != "get" || effect == "reads", "{method} {path}");
            if ["/logs/stream", "/system/shutdown", "/system/restart"].contains(&path.as_str()) {
                continue;
            }
            let real = path.replace("{id}", "x").replace("{configId}", "x").replace("{runId}", "y");
            let answer = server.api.call(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), &real, None).await.unwrap();
            if effect == "writes" {
                assert_eq!(code(&answer), (403, "READ_ONLY"), "{method} {path}");
                refused += 1;
            } else {
                assert_ne!(answer.body["code"], "READ_ONLY", "{method} {path}");
                let_pass += 1;
            }
        }
    }
    assert!(refused >= 30 && let_pass >= 40, "{refused} refused, {let_pass} let pass");
    for side in &sides {
        let read = server.api.post(&format!("{side}/query"), json!({"query": "SELECT b FROM precious"})).await.unwrap();
        assert_eq!((read.status, &read.body["rows"]), (200, &json!([["x"]])), "{read:?}");
        for sql in [
            "INSERT INTO precious VALUES (2, 'y')",
            "SELECT 1; DELETE FROM precious",
            "CREATE TABLE another (a INT)",
            "UPDATE precious SET b = 'y'",
            "DROP TABLE precious",
        ] {
            let answer = server.api.post(&format!("{side}/query"), json!({"query": sql})).await.unwrap();
            assert_eq!(code(&answer), (403, "READ_ONLY"), "{side} {sql}: {answer:?}");
        }
        // Whatever undoes the setting does not undo it.
        for sql in [
            "COMMIT; INSERT INTO precious VALUES (3, 'z')",
            "SET SESSION TRANSACTION READ WRITE; DELETE FROM precious",
            "SET default_transaction_read_only = off; DELETE FROM precious",
            "START TRANSACTION READ WRITE; DELETE FROM precious; COMMIT",
        ] {
            let answer = server.api.post(&format!("{side}/query"), json!({"query": sql, "readOnly": false})).await.unwrap();
            assert!((400..500).contains(&answer.status), "{side} {sql}: {answer:?}");
        }
        let rows = server.api.get(&format!("{side}/tables/precious/data")).await.unwrap();
        assert_eq!(rows.body["rows"], json!([[1, "x"]]), "{rows:?}");
    }
    let name = sides[1].rsplit('/').next().unwrap();
    let sql = format!("SELECT count(*) FROM pg1.public.precious -- {name}");
    assert_eq!(server.api.post("/query/federated", json!({"sql": sql})).await.unwrap().status, 200);
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_and_no_value() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("audit.jsonl");
    let mut server = Server::start_with(&["--auth-ide", "key", "--audit-log", file.to_str().unwrap()]).await;
    let sides = sides(&server).await;
    let side = &sides[1];
    let rows = format!("{side}/tables/precious/rows");
    let inserts = json!({"inserts": [{"values": {"a": 7, "b": "S3cret"}}, {"values": {"a": 8, "b": "S3cret"}}]});
    let headers = [("X-Request-ID", "req-of-a-test")];
    let answer = server.api.call_with(Method::POST, &format!("{rows}/insert"), Some(inserts), &headers).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let sql = json!({"query": "UPDATE precious SET b = 'S3cret too' WHERE a = 424242; DELETE FROM precious WHERE b = 'S3cret'"});
    assert_eq!(server.api.post(&format!("{side}/query"), sql).await.unwrap().status, 200);
    let sql = json!({"query": "INSERT INTO precious VALUES (1, 'S3cret')"});
    assert_eq!(server.api.post(&format!("{side}/query"), sql).await.unwrap().status, 422);
    let mut wrong = server.api.clone();
    wrong.key = Some("mr_S3cret".into());
    assert_eq!(wrong.call(Method::DELETE, &format!("{rows}/delete"), Some(json!({"deletes": []}))).await.unwrap().status, 401);
    assert_eq!(server.api.get(&format!("{side}/tables/precious/data")).await.unwrap().status, 200);
    // A client that goes away hides nothing of what it has done.
    let sql = json!({"query": "INSERT INTO precious VALUES (9, 'S3cret'); SELECT pg_sleep(60)"});
    let gone = tokio::time::timeout(Duration::from_millis(1500), server.api.post(&format!("{side}/query"), sql)).await;
    assert!(gone.is_err(), "the statement does not take its time");
    let end = Instant::now() + Duration::from_secs(20);
    while !std::fs::read_to_string(&file).unwrap().contains("abandoned") {
        assert!(Instant::now() < end, "the request that was given up is not told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.process.terminate().await, Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for secret in ["S3cret", "424242", &server.key, &shared().await.postgres.password] {
        assert!(!text.contains(secret), "`{secret}` is in the log: {text}");
    }
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<(&str, &str)> =
        events.iter().map(|event| (event["operation"].as_str().unwrap(), event["outcome"].as_str().unwrap())).collect();
    let expected = [
        ("createConnection", "done"),
        ("createConnection", "done"),
        ("insertRows", "done"),
        ("queryDatabase", "done"),
        ("queryDatabase", "failed"),
        ("deleteRows", "refused"),
        ("queryDatabase", "abandoned"),
    ];
    assert_eq!(told, expected, "{text}");
    let abandoned = &events[6];
    assert!(abandoned["statements"].as_str().unwrap().starts_with("INSERT") && abandoned["digest"].is_string(), "{abandoned}");
    let key = server.keys(&["list"]).await.split('\t').next().unwrap().to_owned();
    assert!(
        events[..5].iter().all(|event| event["key"] == key && event["client"] == "127.0.0.1" && event["timestamp"].is_string()),
        "{text}"
    );
    let (created, inserted, ran, failed, refused) = (&events[0], &events[2], &events[3], &events[4], &events[5]);
    assert!(created["object"].as_str().unwrap().starts_with("conn_"), "{created}");
    assert_eq!((&inserted["request"], &inserted["install"]), (&json!("req-of-a-test"), &json!("install-of-a-test")));
    assert_eq!((&inserted["object"], &inserted["rows"], &inserted["status"]), (&json!("precious"), &json!(2), &json!(200)));
    assert!(
        side.contains(inserted["connection"].as_str().unwrap()) && side.ends_with(inserted["database"].as_str().unwrap()),
        "{inserted}"
    );
    assert_eq!((&ran["statements"], &ran["rows"]), (&json!("UPDATE; DELETE"), &json!(2)), "{ran}");
    assert_eq!(ran["digest"].as_str().unwrap().len(), 32);
    assert_eq!((&failed["code"], &failed["status"]), (&json!("CONSTRAINT_VIOLATED"), &json!(422)), "{failed}");
    assert_eq!((&refused["code"], &refused["key"]), (&json!("AUTHENTICATION_FAILED"), &Value::Null), "{refused}");
    assert!(!server.process.output().contains("insertRows"), "the log is apart from other records");
}

/// A client that trusts one authority, for a server's port on `localhost`.
fn trusting(ca: &str) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    reqwest::Client::builder().tls_certs_only([ca]).pool_max_idle_per_host(0).build().unwrap()
}

fn write(dir: &Path, certificates: &Certificates) {
    std::fs::write(dir.join("tls.key"), &certificates.server.key).unwrap();
    std::fs::write(dir.join("tls.crt"), &certificates.server.certificate).unwrap();
}

#[tokio::test]
async fn https_takes_renewed_certificates_and_tells_plain_clients() {
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (Certificates::new("x").unwrap(), Certificates::new("x").unwrap());
    write(place.path(), &first);
    let (certificate, key) = (place.path().join("tls.crt"), place.path().join("tls.key"));
    let options = ["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let dir = tempfile::tempdir().unwrap();
    let (mut process, base) = Process::serve(dir.path(), &options).await.unwrap();
    let port = base.strip_prefix("https://127.0.0.1:").unwrap_or_else(|| panic!("{base}")).to_owned();
    let health = format!("https://localhost:{port}/api/v1/health");
    let answer = trusting(&first.ca).get(&health).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_11));
    assert!(trusting(&second.ca).get(&health).send().await.is_err(), "another authority's");
    let plain = Api::new(&format!("http://127.0.0.1:{port}")).get("/health").await.unwrap();
    assert_eq!(code(&plain), (400, "TLS_REQUIRED"), "{plain:?}");
    // What cannot be used changes nothing.
    std::fs::write(&certificate, "no certificate").unwrap();
    process.wait_for("the new certificate cannot be used").await.unwrap();
    assert!(trusting(&first.ca).get(&health).send().await.is_ok());
    write(place.path(), &second);
    process.wait_for("the certificate was replaced").await.unwrap();
    assert!(trusting(&second.ca).get(&health).send().await.is_ok());
    assert!(trusting(&first.ca).get(&health).send().await.is_err());
    assert!(!process.output().contains("PRIVATE"));
    // A client that says nothing holds nobody up, and the server ends.
    let _silent = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    assert!(trusting(&second.ca).get(&health).send().await.is_ok());
    assert_eq!(process.terminate().await, Some(0));
    let (exit, _, error) = run(&["serve", "--tls-cert", certificate.to_str().unwrap()], &[]).await.unwrap();
    assert!(exit == 2 && error.contains("--tls-key"), "{error}");
}

#[tokio::test]
async fn connections_lead_only_where_the_operator_lets_them() {
    let servers = shared().await;
    let named = |host: &str| {
        let mut body = connection("named", "postgresql", &servers.postgres, "postgres");
        body["spec"]["database"]["host"] = json!(host);
        body
    };
    let usual = Server::start().await;
    for host in ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"] {
        for path in ["/connections", "/connections/test"] {
            let answer = usual.api.post(path, named(host)).await.unwrap();
            assert_eq!(code(&answer), (403, "HOST_NOT_ALLOWED"), "{answer:?}");
            assert_eq!(answer.body["details"]["field"], "spec.database.host", "{answer:?}");
        }
    }
    assert_eq!(usual.api.post("/connections/test", named("localhost")).await.unwrap().status, 200);
    // A name that the rules know nothing of is judged by its addresses, whenever it is dialled.
    let bounded = Server::start_with(&["--allowed-hosts", "10.0.0.0/8,.example.com"]).await;
    let stored = bounded.api.post("/connections", named("localhost")).await.unwrap().text("id").unwrap();
    let ways = [
        ("/connections/test".to_owned(), named("localhost")),
        (format!("/connections/{stored}/ping"), Value::Null),
        (format!("/connections/{stored}/databases/postgres/query"), json!({"query": "SELECT 1"})),
        ("/query/federated".to_owned(), json!({"sql": "SELECT * FROM pg1.pg_catalog.pg_class"})),
    ];
    for (path, body) in ways {
        let answer = bounded.api.post(&path, body).await.unwrap();
        assert_eq!(code(&answer), (403, "HOST_NOT_ALLOWED"), "{path}: {answer:?}");
    }
    assert_eq!(bounded.api.post("/connections", named("127.0.0.1")).await.unwrap().status, 403);
    let denied = Server::start_with(&["--denied-hosts", "localhost"]).await;
    assert_eq!(code(&denied.api.post("/connections", named("LOCALHOST.")).await.unwrap()), (403, "HOST_NOT_ALLOWED"));
    assert_eq!(denied.api.post("/connections/test", named("127.0.0.1")).await.unwrap().status, 200);
}

#[tokio::test]
async fn bodies_that_stall_and_answers_that_take_too_long_end() {
    let server = Server::start_with(&["--body-timeout", "1", "--request-timeout", "2"]).await;
    let sides = sides(&server).await;
    let began = Instant::now();
    let request = "POST /api/v1/connections HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{\"name\":";
    let answer = raw(&server.api.base, request).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("BODY_STALLED"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let slow = format!("{}/tables/precious/data?where=(SELECT%20count(*)%20FROM%20pg_sleep(20))%3D0", sides[1]);
    assert_eq!(code(&server.api.get(&slow).await.unwrap()), (504, "TIMED_OUT"));
    let statement = server.api.post(&format!("{}/query", sides[1]), json!({"query": "SELECT 1 FROM pg_sleep(3)"})).await.unwrap();
    assert_eq!(statement.status, 200, "statements have a limit of their own: {statement:?}");
    // The rows that came too late are not computed any more.
    let postgres = PgDatabase::open(&shared().await.postgres, "postgres").await.unwrap();
    let end = Instant::now() + Duration::from_secs(15);
    let sql = "SELECT query FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(20)%' AND pid <> pg_backend_pid()";
    while !postgres.texts(sql).await.unwrap().is_empty() {
        assert!(Instant::now() < end, "the statement still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_connection_has_so_many_sessions_and_idle_ones_are_closed() {
    let server = Server::start_with(&["--sessions-per-connection", "2", "--session-idle", "2"]).await;
    let sides = sides(&server).await;
    let name = sides[1].rsplit('/').next().unwrap().to_owned();
    let postgres = PgDatabase::open(&shared().await.postgres, "postgres").await.unwrap();
    let sessions = async || {
        let sql = format!("SELECT pid::text FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'millrace'");
        postgres.texts(&sql).await.unwrap().len()
    };
    let path = format!("{}/query", sides[1]);
    let statement = || server.api.post(&path, json!({"query": "SELECT 1 FROM pg_sleep(0.5)"}));
    let began = Instant::now();
    let all = futures::future::join_all((0..6).map(|_| statement()));
    let watched = async {
        let mut most = 0;
        while began.elapsed() < Duration::from_millis(1200) {
            most = most.max(sessions().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let (answers, most) = tokio::join!(all, watched);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status == 200), "{answers:?}");
    assert!((1..=2).contains(&most), "{most} sessions at once");
    assert!(began.elapsed() >= Duration::from_millis(1500), "three rounds of two");
    let end = Instant::now() + Duration::from_secs(15);
    while sessions().await > 0 {
        assert!(Instant::now() < end, "idle sessions stay open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
