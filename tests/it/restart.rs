//! What outlives the broker: sessions with their subscriptions, queues and QoS 2 state, Retained
//! Messages and wills, after an orderly stop and after a SIGKILL.

use std::collections::BTreeSet;

use tempfile::TempDir;

use crate::harness::credentials::user;
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

// Queues.

/// What waited for an absent client waits for it still, in order, and was never sent before.
#[tokio::test]
async fn queued_messages_come_after_a_restart_in_order() {
    for durability in DURABLE {
        let mut broker = durable(durability).await;
        for version in VERSIONS {
            for qos in [1, 2] {
                let id = format!("{version:?} {qos}");
                absent(&broker, Connect::new(version, &id), "t", qos).await;
            }
        }
        let mut publisher = broker.client("publisher").await;
        publish_all(
            &mut publisher,
            numbers(0..50).map(|text| Publish::new("t", text).qos(2)),
        )
        .await;
        broker.restart().await;
        for version in VERSIONS {
            for qos in [1, 2] {
                let id = format!("{version:?} {qos}");
                let mut client = back(&broker, Connect::new(version, &id)).await;
                receive_in_order(&mut client, numbers(0..50)).await;
                expect_empty_queue(&mut client).await;
                client.disconnect().await;
            }
        }
        broker.restart().await;
        for version in VERSIONS {
            let id = format!("{version:?} 2");
            let mut client = back(&broker, Connect::new(version, &id)).await;
            expect_empty_queue(&mut client).await;
        }
    }
}

/// New messages queue up behind those from before, with one restart after the other.
#[tokio::test]
async fn queues_grow_over_restarts() {
    let mut broker = durable("fsync").await;
    absent(&broker, Connect::v5("a"), "t", 2).await;
    for round in 0..4 {
        let mut publisher = broker.client("publisher").await;
        for number in 0..5 {
            let text = (5 * round + number).to_string();
            publisher.publish_text("t", &text, 1 + number % 2).await;
        }
        broker.restart().await;
    }
    let mut client = back(&broker, Connect::v5("a")).await;
    receive_in_order(&mut client, numbers(0..20)).await;
    expect_empty_queue(&mut client).await;
}

/// Properties, Subscription Identifiers and RETAIN are what they would have been without.
#[tokio::test]
async fn queued_messages_keep_their_properties() {
    let mut broker = durable("fsync").await;
    let mut client = begin(&broker, Connect::v5("a")).await;
    for (filter, identifier) in [("t/+", 7), ("t/#", 200_000_000)] {
        let subscription = Subscription::new(filter, 2).retain_as_published();
        let subscribe = Subscribe::new([subscription]).identifier(identifier);
        assert_eq!(client.subscribe(subscribe).await, [Reason(2)]);
    }
    client.subscribe_to("plain", 1).await;
    client.disconnect().await;
    let properties = [
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain".to_owned()),
        Property::ResponseTopic("answers/é".to_owned()),
        Property::CorrelationData(vec![0, 255, 7]),
        Property::user("one", "1"),
        Property::user("one", "again"),
        Property::user("", ""),
    ];
    let mut publisher = broker.client("publisher").await;
    for retain in [false, true] {
        let mut publish = Publish::new("t/x", "full").qos(2);
        publish.retain = retain;
        publish.properties.extend(properties.clone());
        publisher.publish(publish).await;
    }
    publisher
        .publish(Publish::new("plain", "bare").qos(1).retain())
        .await;
    broker.restart().await;
    let mut client = back(&broker, Connect::v5("a")).await;
    for retain in [false, true] {
        let publish = client.receive_exactly("t/x", "full").await;
        assert_eq!((publish.qos, publish.retain), (2, retain));
        assert_eq!(
            subscription_identifiers(&publish.properties),
            [7, 200_000_000]
        );
        let mut others = publish.properties;
        others.retain(|it| !matches!(it, Property::SubscriptionIdentifier(_)));
        let (users, mut others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|it| matches!(it, Property::UserProperty(..)));
        assert_eq!(users, properties[4..], "User Properties keep their order");
        for expected in &properties[..4] {
            let found = others.iter().position(|it| it == expected);
            others.remove(found.unwrap_or_else(|| panic!("{expected:?} in {others:?}")));
        }
        assert_eq!(others, []);
    }
    let bare = client.receive_exactly("plain", "bare").await;
    assert!(!bare.retain, "not as published");
    assert_eq!(bare.properties, []);
    client.expect_nothing().await;
}

/// Payloads of every kind of size: none, a few bytes, on either side of where they are shared
/// rather than copied, and larger than a page that is read back.
#[tokio::test]
async fn payloads_of_all_sizes_survive() {
    const SIZES: [usize; 7] = [0, 1, 16 * 1024 - 1, 16 * 1024, 200_000, 2_000_000, 3];
    let payload = |size: usize| -> Vec<u8> { (0..size).map(|at| (at * 7 % 251) as u8).collect() };
    for durability in DURABLE {
        let mut broker = durable(durability).await;
        for version in VERSIONS {
            let id = format!("{version:?}");
            absent(&broker, Connect::new(version, &id), "t", 2).await;
        }
        let mut publisher = broker.client("publisher").await;
        for size in SIZES {
            let publish = Publish::new("t", payload(size)).qos(1 + (size % 2) as u8);
            publisher.publish(publish).await;
        }
        broker.restart().await;
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = back(&broker, Connect::new(version, &id)).await;
            for size in SIZES {
                let publish = client.receive().await;
                assert!(publish.payload == payload(size), "{size} bytes differ");
            }
            expect_empty_queue(&mut client).await;
        }
    }
}

/// The Message Expiry Interval runs while the broker is down: what is left is passed on, and where
/// nothing is left, nothing is delivered.
#[tokio::test]
async fn messages_expire_while_the_broker_is_down() {
    let mut broker = durable("fsync").await;
    absent(&broker, Connect::v5("five"), "t", 1).await;
    absent(&broker, Connect::v311("three"), "t", 1).await;
    let mut publisher = broker.client("publisher").await;
    for (text, seconds) in [("short", 1), ("long", 1000), ("shorter", 0)] {
        let expiry = Property::MessageExpiryInterval(seconds);
        let publish = Publish::new("t", text).qos(1).property(expiry);
        publisher.publish(publish).await;
    }
    publisher.publish_text("t", "for ever", 1).await;
    broker.stop().await;
    elapse(3).await;
    broker.start_again().await;
    for connect in [Connect::v5("five"), Connect::v311("three")] {
        let mut client = back(&broker, connect).await;
        let long = client.receive_exactly("t", "long").await;
        if client.version == Version::V5 {
            let left = property!(long.properties, MessageExpiryInterval);
            assert!(left.is_some_and(|left| left <= 997), "{left:?} left");
        }
        let forever = client.receive_exactly("t", "for ever").await;
        assert_eq!(forever.properties, []);
        expect_empty_queue(&mut client).await;
    }
}

/// A backlog is drained completely and in order, however long it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_messages_are_drained_in_order() {
    const COUNT: usize = 100_000;
    let mut broker = durable("interval").await;
    absent(&broker, Connect::v5("a"), "t", 1).await;
    let mut publisher = broker.client("publisher").await;
    publish_all(
        &mut publisher,
        numbers(0..COUNT).map(|text| Publish::new("t", text).qos(1)),
    )
    .await;
    broker.restart().await;
    let mut client = back(&broker, Connect::v5("a")).await;
    for number in 0..COUNT {
        let publish = client.expect_publish().await;
        assert_eq!(publish.text(), number.to_string());
        client
            .send(Packet::PubAck(Ack::new(publish.packet_id)))
            .await;
    }
    expect_empty_queue(&mut client).await;
}

/// What waits for an absent client is on the disk, not in memory: before a restart and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_queue_takes_little_memory() {
    const COUNT: usize = 50_000;
    const SIZE: usize = 4096;
    const LITTLE: usize = COUNT * SIZE / 4;
    let mut broker = ProcessBroker::start(&["store.durability=interval"]);
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.subscribe_to("t", 1).await;
    client.disconnect().await;
    let before = broker.resident_bytes();
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    let payload = vec![b'x'; SIZE];
    let message = Publish::new("t", &payload).qos(1);
    publish_all(&mut publisher, std::iter::repeat_n(message, COUNT)).await;
    publisher.disconnect().await;
    let more = broker.resident_bytes().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes for the queue");
    broker.kill();
    broker.start_again();
    let more = broker.resident_bytes().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes for the queue after a restart");
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    for _ in 0..COUNT {
        let publish = client.receive().await;
        assert!(publish.payload == payload);
    }
    client.expect_nothing().await;
    let more = broker.resident_bytes().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes when it is drained");
}

// Messages in flight.

/// What was sent and not acknowledged is sent again: with DUP, the same Packet Identifiers, in the
/// same order, before what was never sent, which has no DUP; but a broker that was killed does not
/// know what it sent, so that all may be a repetition. [MQTT-4.4.0-1] [MQTT-3.3.1-1]
/// [MQTT311-4.4.0-1] [MQTT311-3.3.1-1]
#[tokio::test]
async fn what_was_sent_is_sent_again_with_dup() {
    for version in VERSIONS {
        for kill in [false, true] {
            let broker = ProcessBroker::start(&["mqtt.inflight_max=3"]);
            let mut broker = Mortal { broker, kill };
            let mut client = broker.begin(version, "a").await;
            client.subscribe_to("t", 2).await;
            let mut publisher = broker.client("publisher").await;
            for number in 0..6 {
                let text = number.to_string();
                publisher.publish_text("t", &text, 1 + number % 2).await;
            }
            let mut sent = Vec::new();
            for _ in 0..3 {
                sent.push(client.expect_publish().await);
            }
            client.expect_nothing().await;
            broker.restart();
            let mut client = broker.back(version, "a").await;
            for before in sent {
                assert!(!before.dup);
                let again = client.expect_publish().await;
                assert_eq!(again, before.clone().dup());
            }
            client.expect_nothing().await;
            broker.restart();
            let mut client = broker.back(version, "a").await;
            for number in 0..6 {
                let publish = client.receive_exactly("t", &number.to_string()).await;
                assert_eq!(publish.dup, kill || number < 3, "{publish:?}");
            }
            client.expect_nothing().await;
        }
    }
}

/// A QoS 2 message that was received before is not delivered again when it is sent again, and its
/// PUBREL is answered as if nothing had happened. [MQTT-4.3.3-10] [MQTT-4.3.3-11]
#[tokio::test]
async fn qos_2_from_a_client_goes_on() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let (from, to) = (format!("from {version:?}"), format!("to {version:?}"));
            let mut receiver = broker.begin(version, &to).await;
            receiver.subscribe_to("t", 2).await;
            receiver.disconnect().await;
            let mut publisher = broker.begin(version, &from).await;
            let message = Publish::new("t", "once").qos(2).id(77);
            publisher.send(message.clone()).await;
            publisher.expect_pubrec(77).await;
            let released = Publish::new("t", "released").qos(2).id(78);
            publisher.send(released.clone()).await;
            publisher.expect_pubrec(78).await;
            publisher.send(Packet::PubRel(Ack::new(78))).await;
            publisher.expect_pubcomp(78).await;
            broker.restart();
            let mut publisher = broker.back(version, &from).await;
            publisher.send(message.dup()).await;
            let pubrec = publisher.expect_pubrec(77).await;
            assert!(!pubrec.reason.is_error(), "{pubrec:?}");
            publisher.send(Packet::PubRel(Ack::new(77))).await;
            let pubcomp = publisher.expect_pubcomp(77).await;
            assert_eq!(pubcomp.reason, Reason::SUCCESS);
            // Identifiers that were released are free for other messages.
            for id in [77, 78] {
                let next = Publish::new("t", format!("next {id}")).qos(2).id(id);
                publisher.publish(next).await;
            }
            publisher.disconnect().await;
            let mut receiver = broker.back(version, &to).await;
            for text in ["once", "released", "next 77", "next 78"] {
                receiver.receive_exactly("t", text).await;
            }
            expect_empty_queue(&mut receiver).await;
            receiver.unsubscribe(&["t"]).await;
        }
    }
}

/// A QoS 2 message whose PUBREC came is not sent again: PUBREL is, until PUBCOMP comes.
/// [MQTT-4.3.3-4] [MQTT-4.4.0-1]
#[tokio::test]
async fn qos_2_to_a_client_goes_on() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = broker.begin(version, &id).await;
            client.subscribe_to("t", 2).await;
            let mut publisher = broker.client("publisher").await;
            for text in ["0", "1", "2"] {
                publisher.publish_text("t", text, 2).await;
            }
            let mut ids = Vec::new();
            for _ in 0..3 {
                ids.push(client.expect_publish().await.packet_id);
            }
            // PUBREL is the answer to a PUBREC that is kept. The one in the middle is received.
            client.send(Packet::PubRec(Ack::new(ids[1]))).await;
            client.expect_pubrel(ids[1]).await;
            broker.restart();
            let mut client = broker.back(version, &id).await;
            let first = client.expect_publish().await;
            assert_eq!((first.packet_id, first.dup), (ids[0], true));
            client.expect(Packet::PubRel(Ack::new(ids[1]))).await;
            let last = client.expect_publish().await;
            assert_eq!((last.packet_id, last.dup), (ids[2], true));
            client.send(Packet::PubComp(Ack::new(ids[1]))).await;
            for publish in [first, last] {
                client.acknowledge(&publish).await;
            }
            settle(&mut client).await;
            client.disconnect().await;
            broker.restart();
            let mut client = broker.back(version, &id).await;
            expect_empty_queue(&mut client).await;
        }
    }
}

/// What was acknowledged to its publisher is there after a SIGKILL, whatever came to the receiver.
#[tokio::test]
async fn a_sigkill_loses_nothing_that_was_acknowledged() {
    for durability in DURABLE {
        let mut broker = Mortal::start(durability, true);
        let mut client = broker.begin(Version::V5, "a").await;
        client.subscribe_to("t", 2).await;
        client.disconnect().await;
        let mut seen = 0;
        for round in 0..3 {
            let mut publisher = broker.client("publisher").await;
            for number in 0..20 {
                let text = (20 * round + number).to_string();
                publisher.publish_text("t", &text, 1 + number % 2).await;
            }
            broker.restart();
            // Half of them, completely.
            let mut client = broker.back(Version::V5, "a").await;
            for _ in 0..10 {
                let publish = client.receive().await;
                assert_eq!(publish.text(), seen.to_string());
                seen += 1;
            }
            settle(&mut client).await;
            client.disconnect().await;
            broker.restart();
        }
        let mut client = broker.back(Version::V5, "a").await;
        for number in seen..60 {
            let publish = client.receive().await;
            assert_eq!(publish.text(), number.to_string());
        }
        expect_empty_queue(&mut client).await;
    }
}

// Subscriptions.

/// Subscriptions are there with their options, those that were ended are not, and a session that
/// ended with its connection is gone.
#[tokio::test]
async fn subscriptions_survive_with_their_options() {
    let mut broker = durable("fsync").await;
    let mut client = begin(&broker, Connect::v5("a")).await;
    for subscription in [
        Subscription::new("plain", 2),
        Subscription::new("at-most/1", 1),
        Subscription::new("local", 1).no_local(),
        Subscription::new("as-published", 1).retain_as_published(),
        Subscription::new("new/#", 1).retain_handling(1),
        Subscription::new("gone", 1),
        Subscription::new("changed", 0),
        Subscription::new("changed", 2),
    ] {
        client.subscribe_with(subscription).await;
    }
    assert_eq!(client.unsubscribe(&["gone"]).await, [Reason::SUCCESS]);
    let mut old = broker.connect(Connect::v311("three").persistent()).await;
    old.subscribe_to("three/+", 1).await;
    let mut passing = broker.connect(Connect::v5("passing")).await;
    passing.subscribe_to("plain", 1).await;
    broker.restart().await;

    let mut client = back(&broker, Connect::v5("a")).await;
    let mut old = back(&broker, Connect::v311("three")).await;
    let passing = broker.connect(Connect::v5("passing").resume()).await;
    assert!(!passing.connack.session_present);
    let mut publisher = broker.client("publisher").await;
    for (topic, qos) in [
        ("plain", 2),
        ("at-most/1", 1),
        ("local", 1),
        ("as-published", 1),
        ("new/x", 1),
        ("changed", 2),
    ] {
        publisher
            .publish(Publish::new(topic, "x").qos(2).retain())
            .await;
        let publish = client.receive_exactly(topic, "x").await;
        assert_eq!(
            (publish.qos, publish.retain),
            (qos, topic == "as-published")
        );
    }
    publisher.publish_text("gone", "x", 1).await;
    publisher.publish_text("three/x", "x", 2).await;
    assert_eq!(old.receive_exactly("three/x", "x").await.qos, 1);
    // Its own messages are withheld still, and its subscription is not a new one.
    client.publish_text("local", "own", 1).await;
    client
        .subscribe_with(Subscription::new("new/#", 1).retain_handling(1))
        .await;
    client.expect_nothing().await;
    old.expect_nothing().await;
    assert_eq!(
        client.unsubscribe(&["plain", "gone"]).await,
        [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED]
    );
}

/// SUBACK and UNSUBACK are promises: what they say is so after a SIGKILL behind them.
#[tokio::test]
async fn suback_and_unsuback_hold_after_a_sigkill() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = broker.begin(version, &id).await;
            client.subscribe_to("ends", 1).await;
            client.subscribe_to("stays", 1).await;
            client.unsubscribe(&["ends"]).await;
            client.subscribe_to("last", 1).await;
            broker.restart();
            let mut client = broker.back(version, &id).await;
            for topic in ["ends", "stays", "last"] {
                client.publish_text(topic, "x", 1).await;
            }
            for topic in ["stays", "last"] {
                client.receive_exactly(topic, "x").await;
            }
            client.expect_nothing().await;
            client.unsubscribe(&["stays", "last"]).await;
        }
    }
}

/// A session that was thrown away with a clean start does not come back.
#[tokio::test]
async fn what_a_clean_start_threw_away_is_gone() {
    for mut broker in Mortal::every() {
        for version in VERSIONS {
            let id = format!("{version:?}");
            let mut client = broker.begin(version, &id).await;
            client.subscribe_to("t", 1).await;
            client.disconnect().await;
            let mut publisher = broker.client("publisher").await;
            publisher.publish_text("t", "gone", 1).await;
            let client = broker.broker.connect(Connect::new(version, &id)).await;
            client.disconnect().await;
            broker.restart();
            let mut client = broker.begin(version, &id).await;
            client.expect_nothing().await;
        }
    }
}

// Shared Subscriptions.

/// The members of a group are its members still, and take turns.
#[tokio::test]
async fn members_of_a_group_take_turns_after_a_restart() {
    let mut broker = durable("fsync").await;
    for connect in [Connect::v5("a"), Connect::v5("b"), Connect::v311("c")] {
        absent(&broker, connect, "$share/g/t/#", 1).await;
    }
    broker.restart().await;
    let mut publisher = broker.client("publisher").await;
    publish_all(
        &mut publisher,
        numbers(0..30).map(|text| Publish::new("t/x", text).qos(1)),
    )
    .await;
    broker.restart().await;
    let mut all = BTreeSet::new();
    for connect in [Connect::v5("a"), Connect::v5("b"), Connect::v311("c")] {
        let mut client = back(&broker, connect).await;
        for _ in 0..10 {
            let publish = client.receive().await;
            assert!(all.insert(publish.text().to_owned()), "{publish:?} twice");
        }
        client.expect_nothing().await;
    }
}

/// What a session had from Shared Subscriptions before the restart goes to another member of the
/// same group when it ends. [MQTT-4.8.2-5]
#[tokio::test]
async fn messages_of_a_group_are_passed_on_after_a_restart() {
    let mut broker = durable("fsync").await;
    let mut client = begin(&broker, Connect::v5("a")).await;
    for filter in ["$share/g/jobs/+", "$share/h/work/#", "own"] {
        client.subscribe_to(filter, 2).await;
    }
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..4 {
        let qos = 1 + number % 2;
        for topic in ["jobs/x", "work/x/y", "own"] {
            publisher
                .publish_text(topic, &number.to_string(), qos)
                .await;
        }
    }
    let mut jobs = begin(&broker, Connect::v5("jobs")).await;
    jobs.subscribe_to("$share/g/jobs/+", 2).await;
    let mut work = begin(&broker, Connect::v311("work")).await;
    work.subscribe_to("$share/h/work/#", 1).await;
    broker.restart().await;
    let mut jobs = back(&broker, Connect::v5("jobs")).await;
    let work = back(&broker, Connect::v311("work")).await;
    work.disconnect().await;
    broker.client("a").await.disconnect().await;
    for number in 0..4 {
        let publish = jobs.receive_exactly("jobs/x", &number.to_string()).await;
        assert_eq!((publish.qos, publish.dup), (1 + number % 2, false));
    }
    jobs.expect_nothing().await;
    // And stays there, over another restart.
    broker.restart().await;
    let mut work = back(&broker, Connect::v311("work")).await;
    for number in 0..4 {
        let publish = work.receive_exactly("work/x/y", &number.to_string()).await;
        assert_eq!(publish.qos, 1);
    }
    work.expect_nothing().await;
    let mut jobs = back(&broker, Connect::v5("jobs")).await;
    jobs.expect_nothing().await;
}

// Retained Messages.

/// Retained Messages are what they were: the last of each topic, with its QoS and properties.
#[tokio::test]
async fn retained_messages_survive() {
    for durability in DURABLE {
        let mut broker = durable(durability).await;
        for version in VERSIONS {
            let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
            for qos in 0..=2 {
                for (topic, texts) in [
                    ("set", &["set"][..]),
                    ("replaced", &["old", "new"]),
                    ("cleared", &["old", ""]),
                    ("again", &["old", "", "new"]),
                ] {
                    let topic = format!("{version:?}/{topic}/{qos}");
                    for text in texts {
                        let publish = Publish::new(&topic, text).qos(qos).retain();
                        publisher.publish(publish).await;
                    }
                }
            }
            publisher.disconnect().await;
        }
        broker.restart().await;
        for version in VERSIONS {
            let mut client = broker.connect(Connect::new(version, "reader")).await;
            client.subscribe_to("#", 2).await;
            let mut found = BTreeSet::new();
            for _ in 0..18 {
                let publish = client.receive().await;
                assert!(publish.retain && !publish.dup);
                let text = publish.text().to_owned();
                found.insert((publish.topic, text, publish.qos));
            }
            client.expect_nothing().await;
            let mut expected = BTreeSet::new();
            for from in VERSIONS {
                for qos in 0..=2 {
                    for (topic, text) in [("set", "set"), ("replaced", "new"), ("again", "new")] {
                        let topic = format!("{from:?}/{topic}/{qos}");
                        expected.insert((topic, text.to_owned(), qos));
                    }
                }
            }
            assert_eq!(found, expected);
        }
    }
}

/// A retained message keeps its properties, and its expiry goes on while the broker is down.
#[tokio::test]
async fn retained_messages_keep_properties_and_expire() {
    let mut broker = durable("fsync").await;
    let mut publisher = broker.client("publisher").await;
    for (topic, seconds) in [("short", 1), ("long", 1000)] {
        let publish = Publish::new(topic, "x")
            .qos(1)
            .retain()
            .property(Property::ContentType("text/plain".to_owned()))
            .property(Property::user("k", "v"))
            .property(Property::MessageExpiryInterval(seconds));
        publisher.publish(publish).await;
    }
    broker.stop().await;
    elapse(3).await;
    broker.start_again().await;
    let mut client = broker.client("reader").await;
    client.subscribe_to("#", 1).await;
    let long = client.receive_exactly("long", "x").await;
    assert_eq!(user_properties(&long.properties), [("k", "v")]);
    assert_eq!(
        property!(long.properties, ContentType),
        Some("text/plain".to_owned())
    );
    let left = property!(long.properties, MessageExpiryInterval);
    assert!(left.is_some_and(|left| left <= 997), "{left:?} left");
    client.expect_nothing().await;
    // It is gone for good: nothing of it is there at the next start either.
    broker.restart().await;
    let mut client = broker.client("reader").await;
    client.subscribe_to("short", 1).await;
    client.expect_nothing().await;
}

/// However many there are, a new subscription receives all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_retained_messages_are_all_replayed() {
    const COUNT: usize = 5000;
    let mut broker = durable("interval").await;
    let mut publisher = broker.client("publisher").await;
    publish_all(
        &mut publisher,
        numbers(0..COUNT).map(|text| Publish::new(&format!("t/{text}"), text).qos(1).retain()),
    )
    .await;
    broker.restart().await;
    for version in VERSIONS {
        let mut client = broker.connect(Connect::new(version, "reader")).await;
        client.subscribe_to("#", 1).await;
        let mut found = BTreeSet::new();
        for _ in 0..COUNT {
            let publish = client.receive().await;
            assert_eq!(publish.topic, format!("t/{}", publish.text()));
            assert!(found.insert(publish.topic));
        }
        client.expect_nothing().await;
    }
}

/// A subscription that has not received all Retained Messages when the broker ends receives the
/// others afterwards.
#[tokio::test]
async fn a_replay_goes_on_after_a_restart() {
    for mut broker in Mortal::every() {
        let mut publisher = broker.client("publisher").await;
        for number in 0..50 {
            let topic = format!("t/{number}");
            let publish = Publish::new(&topic, "x").qos(1 + number % 2).retain();
            publisher.publish(publish).await;
        }
        let connect = || {
            let connect = Connect::v5("a").persistent();
            connect.property(Property::ReceiveMaximum(2))
        };
        let mut client = broker.broker.connect(connect()).await;
        client.subscribe_to("t/#", 2).await;
        let mut found = BTreeSet::new();
        for _ in 0..10 {
            found.insert(client.receive().await.topic);
        }
        settle(&mut client).await;
        broker.restart();
        let mut client = broker.broker.connect(connect()).await;
        assert!(client.connack.session_present);
        while found.len() < 50 {
            let publish = client.receive().await;
            assert!(publish.retain);
            found.insert(publish.topic);
        }
        // It is over now, and does not begin anew.
        drain(&mut client).await;
        settle(&mut client).await;
        client.disconnect().await;
        broker.restart();
        let mut client = broker.broker.connect(connect()).await;
        client.expect_nothing().await;
    }
}

/// Receives what still comes, until nothing does.
async fn drain(client: &mut Client) {
    loop {
        client.send(Packet::PingReq).await;
        let mut quiet = true;
        loop {
            match client.next().await {
                Packet::PingResp => break,
                Packet::Publish(publish) => {
                    quiet = false;
                    client.acknowledge(&publish).await;
                }
                other => client.fail(&format!("{other:?}")),
            }
        }
        if quiet {
            return;
        }
    }
}

// The end of sessions, and wills.

/// The Session Expiry Interval runs while the broker is down: what has ended by then is gone, and
/// its delayed will is published; what has not is there.
#[tokio::test]
async fn sessions_expire_while_the_broker_is_down() {
    let mut broker = durable("fsync").await;
    absent(&broker, Connect::v5("witness"), "will/#", 1).await;
    for (id, seconds) in [("short", 1), ("long", 1000), ("never", u32::MAX)] {
        let will = Will::new(&format!("will/{id}"), "over").qos(1).delay(900);
        let connect = Connect::v5(id).session_expiry(seconds).will(will);
        let mut client = broker.connect(connect).await;
        client.subscribe_to("t", 1).await;
        client.lose().await;
    }
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "x", 1).await;
    broker.stop().await;
    elapse(3).await;
    broker.start_again().await;
    for (id, present) in [("short", false), ("long", true), ("never", true)] {
        let connect = Connect::v5(id).resume().session_expiry(1000);
        let mut client = broker.connect(connect).await;
        assert_eq!(client.connack.session_present, present, "{id}");
        if present {
            client.receive_exactly("t", "x").await;
        }
        client.expect_nothing().await;
    }
    let mut witness = back(&broker, Connect::v5("witness")).await;
    witness.receive_exactly("will/short", "over").await;
    witness.expect_nothing().await;
}

/// A session whose expiry has begun goes on with what is left of it, not with all of it anew.
#[tokio::test]
async fn a_restart_does_not_prolong_a_session() {
    let mut broker = durable("fsync").await;
    let will = Will::new("will", "over").qos(1).delay(900);
    let connect = Connect::v5("a").session_expiry(4).will(will);
    broker.connect(connect).await.lose().await;
    absent(&broker, Connect::v5("witness"), "will", 1).await;
    for _ in 0..2 {
        elapse(1).await;
        broker.restart().await;
    }
    let start = std::time::Instant::now();
    let mut witness = back(&broker, Connect::v5("witness")).await;
    witness.receive_exactly("will", "over").await;
    let waited = start.elapsed();
    assert!(waited.as_secs_f64() < 3.5, "it ended {waited:?} later");
}

/// A SIGKILL ends connections without DISCONNECT: their wills are published at the next start,
/// whether their sessions outlive them or not. [MQTT-3.1.2-8]
#[tokio::test]
async fn wills_are_published_after_a_sigkill() {
    for durability in DURABLE {
        let mut broker = Mortal::start(durability, true);
        let mut witness = broker.begin(Version::V5, "witness").await;
        witness.subscribe_to("will/#", 2).await;
        let mut expected = BTreeSet::new();
        let mut connections = Vec::new();
        for version in VERSIONS {
            for persistent in [false, true] {
                for qos in 0..=2 {
                    let id = format!("{version:?} {persistent} {qos}");
                    let mut will = Will::new(&format!("will/{id}"), &id).qos(qos);
                    if qos == 1 {
                        will = will.retain();
                    }
                    if version == Version::V5 {
                        will = will.property(Property::user("of", &id));
                    }
                    let mut connect = Connect::new(version, &id).will(will);
                    if persistent {
                        connect = connect.persistent();
                    }
                    connections.push(broker.broker.connect(connect).await);
                    if qos > 0 {
                        expected.insert((id, qos));
                    }
                }
            }
        }
        // One that said goodbye has none, and neither has one that was put off for long.
        let will = Will::new("will/goodbye", "never").qos(1);
        let connect = Connect::v5("goodbye").persistent().will(will);
        broker.broker.connect(connect).await.disconnect().await;
        let will = Will::new("will/delayed", "later").qos(1).delay(1000);
        let connect = Connect::v5("delayed").persistent().will(will);
        connections.push(broker.broker.connect(connect).await);
        settle(&mut witness).await;
        witness.disconnect().await;
        broker.restart();
        let mut witness = broker.back(Version::V5, "witness").await;
        let count = expected.len();
        for _ in 0..count {
            let publish = witness.receive().await;
            assert!(!publish.retain);
            let wanted = (publish.text().to_owned(), publish.qos);
            assert!(expected.remove(&wanted), "{publish:?}");
            if publish.text().starts_with("V5") {
                assert_eq!(
                    user_properties(&publish.properties),
                    [("of", publish.text())]
                );
            }
        }
        witness.expect_nothing().await;
        // Once, and not at each start.
        settle(&mut witness).await;
        witness.disconnect().await;
        broker.restart();
        let mut witness = broker.back(Version::V5, "witness").await;
        expect_empty_queue(&mut witness).await;
        let mut reader = broker.client("reader").await;
        reader.subscribe_to("will/#", 1).await;
        for _ in 0..4 {
            assert!(reader.receive().await.retain);
        }
        reader.expect_nothing().await;
    }
}

/// An orderly stop publishes the wills of those who were connected, as any lost connection does,
/// and those who are away receive them.
#[tokio::test]
async fn wills_of_an_orderly_stop_are_kept() {
    let mut broker = durable("fsync").await;
    absent(&broker, Connect::v5("witness"), "will", 1).await;
    for (id, connect) in [
        ("clean", Connect::v5("clean")),
        ("kept", Connect::v311("kept").persistent()),
    ] {
        let will = Will::new("will", id).qos(1);
        let client = broker.connect(connect.will(will)).await;
        broker.restart().await;
        drop(client);
        let mut witness = back(&broker, Connect::v5("witness")).await;
        witness.receive_exactly("will", id).await;
        witness.expect_nothing().await;
        witness.disconnect().await;
    }
}

/// A delayed will waits for the rest of its delay over a restart, no longer, and not shorter.
#[tokio::test]
async fn a_delayed_will_waits_for_its_delay() {
    for kill in [false, true] {
        let mut broker = Mortal::start("fsync", kill);
        let mut witness = broker.begin(Version::V5, "witness").await;
        witness.subscribe_to("will/#", 1).await;
        let mut connections = Vec::new();
        for id in ["late", "cancelled"] {
            let will = Will::new(&format!("will/{id}"), "over").qos(1).delay(3);
            let connect = Connect::v5(id).persistent().will(will);
            connections.push(broker.broker.connect(connect).await);
        }
        if !broker.kill {
            // Their connections end before the broker does.
            for client in connections.drain(..) {
                client.lose().await;
            }
        }
        witness.disconnect().await;
        broker.stop();
        let start = std::time::Instant::now();
        broker.broker.start_again();
        // Who comes back in time cancels it.
        let client = broker.back(Version::V5, "cancelled").await;
        let mut witness = broker.back(Version::V5, "witness").await;
        let early = start.elapsed().as_secs_f64();
        if early < 1.5 {
            witness.expect_nothing().await;
        }
        witness.receive_exactly("will/late", "over").await;
        let waited = start.elapsed().as_secs_f64();
        if broker.kill {
            // It begins with the end of the connection, which is the end of the broker.
            assert!(waited > 2.0, "too early: {waited} s");
        }
        elapse(3).await;
        witness.expect_nothing().await;
        client.disconnect().await;
    }
}

/// A delayed will that became due while the broker was down is published at once.
#[tokio::test]
async fn a_delayed_will_becomes_due_while_the_broker_is_down() {
    let mut broker = durable("interval").await;
    absent(&broker, Connect::v311("witness"), "will", 1).await;
    let will = Will::new("will", "over").qos(1).delay(1);
    let connect = Connect::v5("a").persistent().will(will);
    broker.connect(connect).await.lose().await;
    broker.stop().await;
    elapse(2).await;
    broker.start_again().await;
    // Before anybody can connect.
    let client = back(&broker, Connect::v5("a")).await;
    let mut witness = back(&broker, Connect::v311("witness")).await;
    witness.receive_exactly("will", "over").await;
    witness.expect_nothing().await;
    client.disconnect().await;
}

/// The will of a connection that took a session over is its own, and the one before it has none.
#[tokio::test]
async fn a_will_that_was_published_or_replaced_is_not_published_again() {
    let mut broker = Mortal::start("fsync", true);
    let mut witness = broker.begin(Version::V5, "witness").await;
    witness.subscribe_to("will", 1).await;
    let connect = |text: &str| {
        let will = Will::new("will", text).qos(1);
        Connect::v5("a").persistent().will(will)
    };
    let first = broker.broker.connect(connect("first")).await;
    let second = broker.broker.connect(connect("second")).await;
    witness.receive_exactly("will", "first").await;
    second.lose().await;
    witness.receive_exactly("will", "second").await;
    let _third = broker.broker.connect(connect("third")).await;
    settle(&mut witness).await;
    broker.restart();
    let mut witness = broker.back(Version::V5, "witness").await;
    witness.receive_exactly("will", "third").await;
    witness.expect_nothing().await;
    drop(first);
}

// Rights.

fn with_users(users: &[(&str, &str)], rules: &[(&str, &str)]) -> (TempDir, String) {
    let directory = scratch();
    write_users(directory.path(), users);
    (directory, rights(rules))
}

fn write_users(directory: &std::path::Path, users: &[(&str, &str)]) {
    let lines: String = users
        .iter()
        .map(|(name, password)| user(name, password))
        .collect();
    std::fs::write(directory.join("users"), lines).expect("the password file is written");
}

/// Users and the topics that each of them may do everything with.
fn rights(rules: &[(&str, &str)]) -> String {
    let rules: String = rules
        .iter()
        .map(|(user, topics)| {
            format!(
                "[[access.rule]]\nuser = '{user}'\n\
                 allow = ['publish', 'subscribe', 'receive']\ntopics = [{topics}]\n"
            )
        })
        .collect();
    format!("access.password_file = '{{dir}}/users'\n{rules}")
}

fn alice(id: &str) -> Connect {
    Connect::v5(id).username("alice").password("wonderland")
}

fn bob(id: &str) -> Connect {
    Connect::v5(id).username("bob").password("builder")
}

const BOTH: [(&str, &str); 2] = [("alice", "wonderland"), ("bob", "builder")];

/// Rights count as they are at the start: a subscription that is not allowed any more is gone, and
/// queued messages that may not be received are not delivered.
#[tokio::test]
async fn rights_that_were_withdrawn_count_after_a_restart() {
    let (directory, settings) = with_users(&BOTH, &[("*", "'#'")]);
    let mut broker = Broker::within(directory, &settings).await;
    let mut client = begin(&broker, alice("a")).await;
    for filter in ["public/#", "secret/#", "#"] {
        client.subscribe_to(filter, 1).await;
    }
    client.disconnect().await;
    let mut publisher = broker.connect(bob("publisher")).await;
    for (topic, text) in [("public/x", "1"), ("secret/x", "2"), ("public/y", "3")] {
        publisher.publish_text(topic, text, 1).await;
    }
    broker.stop().await;
    let fewer = rights(&[("alice", "'public/#'"), ("bob", "'#'")]);
    broker.start_again_with(&fewer).await;
    let mut publisher = broker.connect(bob("publisher")).await;
    publisher.publish_text("secret/x", "4", 1).await;
    publisher.publish_text("public/x", "5", 1).await;
    let mut client = back(&broker, alice("a")).await;
    for (topic, text) in [("public/x", "1"), ("public/y", "3"), ("public/x", "5")] {
        client.receive_exactly(topic, text).await;
    }
    expect_empty_queue_under(&mut client, "public").await;
    client.disconnect().await;
    // What was taken away stays away, also when the right is given back.
    broker.stop().await;
    broker.start_again_with(&settings).await;
    let mut publisher = broker.connect(bob("publisher")).await;
    publisher.publish_text("secret/x", "6", 1).await;
    publisher.publish_text("public/x", "7", 1).await;
    let mut client = back(&broker, alice("a")).await;
    client.receive_exactly("public/x", "7").await;
    assert_eq!(
        client.unsubscribe(&["secret/#", "#", "public/#"]).await,
        [
            Reason::NO_SUBSCRIPTION_EXISTED,
            Reason::NO_SUBSCRIPTION_EXISTED,
            Reason::SUCCESS
        ]
    );
    client.expect_nothing().await;
}

/// The sessions of a user who is not there any more are ended: what they had from Shared
/// Subscriptions goes to other members, and their wills are not published.
#[tokio::test]
async fn sessions_of_users_who_are_gone_are_ended() {
    let (directory, settings) = with_users(&BOTH, &[("*", "'#'")]);
    let mut broker = Broker::within(directory, &settings).await;
    let will = Will::new("will", "gone").qos(1).delay(1000);
    let mut gone = begin(&broker, alice("a").will(will)).await;
    gone.subscribe_to("$share/g/jobs/#", 1).await;
    gone.subscribe_to("own", 1).await;
    gone.lose().await;
    let mut publisher = broker.connect(bob("publisher")).await;
    for number in 0..3 {
        publisher
            .publish_text("jobs/x", &number.to_string(), 1)
            .await;
    }
    publisher.publish_text("own", "x", 1).await;
    let mut heir = begin(&broker, bob("b")).await;
    heir.subscribe_to("$share/g/jobs/#", 1).await;
    heir.subscribe_to("will", 1).await;
    heir.disconnect().await;
    broker.stop().await;
    write_users(broker.directory(), &BOTH[1..]);
    broker.start_again().await;
    let mut heir = back(&broker, bob("b")).await;
    for number in 0..3 {
        heir.receive_exactly("jobs/x", &number.to_string()).await;
    }
    expect_empty_queue(&mut heir).await;
    heir.disconnect().await;
    broker.stop().await;
    write_users(broker.directory(), &BOTH);
    broker.start_again().await;
    let mut client = begin(&broker, alice("a")).await;
    client.expect_nothing().await;
    let mut heir = back(&broker, bob("b")).await;
    expect_empty_queue(&mut heir).await;
}

/// A session stays its user's: nobody else gets it after a restart either.
#[tokio::test]
async fn a_session_belongs_to_its_user_after_a_restart() {
    let (directory, settings) = with_users(&BOTH, &[("*", "'#'")]);
    let mut broker = Broker::within(directory, &settings).await;
    begin(&broker, alice("a")).await.disconnect().await;
    broker.restart().await;
    let (mut other, connack) = Client::attempt(broker.address, bob("a").persistent()).await;
    assert!(connack.reason.is_error(), "{connack:?}");
    other.expect_closed().await;
    back(&broker, alice("a")).await.disconnect().await;
}

// Stores that forget.

/// With `durability = "memory"` a restart forgets everything, and the disk is left alone.
#[tokio::test]
async fn memory_forgets() {
    let mut broker = Broker::with("store.durability = 'memory'").await;
    absent(&broker, Connect::v5("a"), "t", 1).await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .publish(Publish::new("t", "x").qos(1).retain())
        .await;
    broker.restart().await;
    let mut client = begin(&broker, Connect::v5("a")).await;
    client.subscribe_to("#", 1).await;
    client.expect_nothing().await;
    broker.stop().await;
    let files = std::fs::read_dir(broker.directory()).expect("it is there");
    assert_eq!(files.count(), 0, "nothing is written");
}
