//! What rumqttc does in MQTT 3.1.1 and 5 alike.

use super::rumqtt::{Client, Options, Version, Will};
use super::{Scene, tests};

macro_rules! in_both_versions {
    ($($scenario:ident),+ $(,)?) => {
        tests!(v311, crate::clients::rumqtt::Version::V311, $($scenario),+);
        tests!(v5, crate::clients::rumqtt::Version::V5, $($scenario),+);
    };
}

in_both_versions!(
    a_new_client_has_no_session,
    each_qos_against_each,
    order_is_kept_at_qos_0,
    order_is_kept_at_qos_1,
    order_is_kept_at_qos_2,
    one_mebibyte_arrives_byte_for_byte,
    topics_and_payloads_are_carried_as_they_are,
    wildcards,
    unsubscribe,
    retained_messages_greet_and_are_taken_away,
    a_will_is_published_when_a_client_vanishes,
    a_will_may_be_retained,
    disconnect_leaves_no_will,
    a_session_is_resumed,
    unacknowledged_messages_come_again,
    a_clean_start_discards_the_session,
    a_second_connection_takes_over,
    a_shared_subscription_gives_each_message_to_one_member,
    pings_are_answered,
);

const MEBIBYTE: usize = 1024 * 1024;

fn persistent(scene: &Scene) -> Options {
    Options {
        client_id: scene.name.clone(),
        session_expiry_secs: Some(300),
        ..Options::default()
    }
}

fn will(topic: &str, qos: u8, retain: bool) -> Option<Will> {
    Some(Will {
        topic: topic.to_owned(),
        payload: "gone",
        qos,
        retain,
        properties: None,
    })
}

/// Sends one last message behind all others. Once it is there, nothing before it can still be on its way.
async fn flush(publisher: &mut Client, subscriber: &mut Client, topic: &str, qos: u8) {
    subscriber.subscribe(topic, qos).await;
    publisher.publish(topic, qos, "last").await;
}

async fn a_new_client_has_no_session(scene: &Scene) {
    let client = scene.client().await;
    assert!(!client.session_present);
    client.disconnect().await;
}

/// A message arrives once, at the lower of the QoS it was published at and the one that was granted.
async fn each_qos_against_each(scene: &Scene) {
    let (mut subscriber, mut publisher) = (scene.client().await, scene.client().await);
    for subscribed in 0..=2 {
        let topic = scene.topic(&format!("to{subscribed}"));
        assert_eq!(subscriber.subscribe(&topic, subscribed).await, subscribed);
        for published in 0..=2 {
            publisher.publish(&topic, published, "payload").await;
            let got = subscriber.message().await;
            assert_eq!(
                (got.topic.as_str(), got.text()),
                (topic.as_str(), "payload")
            );
            assert_eq!(
                (got.qos, got.retain, got.dup),
                (published.min(subscribed), false, false)
            );
        }
    }
    flush(&mut publisher, &mut subscriber, &scene.topic("end"), 2).await;
    assert_eq!(subscriber.message().await.topic, scene.topic("end"));
    subscriber.nothing_else();
}

async fn order_is_kept_at_qos_0(scene: &Scene) {
    order_is_kept(scene, 0).await;
}

async fn order_is_kept_at_qos_1(scene: &Scene) {
    order_is_kept(scene, 1).await;
}

async fn order_is_kept_at_qos_2(scene: &Scene) {
    order_is_kept(scene, 2).await;
}

/// Many messages sent at once arrive complete, once and in order.
async fn order_is_kept(scene: &Scene, qos: u8) {
    let (mut subscriber, mut publisher) = (scene.client().await, scene.client().await);
    subscriber.subscribe(&scene.name, qos).await;
    let expected: Vec<String> = (0..300).map(|i| i.to_string()).collect();
    for payload in &expected {
        publisher
            .send(&scene.name, qos, false, payload.as_str())
            .await;
    }
    publisher
        .acknowledged(if qos > 0 { expected.len() } else { 0 })
        .await;
    let got = subscriber.messages(expected.len()).await;
    assert_eq!(
        got.iter().map(|message| message.text()).collect::<Vec<_>>(),
        expected
    );
    flush(&mut publisher, &mut subscriber, &scene.topic("end"), qos).await;
    assert_eq!(subscriber.message().await.topic, scene.topic("end"));
    subscriber.nothing_else();
}

async fn one_mebibyte_arrives_byte_for_byte(scene: &Scene) {
    let payload: Vec<u8> = (0..MEBIBYTE).map(|i| (i % 251) as u8).collect();
    let (mut subscriber, mut publisher) = (scene.client().await, scene.client().await);
    for qos in 0..=2 {
        let topic = scene.topic(&qos.to_string());
        subscriber.subscribe(&topic, qos).await;
        publisher.publish(&topic, qos, payload.clone()).await;
        let got = subscriber.message().await;
        assert_eq!(got.payload.len(), MEBIBYTE);
        assert!(
            got.payload == payload,
            "the payload was changed at QoS {qos}"
        );
    }
}

async fn topics_and_payloads_are_carried_as_they_are(scene: &Scene) {
    let (mut subscriber, mut publisher) = (scene.client().await, scene.client().await);
    subscriber.subscribe(&scene.topic("#"), 1).await;
    let cases: [(String, Vec<u8>); 4] = [
        (scene.name.clone(), Vec::new()),
        (scene.topic(""), (0..=255).collect()),
        (scene.topic("/a"), b"empty level".to_vec()),
        (scene.topic("Zürich/東京/🌦"), "17 °C".into()),
    ];
    for (topic, payload) in &cases {
        publisher.publish(topic, 1, payload.clone()).await;
    }
    for (topic, payload) in cases {
        let got = subscriber.message().await;
        assert_eq!((got.topic, got.payload.to_vec()), (topic, payload));
    }
}

/// `+` stands for one level, `#` for the rest and its parent.
async fn wildcards(scene: &Scene) {
    let (mut single, mut rest) = (scene.client().await, scene.client().await);
    let mut publisher = scene.client().await;
    single.subscribe(&scene.topic("+/c"), 1).await;
    rest.subscribe(&scene.topic("a/#"), 1).await;
    for level in ["a", "a/b", "a/c", "b/c", "a/b/c", "b"] {
        publisher.publish(&scene.topic(level), 1, "").await;
    }
    flush(&mut publisher, &mut single, &scene.topic("end"), 1).await;
    flush(&mut publisher, &mut rest, &scene.topic("end"), 1).await;
    for level in ["a/c", "b/c", "end"] {
        assert_eq!(single.message().await.topic, scene.topic(level));
    }
    for level in ["a", "a/b", "a/c", "a/b/c"] {
        assert_eq!(rest.message().await.topic, scene.topic(level));
    }
}

/// After UNSUBACK nothing more is sent for that filter; others stay.
async fn unsubscribe(scene: &Scene) {
    let mut client = scene.client().await;
    client.subscribe(&scene.topic("off"), 1).await;
    client.subscribe(&scene.topic("on"), 1).await;
    client.unsubscribe(&scene.topic("off")).await;
    client.publish(&scene.topic("off"), 1, "").await;
    client.publish(&scene.topic("on"), 1, "").await;
    assert_eq!(client.message().await.topic, scene.topic("on"));
}

/// The last retained message greets a new subscription, and an empty one takes it away.
async fn retained_messages_greet_and_are_taken_away(scene: &Scene) {
    let mut publisher = scene.client().await;
    for qos in 0..=2 {
        let topic = scene.topic(&qos.to_string());
        publisher.publish_retained(&topic, qos, "first").await;
        publisher.publish_retained(&topic, qos, "second").await;
        // QoS 0 has no acknowledgement: this one comes behind it.
        publisher.publish(&scene.topic("end"), 1, "").await;

        let mut early = scene.client().await;
        early.subscribe(&topic, qos).await;
        let greeting = early.message().await;
        assert_eq!(
            (greeting.text(), greeting.qos, greeting.retain),
            ("second", qos, true)
        );
        publisher.publish_retained(&topic, qos, "third").await;
        let live = early.message().await;
        assert_eq!((live.text(), live.qos, live.retain), ("third", qos, false));

        publisher.publish_retained(&topic, qos, "").await;
        assert!(early.message().await.payload.is_empty());
        let mut late = scene.client().await;
        late.subscribe(&topic, qos).await;
        flush(&mut publisher, &mut late, &scene.topic("end"), qos).await;
        assert_eq!(late.message().await.topic, scene.topic("end"));
    }
}

async fn a_will_is_published_when_a_client_vanishes(scene: &Scene) {
    let mut watcher = scene.client().await;
    watcher.subscribe(&scene.name, 2).await;
    for qos in 0..=2 {
        scene
            .connect(Options {
                will: will(&scene.name, qos, false),
                ..Options::default()
            })
            .await
            .abort()
            .await;
        let got = watcher.message().await;
        assert_eq!((got.text(), got.qos, got.retain), ("gone", qos, false));
    }
}

/// Who comes later learns of a retained will too.
async fn a_will_may_be_retained(scene: &Scene) {
    let mut watcher = scene.client().await;
    watcher.subscribe(&scene.name, 1).await;
    scene
        .connect(Options {
            will: will(&scene.name, 1, true),
            ..Options::default()
        })
        .await
        .abort()
        .await;
    assert_eq!(watcher.message().await.text(), "gone");
    let mut late = scene.client().await;
    late.subscribe(&scene.name, 1).await;
    let got = late.message().await;
    assert_eq!((got.text(), got.retain), ("gone", true));
    late.publish_retained(&scene.name, 1, "").await;
}

async fn disconnect_leaves_no_will(scene: &Scene) {
    let mut watcher = scene.client().await;
    watcher.subscribe(&scene.topic("#"), 1).await;
    let options = Options {
        client_id: scene.name.clone(),
        ..Options::default()
    };
    let leaving = scene
        .connect(Options {
            will: will(&scene.topic("will"), 1, false),
            ..options.clone()
        })
        .await;
    leaving.disconnect().await;
    // The CONNACK of the same Client Identifier comes only when the broker is through with the earlier connection.
    scene
        .connect(options)
        .await
        .publish(&scene.topic("end"), 1, "")
        .await;
    assert_eq!(watcher.message().await.topic, scene.topic("end"));
}

/// What is published at QoS 1 and 2 while a client is away waits for it, in order, and its subscriptions stand.
async fn a_session_is_resumed(scene: &Scene) {
    let mut away = scene.connect(persistent(scene)).await;
    assert!(!away.session_present);
    away.subscribe(&scene.topic("+"), 2).await;
    away.disconnect().await;

    let mut publisher = scene.client().await;
    let sent: Vec<(String, String, u8)> = (0..40)
        .map(|i| (scene.topic(&(i % 3).to_string()), i.to_string(), 1 + i % 2))
        .collect();
    for (topic, payload, qos) in &sent {
        publisher.publish(topic, *qos, payload.as_str()).await;
    }

    let mut back = scene.connect(persistent(scene)).await;
    assert!(back.session_present);
    for (topic, payload, qos) in &sent {
        let got = back.message().await;
        assert_eq!(
            (&got.topic, got.text(), got.qos),
            (topic, payload.as_str(), *qos)
        );
    }
    publisher.publish(&scene.topic("live"), 2, "live").await;
    assert_eq!(back.message().await.text(), "live");
    back.nothing_else();
}

/// QoS 1 messages that were received but not acknowledged come again: first, in order, as duplicates.
async fn unacknowledged_messages_come_again(scene: &Scene) {
    let will = will(&scene.topic("gone"), 1, false);
    let mut first = scene
        .connect(Options {
            manual_acks: true,
            will,
            ..persistent(scene)
        })
        .await;
    first.subscribe(&scene.name, 1).await;
    let mut publisher = scene.client().await;
    publisher.subscribe(&scene.topic("gone"), 1).await;
    for payload in ["1", "2", "3"] {
        publisher.publish(&scene.name, 1, payload).await;
    }
    let got = first.messages(3).await;
    first.ack(&got[0]).await;
    // SUBACK comes behind: the broker has read the acknowledgement by then.
    first.subscribe(&scene.topic("other"), 0).await;
    first.abort().await;
    // The will tells that the broker has noticed. Before, it would send the next message into the void.
    assert_eq!(publisher.message().await.text(), "gone");
    publisher.publish(&scene.name, 1, "4").await;

    let mut second = scene.connect(persistent(scene)).await;
    for payload in ["2", "3"] {
        let got = second.message().await;
        assert_eq!((got.text(), got.dup), (payload, true));
    }
    // The broker may or may not have noticed the end of the first connection when this one came.
    assert_eq!(second.message().await.text(), "4");
    second.nothing_else();
}

async fn a_clean_start_discards_the_session(scene: &Scene) {
    scene
        .connect(persistent(scene))
        .await
        .subscribe(&scene.name, 1)
        .await;
    let mut publisher = scene.client().await;
    publisher.publish(&scene.name, 1, "lost").await;
    let mut clean = scene
        .connect(Options {
            session_expiry_secs: None,
            ..persistent(scene)
        })
        .await;
    assert!(!clean.session_present);
    publisher.publish(&scene.name, 1, "not subscribed").await;
    flush(&mut publisher, &mut clean, &scene.topic("end"), 1).await;
    assert_eq!(clean.message().await.topic, scene.topic("end"));
}

/// A second connection with the same Client Identifier ends the first, and the session goes on in the second.
async fn a_second_connection_takes_over(scene: &Scene) {
    use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode;
    let mut first = scene.connect(persistent(scene)).await;
    first.subscribe(&scene.name, 1).await;
    let mut second = scene.connect(persistent(scene)).await;
    let reason = first.closed().await;
    if scene.version == Version::V5 {
        assert_eq!(reason, Some(DisconnectReasonCode::SessionTakenOver));
    }
    assert!(second.session_present);
    scene
        .client()
        .await
        .publish(&scene.name, 1, "for the second")
        .await;
    assert_eq!(second.message().await.text(), "for the second");
    first.nothing_else();
}

/// Every member of the group gets some of the messages, and each message goes to exactly one.
async fn a_shared_subscription_gives_each_message_to_one_member(scene: &Scene) {
    let mut members = [
        scene.client().await,
        scene.client().await,
        scene.client().await,
    ];
    let mut publisher = scene.client().await;
    for member in &mut members {
        assert_eq!(
            member
                .subscribe(&format!("$share/group/{}", scene.name), 1)
                .await,
            1
        );
        member.subscribe(&scene.topic("end"), 1).await;
    }
    for i in 0..60 {
        publisher.publish(&scene.name, 1, i.to_string()).await;
    }
    publisher.publish(&scene.topic("end"), 1, "").await;

    let mut all: Vec<usize> = Vec::new();
    for member in &mut members {
        let before = all.len();
        loop {
            let got = member.message().await;
            if got.topic == scene.topic("end") {
                break;
            }
            all.push(got.text().parse().expect("a number"));
        }
        assert!(all.len() > before, "a member of the group got nothing");
    }
    all.sort_unstable();
    assert_eq!(all, (0..60).collect::<Vec<_>>());
}

/// rumqttc wants at least five seconds of Keep Alive in MQTT 5, and one in 3.1.1.
async fn pings_are_answered(scene: &Scene) {
    let keep_alive_secs = Some(if scene.version == Version::V5 { 5 } else { 1 });
    let mut client = scene
        .connect(Options {
            keep_alive_secs,
            ..Options::default()
        })
        .await;
    client.pong().await;
    client.pong().await;
}
