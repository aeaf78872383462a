//! Protected connections to both engines: four modes, client certificates, and what must not be trusted.

use base64::Engine as _;
use millrace_tests::database::{MySqlDatabase, PgDatabase, unique};
use millrace_tests::dataset::products;
use millrace_tests::digest::assert_equal;
use millrace_tests::servers::{Server as Database, USER, start_mariadb_in, start_postgres_in};
use millrace_tests::tls::Certificates;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Server;

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A connection under another host name, with this protection.
fn body(kind: &str, server: &Database, database: &str, host: &str, ssl: Value) -> Value {
    let mut body = millrace_tests::api::connection(&unique(kind), kind, server, database);
    body["spec"]["database"]["host"] = json!(host);
    body["ssl"] = ssl;
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn four_modes_and_client_certificates_work_for_both_engines_everywhere() {
    let (right, other) = (Certificates::new(USER).unwrap(), Certificates::new(USER).unwrap());
    let (mysql, postgres) = tokio::task::block_in_place(|| {
        let mysql = start_mariadb_in(&[], |dir| {
            right.write_server(dir)?;
            let option = |name: &str, file: &str| format!("--{name}={}", dir.join(file).display());
            Ok(vec![option("ssl-ca", "ca.pem"), option("ssl-cert", "server.pem"), option("ssl-key", "server.key")])
        });
        let postgres = start_postgres_in(&[], |dir| {
            right.write_server(dir)?;
            let setting = |name: &str, file: &str| format!("{name}={}", dir.join(file).display());
            Ok(vec![
                "ssl=on".into(),
                setting("ssl_ca_file", "ca.pem"),
                setting("ssl_cert_file", "server.pem"),
                setting("ssl_key_file", "server.key"),
            ])
        });
        (mysql.unwrap(), postgres.unwrap())
    });
    let server = Server::start().await;
    let source = MySqlDatabase::create(&mysql, "tls").await.unwrap();
    source.execute(&products(20_000)).await.unwrap();
    // An account that only a client certificate of the authority opens.
    let strict = format!("CREATE USER 'certified'@'%' IDENTIFIED BY '{}' REQUIRE X509", mysql.password);
    source.execute(&[strict, "GRANT ALL ON *.* TO 'certified'@'%'".into()]).await.unwrap();
    let (ca, wrong_ca) = (encoded(&right.ca), encoded(&other.ca));
    let with = |mode: &str, ca: Option<&String>| match ca {
        Some(ca) => json!({"mode": mode, "ca": ca}),
        None => json!({"mode": mode}),
    };
    let ping = async |body: Value| {
        let answer = server.api.post("/connections/test", body).await.unwrap();
        (answer.status, answer.body["code"].as_str().unwrap_or("OK").to_owned(), answer)
    };
    for (kind, database, name) in [("mysql", &mysql, source.name.as_str()), ("postgresql", &postgres, "postgres")] {
        for (host, ssl, expected) in [
            ("localhost", with("disabled", None), "OK"),
            ("127.0.0.1", with("require", None), "OK"),
            ("127.0.0.1", with("require", Some(&wrong_ca)), "OK"),
            ("127.0.0.1", with("verify-ca", Some(&ca)), "OK"),
            ("127.0.0.1", with("verify-ca", Some(&wrong_ca)), "CONNECTION_UNTRUSTED"),
            ("127.0.0.1", with("verify-ca", None), "CONNECTION_UNTRUSTED"),
            ("localhost", with("verify-full", Some(&ca)), "OK"),
            ("localhost", with("verify-full", Some(&wrong_ca)), "CONNECTION_UNTRUSTED"),
            ("127.0.0.1", with("verify-full", Some(&ca)), "CONNECTION_UNTRUSTED"),
        ] {
            let (_, code, answer) = ping(body(kind, database, name, host, ssl.clone())).await;
            assert_eq!(code, expected, "{kind} {host} {}: {answer:?}", ssl["mode"]);
        }
    }
    let shared = millrace_tests::servers::shared().await;
    let (_, code, answer) = ping(body("postgresql", &shared.postgres, "postgres", "127.0.0.1", with("require", None))).await;
    assert_eq!(
        (code.as_str(), answer.body["details"]["field"].as_str()),
        ("CONNECTION_UNTRUSTED", Some("ssl.mode")),
        "a server without TLS: {answer:?}"
    );
    let certified = |cert: &Certificates| json!({"mode": "verify-ca", "ca": ca, "client_cert": encoded(&cert.client.certificate), "client_key": encoded(&cert.client.key)});
    let mut account = body("mysql", &mysql, &source.name, "127.0.0.1", with("verify-ca", Some(&ca)));
    account["spec"]["database"]["username"] = json!("certified");
    assert_eq!(ping(account.clone()).await.1, "CONNECTION_LOGIN_REFUSED", "without a certificate");
    account["ssl"] = certified(&other);
    assert_ne!(ping(account.clone()).await.1, "OK", "a certificate of another authority");
    account["ssl"] = certified(&right);
    let (_, code, answer) = ping(account.clone()).await;
    assert_eq!(code, "OK", "{answer:?}");

    // The same protection in a run and in a federated query.
    let from = server.api.post("/connections", account).await.unwrap().text("id").unwrap();
    let ssl = json!({"mode": "verify-full", "ca": ca, "client_cert": encoded(&right.client.certificate), "client_key": encoded(&right.client.key)});
    let to =
        server.api.post("/connections", body("postgresql", &postgres, "postgres", "localhost", ssl)).await.unwrap().text("id").unwrap();
    let target = unique("tls");
    let config = server.api.convert(&from, &source.name, &to, &target).await.unwrap();
    let stats = server.run(&config).await;
    assert_eq!(stats["status"], "FINISHED", "{stats}");
    let pg = PgDatabase::open(&postgres, &target).await.unwrap();
    assert_equal(&source.pool, &source.name, &pg.client, "public", "products").await.unwrap();
    let sql = format!("SELECT (SELECT count(*) FROM m.{}.products) AS a, (SELECT count(*) FROM p.public.products) AS b", source.name);
    let query = |to: &str| json!({"sql": sql, "connections": [{"alias": "m", "connectionId": from, "database": source.name}, {"alias": "p", "connectionId": to, "database": target}]});
    let answer = server.api.post("/query/federated", query(&to)).await.unwrap();
    assert_eq!(answer.body["rows"], json!([[20_000, 20_000]]), "{answer:?}");
    let mistrusted = body("postgresql", &postgres, "postgres", "127.0.0.1", with("verify-full", Some(&ca)));
    let mistrusted = server.api.post("/connections", mistrusted).await.unwrap().text("id").unwrap();
    let answer = server.api.post("/query/federated", query(&mistrusted)).await.unwrap();
    assert_eq!((answer.status, answer.body["code"].as_str()), (422, Some("CONNECTION_UNTRUSTED")), "{answer:?}");

    // The client's key stays unless the place changes.
    let mut shown = server.api.get(&format!("/connections/{from}")).await.unwrap().body;
    assert!(shown["ssl"].get("client_key").is_none() && shown["ssl"]["client_cert"].is_string(), "{shown}");
    let put = async |body: Value| server.api.call(Method::PUT, &format!("/connections/{from}"), Some(body)).await.unwrap();
    assert_eq!(put(shown.clone()).await.status, 200);
    assert_eq!(server.api.post(&format!("/connections/{from}/ping"), Value::Null).await.unwrap().status, 200);
    shown["ssl"]["mode"] = json!("require");
    let weaker = put(shown).await;
    assert_eq!((weaker.status, weaker.body["details"]["field"].as_str()), (400, Some("ssl.client_key")), "{weaker:?}");
}
