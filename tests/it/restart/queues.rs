//! What waits for absent clients.

use super::*;

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
