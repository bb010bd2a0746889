//! What a session does with messages that matched: into its outbox, into its queue, or dropped
//! with a reason.
//!
//! Everything here runs under the lock of one session, and none of it waits or touches a disk.

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use tidings_protocol::mqtt::{Ack, AckKind, QoS};

use super::Broker;
use super::clock::Millis;
use super::encode::{Delivery, Encodings, NO_IDENTIFIER, Variant, encode_message, encoded_len};
use super::journal::{Journal, target};
use super::message::{Message, Publication, Run};
use super::outgoing::{Body, Next, Outgoing, Progress, SentBefore, Slot, Through};
use super::session::{Closing, Link, Session, State};
use super::stats::{Drop, Stats, Tally};
use super::topics::Terms;
use crate::config::{LimitsConfig, QueueFull};
use crate::store::Ticket;

/// What delivering one run needs besides the session.
pub(super) struct Context<'a> {
    pub broker: &'a Broker,
    /// What the store has; everything that may come, if it is one that a restart forgets.
    pub durable: Ticket,
    pub limits: &'a LimitsConfig,
    pub stats: &'a Stats,
    pub now: Millis,
    pub encodings: &'a mut Encodings,
    /// Tasks to wake once the batch is routed.
    pub wakers: &'a mut Vec<Waker>,
    pub tally: &'a mut Tally,
    pub journal: &'a mut Journal,
}

impl Session {
    /// Delivers the publications of a run that are in `range`: all of them to a subscriber, one
    /// at a time to the members of a Shared Subscription.
    pub(super) fn deliver(
        &self,
        run: &Run<'_>,
        range: Range<usize>,
        terms: &Terms,
        cx: &mut Context<'_>,
    ) {
        if self.pass(run, &range, cx) {
            return;
        }
        let mut state = self.lock();
        if !try_at_once(&mut state, self.number(), run, range.clone(), terms, cx) {
            for index in range {
                deliver_publication(&mut state, self.number(), run, index, terms, cx);
            }
        }
        self.after_delivery(&mut state, cx);
    }

    /// To be called before the lock is released after something was put into the outbox or the
    /// queue.
    pub(super) fn after_delivery(&self, state: &mut State, cx: &mut Context<'_>) {
        self.refresh_readiness(state);
        match &mut state.link {
            Some(link) => {
                let has_work = (!link.outbox.is_empty() || link.stalled) && !link.blocked;
                if (has_work || link.closing.is_some())
                    && let Some(waker) = link.waker.take()
                {
                    cx.wakers.push(waker);
                }
            }
            // Nobody else comes by to keep what a full queue dropped.
            None => {
                cx.broker.keep_progress(self, state);
            }
        }
        if state.kept && state.outgoing.has_waiting() {
            let before = state.outgoing.weight();
            state.outgoing.spill(cx.durable);
            cx.tally.queue_changed(before, state.outgoing.weight());
        }
    }
}

/// The short way: one copy of the frames that everybody of this variant gets. False if something
/// about this receiver wants a closer look; nothing has happened then.
fn try_at_once(
    state: &mut State,
    session: u64,
    run: &Run<'_>,
    range: Range<usize>,
    terms: &Terms,
    cx: &mut Context<'_>,
) -> bool {
    let keep = state.kept || terms.group().is_some();
    let State {
        link,
        outgoing,
        kept,
        ..
    } = state;
    let Some(link) = link else { return false };
    if terms.identifiers().is_some()
        || link.aliases.is_some()
        || link.closing.is_some()
        || run.publications[0].is_large()
    {
        return false;
    }
    if terms.qos == QoS::ExactlyOnce {
        let holds = |it: &Publication<'_>| run.holds(it) || (*kept && it.qos == QoS::ExactlyOnce);
        if cx.durable < Message::NOT_KEPT && run.publications.iter().any(holds) {
            return false;
        }
    }
    let variant = Variant {
        v5: link.version.is_v5(),
        qos: terms.qos,
        retain_as_published: terms.retain_as_published,
    };
    let (encoded, messages) = cx.encodings.get(run, variant);
    let from = range
        .start
        .checked_sub(1)
        .map_or(0, |before| encoded.frames[before].end as usize);
    let frames = &encoded.frames[range.clone()];
    let bytes = &encoded.bytes[from..frames[frames.len() - 1].end as usize];
    if encoded.longest > link.packet_size_max
        || !link.has_room(bytes.len(), frames.len(), cx.limits)
    {
        return false;
    }
    if encoded.identified > 0
        && (outgoing.has_waiting()
            || outgoing.room(link.receive_maximum) < frames.len()
            || (keep && queue_is_full(outgoing, *kept, bytes.len(), cx.broker, cx.tally)))
    {
        return false;
    }
    if cx.limits.queue_qos0 && outgoing.has_waiting() {
        // QoS 0 waits there too, and is not to be overtaken by its like [MQTT-4.6.0-5].
        return false;
    }
    let tail = link.outbox.tail();
    let start = tail.len();
    tail.extend_from_slice(bytes);
    link.outbox_messages += frames.len();
    cx.tally.sent += frames.len() as u64;
    if encoded.identified > 0 {
        let before = outgoing.weight();
        for (index, frame) in range.zip(frames) {
            if frame.identifier_at == NO_IDENTIFIER {
                continue;
            }
            let publication = &run.publications[index];
            let qos = publication.qos.min(terms.qos);
            let retain = publication.retain && terms.retain_as_published;
            let message = keep.then(|| messages.get(run, index, cx.now));
            let (sequence, id) = outgoing.push_sent(Slot {
                body: message.into(),
                through: terms.through.clone(),
                progress: Progress::Queued,
                qos,
                retain,
                sent: SentBefore::No,
                is_replayed: false,
            });
            if *kept {
                let target = target(session, sequence, qos, retain, terms.through.as_ref());
                cx.journal.queued(true, index, &target);
            }
            let at = start + frame.identifier_at as usize - from;
            tail[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        cx.tally.queue_changed(before, outgoing.weight());
    }
    true
}

fn deliver_publication(
    state: &mut State,
    session: u64,
    run: &Run<'_>,
    index: usize,
    terms: &Terms,
    cx: &mut Context<'_>,
) {
    let publication = &run.publications[index];
    let qos = publication.qos.min(terms.qos);
    let retain = publication.retain && terms.retain_as_published;
    let message = cx.encodings.messages.get(run, index, cx.now);
    let queued = deliver_message(state, message, qos, retain, terms.through.clone(), cx);
    if let Some(sequence) = queued.filter(|_| state.kept) {
        let sent = state.link.is_some() && !state.outgoing.has_waiting();
        let target = target(session, sequence, qos, retain, terms.through.as_ref());
        cx.journal.queued(sent, index, &target);
    }
}

/// Delivers a message that is kept already, and answers its sequence number if it was queued.
fn deliver_message(
    state: &mut State,
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    through: Option<Arc<Through>>,
    cx: &mut Context<'_>,
) -> Option<u64> {
    if state.ended {
        cx.tally.dropped(Drop::SessionEnded, 1);
        return None;
    }
    if qos == QoS::AtMostOnce {
        let waits = cx.limits.queue_qos0 && state.is_persistent() && state.outgoing.has_waiting();
        if let Some(link) = &mut state.link
            && !waits
        {
            send_qos0(link, &message, retain, through.as_deref(), cx);
            return None;
        }
        if !(cx.limits.queue_qos0 && state.is_persistent()) {
            cx.tally.dropped(Drop::Absent, 1);
            return None;
        }
    }
    enqueue(
        state,
        Slot::waiting(Body::Held(message), through, qos, retain),
        cx,
    )
}

/// Delivers a message that somebody else has had, and keeps for whom it is now.
pub(super) fn deliver_and_keep(
    session: &Session,
    state: &mut State,
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
    through: Option<Arc<Through>>,
    cx: &mut Context<'_>,
) {
    let again = Arc::clone(&message);
    let (hold, holds) = (message.hold(), state.kept && qos == QoS::ExactlyOnce);
    if holds {
        // It is not to be sent before the store has the entry.
        message.hold_until(Message::NOT_KEPT);
    }
    let entries_from = state.outgoing.has_entries_from(Message::NOT_KEPT);
    let queued = deliver_message(state, message, qos, retain, through.clone(), cx);
    let entries_from = match queued.filter(|_| state.kept) {
        Some(sequence) => {
            let (number, through) = (session.number(), through.as_ref());
            let broker = cx.broker;
            broker.keep_entry(number, sequence, &again, qos, retain, through)
        }
        None => {
            if holds {
                again.hold_until(hold);
            }
            entries_from
        }
    };
    state.outgoing.has_entries_from(entries_from);
}

fn send_qos0(
    link: &mut Link,
    message: &Arc<Message>,
    retain: bool,
    through: Option<&Through>,
    cx: &mut Context<'_>,
) {
    let identifiers = through.and_then(|through| through.identifiers.as_deref());
    let len = encoded_len(message, link.version, QoS::AtMostOnce, identifiers);
    if len > link.packet_size_max {
        cx.tally.dropped(Drop::TooLarge, 1);
    } else if link.closing.is_some() || !link.has_room(len, 1, cx.limits) {
        cx.tally.dropped(Drop::SlowReceiver, 1);
    } else {
        send(
            link,
            message,
            QoS::AtMostOnce,
            retain,
            false,
            None,
            identifiers,
            cx.now,
        );
        cx.tally.sent += 1;
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one packet")]
fn send(
    link: &mut Link,
    message: &Message,
    qos: QoS,
    retain: bool,
    dup: bool,
    packet_id: Option<tidings_protocol::mqtt::PacketId>,
    identifiers: Option<&[u32]>,
    now: Millis,
) {
    encode_message(
        &mut link.outbox,
        link.aliases.as_deref_mut(),
        message,
        &Delivery {
            version: link.version,
            qos,
            retain,
            dup,
            packet_id,
            identifiers,
            packet_size_max: link.packet_size_max,
            now,
        },
    );
    link.outbox_messages += 1;
}

/// Queues a message if the limits allow, sends what can be sent, and answers its sequence number.
fn enqueue(state: &mut State, slot: Slot, cx: &mut Context<'_>) -> Option<u64> {
    make_room(state, slot.body.bytes(), cx)?;
    let before = state.outgoing.weight();
    let is_left = state.kept && state.link.is_none() && cx.broker.leaves_places();
    let sequence = match is_left {
        true => state.outgoing.push_away(slot),
        false => state.outgoing.push(slot),
    };
    cx.tally.queue_changed(before, state.outgoing.weight());
    pump(state, cx);
    if state.kept && !is_left && lags(state, cx) {
        state.outgoing.spill_later(sequence);
    }
    Some(sequence)
}

/// Whether what comes now is not wanted in memory: its receiver is away, or has more than enough
/// there already.
fn lags(state: &State, cx: &Context<'_>) -> bool {
    state.link.is_none()
        || state.outgoing.held() > cx.limits.mailbox_bytes_max
        || cx.tally.held_bytes(cx.stats) > cx.limits.memory_queue_bytes_max / 2
}

/// Has the queue take another message of this size, or says that it cannot.
fn make_room(state: &mut State, bytes: usize, cx: &mut Context<'_>) -> Option<()> {
    let broker = cx.broker;
    let full = |state: &State, tally: &Tally| {
        queue_is_full(&state.outgoing, state.kept, bytes, broker, tally)
    };
    if !full(state, cx.tally) {
        return Some(());
    }
    match broker.limits.queue_full {
        QueueFull::DropNewest => {
            cx.tally.dropped(Drop::QueueFull, 1);
            None
        }
        QueueFull::DropOldest => {
            while full(state, cx.tally) {
                cx.tally.dropped(Drop::QueueFull, 1);
                let before = state.outgoing.weight();
                let dropped = state.outgoing.drop_oldest_waiting();
                cx.tally.queue_changed(before, state.outgoing.weight());
                if !dropped {
                    return None;
                }
            }
            Some(())
        }
        QueueFull::Disconnect => {
            cx.tally.dropped(Drop::QueueFull, 1);
            if let Some(link) = &mut state.link {
                cx.wakers.extend(link.close(Closing::QueueFull));
            }
            None
        }
    }
}

/// Places that complete messages may take behind one that its receiver never acknowledges.
pub(super) const COMPLETE_BEHIND_MAX: usize = 1_000_000;

/// Whether another `bytes` are too much for a session's queue.
fn queue_is_full(
    outgoing: &Outgoing,
    kept: bool,
    bytes: usize,
    broker: &Broker,
    tally: &Tally,
) -> bool {
    let limits = &broker.limits;
    // The limit on memory is for messages that are nowhere else.
    let in_memory = match kept {
        _ if broker.store.is_in_memory() => tally.queued_bytes(&broker.stats),
        true => 0,
        false => tally.held_bytes(&broker.stats),
    };
    outgoing.len() >= limits.queue_messages_max
        || outgoing.span() >= outgoing.len() + COMPLETE_BEHIND_MAX
        || (outgoing.bytes() + bytes) as u64 > limits.queue_bytes_max
        || in_memory > limits.memory_queue_bytes_max
}

impl State {
    /// Changes the outgoing queue and keeps the broker's count of queued bytes true.
    pub(super) fn change_queue<T>(
        &mut self,
        stats: &Stats,
        change: impl FnOnce(&mut Outgoing) -> T,
    ) -> T {
        let before = self.outgoing.weight();
        let result = change(&mut self.outgoing);
        stats.queue_changed(before, self.outgoing.weight());
        result
    }
}

/// Why [`pump`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing waits.
    Empty,
    /// The outbox is full.
    Outbox,
    /// The receiver has to acknowledge first, or its connection is to end.
    Receiver,
    /// What is next has to be read back from the store.
    Page,
    /// What is next has to wait until the store has this ticket.
    Hold(Ticket),
}

/// Sends what waits in the queue, as far as the receiver's window and its outbox allow.
pub(super) fn pump(state: &mut State, cx: &mut Context<'_>) -> Stop {
    let State {
        link,
        outgoing,
        loading,
        ..
    } = state;
    let Some(link) = link else {
        return Stop::Receiver;
    };
    if !outgoing.has_waiting() {
        return Stop::Empty;
    }
    if link.closing.is_some() {
        return Stop::Receiver;
    }
    let before = outgoing.weight();
    let (version, packet_size_max) = (link.version, link.packet_size_max);
    let (now, tally) = (cx.now, &mut *cx.tally);
    let stop = loop {
        if !link.has_room(0, 1, cx.limits) {
            break Stop::Outbox;
        }
        let next = outgoing.next(link.receive_maximum, cx.durable, |slot, message| {
            if slot.may_be_dropped() && message.is_expired(now) {
                tally.dropped(Drop::Expired, 1);
                return true;
            }
            let len = encoded_len(message, version, slot.qos, slot.identifiers());
            if len > packet_size_max {
                tally.dropped(Drop::TooLarge, 1);
            }
            len > packet_size_max
        });
        let (slot, id) = match next {
            Next::Send(slot, id) => (slot, id),
            Next::Nothing => break Stop::Empty,
            Next::Window => break Stop::Receiver,
            Next::Page => break Stop::Page,
            Next::Hold(ticket) => break Stop::Hold(ticket),
        };
        if let Progress::Released(_) = slot.progress {
            Ack::new(id).encode(AckKind::PubRel, link.version, link.outbox.tail());
            continue;
        }
        let qos = slot.qos;
        if let Body::Held(message) = &slot.body {
            let packet_id = (qos != QoS::AtMostOnce).then_some(id);
            send(
                link,
                message,
                qos,
                slot.retain,
                slot.dup(),
                packet_id,
                slot.identifiers(),
                now,
            );
            tally.sent += 1;
        }
        if qos == QoS::AtMostOnce {
            outgoing.complete_qos0(id);
        }
    };
    link.stalled = match stop {
        Stop::Hold(_) => true,
        Stop::Page => !*loading,
        Stop::Empty | Stop::Outbox | Stop::Receiver => false,
    };
    cx.tally.queue_changed(before, outgoing.weight());
    stop
}
