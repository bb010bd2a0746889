//! The end of sessions, wills, and a store that forgets.

use std::collections::BTreeSet;

use super::*;

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
