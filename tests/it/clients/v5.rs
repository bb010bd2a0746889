//! What rumqttc does in MQTT 5 alone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWillProperties, PublishProperties, RetainForwardRule,
};

use super::rumqtt::{Client, Options, Will};
use super::{Scene, tests};

tests!(
    only,
    crate::clients::rumqtt::Version::V5,
    properties_are_forwarded,
    a_will_carries_its_properties,
    a_will_waits_for_its_delay,
    the_broker_chooses_a_client_identifier,
    what_is_left_of_the_message_expiry_is_forwarded,
    a_client_may_use_aliases,
    a_client_that_allows_aliases_can_tell_all_topics,
    overlapping_subscriptions_give_one_delivery,
    unsuback_tells_whether_there_was_a_subscription,
    no_local_spares_a_client_its_own_messages,
    retain_as_published_and_retain_handling,
    receive_maximum_is_respected,
);

fn properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        content_type: Some("text/plain".into()),
        response_topic: Some("answers/here".into()),
        correlation_data: Some(Bytes::from_iter(0..=255)),
        // Order and repeated names are part of the message.
        user_properties: [("b", "1"), ("a", "2"), ("b", "3"), ("ключ", "значение")]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        ..Default::default()
    }
}

async fn properties_are_forwarded(scene: &Scene) {
    let mut client = scene.client().await;
    client.subscribe(&scene.name, 1).await;
    client
        .publish_with(&scene.name, 1, "grüezi", properties())
        .await;
    let got = client.message().await;
    assert_eq!((got.text(), &got.properties), ("grüezi", &properties()));
}

async fn a_will_carries_its_properties(scene: &Scene) {
    let mut watcher = scene.client().await;
    watcher.subscribe(&scene.name, 1).await;
    let sent = properties();
    let will = will(
        scene,
        LastWillProperties {
            delay_interval: None,
            payload_format_indicator: sent.payload_format_indicator,
            message_expiry_interval: None,
            content_type: sent.content_type,
            response_topic: sent.response_topic,
            correlation_data: sent.correlation_data,
            user_properties: sent.user_properties,
        },
    );
    scene
        .connect(Options {
            will,
            ..Options::default()
        })
        .await
        .abort()
        .await;
    assert_eq!(watcher.message().await.properties, properties());
}

async fn a_will_waits_for_its_delay(scene: &Scene) {
    let mut watcher = scene.client().await;
    watcher.subscribe(&scene.name, 1).await;
    let delay = LastWillProperties {
        delay_interval: Some(1),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: None,
        response_topic: None,
        correlation_data: None,
        user_properties: Vec::new(),
    };
    let options = Options {
        session_expiry_secs: Some(60),
        will: will(scene, delay),
        ..Options::default()
    };
    let client = scene.connect(options).await;
    let lost = Instant::now();
    client.abort().await;
    assert_eq!(watcher.message().await.text(), "gone");
    assert!(lost.elapsed() >= Duration::from_millis(900));
}

fn will(scene: &Scene, properties: LastWillProperties) -> Option<Will> {
    Some(Will {
        topic: scene.name.clone(),
        payload: "gone",
        qos: 1,
        retain: false,
        properties: Some(properties),
    })
}

async fn the_broker_chooses_a_client_identifier(scene: &Scene) {
    let client = Client::connect(scene.address, scene.version, Options::default()).await;
    assert!(
        client
            .assigned_client_id
            .as_deref()
            .is_some_and(|id| !id.is_empty())
    );
}

async fn what_is_left_of_the_message_expiry_is_forwarded(scene: &Scene) {
    let mut client = scene.client().await;
    client.subscribe(&scene.name, 1).await;
    let properties = PublishProperties {
        message_expiry_interval: Some(100),
        ..Default::default()
    };
    client.publish_with(&scene.name, 1, "", properties).await;
    let left = client.message().await.properties.message_expiry_interval;
    assert!(
        left.is_some_and(|left| (90..=100).contains(&left)),
        "{left:?}"
    );
}

/// A topic is named once with an alias, and by its alias alone from then on.
async fn a_client_may_use_aliases(scene: &Scene) {
    let (mut subscriber, mut publisher) = (scene.client().await, scene.client().await);
    subscriber.subscribe(&scene.topic("#"), 1).await;
    assert!(
        publisher.topic_alias_maximum >= 2,
        "{}",
        publisher.topic_alias_maximum
    );
    for (level, alias, payload) in [
        ("a", 1, "1"),
        ("", 1, "2"),
        ("b", 2, "3"),
        ("", 1, "4"),
        ("c", 1, "5"),
        ("", 1, "6"),
    ] {
        let topic = if level.is_empty() {
            String::new()
        } else {
            scene.topic(level)
        };
        let properties = PublishProperties {
            topic_alias: Some(alias),
            ..Default::default()
        };
        publisher.publish_with(&topic, 1, payload, properties).await;
    }
    for (level, payload) in [
        ("a", "1"),
        ("a", "2"),
        ("b", "3"),
        ("a", "4"),
        ("c", "5"),
        ("c", "6"),
    ] {
        let got = subscriber.message().await;
        assert_eq!(
            (got.topic.as_str(), got.text()),
            (scene.topic(level).as_str(), payload)
        );
    }
}

/// rumqttc 0.25 hands out messages as they came, with an empty topic where an alias stands for it.
async fn a_client_that_allows_aliases_can_tell_all_topics(scene: &Scene) {
    let mut subscriber = scene
        .connect(Options {
            topic_alias_maximum: Some(2),
            ..Options::default()
        })
        .await;
    let mut publisher = scene.client().await;
    subscriber.subscribe(&scene.topic("#"), 1).await;
    let sent: Vec<String> = (0..12).map(|i| scene.topic(&(i % 4).to_string())).collect();
    for topic in &sent {
        publisher.publish(topic, 1, "").await;
    }
    let mut known: HashMap<u16, String> = HashMap::new();
    for topic in sent {
        let got = subscriber.message().await;
        let named = match got.properties.topic_alias {
            Some(alias) if got.topic.is_empty() => known[&alias].clone(),
            Some(alias) => {
                assert!((1..=2).contains(&alias), "alias {alias}");
                known.insert(alias, got.topic.clone());
                got.topic
            }
            None => got.topic,
        };
        assert_eq!(named, topic);
    }
}

/// One delivery, with the highest QoS and the Subscription Identifiers of all. Two of them, because rumqttc 0.25
/// reads a third into the payload.
async fn overlapping_subscriptions_give_one_delivery(scene: &Scene) {
    let mut client = scene.client().await;
    client
        .subscribe_v5(Filter::new(scene.topic("a"), QoS::AtMostOnce), Some(7))
        .await;
    client
        .subscribe_v5(Filter::new(scene.topic("+"), QoS::ExactlyOnce), Some(9))
        .await;
    client.publish(&scene.topic("a"), 2, "both match").await;
    client.publish(&scene.topic("b"), 2, "one matches").await;
    let mut both = client.message().await;
    both.properties.subscription_identifiers.sort_unstable();
    assert_eq!(
        (
            both.text(),
            both.qos,
            both.properties.subscription_identifiers.as_slice()
        ),
        ("both match", 2, &[7, 9][..])
    );
    let one = client.message().await;
    assert_eq!(
        (
            one.text(),
            one.properties.subscription_identifiers.as_slice()
        ),
        ("one matches", &[9][..])
    );
    client.nothing_else();
}

async fn unsuback_tells_whether_there_was_a_subscription(scene: &Scene) {
    let mut client = scene.client().await;
    client.subscribe(&scene.name, 1).await;
    assert_eq!(client.unsubscribe(&scene.name).await, Some(0x00));
    assert_eq!(client.unsubscribe(&scene.name).await, Some(0x11)); // No subscription existed
}

async fn no_local_spares_a_client_its_own_messages(scene: &Scene) {
    let (mut client, mut other) = (scene.client().await, scene.client().await);
    let filter = Filter {
        nolocal: true,
        ..Filter::new(&scene.name, QoS::AtLeastOnce)
    };
    client.subscribe_v5(filter, None).await;
    client.publish(&scene.name, 1, "own").await;
    other.publish(&scene.name, 1, "other").await;
    assert_eq!(client.message().await.text(), "other");
}

/// Retain Handling 2 sends nothing retained, Retain As Published keeps the flag of what is published later.
async fn retain_as_published_and_retain_handling(scene: &Scene) {
    let (mut client, mut publisher) = (scene.client().await, scene.client().await);
    publisher.publish_retained(&scene.name, 1, "before").await;
    let filter = Filter {
        preserve_retain: true,
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::new(&scene.name, QoS::AtLeastOnce)
    };
    client.subscribe_v5(filter, None).await;
    publisher.publish_retained(&scene.name, 1, "after").await;
    let got = client.message().await;
    assert_eq!((got.text(), got.retain), ("after", true));
    publisher.publish_retained(&scene.name, 1, "").await;
}

/// No more messages are under way to a client than it said it can take.
async fn receive_maximum_is_respected(scene: &Scene) {
    let options = Options {
        manual_acks: true,
        receive_maximum: Some(2),
        ..Options::default()
    };
    let (mut client, mut publisher) = (scene.connect(options).await, scene.client().await);
    client.subscribe(&scene.name, 1).await;
    for i in 0..5 {
        publisher.publish(&scene.name, 1, i.to_string()).await;
    }
    let mut under_way = client.messages(2).await;
    for i in 2..5 {
        // SUBACK comes behind: had the broker more to send, it would be here.
        client.subscribe(&scene.topic("other"), 0).await;
        client.nothing_else();
        client.ack(&under_way.remove(0)).await;
        let got = client.message().await;
        assert_eq!(got.text(), i.to_string());
        under_way.push(got);
    }
}
