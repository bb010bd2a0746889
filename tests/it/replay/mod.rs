//! Streams replayed to MQTT clients: subscriptions to `$replay/<since>/<filter>`.

mod begin;
mod refused;
mod resume;
mod survive;

use crate::harness::*;

/// A stream of what is below `s/`.
const STREAM: &str = "[[stream]]\nname = 's'\nfilters = ['s/#']\n";

const ALL: &str = "$replay/earliest/s/#";

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Publishes these numbers with each QoS in turn.
async fn publish(client: &mut Client, topic: &str, range: std::ops::Range<usize>) {
    for number in range {
        let qos = (number % 3) as u8;
        client.publish_text(topic, &number.to_string(), qos).await;
    }
}

/// Receives so many messages and completes their handshakes.
async fn receive(client: &mut Client, count: usize) -> Vec<Publish> {
    let mut all = Vec::new();
    while all.len() < count {
        // PUBREL of one comes between the PUBLISH of others.
        let publish = client
            .take("PUBLISH", |packet| match packet {
                Packet::Publish(publish) => Some(publish.clone()),
                _ => None,
            })
            .await;
        client.acknowledge(&publish).await;
        all.push(publish);
    }
    all
}

async fn receive_numbers(client: &mut Client, range: std::ops::Range<usize>) -> Vec<Publish> {
    let received = receive(client, range.len()).await;
    let texts: Vec<&str> = received.iter().map(Publish::text).collect();
    assert_eq!(texts, numbers(range));
    received
}
