//! The custom resources `millrace.dev/v1alpha1`: what people and the API server write, and what the controller answers.
//!
//! ```text
//!  types (serde, schemars) ─▶ kube's definition ─▶ bounds and rules of `rules` ─▶ crds/yaml/*.yaml
//! ```
//!
//! Resources refer to each other by name within one namespace. They hold no secret: a Connection names a key of a Secret. Rules that types cannot say are CEL in
//! the definition, so that the API server of the cluster refuses what Millrace's own API refuses, with the same sentence.
#![warn(missing_docs)]

mod connection;
mod convert;
mod generate;
mod rules;
mod stream;
mod stream_config;

pub use connection::{
    AzureForm, Connection, ConnectionSpec, ConnectionStatus, DatabaseForm, FilesForm, GcsForm, Place, ProbeRecord, S3Form, S3Login,
    SecretKey, SnowflakeForm, TlsForm,
};
pub use convert::{ObjectId, created_at, object_id};
pub use generate::definitions;
pub use stream::{ConfigReference, Counters, DesiredState, Stream, StreamSpec, StreamStatus};
pub use stream_config::{
    DeletionPolicy, SourceForm, SourceReference, StreamConfig, StreamConfigSpec, StreamConfigStatus, TargetForm, TargetReference,
};

/// The group of all kinds.
pub const GROUP: &str = "millrace.dev";

/// The label that carries an object's id of the REST API.
pub const ID_LABEL: &str = "millrace.dev/id";

/// What people call an object, where its resource's name cannot say it.
pub const NAME_ANNOTATION: &str = "millrace.dev/name";

/// Keeps the controller's hands off an object while it is `true`.
pub const PAUSE_ANNOTATION: &str = "millrace.dev/pause-reconciliation";

/// Unix seconds at which the API server was asked to make an object.
pub const CREATED_ANNOTATION: &str = "millrace.dev/created";

/// A stream's id in the run history.
pub const RUN_ID_ANNOTATION: &str = "millrace.dev/run-id";

/// Public name of the key that started a stream.
pub const STARTED_BY_ANNOTATION: &str = "millrace.dev/started-by";

/// The trace that a stream's start belongs to, in the form of W3C Trace Context's `traceparent`.
pub const TRACEPARENT_ANNOTATION: &str = "millrace.dev/traceparent";

/// When a stop was seen first.
pub const STOPPED_AT_ANNOTATION: &str = "millrace.dev/stopped-at";

/// What a connection's Secret is named after, so that the controller's workers can be held to these.
pub const SECRET_PREFIX: &str = "millrace-conn-";

/// Asks for another try to log in: a Connection with a value that was not there before is probed again. Also the label of such a try's Job.
pub const PROBE_ANNOTATION: &str = "millrace.dev/probe";

/// Keeps a Connection while something names it.
pub const IN_USE_FINALIZER: &str = "millrace.dev/in-use";

/// Keeps a StreamConfig until what it has left at its target is removed.
pub const CLEANUP_FINALIZER: &str = "millrace.dev/cleanup";

/// Keeps a Stream until its workers are gone.
pub const WORKERS_FINALIZER: &str = "millrace.dev/workers";

#[cfg(test)]
mod tests;
