//! Queues of webhook endpoints: a durable subscriber whose backlog is in the store alone.
//!
//! To the subscription table and the store an endpoint is a session of its own, whose entries pin
//! their messages in the log until they are done. Unlike a client's session it remembers none of
//! them: whoever drives it asks for a page of entries, reads their messages, and says which are
//! done, in any order. A backlog of a million costs what the store needs for it, and nothing here.
//!
//! This folder owns what enters such a queue, and when an entry may be seen: once it is durable, so
//! that nothing leaves the machine that a crash could take back. It knows nothing of URLs, retries
//! or signatures.

mod registry;
mod tail;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use parking_lot::{Mutex, MutexGuard};
use tidings_protocol::mqtt::QoS;

pub(super) use registry::Endpoints;
pub(super) use tail::Fate;
use tail::{Awaited, Coming, Known, Tail};

use super::deliver::Context;
use super::journal::{FLAG_RETAIN, target};
use super::message::Run;
use super::stats::Drop as Reason;
use crate::config::LimitsConfig;
use crate::store::{
    List, Offset, QueueEntry, Record, Seq, SeqRange, SessionNumber, Store, StoreError, Target,
    Ticket, Waiting,
};

/// An entry of an endpoint's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its place in the queue; never used again.
    pub seq: Seq,
    /// The place of its message in the log.
    pub offset: Offset,
    /// Bytes of the message: topic, properties and payload.
    pub size: u32,
    /// The QoS it is to be delivered with: with 0, it is attempted once.
    pub qos: QoS,
    /// Whether it was published with RETAIN set.
    pub retain: bool,
}

/// A document that is changed in the same step as a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// See [`Record::DocumentPut`].
    Put {
        key: &'a str,
        value: &'a [u8],
        expires_ms: Option<u64>,
    },
    /// See [`Record::DocumentRemove`].
    Remove { key: &'a str },
}

impl<'a> Change<'a> {
    fn record(self) -> Record<'a> {
        match self {
            Change::Put {
                key,
                value,
                expires_ms,
            } => Record::DocumentPut {
                key,
                value,
                expires_ms,
            },
            Change::Remove { key } => Record::DocumentRemove { key },
        }
    }
}

/// The queue of one endpoint.
///
/// A message for a thousand of them reads a thousand, most of which are out of the processor's caches
/// then: all that it needs of one is in two neighbouring lines of them.
#[repr(C, align(128))]
pub struct EndpointQueue {
    state: Mutex<State>,
    session: SessionNumber,
    id: Box<str>,
    store: Arc<dyn Store>,
    /// What the store wakes when it has more of the queue: an [`Alarm`].
    alarm: Waker,
}

/// What the first two lines have room for.
const HOT: usize = 128;
const _: () = assert!(std::mem::offset_of!(EndpointQueue, id) <= HOT);

struct State {
    /// What its entries are delivered with at most; entries of QoS 0 are raised to QoS 1 unless it
    /// is 0.
    qos: QoS,
    next_seq: Seq,
    /// While nobody waits for more of it, the store is not asked to wake the queue: a message for a
    /// thousand endpoints that nothing can be sent to wakes nobody.
    tail: Tail,
    len: u64,
    bytes: u64,
    ended: bool,
}

impl State {
    fn new(next_seq: Seq) -> State {
        State {
            qos: QoS::AtLeastOnce,
            // No entry has 0: that is the place before the first.
            next_seq: next_seq.max(1),
            tail: Tail::default(),
            len: 0,
            bytes: 0,
            ended: false,
        }
    }

    fn has_room(&self, size: u32, limits: &LimitsConfig) -> bool {
        self.len < limits.queue_messages_max as u64
            && self.bytes + u64::from(size) <= limits.queue_bytes_max
    }

    fn take_seq(&mut self, size: u32) -> Seq {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.len += 1;
        self.bytes += u64::from(size);
        seq
    }

    /// Sees what has become durable. Answers whether that is anything.
    #[inline]
    fn see(&mut self, durable: Ticket) -> bool {
        let seen = self.tail.see(durable);
        if seen.abandoned.0 > 0 {
            self.forget(seen.abandoned.0, seen.abandoned.1);
        }
        seen.more
    }

    /// The same, and wakes whoever waits for it.
    #[inline]
    fn see_and_wake(&mut self, durable: Ticket) {
        if self.see(durable)
            && let Some(waker) = self.tail.take_waker()
        {
            waker.wake();
        }
    }

    /// The first seq that is not to be seen yet.
    fn end(&self) -> Seq {
        self.tail.first_coming().unwrap_or(self.next_seq)
    }

    fn forget(&mut self, entries: u64, bytes: u64) {
        self.len = self.len.saturating_sub(entries);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// The QoS that an entry gets.
    fn qos_of(&self, published: QoS) -> QoS {
        match self.qos {
            QoS::AtMostOnce => QoS::AtMostOnce,
            most => published.max(QoS::AtLeastOnce).min(most),
        }
    }
}

/// Wakes a queue when the store has more of it.
struct Alarm(Weak<EndpointQueue>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if let Some(queue) = self.0.upgrade()
            && let Some(waker) = queue.advance(queue.lock())
        {
            waker.wake();
        }
    }
}

impl EndpointQueue {
    /// The endpoint that it belongs to.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Entries that are not done.
    pub fn len(&self) -> u64 {
        self.look().len
    }

    /// Whether everything is done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of topics, properties and payloads of what is not done.
    pub fn bytes(&self) -> u64 {
        self.look().bytes
    }

    /// Reads what [`EndpointQueue::deliver`] needs first. The answer means nothing.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.state.is_locked()) ^ self.session
    }

    /// Whether somebody is to be woken when there is more.
    #[cfg(test)]
    pub(crate) fn is_awaited(&self) -> bool {
        self.lock().tail.is_awaited()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Locks it, once it has seen what has become durable.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.see_and_wake(self.store.durable());
        state
    }

    /// The first `max` durable entries behind `after`, in order; 0 is before the first. With a waker
    /// that is woken once there may be more than this answers.
    pub fn page(&self, after: Seq, max: usize, waker: Option<&Waker>) -> Vec<Queued> {
        let end = {
            let mut state = match waker {
                // It may have been woken for nothing otherwise.
                Some(_) => self.lock(),
                None => self.look(),
            };
            state.see(self.store.durable());
            let end = state.end();
            let recent = state.tail.take(after, max);
            if let Some(waker) = waker {
                state.tail.wait(waker.clone());
                if let Some(waker) = self.advance(state) {
                    // There is more just now.
                    waker.wake();
                }
            }
            if let Some(recent) = recent {
                return recent;
            }
            end
        };
        if after + 1 >= end {
            return Vec::new();
        }
        let page = self.store.queue(self.session, after + 1..end, max);
        page.entries.iter().map(queued).collect()
    }

    /// These are done, and these documents change: one step.
    pub fn done(&self, entries: &[Queued], changes: &[Change<'_>]) -> Ticket {
        let mut seqs: Vec<Seq> = entries.iter().map(|it| it.seq).collect();
        seqs.sort_unstable();
        seqs.dedup();
        let ranges = SeqRange::all_of(&seqs);
        let mut records: Vec<Record<'_>> = changes.iter().map(|it| it.record()).collect();
        if !ranges.is_empty() {
            records.push(Record::Done {
                session: self.session,
                ranges: List::from(&ranges[..]),
            });
        }
        let bytes = entries.iter().map(|it| u64::from(it.size)).sum();
        self.lock().forget(entries.len() as u64, bytes);
        self.append(&records)
    }

    /// Changes documents alone.
    pub fn keep(&self, changes: &[Change<'_>]) -> Ticket {
        self.done(&[], changes)
    }

    fn append(&self, records: &[Record<'_>]) -> Ticket {
        if records.is_empty() {
            return Ticket::default();
        }
        match self.store.append(records) {
            Ok(appended) => appended.ticket,
            Err(error) => {
                tracing::error!(endpoint = &*self.id, %error, "the store takes no more records");
                super::Broker::NEVER_KEPT
            }
        }
    }

    /// Queues messages that the log has once more, behind all others, each with its place in the
    /// log and its size.
    ///
    /// # Errors
    /// When the store takes no more.
    pub fn enqueue(&self, messages: &[(Offset, u32)]) -> Result<Ticket, StoreError> {
        if messages.is_empty() {
            return Ok(Ticket::default());
        }
        self.store.admit()?;
        let fate = Arc::new(Fate::default());
        let (first, qos) = {
            let mut state = self.lock();
            let first = state.next_seq;
            for &(_, size) in messages {
                state.take_seq(size);
            }
            let bytes = messages.iter().map(|it| u64::from(it.1)).sum();
            self.expect(&mut state, first, bytes, &fate, Vec::new());
            (first, state.qos_of(QoS::ExactlyOnce))
        };
        let records: Vec<Record<'_>> = messages
            .iter()
            .zip(first..)
            .map(|(&(offset, size), seq)| Record::Enqueue {
                offset,
                size,
                target: self.target(seq, qos, false),
            })
            .collect();
        let result = self.store.append(&records).map(|it| it.ticket);
        let told = match &result {
            Ok(ticket) => fate.appended(*ticket),
            Err(_) => fate.abandoned(),
        };
        told.into_iter().for_each(Waker::wake);
        result
    }

    /// The entries from `first` on are on their way to the log. Called in the same step as they were
    /// taken.
    fn expect(
        &self,
        state: &mut State,
        first: Seq,
        bytes: u64,
        fate: &Arc<Fate>,
        awaited: Vec<Awaited>,
    ) {
        if state.tail.is_awaited() {
            fate.known_or_tell(&self.alarm);
        }
        let coming = Coming {
            first,
            end: state.next_seq,
            bytes,
            fate: Arc::clone(fate),
        };
        state.tail.push(coming, awaited);
    }

    fn target(&self, seq: Seq, qos: QoS, retain: bool) -> Target<'static> {
        target(self.session, seq, qos, retain, None)
    }

    /// Takes in the publications of a run that are in `range`.
    pub(super) fn deliver(&self, run: &Run<'_>, range: Range<usize>, cx: &mut Context<'_>) {
        let mut bytes = 0;
        let mut awaited = Vec::new();
        let mut state = self.lock();
        state.see_and_wake(cx.durable);
        let first = state.next_seq;
        for index in range {
            if state.ended {
                cx.tally.dropped(Reason::SessionEnded, 1);
                continue;
            }
            let publication = &run.publications[index];
            // Nobody waits for an answer, so there is nothing to slow its publisher down by.
            if publication.qos == QoS::AtMostOnce
                && (self.store.pressure() || self.store.admit().is_err())
            {
                cx.tally.dropped(Reason::StoreFull, 1);
                continue;
            }
            let message = cx.encodings.messages.kept(run, index, cx.now);
            let size = u32::try_from(message.content_len()).unwrap_or(u32::MAX);
            if !state.has_room(size, cx.limits) {
                cx.tally.dropped(Reason::QueueFull, 1);
                continue;
            }
            bytes += u64::from(size);
            let seq = state.take_seq(size);
            let qos = state.qos_of(publication.qos);
            if state.tail.is_awaited() {
                awaited.push(Awaited {
                    message: Arc::clone(message),
                    seq,
                    size,
                    qos,
                    retain: publication.retain,
                });
            }
            let target = self.target(seq, qos, publication.retain);
            cx.journal.queued(false, index, &target);
        }
        if first < state.next_seq {
            self.expect(&mut state, first, bytes, cx.journal.fate(), awaited);
        }
    }

    /// Sees what has become durable, and has the store say when there is more, if anybody waits
    /// for that. Answers whom to wake.
    fn advance<'a>(&'a self, mut state: MutexGuard<'a, State>) -> Option<Waker> {
        loop {
            let durable = self.store.durable();
            if state.see(durable) {
                return state.tail.take_waker();
            }
            let fate = state.tail.fate().filter(|_| state.tail.is_awaited())?;
            let ticket = match fate.known_or_tell(&self.alarm) {
                Known::Appended(ticket) => ticket,
                Known::Abandoned => continue,
                Known::Nothing => return None,
            };
            if !state.tail.watch(ticket, durable) {
                return None;
            }
            drop(state);
            match self.store.register(ticket, &self.alarm) {
                Waiting::Durable => state = self.lock(),
                Waiting::Registered | Waiting::Failed(_) => return None,
            }
        }
    }
}

fn queued(entry: &QueueEntry) -> Queued {
    Queued {
        seq: entry.seq,
        offset: entry.offset,
        size: entry.size,
        qos: QoS::from_u8(entry.qos).unwrap_or(QoS::AtLeastOnce),
        retain: entry.flags & FLAG_RETAIN != 0,
    }
}
