//! The chunked transfer coding (RFC 9112 §7.1), unwrapped in the buffer that it was read into.

use anyhow::{Result, bail};

/// Where in a chunk the next byte belongs.
#[derive(Clone, Copy, Debug)]
enum Part {
    Size,
    /// Behind the size, up to the end of the line.
    Extension,
    Data,
    /// The line feed that ends the data.
    End,
}

pub struct Chunks {
    part: Part,
    size: usize,
}

impl Chunks {
    pub fn new() -> Chunks {
        Chunks {
            part: Part::Size,
            size: 0,
        }
    }

    /// Moves the data of `buffer[from..to]` to `at`; the answer is where it ends.
    pub fn unwrap(
        &mut self,
        buffer: &mut [u8],
        at: usize,
        from: usize,
        to: usize,
    ) -> Result<usize> {
        let (mut read, mut written) = (from, at);
        while read < to {
            let byte = buffer[read];
            match self.part {
                Part::Size => {
                    let digit = match byte {
                        b'0'..=b'9' => byte - b'0',
                        b'a'..=b'f' => byte - b'a' + 10,
                        b'A'..=b'F' => byte - b'A' + 10,
                        b'\r' | b';' => {
                            self.part = Part::Extension;
                            continue;
                        }
                        _ => bail!("a chunk whose size is no number"),
                    };
                    self.size = self.size.saturating_mul(16) + usize::from(digit);
                    read += 1;
                }
                Part::Extension => {
                    read += 1;
                    if byte == b'\n' {
                        self.part = Part::Data;
                        if self.size == 0 {
                            bail!("the broker ended the stream");
                        }
                    }
                }
                Part::Data => {
                    let count = self.size.min(to - read);
                    buffer.copy_within(read..read + count, written);
                    (read, written) = (read + count, written + count);
                    self.size -= count;
                    if self.size == 0 {
                        self.part = Part::End;
                    }
                }
                Part::End => {
                    read += 1;
                    if byte == b'\n' {
                        self.part = Part::Size;
                    }
                }
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], piece: usize) -> Result<Vec<u8>> {
        let mut chunks = Chunks::new();
        let mut got = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut buffer = piece.to_vec();
            let to = buffer.len();
            let end = chunks.unwrap(&mut buffer, 0, 0, to)?;
            got.extend_from_slice(&buffer[..end]);
        }
        Ok(got)
    }

    #[test]
    fn data_is_the_same_however_it_is_cut() {
        let bytes = b"3\r\none\r\n1A;name=value\r\nabcdefghijklmnopqrstuvwxyz\r\n1\r\n\n\r\n";
        for piece in 1..bytes.len() + 1 {
            let got = read(bytes, piece).unwrap();
            assert_eq!(got, b"oneabcdefghijklmnopqrstuvwxyz\n");
        }
    }

    #[test]
    fn the_last_chunk_is_the_end() {
        assert!(read(b"1\r\nx\r\n0\r\n\r\n", 100).is_err());
        assert!(read(b"x\r\n", 100).is_err());
    }
}
