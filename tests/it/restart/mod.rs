//! What outlives the broker: sessions with their subscriptions, queues and QoS 2 state, Retained
//! Messages and wills, after an orderly stop and after a SIGKILL.

mod endings;
mod flight;
mod queues;
mod retained;
mod rights;
mod subscriptions;

use crate::harness::*;

/// What `store.durability` can be where something is kept.
const DURABLE: [&str; 2] = ["fsync", "interval"];

/// Versions that differ in what is kept; 3.1 is 3.1.1 here.
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

async fn durable(durability: &str) -> Broker {
    Broker::with(&format!("store.durability = '{durability}'")).await
}

/// A session that outlives its connection: a new one.
async fn begin(broker: &Broker, connect: Connect) -> Client {
    let client = broker.connect(connect.persistent()).await;
    assert!(!client.connack.session_present, "{} is new", client.id);
    client
}

/// The same session again.
async fn back(broker: &Broker, connect: Connect) -> Client {
    let client = broker.connect(connect.persistent()).await;
    assert!(client.connack.session_present, "{} is there", client.id);
    client
}

/// A session with one subscription whose client is away.
async fn absent(broker: &Broker, connect: Connect, filter: &str, qos: u8) {
    let mut client = begin(broker, connect).await;
    client.subscribe_to(filter, qos).await;
    client.disconnect().await;
}

/// Publishes all of these with QoS 1 or 2, many at a time, and waits for the acknowledgements.
async fn publish_all(client: &mut Client, messages: impl IntoIterator<Item = Publish>) {
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let window: Vec<Publish> = messages
            .by_ref()
            .zip(1..=1000)
            .map(|(message, id)| message.id(id))
            .collect();
        client
            .send_all(window.iter().cloned().map(Packet::from))
            .await;
        for message in &window {
            let id = message.packet_id;
            if message.qos == 1 {
                client.expect_puback(id).await;
            } else {
                client.expect_pubrec(id).await;
                client.send(Packet::PubRel(Ack::new(id))).await;
                client.expect_pubcomp(id).await;
            }
        }
    }
}

/// Receives messages with these payloads, in this order, each for the first time.
async fn receive_in_order(client: &mut Client, payloads: impl IntoIterator<Item = String>) {
    for payload in payloads {
        let publish = client.receive().await;
        assert_eq!(publish.text(), payload);
        assert!(!publish.dup, "{publish:?} was never sent before");
    }
}

/// Nothing waits in the queue of this session: what is published now is what comes next. A ping
/// would not wait for what has to be read back.
async fn expect_empty_queue(client: &mut Client) {
    expect_empty_queue_under(client, "behind").await;
}

/// The same where the client may not use every topic.
async fn expect_empty_queue_under(client: &mut Client, topic: &str) {
    let topic = format!("{topic}/{}", client.id);
    client.subscribe_to(&topic, 1).await;
    client.publish_text(&topic, "last", 1).await;
    client.receive_exactly(&topic, "last").await;
    client.unsubscribe(&[&topic]).await;
    client.expect_nothing().await;
}

fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

/// A broker that is started again after an orderly stop, or after a SIGKILL.
struct Mortal {
    broker: ProcessBroker,
    kill: bool,
}

impl Mortal {
    fn start(durability: &str, kill: bool) -> Mortal {
        let broker = ProcessBroker::start(&[&format!("store.durability={durability}")]);
        Mortal { broker, kill }
    }

    /// Every kind of end, with every kind of store.
    fn every() -> impl Iterator<Item = Mortal> {
        DURABLE
            .into_iter()
            .flat_map(|durability| [false, true].map(|kill| Mortal::start(durability, kill)))
    }

    fn restart(&mut self) {
        self.stop();
        self.broker.start_again();
    }

    fn stop(&mut self) {
        match self.kill {
            true => self.broker.kill(),
            false => {
                self.broker.signal("TERM");
                assert!(self.broker.wait().success());
            }
        }
    }

    async fn begin(&self, version: Version, id: &str) -> Client {
        let connect = Connect::new(version, id).persistent();
        let client = self.broker.connect(connect).await;
        assert!(!client.connack.session_present, "{id} is new");
        client
    }

    async fn back(&self, version: Version, id: &str) -> Client {
        let connect = Connect::new(version, id).persistent();
        let client = self.broker.connect(connect).await;
        assert!(client.connack.session_present, "{id} is there");
        client
    }

    async fn client(&self, id: &str) -> Client {
        self.broker.connect(Connect::v5(id)).await
    }
}

/// What this client acknowledged before is safe afterwards, and all that the broker had recorded:
/// a retained message is acknowledged once it is safe, and the store keeps order. PUBACK and PUBCOMP
/// have no answer that could say as much.
async fn settle(client: &mut Client) {
    client.fence().await;
    client
        .publish(Publish::new("settled", "x").qos(1).retain())
        .await;
}
