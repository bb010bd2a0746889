//! SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK: what matches, what is granted, what overlaps.

use crate::harness::*;

/// Which of `filters` deliver a message on `topic`, found out with one client per filter.
async fn check_matching(broker: &Broker, topic: &str, matching: &[&str], others: &[&str]) {
    let mut publisher = broker.client("publisher").await;
    let mut clients = Vec::new();
    for filter in matching.iter().chain(others) {
        let mut client = broker.client(filter).await;
        client.subscribe_to(filter, 1).await;
        clients.push(client);
    }
    publisher.publish_text(topic, "x", 1).await;
    for (index, mut client) in clients.into_iter().enumerate() {
        if index < matching.len() {
            client.receive_exactly(topic, "x").await;
        }
        client.expect_nothing().await;
    }
}

/// The standard's own examples of matching.
/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-3.3.2-3] [MQTT311-3.3.2-3] [MQTT311-3.8.3-2]
#[tokio::test]
async fn filters_match_as_the_standard_says() {
    let broker = Broker::start().await;
    let player = [
        "sport/tennis/player1/#",
        "sport/#",
        "#",
        "sport/tennis/+",
        "+/tennis/player1",
        "+/+/+",
        "sport/tennis/player1",
    ];
    let not_player = [
        "sport/tennis",
        "sport/+",
        "+",
        "+/+",
        "sport/tennis/player1/+",
        "sport/tennis/player",
        "Sport/#",
    ];
    check_matching(&broker, "sport/tennis/player1", &player, &not_player).await;
    check_matching(
        &broker,
        "sport",
        &["sport/#", "sport", "+", "#", "+/#"],
        &["sport/+", "/sport", "sport/", "+/+"],
    )
    .await;
    check_matching(
        &broker,
        "/finance",
        &["+/+", "/+", "/#", "#", "/finance"],
        &["+", "finance", "finance/#"],
    )
    .await;
    check_matching(
        &broker,
        "a//b",
        &["a/+/b", "a//b", "a/#", "+/+/+", "a//+"],
        &["a/b", "a/+", "+/+"],
    )
    .await;
    check_matching(
        &broker,
        "a/",
        &["a/+", "a/", "a/#", "+/+", "+/"],
        &["a", "+", "/a"],
    )
    .await;
    check_matching(&broker, "/", &["/", "+/+", "#", "/+", "+/"], &["+", "//"]).await;
}

/// A wildcard at the beginning never matches a topic that begins with `$`. [MQTT-4.7.2-1]
/// [MQTT311-4.7.2-1]
#[tokio::test]
async fn wildcards_at_the_beginning_do_not_match_dollar_topics() {
    let broker = Broker::with(r#"sys.interval = "1s""#).await;
    let mut wild = broker.client("wild").await;
    for filter in ["#", "+/#", "+/broker/#", "+/broker/uptime", "+/+/+"] {
        wild.subscribe_to(filter, 0).await;
    }
    let mut exact = broker.client("exact").await;
    exact.subscribe_to("$SYS/broker/uptime", 0).await;
    // Two values of the exact subscription: at least one of them was published while `wild` was
    // subscribed.
    exact.receive().await;
    exact.receive().await;
    wild.expect_nothing().await;
}

/// SUBACK has the SUBSCRIBE's identifier and one code for each filter, in order, each for itself.
/// [MQTT-2.2.1-6] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]
/// [MQTT-3.9.3-2] [MQTT311-2.3.1-7] [MQTT311-3.8.4-1] [MQTT311-3.8.4-2] [MQTT311-3.8.4-5]
/// [MQTT311-3.9.3-1] [MQTT311-3.9.3-2]
#[tokio::test]
async fn suback_answers_each_filter_in_order() {
    let broker = Broker::start().await;
    for (version, failure) in [
        (Version::V5, Reason::TOPIC_FILTER_INVALID),
        (Version::V311, Reason(0x80)),
        (Version::V31, Reason(0x80)),
    ] {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        let mut subscribe = Subscribe::new([("a", 2), ("a/#/b", 1), ("b", 0), ("c+", 1), ("d", 1)]);
        subscribe.packet_id = 65_535;
        let granted = [Reason(2), failure, Reason(0), failure, Reason(1)];
        assert_eq!(client.subscribe(subscribe).await, granted);
        for topic in ["a", "b", "d"] {
            client.publish_text(topic, "x", 0).await;
            client.receive_exactly(topic, "x").await;
        }
    }
}

/// Every malformed filter is refused for itself with 0x8F.
/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT311-4.7.1-2] [MQTT311-4.7.1-3]
#[tokio::test]
async fn invalid_filters_are_refused_in_suback() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    for filter in [
        "", "a#", "#a", "a/#/b", "#/", "a/b#", "a+", "+a", "a/+b/c", "a/b+/c", "++", "+#", "##",
        "#+",
    ] {
        let reasons = client.subscribe(Subscribe::new([(filter, 1)])).await;
        assert_eq!(reasons, [Reason::TOPIC_FILTER_INVALID], "{filter:?}");
    }
    client.publish_text("a", "x", 0).await;
    client.expect_nothing().await;
}

/// The same filter again replaces the subscription: its QoS changes and nothing comes twice.
/// [MQTT-3.8.4-3] [MQTT311-3.8.4-3]
#[tokio::test]
async fn subscribing_again_replaces_the_subscription() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        for qos in [1, 2, 0, 2] {
            client.subscribe_to("t/+", qos).await;
            client.publish_text("t/x", "x", 2).await;
            assert_eq!(client.receive_exactly("t/x", "x").await.qos, qos);
            client.expect_nothing().await;
        }
    }
}

/// Nothing is lost while a subscription is replaced. [MQTT-3.8.4-4] [MQTT311-3.8.4-3]
#[tokio::test]
async fn replacing_a_subscription_loses_nothing() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    let publishes = async {
        for number in 0..200 {
            publisher.publish_text("t", &number.to_string(), 1).await;
        }
    };
    let receives = async {
        for number in 0..200 {
            let publish = subscriber
                .take("a message", |packet| match packet {
                    Packet::Publish(publish) => Some(publish.clone()),
                    _ => None,
                })
                .await;
            assert_eq!(publish.text(), number.to_string());
            subscriber.acknowledge(&publish).await;
            if number % 5 == 0 {
                subscriber.subscribe_to("t", 1).await;
            }
        }
    };
    tokio::join!(publishes, receives);
    subscriber.expect_nothing().await;
}

/// Several filters in one SUBSCRIBE act as so many SUBSCRIBE packets: the last of two equal ones
/// holds. [MQTT-3.8.4-5] [MQTT311-3.8.4-4]
#[tokio::test]
async fn filters_of_one_subscribe_act_in_sequence() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    let reasons = client
        .subscribe(Subscribe::new([("t", 2), ("t", 0), ("u", 0), ("t", 1)]))
        .await;
    assert_eq!(reasons, [Reason(2), Reason(0), Reason(0), Reason(1)]);
    client.publish_text("t", "x", 2).await;
    assert_eq!(client.receive_exactly("t", "x").await.qos, 1);
    client.expect_nothing().await;
}

/// Overlapping subscriptions give one copy, with the highest QoS of those that match.
/// [MQTT-3.3.4-2] [MQTT311-3.3.5-1]
#[tokio::test]
async fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client
            .subscribe(Subscribe::new([
                ("t/#", 0),
                ("t/+", 2),
                ("t/x", 1),
                ("#", 0),
            ]))
            .await;
        client.publish_text("t/x", "x", 2).await;
        assert_eq!(client.receive_exactly("t/x", "x").await.qos, 2);
        client.publish_text("t/x/y", "y", 2).await;
        assert_eq!(client.receive_exactly("t/x/y", "y").await.qos, 0);
        client.expect_nothing().await;
    }
}

/// A Subscription Identifier comes with each message of its subscription. [MQTT-3.3.4-3]
#[tokio::test]
async fn subscription_identifier_is_sent_with_each_message() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    for (filter, identifier) in [
        ("one", 1),
        ("two", 127),
        ("three", 128),
        ("four", 268_435_455),
    ] {
        client
            .subscribe(Subscribe::new([(filter, 1)]).identifier(identifier))
            .await;
        client.publish_text(filter, "x", 1).await;
        assert_eq!(
            subscription_identifiers(&client.receive().await.properties),
            [identifier]
        );
    }
    client.subscribe_to("none", 1).await;
    client.publish_text("none", "x", 1).await;
    assert_eq!(client.receive().await.properties, []);
}

/// One copy for overlapping subscriptions carries the identifiers of all that match. [MQTT-3.3.4-4]
#[tokio::test]
async fn overlapping_subscriptions_send_all_their_identifiers() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .subscribe(Subscribe::new([("t/#", 1)]).identifier(10))
        .await;
    client
        .subscribe(Subscribe::new([("t/+", 0)]).identifier(20))
        .await;
    client.subscribe(Subscribe::new([("t/x", 2)])).await;
    client
        .subscribe(Subscribe::new([("+/x", 2)]).identifier(300))
        .await;
    client
        .subscribe(Subscribe::new([("u", 2)]).identifier(40))
        .await;
    client.publish_text("t/x", "x", 2).await;
    assert_eq!(
        subscription_identifiers(&client.receive().await.properties),
        [10, 20, 300]
    );
    client.publish_text("t/y", "y", 2).await;
    assert_eq!(
        subscription_identifiers(&client.receive().await.properties),
        [10, 20]
    );
    client.expect_nothing().await;
}

/// The identifier belongs to the subscription: replaced with it, gone with it.
#[tokio::test]
async fn subscription_identifier_is_replaced_with_its_subscription() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    for (identifier, expected) in [(Some(7), &[7][..]), (Some(8), &[8]), (None, &[])] {
        let mut subscribe = Subscribe::new([("t", 1)]);
        if let Some(identifier) = identifier {
            subscribe = subscribe.identifier(identifier);
        }
        client.subscribe(subscribe).await;
        client.publish_text("t", "x", 1).await;
        assert_eq!(
            subscription_identifiers(&client.receive().await.properties),
            expected
        );
    }
}

/// No Local keeps a client's own messages from it, and only its own. [MQTT-3.8.3-3]
#[tokio::test]
async fn no_local_keeps_own_messages_away() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    let mut other = broker.client("b").await;
    client
        .subscribe_with(Subscription::new("t", 2).no_local())
        .await;
    for qos in 0..=2 {
        client.publish_text("t", "mine", qos).await;
        other.publish_text("t", "yours", qos).await;
        client.receive_exactly("t", "yours").await;
    }
    client.expect_nothing().await;
}

/// No Local belongs to one subscription: another that matches delivers.
#[tokio::test]
async fn no_local_does_not_affect_overlapping_subscriptions() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .subscribe(Subscribe::new([Subscription::new("t/#", 2).no_local()]).identifier(1))
        .await;
    client
        .subscribe(Subscribe::new([Subscription::new("t/x", 1)]).identifier(2))
        .await;
    client.publish_text("t/x", "x", 2).await;
    let publish = client.receive_exactly("t/x", "x").await;
    assert_eq!(
        (publish.qos, subscription_identifiers(&publish.properties)),
        (1, vec![2])
    );
    client.publish_text("t/y", "y", 2).await;
    client.expect_nothing().await;
}

/// UNSUBSCRIBE ends delivery, and its UNSUBACK answers each filter, in order. [MQTT-2.2.1-6]
/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
/// [MQTT-3.11.3-2]
#[tokio::test]
async fn v5_unsubscribe_answers_each_filter_in_order() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .subscribe(Subscribe::new([("a", 1), ("b/+", 1), ("c", 1)]))
        .await;
    let reasons = client.unsubscribe(&["a", "a", "b/x", "b/+", "never"]).await;
    let none = Reason::NO_SUBSCRIPTION_EXISTED;
    assert_eq!(
        reasons,
        [Reason::SUCCESS, none, none, Reason::SUCCESS, none]
    );
    for topic in ["a", "b/x", "c"] {
        client.publish_text(topic, "x", 1).await;
    }
    client.receive_exactly("c", "x").await;
    client.expect_nothing().await;
}

/// Version 3: UNSUBACK is empty and comes even if nothing was subscribed.
/// [MQTT311-3.10.4-1] [MQTT311-3.10.4-2] [MQTT311-3.10.4-4] [MQTT311-3.10.4-5] [MQTT311-3.10.4-6]
/// [MQTT311-2.3.1-7]
#[tokio::test]
async fn v3_unsubscribe_is_acknowledged_in_any_case() {
    let broker = Broker::start().await;
    for version in [Version::V31, Version::V311] {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        assert_eq!(client.unsubscribe(&["never"]).await, []);
        client.subscribe_to("a/+", 1).await;
        assert_eq!(client.unsubscribe(&["a/x", "b"]).await, []);
        client.publish_text("a/x", "x", 1).await;
        client.receive_exactly("a/x", "x").await;
        client.subscribe_to("b", 1).await;
        assert_eq!(
            client.unsubscribe(&["a/+", "b", "c"]).await,
            [],
            "one UNSUBACK for them all"
        );
        client.publish_text("b", "x", 1).await;
        client.publish_text("a/x", "x", 1).await;
        client.expect_nothing().await;
    }
}

/// A delivery that has begun is completed after UNSUBSCRIBE. [MQTT-3.10.4-3] [MQTT311-3.10.4-3]
#[tokio::test]
async fn deliveries_in_flight_are_completed_after_unsubscribe() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut subscriber = broker
            .connect(Connect::new(version, "subscriber").persistent())
            .await;
        subscriber.subscribe_to("t", 2).await;
        let mut publisher = broker.client("publisher").await;
        publisher.publish_text("t", "1", 2).await;
        publisher.publish_text("t", "2", 1).await;
        let first = subscriber.expect_publish().await;
        let second = subscriber.expect_publish().await;
        subscriber.unsubscribe(&["t"]).await;
        publisher.publish_text("t", "too late", 2).await;
        subscriber.acknowledge(&first).await;
        subscriber.expect_nothing().await;
        // The other one was begun, too: it comes again with the session.
        subscriber.lose().await;
        let mut subscriber = broker
            .connect(Connect::new(version, "subscriber").persistent())
            .await;
        let again = subscriber.receive_exactly("t", "2").await;
        assert_eq!((again.packet_id, again.dup), (second.packet_id, true));
        subscriber.expect_nothing().await;
    }
}

/// A thousand filters in one SUBSCRIBE and one UNSUBSCRIBE. [MQTT-3.10.4-6] [MQTT311-3.8.4-4]
#[tokio::test]
async fn one_packet_may_carry_a_thousand_filters() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    let filters: Vec<String> = (0..1000).map(|number| format!("topic/{number}")).collect();
    let reasons = client
        .subscribe(Subscribe::new(
            filters.iter().map(|filter| (filter.as_str(), 1)),
        ))
        .await;
    assert_eq!(reasons, [Reason(1); 1000]);
    client.publish_text("topic/999", "x", 1).await;
    client.receive_exactly("topic/999", "x").await;
    let names: Vec<&str> = filters.iter().map(String::as_str).collect();
    assert_eq!(client.unsubscribe(&names).await, [Reason::SUCCESS; 1000]);
    client.publish_text("topic/999", "x", 1).await;
    client.expect_nothing().await;
}

/// Every subscriber gets its own copy, with its own QoS.
#[tokio::test]
async fn every_subscriber_gets_a_copy() {
    let broker = Broker::start().await;
    let mut subscribers = Vec::new();
    for number in 0..60 {
        let version = Version::ALL[number % 3];
        let mut client = broker
            .connect(Connect::new(version, &format!("subscriber {number}")))
            .await;
        client
            .subscribe_to(["t", "+", "#"][number / 3 % 3], (number / 9 % 3) as u8)
            .await;
        subscribers.push(client);
    }
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "for all", 2).await;
    for (number, client) in subscribers.iter_mut().enumerate() {
        assert_eq!(
            usize::from(client.receive_exactly("t", "for all").await.qos),
            number / 9 % 3
        );
        client.expect_nothing().await;
    }
}

/// A client that is gone receives nothing, and its end is no trouble for the others.
#[tokio::test]
async fn a_subscription_ends_with_its_session() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.subscribe_to("t", 1).await;
        client.disconnect().await;
        let mut client = broker.connect(Connect::new(version, "a").resume()).await;
        assert!(!client.connack.session_present);
        client.publish_text("t", "x", 1).await;
        client.expect_nothing().await;
    }
}

/// Subscribing and unsubscribing many times leaves nothing behind.
#[tokio::test]
async fn subscribe_and_unsubscribe_many_times() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    for round in 0..100 {
        let filter = ["t/+", "t/#", "t/x"][round % 3];
        client.subscribe_to(filter, 1).await;
        client.publish_text("t/x", "x", 1).await;
        client.receive_exactly("t/x", "x").await;
        assert_eq!(client.unsubscribe(&[filter]).await, [Reason::SUCCESS]);
    }
    client.publish_text("t/x", "x", 1).await;
    client.expect_nothing().await;
}
