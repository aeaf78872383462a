//! The way of a convert: prepare, copy in lanes, finish. When a source's moment is lost, the way is gone again as `onCutLost` says.

mod copy;
mod finish;
pub(crate) mod fleet;
mod lanes;
mod patience;
mod prepare;
pub(crate) mod report;

use std::sync::Arc;
use std::time::Duration;

use millrace_core::bus::{Body, Level, Side};
use millrace_core::config::{DEFAULT_PAUSE_HOLD, OnCutLost};
use millrace_core::{Disposition, Error, Kind, Result};

use crate::control::{Control, Desired};
use crate::convert::ConvertTask;
use crate::progress::Progress;
use prepare::Found;
pub(crate) use prepare::probe;
use report::Reporter;

/// How often a run starts over at a new moment.
const RESTARTS: u32 = 5;
/// How often a run goes on at a new moment without having committed anything in between.
const FRUITLESS: u32 = 20;

/// How a run ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything is there.
    Complete,
    /// The limit on rows was reached.
    EventLimit,
    /// The limit on time was reached.
    TimeLimit,
}

/// Runs a convert to its end. Tables that failed do not stop others; they are named in the error at the end.
pub(crate) async fn run(task: &ConvertTask, progress: &Arc<Progress>, mut control: Control, reporter: &Arc<Reporter>) -> Result<Ending> {
    let (mut losses, mut fruitless, mut written) = (0, 0, 0);
    let mut waits = patience::long();
    loop {
        let error = match attempt(task, progress, &control, reporter).await {
            Ok(ending) => return Ok(ending),
            Err(error) => error,
        };
        let is_lost = error.kind() == Kind::CutLost;
        // While rows move, each step has its own patience.
        if !is_lost && (progress.is_moving() || !is_waiting_for_a_server(&error)) {
            return Err(error);
        }
        if is_lost {
            losses += 1;
            let now = progress.report(false).target.rows;
            fruitless = if now > written { 0 } else { fruitless + 1 };
            written = now;
            let is_over = match task.on_cut_lost() {
                OnCutLost::Restart => losses > RESTARTS,
                OnCutLost::Continue => fruitless > FRUITLESS,
            };
            if is_over {
                return Err(error);
            }
            waits = patience::long();
        }
        let Some(wait) = waits.next() else { return Err(error) };
        crate::metrics::retried(error.kind());
        reporter.publish(Level::Warn, Side::Source, format!("{}; trying again", error.chain()), Body::General);
        tokio::time::sleep(wait).await;
        control.checkpoint().await.map_err(patience::stopped)?;
    }
}

/// The whole way once, at one moment of each source.
async fn attempt(task: &ConvertTask, progress: &Arc<Progress>, control: &Control, reporter: &Arc<Reporter>) -> Result<Ending> {
    reporter.stage(1, "initialising");
    progress.set_moving(false);
    let prepared = match prepare::prepare(task, progress, reporter).await? {
        Found::Work(prepared) => prepared,
        Found::Done(ending) => return Ok(ending),
    };
    reporter.stage(3, "transferring data");
    progress.set_moving(true);
    let hold = Duration::from_secs(u64::from(task.spec.pause_hold.unwrap_or(DEFAULT_PAUSE_HOLD)));
    let copied = tokio::select! {
        copied = lanes::run(&prepared, progress, control.clone(), reporter) => copied?,
        () = paused_for(control.clone(), hold) => {
            return Err(Error::new(Kind::CutLost, format!("the pause was longer than {} s, and the source's moment was let go", hold.as_secs())));
        }
    };
    finish::finish(&prepared, copied, progress, reporter, control).await
}

/// Returns once a pause has lasted so long.
async fn paused_for(mut control: Control, hold: Duration) {
    loop {
        if control.desired() == Desired::Pause {
            match tokio::time::timeout(hold, control.changed()).await {
                Err(_) => return,
                Ok(Some(_)) => {}
                Ok(None) => std::future::pending().await,
            }
        } else if control.changed().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Whether an error says that a server is not there now.
fn is_waiting_for_a_server(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unreachable | Kind::ConnectionLost | Kind::Contention | Kind::TimedOut)
}

/// Whether an error concerns one table only.
fn is_table_failure(error: &Error) -> bool {
    matches!(error.disposition(), Disposition::TableFailed)
        || matches!(error.kind(), Kind::PlanRefused | Kind::TargetConflict | Kind::ObjectMissing | Kind::StatementRefused)
}
