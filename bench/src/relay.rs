//! The floor in every table of QoS 0: a relay that accepts MQTT's handshakes and then copies bytes.
//!
//! It learns the topic of a publisher from its first PUBLISH and ignores it from then on; of later
//! packets only the length is looked at, so that those of several publishers do not mix. There are
//! no wildcards, no QoS above 0, no limits and no checks. What it costs is what the sockets cost.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail, ensure};

use crate::engine::poll::Poll;
use crate::wire;

const READ_BYTES: usize = 256 * 1024;
const LISTENER: u64 = 1 << 40;

#[derive(clap::Args, Clone, Debug)]
pub struct RelayOptions {
    #[arg(long, default_value = "127.0.0.1:1883")]
    pub listen: SocketAddr,
}

enum Role {
    /// Neither has published nor subscribed yet.
    New,
    Publisher(usize),
    Subscriber(usize),
}

struct Peer {
    stream: TcpStream,
    role: Role,
    level: u8,
    partial: Vec<u8>,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent after all.
    flushed: usize,
}

struct Relay {
    poll: Poll,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    topics: HashMap<Vec<u8>, usize>,
    subscribers: Vec<Vec<usize>>,
    read: Vec<u8>,
}

pub fn run(options: &RelayOptions) -> Result<()> {
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    listener.set_nonblocking(true)?;
    println!("relay on {}", listener.local_addr()?);
    let mut relay = Relay {
        poll: Poll::new()?,
        peers: Vec::new(),
        free: Vec::new(),
        topics: HashMap::new(),
        subscribers: Vec::new(),
        read: vec![0; READ_BYTES],
    };
    relay.poll.add(listener.as_raw_fd(), LISTENER, false)?;
    loop {
        let count = relay.poll.wait(-1)?;
        for index in 0..count {
            let event = relay.poll.event(index);
            if event.token == LISTENER {
                relay.accept(&listener)?;
                continue;
            }
            let peer = event.token as usize;
            if event.writable {
                relay.send(peer, &[]);
            }
            if event.readable && relay.take(peer).is_err() {
                relay.close(peer);
            }
        }
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.peers.push(None);
                self.peers.len() - 1
            });
            self.poll.add(stream.as_raw_fd(), index as u64, false)?;
            self.peers[index] = Some(Peer {
                stream,
                role: Role::New,
                level: 4,
                partial: Vec::new(),
                unsent: Vec::new(),
                flushed: 0,
            });
        }
    }

    fn close(&mut self, index: usize) {
        if let Some(peer) = self.peers[index].take() {
            if let Role::Subscriber(topic) = peer.role {
                self.subscribers[topic].retain(|subscriber| *subscriber != index);
            }
            self.free.push(index);
        }
    }

    /// Reads once. An error ends the connection.
    fn take(&mut self, index: usize) -> Result<()> {
        let mut read = std::mem::take(&mut self.read);
        let result = self.take_into(index, &mut read);
        self.read = read;
        result
    }

    fn take_into(&mut self, index: usize, read: &mut Vec<u8>) -> Result<()> {
        let Some(peer) = &mut self.peers[index] else {
            return Ok(());
        };
        let kept = peer.partial.len();
        if read.len() < kept * 2 {
            read.resize(kept * 2, 0);
        }
        read[..kept].copy_from_slice(&peer.partial);
        let filled = match peer.stream.read(&mut read[kept..]) {
            Ok(0) => bail!("closed"),
            Ok(count) => kept + count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        peer.partial.clear();
        let bytes = &read[..filled];
        let mut used = 0;
        while let Role::New = self.role(index) {
            let Some(packet) = wire::next_packet(&bytes[used..])? else {
                break;
            };
            if packet.kind() != wire::PUBLISH {
                used += packet.total_len;
            }
            self.greet(index, &packet)?;
        }
        match self.role(index) {
            Role::Publisher(topic) => used += self.forward(*topic, &bytes[used..])?,
            // A subscriber has nothing more to say but DISCONNECT.
            Role::Subscriber(_) => ensure!(used > 0, "done"),
            Role::New => {}
        }
        if let Some(peer) = &mut self.peers[index] {
            peer.partial.extend_from_slice(&bytes[used..]);
        }
        Ok(())
    }

    fn role(&self, index: usize) -> &Role {
        self.peers[index]
            .as_ref()
            .map_or(&Role::New, |peer| &peer.role)
    }

    /// CONNECT, SUBSCRIBE or the first PUBLISH.
    fn greet(&mut self, index: usize, packet: &wire::Raw<'_>) -> Result<()> {
        let Some(peer) = &mut self.peers[index] else {
            bail!("closed");
        };
        match packet.kind() {
            wire::CONNECT => {
                peer.level = *packet.body.get(6).context("a short CONNECT")?;
                let connack: &[u8] = match peer.level {
                    5 => &[0x20, 3, 0, 0, 0],
                    _ => &[0x20, 2, 0, 0],
                };
                self.send(index, connack);
            }
            wire::SUBSCRIBE => {
                let id = packet.body.get(..2).context("a short SUBSCRIBE")?;
                let properties = usize::from(peer.level == 5);
                let suback = match properties {
                    0 => vec![0x90, 3, id[0], id[1], 0],
                    _ => vec![0x90, 4, id[0], id[1], 0, 0],
                };
                let filter = name(&packet.body[2 + properties..])?;
                ensure!(
                    !filter.contains(&b'+') && !filter.contains(&b'#'),
                    "a wildcard"
                );
                let topic = self.topic(filter);
                self.subscribers[topic].push(index);
                self.become_role(index, Role::Subscriber(topic));
                self.send(index, &suback);
            }
            wire::PUBLISH => {
                ensure!(packet.first_byte & 6 == 0, "QoS above 0");
                let topic = self.topic(name(packet.body)?);
                self.become_role(index, Role::Publisher(topic));
            }
            _ => bail!("done"),
        }
        Ok(())
    }

    fn become_role(&mut self, index: usize, role: Role) {
        if let Some(peer) = &mut self.peers[index] {
            peer.role = role;
        }
    }

    fn topic(&mut self, name: &[u8]) -> usize {
        let next = self.subscribers.len();
        let topic = *self.topics.entry(name.to_vec()).or_insert(next);
        if topic == next {
            self.subscribers.push(Vec::new());
        }
        topic
    }

    /// Sends all whole PUBLISH packets to all subscribers; the answer is how many bytes that was.
    fn forward(&mut self, topic: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        let mut ended = false;
        while let Some(packet) = wire::next_packet(&bytes[used..])? {
            if packet.kind() != wire::PUBLISH {
                ended = true;
                break;
            }
            used += packet.total_len;
        }
        if used > 0 {
            let subscribers = std::mem::take(&mut self.subscribers[topic]);
            for subscriber in &subscribers {
                self.send(*subscriber, &bytes[..used]);
            }
            self.subscribers[topic] = subscribers;
        }
        ensure!(!ended, "done");
        Ok(used)
    }

    /// Sends now what can be sent now. A broken connection shows when it is read.
    fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(peer) = &mut self.peers[index] else {
            return;
        };
        let waited = !peer.unsent.is_empty();
        if waited {
            peer.unsent.extend_from_slice(bytes);
            if let Ok(count) = peer.stream.write(&peer.unsent[peer.flushed..]) {
                peer.flushed += count;
            }
            if peer.flushed == peer.unsent.len() {
                peer.unsent.clear();
                peer.flushed = 0;
            }
        } else {
            let count = peer.stream.write(bytes).unwrap_or(0);
            peer.unsent.extend_from_slice(&bytes[count..]);
        }
        let waits = !peer.unsent.is_empty();
        if waits != waited {
            // If this failed, so does reading.
            let _ = self
                .poll
                .change(peer.stream.as_raw_fd(), index as u64, waits);
        }
    }
}

/// A string with its length in front.
fn name(bytes: &[u8]) -> Result<&[u8]> {
    let len = bytes.first_chunk::<2>().context("a short string")?;
    let end = 2 + usize::from(u16::from_be_bytes(*len));
    bytes.get(2..end).context("a short string")
}
