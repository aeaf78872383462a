//! Where the audit log goes: events of one target, one JSON object per line, apart from all other records.

use std::fs::File;
use std::sync::Mutex;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// The target of events for the audit log.
pub const AUDIT: &str = "audit";

/// Where events of the audit log go.
#[derive(Debug, Default)]
pub enum AuditSink {
    /// Among the other records, as far as their filter lets them pass.
    #[default]
    Records,
    /// Standard output, which holds nothing else.
    Stdout,
    /// A file, opened for appending.
    File(File),
}

impl AuditSink {
    /// Whether the log has a place of its own.
    pub(crate) fn is_apart(&self) -> bool {
        !matches!(self, Self::Records)
    }

    /// What writes the events; a line is written at once, so that a crash loses none that was answered.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(self) -> Option<Box<dyn Layer<S> + Send + Sync>> {
        let lines = || {
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_target(false)
                .with_level(false)
        };
        let only = || filter_fn(|metadata| metadata.is_event() && metadata.target() == AUDIT);
        match self {
            Self::Records => None,
            Self::Stdout => Some(lines().with_writer(std::io::stdout).with_filter(only()).boxed()),
            Self::File(file) => Some(lines().with_writer(Mutex::new(file)).with_filter(only()).boxed()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn only_events_of_the_audit_are_written_as_flat_lines() {
        let mut file = tempfile();
        let layer = AuditSink::File(file.try_clone().unwrap()).layer();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", secret = "S3cret");
            let _entered = span.enter();
            tracing::info!("other");
            tracing::info!(target: AUDIT, operation = "insertRows", rows = 3_u64, key = None::<&str>, "write");
        });
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#""operation":"insertRows","rows":3"#), "{text}");
        assert!(text.contains("timestamp") && !text.contains("S3cret") && !text.contains("key"), "{text}");
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("millrace-audit-{}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }
}
