//! Pages of other origins (Fetch §3.2), and requests that browsers send for them.

use super::client::send;
use crate::harness::*;

const APP: &str = "https://app.example.org";

async fn start() -> Broker {
    Broker::with(&format!("http.cors_origins = \"{APP}\"")).await
}

/// A preflight names what the page may send, for an origin that is allowed, and nothing for others.
#[tokio::test]
async fn a_preflight_is_answered() {
    let broker = start().await;
    let ask = "access-control-request-method: POST\r\n\
               access-control-request-headers: content-type, idempotency-key\r\n";
    for (origin, allowed) in [
        (APP, true),
        ("https://evil.example.org", false),
        ("null", false),
    ] {
        let headers = format!("origin: {origin}\r\n{ask}");
        let answer = send(broker.http, "OPTIONS", "/v1/topics/t", &headers, b"").await;
        assert_eq!(answer.status, 204);
        assert_eq!(answer.header("vary"), Some("origin"), "{origin}");
        let header = |name: &str| answer.header(&format!("access-control-{name}"));
        assert_eq!(header("allow-origin"), allowed.then_some(APP), "{origin}");
        assert_eq!(
            header("allow-credentials"),
            allowed.then_some("true"),
            "{origin}"
        );
        let methods = header("allow-methods").unwrap_or_default();
        assert!(
            methods.contains("POST") && methods.contains("DELETE"),
            "{methods}"
        );
        let names = header("allow-headers").unwrap_or_default();
        for name in [
            "authorization",
            "content-type",
            "last-event-id",
            "idempotency-key",
        ] {
            assert!(names.split(", ").any(|it| it == name), "{name} in {names}");
        }
    }
}

/// A page may read the headers that mean something to it.
#[tokio::test]
async fn headers_are_exposed() {
    let broker = start().await;
    let origin = format!("origin: {APP}\r\n");
    let answer = send(broker.http, "GET", "/v1/topics/t", &origin, b"").await;
    let exposed = answer
        .header("access-control-expose-headers")
        .unwrap_or_default();
    for name in [
        "idempotent-replayed",
        "retry-after",
        "tidings-correlation-data",
        "tidings-expiry",
        "tidings-omitted",
        "tidings-payload-format",
        "tidings-qos",
        "tidings-response-topic",
        "tidings-user-property",
        "www-authenticate",
    ] {
        assert!(
            exposed.split(", ").any(|it| it == name),
            "{name} in {exposed}"
        );
    }
    // And it is there when an answer is said again.
    let headers = format!("{origin}idempotency-key: 1\r\n");
    for replayed in [None, Some("true")] {
        let answer = send(broker.http, "POST", "/v1/topics/t", &headers, b"x").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("idempotent-replayed"), replayed);
    }
}

/// What a page of another origin sends without being asked first changes nothing.
#[tokio::test]
async fn another_origin_changes_nothing() {
    let broker = start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("#", 1).await;
    for origin in ["https://evil.example.org", "null"] {
        let headers = format!("origin: {origin}\r\n");
        let answer = send(broker.http, "POST", "/v1/topics/t", &headers, b"forged").await;
        assert_eq!(answer.status, 403, "{origin}");
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{origin}"
        );
    }
    subscriber.expect_nothing().await;
}
