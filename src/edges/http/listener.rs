//! Accepting connections, HTTP/1.1 and HTTP/2 by prior knowledge.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::http1::{self, Next};
use super::{Edge, http2};
use crate::edges::listen::{Listener, count_panic};

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes read at once to find out: most requests fit.
const FIRST_READ: usize = 1024;

/// Connections beyond the limit that are told so at the same time; more of them are closed without a
/// word.
const REFUSALS_MAX: usize = 1000;

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

fn accept(edge: &Arc<Edge>, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(address = %peer, %error, "connection lost at once");
        return;
    }
    match edge.admit(peer) {
        Ok(place) => {
            let edge = Arc::clone(edge);
            connections.spawn(async move {
                let _place = place;
                serve(edge, stream, peer).await;
            });
        }
        Err(problem) => {
            edge.broker.stats.connections_refused.add(1);
            tracing::debug!(address = %peer, "connection refused: too many");
            // Before it has said anything, so in HTTP/1.1, whatever it speaks.
            if connections.len() < edge.config.connections_max + REFUSALS_MAX {
                connections.spawn(async move { http1::refuse(stream, &problem).await });
            }
        }
    }
}

/// Serves a connection to its end.
async fn serve(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr) {
    // Boxed, and gone before the stream begins: thousands of them have nothing to do with requests
    // any more.
    match Box::pin(requests(&edge, stream, peer)).await {
        Some(Next::Events(events)) => events.run(&edge).await,
        Some(Next::Upgraded(socket)) => socket.await,
        None => {}
    }
}

/// Serves the requests of a connection, in the version that its first bytes name, and answers as
/// what it goes on.
async fn requests(edge: &Arc<Edge>, mut stream: TcpStream, peer: SocketAddr) -> Option<Next> {
    let deadline = Instant::now() + edge.config.header_timeout;
    let mut begun = BytesMut::with_capacity(FIRST_READ);
    let looked = timeout_at(deadline, is_http2(&mut stream, &mut begun)).await;
    match looked {
        Ok(Ok(true)) => {
            if let Err(error) = http2::serve(edge, stream, begun.freeze(), peer).await {
                tracing::debug!(address = %peer, %error, "an HTTP/2 connection ended badly");
            }
            None
        }
        Ok(Ok(false)) => http1::serve(edge, stream, begun.freeze(), deadline, peer).await,
        Ok(Err(_)) => None,
        Err(_) => {
            // Who has said nothing at all, such as a browser that connects in advance, is owed
            // nothing.
            if !begun.is_empty() {
                edge.broker.stats.connections_refused.add(1);
                http1::refuse(stream, &http1::head_timeout()).await;
            }
            None
        }
    }
}

/// Reads until it is clear whether a connection begins with the preface of HTTP/2 (RFC 9113 §3.4).
///
/// # Errors
/// When it ends before that.
async fn is_http2(stream: &mut TcpStream, begun: &mut BytesMut) -> io::Result<bool> {
    loop {
        if stream.read_buf(begun).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = begun.len().min(PREFACE.len());
        if begun[..count] != PREFACE[..count] {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
    }
}
