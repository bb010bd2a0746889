//! Paths and methods.

use serde_json::json;

use super::client::send;
use crate::harness::*;

#[tokio::test]
async fn health_is_told() {
    let broker = Broker::start().await;
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let answer = send(broker.http, "GET", path, "", b"").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json().await, json!({"status": status}));
    }
}

/// RFC 9110 §15.5.5 and §15.5.6: a 405 names what is allowed.
#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let broker = Broker::start().await;
    assert_eq!(
        send(broker.http, "GET", "/v1/nothing", "", b"")
            .await
            .status,
        404
    );
    let answer = send(broker.http, "GET", "/v1/publish", "", b"").await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
    let answer = send(broker.http, "OPTIONS", "/v1/publish", "", b"").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("allow"), Some("POST, OPTIONS"));
}

/// RFC 9110 §9.3.7: OPTIONS of the server as a whole.
#[tokio::test]
async fn the_server_as_a_whole_has_options() {
    let broker = Broker::start().await;
    let answer = send(broker.http, "OPTIONS", "*", "", b"").await;
    assert_eq!(answer.status, 204);
    let allowed = answer.header("allow");
    assert_eq!(allowed, Some("GET, HEAD, POST, DELETE, OPTIONS"));
    assert_eq!(send(broker.http, "GET", "*", "", b"").await.status, 404);
}

/// The name of a session is judged wherever it stands.
#[tokio::test]
async fn the_name_of_a_session_is_judged() {
    let broker = Broker::start().await;
    let long = "x".repeat(1025);
    for (method, target) in [
        ("POST", format!("/v1/sessions/{long}/ack?cursor=1.1.1")),
        ("DELETE", format!("/v1/sessions/{long}")),
        ("DELETE", "/v1/sessions/a%00".to_owned()),
        ("GET", format!("/v1/events?session={long}")),
    ] {
        let answer = send(broker.http, method, &target, "", b"").await;
        assert_eq!(answer.status, 400, "{method} {target}");
        let detail = answer.detail().await;
        assert!(detail.contains("1024 bytes"), "{detail}");
    }
}
