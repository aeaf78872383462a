//! The beat: says to the others that this worker is there and what it holds, and hears what they say.

use std::time::Duration;

use millrace_core::fleet::{CutPhase, FleetView, MemberReport};
use millrace_core::{Disposition, Error};
use tokio::sync::{Notify, watch};

use super::Fleet;

/// While a moment is opened, all wait for all.
const BUSY_EVERY: Duration = Duration::from_millis(100);
const CALM_EVERY: Duration = Duration::from_millis(1000);
/// While the target is away: soon enough not to be taken for dead once it is back.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How long the target may be away.
const PATIENCE: Duration = Duration::from_secs(300);
/// A leader that could not beat for so long is none any more.
const LEASE: Duration = Duration::from_secs(7);

/// What this worker says and what it has heard.
pub(super) struct Pulse {
    report: watch::Sender<MemberReport>,
    view: watch::Sender<FleetView>,
    hurry: Notify,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { report: watch::Sender::new(MemberReport::default()), view: watch::Sender::new(FleetView::default()), hurry: Notify::new() }
    }
}

impl Pulse {
    /// What was heard last.
    pub(super) fn view(&self) -> FleetView {
        self.view.borrow().clone()
    }

    /// What is heard from now on.
    pub(super) fn views(&self) -> watch::Receiver<FleetView> {
        let mut views = self.view.subscribe();
        views.mark_changed();
        views
    }

    /// What this worker said last.
    pub(super) fn report(&self) -> MemberReport {
        self.report.borrow().clone()
    }

    /// Says something else from now on, at once.
    pub(super) fn say(&self, report: MemberReport) {
        self.report.send_replace(report);
        self.hurry();
    }

    /// Beats at once.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }
}

/// Beats until this worker is fenced, or the target has been away for too long.
pub(super) async fn run(fleet: &Fleet<'_>) -> Error {
    let mut waits = 0..PATIENCE.as_millis() / RETRY_EVERY.as_millis();
    let mut beaten_at = tokio::time::Instant::now();
    loop {
        let report = fleet.pulse.report();
        let beat = async { fleet.ledger()?.beat(&fleet.key, fleet.epoch, &report).await };
        let every = match beat.await {
            Ok(view) => {
                (waits, beaten_at) = (0..PATIENCE.as_millis() / RETRY_EVERY.as_millis(), tokio::time::Instant::now());
                fleet.progress.set_heard(view.is_leader);
                let is_calm = view.cut.as_ref().is_some_and(|cut| cut.phase == CutPhase::Open);
                fleet.pulse.view.send_if_modified(|old| {
                    let is_new = *old != view;
                    *old = view;
                    is_new
                });
                if is_calm { CALM_EVERY } else { BUSY_EVERY }
            }
            Err(error) => {
                let Disposition::Retry { .. } = error.disposition() else { return error };
                if waits.next().is_none() {
                    return error;
                }
                tracing::debug!(error = %error.chain(), "a beat failed");
                // Others take the lead by now.
                if beaten_at.elapsed() > LEASE {
                    fleet.pulse.view.send_if_modified(|view| std::mem::take(&mut view.is_leader));
                }
                RETRY_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = fleet.pulse.hurry.notified() => {}
        }
    }
}
