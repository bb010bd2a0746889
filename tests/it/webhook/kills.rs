//! SIGKILL in the middle of deliveries: nothing acknowledged is lost, what was answered and written
//! down is not repeated, and order holds.

use std::collections::{HashMap, HashSet};

use super::*;

/// A broker in a process of its own, with this endpoint.
fn process(receiver: &Receiver, fields: &str) -> ProcessBroker {
    let directory = scratch();
    let path = directory.path().join("broker.toml");
    let settings = settings(&receiver.url(), fields);
    let listen = "mqtt.listen = \"127.0.0.1:0\"\nhttp.listen = \"127.0.0.1:0\"\n";
    std::fs::write(&path, format!("{listen}{settings}")).expect("written");
    ProcessBroker::start_raw(directory, &["--config", "broker.toml"], &[])
}

/// Publishes numbers, one after the other acknowledged.
async fn publish(broker: &ProcessBroker, numbers: std::ops::Range<u32>) {
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    for number in numbers {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
}

fn number(request: &Request) -> u32 {
    request.data().parse().expect("a number")
}

/// Killed again and again while it delivers, some of it by retry: all of it arrives.
#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    const ROUNDS: u32 = 4;
    const EACH: u32 = 60;
    let mut receiver = Receiver::start().await;
    let mut broker = process(&receiver, "retry_schedule = [\"50ms\", \"50ms\", \"50ms\"]");
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
    let mut broker = process(&receiver, "");
    publish(&broker, 0..50).await;
    receiver.some(50).await;
    // One that was attempted after their answers had come, and is not answered itself. Whoever
    // appends after something is durable after it.
    let http = broker
        .field("http")
        .split(',')
        .next()
        .expect("one")
        .parse()
        .expect("an address");
    until(http, "/v1/webhooks/hook", |shown| {
        let shown: serde_json::Value = serde_json::from_str(shown).expect("JSON");
        (shown["queued"] == 0).then_some(())
    })
    .await;
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

/// fifo: whatever is killed, nothing is seen for the first time before what came before it.
#[tokio::test]
async fn fifo_holds_across_kills() {
    let mut receiver = Receiver::start().await;
    let fields = "ordering = \"fifo\"\nretry_schedule = [\"20ms\", \"20ms\", \"20ms\", \"20ms\"]";
    let mut broker = process(&receiver, fields);
    let mut next = 0;
    let mut ids: HashMap<u32, String> = HashMap::new();
    for round in 0..4 {
        receiver.next((0..30).map(|index| match index % 3 {
            0 => Act::Status(503),
            _ => Act::Status(200),
        }));
        publish(&broker, round * 40..(round + 1) * 40).await;
        let until = (round + 1) * 40 - 20;
        while next < until {
            let request = receiver.request().await;
            let number = number(&request);
            assert!(number <= next, "{number} was seen before {next}");
            next = next.max(number + 1);
            let id = request.header("webhook-id").to_owned();
            let before = ids.entry(number).or_insert_with(|| id.clone());
            assert_eq!(*before, id, "the same over all attempts and restarts");
        }
        broker.kill();
        broker.start_again();
    }
    while next < 160 {
        let number = number(&receiver.request().await);
        assert!(number <= next, "{number} was seen before {next}");
        next = next.max(number + 1);
    }
}
