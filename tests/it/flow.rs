//! What the two sides allow each other: Receive Maximum, Maximum Packet Size and Topic Alias
//! Maximum, each both ways.

use std::collections::{HashMap, VecDeque};

use crate::harness::*;

/// Takes `count` numbered messages through a window of `window`, and checks that there is never one
/// more.
async fn receive_through_window(subscriber: &mut Client, window: usize, count: usize, dup: bool) {
    let mut held = VecDeque::new();
    let mut next = 0;
    while next < count || !held.is_empty() {
        while held.len() < window && next < count {
            let publish = subscriber.expect_publish().await;
            assert_eq!(
                (publish.text(), publish.dup),
                (next.to_string().as_str(), dup)
            );
            held.push_back(publish);
            next += 1;
        }
        subscriber.expect_nothing().await;
        let oldest = held.pop_front().expect("filled above");
        subscriber.acknowledge(&oldest).await;
    }
    subscriber.expect_nothing().await;
}

/// Never more than Receive Maximum unacknowledged messages, of both QoS. [MQTT-3.3.4-9]
/// [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[tokio::test]
async fn the_clients_receive_maximum_is_respected() {
    let broker = Broker::start().await;
    for window in [1, 2, 5] {
        let connect = Connect::v5("subscriber").property(Property::ReceiveMaximum(window));
        let mut subscriber = broker.connect(connect).await;
        subscriber.subscribe_to("t", 2).await;
        let mut publisher = broker.client("publisher").await;
        for number in 0..12 {
            publisher
                .publish_text("t", &number.to_string(), 1 + number % 2)
                .await;
        }
        receive_through_window(&mut subscriber, usize::from(window), 12, false).await;
    }
}

/// The window of the new connection holds for what is sent again, even if the one before was wider.
#[tokio::test]
async fn redelivery_respects_a_smaller_receive_maximum() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..8 {
        publisher
            .publish_text("t", &number.to_string(), 1 + number % 2)
            .await;
        client.expect_publish().await;
    }
    client.lose().await;
    let narrow = Connect::v5("a")
        .persistent()
        .property(Property::ReceiveMaximum(2));
    let mut client = broker.connect(narrow).await;
    receive_through_window(&mut client, 2, 8, true).await;
}

/// A QoS 2 message holds its place until PUBCOMP, not only until PUBREC.
#[tokio::test]
async fn qos_2_holds_its_place_until_pubcomp() {
    let broker = Broker::start().await;
    let mut subscriber = broker
        .connect(Connect::v5("subscriber").property(Property::ReceiveMaximum(1)))
        .await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "1", 2).await;
    publisher.publish_text("t", "2", 2).await;
    let first = subscriber.expect_publish().await;
    subscriber.expect_nothing().await;
    subscriber
        .send(Packet::PubRec(Ack::new(first.packet_id)))
        .await;
    subscriber.expect_pubrel(first.packet_id).await;
    subscriber.expect_nothing().await;
    subscriber
        .send(Packet::PubComp(Ack::new(first.packet_id)))
        .await;
    subscriber.receive_exactly("t", "2").await;
}

/// A refusal by PUBREC gives the place back at once. [MQTT-3.3.4-9]
#[tokio::test]
async fn a_refusing_pubrec_frees_its_place() {
    let broker = Broker::start().await;
    let mut subscriber = broker
        .connect(Connect::v5("subscriber").property(Property::ReceiveMaximum(1)))
        .await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    for payload in ["1", "2", "3"] {
        publisher.publish_text("t", payload, 2).await;
    }
    for payload in ["1", "2", "3"] {
        let publish = subscriber.expect_publish().await;
        assert_eq!(publish.text(), payload);
        subscriber.expect_nothing().await;
        subscriber
            .send(Packet::PubRec(
                Ack::new(publish.packet_id).reason(Reason::QUOTA_EXCEEDED),
            ))
            .await;
    }
    subscriber.expect_nothing().await;
}

/// With the window full everything else goes on: pings, subscriptions, acknowledgements, QoS 0.
/// [MQTT-3.3.4-10] [MQTT-4.9.0-3]
#[tokio::test]
async fn a_full_window_delays_nothing_else() {
    let broker = Broker::start().await;
    let mut subscriber = broker
        .connect(Connect::v5("subscriber").property(Property::ReceiveMaximum(1)))
        .await;
    subscriber.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "1", 1).await;
    publisher.publish_text("t", "2", 1).await;
    let first = subscriber.expect_publish().await;
    subscriber.subscribe_to("u", 0).await;
    subscriber.publish_text("u", "to itself", 2).await;
    subscriber.receive_exactly("u", "to itself").await;
    assert_eq!(subscriber.unsubscribe(&["u"]).await, [Reason::SUCCESS]);
    subscriber.expect_nothing().await;
    subscriber.acknowledge(&first).await;
    subscriber.receive_exactly("t", "2").await;
}

/// A client that names no maximum gets the configured window, in every version.
#[tokio::test]
async fn clients_without_receive_maximum_get_the_configured_window() {
    let broker = Broker::with("mqtt.inflight_max = 3").await;
    for version in Version::ALL {
        let mut subscriber = broker.connect(Connect::new(version, "subscriber")).await;
        subscriber.subscribe_to("t", 1).await;
        let mut publisher = broker.client("publisher").await;
        for number in 0..7 {
            publisher.publish_text("t", &number.to_string(), 1).await;
        }
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(subscriber.expect_publish().await);
        }
        subscriber.expect_nothing().await;
        for publish in held {
            subscriber.acknowledge(&publish).await;
        }
        for number in 3..7 {
            subscriber.receive_exactly("t", &number.to_string()).await;
        }
        subscriber.expect_nothing().await;
    }
}

/// A window of one still passes hundreds of messages, in order.
#[tokio::test]
async fn a_window_of_one_passes_everything_in_order() {
    let broker = Broker::start().await;
    for qos in 1..=2 {
        let mut subscriber = broker
            .connect(Connect::v5("subscriber").property(Property::ReceiveMaximum(1)))
            .await;
        subscriber.subscribe_to("t", qos).await;
        let mut publisher = broker.client("publisher").await;
        for number in 0..200 {
            publisher.publish_text("t", &number.to_string(), qos).await;
        }
        for number in 0..200 {
            subscriber.receive_exactly("t", &number.to_string()).await;
        }
    }
}

/// The broker's own Receive Maximum is told and enforced: 0x93. What was within it has been
/// handled. [MQTT-3.3.4-7]
#[tokio::test]
async fn the_brokers_receive_maximum_is_enforced() {
    let broker = Broker::with("mqtt.receive_maximum = 2").await;
    let mut client = broker.client("a").await;
    assert_eq!(
        property!(client.connack.properties, ReceiveMaximum),
        Some(2)
    );
    for id in 1..=2 {
        client.send(Publish::new("t", "x").qos(2).id(id)).await;
        client.expect_pubrec(id).await;
    }
    // A copy of one in flight is no further message.
    client.send(Publish::new("t", "x").qos(2).id(2).dup()).await;
    client.expect_pubrec(2).await;
    // A QoS 0 message does not count, and a released one no longer.
    client.publish_text("t", "x", 0).await;
    client.send(Packet::PubRel(Ack::new(1))).await;
    client.expect_pubcomp(1).await;
    client.send(Publish::new("t", "x").qos(2).id(3)).await;
    client.expect_pubrec(3).await;
    client
        .send(Publish::new("t", "one too many").qos(2).id(4))
        .await;
    client
        .expect_disconnect(Reason::RECEIVE_MAXIMUM_EXCEEDED)
        .await;
}

/// QoS 1 messages that are acknowledged at once never fill the broker's window.
#[tokio::test]
async fn acknowledged_messages_do_not_fill_the_brokers_window() {
    let broker = Broker::with("mqtt.receive_maximum = 2").await;
    let mut client = broker.client("a").await;
    for number in 0..50 {
        client
            .publish_text("t", &number.to_string(), 1 + number % 2)
            .await;
    }
}

/// A version 3 client has no such maximum to respect, but its unreleased QoS 2 messages are bounded
/// all the same.
#[tokio::test]
async fn v3_unreleased_qos_2_messages_are_bounded() {
    let broker = Broker::with("mqtt.receive_maximum = 8").await;
    let mut client = broker.connect(Connect::v311("a")).await;
    client
        .send_all((1..=2000).map(|id| Publish::new("t", "x").qos(2).id(id).into()))
        .await;
    client.wait_until_closed().await;
    let mut client = broker.connect(Connect::v311("a")).await;
    client.publish_text("t", "still there", 2).await;
}

/// Nothing longer than its Maximum Packet Size is sent to a client; it counts as delivered.
/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[tokio::test]
async fn the_clients_maximum_packet_size_is_respected() {
    let broker = Broker::start().await;
    let connect = Connect::v5("a")
        .persistent()
        .property(Property::MaximumPacketSize(100))
        .property(Property::ReceiveMaximum(1));
    let mut subscriber = broker.connect(connect.clone()).await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    // Fixed header 2, topic 3, properties 1, and from QoS 1 on an identifier of 2.
    for qos in 0..=2 {
        let overhead = if qos > 0 { 8 } else { 6 };
        let fits = "f".repeat(100 - overhead);
        let too_long = "l".repeat(101 - overhead);
        for payload in [&too_long, &fits, &too_long, &too_long] {
            publisher.publish_text("t", payload, qos).await;
        }
        subscriber.receive_exactly("t", &fits).await;
        subscriber.expect_nothing().await;
    }
    subscriber.lose().await;
    let mut subscriber = broker.connect(connect).await;
    assert!(subscriber.connack.session_present);
    subscriber.expect_nothing().await;
}

/// The same holds for what waited in the queue and for retained messages.
#[tokio::test]
async fn the_clients_maximum_packet_size_holds_for_queued_and_retained_messages() {
    let broker = Broker::start().await;
    let mut subscriber = broker.connect(Connect::v5("a").persistent()).await;
    subscriber.subscribe_to("t", 2).await;
    subscriber.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    let long = "l".repeat(200);
    publisher
        .publish(Publish::new("t", &long).qos(1).retain())
        .await;
    publisher.publish_text("t", "short", 1).await;
    publisher
        .publish(Publish::new("t/2", "short").qos(1).retain())
        .await;
    let connect = Connect::v5("a")
        .persistent()
        .property(Property::MaximumPacketSize(100))
        .property(Property::ReceiveMaximum(1));
    let mut subscriber = broker.connect(connect).await;
    subscriber.receive_exactly("t", "short").await;
    subscriber.expect_nothing().await;
    subscriber.subscribe_to("#", 1).await;
    subscriber.receive_exactly("t/2", "short").await;
    subscriber.expect_nothing().await;
}

/// The broker's own maximum is told; what exceeds it gets 0x95, in version 3 a close.
/// [MQTT-3.2.2-15]
#[tokio::test]
async fn the_brokers_maximum_packet_size_is_enforced() {
    let broker = Broker::with("mqtt.max_packet_size = 1024").await;
    let mut witness = broker.client("witness").await;
    assert_eq!(
        property!(witness.connack.properties, MaximumPacketSize),
        Some(1024)
    );
    witness.subscribe_to("#", 0).await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        let overhead = if version == Version::V5 { 9 } else { 8 };
        client
            .send(Publish::new("t", vec![b'x'; 1024 - overhead]).qos(1).id(1))
            .await;
        client.expect_puback(1).await;
        assert_eq!(witness.receive().await.payload.len(), 1024 - overhead);
        client
            .send(Publish::new("t", vec![b'x'; 1025 - overhead]).qos(1).id(2))
            .await;
        client.expect_refused(Reason::PACKET_TOO_LARGE).await;
    }
    witness.expect_nothing().await;
}

/// The refusal needs no more than the header: nobody has to send 200 MiB to be told that it is too
/// much.
#[tokio::test]
async fn a_declared_length_alone_is_refused() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.send_bytes(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
        client.expect_refused(Reason::PACKET_TOO_LARGE).await;
    }
}

/// Before authentication a smaller limit holds.
#[tokio::test]
async fn a_connect_packet_has_its_own_limit() {
    let broker = Broker::with("mqtt.connect_packet_size_max = 1024").await;
    for version in Version::ALL {
        let mut client = broker.open(version).await;
        client
            .send_bytes(&Connect::new(version, &"i".repeat(1024)).bytes())
            .await;
        let answer = client.bytes_until_closed().await;
        assert!(
            matches!(answer[..], [] | [0x20, _, 0, 0x95, ..]),
            "{answer:02x?}"
        );
        // Within the limit it is welcome, and larger packets are allowed afterwards.
        let mut client = broker
            .connect(Connect::new(version, &"i".repeat(900)))
            .await;
        client.publish_text("t", &"x".repeat(5000), 1).await;
    }
}

/// Only the header of a huge CONNECT is enough to be refused.
#[tokio::test]
async fn a_declared_length_of_connect_is_refused_at_once() {
    let broker = Broker::start().await;
    let mut client = broker.open(Version::V5).await;
    client.send_bytes(&[0x10, 0xff, 0xff, 0xff, 0x7f]).await;
    let answer = client.bytes_until_closed().await;
    assert!(
        matches!(answer[..], [] | [0x20, _, 0, 0x95, ..]),
        "{answer:02x?}"
    );
}

/// A client may name a topic once and use its alias then, and give the alias another topic.
/// [MQTT-3.3.2-12]
#[tokio::test]
async fn topic_aliases_from_the_client() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("#", 2).await;
    let mut client = broker.client("a").await;
    let maximum =
        property!(client.connack.properties, TopicAliasMaximum).expect("aliases are offered");
    let alias = |topic: &str, payload: &str, alias, qos| {
        Publish::new(topic, payload)
            .qos(qos)
            .property(Property::TopicAlias(alias))
    };
    for (topic, payload, number, qos, expected) in [
        ("first", "1", 1, 0, "first"),
        ("", "2", 1, 1, "first"),
        ("second", "3", maximum, 2, "second"),
        ("", "4", maximum, 2, "second"),
        ("", "5", 1, 0, "first"),
        ("third", "6", 1, 1, "third"),
        ("", "7", 1, 2, "third"),
        ("", "8", maximum, 0, "second"),
    ] {
        client.publish(alias(topic, payload, number, qos)).await;
        let publish = subscriber.receive_exactly(expected, payload).await;
        assert_eq!(
            publish.properties,
            [],
            "the alias is the sender's own business"
        );
    }
    for number in 1..=maximum {
        client
            .publish(alias(&format!("topic {number}"), "x", number, 0))
            .await;
        subscriber
            .receive_exactly(&format!("topic {number}"), "x")
            .await;
    }
    for number in 1..=maximum {
        client.publish(alias("", "y", number, 0)).await;
        subscriber
            .receive_exactly(&format!("topic {number}"), "y")
            .await;
    }
}

/// An alias above the maximum, or 0, is refused with 0x94. [MQTT-3.3.2-8] [MQTT-3.3.2-9]
/// [MQTT-3.2.2-17]
#[tokio::test]
async fn topic_aliases_out_of_range_are_refused() {
    let broker = Broker::with("mqtt.topic_alias_maximum = 5").await;
    for alias in [0, 6, 65_535] {
        let mut client = broker.client("a").await;
        assert_eq!(
            property!(client.connack.properties, TopicAliasMaximum),
            Some(5)
        );
        client
            .send(Publish::new("t", "x").property(Property::TopicAlias(alias)))
            .await;
        client.expect_disconnect(Reason::TOPIC_ALIAS_INVALID).await;
    }
}

/// A broker may be configured to take none. [MQTT-3.2.2-18]
#[tokio::test]
async fn topic_aliases_can_be_switched_off() {
    let broker = Broker::with("mqtt.topic_alias_maximum = 0").await;
    let mut client = broker.client("a").await;
    assert!(matches!(
        property!(client.connack.properties, TopicAliasMaximum),
        None | Some(0)
    ));
    client
        .send(Publish::new("t", "x").property(Property::TopicAlias(1)))
        .await;
    client.expect_disconnect(Reason::TOPIC_ALIAS_INVALID).await;
}

/// An alias that was given no topic is a protocol error, and none is carried over from the
/// connection before. [MQTT-3.3.2-7]
#[tokio::test]
async fn topic_aliases_belong_to_the_connection() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client
        .publish(
            Publish::new("t", "x")
                .qos(1)
                .property(Property::TopicAlias(1)),
        )
        .await;
    client.lose().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    assert!(client.connack.session_present);
    client
        .send(Publish::new("", "x").property(Property::TopicAlias(1)))
        .await;
    client.expect_disconnect(Reason::PROTOCOL_ERROR).await;
}

/// What a client that understands aliases has learned from the broker.
#[derive(Default)]
struct Aliases {
    topics: HashMap<u16, String>,
    used: usize,
}

impl Aliases {
    /// The topic of a message that the broker sent, by its alias if it came without.
    fn topic(&mut self, publish: &Publish, maximum: u16) -> String {
        let alias = property!(publish.properties, TopicAlias);
        assert!(
            alias.is_none_or(|alias| (1..=maximum).contains(&alias)),
            "{publish:?}"
        );
        match (publish.topic.as_str(), alias) {
            ("", Some(alias)) => {
                self.used += 1;
                self.topics
                    .get(&alias)
                    .unwrap_or_else(|| panic!("unknown alias: {publish:?}"))
                    .clone()
            }
            ("", None) => panic!("no topic: {publish:?}"),
            (topic, alias) => {
                if let Some(alias) = alias {
                    self.topics.insert(alias, topic.to_owned());
                }
                topic.to_owned()
            }
        }
    }
}

/// The broker uses aliases towards a client that takes them, never above its maximum, and they
/// always resolve. [MQTT-3.1.2-26] [MQTT-3.3.2-11]
#[tokio::test]
async fn topic_aliases_to_the_client() {
    let broker = Broker::start().await;
    for maximum in [1, 2, 10, 65_535] {
        let mut subscriber = broker
            .connect(Connect::v5("subscriber").property(Property::TopicAliasMaximum(maximum)))
            .await;
        subscriber.subscribe_to("t/#", 2).await;
        let mut publisher = broker.client("publisher").await;
        let mut aliases = Aliases::default();
        for number in 0..60 {
            let topic = format!("t/{}", number % 5);
            publisher
                .publish_text(&topic, &number.to_string(), (number % 3) as u8)
                .await;
            let publish = subscriber.receive().await;
            assert_eq!(publish.text(), number.to_string());
            assert_eq!(aliases.topic(&publish, maximum), topic);
        }
        if maximum >= 10 {
            assert!(aliases.used > 0, "no alias was ever used");
        }
    }
}

/// The same topic again and again is what aliases are for.
#[tokio::test]
async fn topic_aliases_are_used_for_a_repeated_topic() {
    let broker = Broker::start().await;
    let mut subscriber = broker
        .connect(Connect::v5("subscriber").property(Property::TopicAliasMaximum(1)))
        .await;
    subscriber.subscribe_to("t", 0).await;
    let mut publisher = broker.client("publisher").await;
    let mut aliases = Aliases::default();
    for _ in 0..10 {
        publisher.publish_text("t", "x", 0).await;
        assert_eq!(aliases.topic(&subscriber.receive().await, 1), "t");
    }
    assert!(aliases.used > 0, "no alias was ever used");
}

/// A client that did not ask for aliases gets none. [MQTT-3.1.2-27]
#[tokio::test]
async fn no_topic_aliases_unless_asked_for() {
    let broker = Broker::start().await;
    for connect in [
        Connect::v5("a"),
        Connect::v5("a").property(Property::TopicAliasMaximum(0)),
        Connect::v311("a"),
    ] {
        let mut client = broker.connect(connect).await;
        client.subscribe_to("t", 1).await;
        for _ in 0..10 {
            client.publish_text("t", "x", 1).await;
            assert_eq!(client.receive_exactly("t", "x").await.properties, []);
        }
    }
}

/// The next connection begins without aliases, also for what is sent again. [MQTT-3.3.2-7]
#[tokio::test]
async fn redelivered_messages_carry_their_topic() {
    let broker = Broker::start().await;
    let connect = || {
        Connect::v5("a")
            .persistent()
            .property(Property::TopicAliasMaximum(10))
    };
    let mut subscriber = broker.connect(connect()).await;
    subscriber.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    let mut aliases = Aliases::default();
    for _ in 0..5 {
        publisher.publish_text("t", "x", 1).await;
        let publish = subscriber.expect_publish().await;
        assert_eq!(aliases.topic(&publish, 10), "t");
    }
    subscriber.lose().await;
    let mut subscriber = broker.connect(connect()).await;
    let mut aliases = Aliases::default();
    for _ in 0..5 {
        let publish = subscriber.receive().await;
        assert!(publish.dup);
        assert_eq!(aliases.topic(&publish, 10), "t");
    }
}
