//! What the cluster's refusals mean.

use millrace_core::{Error, Kind};

/// An answer of Kubernetes' API server as an error of ours.
pub(crate) fn failed(error: kube::Error) -> Error {
    let kind = match &error {
        kube::Error::Api(status) if status.code == 404 => Kind::NotFound,
        kube::Error::Api(status) if status.code == 409 => Kind::Conflict,
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => return invalid(&error, status.message.clone()),
        kube::Error::Api(status) if status.code == 403 => Kind::PermissionDenied,
        _ => Kind::Unreachable,
    };
    Error::new(kind, "the cluster refused").because(error)
}

/// What the definitions refuse, in their own words; the field is the first that is named.
fn invalid(error: &kube::Error, message: String) -> Error {
    let field = match error {
        kube::Error::Api(status) => status.details.as_ref().and_then(|details| details.causes.first()).map(|cause| cause.field.clone()),
        _ => None,
    };
    let field = field.unwrap_or_default();
    Error::invalid(field.strip_prefix("spec.").unwrap_or(&field).to_owned(), message)
}

/// Whether the object is not there.
pub(crate) fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether somebody else was quicker.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
