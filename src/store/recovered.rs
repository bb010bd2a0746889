//! What a store hands to the broker when it is opened.

use super::{Offset, Seq, SessionNumber, SessionRecord, Will};

/// Everything durable, as of the last commit before the stop.
#[derive(Debug, Default)]
pub struct Recovered {
    pub sessions: Vec<RecoveredSession>,
    pub retained: Vec<RecoveredRetained>,
    /// In order of their keys, without those that were void at `clock_ms`.
    pub documents: Vec<RecoveredDocument>,
    /// The number for the next new session.
    pub next_session: SessionNumber,
    /// The offset that the next message will get.
    pub next_offset: Offset,
    /// Changes when the store was lost or rolled back: offsets of another epoch mean nothing. Of a
    /// store in memory it is another one at each start. A copy of the whole directory that was made
    /// by other means than a backup has the epoch of its original, and cannot be told from it.
    pub epoch: u64,
    /// The latest point in time that any record names; 0 for a new store.
    pub clock_ms: u64,
    pub report: Report,
}

/// A session with all that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveredSession {
    pub number: SessionNumber,
    pub record: SessionRecord,
    pub subscriptions: Vec<RecoveredSubscription>,
    pub queue: QueuePage,
    /// Larger than any seq this session ever used.
    pub next_seq: Seq,
    /// Packet Identifiers of QoS 2 messages received from it whose PUBREL is still to come.
    pub inbound: Vec<u16>,
    pub will: Option<Will>,
}

impl QueuePage {
    /// The Subscription Identifiers that the entry `seq` is to be delivered with.
    pub fn subscription_ids_of(&self, seq: Seq) -> &[u32] {
        self.subscription_ids
            .binary_search_by_key(&seq, |&(seq, _)| seq)
            .map_or(&[], |at| &self.subscription_ids[at].1)
    }
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecoveredSubscription {
    pub filter: Box<str>,
    pub options: u8,
    pub subscription_id: Option<u32>,
}

/// One entry of a queue; its message is read by its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    pub seq: Seq,
    /// Meaningless once the entry is [`EntryState::Released`].
    pub offset: Offset,
    /// Bytes of the message: topic, properties and payload.
    pub size: u32,
    pub qos: u8,
    pub flags: u8,
    pub state: EntryState,
}

/// Some neighbouring entries of a queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueuePage {
    /// In order of seq.
    pub entries: Vec<QueueEntry>,
    /// Subscription Identifiers of those that have any, in order of seq.
    pub subscription_ids: Vec<(Seq, Box<[u32]>)>,
}

/// How far the delivery of an entry got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// To be sent, or sent and not acknowledged: the store does not tell these apart.
    Queued,
    /// PUBREC was received: PUBREL is to be sent until PUBCOMP comes.
    Released,
}

/// One Retained Message; its body is read by its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredRetained {
    pub topic: Box<str>,
    pub offset: Offset,
    pub size: u32,
    pub qos: u8,
    pub published_ms: u64,
    pub expires_ms: Option<u64>,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredDocument {
    pub key: Box<str>,
    pub value: Box<[u8]>,
    /// From then on it is void. Not all that are void are gone: `clock_ms` may be long ago.
    pub expires_ms: Option<u64>,
}

/// How the opening went: what was found, and what could not be saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records replayed from the log on top of the checkpoint.
    pub replayed_records: u64,
    /// Bytes of the last group that were torn by the stop and cut off; nothing in them had been
    /// acknowledged.
    pub torn_bytes: u64,
    /// Damaged places in the part of the log that was replayed, and the bytes they took.
    pub damaged_records: u64,
    pub damaged_bytes: u64,
    /// Segment files that should be there and are not.
    pub missing_segments: u64,
    /// Queue entries and Retained Messages that were dropped because their message is lost.
    pub lost_entries: u64,
    pub lost_retained: u64,
    /// Where a damaged checkpoint was moved, when that happened.
    pub checkpoint_moved_to: Option<std::path::PathBuf>,
    /// What was wrong with it.
    pub checkpoint_error: Option<String>,
    /// What the state was rebuilt from.
    pub basis: Basis,
    /// How long it took.
    pub micros: u64,
}

impl Report {
    /// Whether something that had been acknowledged may be missing.
    pub fn has_loss(&self) -> bool {
        self.damaged_records > 0
            || self.missing_segments > 0
            || self.lost_entries > 0
            || self.lost_retained > 0
    }
}

/// What a state was rebuilt from, before the log was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// There was nothing: a new store.
    #[default]
    New,
    /// The last checkpoint: the usual case.
    Checkpoint,
    /// The snapshot, because the checkpoint was damaged or missing.
    Snapshot,
    /// The log alone: neither could be read.
    Log,
}
