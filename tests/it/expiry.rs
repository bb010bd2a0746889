//! Expiry: of sessions, which end some time after their connection, and of messages that wait too
//! long.

use crate::harness::*;

/// A session ends when its expiry has passed after the connection. [MQTT-4.1.0-2] [MQTT-3.1.2-23]
#[tokio::test]
async fn a_session_expires() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("will", 0).await;
    let mut client = broker
        .connect(
            Connect::v5("a")
                .session_expiry(1)
                .will(Will::new("will", "over").delay(60)),
        )
        .await;
    client.subscribe_to("t", 1).await;
    client.lose().await;
    witness
        .publish_text("t", "discarded with the session", 1)
        .await;
    // The will waits longer than the session, so it comes when the session ends.
    witness.receive_exactly("will", "over").await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    assert!(!client.connack.session_present);
    client.expect_nothing().await;
}

/// The expiry counts from the end of the connection: a session does not expire while it is in use.
/// [MQTT-4.1.0-1] [MQTT311-4.1.0-2]
#[tokio::test]
async fn a_session_in_use_does_not_expire() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").session_expiry(1)).await;
    client.subscribe_to("t", 1).await;
    elapse(2).await;
    client.publish_text("t", "x", 1).await;
    client.receive_exactly("t", "x").await;
    client.lose().await;
    let mut client = broker
        .connect(Connect::v5("a").session_expiry(1).resume())
        .await;
    assert!(client.connack.session_present);
    elapse(2).await;
    client.publish_text("t", "y", 1).await;
    client.receive_exactly("t", "y").await;
}

/// DISCONNECT may change the expiry: to 0, and the session ends now.
#[tokio::test]
async fn disconnect_may_end_the_session() {
    let broker = Broker::start().await;
    let client = broker.connect(Connect::v5("a").persistent()).await;
    let end = Disconnect::new(Reason::SUCCESS).property(Property::SessionExpiryInterval(0));
    client.disconnect_with(end).await;
    assert!(
        !broker
            .connect(Connect::v5("a").persistent())
            .await
            .connack
            .session_present
    );
}

/// Or to another time.
#[tokio::test]
async fn disconnect_may_change_the_session_expiry() {
    let broker = Broker::start().await;
    let mut witness = broker.client("witness").await;
    witness.subscribe_to("will", 0).await;
    let longer = Disconnect::new(Reason::SUCCESS).property(Property::SessionExpiryInterval(3600));
    broker
        .connect(Connect::v5("longer").session_expiry(1))
        .await
        .disconnect_with(longer)
        .await;
    let shorter =
        Disconnect::new(Reason::DISCONNECT_WITH_WILL).property(Property::SessionExpiryInterval(1));
    let connect = Connect::v5("shorter")
        .persistent()
        .will(Will::new("will", "over").delay(60));
    broker.connect(connect).await.disconnect_with(shorter).await;
    witness.receive_exactly("will", "over").await;
    assert!(
        !broker
            .connect(Connect::v5("shorter").persistent())
            .await
            .connack
            .session_present
    );
    assert!(
        broker
            .connect(Connect::v5("longer").persistent())
            .await
            .connack
            .session_present
    );
}

/// But a session without expiry cannot be given one at its end: a protocol error.
#[tokio::test]
async fn disconnect_may_not_revive_a_session_without_expiry() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client
        .send(Disconnect::new(Reason::SUCCESS).property(Property::SessionExpiryInterval(60)))
        .await;
    client.expect_disconnect(Reason::PROTOCOL_ERROR).await;
    assert!(
        !broker
            .connect(Connect::v5("a").persistent())
            .await
            .connack
            .session_present
    );
}

/// The broker has a maximum, and says what it really gives.
#[tokio::test]
async fn session_expiry_is_limited_and_told() {
    let broker = Broker::with(r#"mqtt.session_expiry_max = "1h""#).await;
    for (asked, told) in [
        (u32::MAX, Some(3600)),
        (7200, Some(3600)),
        (3600, None),
        (60, None),
        (0, None),
    ] {
        let client = broker.connect(Connect::v5("a").session_expiry(asked)).await;
        assert_eq!(
            property!(client.connack.properties, SessionExpiryInterval),
            told,
            "asked for {asked}"
        );
    }
}

/// A message whose expiry passes while its receiver is away is not delivered; one that has time
/// left says how much. [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[tokio::test]
async fn queued_messages_expire() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.subscribe_to("t", 2).await;
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    for (payload, expiry) in [("short", 1), ("long", 100), ("also short", 1)] {
        publisher
            .publish(
                Publish::new("t", payload)
                    .qos(1)
                    .property(Property::MessageExpiryInterval(expiry)),
            )
            .await;
    }
    publisher.publish_text("t", "for ever", 1).await;
    elapse(1).await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    let long = client.receive_exactly("t", "long").await;
    let left = property!(long.properties, MessageExpiryInterval).expect("it has one");
    assert!((1..100).contains(&left), "{left}");
    assert_eq!(client.receive_exactly("t", "for ever").await.properties, []);
    client.expect_nothing().await;
}

/// A version 3 client is spared expired messages as well.
#[tokio::test]
async fn queued_messages_expire_for_version_3() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v311("a").persistent()).await;
    client.subscribe_to("t", 2).await;
    client.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .publish(
            Publish::new("t", "short")
                .qos(1)
                .property(Property::MessageExpiryInterval(1)),
        )
        .await;
    publisher
        .publish(
            Publish::new("t", "long")
                .qos(1)
                .property(Property::MessageExpiryInterval(100)),
        )
        .await;
    elapse(1).await;
    let mut client = broker.connect(Connect::v311("a").persistent()).await;
    client.receive_exactly("t", "long").await;
    client.expect_nothing().await;
}

/// A QoS 2 delivery that has begun is completed even if its message expires meanwhile.
/// [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[tokio::test]
async fn a_delivery_in_progress_does_not_expire() {
    let broker = Broker::start().await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    client.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    publisher
        .publish(
            Publish::new("t", "x")
                .qos(2)
                .property(Property::MessageExpiryInterval(1)),
        )
        .await;
    let first = client.expect_publish().await;
    client.lose().await;
    elapse(1).await;
    let mut client = broker.connect(Connect::v5("a").persistent()).await;
    let again = client.receive_exactly("t", "x").await;
    assert_eq!((again.packet_id, again.dup), (first.packet_id, true));
}
