//! The contract of `Entitlement`.

use std::sync::Arc;

use millrace_core::Secret;
use millrace_core::entitlement::{Denial, Entitlement, StreamOperation, Usage};

/// Runs the suite with a key that the provider knows.
pub async fn conformance(provider: Arc<dyn Entitlement>, known: Secret) {
    let grant = provider.authorise(&known, "install-1", StreamOperation::Start).await.expect("a known key");
    assert_eq!(provider.identify(&known).await.as_ref(), Ok(&grant));
    assert!(!grant.key_id.contains(known.expose()), "a key's public name is not the key");
    let changed = Secret::new(format!("{}x", known.expose()));
    for wrong in [Secret::new(""), Secret::new("wrong"), changed, Secret::new(&known.expose()[1..])] {
        assert_eq!(provider.identify(&wrong).await, Err(Denial::AuthenticationFailed));
        assert_eq!(provider.authorise(&wrong, "install-1", StreamOperation::Operate).await, Err(Denial::AuthenticationFailed));
    }
    for install in ["", "  "] {
        assert_eq!(
            provider.authorise(&known, install, StreamOperation::Start).await,
            Err(Denial::AuthenticationFailed),
            "an install id is required"
        );
    }
    let account = provider.account(&known, "install-1").await.expect("an account");
    assert_eq!((account.key_id.as_str(), account.is_install_active), (grant.key_id.as_str(), Some(true)));
    assert_eq!(provider.account(&Secret::new("wrong"), "install-1").await, Err(Denial::AuthenticationFailed));
    assert_eq!(provider.record(&grant.key_id, Usage::ConvertBytes(1 << 40)).await, None, "who is not on evaluation is not warned");
}
