//! The outgoing queue of one session: what waits, what is in flight, what was released.
//!
//! Messages with QoS 1 and 2 take a sequence number when they are queued, and the Packet
//! Identifier follows from it: `number % 65535 + 1`. Queue and inflight window are one sequence of
//! slots, so an acknowledgement finds its message by arithmetic, redelivery is in the original
//! order by construction [MQTT-4.4.0-1] [MQTT-4.6.0-1], and nothing has to remember which
//! identifier belongs to which message. An identifier is not used again before the slot that has
//! it is done [MQTT-2.2.1-4]: a number whose identifier somebody still has in flight, because one
//! message stays unacknowledged while thousands after it do not, is passed over.
//!
//! A session that outlives its connection need not have its messages in memory: [`body`] lets go
//! of those that the store can give back, and takes them in again page by page.
//!
//! What comes while its receiver is away has no slot at all behind the first ones: see [`tail`].
//!
//! A pure state machine: it sends nothing, reads nothing, and knows neither time nor limits.

mod body;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use tidings_protocol::mqtt::{PacketId, QoS};

pub use body::{Body, PAGE_BYTES, PAGE_MESSAGES};
pub use tail::Places;
use tail::Tail;

use super::message::Message;
use super::shared::Origin;
use super::stats::QueueWeight;
use crate::chunks::Chunks;
use crate::store::Ticket;

/// Packet Identifiers there are.
const IDENTIFIERS: u64 = 65_535;

/// The longest stretch of slots of which no two share an identifier.
const SPAN_MAX: usize = IDENTIFIERS as usize;

/// What is the same for all messages that came through one subscription.
#[derive(Debug, PartialEq, Eq)]
pub struct Through {
    /// The Subscription Identifiers to send along.
    pub identifiers: Option<Arc<[u32]>>,
    /// The Shared Subscription, by its address; none after a restart that left it unclear.
    pub group: Option<GroupRef>,
    /// The tag of the Shared Subscription; 0 if it did not come through one.
    pub shared_as: u8,
}

impl Through {
    /// Whether it came through a Shared Subscription.
    pub fn is_shared(&self) -> bool {
        self.shared_as != 0
    }
}

/// A group by identity.
#[derive(Clone)]
pub struct GroupRef(pub Origin);

impl PartialEq for GroupRef {
    fn eq(&self, other: &GroupRef) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
impl Eq for GroupRef {}
impl std::fmt::Debug for GroupRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "$share/{}/{}", self.0.share_name(), self.0.filter())
    }
}

/// How far a message has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It waits to be sent, perhaps not for the first time.
    Queued,
    /// PUBLISH was sent.
    Sent,
    /// PUBREC came: only PUBREL is sent from now on [MQTT-4.3.3-4]. True once it was sent on this
    /// connection.
    Released(bool),
    /// Nothing is left to do.
    Done,
}

/// Whether a message was sent on an earlier connection of its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SentBefore {
    /// It was not.
    #[default]
    No,
    /// Nobody knows: its connection ended with the broker.
    Perhaps,
    /// It was.
    Yes,
}

/// A message of QoS 1 or 2 on its way to one session, or one of QoS 0 that waits with them.
#[derive(Debug)]
pub struct Slot {
    /// Where the message is.
    pub body: Body,
    /// Which subscription it came through, where that matters.
    pub through: Option<Arc<Through>>,
    /// How far it has got.
    pub progress: Progress,
    /// The QoS it is delivered with.
    pub qos: QoS,
    /// The RETAIN flag it is delivered with.
    pub retain: bool,
    /// Whether it was sent on an earlier connection.
    pub sent: SentBefore,
    /// It was read from a stream: whatever its QoS, a session that is kept does not send it before
    /// the store knows that it was read. Of QoS 0 the store has no entry.
    pub is_replayed: bool,
}

impl Slot {
    /// A message that was never sent.
    pub fn waiting(body: Body, through: Option<Arc<Through>>, qos: QoS, retain: bool) -> Slot {
        Slot {
            body,
            through,
            progress: Progress::Queued,
            qos,
            retain,
            sent: SentBefore::No,
            is_replayed: false,
        }
    }

    /// Whether a store that keeps the queue has an entry for it.
    fn is_entry(&self) -> bool {
        !(self.is_replayed && self.qos == QoS::AtMostOnce)
    }

    /// The Subscription Identifiers to send along.
    pub fn identifiers(&self) -> Option<&[u32]> {
        self.through.as_ref()?.identifiers.as_deref()
    }

    /// Whether DUP is set when it is sent [MQTT-3.3.1-1]: never for QoS 0 [MQTT-3.3.1-2].
    pub fn dup(&self) -> bool {
        self.sent != SentBefore::No && self.qos != QoS::AtMostOnce
    }

    /// Whether its receiver may do without it: nobody has begun to deliver it, or at least not in a
    /// way that has to be completed.
    pub fn may_be_dropped(&self) -> bool {
        let begun = match self.sent {
            SentBefore::No => false,
            SentBefore::Perhaps => self.qos == QoS::ExactlyOnce,
            SentBefore::Yes => true,
        };
        self.progress == Progress::Queued && !begun
    }

    /// Whether its Packet Identifier has been sent, so that no other message may have it.
    fn holds_identifier(&self) -> bool {
        match self.progress {
            Progress::Queued => self.sent == SentBefore::Yes,
            Progress::Sent | Progress::Released(_) => true,
            Progress::Done => false,
        }
    }
}

/// Stands for a number that is not used.
impl Default for Slot {
    fn default() -> Slot {
        Slot {
            body: Body::None,
            through: None,
            progress: Progress::Done,
            qos: QoS::AtMostOnce,
            retain: false,
            sent: SentBefore::No,
            is_replayed: false,
        }
    }
}

/// What the receiver says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// PUBACK: QoS 1 is complete.
    Ack,
    /// PUBREC: QoS 2 is received.
    Received,
    /// PUBREC with an error: QoS 2 ends here [MQTT-4.3.3-4].
    Refused,
    /// PUBCOMP: QoS 2 is complete.
    Complete,
}

/// An acknowledgement that fits no message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInFlight;

/// The answer of [`Outgoing::next`].
#[derive(Debug)]
pub enum Next<'q> {
    /// This one is to be sent, with this Packet Identifier.
    Send(&'q mut Slot, PacketId),
    /// Nothing waits.
    Nothing,
    /// The receiver has to acknowledge something first.
    Window,
    /// The message has to be read back from the store first.
    Page,
    /// The message may not be sent before the store has this ticket.
    Hold(Ticket),
}

/// The queue.
#[derive(Debug, Default)]
pub struct Outgoing {
    slots: Chunks<Slot>,
    /// The sequence number of the first slot.
    base: u64,
    /// What is behind the slots.
    tail: Tail,
    /// Slots before this one were visited by [`Outgoing::next`] on this connection.
    next: usize,
    /// Messages sent and not complete: what Receive Maximum bounds.
    inflight: usize,
    /// Slots that are done, behind one that is not.
    done: usize,
    /// Bytes of what is not complete, but for what is in the tail and in the store alone.
    bytes: usize,
    /// Bytes of memory that the messages of [`Body::Held`] take.
    held: usize,
    /// How many slots are [`Body::Stored`].
    stored: usize,
    /// No slot from `next` up to this sequence number is [`Body::Stored`].
    loaded_to: u64,
    /// Slots whose message is to leave the memory as soon as the store has it.
    spilling: VecDeque<u64>,
    /// Every number that was ever sent is below this one.
    sent_to: u64,
    /// What became of entries since it was last asked for; none if nobody keeps a record of it.
    finished: Option<Vec<Finished>>,
}

/// An entry that needs its message no more.
#[derive(Debug)]
pub struct Finished {
    /// Its sequence number.
    pub sequence: u64,
    /// Its message, if that was in memory.
    pub message: Option<Arc<Message>>,
    /// Whether PUBREL is still to be acknowledged; otherwise nothing is left to do.
    pub released: bool,
}

fn packet_id(sequence: u64) -> PacketId {
    PacketId::new((sequence % IDENTIFIERS) as u16 + 1).expect("1 to 65535")
}

impl Outgoing {
    /// Has it remember what became of entries from now on.
    pub fn keep_record(&mut self) {
        self.finished.get_or_insert_default();
    }

    /// What became of entries, for whoever keeps a record of it.
    pub fn finished(&mut self) -> Option<&mut Vec<Finished>> {
        self.finished
            .as_mut()
            .filter(|finished| !finished.is_empty())
    }

    /// Messages that are not complete.
    pub fn len(&self) -> usize {
        self.slots.len() - self.done + self.tail.len()
    }

    /// Whether everything is complete.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.tail.is_empty()
    }

    /// Places taken, those of complete messages behind one that is not among them.
    pub fn span(&self) -> usize {
        self.slots.len() + self.tail.len()
    }

    /// Bytes of the topics, properties and payloads of what is not complete, wherever they are.
    pub fn bytes(&self) -> usize {
        self.bytes + self.tail.stored_bytes
    }

    /// Bytes of memory that messages take here.
    pub fn held(&self) -> usize {
        self.held
    }

    /// What it adds to the broker's figures.
    pub fn weight(&self) -> QueueWeight {
        QueueWeight {
            bytes: self.bytes() as u64,
            held: self.held as u64,
        }
    }

    /// Every number that was ever sent is below this one.
    pub fn sent_to(&self) -> u64 {
        self.sent_to.max(self.base + self.next as u64)
    }

    /// Messages sent and not complete.
    pub fn inflight(&self) -> usize {
        self.inflight
    }

    /// Whether anything waits that [`Outgoing::next`] has not visited.
    pub fn has_waiting(&self) -> bool {
        self.next < self.slots.len() || !self.tail.is_empty()
    }

    /// Whether fewer messages and bytes than these wait that [`Outgoing::next`] has not visited.
    pub fn waits_less_than(&self, messages: usize, bytes: usize) -> bool {
        let end = self.slots.len();
        if end - self.next >= messages || !self.tail.is_empty() {
            return false;
        }
        let waiting = self.slots.range(self.next..end);
        waiting.map(|slot| slot.body.bytes()).sum::<usize>() < bytes
    }

    /// How many messages could be sent at once now, if nothing waits before them.
    pub fn room(&self, receive_maximum: u16) -> usize {
        usize::from(receive_maximum)
            .saturating_sub(self.inflight)
            .min(SPAN_MAX.saturating_sub(self.slots.len()))
    }

    /// Whether another message would be sent without an acknowledgement of those before it, though
    /// perhaps only once the store has it, or them.
    pub fn takes_more(&self, receive_maximum: u16) -> bool {
        self.len() < usize::from(receive_maximum) && self.slots.len() < SPAN_MAX
    }

    /// Queues a message, and answers its sequence number.
    pub fn push(&mut self, slot: Slot) -> u64 {
        if !self.tail.is_empty() {
            return self.push_behind(slot);
        }
        while self.is_identifier_held(self.slots.len()) {
            self.slots.push_back(Slot::default());
            self.done += 1;
        }
        self.bytes += slot.body.bytes();
        self.held += slot.body.held();
        self.slots.push_back(slot);
        self.base + self.slots.len() as u64 - 1
    }

    /// Whether a slot before this position has its Packet Identifier, and was sent. What was never sent is
    /// not looked at: that would be most of a long queue, a slot in 65,535.
    fn is_identifier_held(&self, at: usize) -> bool {
        let sent = self.sent_to().saturating_sub(self.base) as usize;
        let sent = sent.min(self.slots.len());
        let nearest = at.saturating_sub(sent) / SPAN_MAX + 1;
        (nearest..=at / SPAN_MAX).any(|times| self.slots[at - times * SPAN_MAX].holds_identifier())
    }

    /// The slots before this position that have its Packet Identifier.
    fn same_identifier(&self, at: usize) -> impl Iterator<Item = &Slot> {
        (1..=at / SPAN_MAX).map(move |times| &self.slots[at - times * SPAN_MAX])
    }

    /// Queues a message of QoS 1 or 2 that is being sent at this moment, and gives its sequence
    /// number and Packet Identifier. Nothing may be waiting, and there must be [`Outgoing::room`].
    pub fn push_sent(&mut self, mut slot: Slot) -> (u64, PacketId) {
        debug_assert!(!self.has_waiting());
        slot.progress = Progress::Sent;
        let sequence = self.push(slot);
        self.next = self.slots.len();
        self.inflight += 1;
        (sequence, packet_id(sequence))
    }

    /// The next message to send: marked as sent, with its Packet Identifier. A released one wants
    /// PUBREL instead of PUBLISH. `durable` is what the store has.
    ///
    /// What `drop` says true to is completed without being sent.
    pub fn next(
        &mut self,
        receive_maximum: u16,
        durable: Ticket,
        mut drop: impl FnMut(&Slot, &Message) -> bool,
    ) -> Next<'_> {
        loop {
            if self.next == self.slots.len() {
                match self.tail.stored {
                    0 if self.tail.is_empty() => return Next::Nothing,
                    _ if self.inflight >= usize::from(receive_maximum) => return Next::Window,
                    0 => self.bring_in(),
                    _ => return Next::Page,
                }
                continue;
            }
            let at = self.next;
            let id = packet_id(self.base + at as u64);
            let slot = &self.slots[at];
            match (slot.progress, &slot.body) {
                (Progress::Done | Progress::Sent | Progress::Released(true), _) => {
                    self.next += 1;
                    continue;
                }
                (Progress::Queued, Body::Held(message)) => {
                    let hold = message.held_from(self.finished.is_some());
                    let waits = slot.qos == QoS::ExactlyOnce || slot.is_replayed;
                    if waits && hold > durable {
                        return Next::Hold(hold);
                    }
                    if drop(slot, message) {
                        self.next += 1;
                        self.complete(at);
                        continue;
                    }
                }
                (Progress::Queued | Progress::Released(false), _) => {}
            }
            if self.inflight >= usize::from(receive_maximum)
                || self
                    .same_identifier(at)
                    .any(|slot| slot.progress != Progress::Done)
            {
                return Next::Window;
            }
            if let Body::Stored { .. } = slot.body {
                return Next::Page;
            }
            self.next += 1;
            let slot = &mut self.slots[at];
            slot.progress = match slot.progress {
                Progress::Released(_) => Progress::Released(true),
                _ => Progress::Sent,
            };
            // QoS 0 has no acknowledgement to wait for.
            self.inflight += usize::from(slot.qos != QoS::AtMostOnce);
            return Next::Send(slot, id);
        }
    }

    /// Completes QoS 0 messages that [`Outgoing::next`] gave out.
    pub fn complete_qos0(&mut self, id: PacketId) {
        if let Some(at) = self.position(id)
            && self.slots[at].qos == QoS::AtMostOnce
        {
            self.complete(at);
        }
    }

    fn position(&self, id: PacketId) -> Option<usize> {
        let base = self.base % IDENTIFIERS;
        let wanted = u64::from(id.get()) - 1;
        let first = ((wanted + IDENTIFIERS - base) % IDENTIFIERS) as usize;
        (first..self.next)
            .step_by(SPAN_MAX)
            .find(|&at| self.slots[at].progress != Progress::Done)
    }

    fn complete(&mut self, at: usize) {
        self.finish(at, Progress::Done);
        self.done += 1;
        self.pop_done();
    }

    /// Removes what is done at the front.
    fn pop_done(&mut self) {
        while self
            .slots
            .front()
            .is_some_and(|slot| slot.progress == Progress::Done)
        {
            self.slots.pop_front();
            self.base += 1;
            self.done -= 1;
            self.next = self.next.saturating_sub(1);
        }
    }

    /// The message of a slot is needed no more.
    fn finish(&mut self, at: usize, progress: Progress) {
        let slot = &mut self.slots[at];
        slot.progress = progress;
        if progress == Progress::Done {
            slot.through = None;
        }
        let is_entry = slot.is_entry();
        let body = self.replace_body(at, Body::None);
        if let Some(finished) = self.finished.as_mut().filter(|_| is_entry) {
            let message = match body {
                Body::Held(message) => Some(message),
                Body::Stored { .. } | Body::None => None,
            };
            finished.push(Finished {
                sequence: self.base + at as u64,
                message,
                released: progress != Progress::Done,
            });
        }
    }

    /// Takes in what the receiver says of the message with this Packet Identifier.
    pub fn acknowledge(&mut self, what: Acknowledgement, id: PacketId) -> Result<(), NotInFlight> {
        let at = self.position(id).ok_or(NotInFlight)?;
        let slot = &self.slots[at];
        match (what, slot.qos, slot.progress) {
            (Acknowledgement::Ack, QoS::AtLeastOnce, Progress::Sent)
            | (Acknowledgement::Refused, QoS::ExactlyOnce, Progress::Sent)
            | (Acknowledgement::Complete, QoS::ExactlyOnce, Progress::Released(_)) => {
                self.inflight -= 1;
                self.complete(at);
                Ok(())
            }
            (Acknowledgement::Received, QoS::ExactlyOnce, Progress::Sent) => {
                // The payload is the receiver's now; only the identifier is still needed.
                self.finish(at, Progress::Released(true));
                Ok(())
            }
            (Acknowledgement::Received, QoS::ExactlyOnce, Progress::Released(_)) => Ok(()),
            _ => Err(NotInFlight),
        }
    }

    /// The sequence number of the message in flight that has this Packet Identifier.
    pub fn sequence_of(&self, id: PacketId) -> Option<u64> {
        Some(self.base + self.position(id)? as u64)
    }

    /// Whether something waits for an acknowledgement before it can be sent.
    pub fn is_held_up(&self, receive_maximum: u16) -> bool {
        self.has_waiting() && self.room(receive_maximum) == 0
    }

    /// Completes everything up to this sequence number that was ever sent: its receiver says that it
    /// has all of it. Answers how many messages those were.
    pub fn acknowledge_to(&mut self, sequence: u64) -> usize {
        let end = sequence.saturating_add(1).min(self.sent_to());
        let mut acknowledged = 0;
        while self.base < end
            && let Some(first) = self.slots.front()
        {
            let in_flight = matches!(first.progress, Progress::Sent | Progress::Released(true));
            if in_flight && first.qos != QoS::AtMostOnce {
                self.inflight -= 1;
            }
            acknowledged += 1;
            // It goes, and with it what is done behind it.
            self.complete(0);
        }
        acknowledged
    }

    /// The connection is gone: what was sent and not acknowledged will be sent again, in the same
    /// order and with the same Packet Identifiers [MQTT-4.4.0-1].
    pub fn restart(&mut self) {
        self.sent_to = self.sent_to();
        self.slots.change(0..self.next, |slot| match slot.progress {
            Progress::Sent => {
                slot.progress = Progress::Queued;
                slot.sent = SentBefore::Yes;
            }
            Progress::Released(_) => slot.progress = Progress::Released(false),
            Progress::Queued | Progress::Done => {}
        });
        self.next = 0;
        self.inflight = 0;
        self.spill_everything();
    }

    /// Takes the oldest message that was never sent out of the queue, to make room. False if there is
    /// none that has a slot.
    pub fn drop_oldest_waiting(&mut self) -> bool {
        let from = self.next;
        let oldest = (from..self.slots.len()).find(|&at| self.slots[at].may_be_dropped());
        if let Some(at) = oldest {
            self.complete(at);
        }
        oldest.is_some()
    }

    /// Takes messages that were never sent out of the queue, if `unwanted`; answers how many. Those
    /// that are in the store alone are not looked at.
    pub fn drop_waiting(&mut self, unwanted: impl Fn(&Message) -> bool) -> u64 {
        let mut dropped = 0;
        let mut at = self.next;
        while at < self.slots.len() {
            let slot = &self.slots[at];
            if slot.may_be_dropped() && slot.body.message().is_some_and(|message| unwanted(message))
            {
                let before = self.slots.len();
                self.complete(at);
                dropped += 1;
                if self.slots.len() < before {
                    // It was at the front, and is gone with what was done behind it.
                    at = (at + 1).saturating_sub(before - self.slots.len());
                    continue;
                }
            }
            at += 1;
        }
        dropped + self.drop_coming(unwanted)
    }

    /// Everything that is not complete, oldest first; the queue is empty afterwards. All of it has to
    /// have a slot: see [`Outgoing::places`].
    pub fn take_all(&mut self) -> impl Iterator<Item = Slot> + use<> {
        self.bring_in();
        let slots = std::mem::take(&mut self.slots);
        self.base += slots.len() as u64;
        self.next = 0;
        self.inflight = 0;
        self.done = 0;
        self.bytes = 0;
        self.held = 0;
        self.stored = 0;
        self.spilling = VecDeque::new();
        slots
            .into_iter()
            .filter(|slot| slot.progress != Progress::Done)
    }
}
