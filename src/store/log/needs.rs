//! How many queue entries and Retained Messages need each segment.

use std::sync::Arc;

use super::catalog::Segment;
use crate::store::Offset;
use crate::store::state::Bodies;

/// One count per segment. A segment that nobody needs can go.
#[derive(Default)]
pub(crate) struct Needs {
    /// In order of base.
    segments: Vec<Need>,
    /// Where the last look-up ended: the next one is usually near.
    last: usize,
    pub(crate) total: u64,
}

#[derive(Clone, Copy)]
struct Need {
    first: u64,
    base: Offset,
    count: u64,
}

impl Needs {
    pub(crate) fn new(segments: &[Arc<Segment>]) -> Needs {
        let mut needs = Needs::default();
        segments
            .iter()
            .for_each(|segment| needs.add_segment(segment.first, segment.base));
        needs
    }

    /// The log goes on in a new segment.
    pub(crate) fn add_segment(&mut self, first: u64, base: Offset) {
        if self.segments.last().is_none_or(|last| last.first < first) {
            self.segments.push(Need {
                first,
                base,
                count: 0,
            });
        }
    }

    pub(crate) fn count(&self, first: u64) -> u64 {
        self.segments
            .iter()
            .find(|need| need.first == first)
            .map_or(0, |need| need.count)
    }

    /// `old` became one segment, named by the first of them, or none.
    pub(crate) fn replace(&mut self, old: &[u64], keep: bool) {
        let mut moved = 0;
        let first = old.first().copied();
        self.segments.retain(|need| {
            let is_old = old.contains(&need.first);
            let stays = !is_old || keep && Some(need.first) == first;
            if !stays {
                moved += need.count;
            }
            stays
        });
        if let Some(need) = self
            .segments
            .iter_mut()
            .find(|need| Some(need.first) == first)
        {
            need.count += moved;
        }
        self.last = 0;
    }

    #[inline]
    fn find(&mut self, offset: Offset) -> Option<&mut Need> {
        let holds = |at: usize| {
            self.segments
                .get(at)
                .is_some_and(|need| need.base <= offset)
                && self
                    .segments
                    .get(at + 1)
                    .is_none_or(|next| next.base > offset)
        };
        if !holds(self.last) {
            self.last = self
                .segments
                .partition_point(|need| need.base <= offset)
                .checked_sub(1)?;
        }
        self.segments.get_mut(self.last)
    }
}

impl Bodies for Needs {
    #[inline]
    fn need(&mut self, offset: Offset) {
        if let Some(need) = self.find(offset) {
            need.count += 1;
            self.total += 1;
        }
    }

    #[inline]
    fn release(&mut self, offset: Offset) {
        if let Some(need) = self.find(offset) {
            need.count = need.count.saturating_sub(1);
            self.total = self.total.saturating_sub(1);
        }
    }
}
