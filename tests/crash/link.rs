//! A connection of raw packets that may end at any byte: the broker is killed while it is used.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::harness::{ConnAck, Connect, Packet, Reason, Version};

/// How long anything that must happen may take. Reached only by a failure.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Why a client could not go on.
#[derive(Debug)]
pub enum Stop {
    /// The connection ended. Right if the broker was killed, and only then.
    Gone,
    /// A promise was broken.
    Violation(String),
}

pub type Step<T> = Result<T, Stop>;

/// A promise was broken.
pub fn violation<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Violation(what.into()))
}

pub struct Link {
    version: Version,
    stream: TcpStream,
    unread: BytesMut,
    /// Turns true when all clients are to lose their connections.
    cut: watch::Receiver<bool>,
}

impl Link {
    /// Connects, and returns the CONNACK if it is a success.
    pub async fn connect(
        address: SocketAddr,
        cut: &watch::Receiver<bool>,
        connect: Connect,
    ) -> Step<(Link, ConnAck)> {
        let name = connect.client_id.clone();
        let (link, connack) = Link::attempt(address, cut, connect).await?;
        if connack.reason != Reason::SUCCESS {
            return violation(format!("{name}: refused, {connack:?}"));
        }
        Ok((link, connack))
    }

    /// Connects, and returns the CONNACK whatever it says.
    pub async fn attempt(
        address: SocketAddr,
        cut: &watch::Receiver<bool>,
        connect: Connect,
    ) -> Step<(Link, ConnAck)> {
        let stream = TcpStream::connect(address).await.map_err(|_| Stop::Gone)?;
        stream.set_nodelay(true).map_err(|_| Stop::Gone)?;
        // A broker that goes on after the cut must not see this CONNECT after the client's next.
        let (_uncut, never) = watch::channel(false);
        let mut link = Link {
            version: connect.version,
            stream,
            unread: BytesMut::new(),
            cut: never,
        };
        let name = connect.client_id.clone();
        link.send([connect.into()]).await?;
        match link.next().await? {
            Packet::ConnAck(connack) => {
                link.cut = cut.clone();
                Ok((link, connack))
            }
            other => violation(format!("{name}: {other:?} instead of CONNACK")),
        }
    }

    /// Sends packets with one write.
    pub async fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> Step<()> {
        let mut bytes = Vec::new();
        for packet in packets {
            bytes.extend_from_slice(&packet.bytes(self.version));
        }
        let writing = async {
            tokio::select! {
                written = self.stream.write_all(&bytes) => written.map_err(|_| Stop::Gone),
                _ = self.cut.wait_for(|cut| *cut) => Err(Stop::Gone),
            }
        };
        match timeout(DEADLINE, writing).await {
            Ok(result) => result,
            Err(_) => violation("the broker takes no more bytes"),
        }
    }

    /// The next packet. Nothing is lost if this is cancelled.
    pub async fn next(&mut self) -> Step<Packet> {
        match timeout(DEADLINE, self.read()).await {
            Ok(result) => result,
            Err(_) => violation("nothing arrived in time"),
        }
    }

    async fn read(&mut self) -> Step<Packet> {
        loop {
            match Packet::read(self.version, &self.unread) {
                Ok(Some((packet, length))) => {
                    self.unread.advance(length);
                    return Ok(packet);
                }
                Ok(None) => {}
                Err(error) => return violation(format!("the broker sent nonsense: {error}")),
            }
            self.unread.reserve(16 * 1024);
            tokio::select! {
                read = self.stream.read_buf(&mut self.unread) => match read {
                    Ok(0) | Err(_) => return Err(Stop::Gone),
                    Ok(_) => {}
                },
                _ = self.cut.wait_for(|cut| *cut) => return Err(Stop::Gone),
            }
        }
    }

    /// Sends DISCONNECT and waits until the broker has closed the connection. What still arrives
    /// was not received.
    pub async fn goodbye(mut self, disconnect: crate::harness::Disconnect) -> Step<()> {
        self.send([disconnect.into()]).await?;
        // The client reads no more, so that what it has not seen was not delivered to it.
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(Stop::Gone) => return Ok(()),
                Err(stop) => return Err(stop),
            }
        }
    }
}
