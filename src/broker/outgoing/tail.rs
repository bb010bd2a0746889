//! The end of a long queue whose receiver is away: in the store alone.
//!
//! A place in memory for each message would be written when it comes and again when the store has
//! it, and would be most of what a queue of a million costs. So behind the first [`HEAD`] messages
//! only the latest are here, until the store has committed them; of those between nothing is known
//! but how many they are. When their turn comes the store is asked for its entries, page by page,
//! and they get slots like all others.
//!
//! In the order of their numbers: the slots, then what the store alone has, then what is coming.
//! Everything that is pushed while there is a tail goes to its end.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Body, Finished, Outgoing, PAGE_MESSAGES, Progress, Slot};
use crate::broker::message::Message;
use crate::store::Ticket;

/// Messages at the front of a queue that have a slot in any case. Few in unit tests, whose queues are
/// short.
const HEAD: usize = if cfg!(test) { 4 } else { 64 };

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Messages that the store alone has.
    pub(super) stored: usize,
    /// Bytes of their topics, properties and payloads.
    pub(super) stored_bytes: usize,
    /// What the store may not have yet, one number after the other up to `end`.
    pub(super) coming: VecDeque<Slot>,
    /// How many of these stand for a number without a message.
    gone: usize,
    /// The number behind the last one.
    end: u64,
    /// Messages behind the slots that were dropped when they were coming: the store may have entries of
    /// them still.
    dropped: Vec<u64>,
    /// The store may lack entries of messages that it has, until it has this ticket.
    entries_from: Ticket,
}

impl Tail {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.stored == 0 && self.coming.is_empty()
    }

    /// How many messages.
    pub(super) fn len(&self) -> usize {
        self.stored + self.coming.len() - self.gone
    }

    /// The number of the first that is coming.
    fn first_coming(&self) -> u64 {
        self.end - self.coming.len() as u64
    }

    /// Adds a slot that has a message.
    fn push(&mut self, slot: Slot) -> u64 {
        self.coming.push_back(slot);
        self.end += 1;
        self.end - 1
    }

    fn pass_over(&mut self) {
        self.push(Slot::default());
        self.gone += 1;
    }

    /// So many are not in the store alone any more.
    fn take(&mut self, messages: usize, bytes: usize) {
        self.stored -= messages;
        // The store counts what a message was published with, and here was counted what is sent on.
        self.stored_bytes = match self.stored {
            0 => 0,
            _ => self.stored_bytes.saturating_sub(bytes),
        };
    }
}

/// Entries of the store that are to get slots.
#[derive(Debug)]
pub struct Places {
    /// Their numbers.
    pub numbers: Range<u64>,
    /// How many have to be there.
    count: usize,
}

impl Outgoing {
    /// The number behind that of the last slot.
    fn end_of_slots(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// Queues a message for a receiver that is away, and that keeps a record of its queue. Like
    /// [`Outgoing::push`] otherwise. With [`Outgoing::spill`] it leaves the memory.
    pub fn push_away(&mut self, slot: Slot) -> u64 {
        if !self.tail.is_empty() || self.slots.len() >= HEAD {
            return self.push_behind(slot);
        }
        let sequence = self.push(slot);
        self.spill_later(sequence);
        sequence
    }

    /// Queues a message at the end of the tail.
    pub(super) fn push_behind(&mut self, slot: Slot) -> u64 {
        if self.tail.is_empty() {
            self.tail.end = self.end_of_slots();
        }
        while self.is_identifier_held((self.tail.end - self.base) as usize) {
            self.tail.pass_over();
        }
        self.bytes += slot.body.bytes();
        self.held += slot.body.held();
        self.tail.push(slot)
    }

    /// The store has entries for what is queued from this ticket on, at the earliest; answers what was
    /// said before. For messages that the store has already: of the others it gets both at once.
    pub fn has_entries_from(&mut self, ticket: Ticket) -> Ticket {
        std::mem::replace(&mut self.tail.entries_from, ticket)
    }

    /// Lets go of what is coming, as far as the store has it.
    pub(super) fn let_go(&mut self, durable: Ticket) {
        let tail = &mut self.tail;
        while let Some(first) = tail.coming.front() {
            match &first.body {
                Body::Held(message) => {
                    let is_there = message.offset().is_some() && message.hold() <= durable;
                    // Of some that were read from a stream the store has no entry.
                    if !is_there || tail.entries_from > durable || !first.is_entry() {
                        return;
                    }
                    let bytes = message.content_len();
                    tail.stored += 1;
                    tail.stored_bytes += bytes;
                    self.bytes -= bytes;
                    self.held -= message.size();
                }
                Body::Stored { .. } | Body::None => tail.gone -= 1,
            }
            tail.coming.pop_front();
        }
        if tail.coming.capacity() > 64 {
            tail.coming = VecDeque::new();
        }
        if self.tail.is_empty() && self.tail.end > self.end_of_slots() {
            // What was left was dropped. The store may have entries with these numbers.
            self.begin_at(self.tail.end);
        }
    }

    /// Gives slots to what is coming; nothing may be in the store alone.
    pub(super) fn bring_in(&mut self) {
        debug_assert_eq!(self.tail.stored, 0);
        let coming = std::mem::take(&mut self.tail.coming);
        if coming.is_empty() {
            return;
        }
        let first = self.tail.end - coming.len() as u64;
        self.tail = Tail::default();
        self.begin_at(first);
        for (slot, sequence) in coming.into_iter().zip(first..) {
            self.done += usize::from(slot.progress == Progress::Done);
            if slot.body.message().is_some() && slot.is_entry() {
                self.spill_later(sequence);
            }
            self.slots.push_back(slot);
        }
        self.pop_done();
    }

    /// Has the next slot have this number.
    pub(super) fn begin_at(&mut self, sequence: u64) {
        if self.slots.is_empty() {
            self.base = sequence;
        }
        self.pass_over_to(sequence);
    }

    /// Which entries of the store are to get slots before anything behind the slots can be sent.
    pub fn places(&self) -> Option<Places> {
        (self.tail.stored > 0).then(|| Places {
            numbers: self.end_of_slots()..self.tail.first_coming(),
            count: self.tail.stored,
        })
    }

    /// The same, if there are few slots left to be sent.
    pub fn places_for_page(&self) -> Option<Places> {
        let left = self.slots.len() - self.first_unknown();
        self.places().filter(|_| left < PAGE_MESSAGES / 2)
    }

    /// Gives slots to the first of these entries, in order of their numbers. `all` says that the store
    /// has no more of them. Answers how many it should have had and has not.
    pub fn take_places(
        &mut self,
        places: &Places,
        entries: impl Iterator<Item = (u64, Slot)>,
        all: bool,
    ) -> usize {
        if places.numbers.start != self.end_of_slots() {
            // Somebody else was faster.
            return 0;
        }
        let mut found = 0;
        for (sequence, slot) in entries {
            if self.tail.dropped.contains(&sequence) {
                // Or a page of nothing else would be asked for again and again.
                self.begin_at(sequence + 1);
                continue;
            }
            if found == places.count {
                break;
            }
            found += 1;
            self.begin_at(sequence);
            let bytes = slot.body.bytes();
            self.bytes += bytes;
            self.stored += usize::from(matches!(slot.body, Body::Stored { .. }));
            self.slots.push_back(slot);
            self.tail.take(1, bytes);
        }
        let lost = if all { places.count - found } else { 0 };
        self.tail.take(lost, 0);
        if self.tail.stored == 0 {
            self.begin_at(self.tail.first_coming());
            let end = self.end_of_slots();
            self.tail.dropped.retain(|&sequence| sequence >= end);
        }
        lost
    }

    /// [`Outgoing::drop_waiting`] for what is coming.
    pub(super) fn drop_coming(&mut self, unwanted: impl Fn(&Message) -> bool) -> u64 {
        let mut dropped = 0;
        let tail = &mut self.tail;
        let first = tail.first_coming();
        for (slot, sequence) in tail.coming.iter_mut().zip(first..) {
            let Some(message) = slot.body.message().filter(|message| unwanted(message)) else {
                continue;
            };
            dropped += 1;
            tail.gone += 1;
            tail.dropped.push(sequence);
            self.bytes -= message.content_len();
            self.held -= message.size();
            let is_entry = slot.is_entry();
            let slot = std::mem::take(slot);
            if let (Body::Held(message), Some(finished)) = (slot.body, &mut self.finished)
                && is_entry
            {
                finished.push(Finished {
                    sequence,
                    message: Some(message),
                    released: false,
                });
            }
        }
        dropped
    }

    /// Restores the rest of a queue as its tail: entries that were never sent, below
    /// `next_sequence`.
    pub(super) fn restore_tail(&mut self, next_sequence: u64, entries: impl Iterator<Item = Slot>) {
        for slot in entries {
            self.tail.stored += 1;
            self.tail.stored_bytes += slot.body.bytes();
        }
        self.tail.end = next_sequence;
    }

    /// Whether a restored entry needs no slot.
    pub(super) fn is_tail(&self, slot: &Slot) -> bool {
        self.slots.len() >= HEAD && slot.may_be_dropped() && slot.progress == Progress::Queued
    }
}
