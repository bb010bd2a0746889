//! Streams replayed to named sessions, by the same filters as over MQTT.

use serde_json::{Value, json};

use super::client::{field, send};
use super::sessions::{hear, next, say, websocket};
use crate::harness::*;

const STREAM: &str = "[[stream]]\nname = 's'\nfilters = ['s/#']\n";
const FILTER: &str = "$replay/earliest/s/#";

/// The session goes on where it was when its client subscribes it again: it has no other way to come
/// back to it.
#[tokio::test]
async fn a_session_over_websocket_replays_and_goes_on() {
    let broker = Broker::with(STREAM).await;
    let mut publisher = broker.client("publisher").await;
    let mut published = 0;
    for connection in 0..3 {
        for _ in 0..10 {
            let text = published.to_string();
            publisher.publish_text("s/a", &text, 1).await;
            published += 1;
        }
        let mut socket = websocket(&broker).await;
        let subscribe = json!({"type": "subscribe", "id": 1, "filter": FILTER, "session": "w"});
        say(&mut socket, subscribe).await;
        let mut acks = Vec::new();
        for number in published - 10..published {
            let said = hear(&mut socket, |it| it["type"] == "message").await;
            assert_eq!(said["message"]["payload"], number.to_string(), "{said}");
            acks.push(said["ack"].clone());
        }
        say(&mut socket, json!({"type": "ack", "id": 2, "acks": acks})).await;
        let reply = hear(&mut socket, |it| it["id"] == 2).await;
        assert_eq!(
            reply["acknowledged"], 10,
            "{reply} on connection {connection}"
        );
    }
    let mut socket = websocket(&broker).await;
    let subscribe = json!({"type": "subscribe", "id": 1, "filter": "$replay/1h/t", "session": "w"});
    say(&mut socket, subscribe).await;
    let refused = next(&mut socket).await;
    assert_eq!(refused["code"], "no-stream", "{refused}");
    // Without a session, `since` says where to begin.
    let subscribe = json!({"type": "subscribe", "id": 2, "filter": FILTER});
    say(&mut socket, subscribe).await;
    let refused = next(&mut socket).await;
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|it| it.contains("`since`")),
        "{refused}"
    );
}

/// The same session over Server-Sent Events.
#[tokio::test]
async fn a_session_over_an_event_stream_replays() {
    let broker = Broker::with(STREAM).await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..5 {
        publisher.publish_text("s/a", &number.to_string(), 1).await;
    }
    let target = "/v1/events?session=e&format=raw&topic=$replay/earliest/s/%23";
    let mut stream = send(broker.http, "GET", target, "", b"").await;
    assert_eq!(stream.status, 200);
    let mut number = 0;
    while number < 5 {
        let event = stream.event().await;
        if field(&event, "id").is_some() {
            assert_eq!(field(&event, "data"), Some(&*number.to_string()));
            number += 1;
        }
    }
    // And by a poll, whose messages are there without waiting.
    let target = "/v1/messages?session=p&wait=0s&topic=$replay/earliest/s/%23";
    let page = send(broker.http, "GET", target, "", b"").await.json().await;
    let messages = page["messages"].as_array().expect("messages");
    let payloads: Vec<&str> = messages
        .iter()
        .filter_map(|it| it["payload"].as_str())
        .collect();
    assert_eq!(payloads, ["0", "1", "2", "3", "4"]);
    let cursor = page["cursor"].as_str().expect("a cursor");
    let target = format!("{target}&since={cursor}");
    let page = send(broker.http, "GET", &target, "", b"")
        .await
        .json()
        .await;
    assert_eq!(page["messages"], json!([]));
    let refused = send(
        broker.http,
        "GET",
        "/v1/events?topic=$replay/1h/s/a",
        "",
        b"",
    )
    .await;
    assert_eq!(refused.status, 400);
    let problem: Value = refused.json().await;
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|it| it.contains("`since`")),
        "{problem}"
    );
}
