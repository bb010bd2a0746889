//! Entries as differences to the one before, mostly one or two bytes each: in the middle of a long
//! queue, and in the checkpoint. Checkpoints that were written have these bytes for ever: see the
//! checklist of `table`.

use std::ops::Range;

use super::queue::Entry;
use crate::store::record::{Reader, put_varint};

/// Its seq is not the next one: how far it is behind follows.
const SEQ: u8 = 1;
/// Its size is another one, which follows.
const SIZE: u8 = 2;
/// What [`Entry::kind`] says is something else, which follows.
const KIND: u8 = 4;
const OFFSET_SHIFT: u32 = 3;
/// How far the message is behind does not fit, and follows.
const FAR: u64 = 31;

/// Appends what tells an entry from the one before it: a byte of the bits above, and of how far its
/// message is behind; then what that byte says follows.
pub(super) fn put_difference(before: &Entry, entry: &Entry, out: &mut Vec<u8>) {
    // Behind it, nearly always. Where not, the difference wraps.
    let offset = entry.offset().0.wrapping_sub(before.offset().0);
    let seqs = entry.distance(before.low_seq());
    let (seq, size) = (seqs != 1, entry.size != before.size);
    let kind = entry.kind() != before.kind();
    let bits = [(seq, SEQ), (size, SIZE), (kind, KIND)];
    let bits = bits.iter().filter(|(is_set, _)| *is_set);
    let bits = bits.fold(0, |bits, (_, bit)| bits | bit);
    out.push(bits | (offset.min(FAR) as u8) << OFFSET_SHIFT);
    if offset >= FAR {
        put_varint(out, offset);
    }
    if seq {
        put_varint(out, seqs);
    }
    if size {
        put_varint(out, u64::from(entry.size));
    }
    if kind {
        out.extend_from_slice(&entry.kind());
    }
}

/// Takes what [`put_difference`] put; `None` if it makes no sense.
#[inline]
pub(super) fn take_difference(before: &Entry, reader: &mut Reader<'_>) -> Option<Entry> {
    let bits = reader.u8()?;
    let offset = match u64::from(bits >> OFFSET_SHIFT) {
        FAR => reader.varint()?,
        near => near,
    };
    let seqs = match bits & SEQ {
        0 => 1,
        _ => reader.varint()?,
    };
    let mut entry = before.behind(offset, seqs);
    if bits & SIZE != 0 {
        entry.size = reader.varint_u32()?;
    }
    if bits & KIND != 0 {
        let kind = reader.take(4)?;
        entry.set_kind(kind.try_into().expect("four bytes were taken"))?;
    }
    Some(entry)
}

/// Neighbours in a queue: the first one, and the difference of each of the others to the one before.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) first: Entry,
    pub(super) others: &'a [u8],
}

impl<'a> Run<'a> {
    /// Has `buffer` hold the differences; `None` if there is no entry.
    pub(super) fn of(
        mut entries: impl Iterator<Item = Entry>,
        buffer: &'a mut Vec<u8>,
    ) -> Option<Run<'a>> {
        let first = entries.next()?;
        let mut before = first;
        buffer.clear();
        entries.for_each(|entry| {
            put_difference(&before, &entry, buffer);
            before = entry;
        });
        Some(Run {
            first,
            others: buffer,
        })
    }

    pub(super) fn iter(&self) -> Unpacked<'a> {
        Unpacked {
            before: self.first,
            is_first: true,
            rest: Reader::new(self.others),
        }
    }
}

/// The iterator of [`Run::iter`]; ends where the bytes make no sense.
pub(super) struct Unpacked<'a> {
    before: Entry,
    /// Whether `before` is still to come.
    is_first: bool,
    /// What is behind the last entry that came.
    rest: Reader<'a>,
}

impl Iterator for Unpacked<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        if !std::mem::take(&mut self.is_first) {
            self.before = take_difference(&self.before, &mut self.rest)?;
        }
        Some(self.before)
    }
}

/// [`Block::LEN`] entries of a queue in memory.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) first: Entry,
    others: Box<[u8]>,
}

impl Block {
    /// Entries that are packed together.
    pub(super) const LEN: usize = 64;

    pub(super) fn of(entries: &[Entry; Block::LEN]) -> Block {
        let mut others = Vec::with_capacity(2 * Block::LEN);
        Run::of(entries.iter().copied(), &mut others);
        Block {
            first: entries[0],
            others: others.into(),
        }
    }

    pub(super) fn run(&self) -> Run<'_> {
        Run {
            first: self.first,
            others: &self.others,
        }
    }

    pub(super) fn iter(&self) -> Unpacked<'_> {
        self.run().iter()
    }

    /// Some of its entries. Nothing is encoded for it, and what is behind them is not looked at.
    pub(super) fn part(&self, range: Range<usize>) -> Option<Run<'_>> {
        let mut entries = self.iter();
        let first = entries.nth(range.start)?;
        let start = self.others.len() - entries.rest.rest().len();
        let mut end = self.others.len();
        if range.end < Block::LEN {
            let left = (range.end - range.start).checked_sub(1)?;
            entries.by_ref().take(left).for_each(drop);
            end -= entries.rest.rest().len();
        }
        Some(Run {
            first,
            others: &self.others[start..end],
        })
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.others.len()
    }
}
