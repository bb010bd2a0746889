//! Long polls.

use serde_json::json;

use super::client::{begin, send};
use crate::harness::*;

/// A poll that waits is answered by what comes.
#[tokio::test]
async fn a_poll_waits_for_a_message() {
    let broker = Broker::start().await;
    let answer = send(broker.http, "GET", "/v1/messages?topic=t", "", b"").await;
    let cursor = answer.json().await["cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    let target = format!("/v1/messages?topic=t&since={cursor}&wait=50s");
    let poll = begin(broker.http, "GET", &target, "").await;
    send(broker.http, "POST", "/v1/topics/t", "", b"x").await;
    let answer = poll.answer().await.json().await;
    assert_eq!(answer["messages"][0]["payload"], "x");
    assert_eq!(answer["messages"][0]["id"], answer["cursor"]);
}

/// A cursor whose messages are gone is answered with 410, with what is left and where that begins.
#[tokio::test]
async fn a_cursor_that_is_too_old_is_gone() {
    let stream = r#"
        [[stream]]
        name = "s"
        filters = "t"
        max_messages = 2
    "#;
    let broker = Broker::with(stream).await;
    let mut ids = Vec::new();
    let poll = async |since: &str| {
        let target = format!("/v1/messages?topic=t&wait=0s&since={since}");
        send(broker.http, "GET", &target, "", b"").await
    };
    for payload in ["1", "2", "3", "4"] {
        send(broker.http, "POST", "/v1/topics/t", "", payload.as_bytes()).await;
        let answer = poll("earliest").await.json().await;
        let last = answer["messages"]
            .as_array()
            .expect("an array")
            .last()
            .cloned();
        ids.push(
            last.expect("it was published")["id"]
                .as_str()
                .expect("an id")
                .to_owned(),
        );
    }
    // What is beyond max_messages goes at the next look.
    let gone = loop {
        let answer = poll(&ids[0]).await;
        if answer.status == 410 {
            break answer;
        }
        assert_eq!(answer.status, 200);
    };
    assert_eq!(
        gone.header("content-type"),
        Some("application/problem+json")
    );
    let problem = gone.json().await;
    assert_eq!(problem["oldest"], ids[2].as_str());
    assert_eq!(problem["cursor"], ids[1].as_str());
    let answer = poll(&ids[1]).await.json().await;
    let payloads: Vec<_> = answer["messages"]
        .as_array()
        .expect("an array")
        .iter()
        .collect();
    assert_eq!((payloads.len(), &payloads[0]["payload"]), (2, &json!("3")));
}

/// A cursor of another log is as one that is too old: what is known is where it goes on.
#[tokio::test]
async fn a_cursor_of_another_log_is_gone() {
    let broker = Broker::start().await;
    let target = "/v1/messages?topic=t&wait=0s&since=1.1";
    let answer = send(broker.http, "GET", target, "", b"").await;
    assert_eq!(answer.status, 410);
    let problem = answer.json().await;
    assert_eq!(problem["oldest"], json!(null));
    let cursor = problem["cursor"].as_str().expect("a cursor");
    send(broker.http, "POST", "/v1/topics/t", "", b"x").await;
    let target = format!("/v1/messages?topic=t&since={cursor}");
    let answer = send(broker.http, "GET", &target, "", b"").await;
    assert_eq!(answer.json().await["messages"][0]["payload"], "x");
}
