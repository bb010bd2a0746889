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
    let cases: [(&str, &[u8], u16, &str); 16] = [
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
        (
            "/v1/publish",
            br#"{"topic":"a/+","payload":""}"#,
            400,
            "a/+",
        ),
        // Neither is an empty payload, which would clear a retained message.
        (
            "/v1/publish",
            br#"{"topic":"a","payload":null,"retain":true}"#,
            400,
            r#""payload":"""#,
        ),
        (
            "/v1/publish",
            br#"{"topic":"a","retain":true}"#,
            400,
            r#""payload":"""#,
        ),
        (
            "/v1/publish",
            br#"{"topic":"a","payload_base64":null}"#,
            400,
            r#""payload":"""#,
        ),
        // A + in a query is a space.
        ("/v1/topics/a?correlation_data=/+8=", b"x", 400, "%2B"),
        (
            "/v1/topics/a?content_type=application/ld+json",
            b"x",
            400,
            "%2B",
        ),
        ("/v1/topics/a?user.%ff=x", b"x", 400, "UTF-8"),
        // The place is that in the body.
        (
            "/v1/publish",
            b"[\n  {\"topic\":\"a\",\"payload\":\"x\"},\n  {\"topic\":\"a\",\n  \"qso\":1}\n",
            400,
            "line 5",
        ),
        (
            "/v1/publish",
            b"{\"topic\":\"a\",\n\"payload\":\"\\ud800\"}",
            400,
            "line 2 column 1",
        ),
        ("/v1/topics/a?%71so=1", b"x", 400, "qso"),
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
        br#"[{"topic":"a","payload":"1"},{"topic":"+","payload":"x"},{"topic":"b","payload_base64":"Mg=="}]"#;
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

/// What is wrong in an element of an array is where it is in the body.
#[tokio::test]
async fn the_places_of_mistakes_are_those_in_the_body() {
    let broker = Broker::start().await;
    let body = b"[{\"topic\":\"a\",\"qso\":1}, {\"topic\":\"a\",\n \"qso\":1},\n   {\"topic\":\"b\",\"payload\":\"\\ud800\"}]";
    let answer = send(broker.http, "POST", "/v1/publish", "", body).await;
    let results = answer.json().await;
    let text = String::from_utf8_lossy(body);
    for (index, line, mistake) in [(0, 1, "\"qso\""), (1, 2, "\"qso\""), (2, 3, "\\ud800")] {
        let detail = results[index]["detail"].as_str().expect("a detail");
        let (_, place) = detail.rsplit_once(" at line ").expect("a place");
        let (at, column) = place.split_once(" column ").expect("a column");
        assert_eq!(at.parse(), Ok(line), "{detail}");
        let column: usize = column.parse().expect("a number");
        let line = text.lines().nth(line - 1).expect("the line");
        // The place is where it was noticed: within the mistake, or right after it.
        let begin = line.find(mistake).expect("it is there");
        let within = begin..=begin + mistake.len() + 1;
        assert!(within.contains(&column), "{detail}: {within:?}");
    }
}

/// Names and values of user properties are decoded.
#[tokio::test]
async fn user_properties_of_a_query_are_decoded() {
    let broker = Broker::start().await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe_to("t", 1).await;
    let target = "/v1/topics/t?user.a%20b=1&user.%C3%A9%3D=2+3&user.c+d=%2B&user%2Ee=4";
    let answer = send(broker.http, "POST", target, "", b"x").await;
    assert_eq!(answer.status, 200);
    let publish = subscriber.receive().await;
    let expected = [("a b", "1"), ("é=", "2 3"), ("c d", "+"), ("e", "4")];
    assert_eq!(user_properties(&publish.properties), expected);
}

/// An empty payload clears; over any other way to say it nothing does.
#[tokio::test]
async fn only_an_empty_payload_clears() {
    let broker = Broker::start().await;
    send(broker.http, "POST", "/v1/topics/t?retain=true", "", b"kept").await;
    let publish = async |body: &str| {
        let answer = send(broker.http, "POST", "/v1/publish", "", body.as_bytes()).await;
        let kept = send(broker.http, "GET", "/v1/topics/t", "", b"").await;
        (answer.status, kept.status)
    };
    let null = r#"{"topic":"t","payload":null,"retain":true}"#;
    assert_eq!(publish(null).await, (400, 200));
    let empty = r#"{"topic":"t","payload":"","retain":true}"#;
    assert_eq!(publish(empty).await, (200, 404));
}
