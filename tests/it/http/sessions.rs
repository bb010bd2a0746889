//! One durable session over any transport: begun by one client and gone on with by others.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::client::{Answer, field, send};
use crate::harness::*;

const NAME: &str = "s";

/// How a client gets at the session.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Mqtt,
    WebSocket,
    Sse,
    Poll,
}

use Transport::{Mqtt, Poll, Sse, WebSocket};

/// Each transport after each other one.
const TURNS: [Transport; 13] = [
    Mqtt, WebSocket, Mqtt, Sse, Mqtt, Poll, WebSocket, Sse, WebSocket, Poll, Sse, Poll, Mqtt,
];

impl Transport {
    /// Receives `count` messages, acknowledges those and no others, and loses the connection.
    async fn take(self, broker: &Broker, count: usize) -> Vec<String> {
        match self {
            Mqtt => over_mqtt(broker, count).await,
            WebSocket => over_websocket(broker, count).await,
            Sse => over_sse(broker, count).await,
            Poll => over_poll(broker, count).await,
        }
    }
}

async fn over_mqtt(broker: &Broker, count: usize) -> Vec<String> {
    let mut client = broker.connect(Connect::v5(NAME).persistent()).await;
    let mut payloads = Vec::new();
    for _ in 0..count {
        let publish = client.receive().await;
        payloads.push(String::from_utf8(publish.payload).expect("text"));
    }
    // What was acknowledged was handled before it is gone.
    client.fence().await;
    client.lose().await;
    payloads
}

pub(super) async fn websocket(broker: &Broker) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(broker.http).await.expect("it listens");
    let mut request = "ws://localhost/v1/ws".into_client_request().expect("good");
    let protocol = "tidings.v1.json".parse().expect("a header");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .expect("upgraded");
    socket
}

pub(super) async fn say(socket: &mut WebSocketStream<TcpStream>, request: Value) {
    let text = Message::text(request.to_string());
    socket.send(text).await.expect("sent");
}

/// The next that is said, whatever it is.
pub(super) async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let frame = socket.next().await.expect("it goes on").expect("a frame");
        if let Message::Text(text) = frame {
            return serde_json::from_str(&text).expect("JSON");
        }
    }
}

/// The next text that `pick` wants.
pub(super) async fn hear(
    socket: &mut WebSocketStream<TcpStream>,
    pick: impl Fn(&Value) -> bool,
) -> Value {
    loop {
        let said = next(socket).await;
        assert_ne!(said["type"], "error", "{said}");
        if pick(&said) {
            return said;
        }
    }
}

async fn over_websocket(broker: &Broker, count: usize) -> Vec<String> {
    let mut socket = websocket(broker).await;
    let subscribe = json!({"type": "subscribe", "id": 1, "filter": "t", "session": NAME});
    say(&mut socket, subscribe).await;
    let (mut payloads, mut acks) = (Vec::new(), Vec::new());
    while payloads.len() < count {
        let said = hear(&mut socket, |it| it["type"] == "message").await;
        let payload = said["message"]["payload"].as_str().expect("text");
        payloads.push(payload.to_owned());
        acks.push(said["ack"].clone());
    }
    say(&mut socket, json!({"type": "ack", "id": 2, "acks": acks})).await;
    let reply = hear(&mut socket, |it| it["id"] == 2).await;
    assert_eq!(reply["acknowledged"], count, "{reply}");
    payloads
}

async fn stream(broker: &Broker, query: &str, headers: &str) -> Answer {
    let target = format!("/v1/events?session={NAME}{query}");
    let stream = send(broker.http, "GET", &target, headers, b"").await;
    assert_eq!(stream.status, 200);
    stream
}

/// The next message of a session's stream, and its id.
async fn message(stream: &mut Answer) -> (String, String) {
    loop {
        let event = stream.event().await;
        if let Some(id) = field(&event, "id") {
            let data: Value =
                serde_json::from_str(field(&event, "data").expect("data")).expect("JSON");
            assert_eq!(data["id"], id);
            let payload = data["payload"].as_str().expect("text").to_owned();
            return (payload, id.to_owned());
        }
        assert_eq!(
            field(&event, "event").unwrap_or("session"),
            "session",
            "{event}"
        );
    }
}

async fn acknowledge(broker: &Broker, cursor: &str) -> u64 {
    let target = format!("/v1/sessions/{NAME}/ack?cursor={cursor}");
    let answer = send(broker.http, "POST", &target, "", b"").await;
    assert_eq!(answer.status, 200);
    answer.json().await["acknowledged"]
        .as_u64()
        .expect("a number")
}

async fn over_sse(broker: &Broker, count: usize) -> Vec<String> {
    let mut stream = stream(broker, "", "").await;
    let (mut payloads, mut last) = (Vec::new(), String::new());
    for _ in 0..count {
        let (payload, id) = message(&mut stream).await;
        payloads.push(payload);
        last = id;
    }
    assert_eq!(acknowledge(broker, &last).await, count as u64);
    payloads
}

async fn poll(broker: &Broker, query: &str) -> Value {
    let target = format!("/v1/messages?session={NAME}{query}");
    let answer = send(broker.http, "GET", &target, "", b"").await;
    assert_eq!(answer.status, 200);
    answer.json().await
}

fn payloads(answer: &Value) -> Vec<String> {
    let messages = answer["messages"].as_array().expect("messages").iter();
    messages
        .map(|it| it["payload"].as_str().expect("text").to_owned())
        .collect()
}

async fn over_poll(broker: &Broker, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut since = String::new();
    while all.len() < count {
        let limit = count - all.len();
        let answer = poll(broker, &format!("&limit={limit}{since}")).await;
        all.extend(payloads(&answer));
        let cursor = answer["cursor"].as_str().expect("a cursor");
        since = format!("&since={cursor}");
    }
    let cursor = since.strip_prefix("&since=").expect("set");
    acknowledge(broker, cursor).await;
    all
}

/// Whatever comes after whatever, each goes on where the one before it was, and what that one had
/// acknowledged does not come again.
#[tokio::test]
async fn a_session_is_handed_over_from_any_transport_to_any_other() {
    let mut broker = Broker::start().await;
    let mut first = broker.connect(Connect::v5(NAME).persistent()).await;
    first.subscribe_to("t", 1).await;
    first.disconnect().await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..2 * TURNS.len() {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    for (turn, transport) in TURNS.into_iter().enumerate() {
        if turn == 6 {
            broker.restart().await;
        }
        let expected = [2 * turn, 2 * turn + 1].map(|it| it.to_string());
        let taken = transport.take(&broker, 2).await;
        assert_eq!(taken, expected, "turn {turn}: {transport:?}");
    }
    let rest = poll(&broker, "&wait=0ms").await;
    assert_eq!(rest["messages"], json!([]), "{rest}");
}

/// An EventSource acknowledges by coming back.
#[tokio::test]
async fn the_last_event_id_acknowledges_all_up_to_it() {
    let broker = Broker::start().await;
    let mut first = stream(&broker, "&topic=t&qos=2", "").await;
    let mut publisher = broker.client("publisher").await;
    for text in ["1", "2", "3"] {
        publisher.publish_text("t", text, 2).await;
    }
    let (one, _) = message(&mut first).await;
    let (two, id) = message(&mut first).await;
    assert_eq!((&*one, &*two), ("1", "2"));
    drop(first);
    let header = format!("last-event-id: {id}\r\n");
    let mut second = stream(&broker, "", &header).await;
    assert_eq!(message(&mut second).await.0, "3");
    publisher.publish_text("t", "4", 1).await;
    let (four, last) = message(&mut second).await;
    assert_eq!(four, "4");
    drop(second);
    // An id of something else, or from before, says nothing.
    for other in ["7.12", "1.2.3", id.as_str()] {
        let header = format!("last-event-id: {other}\r\n");
        let mut again = stream(&broker, "", &header).await;
        assert_eq!(message(&mut again).await.0, "3", "{other}");
    }
    assert_eq!(acknowledge(&broker, &last).await, 2);
    assert_eq!(acknowledge(&broker, &last).await, 0);
}

/// A stream that nobody acknowledges does not go on for ever: its client comes back with the last id.
#[tokio::test]
async fn a_stream_without_acknowledgements_ends_and_is_gone_on_with() {
    let broker = Broker::start().await;
    poll(&broker, "&topic=t&wait=0ms").await;
    let mut publisher = broker.client("publisher").await;
    for number in 0..1500 {
        publisher.publish_text("t", &number.to_string(), 1).await;
    }
    let (mut next, mut last) = (0, String::new());
    let mut ended = 0;
    while next < 1500 {
        let mut stream = stream(&broker, "", &last).await;
        loop {
            let event = stream.event().await;
            if field(&event, "event") == Some("goodbye") {
                assert_eq!(field(&event, "data"), Some(r#"{"reason":"acknowledge"}"#));
                assert_eq!(stream.block().await, None);
                ended += 1;
                break;
            }
            if let Some(id) = field(&event, "id") {
                let data = field(&event, "data").expect("data");
                let data: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(data["payload"], next.to_string());
                last = format!("last-event-id: {id}\r\n");
                next += 1;
                if next == 1500 {
                    break;
                }
            }
        }
    }
    assert_eq!(ended, 1);
}

/// A poll that gives no cursor gets the same again; one that does goes on.
#[tokio::test]
async fn a_poll_acknowledges_what_the_one_before_it_answered() {
    let mut broker = Broker::start().await;
    let begun = poll(&broker, "&topic=t&wait=0ms").await;
    assert_eq!(
        (&begun["present"], &begun["cursor"], &begun["messages"]),
        (&json!(false), &json!(null), &json!([]))
    );
    let mut publisher = broker.client("publisher").await;
    for text in ["1", "2", "3"] {
        publisher.publish_text("t", text, 1).await;
    }
    for _ in 0..2 {
        assert_eq!(payloads(&poll(&broker, "&limit=2").await), ["1", "2"]);
    }
    let answer = poll(&broker, "&limit=2").await;
    let since = format!("&since={}", answer["cursor"].as_str().expect("a cursor"));
    let answer = poll(&broker, &since).await;
    assert_eq!(
        (payloads(&answer), &answer["present"]),
        (vec!["3".to_owned()], &json!(true))
    );
    broker.restart().await;
    assert_eq!(payloads(&poll(&broker, &since).await), ["3"]);
}

#[tokio::test]
async fn a_session_is_ended_by_its_owner() {
    let broker = Broker::start().await;
    poll(&broker, "&topic=t&wait=0ms").await;
    let delete = || send(broker.http, "DELETE", "/v1/sessions/s", "", b"");
    assert_eq!(delete().await.status, 204);
    assert_eq!(delete().await.status, 404);
    let (_, connack) = Client::attempt(broker.address, Connect::v5(NAME).persistent()).await;
    assert!(!connack.session_present);
}

#[tokio::test]
async fn what_makes_no_sense_is_told() {
    let broker = Broker::start().await;
    for (target, status, kind) in [
        ("/v1/events?session=s&topic=a/%23/b", 400, "invalid-filter"),
        ("/v1/events?session=&topic=a", 400, "invalid-parameter"),
        (
            "/v1/events?session=s&topic=a&since=10m",
            400,
            "invalid-cursor",
        ),
        (
            "/v1/events?session=s&topic=a&qos=0",
            400,
            "invalid-parameter",
        ),
        ("/v1/events?topic=a&qos=1", 400, "invalid-parameter"),
        (
            "/v1/messages?topic=a&session_expiry=1h",
            400,
            "invalid-parameter",
        ),
        (
            "/v1/messages?session=s&session_expiry=soon",
            400,
            "invalid-parameter",
        ),
        (
            "/v1/messages?session=s&since=earliest",
            400,
            "invalid-cursor",
        ),
    ] {
        let answer = send(broker.http, "GET", target, "", b"").await;
        assert_eq!(answer.status, status, "{target}");
        let problem = answer.json().await;
        let expected = format!("urn:tidings:problem:{kind}");
        assert_eq!(problem["type"], expected, "{target}: {problem}");
    }
    poll(&broker, "&topic=t&wait=0ms").await;
    for (name, status) in [("nobody", 404), (NAME, 409)] {
        let target = format!("/v1/sessions/{name}/ack?cursor=1.2.3");
        let answer = send(broker.http, "POST", &target, "", b"").await;
        assert_eq!(answer.status, status, "{name}");
    }
    let answer = send(broker.http, "POST", "/v1/sessions/s/ack?cursor=x", "", b"").await;
    assert_eq!(answer.status, 400);
}
