//! Streams over the death of the server.

use serde_json::Value;

use super::client::{Answer, field, send};
use crate::harness::*;

fn http(broker: &ProcessBroker) -> std::net::SocketAddr {
    broker.field("http").parse().expect("an address")
}

async fn listen(broker: &ProcessBroker, headers: &str) -> Answer {
    let target = "/v1/events?topic=t/%23";
    let stream = send(http(broker), "GET", target, headers, b"").await;
    assert_eq!(stream.status, 200);
    stream
}

async fn publish(broker: &ProcessBroker, payload: &str) {
    let answer = send(
        http(broker),
        "POST",
        "/v1/topics/t/n",
        "",
        payload.as_bytes(),
    )
    .await;
    assert_eq!(answer.status, 200);
}

/// The next message of a stream: its id and its payload.
async fn message(stream: &mut Answer) -> (String, String) {
    loop {
        let event = stream.event().await;
        assert_eq!(
            field(&event, "event"),
            None,
            "nothing is missing: {event:?}"
        );
        let (Some(id), Some(data)) = (field(&event, "id"), field(&event, "data")) else {
            continue;
        };
        let data: Value = serde_json::from_str(data).expect("JSON");
        let payload = data["payload"].as_str().expect("text");
        return (id.to_owned(), payload.to_owned());
    }
}

/// After kill -9 a stream is resumed where its reader was: what was acknowledged comes once, with
/// the ids that it had.
#[tokio::test]
async fn a_stream_is_resumed_after_a_kill() {
    let mut broker = ProcessBroker::start(&[]);
    let mut stream = listen(&broker, "").await;
    // It listens once it has said where it begins.
    while field(&stream.event().await, "id").is_none() {}
    for payload in ["1", "2", "3"] {
        publish(&broker, payload).await;
    }
    let (first, payload) = message(&mut stream).await;
    assert_eq!(payload, "1");
    let second = message(&mut stream).await;
    broker.kill();
    broker.start_again();
    let mut stream = listen(&broker, &format!("last-event-id: {first}\r\n")).await;
    assert_eq!(message(&mut stream).await, second, "its id has not changed");
    publish(&broker, "4").await;
    for expected in ["3", "4"] {
        assert_eq!(message(&mut stream).await.1, expected);
    }
}
