//! The contract of `Connector::session` and `Session`.

use millrace_core::connection::{Connection, ConnectionSpec};
use millrace_core::connector::Connector;
use millrace_core::id::ConnectionId;
use millrace_core::{Kind, Secret};

use crate::servers::{Server, free_port};

/// A connection to a server of the kit.
pub fn connection(connector: &dyn Connector, server: &Server, database: Option<&str>) -> Connection {
    Connection {
        id: ConnectionId::mint(),
        name: "suite".into(),
        engine: connector.engine(),
        created: 0,
        ssl: None,
        cloud_provider: None,
        spec: ConnectionSpec::Database(millrace_core::connection::DatabaseSpec {
            host: server.host.clone(),
            port: server.port,
            username: server.user.clone(),
            password: Some(Secret::new(server.password.clone())),
            database: database.map(str::to_owned),
        }),
    }
}

/// Runs the suite against a server on which `database` exists.
pub async fn conformance(connector: &dyn Connector, server: &Server, database: &str) {
    let good = connection(connector, server, Some(database));
    let mut session = connector.session(&good, None).await.expect("a session");
    session.ping().await.expect("a ping");
    assert!(session.version().await.expect("a version").chars().any(|c| c.is_ascii_digit()));
    let databases = session.databases().await.expect("databases");
    assert!(databases.iter().any(|entry| entry.name == database && entry.system_reason.is_none()));
    assert!(databases.iter().any(|entry| entry.system_reason.is_some()));
    connector.session(&connection(connector, server, None), None).await.expect("a server-level session");

    let with = |change: &dyn Fn(&mut millrace_core::connection::DatabaseSpec)| {
        let mut connection = good.clone();
        if let ConnectionSpec::Database(spec) = &mut connection.spec {
            change(spec);
        }
        connection
    };
    let closed = free_port();
    let wrong = [
        (with(&|spec| spec.password = Some(Secret::new("WrongSecret1"))), Kind::LoginRefused),
        (with(&|spec| spec.password = None), Kind::LoginRefused),
        (with(&|spec| spec.username = "nobody_here".into()), Kind::LoginRefused),
        (with(&|spec| spec.database = Some("no_such_database".into())), Kind::ObjectMissing),
        (with(&|spec| spec.port = closed), Kind::Unreachable),
        (with(&|spec| spec.host = "host.invalid".into()), Kind::Unreachable),
    ];
    for (connection, kind) in wrong {
        let error = connector.session(&connection, None).await.err().unwrap_or_else(|| panic!("{kind:?} expected"));
        assert_eq!(error.kind(), kind, "{error:?}");
        let text = format!("{error:?} {}", error.chain());
        assert!(!text.contains("WrongSecret1") && !text.contains(&server.password), "{text}");
    }
}
