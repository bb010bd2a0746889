//! Listening: the same for every edge.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

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

/// Counts a connection that ended by a panic, and says so.
pub fn count_panic(stats: &Stats, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        stats.connections_panicked.add(1);
        tracing::error!(%error, "a connection panicked: this is a defect, please report it");
    }
}
