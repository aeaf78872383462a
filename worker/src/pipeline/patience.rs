//! How long servers that are away are waited for.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use millrace_core::{Disposition, Error, Kind, Result};

use crate::control::{Control, Stopped};

/// About five minutes: a server that is restarted or failed over is back by then.
const TRIES: usize = 35;

/// A full disk is not emptied by waiting; a crowded server may be.
const TRIES_WHEN_FULL: usize = 2;

/// Waits from a fifth of a second to ten seconds.
pub(super) fn long() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .with_max_times(TRIES)
        .build()
}

/// The tries of one step.
pub(super) struct Patience {
    waits: ExponentialBackoff,
    full: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { waits: long(), full: 0 }
    }
}

impl Patience {
    /// Waits before the next try; fails with the error when it is final or the tries are used up.
    pub(super) async fn wait(&mut self, error: Error, control: &mut Control) -> Result<()> {
        let Disposition::Retry { after } = error.disposition() else { return Err(error) };
        if error.kind() == Kind::ServerExhausted {
            self.full += 1;
            if self.full > TRIES_WHEN_FULL {
                return Err(error);
            }
        }
        let Some(wait) = self.waits.next() else { return Err(error) };
        tracing::warn!(error = %error.chain(), "trying again");
        crate::metrics::retried(error.kind());
        tokio::time::sleep(wait.max(after)).await;
        control.checkpoint().await.map_err(stopped)
    }
}

/// The error of a stop.
pub(super) fn stopped(_: Stopped) -> Error {
    Error::new(Kind::Cancelled, "the run was stopped")
}
