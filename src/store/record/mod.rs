//! What the log is made of: one [`Record`] for each durable change, in the broker's nouns.
//!
//! This module owns the shapes; `encode` and `decode` own their bytes. It does not know where a
//! record is kept, nor what the sum of all records is (that is `state`).

mod codec;
mod list;

pub(crate) use codec::{
    Reader, decode, encode, put_bytes, put_document, put_session, put_varint, put_will,
    take_document, take_session, take_will,
};
pub use list::{Encoder, Item, List};

use super::{Offset, StoreError};

/// The number of a durable session: given once, never again.
pub type SessionNumber = u64;

/// The place of an entry in its session's queue; the MQTT Packet Identifier is
/// `seq % 65535 + 1`, so that no record is needed to remember it.
pub type Seq = u64;

/// One durable change. Records take effect in the order in which they were appended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// An Application Message, everyone it is queued for, and what else it changes: one step.
    Message(Message<'a>),
    /// These queue entries were acknowledged, or dropped, and are wanted no more.
    Done {
        session: SessionNumber,
        ranges: List<'a, SeqRange>,
    },
    /// PUBREC came for these entries: only PUBREL may be sent for them from now on, and their
    /// message is needed no more.
    Released {
        session: SessionNumber,
        seqs: List<'a, u64>,
    },
    /// PUBREL came: the Packet Identifier may name a new QoS 2 message again.
    InboundReleased {
        session: SessionNumber,
        packet_ids: List<'a, u16>,
    },
    /// A session was made, or its record replaced. Its queue and subscriptions stay.
    SessionPut {
        session: SessionNumber,
        record: SessionView<'a>,
    },
    /// A session ended, with its subscriptions, queue, inbound state and Will.
    SessionRemove { session: SessionNumber },
    /// A subscription was made or replaced.
    Subscribe {
        session: SessionNumber,
        /// The Topic Filter as the client gave it, `$share/group/` included.
        filter: &'a str,
        /// The subscription options byte of SUBSCRIBE, or what else the broker keeps there.
        options: u8,
        subscription_id: Option<u32>,
    },
    /// A subscription was removed.
    Unsubscribe {
        session: SessionNumber,
        filter: &'a str,
    },
    /// A topic has no Retained Message any more.
    RetainedClear { topic: &'a str },
    /// A message that the log already has is queued for one more session: a Retained Message
    /// on SUBSCRIBE, or a shared subscription's message handed to another member.
    Enqueue {
        offset: Offset,
        /// Bytes of topic, properties and payload, as [`super::QueueEntry::size`] gave them.
        size: u32,
        target: Target<'a>,
    },
    /// A session has this Will Message from now on.
    WillPut {
        session: SessionNumber,
        will: WillView<'a>,
    },
    /// The Will Message was published or cancelled.
    WillRemove { session: SessionNumber },
    /// It is at least this late; expiry goes on from here after a crash.
    Clock { now_ms: u64 },
    /// A document was made or replaced: something small that whoever owns the key wants to find
    /// again after a restart. The store does not look into it.
    DocumentPut {
        /// At most [`DOCUMENT_KEY_MAX`] bytes. Owners keep apart by what their keys begin with.
        key: &'a str,
        /// At most [`DOCUMENT_VALUE_MAX`] bytes.
        value: &'a [u8],
        /// From then on it is void. While the store is open its owner removes it; when the store
        /// is opened, what is void by its clock is gone. `None` for never.
        expires_ms: Option<u64>,
    },
    /// There is no document with this key any more.
    DocumentRemove { key: &'a str },
}

/// Bytes of a document's key, at most.
pub const DOCUMENT_KEY_MAX: usize = 512;

/// Bytes of a document's value, at most: all of them are in memory.
pub const DOCUMENT_VALUE_MAX: usize = 256 * 1024;

impl Record<'_> {
    /// Whether no part of it is larger than it may be.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let check = |what, bytes, bytes_max| {
            if bytes <= bytes_max {
                return Ok(());
            }
            Err(StoreError::TooLarge {
                what,
                bytes,
                bytes_max,
            })
        };
        match self {
            Record::DocumentPut { key, value, .. } => {
                check("the key of a document", key.len(), DOCUMENT_KEY_MAX)?;
                check("a document", value.len(), DOCUMENT_VALUE_MAX)
            }
            // There is none with a longer key; its record would be kept for nothing.
            Record::DocumentRemove { key } => {
                check("the key of a document", key.len(), DOCUMENT_KEY_MAX)
            }
            _ => Ok(()),
        }
    }
}

/// An Application Message with its targets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Message<'a> {
    pub topic: &'a str,
    /// MQTT 5 properties as they are encoded in PUBLISH, without their length; may be empty.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    /// The QoS it was published with.
    pub qos: u8,
    /// Whether it was published with RETAIN set.
    pub retain: bool,
    pub published_ms: u64,
    /// When its Message Expiry Interval runs out.
    pub expires_ms: Option<u64>,
    /// The session that published it; 0 for none that has a number.
    pub publisher: SessionNumber,
    /// What it does to the Retained Message of its topic.
    pub retained: Retained,
    /// The publisher's QoS 2 Packet Identifier, to be remembered until PUBREL.
    pub inbound: Option<(SessionNumber, u16)>,
    pub targets: List<'a, Target<'a>>,
}

/// What a message does to the Retained Message of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Nothing.
    Unchanged,
    /// It becomes the Retained Message.
    Set,
    /// It removes it: the payload was empty [MQTT-3.3.1-6].
    Cleared,
}

/// One session that a message is queued for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target<'a> {
    pub session: SessionNumber,
    pub seq: Seq,
    /// The QoS it is to be delivered with.
    pub qos: u8,
    /// Up to six bits of the broker's own (RETAIN to be set on delivery and the like).
    pub flags: u8,
    pub subscription_ids: List<'a, u32>,
}

/// From `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqRange {
    pub first: Seq,
    pub last: Seq,
}

impl SeqRange {
    /// The fewest ranges that have these sorted seqs, each once.
    pub fn all_of(sorted: &[Seq]) -> Vec<SeqRange> {
        sorted
            .chunk_by(|a, b| a + 1 == *b)
            .map(|run| SeqRange {
                first: run[0],
                last: run[run.len() - 1],
            })
            .collect()
    }

    /// Just this one.
    pub fn one(seq: Seq) -> SeqRange {
        SeqRange {
            first: seq,
            last: seq,
        }
    }
}

/// What is kept about a session besides its subscriptions and its queue.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct SessionView<'a> {
    pub client_id: &'a str,
    /// The user it belongs to; `None` for an anonymous one.
    pub user: Option<&'a str>,
    /// Raised at each takeover, so that an old connection cannot touch the new session.
    pub epoch: u64,
    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    pub expiry_interval_secs: u32,
    pub connected_ms: u64,
    /// `None` while a connection has it.
    pub disconnected_ms: Option<u64>,
    /// The protocol level of its last connection: 3, 4 or 5.
    pub protocol_level: u8,
    /// Whatever else the broker keeps; the store does not look into it.
    pub extra: &'a [u8],
}

/// A session's record, owned.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SessionRecord {
    pub client_id: Box<str>,
    pub user: Option<Box<str>>,
    pub epoch: u64,
    pub expiry_interval_secs: u32,
    pub connected_ms: u64,
    pub disconnected_ms: Option<u64>,
    pub protocol_level: u8,
    pub extra: Box<[u8]>,
}

impl SessionRecord {
    /// The same, borrowed.
    pub fn view(&self) -> SessionView<'_> {
        SessionView {
            client_id: &self.client_id,
            user: self.user.as_deref(),
            epoch: self.epoch,
            expiry_interval_secs: self.expiry_interval_secs,
            connected_ms: self.connected_ms,
            disconnected_ms: self.disconnected_ms,
            protocol_level: self.protocol_level,
            extra: &self.extra,
        }
    }
}

impl From<SessionView<'_>> for SessionRecord {
    fn from(view: SessionView<'_>) -> SessionRecord {
        SessionRecord {
            client_id: view.client_id.into(),
            user: view.user.map(Into::into),
            epoch: view.epoch,
            expiry_interval_secs: view.expiry_interval_secs,
            connected_ms: view.connected_ms,
            disconnected_ms: view.disconnected_ms,
            protocol_level: view.protocol_level,
            extra: view.extra.into(),
        }
    }
}

/// A Will Message.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct WillView<'a> {
    pub topic: &'a str,
    /// Encoded MQTT 5 properties, without their length.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub delay_secs: u32,
    /// When it is to be published, once its connection is gone.
    pub due_ms: Option<u64>,
}

/// A Will Message, owned.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Will {
    pub topic: Box<str>,
    pub properties: Box<[u8]>,
    pub payload: Box<[u8]>,
    pub qos: u8,
    pub retain: bool,
    pub delay_secs: u32,
    pub due_ms: Option<u64>,
}

impl Will {
    /// The same, borrowed.
    pub fn view(&self) -> WillView<'_> {
        WillView {
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            delay_secs: self.delay_secs,
            due_ms: self.due_ms,
        }
    }
}

impl From<WillView<'_>> for Will {
    fn from(view: WillView<'_>) -> Will {
        Will {
            topic: view.topic.into(),
            properties: view.properties.into(),
            payload: view.payload.into(),
            qos: view.qos,
            retain: view.retain,
            delay_secs: view.delay_secs,
            due_ms: view.due_ms,
        }
    }
}
