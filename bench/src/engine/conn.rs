//! One non-blocking connection: bytes that could not be sent yet, and the beginning of a packet
//! whose end has not come.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Result, bail};

use crate::client::Client;
use crate::web::Language;
use crate::web::wrap::Wrap;
use crate::wire;

/// What is said of a connection that the other side closed.
pub const CLOSED: &str = "the broker closed the connection";

pub struct Conn {
    stream: TcpStream,
    wrap: Wrap,
    pub language: Language,
    partial: Vec<u8>,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent after all; moving the rest each time would cost more.
    flushed: usize,
    pub dead: bool,
}

impl Conn {
    pub fn new(client: Client) -> Result<Conn> {
        client.stream.set_read_timeout(None)?;
        client.stream.set_nonblocking(true)?;
        Ok(Conn {
            stream: client.stream,
            wrap: client.wrap,
            language: client.language,
            partial: client.rest,
            unsent: Vec::new(),
            flushed: 0,
            dead: false,
        })
    }

    /// One that was accepted.
    pub fn accepted(stream: TcpStream, language: Language) -> Result<Conn> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Conn {
            stream,
            wrap: Wrap::None,
            language,
            partial: Vec::new(),
            unsent: Vec::new(),
            flushed: 0,
            dead: false,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The answer is whether everything is sent; what is not is kept.
    pub fn send(&mut self, bytes: &[u8]) -> Result<bool> {
        if self.dead {
            return Ok(true);
        }
        match self.wrap.wrap(bytes) {
            Some(wrapped) => self.send_wrapped(&wrapped),
            None => self.send_wrapped(bytes),
        }
    }

    fn send_wrapped(&mut self, bytes: &[u8]) -> Result<bool> {
        if self.has_unsent() {
            self.unsent.extend_from_slice(bytes);
            return Ok(false);
        }
        let sent = send_some(&mut self.stream, bytes)?;
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(sent == bytes.len())
    }

    pub fn flush(&mut self) -> Result<bool> {
        self.flushed += send_some(&mut self.stream, &self.unsent[self.flushed..])?;
        let all = self.flushed == self.unsent.len();
        if all {
            self.unsent.clear();
            self.flushed = 0;
        }
        Ok(all)
    }

    /// Puts the partial packet and what can be read now into `buffer`, unwrapped; the answer is how
    /// many bytes that are in all. The buffer grows when a packet is larger than it.
    pub fn read_into(&mut self, buffer: &mut Vec<u8>) -> Result<usize> {
        let kept = self.partial.len();
        if kept > 0 {
            if buffer.len() < kept * 2 {
                buffer.resize(kept * 2, 0);
            }
            buffer[..kept].copy_from_slice(&self.partial);
        }
        let from = kept + self.wrap.room();
        match self.stream.read(&mut buffer[from..]) {
            Ok(0) => bail!(CLOSED),
            Ok(count) => {
                self.partial.clear();
                let filled = self.wrap.unwrap(buffer, kept, from, from + count)?;
                if let Some(owed) = self.wrap.owed() {
                    // Nothing waits for it; what does not fit now goes with what is sent next.
                    self.send_wrapped(&owed)?;
                }
                Ok(filled)
            }
            Err(error) if is_temporary(error.kind()) => {
                self.partial.clear();
                Ok(kept)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// DISCONNECT, if the connection can still take it; nothing waits for its end.
    pub fn say_goodbye(&mut self) {
        if !self.dead && !self.has_unsent() && self.language == Language::Mqtt {
            let _ = self.send(&wire::DISCONNECT_PACKET);
        }
    }

    /// Keeps the beginning of a packet for the next read.
    pub fn keep(&mut self, partial: &[u8]) {
        self.partial.extend_from_slice(partial);
    }
}

/// How much the kernel took, until it took no more.
fn send_some(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(0) => bail!(CLOSED),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

fn is_temporary(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
