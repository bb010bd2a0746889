//! The JSON WebSocket: in which order what is said comes, and under which name.

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::raw::figure;
use super::sessions::{hear, next, say, websocket};
use crate::harness::Broker;

const ROUNDS: usize = 20;
const SLOW: &str = "tidings_messages_dropped_total{reason=\"slow_receiver\"}";

/// A client that asks for what was knows by the reply what the messages after it are of, and where
/// they begin.
#[tokio::test]
async fn the_reply_to_a_subscription_is_before_its_first_message() {
    let broker = Broker::start().await;
    let mut publisher = websocket(&broker).await;
    // A window that has something, since somebody listens.
    let mut listener = websocket(&broker).await;
    say(&mut listener, subscribe(1, &["a"], None)).await;
    let begun = next(&mut listener).await;
    publish(&mut publisher, "a", "0").await;
    let cursor = begun["cursor"].as_str().expect("a cursor").to_owned();
    for round in 0..ROUNDS {
        let mut socket = websocket(&broker).await;
        say(&mut socket, subscribe(2, &["a"], Some(&cursor))).await;
        let first = next(&mut socket).await;
        assert_eq!(first["id"], 2, "round {round}: {first}");
        let message = next(&mut socket).await;
        assert_eq!(message["message"]["payload"], "0");
    }
}

/// The same filters in another order are the same window, but each client hears the name that it gave.
#[tokio::test]
async fn messages_are_of_the_filters_as_each_client_named_them() {
    let broker = Broker::start().await;
    let mut publisher = websocket(&broker).await;
    let named: [&[&str]; 4] = [&["a", "b"], &["b", "a"], &["b", "a", "a"], &["a", "b"]];
    let mut sockets = Vec::new();
    for filters in named {
        let mut socket = websocket(&broker).await;
        say(&mut socket, subscribe(1, filters, None)).await;
        let reply = next(&mut socket).await;
        assert_eq!(reply["filter"], filters.join(" "), "{reply}");
        sockets.push(socket);
    }
    for payload in ["1", "2"] {
        publish(&mut publisher, "b", payload).await;
        for (socket, filters) in sockets.iter_mut().zip(named) {
            let said = next(socket).await;
            assert_eq!(said["filter"], filters.join(" "), "{said}");
            assert_eq!(said["message"]["payload"], payload);
        }
    }
}

/// More than a connection has room for, to a client that reads in bursts and pings meanwhile: frames stay
/// whole and in order, and every ping is answered (RFC 6455 §5.5.2, §5.5.3).
#[tokio::test]
async fn frames_and_pongs_stay_whole_on_a_connection_that_is_full() {
    const COUNT: usize = 400;
    let broker = Broker::start().await;
    let mut publisher = websocket(&broker).await;
    let mut socket = websocket(&broker).await;
    say(&mut socket, subscribe(1, &["a"], None)).await;
    next(&mut socket).await;
    let filling = "x".repeat(40_000);
    let (mut pings, mut pongs, mut received) = (0_u32, 0_u32, 0);
    for round in 0..COUNT {
        publish(&mut publisher, "a", &format!("{round} {filling}")).await;
        let ping = Message::Ping(pings.to_be_bytes().to_vec().into());
        // One that finds no room is not sent: the broker reads nothing then.
        pings += 1;
        if let Some(sent) = socket.send(ping).now_or_never() {
            sent.expect("sent");
        }
    }
    while received < COUNT || pongs == 0 {
        match socket.next().await.expect("it goes on").expect("a frame") {
            Message::Text(text) => {
                let said: Value = serde_json::from_str(&text).expect("JSON");
                let payload = said["message"]["payload"].as_str().expect("a payload");
                assert_eq!(payload, format!("{received} {filling}"), "whole, in order");
                received += 1;
            }
            // An older ping need not be answered once there is a younger one.
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(pongs <= pings);
}

/// Who takes nothing for `http.send_timeout` is told so behind what was on its way, and may come back.
#[tokio::test]
async fn a_client_that_takes_nothing_is_ended_between_two_frames() {
    let broker = Broker::with("http.send_timeout = '1s'").await;
    let mut publisher = websocket(&broker).await;
    let mut socket = websocket(&broker).await;
    say(&mut socket, subscribe(1, &["a"], None)).await;
    next(&mut socket).await;
    let filling = "x".repeat(40_000);
    let mut published = 0;
    while figure(&broker, SLOW).await == 0 {
        publish(&mut publisher, "a", &format!("{published} {filling}")).await;
        published += 1;
    }
    let (mut received, mut goodbye) = (0, false);
    let code = loop {
        match socket.next().await.expect("a close frame").expect("frames") {
            Message::Text(text) => {
                let said: Value = serde_json::from_str(&text).expect("JSON");
                if said["type"] == "goodbye" {
                    assert_eq!(
                        (&said["reason"], &said["reconnect"]),
                        (&json!("too-slow"), &json!(true))
                    );
                    goodbye = true;
                    continue;
                }
                let payload = said["message"]["payload"].as_str().expect("a payload");
                assert_eq!(payload, format!("{received} {filling}"), "whole, in order");
                received += 1;
            }
            Message::Close(frame) => break frame.expect("a reason").code,
            other => panic!("{other:?}"),
        }
    };
    assert!(goodbye && received < published, "{received} of {published}");
    assert_eq!(u16::from(code), 4508);
}

fn subscribe(id: u32, filters: &[&str], since: Option<&str>) -> Value {
    let mut request = json!({"type": "subscribe", "id": id, "filters": filters});
    if let Some(since) = since {
        request["since"] = since.into();
    }
    request
}

async fn publish(socket: &mut WebSocketStream<TcpStream>, topic: &str, payload: &str) {
    let message = json!({"topic": topic, "payload": payload, "qos": 1});
    say(
        socket,
        json!({"type": "publish", "id": 9, "message": message}),
    )
    .await;
    hear(socket, |it| it["id"] == 9).await;
}
