//! The contract of `Bus`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use millrace_core::bus::{Body, Bus, Delivery, Event, Level, Side};
use millrace_core::id::StreamId;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn event(stream: &StreamId, level: Level, at: i64) -> Event {
    Event { at, level, side: Side::Source, stream: Some(stream.clone()), node: None, message: at.to_string(), body: Body::General }
}

/// Runs the suite.
pub async fn conformance(bus: Arc<dyn Bus>) {
    let (stream, other) = (StreamId::mint(), StreamId::mint());
    // A bus between processes is heard once it is connected, and an event takes its time to come round.
    let mut before = bus.subscribe();
    let opening = async {
        let mut said = -1;
        loop {
            bus.publish(event(&StreamId::mint(), Level::Info, said));
            let heard = tokio::time::timeout(Duration::from_millis(200), before.next()).await;
            if let Ok(Some(Delivery::Event(mut seen))) = heard {
                // On a slow way, what was said since then is still to come.
                while seen.at != said {
                    let Some(Delivery::Event(next)) = before.next().await else { panic!("`{said}` is lost") };
                    seen = next;
                }
                break;
            }
            said -= 1;
        }
        bus.publish(event(&stream, Level::Info, 0));
        assert!(matches!(before.next().await, Some(Delivery::Event(seen)) if seen.at == 0));
    };
    tokio::time::timeout(PATIENCE, opening).await.expect("nothing is heard");
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
    let (mut slow, mut quick) = (bus.subscribe(), bus.subscribe());
    for at in 0..20_000 {
        bus.publish(event(&stream, Level::Debug, at));
    }
    let catching_up = async {
        loop {
            bus.publish(event(&stream, Level::Debug, 20_000));
            let heard = async {
                while let Some(delivery) = quick.next().await {
                    if matches!(&delivery, Delivery::Event(seen) if seen.at == 20_000) {
                        return;
                    }
                }
            };
            if tokio::time::timeout(Duration::from_millis(500), heard).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, catching_up).await.expect("the bus does not recover");
    assert!(matches!(slow.next().await, Some(Delivery::Lagged(1..))));
    assert!(matches!(slow.next().await, Some(Delivery::Event(_))));
}
