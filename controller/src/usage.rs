//! Who names a connection.

use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use millrace_crds::{Connection, Stream, StreamConfig, StreamConfigSpec};

use crate::context::{Context, Failure};
use crate::stream::phase;

/// So many are named in a sentence.
const NAMED: usize = 5;

/// The connections that a definition names, each once.
pub(crate) fn names(spec: &StreamConfigSpec) -> Vec<String> {
    let sources = spec.source.connections.iter().map(|source| source.connection.clone());
    let mut names: Vec<String> = sources.chain([spec.target.connection.clone()]).collect();
    names.sort();
    names.dedup();
    names
}

/// Definitions and unfinished streams that name a connection. A definition counts until it is gone: its clean-up logs in once more.
pub(crate) async fn of(connection: &str, context: &Context) -> Result<Vec<String>, Failure> {
    let uses = |spec: &StreamConfigSpec| names(spec).iter().any(|name| name == connection);
    let all = ListParams::default();
    let configs = context.api::<StreamConfig>().list(&all).await?.items;
    let streams = context.api::<Stream>().list(&all).await?.items;
    let configs = configs.iter().filter(|config| uses(&config.spec)).map(|config| format!("StreamConfig `{}`", config.name_any()));
    let streams = streams.iter().filter(|stream| !phase(stream).is_terminal() && uses(&stream.spec.config));
    let streams = streams.map(|stream| format!("Stream `{}`", stream.name_any()));
    Ok(configs.chain(streams).collect())
}

/// The first few users, and how many more there are.
pub(crate) fn sentence(users: &[String]) -> String {
    let mut text = users.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if users.len() > NAMED {
        text.push_str(&format!(" and {} more", users.len() - NAMED));
    }
    text
}

/// The connections that are to be looked at when a definition has changed.
pub(crate) fn of_config(config: StreamConfig) -> Vec<ObjectRef<Connection>> {
    references(config.namespace(), &config.spec)
}

/// The connections that are to be looked at when a stream has changed.
pub(crate) fn of_stream(stream: Stream) -> Vec<ObjectRef<Connection>> {
    references(stream.namespace(), &stream.spec.config)
}

fn references(namespace: Option<String>, spec: &StreamConfigSpec) -> Vec<ObjectRef<Connection>> {
    let namespace = namespace.unwrap_or_default();
    names(spec).iter().map(|name| ObjectRef::new(name).within(&namespace)).collect()
}

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn many_users_are_counted() {
        let users: Vec<String> = (1..=7).map(|number| format!("Stream `s-{number}`")).collect();
        assert_eq!(sentence(&users[..2]), "Stream `s-1`, Stream `s-2`");
        assert!(sentence(&users).ends_with("Stream `s-5` and 2 more"), "{}", sentence(&users));
    }
}
