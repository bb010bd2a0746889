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
//! A pure state machine: it sends nothing, and knows neither time nor limits.

use std::collections::VecDeque;
use std::sync::Arc;

use tidings_protocol::mqtt::{PacketId, QoS};

use super::message::Message;
use super::shared::Origin;

/// Packet Identifiers there are.
const IDENTIFIERS: u64 = 65_535;

/// The longest stretch of slots of which no two share an identifier.
const SPAN_MAX: usize = IDENTIFIERS as usize;

/// What is the same for all messages that came through one subscription.
#[derive(Debug, PartialEq, Eq)]
pub struct Through {
    /// The Subscription Identifiers to send along.
    pub identifiers: Option<Arc<[u32]>>,
    /// The Shared Subscription, by its address.
    pub group: Option<GroupRef>,
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
    /// It waits to be sent, again if `dup` is set.
    Queued,
    /// PUBLISH was sent.
    Sent,
    /// PUBREC came: only PUBREL is sent from now on [MQTT-4.3.3-4]. True once it was sent on this
    /// connection.
    Released(bool),
    /// Nothing is left to do.
    Done,
}

/// A message of QoS 1 or 2 on its way to one session, or one of QoS 0 that waits with them.
#[derive(Debug)]
pub struct Slot {
    /// The message; none where it will never be needed again.
    pub message: Option<Arc<Message>>,
    /// Which subscription it came through, where that matters.
    pub through: Option<Arc<Through>>,
    /// How far it has got.
    pub progress: Progress,
    /// The QoS it is delivered with.
    pub qos: QoS,
    /// The RETAIN flag it is delivered with.
    pub retain: bool,
    /// Whether it may have been sent before [MQTT-3.3.1-1].
    pub dup: bool,
}

impl Slot {
    fn size(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.size())
    }

    /// Whether its Packet Identifier has been sent, so that no other message may have it.
    fn holds_identifier(&self) -> bool {
        match self.progress {
            Progress::Queued => self.dup,
            Progress::Sent | Progress::Released(_) => true,
            Progress::Done => false,
        }
    }

    /// Stands for a number that is not used.
    fn passed_over() -> Slot {
        Slot {
            message: None,
            through: None,
            progress: Progress::Done,
            qos: QoS::AtMostOnce,
            retain: false,
            dup: false,
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

/// The queue.
#[derive(Debug, Default)]
pub struct Outgoing {
    slots: VecDeque<Slot>,
    /// The sequence number of the first slot.
    base: u64,
    /// Slots before this one were visited by [`Outgoing::next`] on this connection.
    next: usize,
    /// Messages sent and not complete: what Receive Maximum bounds.
    inflight: usize,
    /// Slots that are done, behind one that is not.
    done: usize,
    bytes: usize,
    /// What became of entries since it was last asked for; none if nobody keeps a record of it.
    finished: Option<Vec<Finished>>,
}

/// An entry that needs its message no more.
#[derive(Debug)]
pub struct Finished {
    /// Its sequence number.
    pub sequence: u64,
    /// Its message.
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
        self.slots.len() - self.done
    }

    /// Whether everything is complete.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Places taken, those of complete messages behind one that is not among them.
    pub fn span(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the messages kept here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages sent and not complete.
    pub fn inflight(&self) -> usize {
        self.inflight
    }

    /// Whether anything waits that [`Outgoing::next`] has not visited.
    pub fn has_waiting(&self) -> bool {
        self.next < self.slots.len()
    }

    /// How many messages could be sent at once now, if nothing waits before them.
    pub fn room(&self, receive_maximum: u16) -> usize {
        usize::from(receive_maximum)
            .saturating_sub(self.inflight)
            .min(SPAN_MAX.saturating_sub(self.slots.len()))
    }

    /// Queues a message, and answers its sequence number.
    pub fn push(&mut self, slot: Slot) -> u64 {
        while self
            .same_identifier(self.slots.len())
            .any(|slot| slot.holds_identifier())
        {
            self.slots.push_back(Slot::passed_over());
            self.done += 1;
        }
        self.bytes += slot.size();
        self.slots.push_back(slot);
        self.base + self.slots.len() as u64 - 1
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
    /// PUBREL instead of PUBLISH. None if nothing waits or the window is full.
    ///
    /// What `drop` says true to is completed without being sent.
    pub fn next(
        &mut self,
        receive_maximum: u16,
        mut drop: impl FnMut(&Slot) -> bool,
    ) -> Option<(&mut Slot, PacketId)> {
        while self.next < self.slots.len() {
            let at = self.next;
            let id = packet_id(self.base + at as u64);
            let slot = &self.slots[at];
            match slot.progress {
                Progress::Done | Progress::Sent | Progress::Released(true) => {
                    self.next += 1;
                    continue;
                }
                Progress::Queued if drop(slot) => {
                    self.next += 1;
                    self.complete(at);
                    continue;
                }
                Progress::Queued | Progress::Released(false) => {}
            }
            if self.inflight >= usize::from(receive_maximum)
                || self
                    .same_identifier(at)
                    .any(|slot| slot.progress != Progress::Done)
            {
                return None;
            }
            self.next += 1;
            let slot = &mut self.slots[at];
            slot.progress = match slot.progress {
                Progress::Released(_) => Progress::Released(true),
                _ => Progress::Sent,
            };
            // QoS 0 has no acknowledgement to wait for.
            self.inflight += usize::from(slot.qos != QoS::AtMostOnce);
            return Some((slot, id));
        }
        None
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
        let slot = &mut self.slots[at];
        self.bytes -= slot.size();
        slot.progress = Progress::Done;
        let message = slot.message.take();
        slot.through = None;
        if let Some(finished) = &mut self.finished {
            finished.push(Finished {
                sequence: self.base + at as u64,
                message,
                released: false,
            });
        }
        self.done += 1;
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
        if self.slots.is_empty() && self.slots.capacity() > 1024 {
            self.slots = VecDeque::new();
        }
    }

    /// Takes in what the receiver says of the message with this Packet Identifier.
    pub fn acknowledge(&mut self, what: Acknowledgement, id: PacketId) -> Result<(), NotInFlight> {
        let at = self.position(id).ok_or(NotInFlight)?;
        let slot = &mut self.slots[at];
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
                self.bytes -= slot.size();
                slot.progress = Progress::Released(true);
                let message = slot.message.take();
                if let Some(finished) = &mut self.finished {
                    finished.push(Finished {
                        sequence: self.base + at as u64,
                        message,
                        released: true,
                    });
                }
                Ok(())
            }
            (Acknowledgement::Received, QoS::ExactlyOnce, Progress::Released(_)) => Ok(()),
            _ => Err(NotInFlight),
        }
    }

    /// The connection is gone: what was sent and not acknowledged will be sent again, in the same
    /// order and with the same Packet Identifiers [MQTT-4.4.0-1].
    pub fn restart(&mut self) {
        for slot in self.slots.iter_mut().take(self.next) {
            match slot.progress {
                Progress::Sent => {
                    slot.progress = Progress::Queued;
                    slot.dup = true;
                }
                Progress::Released(_) => slot.progress = Progress::Released(false),
                Progress::Queued | Progress::Done => {}
            }
        }
        self.next = 0;
        self.inflight = 0;
    }

    /// Takes the oldest message that was never sent out of the queue, to make room.
    pub fn drop_oldest_waiting(&mut self) -> bool {
        let from = self.next;
        let oldest = (from..self.slots.len())
            .find(|&at| self.slots[at].progress == Progress::Queued && !self.slots[at].dup);
        if let Some(at) = oldest {
            self.complete(at);
        }
        oldest.is_some()
    }

    /// Takes messages that were never sent out of the queue, if `unwanted`; answers how many.
    pub fn drop_waiting(&mut self, unwanted: impl Fn(&Message) -> bool) -> u64 {
        let mut dropped = 0;
        let mut at = self.next;
        while at < self.slots.len() {
            let slot = &self.slots[at];
            let waits = slot.progress == Progress::Queued && !slot.dup;
            if waits
                && slot
                    .message
                    .as_ref()
                    .is_some_and(|message| unwanted(message))
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
        dropped
    }

    /// Everything that is not complete, oldest first; the queue is empty afterwards.
    pub fn take_all(&mut self) -> impl Iterator<Item = Slot> + use<> {
        let slots = std::mem::take(&mut self.slots);
        self.base += slots.len() as u64;
        self.next = 0;
        self.inflight = 0;
        self.done = 0;
        self.bytes = 0;
        slots
            .into_iter()
            .filter(|slot| slot.progress != Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(qos: QoS) -> Slot {
        Slot {
            message: None,
            through: None,
            progress: Progress::Queued,
            qos,
            retain: false,
            dup: false,
        }
    }

    fn send(queue: &mut Outgoing, window: u16) -> Vec<(u16, bool, Progress)> {
        let mut sent = Vec::new();
        while let Some((slot, id)) = queue.next(window, |_| false) {
            let (dup, progress, qos) = (slot.dup, slot.progress, slot.qos);
            if qos == QoS::AtMostOnce {
                queue.complete_qos0(id);
            }
            sent.push((id.get(), dup, progress));
        }
        sent
    }

    fn id(value: u16) -> PacketId {
        PacketId::new(value).expect("not 0")
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let mut queue = Outgoing::default();
        for _ in 0..5 {
            queue.push(slot(QoS::AtLeastOnce));
        }
        assert_eq!(send(&mut queue, 2).len(), 2);
        assert_eq!(send(&mut queue, 2).len(), 0);
        queue
            .acknowledge(Acknowledgement::Ack, id(2))
            .expect("in flight");
        assert_eq!(send(&mut queue, 2), [(3, false, Progress::Sent)]);
    }

    #[test]
    fn a_restart_sends_again_in_order_with_the_same_identifiers() {
        let mut queue = Outgoing::default();
        for qos in [
            QoS::AtLeastOnce,
            QoS::ExactlyOnce,
            QoS::ExactlyOnce,
            QoS::AtLeastOnce,
        ] {
            queue.push(slot(qos));
        }
        send(&mut queue, 3);
        queue
            .acknowledge(Acknowledgement::Received, id(2))
            .expect("in flight");
        queue.restart();
        assert_eq!(
            send(&mut queue, 10),
            [
                (1, true, Progress::Sent),
                (2, false, Progress::Released(true)),
                (3, true, Progress::Sent),
                (4, false, Progress::Sent),
            ]
        );
    }

    #[test]
    fn an_identifier_in_flight_is_passed_over() {
        let mut queue = Outgoing::default();
        queue.push(slot(QoS::AtLeastOnce));
        assert_eq!(send(&mut queue, 10), [(1, false, Progress::Sent)]);
        for number in 1..200_000_u64 {
            queue.push(slot(QoS::AtLeastOnce));
            let sent = send(&mut queue, 10);
            assert_eq!(sent.len(), 1, "after {number}");
            assert_ne!(sent[0].0, 1);
            queue
                .acknowledge(Acknowledgement::Ack, id(sent[0].0))
                .expect("in flight");
        }
        queue
            .acknowledge(Acknowledgement::Ack, id(1))
            .expect("in flight");
        assert!(queue.is_empty());
    }

    #[test]
    fn an_acknowledgement_must_fit_the_state() {
        let mut queue = Outgoing::default();
        queue.push(slot(QoS::AtLeastOnce));
        queue.push(slot(QoS::ExactlyOnce));
        assert_eq!(
            queue.acknowledge(Acknowledgement::Ack, id(1)),
            Err(NotInFlight)
        );
        send(&mut queue, 10);
        assert_eq!(
            queue.acknowledge(Acknowledgement::Received, id(1)),
            Err(NotInFlight)
        );
        assert_eq!(
            queue.acknowledge(Acknowledgement::Complete, id(2)),
            Err(NotInFlight)
        );
        assert_eq!(
            queue.acknowledge(Acknowledgement::Ack, id(3)),
            Err(NotInFlight)
        );
        assert_eq!(queue.acknowledge(Acknowledgement::Received, id(2)), Ok(()));
        assert_eq!(queue.acknowledge(Acknowledgement::Received, id(2)), Ok(()));
        assert_eq!(queue.acknowledge(Acknowledgement::Complete, id(2)), Ok(()));
        assert_eq!(
            queue.acknowledge(Acknowledgement::Complete, id(2)),
            Err(NotInFlight)
        );
        assert_eq!(queue.acknowledge(Acknowledgement::Ack, id(1)), Ok(()));
        assert!(queue.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Send(u16),
        Finish(usize),
        Receive(usize),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..3).prop_map(Step::Push),
            3 => (1u16..20).prop_map(Step::Send),
            3 => any::<usize>().prop_map(Step::Finish),
            2 => any::<usize>().prop_map(Step::Receive),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        /// Against a model that keeps what is unacknowledged in a plain list: identifiers in
        /// flight are unique, order is kept, nothing is lost, the window holds.
        #[test]
        fn agrees_with_a_plain_list(steps in proptest::collection::vec(step(), 1..400), start in 0u64..200_000) {
            let mut queue = Outgoing { base: start, ..Outgoing::default() };
            // (sequence number, qos, released) of what was sent and is not complete.
            let mut flight: Vec<(u64, QoS, bool)> = Vec::new();
            let mut waiting: VecDeque<(u64, QoS, bool, bool)> = VecDeque::new();
            let mut sequence = start;
            for step in steps {
                match step {
                    Step::Push(qos) => {
                        let qos = QoS::from_u8(qos).expect("0 to 2");
                        queue.push(slot(qos));
                        waiting.push_back((sequence, qos, false, false));
                        sequence += 1;
                    }
                    Step::Send(window) => {
                        for (id, dup, progress) in send(&mut queue, window) {
                            let (number, qos, sent_before, released) =
                                waiting.pop_front().expect("only what waits is sent");
                            prop_assert_eq!(u64::from(id), number % 65_535 + 1);
                            // PUBREL, which is all that is sent of a released one, has no DUP.
                            prop_assert!(released || dup == sent_before);
                            prop_assert_eq!(progress == Progress::Released(true), released);
                            if qos != QoS::AtMostOnce {
                                flight.push((number, qos, released));
                                prop_assert!(flight.len() <= usize::from(window));
                            }
                        }
                        prop_assert_eq!(queue.inflight(), flight.len());
                        prop_assert_eq!(queue.len(), flight.len() + waiting.len());
                    }
                    Step::Finish(which) if !flight.is_empty() => {
                        let (number, qos, released) = flight.remove(which % flight.len());
                        let id = packet_id(number);
                        if qos == QoS::AtLeastOnce {
                            prop_assert_eq!(queue.acknowledge(Acknowledgement::Ack, id), Ok(()));
                        } else {
                            if !released {
                                prop_assert_eq!(queue.acknowledge(Acknowledgement::Received, id), Ok(()));
                            }
                            prop_assert_eq!(queue.acknowledge(Acknowledgement::Complete, id), Ok(()));
                        }
                        prop_assert_eq!(queue.acknowledge(Acknowledgement::Ack, id), Err(NotInFlight));
                    }
                    Step::Receive(which) if !flight.is_empty() => {
                        let at = which % flight.len();
                        let (number, qos, released) = &mut flight[at];
                        let expected = if *qos == QoS::ExactlyOnce { Ok(()) } else { Err(NotInFlight) };
                        prop_assert_eq!(queue.acknowledge(Acknowledgement::Received, packet_id(*number)), expected);
                        *released |= *qos == QoS::ExactlyOnce;
                    }
                    Step::Restart => {
                        queue.restart();
                        let mut again: Vec<_> = flight.drain(..).map(|(n, q, r)| (n, q, true, r)).collect();
                        again.extend(waiting.drain(..));
                        again.sort_by_key(|entry| entry.0);
                        waiting = again.into();
                    }
                    Step::Finish(_) | Step::Receive(_) => {}
                }
            }
            prop_assert_eq!(queue.take_all().count(), flight.len() + waiting.len());
        }
    }
}
