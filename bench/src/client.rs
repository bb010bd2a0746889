//! A blocking client for everything that happens before and after the measured load.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{self, Connected, Version};

/// Connections that are opened together: fewer than any listen backlog.
const TOGETHER: usize = 64;

/// Connections from one loopback address, well below the number of ephemeral ports.
const PER_SOURCE: u32 = 20_000;

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub version: Version,
}

/// A new unconnected socket. On loopback the source address changes every 20,000 sockets, so that
/// large runs do not end at the number of ephemeral ports.
pub fn socket(target: &Target) -> Result<Socket> {
    static OPENED: AtomicU32 = AtomicU32::new(0);
    let socket = Socket::new(
        Domain::for_address(target.address),
        Type::STREAM,
        Some(Protocol::TCP),
    )
    .context("cannot make a socket (is the limit of open files high enough?)")?;
    socket.set_tcp_nodelay(true)?;
    let source = OPENED.fetch_add(1, Ordering::Relaxed) / PER_SOURCE;
    if source > 0 && target.address.is_ipv4() && target.address.ip().is_loopback() {
        let address = Ipv4Addr::from(0x7F00_0001 + source % 200);
        bind_address_no_port(&socket);
        socket.bind(&SocketAddrV4::new(address, 0).into())?;
    }
    Ok(socket)
}

/// Lets the kernel choose the port at connect, when the whole pair of addresses is known.
fn bind_address_no_port(socket: &Socket) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and `on` outlives the call. Failing only costs ports.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        );
    }
}

pub struct Client {
    pub stream: TcpStream,
    pub version: Version,
    pub connected: Connected,
    /// Bytes that came after the last packet that was asked for.
    pub rest: Vec<u8>,
}

impl Client {
    pub fn open(target: &Target, client_id: &str, durable: bool) -> Result<Client> {
        let mut client = Client::begin(target, client_id, durable)?;
        client.finish(client_id)?;
        Ok(client)
    }

    /// Opens all, some dozens at a time.
    pub fn open_many(target: &Target, client_ids: &[String], durable: bool) -> Result<Vec<Client>> {
        let mut clients = Vec::with_capacity(client_ids.len());
        for ids in client_ids.chunks(TOGETHER) {
            let first = clients.len();
            for id in ids {
                clients.push(Client::begin(target, id, durable)?);
            }
            for (client, id) in clients[first..].iter_mut().zip(ids) {
                client.finish(id)?;
            }
        }
        Ok(clients)
    }

    fn begin(target: &Target, client_id: &str, durable: bool) -> Result<Client> {
        let socket = socket(target)?;
        socket
            .connect_timeout(&target.address.into(), TIMEOUT)
            .with_context(|| format!("cannot connect to {}", target.address))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        let mut stream = TcpStream::from(socket);
        let mut bytes = Vec::with_capacity(64);
        wire::connect(&mut bytes, target.version, client_id, durable);
        stream.write_all(&bytes)?;
        Ok(Client {
            stream,
            version: target.version,
            connected: Connected::default(),
            rest: Vec::new(),
        })
    }

    fn finish(&mut self, client_id: &str) -> Result<()> {
        let version = self.version;
        self.connected = self
            .expect(|packet| wire::connack(version, packet))
            .with_context(|| format!("no session for {client_id}"))?;
        Ok(())
    }

    /// Waits for one packet, which `take` looks at.
    pub fn expect<T>(&mut self, take: impl FnOnce(&wire::Raw<'_>) -> Result<T>) -> Result<T> {
        loop {
            if let Some(packet) = wire::next_packet(&self.rest)? {
                let taken = take(&packet)?;
                let used = packet.total_len;
                self.rest.drain(..used);
                if self.rest.is_empty() {
                    // Ten thousand idle clients should not hold ten thousand buffers.
                    self.rest = Vec::new();
                }
                return Ok(taken);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => self.rest.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("no answer from the broker"),
            }
        }
    }

    pub fn begin_subscribe<'a>(
        &mut self,
        filters: impl IntoIterator<Item = &'a str>,
        qos: u8,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        wire::subscribe(&mut bytes, self.version, 1, filters, qos);
        self.stream.write_all(&bytes)?;
        Ok(())
    }

    /// Waits for the SUBACK. Messages that come first (retained ones) are an error: nothing that
    /// uses this subscribes to topics that have any.
    pub fn finish_subscribe(&mut self) -> Result<()> {
        let version = self.version;
        self.expect(|packet| wire::suback(version, packet))
    }

    pub fn close(mut self) {
        // The connection ends in any case, and nothing is measured any more.
        let _ = self.stream.write_all(&wire::DISCONNECT_PACKET);
    }
}

/// Ends durable sessions by connecting once more with a clean one. The run is over by then, so a
/// broker that refuses this (some do when a client comes back at once) is only told about.
pub fn forget_sessions(target: &Target, client_ids: &[String]) {
    for ids in client_ids.chunks(TOGETHER) {
        match Client::open_many(target, ids, false) {
            Ok(clients) => clients.into_iter().for_each(Client::close),
            Err(error) => {
                eprintln!("sessions were left behind: {error:#}");
                return;
            }
        }
    }
}
