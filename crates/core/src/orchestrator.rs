//! Starts, pauses, resumes and stops runs: tasks in one process, Jobs in a cluster.

use futures::future::BoxFuture;

use crate::config::StreamConfig;
use crate::error::Result;
use crate::id::StreamId;
use crate::plan::Plan;
use crate::stats::StatsReport;
use crate::stream::Stream;

/// Carries out what is wanted of runs. It owns the run's row in the store from `start` to its terminal state.
///
/// Contract:
/// - `start` checks everything that can be checked before the first byte (support, connections, selection, plan), passes the
///   store's gate and returns; a refusal leaves no stream behind. The work goes on after it returned.
/// - `pause`, `resume` and `stop` are level-triggered: asking for the state that already holds succeeds. `pause` and `resume` of a finished
///   stream fail with [`crate::Kind::Conflict`]; `stop` of a finished one succeeds and changes nothing.
/// - `stop` also ends a stream whose worker is gone, so that the gate clears. With `force` it does not wait for the worker.
/// - `stats` answers live counters of a running stream and the last stored ones of any other.
/// - After a restart of the process, unfinished streams are [`crate::stream::StreamState::Paused`] with [`crate::stream::Reason::Interrupted`].
pub trait Orchestrator: Send + Sync {
    /// What a start would do with every column, refusals included; starts and writes nothing.
    fn plan<'a>(&'a self, config: &'a StreamConfig) -> BoxFuture<'a, Result<Plan>>;
    /// Starts a config for the owner of a key (its public name); answers the new stream.
    fn start<'a>(&'a self, config: &'a StreamConfig, by: Option<&'a str>) -> BoxFuture<'a, Result<Stream>>;
    /// Suspends a run.
    fn pause<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>>;
    /// Lets a run go on.
    fn resume<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Stream>>;
    /// Ends a run.
    fn stop<'a>(&'a self, id: &'a StreamId, force: bool) -> BoxFuture<'a, Result<Stream>>;
    /// The run's counters.
    fn stats<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(Stream, StatsReport)>>;
}
