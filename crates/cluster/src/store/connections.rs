//! Connections and the Secrets with their credentials.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Resource as _, ResourceExt as _};
use millrace_core::connection::{Connection, S3_SECRET_KEY, S3_SESSION_TOKEN};
use millrace_core::id::ConnectionId;
use millrace_core::{Error, Kind, Result, Secret};
use millrace_crds::{Connection as Object, ConnectionSpec, NAME_ANNOTATION, SECRET_PREFIX, SecretKey, StreamConfig};
use serde_json::{Value, json};

use super::{ClusterStore, FIELD_MANAGER, Kept as _, TRIES, metadata, resource_name};
use crate::error::{failed, is_conflict, is_missing};

/// The keys of a Secret, by the fields that they fill.
const KEYS: [(&str, &str); 4] = [
    ("spec.database.password", "password"),
    ("ssl.client_key", "clientKey"),
    (S3_SECRET_KEY, "secretKey"),
    (S3_SESSION_TOKEN, "sessionToken"),
];

impl ClusterStore {
    pub(super) async fn read_connections(&self) -> Result<Vec<Connection>> {
        // As it is now: whatever another server has written is in it.
        let objects = self.all_now::<Object>().await?;
        let reads = objects.iter().map(|object| self.with_secrets(object));
        futures::future::try_join_all(reads).await
    }

    pub(super) async fn read_connection(&self, id: &ConnectionId) -> Result<Connection> {
        let object: Object = self.find(id, "connection").await?;
        self.with_secrets(&object).await
    }

    /// A connection with what its Secrets hold. One that is missing leaves the connection without that secret, so that logging in says what is wrong.
    async fn with_secrets(&self, object: &Object) -> Result<Connection> {
        let mut connection = object.to_core()?;
        let is_store = object.spec.s3.is_some();
        let password = object.spec.secret_ref.as_ref();
        let client_key = object.spec.ssl.as_ref().and_then(|ssl| ssl.client_key_ref.as_ref());
        let token = password.filter(|_| is_store).map(|key| SecretKey { name: key.name.clone(), key: "sessionToken".to_owned() });
        let first = if is_store { S3_SECRET_KEY } else { KEYS[0].0 };
        for (field, key) in [(first, password), (KEYS[1].0, client_key), (S3_SESSION_TOKEN, token.as_ref())] {
            if let Some(key) = key
                && let Some(secret) = self.secret(key).await?
            {
                connection.restore_secret(field, secret);
            }
        }
        Ok(connection)
    }

    async fn secret(&self, key: &SecretKey) -> Result<Option<Secret>> {
        let found = self.api::<SecretObject>().get_opt(&key.name).await.map_err(failed)?;
        let bytes = found.and_then(|secret| secret.data?.remove(&key.key));
        let text = bytes.map(|bytes| String::from_utf8(bytes.0)).transpose();
        let text =
            text.map_err(|_| Error::new(Kind::LoginRefused, format!("the Secret `{}` holds no text under `{}`", key.name, key.key)))?;
        // As workers read it: an editor's or `echo`'s line break at the end was not meant.
        Ok(text.map(|text| Secret::new(text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)))))
    }

    pub(super) async fn make_connection(&self, connection: &Connection) -> Result<()> {
        let name = resource_name(&connection.name, connection.id.as_str());
        if self.find::<Object, _>(&connection.id, "connection").await.is_ok() {
            return Err(Error::new(Kind::Conflict, format!("the connection `{}` exists", connection.id)));
        }
        let secret = self.write_secret(&name, connection).await?;
        let spec = ConnectionSpec::from_core(connection, secret.as_deref())?;
        let object = Object { metadata: metadata(&name, connection.id.as_str(), &connection.name, connection.created), spec, status: None };
        match self.api::<Object>().create(&PostParams::default(), &object).await {
            Ok(made) => {
                self.own_secret(&made, secret.as_deref()).await?;
                Object::mirror(self).written(&made.metadata).await;
                Ok(())
            }
            Err(error) if is_conflict(&error) => Err(Error::new(Kind::Conflict, format!("the connection `{}` exists", connection.id))),
            Err(error) => {
                if let Some(secret) = secret {
                    let _ = self.api::<SecretObject>().delete(&secret, &DeleteParams::default()).await;
                }
                Err(failed(error))
            }
        }
    }

    pub(super) async fn change_connection(&self, connection: &Connection) -> Result<()> {
        for _ in 0..TRIES {
            let object: Object = self.find(&connection.id, "connection").await?;
            let name = object.name_any();
            let (secret, spec) = self.spec_of(connection, &object).await?;
            let mut changed = object.clone();
            changed.spec = spec;
            changed.annotations_mut().insert(NAME_ANNOTATION.to_owned(), connection.name.clone());
            match self.api::<Object>().replace(&name, &PostParams::default(), &changed).await {
                Ok(written) => {
                    self.own_secret(&object, secret.as_deref()).await?;
                    Object::mirror(self).written(&written.metadata).await;
                    return Ok(());
                }
                // The controller has written a status in between.
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::new(Kind::Contention, "the connection is changed by many at once"))
    }

    /// A changed connection's spec, and the Secret that was written for it. Secrets that stay as they are stay where they are, as somebody else may look after
    /// them there.
    async fn spec_of(&self, connection: &Connection, object: &Object) -> Result<(Option<String>, ConnectionSpec)> {
        let known = self.with_secrets(object).await?;
        let same = |one: &Connection, other: &Connection| {
            let list = |connection: &Connection| -> Vec<(String, String)> {
                connection.secrets().into_iter().map(|(field, secret)| (field.to_owned(), secret.expose().to_owned())).collect()
            };
            list(one) == list(other)
        };
        if same(&known, connection) {
            let mut spec = ConnectionSpec::from_core(connection, object.spec.secret_ref.as_ref().map(|key| key.name.as_str()))?;
            spec.secret_ref.clone_from(&object.spec.secret_ref);
            if let (Some(ssl), Some(old)) = (&mut spec.ssl, &object.spec.ssl) {
                ssl.client_key_ref.clone_from(&old.client_key_ref);
            }
            return Ok((None, spec));
        }
        let secret = self.write_secret(&object.name_any(), connection).await?;
        let spec = ConnectionSpec::from_core(connection, secret.as_deref())?;
        Ok((secret, spec))
    }

    pub(super) async fn remove_connection(&self, id: &ConnectionId) -> Result<()> {
        let object: Object = self.find(id, "connection").await?;
        let name = object.name_any();
        let uses = |config: &StreamConfig| {
            config.spec.target.connection == name || config.spec.source.connections.iter().any(|source| source.connection == name)
        };
        if let Some(config) = self.all_now::<StreamConfig>().await?.iter().find(|config| uses(config)) {
            return Err(Error::new(Kind::Conflict, format!("the stream config `{}` uses this connection", config.spec.name)));
        }
        let leaving = self.api::<Object>().delete(&name, &DeleteParams::default()).await.map_err(failed)?.left();
        Object::mirror(self).removed(&object.metadata, leaving.as_ref()).await;
        Ok(())
    }

    /// Writes a connection's secrets; answers the Secret's name, if there are any.
    async fn write_secret(&self, name: &str, connection: &Connection) -> Result<Option<String>> {
        let secrets = connection.secrets();
        if secrets.is_empty() {
            return Ok(None);
        }
        let key_of = |field: &str| KEYS.iter().find(|(known, _)| *known == field).map(|(_, key)| (*key).to_owned());
        let data: BTreeMap<String, ByteString> = secrets
            .into_iter()
            .filter_map(|(field, secret)| Some((key_of(field)?, ByteString(secret.expose().as_bytes().to_vec()))))
            .collect();
        let secret_name = format!("{SECRET_PREFIX}{name}");
        let object = SecretObject {
            metadata: ObjectMeta { name: Some(secret_name.clone()), ..ObjectMeta::default() },
            data: Some(data),
            ..SecretObject::default()
        };
        let api = self.api::<SecretObject>();
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(error) if is_conflict(&error) => {
                // A token that is not given any more must not go with the new key.
                let kept = object.data.unwrap_or_default();
                let mut data = json!(kept);
                for (_, key) in KEYS.iter().filter(|(_, key)| !kept.contains_key(*key)) {
                    data[*key] = Value::Null;
                }
                api.patch(&secret_name, &PatchParams::default(), &Patch::Merge(json!({"data": data}))).await.map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Some(secret_name))
    }

    /// The Secret goes with its connection.
    async fn own_secret(&self, object: &Object, secret: Option<&str>) -> Result<()> {
        let (Some(secret), Some(owner)) = (secret, object.owner_ref(&())) else { return Ok(()) };
        let patch = json!({"metadata": {"ownerReferences": [owner], "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER}}});
        match self.api::<SecretObject>().patch(secret, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !is_missing(&error) => Err(failed(error)),
            _ => Ok(()),
        }
    }
}
