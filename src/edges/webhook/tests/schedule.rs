//! When attempts are made, and when no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tidings_protocol::mqtt::{Property, QoS};

use super::*;
use crate::access::Principal;
use crate::broker::stats::{AttemptEnd, Drop as Reason};
use crate::webhooks::{Selection, State};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// The first attempt is made at once, without waiting for any timer.
#[tokio::test(start_paused = true)]
async fn the_first_attempt_is_made_at_once() {
    let mut world = World::new(&endpoint("hook", ""), |_| Reply::Status(200));
    for index in 0..100 {
        world.publish(&index.to_string());
        assert_eq!(world.call().await.data(), [index.to_string()]);
    }
    assert_eq!(world.began.elapsed(), Duration::ZERO);
    world.until_empty("hook").await;
    assert_eq!(world.broker.stats.webhooks.delivered.get(), 100);
}

/// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, each ±20 %, and then it is a dead letter.
#[tokio::test(start_paused = true)]
async fn the_schedule_is_kept() {
    let mut world = World::new(&endpoint("hook", ""), |_| Reply::Status(500));
    world.publish("x");
    let calls = world.some(10).await;
    let waits: Vec<f64> = calls
        .windows(2)
        .map(|two| (two[1].at - two[0].at).as_secs_f64())
        .collect();
    let schedule = [
        5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0,
    ];
    for (wait, planned) in waits.iter().zip(schedule) {
        let range = planned * 0.8..=planned * 1.2 + 0.002;
        assert!(range.contains(wait), "{wait} s instead of {planned} s");
    }
    assert!(
        waits
            .iter()
            .zip(schedule)
            .any(|(wait, planned)| (wait - planned).abs() > 0.01)
    );
    assert!(calls.iter().all(|call| call.id == calls[0].id));
    let attempts: Vec<u32> = calls.iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, (1..=10).collect::<Vec<_>>());
    let hook = world.endpoint("hook");
    world.until("it is dead", |_| hook.dead.len() == 1).await;
    assert_eq!(hook.queue.len(), 1, "its message is kept");
    assert!(world.within(1_000 * HOUR).await.is_empty());
}

/// A dead letter that is put back is delivered under the same id, and is gone.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_can_be_put_back() {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let fields = "retry_schedule = [\"1s\"]";
    let mut world = World::new(&endpoint("hook", fields), move |_| {
        match is_mended.load(Relaxed) {
            true => Reply::Status(200),
            false => Reply::Status(404),
        }
    });
    world.publish("x");
    let first = world.some(2).await;
    let hook = world.endpoint("hook");
    world.until("it is dead", |_| hook.dead.len() == 1).await;
    mended.store(true, Relaxed);
    let counts = world
        .webhooks
        .replay_dead(
            &Principal::operator(),
            "hook",
            &Selection::default(),
            None,
            false,
        )
        .expect("taken");
    assert_eq!(counts.done, 1);
    let again = world.call().await;
    assert_eq!(
        (again.id.as_str(), again.attempt),
        (first[0].id.as_str(), 1)
    );
    world.until_empty("hook").await;
    assert!(hook.dead.is_empty());
    assert_eq!(world.broker.stats.webhooks.dead.get(), 1);
}

/// Retry-After holds back everything for this endpoint, for as long as it says.
#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let mut world = World::new(
        &endpoint("hook", "retry_schedule = [\"1s\"]"),
        |call| match call.attempt {
            1 if call.data() == ["first"] => Reply::RetryAfter(429, "3600"),
            _ => Reply::Status(200),
        },
    );
    world.publish("first");
    world.call().await;
    assert!(world.within(SECOND).await.is_empty());
    world.publish("second");
    assert!(world.within(HOUR - 3 * SECOND).await.is_empty());
    let calls = world.some(2).await;
    assert!(calls.iter().all(|call| call.at >= HOUR));
    assert_eq!(texts(&calls).len(), 2);
}

/// A whole exchange that takes too long is a failure, and is over.
#[tokio::test(start_paused = true)]
async fn an_attempt_has_a_deadline() {
    let fields = "timeout = \"15s\"\nretry_schedule = [\"5s\"]";
    let mut world = World::new(&endpoint("hook", fields), |call| match call.attempt {
        1 => Reply::Hang,
        _ => Reply::Late(14 * SECOND),
    });
    world.publish("x");
    let calls = world.some(2).await;
    assert!(calls[1].at >= 19 * SECOND, "{:?}", calls[1].at);
    world.until_empty("hook").await;
    let stats = &world.broker.stats.webhooks;
    assert_eq!(stats.attempts(AttemptEnd::TimedOut), 1);
    assert_eq!(stats.attempts(AttemptEnd::Delivered), 1);
    assert_eq!(stats.in_flight.get(), 0);
}

/// A dead endpoint is probed, not hammered; when it is back it gets everything.
#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_left_alone() {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let fields = "retry_schedule = [\"10s\", \"10s\", \"10s\", \"10s\", \"10s\", \"10s\"]\n\
                  max_in_flight = 50";
    let mut world = World::new(&endpoint("hook", fields), move |_| {
        match is_mended.load(Relaxed) {
            true => Reply::Status(200),
            false => Reply::Broken,
        }
    });
    for index in 0..100 {
        world.publish(&index.to_string());
    }
    let first = world.within(5 * SECOND).await;
    assert_eq!(first.len(), 3, "then the breaker opens");
    assert_eq!(world.broker.stats.webhooks.broken.get(), 1);
    let probes = world.within(100 * SECOND).await;
    assert!(
        (5..=11).contains(&probes.len()),
        "one each 10 s: {}",
        probes.len()
    );
    mended.store(true, Relaxed);
    world.until_empty("hook").await;
    let stats = &world.broker.stats.webhooks;
    assert_eq!(
        (stats.delivered.get(), stats.dead.get(), stats.broken.get()),
        (100, 0, 0)
    );
}

/// Only failures for days: disabled, with the reason, and nothing more is sent.
#[tokio::test(start_paused = true)]
async fn days_of_failure_disable_it() {
    let settings = format!("webhooks.disable_after = \"5d\"\n{}", endpoint("hook", ""));
    let mut world = World::new(&settings, |_| Reply::Broken);
    let hook = world.endpoint("hook");
    let mut hours = 0;
    while hook.state() == State::Active {
        world.publish("x");
        world.within(HOUR).await;
        hours += 1;
        assert!(hours < 1_000);
    }
    // An hour later at most, once an attempt is due then.
    assert!((120..=145).contains(&hours), "{hours} hours");
    let State::Disabled { reason } = hook.state() else {
        panic!("{:?}", hook.state());
    };
    assert!(reason.contains("it broke"), "{reason}");
    world.within(SECOND).await;
    assert!(world.within(1_000 * HOUR).await.is_empty());
    assert_eq!(world.broker.stats.webhooks.disabled.get(), 1);
}

/// 410 disables at once. The message stays, and is delivered once it is enabled.
#[tokio::test(start_paused = true)]
async fn gone_disables_it_at_once() {
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let mut world = World::new(&endpoint("hook", ""), move |_| {
        match is_mended.load(Relaxed) {
            true => Reply::Status(200),
            false => Reply::Status(410),
        }
    });
    world.publish("x");
    world.call().await;
    let hook = world.endpoint("hook");
    world
        .until("it is disabled", |_| hook.state() != State::Active)
        .await;
    assert!(world.within(100 * HOUR).await.is_empty());
    mended.store(true, Relaxed);
    let enabled = world.webhooks.enable(&Principal::operator(), "hook");
    assert!(enabled.is_ok());
    assert_eq!(world.call().await.attempt, 2);
    world.until_empty("hook").await;
}

/// A pause keeps everything, and its end is noticed at once.
#[tokio::test(start_paused = true)]
async fn a_pause_keeps_everything() {
    let mut world = World::new(&endpoint("hook", ""), |_| Reply::Status(200));
    let pause = |world: &World, paused| {
        let paused = world.webhooks.pause(&Principal::operator(), "hook", paused);
        assert!(paused.is_ok());
    };
    pause(&world, true);
    for index in 0..20 {
        world.publish(&index.to_string());
    }
    assert!(world.within(HOUR).await.is_empty());
    pause(&world, false);
    let calls = world.some(20).await;
    assert!(calls.iter().all(|call| call.at == HOUR));
    world.until_empty("hook").await;
}

/// No more a second than was asked for.
#[tokio::test(start_paused = true)]
async fn the_rate_is_limited() {
    let mut world = World::new(&endpoint("hook", "rate_limit = 10"), |_| Reply::Status(200));
    for index in 0..31 {
        world.publish(&index.to_string());
    }
    let calls = world.some(31).await;
    let took = calls[30].at - calls[0].at;
    assert!(
        (3 * SECOND..=3 * SECOND + SECOND / 10).contains(&took),
        "{took:?}"
    );
    for two in calls.windows(2) {
        assert!(two[1].at - two[0].at >= Duration::from_millis(99));
    }
}

/// QoS 0 is attempted once if the endpoint asks for QoS 0.
#[tokio::test(start_paused = true)]
async fn qos_0_is_attempted_once() {
    let mut world = World::new(&endpoint("hook", "qos = 0"), |_| Reply::Status(500));
    world.publish("x");
    world.call().await;
    world.until_empty("hook").await;
    assert!(world.within(100 * HOUR).await.is_empty());
    assert_eq!(world.broker.stats.webhooks.discarded.get(), 1);
}

/// What has expired is not delivered, and is counted.
#[tokio::test(start_paused = true)]
async fn an_expired_message_is_not_delivered() {
    let mut world = World::new(&endpoint("hook", ""), |_| Reply::Status(500));
    let expiry = [Property::MessageExpiryInterval(60)];
    world.publish_with("t/a", "x", QoS::AtLeastOnce, &expiry);
    let attempts = world.within(HOUR).await;
    assert_eq!(
        attempts.len(),
        2,
        "at once and after 5 s, and not after 5 min"
    );
    world.until_empty("hook").await;
    assert_eq!(world.broker.stats.dropped_for(Reason::Expired), 1);
    assert_eq!(world.endpoint("hook").dead.len(), 0);
}

/// Too many that wait for a retry: no others are taken until some are done.
#[tokio::test(start_paused = true)]
async fn only_so_many_wait_for_a_retry() {
    let settings = format!("webhooks.retrying_max = 5\n{}", endpoint("hook", ""));
    let mut world = World::new(&settings, |_| Reply::Status(400));
    for index in 0..10 {
        world.publish(&index.to_string());
    }
    let mut texts = texts(&world.within(240 * SECOND).await);
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    let retrying = &world.endpoint("hook").gauges.retrying;
    assert_eq!(retrying.load(Relaxed), 5);
}
