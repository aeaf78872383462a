//! Names that the document's examples share, so that following one leads to the next.

use serde_json::{Value, json};

/// A connection to MySQL or MariaDB with the database [`DATABASE`].
pub(crate) const CONNECTION: &str = "conn_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
/// A connection to PostgreSQL.
pub(crate) const TARGET: &str = "conn_2NxQ3Z5bN7x9sR2tV6uK8pC0dE1";
/// A stream config.
pub(crate) const CONFIG: &str = "config_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
/// A stream of it.
pub(crate) const STREAM: &str = "stream_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
/// Its run.
pub(crate) const RUN: &str = "run_2NxQ3Z4yM6w8sR1tV5uK7pB9cD0";
/// A database with the table `customers` (`id`, `name`, `balance`) and the view `customer_names`.
pub(crate) const DATABASE: &str = "shop";
/// A file with the columns `id`, `name`, `balance`.
pub(crate) const FILE: &str = "/home/ada/customers.csv";

/// A connection to an object store.
pub(crate) const STORE: &str = "conn_2NxQ3Z6cP8y0tS3uW7vL9qD1eF2";
/// A bucket of it.
pub(crate) const BUCKET: &str = "exports";
/// An object there, with the columns `id`, `name`, `balance`.
pub(crate) const OBJECT: &str = "s3://exports/2026/customers.csv";
/// A manifest that lies there.
pub(crate) const MANIFEST: &str = "s3://exports/2026/manifest.json";

/// A manifest of [`OBJECT`].
pub(crate) fn manifest() -> Value {
    json!({"version": "1.0", "files": [OBJECT]})
}

/// A connection's definition.
pub(crate) fn connection() -> Value {
    json!({"name": "mysql-source", "type": "mysql", "spec": {"database": {
        "host": "db.example.com", "port": 3306, "username": "reader", "password": "secret", "database": DATABASE}}})
}

/// A stream config's definition.
pub(crate) fn config() -> Value {
    json!({"name": "full_migration", "mode": "convert",
        "source": {"connections": [{"connectionId": CONNECTION, "database": DATABASE}]},
        "target": {"id": TARGET, "spec": {"db": {"database": "warehouse"}}}})
}
