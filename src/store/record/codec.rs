//! The bytes of a record's body. Numbers are LEB128 unless noted, strings and byte strings carry
//! their length, optional parts are announced by a flag.
//!
//! Checklist for a change: a released layout is never altered; raise the version of its kind in
//! [`Record::kind_and_version`], keep decoding the old one, add a fixture to `tests/fixtures.rs`.

use super::list::{Item, List};
use super::*;

/// Kinds of records as they stand in the log. Never renumbered.
mod kind {
    pub(super) const MESSAGE: u8 = 1;
    pub(super) const DONE: u8 = 2;
    pub(super) const RELEASED: u8 = 3;
    pub(super) const INBOUND_RELEASED: u8 = 4;
    pub(super) const SESSION_PUT: u8 = 5;
    pub(super) const SESSION_REMOVE: u8 = 6;
    pub(super) const SUBSCRIBE: u8 = 7;
    pub(super) const UNSUBSCRIBE: u8 = 8;
    pub(super) const RETAINED_CLEAR: u8 = 9;
    pub(super) const ENQUEUE: u8 = 10;
    pub(super) const WILL_PUT: u8 = 11;
    pub(super) const WILL_REMOVE: u8 = 12;
    pub(super) const CLOCK: u8 = 13;
    pub(super) const DOCUMENT_PUT: u8 = 14;
    pub(super) const DOCUMENT_REMOVE: u8 = 15;
}

impl Record<'_> {
    /// The number of the kind of a [`Record::Message`].
    pub(crate) const MESSAGE_KIND: u8 = kind::MESSAGE;

    /// What stands in the record's header.
    pub(crate) fn kind_and_version(&self) -> (u8, u8) {
        let kind = match self {
            Record::Message(_) => kind::MESSAGE,
            Record::Done { .. } => kind::DONE,
            Record::Released { .. } => kind::RELEASED,
            Record::InboundReleased { .. } => kind::INBOUND_RELEASED,
            Record::SessionPut { .. } => kind::SESSION_PUT,
            Record::SessionRemove { .. } => kind::SESSION_REMOVE,
            Record::Subscribe { .. } => kind::SUBSCRIBE,
            Record::Unsubscribe { .. } => kind::UNSUBSCRIBE,
            Record::RetainedClear { .. } => kind::RETAINED_CLEAR,
            Record::Enqueue { .. } => kind::ENQUEUE,
            Record::WillPut { .. } => kind::WILL_PUT,
            Record::WillRemove { .. } => kind::WILL_REMOVE,
            Record::Clock { .. } => kind::CLOCK,
            Record::DocumentPut { .. } => kind::DOCUMENT_PUT,
            Record::DocumentRemove { .. } => kind::DOCUMENT_REMOVE,
        };
        (kind, 1)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes values from the front of a slice; `None` when they are not there or make no sense.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|b| u16::from_le_bytes(b.try_into().expect("two bytes were taken")))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint().and_then(|value| value.try_into().ok())
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    pub(crate) fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }
}

impl<'a> Item<'a> for u16 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
    fn take(reader: &mut Reader<'a>) -> Option<u16> {
        reader.u16()
    }
}

impl<'a> Item<'a> for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(*self));
    }
    fn take(reader: &mut Reader<'a>) -> Option<u32> {
        reader.varint_u32()
    }
}

impl<'a> Item<'a> for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
    fn take(reader: &mut Reader<'a>) -> Option<u64> {
        reader.varint()
    }
}

impl<'a> Item<'a> for SeqRange {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.first);
        put_varint(out, self.last.saturating_sub(self.first));
    }
    fn take(reader: &mut Reader<'a>) -> Option<SeqRange> {
        let first = reader.varint()?;
        let last = first.checked_add(reader.varint()?)?;
        Some(SeqRange { first, last })
    }
}

impl<'a> Item<'a> for Target<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.session);
        put_varint(out, self.seq);
        debug_assert!(self.flags < 64, "six bits are there for flags");
        out.push(put_qos(self.qos) | self.flags << 2);
        self.subscription_ids.put(out);
    }
    fn take(reader: &mut Reader<'a>) -> Option<Target<'a>> {
        let session = reader.varint()?;
        let seq = reader.varint()?;
        let bits = reader.u8()?;
        Some(Target {
            session,
            seq,
            qos: qos(bits)?,
            flags: bits >> 2,
            subscription_ids: List::take(reader)?,
        })
    }
}

/// Whatever is put can be taken again: a QoS that does not exist must not end up in the log.
fn put_qos(qos: u8) -> u8 {
    debug_assert!(qos <= 2, "there are three levels");
    qos.min(2)
}

fn qos(bits: u8) -> Option<u8> {
    let qos = bits & 3;
    (qos < 3).then_some(qos)
}

/// Bits of a message's first byte, above its QoS.
const RETAIN: u8 = 1 << 2;
const RETAINED_SET: u8 = 1 << 3;
const RETAINED_CLEARED: u8 = 1 << 4;
const EXPIRES: u8 = 1 << 5;
const INBOUND: u8 = 1 << 6;

/// Appends the body of `record` to `out`.
pub(crate) fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
    match record {
        Record::Message(message) => put_message(message, out),
        Record::Done { session, ranges } => {
            put_varint(out, *session);
            ranges.put(out);
        }
        Record::Released { session, seqs } => {
            put_varint(out, *session);
            seqs.put(out);
        }
        Record::InboundReleased {
            session,
            packet_ids,
        } => {
            put_varint(out, *session);
            packet_ids.put(out);
        }
        Record::SessionPut { session, record } => {
            put_varint(out, *session);
            put_session(record, out);
        }
        Record::SessionRemove { session } | Record::WillRemove { session } => {
            put_varint(out, *session);
        }
        Record::Subscribe {
            session,
            filter,
            options,
            subscription_id,
        } => {
            put_varint(out, *session);
            put_bytes(out, filter.as_bytes());
            out.push(*options);
            // A Subscription Identifier of 0 does not exist in MQTT: it stands for none.
            put_varint(out, u64::from(subscription_id.unwrap_or(0)));
        }
        Record::Unsubscribe { session, filter } => {
            put_varint(out, *session);
            put_bytes(out, filter.as_bytes());
        }
        Record::RetainedClear { topic } => put_bytes(out, topic.as_bytes()),
        Record::Enqueue {
            offset,
            size,
            target,
        } => {
            put_varint(out, offset.0);
            put_varint(out, u64::from(*size));
            target.put(out);
        }
        Record::WillPut { session, will } => {
            put_varint(out, *session);
            put_will(will, out);
        }
        Record::Clock { now_ms } => put_varint(out, *now_ms),
        Record::DocumentPut {
            key,
            value,
            expires_ms,
        } => {
            put_bytes(out, key.as_bytes());
            put_document(value, *expires_ms, out);
        }
        Record::DocumentRemove { key } => put_bytes(out, key.as_bytes()),
    }
}

fn put_message(message: &Message<'_>, out: &mut Vec<u8>) {
    let mut bits = put_qos(message.qos);
    if message.retain {
        bits |= RETAIN;
    }
    match message.retained {
        Retained::Unchanged => {}
        Retained::Set => bits |= RETAINED_SET,
        Retained::Cleared => bits |= RETAINED_CLEARED,
    }
    if message.expires_ms.is_some() {
        bits |= EXPIRES;
    }
    if message.inbound.is_some() {
        bits |= INBOUND;
    }
    out.push(bits);
    put_varint(out, message.published_ms);
    put_varint(out, message.publisher);
    if let Some(expires_ms) = message.expires_ms {
        put_varint(out, expires_ms);
    }
    if let Some((session, packet_id)) = message.inbound {
        put_varint(out, session);
        packet_id.put(out);
    }
    put_bytes(out, message.topic.as_bytes());
    put_bytes(out, message.properties);
    put_bytes(out, message.payload);
    message.targets.put(out);
}

fn take_message<'a>(reader: &mut Reader<'a>) -> Option<Message<'a>> {
    let bits = reader.u8()?;
    let published_ms = reader.varint()?;
    let publisher = reader.varint()?;
    let expires_ms = if bits & EXPIRES != 0 {
        Some(reader.varint()?)
    } else {
        None
    };
    let inbound = if bits & INBOUND != 0 {
        Some((reader.varint()?, reader.u16()?))
    } else {
        None
    };
    let topic = reader.str()?;
    let properties = reader.bytes()?;
    let payload = reader.bytes()?;
    // Last, so that it need not be walked to find what is behind it.
    let targets = List::take_rest(reader)?;
    Some(Message {
        topic,
        properties,
        payload,
        qos: qos(bits)?,
        retain: bits & RETAIN != 0,
        published_ms,
        expires_ms,
        publisher,
        retained: match bits & (RETAINED_SET | RETAINED_CLEARED) {
            0 => Retained::Unchanged,
            RETAINED_SET => Retained::Set,
            RETAINED_CLEARED => Retained::Cleared,
            _ => return None,
        },
        inbound,
        targets,
    })
}

/// Flags of a session's record.
const HAS_USER: u8 = 1;
const IS_DISCONNECTED: u8 = 2;

pub(crate) fn put_session(record: &SessionView<'_>, out: &mut Vec<u8>) {
    let mut bits = 0;
    if record.user.is_some() {
        bits |= HAS_USER;
    }
    if record.disconnected_ms.is_some() {
        bits |= IS_DISCONNECTED;
    }
    out.push(bits);
    out.push(record.protocol_level);
    put_varint(out, record.epoch);
    put_varint(out, u64::from(record.expiry_interval_secs));
    put_varint(out, record.connected_ms);
    if let Some(disconnected_ms) = record.disconnected_ms {
        put_varint(out, disconnected_ms);
    }
    put_bytes(out, record.client_id.as_bytes());
    if let Some(user) = record.user {
        put_bytes(out, user.as_bytes());
    }
    put_bytes(out, record.extra);
}

pub(crate) fn take_session<'a>(reader: &mut Reader<'a>) -> Option<SessionView<'a>> {
    let bits = reader.u8()?;
    let protocol_level = reader.u8()?;
    let epoch = reader.varint()?;
    let expiry_interval_secs = reader.varint_u32()?;
    let connected_ms = reader.varint()?;
    let disconnected_ms = if bits & IS_DISCONNECTED != 0 {
        Some(reader.varint()?)
    } else {
        None
    };
    let client_id = reader.str()?;
    let user = if bits & HAS_USER != 0 {
        Some(reader.str()?)
    } else {
        None
    };
    Some(SessionView {
        client_id,
        user,
        epoch,
        expiry_interval_secs,
        connected_ms,
        disconnected_ms,
        protocol_level,
        extra: reader.bytes()?,
    })
}

/// Flags of a Will Message, above its QoS.
const WILL_RETAIN: u8 = 1 << 2;
const WILL_DUE: u8 = 1 << 3;

pub(crate) fn put_will(will: &WillView<'_>, out: &mut Vec<u8>) {
    let mut bits = put_qos(will.qos);
    if will.retain {
        bits |= WILL_RETAIN;
    }
    if will.due_ms.is_some() {
        bits |= WILL_DUE;
    }
    out.push(bits);
    put_varint(out, u64::from(will.delay_secs));
    if let Some(due_ms) = will.due_ms {
        put_varint(out, due_ms);
    }
    put_bytes(out, will.topic.as_bytes());
    put_bytes(out, will.properties);
    put_bytes(out, will.payload);
}

pub(crate) fn take_will<'a>(reader: &mut Reader<'a>) -> Option<WillView<'a>> {
    let bits = reader.u8()?;
    let delay_secs = reader.varint_u32()?;
    let due_ms = if bits & WILL_DUE != 0 {
        Some(reader.varint()?)
    } else {
        None
    };
    Some(WillView {
        qos: qos(bits)?,
        retain: bits & WILL_RETAIN != 0,
        delay_secs,
        due_ms,
        topic: reader.str()?,
        properties: reader.bytes()?,
        payload: reader.bytes()?,
    })
}

/// Flags of a document.
const DOCUMENT_EXPIRES: u8 = 1;

/// A document without its key.
pub(crate) fn put_document(value: &[u8], expires_ms: Option<u64>, out: &mut Vec<u8>) {
    out.push(expires_ms.map_or(0, |_| DOCUMENT_EXPIRES));
    if let Some(expires_ms) = expires_ms {
        put_varint(out, expires_ms);
    }
    put_bytes(out, value);
}

pub(crate) fn take_document<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], Option<u64>)> {
    let bits = reader.u8()?;
    let expires_ms = if bits & DOCUMENT_EXPIRES != 0 {
        Some(reader.varint()?)
    } else {
        None
    };
    Some((reader.bytes()?, expires_ms))
}

/// Reads back what [`encode`] wrote; `None` for a body that is damaged or of a kind or version
/// that this program does not know.
pub(crate) fn decode(kind: u8, version: u8, body: &[u8]) -> Option<Record<'_>> {
    if version != 1 {
        return None;
    }
    let reader = &mut Reader::new(body);
    let record = match kind {
        kind::MESSAGE => Record::Message(take_message(reader)?),
        kind::DONE => Record::Done {
            session: reader.varint()?,
            ranges: List::take(reader)?,
        },
        kind::RELEASED => Record::Released {
            session: reader.varint()?,
            seqs: List::take(reader)?,
        },
        kind::INBOUND_RELEASED => Record::InboundReleased {
            session: reader.varint()?,
            packet_ids: List::take(reader)?,
        },
        kind::SESSION_PUT => Record::SessionPut {
            session: reader.varint()?,
            record: take_session(reader)?,
        },
        kind::SESSION_REMOVE => Record::SessionRemove {
            session: reader.varint()?,
        },
        kind::SUBSCRIBE => Record::Subscribe {
            session: reader.varint()?,
            filter: reader.str()?,
            options: reader.u8()?,
            subscription_id: Some(reader.varint_u32()?).filter(|&id| id != 0),
        },
        kind::UNSUBSCRIBE => Record::Unsubscribe {
            session: reader.varint()?,
            filter: reader.str()?,
        },
        kind::RETAINED_CLEAR => Record::RetainedClear {
            topic: reader.str()?,
        },
        kind::ENQUEUE => Record::Enqueue {
            offset: Offset(reader.varint()?),
            size: reader.varint_u32()?,
            target: Item::take(reader)?,
        },
        kind::WILL_PUT => Record::WillPut {
            session: reader.varint()?,
            will: take_will(reader)?,
        },
        kind::WILL_REMOVE => Record::WillRemove {
            session: reader.varint()?,
        },
        kind::CLOCK => Record::Clock {
            now_ms: reader.varint()?,
        },
        kind::DOCUMENT_PUT => {
            let key = reader.str()?;
            let (value, expires_ms) = take_document(reader)?;
            Record::DocumentPut {
                key,
                value,
                expires_ms,
            }
        }
        kind::DOCUMENT_REMOVE => Record::DocumentRemove { key: reader.str()? },
        _ => return None,
    };
    reader.is_empty().then_some(record)
}
