//! The contract of `Bus`.

use std::sync::Arc;

use futures::StreamExt as _;
use millrace_core::bus::{Body, Bus, Delivery, Event, Level, Side};
use millrace_core::id::StreamId;

fn event(stream: &StreamId, level: Level, at: i64) -> Event {
    Event { at, level, side: Side::Source, stream: Some(stream.clone()), node: None, message: at.to_string(), body: Body::General }
}

/// Runs the suite.
pub async fn conformance(bus: Arc<dyn Bus>) {
    let (stream, other) = (StreamId::mint(), StreamId::mint());
    bus.publish(event(&stream, Level::Info, 0));
    let (mut first, mut second) = (bus.subscribe(), bus.subscribe());
    for at in 1..=50 {
        bus.publish(event(&stream, if at % 10 == 0 { Level::Error } else { Level::Info }, at));
    }
    bus.publish(event(&other, Level::Warn, 51));
    for subscriber in [&mut first, &mut second] {
        for at in 1..=51 {
            let Some(Delivery::Event(seen)) = subscriber.next().await else { panic!("no event {at}") };
            assert_eq!(seen.at, at, "events come in their order, from the subscription on");
        }
    }
    let at = |events: Vec<Event>| events.into_iter().map(|event| event.at).collect::<Vec<_>>();
    assert_eq!(at(bus.recent(&stream, Level::Error, 3)), [30, 40, 50], "the newest, oldest first, at least so loud");
    assert_eq!(at(bus.recent(&other, Level::Debug, 10)), [51]);
    assert!(bus.recent(&StreamId::mint(), Level::Debug, 10).is_empty());
    // A subscriber that does not read must not hold up the publisher, and is told what it missed.
    let mut slow = bus.subscribe();
    for at in 0..20_000 {
        bus.publish(event(&stream, Level::Debug, at));
    }
    assert!(matches!(slow.next().await, Some(Delivery::Lagged(1..))));
    assert!(matches!(slow.next().await, Some(Delivery::Event(_))));
}
