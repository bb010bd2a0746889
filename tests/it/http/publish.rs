//! Publishing over HTTP.

use serde_json::json;

use super::client::send;
use crate::harness::*;

/// The body is the payload, and the answer says how many subscriptions it matched.
#[tokio::test]
async fn a_post_reaches_an_mqtt_subscriber() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("a/#", 1).await;
    let answer = send(broker.http, "POST", "/v1/topics/a/b?qos=1", "", b"hello").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().await, json!({"matched": 1, "qos": 1}));
    subscriber.receive_exactly("a/b", "hello").await;
    let answer = send(broker.http, "POST", "/v1/topics/b?qos=0", "", b"").await;
    assert_eq!(answer.json().await, json!({"matched": 0, "qos": 0}));
}

/// What is wrong is said, as problem+json, and nothing is published.
#[tokio::test]
async fn bad_input_is_refused() {
    let broker = Broker::with("http.body_max = \"1KiB\"").await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("#", 1).await;
    let large = vec![b'x'; 1025];
    let cases: [(&str, &[u8], u16, &str); 7] = [
        ("/v1/topics/a/%23", b"x", 400, "#"),
        ("/v1/topics/a?qos=3", b"x", 400, "qos is 3"),
        ("/v1/topics/a?qso=1", b"x", 400, "qso"),
        ("/v1/topics/a", &large, 413, ""),
        (
            "/v1/publish",
            b"{\"topic\":\"a\",\n\"qso\":1}",
            400,
            "line 2",
        ),
        ("/v1/publish", b"{\"topic\":\"a/+\"}", 400, "a/+"),
        (
            "/v1/publish",
            br#"{"topic":"a","payload":"x","payload_base64":"eA=="}"#,
            400,
            "send one of them",
        ),
    ];
    for (target, body, status, detail) in cases {
        let answer = send(broker.http, "POST", target, "", body).await;
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "{target}"
        );
        let problem = answer.json().await;
        assert_eq!(problem["status"], status, "{target}");
        let said = problem["detail"].as_str().expect("a detail");
        assert!(said.contains(detail), "{target}: {said}");
    }
    subscriber.expect_nothing().await;
}

/// One result for each message of an array: one that is wrong keeps back no other.
#[tokio::test]
async fn an_array_has_one_result_each() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("#", 1).await;
    let body =
        br#"[{"topic":"a","payload":"1"},{"topic":"+"},{"topic":"b","payload_base64":"Mg=="}]"#;
    let results = send(broker.http, "POST", "/v1/publish", "", body)
        .await
        .json()
        .await;
    assert_eq!(results.as_array().expect("an array").len(), 3);
    assert_eq!(results[0], json!({"matched": 1, "qos": 1}));
    assert_eq!(results[1]["status"], 400);
    assert_eq!(results[2], json!({"matched": 1, "qos": 1}));
    subscriber.receive_exactly("a", "1").await;
    subscriber.receive_exactly("b", "2").await;
}
