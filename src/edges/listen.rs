//! Listening: the same for every edge.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinError;

use crate::broker::stats::Stats;
use crate::config::ListenAddress;

/// Connections that the operating system may hold ready for us: a storm of them is not refused.
const BACKLOG: i32 = 4096;

/// How long to wait when no connection can be accepted.
const OUT_OF_RESOURCES: Duration = Duration::from_millis(100);

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on the first of the addresses that `wanted` stands for that can be bound.
    ///
    /// # Errors
    /// Why the last of them could not.
    pub fn bind(wanted: &ListenAddress) -> io::Result<Listener> {
        let mut last = None;
        for address in wanted.resolve()? {
            match bind_one(address) {
                Ok(listener) => {
                    let address = listener.local_addr()?;
                    return Ok(Listener { listener, address });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable)))
    }

    /// The address really bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_momentary(&error) => {}
                Err(error) => {
                    // Out of file descriptors or memory: only time helps.
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(OUT_OF_RESOURCES).await;
                }
            }
        }
    }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A broker that was restarted must not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether this failure of an accept concerns only the connection that was to be accepted.
fn is_momentary(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// Counts what each address has, against a limit. Of IPv6, a network of 64 bits counts as one
/// address: whoever has one of its addresses has them all.
#[derive(Default)]
pub struct PerAddress(Arc<DashMap<IpAddr, usize>>);

/// One of what an address has, until it is dropped. Nothing is counted where there is no limit.
pub struct AddressPlace(Option<(Arc<DashMap<IpAddr, usize>>, IpAddr)>);

impl PerAddress {
    /// A place for one more of this address; none if it has `maximum` already.
    pub fn place(&self, address: IpAddr, maximum: Option<NonZeroUsize>) -> Option<AddressPlace> {
        let Some(maximum) = maximum else {
            return Some(AddressPlace(None));
        };
        let network = network(address);
        let mut count = self.0.entry(network).or_insert(0);
        if *count >= maximum.get() {
            return None;
        }
        *count += 1;
        Some(AddressPlace(Some((Arc::clone(&self.0), network))))
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        if let Some((counts, network)) = &self.0 {
            counts.remove_if_mut(network, |_, count| {
                *count -= 1;
                *count == 0
            });
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address => address,
    }
}

/// Counts a connection that ended by a panic, and says so.
pub fn count_panic(stats: &Stats, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        stats.connections_panicked.add(1);
        tracing::error!(%error, "a connection panicked: this is a defect, please report it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_as_many_places_as_its_limit() {
        let counts = PerAddress::default();
        let maximum = NonZeroUsize::new(2);
        let place = |of: &str| counts.place(address(of), maximum);
        let first = place("192.0.2.1");
        let second = place("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(place("192.0.2.1").is_none());
        assert!(place("192.0.2.2").is_some(), "another address");
        drop(first);
        assert!(place("192.0.2.1").is_some(), "a place was given back");
        drop(second);
        assert!(counts.0.is_empty(), "who has nothing takes no memory");
        assert!(counts.place(address("192.0.2.1"), None).is_some());
        assert!(counts.0.is_empty(), "nothing is counted without a limit");
    }

    #[test]
    fn a_network_of_64_bits_is_one_address() {
        let counts = PerAddress::default();
        let maximum = NonZeroUsize::new(1);
        let _place = counts.place(address("2001:db8:1:2:3:4:5:6"), maximum);
        assert!(counts.place(address("2001:db8:1:2::1"), maximum).is_none());
        assert!(counts.place(address("2001:db8:1:3::1"), maximum).is_some());
    }
}
