//! Tells the bus what happens: stages at once, counters every reporting interval and at the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use millrace_core::bus::{Body, Bus, Level, Side};
use millrace_core::config::DEFAULT_REPORTING_INTERVAL;
use millrace_core::id::StreamId;

use crate::progress::Progress;

/// Publishes a run's events.
pub(crate) struct Reporter {
    stream: StreamId,
    progress: Arc<Progress>,
    bus: Arc<dyn Bus>,
}

impl Reporter {
    pub(crate) fn new(stream: StreamId, progress: Arc<Progress>, bus: Arc<dyn Bus>) -> Self {
        Self { stream, progress, bus }
    }

    /// A stage began.
    pub(crate) fn stage(&self, stage: u8, description: &str) {
        let body = Body::Progress { stage, description: description.to_owned() };
        self.publish(Level::Info, Side::Source, description, body);
    }

    /// Something that stays in the run's stats.
    pub(crate) fn notice(&self, text: impl Into<String>) {
        let text = text.into();
        self.publish(Level::Warn, Side::Target, text.clone(), Body::General);
        self.progress.notice(text);
    }

    /// One event.
    pub(crate) fn publish(&self, level: Level, side: Side, message: impl Into<String>, body: Body) {
        // What a follower of a fleet does is of interest only when it goes wrong.
        if level < Level::Warn && !self.progress.is_heard() {
            return;
        }
        let mut event = crate::convert::event(&self.stream, level, side, message, body);
        event.node = Some(match side {
            Side::Target => self.progress.target_node().clone(),
            _ => self.progress.source_node().clone(),
        });
        self.bus.publish(event);
    }

    /// All counters.
    pub(crate) fn report_all(&self, closes_interval: bool) {
        let report = self.progress.report(closes_interval);
        for table in report.tables {
            let message = format!("{}: {} rows", table.table, table.rows_written);
            self.publish(Level::Info, Side::Target, message, Body::Table(table));
        }
        self.publish(Level::Info, Side::Source, format!("read {} rows", report.source.rows), Body::Side(report.source));
        self.publish(Level::Info, Side::Target, format!("wrote {} rows", report.target.rows), Body::Side(report.target));
    }

    /// Reports every so many seconds; never returns. 0 means a final report only.
    pub(crate) async fn tick(self: Arc<Self>, interval: Option<u32>) -> Infallible {
        let seconds = interval.unwrap_or(DEFAULT_REPORTING_INTERVAL);
        if seconds == 0 {
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(Duration::from_secs(u64::from(seconds)));
        ticks.tick().await; // the first comes at once
        loop {
            ticks.tick().await;
            self.report_all(true);
        }
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
