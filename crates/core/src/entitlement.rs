//! Who may start, pause, resume and stop streams: API key, installation, subscription.

use futures::future::BoxFuture;

use crate::secret::Secret;

/// What a key is allowed, beyond being known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// A public name of the key (never the key): its stored id.
    pub key_id: String,
    /// The plan that the key's account has.
    pub subscription: String,
}

/// Why a request is refused. The texts hold the words by which clients tell the cases apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// Key or install id missing, unknown, malformed or revoked.
    #[error("authentication failed: a valid API key is required")]
    AuthenticationFailed,
    /// More installations than seats.
    #[error("seat limit reached for this subscription")]
    SeatLimitReached,
    /// This installation was unbound.
    #[error("device deactivated: this installation was unbound from the subscription")]
    DeviceDeactivated,
    /// No paid subscription and no evaluation left.
    #[error("payment required: the subscription is past due or the evaluation ended")]
    PaymentRequired,
    /// The provider cannot answer now.
    #[error("the entitlement service cannot be reached")]
    Unavailable,
}

/// Knows keys.
///
/// Contract: constant-time comparison of keys; a key created or revoked by another process counts at once; an answer within 5 s.
pub trait Entitlement: Send + Sync {
    /// Whether the key is known and not revoked; nothing else (tolerant endpoints under `auth.ide=key`).
    fn identify<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>>;

    /// Whether this key on this installation may operate streams (the four strict endpoints).
    fn authorise<'a>(&'a self, key: &'a Secret, install: &'a str) -> BoxFuture<'a, Result<Grant, Denial>>;
}
