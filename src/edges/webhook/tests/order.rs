//! In which order messages are delivered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Whichever fails, all others wait, and nothing is overtaken.
#[tokio::test(start_paused = true)]
async fn fifo_is_never_overtaken() {
    let fields = "ordering = \"fifo\"\nretry_schedule = [\"5s\", \"5s\"]";
    let mut world = World::new(&endpoint("hook", fields), |call| match call.attempt {
        1 if call.data()[0].ends_with('3') => Reply::Status(500),
        2 if call.data()[0] == "13" => Reply::Hang,
        _ => Reply::Late(SECOND / 10),
    });
    let sent: Vec<String> = (0..30).map(|index| index.to_string()).collect();
    for text in &sent {
        world.publish(text);
    }
    world.until_empty("hook").await;
    let calls = world.some(30 + 4).await;
    let mut texts = texts(&calls);
    texts.dedup();
    assert_eq!(texts, sent);
}

/// A message that is given up makes way for the next.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_holds_up_no_fifo() {
    let fields = "ordering = \"fifo\"\nretry_schedule = [\"1s\"]";
    let mut world = World::new(&endpoint("hook", fields), |call| match &*call.data()[0] {
        "0" => Reply::Status(400),
        _ => Reply::Status(200),
    });
    world.publish("0");
    world.publish("1");
    assert_eq!(texts(&world.some(3).await), ["0", "0", "1"]);
    let hook = world.endpoint("hook");
    world.until("one is left", |_| hook.queue.len() == 1).await;
    assert_eq!(hook.dead.len(), 1);
}

/// What fails of one topic keeps back that topic alone.
#[tokio::test(start_paused = true)]
async fn keys_do_not_wait_for_each_other() {
    let fields = "ordering = \"key\"\nretry_schedule = [\"60s\"]\nmax_in_flight = 8";
    let mut world = World::new(&endpoint("hook", fields), |call| {
        match (call.attempt, &*call.data()[0]) {
            (1, "t/0 0") => Reply::Status(500),
            _ => Reply::Late(SECOND / 10),
        }
    });
    for index in 0..20 {
        for topic in ["t/0", "t/1", "t/2"] {
            world.publish_to(topic, &format!("{topic} {index}"));
        }
    }
    let early = texts(&world.within(40 * SECOND).await);
    let of = |texts: &[String], topic: &str| -> Vec<String> {
        let texts = texts.iter().filter(|text| text.starts_with(topic));
        texts.cloned().collect()
    };
    assert_eq!(of(&early, "t/0"), ["t/0 0"]);
    for topic in ["t/1", "t/2"] {
        let expected: Vec<String> = (0..20).map(|index| format!("{topic} {index}")).collect();
        assert_eq!(of(&early, topic), expected);
    }
    let late = texts(&world.within(60 * SECOND).await);
    let expected: Vec<String> = (0..20).map(|index| format!("t/0 {index}")).collect();
    assert_eq!(late, expected);
}

/// Never two of a key in flight, never more in flight than allowed, and yet side by side.
#[tokio::test(start_paused = true)]
async fn the_window_is_used_and_kept() {
    let fields = "ordering = \"key\"\nmax_in_flight = 4";
    let in_flight: Arc<Mutex<HashMap<String, Duration>>> = Arc::default();
    let most = Arc::new(AtomicUsize::new(0));
    let (flying, seen) = (Arc::clone(&in_flight), Arc::clone(&most));
    let world = World::new(&endpoint("hook", fields), move |call| {
        let key = call.data()[0].split(' ').next().unwrap().to_owned();
        let mut flying = flying.lock().unwrap();
        flying.retain(|_, until| *until > call.at);
        let before = flying.insert(key.clone(), call.at + SECOND);
        assert!(before.is_none(), "two of {key} in flight");
        assert!(flying.len() <= 4);
        seen.fetch_max(flying.len(), Relaxed);
        Reply::Late(SECOND)
    });
    for index in 0..40 {
        let topic = format!("t/{}", index % 8);
        world.publish_to(&topic, &format!("{topic} {index}"));
    }
    world.until_empty("hook").await;
    assert_eq!(most.load(Relaxed), 4);
    assert_eq!(world.broker.stats.webhooks.delivered.get(), 40);
    assert_eq!(world.broker.stats.webhooks.panicked.get(), 0);
}

/// A batch that fails is repeated as it was, under the same id.
#[tokio::test(start_paused = true)]
async fn a_batch_stays_together() {
    let fields = "payload_mode = \"batch\"\nretry_schedule = [\"5s\"]\nordering = \"fifo\"";
    let mut world = World::new(&endpoint("hook", fields), |call| match call.attempt {
        1 if call.data().len() > 1 => Reply::Status(500),
        1 => Reply::Late(SECOND),
        _ => Reply::Status(200),
    });
    world.publish("0");
    world.call().await;
    for index in 1..=150 {
        world.publish(&index.to_string());
    }
    let first = world.call().await;
    assert_eq!(first.data().len(), 100);
    let again = world.call().await;
    assert_eq!((&again.id, again.data()), (&first.id, first.data()));
    assert_eq!(again.attempt, 2);
    let rest = world.some(2).await;
    assert_eq!((rest[0].data().len(), &rest[0].id), (50, &rest[1].id));
    world.until_empty("hook").await;
    assert_eq!(world.broker.stats.webhooks.delivered.get(), 151);
}

/// A much larger backlog than a page is delivered whole, and each once.
#[tokio::test(start_paused = true)]
async fn a_backlog_is_delivered_whole() {
    let mut world = World::new(&endpoint("hook", "max_in_flight = 64"), |_| {
        Reply::Status(200)
    });
    let paused = world
        .webhooks
        .pause(&crate::access::Principal::operator(), "hook", true);
    assert!(paused.is_ok());
    for index in 0..5_000 {
        world.publish(&index.to_string());
    }
    let resumed = world
        .webhooks
        .pause(&crate::access::Principal::operator(), "hook", false);
    assert!(resumed.is_ok());
    let mut got: Vec<u32> = texts(&world.some(5_000).await)
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    got.sort_unstable();
    assert_eq!(got, (0..5_000).collect::<Vec<_>>());
    world.until_empty("hook").await;
    assert!(world.within(100 * SECOND).await.is_empty());
}
