//! Connections: whether they hold, what a login from where workers run says, and who keeps them from being removed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use millrace_core::{Error, Kind, validate};
use millrace_crds::{Connection, ConnectionStatus, IN_USE_FINALIZER, PROBE_ANNOTATION};
use serde_json::json;

use crate::conditions::{sentence, set};
use crate::context::{Context, FIELD_MANAGER, Failure, RESYNC, is_paused};
use crate::usage::{self, Users};
use crate::{finalizers, metrics, probe};

/// One that is to be deleted and still in use is looked at so often, beside whenever its users change.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Reconciles connections; never returns.
pub(crate) async fn run(context: Arc<Context>) {
    let connections: Api<Connection> = context.api();
    let jobs: Api<Job> = context.api();
    let (users, configs, streams) = Users::watch(context);
    Controller::new(connections, watcher::Config::default())
        .owns(jobs, watcher::Config::default().labels(PROBE_ANNOTATION))
        .watches_stream(configs, usage::of_config)
        .watches_stream(streams, usage::of_stream)
        .run(|connection, users| metrics::measure("Connection", reconcile(connection, users)), on_failure, Arc::new(users))
        .for_each(async |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection was not reconciled");
            }
        })
        .await;
}

fn on_failure(connection: Arc<Connection>, error: &Failure, _: Arc<Users>) -> Action {
    error.tell(&connection.name_any(), "a connection could not be reconciled; it is tried again");
    Action::requeue(Duration::from_secs(3))
}

async fn reconcile(connection: Arc<Connection>, all_users: Arc<Users>) -> Result<Action, Failure> {
    let context = &all_users.context;
    let is_leaving = connection.metadata.deletion_timestamp.is_some();
    if (is_paused(&*connection) || context.is_terminating()) && !is_leaving {
        return Ok(Action::requeue(RESYNC));
    }
    let users = all_users.of(&connection).await?;
    finalizers::set(&*connection, IN_USE_FINALIZER, !users.is_empty(), context).await?;
    if is_leaving && users.is_empty() {
        return Ok(Action::await_change());
    }
    let generation = connection.metadata.generation.unwrap_or(0);
    let mut status = connection.status.clone().unwrap_or_default();
    status.observed_generation = connection.metadata.generation;
    tell_users(&connection, &users, is_leaving, &mut status, context).await;
    let action = match check(&connection) {
        Ok(()) => {
            let action = if is_leaving {
                Action::requeue(LOOK_EVERY)
            } else if connection.spec.s3.is_some() {
                // No worker moves data from or to object stores yet, so none is asked whether it reaches one.
                Action::requeue(RESYNC)
            } else {
                probe::advance(&connection, &mut status, context).await?
            };
            match probe::refusal(&status, generation) {
                None => set(&mut status.conditions, generation, "Accepted", true, "Valid", ""),
                Some(text) => set(&mut status.conditions, generation, "Accepted", false, "Invalid", &text),
            }
            action
        }
        Err(error) => {
            let word = if error.kind() == Kind::NotSupported { "NotSupported" } else { "Invalid" };
            set(&mut status.conditions, generation, "Accepted", false, word, &sentence(&error));
            Action::requeue(if is_leaving { LOOK_EVERY } else { RESYNC })
        }
    };
    write(&connection, status, context).await?;
    Ok(action)
}

/// Whether the REST API would take it, too.
fn check(connection: &Connection) -> Result<(), Error> {
    validate::check_connection(&connection.to_core()?)
}

/// Says who uses a connection, and once that it is kept for them.
async fn tell_users(connection: &Connection, users: &[String], is_leaving: bool, status: &mut ConnectionStatus, context: &Context) {
    let names = usage::sentence(users);
    let (word, text) = match (users.is_empty(), is_leaving) {
        (true, _) => ("Unused", String::new()),
        (false, false) => ("Named", format!("used by {names}")),
        (false, true) => ("DeletionWaits", format!("it is removed once nothing uses it: it is used by {names}")),
    };
    let is_news = !status.conditions.iter().any(|known| known.type_ == "InUse" && known.reason == word && known.message == text);
    if is_leaving && is_news {
        context.event(connection, true, word, &text).await;
    }
    set(&mut status.conditions, connection.metadata.generation.unwrap_or(0), "InUse", !users.is_empty(), word, &text);
}

async fn write(connection: &Connection, status: ConnectionStatus, context: &Context) -> Result<(), Failure> {
    if connection.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let patch = json!({"apiVersion": "millrace.dev/v1alpha1", "kind": "Connection", "status": status});
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match context.api::<Connection>().patch_status(&connection.name_any(), &parameters, &Patch::Apply(patch)).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
