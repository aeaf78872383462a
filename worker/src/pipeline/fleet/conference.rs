//! How a fleet comes to see one moment. Snapshots cannot be joined later, so all open theirs now and compare where in the log they are.
//!
//! 1. all open; who lags behind the newest opens again, up to [`TRIES`] times;
//! 2. without places, or when writers are too busy to let them agree: all open under one brief global read lock;
//! 3. without the privilege for that: the leader alone reads.

use std::time::Duration;

use millrace_core::bus::{Body, Level, Side};
use millrace_core::connector::SourcePlanner;
use millrace_core::fleet::{CutPhase, FleetCut, FleetView, Member};
use millrace_core::position::Position;
use millrace_core::{Error, Kind, Result};

use super::{Fleet, Held, LANES, Snapshots};
use crate::convert::at_source;

/// How often lagging snapshots are opened again before the global lock is tried.
const TRIES: u32 = 20;
/// How long pods that have not begun are waited for, at first and after a moment was lost.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
const LATER_PATIENCE: Duration = Duration::from_secs(4);
/// How long members may take for a round.
const ROUND_PATIENCE: Duration = Duration::from_secs(10);
/// How long the queue may take to forget.
const CLEAR_PATIENCE: Duration = Duration::from_secs(2);
/// How long everybody's commits may wait.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// As leader: a moment whose members are chosen.
pub(super) async fn convene(fleet: &Fleet<'_>) -> Result<FleetCut> {
    let ledger = fleet.ledger()?;
    let before = fleet.view().cut;
    let lost = before.as_ref().map_or(0, |cut| cut.lost + u32::from(cut.phase == CutPhase::Open));
    let number = ledger.next_cut(&fleet.key, fleet.epoch).await?;
    // Splits of an older moment are of no use to anybody; what cannot be cleared now ages out.
    let _ = tokio::time::timeout(CLEAR_PATIENCE, fleet.queue.clear()).await;
    let mut cut = FleetCut { number, phase: CutPhase::Opening, round: 0, places: Vec::new(), members: Vec::new(), lost };
    say(fleet, &cut).await?;
    let patience = if before.is_none() { FIRST_PATIENCE } else { LATER_PATIENCE };
    let workers = fleet.seat.workers as usize;
    let mut present = gather(fleet, &cut, patience, workers).await;
    let expected = present.len();
    while let Some(newest) = newest(&present) {
        if present.iter().all(|member| member.report.places == newest) {
            return choose(fleet, cut, newest, &present).await;
        }
        if cut.round == TRIES {
            break;
        }
        cut.round += 1;
        cut.places = newest;
        say(fleet, &cut).await?;
        present = gather(fleet, &cut, ROUND_PATIENCE, expected).await;
    }
    cut.round += 1;
    match under_lock(fleet, &mut cut, expected).await {
        Ok(present) => {
            let places = present.first().map(|member| member.report.places.clone()).unwrap_or_default();
            choose(fleet, cut, places, &present).await
        }
        Err(error) if matches!(error.kind(), Kind::PermissionDenied | Kind::Contention | Kind::TimedOut) => {
            fleet
                .reporter
                .notice(format!("the workers' snapshots could not be brought to one moment, so one worker reads alone: {}", error.chain()));
            cut.phase = CutPhase::Opening;
            alone(fleet).await;
            let own: Vec<Member> = fleet.view().members.into_iter().filter(|member| member.epoch == fleet.epoch).collect();
            let places = own.first().map(|member| member.report.places.clone()).unwrap_or_default();
            choose(fleet, cut, places, &own).await
        }
        Err(error) => Err(error),
    }
}

/// Members that have carried out the cut's round; waits until they are enough, or for so long.
async fn gather(fleet: &Fleet<'_>, cut: &FleetCut, patience: Duration, enough: usize) -> Vec<Member> {
    let mut views = fleet.pulse.views();
    let wait = views.wait_for(|view| there(view, cut).len() >= enough);
    let _ = tokio::time::timeout(patience, wait).await;
    // The leader itself must be there; it is as quick as its source.
    let own = |view: &FleetView| there(view, cut).iter().any(|member| member.epoch == fleet.epoch);
    let _ = tokio::time::timeout(ROUND_PATIENCE, fleet.pulse.views().wait_for(own)).await;
    there(&fleet.view(), cut)
}

/// Members that are alive and have carried out the cut's round.
fn there(view: &FleetView, cut: &FleetCut) -> Vec<Member> {
    let is_there = |member: &&Member| member.is_alive && member.report.cut == Some(cut.number) && member.report.round >= cut.round;
    view.members.iter().filter(is_there).cloned().collect()
}

/// Per source, the newest place; none if a source or a member cannot tell.
fn newest(present: &[Member]) -> Option<Vec<Option<Position>>> {
    let mut members = present.iter().map(|member| &member.report.places);
    let mut newest: Vec<Position> = members.next()?.iter().cloned().collect::<Option<_>>()?;
    for places in members {
        for (best, place) in newest.iter_mut().zip(places) {
            let place = place.as_ref()?;
            if (*best).partial_cmp(place)?.is_lt() {
                *best = place.clone();
            }
        }
    }
    Some(newest.into_iter().map(Some).collect())
}

/// Where the leader's own snapshots do not agree either, one of them is enough.
async fn alone(fleet: &Fleet<'_>) {
    let places = fleet.pulse.report().places;
    if let Some(held) = fleet.held.lock().await.as_mut() {
        for (index, part) in held.parts.iter_mut().enumerate() {
            if places.get(index).is_none_or(Option::is_none) {
                part.readers().truncate(1);
            }
        }
    }
}

async fn under_lock(fleet: &Fleet<'_>, cut: &mut FleetCut, expected: usize) -> Result<Vec<Member>> {
    let mut planners: Vec<Box<dyn SourcePlanner>> = Vec::new();
    for index in 0..fleet.task.sources.len() {
        planners.push(fleet.task.open_source(index).await?);
    }
    for (index, planner) in planners.iter_mut().enumerate() {
        planner.hold_commits().await.map_err(|error| at_source(error, index))?;
    }
    cut.phase = CutPhase::Locked;
    // Everybody waits for this, so it ends in any case; dropping the planners lets everybody commit again, whatever fails here.
    let opened = tokio::time::timeout(LOCK_PATIENCE, async {
        say(fleet, cut).await?;
        let _ = fleet.pulse.views().wait_for(|view| there(view, cut).len() >= expected).await;
        Ok::<(), Error>(())
    });
    let said = opened.await.unwrap_or(Ok(()));
    let present = there(&fleet.view(), cut);
    for planner in &mut planners {
        planner.release_commits().await?;
    }
    said?;
    if present.is_empty() {
        return Err(Error::new(Kind::TimedOut, "the snapshots could not be opened while the tables were locked"));
    }
    Ok(present)
}

/// These members see the moment.
async fn choose(fleet: &Fleet<'_>, mut cut: FleetCut, places: Vec<Option<Position>>, present: &[Member]) -> Result<FleetCut> {
    if !present.iter().any(|member| member.epoch == fleet.epoch) {
        return Err(Error::new(Kind::TimedOut, "the leader's own snapshots could not be opened in time"));
    }
    cut.members = present.iter().map(|member| member.epoch).collect();
    cut.places = places;
    cut.phase = CutPhase::Planning;
    say(fleet, &cut).await?;
    let places: Vec<String> =
        cut.places.iter().map(|place| place.as_ref().map_or_else(|| "without a log position".to_owned(), ToString::to_string)).collect();
    let text = format!("cut opened by {} of {} workers ({})", cut.members.len(), fleet.seat.workers, places.join(", "));
    fleet.reporter.publish(Level::Info, Side::Source, text, Body::General);
    Ok(cut)
}

async fn say(fleet: &Fleet<'_>, cut: &FleetCut) -> Result<()> {
    fleet.ledger()?.set_cut(&fleet.key, fleet.epoch, cut, None).await?;
    fleet.pulse.hurry();
    Ok(())
}

/// As member: opens the snapshots that the round asks for, and says where they are.
pub(super) async fn answer(fleet: &Fleet<'_>, cut: &FleetCut) -> Result<()> {
    let mut report = fleet.pulse.report();
    let is_new = report.cut != Some(cut.number);
    if !is_new && report.round >= cut.round {
        return Ok(());
    }
    let mut held = fleet.held.lock().await;
    if is_new || held.as_ref().is_none_or(|held| held.number != cut.number) {
        *held = None;
        let mut parts = Vec::new();
        for index in 0..fleet.task.sources.len() {
            let mut planner = fleet.task.open_source(index).await?;
            parts.push(Snapshots::Shared(planner.share_cut(LANES).await.map_err(|error| at_source(error, index))?));
        }
        *held = Some(Held { number: cut.number, parts });
        report.places = vec![None; fleet.task.sources.len()];
    }
    let Some(held) = held.as_mut() else { return Ok(()) };
    for (index, part) in held.parts.iter_mut().enumerate() {
        let wanted = cut.places.get(index).cloned().flatten();
        let is_right = cut.phase == CutPhase::Opening && wanted.is_some() && report.places[index] == wanted;
        if let Snapshots::Shared(shared) = part
            && !is_right
        {
            report.places[index] = shared.snapshot().await.map_err(|error| at_source(error, index))?;
        }
    }
    report.cut = Some(cut.number);
    report.round = cut.round;
    fleet.pulse.say(report);
    Ok(())
}
