//! How many connections and streams there are and may be, in all and of one address.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Edge;
use super::problem::Problem;
use crate::edges::listen::{AddressPlace, PerAddress};

/// Counts what there is of something.
#[derive(Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    per_address: PerAddress,
}

/// A place among the connections or the streams, until it is dropped.
pub(super) struct Place {
    among: Arc<Places>,
    _of_address: AddressPlace,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.among.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    InAll,
    OfAddress,
}

impl Places {
    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(
        self: &Arc<Places>,
        address: IpAddr,
        in_all: usize,
        of_address: Option<NonZeroUsize>,
    ) -> Result<Place, Full> {
        let place = self.per_address.place(address, of_address);
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let Some(place) = place.filter(|_| before < in_all) else {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(match before < in_all {
                true => Full::OfAddress,
                false => Full::InAll,
            });
        };
        Ok(Place {
            among: Arc::clone(self),
            _of_address: place,
        })
    }
}

impl Edge {
    /// A place for a new connection.
    ///
    /// # Errors
    /// When there is none left.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Place, Problem> {
        let (in_all, of_address) = (
            self.config.connections_max,
            self.config.connections_per_address_max,
        );
        let place = self.connections.take(peer.ip(), in_all, of_address);
        place.map_err(|full| {
            Problem::unavailable(match full {
                Full::InAll => "there are http.connections_max connections already",
                Full::OfAddress => {
                    "your address has http.connections_per_address_max connections already: close some"
                }
            })
        })
    }

    /// A place for one more stream of this client: a stream of events, a long poll or a WebSocket.
    ///
    /// # Errors
    /// When there is none left.
    pub(super) fn place(&self, peer: SocketAddr) -> Result<Place, Problem> {
        let (in_all, of_address) = (self.config.streams_max, self.config.streams_per_address_max);
        let place = self.streams.take(peer.ip(), in_all, of_address);
        place.map_err(|full| match full {
            Full::InAll => Problem::unavailable("there are http.streams_max streams already"),
            Full::OfAddress => Problem::too_many(
                "your address has http.streams_per_address_max streams already: close some, or let one stream have several topics",
            ),
        })
    }
}
