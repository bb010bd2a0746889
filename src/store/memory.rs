//! The store in memory: the same records and the same state over a log that is never written.
//!
//! Everything is "durable" when `append` returns. A body is kept while a queue entry or a
//! Retained Message needs it. How much that may be is for those to say who append.
//!
//! An append that makes very many bodies needless gives them back in slices, and lets others have
//! the lock in between: a body that stays a little longer than it is needed harms nobody.

use std::ops::Range;
use std::path::Path;
use std::task::Waker;

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};

use super::record::{self, decode};
use super::state::{Bodies, State};
use super::wait::Progress;
use super::{
    Appended, Failure, Health, Offset, QueuePage, Record, Recovered, Report, Retained, Seq,
    SessionNumber, Stats, Store, StoreError, StoredMessage, Ticket, Waiting,
};

/// A store that forgets everything when it is dropped.
pub struct MemoryStore {
    inner: Mutex<Inner>,
    progress: Progress,
}

struct Inner {
    state: State,
    bodies: BodyMap,
    next_offset: Offset,
    ticket: u64,
    stats: Stats,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> (MemoryStore, Recovered) {
        let state = State::new();
        let recovered = state.recovered(epoch(), Report::default());
        let store = MemoryStore {
            inner: Mutex::new(Inner {
                next_offset: state.next_offset,
                state,
                bodies: BodyMap::default(),
                ticket: 0,
                stats: Stats::default(),
            }),
            progress: Progress::new(),
        };
        (store, recovered)
    }

    /// A copy of the state, as a restart of a durable store would find it.
    #[cfg(test)]
    pub(crate) fn recovered(&self) -> Recovered {
        self.inner.lock().state.recovered(0, Report::default())
    }
}

/// A number that tells one life of a log from another.
pub(crate) fn epoch() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64)
    })
}

impl Store for MemoryStore {
    fn append(&self, records: &[Record<'_>]) -> Result<Appended, StoreError> {
        self.progress.check()?;
        records.iter().try_for_each(Record::check)?;
        let mut inner = self.inner.lock();
        let first_offset = inner.next_offset;
        let mut later = Later::new();
        for record in records {
            inner.apply(record, &mut later);
        }
        inner.ticket += 1;
        inner.stats.commits += 1;
        let ticket = Ticket(inner.ticket);
        self.progress.advance(ticket);
        for slice in later.offsets.chunks(SLICE_RELEASES) {
            MutexGuard::bump(&mut inner);
            slice
                .iter()
                .for_each(|&offset| inner.bodies.release(offset));
        }
        Ok(Appended {
            ticket,
            first_offset,
        })
    }

    fn append_idle(&self, records: &[Record<'_>]) -> Result<Appended, StoreError> {
        self.append(records)
    }

    fn withdraw(&self, offsets: &[Offset]) -> Vec<bool> {
        // They are in the state since they were appended.
        vec![false; offsets.len()]
    }

    fn admit(&self) -> Result<(), StoreError> {
        self.progress.check()
    }

    fn is_in_memory(&self) -> bool {
        true
    }

    fn durable(&self) -> Ticket {
        self.progress.durable()
    }

    fn appended(&self) -> Ticket {
        // There is nothing in between.
        self.progress.durable()
    }

    fn register(&self, ticket: Ticket, waker: &Waker) -> Waiting {
        self.progress.register(ticket, waker)
    }

    fn pressure(&self) -> bool {
        false
    }

    fn register_pressure(&self, _: &Waker) -> bool {
        false
    }

    fn read(&self, offsets: &[Offset]) -> Vec<Result<StoredMessage, StoreError>> {
        let inner = self.inner.lock();
        offsets
            .iter()
            .map(|&offset| {
                let body = inner.bodies.map.get(&offset).map(|body| body.bytes.clone());
                message_from(offset, body.ok_or(StoreError::Gone(offset))?)
            })
            .collect()
    }

    fn queue(&self, session: SessionNumber, range: Range<Seq>, max: usize) -> QueuePage {
        self.inner.lock().state.queue(session, range, max)
    }

    fn health(&self) -> Health {
        self.progress.failure().map_or(Health::Well, Health::Failed)
    }

    fn failed(&self) -> bool {
        self.progress.failed()
    }

    fn stats(&self) -> Stats {
        let inner = self.inner.lock();
        Stats {
            needs: inner.bodies.needs,
            log_bytes: inner.bodies.bytes,
            ..inner.stats
        }
    }

    fn request_checkpoint(&self) {}

    fn backup(&self, _: &Path) -> Result<(), StoreError> {
        Err(StoreError::Unsupported(
            "a store in memory (store.durability = \"memory\") has nothing to back up",
        ))
    }

    fn close(&self) -> Result<(), StoreError> {
        self.progress.fail(Failure::Closed);
        Ok(())
    }
}

/// Whether a record adds something that takes space until it is acknowledged.
fn adds_message(record: &Record<'_>) -> bool {
    match record {
        Record::Message(message) => {
            message.retained == Retained::Set || !message.targets.is_empty()
        }
        Record::WillPut { .. } => true,
        _ => false,
    }
}

/// Makes a [`StoredMessage`] of the encoded body of a version 1 message record.
fn message_from(offset: Offset, body: Bytes) -> Result<StoredMessage, StoreError> {
    match decode(Record::MESSAGE_KIND, 1, &body) {
        Some(Record::Message(message)) => Ok(StoredMessage::from_record(offset, &message, &body)),
        _ => Err(StoreError::Damaged(offset)),
    }
}

/// Bodies that are given back under one lock.
const SLICE_RELEASES: usize = 4_096;

/// What an append releases beyond one slice.
struct Later {
    /// So many are still given back at once.
    left: usize,
    offsets: Vec<Offset>,
}

impl Later {
    fn new() -> Later {
        Later {
            left: SLICE_RELEASES,
            offsets: Vec::new(),
        }
    }
}

struct Releasing<'a> {
    bodies: &'a mut BodyMap,
    later: &'a mut Later,
}

impl Bodies for Releasing<'_> {
    fn need(&mut self, offset: Offset) {
        self.bodies.need(offset);
    }

    fn release(&mut self, offset: Offset) {
        match self.later.left.checked_sub(1) {
            Some(left) => {
                self.later.left = left;
                self.bodies.release(offset);
            }
            None => self.later.offsets.push(offset),
        }
    }
}

impl Inner {
    /// `later` gets the messages that are to be released once the lock was given up in between.
    fn apply(&mut self, record: &Record<'_>, later: &mut Later) {
        self.stats.records += 1;
        let offset = self.next_offset;
        if let Record::Message(message) = record {
            self.stats.messages += 1;
            self.next_offset = offset.plus(1);
            if adds_message(record) {
                // Targets are in the state; the body need not repeat them.
                let kept = Record::Message(super::Message {
                    targets: super::List::default(),
                    ..*message
                });
                let mut encoded = Vec::new();
                record::encode(&kept, &mut encoded);
                self.bodies.hold(offset, encoded.into());
            }
        }
        let mut bodies = Releasing {
            bodies: &mut self.bodies,
            later,
        };
        self.state.apply(offset, record, &mut bodies);
        if let Record::Message(_) = record {
            self.bodies.let_go(offset);
        }
    }
}

/// The bodies that are needed, and how often.
#[derive(Default)]
struct BodyMap {
    map: HashMap<Offset, Body, foldhash::fast::RandomState>,
    bytes: u64,
    needs: u64,
}

struct Body {
    bytes: Bytes,
    needs: usize,
}

/// What a body costs besides its bytes, about.
const BODY_OVERHEAD: u64 = 96;

impl BodyMap {
    fn hold(&mut self, offset: Offset, bytes: Bytes) {
        self.bytes += bytes.len() as u64 + BODY_OVERHEAD;
        self.map.insert(offset, Body { bytes, needs: 0 });
    }

    /// Forgets the body if nothing came to need it.
    fn let_go(&mut self, offset: Offset) {
        if self.map.get(&offset).is_some_and(|body| body.needs == 0) {
            self.forget(offset);
        }
    }

    fn forget(&mut self, offset: Offset) {
        if let Some(body) = self.map.remove(&offset) {
            self.bytes -= body.bytes.len() as u64 + BODY_OVERHEAD;
        }
    }
}

impl Bodies for BodyMap {
    fn need(&mut self, offset: Offset) {
        if let Some(body) = self.map.get_mut(&offset) {
            body.needs += 1;
            self.needs += 1;
        }
    }

    fn release(&mut self, offset: Offset) {
        if let Some(body) = self.map.get_mut(&offset) {
            body.needs -= 1;
            self.needs -= 1;
            if body.needs == 0 {
                self.forget(offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{message, session_put, target};
    use super::super::{List, SeqRange};
    use super::*;

    #[test]
    fn many_bodies_are_given_back_in_slices() {
        const COUNT: usize = 3 * SLICE_RELEASES + 5;
        let (store, _) = MemoryStore::new();
        store.append(&[session_put(1)]).expect("it takes it");
        for seq in 0..COUNT as u64 {
            let targets = [target(1, seq)];
            store
                .append(&[Record::Message(message(b"x", &targets))])
                .expect("it takes it");
        }
        let ranges = [SeqRange {
            first: 0,
            last: u64::MAX,
        }];
        let done = Record::Done {
            session: 1,
            ranges: List::Given(&ranges),
        };
        let mut later = Later::new();
        {
            let mut inner = store.inner.lock();
            inner.apply(&done, &mut later);
            // What others would find while the rest is still to be given back.
            assert_eq!(later.offsets.len(), COUNT - SLICE_RELEASES);
            assert_eq!(inner.bodies.needs as usize, later.offsets.len());
            // Nor does another record of the same append begin a slice of its own.
            assert_eq!(later.left, 0);
            later
                .offsets
                .iter()
                .for_each(|&offset| inner.bodies.release(offset));
        }
        assert_eq!((store.stats().needs, store.stats().log_bytes), (0, 0));
        // And the same from outside.
        let targets: Vec<_> = (0..COUNT as u64).map(|seq| target(1, seq)).collect();
        for one in targets.chunks(1) {
            store
                .append(&[Record::Message(message(b"x", one))])
                .expect("it takes it");
        }
        assert_eq!(store.stats().needs as usize, COUNT);
        store.append(&[done]).expect("it takes it");
        assert_eq!((store.stats().needs, store.stats().log_bytes), (0, 0));
    }

    #[test]
    fn each_start_has_another_epoch() {
        let epochs = [(); 20].map(|()| MemoryStore::new().1.epoch);
        let different: std::collections::BTreeSet<_> = epochs.iter().collect();
        assert_eq!(different.len(), epochs.len());
    }
}
