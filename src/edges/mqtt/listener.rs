//! Listening, and how many connections are let in.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::{Edge, connection};
use crate::edges::listen::{Listener, count_panic};

/// Counts connections against their limits.
#[derive(Default)]
pub struct Admission {
    pending: AtomicUsize,
    per_address: DashMap<IpAddr, usize>,
}

/// A place among the connections that have not authenticated yet.
pub struct Pending(Arc<Edge>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.admission.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the connections of one address.
pub struct Place(Arc<Edge>, IpAddr);

impl Drop for Place {
    fn drop(&mut self) {
        let Place(edge, address) = self;
        edge.admission
            .per_address
            .remove_if_mut(address, |_, count| {
                *count -= 1;
                *count == 0
            });
    }
}

impl Edge {
    /// A place for a new connection that has to authenticate; none if there are too many of them.
    fn admit(self: &Arc<Edge>, address: IpAddr) -> Option<(Pending, Option<Place>)> {
        let limits = self.broker.limits();
        let pending = self.admission.pending.fetch_add(1, Ordering::Relaxed);
        let pending_place = Pending(Arc::clone(self));
        if pending >= limits.connections_pending_max {
            return None;
        }
        let Some(maximum) = limits.connections_per_address_max else {
            return Some((pending_place, None));
        };
        let mut count = self.admission.per_address.entry(address).or_insert(0);
        if *count >= maximum.get() {
            return None;
        }
        *count += 1;
        drop(count);
        Some((pending_place, Some(Place(Arc::clone(self), address))))
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
