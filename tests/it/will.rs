//! Will Messages: what triggers them, what cancels them, when they are sent and what they carry.

use crate::harness::*;

async fn witness(broker: &Broker) -> Client {
    let mut witness = broker.client("witness").await;
    witness
        .subscribe_with(Subscription::new("#", 2).retain_as_published())
        .await;
    witness
}

/// A connection that ends without DISCONNECT publishes the will. [MQTT-3.1.2-8] [MQTT311-3.1.2-8]
#[tokio::test]
async fn a_lost_connection_publishes_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        for qos in 0..=2 {
            let will = Will::new("will", "gone").qos(qos);
            broker
                .connect(Connect::new(version, "a").will(will))
                .await
                .lose()
                .await;
            let publish = witness.receive_exactly("will", "gone").await;
            assert_eq!(
                (publish.qos, publish.retain, publish.dup),
                (qos, false, false)
            );
        }
    }
    witness.expect_nothing().await;
}

/// A normal DISCONNECT deletes it. [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT311-3.14.4-3]
/// [MQTT311-3.1.2-10]
#[tokio::test]
async fn a_normal_disconnect_deletes_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        broker
            .connect(Connect::new(version, "a").will(Will::new("will", "never")))
            .await
            .disconnect()
            .await;
    }
    witness.expect_nothing().await;
}

/// DISCONNECT with any other reason, 0x04 before all, publishes it.
#[tokio::test]
async fn v5_disconnect_with_another_reason_publishes_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for reason in [
        0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ] {
        let client = broker
            .connect(Connect::v5("a").will(Will::new("will", "gone")))
            .await;
        client
            .disconnect_with(Disconnect::new(Reason(reason)))
            .await;
        witness.receive_exactly("will", "gone").await;
    }
    witness.expect_nothing().await;
}

/// The end of Keep Alive publishes it. [MQTT-3.1.2-22] [MQTT-3.1.2-8]
#[tokio::test]
async fn keep_alive_timeout_publishes_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        let will = Will::new("will", "silent");
        let mut client = broker
            .connect(Connect::new(version, "a").keep_alive(1).will(will))
            .await;
        client.expect_refused(Reason::KEEP_ALIVE_TIMEOUT).await;
        witness.receive_exactly("will", "silent").await;
    }
}

/// A close by the broker because of the client's mistake publishes it.
#[tokio::test]
async fn a_protocol_error_publishes_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        let mut client = broker
            .connect(Connect::new(version, "a").will(Will::new("will", "wrong")))
            .await;
        client.send(Connect::new(version, "a")).await;
        client.expect_refused(Reason::PROTOCOL_ERROR).await;
        witness.receive_exactly("will", "wrong").await;
    }
    witness.expect_nothing().await;
}

/// A takeover closes the old connection without DISCONNECT: its will is published.
#[tokio::test]
async fn a_takeover_publishes_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        let mut old = broker
            .connect(Connect::new(version, "a").will(Will::new("will", "old")))
            .await;
        let _new = broker.connect(Connect::new(version, "a")).await;
        old.expect_refused(Reason::SESSION_TAKEN_OVER).await;
        witness.receive_exactly("will", "old").await;
    }
    witness.expect_nothing().await;
}

/// Each connection has its own will; one without has none. [MQTT-3.1.2-7] [MQTT311-3.1.2-12]
#[tokio::test]
async fn the_will_belongs_to_the_connection() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    for version in Version::ALL {
        let persistent = |will: Option<&str>| {
            let mut connect = Connect::new(version, "a").persistent();
            connect.will = will.map(|text| Will::new("will", text));
            connect
        };
        broker
            .connect(persistent(Some("first")))
            .await
            .disconnect()
            .await;
        broker.connect(persistent(None)).await.lose().await;
        broker
            .connect(persistent(Some("second")))
            .await
            .lose()
            .await;
        witness.receive_exactly("will", "second").await;
        broker.connect(persistent(None)).await.lose().await;
    }
    witness.expect_nothing().await;
}

/// Will Retain says whether it is retained. [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT311-3.1.2-16]
/// [MQTT311-3.1.2-17]
#[tokio::test]
async fn will_retain_decides_whether_it_is_retained() {
    let broker = Broker::start().await;
    for version in Version::ALL {
        let mut witness = witness(&broker).await;
        let client = broker
            .connect(Connect::new(version, "a").will(Will::new("passing", "x").qos(1)))
            .await;
        client.lose().await;
        assert!(!witness.receive_exactly("passing", "x").await.retain);
        let client = broker
            .connect(Connect::new(version, "a").will(Will::new("kept", "x").qos(1).retain()))
            .await;
        client.lose().await;
        assert!(witness.receive_exactly("kept", "x").await.retain);
        let mut late = broker.client("late").await;
        late.subscribe_to("#", 1).await;
        late.receive_exactly("kept", "x").await;
        late.expect_nothing().await;
        late.publish(Publish::new("kept", "").retain()).await;
    }
}

/// A retained will with an empty payload removes what was retained.
#[tokio::test]
async fn an_empty_retained_will_removes_the_retained_message() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .publish(Publish::new("status", "online").qos(1).retain())
        .await;
    broker
        .connect(Connect::v5("b").will(Will::new("status", "").retain()))
        .await
        .lose()
        .await;
    client.subscribe_to("status", 1).await;
    client.expect_nothing().await;
}

/// The properties of a will are those of its message. [MQTT-3.1.3-10]
#[tokio::test]
async fn will_properties_are_forwarded() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let properties = [
        Property::PayloadFormatIndicator(1),
        Property::ContentType("text/plain".into()),
        Property::ResponseTopic("answer".into()),
        Property::CorrelationData(vec![1, 0, 2]),
        Property::user("z", "1"),
        Property::user("a", "2"),
        Property::user("z", "3"),
    ];
    let mut will = Will::new("will", "gone")
        .property(Property::MessageExpiryInterval(600))
        .delay(0);
    will.properties.extend(properties.clone());
    broker
        .connect(Connect::v5("a").will(will))
        .await
        .lose()
        .await;
    let received = witness.receive_exactly("will", "gone").await.properties;
    for property in &properties {
        assert!(received.contains(property), "{property:?} in {received:?}");
    }
    assert_eq!(
        user_properties(&received),
        [("z", "1"), ("a", "2"), ("z", "3")]
    );
    assert!(property!(received, MessageExpiryInterval).is_some_and(|left| left <= 600));
    assert_eq!(
        received.len(),
        properties.len() + 1,
        "no Will Delay Interval: {received:?}"
    );
}

/// A will payload is bytes, up to the 65,535 that its length can say.
#[tokio::test]
async fn a_will_may_be_large_and_binary() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let payload: Vec<u8> = (0..60_000).map(|index| index as u8).collect();
    for version in Version::ALL {
        broker
            .connect(Connect::new(version, "a").will(Will::new("will", &payload).qos(1)))
            .await
            .lose()
            .await;
        assert!(witness.receive().await.payload == payload);
    }
}

/// The will of a client whose session lives is sent when its delay is over, not before.
/// [MQTT-3.1.2-8]
#[tokio::test]
async fn a_delayed_will_is_sent_after_its_delay() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let client = broker
        .connect(
            Connect::v5("a")
                .persistent()
                .will(Will::new("will", "late").delay(1)),
        )
        .await;
    let lost = std::time::Instant::now();
    client.lose().await;
    witness.expect_nothing().await;
    witness.receive_exactly("will", "late").await;
    assert!(
        lost.elapsed().as_millis() >= 900,
        "sent after {:?}",
        lost.elapsed()
    );
    witness.expect_nothing().await;
}

/// Who comes back within the delay keeps it quiet. [MQTT-3.1.3-9]
#[tokio::test]
async fn returning_within_the_delay_cancels_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let delayed = |id: &str, text: &str| {
        Connect::v5(id)
            .persistent()
            .will(Will::new("will", text).delay(1))
    };
    broker
        .connect(delayed("returns", "never"))
        .await
        .lose()
        .await;
    let mut returned = broker.connect(Connect::v5("returns").persistent()).await;
    assert!(returned.connack.session_present);
    // The other's delay begins later, so when its will comes, the first's time is over as well.
    broker
        .connect(delayed("stays away", "gone"))
        .await
        .lose()
        .await;
    witness.receive_exactly("will", "gone").await;
    witness.expect_nothing().await;
    returned.expect_nothing().await;
}

/// A takeover is a new connection within the delay: the old one's delayed will is not sent.
/// [MQTT-3.1.3-9]
#[tokio::test]
async fn a_takeover_within_the_delay_cancels_the_will() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let delayed = |id: &str, text: &str| {
        Connect::v5(id)
            .persistent()
            .will(Will::new("will", text).delay(1))
    };
    let mut old = broker.connect(delayed("a", "never")).await;
    let mut new = broker.connect(Connect::v5("a").persistent()).await;
    old.expect_disconnect(Reason::SESSION_TAKEN_OVER).await;
    broker.connect(delayed("b", "gone")).await.lose().await;
    witness.receive_exactly("will", "gone").await;
    witness.expect_nothing().await;
    new.expect_nothing().await;
}

/// A delayed will does not outlive its session: it is sent when that expires. [MQTT-3.1.2-8]
#[tokio::test]
async fn a_delayed_will_is_sent_when_the_session_expires_first() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let connect = Connect::v5("a")
        .session_expiry(1)
        .will(Will::new("will", "over").delay(3600));
    broker.connect(connect).await.lose().await;
    witness.receive_exactly("will", "over").await;
    let again = broker.connect(Connect::v5("a").resume()).await;
    assert!(!again.connack.session_present);
    drop(again);
    witness.expect_nothing().await;
}

/// Without a session to wait for there is no delay.
#[tokio::test]
async fn a_delayed_will_is_sent_at_once_when_the_session_ends_with_the_connection() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    broker
        .connect(Connect::v5("a").will(Will::new("will", "at once").delay(3600)))
        .await
        .lose()
        .await;
    witness.receive_exactly("will", "at once").await;
}

/// A Clean Start ends the old session, and with it the wait of its will. [MQTT-3.1.2-8]
#[tokio::test]
async fn a_clean_start_sends_the_delayed_will_of_the_old_session() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let connect = Connect::v5("a")
        .persistent()
        .will(Will::new("will", "old").delay(3600));
    broker.connect(connect).await.lose().await;
    witness.expect_nothing().await;
    let new = broker.connect(Connect::v5("a")).await;
    assert!(!new.connack.session_present);
    witness.receive_exactly("will", "old").await;
    witness.expect_nothing().await;
}

/// DISCONNECT 0x04 respects the delay, and may end the session and the wait with it.
#[tokio::test]
async fn disconnect_with_will_and_expiry_0_sends_it_at_once() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let client = broker
        .connect(
            Connect::v5("a")
                .persistent()
                .will(Will::new("will", "now").delay(3600)),
        )
        .await;
    let disconnect =
        Disconnect::new(Reason::DISCONNECT_WITH_WILL).property(Property::SessionExpiryInterval(0));
    client.disconnect_with(disconnect).await;
    witness.receive_exactly("will", "now").await;
    witness.expect_nothing().await;
}

/// A will that was deleted by DISCONNECT does not come back when the session expires.
/// [MQTT-3.1.2-10]
#[tokio::test]
async fn a_deleted_will_stays_deleted_when_the_session_expires() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    let connect = |id: &str, text: &str| {
        Connect::v5(id)
            .session_expiry(1)
            .will(Will::new("will", text).delay(60))
    };
    broker
        .connect(connect("a", "never"))
        .await
        .disconnect()
        .await;
    broker.connect(connect("b", "gone")).await.lose().await;
    witness.receive_exactly("will", "gone").await;
    witness.expect_nothing().await;
}

/// A will that has been sent is not sent again when its session ends later. [MQTT-3.1.2-10]
#[tokio::test]
async fn a_will_is_sent_once() {
    let broker = Broker::start().await;
    let mut witness = witness(&broker).await;
    broker
        .connect(
            Connect::v5("a")
                .session_expiry(1)
                .will(Will::new("will", "a")),
        )
        .await
        .lose()
        .await;
    witness.receive_exactly("will", "a").await;
    let sentinel = Will::new("will", "b").delay(60);
    broker
        .connect(Connect::v5("b").session_expiry(1).will(sentinel))
        .await
        .lose()
        .await;
    witness.receive_exactly("will", "b").await;
    witness.expect_nothing().await;
}

/// A will reaches a client that is away with a persistent session, like any message.
#[tokio::test]
async fn a_will_is_queued_for_absent_sessions() {
    let broker = Broker::start().await;
    let mut absent = broker.connect(Connect::v311("absent").persistent()).await;
    absent.subscribe_to("will", 2).await;
    absent.disconnect().await;
    broker
        .connect(Connect::v311("a").will(Will::new("will", "gone").qos(2)))
        .await
        .lose()
        .await;
    let mut absent = broker.connect(Connect::v311("absent").persistent()).await;
    assert_eq!(absent.receive_exactly("will", "gone").await.qos, 2);
}

/// A client that says goodbye and comes back at once has said goodbye, although the broker may
/// read its new CONNECT before the DISCONNECT of its old connection. [MQTT-3.1.2-10]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_goodbye_just_before_coming_back_counts() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("will", 1).await;
    for number in 0..300 {
        let will = Will::new("will", number.to_string());
        let mut client = broker.connect(Connect::v5("a").will(will)).await;
        client.send(Disconnect::new(Reason::SUCCESS)).await;
        drop(client);
    }
    witness.expect_nothing().await;
}
