//! What the records add up to: sessions with subscriptions, queues and QoS 2 state, Retained
//! Messages, Wills, documents. The same fold runs after each commit, in replay, and in the memory store.
//!
//! Applying a record twice, or a run of records on top of a state that already contains part of
//! it, ends in the same state as applying the run once: every record sets or removes what it
//! names. A checkpoint may therefore be written while records go on being applied, and a torn one
//! is healed by replaying from the position before it (see `table`).
//!
//! Bodies are not here: [`Bodies`] is told which messages are needed how often.

mod chunk;
mod dirty;
mod entries;
mod packed;
mod queue;
pub(crate) mod table;

use std::collections::BTreeSet;
use std::hint::black_box;
use std::ops::Range;

use hashbrown::HashMap;

use super::recovered::{
    QueuePage, Recovered, RecoveredDocument, RecoveredRetained, RecoveredSession,
    RecoveredSubscription, Report,
};
use super::{
    Message, Offset, Record, Retained, Seq, SessionNumber, SessionRecord, Target, Will,
    message_size,
};
pub(crate) use dirty::{Dirty, DirtyKey};
use queue::{CHUNK_SEQS, Entry, Queue};

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Queues whose memory is fetched together, for a message that goes into more than a few: one after the
/// other they would be waited for, by all that wait for the message to be durable.
const TOGETHER: usize = 16;

/// Is told how often each message is needed.
pub(crate) trait Bodies {
    /// One more queue entry or Retained Message needs it.
    fn need(&mut self, offset: Offset);
    /// One less does.
    fn release(&mut self, offset: Offset);
}

/// For replay, where the needs are counted once at the end.
pub(crate) struct NoBodies;

impl Bodies for NoBodies {
    fn need(&mut self, _: Offset) {}
    fn release(&mut self, _: Offset) {}
}

#[derive(Default)]
pub(crate) struct State {
    sessions: FastMap<SessionNumber, Session>,
    retained: FastMap<Box<str>, RetainedEntry>,
    documents: FastMap<Box<str>, Document>,
    pub(crate) next_session: SessionNumber,
    pub(crate) next_offset: Offset,
    pub(crate) clock_ms: u64,
    dirty: Dirty,
}

#[derive(Default)]
struct Session {
    /// Whether its record was seen. In a checkpoint that was torn while a session was being
    /// removed, parts of it can be left without it.
    known: bool,
    record: SessionRecord,
    subscriptions: FastMap<Box<str>, Subscription>,
    queue: Queue,
    inbound: BTreeSet<u16>,
    will: Option<Box<Will>>,
}

#[derive(Clone, Copy)]
struct Subscription {
    options: u8,
    subscription_id: Option<u32>,
}

struct Document {
    value: Box<[u8]>,
    expires_ms: Option<u64>,
}

#[derive(Clone, Copy)]
struct RetainedEntry {
    offset: Offset,
    size: u32,
    qos: u8,
    /// The generation of [`Dirty`] in which its key was noted last.
    noted: u32,
    published_ms: u64,
    /// `u64::MAX` for never.
    expires_ms: u64,
}

impl State {
    pub(crate) fn new() -> State {
        State {
            next_session: 1,
            next_offset: Offset(1),
            ..State::default()
        }
    }

    /// Applies one record; `offset` is the place of a [`Record::Message`].
    pub(crate) fn apply(&mut self, offset: Offset, record: &Record<'_>, bodies: &mut impl Bodies) {
        match record {
            Record::Message(message) => self.apply_message(offset, message, bodies),
            Record::Done { session, ranges } => {
                let Some(it) = self.sessions.get_mut(session) else {
                    return;
                };
                for range in ranges.iter() {
                    let dirty = &mut self.dirty;
                    it.queue.remove(range, |seq, offset, noted| {
                        dirty.note_chunk(*session, seq, noted);
                        if let Some(offset) = offset {
                            bodies.release(offset);
                        }
                    });
                }
            }
            Record::Released { session, seqs } => {
                let Some(it) = self.sessions.get_mut(session) else {
                    return;
                };
                for seq in seqs.iter() {
                    if let Some(offset) = it.queue.release(seq) {
                        self.dirty.note_chunk(*session, seq, &mut it.queue.noted);
                        bodies.release(offset);
                    }
                }
            }
            Record::InboundReleased {
                session,
                packet_ids,
            } => {
                let Some(it) = self.sessions.get_mut(session) else {
                    return;
                };
                for packet_id in packet_ids.iter() {
                    if it.inbound.remove(&packet_id) {
                        self.dirty.note(DirtyKey::Progress(*session));
                    }
                }
            }
            Record::SessionPut { session, record } => {
                self.next_session = self.next_session.max(session + 1);
                self.clock_ms = self
                    .clock_ms
                    .max(record.connected_ms)
                    .max(record.disconnected_ms.unwrap_or(0));
                let it = self.sessions.entry(*session).or_default();
                it.record = SessionRecord::from(*record);
                it.known = true;
                self.dirty.note(DirtyKey::Session(*session));
            }
            Record::SessionRemove { session } => {
                if let Some(it) = self.sessions.remove(session) {
                    self.remove_session(*session, it, bodies);
                }
            }
            Record::Subscribe {
                session,
                filter,
                options,
                subscription_id,
            } => {
                let Some(it) = self.sessions.get_mut(session) else {
                    return;
                };
                let subscription = Subscription {
                    options: *options,
                    subscription_id: *subscription_id,
                };
                it.subscriptions.insert((*filter).into(), subscription);
                self.dirty
                    .note(DirtyKey::Subscription(*session, (*filter).into()));
            }
            Record::Unsubscribe { session, filter } => {
                let Some(it) = self.sessions.get_mut(session) else {
                    return;
                };
                if it.subscriptions.remove(*filter).is_some() {
                    self.dirty
                        .note(DirtyKey::Subscription(*session, (*filter).into()));
                }
            }
            Record::RetainedClear { topic } => self.clear_retained(topic, bodies),
            Record::Enqueue {
                offset,
                size,
                target,
            } => self.enqueue(*offset, *size, target, bodies),
            Record::WillPut { session, will } => {
                if let Some(it) = self.sessions.get_mut(session) {
                    it.will = Some(Box::new(Will::from(*will)));
                    self.dirty.note(DirtyKey::Will(*session));
                }
            }
            Record::WillRemove { session } => {
                if let Some(it) = self.sessions.get_mut(session)
                    && it.will.take().is_some()
                {
                    self.dirty.note(DirtyKey::Will(*session));
                }
            }
            Record::Clock { now_ms } => self.clock_ms = self.clock_ms.max(*now_ms),
            Record::DocumentPut {
                key,
                value,
                expires_ms,
            } => {
                let document = Document {
                    value: (*value).into(),
                    expires_ms: *expires_ms,
                };
                self.documents.insert((*key).into(), document);
                self.dirty.note(DirtyKey::Document((*key).into()));
            }
            Record::DocumentRemove { key } => {
                if self.documents.remove(*key).is_some() {
                    self.dirty.note(DirtyKey::Document((*key).into()));
                }
            }
        }
    }

    fn apply_message(&mut self, offset: Offset, message: &Message<'_>, bodies: &mut impl Bodies) {
        self.next_offset = self.next_offset.max(offset.plus(1));
        self.clock_ms = self.clock_ms.max(message.published_ms);
        let size = message_size(message.topic, message.properties, message.payload);
        let many = message.targets.len() >= 2 * TOGETHER;
        let mut ahead = message.targets.iter();
        for (index, target) in message.targets.iter().enumerate() {
            if many && index.is_multiple_of(TOGETHER) {
                // In two steps: what is in a queue is known where only once the queue itself is there.
                let mut found = [None; TOGETHER];
                for (it, found) in ahead.by_ref().take(TOGETHER).zip(&mut found) {
                    *found = self.sessions.get(&it.session);
                }
                let some = found.iter().flatten();
                black_box(some.fold(0, |all, it| all ^ it.queue.touch_self()));
                let some = found.iter().flatten();
                black_box(some.fold(0, |all, it| all ^ it.queue.touch()));
            }
            self.enqueue(offset, size, &target, bodies);
        }
        match message.retained {
            Retained::Unchanged => {}
            Retained::Set => self.set_retained(offset, size, message, bodies),
            Retained::Cleared => self.clear_retained(message.topic, bodies),
        }
        if let Some((session, packet_id)) = message.inbound
            && let Some(it) = self.sessions.get_mut(&session)
            && it.inbound.insert(packet_id)
        {
            self.dirty.note(DirtyKey::Progress(session));
        }
    }

    fn enqueue(
        &mut self,
        offset: Offset,
        size: u32,
        target: &Target<'_>,
        bodies: &mut impl Bodies,
    ) {
        let Some(it) = self.sessions.get_mut(&target.session) else {
            return;
        };
        let entry = Entry::new(offset, size, target.qos, target.flags);
        if it.queue.insert(target.seq, entry, target.subscription_ids) {
            self.dirty
                .note_chunk(target.session, target.seq, &mut it.queue.noted);
            bodies.need(offset);
        }
    }

    fn set_retained(
        &mut self,
        offset: Offset,
        size: u32,
        message: &Message<'_>,
        bodies: &mut impl Bodies,
    ) {
        let entry = RetainedEntry {
            offset,
            size,
            qos: message.qos,
            noted: self.dirty.generation(),
            published_ms: message.published_ms,
            expires_ms: message.expires_ms.unwrap_or(u64::MAX),
        };
        match self.retained.get_mut(message.topic) {
            Some(old) if old.offset == offset => {}
            Some(old) => {
                bodies.release(old.offset);
                bodies.need(offset);
                if old.noted != entry.noted {
                    self.dirty.note(DirtyKey::Retained(message.topic.into()));
                }
                *old = entry;
            }
            None => {
                bodies.need(offset);
                self.dirty.note(DirtyKey::Retained(message.topic.into()));
                self.retained.insert(message.topic.into(), entry);
            }
        }
    }

    fn clear_retained(&mut self, topic: &str, bodies: &mut impl Bodies) {
        if let Some(old) = self.retained.remove(topic) {
            bodies.release(old.offset);
            self.dirty.note(DirtyKey::Retained(topic.into()));
        }
    }

    fn remove_session(&mut self, number: SessionNumber, it: Session, bodies: &mut impl Bodies) {
        self.dirty.note(DirtyKey::Session(number));
        self.dirty.note(DirtyKey::Progress(number));
        if it.will.is_some() {
            self.dirty.note(DirtyKey::Will(number));
        }
        for filter in it.subscriptions.into_keys() {
            self.dirty.note(DirtyKey::Subscription(number, filter));
        }
        // Chunks that the queue emptied earlier in this generation are noted already.
        let mut noted = it.queue.noted;
        for (seq, entry) in it.queue.iter() {
            self.dirty.note_chunk(number, seq, &mut noted);
            if let Some(offset) = entry.message() {
                bodies.release(offset);
            }
        }
    }

    /// Removes what a torn checkpoint left of sessions that are gone, after the replay.
    pub(crate) fn drop_remnants(&mut self) {
        let remnants: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| !session.known)
            .map(|(&number, _)| number)
            .collect();
        for number in remnants {
            if let Some(it) = self.sessions.remove(&number) {
                self.remove_session(number, it, &mut NoBodies);
            }
        }
    }

    /// Removes the documents that are void by the clock of the records, after the replay. Not while
    /// the store is open: whoever owns one may be about to put it again, and says when it goes.
    pub(crate) fn drop_expired_documents(&mut self) {
        let (dirty, clock_ms) = (&mut self.dirty, self.clock_ms);
        self.documents.retain(|key, document| {
            let keep = document.expires_ms.is_none_or(|at| at > clock_ms);
            if !keep {
                dirty.note(DirtyKey::Document(key.clone()));
            }
            keep
        });
    }

    /// Tells `bodies` about every need there is, after a replay with [`NoBodies`].
    pub(crate) fn count_needs(&self, bodies: &mut impl Bodies) {
        for session in self.sessions.values() {
            for (_, entry) in session.queue.iter() {
                if let Some(offset) = entry.message() {
                    bodies.need(offset);
                }
            }
        }
        for entry in self.retained.values() {
            bodies.need(entry.offset);
        }
    }

    /// Drops entries and Retained Messages whose message `is_there` denies; returns how many of
    /// each.
    pub(crate) fn drop_lost(&mut self, mut is_there: impl FnMut(Offset) -> bool) -> (u64, u64) {
        let mut lost_entries = 0;
        for (number, session) in &mut self.sessions {
            let lost: Vec<Seq> = session
                .queue
                .iter()
                .filter(|(_, entry)| entry.message().is_some_and(|offset| !is_there(offset)))
                .map(|(seq, _)| seq)
                .collect();
            for seq in lost {
                lost_entries += 1;
                let dirty = &mut self.dirty;
                session
                    .queue
                    .remove(super::SeqRange::one(seq), |seq, _, noted| {
                        dirty.note_chunk(*number, seq, noted);
                    });
            }
        }
        let before = self.retained.len();
        let dirty = &mut self.dirty;
        self.retained.retain(|topic, entry| {
            let keep = is_there(entry.offset);
            if !keep {
                dirty.note(DirtyKey::Retained(topic.clone()));
            }
            keep
        });
        (lost_entries, (before - self.retained.len()) as u64)
    }

    /// The messages from `start` to `end` that the queues of `sessions` need.
    pub(crate) fn needed_by_sessions(
        &self,
        sessions: &[SessionNumber],
        start: Offset,
        end: Offset,
        needed: &mut Vec<Offset>,
    ) {
        for session in sessions.iter().filter_map(|it| self.sessions.get(it)) {
            let offsets = session
                .queue
                .iter()
                .filter_map(|(_, entry)| entry.message());
            needed.extend(offsets.filter(|&offset| start <= offset && offset < end));
        }
    }

    /// The Retained Messages from `start` to `end`.
    pub(crate) fn needed_by_retained(&self, start: Offset, end: Offset, needed: &mut Vec<Offset>) {
        let offsets = self.retained.values().map(|entry| entry.offset);
        needed.extend(offsets.filter(|&offset| start <= offset && offset < end));
    }

    /// The first `max` entries of a queue with seqs in `range`.
    pub(crate) fn queue(&self, session: SessionNumber, range: Range<Seq>, max: usize) -> QueuePage {
        self.sessions
            .get(&session)
            .map_or_else(QueuePage::default, |it| it.queue.page(range, max))
    }

    /// Notes every key, for a checkpoint that starts from nothing.
    pub(crate) fn note_everything(&mut self) {
        let mut keys = self.retained_keys();
        keys.extend(self.document_keys());
        self.keys_of_sessions(&self.session_numbers(), &mut keys);
        keys.into_iter().for_each(|key| self.dirty.note(key));
    }

    /// Takes the keys that changed since this was called last.
    pub(crate) fn take_dirty(&mut self) -> Vec<DirtyKey> {
        self.dirty.take()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A copy of everything, for the broker.
    pub(crate) fn recovered(&self, epoch: u64, report: Report) -> Recovered {
        let mut sessions: Vec<_> = self
            .sessions
            .iter()
            .map(|(&number, session)| session.recovered(number))
            .collect();
        sessions.sort_unstable_by_key(|session| session.number);
        let mut retained: Vec<_> = self
            .retained
            .iter()
            .map(|(topic, entry)| RecoveredRetained {
                topic: topic.clone(),
                offset: entry.offset,
                size: entry.size,
                qos: entry.qos,
                published_ms: entry.published_ms,
                expires_ms: Some(entry.expires_ms).filter(|&at| at != u64::MAX),
            })
            .collect();
        retained.sort_unstable_by_key(|retained| retained.offset);
        let mut documents: Vec<_> = self
            .documents
            .iter()
            .map(|(key, document)| RecoveredDocument {
                key: key.clone(),
                value: document.value.clone(),
                expires_ms: document.expires_ms,
            })
            .collect();
        documents.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Recovered {
            sessions,
            retained,
            documents,
            next_session: self.next_session,
            next_offset: self.next_offset,
            epoch,
            clock_ms: self.clock_ms,
            report,
        }
    }
}

impl Session {
    fn recovered(&self, number: SessionNumber) -> RecoveredSession {
        let mut subscriptions: Vec<_> = self
            .subscriptions
            .iter()
            .map(|(filter, subscription)| RecoveredSubscription {
                filter: filter.clone(),
                options: subscription.options,
                subscription_id: subscription.subscription_id,
            })
            .collect();
        subscriptions.sort_unstable();
        RecoveredSession {
            number,
            record: self.record.clone(),
            subscriptions,
            queue: self.queue.recovered(),
            next_seq: self.queue.next_seq(),
            inbound: self.inbound.iter().copied().collect(),
            will: self.will.as_deref().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{message, session_put, target};
    use crate::store::{List, SeqRange};

    /// Counts what it is told.
    #[derive(Default)]
    struct Counted {
        needed: u64,
        released: u64,
    }

    impl Bodies for Counted {
        fn need(&mut self, _: Offset) {
            self.needed += 1;
        }
        fn release(&mut self, _: Offset) {
            self.released += 1;
        }
    }

    fn filled(count: u64, bodies: &mut Counted) -> State {
        let mut state = State::new();
        state.apply(Offset(0), &session_put(1), bodies);
        for seq in 0..count {
            let targets = [target(1, seq)];
            let record = Record::Message(message(b"x", &targets));
            state.apply(Offset(seq + 1), &record, bodies);
        }
        state.take_dirty();
        state.dirty.hashed = 0;
        state
    }

    /// Apart from the entries themselves it costs one key for each chunk of 256 of them, whether
    /// it goes at once or bit by bit.
    #[test]
    fn a_long_prefix_of_a_queue_costs_what_is_removed() {
        const COUNT: u64 = 1_000_000;
        const LEFT: u64 = 1_000;
        let last = COUNT - LEFT - 1;
        for step in [COUNT, 10_007] {
            let mut bodies = Counted::default();
            let mut state = filled(COUNT, &mut bodies);
            let mut upto = 0;
            while upto < last {
                upto = (upto + step).min(last);
                let ranges = [SeqRange {
                    first: 0,
                    last: upto,
                }];
                let done = Record::Done {
                    session: 1,
                    ranges: List::Given(&ranges),
                };
                state.apply(Offset(0), &done, &mut bodies);
            }
            assert_eq!((bodies.needed, bodies.released), (COUNT, COUNT - LEFT));
            let chunks = last / CHUNK_SEQS + 1;
            assert_eq!(state.dirty.hashed, chunks + 1, "in steps of {step}");
            let left = &state.recovered(0, Report::default()).sessions[0];
            assert_eq!(left.queue.entries.len() as u64, LEFT);
            assert_eq!(
                (left.queue.entries[0].seq, left.next_seq),
                (COUNT - LEFT, COUNT)
            );
        }
    }
}
