//! Guesses of keys: wrong keys are counted by the address that they come from, and too many of them make it wait.
//!
//! A key has 256 random bits, so nobody finds one. What this keeps off is the load of trying, and the logs of keys that were taken elsewhere and tried here.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::DefaultClock;
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use moka::sync::Cache;

use crate::client::Client;
use crate::errors::{ApiError, ApiResult, Code};

/// Wrong keys that are let pass at once.
const BURST: u32 = 20;
/// One more is let pass after this time.
const REFILL: Duration = Duration::from_secs(6);
/// Addresses that are remembered; an address that has guessed nothing for [`FORGOTTEN`] starts afresh, as does one that is pushed out by others.
const REMEMBERED: u64 = 10_000;
const FORGOTTEN: Duration = Duration::from_secs(600);

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// Wrong keys by address; cheap to clone.
#[derive(Clone)]
pub struct KeyGuesses {
    by_client: Cache<IpAddr, Arc<Guesser>>,
    quota: Quota,
}

struct Guesser {
    limiter: Limiter,
    waits_until: Mutex<Option<Instant>>,
}

impl Default for KeyGuesses {
    fn default() -> Self {
        Self::new(BURST, REFILL)
    }
}

impl KeyGuesses {
    fn new(burst: u32, refill: Duration) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(refill).unwrap_or(Quota::per_minute(burst)).allow_burst(burst);
        Self { by_client: Cache::builder().max_capacity(REMEMBERED).time_to_idle(FORGOTTEN).build(), quota }
    }

    /// Lets a key be looked at.
    ///
    /// # Errors
    /// [`Code::RateLimited`] with the seconds to wait, after too many wrong keys from the same address.
    pub(crate) fn check(&self, client: Client) -> ApiResult<()> {
        let Some(guesser) = self.by_client.get(&client.counted()) else { return Ok(()) };
        // Whole after every statement.
        let waits_until = *guesser.waits_until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = waits_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(());
        }
        let seconds = left.as_secs() + 1;
        Err(ApiError::new(Code::RateLimited, format!("too many wrong API keys came from this address; try again in {seconds} s"))
            .retry_after(seconds))
    }

    /// A key was wrong.
    pub(crate) fn failed(&self, client: Client) {
        let guesser = self.by_client.get_with(client.counted(), || {
            let limiter = RateLimiter::direct(self.quota).with_middleware::<StateInformationMiddleware>();
            Arc::new(Guesser { limiter, waits_until: Mutex::default() })
        });
        if guesser.limiter.check().is_ok_and(|state| state.remaining_burst_capacity() > 0) {
            return;
        }
        let mut waits_until = guesser.waits_until.lock().unwrap_or_else(PoisonError::into_inner);
        if waits_until.is_none_or(|until| until < Instant::now()) {
            tracing::warn!(client = %client.0, "too many wrong API keys; the address has to wait");
        }
        *waits_until = Some(Instant::now() + self.quota.replenish_interval());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client(text.parse().unwrap())
    }

    #[test]
    fn an_address_waits_after_too_many_wrong_keys_and_others_do_not() {
        let guesses = KeyGuesses::new(3, Duration::from_millis(200));
        for _ in 0..3 {
            assert!(guesses.check(client("1.2.3.4")).is_ok());
            guesses.failed(client("1.2.3.4"));
        }
        let refused = guesses.check(client("1.2.3.4")).unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        assert!(guesses.check(client("1.2.3.5")).is_ok());
        std::thread::sleep(Duration::from_millis(250));
        assert!(guesses.check(client("1.2.3.4")).is_ok(), "one more after a while");
        guesses.failed(client("1.2.3.4"));
        assert!(guesses.check(client("1.2.3.4")).is_err(), "and only one");
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_guess() {
        let guesses = KeyGuesses::default();
        for number in 0..30_000_u32 {
            guesses.failed(Client(IpAddr::V4(number.into())));
        }
        guesses.by_client.run_pending_tasks();
        assert!(guesses.by_client.entry_count() <= REMEMBERED, "{}", guesses.by_client.entry_count());
    }
}
