//! For tests of those who use a store: one in memory that has nothing durable until it is told, and
//! can be crashed. What was appended by then is there afterwards, and nothing else.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

use super::record::{self, decode};
use super::wait::Progress;
use super::{
    Appended, Health, MemoryStore, Offset, QueuePage, Record, Recovered, Seq, SessionNumber, Stats,
    Store, StoreError, StoredMessage, Ticket, Waiting,
};

/// One record, encoded, with its kind and version.
type Encoded = (u8, u8, Vec<u8>);

/// A store whose disk is as slow as a test wants it.
pub(crate) struct SlowStore {
    inner: MemoryStore,
    /// The records of each append.
    appends: Mutex<Vec<Vec<Encoded>>>,
    progress: Progress,
    /// Called before something is appended.
    before: Mutex<Option<Box<dyn FnMut() + Send>>>,
    /// How many appends are refused next.
    refuses: AtomicUsize,
}

impl SlowStore {
    pub(crate) fn new() -> SlowStore {
        let (inner, _) = MemoryStore::new();
        SlowStore {
            inner,
            appends: Mutex::default(),
            progress: Progress::new(),
            before: Mutex::default(),
            refuses: AtomicUsize::new(0),
        }
    }

    /// Everything appended so far is durable.
    pub(crate) fn commit(&self) {
        let ticket = Ticket(self.appends.lock().len() as u64);
        self.progress.advance(ticket);
    }

    /// Refuses so many appends.
    pub(crate) fn refuse(&self, count: usize) {
        self.refuses.store(count, Ordering::SeqCst);
    }

    /// How many wait for a commit.
    pub(crate) fn registered(&self) -> usize {
        self.progress.registered()
    }

    /// More waits for the disk than should, or no longer.
    pub(crate) fn set_pressure(&self, on: bool) {
        self.progress.set_pressure(on);
    }

    /// How many appends there were, and how many of them are durable.
    pub(crate) fn appends(&self) -> (usize, usize) {
        (self.appends.lock().len(), self.durable().0 as usize)
    }

    /// What is left of it after a crash that only the first `count` appends survived.
    pub(crate) fn crashed(&self, count: usize) -> (SlowStore, Recovered) {
        let store = SlowStore::new();
        for append in &self.appends.lock()[..count] {
            let records: Vec<Record<'_>> = append
                .iter()
                .map(|(kind, version, body)| {
                    decode(*kind, *version, body).expect("it was encoded a moment ago")
                })
                .collect();
            store.append(&records).expect("it takes everything");
        }
        store.commit();
        let recovered = store.inner.recovered();
        (store, recovered)
    }

    /// Has `hook` called once, before something is appended the next time.
    pub(crate) fn before_append(&self, hook: impl FnMut() + Send + 'static) {
        *self.before.lock() = Some(Box::new(hook));
    }
}

impl Store for SlowStore {
    fn append(&self, records: &[Record<'_>]) -> Result<Appended, StoreError> {
        if let Some(mut hook) = self.before.lock().take() {
            hook();
        }
        let refuses = self.refuses.load(Ordering::SeqCst);
        if refuses > 0 {
            self.refuses.store(refuses - 1, Ordering::SeqCst);
            return Err(StoreError::TooLarge {
                what: "what the test appends",
                bytes: 1,
                bytes_max: 0,
            });
        }
        let mut appends = self.appends.lock();
        // A record that is refused leaves no trace.
        let Appended { first_offset, .. } = self.inner.append(records)?;
        let encoded = records.iter().map(|it| {
            let (kind, version) = it.kind_and_version();
            let mut body = Vec::new();
            record::encode(it, &mut body);
            (kind, version, body)
        });
        appends.push(encoded.collect());
        let ticket = Ticket(appends.len() as u64);
        Ok(Appended {
            ticket,
            first_offset,
        })
    }

    fn append_idle(&self, records: &[Record<'_>]) -> Result<Appended, StoreError> {
        self.append(records)
    }

    fn withdraw(&self, offsets: &[Offset]) -> Vec<bool> {
        self.inner.withdraw(offsets)
    }

    fn admit(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn is_in_memory(&self) -> bool {
        false
    }

    fn durable(&self) -> Ticket {
        self.progress.durable()
    }

    fn appended(&self) -> Ticket {
        Ticket(self.appends.lock().len() as u64)
    }

    fn register(&self, ticket: Ticket, waker: &Waker) -> Waiting {
        self.progress.register(ticket, waker)
    }

    fn pressure(&self) -> bool {
        self.progress.pressure()
    }

    fn register_pressure(&self, waker: &Waker) -> bool {
        self.progress.register_pressure(waker)
    }

    fn read(&self, offsets: &[Offset]) -> Vec<Result<StoredMessage, StoreError>> {
        self.inner.read(offsets)
    }

    fn queue(&self, session: SessionNumber, range: Range<Seq>, max: usize) -> QueuePage {
        self.inner.queue(session, range, max)
    }

    fn health(&self) -> Health {
        Health::Well
    }

    fn failed(&self) -> bool {
        false
    }

    fn stats(&self) -> Stats {
        self.inner.stats()
    }

    fn request_checkpoint(&self) {}

    fn backup(&self, target: &Path) -> Result<(), StoreError> {
        self.inner.backup(target)
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
