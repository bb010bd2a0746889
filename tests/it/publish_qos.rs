//! The three qualities of service, both ways: handshakes, duplicates, order and payloads.

use crate::harness::*;

/// Every version receives what every version publishes, at each QoS, with the handshake that
/// belongs to it. [MQTT-3.3.4-1] [MQTT-2.2.1-2] [MQTT-2.2.1-5] [MQTT-4.3.1-1] [MQTT-4.3.2-2]
/// [MQTT-4.3.2-4] [MQTT-4.3.3-2] [MQTT-4.3.3-8] [MQTT311-3.3.4-1] [MQTT311-2.3.1-5]
/// [MQTT311-2.3.1-6] [MQTT311-4.3.1-1]
#[tokio::test]
async fn each_qos_crosses_between_all_versions() {
    let broker = Broker::start().await;
    for from in Version::ALL {
        for to in Version::ALL {
            for qos in 0..=2 {
                let mut subscriber = broker.connect(Connect::new(to, "subscriber")).await;
                subscriber.subscribe_to("t/#", qos).await;
                let mut publisher = broker.connect(Connect::new(from, "publisher")).await;
                publisher.publish_text("t/x", "hello", qos).await;
                let publish = subscriber.receive_exactly("t/x", "hello").await;
                assert_eq!(
                    (publish.qos, publish.dup, publish.retain),
                    (qos, false, false),
                    "{from:?} to {to:?}"
                );
                subscriber.expect_nothing().await;
            }
        }
    }
}

/// A message is delivered with the smaller of its own QoS and the one granted. [MQTT-3.8.4-8]
/// [MQTT311-3.8.4-6]
#[tokio::test]
async fn delivered_qos_is_the_minimum_of_published_and_granted() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        for granted in 0..=2 {
            let mut subscriber = broker.connect(Connect::new(version, "subscriber")).await;
            subscriber.subscribe_to("t", granted).await;
            for published in 0..=2 {
                publisher.publish_text("t", "x", published).await;
                assert_eq!(subscriber.receive().await.qos, granted.min(published));
            }
        }
    }
}

/// After PUBACK the same Packet Identifier is a new message, whatever its DUP flag says.
/// [MQTT-4.3.2-5] [MQTT311-4.3.2-2]
#[tokio::test]
async fn qos_1_identifier_after_puback_is_a_new_message() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 1).await;
    for version in Version::ALL {
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        for publish in [
            Publish::new("t", "1"),
            Publish::new("t", "2").dup(),
            Publish::new("t", "3"),
        ] {
            publisher.publish(publish.qos(1).id(5)).await;
        }
        for expected in ["1", "2", "3"] {
            subscriber.receive_exactly("t", expected).await;
        }
    }
}

/// Until PUBREL the same Packet Identifier is the same message: acknowledged again, delivered once.
/// [MQTT-4.3.3-10]
#[tokio::test]
async fn qos_2_duplicates_are_delivered_once() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    for version in Version::ALL {
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        for _ in 0..3 {
            publisher.send(Publish::new("t", "once").qos(2).id(5)).await;
            assert_eq!(publisher.expect_pubrec(5).await.reason, Reason::SUCCESS);
            publisher
                .send(Publish::new("t", "once").qos(2).id(5).dup())
                .await;
            assert_eq!(publisher.expect_pubrec(5).await.reason, Reason::SUCCESS);
            publisher.send(Packet::PubRel(Ack::new(5))).await;
            assert_eq!(publisher.expect_pubcomp(5).await.reason, Reason::SUCCESS);
            subscriber.receive_exactly("t", "once").await;
        }
        subscriber.expect_nothing().await;
    }
}

/// The copy may even arrive in the same bytes as the original.
#[tokio::test]
async fn qos_2_duplicates_in_one_batch_are_delivered_once() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 0).await;
    let mut publisher = broker.client("publisher").await;
    let publish = Publish::new("t", "once").qos(2).id(5);
    publisher
        .send_all([
            publish.clone().into(),
            publish.clone().dup().into(),
            publish.dup().into(),
            Packet::PubRel(Ack::new(5)),
        ])
        .await;
    for _ in 0..3 {
        publisher.expect_pubrec(5).await;
    }
    publisher.expect_pubcomp(5).await;
    subscriber.receive_exactly("t", "once").await;
    subscriber.expect_nothing().await;
}

/// After PUBCOMP the same Packet Identifier is a new message. [MQTT-4.3.3-12]
#[tokio::test]
async fn qos_2_identifier_after_pubcomp_is_a_new_message() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    for payload in ["1", "2", "3"] {
        publisher
            .publish(Publish::new("t", payload).qos(2).id(5))
            .await;
        subscriber.receive_exactly("t", payload).await;
    }
}

/// PUBREL for what the broker does not know: PUBCOMP, in version 5 with 0x92. [MQTT-4.3.3-11]
#[tokio::test]
async fn pubrel_of_an_unknown_identifier_gets_pubcomp() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.send(Packet::PubRel(Ack::new(99))).await;
        let pubcomp = client.expect_pubcomp(99).await;
        if version == Version::V5 {
            assert_eq!(pubcomp.reason, Reason::PACKET_IDENTIFIER_NOT_FOUND);
        }
        client.expect_nothing().await;
    }
}

/// A PUBREL that comes again, because its PUBCOMP was lost, is answered again.
#[tokio::test]
async fn pubrel_may_be_repeated() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.publish(Publish::new("t", "x").qos(2).id(3)).await;
        client.send(Packet::PubRel(Ack::new(3))).await;
        client.expect_pubcomp(3).await;
    }
}

/// PUBREC for what was never sent gets PUBREL 0x92, so that the client can forget it.
#[tokio::test]
async fn v5_pubrec_of_an_unknown_identifier_gets_pubrel_not_found() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client.send(Packet::PubRec(Ack::new(99))).await;
    assert_eq!(
        client.expect_pubrel(99).await.reason,
        Reason::PACKET_IDENTIFIER_NOT_FOUND
    );
    client.send(Packet::PubComp(Ack::new(99))).await;
    client.expect_nothing().await;
}

/// PUBACK and PUBCOMP for what was never sent change nothing and harm nobody.
#[tokio::test]
async fn acknowledgements_of_unknown_identifiers_are_ignored() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.subscribe_to("t", 1).await;
        client
            .send_all([Packet::PubAck(Ack::new(99)), Packet::PubComp(Ack::new(98))])
            .await;
        client.expect_nothing().await;
        client.publish_text("t", "x", 1).await;
        client.receive_exactly("t", "x").await;
    }
}

/// An acknowledgement of the wrong kind does not settle a message: it comes again when the session
/// resumes. [MQTT-4.3.3-3]
#[tokio::test]
async fn puback_for_a_qos_2_message_does_not_settle_it() {
    let broker = Broker::start().await;
    let mut subscriber = broker
        .connect(Connect::v311("subscriber").persistent())
        .await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "x", 2).await;
    let publish = subscriber.expect_publish().await;
    subscriber
        .send(Packet::PubAck(Ack::new(publish.packet_id)))
        .await;
    drop(subscriber);
    let mut subscriber = broker
        .connect(Connect::v311("subscriber").persistent())
        .await;
    let again = subscriber.expect_publish().await;
    assert_eq!((again.packet_id, again.dup), (publish.packet_id, true));
    subscriber.acknowledge(&again).await;
    subscriber.expect_nothing().await;
}

/// DUP is a matter between two parties: it is not passed on. [MQTT-3.3.1-3] [MQTT311-3.3.1-3]
#[tokio::test]
async fn dup_is_not_propagated() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    for version in Version::ALL {
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        for qos in 1..=2 {
            publisher
                .publish(Publish::new("t", "x").qos(qos).dup())
                .await;
            assert!(!subscriber.receive().await.dup);
        }
    }
}

/// A client that subscribed to what it publishes receives it.
#[tokio::test]
async fn a_publisher_receives_its_own_messages() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.subscribe_to("t", 2).await;
        for qos in 0..=2 {
            client.publish_text("t", "mine", qos).await;
            client.receive_exactly("t", "mine").await;
        }
    }
}

/// What the broker refused at QoS 2 is over: the same Packet Identifier is a new message.
/// [MQTT-4.3.3-9]
#[tokio::test]
async fn qos_2_identifier_after_a_refusal_is_a_new_message() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client.subscribe_to("t", 2).await;
    for _ in 0..2 {
        assert!(
            client
                .publish(Publish::new("$SYS/x", "refused").qos(2).id(5))
                .await
                .is_error()
        );
        assert_eq!(
            client
                .publish(Publish::new("t", "taken").qos(2).id(5).dup())
                .await,
            Reason::SUCCESS
        );
        client.receive_exactly("t", "taken").await;
    }
    client.expect_nothing().await;
}

/// A message that nobody wants is acknowledged all the same; version 5 may say that nobody wanted
/// it.
#[tokio::test]
async fn messages_without_subscribers_are_acknowledged() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        for qos in 1..=2 {
            let reason = client.publish(Publish::new("nobody", "x").qos(qos)).await;
            assert!(
                matches!(reason, Reason::SUCCESS | Reason::NO_MATCHING_SUBSCRIBERS),
                "{reason:?}"
            );
        }
    }
}

/// Messages in flight to one client all have their own Packet Identifier. [MQTT-2.2.1-4]
/// [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT311-2.3.1-4] [MQTT311-4.3.2-1] [MQTT311-4.3.3-1]
#[tokio::test]
async fn packet_identifiers_in_flight_are_unique() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    let mut seen = std::collections::HashSet::new();
    for number in 0..200 {
        publisher
            .publish_text("t", &number.to_string(), 1 + number % 2)
            .await;
        let publish = subscriber.expect_publish().await;
        assert!(
            seen.insert(publish.packet_id),
            "{publish:?} while its identifier is in flight"
        );
    }
}

/// Packet Identifiers are used again after the 65,535 that there are, without harm to one that is
/// still in flight.
#[tokio::test]
async fn packet_identifiers_wrap_around_those_in_flight() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "held", 1).await;
    let held = subscriber.expect_publish().await;
    for batch in 0..140u32 {
        publisher
            .send_all(
                (1..=500).map(|id| Publish::new("t", batch.to_be_bytes()).qos(1).id(id).into()),
            )
            .await;
        for id in 1..=500 {
            publisher.expect_puback(id).await;
        }
        for _ in 0..500 {
            let publish = subscriber.expect_publish().await;
            assert_ne!(publish.packet_id, held.packet_id, "in batch {batch}");
            subscriber
                .send(Packet::PubAck(Ack::new(publish.packet_id)))
                .await;
        }
    }
}

/// One publisher's messages on one topic arrive in their order, at each QoS.
/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT311-4.6.0-5] [MQTT311-4.6.0-6]
#[tokio::test]
async fn order_of_a_publisher_is_kept_at_each_qos() {
    let broker = Broker::start().await;
    for qos in 0..=2 {
        let mut subscriber = broker.client("subscriber").await;
        subscriber.subscribe_to("t", 2).await;
        let mut publisher = broker.client("publisher").await;
        publisher
            .send_all((1..=500).map(|number: u16| {
                let publish = Publish::new("t", number.to_string()).qos(qos);
                if qos > 0 {
                    publish.id(number).into()
                } else {
                    publish.into()
                }
            }))
            .await;
        if qos == 2 {
            for id in 1..=500 {
                publisher.expect_pubrec(id).await;
                publisher.send(Packet::PubRel(Ack::new(id))).await;
            }
        }
        for number in 1..=500 {
            subscriber.receive_exactly("t", &number.to_string()).await;
        }
    }
}

/// Also when the QoS changes from message to message: the broker promises order per publisher and
/// topic.
#[tokio::test]
async fn order_is_kept_across_qos() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .send_all((1..=300u16).map(|number| {
            let publish = Publish::new("t", number.to_string()).qos((number % 3) as u8);
            if number % 3 > 0 {
                publish.id(number).into()
            } else {
                publish.into()
            }
        }))
        .await;
    for number in 1..=300 {
        subscriber.receive_exactly("t", &number.to_string()).await;
    }
}

/// Acknowledgements come in the order of the messages.
/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT311-4.6.0-2] [MQTT311-4.6.0-3]
#[tokio::test]
async fn acknowledgements_keep_the_order_of_messages() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    for (qos, ids) in [(1, [5, 3, 9, 1]), (2, [7, 2, 8, 4])] {
        client
            .send_all(ids.map(|id| Publish::new("t", "x").qos(qos).id(id).into()))
            .await;
        for id in ids {
            match client.next().await {
                Packet::PubAck(ack) if qos == 1 => assert_eq!(ack.packet_id, id),
                Packet::PubRec(ack) if qos == 2 => assert_eq!(ack.packet_id, id),
                other => client.fail(&format!("{other:?}")),
            }
        }
    }
}

/// The broker sends PUBREL in the order of the PUBREC packets that it gets. [MQTT-4.6.0-4]
/// [MQTT311-4.6.0-4]
#[tokio::test]
async fn pubrel_keeps_the_order_of_pubrec() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        publisher.publish_text("t", "x", 2).await;
        ids.push(subscriber.expect_publish().await.packet_id);
    }
    ids.rotate_left(2);
    subscriber
        .send_all(ids.iter().map(|id| Packet::PubRec(Ack::new(*id))))
        .await;
    for id in ids {
        subscriber.expect(Packet::PubRel(Ack::new(id))).await;
    }
}

/// In version 5 a receiver may refuse: the message is over, its identifier free, and PUBREL does
/// not come. [MQTT-4.3.3-4] [MQTT-4.4.0-2]
#[tokio::test]
async fn v5_refusal_by_the_receiver_ends_the_handshake() {
    let broker = Broker::start().await;
    let mut subscriber = broker.connect(Connect::v5("subscriber").persistent()).await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "1", 1).await;
    publisher.publish_text("t", "2", 2).await;
    let first = subscriber.expect_publish().await;
    let second = subscriber.expect_publish().await;
    subscriber
        .send(Packet::PubAck(
            Ack::new(first.packet_id).reason(Reason::NOT_AUTHORIZED),
        ))
        .await;
    subscriber
        .send(Packet::PubRec(
            Ack::new(second.packet_id).reason(Reason::QUOTA_EXCEEDED),
        ))
        .await;
    subscriber.expect_nothing().await;
    subscriber.lose().await;
    let mut subscriber = broker.connect(Connect::v5("subscriber").persistent()).await;
    assert!(subscriber.connack.session_present);
    subscriber.expect_nothing().await;
}

/// Nothing is sent again while the connection stands, however long an acknowledgement takes.
/// [MQTT-4.4.0-1]
#[tokio::test]
async fn nothing_is_resent_within_a_connection() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "1", 1).await;
    publisher.publish_text("t", "2", 2).await;
    subscriber.expect_publish().await;
    subscriber.expect_publish().await;
    elapse(1).await;
    subscriber.expect_nothing().await;
}

/// Payloads of all lengths around the steps of the length encoding pass unchanged, to every
/// version.
#[tokio::test]
async fn payloads_of_all_sizes_pass_unchanged() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.subscribe_to("t", 2).await;
        for size in [
            0, 1, 110, 120, 121, 122, 123, 124, 125, 126, 127, 128, 16_370, 16_380, 16_384, 65_536,
            300_000,
        ] {
            let payload: Vec<u8> = (0..size).map(|index| (index * 7 % 251) as u8).collect();
            for qos in 0..=2 {
                client.publish(Publish::new("t", &payload).qos(qos)).await;
                assert!(
                    client.receive().await.payload == payload,
                    "{size} bytes at QoS {qos}"
                );
            }
        }
    }
}

/// A message of 1 MiB and one of 3 MiB, longer than three length bytes can say.
#[tokio::test]
async fn large_payloads_pass_unchanged() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.connect(Connect::v311("publisher")).await;
    for size in [1 << 20, 3 << 20] {
        let payload: Vec<u8> = (0..size).map(|index| (index % 253) as u8).collect();
        let sends = async { publisher.publish(Publish::new("t", &payload).qos(2)).await };
        let (_, received) = tokio::join!(sends, subscriber.receive());
        assert!(received.payload == payload);
    }
}

/// Topic Names are any text, passed on byte by byte: no normalisation, nothing stripped.
/// [MQTT-4.7.3-4] [MQTT-1.5.4-3] [MQTT311-4.7.3-4] [MQTT311-1.5.3-3]
#[tokio::test]
async fn topic_names_are_not_normalised() {
    let broker = Broker::start().await;
    let names = [
        "/",
        "//",
        "a//b",
        "a/",
        " ",
        "a b",
        "Ä",
        "A\u{308}",
        "\u{feff}a",
        "a\u{feff}",
        "☃/😀",
        "\u{10fffd}",
        "ACCOUNTS",
        "accounts",
    ];
    let mut client = broker.client("a").await;
    for name in names {
        client.subscribe_to(name, 0).await;
    }
    for name in names {
        client.publish_text(name, name, 1).await;
        client.receive_exactly(name, name).await;
    }
    client.expect_nothing().await;
}

/// A Topic Name of the full 65,535 bytes. [MQTT-4.7.3-3] [MQTT311-4.7.3-3]
#[tokio::test]
async fn the_longest_topic_name_passes() {
    let broker = Broker::start().await;
    let name = "x".repeat(65_535);
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.subscribe_to(&name, 1).await;
        client.subscribe_to("#", 1).await;
        client.publish_text(&name, "long", 1).await;
        client.receive_exactly(&name, "long").await;
        client.expect_nothing().await;
    }
}

/// Many packets in one write, of many kinds, are all handled, in order.
#[tokio::test]
async fn a_batch_of_mixed_packets_is_handled_in_order() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    let mut subscribe = Subscribe::new([("t/#", 2)]);
    subscribe.packet_id = 1000;
    let mut unsubscribe = Unsubscribe::new(&["t/#"]);
    unsubscribe.packet_id = 1001;
    let mut packets: Vec<Packet> = vec![Publish::new("t/0", "before").into(), subscribe.into()];
    packets.extend(
        (1..=100u16).map(|id| Publish::new(&format!("t/{}", id % 7), id.to_string()).into()),
    );
    packets.extend([
        Packet::PingReq,
        unsubscribe.into(),
        Publish::new("t/1", "after").into(),
    ]);
    client.send_all(packets).await;
    client.expect_suback(1000).await;
    for id in 1..=100 {
        let publish = client
            .take("the next message", |packet| match packet {
                Packet::Publish(publish) => Some(publish.clone()),
                _ => None,
            })
            .await;
        assert_eq!(publish.text(), id.to_string());
    }
    client.expect_unsuback(1001).await;
    client
        .take("PINGRESP", |packet| {
            matches!(packet, Packet::PingResp).then_some(())
        })
        .await;
    client.expect_nothing().await;
}
