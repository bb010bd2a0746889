//! HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::send;
use super::raw::{Raw, until_figure};
use crate::harness::*;

const PATIENCE: Duration = Duration::from_secs(30);

const SLOW: &str = "tidings_messages_dropped_total{reason=\"slow_receiver\"}";
const STREAMS: &str = "tidings_http_streams";

/// More than the window of a stream.
const LARGE: usize = 15 * 1024 * 1024;

struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

struct Client(http2::SendRequest<Empty>);

impl Client {
    async fn connect(broker: &Broker) -> Client {
        let stream = TcpStream::connect(broker.http).await.expect("it listens");
        let connecting = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (requests, connection) = connecting.await.expect("HTTP/2");
        tokio::spawn(connection);
        Client(requests)
    }

    async fn get(&mut self, target: &str) -> Response<Incoming> {
        let request = Request::get(format!("http://localhost{target}"));
        let request = request.body(Empty).expect("a request");
        let answer = timeout(PATIENCE, self.0.send_request(request)).await;
        answer.expect("an answer in time").expect("an answer")
    }
}

/// Reads until `wanted` says that it is enough, or the body ends.
async fn read(
    body: &mut Incoming,
    mut wanted: impl FnMut(&[u8]) -> bool,
) -> Result<Vec<u8>, hyper::Error> {
    let mut bytes = Vec::new();
    while !wanted(&bytes) {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match timeout(PATIENCE, frame).await.expect("more in time") {
            None => break,
            Some(frame) => {
                bytes.extend(frame?.into_data().expect("no trailers"));
            }
        }
    }
    Ok(bytes)
}

/// A stream of events says goodbye as soon as the server stops, and ends.
#[tokio::test]
async fn a_stream_is_told_the_end_of_the_server() {
    let broker = Broker::with("http.heartbeat = '1h'").await;
    let mut client = Client::connect(&broker).await;
    let mut stream = client.get("/v1/events?topic=t").await.into_body();
    let begun = |bytes: &[u8]| bytes.windows(4).any(|it| it == b"\nid:");
    read(&mut stream, begun).await.expect("the beginning");
    let stopping = tokio::spawn(broker.shutdown());
    let rest = read(&mut stream, |_| false).await.expect("the end");
    let rest = String::from_utf8(rest).expect("text");
    assert!(
        rest.ends_with("event: goodbye\ndata: {\"reason\":\"stopping\"}\n\n"),
        "{rest}"
    );
    stopping.await.expect("the broker ends");
}

/// An answer comes in pieces and is whole.
#[tokio::test]
async fn a_large_answer_is_whole() {
    let broker = Broker::start().await;
    let payload: Vec<u8> = (0..LARGE).map(|at| at as u8).collect();
    let target = "/v1/topics/t?retain=true";
    send(broker.http, "POST", target, "", &payload).await;
    let mut client = Client::connect(&broker).await;
    let mut body = client.get("/v1/topics/t").await.into_body();
    assert!(read(&mut body, |_| false).await.expect("a body") == payload);
}

/// What is not taken ends after `http.send_timeout`, a stream of events with a count, and the
/// connection goes on.
#[tokio::test]
async fn what_nobody_reads_is_ended() {
    let broker = Broker::with("http.send_timeout = '100ms'\nhttp.header_timeout = '500ms'").await;
    let mut client = Client::connect(&broker).await;
    let mut stream = client.get("/v1/events?topic=t&format=raw").await;
    let payload = vec![b'x'; LARGE];
    for _ in 0..2 {
        let target = "/v1/topics/t?retain=true";
        send(broker.http, "POST", target, "", &payload).await;
    }
    until_figure(&broker, SLOW, 1).await;
    until_figure(&broker, STREAMS, 0).await;
    assert!(read(stream.body_mut(), |_| false).await.is_err(), "reset");
    let mut answer = client.get("/v1/topics/t").await;
    // Its end comes later than that of the answer.
    Raw::open(broker.http).await.rest().await;
    assert!(read(answer.body_mut(), |_| false).await.is_err(), "reset");
    assert_eq!(client.get("/healthz").await.status(), 200);
}
