//! The connections that a stream names.

use kube::Api;
use millrace_crds::{Connection, Stream};

use crate::context::{Context, Failure};

/// Connections by the name of their resource, each once.
pub(super) type Connections = Vec<Connection>;

/// All connections of a stream, or a sentence about the first that is missing.
pub(super) async fn dereference(stream: &Stream, context: &Context) -> Result<Result<Connections, String>, Failure> {
    let api: Api<Connection> = context.api();
    let mut found: Connections = Vec::new();
    let config = &stream.spec.config;
    let names = config.source.connections.iter().map(|source| &source.connection).chain([&config.target.connection]);
    for name in names {
        if found.iter().any(|connection| connection.metadata.name.as_ref() == Some(name)) {
            continue;
        }
        match api.get_opt(name).await? {
            Some(connection) => found.push(connection),
            None => return Ok(Err(format!("there is no Connection `{name}` in this namespace"))),
        }
    }
    Ok(Ok(found))
}
