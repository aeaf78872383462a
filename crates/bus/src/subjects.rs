//! Names on NATS. Everything of one installation lies under `millrace.<namespace>`, so that several share a server.

use millrace_core::id::StreamId;

/// Names of one namespace's subjects and JetStream streams.
#[derive(Debug, Clone)]
pub struct Subjects(String);

impl Subjects {
    /// Those of a namespace (a DNS label, so it holds no dot).
    pub fn new(namespace: &str) -> Self {
        Self(namespace.to_owned())
    }

    /// Events of a run.
    pub fn events(&self, stream: Option<&StreamId>) -> String {
        format!("millrace.{}.events.{}", self.0, stream.map_or("general", StreamId::as_str))
    }

    /// Counters of a run's worker.
    pub fn stats(&self, stream: &StreamId, worker: u32) -> String {
        format!("millrace.{}.stats.{stream}.{worker}", self.0)
    }

    /// Counters of all workers of a run.
    pub(crate) fn all_stats(&self, stream: &StreamId) -> String {
        format!("millrace.{}.stats.{stream}.*", self.0)
    }

    /// What is wanted of a run.
    pub fn commands(&self, stream: &StreamId) -> String {
        format!("millrace.{}.commands.{stream}", self.0)
    }

    /// Splits of one moment and source connection of a run.
    pub(crate) fn work(&self, stream: &StreamId, cut: i64, part: usize) -> String {
        format!("millrace.{}.work.{stream}.{cut}.{part}", self.0)
    }

    /// All splits of a run.
    pub(crate) fn all_work(&self, stream: &StreamId) -> String {
        format!("millrace.{}.work.{stream}.>", self.0)
    }

    /// All subjects of a kind: `events`, `stats` or `work`.
    pub(crate) fn all(&self, kind: &str) -> String {
        format!("millrace.{}.{kind}.>", self.0)
    }

    /// The run that a subject of events or counters belongs to.
    pub(crate) fn run_of(&self, subject: &str) -> Option<StreamId> {
        let rest = subject.strip_prefix(&format!("millrace.{}.", self.0))?;
        rest.split('.').nth(1)?.parse().ok()
    }

    /// The JetStream stream that retains a kind.
    pub(crate) fn retained(&self, kind: &str) -> String {
        format!("millrace_{}_{kind}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_run() {
        let (subjects, run) = (Subjects::new("shop"), StreamId::mint());
        assert_eq!(subjects.run_of(&subjects.events(Some(&run))), Some(run.clone()));
        assert_eq!(subjects.run_of(&subjects.stats(&run, 3)), Some(run.clone()));
        assert_eq!(subjects.run_of(&subjects.events(None)), None);
        assert_eq!(Subjects::new("other").run_of(&subjects.events(Some(&run))), None);
    }
}
