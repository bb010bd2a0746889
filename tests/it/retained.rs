//! Retained messages: kept, replaced, removed, and delivered to who subscribes.

use crate::harness::*;

/// A retained message comes with RETAIN 1 to each new subscription that matches it.
/// [MQTT-3.3.1-5] [MQTT-3.3.1-9] [MQTT311-3.3.1-5] [MQTT311-3.3.1-6] [MQTT311-3.3.1-8]
#[tokio::test]
async fn a_new_subscription_receives_the_retained_message() {
    let broker = Broker::start().await;
    for from in Version::ALL {
        for qos in 0..=2 {
            let mut publisher = broker.connect(Connect::new(from, "publisher")).await;
            publisher
                .publish(Publish::new("t/x", "kept").qos(qos).retain())
                .await;
            publisher.disconnect().await;
            for to in Version::ALL {
                for filter in ["t/x", "t/+", "t/#", "#", "t/x/#", "+/x"] {
                    let mut subscriber = broker.connect(Connect::new(to, "subscriber")).await;
                    subscriber.subscribe_to(filter, 1).await;
                    let publish = subscriber.receive_exactly("t/x", "kept").await;
                    assert_eq!(
                        (publish.retain, publish.dup, publish.qos),
                        (true, false, qos.min(1))
                    );
                    subscriber.expect_nothing().await;
                }
            }
        }
    }
}

/// The last one holds, also when its QoS is smaller. [MQTT-3.3.1-5] [MQTT311-3.3.1-7]
#[tokio::test]
async fn the_last_retained_message_replaces_the_one_before() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    for (payload, qos) in [("1", 1), ("2", 2), ("3", 0)] {
        client
            .publish(Publish::new("t", payload).qos(qos).retain())
            .await;
    }
    client.subscribe_to("t", 2).await;
    assert_eq!(client.receive_exactly("t", "3").await.qos, 0);
    client.expect_nothing().await;
}

/// An empty payload removes what was retained, goes to subscribers as it is, and is not retained
/// itself. [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT311-3.3.1-10] [MQTT311-3.3.1-11]
#[tokio::test]
async fn an_empty_payload_removes_the_retained_message() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut live = broker.connect(Connect::new(version, "live")).await;
        live.subscribe_to("t", 2).await;
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        publisher
            .publish(Publish::new("t", "kept").qos(1).retain())
            .await;
        live.receive_exactly("t", "kept").await;
        publisher
            .publish(Publish::new("t", "").qos(1).retain())
            .await;
        assert!(!live.receive_exactly("t", "").await.retain);
        publisher.subscribe_to("t", 1).await;
        publisher.expect_nothing().await;
        live.expect_nothing().await;
    }
}

/// A message without RETAIN neither replaces nor removes. [MQTT-3.3.1-8] [MQTT311-3.3.1-12]
#[tokio::test]
async fn other_messages_leave_the_retained_one_alone() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    client.publish_text("t", "passing", 1).await;
    client.publish_text("t", "", 1).await;
    client.subscribe_to("t", 1).await;
    client.receive_exactly("t", "kept").await;
    client.expect_nothing().await;
}

/// Retained messages are nobody's session state: they outlive the client that sent them.
/// [MQTT311-3.1.2-7]
#[tokio::test]
async fn retained_messages_outlive_their_publisher() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        publisher
            .publish(Publish::new("t", "kept").qos(1).retain())
            .await;
        publisher.lose().await;
        // A clean session of the same client does not clear it either.
        let mut publisher = broker.connect(Connect::new(version, "publisher")).await;
        publisher.subscribe_to("t", 1).await;
        publisher.receive_exactly("t", "kept").await;
    }
}

/// Version 3 has RETAIN 0 on what comes through an established subscription. [MQTT311-3.3.1-9]
#[tokio::test]
async fn v3_live_messages_have_retain_0() {
    let broker = Broker::start().await;
    for version in [Version::V31, Version::V311] {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client.subscribe_to("t", 1).await;
        client.publish(Publish::new("t", "x").qos(1).retain()).await;
        assert!(!client.receive_exactly("t", "x").await.retain);
        client.publish(Publish::new("t", "").qos(1).retain()).await;
        client.receive_exactly("t", "").await;
    }
}

/// Retain As Published decides about the RETAIN flag of live messages. [MQTT-3.3.1-12]
/// [MQTT-3.3.1-13]
#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let broker = Broker::start().await;
    let mut plain = broker.client("plain").await;
    plain.subscribe_with(Subscription::new("t", 1)).await;
    let mut faithful = broker.client("faithful").await;
    faithful
        .subscribe_with(Subscription::new("t", 1).retain_as_published())
        .await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .publish(Publish::new("t", "1").qos(1).retain())
        .await;
    publisher.publish(Publish::new("t", "2").qos(1)).await;
    for (client, expected) in [(&mut plain, [false, false]), (&mut faithful, [true, false])] {
        for (payload, retain) in [("1", expected[0]), ("2", expected[1])] {
            assert_eq!(client.receive_exactly("t", payload).await.retain, retain);
        }
    }
    // What a new subscription receives has RETAIN 1 in any case.
    let mut late = broker.client("late").await;
    late.subscribe_to("t", 1).await;
    assert!(late.receive_exactly("t", "1").await.retain);
}

/// Of overlapping subscriptions one with Retain As Published is enough to see the flag.
#[tokio::test]
async fn retain_as_published_of_one_overlapping_subscription() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client.subscribe_with(Subscription::new("t/#", 1)).await;
    client
        .subscribe_with(Subscription::new("t/x", 1).retain_as_published())
        .await;
    client
        .publish(Publish::new("t/x", "x").qos(1).retain())
        .await;
    assert!(client.receive_exactly("t/x", "x").await.retain);
    client.expect_nothing().await;
}

/// Retain Handling 0: with every SUBSCRIBE. [MQTT-3.3.1-9] [MQTT-3.8.4-4]
#[tokio::test]
async fn retain_handling_0_sends_each_time() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    for _ in 0..3 {
        client
            .subscribe_with(Subscription::new("t", 1).retain_handling(0))
            .await;
        client.receive_exactly("t", "kept").await;
        client.expect_nothing().await;
    }
}

/// Retain Handling 1: only with a subscription that is new. [MQTT-3.3.1-10]
#[tokio::test]
async fn retain_handling_1_sends_to_new_subscriptions() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    for _ in 0..2 {
        client
            .subscribe_with(Subscription::new("t", 1).retain_handling(1))
            .await;
        client.receive_exactly("t", "kept").await;
        client
            .subscribe_with(Subscription::new("t", 2).retain_handling(1))
            .await;
        client.expect_nothing().await;
        // Another filter is another subscription, even if it matches the same.
        client
            .subscribe_with(Subscription::new("t/#", 1).retain_handling(1))
            .await;
        client.receive_exactly("t", "kept").await;
        client.unsubscribe(&["t", "t/#"]).await;
    }
}

/// A resumed session has its subscriptions: with Retain Handling 1 they are not new.
/// [MQTT-3.3.1-10]
#[tokio::test]
async fn retain_handling_1_knows_resumed_subscriptions() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    client
        .subscribe_with(Subscription::new("t", 1).retain_handling(1))
        .await;
    client.receive_exactly("t", "kept").await;
    client.disconnect().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client
        .subscribe_with(Subscription::new("t", 1).retain_handling(1))
        .await;
    client.expect_nothing().await;
}

/// Retain Handling 2: never. [MQTT-3.3.1-11]
#[tokio::test]
async fn retain_handling_2_sends_nothing() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    for _ in 0..2 {
        client
            .subscribe_with(Subscription::new("t", 1).retain_handling(2))
            .await;
        client.expect_nothing().await;
    }
    client
        .publish(Publish::new("t", "live").qos(1).retain())
        .await;
    client.receive_exactly("t", "live").await;
}

/// Version 3 gets them again with each SUBSCRIBE. [MQTT311-3.8.4-3]
#[tokio::test]
async fn v3_subscribing_again_sends_again() {
    let broker = Broker::start().await;
    for version in [Version::V31, Version::V311] {
        let mut client = broker.connect(Connect::new(version, "a")).await;
        client
            .publish(Publish::new("t", "kept").qos(1).retain())
            .await;
        for _ in 0..2 {
            client.subscribe_to("t", 1).await;
            assert!(client.receive_exactly("t", "kept").await.retain);
        }
    }
}

/// No Local does not keep away what others have retained. [MQTT-3.8.3-3]
#[tokio::test]
async fn retained_messages_of_others_pass_no_local() {
    let broker = Broker::start().await;
    let mut other = broker.client("other").await;
    other
        .publish(Publish::new("t", "kept").qos(1).retain())
        .await;
    let mut client = broker.client("a").await;
    client
        .subscribe_with(Subscription::new("t", 1).no_local())
        .await;
    client.receive_exactly("t", "kept").await;
}

/// All properties of a retained message are kept with it.
#[tokio::test]
async fn retained_messages_keep_their_properties() {
    let broker = Broker::start().await;
    let properties = vec![
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain".into()),
        Property::ResponseTopic("answer".into()),
        Property::CorrelationData(vec![0, 255]),
        Property::user("b", "2"),
        Property::user("a", "1"),
    ];
    let mut publisher = broker.client("publisher").await;
    let mut publish = Publish::new("t", "kept").qos(1).retain();
    publish.properties = properties.clone();
    publisher.publish(publish).await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber
        .subscribe(Subscribe::new([("t", 1)]).identifier(5))
        .await;
    let received = subscriber.receive_exactly("t", "kept").await.properties;
    for property in &properties {
        assert!(received.contains(property), "{property:?} in {received:?}");
    }
    assert_eq!(user_properties(&received), [("b", "2"), ("a", "1")]);
    assert_eq!(
        subscription_identifiers(&received),
        [5],
        "the identifier of the subscription that asked"
    );
    assert_eq!(received.len(), properties.len() + 1);
}

/// A retained message with an alias is kept under its topic.
#[tokio::test]
async fn a_topic_alias_may_carry_a_retained_message() {
    let broker = Broker::start().await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .publish(
            Publish::new("t", "1")
                .qos(1)
                .property(Property::TopicAlias(3)),
        )
        .await;
    publisher
        .publish(
            Publish::new("", "2")
                .qos(1)
                .retain()
                .property(Property::TopicAlias(3)),
        )
        .await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("#", 1).await;
    let publish = subscriber.receive_exactly("t", "2").await;
    assert_eq!(publish.properties, []);
}

/// A retained message with an expiry is gone when it has passed, and says what is left before.
/// [MQTT-3.3.2-5]
#[tokio::test]
async fn retained_messages_expire() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(
            Publish::new("t/short", "x")
                .qos(1)
                .retain()
                .property(Property::MessageExpiryInterval(1)),
        )
        .await;
    client
        .publish(
            Publish::new("t/long", "x")
                .qos(1)
                .retain()
                .property(Property::MessageExpiryInterval(600)),
        )
        .await;
    elapse(1).await;
    client.subscribe_to("t/+", 1).await;
    let publish = client.receive_exactly("t/long", "x").await;
    let left = property!(publish.properties, MessageExpiryInterval).expect("it has one");
    assert!(
        (1..600).contains(&left),
        "one second has passed at least: {left}"
    );
    client.expect_nothing().await;
}

/// A subscription to many topics gets the retained messages of all of them.
#[tokio::test]
async fn a_wildcard_subscription_receives_all_retained_messages() {
    let broker = Broker::start().await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..500 {
        publisher
            .send(
                Publish::new(
                    &format!("floor/{}/room/{number}", number % 7),
                    number.to_string(),
                )
                .retain(),
            )
            .await;
    }
    publisher.fence().await;
    let mut subscriber = broker.client("subscriber").await;
    for (filter, count) in [
        ("floor/+/room/#", 500),
        ("floor/3/+/+", 71),
        ("floor/0/#", 72),
        ("+/+/+/499", 1),
        ("floor", 0),
    ] {
        subscriber.subscribe_to(filter, 1).await;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..count {
            let publish = subscriber.receive().await;
            assert!(publish.retain && seen.insert(publish.topic));
        }
        subscriber.expect_nothing().await;
    }
}

/// However many there are and however small the window: they are paced, and complete.
#[tokio::test]
async fn any_number_of_retained_messages_is_delivered_completely() {
    let broker =
        Broker::with("[limits]\nmailbox_messages_max = 100\nqueue_messages_max = 100").await;
    let mut publisher = broker.client("publisher").await;
    for chunk in 0..10u16 {
        publisher
            .send_all((1..=500).map(|id| {
                Publish::new(&format!("t/{chunk}/{id}"), "x")
                    .qos(1)
                    .id(id)
                    .retain()
                    .into()
            }))
            .await;
        for id in 1..=500 {
            publisher.expect_puback(id).await;
        }
    }
    for qos in 0..=2 {
        let mut subscriber = broker
            .connect(Connect::v5("subscriber").property(Property::ReceiveMaximum(3)))
            .await;
        subscriber.subscribe_to("t/#", qos).await;
        let mut seen = std::collections::HashSet::new();
        while seen.len() < 5000 {
            let publish = subscriber.receive().await;
            assert!(
                seen.insert(publish.topic.clone()),
                "{} twice",
                publish.topic
            );
        }
        subscriber.expect_nothing().await;
    }
}

/// What subscribers saw last is what is retained, whoever publishes at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn retained_state_agrees_with_what_subscribers_saw_last() {
    let broker = Broker::start().await;
    let mut subscribers = Vec::new();
    for name in ["one", "two"] {
        let mut client = broker.client(name).await;
        client.subscribe_to("t", 1).await;
        subscribers.push(client);
    }
    let mut publishers = Vec::new();
    for name in ["p", "q", "r"] {
        let mut client = broker.client(name).await;
        publishers.push(tokio::spawn(async move {
            for number in 0..100 {
                client
                    .publish(
                        Publish::new("t", format!("{name} {number}"))
                            .qos(1)
                            .retain(),
                    )
                    .await;
            }
        }));
    }
    let mut last = Vec::new();
    for subscriber in &mut subscribers {
        for _ in 0..299 {
            subscriber.receive().await;
        }
        last.push(subscriber.receive().await.text().to_owned());
    }
    for publisher in publishers {
        publisher.await.expect("publishes");
    }
    let mut late = broker.client("late").await;
    late.subscribe_to("t", 1).await;
    last.push(late.receive().await.text().to_owned());
    assert!(last.iter().all(|text| *text == last[0]), "{last:?}");
}
