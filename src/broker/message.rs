//! Application Messages: borrowed from a read buffer while they are routed, owned once somebody
//! has to keep them.
//!
//! This module owns the two shapes and the way from one to the other. It knows nothing of
//! sessions, queues or connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;
use tidings_protocol::mqtt::{PacketId, Properties, PropertiesBuilder, Property, QoS};

use super::clock::Millis;
use crate::store::{Offset, StoredMessage, Ticket};

/// From this size on a payload travels by reference into every outbox, below it is copied:
/// copying a few hundred bytes costs less than counting a reference, and copying a megabyte a
/// thousand times does not.
pub const SHARED_PAYLOAD_MIN: usize = 16 * 1024;

/// One PUBLISH as it was read, its parts still in the read buffer.
#[derive(Clone, Copy)]
pub struct Publication<'a> {
    /// The QoS it was published with.
    pub qos: QoS,
    /// Whether it becomes the Retained Message of its topic.
    pub retain: bool,
    /// The properties as they came, Topic Alias and all; empty below MQTT 5.
    pub properties: Properties<'a>,
    /// The payload.
    pub payload: &'a [u8],
    /// The publisher's Packet Identifier, where it must be remembered: QoS 2.
    pub packet_id: Option<PacketId>,
    /// The same payload as a reference-counted slice, where the packet had a buffer of its own.
    pub shared_payload: Option<&'a Bytes>,
}

impl Publication<'_> {
    /// Whether this payload should be shared rather than copied.
    pub fn is_large(&self) -> bool {
        self.payload.len() >= SHARED_PAYLOAD_MIN
    }
}

/// Publications of one publisher to one Topic Name, in order.
pub struct Run<'a> {
    /// Where they go.
    pub topic: &'a str,
    /// The messages; those too large to copy travel in a run of their own.
    pub publications: &'a [Publication<'a>],
    /// The session they come from; 0 for the broker itself.
    pub publisher: u64,
    /// Whether that session outlives its connection, and with it the Packet Identifiers of QoS 2
    /// that it has not released.
    pub publisher_is_kept: bool,
    /// Rung when its messages need not be kept any more; see [`Message::is_settled`].
    pub bell: Option<&'a Arc<Bell>>,
}

impl Run<'_> {
    /// Whether this publication may go on as QoS 2 only once the store has it, whoever receives it.
    /// Its publisher would send it again after a crash, and a broker that had forgotten it would
    /// deliver it twice [MQTT-4.3.3-2].
    pub(super) fn holds(&self, publication: &Publication<'_>) -> bool {
        self.publisher_is_kept && publication.packet_id.is_some()
    }
}

/// A message that is kept: queued, in flight, retained or a will.
#[derive(Debug)]
pub struct Message {
    /// Topic Name, then properties, then the payload unless it is shared: one allocation.
    bytes: Box<[u8]>,
    topic_len: u32,
    properties_len: u32,
    shared: Option<Bytes>,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Whether it was published with RETAIN set.
    pub retain: bool,
    /// When its Message Expiry Interval runs out.
    pub expires_at: Option<Millis>,
    /// The session it came from; 0 for the broker itself.
    pub publisher: u64,
    /// Its offset in the log plus one; 0 while it is not there.
    offset: AtomicU64,
    /// The ticket that the store must have before it may leave the memory, and before it may go on as
    /// QoS 2: see [`Message::held_from`].
    hold: AtomicU64,
    /// Whether that is so for every receiver.
    held_from_all: bool,
    /// Entries in the queues of sessions that are kept, and one until it is decided that nothing
    /// else needs it.
    owed: AtomicU32,
    bell: Option<Arc<Bell>>,
    /// Counts the settings of Retained Messages up to this one; 0 if it never was one.
    pub(super) retained_as: AtomicU64,
}

/// What [`Message::new`] is made from.
pub struct MessageParts<'a> {
    pub topic: &'a str,
    /// Properties as published; what is not forwarded is left out of the message.
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
    pub shared_payload: Option<&'a Bytes>,
    pub qos: QoS,
    pub retain: bool,
    pub publisher: u64,
    /// Whether it may go on as QoS 2 only once the store has it, whoever receives it.
    pub held_from_all: bool,
    pub bell: Option<&'a Arc<Bell>>,
}

/// Wakes a publisher that waits for its messages to be safe.
#[derive(Debug, Default)]
pub struct Bell(Mutex<Option<Waker>>);

impl Bell {
    /// Has this task woken at the next ring.
    pub fn watch(&self, waker: &Waker) {
        let mut watching = self.0.lock();
        if !watching.as_ref().is_some_and(|it| it.will_wake(waker)) {
            *watching = Some(waker.clone());
        }
    }

    /// Wakes whoever watches.
    pub fn ring(&self) {
        let watching = self.0.lock().take();
        if let Some(waker) = watching {
            waker.wake();
        }
    }
}

impl Message {
    /// Makes the message that `parts` describe, published at `now`.
    pub fn new(parts: &MessageParts<'_>, now: Millis) -> Message {
        let mut kept = PropertiesBuilder::new();
        let expires_at = if parts.properties.is_empty() {
            None
        } else {
            for property in parts.properties.iter() {
                if !matches!(
                    property,
                    Property::TopicAlias(_)
                        | Property::MessageExpiryInterval(_)
                        | Property::SubscriptionIdentifier(_)
                        | Property::WillDelayInterval(_)
                ) {
                    kept.push(property);
                }
            }
            parts
                .properties
                .message_expiry_interval()
                .map(|seconds| now.plus_secs(u64::from(seconds)))
        };
        let properties = kept.as_properties();
        let properties = properties.as_bytes();
        let shared = (parts.payload.len() >= SHARED_PAYLOAD_MIN).then(|| {
            parts
                .shared_payload
                .cloned()
                .unwrap_or_else(|| Bytes::copy_from_slice(parts.payload))
        });
        let inline: &[u8] = if shared.is_some() { &[] } else { parts.payload };
        let mut bytes = Vec::with_capacity(parts.topic.len() + properties.len() + inline.len());
        bytes.extend_from_slice(parts.topic.as_bytes());
        bytes.extend_from_slice(properties);
        bytes.extend_from_slice(inline);
        Message {
            bytes: bytes.into_boxed_slice(),
            topic_len: parts.topic.len() as u32,
            properties_len: properties.len() as u32,
            shared,
            qos: parts.qos,
            retain: parts.retain,
            expires_at,
            publisher: parts.publisher,
            offset: AtomicU64::new(0),
            hold: AtomicU64::new(Message::NOT_KEPT.0),
            held_from_all: parts.held_from_all,
            owed: AtomicU32::new(1),
            bell: parts.bell.cloned(),
            retained_as: AtomicU64::new(0),
        }
    }

    /// The same message as it was before a restart, or before it left the memory.
    pub fn from_stored(stored: &StoredMessage) -> Message {
        let mut message = Message::new(
            &MessageParts {
                topic: stored.topic(),
                properties: Properties::from_stored(&stored.properties),
                payload: &stored.payload,
                shared_payload: Some(&stored.payload),
                qos: QoS::from_u8(stored.qos).unwrap_or(QoS::ExactlyOnce),
                retain: stored.retain,
                publisher: stored.publisher,
                held_from_all: false,
                bell: None,
            },
            Millis(stored.published_ms),
        );
        message.expires_at = stored.expires_ms.map(Millis);
        message.hold = AtomicU64::new(0);
        message.offset = AtomicU64::new(stored.offset.0 + 1);
        message
    }

    /// The same message for a session that takes it over from another one, with a place in the log of
    /// its own. `in_log` says whether the store keeps the old place for as long as that takes.
    pub fn passed_on(&self, in_log: bool) -> Message {
        let hold = self.hold();
        Message {
            bytes: self.bytes.clone(),
            shared: self.shared.clone(),
            offset: AtomicU64::new(match in_log {
                true => self.offset.load(Ordering::Acquire),
                false => 0,
            }),
            hold: AtomicU64::new(hold.0),
            // Nobody would tell the copy when the batch of the original is over.
            held_from_all: self.held_from_all && hold != Message::NOT_KEPT,
            owed: AtomicU32::new(1),
            bell: None,
            retained_as: AtomicU64::new(0),
            ..*self
        }
    }

    /// The same message with more User Properties, which the log does not have yet.
    pub(super) fn with_user_properties(&self, more: &[(&str, String)]) -> Message {
        let mut properties = PropertiesBuilder::new();
        properties.extend(self.properties());
        for (name, value) in more {
            properties.push(Property::UserProperty(name, value));
        }
        let parts = MessageParts {
            topic: self.topic(),
            properties: properties.as_properties(),
            payload: self.payload(),
            shared_payload: self.shared.as_ref(),
            qos: self.qos,
            retain: self.retain,
            publisher: self.publisher,
            held_from_all: false,
            bell: None,
        };
        // When it expires is a time by now, and no interval.
        let mut message = Message::new(&parts, Millis(0));
        message.expires_at = self.expires_at;
        message
    }

    /// What [`Message::hold`] says of a message that is not in the store yet.
    pub const NOT_KEPT: Ticket = Ticket(u64::MAX);

    /// The store must have this ticket before the message may leave the memory.
    pub fn hold(&self) -> Ticket {
        Ticket(self.hold.load(Ordering::Acquire))
    }

    /// The store must have this ticket before the message may go on as QoS 2 to a session that is
    /// kept, or not. A crash that makes the broker forget what a kept session was sent would leave
    /// its client with a Packet Identifier that is never released: the next message under it
    /// would be taken for a repetition, and be lost [MQTT-4.3.3-10].
    pub fn held_from(&self, kept: bool) -> Ticket {
        match kept || self.held_from_all {
            true => self.hold(),
            false => Ticket::default(),
        }
    }

    /// Has it wait for this ticket.
    pub(super) fn hold_until(&self, ticket: Ticket) {
        self.hold.store(ticket.0, Ordering::Release);
    }

    /// Where it is in the log, once it is there.
    pub fn offset(&self) -> Option<Offset> {
        let offset = self.offset.load(Ordering::Acquire);
        (offset != 0).then(|| Offset(offset - 1))
    }

    /// It is in the log, and safe there once the store has `ticket`.
    pub(super) fn set_kept(&self, offset: Offset, ticket: Ticket) {
        if self.hold() == Message::NOT_KEPT {
            self.hold_until(ticket);
        }
        self.offset.store(offset.0 + 1, Ordering::Release);
    }

    /// So many more sessions that are kept have it in their queues. To be said before
    /// [`Message::set_kept`], up to which none of them says that it is done.
    pub(super) fn owe(&self, sessions: u32) {
        self.owed.fetch_add(sessions, Ordering::Relaxed);
    }

    /// One session that is kept has acknowledged it, or nothing but such sessions needs it. True
    /// if that was the last.
    pub(super) fn owe_less(&self) -> bool {
        self.owed.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether all that it had to be kept for is done: then its publisher need not wait until it
    /// is on disk, and it need not be written there at all.
    pub fn is_settled(&self) -> bool {
        self.owed.load(Ordering::Acquire) == 0
    }

    /// What tells its publisher.
    pub fn bell(&self) -> Option<&Arc<Bell>> {
        self.bell.as_ref()
    }

    /// The Topic Name.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.topic_len as usize])
            .expect("the topic was a str when the message was made")
    }

    /// The properties that travel on: all but Topic Alias, Message Expiry Interval and
    /// Subscription Identifier.
    pub fn properties(&self) -> Properties<'_> {
        let start = self.topic_len as usize;
        Properties::from_stored(&self.bytes[start..start + self.properties_len as usize])
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        match &self.shared {
            Some(shared) => shared,
            None => &self.bytes[(self.topic_len + self.properties_len) as usize..],
        }
    }

    /// The payload by reference, when it is large enough for that to pay.
    pub fn shared_payload(&self) -> Option<&Bytes> {
        self.shared.as_ref()
    }

    /// Bytes of topic, properties and payload.
    pub fn content_len(&self) -> usize {
        self.bytes.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// Bytes this message keeps allocated, about.
    pub fn size(&self) -> usize {
        std::mem::size_of::<Message>() + self.content_len()
    }

    /// Whether its Message Expiry Interval has run out [MQTT-3.3.2-5].
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at < now)
    }

    /// The interval to forward: what was received less the time it waited here
    /// [MQTT-3.3.2-6].
    pub fn remaining_expiry_secs(&self, now: Millis) -> Option<u32> {
        self.expires_at
            .map(|at| at.since(now).div_ceil(1000).min(u64::from(u32::MAX)) as u32)
    }
}
