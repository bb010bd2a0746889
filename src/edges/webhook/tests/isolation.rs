//! Endpoints that are dead delay no others, and cost next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tidings_protocol::mqtt::QoS;

use super::*;
use crate::access::Principal;

const SECOND: Duration = Duration::from_secs(1);

/// Twenty endpoints that hang and twenty that break hold up nobody, however few places there are.
#[tokio::test(start_paused = true)]
async fn endpoints_that_hang_hold_up_nobody() {
    let mut settings = "webhooks.concurrency = 48\n".to_owned();
    settings += &endpoint("live", "");
    for index in 0..20 {
        settings += &endpoint(&format!("hanging-{index}"), "max_in_flight = 1000");
        settings += &endpoint(&format!("broken-{index}"), "max_in_flight = 1000");
    }
    let live = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&live);
    let world = World::new(&settings, move |call| match call.host.split('-').next() {
        Some("hanging") => Reply::Hang,
        Some("broken") => Reply::Broken,
        _ => {
            counted.fetch_add(1, Relaxed);
            Reply::Status(200)
        }
    });
    for round in 1..=10 {
        for index in 0..100 {
            world.publish(&format!("{round} {index}"));
        }
        world.until_empty("live").await;
        assert_eq!(live.load(Relaxed), round * 100);
        // All of them fail by then, and still hold up nobody.
        tokio::time::sleep(20 * SECOND).await;
    }
    let spent = world.began.elapsed() - 200 * SECOND;
    assert!(
        spent < 20 * SECOND,
        "never as long as one of them hangs: {spent:?}"
    );
    assert_eq!(world.endpoint("hanging-3").queue.len(), 1_000);
}

/// Whatever is published meanwhile, nobody wakes what drives an endpoint to which nothing can be sent.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_can_take_nothing_is_not_woken() {
    let mut settings = endpoint("hanging", "timeout = \"60s\"");
    settings += &endpoint("fifo", "ordering = \"fifo\"\ntimeout = \"60s\"");
    settings += &endpoint(
        "broken",
        "retry_schedule = [\"10s\", \"10s\", \"10s\", \"10s\"]",
    );
    settings += &endpoint("paused", "");
    let mut world = World::new(&settings, |call| match call.host.starts_with("broken") {
        true => Reply::Broken,
        false => Reply::Hang,
    });
    let paused = world.webhooks.pause(&Principal::operator(), "paused", true);
    assert!(paused.is_ok());
    world.within(SECOND).await;
    for round in 0..5 {
        for index in 0..10 {
            world.publish(&format!("{round} {index}"));
        }
        let calls = world.within(SECOND).await;
        let expected = match round {
            // One each that hangs, three of that which breaks.
            0 => 2 + 3,
            _ => 0,
        };
        assert_eq!(calls.len(), expected, "round {round}");
        for name in ["hanging", "fifo", "broken", "paused"] {
            let is_awaited = world.endpoint(name).queue.is_awaited();
            // The one wake-up that was asked for before is spent in the next round.
            assert!(!is_awaited || round == 0, "{name} in round {round}");
        }
    }
    assert_eq!(world.endpoint("hanging").queue.len(), 50);
}

/// Endpoints that have accepted nothing yet take turns, and never those of one that has.
#[tokio::test(start_paused = true)]
async fn a_thousand_that_refuse_take_turns() {
    let mut settings = endpoint("live", "");
    for index in 0..300 {
        settings += &endpoint(&format!("broken-{index}"), "");
    }
    let mut world = World::new(&settings, |call| match call.host.starts_with("live") {
        true => Reply::Status(200),
        false => Reply::Broken,
    });
    world.publish_with("t/a", "first", QoS::AtLeastOnce, &[]);
    let first = world.within(10 * SECOND).await;
    let began = first.iter().map(|call| call.at).min().expect("a call");
    let by = |millis| {
        let broken = first.iter().filter(|call| call.host.starts_with("broken"));
        let end = began + Duration::from_millis(millis);
        broken.filter(|call| call.at <= end).count()
    };
    // Those that came at once make up for time in which nobody came, the others have one millisecond
    // each.
    assert!((45..=60).contains(&by(0)), "{}", by(0));
    assert!((140..=160).contains(&by(100)), "{}", by(100));
    assert_eq!(by(300), 300);
    // From now on it waits for none of them.
    for round in 0..20 {
        let at = world.began.elapsed();
        world.publish(&format!("round {round}"));
        let calls = world.within(SECOND).await;
        let mut live = calls.iter().filter(|call| call.host.starts_with("live"));
        assert_eq!(live.next().map(|call| call.at), Some(at));
    }
}

/// New endpoints that hang leave places to those that have accepted something.
#[tokio::test(start_paused = true)]
async fn new_endpoints_that_hang_leave_places_to_others() {
    let mut settings = "webhooks.concurrency = 16\n".to_owned();
    settings += "[[webhook]]\nname = \"live\"\nurl = \"https://live.example/\"\n\
                 topics = [\"t/#\", \"live\"]\n";
    for index in 0..40 {
        settings += &endpoint(&format!("hanging-{index}"), "");
    }
    let mut world = World::new(&settings, |call| match call.host.starts_with("live") {
        true => Reply::Status(200),
        false => Reply::Hang,
    });
    world.publish_to("live", "first");
    world.until_empty("live").await;
    world.within(SECOND).await;
    for index in 0..20 {
        let at = world.began.elapsed();
        world.publish(&index.to_string());
        let calls = world.within(SECOND / 10).await;
        let mut live = calls.iter().filter(|call| call.host.starts_with("live"));
        assert_eq!(live.next().map(|call| call.at), Some(at));
    }
}
