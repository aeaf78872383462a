//! From custom resources to the words of `core` and back. Resources name each other; `core` knows ids.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use millrace_core::config::StreamSpec;
use millrace_core::connection::{Connection as CoreConnection, S3_SECRET_KEY};
use millrace_core::id::{ConfigId, ConnectionId, StreamId};
use millrace_core::{Error, Result};
use serde_json::{Map, Value, json};

use crate::{Connection, ConnectionSpec, ID_LABEL, StreamConfigSpec};

/// Fields of a resource's spec that only clusters know.
const CLUSTER_FIELDS: [&str; 4] = ["state", "runNonce", "deletionPolicy", "historyLimit"];

/// The id of an object: its label's, or for one that came without it, one derived from its creation and UID.
///
/// # Errors
/// [`millrace_core::Kind::Invalid`] for a label that is not an id of this kind.
pub fn object_id<I: ObjectId>(meta: &ObjectMeta) -> Result<I> {
    if let Some(label) = meta.labels.as_ref().and_then(|labels| labels.get(ID_LABEL)) {
        let field = format!("metadata.labels[{ID_LABEL}]");
        return I::parse(label).ok_or_else(|| Error::invalid(field, format!("`{label}` is not an id of this kind")));
    }
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let digits: String = meta.uid.as_deref().unwrap_or_default().chars().filter(char::is_ascii_hexdigit).collect();
    let mut unique = [0; 16];
    for (byte, pair) in unique.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or(0);
    }
    Ok(I::derive(created, unique))
}

/// Unix seconds of an object's creation: what the API server noted, else what the cluster did.
pub fn created_at(meta: &ObjectMeta) -> i64 {
    let said = meta.annotations.as_ref().and_then(|all| all.get(crate::CREATED_ANNOTATION)?.parse().ok());
    said.unwrap_or_else(|| meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()))
}

/// Kinds of ids that objects have.
pub trait ObjectId: Sized {
    /// Reads one.
    fn parse(text: &str) -> Option<Self>;
    /// Makes the one that an object without a label has.
    fn derive(created: i64, unique: [u8; 16]) -> Self;
}

macro_rules! object_ids {
    ($($id:ty),*) => {$(
        impl ObjectId for $id {
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn derive(created: i64, unique: [u8; 16]) -> Self {
                Self::derive(created, unique)
            }
        }
    )*};
}

object_ids!(ConnectionId, ConfigId, StreamId);

impl Connection {
    /// This connection in the words of `core`, without its secrets.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] for a form that `core` does not know.
    pub fn to_core(&self) -> Result<CoreConnection> {
        let id: ConnectionId = object_id(&self.metadata)?;
        let spec = &self.spec;
        let raw = value(spec)?;
        let forms = ["database", "s3", "gcs", "azure", "snowflake", "files"];
        let form = forms.into_iter().find(|form| raw.get(*form).is_some());
        let form = form.ok_or_else(|| Error::invalid("spec", "exactly one form must be given"))?;
        let mut inner = raw[form].clone();
        if form == "database" && inner.get("port").is_none() {
            inner["port"] = json!(spec.engine.default_port().unwrap_or(0));
        }
        let ssl = spec.ssl.as_ref().map(|ssl| json!({"mode": ssl.mode, "ca": ssl.ca, "client_cert": ssl.client_cert}));
        let name = self.metadata.name.clone().unwrap_or_default();
        let display = self.metadata.annotations.as_ref().and_then(|all| all.get(crate::NAME_ANNOTATION)).cloned().unwrap_or(name);
        from_value(json!({
            "id": id, "name": display, "type": spec.engine, "created": created_at(&self.metadata), "ssl": ssl, "spec": {form: inner},
        }))
    }
}

impl ConnectionSpec {
    /// A connection's spec as a resource says it; its secrets stand in the named Secret.
    ///
    /// # Errors
    /// [`millrace_core::Kind::Invalid`] for a form that resources do not know.
    pub fn from_core(connection: &CoreConnection, secret: Option<&str>) -> Result<Self> {
        let mut raw = value(&connection.spec)?;
        raw.insert("type".to_owned(), value_of(&connection.engine)?);
        if let Some(ssl) = &connection.ssl {
            let key = ssl.client_key.is_some().then(|| json!({"name": secret, "key": "clientKey"}));
            raw.insert("ssl".to_owned(), json!({"mode": ssl.mode, "ca": ssl.ca, "clientCert": ssl.client_cert, "clientKeyRef": key}));
        }
        let has = |wanted: &str| connection.secrets().iter().any(|(path, _)| *path == wanted);
        let key = if has("spec.database.password") {
            Some("password")
        } else if has(S3_SECRET_KEY) {
            Some("secretKey")
        } else {
            None
        };
        if let (Some(name), Some(key)) = (secret, key) {
            raw.insert("secretRef".to_owned(), json!({"name": name, "key": key}));
        }
        from_value(Value::Object(raw))
    }
}

impl StreamConfigSpec {
    /// This definition in the words of `core`. `id` finds a connection's id by its resource's name.
    ///
    /// # Errors
    /// Those of `id`; [`millrace_core::Kind::Invalid`] for what `core` does not know.
    pub fn to_core(&self, id: impl Fn(&str) -> Result<ConnectionId>) -> Result<StreamSpec> {
        let mut raw = value(self)?;
        CLUSTER_FIELDS.iter().for_each(|field| drop(raw.remove(*field)));
        let sources = raw.get_mut("source").and_then(|source| source.get_mut("connections")).and_then(Value::as_array_mut);
        for (index, source) in sources.into_iter().flatten().enumerate() {
            rename(source, "connection", "connectionId", &id)
                .map_err(|error| error.field(format!("source.connections[{index}].connection")))?;
        }
        if let Some(target) = raw.get_mut("target") {
            rename(target, "connection", "id", &id).map_err(|error| error.field("target.connection"))?;
        }
        from_value(Value::Object(raw))
    }

    /// A definition as a resource says it. `name` finds a connection's resource by its id.
    ///
    /// # Errors
    /// Those of `name`.
    pub fn from_core(spec: &StreamSpec, name: impl Fn(&str) -> Result<String>) -> Result<Self> {
        let mut raw = value(spec)?;
        let sources = raw.get_mut("source").and_then(|source| source.get_mut("connections")).and_then(Value::as_array_mut);
        for (index, source) in sources.into_iter().flatten().enumerate() {
            rename(source, "connectionId", "connection", &name)
                .map_err(|error| error.field(format!("source.connections[{index}].connectionId")))?;
        }
        if let Some(target) = raw.get_mut("target") {
            rename(target, "id", "connection", &name).map_err(|error| error.field("target.id"))?;
        }
        from_value(Value::Object(raw))
    }
}

fn rename<T: serde::Serialize>(part: &mut Value, from: &str, to: &str, find: impl Fn(&str) -> Result<T>) -> Result<()> {
    let Some(fields) = part.as_object_mut() else { return Ok(()) };
    if let Some(Value::String(text)) = fields.remove(from) {
        fields.insert(to.to_owned(), value_of(&find(&text)?)?);
    }
    Ok(())
}

fn value<T: serde::Serialize>(item: &T) -> Result<Map<String, Value>> {
    match value_of(item)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::internal("a spec is not an object")),
    }
}

fn value_of<T: serde::Serialize>(item: &T) -> Result<Value> {
    serde_json::to_value(item).map_err(|error| Error::internal("a resource has no JSON form").because(error))
}

fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::invalid("spec", format!("the definition cannot be read: {error}")))
}
