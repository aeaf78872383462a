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
