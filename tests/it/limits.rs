//! Limits: everything that a peer can make the broker keep has one, and a named outcome when it is
//! reached.

use crate::harness::*;

/// A connection beyond the limit is refused as server busy or unavailable; one that ends makes
/// room.
#[tokio::test]
async fn connections_are_limited() {
    let broker = Broker::with("limits.connections_max = 2").await;
    let _first = broker.client("first").await;
    let second = broker.client("second").await;
    for version in Version::ALL {
        let mut third = broker.open(version).await;
        third.send(Connect::new(version, "third")).await;
        expect_turned_away(&mut third).await;
    }
    second.disconnect().await;
    connect_in_time(&broker, "third").await;
}

/// The same for one address.
#[tokio::test]
async fn connections_per_address_are_limited() {
    let broker = Broker::with("limits.connections_per_address_max = 2").await;
    let _first = broker.client("first").await;
    let second = broker.client("second").await;
    let mut third = broker.open(Version::V5).await;
    third.send(Connect::v5("third")).await;
    expect_turned_away(&mut third).await;
    second.disconnect().await;
    connect_in_time(&broker, "third").await;
}

/// Turned away before its CONNECT was read, or answered that the broker has no room.
async fn expect_turned_away(client: &mut Client) {
    match client.next_or_closed().await {
        None => {}
        Some(Packet::ConnAck(connack)) => {
            let reasons = [
                Reason::SERVER_UNAVAILABLE,
                Reason::SERVER_BUSY,
                Reason::QUOTA_EXCEEDED,
                Reason(3),
            ];
            assert!(reasons.contains(&connack.reason), "{connack:?}");
            client.expect_closed().await;
        }
        other => client.fail(&format!("{other:?}")),
    }
}

/// The end of a connection is noticed on its own time: tries until there is room.
async fn connect_in_time(broker: &Broker, id: &str) -> Client {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let mut client = broker.open(Version::V5).await;
        client.send(Connect::v5(id)).await;
        match client.next_or_closed().await {
            Some(Packet::ConnAck(connack)) if connack.reason == Reason::SUCCESS => return client,
            other => assert!(tokio::time::Instant::now() < end, "still {other:?}"),
        }
        tokio::task::yield_now().await;
    }
}

/// Who does not send CONNECT in time is closed: silent, or dripping a byte now and then.
#[tokio::test]
async fn connect_has_a_deadline() {
    let broker = Broker::with(r#"mqtt.connect_timeout = "1s""#).await;
    let mut silent = broker.open(Version::V5).await;
    let mut partial = broker.open(Version::V5).await;
    let connect = Connect::v5("a").bytes();
    partial.send_bytes(&connect[..connect.len() - 1]).await;
    let mut header = broker.open(Version::V5).await;
    header.send_bytes(&[0x10, 0xff]).await;
    for client in [&mut silent, &mut partial, &mut header] {
        client.expect_closed().await;
    }
    broker.client("in time").await;
}

/// The deadline is for CONNECT, not for the connection.
#[tokio::test]
async fn the_deadline_ends_with_connect() {
    let broker = Broker::with(r#"mqtt.connect_timeout = "1s""#).await;
    let mut client = broker.client("a").await;
    let mut silent = broker.open(Version::V5).await;
    silent.expect_closed().await;
    client.expect_nothing().await;
}

/// Half-open connections have their own limit and do not keep others out for longer than their
/// deadline.
#[tokio::test]
async fn pending_connections_are_limited() {
    let broker =
        Broker::with("limits.connections_pending_max = 3\nmqtt.connect_timeout = '1s'").await;
    let mut pending = Vec::new();
    for _ in 0..10 {
        pending.push(broker.open(Version::V5).await);
    }
    connect_in_time(&broker, "a").await;
    for mut client in pending {
        client.wait_until_closed().await;
    }
}

/// A topic longer or deeper than allowed is not a valid name here: 0x90, and 0x8F for filters.
#[tokio::test]
async fn topics_are_limited_in_length_and_depth() {
    let broker = Broker::with("limits.topic_bytes_max = 20\nlimits.topic_levels_max = 4").await;
    let mut client = broker.client("a").await;
    let (longest, deepest) = ("x".repeat(20), "a/b/c/d");
    for name in [longest.as_str(), deepest, "///"] {
        client.subscribe_to(name, 1).await;
        client.publish_text(name, "x", 1).await;
        client.receive_exactly(name, "x").await;
    }
    let too_long = "x".repeat(21);
    for name in [too_long.as_str(), "a/b/c/d/e", "////"] {
        assert_eq!(
            client.subscribe(Subscribe::new([(name, 1)])).await,
            [Reason::TOPIC_FILTER_INVALID],
            "{name}"
        );
        for qos in 1..=2 {
            assert_eq!(
                client.publish(Publish::new(name, "x").qos(qos)).await,
                Reason::TOPIC_NAME_INVALID,
                "{name}"
            );
        }
    }
    client.expect_nothing().await;
    client.publish_text(deepest, "x", 1).await;
    client.receive_exactly(deepest, "x").await;
}

/// A topic and a filter of 65,000 slashes harm nobody. (CVE-2019-11779.)
#[tokio::test]
async fn topics_of_thousands_of_levels_are_survived() {
    for settings in ["", "limits.topic_levels_max = 65535"] {
        let broker = Broker::with(settings).await;
        let mut witness = broker.client("witness").await;
        witness.subscribe_to("+/+/#", 1).await;
        let slashes = "/".repeat(65_000);
        let pluses = format!("{}#", "+/".repeat(30_000));
        for version in Version::ALL {
            let mut client = broker.connect(Connect::new(version, "a")).await;
            for filter in [&slashes, &pluses] {
                client
                    .subscribe(Subscribe::new([(filter.as_str(), 1)]))
                    .await;
            }
            client.send(Publish::new(&slashes, "x").retain()).await;
            client.send(Disconnect::new(Reason::SUCCESS)).await;
            client.wait_until_closed().await;
        }
        witness.fence().await;
        let mut client = broker.client("b").await;
        client.subscribe_to("#", 1).await;
        client.fence().await;
        broker
            .client("c")
            .await
            .publish_text("still/alive", "x", 1)
            .await;
        witness
            .take("the last message", |packet| match packet {
                Packet::Publish(publish) if publish.topic == "still/alive" => Some(()),
                _ => None,
            })
            .await;
    }
}

/// Subscriptions of one session: quota exceeded, each for itself; unsubscribing makes room.
#[tokio::test]
async fn subscriptions_of_a_session_are_limited() {
    let broker = Broker::with("limits.subscriptions_per_session_max = 3").await;
    let mut client = broker.client("a").await;
    let reasons = client
        .subscribe(Subscribe::new([
            ("a", 1),
            ("b", 1),
            ("$share/g/c", 1),
            ("d", 1),
            ("e", 1),
        ]))
        .await;
    assert_eq!(
        reasons,
        [
            Reason(1),
            Reason(1),
            Reason(1),
            Reason::QUOTA_EXCEEDED,
            Reason::QUOTA_EXCEEDED
        ]
    );
    // One that exists may be replaced.
    client.subscribe_to("a", 2).await;
    client.unsubscribe(&["b"]).await;
    client.subscribe_to("d", 1).await;
    let mut other = broker.connect(Connect::v311("b")).await;
    let reasons = other
        .subscribe(Subscribe::new([("a", 1), ("b", 1), ("c", 1), ("d", 1)]))
        .await;
    assert_eq!(reasons, [Reason(1), Reason(1), Reason(1), Reason(0x80)]);
}

/// Subscriptions in all.
#[tokio::test]
async fn subscriptions_in_all_are_limited() {
    let broker = Broker::with("limits.subscriptions_max = 3").await;
    let mut first = broker.client("first").await;
    let mut second = broker.client("second").await;
    first.subscribe(Subscribe::new([("a", 1), ("b", 1)])).await;
    let reasons = second.subscribe(Subscribe::new([("a", 1), ("b", 1)])).await;
    assert_eq!(reasons, [Reason(1), Reason::QUOTA_EXCEEDED]);
    first.disconnect().await;
    // Its subscriptions go with its session.
    loop {
        if second.subscribe(Subscribe::new([("b", 1)])).await == [Reason(1)] {
            break;
        }
    }
}

/// User Properties in one packet, wherever they may stand.
#[tokio::test]
async fn user_properties_are_limited() {
    let broker = Broker::with("limits.user_properties_max = 5").await;
    let properties = |count: usize| vec![Property::user("a", "b"); count];
    let mut client = broker.client("a").await;
    client.subscribe_to("t", 1).await;
    let mut publish = Publish::new("t", "x").qos(1);
    publish.properties = properties(5);
    client.publish(publish.clone()).await;
    assert_eq!(user_properties(&client.receive().await.properties).len(), 5);

    publish.properties = properties(6);
    client.send(publish.id(1)).await;
    expect_too_many(&mut client).await;

    let mut client = broker.client("a").await;
    let mut subscribe = Subscribe::new([("t", 1)]);
    subscribe.packet_id = 1;
    subscribe.properties = properties(6);
    client.send(subscribe).await;
    expect_too_many(&mut client).await;

    let mut client = broker.open(Version::V5).await;
    let mut connect = Connect::v5("a");
    connect.properties = properties(6);
    client.send(connect).await;
    let connack = client.expect_connack().await;
    assert!(connack.reason.is_error(), "{connack:?}");
    client.expect_closed().await;

    let mut client = broker.open(Version::V5).await;
    let mut will = Will::new("will", "x");
    will.properties = properties(6);
    client.send(Connect::v5("a").will(will)).await;
    let connack = client.expect_connack().await;
    assert!(connack.reason.is_error(), "{connack:?}");
    client.expect_closed().await;
}

async fn expect_too_many(client: &mut Client) {
    match client.next().await {
        Packet::Disconnect(disconnect) => assert!(
            matches!(
                disconnect.reason,
                Reason::QUOTA_EXCEEDED
                    | Reason::IMPLEMENTATION_SPECIFIC
                    | Reason::ADMINISTRATIVE_ACTION
                    | Reason::PACKET_TOO_LARGE
            ),
            "{disconnect:?}"
        ),
        other => client.fail(&format!("{other:?}")),
    }
    client.expect_closed().await;
}

async fn absent_session(broker: &Broker, id: &str) {
    let mut client = broker.connect(Connect::v5(id).persistent()).await;
    client.subscribe_to("t", 1).await;
    client.disconnect().await;
}

/// The messages that `id` finds when it returns, `at_least` so many. They are read back from the
/// store while the connection goes on, so a fence alone would not wait for them.
async fn backlog(broker: &Broker, id: &str, at_least: usize) -> Vec<String> {
    let mut client = broker.connect(Connect::v5(id).persistent()).await;
    assert!(client.connack.session_present);
    let mut found = Vec::new();
    let mut fenced = false;
    loop {
        if found.len() >= at_least && !fenced {
            client.send(Packet::PingReq).await;
            fenced = true;
        }
        match client.next().await {
            Packet::Publish(publish) => {
                client.acknowledge(&publish).await;
                found.push(publish.text().to_owned());
            }
            Packet::PingResp if fenced => return found,
            other => client.fail(&format!("{other:?}")),
        }
    }
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// The queue of an absent session: beyond its length the newest are dropped by default.
#[tokio::test]
async fn a_full_queue_drops_the_newest() {
    let broker = Broker::with("limits.queue_messages_max = 10").await;
    absent_session(&broker, "absent").await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..15 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    assert_eq!(backlog(&broker, "absent", 10).await, numbers(0..10));
    publisher.publish_text("t", "room again", 1).await;
    assert_eq!(backlog(&broker, "absent", 1).await, ["room again"]);
}

/// Or the oldest, if that is configured.
#[tokio::test]
async fn a_full_queue_may_drop_the_oldest() {
    let broker =
        Broker::with("limits.queue_messages_max = 10\nlimits.queue_full = 'drop_oldest'").await;
    absent_session(&broker, "absent").await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..15 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    assert_eq!(backlog(&broker, "absent", 10).await, numbers(5..15));
}

/// The limit in bytes works alike.
#[tokio::test]
async fn a_queue_is_limited_in_bytes() {
    let broker = Broker::with("limits.queue_bytes_max = '64KiB'").await;
    absent_session(&broker, "absent").await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..100 {
        publisher
            .publish_text("t", &format!("{number:010000}"), 1)
            .await;
    }
    let found = backlog(&broker, "absent", 4).await;
    assert!(
        (4..=7).contains(&found.len()),
        "{} messages of 10,000 bytes in 64 KiB",
        found.len()
    );
    for (number, text) in found.iter().enumerate() {
        assert_eq!(text.parse(), Ok(number), "the oldest stay, in order");
    }
}

/// One full queue is nobody else's business.
#[tokio::test]
async fn a_full_queue_hurts_only_its_session() {
    let broker = Broker::with("limits.queue_messages_max = 10").await;
    absent_session(&broker, "absent").await;
    let mut reader = broker.client("reader").await;
    reader.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..100 {
        publisher.publish_text("t", &number.to_string(), 1).await;
        reader.receive_exactly("t", &number.to_string()).await;
    }
}

/// A connected client that does not acknowledge: disconnected if so configured, with quota
/// exceeded.
#[tokio::test]
async fn a_full_queue_may_disconnect() {
    let broker =
        Broker::with("limits.queue_messages_max = 10\nlimits.queue_full = 'disconnect'").await;
    let mut slow = broker
        .connect(Connect::v5("slow").property(Property::ReceiveMaximum(1)))
        .await;
    slow.subscribe_to("t", 1).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..50 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    loop {
        match slow.next().await {
            Packet::Publish(_) => {}
            Packet::Disconnect(disconnect) => {
                break assert_eq!(disconnect.reason, Reason::QUOTA_EXCEEDED);
            }
            other => slow.fail(&format!("{other:?}")),
        }
    }
    slow.expect_closed().await;
}

/// A client that reads nothing at all costs its own QoS 0 messages and no more; the others get
/// everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_hurts_only_itself() {
    let broker =
        Broker::with("limits.mailbox_bytes_max = '256KiB'\nlimits.mailbox_messages_max = 1000")
            .await;
    let mut stuck = broker.client("stuck").await;
    stuck.subscribe_to("t", 0).await;
    let mut reader = broker.client("reader").await;
    reader.subscribe_to("t", 0).await;
    let mut publisher = broker.client("publisher").await;
    let payload = "x".repeat(10_000);
    for _ in 0..3000 {
        publisher.send(Publish::new("t", &payload)).await;
        assert_eq!(reader.receive().await.payload.len(), 10_000);
    }
    // It reads again: what was kept for it, fewer than there were, and then what is new.
    publisher.publish_text("t", "the end", 0).await;
    reader.receive_exactly("t", "the end").await;
    stuck.fence().await;
    publisher.publish_text("t", "fresh", 0).await;
    stuck
        .take("the fresh message", |packet| match packet {
            Packet::Publish(publish) if publish.payload == b"fresh" => Some(()),
            _ => None,
        })
        .await;
}

/// The same with QoS 1: up to the queue's limit nothing is lost, whatever the mailbox holds.
#[tokio::test]
async fn a_small_mailbox_loses_no_qos_1_message() {
    let broker =
        Broker::with("limits.mailbox_bytes_max = '4KiB'\nlimits.mailbox_messages_max = 5").await;
    for (connect, qos) in [
        (Connect::v5("a"), 1),
        (Connect::v5("b").persistent(), 2),
        (Connect::v311("c"), 1),
    ] {
        let mut slow = broker.connect(connect).await;
        slow.subscribe_to("t", qos).await;
        let mut publisher = broker.client("publisher").await;
        for number in 0..300 {
            publisher
                .publish_text("t", &format!("{number:0100}"), qos)
                .await;
        }
        for number in 0..300 {
            slow.receive_exactly("t", &format!("{number:0100}")).await;
        }
        slow.expect_nothing().await;
        slow.disconnect().await;
    }
}

/// Retained messages beyond the number are refused with quota exceeded; known topics can still be
/// replaced and removed.
#[tokio::test]
async fn retained_messages_are_limited() {
    let broker = Broker::with("limits.retained_messages_max = 2\nsys.interval = '0s'").await;
    let mut client = broker.client("a").await;
    client.publish(Publish::new("a", "1").qos(1).retain()).await;
    client.publish(Publish::new("b", "1").qos(1).retain()).await;
    assert_eq!(
        client.publish(Publish::new("c", "1").qos(1).retain()).await,
        Reason::QUOTA_EXCEEDED
    );
    assert!(
        !client
            .publish(Publish::new("a", "2").qos(1).retain())
            .await
            .is_error()
    );
    assert!(
        !client
            .publish(Publish::new("a", "").qos(1).retain())
            .await
            .is_error()
    );
    assert!(
        !client
            .publish(Publish::new("c", "3").qos(1).retain())
            .await
            .is_error()
    );
    client.subscribe_to("+", 1).await;
    let mut found = [client.receive().await, client.receive().await]
        .map(|publish| publish.topic + "=" + &String::from_utf8_lossy(&publish.payload));
    found.sort();
    assert_eq!(found, ["b=1", "c=3"]);
    client.expect_nothing().await;
}

/// And beyond their bytes.
#[tokio::test]
async fn retained_bytes_are_limited() {
    let broker = Broker::with("limits.retained_bytes_max = '10KiB'\nsys.interval = '0s'").await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("a", "x".repeat(6000)).qos(1).retain())
        .await;
    assert_eq!(
        client
            .publish(Publish::new("b", "x".repeat(6000)).qos(1).retain())
            .await,
        Reason::QUOTA_EXCEEDED
    );
    assert!(
        !client
            .publish(Publish::new("a", "x".repeat(100)).qos(1).retain())
            .await
            .is_error()
    );
    assert!(
        !client
            .publish(Publish::new("b", "x".repeat(6000)).qos(1).retain())
            .await
            .is_error()
    );
}

/// Sessions beyond the limit are refused; a session that ends makes room.
#[tokio::test]
async fn sessions_are_limited() {
    let broker = Broker::with("limits.sessions_max = 2").await;
    broker
        .connect(Connect::v5("first").persistent())
        .await
        .disconnect()
        .await;
    broker
        .connect(Connect::v5("second").persistent())
        .await
        .disconnect()
        .await;
    for version in Version::ALL {
        let mut third = broker.open(version).await;
        third.send(Connect::new(version, "third")).await;
        expect_turned_away(&mut third).await;
    }
    // Those that exist are welcome back, and may end theirs.
    broker
        .connect(Connect::v5("first"))
        .await
        .disconnect()
        .await;
    connect_in_time(&broker, "third").await;
}

/// Delayed wills beyond their limit are published at once.
#[tokio::test]
async fn delayed_wills_are_limited() {
    let broker = Broker::with("limits.wills_max = 0").await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("will", 1).await;
    let connect = Connect::v5("a")
        .persistent()
        .will(Will::new("will", "at once").delay(3600));
    broker.connect(connect).await.lose().await;
    witness.receive_exactly("will", "at once").await;
}
