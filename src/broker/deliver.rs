//! What a session does with messages that matched: into its outbox, into its queue, or dropped
//! with a reason.
//!
//! Everything here runs under the lock of one session, and none of it waits or touches a disk.

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use tidings_protocol::mqtt::{Ack, AckKind, QoS};

use super::clock::Millis;
use super::encode::{Delivery, Encodings, NO_IDENTIFIER, Variant, encode_message, encoded_len};
use super::journal::Journal;
use super::message::{Message, Run};
use super::outgoing::{Outgoing, Progress, Slot, Through};
use super::session::{Closing, Link, Session, State};
use super::stats::{Drop, Stats, Tally};
use super::topics::Terms;
use crate::config::{LimitsConfig, QueueFull};

/// What delivering one run needs besides the session.
pub(super) struct Context<'a> {
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
        let mut state = self.lock();
        if !try_at_once(&mut state, self.number(), run, range.clone(), terms, cx) {
            for index in range {
                deliver_publication(&mut state, self.number(), run, index, terms, cx);
            }
        }
        self.after_delivery(&mut state, cx.wakers);
    }

    /// To be called before the lock is released after something was put into the outbox.
    pub(super) fn after_delivery(&self, state: &mut State, wakers: &mut Vec<Waker>) {
        self.refresh_readiness(state);
        if let Some(link) = &mut state.link
            && ((!link.outbox.is_empty() && !link.blocked) || link.closing.is_some())
            && let Some(waker) = link.waker.take()
        {
            wakers.push(waker);
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
            || (keep && queue_is_full(outgoing, bytes.len(), cx.limits, cx.stats)))
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
        let queued_before = outgoing.bytes();
        for (index, frame) in range.zip(frames) {
            if frame.identifier_at == NO_IDENTIFIER {
                continue;
            }
            let publication = &run.publications[index];
            let qos = publication.qos.min(terms.qos);
            let retain = publication.retain && terms.retain_as_published;
            let (sequence, id) = outgoing.push_sent(Slot {
                message: keep.then(|| messages.get(run, index, cx.now)),
                through: terms.through.clone(),
                progress: Progress::Queued,
                qos,
                retain,
                dup: false,
            });
            if *kept {
                let through = terms.through.clone();
                cx.journal
                    .queued(index, session, sequence, qos, retain, through);
            }
            let at = start + frame.identifier_at as usize - from;
            tail[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        cx.stats.queue_changed(queued_before, outgoing.bytes());
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
        let through = terms.through.clone();
        cx.journal
            .queued(index, session, sequence, qos, retain, through);
    }
}

/// Delivers a message that is kept already, and answers its sequence number if it was queued.
pub(super) fn deliver_message(
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
    let slot = Slot {
        message: Some(message),
        through,
        progress: Progress::Queued,
        qos,
        retain,
        dup: false,
    };
    let sequence = enqueue(state, slot, cx)?;
    pump(state, cx.limits, cx.stats, cx.now, cx.tally);
    Some(sequence)
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

/// Queues a message if the limits allow, and answers its sequence number.
fn enqueue(state: &mut State, slot: Slot, cx: &mut Context<'_>) -> Option<u64> {
    let size = slot.message.as_ref().map_or(0, |message| message.size());
    let limits = cx.limits;
    let full = |state: &State| queue_is_full(&state.outgoing, size, limits, cx.stats);
    if full(state) {
        match limits.queue_full {
            QueueFull::DropNewest => {
                cx.tally.dropped(Drop::QueueFull, 1);
                return None;
            }
            QueueFull::DropOldest => {
                while full(state) {
                    if !state.change_queue(cx.stats, |queue| queue.drop_oldest_waiting()) {
                        cx.tally.dropped(Drop::QueueFull, 1);
                        return None;
                    }
                    cx.tally.dropped(Drop::QueueFull, 1);
                }
            }
            QueueFull::Disconnect => {
                cx.tally.dropped(Drop::QueueFull, 1);
                if let Some(link) = &mut state.link {
                    cx.wakers.extend(link.close(Closing::QueueFull));
                }
                return None;
            }
        }
    }
    Some(state.change_queue(cx.stats, |queue| queue.push(slot)))
}

/// Places that complete messages may take behind one that its receiver never acknowledges.
const COMPLETE_BEHIND_MAX: usize = 1_000_000;

/// Whether another `bytes` are too much for a session's queue.
fn queue_is_full(outgoing: &Outgoing, bytes: usize, limits: &LimitsConfig, stats: &Stats) -> bool {
    outgoing.len() >= limits.queue_messages_max
        || outgoing.span() >= outgoing.len() + COMPLETE_BEHIND_MAX
        || (outgoing.bytes() + bytes) as u64 > limits.queue_bytes_max
        || stats.queued_bytes.get() > limits.memory_queue_bytes_max
}

impl State {
    /// Changes the outgoing queue and keeps the broker's count of queued bytes true.
    pub(super) fn change_queue<T>(
        &mut self,
        stats: &Stats,
        change: impl FnOnce(&mut Outgoing) -> T,
    ) -> T {
        let before = self.outgoing.bytes();
        let result = change(&mut self.outgoing);
        stats.queue_changed(before, self.outgoing.bytes());
        result
    }
}

/// Sends what waits in the queue, as far as the receiver's window and its outbox allow.
pub(super) fn pump(
    state: &mut State,
    limits: &LimitsConfig,
    stats: &Stats,
    now: Millis,
    tally: &mut Tally,
) {
    let State { link, outgoing, .. } = state;
    let Some(link) = link else { return };
    if link.closing.is_some() || !outgoing.has_waiting() {
        return;
    }
    let queued_before = outgoing.bytes();
    while outgoing.has_waiting() && link.has_room(0, 1, limits) {
        let (version, packet_size_max) = (link.version, link.packet_size_max);
        let next = outgoing.next(link.receive_maximum, |slot| {
            let Some(message) = &slot.message else {
                return false;
            };
            let identifiers = slot
                .through
                .as_ref()
                .and_then(|through| through.identifiers.as_deref());
            if !slot.dup && message.is_expired(now) {
                tally.dropped(Drop::Expired, 1);
                true
            } else if encoded_len(message, version, slot.qos, identifiers) > packet_size_max {
                tally.dropped(Drop::TooLarge, 1);
                true
            } else {
                false
            }
        });
        let Some((slot, id)) = next else { break };
        if let Progress::Released(_) = slot.progress {
            Ack::new(id).encode(AckKind::PubRel, link.version, link.outbox.tail());
            continue;
        }
        let qos = slot.qos;
        if let Some(message) = &slot.message {
            let identifiers = slot
                .through
                .as_ref()
                .and_then(|through| through.identifiers.as_deref());
            let packet_id = (qos != QoS::AtMostOnce).then_some(id);
            send(
                link,
                message,
                qos,
                slot.retain,
                slot.dup,
                packet_id,
                identifiers,
                now,
            );
            tally.sent += 1;
        }
        if qos == QoS::AtMostOnce {
            outgoing.complete_qos0(id);
        }
    }
    stats.queue_changed(queued_before, outgoing.bytes());
}
