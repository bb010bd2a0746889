//! In the middle of deliveries: nothing acknowledged is lost, what was answered and written down is
//! not repeated, and order holds.

use std::collections::{HashMap, HashSet};

use super::*;

/// With this endpoint.
fn with(receiver: &Receiver, fields: &str) -> ProcessBroker {
    process(&settings(&receiver.url(), fields))
}

/// Publishes numbers, one after the other acknowledged.
async fn publish(broker: &ProcessBroker, numbers: std::ops::Range<u32>) {
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    for number in numbers {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
}

/// Killed again and again while it delivers, some of it by retry: all of it arrives.
#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    const ROUNDS: u32 = 4;
    const EACH: u32 = 60;
    let mut receiver = Receiver::start().await;
    let mut broker = with(&receiver, "retry_schedule = [\"50ms\", \"50ms\", \"50ms\"]");
    let mut delivered = HashSet::new();
    for round in 0..ROUNDS {
        // Every other request fails.
        receiver.next((0..EACH).map(|index| match index % 2 {
            0 => Act::Status(500),
            _ => Act::Status(200),
        }));
        publish(&broker, round * EACH..(round + 1) * EACH).await;
        for request in receiver.some(5).await {
            delivered.insert(number(&request));
        }
        broker.kill();
        broker.start_again();
    }
    while delivered.len() < (ROUNDS * EACH) as usize {
        delivered.insert(number(&receiver.request().await));
    }
}

/// What was answered is written down soon, and not sent again.
#[tokio::test]
async fn what_is_done_is_not_repeated() {
    let mut receiver = Receiver::start().await;
    let mut broker = with(&receiver, "");
    publish(&broker, 0..50).await;
    receiver.some(50).await;
    // One that was attempted after their answers had come, and is not answered itself. Whoever
    // appends after something is durable after it.
    until_shown(&broker, "/v1/webhooks/hook", |shown| shown["queued"] == 0).await;
    let mut publisher = broker.connect(Connect::v5("another")).await;
    receiver.always(Act::Hang);
    publisher.publish_text("t", "50", 1).await;
    assert_eq!(number(&receiver.request().await), 50);
    broker.kill();
    receiver.always(Act::Status(200));
    broker.start_again();
    assert_eq!(
        number(&receiver.request().await),
        50,
        "its answer never came"
    );
    publish(&broker, 51..52).await;
    assert_eq!(number(&receiver.request().await), 51);
    assert!(receiver.arrived().is_empty());
}

/// fifo: whatever is killed, nothing is sent before what came before it is accepted.
#[tokio::test]
async fn fifo_holds_across_kills() {
    const EACH: u32 = 40;
    let mut receiver = Receiver::start().await;
    let fields = "ordering = \"fifo\"\nretry_schedule = [\"20ms\", \"20ms\", \"20ms\", \"20ms\"]";
    let mut broker = with(&receiver, fields);
    let mut fifo = Fifo::default();
    let mut ids: HashMap<u32, String> = HashMap::new();
    let mut see = |request: Request| {
        fifo.see(&request);
        let id = request.header("webhook-id").to_owned();
        let before = ids.entry(number(&request)).or_insert_with(|| id.clone());
        assert_eq!(*before, id, "the same over all attempts and restarts");
        number(&request)
    };
    for round in 0..4 {
        receiver.next((0..30).map(|index| match index % 3 {
            0 => Act::Status(503),
            _ => Act::Status(200),
        }));
        publish(&broker, round * EACH..(round + 1) * EACH).await;
        while see(receiver.request().await) < (round + 1) * EACH - 20 {}
        broker.kill();
        broker.start_again();
    }
    while see(receiver.request().await) < 4 * EACH - 1 {}
    assert!(
        (0..4 * EACH - 1).all(|number| fifo.has("t", number)),
        "lost"
    );
}
