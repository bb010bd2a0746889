//! The log of the attempts of one endpoint: the last ones, for who wants to know what went wrong.
//!
//! Attempts are written in chunks, at most one a second, not one by one: what a crash takes is
//! history, and costs no delivery.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::documents::{attempts_key, to_json};

/// Bytes of a response that the log keeps.
pub const EXCERPT_BYTES_MAX: usize = 512;
const ERROR_BYTES_MAX: usize = 512;
/// Attempts in one document, which is at most some 200 KB then.
const CHUNK_MAX: usize = 128;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The entry of the queue; in batch mode, the first.
    pub seq: u64,
    /// The place of its message in the log.
    pub offset: u64,
    /// Messages in the request.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub messages: u32,
    /// Which attempt of the message it was, from 1.
    pub attempt: u32,
    /// When it was begun, in Unix milliseconds.
    pub at_ms: u64,
    /// How long it took, in milliseconds.
    pub millis: u32,
    /// The status of the response, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<str>>,
    /// The beginning of the response, of which [`EXCERPT_BYTES_MAX`] bytes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Box<str>>,
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
}

/// The last attempts of an endpoint.
pub struct AttemptLog {
    id: Box<str>,
    kept: usize,
    max_age_ms: u64,
    state: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    attempts: VecDeque<Attempt>,
    /// The number of the first of them.
    first: u64,
    /// The number of the first that was not written.
    unwritten: u64,
    /// What is written, the oldest first.
    chunks: VecDeque<Chunk>,
}

struct Chunk {
    first: u64,
    count: u64,
    /// Of its last attempt.
    at_ms: u64,
}

impl Log {
    fn next(&self) -> u64 {
        self.first + self.attempts.len() as u64
    }
}

/// A change of the documents of an attempt log.
pub(super) enum Write {
    Put {
        key: String,
        value: Vec<u8>,
        expires_ms: u64,
    },
    Remove {
        key: String,
    },
}

fn cut(text: Option<Box<str>>, max: usize) -> Option<Box<str>> {
    text.map(|text| match text.len() > max {
        true => text[..text.floor_char_boundary(max)].into(),
        false => text,
    })
}

impl AttemptLog {
    pub(super) fn new(id: &str, kept: usize, max_age: Duration) -> AttemptLog {
        AttemptLog {
            id: id.into(),
            kept,
            max_age_ms: max_age.as_millis() as u64,
            state: Mutex::default(),
        }
    }

    /// Adds one. Cheap, and no disk.
    pub fn record(&self, attempt: Attempt) {
        if self.kept == 0 {
            return;
        }
        let attempt = Attempt {
            error: cut(attempt.error, ERROR_BYTES_MAX),
            excerpt: cut(attempt.excerpt, EXCERPT_BYTES_MAX),
            ..attempt
        };
        let mut state = self.state.lock();
        state.attempts.push_back(attempt);
        if state.attempts.len() > self.kept {
            state.attempts.pop_front();
            state.first += 1;
        }
    }

    /// Takes in a document that was kept under the number of its first attempt; to be called in
    /// the order of the numbers.
    pub(super) fn restore(&self, first: u64, value: &[u8]) {
        let Ok(attempts) = serde_json::from_slice::<Vec<Attempt>>(value) else {
            tracing::warn!(
                endpoint = &*self.id,
                "a part of the log of attempts is damaged"
            );
            return;
        };
        let mut state = self.state.lock();
        state.chunks.push_back(Chunk {
            first,
            count: attempts.len() as u64,
            at_ms: attempts.last().map_or(0, |it| it.at_ms),
        });
        // The numbers have no gap; if they do, something was lost, and what came after it counts.
        if state.next() != first {
            state.attempts.clear();
            state.first = first;
        }
        state.attempts.extend(attempts);
        while state.attempts.len() > self.kept {
            state.attempts.pop_front();
            state.first += 1;
        }
        state.unwritten = state.next();
    }

    /// What is to be written: to be called once a second.
    pub(super) fn take_writes(&self, now_ms: u64) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut state = self.state.lock();
        let oldest = now_ms.saturating_sub(self.max_age_ms);
        while state.attempts.front().is_some_and(|it| it.at_ms < oldest) {
            state.attempts.pop_front();
            state.first += 1;
        }
        // Those that were not written and are gone already never will be.
        let mut from = state.unwritten.max(state.first);
        let next = state.next();
        while from < next {
            let skipped = (from - state.first) as usize;
            let chunk: Vec<&Attempt> = state
                .attempts
                .iter()
                .skip(skipped)
                .take(CHUNK_MAX)
                .collect();
            let (count, at_ms) = (chunk.len() as u64, chunk.last().map_or(0, |it| it.at_ms));
            writes.push(Write::Put {
                key: attempts_key(&self.id, from),
                value: to_json(&chunk),
                expires_ms: at_ms.saturating_add(self.max_age_ms),
            });
            state.chunks.push_back(Chunk {
                first: from,
                count,
                at_ms,
            });
            from += count;
        }
        state.unwritten = next;
        // Chunks of few attempts each add up: they are written together once there are too many.
        let wanted = self.kept.div_ceil(CHUNK_MAX) + CHUNKS_SPARE;
        if state.chunks.len() > wanted {
            self.compact(&mut state, &mut writes);
        }
        while let Some(chunk) = state.chunks.front()
            && (chunk.first + chunk.count <= state.first || chunk.at_ms < oldest)
        {
            let key = attempts_key(&self.id, chunk.first);
            writes.push(Write::Remove { key });
            state.chunks.pop_front();
        }
        writes
    }

    /// Writes all that is left in as few chunks as can be.
    fn compact(&self, state: &mut Log, writes: &mut Vec<Write>) {
        for chunk in std::mem::take(&mut state.chunks) {
            let key = attempts_key(&self.id, chunk.first);
            writes.push(Write::Remove { key });
        }
        let mut first = state.first;
        let all: Vec<Attempt> = state.attempts.iter().cloned().collect();
        for chunk in all.chunks(CHUNK_MAX) {
            let at_ms = chunk.last().map_or(0, |it| it.at_ms);
            writes.push(Write::Put {
                key: attempts_key(&self.id, first),
                value: to_json(&chunk),
                expires_ms: at_ms.saturating_add(self.max_age_ms),
            });
            let count = chunk.len() as u64;
            state.chunks.push_back(Chunk {
                first,
                count,
                at_ms,
            });
            first += count;
        }
    }

    /// The latest `max` before the number `before`, the latest first, each with its number.
    pub fn list(&self, before: u64, max: usize) -> Vec<(u64, Attempt)> {
        let state = self.state.lock();
        let numbers = (0..state.attempts.len()).map(|index| state.first + index as u64);
        numbers
            .zip(&state.attempts)
            .rev()
            .filter(|(number, _)| *number < before)
            .take(max)
            .map(|(number, it)| (number, it.clone()))
            .collect()
    }

    /// The last attempt.
    pub fn last(&self) -> Option<Attempt> {
        self.state.lock().attempts.back().cloned()
    }

    /// The keys of all documents.
    pub(super) fn keys(&self) -> Vec<String> {
        let state = self.state.lock();
        let chunks = state.chunks.iter();
        chunks.map(|it| attempts_key(&self.id, it.first)).collect()
    }
}

/// Chunks beyond the fewest there could be, before they are written anew.
const CHUNKS_SPARE: usize = 32;
