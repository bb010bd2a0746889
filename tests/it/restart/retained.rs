//! Retained Messages, and their replay.

use std::collections::BTreeSet;

use super::*;

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
