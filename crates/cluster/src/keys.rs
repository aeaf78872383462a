//! API keys of a cluster: hashes in one Secret, changed by whoever read it last, so that two replicas cannot undo each other's change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as Object;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use millrace_core::entitlement::{Account, Denial, Entitlement, EvaluationWarning, Grant, StreamOperation, Usage};
use millrace_core::{Error, Kind, Result, Secret};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{failed, is_conflict};
use crate::fresh::Fresh;

const NAME: &str = "millrace-keys";
const DATA: &str = "keys.json";
/// What a key looks like: a prefix by which leaks are found, and 256 random bits.
const PREFIX: &str = "mr_";
const SUBSCRIPTION: &str = "unlimited";
/// How often a change is made again because somebody else was quicker.
const TRIES: u32 = 20;

/// Keys of one namespace.
#[derive(Clone)]
pub struct ClusterKeys {
    object: Api<Object>,
    all: Fresh<Vec<Entry>>,
}

/// A stored key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its public name.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the key, in hexadecimal digits.
    hash: String,
    /// Installations at once; any number if none is said.
    pub seats: Option<u32>,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds.
    pub revoked_at: Option<i64>,
    /// Installations with whether they are active.
    pub installs: BTreeMap<String, bool>,
}

impl ClusterKeys {
    /// The keys of a namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { object: Api::namespaced(client, namespace), all: Fresh::new(Duration::ZERO) }
    }

    /// The keys of a namespace of the cluster that this process runs in or its `KUBECONFIG` names.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] without a cluster.
    pub async fn connect(namespace: &str) -> Result<Self> {
        let client = Client::try_default().await.map_err(|error| Error::new(Kind::Unreachable, "there is no cluster").because(error))?;
        Ok(Self::new(client, namespace))
    }

    /// Makes a key. The key itself is returned once and stored nowhere.
    ///
    /// # Errors
    /// Those of the cluster.
    pub async fn create(&self, name: &str, seats: Option<u32>) -> Result<(String, Secret)> {
        let bytes: [u8; 32] = rand::random();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = Secret::new(format!("{PREFIX}{digits}"));
        let hash = hash(&key);
        let id = format!("key_{}", hash.chars().take(12).collect::<String>());
        let created_at = chrono::Utc::now().timestamp();
        let entry = Entry { id: id.clone(), name: name.to_owned(), hash, seats, created_at, revoked_at: None, installs: BTreeMap::new() };
        self.change(|entries| {
            entries.push(entry.clone());
            Ok(true)
        })
        .await?;
        Ok((id, key))
    }

    /// Refuses a key from now on.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for an unknown id.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        self.change(|entries| {
            let entry = entries.iter_mut().find(|entry| entry.id == id);
            let entry = entry.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no key `{id}`")))?;
            entry.revoked_at.get_or_insert(chrono::Utc::now().timestamp());
            Ok(true)
        })
        .await
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// Those of the cluster; [`Kind::ProtocolViolated`] if they are not readable.
    pub async fn list(&self) -> Result<Arc<Vec<Entry>>> {
        self.all.get(async { entries(self.object.get_opt(NAME).await.map_err(failed)?.as_ref()) }).await
    }

    /// Reads, changes and writes until nobody else has written in between. The change says whether there is anything to write.
    async fn change(&self, mut change: impl FnMut(&mut Vec<Entry>) -> Result<bool>) -> Result<()> {
        for _ in 0..TRIES {
            let found = self.object.get_opt(NAME).await.map_err(failed)?;
            let mut all = entries(found.as_ref())?;
            if !change(&mut all)? {
                return Ok(());
            }
            let text = serde_json::to_vec(&all).map_err(|error| Error::internal("keys have no JSON form").because(error))?;
            let data = Some(BTreeMap::from([(DATA.to_owned(), ByteString(text))]));
            let written = match found {
                Some(object) => self.object.replace(NAME, &PostParams::default(), &Object { data, ..object }).await,
                None => {
                    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                    self.object.create(&PostParams::default(), &Object { metadata, data, ..Object::default() }).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(Kind::Contention, "the keys are changed by many at once"))
    }

    /// Looking up a hash of 256 random bits leaks nothing about keys by its time: who does not know the key cannot steer the hash.
    async fn look_up(&self, key: &Secret) -> Result<Entry, Denial> {
        if !key.expose().starts_with(PREFIX) {
            return Err(Denial::AuthenticationFailed);
        }
        let hash = hash(key);
        let all = self.list().await.map_err(|_| Denial::Unavailable)?;
        all.iter().find(|entry| entry.hash == hash && entry.revoked_at.is_none()).cloned().ok_or(Denial::AuthenticationFailed)
    }

    /// Lets an installation take a seat.
    async fn bind(&self, id: &str, install: &str) -> Result<(), Denial> {
        let mut denial = None;
        let bound = self
            .change(|entries| {
                let Some(entry) = entries.iter_mut().find(|entry| entry.id == id) else { return Ok(false) };
                match entry.installs.get(install) {
                    Some(true) => return Ok(false),
                    Some(false) => denial = Some(Denial::DeviceDeactivated),
                    None => {
                        let taken = entry.installs.values().filter(|is_active| **is_active).count();
                        if entry.seats.is_some_and(|seats| taken >= seats as usize) {
                            denial = Some(Denial::SeatLimitReached);
                        }
                    }
                }
                if denial.is_none() {
                    entry.installs.insert(install.to_owned(), true);
                }
                Ok(denial.is_none())
            })
            .await;
        match (denial, bound) {
            (Some(denial), _) => Err(denial),
            (None, Err(_)) => Err(Denial::Unavailable),
            (None, Ok(())) => Ok(()),
        }
    }
}

impl Entitlement for ClusterKeys {
    fn identify<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>> {
        async move { Ok(grant(&self.look_up(key).await?)) }.boxed()
    }

    fn authorise<'a>(&'a self, key: &'a Secret, install: &'a str, _: StreamOperation) -> BoxFuture<'a, Result<Grant, Denial>> {
        async move {
            if install.trim().is_empty() {
                return Err(Denial::AuthenticationFailed);
            }
            let entry = self.look_up(key).await?;
            self.bind(&entry.id, install).await?;
            Ok(grant(&entry))
        }
        .boxed()
    }

    fn account<'a>(&'a self, key: &'a Secret, install: &'a str) -> BoxFuture<'a, Result<Account, Denial>> {
        async move {
            let entry = self.look_up(key).await?;
            Ok(Account {
                seat_limit: entry.seats.unwrap_or(0),
                active_bindings: entry.installs.values().filter(|is_active| **is_active).count() as u32,
                is_install_active: entry.installs.get(install).copied(),
                evaluation: None,
                key_id: entry.id,
                name: entry.name,
                subscription: SUBSCRIPTION.to_owned(),
            })
        }
        .boxed()
    }

    /// Keys of a cluster have no evaluation that could be used up.
    fn record<'a>(&'a self, _: &'a str, _: Usage) -> BoxFuture<'a, Option<EvaluationWarning>> {
        async { None }.boxed()
    }
}

/// What cannot be read is no empty list: it would be written over by the next key.
fn entries(object: Option<&Object>) -> Result<Vec<Entry>> {
    let Some(bytes) = object.and_then(|object| object.data.as_ref()?.get(DATA)) else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes.0).map_err(|error| {
        let text = format!(
            "`{DATA}` in the Secret `{NAME}` is not a list of keys; restore it from a backup, or delete the Secret to begin with no keys"
        );
        Error::new(Kind::ProtocolViolated, text).because(error)
    })
}

fn grant(entry: &Entry) -> Grant {
    Grant { key_id: entry.id.clone(), subscription: SUBSCRIPTION.to_owned() }
}

fn hash(key: &Secret) -> String {
    Sha256::digest(key.expose().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stored(text: &str) -> Object {
        Object { data: Some(BTreeMap::from([(DATA.to_owned(), ByteString(text.as_bytes().to_vec()))])), ..Object::default() }
    }

    #[test]
    fn keys_that_cannot_be_read_are_an_error_and_not_none() {
        assert_eq!(entries(None).unwrap(), []);
        assert_eq!(entries(Some(&Object::default())).unwrap(), []);
        assert_eq!(entries(Some(&stored("[]"))).unwrap(), []);
        for broken in ["", "{}", "[{\"id\": \"key_1\"", "[{\"id\": 1}]"] {
            let error = entries(Some(&stored(broken))).unwrap_err();
            assert!(error.message().contains("millrace-keys"), "{broken}: {}", error.message());
        }
    }
}
