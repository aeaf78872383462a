//! The contract of `Orchestrator`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_core::Kind;
use millrace_core::config::{Mode, StreamConfig};
use millrace_core::id::StreamId;
use millrace_core::orchestrator::Orchestrator;
use millrace_core::store::ConfigStore;
use millrace_core::stream::{Reason, StreamState};

use crate::proxy::FaultProxy;

/// Runs the suite. The stored `config` copies a source behind `proxy`, large enough not to be done while the proxy holds.
pub async fn conformance(orchestrator: Arc<dyn Orchestrator>, store: Arc<dyn ConfigStore>, config: &StreamConfig, proxy: &FaultProxy) {
    let unknown = StreamId::mint();
    for kind in [
        orchestrator.pause(&unknown).await.expect_err("unknown").kind(),
        orchestrator.resume(&unknown).await.expect_err("unknown").kind(),
        orchestrator.stop(&unknown, false).await.expect_err("unknown").kind(),
        orchestrator.stats(&unknown).await.expect_err("unknown").kind(),
    ] {
        assert_eq!(kind, Kind::NotFound);
    }
    // A refusal leaves nothing behind.
    let mut refused = config.clone();
    refused.spec.mode = Mode::Cdc;
    let error = orchestrator.start(&refused, None).await.expect_err("not supported");
    assert_eq!((error.kind(), error.field_name()), (Kind::NotSupported, Some("mode")));
    assert!(store.streams(None).await.expect("streams").is_empty());

    let stream = orchestrator.start(config, None).await.expect("started");
    assert!(matches!(stream.state, StreamState::Ready | StreamState::Running), "{stream:?}");
    proxy.hold_at(1_000_000).await;
    let error = orchestrator.start(config, None).await.expect_err("the gate");
    assert_eq!((error.kind(), error.detail("stream")), (Kind::Conflict, Some(stream.id.as_str())));
    let deadline = Instant::now() + Duration::from_secs(30);
    let (live, report) = loop {
        let (live, report) = orchestrator.stats(&stream.id).await.expect("live counters");
        // Where others carry the run out, its state is seen a moment after its rows.
        if live.state == StreamState::Running && !report.tables.is_empty() || Instant::now() > deadline {
            break (live, report);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(live.state, StreamState::Running);
    assert!(!report.tables.is_empty());
    // Asking for what already holds succeeds.
    for _ in 0..2 {
        let paused = orchestrator.pause(&stream.id).await.expect("paused");
        assert_eq!((paused.state, paused.reason), (StreamState::Paused, Some(Reason::UserRequest)));
    }
    for _ in 0..2 {
        let resumed = orchestrator.resume(&stream.id).await.expect("resumed");
        assert_eq!((resumed.state, resumed.reason), (StreamState::Running, None));
    }
    proxy.release();
    for _ in 0..2 {
        assert_eq!(orchestrator.stop(&stream.id, false).await.expect("stopped").state, StreamState::Stopped);
    }
    assert_eq!(orchestrator.pause(&stream.id).await.expect_err("it has ended").kind(), Kind::Conflict);
    assert_eq!(orchestrator.resume(&stream.id).await.expect_err("it has ended").kind(), Kind::Conflict);
    let stored = store.stream(&stream.id).await.expect("stored");
    assert!(stored.state == StreamState::Stopped && stored.ended_at.is_some());

    // The gate is clear; what the stopped run left is replaced; the end and its counters are stored.
    let second = orchestrator.start(config, None).await.expect("started again");
    assert_ne!(second.id, stream.id);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !store.stream(&second.id).await.expect("stored").state.is_terminal() {
        assert!(Instant::now() < deadline, "the second run does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (ended, report) = orchestrator.stats(&second.id).await.expect("stored counters");
    assert_eq!((ended.state, ended.error), (StreamState::Finished, None));
    assert!(report.target.rows > 0 && report.target.rows == ended.rows_written);
}
