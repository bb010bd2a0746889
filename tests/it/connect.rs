//! CONNECT, CONNACK, Keep Alive and DISCONNECT: how a connection begins, lives and ends, in every
//! version.

use crate::harness::*;

/// A version 5 client is told what the broker offers, and nothing that it must not be told.
/// [MQTT-3.1.4-5] [MQTT-3.1.2-28] [MQTT-3.2.2-1] [MQTT-4.2-1]
#[tokio::test]
async fn v5_connack_says_what_the_broker_offers() {
    let broker = Broker::start().await;
    let client = broker.client("a").await;
    let properties = &client.connack.properties;
    assert!(!client.connack.session_present);
    assert_eq!(property!(properties, ReceiveMaximum), Some(1024));
    assert_eq!(property!(properties, TopicAliasMaximum), Some(64));
    assert_eq!(
        property!(properties, MaximumPacketSize),
        Some(16 * 1024 * 1024)
    );
    assert_eq!(
        property!(properties, MaximumQoS),
        None,
        "QoS 2 is said by saying nothing"
    );
    for available in [
        property!(properties, RetainAvailable),
        property!(properties, WildcardSubscriptionAvailable),
        property!(properties, SubscriptionIdentifierAvailable),
        property!(properties, SharedSubscriptionAvailable),
    ] {
        assert_ne!(
            available,
            Some(0),
            "everything is available: {properties:?}"
        );
    }
    assert_eq!(
        property!(properties, AssignedClientIdentifier),
        None,
        "the client brought its own"
    );
    assert_eq!(
        property!(properties, ServerKeepAlive),
        None,
        "the client's own is used"
    );
    assert_eq!(
        property!(properties, AuthenticationMethod),
        None,
        "[MQTT-4.12.0-6]"
    );
    assert_eq!(
        property!(properties, ResponseInformation),
        None,
        "[MQTT-3.1.2-28]"
    );
}

/// A version 3 client gets the four bytes of its CONNACK, without a session.
/// [MQTT311-3.2.2-1] [MQTT311-3.1.4-4] [MQTT311-3.2.0-1]
#[tokio::test]
async fn v3_connack_is_four_bytes() {
    let broker = Broker::start().await;
    for connect in [Connect::v31("a"), Connect::v311("b")] {
        let mut client = broker.open(connect.version).await;
        client.send(connect).await;
        client.send_bytes(&[0xe0, 0x00]).await;
        assert_eq!(client.bytes_until_closed().await, [0x20, 0x02, 0x00, 0x00]);
    }
}

/// Nothing may come from the broker before CONNACK, also when the client has sent everything at
/// once, and what it has sent is then handled in order. [MQTT-3.2.0-1] [MQTT-3.2.0-2]
/// [MQTT-3.1.4-5] [MQTT311-3.2.0-1]
#[tokio::test]
async fn packets_sent_behind_connect_are_handled_after_connack() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.open(version).await;
        let mut subscribe = Subscribe::new([("a", 1)]);
        subscribe.packet_id = 7;
        client
            .send_all([
                Connect::new(version, "a").into(),
                subscribe.into(),
                Publish::new("a", "self").qos(1).id(9).into(),
                Packet::PingReq,
            ])
            .await;
        assert_eq!(client.expect_connack().await.reason, Reason::SUCCESS);
        assert_eq!(
            client.expect_suback(7).await.reasons,
            [Reason::GRANTED_QOS_1]
        );
        client.expect_puback(9).await;
        client
            .take("its own message", |packet| {
                matches!(packet, Packet::Publish(_)).then_some(())
            })
            .await;
        // No second CONNACK either.
        client.expect_nothing().await;
    }
}

/// What follows a refused CONNECT is not handled. [MQTT-3.1.4-6] [MQTT311-3.1.4-5]
#[tokio::test]
async fn packets_sent_behind_a_refused_connect_are_ignored() {
    let broker = Broker::with("mqtt.allow_zero_length_client_id = false").await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("#", 0).await;
    for (version, reason) in [
        (Version::V5, Reason::CLIENT_IDENTIFIER_NOT_VALID),
        (Version::V311, Reason(2)),
    ] {
        let mut client = broker.open(version).await;
        client
            .send_all([
                Connect::new(version, "").into(),
                Publish::new("a", "must not arrive").into(),
            ])
            .await;
        client.expect_connack_refusal(reason).await;
    }
    witness.expect_nothing().await;
}

/// A CONNECT that comes byte by byte is a CONNECT.
#[tokio::test]
async fn connect_may_arrive_in_pieces() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.open(version).await;
        for byte in Connect::new(version, "slow")
            .will(Will::new("will", "x").qos(1))
            .bytes()
        {
            client.send_bytes(&[byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.expect_connack().await.reason, Reason::SUCCESS);
    }
}

/// Every property that CONNECT may carry, at once.
#[tokio::test]
async fn connect_takes_all_its_properties() {
    let broker = Broker::start().await;
    let will = Will::new("will", "last words")
        .qos(2)
        .property(Property::WillDelayInterval(5))
        .property(Property::PayloadFormatIndicator(1))
        .property(Property::MessageExpiryInterval(60))
        .property(Property::ContentType("text/plain".into()))
        .property(Property::ResponseTopic("answers".into()))
        .property(Property::CorrelationData(vec![0, 1, 2]))
        .property(Property::user("a", "b"));
    let connect = Connect::v5("a")
        .session_expiry(10)
        .property(Property::ReceiveMaximum(65_535))
        .property(Property::MaximumPacketSize(u32::MAX))
        .property(Property::TopicAliasMaximum(65_535))
        .property(Property::RequestResponseInformation(1))
        .property(Property::RequestProblemInformation(1))
        .property(Property::user("name", "value"))
        .property(Property::user("name", "value"))
        .will(will);
    let mut client = broker.connect(connect).await;
    client.expect_nothing().await;
}

/// Client Identifiers of 1 to 23 letters and digits must be allowed. [MQTT-3.1.3-5]
/// [MQTT311-3.1.3-5]
#[tokio::test]
async fn client_identifiers_of_the_standard_alphabet_are_accepted() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        for id in [
            "a",
            "0123456789abcdefghijklm",
            "nopqrstuvwxyzABCDEFGHIJ",
            "KLMNOPQRSTUVWXYZ",
        ] {
            broker
                .connect(Connect::new(version, id))
                .await
                .disconnect()
                .await;
        }
    }
}

/// Longer ones, and any text, are accepted too, in version 3.1 as well: its limit of 23 is not
/// enforced by anyone.
#[tokio::test]
async fn client_identifiers_may_be_long_and_of_any_text() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        for id in ["x".repeat(300).as_str(), "Zürich/#/+ $share ☃"] {
            broker
                .connect(Connect::new(version, id))
                .await
                .disconnect()
                .await;
        }
    }
}

/// Client Identifiers are compared as they are: another case is another client. [MQTT-3.1.3-2]
/// [MQTT311-3.1.3-2]
#[tokio::test]
async fn client_identifiers_that_differ_in_case_are_different_clients() {
    let broker = Broker::start().await;
    let mut small = broker.client("client").await;
    let mut capital = broker.client("Client").await;
    small.expect_nothing().await;
    capital.expect_nothing().await;
}

/// An empty Client Identifier gets a new one, which works as if the client had brought it.
/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]
#[tokio::test]
async fn v5_empty_client_identifier_is_assigned_one() {
    let broker = Broker::start().await;
    let first = broker.connect(Connect::v5("").session_expiry(600)).await;
    let second = broker.connect(Connect::v5("").resume()).await;
    let assigned = property!(first.connack.properties, AssignedClientIdentifier).expect("assigned");
    let other = property!(second.connack.properties, AssignedClientIdentifier).expect("assigned");
    assert!(!second.connack.session_present);
    assert_ne!(assigned, other);
    first.disconnect().await;
    let resumed = broker.connect(Connect::v5(&assigned).persistent()).await;
    assert!(
        resumed.connack.session_present,
        "the assigned identifier names its session"
    );
}

/// In 3.1.1 an empty Client Identifier is fine with a clean session, several times at once.
/// [MQTT311-3.1.3-6]
#[tokio::test]
async fn v311_empty_client_identifier_with_clean_session_is_accepted() {
    let broker = Broker::start().await;
    let mut first = broker.connect(Connect::v311("")).await;
    let mut second = broker.connect(Connect::v311("")).await;
    first.expect_nothing().await;
    second.expect_nothing().await;
}

/// Without a clean session it is identifier rejected, 0x02. [MQTT311-3.1.3-8]
#[tokio::test]
async fn v311_empty_client_identifier_without_clean_session_is_rejected() {
    let broker = Broker::start().await;
    let mut client = broker.open(Version::V311).await;
    client.send(Connect::v311("").resume()).await;
    client.expect_connack_refusal(Reason(2)).await;
}

/// Version 3.1 has no empty Client Identifiers.
#[tokio::test]
async fn v31_empty_client_identifier_is_rejected() {
    let broker = Broker::start().await;
    let mut client = broker.open(Version::V31).await;
    client.send(Connect::v31("")).await;
    client.expect_connack_refusal(Reason(2)).await;
}

/// A broker may be configured to want a Client Identifier from everybody.
/// [MQTT-3.1.3-8] [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-4.13.2-1] [MQTT311-3.1.3-9]
#[tokio::test]
async fn empty_client_identifiers_can_be_forbidden() {
    let broker = Broker::with("mqtt.allow_zero_length_client_id = false").await;
    for (connect, reason) in [
        (Connect::v5(""), Reason::CLIENT_IDENTIFIER_NOT_VALID),
        (Connect::v311(""), Reason(2)),
    ] {
        let mut client = broker.open(connect.version).await;
        client.send(connect).await;
        client.expect_connack_refusal(reason).await;
    }
}

/// A protocol level that is not served is told so and closed. [MQTT-3.1.2-2] [MQTT311-3.1.2-2]
#[tokio::test]
async fn unknown_protocol_levels_are_refused() {
    let broker = Broker::start().await;
    for (name, level) in [
        ("MQTT", 0),
        ("MQTT", 3),
        ("MQTT", 6),
        ("MQTT", 255),
        ("MQIsdp", 2),
        ("MQIsdp", 4),
    ] {
        let mut body = wire::Bytes::new();
        body.string(name).u8(level).u8(2).u16(60).u8(0).string("a");
        let mut client = broker.open(Version::V5).await;
        client.send_bytes(&body.packet(0x10)).await;
        let answer = client.bytes_until_closed().await;
        assert!(
            matches!(answer[..], [0x20, 2, 0, 1] | [0x20, _, 0, 0x84, ..]),
            "{name} {level}: answered {answer:02x?}"
        );
    }
}

/// Another protocol's name is not ours: closed, at most with 0x84. [MQTT-3.1.2-1] [MQTT311-3.1.2-1]
#[tokio::test]
async fn other_protocol_names_are_closed() {
    let broker = Broker::start().await;
    for name in ["mqtt", "MQTT5", "AMQP", ""] {
        let mut body = wire::Bytes::new();
        body.string(name).u8(5).u8(2).u16(60).u8(0).string("a");
        let mut client = broker.open(Version::V5).await;
        client.send_bytes(&body.packet(0x10)).await;
        let answer = client.bytes_until_closed().await;
        assert!(
            matches!(answer[..], [] | [0x20, 2, 0, 1] | [0x20, _, 0, 0x84, ..]),
            "{name:?}: answered {answer:02x?}"
        );
    }
}

/// PINGREQ is answered with PINGRESP, each one. [MQTT-3.12.4-1] [MQTT311-3.12.4-1]
#[tokio::test]
async fn pings_are_answered() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client
            .send_all([Packet::PingReq, Packet::PingReq, Packet::PingReq])
            .await;
        for _ in 0..3 {
            client.expect(Packet::PingResp).await;
        }
    }
}

/// After DISCONNECT the broker closes, and handles nothing that still comes. [MQTT-3.14.4-1]
#[tokio::test]
async fn nothing_behind_disconnect_is_handled() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("#", 0).await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client
            .send_all([
                Publish::new("before", "arrives").into(),
                Disconnect::new(Reason::SUCCESS).into(),
                Publish::new("after", "must not arrive").into(),
            ])
            .await;
        client.expect_closed().await;
        witness.receive_exactly("before", "arrives").await;
    }
    witness.expect_nothing().await;
}

/// All three lengths that a version 5 DISCONNECT may have are normal ends.
#[tokio::test]
async fn v5_disconnect_may_be_short() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("will", 0).await;
    for bytes in [
        &[0xe0, 0x00][..],
        &[0xe0, 0x01, 0x00],
        &[0xe0, 0x02, 0x00, 0x00],
    ] {
        let mut client = broker
            .connect(Connect::v5("a").will(Will::new("will", "must not arrive")))
            .await;
        client.send_bytes(bytes).await;
        client.expect_closed().await;
    }
    witness.expect_nothing().await;
}

/// A silent client is closed after one and a half times its Keep Alive, in version 5 with 0x8D.
/// [MQTT-3.1.2-22] [MQTT311-3.1.2-24]
#[tokio::test]
async fn silence_beyond_keep_alive_closes() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let began = std::time::Instant::now();
        let mut client = broker
            .connect(Connect::new(version, "silent").keep_alive(1))
            .await;
        client.expect_refused(Reason::KEEP_ALIVE_TIMEOUT).await;
        assert!(
            began.elapsed().as_millis() >= 1400,
            "closed early: {:?}",
            began.elapsed()
        );
    }
}

/// Deliveries do not count as a sign of life: only what the client sends does. [MQTT-3.1.2-22]
#[tokio::test]
async fn deliveries_do_not_keep_a_silent_client_alive() {
    let broker = Broker::start().await;
    let mut silent = broker.connect(Connect::v5("silent").keep_alive(1)).await;
    silent.subscribe_to("a", 0).await;
    let mut publisher = broker.client("publisher").await;
    let talks = tokio::spawn(async move {
        loop {
            publisher.publish_text("a", "tick", 0).await;
            tokio::task::yield_now().await;
        }
    });
    loop {
        match silent.next().await {
            Packet::Publish(_) => {}
            Packet::Disconnect(disconnect) => {
                break assert_eq!(disconnect.reason, Reason::KEEP_ALIVE_TIMEOUT);
            }
            other => silent.fail(&format!("{other:?}")),
        }
    }
    talks.abort();
}

/// A client that pings lives on, while one that is silent at twice its Keep Alive is closed.
#[tokio::test]
async fn pings_keep_a_connection_alive() {
    let broker = Broker::start().await;
    let mut pinging = broker.connect(Connect::v5("pinging").keep_alive(1)).await;
    let mut silent = broker.connect(Connect::v5("silent").keep_alive(2)).await;
    let closed =
        tokio::spawn(async move { silent.expect_disconnect(Reason::KEEP_ALIVE_TIMEOUT).await });
    while !closed.is_finished() {
        pinging.fence().await;
    }
    closed.await.expect("0x8D for the silent one");
    pinging.expect_nothing().await;
}

/// The broker has a maximum and says so to whom it concerns. [MQTT-3.2.2-21] [MQTT-3.2.2-22]
#[tokio::test]
async fn server_keep_alive_replaces_longer_ones_and_none() {
    let broker = Broker::with(r#"mqtt.keep_alive_max = "10s""#).await;
    for (asked, told) in [
        (60, Some(10)),
        (0, Some(10)),
        (65_535, Some(10)),
        (10, None),
        (5, None),
    ] {
        let client = broker.connect(Connect::v5("a").keep_alive(asked)).await;
        assert_eq!(
            property!(client.connack.properties, ServerKeepAlive),
            told,
            "asked for {asked}"
        );
    }
}

/// And it holds clients to that maximum.
#[tokio::test]
async fn server_keep_alive_is_enforced() {
    let broker = Broker::with(r#"mqtt.keep_alive_max = "1s""#).await;
    let mut client = broker.connect(Connect::v5("silent").keep_alive(0)).await;
    client.expect_disconnect(Reason::KEEP_ALIVE_TIMEOUT).await;
}

/// A broker without QoS 2 says so, still takes SUBSCRIBE with it, and refuses what exceeds it.
/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12]
#[tokio::test]
async fn maximum_qos_is_announced_and_enforced() {
    let broker = Broker::with("mqtt.max_qos = 1").await;
    let mut client = broker.client("a").await;
    assert_eq!(property!(client.connack.properties, MaximumQoS), Some(1));
    assert_eq!(
        client.subscribe(Subscribe::new([("a", 2)])).await,
        [Reason::GRANTED_QOS_1]
    );
    client.send(Publish::new("a", "x").qos(2).id(1)).await;
    client.expect_disconnect(Reason::QOS_NOT_SUPPORTED).await;

    let mut client = broker.open(Version::V5).await;
    client
        .send(Connect::v5("b").will(Will::new("a", "x").qos(2)))
        .await;
    client
        .expect_connack_refusal(Reason::QOS_NOT_SUPPORTED)
        .await;
}

/// A broker without retained messages says so and refuses them. [MQTT-3.2.2-13]
#[tokio::test]
async fn retain_not_available_is_announced_and_enforced() {
    let broker = Broker::with("mqtt.retain_available = false").await;
    let mut client = broker.client("a").await;
    assert_eq!(
        property!(client.connack.properties, RetainAvailable),
        Some(0)
    );
    client.send(Publish::new("a", "x").retain()).await;
    client.expect_disconnect(Reason::RETAIN_NOT_SUPPORTED).await;

    let mut client = broker.open(Version::V5).await;
    client
        .send(Connect::v5("b").will(Will::new("a", "x").retain()))
        .await;
    client
        .expect_connack_refusal(Reason::RETAIN_NOT_SUPPORTED)
        .await;
}

/// Who asks for no problem information gets no reason string or user property outside of PUBLISH,
/// CONNACK and DISCONNECT; others are told in words what was wrong. [MQTT-3.1.2-29]
#[tokio::test]
async fn request_problem_information_is_respected() {
    let broker = Broker::start().await;
    for wanted in [0, 1] {
        let mut client = broker
            .connect(Connect::v5("a").property(Property::RequestProblemInformation(wanted)))
            .await;
        let mut subscribe = Subscribe::new([("a/#/b", 1)]);
        subscribe.packet_id = 1;
        client.send(subscribe).await;
        let suback = client.expect_suback(1).await;
        assert_eq!(suback.reasons, [Reason::TOPIC_FILTER_INVALID]);
        if wanted == 0 {
            assert_eq!(suback.properties, []);
        }
        client.send(Packet::PubRel(Ack::new(77))).await;
        let pubcomp = client.expect_pubcomp(77).await;
        assert_eq!(pubcomp.reason, Reason::PACKET_IDENTIFIER_NOT_FOUND);
        if wanted == 0 {
            assert_eq!(pubcomp.properties, []);
        }
    }
}

/// A DISCONNECT by the broker says in words what was wrong, and its connection is closed.
/// [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-2] [MQTT-4.13.1-1] [MQTT-4.13.2-1]
#[tokio::test]
async fn disconnect_carries_a_reason_for_a_person() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client.send(Publish::new("", "no topic and no alias")).await;
    let disconnect = client.expect_disconnect(Reason::PROTOCOL_ERROR).await;
    let words = property!(disconnect.properties, ReasonString).expect("a reason string");
    assert!(words.len() > 10 && words.contains(' '), "{words:?}");
    assert_eq!(
        property!(disconnect.properties, SessionExpiryInterval),
        None,
        "[MQTT-3.14.2-2]"
    );
}

/// Words that do not fit into the client's Maximum Packet Size are left out, the reason code is
/// not; and the broker adds no User Properties of its own. [MQTT-3.4.2-2] [MQTT-3.4.2-3]
/// [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3]
/// [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[tokio::test]
async fn reason_strings_respect_maximum_packet_size() {
    let broker = Broker::start().await;
    let mut roomy = broker.client("roomy").await;
    let mut tight = broker
        .connect(Connect::v5("tight").property(Property::MaximumPacketSize(20)))
        .await;
    let (mut words, mut cut) = (Vec::new(), Vec::new());
    for (client, answers) in [(&mut roomy, &mut words), (&mut tight, &mut cut)] {
        let mut subscribe = Subscribe::new([("a/#/b", 1)]);
        subscribe.packet_id = 1;
        let mut unsubscribe = Unsubscribe::new(&["never"]);
        unsubscribe.packet_id = 2;
        client
            .send_all([
                subscribe.into(),
                unsubscribe.into(),
                Publish::new("$SYS/x", "x").qos(1).id(3).into(),
                Publish::new("$SYS/x", "x").qos(2).id(4).into(),
                Packet::PubRel(Ack::new(5)),
                Packet::PubRec(Ack::new(6)),
                Publish::new("", "no topic and no alias").into(),
            ])
            .await;
        while let Some(packet) = client.next_or_closed().await {
            answers.push(packet);
        }
    }
    assert_eq!(words.len(), 7, "{words:?}");
    assert_eq!(cut.len(), 7, "{cut:?}");
    for (spoken, cut) in words.iter().zip(&cut) {
        assert!(cut.bytes(Version::V5).len() <= 20, "{cut:?}");
        assert_eq!(std::mem::discriminant(spoken), std::mem::discriminant(cut));
        for packet in [spoken, cut] {
            assert!(
                !format!("{packet:?}").contains("UserProperty"),
                "{packet:?}"
            );
        }
    }
    assert!(
        words
            .iter()
            .any(|packet| packet.bytes(Version::V5).len() > 20),
        "nothing had words: {words:?}"
    );
}

/// Also CONNACK, which comes before anything is known of the client but what its CONNECT says.
/// [MQTT-3.2.2-19] [MQTT-3.2.2-20]
#[tokio::test]
async fn connack_respects_maximum_packet_size() {
    let broker = Broker::start().await;
    let mut client = broker.open(Version::V5).await;
    let unknown = Property::AuthenticationMethod("unknown".into());
    client
        .send(
            Connect::v5("a")
                .property(Property::MaximumPacketSize(10))
                .property(unknown),
        )
        .await;
    let connack = client
        .expect_connack_refusal(Reason::BAD_AUTHENTICATION_METHOD)
        .await;
    assert!(Packet::from(connack).bytes(Version::V5).len() <= 10);
}

/// One connection's DISCONNECT with any reason ends that connection and no other.
#[tokio::test]
async fn one_end_leaves_others_alone() {
    let broker = Broker::start().await;
    let mut other = broker.client("other").await;
    other.subscribe_to("a", 1).await;
    for reason in [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ] {
        let client = broker.client("a").await;
        client
            .disconnect_with(Disconnect::new(Reason(reason)))
            .await;
    }
    let mut publisher = broker.client("a").await;
    publisher.publish_text("a", "still there", 1).await;
    other.receive_exactly("a", "still there").await;
    other.expect_nothing().await;
}
