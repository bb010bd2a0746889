//! Where a replay begins, what belongs to it, and how it goes over to what comes.

use serde_json::Value;

use super::*;
use crate::http::send;

/// In each version, with each QoS, for sessions that end with their connection and for others.
#[tokio::test]
async fn what_was_comes_first_and_then_what_comes() {
    let broker = Broker::with(STREAM).await;
    let mut publisher = broker.client("publisher").await;
    for version in VERSIONS {
        for granted in 0..3 {
            for persistent in [false, true] {
                let id = format!("{version:?}-{granted}-{persistent}");
                let topic = format!("s/{id}");
                publish(&mut publisher, &topic, 0..30).await;
                let connect = Connect::new(version, &id);
                let mut client = broker
                    .connect(match persistent {
                        true => connect.persistent(),
                        false => connect,
                    })
                    .await;
                let filter = format!("$replay/earliest/{topic}");
                client.subscribe_to(&filter, granted).await;
                publish(&mut publisher, &topic, 30..60).await;
                let all = receive_numbers(&mut client, 0..60).await;
                for (number, publish) in all.iter().enumerate() {
                    assert_eq!(publish.topic, topic);
                    assert_eq!(publish.qos, granted.min((number % 3) as u8), "{publish:?}");
                    assert!(!publish.retain && !publish.dup, "{publish:?}");
                }
                publish(&mut publisher, &topic, 60..61).await;
                receive_numbers(&mut client, 60..61).await;
            }
        }
    }
}

/// A place is everything, nothing, a time, a duration or an id as it is shown over HTTP.
#[tokio::test]
async fn a_replay_begins_where_it_is_asked_to() {
    let broker = Broker::with(STREAM).await;
    let mut publisher = broker.client("publisher").await;
    for number in ["1", "2", "3"] {
        publisher.publish_text("s/a", number, 1).await;
    }
    let target = "/v1/messages?topic=s/%23&since=earliest&limit=2";
    let page = send(broker.http, "GET", target, "", b"").await.json().await;
    let messages = page["messages"].as_array().expect("messages");
    let (id, time) = (&messages[1]["id"], &messages[0]["time"]);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    for (index, (since, expected)) in [
        ("earliest".to_owned(), &["1", "2", "3", "4"][..]),
        ("latest".to_owned(), &["4"]),
        ("1h".to_owned(), &["1", "2", "3", "4"]),
        ("1970-01-01T00:00:00Z".to_owned(), &["1", "2", "3", "4"]),
        (text(time), &["1", "2", "3", "4"]),
        (text(id), &["3", "4"]),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("s/{index}");
        let mut client = broker.client(&topic).await;
        // What is published for the clients after this one is not for this one.
        for filter in ["s/a", &topic] {
            client
                .subscribe_to(&format!("$replay/{since}/{filter}"), 1)
                .await;
        }
        let earlier = expected.len() - 1;
        let got = receive(&mut client, earlier).await;
        publisher.publish_text(&topic, "4", 1).await;
        let last = receive(&mut client, 1).await;
        let texts: Vec<&str> = got.iter().chain(&last).map(Publish::text).collect();
        assert_eq!(texts, expected, "{since}");
        client.disconnect().await;
    }
}

/// Wildcards select as in any subscription. A Retained Message is one of the stream, and comes once
/// and without RETAIN, unless the client wants to see how it was published.
#[tokio::test]
async fn filters_select_and_retained_messages_are_not_sent() {
    let broker = Broker::with(STREAM).await;
    let mut publisher = broker.client("publisher").await;
    for (topic, text) in [("s/a/x", "1"), ("s/b/y", "2"), ("s/b/x", "3"), ("s", "4")] {
        let publish = Publish::new(topic, text).qos(1).retain();
        assert!(!publisher.publish(publish).await.is_error());
    }
    for (filter, expected) in [
        ("s/#", "1234"),
        ("s/+/x", "13"),
        ("s/b/+", "23"),
        ("s/b/x", "3"),
        ("s", "4"),
    ] {
        let mut client = broker.client(filter).await;
        let filter = format!("$replay/earliest/{filter}");
        client.subscribe_to(&filter, 1).await;
        let got = receive(&mut client, expected.len()).await;
        let texts: String = got.iter().map(Publish::text).collect();
        assert_eq!(texts, expected, "{filter}");
        assert!(got.iter().all(|publish| !publish.retain));
        client.expect_nothing().await;
    }
    let mut client = broker.client("as published").await;
    let subscription = Subscription::new(ALL, 1).retain_as_published();
    let subscribe = Subscribe::new([subscription]).identifier(7);
    assert_eq!(client.subscribe(subscribe).await, [Reason(1)]);
    for publish in receive(&mut client, 4).await {
        assert!(publish.retain);
        assert_eq!(subscription_identifiers(&publish.properties), [7]);
    }
}

/// SUBSCRIBE replaces a subscription, and a replay begins again with it; not so with Retain Handling 1.
/// UNSUBSCRIBE with the same filter ends it.
#[tokio::test]
async fn subscribing_again_begins_again() {
    let broker = Broker::with(STREAM).await;
    let mut client = broker.client("c").await;
    publish(&mut client, "s/a", 0..5).await;
    for _ in 0..2 {
        client.subscribe_to(ALL, 2).await;
        receive_numbers(&mut client, 0..5).await;
    }
    client
        .subscribe_with(Subscription::new(ALL, 1).retain_handling(1))
        .await;
    publish(&mut client, "s/a", 5..6).await;
    receive_numbers(&mut client, 5..6).await;
    assert_eq!(client.unsubscribe(&[ALL]).await, [Reason::SUCCESS]);
    let again = client.unsubscribe(&[ALL]).await;
    assert_eq!(again, [Reason::NO_SUBSCRIPTION_EXISTED]);
    client.publish_text("s/a", "6", 1).await;
    client.subscribe_to("$replay/latest/s/#", 1).await;
    publish(&mut client, "s/a", 7..8).await;
    receive_numbers(&mut client, 7..8).await;
}
