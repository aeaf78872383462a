//! Everybody may do everything: for a machine of one's own, and only by an explicit setting.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_core::Secret;
use millrace_core::entitlement::{Account, Denial, Entitlement, EvaluationWarning, Grant, StreamOperation, Usage};

/// Lets every request pass, with or without a key.
pub struct AllowAll;

fn grant() -> Grant {
    Grant { key_id: "anybody".to_owned(), subscription: "unlimited".to_owned() }
}

impl Entitlement for AllowAll {
    fn identify<'a>(&'a self, _: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>> {
        async { Ok(grant()) }.boxed()
    }

    fn authorise<'a>(&'a self, _: &'a Secret, _: &'a str, _: StreamOperation) -> BoxFuture<'a, Result<Grant, Denial>> {
        async { Ok(grant()) }.boxed()
    }

    fn account<'a>(&'a self, _: &'a Secret, _: &'a str) -> BoxFuture<'a, Result<Account, Denial>> {
        async {
            Ok(Account {
                key_id: grant().key_id,
                name: String::new(),
                subscription: grant().subscription,
                seat_limit: 0,
                active_bindings: 0,
                is_install_active: Some(true),
                evaluation: None,
            })
        }
        .boxed()
    }

    fn record<'a>(&'a self, _: &'a str, _: Usage) -> BoxFuture<'a, Option<EvaluationWarning>> {
        async { None }.boxed()
    }
}
