//! What keeps an object until something is done.

use kube::Resource;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::{Context, Failure};

pub(crate) fn has<K: Resource>(object: &K, finalizer: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|held| held == finalizer)
}

/// Puts a finalizer on an object or takes it away. Fails, and is tried again, when somebody has changed the object meanwhile: what is decided here must be decided
/// about the object as it is.
pub(crate) async fn set<K>(object: &K, finalizer: &str, is_held: bool, context: &Context) -> Result<(), Failure>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let is_new = is_held && (object.meta().deletion_timestamp.is_some() || context.is_terminating());
    if has(object, finalizer) == is_held || is_new {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    if is_held {
        finalizers.push(finalizer.to_owned());
    } else {
        finalizers.retain(|held| held != finalizer);
    }
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    match context.api::<K>().patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
