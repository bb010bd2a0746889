//! What a message carries from its publisher to its subscribers, unchanged.

use crate::harness::*;

async fn forwarded(properties: Vec<Property>, payload: &[u8]) -> Vec<Property> {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut publisher = broker.client("publisher").await;
    let mut result = Vec::new();
    for qos in 0..=2 {
        let mut publish = Publish::new("t", payload).qos(qos);
        publish.properties = properties.clone();
        publisher.publish(publish).await;
        let received = subscriber.receive().await;
        assert_eq!(received.payload, payload);
        assert!(
            qos == 0 || result == received.properties,
            "the same at each QoS"
        );
        result = received.properties;
    }
    result
}

/// The Payload Format Indicator. [MQTT-3.3.2-4]
#[tokio::test]
async fn payload_format_indicator_is_forwarded() {
    for indicator in 0..=1 {
        let properties = vec![Property::PayloadFormatIndicator(indicator)];
        assert_eq!(
            forwarded(properties.clone(), "text".as_bytes()).await,
            properties
        );
    }
}

/// The Content Type. [MQTT-3.3.2-20]
#[tokio::test]
async fn content_type_is_forwarded() {
    for text in ["application/json; charset=utf-8", "", "☃"] {
        let properties = vec![Property::ContentType(text.into())];
        assert_eq!(forwarded(properties.clone(), b"").await, properties);
    }
}

/// Response Topic and Correlation Data. [MQTT-3.3.2-15] [MQTT-3.3.2-16]
#[tokio::test]
async fn request_and_response_properties_are_forwarded() {
    let properties = vec![
        Property::ResponseTopic("answers/a".into()),
        Property::CorrelationData(vec![0, 1, 255, 0]),
    ];
    let received = forwarded(properties.clone(), b"question").await;
    assert_eq!(received.len(), 2);
    for property in properties {
        assert!(received.contains(&property), "{received:?}");
    }
    let empty = vec![Property::CorrelationData(Vec::new())];
    assert_eq!(forwarded(empty.clone(), b"").await, empty);
}

/// User Properties: all, in their order, with duplicates and empty ones. [MQTT-3.3.2-17]
/// [MQTT-3.3.2-18]
#[tokio::test]
async fn user_properties_are_forwarded_in_order() {
    let mut properties = vec![
        Property::user("b", "1"),
        Property::user("a", "2"),
        Property::user("b", "1"),
        Property::user("", ""),
        Property::user("☃", "Schneemann"),
    ];
    properties.extend((0..100).map(|number| Property::user(&format!("name {number}"), "value")));
    assert_eq!(forwarded(properties.clone(), b"x").await, properties);
}

/// The expiry of a message that did not wait. [MQTT-3.3.2-6]
#[tokio::test]
async fn message_expiry_interval_is_forwarded() {
    let broker = Broker::start().await;
    let mut client = broker.client("a").await;
    client.subscribe_to("t", 1).await;
    client
        .publish(
            Publish::new("t", "x")
                .qos(1)
                .property(Property::MessageExpiryInterval(1000)),
        )
        .await;
    let left =
        property!(client.receive().await.properties, MessageExpiryInterval).expect("it has one");
    assert!((990..=1000).contains(&left), "{left}");
}

/// Everything at once, in any order, arrives complete.
#[tokio::test]
async fn all_properties_together_are_forwarded() {
    let properties = vec![
        Property::user("first", "1"),
        Property::CorrelationData(b"id".to_vec()),
        Property::ContentType("text/plain".into()),
        Property::user("second", "2"),
        Property::PayloadFormatIndicator(1),
        Property::ResponseTopic("answers".into()),
    ];
    let received = forwarded(properties.clone(), b"text").await;
    assert_eq!(received.len(), properties.len());
    assert_eq!(
        user_properties(&received),
        [("first", "1"), ("second", "2")]
    );
    for property in properties {
        assert!(received.contains(&property), "{received:?}");
    }
}

/// A version 3 subscriber gets the message without its properties, and a version 3 publisher's
/// message has none.
#[tokio::test]
async fn version_3_has_no_properties() {
    let broker = Broker::start().await;
    let mut new = broker.client("new").await;
    new.subscribe_to("t", 1).await;
    for version in [Version::V31, Version::V311] {
        let mut old = broker.connect(Connect::new(version, "old")).await;
        old.subscribe_to("t", 1).await;
        new.publish(
            Publish::new("t", "x")
                .qos(1)
                .property(Property::user("a", "b")),
        )
        .await;
        old.receive_exactly("t", "x").await;
        new.receive_exactly("t", "x").await;
        old.publish_text("t", "y", 1).await;
        assert_eq!(new.receive_exactly("t", "y").await.properties, []);
        old.receive_exactly("t", "y").await;
    }
}

/// Properties survive the queue of an absent session.
#[tokio::test]
async fn queued_messages_keep_their_properties() {
    let broker = Broker::start().await;
    let mut subscriber = broker.connect(Connect::v5("a").persistent()).await;
    subscriber
        .subscribe(Subscribe::new([("t", 2)]).identifier(3))
        .await;
    subscriber.disconnect().await;
    let properties = vec![
        Property::ContentType("text/plain".into()),
        Property::user("b", "1"),
        Property::user("a", "2"),
    ];
    let mut publisher = broker.client("publisher").await;
    let mut publish = Publish::new("t", "x").qos(2);
    publish.properties = properties.clone();
    publisher.publish(publish).await;
    let mut subscriber = broker.connect(Connect::v5("a").persistent()).await;
    let received = subscriber.receive_exactly("t", "x").await.properties;
    assert_eq!(subscription_identifiers(&received), [3]);
    assert_eq!(user_properties(&received), [("b", "1"), ("a", "2")]);
    assert_eq!(
        property!(received, ContentType).as_deref(),
        Some("text/plain")
    );
    assert_eq!(received.len(), 4);
}

/// A payload that is said to be UTF-8 and is not passes unless the broker is told to look.
#[tokio::test]
async fn payloads_declared_utf8_are_not_validated_by_default() {
    let properties = vec![Property::PayloadFormatIndicator(1)];
    assert_eq!(
        forwarded(properties.clone(), &[0xff, 0xfe]).await,
        properties
    );
}

/// When it is told to look, such a payload is refused with 0x99 and goes nowhere.
#[tokio::test]
async fn payloads_declared_utf8_are_validated_if_configured() {
    let broker = Broker::with("mqtt.validate_utf8_payload = true").await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 2).await;
    let mut client = broker.client("a").await;
    let declared = |payload: &[u8], qos| {
        Publish::new("t", payload)
            .qos(qos)
            .property(Property::PayloadFormatIndicator(1))
    };
    for qos in 1..=2 {
        assert_eq!(
            client.publish(declared(&[b'a', 0xff], qos)).await,
            Reason::PAYLOAD_FORMAT_INVALID
        );
    }
    subscriber.expect_nothing().await;
    for qos in 0..=2 {
        client.publish(declared("Grüße".as_bytes(), qos)).await;
        subscriber.receive_exactly("t", "Grüße").await;
        // Bytes that claim nothing are nobody's business.
        client.publish(Publish::new("t", [0xff]).qos(qos)).await;
        subscriber.receive().await;
    }
    // A QoS 0 message has no acknowledgement to carry the refusal.
    client.send(declared(&[0xff], 0)).await;
    client
        .expect_disconnect(Reason::PAYLOAD_FORMAT_INVALID)
        .await;
    subscriber.expect_nothing().await;
}
