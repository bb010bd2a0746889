//! One session's outgoing queue, two or three bytes an entry: a million queued messages are 3 MB.

use std::collections::BTreeMap;
use std::ops::Range;

use super::dirty::Noted;
use super::entries::Entries;
use super::packed::Run;
use crate::store::record::Item;
use crate::store::{EntryState, List, Offset, QueueEntry, QueuePage, Seq, SeqRange};

/// Seqs that one value of the checkpoint holds. Small enough that a queue whose head or tail
/// moved costs a few hundred bytes in the next checkpoint.
pub(super) const CHUNK_SEQS: u64 = 256;

/// Entries that are gone and may stay in their places behind one that is not, however few others
/// there are.
const GONE_MAX: usize = 1024;

/// What is kept of an entry besides its seq.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Entry {
    offset: u64,
    /// The low 48 bits of its seq, in two parts that leave no gap; see [`Entry::seq`].
    seq_low: u32,
    seq_high: u16,
    pub(super) size: u32,
    pub(super) qos: u8,
    pub(super) flags: u8,
    state: Slot,
    has_ids: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Slot {
    #[default]
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
            seq_high: 0,
            size,
            qos,
            flags,
            state: Slot::Queued,
            has_ids: false,
        }
    }

    /// What is behind it by so many messages and seqs, and like it otherwise.
    pub(super) fn behind(mut self, offsets: u64, seqs: u64) -> Entry {
        self.offset = self.offset.wrapping_add(offsets);
        self.set_seq(self.low_seq().wrapping_add(seqs));
        self
    }

    /// The low 48 bits of its seq.
    pub(super) fn low_seq(&self) -> Seq {
        u64::from(self.seq_high) << 32 | u64::from(self.seq_low)
    }

    /// What it has in common with most others.
    pub(super) fn kind(&self) -> [u8; 4] {
        let state = match self.state {
            Slot::Queued => 0,
            Slot::Released => 1,
            Slot::Gone => 2,
        };
        [self.qos, self.flags, state, u8::from(self.has_ids)]
    }

    /// `None` if there is no such kind.
    pub(super) fn set_kind(&mut self, [qos, flags, state, has_ids]: [u8; 4]) -> Option<()> {
        self.state = match state {
            0 => Slot::Queued,
            1 => Slot::Released,
            2 => Slot::Gone,
            _ => return None,
        };
        (self.qos, self.flags, self.has_ids) = (qos, flags, has_ids != 0);
        (has_ids <= 1).then_some(())
    }

    pub(super) fn set_seq(&mut self, seq: Seq) {
        (self.seq_low, self.seq_high) = (seq as u32, (seq >> 32) as u16);
    }

    /// How many seqs it is behind the first entry of its queue. Entries are within 2^48 seqs of it,
    /// however long that one stays.
    pub(super) fn distance(&self, first: Seq) -> u64 {
        self.low_seq().wrapping_sub(first) & ((1 << 48) - 1)
    }

    /// Its seq, in a queue whose first entry has `first`.
    pub(super) fn seq(&self, first: Seq) -> Seq {
        first + self.distance(first)
    }

    pub(super) fn released(mut self) -> Entry {
        self.state = Slot::Released;
        self
    }

    pub(super) fn is_released(&self) -> bool {
        self.state == Slot::Released
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state == Slot::Gone
    }

    pub(super) fn has_ids(&self) -> bool {
        self.has_ids
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
    entries: Entries,
    /// The seq of the first entry, while there is one.
    first: Seq,
    next_seq: Seq,
    /// How many entries are [`Slot::Gone`].
    gone: usize,
    /// Of the few entries that have any.
    subscription_ids: BTreeMap<Seq, Box<[u32]>>,
    pub(super) noted: Noted,
}

impl Queue {
    /// The seq of an entry that is there.
    fn seq_at(&self, index: usize) -> Option<Seq> {
        Some(self.entries.get(index)?.seq(self.first))
    }

    /// The index of the first entry that is not before `seq`.
    fn position(&self, seq: Seq) -> usize {
        if seq <= self.first {
            return 0;
        }
        let (first, distance) = (self.first, seq - self.first);
        // A queue without gaps has the entry right there.
        if let Ok(guess) = usize::try_from(distance)
            && let Some(entry) = self.entries.get(guess)
            && entry.distance(first) == distance
        {
            return guess;
        }
        self.entries
            .partition_point(|entry| entry.distance(first) < distance)
    }

    pub(super) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    pub(super) fn raise_next_seq(&mut self, next_seq: Seq) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// Reads what adding an entry at the end will need. The answer means nothing.
    pub(super) fn touch(&self) -> u64 {
        self.entries.back().map_or(0, |last| last.low_seq())
    }

    /// Reads what says where [`Queue::touch`] has to look. The answer means nothing.
    pub(super) fn touch_self(&self) -> u64 {
        self.next_seq ^ self.entries.len() as u64 ^ self.noted.touch()
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
        entry.set_seq(seq);
        entry.has_ids = !subscription_ids.is_empty();
        if self.entries.is_empty() {
            self.first = seq;
            self.entries.push_back(entry);
        } else if seq >= self.next_seq {
            self.entries.push_back(entry);
        } else {
            let at = self.position(seq);
            if self.seq_at(at) == Some(seq) {
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
        let (ids, noted, gone) = (&mut self.subscription_ids, &mut self.noted, &mut self.gone);
        let mut forget = |entry: &Entry| {
            let seq = entry.seq(first);
            if entry.has_ids {
                ids.remove(&seq);
            }
            removed(seq, entry.message(), noted);
        };
        if start == 0 {
            // All that is in front goes: in one step, and not entry by entry.
            let mut were_gone = 0;
            for entry in self.entries.range(0..end) {
                match entry.state {
                    Slot::Gone => were_gone += 1,
                    Slot::Queued | Slot::Released => forget(&entry),
                }
            }
            self.gone -= were_gone;
            self.first = self.seq_at(end).unwrap_or(self.first);
            self.entries.drop_front(end);
        } else {
            self.entries.change(start..end, |entry| {
                if entry.state != Slot::Gone {
                    forget(entry);
                    entry.state = Slot::Gone;
                    *gone += 1;
                }
            });
        }
        self.drop_gone();
    }

    fn drop_gone(&mut self) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.state == Slot::Gone)
        {
            self.first = self.seq_at(1).unwrap_or(self.first);
            self.entries.pop_front();
            self.gone -= 1;
        }
        while self
            .entries
            .back()
            .is_some_and(|entry| entry.state == Slot::Gone)
        {
            self.entries.pop_back();
            self.gone -= 1;
        }
        // An entry that is never acknowledged does not keep the places of all that came after it.
        if self.gone > GONE_MAX && self.gone > self.entries.len() / 2 {
            self.entries.retain(|entry| entry.state != Slot::Gone);
            self.gone = 0;
        }
    }

    /// PUBREC came for `seq`: returns the message that it no longer needs.
    pub(super) fn release(&mut self, seq: Seq) -> Option<Offset> {
        let at = self.position(seq);
        let mut entry = self.entries.get(at)?;
        let message = entry.message().filter(|_| entry.seq(self.first) == seq)?;
        if std::mem::take(&mut entry.has_ids) {
            self.subscription_ids.remove(&seq);
        }
        entry = entry.released();
        self.entries.change(at..at + 1, |it| *it = entry);
        Some(message)
    }

    /// All entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, Entry)> {
        self.range(0, self.entries.len())
    }

    /// The entries of one chunk as runs.
    pub(super) fn each_run(&self, chunk: u64, mut each: impl FnMut(Run<'_>)) {
        let start = self.position(chunk * CHUNK_SEQS);
        let end = self.position((chunk + 1).saturating_mul(CHUNK_SEQS));
        if self.gone == 0 {
            return self.entries.each_run(start..end, each);
        }
        // None of those that are gone may come back.
        let there = self.range(start, end.max(start)).map(|(_, entry)| entry);
        let mut buffer = Vec::new();
        Run::of(there, &mut buffer).map(&mut each);
    }

    /// The subscription identifiers of the entries of one chunk that have any, in order.
    pub(super) fn subscription_ids_of(&self, chunk: u64) -> impl Iterator<Item = &[u32]> {
        let first = chunk * CHUNK_SEQS;
        let range = first..=first.saturating_add(CHUNK_SEQS - 1);
        self.subscription_ids.range(range).map(|(_, ids)| &**ids)
    }

    /// The first chunk from `chunk` on that has entries.
    pub(super) fn next_chunk(&self, chunk: u64) -> Option<u64> {
        let at = self.position(chunk.saturating_mul(CHUNK_SEQS));
        Some(self.seq_at(at)? / CHUNK_SEQS)
    }

    fn range(&self, start: usize, end: usize) -> impl Iterator<Item = (Seq, Entry)> {
        let first = self.first;
        self.entries
            .range(start..end)
            .filter(|entry| entry.state != Slot::Gone)
            .map(move |entry| (entry.seq(first), entry))
    }

    /// All there is.
    pub(super) fn recovered(&self) -> QueuePage {
        self.page(0..self.next_seq, self.entries.len())
    }

    /// The first `max` entries with seqs in `range`.
    pub(super) fn page(&self, range: Range<Seq>, max: usize) -> QueuePage {
        let start = self.position(range.start);
        let end = self.position(range.end).max(start);
        let mut entries = Vec::with_capacity(max.min(end - start));
        entries.extend(self.range(start, end).take(max).map(show));
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return QueuePage::default();
        };
        let ids = self.subscription_ids.range(first.seq..=last.seq);
        let subscription_ids = ids.map(|(&seq, ids)| (seq, ids.clone())).collect();
        QueuePage {
            entries,
            subscription_ids,
        }
    }
}

fn show((seq, entry): (Seq, Entry)) -> QueueEntry {
    QueueEntry {
        seq,
        offset: entry.offset(),
        size: entry.size,
        qos: entry.qos,
        flags: entry.flags,
        state: match entry.is_released() {
            true => EntryState::Released,
            false => EntryState::Queued,
        },
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

    #[test]
    fn an_entry_that_stays_does_not_keep_the_places_of_others() {
        let mut queue = Queue::default();
        for seq in 0..100_000 {
            queue.insert(seq, entry(seq), List::default());
            if seq % 1000 != 0 {
                let range = SeqRange::one(seq);
                queue.remove(range, |_, _, _| {});
            }
            assert!(
                queue.entries.len() <= 2 * (GONE_MAX + 102),
                "{}",
                queue.entries.len()
            );
        }
        let left: Vec<Seq> = (0..100).map(|it| it * 1000).collect();
        assert_eq!(seqs(&queue), left);
        assert_eq!(queue.page(1_001..5_000, 10).entries.len(), 3);
        assert_eq!(
            queue.page(0..u64::MAX, 2).entries.last().map(|it| it.seq),
            Some(1_000)
        );
        queue.remove(
            SeqRange {
                first: 0,
                last: 98_000,
            },
            |_, _, _| {},
        );
        assert_eq!(seqs(&queue), [99_000]);
    }

    #[test]
    fn one_that_stays_for_very_long_is_told_from_those_long_after_it() {
        let mut queue = Queue::default();
        let base = (5_u64 << 48) - 3;
        let all = [
            base,
            base + 1,
            base + (1 << 32),
            base + (3 << 32) + 1,
            base + (1 << 47),
        ];
        for seq in all {
            queue.insert(seq, entry(seq), List::default());
        }
        assert_eq!(seqs(&queue), all);
        let range = SeqRange {
            first: base + 2,
            last: base + (2 << 32),
        };
        queue.remove(range, |seq, _, _| assert_eq!(seq, all[2]));
        assert_eq!(queue.release(all[3]), Some(Offset(all[3])));
        assert_eq!(seqs(&queue), [all[0], all[1], all[3], all[4]]);
        assert_eq!(std::mem::size_of::<Entry>(), 24);
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
            let first = queue.first;
            queue.each_run(next, |run| {
                let of_run: Vec<Seq> = run.iter().map(|it| it.seq(first)).collect();
                assert!(of_run.iter().all(|seq| seq / CHUNK_SEQS == next));
                all.extend(of_run);
            });
            chunk = next + 1;
        }
        assert_eq!(all, seqs(&queue));
    }
}
