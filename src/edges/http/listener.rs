//! Accepting connections, HTTP/1.1 and HTTP/2 by prior knowledge.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use super::{Edge, router};
use crate::config::ListenAddress;
use crate::edges::listen;

/// Streams of one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;

/// How long to wait when no connection can be accepted.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n";

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// A place among the connections.
struct Connected(Arc<Edge>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// Binds an address.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn bind(wanted: &ListenAddress) -> io::Result<Listener> {
        let listener = listen::bind(wanted)?;
        let address = listener.local_addr()?;
        Ok(Listener { listener, address })
    }

    /// The address really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until the broker stops; returns once they have ended.
    pub async fn run(self, edge: Arc<Edge>) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = edge.stopped() => break,
            };
            while let Some(ended) = connections.try_join_next() {
                count_panic(&edge, ended);
            }
            match accepted {
                Ok((stream, peer)) => accept(&edge, &mut connections, stream, peer),
                Err(error) if listen::is_momentary(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: only time helps.
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(OUT_OF_RESOURCES).await;
                }
            }
        }
        drop(self.listener);
        while let Some(ended) = connections.join_next().await {
            count_panic(&edge, ended);
        }
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
            // One that does not take it is not waited for.
            let _ = tokio::time::timeout(OUT_OF_RESOURCES, refusing).await;
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

async fn serve(edge: Arc<Edge>, stream: TcpStream, peer: SocketAddr) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(edge.config.header_timeout)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(edge.config.heartbeat.max(Duration::from_secs(1)));
    let service = {
        let edge = Arc::clone(&edge);
        service_fn(move |request| {
            let edge = Arc::clone(&edge);
            async move { Ok::<_, Infallible>(router::answer(edge, peer, request).await) }
        })
    };
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = edge.stopped() => {
            connection.as_mut().graceful_shutdown();
            // Its streams are asked for more once, and then say goodbye.
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(address = %peer, %error, "an HTTP connection ended badly");
    }
}

fn count_panic(edge: &Edge, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        edge.broker.stats.connections_panicked.add(1);
        tracing::error!(%error, "an HTTP connection panicked: this is a defect, please report it");
    }
}
