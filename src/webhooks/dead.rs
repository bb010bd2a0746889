//! Messages of one endpoint that ran out of attempts. Their entries stay in the queue, so that the
//! log keeps the messages.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::documents::DeadRecord;
use super::selection::Selection;
use crate::broker::endpoint::Queued;
use crate::store::Seq;

/// The dead letters of an endpoint.
pub struct DeadLetters {
    letters: Mutex<BTreeMap<Seq, DeadRecord>>,
    max: usize,
    /// Those that had to go for others.
    crowded_out: AtomicU64,
}

impl DeadLetters {
    pub(super) fn new(max: usize) -> DeadLetters {
        DeadLetters {
            letters: Mutex::default(),
            max,
            crowded_out: AtomicU64::new(0),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.letters.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this entry of the queue is one.
    pub fn contains(&self, seq: Seq) -> bool {
        self.letters.lock().contains_key(&seq)
    }

    /// Adds one. Answers those that had to go for it, the oldest: their entries are done, and their
    /// documents are to be removed, in the append that has the new one's document.
    pub fn insert(&self, seq: Seq, record: DeadRecord) -> Vec<Queued> {
        let mut letters = self.letters.lock();
        letters.insert(seq, record);
        let mut gone = Vec::new();
        while letters.len() > self.max
            && let Some((seq, record)) = letters.pop_first()
        {
            gone.push(record.queued(seq));
        }
        self.crowded_out
            .fetch_add(gone.len() as u64, Ordering::Relaxed);
        gone
    }

    /// How many had to go for others since the start.
    pub fn crowded_out(&self) -> u64 {
        self.crowded_out.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, seq: Seq) -> Option<DeadRecord> {
        self.letters.lock().get(&seq).cloned()
    }

    pub(super) fn remove(&self, seq: Seq) -> Option<DeadRecord> {
        self.letters.lock().remove(&seq)
    }

    /// The first `max` behind `after` that are selected, in order.
    pub(super) fn list(
        &self,
        after: Seq,
        max: usize,
        selection: &Selection,
    ) -> Vec<(Seq, DeadRecord)> {
        let letters = self.letters.lock();
        letters
            .range(after + 1..)
            .filter(|(_, it)| selection.has(it))
            .take(max)
            .map(|(&seq, it)| (seq, it.clone()))
            .collect()
    }

    pub(super) fn count(&self, selection: &Selection) -> usize {
        let letters = self.letters.lock();
        letters.values().filter(|it| selection.has(it)).count()
    }
}
