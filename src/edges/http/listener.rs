//! Accepting connections, HTTP/1.1 and HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::respond::Body;
use super::{Edge, router};
use crate::edges::listen::{Listener, count_panic};

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long to wait for the rest of it.
const PREFACE_LOOK: Duration = Duration::from_millis(5);

/// The head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Streams of one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;

/// How long a client has to take a refusal: one that does not take it is not waited for.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(100);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n";

/// A place among the connections.
struct Connected(Arc<Edge>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the server stops; returns once they have ended.
pub async fn run(listener: Listener, edge: Arc<Edge>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = edge.stopped() => break,
        };
        while let Some(ended) = connections.try_join_next() {
            count_panic(&edge.broker.stats, ended);
        }
        accept(&edge, &mut connections, stream, peer);
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        count_panic(&edge.broker.stats, ended);
    }
}

fn accept(
    edge: &Arc<Edge>,
    connections: &mut JoinSet<()>,
    mut stream: TcpStream,
    peer: SocketAddr,
) {
    let before = edge.connections.fetch_add(1, Ordering::Relaxed);
    let place = Connected(Arc::clone(edge));
    let edge = Arc::clone(edge);
    if before >= edge.config.connections_max {
        edge.broker.stats.connections_refused.add(1);
        connections.spawn(async move {
            let _place = place;
            let refusing = stream.write_all(TOO_MANY);
            let _ = timeout(REFUSAL_TIMEOUT, refusing).await;
        });
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(address = %peer, %error, "connection lost at once");
        return;
    }
    connections.spawn(async move {
        let _place = place;
        serve(edge, stream, peer).await;
    });
}

/// Serves a connection in the version that its first bytes name.
async fn serve(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr) {
    let deadline = edge.config.header_timeout;
    let ended = match timeout(deadline, is_http2(&stream)).await {
        // Boxed: thousands of connections are of the other kind.
        Ok(Ok(true)) => Box::pin(serve_http2(edge, stream, peer)).await,
        Ok(Ok(false)) => serve_http1(edge, stream, peer).await,
        Ok(Err(_)) | Err(_) => return,
    };
    if let Err(error) = ended {
        tracing::debug!(address = %peer, %error, "an HTTP connection ended badly");
    }
}

/// Whether a connection begins with the preface of HTTP/2 (RFC 9113 §3.4), which is looked at and
/// not taken.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut seen = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut seen).await?;
        if count == 0 || seen[..count] != PREFACE[..count] {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        // A part of it is there, and is there still: nothing would tell of the rest.
        tokio::time::sleep(PREFACE_LOOK).await;
    }
}

async fn serve_http1(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr) -> hyper::Result<()> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(edge.config.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service(&edge, peer))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = edge.stopped() => connection.as_mut().graceful_shutdown(),
    }
    // Its stream is asked for more once, and then says goodbye.
    connection.await
}

async fn serve_http2(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr) -> hyper::Result<()> {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(edge.config.heartbeat.max(Duration::from_secs(1)))
        .serve_connection(TokioIo::new(stream), service(&edge, peer));
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = edge.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Answers the requests of a connection. Boxed, so that nothing of handling one is left while its
/// stream goes on.
fn service(
    edge: &Arc<Edge>,
    peer: SocketAddr,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answer>
+ use<> {
    let edge = Arc::clone(edge);
    service_fn(move |request| -> Answer {
        let edge = Arc::clone(&edge);
        Box::pin(async move { Ok(router::answer(edge, peer, request).await) })
    })
}
