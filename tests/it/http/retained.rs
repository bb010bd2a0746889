//! Retained Messages over HTTP.

use serde_json::Value;

use super::client::{Answer, send};
use super::{alice, bob, broker_with_users};
use crate::harness::*;

async fn retain(broker: &Broker, topic: &str, headers: &str) {
    let target = format!("/v1/topics/{topic}?retain=true");
    let answer = send(broker.http, "POST", &target, headers, b"x").await;
    assert_eq!(answer.status, 200, "{topic}");
}

/// The topics of one page, and the cursor of the next.
async fn page(answer: Answer) -> (Vec<String>, Option<String>) {
    assert_eq!(answer.status, 200);
    let page = answer.json().await;
    let messages = page["messages"].as_array().expect("an array");
    let topic = |message: &Value| message["topic"].as_str().expect("a topic").to_owned();
    let next = page["next"].as_str().map(str::to_owned);
    (messages.iter().map(topic).collect(), next)
}

/// The pages follow each other without loss or double, and the last one says that it is the last.
#[tokio::test]
async fn the_list_comes_page_by_page() {
    let broker = Broker::start().await;
    let all: Vec<String> = (0..7).map(|number| format!("t/{number}")).collect();
    for topic in all.iter().chain(&["s/0".to_owned(), "u/0".to_owned()]) {
        retain(&broker, topic, "").await;
    }
    for limit in [1, 3, 7, 100] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let target = format!("/v1/retained?filter=t/%23&limit={limit}{cursor}");
            let (topics, next) = page(send(broker.http, "GET", &target, "", b"").await).await;
            found.extend(topics);
            let Some(next) = next else { break };
            assert_eq!(found.len() % limit, 0, "a full page");
            assert!(found.len() < all.len(), "there is more");
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, all, "limit {limit}");
    }
}

/// Who may not read everything gets full pages of what may be read, and learns of no other topic.
#[tokio::test]
async fn a_list_and_its_cursors_name_only_what_may_be_read() {
    let broker = broker_with_users("").await;
    for topic in ["a/secret", "b/1", "b/2", "b/3", "c/secret", "d/secret"] {
        retain(&broker, topic, &alice()).await;
    }
    let first = send(
        broker.http,
        "GET",
        "/v1/retained?filter=%23&limit=2",
        &bob(),
        b"",
    )
    .await;
    let (topics, next) = page(first).await;
    assert_eq!(topics, ["b/1", "b/2"]);
    let next = next.expect("there is another");
    assert!(!next.contains("secret") && !next.contains('/'), "{next}");
    let target = format!("/v1/retained?filter=%23&limit=2&cursor={next}");
    let second = send(broker.http, "GET", &target, &bob(), b"").await;
    assert_eq!(page(second).await, (vec!["b/3".to_owned()], None));
    // All that match, and no cursor into what follows.
    let all = send(
        broker.http,
        "GET",
        "/v1/retained?filter=%23&limit=3",
        &bob(),
        b"",
    )
    .await;
    assert_eq!(page(all).await.1, None);
    // One that was made up, or is of another list.
    for cursor in ["b/1", "a", "!", "%00", &next] {
        let target = format!("/v1/retained?filter=b/%2B/x&cursor={cursor}");
        let answer = send(broker.http, "GET", &target, &bob(), b"").await;
        assert_eq!(answer.status, 400, "{cursor}");
        assert!(answer.detail().await.contains("next"), "{cursor}");
    }
}

/// What may not be read is not counted for who may not clear it either.
#[tokio::test]
async fn clearing_by_filter_tells_nothing_of_what_may_not_be_read() {
    let broker = broker_with_users("").await;
    for topic in ["a/secret", "b/1", "b/2"] {
        retain(&broker, topic, &alice()).await;
    }
    let answer = send(
        broker.http,
        "DELETE",
        "/v1/retained?filter=%23",
        &bob(),
        b"",
    )
    .await;
    let said = answer.json().await;
    assert_eq!(said, serde_json::json!({"cleared": 2, "denied": 0}));
    let answer = send(broker.http, "GET", "/v1/topics/a/secret", &alice(), b"").await;
    assert_eq!(answer.status, 200);
}

/// A raw answer has the properties of the message as headers.
#[tokio::test]
async fn properties_are_headers() {
    let broker = Broker::start().await;
    let query = "retain=true&qos=2&content_type=text/x-state&response_topic=r/%C3%A9\
                 &correlation_data=/%2B8%3D&expiry=1000&user.unit=%C2%B0C&user.a%3Db=100%25";
    let target = format!("/v1/topics/t?{query}");
    assert_eq!(
        send(broker.http, "POST", &target, "", b"x").await.status,
        200
    );
    let answer = send(broker.http, "GET", "/v1/topics/t", "", b"").await;
    for (name, value) in [
        ("content-type", "text/x-state"),
        ("tidings-qos", "2"),
        ("tidings-response-topic", "r/%C3%A9"),
        ("tidings-correlation-data", "/+8="),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let expiry = answer.header("tidings-expiry").expect("an expiry");
    let expiry: u32 = expiry.parse().expect("a number");
    assert!((1..=1000).contains(&expiry), "what is left: {expiry}");
    let user: Vec<&str> = answer.headers("tidings-user-property").collect();
    assert_eq!(user, ["unit=%C2%B0C", "a%3Db=100%25"]);
    assert_eq!(answer.header("tidings-omitted"), None);
    assert_eq!(answer.body().await, b"x");
}

/// Properties that no client would take as headers are left out, and that is said.
#[tokio::test]
async fn too_many_properties_are_left_out_of_the_headers() {
    let broker = Broker::start().await;
    let large = "x".repeat(10_000);
    let many: Vec<[&str; 2]> = vec![["a", "b"]; 100];
    for (properties, shown) in [
        (vec![["large", &*large], ["small", "y"]], 1),
        // With the QoS there are as many headers as there may be.
        (many, 63),
    ] {
        let body = serde_json::json!({
            "topic": "t", "payload": "x", "retain": true,
            "properties": {"user_properties": properties},
        });
        let body = body.to_string();
        let answer = send(broker.http, "POST", "/v1/publish", "", body.as_bytes()).await;
        assert_eq!(answer.status, 200);
        let answer = send(broker.http, "GET", "/v1/topics/t", "", b"").await;
        let found: Vec<&str> = answer.headers("tidings-user-property").collect();
        assert_eq!(found.len(), shown);
        let last = properties.last().expect("some").join("=");
        assert_eq!(found.last(), Some(&&*last));
        assert_eq!(answer.header("tidings-omitted"), Some("true"));
        let answer = send(broker.http, "GET", "/v1/topics/t?format=json", "", b"").await;
        let all = &answer.json().await["properties"]["user_properties"];
        assert_eq!(all, &serde_json::json!(properties));
    }
}
