//! Connections: what is answered to bytes that are no request, and to clients that send or take
//! nothing.

use super::client::{field, send};
use super::raw::{Raw, figure, until_figure};
use crate::harness::*;

const SLOW: &str = "tidings_messages_dropped_total{reason=\"slow_receiver\"}";
const STREAMS: &str = "tidings_http_streams";
/// With the one that asks.
const CONNECTIONS: &str = "tidings_connections{edge=\"http\"}";

/// More than the buffers of a connection hold on both of its sides.
const LARGE: usize = 15 * 1024 * 1024;

/// What is no request is told so in a problem, and the connection ends.
#[tokio::test]
async fn what_is_no_request_gets_a_problem() {
    let broker = Broker::start().await;
    let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(65_600));
    let header = format!("x: {}\r\n", "y".repeat(1000));
    let large_head = format!("GET / HTTP/1.1\r\n{}\r\n", header.repeat(70));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
    let cases: [(&str, u16, &str); 6] = [
        ("what is this\r\n\r\n", 400, "malformed-request"),
        ("GET / HTTP/9.9\r\n\r\n", 400, "malformed-request"),
        (
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            400,
            "malformed-request",
        ),
        (&long_target, 431, "head-too-large"),
        (&large_head, 431, "head-too-large"),
        (&many_headers, 431, "head-too-large"),
    ];
    for (request, status, kind) in cases {
        let mut client = Raw::open(broker.http).await;
        client.send(request).await;
        let answer = client.answer().await;
        let problem = answer.problem(status);
        assert_eq!(problem["type"], format!("urn:tidings:problem:{kind}"));
        assert_ne!(problem["detail"], "");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(answer.header("date").is_some());
        assert_eq!(client.rest().await, b"", "one answer");
    }
}

/// The same after a request that was one.
#[tokio::test]
async fn what_follows_a_request_and_is_none_gets_a_problem() {
    let broker = Broker::start().await;
    let mut client = Raw::open(broker.http).await;
    client.get("/healthz").await;
    assert_eq!(client.answer().await.status(), 200);
    client.send("GET\r\n\r\n").await;
    client.answer().await.problem(400);
    assert_eq!(client.rest().await, b"");
}

/// A head that does not come to its end is answered with 408, the first one and a later one; who
/// has said nothing at all is closed without a word.
#[tokio::test]
async fn half_a_request_times_out() {
    let broker = Broker::with("http.header_timeout = '100ms'").await;
    for begun in ["P", "GET / HTTP/1.1\r\nhost: loc"] {
        let mut client = Raw::open(broker.http).await;
        client.send(begun).await;
        client.answer().await.problem(408);
        assert_eq!(client.rest().await, b"");
    }
    let mut client = Raw::open(broker.http).await;
    client.get("/healthz").await;
    assert_eq!(client.answer().await.status(), 200);
    client.send("GET /he").await;
    client.answer().await.problem(408);
    let mut silent = Raw::open(broker.http).await;
    assert_eq!(silent.rest().await, b"");
}

/// `http.keep_alive` is for connections between requests, `http.header_timeout` is not.
#[tokio::test]
async fn a_connection_is_kept_for_another_request() {
    let broker = Broker::with("http.header_timeout = '100ms'").await;
    let mut kept = Raw::open(broker.http).await;
    kept.get("/healthz").await;
    assert_eq!(kept.answer().await.status(), 200);
    // Ends when the time for a head is over.
    let mut silent = Raw::open(broker.http).await;
    assert_eq!(silent.rest().await, b"");
    kept.get("/healthz").await;
    assert_eq!(kept.answer().await.status(), 200);

    let broker = Broker::with("http.keep_alive = '100ms'").await;
    let mut kept = Raw::open(broker.http).await;
    kept.get("/healthz").await;
    assert_eq!(kept.answer().await.status(), 200);
    assert_eq!(kept.rest().await, b"", "closed without a word");
}

/// The first bytes of a connection say what it speaks, however they arrive.
#[tokio::test]
async fn a_connection_may_begin_byte_by_byte() {
    let broker = Broker::start().await;
    let mut client = Raw::open(broker.http).await;
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0" {
        client.send([*byte]).await;
    }
    // RFC 9113 §3.4: the server's preface is a SETTINGS frame.
    assert_eq!(client.exactly(9).await[3], 4);
    let mut client = Raw::open(broker.http).await;
    let request = "POST /v1/topics/t HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx";
    for byte in request.as_bytes() {
        client.send([*byte]).await;
    }
    assert_eq!(client.answer().await.status(), 200);
}

/// Over HTTP/1.0 there are no chunks (RFC 9112 §7.1): a stream ends with its connection.
#[tokio::test]
async fn a_stream_over_http_1_0_has_no_chunks() {
    let broker = Broker::start().await;
    let mut client = Raw::open(broker.http).await;
    client
        .send("GET /v1/events?topic=t HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    let stopping = tokio::spawn(broker.shutdown());
    let rest = String::from_utf8(client.rest().await).expect("text");
    assert!(rest.starts_with("retry: "), "{rest}");
    assert!(
        rest.ends_with("data: {\"reason\":\"stopping\"}\n\n"),
        "{rest}"
    );
    stopping.await.expect("the broker ends");
}

/// A stream has the headers that caches and proxies have to see, and those of other origins.
#[tokio::test]
async fn a_stream_has_its_headers() {
    let broker = Broker::with("http.cors_origins = 'https://app.example'").await;
    let origin = "origin: https://app.example\r\n";
    let stream = send(broker.http, "GET", "/v1/events?topic=t", origin, b"").await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("access-control-allow-origin", "https://app.example"),
    ] {
        assert_eq!(stream.header(name), Some(value), "{name}");
    }
    assert!(stream.header("date").is_some());
}

/// A stream whose client is gone is over at once, without anything to send.
#[tokio::test]
async fn a_stream_ends_with_its_client() {
    let broker = Broker::start().await;
    let mut client = Raw::open(broker.http).await;
    client.get("/v1/events?topic=t").await;
    client.head().await;
    assert_eq!(figure(&broker, STREAMS).await, 1);
    // What it says meanwhile has no meaning.
    client.get("/healthz").await;
    drop(client);
    until_figure(&broker, STREAMS, 0).await;
    until_figure(&broker, CONNECTIONS, 1).await;
}

/// A request that comes together with the one before is served all the same, a stream included.
#[tokio::test]
async fn a_stream_may_follow_a_pipelined_request() {
    let broker = Broker::start().await;
    let mut client = Raw::open(broker.http).await;
    let request = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let both = request("/healthz") + &request("/v1/events?topic=t");
    client.send(both).await;
    assert_eq!(client.answer().await.status(), 200);
    let head = client.head().await;
    assert!(head.contains("text/event-stream"), "{head}");
}

/// Also when the client has not taken the answer before: not a byte of it is lost.
#[tokio::test]
async fn a_stream_waits_for_the_answer_before() {
    let broker = Broker::start().await;
    let payload = vec![b'x'; LARGE];
    send(
        broker.http,
        "POST",
        "/v1/topics/t?retain=true",
        "",
        &payload,
    )
    .await;
    let mut client = Raw::open_narrow(broker.http).await;
    client.get("/v1/topics/t").await;
    client.get("/v1/events?topic=u").await;
    let answer = client.answer().await;
    assert!(answer.body == payload, "the payload as it was");
    let head = client.head().await;
    assert!(head.contains("text/event-stream"), "{head}");
}

/// A stream whose client takes nothing is ended and counted, so that the client resumes.
#[tokio::test]
async fn a_stream_that_nobody_reads_is_ended() {
    let broker = Broker::with("http.send_timeout = '100ms'").await;
    let mut client = Raw::open_narrow(broker.http).await;
    client.get("/v1/events?topic=t&format=raw").await;
    let head = client.head().await;
    assert!(head.contains("200 OK"), "{head}");
    let payload = vec![b'x'; LARGE];
    send(broker.http, "POST", "/v1/topics/t", "", &payload).await;
    until_figure(&broker, SLOW, 1).await;
    until_figure(&broker, CONNECTIONS, 1).await;
    // The stream is cut off: no end of it was told.
    assert!(!client.rest().await.ends_with(b"0\r\n\r\n"));
}

/// Any other answer that nobody takes is ended too.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_ended() {
    let broker = Broker::with("http.send_timeout = '100ms'").await;
    let payload = vec![b'x'; LARGE];
    send(
        broker.http,
        "POST",
        "/v1/topics/t?retain=true",
        "",
        &payload,
    )
    .await;
    let mut client = Raw::open_narrow(broker.http).await;
    client.get("/v1/topics/t").await;
    let head = client.head().await;
    assert!(head.contains("200 OK"), "{head}");
    until_figure(&broker, CONNECTIONS, 1).await;
    assert!(client.rest().await.len() < LARGE);
}

/// A client that takes an answer slowly gets all of it.
#[tokio::test]
async fn a_slow_reader_gets_all() {
    let broker = Broker::with("http.send_timeout = '10s'\nhttp.keep_alive = '100ms'").await;
    let payload = vec![b'x'; LARGE];
    send(
        broker.http,
        "POST",
        "/v1/topics/t?retain=true",
        "",
        &payload,
    )
    .await;
    let mut client = Raw::open_narrow(broker.http).await;
    client.get("/v1/topics/t").await;
    client.head().await;
    // The time for another request is over, but it has not begun.
    let mut other = Raw::open(broker.http).await;
    other.get("/healthz").await;
    other.rest().await;
    assert!(client.exactly(LARGE).await == payload);
}

/// What a stream says last is framed to its end.
#[tokio::test]
async fn the_last_chunk_ends_a_stream() {
    let broker = Broker::start().await;
    let mut stream = send(broker.http, "GET", "/v1/events?topic=t", "", b"").await;
    let first = stream.event().await;
    assert!(field(&first, "retry").is_some(), "{first}");
    let shutdown = tokio::spawn(broker.shutdown());
    while stream.block().await.is_some() {}
    shutdown.await.expect("the broker ends");
}
