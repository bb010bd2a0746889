//! `/metrics` after traffic that is known.

use super::client::{HANDSHAKE, begin, send};
use super::{alice, bob, broker_with_users};
use crate::harness::*;

/// The value of a figure, its labels included.
pub async fn figure(broker: &Broker, name: &str) -> u64 {
    figure_as(broker, name, "").await
}

pub async fn figure_as(broker: &Broker, name: &str, headers: &str) -> u64 {
    let answer = send(broker.http, "GET", "/metrics", headers, b"").await;
    assert_eq!(answer.status, 200);
    let text = answer.text().await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.parse().expect("a number")
}

fn dropped(reason: &str) -> String {
    format!("tidings_messages_dropped_total{{reason=\"{reason}\"}}")
}

/// What was published, delivered and retained is counted, whichever way it came.
#[tokio::test]
async fn traffic_is_counted() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 1).await;
    for _ in 0..3 {
        send(broker.http, "POST", "/v1/topics/t?retain=true", "", b"x").await;
        subscriber.receive().await;
    }
    let body = br#"[{"topic":"t","payload":"1"},{"topic":"u","payload":"2"}]"#;
    send(broker.http, "POST", "/v1/publish", "", body).await;
    subscriber.receive().await;
    subscriber.publish_text("u", "3", 1).await;
    for (name, value) in [
        ("tidings_messages_received_total", 6),
        ("tidings_messages_sent_total", 4),
        ("tidings_retained_messages", 1),
        ("tidings_connections{edge=\"mqtt\"}", 1),
        ("tidings_sessions", 1),
        ("tidings_windows", 0),
        ("tidings_http_body_bytes", 0),
    ] {
        assert_eq!(figure(&broker, name).await, value, "{name}");
    }
}

/// A publish that is refused is counted with its reason.
#[tokio::test]
async fn refusals_are_counted() {
    let settings = "limits.topic_levels_max = 3\nlimits.retained_messages_max = 0";
    let broker = broker_with_users(settings).await;
    let unreadable =
        r#"{"topic":"b","payload_base64":"/w==","properties":{"payload_format_indicator":1}}"#;
    for (target, body, status) in [
        ("/v1/topics/a", "x", 403),
        ("/v1/topics/$SYS/a", "x", 403),
        ("/v1/publish", r#"{"topic":"a","payload":"x"}"#, 403),
        (
            "/v1/publish",
            r#"[{"topic":"a","payload":"x"},{"topic":"b","payload":"x"}]"#,
            200,
        ),
        ("/v1/topics/b/1/2/3", "x", 400),
        ("/v1/topics/b/%23", "x", 400),
        ("/v1/publish", r#"{"topic":"b/+","payload":"x"}"#, 400),
        ("/v1/publish", unreadable, 400),
        ("/v1/topics/b?retain=true", "x", 507),
        // Neither: it is not known what was to be published.
        ("/v1/publish", "x", 400),
    ] {
        let answer = send(broker.http, "POST", target, &bob(), body.as_bytes()).await;
        assert_eq!(answer.status, status, "{target} {body}");
    }
    for (reason, value) in [
        ("publish_denied", 4),
        ("topic_invalid", 3),
        ("payload_format", 1),
        ("retained_full", 1),
    ] {
        let counted = figure_as(&broker, &dropped(reason), &alice()).await;
        assert_eq!(counted, value, "{reason}");
    }
}

/// So it is over a WebSocket.
#[tokio::test]
async fn refusals_over_a_websocket_are_counted() {
    let broker = broker_with_users("").await;
    let headers = format!("{HANDSHAKE}{}", bob());
    let request = begin(broker.http, "GET", "/v1/ws", &headers).await;
    let mut socket = request.answer().await;
    assert_eq!(socket.status, 101);
    for (topic, code) in [
        ("a", "forbidden"),
        ("b/+", "invalid-message"),
        ("$SYS/a", "forbidden"),
    ] {
        let message = format!(r#"{{"topic":"{topic}","payload":"x"}}"#);
        let request = format!(r#"{{"type":"publish","id":1,"message":{message}}}"#);
        socket.send_frame(&request).await;
        assert_eq!(socket.frame().await["code"], code, "{topic}");
    }
    for (reason, value) in [("publish_denied", 2), ("topic_invalid", 1)] {
        let counted = figure_as(&broker, &dropped(reason), &alice()).await;
        assert_eq!(counted, value, "{reason}");
    }
}

/// One stream more than `http.streams_max` is refused, until another has ended.
#[tokio::test]
async fn streams_are_limited() {
    let broker = Broker::with("http.streams_max = 2").await;
    let target = "/v1/events?topic=t";
    let mut first = send(broker.http, "GET", target, "", b"").await;
    first.event().await;
    let mut poll = begin(
        broker.http,
        "GET",
        "/v1/messages?topic=t&since=latest&wait=50s",
        "",
    )
    .await;
    poll.send(b"").await;
    while figure(&broker, "tidings_http_streams").await < 2 {
        tokio::task::yield_now().await;
    }
    for target in [target, "/v1/messages?topic=t"] {
        let answer = send(broker.http, "GET", target, "", b"").await;
        assert_eq!(answer.status, 503, "{target}");
        assert!(answer.header("retry-after").is_some());
        let detail = answer.detail().await;
        assert!(detail.contains("http.streams_max"), "{detail}");
    }
    drop(first);
    while figure(&broker, "tidings_http_streams").await > 1 {
        // The end of a stream is noticed when something is written.
        send(broker.http, "POST", "/v1/topics/other", "", b"x").await;
    }
    let mut second = send(broker.http, "GET", target, "", b"").await;
    assert_eq!(second.status, 200);
    second.event().await;
    // The poll has its place, and is answered.
    send(broker.http, "POST", "/v1/topics/t", "", b"x").await;
    assert_eq!(
        poll.answer().await.json().await["messages"][0]["payload"],
        "x"
    );
}
