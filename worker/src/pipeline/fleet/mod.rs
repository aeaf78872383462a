//! Several workers carry out one run: one of them leads, all of them copy.
//!
//! ```text
//!  every worker:  claim a place ─▶ beat ────────────────────────────────────────────────▶ the run is finished
//!   as member:    snapshots, until all agree ─▶ take a split ─▶ copy, commit ─▶ take …      (lost them: wait for the next moment)
//!   as leader:    convene a moment ─▶ plan, tables, splits ─▶ offer splits, finish tables ─▶ foreign keys, last word
//! ```
//!
//! Why nothing is lost or doubled, whoever dies when:
//! * what is agreed stands in the target's ledger; a new leader goes on from there, and repeats only steps that may be repeated;
//! * a split's rows and its record commit together, once: a second worker with the same split fails at its record and rolls its rows back;
//! * a worker copies only at a moment that it joined while it was opened; who comes later waits. A moment is lost when no living worker holds it, and then
//!   `onCutLost` decides.

mod conference;
mod lead;
mod member;
mod pulse;

use std::sync::Arc;

use millrace_core::connector::{SharedCut, Sink, SourceReader};
use millrace_core::fleet::{FleetLedger, FleetView, Seat, WorkQueue};
use millrace_core::ledger::{CutNumber, Epoch, LedgerKey};
use millrace_core::{Error, Result};
use tokio::sync::Mutex;

use super::Ending;
use super::patience::Patience;
use super::report::Reporter;
use crate::control::Control;
use crate::convert::{ConvertTask, Post};
use crate::progress::Progress;
use pulse::Pulse;

/// Readers and writers of one worker.
const LANES: usize = 2;

/// One worker's part in a fleet.
struct Fleet<'a> {
    task: &'a ConvertTask,
    seat: Seat,
    key: LedgerKey,
    epoch: Epoch,
    sink: Arc<dyn Sink>,
    queue: Arc<dyn WorkQueue>,
    pulse: Pulse,
    /// The moment that this worker holds. The leader plans with it before the member copies with it.
    held: Mutex<Option<Held>>,
    progress: &'a Arc<Progress>,
    reporter: &'a Arc<Reporter>,
}

/// Snapshots of one moment.
struct Held {
    number: CutNumber,
    /// Per source connection.
    parts: Vec<Snapshots>,
}

/// Snapshots of one source, before and after they are agreed on.
enum Snapshots {
    Shared(Box<dyn SharedCut>),
    Readers(Vec<Box<dyn SourceReader>>),
}

impl Snapshots {
    /// The readers; from now on the snapshots stay as they are.
    fn readers(&mut self) -> &mut Vec<Box<dyn SourceReader>> {
        if let Self::Shared(_) = self
            && let Self::Shared(shared) = std::mem::replace(self, Self::Readers(Vec::new()))
        {
            *self = Self::Readers(shared.into_readers());
        }
        match self {
            Self::Readers(readers) => readers,
            Self::Shared(_) => unreachable!("it was replaced"),
        }
    }
}

/// Works until the run is finished or this worker cannot go on.
pub(crate) async fn run(
    task: &ConvertTask,
    post: &Post,
    progress: &Arc<Progress>,
    mut control: Control,
    reporter: &Arc<Reporter>,
) -> Result<Ending> {
    progress.set_heard(false);
    progress.share();
    let key = LedgerKey { worker: post.seat.worker, attempt: post.seat.attempt, ..task.key() };
    let mut patience = Patience::default();
    let (sink, epoch) = loop {
        let claim = async {
            let sink = task.open_sink().await?;
            let epoch = sink.ledger().claim(&key).await?;
            Ok((sink, epoch))
        };
        match claim.await {
            Ok(claimed) => break claimed,
            Err(error) => patience.wait(error, &mut control).await?,
        }
    };
    if sink.fleet().is_none() {
        return Err(Error::not_supported("parallelism", "this target takes one worker only"));
    }
    let fleet = Fleet {
        task,
        seat: post.seat,
        key,
        epoch,
        sink,
        queue: post.queue.clone(),
        pulse: Pulse::default(),
        held: Mutex::new(None),
        progress,
        reporter,
    };
    tracing::info!(worker = post.seat.worker, workers = post.seat.workers, epoch = epoch.0, "joined the fleet");
    tokio::select! {
        error = pulse::run(&fleet) => Err(error),
        result = member::run(&fleet, control.clone()) => result,
        result = lead::run(&fleet, control) => result,
    }
}

impl Fleet<'_> {
    fn ledger(&self) -> Result<&dyn FleetLedger> {
        self.sink.fleet().ok_or_else(|| Error::internal("a fleet without a ledger for it"))
    }

    fn view(&self) -> FleetView {
        self.pulse.view()
    }
}
