//! Replays under load, with connections that end at any time and a broker that is killed: nothing is
//! lost, and nothing comes twice but what DUP says may.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const PUBLISHERS: usize = 2;
const BEFORE: usize = 3_000;
const EACH: usize = 400;
const KILLS: usize = 4;

fn broker() -> ProcessBroker {
    let directory = scratch();
    std::fs::write(directory.path().join("broker.toml"), STREAM).expect("written");
    let listen = ["--set", "mqtt.listen=127.0.0.1:0", "--set", "http.listen="];
    ProcessBroker::start_raw(directory, &listen, &[])
}

/// Publishes numbers that nobody else publishes, until it has published so many or the broker is gone.
/// One that was not acknowledged is left at that: it is in the stream or not.
async fn load(address: SocketAddr, name: usize, next: Arc<AtomicUsize>, count: usize) {
    let (mut client, connack) =
        Client::attempt(address, Connect::v5(&format!("publisher {name}"))).await;
    assert_eq!(connack.reason, Reason::SUCCESS);
    for _ in 0..count {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let qos = 1 + (number % 2) as u8;
        let id = client.fresh_id();
        let publish = Publish::new(&format!("s/{name}"), number.to_string());
        client.send(publish.qos(qos).id(id)).await;
        loop {
            match client.next_or_closed().await {
                Some(Packet::PubRec(_)) => client.send(Packet::PubRel(Ack::new(id))).await,
                Some(Packet::PubAck(_) | Packet::PubComp(_)) => break,
                Some(other) => client.fail(&format!("{other:?}")),
                None => return,
            }
        }
    }
}

/// What the subscriber knows, through all its connections.
#[derive(Default)]
struct Seen {
    /// Packet Identifiers of QoS 2 messages that were received and not released.
    unreleased: HashMap<u16, String>,
    known: HashSet<String>,
    order: Vec<String>,
}

impl Seen {
    fn note(&mut self, publish: &Publish) {
        let text = publish.text().to_owned();
        if publish.qos == 2
            && let Some(before) = self.unreleased.insert(publish.packet_id, text.clone())
        {
            assert_eq!(before, text, "{publish:?} before the release of its like");
            assert!(publish.dup, "{publish:?}");
            return;
        }
        if self.known.insert(text.clone()) {
            self.order.push(text);
        } else {
            let may_repeat = publish.qos == 1 && publish.dup;
            assert!(may_repeat, "a second time: {publish:?}");
        }
    }

    /// Takes in a packet, and answers it unless it is to stay unanswered.
    async fn take(&mut self, client: &mut Client, packet: Packet, answer: bool) {
        match packet {
            Packet::Publish(publish) => {
                self.note(&publish);
                let ack = Ack::new(publish.packet_id);
                match publish.qos {
                    1 if answer => client.send(Packet::PubAck(ack)).await,
                    2 if answer => client.send(Packet::PubRec(ack)).await,
                    _ => {}
                }
            }
            Packet::PubRel(pubrel) => {
                self.unreleased.remove(&pubrel.packet_id);
                if answer {
                    let ack = Ack::new(pubrel.packet_id);
                    client.send(Packet::PubComp(ack)).await;
                }
            }
            other => client.fail(&format!("{other:?}")),
        }
    }
}

/// Everything that the stream has, for somebody who comes last.
async fn everything(broker: &ProcessBroker, marker: &str) -> Vec<String> {
    let mut client = broker.connect(Connect::v5("witness")).await;
    client.subscribe_to(ALL, 2).await;
    let mut all = Vec::new();
    loop {
        let text = receive(&mut client, 1).await[0].text().to_owned();
        if text == marker {
            return all;
        }
        all.push(text);
    }
}

async fn survive(connect: impl Fn() -> Connect, filter: &str) {
    let mut broker = broker();
    let next = Arc::new(AtomicUsize::new(0));
    load(broker.address(), 0, Arc::clone(&next), BEFORE).await;
    let mut subscriber = broker.connect(connect()).await;
    subscriber.subscribe_to(filter, 2).await;
    let mut seen = Seen::default();
    let mut steps: usize = 0;
    for round in 0..=KILLS {
        let address = broker.address();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|name| tokio::spawn(load(address, name, Arc::clone(&next), EACH)))
            .collect();
        // The broker falls in the middle of the history, in the middle of what comes, or in between.
        let until = (round + 1) * (BEFORE + 2 * EACH) / (KILLS + 2);
        while seen.order.len() < until {
            steps += 1;
            let packet = subscriber.next().await;
            let answer = steps % 11 < 9;
            seen.take(&mut subscriber, packet, answer).await;
            if steps.is_multiple_of(97) {
                match steps % 3 {
                    0 => subscriber.lose().await,
                    // The next connection takes over while this one still stands.
                    1 => drop(broker.connect(connect()).await),
                    _ => drop(subscriber),
                }
                subscriber = broker.connect(connect()).await;
                assert!(subscriber.connack.session_present);
            }
        }
        if round < KILLS {
            broker.kill();
            for publisher in publishers {
                publisher.await.expect("it ends");
            }
            broker.start_again();
            subscriber = broker.connect(connect()).await;
            assert!(subscriber.connack.session_present);
        } else {
            for publisher in publishers {
                publisher.await.expect("it publishes everything");
            }
        }
    }
    // What was left unanswered is sent again on another connection.
    subscriber.lose().await;
    let mut publisher = broker.connect(Connect::v5("marker")).await;
    publisher.publish_text("s/marker", "the last", 1).await;
    let all = everything(&broker, "the last").await;
    let mut subscriber = broker.connect(connect()).await;
    while seen.order.last().is_none_or(|last| last != "the last") {
        let packet = subscriber.next().await;
        seen.take(&mut subscriber, packet, true).await;
    }
    seen.order.pop();
    let missing = all.iter().find(|it| !seen.known.contains(*it));
    assert_eq!(missing, None, "of {}", all.len());
    assert!(seen.order == all, "in another order than the stream's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_survives_kills_and_lost_connections() {
    let connect = || {
        Connect::v5("flapping")
            .persistent()
            .property(Property::ReceiveMaximum(20))
    };
    survive(connect, ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_of_some_to_version_3_survives_kills_and_lost_connections() {
    survive(|| Connect::v311("flapping").persistent(), "$replay/1h/s/+").await;
}
