//! What has to be kept: from what happens to sessions to the records of the store.
//!
//! Only sessions that outlive their connection are kept, and with them the messages that are
//! queued for them, the Retained Messages, and the state of acknowledgements. An append answers a
//! ticket; whoever promised something waits until the store says that the ticket is durable.
//! Nothing here waits, and nothing touches a disk.

use std::sync::Arc;
use std::task::Waker;

use tidings_protocol::mqtt::{Properties, QoS};

use super::Broker;
use super::clock::Millis;
use super::endpoint::Fate;
use super::feed::Fed;
use super::message::{Bell, Message, Publication, Run};
use super::outgoing::Through;
use super::publish::Refused;
use super::reading::Places;
use super::session::{Held, Session, State};
use super::will::Will;
use crate::store::{
    self, Appended, Encoder, List, Offset, Record, Retained, SeqRange, SessionView, Store,
    StoreError, Target, Ticket, WillView,
};

/// Of a target: delivered with RETAIN set.
pub(super) const FLAG_RETAIN: u8 = 1;

/// Of a target: bits for the [`tag`](super::shared::Group::tag) of the Shared Subscription whose
/// member it is; 0 if it is none's.
pub(super) const SHARED_SHIFT: u32 = 1;

/// Of a subscription's options, where SUBSCRIBE has a reserved bit: it is still to receive
/// Retained Messages.
pub(super) const OPTION_REPLAYS: u8 = 0x40;

/// Memory for lists of targets that is used again by the next run, at most: a long run to thousands
/// of sessions needs much more.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// The queue entries of one run that have to be kept.
#[derive(Default)]
pub(super) struct Journal {
    /// The targets of each message of the run, as far as `used`.
    targets: Vec<Encoder>,
    used: usize,
    /// There are targets that are not yet on their way to a receiver that acknowledges in one step.
    has_unsent: bool,
    fed: Vec<Fed>,
    /// What endpoints' queues wait for that took in messages of the run.
    fate: Option<Arc<Fate>>,
    /// What is to be kept along with the run.
    pub(super) remembered: Option<Remembered>,
}

/// Something small that an edge keeps along with a message: both or neither survive a crash.
pub struct Remembered {
    /// The key of a [document](Record::DocumentPut).
    pub key: Box<str>,
    /// Its value, given how many the message matched.
    pub value: Box<dyn FnOnce(usize) -> Vec<u8> + Send>,
    /// When it is void, in Unix milliseconds.
    pub expires_ms: u64,
}

impl Journal {
    /// Forgets the run before.
    pub(super) fn clear(&mut self) {
        let used = std::mem::take(&mut self.used);
        let spare: usize = self.targets[..used].iter_mut().map(Encoder::clear).sum();
        if spare > SPARE_BYTES_MAX {
            self.targets = Vec::new();
        }
        self.has_unsent = false;
        self.fed.clear();
        self.fate = None;
    }

    /// Notes messages of the run that a feed took in.
    pub(super) fn fed(&mut self, fed: Fed) {
        self.fed.push(fed);
    }

    /// What becomes of the run, for queues that took in messages of it.
    pub(super) fn fate(&mut self) -> &Arc<Fate> {
        self.fate.get_or_insert_default()
    }

    /// The run is in the log.
    pub(super) fn appended(&mut self, ticket: Ticket, wakers: &mut Vec<Waker>) {
        for fed in self.fed.drain(..) {
            fed.appended(ticket, wakers);
        }
        if let Some(fate) = self.fate.take() {
            wakers.extend(fate.appended(ticket));
        }
    }

    /// It is not.
    pub(super) fn abandoned(&mut self, wakers: &mut Vec<Waker>) {
        for fed in self.fed.drain(..) {
            fed.abandoned(wakers);
        }
        if let Some(fate) = self.fate.take() {
            wakers.extend(fate.abandoned());
        }
    }

    /// Notes that the publication at `index` was queued for a session that is kept. `sent` says
    /// whether it is on its way already.
    pub(super) fn queued(&mut self, sent: bool, index: usize, target: &Target<'_>) {
        self.used = self.used.max(index + 1);
        if self.targets.len() < self.used {
            self.targets.resize_with(self.used, Encoder::default);
        }
        self.targets[index].push(target);
        self.has_unsent |= !sent || target.qos != QoS::AtLeastOnce.as_u8();
    }

    /// The targets of the publication at `index`.
    fn targets(&self, index: usize) -> List<'_, Target<'_>> {
        let targets = self.targets[..self.used].get(index);
        targets.map_or_else(List::default, Encoder::list)
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }
}

/// Messages that nobody waits for any more, of which one session's acknowledgement was the last.
#[derive(Default)]
struct Settled {
    sequences: Vec<u64>,
    offsets: Vec<Offset>,
    bells: Vec<Arc<Bell>>,
}

impl Settled {
    fn add(&mut self, sequence: u64, offset: Offset, message: &Message) {
        self.sequences.push(sequence);
        self.offsets.push(offset);
        // They come in runs of one publisher, mostly.
        if let Some(bell) = message.bell()
            && !self
                .bells
                .last()
                .is_some_and(|last| Arc::ptr_eq(last, bell))
        {
            self.bells.push(Arc::clone(bell));
        }
    }

    /// Takes back those that are not written yet; the others are `done` like any.
    fn take_back(self, store: &dyn Store, done: &mut Vec<u64>) {
        if self.sequences.is_empty() {
            return;
        }
        let taken = store.withdraw(&self.offsets);
        let left = self.sequences.into_iter().zip(taken);
        done.extend(left.filter(|&(_, taken)| !taken).map(|(it, _)| it));
        for bell in self.bells {
            bell.ring();
        }
    }
}

/// What is kept of one queue that a message is in.
#[inline]
pub(super) fn target(
    session: u64,
    sequence: u64,
    qos: QoS,
    retain: bool,
    through: Option<&Arc<Through>>,
) -> Target<'_> {
    let identifiers = through.and_then(|through| through.identifiers.as_deref());
    Target {
        session,
        seq: sequence,
        qos: qos.as_u8(),
        flags: if retain { FLAG_RETAIN } else { 0 }
            | through.map_or(0, |through| through.shared_as) << SHARED_SHIFT,
        subscription_ids: identifiers.unwrap_or_default().into(),
    }
}

fn expires_at(properties: Properties<'_>, now: Millis) -> Option<u64> {
    let seconds = properties.message_expiry_interval()?;
    Some(now.plus_secs(u64::from(seconds)).0)
}

impl Broker {
    /// Keeps a run: its messages, for whom each of them is queued, what it does to the Retained
    /// Message of its topic, and the Packet Identifiers that its publisher may not use again
    /// before it released them. `kept` are the run's messages that somebody holds.
    pub(super) fn keep_run(
        &self,
        run: &Run<'_>,
        journal: &mut Journal,
        kept: &[Option<Arc<Message>>],
        retained: Retained,
        matched: usize,
    ) -> Result<Ticket, StoreError> {
        let remembered = journal
            .remembered
            .take()
            .map(|it| (it.key, (it.value)(matched), it.expires_ms));
        let now = self.clock.now();
        let inbound = |index: usize| {
            run.publications[index]
                .packet_id
                .filter(|_| run.publisher_is_kept)
                .map(|id| (run.publisher, id.get()))
        };
        let anything = !journal.is_empty()
            || remembered.is_some()
            || retained != Retained::Unchanged
            || (0..run.publications.len()).any(|index| inbound(index).is_some());
        if !anything {
            return Ok(Ticket::default());
        }
        let mut records = Vec::with_capacity(run.publications.len());
        let mut kept_at = Vec::with_capacity(run.publications.len());
        for (index, publication) in run.publications.iter().enumerate() {
            let targets = journal.targets(index);
            if targets.is_empty() && retained == Retained::Unchanged && inbound(index).is_none() {
                continue;
            }
            kept_at.push((index, targets.len() as u32));
            records.push(Record::Message(store::Message {
                topic: run.topic,
                properties: publication.properties.as_bytes(),
                payload: publication.payload,
                qos: publication.qos.as_u8(),
                retain: publication.retain,
                published_ms: now.0,
                expires_ms: expires_at(publication.properties, now),
                publisher: run.publisher,
                retained,
                inbound: inbound(index),
                targets,
            }));
        }
        if let Some((key, value, expires_ms)) = &remembered {
            records.push(Record::DocumentPut {
                key,
                value,
                expires_ms: Some(*expires_ms),
            });
        }
        // Receivers that are there will have acknowledged it soon, and then nothing need be written.
        let may_settle = remembered.is_none()
            && retained == Retained::Unchanged
            && !journal.has_unsent
            && (0..run.publications.len()).all(|index| inbound(index).is_none());
        let appended = match may_settle {
            true => self.store.append_idle(&records)?,
            false => self.store.append(&records)?,
        };
        for (place, (index, sessions)) in kept_at.into_iter().enumerate() {
            if let Some(message) = kept.get(index).and_then(Option::as_ref) {
                message.owe(sessions);
                message.set_kept(appended.first_offset.plus(place as u64), appended.ticket);
                if retained == Retained::Unchanged && inbound(index).is_none() {
                    // Nothing but the queues needs it.
                    message.owe_less();
                }
            }
        }
        Ok(appended.ticket)
    }

    /// Keeps that a message which somebody held already was queued for one more session. The ticket
    /// is that of the entry.
    pub(super) fn keep_entry(
        &self,
        session: u64,
        sequence: u64,
        message: &Message,
        qos: QoS,
        retain: bool,
        through: Option<&Arc<Through>>,
    ) -> Ticket {
        let target = target(session, sequence, qos, retain, through);
        message.owe(1);
        if let Some(offset) = message.offset() {
            let size = u32::try_from(message.content_len()).unwrap_or(u32::MAX);
            let ticket = self.keep(&[Record::Enqueue {
                offset,
                size,
                target,
            }]);
            if qos == QoS::ExactlyOnce {
                message.hold_until(ticket);
            }
            return ticket;
        }
        let targets = [target];
        let appended = self.store.append(&[Record::Message(store::Message {
            topic: message.topic(),
            properties: message.properties().as_bytes(),
            payload: message.payload(),
            qos: message.qos.as_u8(),
            retain: message.retain,
            published_ms: self.clock.now().0,
            expires_ms: message.expires_at.map(|at| at.0),
            publisher: message.publisher,
            retained: Retained::Unchanged,
            inbound: None,
            targets: List::from(&targets[..]),
        })]);
        match appended {
            Ok(appended) => {
                message.set_kept(appended.first_offset, appended.ticket);
                appended.ticket
            }
            Err(error) => {
                tracing::error!(%error, "a queued message could not be kept");
                Broker::NEVER_KEPT
            }
        }
    }

    /// Whether a run can be kept, asked before it is delivered to anybody. QoS 0 is taken as long
    /// as the disk is not behind: there is no acknowledgement that could slow its publisher down.
    pub(super) fn admit(&self, run: &Run<'_>) -> Result<(), Refused> {
        let confirmed = |it: &Publication<'_>| it.qos != QoS::AtMostOnce;
        let result = if run.publications.iter().any(confirmed) {
            self.store.admit()
        } else if run.publications[0].retain && !run.topic.starts_with('$') {
            if self.store.pressure() {
                return Err(Refused::StoreFull);
            }
            self.store.admit()
        } else {
            Ok(())
        };
        result.map_err(|error| {
            tracing::debug!(%error, topic = run.topic, "a message was refused");
            Refused::StoreFull
        })
    }

    /// Keeps what became of a session's queue entries since the last time.
    ///
    /// An entry can be done before its message is in the log, if its receiver is faster than the
    /// rest of the run. That is kept the next time: see
    /// [`finished`](super::outgoing::Outgoing::finished). A message that all its receivers have
    /// acknowledged before it was written is taken back instead, and its publisher told.
    pub(super) fn keep_progress(&self, session: &Session, state: &mut State) -> Ticket {
        let Some(finished) = state.outgoing.finished() else {
            return Ticket::default();
        };
        let (mut done, mut released) = (Vec::new(), Vec::new());
        let mut settled = Settled::default();
        finished.retain_mut(|entry| {
            let offset = entry.message.as_ref().map(|message| message.offset());
            match (offset, entry.message.take()) {
                (Some(None), early) => {
                    entry.message = early;
                    return true;
                }
                _ if entry.released => released.push(entry.sequence),
                (Some(Some(offset)), Some(message)) if message.owe_less() => {
                    settled.add(entry.sequence, offset, &message);
                }
                _ => done.push(entry.sequence),
            }
            false
        });
        if !finished.is_empty() && self.store.failed() {
            // Their messages will never be in the log.
            finished.clear();
        }
        settled.take_back(&*self.store, &mut done);
        let session = session.number();
        done.sort_unstable();
        released.sort_unstable();
        let ranges = SeqRange::all_of(&done);
        let mut records = Vec::with_capacity(2);
        if !ranges.is_empty() {
            records.push(Record::Done {
                session,
                ranges: List::from(&ranges[..]),
            });
        }
        if released.is_empty() {
            return self.kept(&records, Store::append_idle);
        }
        // PUBREL waits for it.
        records.push(Record::Released {
            session,
            seqs: List::from(&released[..]),
        });
        self.keep(&records)
    }

    /// The ticket of what a store that has failed did not take.
    pub(super) const NEVER_KEPT: Ticket = Ticket(u64::MAX);

    /// Keeps records that take space away rather than adding to it. A store that has failed takes
    /// none; then the ticket is one that will never be durable.
    pub(super) fn keep(&self, records: &[Record<'_>]) -> Ticket {
        self.kept(records, Store::append)
    }

    fn kept(
        &self,
        records: &[Record<'_>],
        append: fn(&dyn Store, &[Record<'_>]) -> Result<Appended, StoreError>,
    ) -> Ticket {
        if records.is_empty() {
            return Ticket::default();
        }
        match append(&*self.store, records) {
            Ok(appended) => appended.ticket,
            Err(error) => {
                tracing::error!(%error, "the store takes no more records");
                Broker::NEVER_KEPT
            }
        }
    }

    /// Keeps a session as it is now: one that outlives its connection, and one that has a will,
    /// which is to be published even if the broker falls with the connection.
    pub(super) fn keep_session(&self, session: &Session, state: &mut State) -> Ticket {
        if !state.kept && !state.recorded && state.will.is_none() {
            return Ticket::default();
        }
        state.recorded = true;
        let number = session.number();
        let extra = state.extra().encode();
        let put = session_record(session, state, &extra);
        match &state.will {
            Some(will) => self.keep(&[put, will_record(number, will, state.will_due)]),
            None => self.keep(&[put, Record::WillRemove { session: number }]),
        }
    }

    /// Keeps a subscription, and whether it is still to receive Retained Messages.
    pub(super) fn keep_subscription(
        &self,
        session: u64,
        filter: &str,
        held: Held,
        replays: bool,
    ) -> Ticket {
        let more = if replays { OPTION_REPLAYS } else { 0 };
        self.keep(&[subscribe_record(session, filter, held, more)])
    }

    /// Forgets what was [`Remembered`].
    pub fn forget(&self, key: &str) {
        self.keep(&[Record::DocumentRemove { key }]);
    }

    /// The last append that is as safe as the configuration promises.
    pub fn durable(&self) -> Ticket {
        self.store.durable()
    }

    /// The store, for those who wait for it.
    pub fn store(&self) -> &dyn crate::store::Store {
        &*self.store
    }
}

/// What is kept of a subscription; `more` is what SUBSCRIBE has no bit for.
pub(super) fn subscribe_record(session: u64, filter: &str, held: Held, more: u8) -> Record<'_> {
    Record::Subscribe {
        session,
        filter,
        options: held.options.as_byte() | more,
        subscription_id: (held.identifier != 0).then_some(held.identifier),
    }
}

/// What is kept of a session; `extra` is [`State::extra`], encoded.
pub(super) fn session_record<'a>(
    session: &'a Session,
    state: &'a State,
    extra: &'a [u8],
) -> Record<'a> {
    let link = state.link.as_deref();
    Record::SessionPut {
        session: session.number(),
        record: SessionView {
            client_id: session.client_id(),
            user: state.principal.user(),
            epoch: state.epoch,
            expiry_interval_secs: state.expiry_secs,
            connected_ms: state.connected_at.0,
            disconnected_ms: state.disconnected_at.map(|at| at.0),
            protocol_level: link.map_or(0, |link| link.version.protocol_level()),
            extra,
        },
    }
}

fn will_record(session: u64, will: &Will, due: Option<Millis>) -> Record<'_> {
    let message = &will.message;
    Record::WillPut {
        session,
        will: WillView {
            topic: message.topic(),
            properties: will.properties().as_bytes(),
            payload: message.payload(),
            qos: message.qos.as_u8(),
            retain: message.retain,
            delay_secs: will.delay_secs,
            due_ms: due.map(|due| due.0),
        },
    }
}

/// What is kept of a session that the store does not look into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionExtra {
    /// Sequence numbers from this one on were never sent, up to when this was kept.
    pub sent_to: u64,
    /// How far it has read streams.
    pub places: Places,
}

impl State {
    /// What is kept of it that the store does not look into.
    pub(super) fn extra(&self) -> SessionExtra {
        SessionExtra {
            sent_to: self.outgoing.sent_to(),
            places: Places::of(&self.readings),
        }
    }
}

impl SessionExtra {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.sent_to.to_be_bytes().to_vec();
        self.places.encode(&mut bytes);
        bytes
    }

    /// What was encoded; what a later version added behind it is ignored.
    pub(super) fn decode(bytes: &[u8]) -> Option<SessionExtra> {
        let (sent_to, rest) = bytes.split_first_chunk()?;
        Some(SessionExtra {
            sent_to: u64::from_be_bytes(*sent_to),
            places: Places::decode(rest),
        })
    }
}
