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

/// A cursor of another log is answered with a gap, and the stream goes on from now.
#[tokio::test]
async fn a_foreign_epoch_is_a_gap() {
    let broker = Broker::start().await;
    let target = "/v1/events?topic=t&last_event_id=1.1";
    let mut stream = send(broker.http, "GET", target, "", b"").await;
    assert_eq!(stream.status, 200);
    loop {
        let block = stream.event().await;
        if field(&block, "event") == Some("gap") {
            let data = field(&block, "data").expect("data");
            let gap: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(gap["oldest"], Value::Null, "nothing is kept");
            assert_eq!(gap["lost"], Value::Null, "what was lost is unknown");
            // Where it goes on is known.
            let begins = stream.event().await;
            assert_eq!(gap["cursor"].as_str(), field(&begins, "id"), "{begins:?}");
            break;
        }
        assert!(field(&block, "retry").is_some(), "{block:?}");
    }
}

/// Lines of a payload are lines of data, and what is not text is in base64.
#[tokio::test]
async fn raw_payloads_survive() {
    let broker = Broker::start().await;
    let (mut stream, _) = listen(&broker, "topic=t&topic=u&format=raw", "").await;
    send(broker.http, "POST", "/v1/topics/t", "", b"a\r\nb\nc").await;
    send(broker.http, "POST", "/v1/topics/u", "", &[0xff, 0xfe]).await;
    let binary = loop {
        let event = stream.event().await;
        if field(&event, "event") == Some("base64") {
            break event;
        }
        assert!(!event.contains('\r'), "{event:?}");
        assert!(event.contains("data: a\ndata: b\ndata: c"), "{event:?}");
    };
    assert_eq!(field(&binary, "data"), Some("//4="));
}

/// Retained Messages come first if they are asked for.
#[tokio::test]
async fn retained_messages_come_first() {
    let broker = Broker::start().await;
    send(broker.http, "POST", "/v1/topics/t?retain=true", "", b"kept").await;
    let target = "/v1/events?topic=t&retained=true&format=raw";
    let mut stream = send(broker.http, "GET", target, "", b"").await;
    loop {
        let block = stream.event().await;
        if let Some(data) = field(&block, "data") {
            assert_eq!(data, "kept");
            break;
        }
    }
}

/// A + in a query is a space: the answer says what to write.
#[tokio::test]
async fn a_bare_plus_gets_advice() {
    let broker = Broker::start().await;
    let answer = send(broker.http, "GET", "/v1/events?topic=a/+/b", "", b"").await;
    assert_eq!(answer.status, 400);
    let detail = answer.json().await["detail"].to_string();
    assert!(detail.contains("%2B"), "{detail}");
    let answer = send(broker.http, "GET", "/v1/events?topic=$share/g/t", "", b"").await;
    assert_eq!(answer.status, 400);
    let since = "/v1/events?topic=t&since=2026-11-25T12:00:00+01:00";
    let answer = send(broker.http, "GET", since, "", b"").await;
    assert_eq!(answer.status, 400);
    let detail = answer.detail().await;
    assert!(detail.contains("%2B"), "{detail}");
}

/// A chain of cursors of long polls loses and doubles nothing.
#[tokio::test]
async fn a_chain_of_polls_is_whole() {
    let broker = Broker::start().await;
    let poll = async |since: &str| {
        let target = format!("/v1/messages?topic=t&wait=0s&limit=2{since}");
        let answer = send(broker.http, "GET", &target, "", b"").await;
        assert_eq!(answer.status, 200);
        answer.json().await
    };
    let mut answer = poll("").await;
    assert_eq!(answer["messages"], serde_json::json!([]));
    for payload in ["1", "2", "3"] {
        send(broker.http, "POST", "/v1/topics/t", "", payload.as_bytes()).await;
    }
    for expected in [&["1", "2"][..], &["3"], &[]] {
        let cursor = answer["cursor"].as_str().expect("a cursor");
        answer = poll(&format!("&since={cursor}")).await;
        let messages = answer["messages"].as_array().expect("an array");
        let payloads: Vec<_> = messages.iter().map(|it| it["payload"].as_str()).collect();
        assert_eq!(
            payloads,
            expected.iter().map(|it| Some(*it)).collect::<Vec<_>>()
        );
    }
}
