//! Who may operate streams: API key, installation, seats, subscription, evaluation.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::config::Mode;
use crate::secret::Secret;

/// What a key is allowed, beyond being known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

/// What is to be done with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamOperation {
    /// Start one; the only operation that looks at subscription and evaluation, so that what runs can always be ended.
    Start,
    /// Pause, resume or stop one.
    Operate,
}

/// What a key's owner may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// As in [`Grant`].
    pub key_id: String,
    /// What the key is for.
    pub name: String,
    /// `unlimited`, `active`, `past_due`, `canceled` or `evaluation`.
    pub subscription: String,
    /// Installations that may use the key at once; 0 means any number.
    pub seat_limit: u32,
    /// Installations that are bound.
    pub active_bindings: u32,
    /// Whether the asking installation is bound; none if it is unknown.
    pub is_install_active: Option<bool>,
    /// Counters, for an account on evaluation.
    pub evaluation: Option<Evaluation>,
}

/// The counters of an evaluation. Times are Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Its first stream's start.
    pub started_at: Option<i64>,
    /// When a limit was reached.
    pub ended_at: Option<i64>,
    /// Bytes moved by converts.
    pub convert_bytes: u64,
    /// Of so many.
    pub convert_limit_bytes: u64,
    /// The highest threshold that was warned of.
    pub convert_warned_percent: u8,
    /// Seconds of change data capture.
    pub cdc_seconds: u64,
    /// Of so many.
    pub cdc_limit_seconds: u64,
    /// The highest threshold that was warned of.
    pub cdc_warned_percent: u8,
}

impl Evaluation {
    /// `inactive`, `active` or `ended`.
    pub fn status(&self) -> &'static str {
        match (self.started_at, self.is_used_up()) {
            (_, true) => "ended",
            (None, _) => "inactive",
            _ => "active",
        }
    }

    /// Whether a limit is reached.
    pub fn is_used_up(&self) -> bool {
        self.ended_at.is_some() || self.convert_bytes >= self.convert_limit_bytes || self.cdc_seconds >= self.cdc_limit_seconds
    }
}

/// What a run has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Bytes of a convert.
    ConvertBytes(u64),
    /// Seconds of change data capture.
    CdcSeconds(u64),
}

/// A part of an evaluation is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationWarning {
    /// Which counter.
    pub mode: Mode,
    /// The threshold that was passed, percent.
    pub threshold: u8,
    /// What is used, percent.
    pub percent: u8,
    /// Bytes or seconds.
    pub used: u64,
    /// Of so many.
    pub limit: u64,
}

/// Percentages at which an evaluation warns.
pub const WARN_AT: [u8; 4] = [50, 80, 90, 100];

/// The highest threshold that a counter has passed, if it is a new one.
pub fn warning(mode: Mode, used: u64, limit: u64, warned: u8) -> Option<EvaluationWarning> {
    let percent = (used.saturating_mul(100) / limit.max(1)).min(100) as u8;
    let threshold = WARN_AT.into_iter().rev().find(|threshold| percent >= *threshold)?;
    (threshold > warned).then_some(EvaluationWarning { mode, threshold, percent, used, limit })
}

/// Knows keys.
///
/// Contract: constant-time comparison of keys; a key created or revoked by another process counts at once (a remote provider may take a minute); an
/// answer within 5 s.
pub trait Entitlement: Send + Sync {
    /// Whether the key is known and not revoked; nothing else (tolerant endpoints under `auth.ide=key`).
    fn identify<'a>(&'a self, key: &'a Secret) -> BoxFuture<'a, Result<Grant, Denial>>;

    /// Whether this key on this installation may operate streams (the four strict endpoints).
    fn authorise<'a>(&'a self, key: &'a Secret, install: &'a str, operation: StreamOperation) -> BoxFuture<'a, Result<Grant, Denial>>;

    /// What the key's owner may know; a deactivated installation or an unpaid account is an answer here, not a denial.
    fn account<'a>(&'a self, key: &'a Secret, install: &'a str) -> BoxFuture<'a, Result<Account, Denial>>;

    /// Counts what a run of this key has used since the last call; answers a warning that is due. What cannot be counted now is lost, never blocks.
    fn record<'a>(&'a self, key_id: &'a str, usage: Usage) -> BoxFuture<'a, Option<EvaluationWarning>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_warned_of_once() {
        let at = |used, warned| warning(Mode::Convert, used, 1000, warned).map(|warning| (warning.threshold, warning.percent));
        assert_eq!(at(499, 0), None);
        assert_eq!(at(500, 0), Some((50, 50)));
        assert_eq!(at(700, 50), None);
        assert_eq!(at(950, 50), Some((90, 95)));
        assert_eq!(at(5000, 90), Some((100, 100)));
        assert_eq!(at(5000, 100), None);
    }
}
