//! One session's outgoing queue, 24 bytes an entry: a million queued messages are 24 MB.

use std::collections::{BTreeMap, VecDeque};

use super::dirty::Noted;
use crate::store::record::Item;
use crate::store::{EntryState, List, Offset, QueueEntry, Seq, SeqRange};

/// Seqs that one value of the checkpoint holds. Small enough that a queue whose head or tail
/// moved costs a few hundred bytes in the next checkpoint.
pub(super) const CHUNK_SEQS: u64 = 256;

/// What is kept of an entry besides its seq.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Entry {
    offset: u64,
    /// The low half of its seq; see [`Queue::seq_at`].
    seq_low: u32,
    pub(super) size: u32,
    pub(super) qos: u8,
    pub(super) flags: u8,
    state: Slot,
    has_ids: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Queued,
    Released,
    /// Acknowledged before its predecessors: goes when they have gone.
    Gone,
}

impl Entry {
    pub(super) fn new(offset: Offset, size: u32, qos: u8, flags: u8) -> Entry {
        Entry {
            offset: offset.0,
            seq_low: 0,
            size,
            qos,
            flags,
            state: Slot::Queued,
            has_ids: false,
        }
    }

    pub(super) fn released(mut self) -> Entry {
        self.state = Slot::Released;
        self
    }

    pub(super) fn is_released(&self) -> bool {
        self.state == Slot::Released
    }

    pub(super) fn offset(&self) -> Offset {
        Offset(self.offset)
    }

    /// The message that it needs, if it still needs one.
    pub(super) fn message(&self) -> Option<Offset> {
        (self.state == Slot::Queued).then_some(Offset(self.offset))
    }
}

#[derive(Default)]
pub(super) struct Queue {
    /// Ordered by seq.
    entries: VecDeque<Entry>,
    /// The seq of the first entry, while there is one.
    first: Seq,
    next_seq: Seq,
    /// Of the few entries that have any.
    subscription_ids: BTreeMap<Seq, Box<[u32]>>,
    pub(super) noted: Noted,
}

impl Queue {
    /// Entries are within 2^32 seqs of the first one, so that the low half tells which.
    fn seq_at(&self, index: usize) -> Seq {
        self.first + u64::from(self.entries[index].seq_low.wrapping_sub(self.first as u32))
    }

    /// The index of the first entry that is not before `seq`.
    fn position(&self, seq: Seq) -> usize {
        if seq <= self.first {
            return 0;
        }
        let Ok(distance) = u32::try_from(seq - self.first) else {
            return self.entries.len();
        };
        let first = self.first as u32;
        // A queue without gaps has the entry right there.
        let guess = distance as usize;
        if let Some(entry) = self.entries.get(guess)
            && entry.seq_low.wrapping_sub(first) == distance
        {
            return guess;
        }
        self.entries
            .partition_point(|entry| entry.seq_low.wrapping_sub(first) < distance)
    }

    pub(super) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    pub(super) fn raise_next_seq(&mut self, next_seq: Seq) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// Adds an entry, usually at the end; `false` if its seq is there already.
    pub(super) fn insert<'a>(
        &mut self,
        seq: Seq,
        mut entry: Entry,
        subscription_ids: List<'a, u32>,
    ) -> bool
    where
        u32: Item<'a>,
    {
        entry.seq_low = seq as u32;
        entry.has_ids = !subscription_ids.is_empty();
        if self.entries.is_empty() {
            self.first = seq;
            self.entries.push_back(entry);
        } else if seq >= self.next_seq {
            self.entries.push_back(entry);
        } else {
            let at = self.position(seq);
            if at < self.entries.len() && self.seq_at(at) == seq {
                return false;
            }
            self.entries.insert(at, entry);
            self.first = self.first.min(seq);
        }
        self.next_seq = self.next_seq.max(seq + 1);
        if entry.has_ids {
            self.subscription_ids
                .insert(seq, subscription_ids.iter().collect());
        }
        true
    }

    /// Removes a range; `removed` gets the seq and the message it needed, of each that was there.
    /// Looks at the entries of the range and at no others, however long the queue is.
    pub(super) fn remove(
        &mut self,
        range: SeqRange,
        mut removed: impl FnMut(Seq, Option<Offset>, &mut Noted),
    ) {
        let start = self.position(range.first);
        let end = match range.last.checked_add(1) {
            Some(behind) => self.position(behind),
            None => self.entries.len(),
        };
        let end = end.max(start);
        let first = self.first;
        for entry in self.entries.range_mut(start..end) {
            let seq = first + u64::from(entry.seq_low.wrapping_sub(first as u32));
            if entry.state == Slot::Gone {
                continue;
            }
            let message = entry.message();
            entry.state = Slot::Gone;
            if entry.has_ids {
                self.subscription_ids.remove(&seq);
            }
            removed(seq, message, &mut self.noted);
        }
        if start == 0 {
            // All that was in front is gone: in one step, and not entry by entry.
            if end < self.entries.len() {
                self.first = self.seq_at(end);
            }
            self.entries.drain(..end);
        }
        self.drop_gone();
    }

    fn drop_gone(&mut self) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.state == Slot::Gone)
        {
            if self.entries.len() > 1 {
                self.first = self.seq_at(1);
            }
            self.entries.pop_front();
        }
        while self
            .entries
            .back()
            .is_some_and(|entry| entry.state == Slot::Gone)
        {
            self.entries.pop_back();
        }
        // A long queue that was drained gives its memory back.
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// PUBREC came for `seq`: returns the message that it no longer needs.
    pub(super) fn release(&mut self, seq: Seq) -> Option<Offset> {
        let at = self.position(seq);
        if at >= self.entries.len() || self.seq_at(at) != seq {
            return None;
        }
        let entry = &mut self.entries[at];
        let message = entry.message()?;
        entry.state = Slot::Released;
        if std::mem::take(&mut entry.has_ids) {
            self.subscription_ids.remove(&seq);
        }
        Some(message)
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, &Entry)> {
        self.range(0, self.entries.len())
    }

    /// The entries of one chunk.
    pub(super) fn chunk(&self, chunk: u64) -> impl Iterator<Item = (Seq, &Entry)> {
        let start = self.position(chunk * CHUNK_SEQS);
        let end = self.position((chunk + 1).saturating_mul(CHUNK_SEQS));
        self.range(start, end.max(start))
    }

    /// The first chunk from `chunk` on that has entries.
    pub(super) fn next_chunk(&self, chunk: u64) -> Option<u64> {
        let at = self.position(chunk.saturating_mul(CHUNK_SEQS));
        (at < self.entries.len()).then(|| self.seq_at(at) / CHUNK_SEQS)
    }

    fn range(&self, start: usize, end: usize) -> impl Iterator<Item = (Seq, &Entry)> {
        let first = self.first;
        self.entries
            .range(start..end)
            .filter(|entry| entry.state != Slot::Gone)
            .map(move |entry| {
                let distance = entry.seq_low.wrapping_sub(first as u32);
                (first + u64::from(distance), entry)
            })
    }

    pub(super) fn subscription_ids_of(&self, seq: Seq, entry: &Entry) -> &[u32] {
        if entry.has_ids {
            self.subscription_ids.get(&seq).map_or(&[], |ids| ids)
        } else {
            &[]
        }
    }

    pub(super) fn recovered(&self) -> Vec<QueueEntry> {
        let mut all = Vec::with_capacity(self.entries.len());
        all.extend(self.iter().map(|(seq, entry)| QueueEntry {
            seq,
            offset: entry.offset(),
            size: entry.size,
            qos: entry.qos,
            flags: entry.flags,
            state: if entry.is_released() {
                EntryState::Released
            } else {
                EntryState::Queued
            },
        }));
        all
    }

    pub(super) fn recovered_subscription_ids(&self) -> Vec<(Seq, Box<[u32]>)> {
        self.subscription_ids
            .iter()
            .map(|(&seq, ids)| (seq, ids.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(queue: &Queue) -> Vec<Seq> {
        queue.iter().map(|(seq, _)| seq).collect()
    }

    fn entry(offset: u64) -> Entry {
        Entry::new(Offset(offset), 1, 1, 0)
    }

    #[test]
    fn entries_are_kept_in_order_of_seq_and_each_only_once() {
        let mut queue = Queue::default();
        for seq in [5, 7, 6, 3, 7] {
            queue.insert(seq, entry(seq), List::default());
        }
        assert_eq!(seqs(&queue), [3, 5, 6, 7]);
        assert_eq!(queue.next_seq(), 8);
    }

    #[test]
    fn an_entry_acknowledged_out_of_order_is_gone_at_once() {
        let mut queue = Queue::default();
        (1..=5).for_each(|seq| {
            queue.insert(seq, entry(seq), List::default());
        });
        let mut freed = Vec::new();
        queue.remove(SeqRange { first: 2, last: 3 }, |_, offset, _| {
            freed.extend(offset);
        });
        queue.remove(SeqRange { first: 1, last: 3 }, |_, offset, _| {
            freed.extend(offset);
        });
        assert_eq!(freed, [Offset(2), Offset(3), Offset(1)]);
        assert_eq!(seqs(&queue), [4, 5]);
    }

    #[test]
    fn seqs_beyond_32_bits_are_told_apart() {
        let mut queue = Queue::default();
        let base = (7_u64 << 32) - 2;
        for seq in base..base + 5 {
            queue.insert(seq, entry(seq), List::default());
        }
        assert_eq!(seqs(&queue), (base..base + 5).collect::<Vec<_>>());
        assert_eq!(queue.release(base + 3), Some(Offset(base + 3)));
        assert_eq!(queue.release(base + 3), None);
        queue.remove(
            SeqRange {
                first: 0,
                last: base + 1,
            },
            |_, _, _| {},
        );
        assert_eq!(seqs(&queue), [base + 2, base + 3, base + 4]);
    }

    /// Whatever is left of it, and however much that is.
    #[test]
    fn a_prefix_is_removed_whole() {
        let mut queue = Queue::default();
        for seq in (10..1_000).step_by(3) {
            queue.insert(seq, entry(seq), List::default());
        }
        let mut expected: Vec<Seq> = (10..1_000).step_by(3).collect();
        queue.remove(SeqRange::one(16), |_, _, _| {});
        expected.retain(|&seq| seq != 16);
        for last in [0, 9, 10, 13, 40, 41, 900, 997, u64::MAX] {
            let mut removed = Vec::new();
            queue.remove(SeqRange { first: 0, last }, |seq, _, _| removed.push(seq));
            let gone = expected.partition_point(|&seq| seq <= last);
            assert_eq!(removed, expected.drain(..gone).collect::<Vec<_>>());
            assert_eq!(seqs(&queue), expected, "up to {last}");
        }
        queue.insert(2_000, entry(1), List::default());
        assert_eq!(seqs(&queue), [2_000]);
    }

    #[test]
    fn chunks_cover_the_queue_without_overlap() {
        let mut queue = Queue::default();
        for seq in (100..2000).step_by(7) {
            queue.insert(seq, entry(seq), List::default());
        }
        let mut all = Vec::new();
        let mut chunk = 0;
        while let Some(next) = queue.next_chunk(chunk) {
            all.extend(queue.chunk(next).map(|(seq, _)| seq));
            chunk = next + 1;
        }
        assert_eq!(all, seqs(&queue));
    }
}
