//! Where the messages of a queue are: in memory, or in the store alone.
//!
//! A message that somebody will want much later, because its receiver is away or far behind, stays
//! in memory only until the log has it. From then on its slot remembers its offset, and it is read
//! back in pages when its turn comes: so a queue of a million messages costs memory for their
//! places, not for their payloads.

use std::sync::Arc;

use super::{Outgoing, Progress, Slot};
use crate::broker::message::Message;
use crate::store::{Offset, Ticket};

/// Messages read back at a time, at most.
pub const PAGE_MESSAGES: usize = 1024;

/// Bytes of messages read back at a time, about: one message of any size is.
pub const PAGE_BYTES: usize = 256 * 1024;

/// The message of a slot.
#[derive(Debug, Default)]
pub enum Body {
    /// It is here.
    Held(Arc<Message>),
    /// The store has it.
    Stored {
        /// Where.
        offset: Offset,
        /// Bytes of its topic, properties and payload.
        size: u32,
    },
    /// It will never be needed again.
    #[default]
    None,
}

impl Body {
    /// The message, if it is here.
    pub fn message(&self) -> Option<&Arc<Message>> {
        match self {
            Body::Held(message) => Some(message),
            Body::Stored { .. } | Body::None => None,
        }
    }

    /// Bytes of topic, properties and payload.
    pub fn bytes(&self) -> usize {
        match self {
            Body::Held(message) => message.content_len(),
            Body::Stored { size, .. } => *size as usize,
            Body::None => 0,
        }
    }

    /// Bytes of memory that it takes.
    pub(super) fn held(&self) -> usize {
        self.message().map_or(0, |message| message.size())
    }
}

impl From<Option<Arc<Message>>> for Body {
    fn from(message: Option<Arc<Message>>) -> Body {
        message.map_or(Body::None, Body::Held)
    }
}

impl Outgoing {
    /// Fills an empty queue with what was kept of it: entries in order of their sequence numbers,
    /// all below `next_sequence`. None from `sent_to` on was ever sent. With `away` it gets a tail, as
    /// with [`Outgoing::push_away`].
    pub fn restore(
        &mut self,
        next_sequence: u64,
        sent_to: u64,
        mut entries: impl Iterator<Item = (u64, Slot)>,
        away: bool,
    ) {
        debug_assert!(self.is_empty());
        self.base = next_sequence;
        self.sent_to = sent_to;
        while let Some((sequence, slot)) = entries.next() {
            if away && sequence >= sent_to && self.is_tail(&slot) {
                let rest = entries.map(|(_, slot)| slot);
                self.restore_tail(next_sequence, std::iter::once(slot).chain(rest));
                break;
            }
            self.begin_at(sequence);
            self.bytes += slot.body.bytes();
            self.stored += usize::from(matches!(slot.body, Body::Stored { .. }));
            self.slots.push_back(slot);
        }
        if !self.slots.is_empty() && self.tail.is_empty() {
            self.pass_over_to(next_sequence);
        }
        self.loaded_to = self.base;
    }

    pub(super) fn pass_over_to(&mut self, sequence: u64) {
        while self.base + (self.slots.len() as u64) < sequence {
            self.slots.push_back(Slot::default());
            self.done += 1;
        }
    }

    /// Changes where a slot's message is; answers what was there.
    pub(super) fn replace_body(&mut self, at: usize, body: Body) -> Body {
        self.bytes += body.bytes();
        self.held += body.held();
        self.stored += usize::from(matches!(body, Body::Stored { .. }));
        let old = std::mem::replace(&mut self.slots[at].body, body);
        self.bytes -= old.bytes();
        self.held -= old.held();
        self.stored -= usize::from(matches!(old, Body::Stored { .. }));
        old
    }

    /// The place of a sequence number, if it is in the queue.
    fn place(&self, sequence: u64) -> Option<usize> {
        let at = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        (at < self.slots.len()).then_some(at)
    }

    /// The first slot to be sent that may be [`Body::Stored`].
    pub(super) fn first_unknown(&self) -> usize {
        let loaded = self.loaded_to.saturating_sub(self.base) as usize;
        loaded.min(self.slots.len()).max(self.next)
    }

    /// Has the message with this number leave the memory once the store has it; see
    /// [`Outgoing::spill`].
    pub fn spill_later(&mut self, sequence: u64) {
        self.spilling.push_back(sequence);
    }

    /// Has all messages leave the memory once the store has them, if it gets them at all.
    pub(super) fn spill_everything(&mut self) {
        if self.finished.is_none() {
            return;
        }
        // What the log keeps for others alone may be gone when it is wanted.
        let held = |slot: &Slot| matches!(slot.body, Body::Held(_)) && slot.is_entry();
        self.spilling.clear();
        let places = (self.base..).zip(self.slots.iter());
        self.spilling.extend(
            places
                .filter(|(_, slot)| held(slot))
                .map(|(sequence, _)| sequence),
        );
        self.loaded_to = self.base;
    }

    /// Lets go of messages that are to leave the memory, as far as the store has them.
    pub fn spill(&mut self, durable: Ticket) {
        while let Some(&sequence) = self.spilling.front() {
            if let Some(at) = self.place(sequence)
                && let Body::Held(message) = &self.slots[at].body
            {
                let Some(offset) = message.offset().filter(|_| message.hold() <= durable) else {
                    return;
                };
                let size = u32::try_from(message.content_len()).unwrap_or(u32::MAX);
                self.replace_body(at, Body::Stored { offset, size });
                self.loaded_to = self.loaded_to.min(sequence);
            }
            self.spilling.pop_front();
        }
        if self.spilling.capacity() > 64 {
            self.spilling = Default::default();
        }
        self.let_go(durable);
    }

    /// Whether messages should be read back now: less than half a page is ready to be sent, and
    /// there is more behind it.
    pub fn wants_page(&mut self) -> bool {
        if self.stored == 0 && self.tail.stored == 0 {
            return false;
        }
        let mut at = self.first_unknown();
        while at < self.slots.len() && !matches!(self.slots[at].body, Body::Stored { .. }) {
            at += 1;
        }
        self.loaded_to = self.base + at as u64;
        let ready = at - self.next;
        let is_last = at == self.slots.len() && self.tail.stored == 0;
        if is_last || ready >= PAGE_MESSAGES / 2 {
            return false;
        }
        let mut bytes = 0;
        self.slots.range(self.next..at).all(|slot| {
            bytes += slot.body.held();
            bytes < PAGE_BYTES / 2
        })
    }

    /// The next messages that have to be read back: their sequence numbers and offsets.
    pub fn page(&self) -> Vec<(u64, Offset)> {
        let mut page = Vec::new();
        let mut bytes = 0;
        for at in self.first_unknown()..self.slots.len() {
            if let Body::Stored { offset, size } = self.slots[at].body {
                bytes += size as usize;
                if !page.is_empty() && (bytes > PAGE_BYTES || page.len() == PAGE_MESSAGES) {
                    break;
                }
                page.push((self.base + at as u64, offset));
            }
        }
        page
    }

    /// Takes in a message that was read back.
    pub fn loaded(&mut self, sequence: u64, message: Arc<Message>) {
        if let Some(at) = self.place(sequence)
            && matches!(self.slots[at].body, Body::Stored { .. })
        {
            self.replace_body(at, Body::Held(message));
        }
    }

    /// Completes a message without sending it: it cannot be read back, or may not be sent. False
    /// if that is done already.
    pub fn give_up(&mut self, sequence: u64) -> bool {
        let at = self.place(sequence);
        let waits = at.filter(|&at| self.slots[at].progress == Progress::Queued);
        if let Some(at) = waits {
            self.complete(at);
        }
        waits.is_some()
    }
}
