//! HEAD: what GET would say of itself, and nothing that GET would do (RFC 9110 §9.3.2).

use super::client::{HANDSHAKE, send};
use super::figures::figure;
use super::{bob, broker_with_users};
use crate::harness::*;

/// A HEAD neither listens nor keeps messages for anybody.
#[tokio::test]
async fn a_head_makes_no_window_and_no_session() {
    let broker = Broker::start().await;
    let cases = [
        ("/v1/events?topic=t", "text/event-stream"),
        ("/v1/messages?topic=t", "application/json"),
        ("/v1/events?topic=t&session=s", "text/event-stream"),
        ("/v1/messages?topic=t&session=s", "application/json"),
        (
            "/v1/messages?topic=t&since=earliest&wait=50s",
            "application/json",
        ),
    ];
    for (target, content_type) in cases {
        let answer = send(broker.http, "HEAD", target, "", b"").await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(
            answer.header("content-type"),
            Some(content_type),
            "{target}"
        );
    }
    assert_eq!(figure(&broker, "tidings_windows").await, 0);
    assert_eq!(figure(&broker, "tidings_sessions").await, 0);
    assert_eq!(figure(&broker, "tidings_http_streams").await, 0);
}

/// It is refused where GET is.
#[tokio::test]
async fn a_head_is_refused_where_a_get_is() {
    let broker = broker_with_users("").await;
    for (target, headers, status) in [
        ("/v1/events?topic=b/%23", bob(), 200),
        ("/v1/events?topic=b/%23", String::new(), 401),
        ("/v1/events?topic=b/%23/x", bob(), 400),
        ("/v1/events?topic=a/+", bob(), 400),
        ("/v1/messages", bob(), 400),
        ("/v1/messages?topic=b&qos=1", bob(), 400),
        ("/v1/events?session=", bob(), 400),
        ("/v1/messages?topic=b&since=x", bob(), 400),
        ("/v1/topics/a", bob(), 403),
    ] {
        let answer = send(broker.http, "HEAD", target, &headers, b"").await;
        assert_eq!(answer.status, status, "{target}");
    }
}

/// A WebSocket is opened by GET (RFC 6455 §4.1).
#[tokio::test]
async fn a_head_opens_no_websocket() {
    let broker = Broker::start().await;
    for path in ["/v1/ws", "/mqtt"] {
        assert_eq!(
            send(broker.http, "HEAD", path, HANDSHAKE, b"").await.status,
            426,
            "{path}"
        );
    }
    assert_eq!(figure(&broker, "tidings_http_streams").await, 0);
}
