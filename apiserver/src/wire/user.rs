//! The account on the wire.

use millrace_core::entitlement::{Account, Evaluation};
use schemars::JsonSchema;
use serde::Serialize;

/// What the owner of a key may know. Fields of accounts that a local key does not have are empty.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserData {
    /// The key's public name.
    #[serde(rename = "userID")]
    user_id: String,
    email: String,
    name: String,
    #[serde(rename = "stripeCustomerID")]
    stripe_customer_id: String,
    /// Always empty: the server does not know keys, only their hashes.
    api_key: String,
    /// 0 means any number.
    seat_limit: u32,
    active_bindings: u32,
    /// `active` or `deactivated`.
    #[serde(skip_serializing_if = "Option::is_none")]
    current_install_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<EvaluationData>,
    subscription: SubscriptionData,
    subscription_status: String,
}

/// The counters of an evaluation; times are Unix seconds.
#[derive(Debug, Serialize, JsonSchema)]
struct EvaluationData {
    /// `inactive`, `active` or `ended`.
    status: &'static str,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    convert_bytes: u64,
    convert_limit_bytes: u64,
    convert_warned_percent: u8,
    cdc_seconds: u64,
    cdc_limit_seconds: u64,
    cdc_warned_percent: u8,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SubscriptionData {
    id: u32,
    name: String,
    monthly_price: f64,
    yearly_price: f64,
    interval: &'static str,
    status: String,
}

impl From<&Account> for UserData {
    fn from(account: &Account) -> Self {
        // Clients know one word for "all is well".
        let status = if account.subscription == "unlimited" { "active" } else { &account.subscription };
        Self {
            user_id: account.key_id.clone(),
            email: String::new(),
            name: account.name.clone(),
            stripe_customer_id: String::new(),
            api_key: String::new(),
            seat_limit: account.seat_limit,
            active_bindings: account.active_bindings,
            current_install_status: account.is_install_active.map(|is_active| if is_active { "active" } else { "deactivated" }),
            evaluation: account.evaluation.as_ref().map(Into::into),
            subscription: SubscriptionData {
                id: 0,
                name: account.subscription.clone(),
                monthly_price: 0.0,
                yearly_price: 0.0,
                interval: "month",
                status: status.to_owned(),
            },
            subscription_status: status.to_owned(),
        }
    }
}

impl From<&Evaluation> for EvaluationData {
    fn from(evaluation: &Evaluation) -> Self {
        Self {
            status: evaluation.status(),
            started_at: evaluation.started_at,
            ended_at: evaluation.ended_at,
            convert_bytes: evaluation.convert_bytes,
            convert_limit_bytes: evaluation.convert_limit_bytes,
            convert_warned_percent: evaluation.convert_warned_percent,
            cdc_seconds: evaluation.cdc_seconds,
            cdc_limit_seconds: evaluation.cdc_limit_seconds,
            cdc_warned_percent: evaluation.cdc_warned_percent,
        }
    }
}

/// What is stored for the owner of a key.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserConfigs {
    pub(crate) connections: usize,
    pub(crate) stream_configs: usize,
}

/// A session has begun or ended.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    pub(crate) status: &'static str,
    /// Seconds that it lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_in: Option<u64>,
}
