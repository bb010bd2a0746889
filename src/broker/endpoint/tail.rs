//! The end of a queue: what is not durable yet, the last of what is, and who waits for more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;
use tidings_protocol::mqtt::QoS;

use super::Queued;
use crate::broker::message::Message;
use crate::store::{Seq, Ticket};

/// Entries that need not be asked of the store, whose state is busy with what was just committed.
const RECENT_MAX: usize = 64;

/// What became of an append, for all queues that wait for it.
#[derive(Debug)]
pub(in crate::broker) struct Fate {
    /// The ticket, [`UNKNOWN`] or [`ABANDONED`].
    ticket: AtomicU64,
    /// Who is to be told.
    waiting: Mutex<Vec<Waker>>,
}

const UNKNOWN: u64 = u64::MAX;
const ABANDONED: u64 = u64::MAX - 1;

/// What is known of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known {
    /// It has not returned.
    Nothing,
    Appended(Ticket),
    /// The store did not take it.
    Abandoned,
}

impl Default for Fate {
    fn default() -> Fate {
        Fate {
            ticket: AtomicU64::new(UNKNOWN),
            waiting: Mutex::default(),
        }
    }
}

impl Fate {
    /// It is in the log. Answers whom to tell.
    pub(in crate::broker) fn appended(&self, ticket: Ticket) -> Vec<Waker> {
        self.set(ticket.0)
    }

    /// It is not, and never will be. Answers whom to tell.
    pub(in crate::broker) fn abandoned(&self) -> Vec<Waker> {
        self.set(ABANDONED)
    }

    fn set(&self, ticket: u64) -> Vec<Waker> {
        let mut waiting = self.waiting.lock();
        self.ticket.store(ticket, Ordering::Release);
        std::mem::take(&mut waiting)
    }

    pub(super) fn known(&self) -> Known {
        match self.ticket.load(Ordering::Acquire) {
            UNKNOWN => Known::Nothing,
            ABANDONED => Known::Abandoned,
            ticket => Known::Appended(Ticket(ticket)),
        }
    }

    /// What is known; if that is nothing, this is told later.
    pub(super) fn known_or_tell(&self, waker: &Waker) -> Known {
        let mut waiting = self.waiting.lock();
        let known = self.known();
        if known == Known::Nothing {
            waiting.push(waker.clone());
        }
        known
    }
}

/// Entries that came together.
#[derive(Debug)]
pub(super) struct Coming {
    pub first: Seq,
    /// The seq behind the last of them.
    pub end: Seq,
    pub bytes: u64,
    pub fate: Arc<Fate>,
}

/// An entry whose place in the log its message will know.
#[derive(Debug)]
pub(super) struct Awaited {
    pub message: Arc<Message>,
    pub seq: Seq,
    pub size: u32,
    pub qos: QoS,
    pub retain: bool,
}

impl Awaited {
    fn queued(&self) -> Option<Queued> {
        Some(Queued {
            seq: self.seq,
            offset: self.message.offset()?,
            size: self.size,
            qos: self.qos,
            retain: self.retain,
        })
    }
}

/// What has become of the entries that came first.
#[derive(Default)]
pub(super) struct Seen {
    /// Whether there is more to be seen.
    pub more: bool,
    /// Entries that were abandoned, and their bytes.
    pub abandoned: (u64, u64),
}

/// Small: a message for a thousand endpoints to which nothing can be sent looks at a thousand of them.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The first entries that are not to be seen yet. Later ones are not to be seen before them.
    first: Option<Coming>,
    /// Everything else, if there is anything.
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    /// The entries of [`Tail::first`], if somebody waited for them when they came; else none.
    awaited: Vec<Awaited>,
    /// Those behind them, in order.
    behind: VecDeque<(Coming, Vec<Awaited>)>,
    /// The last entries that may be seen, without gaps up to the first that is coming, as far as
    /// somebody waited for them.
    recent: VecDeque<Queued>,
    /// To be woken when there is more to be seen.
    waker: Option<Waker>,
    /// The ticket that the store was asked to wake this queue for.
    watched: Ticket,
}

impl Tail {
    /// More entries were taken, behind all others; with themselves if somebody waits.
    pub fn push(&mut self, coming: Coming, awaited: Vec<Awaited>) {
        if self.first.is_some() {
            self.rest().behind.push_back((coming, awaited));
            return;
        }
        self.first = Some(coming);
        if !awaited.is_empty() {
            self.rest().awaited = awaited;
        }
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// What the first entries wait for that are not to be seen yet.
    pub fn fate(&self) -> Option<&Fate> {
        self.first.as_ref().map(|coming| &*coming.fate)
    }

    /// The first seq that is not to be seen yet; none if all are.
    pub fn first_coming(&self) -> Option<Seq> {
        self.first.as_ref().map(|coming| coming.first)
    }

    /// Whether somebody waits for more to be seen.
    pub fn is_awaited(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.waker.is_some())
    }

    /// Has this be woken when there is more to be seen.
    pub fn wait(&mut self, waker: Waker) {
        self.rest().waker = Some(waker);
    }

    /// Whom to wake; nobody waits any more then.
    pub fn take_waker(&mut self) -> Option<Waker> {
        self.rest.as_mut()?.waker.take()
    }

    /// The store is about to be asked to wake this queue for a ticket; false if it was asked for one
    /// already that it does not have.
    pub fn watch(&mut self, ticket: Ticket, durable: Ticket) -> bool {
        let rest = self.rest();
        let anew = rest.watched <= durable;
        if anew {
            rest.watched = ticket;
        }
        anew
    }

    /// Sees what has become durable.
    #[inline]
    pub fn see(&mut self, durable: Ticket) -> Seen {
        let mut seen = Seen::default();
        while let Some(first) = &self.first {
            match first.fate.known() {
                Known::Appended(ticket) if ticket <= durable => {
                    seen.more = true;
                    if let Some(rest) = &mut self.rest {
                        rest.remember(first);
                    }
                }
                Known::Abandoned => {
                    seen.abandoned.0 += first.end - first.first;
                    seen.abandoned.1 += first.bytes;
                }
                Known::Appended(_) | Known::Nothing => break,
            }
            self.advance();
        }
        seen
    }

    /// The next entries are the first.
    #[inline]
    fn advance(&mut self) {
        self.first = self.rest.as_mut().and_then(|rest| rest.next());
        if self.first.is_none() {
            let is_idle = |rest: &mut Box<Rest>| rest.recent.is_empty() && rest.waker.is_none();
            self.rest.take_if(is_idle);
        }
    }

    /// The first `max` entries behind `after`, if all that may be seen behind it are at hand. They
    /// are not any more then.
    pub fn take(&mut self, after: Seq, max: usize) -> Option<Vec<Queued>> {
        let recent = &mut self.rest.as_mut()?.recent;
        if recent.front()?.seq > after + 1 {
            return None;
        }
        let passed = recent.partition_point(|entry| entry.seq <= after);
        recent.drain(..passed);
        let count = max.min(recent.len());
        Some(recent.drain(..count).collect())
    }
}

impl Rest {
    /// Takes the entries behind the first, if there are any.
    fn next(&mut self) -> Option<Coming> {
        let (coming, awaited) = self.behind.pop_front().unzip();
        self.awaited = awaited.unwrap_or_default();
        coming
    }

    /// The first entries may be seen now.
    fn remember(&mut self, coming: &Coming) {
        let awaited = &self.awaited;
        let follow = self
            .recent
            .back()
            .is_none_or(|last| last.seq + 1 == coming.first);
        let fit = self.recent.len() + awaited.len() <= RECENT_MAX;
        if awaited.is_empty() || !follow || !fit {
            self.recent.clear();
        }
        if awaited.len() <= RECENT_MAX {
            let entries = awaited.iter().map_while(Awaited::queued);
            self.recent.extend(entries);
            if self
                .recent
                .back()
                .is_some_and(|last| last.seq + 1 != coming.end)
            {
                self.recent.clear();
            }
        }
    }
}
