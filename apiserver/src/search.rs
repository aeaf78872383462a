//! Where a text stands inside of connections: the names of their databases and objects, read ahead and remembered.
//!
//! A search never waits for a database: connections that have not been looked into yet are looked into afterwards, and the answer says how many were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::connection::{Connection, Engine};
use millrace_core::explore::ObjectFilter;
use millrace_core::structure::{ObjectName, ObjectNames};
use moka::sync::Cache;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use crate::explorers::{revision, within};
use crate::state::AppState;

/// How long names are remembered; changes made through the API end it earlier.
const TTL: Duration = Duration::from_secs(300);
/// A connection that could not be looked into is left alone for so long.
const AGAIN: Duration = Duration::from_secs(60);
/// Connections whose names are remembered.
const CAPACITY: u64 = 1_000;
/// Connections that are looked into at the same time.
const AT_ONCE: usize = 2;
/// How long one database may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most databases of one connection that are looked into.
const MAX_DATABASES: usize = 200;
/// The most matches of one kind in one database.
const MAX_MATCHES: usize = 100;
/// The shortest text that is searched for inside of connections.
const SHORTEST: usize = 2;

/// The names of connections; cheap to clone.
#[derive(Clone)]
pub struct SearchIndex {
    found: Cache<(String, u64), Arc<Names>>,
    /// Those that are being looked into, or could not be.
    busy: Cache<(String, u64), ()>,
    permits: Arc<Semaphore>,
}

/// All names of one connection, by database.
type Names = BTreeMap<String, ObjectNames>;

impl Default for SearchIndex {
    fn default() -> Self {
        Self {
            found: Cache::builder().max_capacity(CAPACITY).time_to_live(TTL).support_invalidation_closures().build(),
            busy: Cache::builder().max_capacity(CAPACITY).time_to_live(AGAIN).build(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl SearchIndex {
    /// Forgets a connection's names.
    pub(crate) fn forget(&self, connection: &str) {
        let connection = connection.to_owned();
        if self.found.invalidate_entries_if(move |key, _| key.0 == connection).is_err() {
            self.found.invalidate_all();
        }
    }

    /// Where the text stands in a connection's names; none if they are not known yet, which is mended for the next time.
    pub(crate) fn matches(&self, state: &AppState, connection: &Connection, text: &str) -> Option<Map<String, Value>> {
        if !matches!(connection.engine, Engine::MySql | Engine::PostgreSql) {
            return Some(Map::new());
        }
        let key = (connection.id.to_string(), revision(connection));
        match self.found.get(&key) {
            Some(names) if text.chars().count() >= SHORTEST => Some(matching(&names, &text.to_lowercase())),
            Some(_) => Some(Map::new()),
            None => {
                self.look_into(state, connection, key);
                None
            }
        }
    }

    fn look_into(&self, state: &AppState, connection: &Connection, key: (String, u64)) {
        if self.busy.contains_key(&key) {
            return;
        }
        self.busy.insert(key.clone(), ());
        let (index, state, connection) = (self.clone(), state.clone(), connection.clone());
        tokio::spawn(async move {
            let looked = async {
                let _permit = index.permits.acquire().await.ok()?;
                match names(&state, &connection).await {
                    Ok(names) => Some(names),
                    Err(error) => {
                        tracing::debug!(connection = %connection.id, error = %error.chain(), "a connection could not be looked into");
                        None
                    }
                }
            };
            tokio::select! {
                found = looked => if let Some(names) = found {
                    index.found.insert(key.clone(), Arc::new(names));
                    index.busy.invalidate(&key);
                },
                () = state.shutdown.cancelled() => {}
            }
        });
    }
}

/// All names of a connection, without the system's.
async fn names(state: &AppState, connection: &Connection) -> millrace_core::Result<Names> {
    let filter = ObjectFilter::default();
    let mut lease = state.explorers.lease(connection, None).await?;
    let databases = within(PATIENCE, lease.explorer()?.databases()).await;
    let databases = lease.settle(databases)?;
    drop(lease);
    let mut all = Names::new();
    for entry in databases.into_iter().filter(|entry| entry.system_reason.is_none()).take(MAX_DATABASES) {
        let looked = async {
            let mut lease = state.explorers.lease(connection, Some(&entry.name)).await?;
            let names = within(PATIENCE, lease.explorer()?.names(&filter)).await;
            lease.settle(names)
        };
        match looked.await {
            Ok(names) => _ = all.insert(entry.name, names),
            // A database that this user may not enter has a name all the same.
            Err(error) => {
                tracing::debug!(database = %entry.name, error = %error.chain(), "a database could not be looked into");
                all.insert(entry.name, ObjectNames::default());
            }
        }
    }
    Ok(all)
}

/// The paths whose last part holds the text, which is in lower case.
fn matching(names: &Names, text: &str) -> Map<String, Value> {
    let holds = |name: &str| name.to_lowercase().contains(text);
    let mut paths = Map::new();
    let databases: Vec<&String> = names.keys().filter(|name| holds(name)).collect();
    if !databases.is_empty() {
        paths.insert("databases".to_owned(), json!(databases));
    }
    for (database, objects) in names {
        let schemas: Vec<&String> = objects.schemas.iter().map(|(name, _)| name).filter(|name| holds(name)).take(MAX_MATCHES).collect();
        if !schemas.is_empty() {
            entry(&mut paths, "schemas", database, json!(schemas));
        }
        let kinds: [(&str, &[ObjectName]); 5] = [
            ("tables", &objects.tables),
            ("views", &objects.views),
            ("functions", &objects.functions),
            ("procedures", &objects.procedures),
            ("sequences", &objects.sequences),
        ];
        for (kind, list) in kinds {
            let found: Vec<&ObjectName> = list.iter().filter(|object| holds(&object.name)).take(MAX_MATCHES).collect();
            if !found.is_empty() {
                let found: Vec<Value> = found.into_iter().map(|object| json!({"name": object.name, "schema": object.schema})).collect();
                entry(&mut paths, kind, database, found.into());
            }
        }
    }
    paths
}

fn entry(paths: &mut Map<String, Value>, kind: &str, database: &str, found: Value) {
    let by_database = paths.entry(kind).or_insert_with(|| json!({}));
    by_database[database] = found;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_say_where_they_are() {
        let object = |name: &str| ObjectName { schema: Some("public".into()), name: name.into() };
        let shop = ObjectNames {
            schemas: vec![("ordering".into(), None)],
            tables: vec![object("Orders"), object("customers")],
            functions: vec![object("order_total")],
            ..ObjectNames::default()
        };
        let names = Names::from([("shop".to_owned(), shop), ("border".to_owned(), ObjectNames::default())]);
        let found = Value::Object(matching(&names, "order"));
        assert_eq!(found["databases"], json!(["border"]));
        assert_eq!(found["schemas"], json!({"shop": ["ordering"]}));
        assert_eq!(found["tables"], json!({"shop": [{"name": "Orders", "schema": "public"}]}));
        assert_eq!(found["functions"]["shop"][0]["name"], "order_total");
        assert!(found["views"].is_null());
        assert!(matching(&names, "zebra").is_empty());
    }
}
