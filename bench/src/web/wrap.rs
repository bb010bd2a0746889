//! What lies between the socket and what is said over it.

use anyhow::Result;

use super::chunks::Chunks;
use super::frames::Frames;

/// Bytes that are left free in front of what is read, where it is wrapped: unwrapping adds at most
/// this much to what a read holds.
pub const ROOM: usize = 1;

pub enum Wrap {
    None,
    Chunks(Chunks),
    Frames(Box<Frames>),
}

impl Wrap {
    /// Unwraps `buffer[from..to]` to `at`, which is [`ROOM`] before `from`; the answer is where that
    /// ends.
    pub fn unwrap(
        &mut self,
        buffer: &mut [u8],
        at: usize,
        from: usize,
        to: usize,
    ) -> Result<usize> {
        match self {
            Wrap::None => {
                buffer.copy_within(from..to, at);
                Ok(at + to - from)
            }
            Wrap::Chunks(chunks) => chunks.unwrap(buffer, at, from, to),
            Wrap::Frames(frames) => frames.unwrap(buffer, at, from, to),
        }
    }

    /// How much room unwrapping needs.
    pub fn room(&self) -> usize {
        match self {
            Wrap::None => 0,
            Wrap::Chunks(_) | Wrap::Frames(_) => ROOM,
        }
    }

    /// `bytes` as they are to be sent: `None` if just so.
    pub fn wrap(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let Wrap::Frames(frames) = self else {
            return None;
        };
        let mut out = Vec::with_capacity(bytes.len() + 14);
        frames.wrap(&mut out, bytes);
        Some(out)
    }

    /// What has to be answered to what came.
    pub fn owed(&mut self) -> Option<Vec<u8>> {
        match self {
            Wrap::Frames(frames) if !frames.owed.is_empty() => {
                Some(std::mem::take(&mut frames.owed))
            }
            _ => None,
        }
    }
}
