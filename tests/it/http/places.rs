//! How many connections and streams there may be, and what those beyond get.

use super::client::send;
use super::raw::{Raw, figure, until_figure};
use crate::harness::*;

const STREAMS: &str = "tidings_http_streams";
const CONNECTIONS: &str = "tidings_connections{edge=\"http\"}";

const WEBSOCKET: &str = "GET /mqtt HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: mqtt\r\n\r\n";

async fn websocket(broker: &Broker) -> Raw {
    let mut socket = Raw::open(broker.http).await;
    socket.send(WEBSOCKET).await;
    let head = socket.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    socket
}

/// A connection beyond the limit gets a problem, and those that end make room.
#[tokio::test]
async fn connections_are_limited() {
    for limit in ["connections_max", "connections_per_address_max"] {
        let broker = Broker::with(&format!("http.{limit} = 1")).await;
        let mut first = Raw::open(broker.http).await;
        first.get("/healthz").await;
        assert_eq!(first.answer().await.status(), 200);
        let mut second = Raw::open(broker.http).await;
        second.get("/healthz").await;
        let answer = second.answer().await;
        let problem = answer.problem(503);
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains(limit), "{detail}");
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(second.rest().await, b"");
        drop(first);
        until_figure_or_refused(&broker).await;
    }
}

/// Tries until there is room: the end of a connection is noticed on its own time.
async fn until_figure_or_refused(broker: &Broker) {
    loop {
        let answer = send(broker.http, "GET", "/healthz", "", b"").await;
        if answer.status == 200 {
            return;
        }
        assert_eq!(answer.status, 503);
    }
}

/// A WebSocket is a connection for as long as it lives, and so is a stream of events.
#[tokio::test]
async fn a_socket_keeps_its_place_among_the_connections() {
    let broker = Broker::with("http.connections_max = 3").await;
    let socket = websocket(&broker).await;
    let mut stream = Raw::open(broker.http).await;
    stream.get("/v1/events?topic=t").await;
    stream.head().await;
    assert_eq!(figure(&broker, STREAMS).await, 2);
    assert_eq!(figure(&broker, CONNECTIONS).await, 3);
    let mut third = Raw::open(broker.http).await;
    third.get("/healthz").await;
    assert_eq!(third.answer().await.status(), 200);
    let mut fourth = Raw::open(broker.http).await;
    fourth.answer().await.problem(503);
    drop((socket, stream, third));
    until_figure_or_refused(&broker).await;
    until_figure(&broker, STREAMS, 0).await;
    until_figure(&broker, CONNECTIONS, 1).await;
}

/// Streams of events, WebSockets and long polls are streams of their address.
#[tokio::test]
async fn streams_of_an_address_are_limited() {
    let broker = Broker::with("http.streams_per_address_max = 2").await;
    let socket = websocket(&broker).await;
    let mut stream = Raw::open(broker.http).await;
    stream.get("/v1/events?topic=t").await;
    stream.head().await;
    for target in ["/v1/events?topic=t", "/v1/messages?topic=t&wait=0s"] {
        let mut third = Raw::open(broker.http).await;
        third.get(target).await;
        let answer = third.answer().await;
        let problem = answer.problem(429);
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("http.streams_per_address_max"), "{detail}");
        assert!(answer.header("retry-after").is_some());
        // The connection is still good for what is no stream.
        third.get("/healthz").await;
        assert_eq!(third.answer().await.status(), 200);
    }
    let mut third = Raw::open(broker.http).await;
    third.send(WEBSOCKET).await;
    third.answer().await.problem(429);
    drop(socket);
    until_figure(&broker, STREAMS, 1).await;
    let answer = send(broker.http, "GET", "/v1/messages?topic=t&wait=0s", "", b"").await;
    assert_eq!(answer.status, 200);
    until_figure(&broker, STREAMS, 1).await;
}

/// The same in all.
#[tokio::test]
async fn streams_are_limited() {
    let broker = Broker::with("http.streams_max = 1").await;
    let _socket = websocket(&broker).await;
    let mut second = Raw::open(broker.http).await;
    second.get("/v1/events?topic=t").await;
    let answer = second.answer().await;
    answer.problem(503);
    assert!(answer.header("retry-after").is_some());
}

/// A stream that has nothing to say takes little memory: there may be many.
#[tokio::test]
async fn an_idle_stream_takes_little_memory() {
    const COUNT: usize = 400;
    const EACH: usize = 6 * 1024;
    let broker = ProcessBroker::start(&["http.heartbeat=1h"]);
    let address = broker.field("http").parse().expect("an address");
    let open = async || {
        let mut stream = Raw::open(address).await;
        stream.get("/v1/events?topic=t").await;
        stream.head().await;
        let mut read = Vec::new();
        while !read.ends_with(b"\n\n\r\n") || !read.windows(4).any(|it| it == b"\nid:") {
            read.push(stream.byte().await.expect("the stream goes on"));
        }
        stream
    };
    // What the first ones take is for all.
    let mut streams = Vec::new();
    for _ in 0..COUNT / 4 {
        streams.push(open().await);
    }
    let before = broker.resident_bytes();
    for _ in 0..COUNT {
        streams.push(open().await);
    }
    let more = broker.resident_bytes().saturating_sub(before);
    assert!(more < COUNT * EACH, "{more} bytes for {COUNT} streams");
}

/// MQTT is in binary frames [MQTT-6.0.0-1]: another one is answered with 1003 (RFC 6455 §7.4.1).
#[tokio::test]
async fn a_text_frame_is_unsupported_data() {
    let broker = Broker::start().await;
    let mut socket = websocket(&broker).await;
    // Masked with zeros: the payload is as it is.
    socket.send(b"\x81\x82\0\0\0\0hi").await;
    let frame = socket.exactly(4).await;
    assert_eq!(frame[0], 0x88, "a close frame");
    assert_eq!(frame[2..], 1003_u16.to_be_bytes());
    socket.exactly(usize::from(frame[1]) - 2).await;
    socket.send(b"\x88\x82\0\0\0\0\x03\xeb").await;
    assert_eq!(socket.rest().await, b"");
    until_figure(&broker, STREAMS, 0).await;
}

/// A socket that does not end by itself is cut off with all the others.
#[tokio::test]
async fn the_deadline_of_a_shutdown_ends_sockets() {
    let broker = Broker::with("mqtt.shutdown_deadline = '50ms'\nmqtt.connect_timeout = '1h'").await;
    let mut socket = websocket(&broker).await;
    broker.shutdown().await;
    socket.rest().await;
}
