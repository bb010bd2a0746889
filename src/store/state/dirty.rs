//! Which parts of the state changed since the last checkpoint.

use std::mem;

use hashbrown::HashSet;

use super::CHUNK_SEQS;
use crate::store::{Seq, SessionNumber};

/// One thing that a checkpoint writes or removes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum DirtyKey {
    Session(SessionNumber),
    /// Its next seq and inbound Packet Identifiers.
    Progress(SessionNumber),
    Subscription(SessionNumber, Box<str>),
    /// The queue entries of [`CHUNK_SEQS`] neighbouring seqs.
    Chunk(SessionNumber, u64),
    Will(SessionNumber),
    Retained(Box<str>),
    Document(Box<str>),
}

/// The last two chunks of a queue that were noted: usually the one where entries are added and
/// the one where they are acknowledged. Spares a hash lookup for nearly every entry.
#[derive(Clone, Copy, Default)]
pub(super) struct Noted {
    generation: u32,
    chunks: [u64; 2],
    /// How many of `chunks` are set.
    len: u8,
}

impl Noted {
    /// See [`Queue::touch`](super::Queue::touch).
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.generation) ^ self.chunks[1]
    }
}

/// The set of dirty keys.
pub(crate) struct Dirty {
    keys: HashSet<DirtyKey, foldhash::fast::RandomState>,
    generation: u32,
    /// How often a key was hashed.
    #[cfg(test)]
    pub(super) hashed: u64,
}

impl Default for Dirty {
    fn default() -> Dirty {
        Dirty {
            keys: HashSet::default(),
            // Zero is what a new `Noted` has.
            generation: 1,
            #[cfg(test)]
            hashed: 0,
        }
    }
}

impl Dirty {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn note(&mut self, key: DirtyKey) {
        #[cfg(test)]
        {
            self.hashed += 1;
        }
        self.keys.insert(key);
    }

    /// The entry `seq` of a queue changed.
    #[inline]
    pub(super) fn note_chunk(&mut self, session: SessionNumber, seq: Seq, noted: &mut Noted) {
        let chunk = seq / CHUNK_SEQS;
        if noted.generation != self.generation {
            *noted = Noted {
                generation: self.generation,
                ..Noted::default()
            };
            // The next seq belongs to it, and survives the queue's being drained.
            self.note(DirtyKey::Progress(session));
        }
        if noted.chunks[..usize::from(noted.len)].contains(&chunk) {
            return;
        }
        noted.chunks = [chunk, noted.chunks[0]];
        noted.len = (noted.len + 1).min(2);
        self.note(DirtyKey::Chunk(session, chunk));
    }

    pub(super) fn take(&mut self) -> Vec<DirtyKey> {
        self.generation = self.generation.wrapping_add(1);
        let mut keys: Vec<_> = mem::take(&mut self.keys).into_iter().collect();
        // Neighbours in the checkpoint lie on the same pages.
        keys.sort_unstable();
        keys
    }
}
