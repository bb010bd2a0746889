//! Publishers that never pause and a subscriber that comes and goes: what `histories.rs` tries one
//! step at a time, at the same time and on several threads.

use std::collections::{HashMap, HashSet};

use crate::harness::*;

const PUBLISHERS: usize = 4;
const MESSAGES: usize = 250;

/// Publishes numbered messages, alternately with QoS 1 and 2.
async fn publish_all(mut client: Client, topic: String) {
    for number in 0..MESSAGES {
        let qos = 1 + (number % 2) as u8;
        client.publish_text(&topic, &number.to_string(), qos).await;
    }
    client.disconnect().await;
}

/// What the subscriber knows, through all its connections.
#[derive(Default)]
struct Seen {
    /// Packet Identifiers of QoS 2 messages that were received and not released.
    unreleased: HashSet<u16>,
    /// For each topic, the next number that has not come yet.
    next: HashMap<String, usize>,
    count: usize,
}

impl Seen {
    fn note(&mut self, publish: &Publish) {
        let number: usize = publish.text().parse().expect("a number");
        if publish.qos == 2 && !self.unreleased.insert(publish.packet_id) {
            return;
        }
        let next = self.next.entry(publish.topic.clone()).or_default();
        assert!(number <= *next, "{publish:?} before {next}");
        let first = number == *next;
        if !first {
            assert!(
                publish.qos == 1 && publish.dup,
                "a second time: {publish:?}"
            );
            return;
        }
        *next += 1;
        self.count += 1;
    }
}

/// Nothing is lost, nothing comes twice at QoS 2, and each topic stays in order.
async fn survive(connect: impl Fn() -> Connect) {
    let broker = Broker::start().await;
    let mut subscriber = broker.connect(connect()).await;
    subscriber.subscribe_to("t/+", 2).await;
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        let client = broker.client(&format!("publisher {number}")).await;
        publishers.push(tokio::spawn(publish_all(client, format!("t/{number}"))));
    }
    let mut seen = Seen::default();
    let mut connections = 1;
    while seen.count < PUBLISHERS * MESSAGES {
        // A few packets on this connection, and some of them stay unanswered.
        for step in 0..7 + connections % 40 {
            if seen.count == PUBLISHERS * MESSAGES {
                break;
            }
            let answer = step % 11 < 9;
            match subscriber.next().await {
                Packet::Publish(publish) => {
                    seen.note(&publish);
                    let ack = Ack::new(publish.packet_id);
                    match publish.qos {
                        1 if answer => subscriber.send(Packet::PubAck(ack)).await,
                        2 if answer => subscriber.send(Packet::PubRec(ack)).await,
                        _ => {}
                    }
                }
                Packet::PubRel(pubrel) => {
                    seen.unreleased.remove(&pubrel.packet_id);
                    if answer {
                        subscriber
                            .send(Packet::PubComp(Ack::new(pubrel.packet_id)))
                            .await;
                    }
                }
                other => subscriber.fail(&format!("{other:?}")),
            }
        }
        match connections % 3 {
            0 => subscriber.lose().await,
            // The next connection takes over while this one still stands.
            1 => drop(broker.connect(connect()).await),
            _ => drop(subscriber),
        }
        subscriber = broker.connect(connect()).await;
        connections += 1;
    }
    for publisher in publishers {
        publisher.await.expect("publishes everything");
    }
    // What was left unanswered comes again and nothing else does.
    subscriber.send(Packet::PingReq).await;
    loop {
        match subscriber.next().await {
            Packet::Publish(publish) => {
                assert!(publish.dup, "{publish:?}");
                seen.note(&publish);
            }
            Packet::PubRel(_) => {}
            Packet::PingResp => break,
            other => subscriber.fail(&format!("{other:?}")),
        }
    }
    assert_eq!(seen.count, PUBLISHERS * MESSAGES);
}

/// With a small window.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flapping_subscriber_misses_nothing() {
    survive(|| {
        Connect::v5("flapping")
            .persistent()
            .property(Property::ReceiveMaximum(20))
    })
    .await;
}

/// And as a version 3 client.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flapping_subscriber_of_version_3_misses_nothing() {
    survive(|| Connect::v311("flapping").persistent()).await;
}
