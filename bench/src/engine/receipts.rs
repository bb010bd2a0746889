//! Who has received what: losses, duplicates and order per stream, and how far all receivers of a
//! publisher have come, which closes the loop.

use std::collections::BTreeMap;

/// Gaps that are remembered in one stream, to tell a late message from a duplicate.
const GAPS_MAX: usize = 10_000;

/// The messages of one publisher as one subscriber sees them.
#[derive(Default)]
pub struct Stream {
    /// The sequence number expected next.
    pub next: u64,
    pub duplicates: u64,
    /// Came after a later message.
    pub late: u64,
    missing: u64,
    /// Start → end (exclusive) of what was skipped and has not come since.
    gaps: BTreeMap<u64, u64>,
}

impl Stream {
    /// Notes the arrival of `sequence`; the answer is whether it is new.
    #[inline]
    pub fn receive(&mut self, sequence: u64) -> bool {
        if sequence == self.next {
            self.next += 1;
            return true;
        }
        self.receive_unexpected(sequence)
    }

    #[cold]
    fn receive_unexpected(&mut self, sequence: u64) -> bool {
        if sequence > self.next {
            self.missing += sequence - self.next;
            if self.gaps.len() < GAPS_MAX {
                self.gaps.insert(self.next, sequence);
            }
            self.next = sequence + 1;
            return true;
        }
        if let Some((&start, &end)) = self.gaps.range(..=sequence).next_back()
            && sequence < end
        {
            self.gaps.remove(&start);
            if start < sequence {
                self.gaps.insert(start, sequence);
            }
            if sequence + 1 < end {
                self.gaps.insert(sequence + 1, end);
            }
            self.missing -= 1;
            self.late += 1;
            return true;
        }
        self.duplicates += 1;
        false
    }

    /// How many of `sent` messages never came.
    pub fn lost(&self, sent: u64) -> u64 {
        self.missing + sent.saturating_sub(self.next)
    }
}

/// How far the slowest receiver of one publisher has come.
pub struct Progress {
    receivers: u32,
    /// Every message below this number has reached all receivers, or is given up.
    done: u64,
    /// For each message from `done` on: how many receivers have it or a later one.
    reached: Vec<u32>,
    mask: u64,
}

impl Progress {
    pub fn new(receivers: u32, window: usize) -> Progress {
        let slots = (window + 1).next_power_of_two();
        Progress {
            receivers,
            done: 0,
            reached: if receivers > 1 {
                vec![0; slots]
            } else {
                Vec::new()
            },
            mask: slots as u64 - 1,
        }
    }

    pub fn done(&self) -> u64 {
        self.done
    }

    /// One receiver went from expecting `from` to expecting `to`. The answer is whether `done` moved.
    #[inline]
    pub fn advance(&mut self, from: u64, to: u64) -> bool {
        if self.receivers <= 1 {
            let moved = to > self.done;
            self.done = self.done.max(to);
            return moved;
        }
        for sequence in from.max(self.done)..to {
            self.reached[(sequence & self.mask) as usize] += 1;
        }
        let before = self.done;
        while let Some(count) = self.reached.get_mut((self.done & self.mask) as usize)
            && *count == self.receivers
        {
            *count = 0;
            self.done += 1;
        }
        self.done > before
    }

    /// One message has reached some receiver: shared subscriptions, where order means nothing.
    pub fn count_one(&mut self) {
        self.done += 1;
    }

    /// Takes everything before `sent` for lost.
    pub fn give_up(&mut self, sent: u64) {
        self.done = sent;
        self.reached.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_ones_and_duplicates_are_told_apart() {
        let mut stream = Stream::default();
        for sequence in [0, 1, 5, 3, 3, 1, 6] {
            stream.receive(sequence);
        }
        assert_eq!((stream.late, stream.duplicates), (1, 2));
        assert_eq!(stream.lost(7), 2, "2 and 4");
        assert_eq!(stream.lost(9), 4);
        assert!(stream.receive(2));
        assert!(stream.receive(4));
        assert!(!stream.receive(4));
        assert_eq!(stream.lost(7), 0);
    }

    #[test]
    fn progress_is_that_of_the_slowest() {
        let mut progress = Progress::new(3, 10);
        assert!(!progress.advance(0, 4));
        assert!(!progress.advance(0, 2));
        assert!(progress.advance(0, 3));
        assert_eq!(progress.done(), 2);
        assert!(progress.advance(2, 4));
        assert_eq!(progress.done(), 3);
        progress.give_up(9);
        assert!(!progress.advance(4, 10));
        assert!(!progress.advance(3, 10));
        assert!(progress.advance(3, 10));
        assert_eq!(progress.done(), 10);
    }
}
