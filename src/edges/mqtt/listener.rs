//! Listening, and how many connections are let in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::{Edge, connection};
use crate::edges::listen::{AddressPlace, Listener, PerAddress, count_panic};

/// Counts connections against their limits.
#[derive(Default)]
pub struct Admission {
    pending: AtomicUsize,
    per_address: PerAddress,
}

/// A place among the connections that have not authenticated yet.
pub struct Pending(Arc<Edge>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.admission.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Edge {
    /// A place for a new connection that has to authenticate, and one among those of its address;
    /// none if there are too many of them.
    fn admit(self: &Arc<Edge>, address: IpAddr) -> Option<(Pending, AddressPlace)> {
        let limits = self.broker.limits();
        let pending = self.admission.pending.fetch_add(1, Ordering::Relaxed);
        let pending_place = Pending(Arc::clone(self));
        if pending >= limits.connections_pending_max {
            return None;
        }
        let place = self
            .admission
            .per_address
            .place(address, limits.connections_per_address_max)?;
        Some((pending_place, place))
    }
}

/// Accepts connections until it is dropped. Handshakes run in the connections' own tasks: a slow one
/// keeps nobody waiting.
pub async fn run(listener: Listener, edge: Arc<Edge>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = listener.accept().await;
        while let Some(ended) = connections.try_join_next() {
            count_panic(&edge.broker.stats, ended);
        }
        let Some((pending, place)) = edge.admit(peer.ip()) else {
            edge.broker.stats.connections_refused.add(1);
            tracing::debug!(address = %peer, "connection refused: too many");
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(address = %peer, %error, "connection lost at once");
            continue;
        }
        let edge = Arc::clone(&edge);
        connections.spawn(async move {
            let _place = place;
            connection::serve(stream, peer.to_string(), edge, pending).await;
        });
    }
}

/// Serves a connection over another stream of bytes, such as a WebSocket; false if there are too
/// many already.
pub async fn serve_stream<S>(edge: Arc<Edge>, stream: S, peer: SocketAddr) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some((pending, _place)) = edge.admit(peer.ip()) else {
        edge.broker.stats.connections_refused.add(1);
        tracing::debug!(address = %peer, "connection refused: too many");
        return false;
    };
    connection::serve(stream, peer.to_string(), edge, pending).await;
    true
}
