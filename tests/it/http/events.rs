//! Server-Sent Events.

use serde_json::Value;

use super::client::{Answer, field, send};
use crate::harness::*;

/// Opens a stream and reads up to its first cursor.
async fn listen(broker: &Broker, query: &str, headers: &str) -> (Answer, String) {
    let target = format!("/v1/events?{query}");
    let mut stream = send(broker.http, "GET", &target, headers, b"").await;
    assert_eq!(stream.status, 200);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    loop {
        let block = stream.event().await;
        if let Some(id) = field(&block, "id") {
            assert_eq!(field(&block, "data"), None, "a cursor only: {block:?}");
            return (stream, id.to_owned());
        }
        assert!(field(&block, "retry").is_some(), "{block:?}");
    }
}

/// An MQTT publication becomes an event with its envelope.
#[tokio::test]
async fn an_mqtt_publication_is_an_event() {
    let broker = Broker::start().await;
    let (mut stream, first) = listen(&broker, "topic=a/%23", "").await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("a/b", "hello", 1).await;
    let event = stream.event().await;
    let data: Value = serde_json::from_str(field(&event, "data").expect("data")).expect("JSON");
    assert_eq!(data["topic"], "a/b");
    assert_eq!(data["payload"], "hello");
    assert_eq!(data["qos"], 1);
    let id = field(&event, "id").expect("an id");
    assert_eq!(data["id"], id);
    assert_eq!(
        id.split_once('.').expect("a dot").0,
        first.split_once('.').expect("a dot").0
    );
}

/// Last-Event-ID continues without loss or double.
#[tokio::test]
async fn a_stream_is_resumed() {
    let broker = Broker::start().await;
    let (mut stream, _) = listen(&broker, "topic=t&format=raw", "").await;
    let mut publisher = broker.client("publisher").await;
    publisher.publish_text("t", "1", 1).await;
    let event = stream.event().await;
    assert_eq!(field(&event, "data"), Some("1"));
    let last = field(&event, "id").expect("an id").to_owned();
    drop(stream);
    publisher.publish_text("t", "2", 1).await;
    publisher.publish_text("t", "3", 1).await;
    let header = format!("last-event-id: {last}\r\n");
    let (mut stream, cursor) = listen(&broker, "topic=t&format=raw", &header).await;
    assert_eq!(cursor, last);
    publisher.publish_text("t", "4", 1).await;
    for expected in ["2", "3", "4"] {
        assert_eq!(field(&stream.event().await, "data"), Some(expected));
    }
}

/// The end of the server is told, and then the stream ends.
#[tokio::test]
async fn the_end_of_the_server_is_told() {
    let broker = Broker::start().await;
    let (mut stream, _) = listen(&broker, "topic=t", "").await;
    let shutdown = tokio::spawn(broker.shutdown());
    let event = stream.event().await;
    assert_eq!(field(&event, "event"), Some("goodbye"));
    assert_eq!(field(&event, "data"), Some(r#"{"reason":"stopping"}"#));
    assert_eq!(stream.block().await, None);
    shutdown.await.expect("the broker ends");
}

/// Silence is broken by comments.
#[tokio::test]
async fn a_heartbeat_is_a_comment() {
    let broker = Broker::with("http.heartbeat = \"50ms\"").await;
    let (mut stream, _) = listen(&broker, "topic=t", "").await;
    let block = stream.block().await.expect("a heartbeat");
    assert!(block.starts_with(':'), "{block:?}");
}
