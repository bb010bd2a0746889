//! The state as keys and values: what a checkpoint, a snapshot and a backup hold.
//!
//! One prefix byte per sort of thing, integers in keys big-endian so that neighbours stay
//! neighbours, a version byte in front of each value. Checklist for a change: a released layout
//! is never altered; add a version, keep loading the old one, add a fixture to
//! `tests/fixtures.rs`.

use sha2::{Digest, Sha256};

use super::{DirtyKey, Document, RetainedEntry, State, Subscription, chunk};
use crate::store::record::{
    List, Reader, put_bytes, put_document, put_session, put_varint, put_will, take_document,
    take_session, take_will,
};
use crate::store::{Offset, SessionNumber, SessionRecord, Will};

const SESSION: u8 = b'S';
const PROGRESS: u8 = b'P';
const SUBSCRIPTION: u8 = b'F';
const CHUNK: u8 = b'Q';
const WILL: u8 = b'W';
const RETAINED: u8 = b'R';
const DOCUMENT: u8 = b'D';

/// The key of [`Meta`].
pub(crate) const META_KEY: &[u8] = b"M";

/// Version of every value that this program writes, but for those in `chunk`.
const VERSION: u8 = 1;

/// Longer topics and filters are keyed by their digest; the value has them in full.
const NAME_IN_KEY_MAX: usize = 200;

/// What a checkpoint says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The log position up to which the state is true: a segment and a byte in it.
    pub(crate) segment: u64,
    pub(crate) position: u64,
    pub(crate) log_epoch: u64,
    pub(crate) next_session: SessionNumber,
    pub(crate) next_offset: Offset,
    pub(crate) clock_ms: u64,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for number in [
            self.segment,
            self.position,
            self.log_epoch,
            self.next_session,
            self.next_offset.0,
            self.clock_ms,
        ] {
            put_varint(&mut out, number);
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Meta> {
        let mut reader = versioned(value)?;
        let meta = Meta {
            segment: reader.varint()?,
            position: reader.varint()?,
            log_epoch: reader.varint()?,
            next_session: reader.varint()?,
            next_offset: Offset(reader.varint()?),
            clock_ms: reader.varint()?,
        };
        reader.is_empty().then_some(meta)
    }
}

fn versioned(value: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader::new(value);
    (reader.u8()? == VERSION).then_some(reader)
}

impl DirtyKey {
    /// The key under which this is kept.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        match self {
            DirtyKey::Session(session) => put_numbers(&mut key, SESSION, &[*session]),
            DirtyKey::Progress(session) => put_numbers(&mut key, PROGRESS, &[*session]),
            DirtyKey::Will(session) => put_numbers(&mut key, WILL, &[*session]),
            DirtyKey::Chunk(session, chunk) => put_numbers(&mut key, CHUNK, &[*session, *chunk]),
            DirtyKey::Subscription(session, filter) => {
                put_numbers(&mut key, SUBSCRIPTION, &[*session]);
                put_name(&mut key, filter);
            }
            DirtyKey::Retained(topic) => {
                key.push(RETAINED);
                put_name(&mut key, topic);
            }
            DirtyKey::Document(name) => {
                // In full, whatever is in it: clients may choose it, and a digest could be made to
                // collide.
                key.push(DOCUMENT);
                key.extend_from_slice(name.as_bytes());
            }
        }
        key
    }
}

fn put_numbers(key: &mut Vec<u8>, prefix: u8, numbers: &[u64]) {
    key.push(prefix);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
}

/// No Topic Name or Filter contains U+0000 [MQTT-4.7.3-2], so the two forms cannot be mixed up.
fn put_name(key: &mut Vec<u8>, name: &str) {
    if name.len() <= NAME_IN_KEY_MAX {
        key.extend_from_slice(name.as_bytes());
    } else {
        key.push(0);
        key.extend_from_slice(&Sha256::digest(name.as_bytes())[..16]);
    }
}

/// Bits of a Retained Message above its QoS.
const RETAINED_EXPIRES: u8 = 1 << 2;

impl State {
    /// Appends the value of `key` to `out`; `false` if there is none any more.
    pub(crate) fn put_value(&self, key: &DirtyKey, out: &mut Vec<u8>) -> bool {
        out.push(match key {
            DirtyKey::Chunk(..) => chunk::VERSION,
            _ => VERSION,
        });
        match key {
            DirtyKey::Session(session) => self.sessions.get(session).is_some_and(|it| {
                put_session(&it.record.view(), out);
                it.known
            }),
            DirtyKey::Progress(session) => self.sessions.get(session).is_some_and(|it| {
                put_varint(out, it.queue.next_seq());
                put_varint(out, it.inbound.len() as u64);
                it.inbound
                    .iter()
                    .for_each(|packet_id| out.extend_from_slice(&packet_id.to_le_bytes()));
                true
            }),
            DirtyKey::Subscription(session, filter) => self
                .sessions
                .get(session)
                .and_then(|it| it.subscriptions.get(filter))
                .is_some_and(|subscription| {
                    out.push(subscription.options);
                    put_varint(out, u64::from(subscription.subscription_id.unwrap_or(0)));
                    put_bytes(out, filter.as_bytes());
                    true
                }),
            DirtyKey::Chunk(session, chunk) => self
                .sessions
                .get(session)
                .is_some_and(|it| chunk::put(&it.queue, *chunk, out)),
            DirtyKey::Will(session) => self
                .sessions
                .get(session)
                .and_then(|it| it.will.as_deref())
                .is_some_and(|will| {
                    put_will(&will.view(), out);
                    true
                }),
            DirtyKey::Retained(topic) => self.retained.get(topic).is_some_and(|entry| {
                put_retained(topic, entry, out);
                true
            }),
            DirtyKey::Document(name) => self.documents.get(name).is_some_and(|document| {
                put_document(&document.value, document.expires_ms, out);
                true
            }),
        }
    }

    /// Takes one key and value into the state, in any order; `None` if it makes no sense.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let mut key = Reader::new(key);
        let prefix = key.u8()?;
        if prefix == CHUNK {
            let (session, chunk) = (be64(&mut key)?, be64(&mut key)?);
            let mut value = Reader::new(value);
            let version = value.u8()?;
            let queue = &mut self.sessions.entry(session).or_default().queue;
            let next_offset = chunk::load(version, queue, chunk, &mut value)?;
            self.next_offset = self.next_offset.max(next_offset);
            return Some(());
        }
        let mut value = versioned(value)?;
        if prefix == RETAINED {
            let (topic, entry) = take_retained(&mut value)?;
            let behind = Offset(entry.offset.0.checked_add(1)?);
            self.next_offset = self.next_offset.max(behind);
            self.retained.insert(topic.into(), entry);
            return value.is_empty().then_some(());
        }
        if prefix == DOCUMENT {
            let name = std::str::from_utf8(key.rest()).ok()?;
            let (bytes, expires_ms) = take_document(&mut value)?;
            let document = Document {
                value: bytes.into(),
                expires_ms,
            };
            self.documents.insert(name.into(), document);
            return value.is_empty().then_some(());
        }
        let number = be64(&mut key)?;
        let it = self.sessions.entry(number).or_default();
        match prefix {
            SESSION => {
                it.record = SessionRecord::from(take_session(&mut value)?);
                it.known = true;
                self.next_session = self.next_session.max(number.checked_add(1)?);
            }
            PROGRESS => {
                it.queue.raise_next_seq(value.varint()?);
                it.inbound = List::<u16>::take(&mut value)?.iter().collect();
            }
            SUBSCRIPTION => {
                let subscription = Subscription {
                    options: value.u8()?,
                    subscription_id: Some(value.varint_u32()?).filter(|&id| id != 0),
                };
                it.subscriptions.insert(value.str()?.into(), subscription);
            }
            WILL => it.will = Some(Box::new(Will::from(take_will(&mut value)?))),
            _ => return None,
        }
        value.is_empty().then_some(())
    }

    /// Every key there is of the sessions in `sessions`.
    pub(crate) fn keys_of_sessions(&self, sessions: &[SessionNumber], keys: &mut Vec<DirtyKey>) {
        for number in sessions {
            let Some(it) = self.sessions.get(number) else {
                continue;
            };
            keys.push(DirtyKey::Session(*number));
            keys.push(DirtyKey::Progress(*number));
            if it.will.is_some() {
                keys.push(DirtyKey::Will(*number));
            }
            for filter in it.subscriptions.keys() {
                keys.push(DirtyKey::Subscription(*number, filter.clone()));
            }
            let mut chunk = 0;
            while let Some(next) = it.queue.next_chunk(chunk) {
                keys.push(DirtyKey::Chunk(*number, next));
                chunk = next + 1;
            }
        }
    }

    /// The numbers of all sessions.
    pub(crate) fn session_numbers(&self) -> Vec<SessionNumber> {
        self.sessions.keys().copied().collect()
    }

    /// The keys of all documents.
    pub(crate) fn document_keys(&self) -> Vec<DirtyKey> {
        self.documents
            .keys()
            .map(|key| DirtyKey::Document(key.clone()))
            .collect()
    }

    /// How many documents there are.
    pub(crate) fn documents(&self) -> u64 {
        self.documents.len() as u64
    }

    /// The keys of all Retained Messages.
    pub(crate) fn retained_keys(&self) -> Vec<DirtyKey> {
        self.retained
            .keys()
            .map(|topic| DirtyKey::Retained(topic.clone()))
            .collect()
    }
}

fn be64(key: &mut Reader<'_>) -> Option<u64> {
    let bytes = key.take(8)?;
    Some(u64::from_be_bytes(
        bytes.try_into().expect("eight bytes were taken"),
    ))
}

fn put_retained(topic: &str, entry: &RetainedEntry, out: &mut Vec<u8>) {
    let expires = entry.expires_ms != u64::MAX;
    out.push(entry.qos | if expires { RETAINED_EXPIRES } else { 0 });
    put_varint(out, entry.offset.0);
    put_varint(out, u64::from(entry.size));
    put_varint(out, entry.published_ms);
    if expires {
        put_varint(out, entry.expires_ms);
    }
    put_bytes(out, topic.as_bytes());
}

fn take_retained<'a>(value: &mut Reader<'a>) -> Option<(&'a str, RetainedEntry)> {
    let bits = value.u8()?;
    let entry = RetainedEntry {
        qos: bits & 3,
        offset: Offset(value.varint()?),
        size: value.varint_u32()?,
        noted: 0,
        published_ms: value.varint()?,
        expires_ms: if bits & RETAINED_EXPIRES != 0 {
            value.varint()?
        } else {
            u64::MAX
        },
    };
    Some((value.str()?, entry))
}
