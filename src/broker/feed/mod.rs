//! Feeds: messages kept in the order of the log for whoever wants to read them, now or later.
//!
//! A *stream* is configured and keeps what its filters match by age, bytes and number. A *window*
//! is made by the first reader of a set of filters, serves all readers of that set, and outlives
//! the last of them for a while, so that a reader that comes back has missed nothing. To the
//! subscription table and the store a feed is a session of its own; readers pull from it, each at
//! its own pace, so nothing is queued for any of them.
//!
//! This folder owns which messages a feed has, when they become visible, where a reader begins and
//! when messages go. It knows nothing of how an edge writes them.

mod open;
mod reader;
mod registry;
mod sequence;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use parking_lot::{Mutex, MutexGuard};
use tidings_protocol::mqtt::QoS;

pub use open::{Cursor, OpenReader, ReaderError, Start};
pub use reader::{Gap, Next, Reader};
pub use registry::{FeedSummary, WindowConfig};
pub(super) use registry::{Feeds, options, terms};
pub use sequence::Event;

use super::clock::Millis;
use super::deliver::Context;
use super::journal::target;
use super::message::Run;
use super::stats::Drop as Reason;
use crate::store::{Offset, Seq, Store, Ticket, Waiting};
use sequence::Sequence;

/// How long messages stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retention {
    pub age_ms: u64,
    pub bytes: u64,
    pub messages: u64,
}

/// What a feed is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Configured, under this name.
    Stream(Box<str>),
    /// Made by a reader.
    Window,
}

/// A feed.
pub struct Feed {
    kind: Kind,
    filters: Box<[Arc<str>]>,
    /// Whether messages of QoS 0 are kept.
    qos0: bool,
    retention: Retention,
    store: Arc<dyn Store>,
    me: Weak<Feed>,
    state: Mutex<State>,
}

struct State {
    sequence: Sequence,
    /// By the slot of each reader: whom to wake when there is more.
    readers: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// When the last reader was missing first; none while there is one, or nobody has looked.
    idle_since: Option<Millis>,
    /// What is older than this may be missing, in Unix milliseconds.
    complete_since: u64,
    /// The ticket that the store was asked to wake this feed for.
    watched: Ticket,
    /// Nothing will become visible any more: the store has failed.
    failed: bool,
}

impl State {
    fn reader_count(&self) -> usize {
        self.readers.len() - self.free.len()
    }

    fn take_wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().filter_map(Option::take).collect()
    }
}

/// Wakes a feed when the store has more of it.
struct Alarm(Weak<Feed>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if let Some(feed) = self.0.upgrade() {
            for waker in feed.advance() {
                waker.wake();
            }
        }
    }
}

impl Feed {
    fn new(
        kind: Kind,
        filters: Box<[Arc<str>]>,
        qos0: bool,
        retention: Retention,
        store: Arc<dyn Store>,
        sequence: Sequence,
        complete_since: u64,
    ) -> Arc<Feed> {
        Arc::new_cyclic(|me| Feed {
            kind,
            filters,
            qos0,
            retention,
            store,
            me: me.clone(),
            state: Mutex::new(State {
                sequence,
                readers: Vec::new(),
                free: Vec::new(),
                idle_since: None,
                complete_since,
                watched: Ticket::default(),
                failed: false,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether somebody reads it.
    pub(super) fn is_read(&self) -> bool {
        self.lock().reader_count() > 0
    }

    /// Takes in the publications of a run that are in `range`. They are visible once they are
    /// durable; see [`Feed::appended`].
    pub(super) fn deliver(
        &self,
        session: u64,
        run: &Run<'_>,
        range: Range<usize>,
        cx: &mut Context<'_>,
    ) {
        let appended = self.store.appended();
        let mut fed: Option<(Seq, Seq)> = None;
        let mut state = self.lock();
        for index in range {
            let publication = &run.publications[index];
            if publication.qos == QoS::AtMostOnce {
                if !self.qos0 {
                    continue;
                }
                // Nobody waits for an answer, so there is nothing to slow its publisher down by.
                if self.store.pressure() || self.store.admit().is_err() {
                    state.sequence.lose();
                    cx.tally.dropped(Reason::StoreFull, 1);
                    continue;
                }
            }
            let message = cx.encodings.messages.get(run, index, cx.now);
            let seq = state.sequence.push(message, cx.now.0, appended);
            let target = target(session, seq, publication.qos, publication.retain, None);
            cx.journal.queued(false, index, &target);
            fed = Some((fed.map_or(seq, |(first, _)| first), seq));
        }
        drop(state);
        if let (Some((first, last)), Some(me)) = (fed, self.me.upgrade()) {
            cx.journal.fed(Fed {
                feed: me,
                first,
                last,
            });
        }
    }

    /// Makes visible what has become durable. Answers the readers to wake.
    fn advance(&self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        loop {
            let durable = self.store.durable();
            let mut state = self.lock();
            if state.sequence.advance(durable) {
                wakers.append(&mut state.take_wakers());
            }
            let next = match state.sequence.waits_for() {
                Some(ticket) if ticket > durable && state.watched <= durable => ticket,
                // Nothing waits, or what does is told otherwise.
                _ => return wakers,
            };
            state.watched = next;
            drop(state);
            let alarm = Waker::from(Arc::new(Alarm(self.me.clone())));
            match self.store.register(next, &alarm) {
                Waiting::Durable => {}
                Waiting::Registered => return wakers,
                Waiting::Failed(_) => {
                    let mut state = self.lock();
                    state.failed = true;
                    wakers.append(&mut state.take_wakers());
                    return wakers;
                }
            }
        }
    }
}

/// Messages of a run that a feed took in.
pub(super) struct Fed {
    feed: Arc<Feed>,
    first: Seq,
    last: Seq,
}

impl Fed {
    /// They are in the log.
    pub(super) fn appended(self, ticket: Ticket, wakers: &mut Vec<Waker>) {
        let Fed { feed, first, last } = self;
        feed.lock().sequence.appended(first, last, ticket);
        wakers.append(&mut feed.advance());
    }

    /// They are not.
    pub(super) fn abandoned(self, wakers: &mut Vec<Waker>) {
        let Fed { feed, first, last } = self;
        let mut state = feed.lock();
        state.sequence.abandon(first, last);
        if feed.store.failed() {
            state.failed = true;
            wakers.append(&mut state.take_wakers());
        }
        drop(state);
        wakers.append(&mut feed.advance());
    }
}

/// What a feed's record holds that the store does not look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extra {
    floor: Offset,
    complete_since: u64,
    retention: Retention,
    qos0: bool,
}

impl Extra {
    const VERSION: u8 = 1;

    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Extra::VERSION, u8::from(self.qos0)];
        let Retention {
            age_ms,
            bytes: size,
            messages,
        } = self.retention;
        for number in [self.floor.0, self.complete_since, age_ms, size, messages] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Extra> {
        let (&[Extra::VERSION, qos0], numbers) = bytes.split_first_chunk()? else {
            return None;
        };
        let number = |index: usize| {
            let chunk = numbers.get(index * 8..)?.first_chunk()?;
            Some(u64::from_be_bytes(*chunk))
        };
        Some(Extra {
            floor: Offset(number(0)?),
            complete_since: number(1)?,
            retention: Retention {
                age_ms: number(2)?,
                bytes: number(3)?,
                messages: number(4)?,
            },
            qos0: qos0 != 0,
        })
    }
}
