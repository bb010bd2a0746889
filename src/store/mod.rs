//! Durable state, behind one small trait in the broker's own nouns: append what happened, learn
//! when it is safe, read a message back.
//!
//! The store owns the log of everything that is durable, the state that it adds up to, and the
//! files of both. It decides nothing: what a message matches, when a session expires, which seq
//! an entry gets is the broker's business. It knows no sockets and no tokio.
//!
//! Start reading at [`Store`], then `state` (what the records add up to), `log` (segment files
//! and the committer), `durable` (log, state and checkpoint put together).

pub mod admin;
mod configured;
mod durable;
mod error;
mod files;
mod format_file;
mod kept;
mod log;
mod memory;
mod open;
mod record;
mod recovered;
mod sled;
#[cfg(test)]
mod slow;
mod snapshot;
mod space;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod wait;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

pub use configured::open;
pub use durable::{Durability, DurableStore, Options};
pub use error::{Failure, StoreError};
pub use memory::MemoryStore;
pub use record::{
    DOCUMENT_KEY_MAX, DOCUMENT_VALUE_MAX, Encoder, Item, List, Message, Record, Retained, Seq,
    SeqRange, SessionNumber, SessionRecord, SessionView, Target, Will, WillView,
};
pub use recovered::{
    Basis, EntryState, QueueEntry, QueuePage, Recovered, RecoveredDocument, RecoveredRetained,
    RecoveredSession, RecoveredSubscription, Report,
};
#[cfg(test)]
pub(crate) use slow::SlowStore;
pub use wait::{Durable, until_durable, until_unpressed};

/// A message's place in the log: dense, increasing, never reused within a log epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `n` messages later.
    pub fn plus(self, n: u64) -> Offset {
        Offset(self.0 + n)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An append's place in the order of appends. Everything up to [`Store::durable`] is as safe as
/// the configured durability makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The answer to [`Store::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Reached by [`Store::durable`] when all records of the batch are safe.
    pub ticket: Ticket,
    /// The offset of the batch's first [`Record::Message`]; each further one has the next. With
    /// no message in the batch, the offset that the next one will get.
    pub first_offset: Offset,
}

/// How an answer to "is it durable?" can look.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// It is.
    Durable,
    /// Not yet: the waker was registered and is woken when it is, or when the store has failed.
    Registered,
    /// It never will be.
    Failed(Arc<Failure>),
}

/// Where messages, sessions, queues, Retained Messages and documents are kept.
///
/// All methods may be called from any thread; none but [`Store::read`], [`Store::backup`] and
/// [`Store::close`] touches the disk.
///
/// The broker promises: a session is put before anything refers to it; a [`Record::Done`] or
/// [`Record::Released`] is appended after the message that it is about; seqs grow within a
/// session, though two appends may come in either order.
pub trait Store: Send + Sync + 'static {
    /// Adds records at the end of the log, all or none, in order. Does not wait for the disk.
    ///
    /// # Errors
    /// [`StoreError::Failed`] after the store was poisoned; [`StoreError::TooLarge`] for a record no
    /// segment can hold, and for a document with more than [`DOCUMENT_KEY_MAX`] or
    /// [`DOCUMENT_VALUE_MAX`] bytes. Space is no reason: see [`Store::admit`].
    fn append(&self, records: &[Record<'_>]) -> Result<Appended, StoreError>;

    /// The same for records that nobody waits for, or only until [`Store::withdraw`] makes them
    /// void: they may stay unwritten for some milliseconds.
    ///
    /// # Errors
    /// As for [`Store::append`].
    fn append_idle(&self, records: &[Record<'_>]) -> Result<Appended, StoreError>;

    /// Takes messages back that nothing needs any more, as far as they are not being written yet;
    /// says of each whether it was. One that was need not be acknowledged: it never was.
    fn withdraw(&self, offsets: &[Offset]) -> Vec<bool>;

    /// Whether there is room for new messages; asked before one is accepted, so that an append need
    /// not be refused when half of its work is done. Cheap.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::DiskLow`].
    fn admit(&self) -> Result<(), StoreError>;

    /// Whether what it keeps takes memory, and a restart forgets it.
    fn is_in_memory(&self) -> bool;

    /// The last append that is safe. An atomic load.
    fn durable(&self) -> Ticket;

    /// The last append so far: an append of records that begins after this was called gets a
    /// larger ticket, and one that has returned has no larger one. An atomic load.
    fn appended(&self) -> Ticket;

    /// Asks to be woken once `ticket` is safe, unless it is. Each registration wakes once.
    fn register(&self, ticket: Ticket, waker: &Waker) -> Waiting;

    /// Whether more bytes wait for the disk than `commit_bytes_max`: publishers of QoS 1 and 2
    /// should pause. An atomic load.
    fn pressure(&self) -> bool;

    /// Asks to be woken when the pressure is gone; `false` if there is none, and nothing was
    /// registered.
    fn register_pressure(&self, waker: &Waker) -> bool;

    /// Reads messages back, in the order asked for; neighbours are read with one system call.
    fn read(&self, offsets: &[Offset]) -> Vec<Result<StoredMessage, StoreError>>;

    /// The first `max` entries of a session's queue whose seqs are in `range`, in order, as of the last
    /// commit; for those who do not remember all of the queue themselves. Waits for the state, not for the
    /// disk.
    fn queue(&self, session: SessionNumber, range: Range<Seq>, max: usize) -> QueuePage;

    /// How the store is.
    fn health(&self) -> Health;

    /// Whether [`Store::health`] is [`Health::Failed`]. An atomic load.
    fn failed(&self) -> bool;

    /// Figures for `$SYS` and metrics.
    fn stats(&self) -> Stats;

    /// Asks for a checkpoint soon. The store makes them by itself; a test may want one now.
    fn request_checkpoint(&self);

    /// Writes a consistent copy into `target`, an empty or missing directory, while running.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] for a store without files; [`StoreError::Io`] otherwise.
    fn backup(&self, target: &std::path::Path) -> Result<(), StoreError>;

    /// Makes everything appended so far durable, writes a checkpoint and stops the store's
    /// threads. Appends after this fail. Calling it twice is harmless.
    ///
    /// # Errors
    /// [`StoreError::Failed`] if something that was appended could not be made durable.
    fn close(&self) -> Result<(), StoreError>;
}

/// How a store is.
#[derive(Clone, Debug)]
pub enum Health {
    /// All is well.
    Well,
    /// Free space is below `disk_free_min`: no new messages are taken, everything else goes on.
    DiskLow { free_bytes: u64 },
    /// A write or a flush failed. Nothing more is acknowledged, reads go on.
    Failed(Arc<Failure>),
}

/// Figures of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes appended and not yet durable.
    pub waiting_bytes: u64,
    /// Commits so far: groups that were written and flushed together.
    pub commits: u64,
    /// Records and messages committed since the start.
    pub records: u64,
    pub messages: u64,
    /// Bytes written to the log, to the checkpoint and its snapshots since the start.
    pub log_bytes_written: u64,
    pub checkpoint_bytes_written: u64,
    pub checkpoints: u64,
    /// Segment files, the bytes that they occupy, and of those what compaction gave back.
    pub segments: u64,
    pub log_bytes: u64,
    pub compacted_bytes: u64,
    /// Queue entries and Retained Messages that still need a message.
    pub needs: u64,
    /// The longest commit since the figures were last asked for, in microseconds.
    pub commit_micros_max: u64,
}

/// A message that was read back. Parts are slices of one shared buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    pub offset: Offset,
    topic: Bytes,
    pub properties: Bytes,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub published_ms: u64,
    pub expires_ms: Option<u64>,
    pub publisher: SessionNumber,
}

impl StoredMessage {
    /// The Topic Name.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(&self.topic).expect("it was checked when the record was decoded")
    }

    /// A message of QoS 1 as if it had been read back.
    #[cfg(test)]
    pub(crate) fn for_test(
        offset: Offset,
        topic: &'static str,
        properties: &[u8],
        payload: &[u8],
    ) -> StoredMessage {
        StoredMessage {
            offset,
            topic: Bytes::from_static(topic.as_bytes()),
            properties: Bytes::copy_from_slice(properties),
            payload: Bytes::copy_from_slice(payload),
            qos: 1,
            retain: false,
            published_ms: 1_764_072_000_000,
            expires_ms: None,
            publisher: 0,
        }
    }

    /// `body` is the encoded body of the record that `message` was decoded from.
    fn from_record(offset: Offset, message: &Message<'_>, body: &Bytes) -> StoredMessage {
        StoredMessage {
            offset,
            topic: body.slice_ref(message.topic.as_bytes()),
            properties: body.slice_ref(message.properties),
            payload: body.slice_ref(message.payload),
            qos: message.qos,
            retain: message.retain,
            published_ms: message.published_ms,
            expires_ms: message.expires_ms,
            publisher: message.publisher,
        }
    }
}

/// Bytes of a message that count against a queue's limit.
pub fn message_size(topic: &str, properties: &[u8], payload: &[u8]) -> u32 {
    u32::try_from(topic.len() + properties.len() + payload.len()).unwrap_or(u32::MAX)
}
