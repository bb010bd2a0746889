//! The order of a feed's messages: a data structure that knows neither store nor readers' tasks.
//!
//! Messages come in the order in which publishers deliver, and become visible in the order of the
//! log, once they are durable. A message whose append has not returned yet holds back whatever may
//! come after it in the log, so that a reader that was given an offset has everything before it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::reader::Gap;
use crate::broker::message::Message;
use crate::store::{Offset, Seq, Ticket};

/// Forms in which edges cache an event for all who want it; what each means is theirs to say.
const RENDERINGS: usize = 4;

/// Visible messages that stay in memory for readers that keep up.
const RECENT_EVENTS: usize = 4096;
const RECENT_BYTES: usize = 4 * 1024 * 1024;

/// A message of a feed.
#[derive(Debug)]
pub struct Event {
    /// Its place in the log.
    pub offset: Offset,
    /// When it was published, in Unix milliseconds.
    pub at_ms: u64,
    /// The message.
    pub message: Arc<Message>,
    /// How many messages before it could not be kept, and are missing here.
    pub lost_before: u64,
    renderings: [OnceLock<Bytes>; RENDERINGS],
}

impl Event {
    /// A message at its place.
    pub fn new(offset: Offset, at_ms: u64, message: Arc<Message>) -> Event {
        Event {
            offset,
            at_ms,
            message,
            lost_before: 0,
            renderings: Default::default(),
        }
    }

    /// What is missing right before it.
    pub fn gap(&self) -> Option<Gap> {
        (self.lost_before > 0).then_some(Gap {
            oldest: Some(self.offset),
            lost: Some(self.lost_before),
            cursor: Offset(self.offset.0.saturating_sub(1)),
        })
    }

    /// The event in one of its forms, made by `render` for the first who asks.
    pub fn rendering(&self, form: usize, render: impl FnOnce(&Event) -> Bytes) -> &Bytes {
        self.renderings[form].get_or_init(|| render(self))
    }
}

/// A message that is not visible yet.
struct Pending {
    seq: Seq,
    message: Arc<Message>,
    size: u32,
    at_ms: u64,
    lost_before: u64,
    /// Its append gets a later ticket than this, or this one once `appended`.
    ticket: Ticket,
    appended: bool,
}

/// Where a visible message is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub offset: Offset,
    /// 0 if it is not known without reading the message.
    pub at_ms: u64,
    pub size: u32,
    seq_low: u32,
}

#[derive(Default)]
pub(super) struct Sequence {
    pending: Vec<Pending>,
    /// By offset.
    places: VecDeque<Place>,
    /// How many places were taken away at the front; so the index of the first is this.
    first_index: u64,
    /// The last of the places, in memory.
    recent: VecDeque<Arc<Event>>,
    recent_bytes: usize,
    bytes: u64,
    next_seq: Seq,
    /// Everything that matched and has a higher offset is here.
    floor: Offset,
    /// Messages that could not be kept since the last that could.
    lost: u64,
}

impl Sequence {
    /// An empty one that is complete from behind `floor` on.
    pub(super) fn new(floor: Offset) -> Sequence {
        Sequence {
            floor,
            next_seq: 1,
            ..Sequence::default()
        }
    }

    /// Adds what was visible before a restart, in order.
    pub(super) fn restore(
        &mut self,
        next_seq: Seq,
        places: impl Iterator<Item = (Seq, Offset, u32)>,
    ) {
        self.next_seq = self.next_seq.max(next_seq);
        for (seq, offset, size) in places {
            self.bytes += u64::from(size);
            self.next_seq = self.next_seq.max(seq + 1);
            self.places.push_back(Place {
                offset,
                at_ms: 0,
                size,
                seq_low: seq as u32,
            });
        }
        // Seqs are in the order of delivery, which is not quite that of the log.
        self.places
            .make_contiguous()
            .sort_by_key(|place| place.offset);
    }

    /// Takes a message in that is about to be appended; `appended` is the last ticket so far.
    pub(super) fn push(&mut self, message: Arc<Message>, at_ms: u64, appended: Ticket) -> Seq {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.pending.push(Pending {
            seq,
            size: u32::try_from(message.content_len()).unwrap_or(u32::MAX),
            message,
            at_ms,
            lost_before: std::mem::take(&mut self.lost),
            ticket: appended,
            appended: false,
        });
        seq
    }

    /// Notes a message that cannot be kept.
    pub(super) fn lose(&mut self) {
        self.lost += 1;
    }

    /// The messages with these numbers are in the log, safe once the store has `ticket`.
    pub(super) fn appended(&mut self, first: Seq, last: Seq, ticket: Ticket) {
        for pending in &mut self.pending {
            if (first..=last).contains(&pending.seq) && pending.message.offset().is_some() {
                pending.ticket = ticket;
                pending.appended = true;
            }
        }
    }

    /// The messages with these numbers did not get into the log.
    pub(super) fn abandon(&mut self, first: Seq, last: Seq) {
        let before = self.pending.len();
        self.pending
            .retain(|pending| pending.appended || !(first..=last).contains(&pending.seq));
        self.lost += (before - self.pending.len()) as u64;
    }

    /// Makes visible what is durable and has all before it; whether that was anything.
    pub(super) fn advance(&mut self, durable: Ticket) -> bool {
        let held_back = self.pending.iter().filter(|it| !it.appended);
        let limit = held_back.map(|it| it.ticket).min().unwrap_or(durable);
        let limit = limit.min(durable);
        let mut ready: Vec<Pending> = self
            .pending
            .extract_if(.., |it| it.appended && it.ticket <= limit)
            .collect();
        ready.sort_unstable_by_key(|it| it.message.offset());
        let any = !ready.is_empty();
        for pending in ready {
            self.show(pending);
        }
        any
    }

    fn show(&mut self, pending: Pending) {
        let Some(offset) = pending.message.offset() else {
            return;
        };
        self.bytes += u64::from(pending.size);
        self.places.push_back(Place {
            offset,
            at_ms: pending.at_ms,
            size: pending.size,
            seq_low: pending.seq as u32,
        });
        self.recent_bytes += pending.message.size();
        let mut event = Event::new(offset, pending.at_ms, pending.message);
        event.lost_before = pending.lost_before;
        self.recent.push_back(Arc::new(event));
        while self.recent.len() > RECENT_EVENTS
            || self.recent_bytes > RECENT_BYTES && self.recent.len() > 1
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(event) = self.recent.pop_front() {
            self.recent_bytes -= event.message.size();
        }
    }

    /// The ticket that the next message to become visible waits for, if it is appended.
    pub(super) fn waits_for(&self) -> Option<Ticket> {
        let appended = self.pending.iter().filter(|it| it.appended);
        appended.map(|it| it.ticket).min()
    }

    /// The index of the first place, and of the one after the last.
    pub(super) fn range(&self) -> (u64, u64) {
        (
            self.first_index,
            self.first_index + self.places.len() as u64,
        )
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn floor(&self) -> Offset {
        self.floor
    }

    pub(super) fn place(&self, index: u64) -> Option<&Place> {
        let at = usize::try_from(index.checked_sub(self.first_index)?).ok()?;
        self.places.get(at)
    }

    /// Notes when a message was published, for the next who wants to know.
    pub(super) fn note_time(&mut self, index: u64, offset: Offset, at_ms: u64) {
        let Some(at) = index.checked_sub(self.first_index) else {
            return;
        };
        if let Some(place) = self.places.get_mut(at as usize)
            && place.offset == offset
        {
            place.at_ms = at_ms;
        }
    }

    /// The index of the first message after `offset`.
    pub(super) fn after(&self, offset: Offset) -> u64 {
        self.first_index + self.places.partition_point(|place| place.offset <= offset) as u64
    }

    /// The events from `index` on that are in memory, if that one is.
    pub(super) fn recent_from(&self, index: u64) -> Option<impl Iterator<Item = &Arc<Event>>> {
        let (_, end) = self.range();
        let start = end - self.recent.len() as u64;
        let skip = usize::try_from(index.checked_sub(start)?).ok()?;
        (skip < self.recent.len()).then(|| self.recent.range(skip..))
    }

    /// How many of the oldest are to go, so that at most these are left.
    pub(super) fn beyond(&self, max_messages: u64, max_bytes: u64) -> u64 {
        let mut beyond = (self.places.len() as u64).saturating_sub(max_messages);
        let mut left = self.bytes;
        for place in self.places.iter().take(beyond as usize) {
            left -= u64::from(place.size);
        }
        for place in self.places.iter().skip(beyond as usize) {
            if left <= max_bytes {
                break;
            }
            left -= u64::from(place.size);
            beyond += 1;
        }
        beyond
    }

    /// Takes the oldest away.
    pub(super) fn trim(&mut self, count: u64) -> Vec<Seq> {
        let count = (count as usize).min(self.places.len());
        let mut seqs = Vec::with_capacity(count);
        for place in self.places.drain(..count) {
            self.bytes -= u64::from(place.size);
            self.floor = self.floor.max(place.offset);
            // Places are within 2^32 numbers of the next.
            let distance = (self.next_seq as u32).wrapping_sub(place.seq_low);
            seqs.push(self.next_seq - u64::from(distance));
        }
        self.first_index += count as u64;
        while self.recent.len() > self.places.len() {
            self.forget_oldest();
        }
        if self.places.capacity() > 64 && self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to(self.places.len() * 2);
        }
        seqs
    }
}
