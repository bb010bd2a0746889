//! WebSocket frames (RFC 6455 §5), unwrapped in the buffer that they were read into.

use anyhow::{Result, bail, ensure};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Masks what a client sends. Anything does: masking protects caches that are not here.
const MASK: [u8; 4] = [0x5A, 0x3C, 0xA5, 0xC3];

/// The longest head of a frame that is not masked.
const HEAD_MAX: usize = 10;

/// What comes, frame by frame.
pub struct Frames {
    /// Opcode of what is sent; messages that come are separated by line feeds if it is text.
    opcode: u8,
    head: [u8; HEAD_MAX],
    have: usize,
    /// Bytes of the payload that have not come, once the head has.
    left: Option<u64>,
    /// Payload of a ping or close frame.
    control: Vec<u8>,
    /// A pong that is due.
    pub owed: Vec<u8>,
}

impl Frames {
    pub fn new(opcode: u8) -> Frames {
        Frames {
            opcode,
            head: [0; HEAD_MAX],
            have: 0,
            left: None,
            control: Vec::new(),
            owed: Vec::new(),
        }
    }

    /// Moves the payloads of `buffer[from..to]` to `at`; the answer is where they end. `from` is
    /// beyond `at`, so that there is room to separate a message that began in an earlier read.
    pub fn unwrap(
        &mut self,
        buffer: &mut [u8],
        at: usize,
        from: usize,
        to: usize,
    ) -> Result<usize> {
        let (mut read, mut written) = (from, at);
        loop {
            let left = match self.left {
                Some(left) => left,
                None => {
                    while self.have < self.head_len() {
                        if read == to {
                            return Ok(written);
                        }
                        self.head[self.have] = buffer[read];
                        self.have += 1;
                        read += 1;
                    }
                    self.payload_len()?
                }
            };
            let count = (to - read).min(usize::try_from(left).unwrap_or(usize::MAX));
            let opcode = self.head[0] & 0x0F;
            if opcode >= CLOSE {
                self.control.extend_from_slice(&buffer[read..read + count]);
            } else {
                buffer.copy_within(read..read + count, written);
                written += count;
            }
            read += count;
            if count as u64 != left {
                self.left = Some(left - count as u64);
                return Ok(written);
            }
            let last = self.head[0] & 0x80 != 0;
            (self.left, self.have) = (None, 0);
            if opcode >= CLOSE {
                self.take_control(opcode)?;
            } else if last && self.opcode == TEXT {
                buffer[written] = b'\n';
                written += 1;
            }
        }
    }

    fn head_len(&self) -> usize {
        match self.head[1] & 0x7F {
            _ if self.have < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn payload_len(&self) -> Result<u64> {
        ensure!(self.head[0] & 0x70 == 0, "a frame with reserved bits");
        ensure!(self.head[1] & 0x80 == 0, "a masked frame from a server");
        let bytes = |range: std::ops::Range<usize>| {
            self.head[range]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Ok(match self.head[1] {
            126 => bytes(2..4),
            127 => bytes(2..10),
            len => u64::from(len),
        })
    }

    fn take_control(&mut self, opcode: u8) -> Result<()> {
        let payload = std::mem::take(&mut self.control);
        match opcode {
            PING => write(&mut self.owed, PONG, &payload),
            CLOSE => {
                let code = payload.first_chunk::<2>().copied().unwrap_or_default();
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                bail!(
                    "the broker closed the WebSocket with code {} {reason}",
                    u16::from_be_bytes(code)
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// Appends a message to `out`.
    pub fn wrap(&self, out: &mut Vec<u8>, payload: &[u8]) {
        write(out, self.opcode, payload);
    }
}

/// Appends one masked frame.
fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's frame.
    fn frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
        out.push(first);
        match payload.len() {
            len @ 0..=125 => out.push(len as u8),
            len => {
                out.push(126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
    }

    /// Reads `bytes` in pieces of `piece`.
    fn read(frames: &mut Frames, bytes: &[u8], piece: usize) -> Result<Vec<u8>> {
        let mut got = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut buffer = vec![0];
            buffer.extend_from_slice(piece);
            let to = buffer.len();
            let end = frames.unwrap(&mut buffer, 0, 1, to)?;
            got.extend_from_slice(&buffer[..end]);
        }
        Ok(got)
    }

    #[test]
    fn messages_are_the_same_however_they_are_cut() {
        let long = vec![b'x'; 300];
        let mut bytes = Vec::new();
        frame(&mut bytes, 0x81, b"one");
        frame(&mut bytes, 0x89, b"are you there");
        frame(&mut bytes, 0x01, b"t");
        frame(&mut bytes, 0x80, b"wo");
        frame(&mut bytes, 0x81, b"");
        frame(&mut bytes, 0x81, &long);
        let expected = [b"one\ntwo\n\n".as_slice(), &long, b"\n"].concat();
        for piece in 1..bytes.len() + 1 {
            let mut frames = Frames::new(TEXT);
            assert_eq!(read(&mut frames, &bytes, piece).unwrap(), expected);
            let pong: Vec<u8> = frames.owed[6..]
                .iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask)
                .collect();
            assert_eq!(frames.owed[0], 0x8A);
            assert_eq!(pong, b"are you there");
            let bare = [b"onetwo".as_slice(), &long].concat();
            assert_eq!(read(&mut Frames::new(BINARY), &bytes, piece).unwrap(), bare);
        }
    }

    #[test]
    fn a_close_is_an_error_with_its_code() {
        let mut bytes = Vec::new();
        frame(&mut bytes, 0x88, b"\x11\x94stopping");
        let error = read(&mut Frames::new(TEXT), &bytes, 64).unwrap_err();
        assert!(error.to_string().ends_with("4500 stopping"), "{error}");
    }
}
