//! A blocking client for everything that happens before and after the measured load.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use memchr::memmem;
use socket2::{Domain, Protocol, Socket, Type};

use crate::web::head::Head;
use crate::web::wrap::{ROOM, Wrap};
use crate::web::{Language, streams};
use crate::wire::{self, Connected, Version};

/// Connections that are opened together: fewer than any listen backlog.
pub const TOGETHER: usize = 64;

/// Connections from one loopback address, well below the number of ephemeral ports.
const PER_SOURCE: u32 = 20_000;

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub version: Version,
    /// MQTT is spoken over WebSocket.
    pub websocket: bool,
}

/// A new unconnected socket. On loopback the source address changes every 20,000 sockets, so that
/// large runs do not end at the number of ephemeral ports.
pub fn socket(peer: SocketAddr) -> Result<Socket> {
    static OPENED: AtomicU32 = AtomicU32::new(0);
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))
        .context("cannot make a socket (is the limit of open files high enough?)")?;
    socket.set_tcp_nodelay(true)?;
    let source = OPENED.fetch_add(1, Ordering::Relaxed) / PER_SOURCE;
    if source > 0 && peer.is_ipv4() && peer.ip().is_loopback() {
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
    pub wrap: Wrap,
    pub language: Language,
    pub version: Version,
    pub connected: Connected,
    /// Bytes that came after the last packet that was asked for, unwrapped.
    pub rest: Vec<u8>,
}

impl Client {
    pub fn open(target: &Target, client_id: &str, durable: bool) -> Result<Client> {
        let mut client = Client::begin(target, client_id, durable)?;
        client.finish(target, client_id, durable)?;
        Ok(client)
    }

    /// Opens all, some dozens at a time, but WebSockets one by one: some brokers stand still when
    /// there are several handshakes at once.
    pub fn open_many(target: &Target, client_ids: &[String], durable: bool) -> Result<Vec<Client>> {
        let together = if target.websocket { 1 } else { TOGETHER };
        let mut clients = Vec::with_capacity(client_ids.len());
        for ids in client_ids.chunks(together) {
            let first = clients.len();
            for id in ids {
                clients.push(Client::begin(target, id, durable)?);
            }
            for (client, id) in clients[first..].iter_mut().zip(ids) {
                client.finish(target, id, durable)?;
            }
        }
        Ok(clients)
    }

    /// A connection on which nothing was said.
    pub fn dial(address: SocketAddr) -> Result<Client> {
        let socket = socket(address)?;
        socket
            .connect_timeout(&address.into(), TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Client {
            stream: TcpStream::from(socket),
            wrap: Wrap::None,
            language: Language::Answers,
            version: Version::V311,
            connected: Connected {
                session_present: false,
                receive_maximum: u16::MAX,
            },
            rest: Vec::new(),
        })
    }

    fn begin(target: &Target, client_id: &str, durable: bool) -> Result<Client> {
        let mut client = Client::dial(target.address)?;
        client.language = Language::Mqtt;
        client.version = target.version;
        match target.websocket {
            true => streams::ask_for_mqtt(&mut client)?,
            false => client.connect(client_id, durable)?,
        }
        Ok(client)
    }

    fn connect(&mut self, client_id: &str, durable: bool) -> Result<()> {
        let mut bytes = Vec::with_capacity(64);
        wire::connect(&mut bytes, self.version, client_id, durable);
        self.write(&bytes)
    }

    fn finish(&mut self, target: &Target, client_id: &str, durable: bool) -> Result<()> {
        if target.websocket {
            streams::expect_mqtt(self)?;
            self.connect(client_id, durable)?;
        }
        let version = self.version;
        self.connected = self
            .expect(|packet| wire::connack(version, packet))
            .with_context(|| format!("no session for {client_id}"))?;
        Ok(())
    }

    /// Sends bytes, wrapped as this connection wraps.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.wrap.wrap(bytes) {
            Some(wrapped) => self.stream.write_all(&wrapped)?,
            None => self.stream.write_all(bytes)?,
        }
        Ok(())
    }

    /// Reads more, at least a byte of what is wrapped.
    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 4096 + ROOM];
        loop {
            match self.stream.read(&mut chunk[ROOM..]) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => {
                    let end = self.wrap.unwrap(&mut chunk, 0, ROOM, ROOM + count)?;
                    self.rest.extend_from_slice(&chunk[..end]);
                    if let Some(owed) = self.wrap.owed() {
                        self.stream.write_all(&owed)?;
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("no answer from the broker"),
            }
        }
    }

    /// Takes bytes that were looked at.
    fn take(&mut self, count: usize) {
        self.rest.drain(..count);
        if self.rest.is_empty() {
            // Ten thousand idle clients should not hold ten thousand buffers.
            self.rest = Vec::new();
        }
    }

    /// From here on, what comes is wrapped.
    pub fn unwrap_from_here(&mut self, wrap: Wrap) -> Result<()> {
        self.wrap = wrap;
        let mut bytes = vec![0; ROOM];
        bytes.append(&mut self.rest);
        let to = bytes.len();
        let end = self.wrap.unwrap(&mut bytes, 0, ROOM, to)?;
        self.rest.extend_from_slice(&bytes[..end]);
        Ok(())
    }

    /// Waits for the head of an answer with this status, which `look` looks at.
    pub fn expect_head<T>(
        &mut self,
        wanted: u16,
        look: impl FnOnce(&Head<'_>) -> Result<T>,
    ) -> Result<T> {
        while Head::read(&self.rest).is_none() {
            self.fill()?;
        }
        let head = Head::read(&self.rest).context("no head")?;
        let status = head.status()?;
        if status != wanted {
            let said = String::from_utf8_lossy(&self.rest);
            bail!("expected status {wanted}, got {said}");
        }
        let (seen, len) = (look(&head)?, head.len);
        self.take(len);
        Ok(seen)
    }

    /// Waits for a whole answer: its status and its body.
    pub fn expect_answer(&mut self) -> Result<(u16, Vec<u8>)> {
        loop {
            if let Some(head) = Head::read(&self.rest) {
                let (status, start) = (head.status()?, head.len);
                let end = start + head.body_len()?;
                if let Some(body) = self.rest.get(start..end) {
                    let body = body.to_vec();
                    self.take(end);
                    return Ok((status, body));
                }
            }
            self.fill()?;
        }
    }

    /// Waits for one line of text over WebSocket.
    pub fn expect_line(&mut self) -> Result<Vec<u8>> {
        self.expect_up_to(b"\n")
    }

    /// Waits for one server-sent event.
    pub fn expect_event(&mut self) -> Result<Vec<u8>> {
        self.expect_up_to(b"\n\n")
    }

    fn expect_up_to(&mut self, end: &[u8]) -> Result<Vec<u8>> {
        loop {
            if let Some(at) = memmem::find(&self.rest, end) {
                let text = self.rest[..at].to_vec();
                self.take(at + end.len());
                return Ok(text);
            }
            self.fill()?;
        }
    }

    /// Waits for one packet, which `take` looks at.
    pub fn expect<T>(&mut self, take: impl FnOnce(&wire::Raw<'_>) -> Result<T>) -> Result<T> {
        loop {
            if let Some(packet) = wire::next_packet(&self.rest)? {
                let taken = take(&packet)?;
                let used = packet.total_len;
                self.take(used);
                return Ok(taken);
            }
            self.fill()?;
        }
    }

    pub fn begin_subscribe<'a>(
        &mut self,
        filters: impl IntoIterator<Item = &'a str>,
        qos: u8,
    ) -> Result<()> {
        let mut bytes = Vec::new();
        wire::subscribe(&mut bytes, self.version, 1, filters, qos);
        self.write(&bytes)
    }

    /// Waits for the SUBACK. Messages that come first (retained ones) are an error: nothing that
    /// uses this subscribes to topics that have any.
    pub fn finish_subscribe(&mut self) -> Result<()> {
        let version = self.version;
        self.expect(|packet| wire::suback(version, packet))
    }

    pub fn close(mut self) {
        if self.language == Language::Mqtt {
            // The connection ends in any case, and nothing is measured any more.
            let _ = self.write(&wire::DISCONNECT_PACKET);
        }
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
