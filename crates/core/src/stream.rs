//! One start of a config: its states, which of them is the worst, and which may follow which.

use serde::{Deserialize, Serialize};

use crate::config::StreamSpec;
use crate::id::{ConfigId, RunId, StreamId};

/// The state of a stream, of one of its sides, or of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum StreamState {
    /// Nothing known yet.
    Undefined,
    /// Created and validated, not yet moving data.
    Ready,
    /// Reading and writing.
    Running,
    /// Suspended; progress is kept.
    Paused,
    /// The limit on rows was hit.
    EventLimitReached,
    /// The limit on time was hit.
    TimeLimitReached,
    /// Everything in scope has arrived.
    Finished,
    /// The user ended it.
    Stopped,
    /// An error ended it.
    Failed,
}

impl StreamState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Undefined,
        Self::Ready,
        Self::Running,
        Self::Paused,
        Self::EventLimitReached,
        Self::TimeLimitReached,
        Self::Finished,
        Self::Stopped,
        Self::Failed,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undefined => "UNDEFINED",
            Self::Ready => "READY",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::EventLimitReached => "EVENT_LIMIT_REACHED",
            Self::TimeLimitReached => "TIME_LIMIT_REACHED",
            Self::Finished => "FINISHED",
            Self::Stopped => "STOPPED",
            Self::Failed => "FAILED",
        }
    }

    /// Reads the word of the wire.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(text)).ok()
    }

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        self.priority() >= Self::EventLimitReached.priority()
    }

    /// Which of two states wins when sides or tables are put together: the higher one.
    pub fn priority(self) -> u8 {
        match self {
            Self::Undefined => 1,
            Self::Ready => 2,
            Self::Running => 3,
            Self::Paused => 4,
            Self::EventLimitReached => 5,
            Self::TimeLimitReached => 6,
            Self::Finished => 7,
            Self::Stopped => 8,
            Self::Failed => 9,
        }
    }

    /// The worse of two states.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        if other.priority() > self.priority() { other } else { self }
    }

    /// The state after a report that says `next`. A terminal state never changes: a stop is sticky, and what arrives late
    /// cannot undo an end.
    #[must_use]
    pub fn after(self, next: Self) -> Self {
        if self.is_terminal() { self } else { next }
    }
}

/// Why a stream is in its state, where the state alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub enum Reason {
    /// The user asked for it.
    UserRequest,
    /// The process that moved the data went away; resume or stop it.
    Interrupted,
}

/// One start of a config, as it is stored. It is also the row of the run history.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stream {
    /// Names the start.
    pub id: StreamId,
    /// Names the row of the history.
    pub run_id: RunId,
    /// The config that was started.
    pub config_id: ConfigId,
    /// The config as it was at the start.
    pub spec: StreamSpec,
    /// Where it stands.
    pub state: StreamState,
    /// Why, where the state alone does not say.
    pub reason: Option<Reason>,
    /// Unix milliseconds.
    pub started_at: i64,
    /// Unix milliseconds; set with the terminal state.
    pub ended_at: Option<i64>,
    /// Rows durable in the target.
    pub rows_written: u64,
    /// Rows that could not be written.
    pub rows_failed: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// What ended it, when it failed.
    pub error: Option<String>,
    /// Public name of the key that started it, to which its use is counted.
    #[serde(default)]
    pub started_by: Option<String>,
    /// The last report, kept so that a finished run still answers (`StatsReport` as JSON).
    pub stats: Option<crate::stats::StatsReport>,
}

#[cfg(test)]
mod tests {
    use super::StreamState::*;

    #[test]
    fn a_late_failure_does_not_undo_a_stop() {
        assert_eq!(Stopped.after(Failed), Stopped);
        assert_eq!(Running.after(Failed), Failed);
    }

    #[test]
    fn the_worst_side_decides() {
        assert_eq!(Finished.worst(Failed), Failed);
        assert_eq!(Finished.worst(Running), Finished);
        assert_eq!(Running.worst(Paused), Paused);
    }

    #[test]
    fn terminal_states_are_the_five_of_the_contract() {
        let terminal = [EventLimitReached, TimeLimitReached, Finished, Stopped, Failed];
        for state in [Undefined, Ready, Running, Paused].into_iter().chain(terminal) {
            assert_eq!(state.is_terminal(), terminal.contains(&state), "{state:?}");
        }
    }
}
