//! Sessions: what is kept while a client is away, what it finds when it returns, and who owns it.

use crate::harness::*;

/// Session Present and what Clean Start does to it, version by version. Version 3.1 has no such
/// flag. [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.3-2]
/// [MQTT-3.1.4-4] [MQTT311-3.2.2-1] [MQTT311-3.2.2-2] [MQTT311-3.2.2-3] [MQTT311-3.1.2-4]
/// [MQTT311-3.1.3-2] [MQTT311-3.1.4-3]
#[tokio::test]
async fn session_present_tells_the_truth() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let has_flag = version != Version::V31;
        let persistent = || Connect::new(version, "a").persistent();
        let mut present = Vec::new();
        for connect in [
            persistent(),
            persistent(),
            Connect::new(version, "a"),
            persistent(),
            persistent().clean_start(),
            persistent(),
        ] {
            let client = broker.connect(connect).await;
            present.push(client.connack.session_present);
            client.disconnect().await;
        }
        // A clean session of version 3 ends with its connection; Clean Start of version 5 is about
        // the beginning only.
        let expected = if version == Version::V5 {
            [false, true, false, false, false, true]
        } else {
            [false, true, false, false, false, false]
        };
        assert_eq!(
            present,
            expected.map(|present| present && has_flag),
            "{version:?}"
        );
        broker
            .connect(Connect::new(version, "a"))
            .await
            .disconnect()
            .await;
    }
}

/// QoS 1 and 2 messages for a client that is away wait for it, in order, and QoS 0 does not by
/// default. [MQTT-3.1.2-23] [MQTT-4.5.0-1] [MQTT311-3.1.2-4] [MQTT311-3.1.2-5] [MQTT311-4.5.0-1]
/// [MQTT311-4.1.0-1]
#[tokio::test]
async fn messages_wait_for_an_absent_session() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let persistent = || Connect::new(version, "away").persistent();
        let mut client = broker.connect(persistent()).await;
        client.subscribe_to("t/+", 2).await;
        client.disconnect().await;
        let mut publisher = broker.client("publisher").await;
        for number in 0..60 {
            publisher
                .publish_text("t/x", &number.to_string(), number % 3)
                .await;
        }
        let mut client = broker.connect(persistent()).await;
        for number in (0..60).filter(|number| number % 3 > 0) {
            let publish = client.receive_exactly("t/x", &number.to_string()).await;
            assert_eq!(
                (publish.qos, publish.dup),
                (number % 3, false),
                "sent for the first time"
            );
        }
        client.expect_nothing().await;
    }
}

/// QoS 0 may be kept as well, if that is configured.
#[tokio::test]
async fn qos_0_waits_if_configured() {
    let broker = Broker::with("limits.queue_qos0 = true").await;
    let mut client = broker.connect(Connect::v5("away").persistent()).await;
    client.subscribe_to("t", 2).await;
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "kept", 0).await;
    let mut client = broker.connect(Connect::v5("away").persistent()).await;
    client.receive_exactly("t", "kept").await;
}

/// What matches only a QoS 0 subscription is not kept.
#[tokio::test]
async fn qos_0_subscriptions_do_not_queue() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("away").persistent()).await;
    client.subscribe_to("t", 0).await;
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "x", 2).await;
    let mut client = broker.connect(Connect::v5("away").persistent()).await;
    client.expect_nothing().await;
    publisher.publish_text("t", "live", 2).await;
    client.receive_exactly("t", "live").await;
}

/// Subscriptions live in the session, with their options and identifiers.
#[tokio::test]
async fn subscriptions_survive_with_their_options() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    let subscription = Subscription::new("t", 1).no_local().retain_as_published();
    client
        .subscribe(Subscribe::new([subscription]).identifier(77))
        .await;
    client.lose().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.publish_text("t", "mine", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .publish(Publish::new("t", "yours").qos(2).retain())
        .await;
    let publish = client.receive_exactly("t", "yours").await;
    assert_eq!((publish.qos, publish.retain), (1, true));
    assert_eq!(subscription_identifiers(&publish.properties), [77]);
    client.expect_nothing().await;
}

/// A clean start finds nothing of what was: no subscription, no message, no state.
/// [MQTT-3.1.2-4] [MQTT311-3.1.2-6]
#[tokio::test]
async fn a_clean_start_discards_everything() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.subscribe_to("t", 2).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "unacknowledged", 1).await;
        publisher.publish_text("t", "half", 2).await;
        client.expect_publish().await;
        let half = client.expect_publish().await;
        client.send(Packet::PubRec(Ack::new(half.packet_id))).await;
        client.expect_pubrel(half.packet_id).await;
        client.lose().await;
        publisher.publish_text("t", "waiting", 1).await;
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.expect_nothing().await;
        publisher.publish_text("t", "live", 1).await;
        client.expect_nothing().await;
        client.subscribe_to("t", 1).await;
        client.expect_nothing().await;
    }
}

/// What was not acknowledged comes again: same identifiers, DUP, in the original order, before
/// anything new. [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1] [MQTT-4.3.2-3] [MQTT-4.3.3-3]
/// [MQTT311-4.4.0-1] [MQTT311-3.3.1-1] [MQTT311-4.6.0-1] [MQTT311-2.3.1-3] [MQTT311-4.3.2-1]
#[tokio::test]
async fn unacknowledged_messages_are_redelivered_in_order() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.subscribe_to("t/#", 2).await;
        let mut publisher = broker.client("publisher").await;
        let mut first = Vec::new();
        for number in 0..8u8 {
            publisher
                .publish_text(
                    &format!("t/{}", number % 3),
                    &number.to_string(),
                    1 + number % 2,
                )
                .await;
            first.push(client.expect_publish().await);
        }
        // The third and the sixth are settled out of order.
        client.acknowledge(&first.remove(5)).await;
        client.acknowledge(&first.remove(2)).await;
        client.fence().await;
        client.lose().await;
        publisher.publish_text("t/0", "new", 1).await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        for expected in &first {
            let publish = client.expect_publish().await;
            assert!(publish.dup);
            assert_eq!(
                (
                    &publish.topic,
                    publish.packet_id,
                    publish.qos,
                    &publish.payload
                ),
                (
                    &expected.topic,
                    expected.packet_id,
                    expected.qos,
                    &expected.payload
                )
            );
        }
        let new = client.expect_publish().await;
        assert_eq!((new.text(), new.dup), ("new", false));
        assert!(
            first
                .iter()
                .all(|publish| publish.packet_id != new.packet_id),
            "identifiers in flight are taken"
        );
        for publish in first.iter().chain([&new]) {
            client.acknowledge(publish).await;
        }
        client.expect_nothing().await;
    }
}

/// It comes again each time, until it is acknowledged.
#[tokio::test]
async fn redelivery_repeats_until_acknowledged() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.subscribe_to("t", 1).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "x", 1).await;
        let first = client.expect_publish().await;
        for _ in 0..3 {
            client.lose().await;
            client = broker
                .connect(Connect::new(version, "a").persistent())
                .await;
            let again = client.expect_publish().await;
            assert_eq!((again.packet_id, again.dup), (first.packet_id, true));
        }
        client.acknowledge(&first).await;
        client.fence().await;
        client.lose().await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.expect_nothing().await;
    }
}

/// Once PUBREL was due, the message itself must not come again: PUBREL does.
/// [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT311-4.3.3-1]
#[tokio::test]
async fn pubrel_is_redelivered_instead_of_publish() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.subscribe_to("t", 2).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "x", 2).await;
        let publish = client.expect_publish().await;
        client
            .send(Packet::PubRec(Ack::new(publish.packet_id)))
            .await;
        client.expect_pubrel(publish.packet_id).await;
        for _ in 0..2 {
            client.lose().await;
            client = broker
                .connect(Connect::new(version, "a").persistent())
                .await;
            client
                .expect(Packet::PubRel(Ack::new(publish.packet_id)))
                .await;
        }
        client
            .send(Packet::PubComp(Ack::new(publish.packet_id)))
            .await;
        client.fence().await;
        client.lose().await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.expect_nothing().await;
    }
}

/// A client that lost its PUBREC before it was sent gets the message again and completes it.
#[tokio::test]
async fn qos_2_is_completed_after_a_lost_pubrec() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.subscribe_to("t", 2).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "x", 2).await;
        let first = client.expect_publish().await;
        client.lose().await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        let again = client.receive_exactly("t", "x").await;
        assert_eq!(
            (again.packet_id, again.dup, again.qos),
            (first.packet_id, true, 2)
        );
        client.expect_nothing().await;
    }
}

/// The state of an incoming QoS 2 message is part of the session: a resent PUBLISH is not delivered
/// twice. [MQTT-4.3.3-10] [MQTT311-4.3.3-2]
#[tokio::test]
async fn incoming_qos_2_state_survives() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("t", 2).await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.send(Publish::new("t", "once").qos(2).id(9)).await;
        client.expect_pubrec(9).await;
        client.lose().await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client
            .send(Publish::new("t", "once").qos(2).id(9).dup())
            .await;
        assert_eq!(client.expect_pubrec(9).await.reason, Reason::SUCCESS);
        client.lose().await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        client.send(Packet::PubRel(Ack::new(9))).await;
        assert_eq!(client.expect_pubcomp(9).await.reason, Reason::SUCCESS);
        witness.receive_exactly("t", "once").await;
        witness.expect_nothing().await;
        // Released: the same identifier is a new message now.
        client.publish(Publish::new("t", "new").qos(2).id(9)).await;
        witness.receive_exactly("t", "new").await;
        client.disconnect().await;
    }
}

/// With a new session the state is gone: the same identifier is a new message.
#[tokio::test]
async fn incoming_qos_2_state_ends_with_the_session() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("t", 2).await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.send(Publish::new("t", "1").qos(2).id(9)).await;
    client.expect_pubrec(9).await;
    client.lose().await;
    witness.receive_exactly("t", "1").await;
    let mut client = broker.connect(Connect::v5("a")).await;
    client.send(Packet::PubRel(Ack::new(9))).await;
    assert_eq!(
        client.expect_pubcomp(9).await.reason,
        Reason::PACKET_IDENTIFIER_NOT_FOUND
    );
    client
        .publish(Publish::new("t", "2").qos(2).id(9).dup())
        .await;
    witness.receive_exactly("t", "2").await;
    witness.expect_nothing().await;
}

/// A second connection with the same Client Identifier takes the session over: the first is told
/// 0x8E and closed. [MQTT-3.1.4-3] [MQTT311-3.1.4-2]
#[tokio::test]
async fn a_second_connection_takes_the_session_over() {
    let broker = Broker::start().await;
    for old_version in Version::ALL {
        for new_version in Version::ALL {
            let mut old = broker
                .connect(Connect::new(old_version, "a").persistent().clean_start())
                .await;
            // A persistent session in version 3 is one without Clean Start.
            if old_version != Version::V5 {
                old = broker
                    .connect(Connect::new(old_version, "a").persistent())
                    .await;
            }
            old.subscribe_to("t", 1).await;
            let mut new = broker
                .connect(Connect::new(new_version, "a").persistent())
                .await;
            old.expect_refused(Reason::SESSION_TAKEN_OVER).await;
            assert_eq!(new.connack.session_present, new_version != Version::V31);
            new.publish_text("t", "x", 1).await;
            new.receive_exactly("t", "x").await;
            new.expect_nothing().await;
            new.disconnect().await;
        }
    }
}

/// A takeover with Clean Start finds an empty session.
#[tokio::test]
async fn a_takeover_with_clean_start_begins_anew() {
    let broker = Broker::start().await;
    let mut old = broker.connect(Connect::v5("a").persistent()).await;
    old.subscribe_to("t", 1).await;
    let mut new = broker.connect(Connect::v5("a")).await;
    assert!(!new.connack.session_present);
    old.expect_disconnect(Reason::SESSION_TAKEN_OVER).await;
    new.publish_text("t", "x", 1).await;
    new.expect_nothing().await;
}

/// A session that would have ended with its connection is still there for the one that takes it
/// over in time.
#[tokio::test]
async fn a_takeover_without_clean_start_continues_a_session_without_expiry() {
    let broker = Broker::start().await;
    let mut old = broker.connect(Connect::v5("a")).await;
    old.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "unacknowledged", 1).await;
    old.expect_publish().await;
    let mut new = broker.connect(Connect::v5("a").resume()).await;
    old.expect_disconnect(Reason::SESSION_TAKEN_OVER).await;
    // Session Expiry 0 ends the session when the connection is closed, and the new connection
    // closes the old one: either reading of the standard is consistent as long as the flag and the
    // state agree.
    if new.connack.session_present {
        assert!(new.receive_exactly("t", "unacknowledged").await.dup);
        publisher.publish_text("t", "live", 1).await;
        new.receive_exactly("t", "live").await;
    } else {
        publisher.publish_text("t", "live", 1).await;
    }
    new.expect_nothing().await;
}

/// What the old connection had not acknowledged goes to the new one, and nothing that the old one
/// still says counts.
#[tokio::test]
async fn a_takeover_moves_the_unacknowledged() {
    let broker = Broker::start().await;
    let mut old = broker.connect(Connect::v5("a").persistent()).await;
    old.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..5 {
        publisher
            .publish_text("t", &number.to_string(), 1 + number % 2)
            .await;
    }
    for _ in 0..5 {
        old.expect_publish().await;
    }
    let mut new = broker.connect(Connect::v5("a").persistent()).await;
    old.send_all((1..=5).map(|id| Packet::PubAck(Ack::new(id))))
        .await;
    for number in 0..5 {
        let publish = new.receive_exactly("t", &number.to_string()).await;
        assert!(publish.dup);
    }
    new.expect_nothing().await;
}

/// Many clients that claim one Client Identifier at the same time: in the end one has it, and it
/// works.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_of_takeovers_leaves_one_owner() {
    let broker = Broker::start().await;
    let address = broker.address;
    let mut clients = Vec::new();
    for number in 0..60u16 {
        clients.push(tokio::spawn(async move {
            let will = Will::new("will", number.to_string()).delay(u32::from(number % 2));
            let mut connect = Connect::v5("contested").persistent().will(will);
            connect.clean_start = number % 3 == 0;
            let mut client = Client::open(address, Version::V5).await;
            client.send(connect).await;
            let mut subscribe = Subscribe::new([("t", 1)]);
            subscribe.packet_id = 1;
            client.send(subscribe).await;
            client
                .send(Publish::new("t", number.to_string()).qos(1).id(2))
                .await;
            // Its turn has come: it was connected, or turned away because another came at the same
            // moment.
            client.next_or_closed().await;
            client
        }));
    }
    let mut open = Vec::new();
    for client in clients {
        open.push(client.await.expect("connects"));
    }
    let mut last = broker.connect(Connect::v5("contested").persistent()).await;
    for mut client in open {
        client.wait_until_closed().await;
    }
    last.subscribe_to("only now", 1).await;
    last.publish_text("only now", "x", 1).await;
    last.take("its own message", |packet| match packet {
        Packet::Publish(publish) if publish.topic == "only now" => Some(()),
        _ => None,
    })
    .await;
}

/// A session made in one version may be resumed in another.
#[tokio::test]
async fn a_session_may_change_its_version() {
    let broker = Broker::start().await;
    let mut publisher = broker.client("publisher").await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client
        .subscribe(Subscribe::new([("t", 2)]).identifier(5))
        .await;
    client.disconnect().await;
    for version in [
        Version::V311,
        Version::V31,
        Version::V5,
        Version::V311,
        Version::V5,
    ] {
        publisher
            .publish(
                Publish::new("t", "x")
                    .qos(2)
                    .property(Property::user("a", "b")),
            )
            .await;
        let mut client = broker
            .connect(Connect::new(version, "a").persistent())
            .await;
        assert_eq!(client.connack.session_present, version != Version::V31);
        let publish = client.receive_exactly("t", "x").await;
        if version == Version::V5 {
            assert_eq!(user_properties(&publish.properties), [("a", "b")]);
            assert_eq!(subscription_identifiers(&publish.properties), [5]);
        }
        client.disconnect().await;
    }
}

/// A large backlog is delivered completely and in order.
#[tokio::test]
async fn a_large_backlog_is_delivered_in_order() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.subscribe_to("t", 1).await;
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    for chunk in 0..20u32 {
        publisher
            .send_all((1..=500u16).map(|id| {
                Publish::new("t", (chunk * 500 + u32::from(id)).to_string())
                    .qos(1)
                    .id(id)
                    .into()
            }))
            .await;
        for id in 1..=500 {
            publisher.expect_puback(id).await;
        }
    }
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    for number in 1..=10_000 {
        client.receive_exactly("t", &number.to_string()).await;
    }
    client.expect_nothing().await;
}

/// Half of a backlog, a lost connection, and the rest: nothing missing, nothing out of order.
#[tokio::test]
async fn a_backlog_continues_where_it_stopped() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v311("a").persistent()).await;
    client.subscribe_to("t", 1).await;
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..100 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    let mut next = 0;
    for _ in 0..4 {
        let mut client = broker.connect(Connect::v311("a").persistent()).await;
        for _ in 0..25 {
            client.receive_exactly("t", &next.to_string()).await;
            next += 1;
        }
        client.fence().await;
        client.lose().await;
    }
    let mut client = broker.connect(Connect::v311("a").persistent()).await;
    client.expect_nothing().await;
}
