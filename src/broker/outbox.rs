//! Bytes on their way to one connection: a contiguous tail that small frames are copied into, and
//! before it segments that are shared with other receivers.
//!
//! An empty outbox owns no memory, so an idle connection has no buffer.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Below this, joining two outboxes by copying costs less than another slice in each write.
const JOIN_COPY_MAX: usize = 4096;

/// An ordered sequence of bytes to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    segments: VecDeque<Bytes>,
    segment_bytes: usize,
    tail: Vec<u8>,
    /// How much of `tail` has been written already; not 0 only while there is no segment.
    written: usize,
}

impl Outbox {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes still to be written.
    pub fn len(&self) -> usize {
        self.segment_bytes + self.tail.len() - self.written
    }

    /// How many shared segments there are before the tail.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The place to encode small frames into: bytes are only ever added at its end.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Adds bytes without copying them.
    pub fn push_shared(&mut self, bytes: Bytes) {
        self.seal_tail();
        self.segment_bytes += bytes.len();
        self.segments.push_back(bytes);
    }

    fn seal_tail(&mut self) {
        if self.tail.len() > self.written {
            let mut sealed = Bytes::from(std::mem::take(&mut self.tail));
            sealed.advance(self.written);
            self.segment_bytes += sealed.len();
            self.segments.push_back(sealed);
        } else {
            self.tail.clear();
        }
        self.written = 0;
    }

    /// Moves everything of `other` behind what is here.
    pub fn append(&mut self, other: &mut Outbox) {
        if self.is_empty() {
            std::mem::swap(self, other);
            other.clear();
            return;
        }
        if other.segments.is_empty() && other.len() <= JOIN_COPY_MAX {
            self.tail.extend_from_slice(&other.tail[other.written..]);
            other.clear();
            return;
        }
        self.seal_tail();
        self.segment_bytes += other.segment_bytes;
        self.segments.append(&mut other.segments);
        self.tail = std::mem::take(&mut other.tail);
        self.written = other.written;
        other.clear();
    }

    /// Forgets everything and gives the memory back.
    pub fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// Fills `slices` with the first bytes to write, and answers how many slices it filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for segment in &self.segments {
            if filled == slices.len() {
                return filled;
            }
            slices[filled] = IoSlice::new(segment);
            filled += 1;
        }
        if filled < slices.len() && self.tail.len() > self.written {
            slices[filled] = IoSlice::new(&self.tail[self.written..]);
            filled += 1;
        }
        filled
    }

    /// Notes that the first `count` bytes were written. The memory is given back once all are.
    pub fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let Some(front) = self.segments.front_mut() else {
                self.written += count;
                debug_assert!(self.written <= self.tail.len());
                break;
            };
            let step = count.min(front.len());
            front.advance(step);
            self.segment_bytes -= step;
            count -= step;
            if front.is_empty() {
                self.segments.pop_front();
            }
        }
        if self.is_empty() {
            self.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbox: &mut Outbox, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = outbox.slices(&mut slices);
            let joined: Vec<u8> = slices[..filled]
                .iter()
                .flat_map(|s| s.iter().copied())
                .collect();
            let taken = step.min(joined.len());
            all.extend_from_slice(&joined[..taken]);
            outbox.advance(taken);
        }
        all
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        for step in 1..9 {
            let mut outbox = Outbox::default();
            outbox.tail().extend_from_slice(b"ab");
            outbox.push_shared(Bytes::from_static(b"cde"));
            outbox.push_shared(Bytes::from_static(b"f"));
            outbox.tail().extend_from_slice(b"ghi");
            assert_eq!(outbox.len(), 9);
            assert_eq!(drain(&mut outbox, step), b"abcdefghi");
            assert_eq!(outbox.len(), 0);
        }
    }

    #[test]
    fn appending_keeps_order_whatever_is_on_either_side() {
        for (left, right) in [(0, 0), (0, 3), (3, 0), (3, 3), (3, JOIN_COPY_MAX + 1)] {
            for shared in [false, true] {
                let mut a = Outbox::default();
                a.tail().extend(std::iter::repeat_n(1, left));
                a.tail().extend_from_slice(b"x");
                a.advance(1);
                let mut b = Outbox::default();
                if shared {
                    b.push_shared(Bytes::from_static(b"yy"));
                }
                b.tail().extend(std::iter::repeat_n(2, right));
                let mut expected = vec![1; left];
                if left > 0 {
                    expected.pop();
                    expected.push(b'x');
                }
                if shared {
                    expected.extend_from_slice(b"yy");
                }
                expected.extend(std::iter::repeat_n(2, right));
                a.append(&mut b);
                assert!(b.is_empty());
                assert_eq!(drain(&mut a, 2), expected);
            }
        }
    }
}
