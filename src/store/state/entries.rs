//! The entries of one queue, in order. The middle of a long queue is packed: there nothing is added
//! or acknowledged for now, and an entry is the difference to the one before it (see `packed`), mostly
//! one or two bytes instead of 24.

use std::collections::VecDeque;
use std::ops::Range;

use super::packed::{Block, Run};
use super::queue::Entry;
use crate::chunks::Chunks;

/// Entries that are packed together.
const BLOCK: usize = Block::LEN;
/// Entries at the end that are not packed: appends of neighbours may come in either order.
const TAIL_MAX: usize = 2 * BLOCK;

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The first ones, which are being acknowledged; all of them, if there are few.
    head: Chunks<Entry>,
    /// Those behind them.
    packed: VecDeque<Block>,
    /// The last ones.
    tail: Vec<Entry>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.behind_packed() + self.tail.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The index of the first entry of the tail.
    fn behind_packed(&self) -> usize {
        self.head.len() + self.packed.len() * BLOCK
    }

    fn is_short(&self) -> bool {
        self.packed.is_empty() && self.tail.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> Option<Entry> {
        if let Some(entry) = self.head.get(index) {
            return Some(*entry);
        }
        let index = index - self.head.len();
        match self.packed.get(index / BLOCK) {
            Some(block) => block.iter().nth(index % BLOCK),
            None => self.tail.get(index - self.packed.len() * BLOCK).copied(),
        }
    }

    pub(super) fn front(&self) -> Option<Entry> {
        self.get(0)
    }

    pub(super) fn back(&self) -> Option<Entry> {
        self.get(self.len().checked_sub(1)?)
    }

    pub(super) fn push_back(&mut self, entry: Entry) {
        if self.is_short() && self.head.len() < TAIL_MAX {
            return self.head.push_back(entry);
        }
        if self.tail.len() == self.tail.capacity() && self.tail.len() < TAIL_MAX {
            let more = self.tail.len().clamp(8, TAIL_MAX);
            self.tail
                .reserve_exact(more.min(TAIL_MAX - self.tail.len()));
        }
        self.tail.push(entry);
        if self.tail.len() >= TAIL_MAX {
            self.pack();
        }
    }

    /// Packs all but the last ones.
    fn pack(&mut self) {
        let (all, _) = self.tail.as_chunks();
        // At least one block of them stays.
        let blocks = (self.tail.len() - BLOCK) / BLOCK;
        self.packed.extend(all[..blocks].iter().map(Block::of));
        self.tail.drain(..blocks * BLOCK);
        self.tail.shrink_to(TAIL_MAX);
    }

    /// Puts an entry at this index; the later ones move. Meant for places near the end: what was packed
    /// behind it already is not packed again before one comes at the end. Those of a batch that is late
    /// come one after the other.
    pub(super) fn insert(&mut self, index: usize, entry: Entry) {
        if index == self.len() {
            return self.push_back(entry);
        }
        if index <= self.head.len() {
            return self.head.insert(index, entry);
        }
        self.unpack_from(index);
        let behind = self.behind_packed();
        self.tail.insert(index - behind, entry);
    }

    /// Has the entries from this index on, of those that are packed, be in the tail.
    fn unpack_from(&mut self, index: usize) {
        let blocks = index.saturating_sub(self.head.len()) / BLOCK;
        if blocks < self.packed.len() {
            let late = self.packed.split_off(blocks);
            self.tail.splice(..0, late.iter().flat_map(Block::iter));
        }
    }

    /// Has the entry at this index not be packed.
    fn unpack(&mut self, index: usize) {
        while index >= self.head.len()
            && let Some(block) = self.packed.pop_front()
        {
            block.iter().for_each(|entry| self.head.push_back(entry));
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        self.unpack(0);
        if self.head.is_empty() {
            self.tail.drain(..).for_each(|it| self.head.push_back(it));
        }
        self.head.pop_front()
    }

    pub(super) fn pop_back(&mut self) -> Option<Entry> {
        if self.tail.is_empty()
            && let Some(block) = self.packed.pop_back()
        {
            self.tail.extend(block.iter());
        }
        self.tail.pop().or_else(|| self.head.pop_back())
    }

    /// Removes the first `count` entries.
    pub(super) fn drop_front(&mut self, mut count: usize) {
        if count < self.head.len() {
            self.head.drop_front(count);
            count = 0;
        } else {
            count -= self.head.len();
            self.head = Chunks::default();
            let blocks = self.packed.len().min(count / BLOCK);
            self.packed.drain(..blocks);
            count -= blocks * BLOCK;
        }
        for _ in 0..count {
            self.pop_front();
        }
        if self.packed.is_empty() {
            self.packed.shrink_to_fit();
        }
    }

    /// Keeps the entries that `keep` says true to.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let mut kept = Entries::default();
        while let Some(entry) = self.pop_front() {
            if keep(&entry) {
                kept.push_back(entry);
            }
        }
        *self = kept;
    }

    /// The index of the first entry that `before` says false to; true for all in front of it.
    pub(super) fn partition_point(&self, mut before: impl FnMut(&Entry) -> bool) -> usize {
        let behind = self.behind_packed();
        if self.tail.first().is_some_and(&mut before) {
            return behind + self.tail.partition_point(before);
        }
        let blocks = self.packed.partition_point(|block| before(&block.first));
        match blocks.checked_sub(1) {
            // It is in this one, or right behind it.
            Some(last) => {
                let within = self.packed[last].iter().take_while(before).count();
                self.head.len() + last * BLOCK + within
            }
            None => self.head.partition_point(before),
        }
    }

    /// The entries of a range of indices; those that there are.
    pub(super) fn range(&self, range: Range<usize>) -> impl Iterator<Item = Entry> {
        let (head, behind) = (self.head.len(), self.behind_packed());
        let Range { start, end } = range;
        let within = start.clamp(head, behind) - head..end.clamp(head, behind) - head;
        let blocks = within.start / BLOCK..within.end.div_ceil(BLOCK);
        let blocks = blocks.start..blocks.end.max(blocks.start);
        let packed = self.packed.range(blocks).flat_map(Block::iter);
        let packed = packed
            .skip(within.start % BLOCK)
            .take(within.end.saturating_sub(within.start));
        let tail = start.clamp(behind, self.len()) - behind..end.clamp(behind, self.len()) - behind;
        let tail = self.tail.get(tail).unwrap_or_default();
        let head = self.head.range(start.min(head)..end.min(head));
        head.copied().chain(packed).chain(tail.iter().copied())
    }

    /// The entries of a range of indices as runs, those that are packed as they are.
    pub(super) fn each_run(&self, range: Range<usize>, mut each: impl FnMut(Run<'_>)) {
        let (head, behind) = (self.head.len(), self.behind_packed());
        let Range { start, end } = range;
        let mut buffer = Vec::new();
        Run::of(self.range(start..end.min(head)), &mut buffer).map(&mut each);
        let mut at = start.max(head);
        while at < end.min(behind) {
            let (index, within) = ((at - head) / BLOCK, (at - head) % BLOCK);
            let until = BLOCK.min(within + end - at);
            self.packed[index].part(within..until).map(&mut each);
            at += until - within;
        }
        Run::of(self.range(at.max(behind)..end), &mut buffer).map(&mut each);
    }

    /// Has `each` change the entries of a range of indices, in order.
    pub(super) fn change(&mut self, range: Range<usize>, mut each: impl FnMut(&mut Entry)) {
        let end = range.end.min(self.len());
        if range.start >= end {
            return;
        }
        let behind = self.behind_packed();
        if range.start < behind {
            self.unpack(end.min(behind) - 1);
            let head = range.start..end.min(self.head.len());
            self.head.change(head, &mut each);
        }
        if end > behind {
            let tail = range.start.max(behind) - behind..end - behind;
            self.tail[tail].iter_mut().for_each(each);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::Offset;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        PopFront(usize),
        PopBack(usize),
        DropFront(f64),
        /// At a share of the length.
        Insert(f64),
        InsertNearTheEnd(usize),
        Retain(u64),
        Change(f64, f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_usize..400).prop_map(Step::Push),
            2 => (1_usize..300).prop_map(Step::PopFront),
            1 => (1_usize..300).prop_map(Step::PopBack),
            1 => (0.0..=1.0).prop_map(Step::DropFront),
            1 => (0.0..=1.0).prop_map(Step::Insert),
            2 => (0_usize..200).prop_map(Step::InsertNearTheEnd),
            1 => (2_u64..5).prop_map(Step::Retain),
            2 => ((0.0..=1.0), (0.0..=1.0)).prop_map(|(a, b)| Step::Change(a, b)),
        ]
    }

    fn share(of: usize, share: f64) -> usize {
        (of as f64 * share) as usize
    }

    /// Any entry, mostly much like its neighbours.
    fn entry(random: u64) -> Entry {
        let mut entry = Entry::new(Offset(random >> 20), 100, 1, 0);
        entry.set_seq(random >> 8);
        if random.is_multiple_of(3) {
            entry = Entry::new(
                Offset(random),
                random as u32,
                (random % 3) as u8,
                random as u8,
            );
            entry.set_seq(random.wrapping_mul(random));
        }
        match random.is_multiple_of(7) {
            true => entry.released(),
            false => entry,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_vec(steps in prop::collection::vec(step(), 1..30), seed in any::<u64>()) {
            let mut entries = Entries::default();
            let mut plain: Vec<Entry> = Vec::new();
            let mut random = seed;
            let mut next = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                entry(random >> 16)
            };
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        let entry = next();
                        entries.push_back(entry);
                        plain.push(entry);
                    },
                    Step::PopFront(count) => for _ in 0..count.min(plain.len()) {
                        prop_assert_eq!(entries.pop_front(), Some(plain.remove(0)));
                    },
                    Step::PopBack(count) => for _ in 0..count {
                        prop_assert_eq!(entries.pop_back(), plain.pop());
                    },
                    Step::DropFront(count) => {
                        let count = share(plain.len(), count);
                        entries.drop_front(count);
                        plain.drain(..count);
                    }
                    Step::Insert(at) => {
                        let (at, entry) = (share(plain.len(), at), next());
                        entries.insert(at, entry);
                        plain.insert(at, entry);
                    }
                    Step::InsertNearTheEnd(from_end) => {
                        let (at, entry) = (plain.len().saturating_sub(from_end), next());
                        entries.insert(at, entry);
                        plain.insert(at, entry);
                    }
                    Step::Retain(of) => {
                        entries.retain(|it| !it.offset().0.is_multiple_of(of));
                        plain.retain(|it| !it.offset().0.is_multiple_of(of));
                    }
                    Step::Change(a, b) => {
                        let (a, b) = (share(plain.len(), a.min(b)), share(plain.len(), a.max(b)));
                        prop_assert!(entries.range(a..b).eq(plain[a..b].iter().copied()));
                        entries.change(a..b, |it| it.size += u32::from(it.size < 1_000));
                        plain[a..b].iter_mut().for_each(|it| it.size += u32::from(it.size < 1_000));
                        prop_assert!(entries.range(a..b).eq(plain[a..b].iter().copied()));
                        let mut of_runs = Vec::new();
                        entries.each_run(a..b, |run| of_runs.extend(run.iter()));
                        prop_assert_eq!(of_runs, &plain[a..b]);
                    }
                }
                prop_assert_eq!(entries.len(), plain.len());
                prop_assert_eq!(entries.is_empty(), plain.is_empty());
                prop_assert_eq!(entries.front(), plain.first().copied());
                prop_assert_eq!(entries.back(), plain.last().copied());
                prop_assert!(entries.range(0..usize::MAX).eq(plain.iter().copied()));
                let some = (0..plain.len()).step_by(29);
                prop_assert!(some.into_iter().all(|at| entries.get(at) == Some(plain[at])));
                prop_assert_eq!(entries.get(plain.len()), None);
            }
        }

        #[test]
        fn a_place_is_found(count in 0_u64..1_000, dropped in 0_usize..500, step in 1_u64..4) {
            let mut entries = Entries::default();
            for number in 0..count {
                entries.push_back(Entry::new(Offset(number * step), 1, 1, 0));
            }
            entries.drop_front(dropped);
            let plain: Vec<Entry> = entries.range(0..usize::MAX).collect();
            for wanted in 0..=count * step + 1 {
                let before = |it: &Entry| it.offset().0 < wanted;
                prop_assert_eq!(entries.partition_point(before), plain.partition_point(before));
            }
        }
    }

    fn plain(number: u64) -> Entry {
        let mut entry = Entry::new(Offset(number * 3), 120, 1, 0);
        entry.set_seq(number);
        entry
    }

    fn bytes(entries: &Entries) -> usize {
        let packed: usize = entries.packed.iter().map(|it| it.bytes()).sum();
        let blocks = entries.packed.capacity() * std::mem::size_of::<Block>();
        packed + blocks + entries.tail.capacity() * std::mem::size_of::<Entry>()
    }

    #[test]
    fn a_million_like_each_other_take_two_bytes_each() {
        let mut entries = Entries::default();
        (0..1_000_000).for_each(|number| entries.push_back(plain(number)));
        assert!(entries.tail.capacity() <= TAIL_MAX);
        let bytes = bytes(&entries);
        assert!(bytes < 2_400_000, "{bytes}");
    }

    #[test]
    fn entries_that_come_later_than_hundreds_behind_them_leave_a_queue_packed() {
        let mut entries = Entries::default();
        for batch in 0..1_000 {
            let first = batch * 400;
            (first + 100..first + 400).for_each(|number| entries.push_back(plain(number)));
            for number in first..first + 100 {
                entries.insert(number as usize, plain(number));
            }
            assert!(entries.tail.len() < 600, "{}", entries.tail.len());
        }
        entries.push_back(plain(400_000));
        assert!(entries.tail.capacity() <= TAIL_MAX);
        assert!(entries.range(0..usize::MAX).eq((0..=400_000).map(plain)));
        assert!(entries.head.len() < 400, "{}", entries.head.len());
        let bytes = bytes(&entries);
        assert!(bytes < 1_000_000, "{bytes}");
    }
}
