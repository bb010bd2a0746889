//! Reading a feed, at the reader's own pace.

use std::sync::Arc;
use std::task::Waker;

use tidings_protocol::topic;

use super::Feed;
use super::sequence::Event;
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::message::Message;
use crate::broker::outgoing::{PAGE_BYTES, PAGE_MESSAGES};
use crate::broker::stats::Drop as Reason;
use crate::store::Offset;

/// Messages that a reader should have had and that are not there any more, or never were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The oldest message that is left; none if there is none.
    pub oldest: Option<Offset>,
    /// How many are missing, where that is known.
    pub lost: Option<u64>,
    /// Where it goes on: nothing is missing after this.
    pub cursor: Offset,
}

/// What a reader gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Perhaps some events; ask again.
    Events,
    /// What is next is on the disk: see [`Broker::load_events`].
    Page,
    /// It was too slow, and goes on from the oldest that is left.
    Gap(Gap),
    /// Nothing yet: its waker will be woken.
    Waiting,
    /// The store has failed: nothing will come any more.
    Failed,
}

/// Somebody who reads a feed. Its waker is forgotten when it is dropped.
pub struct Reader {
    feed: Arc<Feed>,
    slot: usize,
    /// The index of what it has not read.
    at: u64,
    /// Everything up to here was read.
    cursor: Offset,
    /// Fewer than what the feed has.
    filters: Option<Box<[Arc<str>]>>,
    /// None for a session, which asks for its rights itself.
    principal: Option<Principal>,
    /// Its principal may receive all of it.
    unrestricted: bool,
    /// What it takes at a time.
    messages_max: usize,
    bytes_max: usize,
    /// Events that could not be read back, not told yet.
    missing: u64,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.feed.lock();
        state.readers[self.slot] = None;
        state.free.push(self.slot);
    }
}

impl Reader {
    /// A reader at index `at`, where everything up to `cursor` is done. The feed's lock must not
    /// be held.
    pub(super) fn new(
        feed: Arc<Feed>,
        at: u64,
        cursor: Offset,
        filters: Option<Box<[Arc<str>]>>,
        principal: Option<&Principal>,
    ) -> Reader {
        let slot = {
            let mut state = feed.lock();
            state.idle_since = None;
            state.free.pop().unwrap_or_else(|| {
                state.readers.push(None);
                state.readers.len() - 1
            })
        };
        let mut reader = Reader {
            feed,
            slot,
            at,
            cursor,
            filters,
            principal: None,
            unrestricted: true,
            messages_max: PAGE_MESSAGES,
            bytes_max: PAGE_BYTES,
            missing: 0,
        };
        if let Some(principal) = principal {
            reader.read_as(principal);
        }
        reader
    }

    /// Goes on with the index `at`; everything up to `cursor` is done.
    pub(super) fn start_at(&mut self, at: u64, cursor: Offset) {
        self.at = at;
        self.cursor = cursor;
    }

    /// What it reads.
    pub fn filters(&self) -> &[Arc<str>] {
        self.filters.as_deref().unwrap_or(&self.feed.filters)
    }

    /// Whether it reads all that its feed has, as every reader of the same filters does.
    pub fn is_whole(&self) -> bool {
        self.filters.is_none()
    }

    /// Everything up to this offset was read, or was not for it.
    pub fn cursor(&self) -> Offset {
        self.cursor
    }

    /// Whose rights decide from now on what it gets. False if it may not read at all any more.
    pub fn read_as(&mut self, principal: &Principal) -> bool {
        self.principal = Some(principal.clone());
        self.unrestricted = self
            .filters()
            .iter()
            .all(|filter| principal.may_receive_all_of(filter));
        self.filters()
            .iter()
            .all(|filter| principal.may_subscribe(filter))
    }

    /// Whether a message of this topic is for it.
    pub fn wants(&self, topic: &str) -> bool {
        let matched = |filters: &[Arc<str>]| filters.iter().any(|it| topic::matches(it, topic));
        let allowed = |principal: &Principal| principal.may_receive(topic);
        self.filters.as_deref().is_none_or(matched)
            && (self.unrestricted || self.principal.as_ref().is_none_or(allowed))
    }

    /// Has it take at most so many messages at a time, and about so many bytes: one message of any
    /// size it takes.
    pub(in crate::broker) fn take_at_most(&mut self, messages: usize, bytes: usize) {
        self.messages_max = messages.clamp(1, PAGE_MESSAGES);
        self.bytes_max = bytes.min(PAGE_BYTES);
    }

    /// Whoever reads is away: nobody is to be woken.
    pub(in crate::broker) fn forget_waker(&self) {
        self.feed.lock().readers[self.slot] = None;
    }

    /// Does something while nothing leaves the feed, given the offset up to which everything has.
    /// What is appended in it about a later message comes before the feed gives that one up.
    pub(in crate::broker) fn while_kept<T>(&self, what: impl FnOnce(Offset) -> T) -> T {
        let state = self.feed.lock();
        what(state.sequence.floor())
    }

    /// What to read back: indices and offsets.
    fn page(&self) -> Vec<(u64, Offset)> {
        let state = self.feed.lock();
        let mut page = Vec::new();
        let mut bytes = 0;
        for index in self.at.. {
            let Some(place) = state.sequence.place(index) else {
                break;
            };
            bytes += place.size as usize;
            let full = page.len() >= self.messages_max || bytes > self.bytes_max;
            if full && !page.is_empty() {
                break;
            }
            page.push((index, place.offset));
        }
        page
    }
}

impl Broker {
    /// Gives a reader what is next of what is in memory, at most about this many bytes.
    pub fn read_events(
        &self,
        reader: &mut Reader,
        waker: &Waker,
        bytes_max: usize,
        events: &mut Vec<Arc<Event>>,
    ) -> Next {
        let before = events.len();
        {
            let mut state = reader.feed.lock();
            let sequence = &state.sequence;
            let (first, end) = sequence.range();
            if reader.at < first {
                let lost = first - std::mem::replace(&mut reader.at, first);
                reader.cursor = reader.cursor.max(sequence.floor());
                let oldest = sequence.place(first).map(|place| place.offset);
                let lost = reader.filters.is_none().then_some(lost);
                return Next::Gap(Gap {
                    oldest,
                    lost,
                    cursor: reader.cursor,
                });
            }
            if reader.at == end {
                if state.failed {
                    return Next::Failed;
                }
                let watching = &mut state.readers[reader.slot];
                if !watching.as_ref().is_some_and(|it| it.will_wake(waker)) {
                    *watching = Some(waker.clone());
                }
                return Next::Waiting;
            }
            let Some(recent) = sequence.recent_from(reader.at) else {
                return Next::Page;
            };
            let bytes_max = bytes_max.min(reader.bytes_max);
            let mut bytes = 0;
            for event in recent.take(reader.messages_max) {
                bytes += event.message.content_len();
                if bytes > bytes_max && events.len() > before {
                    break;
                }
                reader.at += 1;
                reader.cursor = event.offset;
                events.push(Arc::clone(event));
            }
        }
        self.keep_wanted(reader, events, before);
        Next::Events
    }

    /// Reads back what is next for a reader. To be called for each [`Next::Page`], on a thread that
    /// may wait for the disk.
    pub fn load_events(&self, reader: &mut Reader, events: &mut Vec<Arc<Event>>) {
        let before = events.len();
        let page = reader.page();
        let offsets: Vec<Offset> = page.iter().map(|&(_, offset)| offset).collect();
        let read = self.store.read(&offsets);
        for ((index, offset), read) in page.into_iter().zip(read) {
            reader.at = index + 1;
            reader.cursor = offset;
            match read {
                Ok(stored) => {
                    let message = Arc::new(Message::from_stored(&stored));
                    let mut event = Event::new(offset, stored.published_ms, message);
                    event.lost_before = std::mem::take(&mut reader.missing);
                    events.push(Arc::new(event));
                }
                // It may have become too old meanwhile.
                Err(error) => {
                    tracing::debug!(%offset, %error, "a message of a feed cannot be read");
                    reader.missing += 1;
                    self.stats.dropped(Reason::Damaged, 1);
                }
            }
        }
        self.keep_wanted(reader, events, before);
    }

    /// Leaves out what is not for the reader.
    fn keep_wanted(&self, reader: &Reader, events: &mut Vec<Arc<Event>>, from: usize) {
        let now = self.clock.now();
        let mut expired = 0;
        let mut at = 0;
        events.retain(|event| {
            at += 1;
            if at <= from {
                return true;
            }
            if event.message.is_expired(now) {
                expired += 1;
                return false;
            }
            reader.wants(event.message.topic())
        });
        if expired > 0 {
            self.stats.dropped(Reason::Expired, expired);
        }
        // A session counts what it sends.
        if reader.principal.is_some() {
            self.stats.publish_sent.add((events.len() - from) as u64);
        }
    }
}
