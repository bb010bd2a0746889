//! The value of a chunk of a queue in the checkpoint: a few hundred entries, by the million in long
//! queues, and all of them written again and again.
//!
//! ```text
//! version 2: ids | runs
//!   ids:  length of this part, subscription identifiers of each entry that has any, in order
//!   run:  its first entry | length of the others, the others
//! version 1: entries, each: QoS and bits, flags, seq, offset, size, subscription identifiers if any
//! ```
//! In version 2 an entry is its difference to the one before it, as `packed` has it; the first of a run
//! to the first of the run before it, so that packed entries are copied and not looked at.

use super::packed::{Run, put_difference, take_difference};
use super::queue::{CHUNK_SEQS, Entry, Queue};
use crate::store::record::{List, Reader, put_bytes};
use crate::store::{Offset, Seq};

/// Version of the values that are written here.
pub(super) const VERSION: u8 = 2;

/// Bits of an entry above its QoS, in version 1.
const RELEASED: u8 = 1 << 2;
const HAS_IDS: u8 = 1 << 3;

/// What the first entry of the first run differs from.
fn before(first_seq: Seq) -> Entry {
    let mut entry = Entry::default();
    entry.set_seq(first_seq.wrapping_sub(1));
    entry
}

/// Appends the entries of a chunk; `false` if there are none.
pub(super) fn put(queue: &Queue, chunk: u64, out: &mut Vec<u8>) -> bool {
    let mut ids = Vec::new();
    queue
        .subscription_ids_of(chunk)
        .for_each(|of_one| List::Given(of_one).put(&mut ids));
    put_bytes(out, &ids);
    let mut before = before(chunk * CHUNK_SEQS);
    let mut any = false;
    queue.each_run(chunk, |run: Run<'_>| {
        any = true;
        put_difference(&before, &run.first, out);
        put_bytes(out, run.others);
        before = run.first;
    });
    any
}

/// Loads the entries of a chunk; returns the offset behind the largest in it, `None` if it makes no
/// sense.
pub(super) fn load(
    version: u8,
    queue: &mut Queue,
    chunk: u64,
    value: &mut Reader<'_>,
) -> Option<Offset> {
    match version {
        1 => load_version_1(queue, chunk, value),
        VERSION => load_version_2(queue, chunk, value),
        _ => None,
    }
}

fn load_version_2(queue: &mut Queue, chunk: u64, value: &mut Reader<'_>) -> Option<Offset> {
    let first_seq = chunk.checked_mul(CHUNK_SEQS)?;
    let mut ids = Reader::new(value.bytes()?);
    let mut before = before(first_seq);
    // How far behind the first seq the next entry is, at least.
    let mut distance = 0;
    let mut next_offset = Offset(0);
    while !value.is_empty() {
        let mut entry = take_difference(&before, value)?;
        before = entry;
        let mut others = Reader::new(value.bytes()?);
        loop {
            let at = entry.distance(first_seq);
            if !(distance..CHUNK_SEQS).contains(&at) || entry.is_gone() || entry.qos > 2 {
                return None;
            }
            distance = at + 1;
            let of_this = match entry.has_ids() {
                true => List::take(&mut ids).filter(|it| !it.is_empty())?,
                false => List::default(),
            };
            next_offset = next_offset.max(insert(queue, first_seq + at, entry, of_this)?);
            if others.is_empty() {
                break;
            }
            entry = take_difference(&entry, &mut others)?;
        }
    }
    ids.is_empty().then_some(next_offset)
}

fn load_version_1(queue: &mut Queue, chunk: u64, value: &mut Reader<'_>) -> Option<Offset> {
    let mut before = (chunk.checked_mul(CHUNK_SEQS)?, 0_u64);
    let mut next_offset = Offset(0);
    while !value.is_empty() {
        let bits = value.u8()?;
        let flags = value.u8()?;
        let seq = before.0.checked_add(value.varint()?)?;
        // Offsets nearly always grow with seqs; where one does not, the difference wraps.
        let coded = value.varint()?;
        let difference = (coded >> 1) ^ 0_u64.wrapping_sub(coded & 1);
        let offset = before.1.wrapping_add(difference);
        let size = value.varint_u32()?;
        let ids = match bits & HAS_IDS {
            0 => List::default(),
            _ => List::take(value)?,
        };
        let mut entry = Entry::new(Offset(offset), size, bits & 3, flags);
        if bits & RELEASED != 0 {
            entry = entry.released();
        }
        next_offset = next_offset.max(insert(queue, seq, entry, ids)?);
        before = (seq, offset);
    }
    Some(next_offset)
}

/// Returns the offset behind its message. The last seq and the last offset have nothing behind them:
/// nobody gave them out.
fn insert(queue: &mut Queue, seq: Seq, entry: Entry, ids: List<'_, u32>) -> Option<Offset> {
    seq.checked_add(1)?;
    let next_offset = entry.offset().0.checked_add(1)?;
    queue.insert(seq, entry, ids);
    Some(Offset(next_offset))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::record::put_varint;
    use crate::store::state::{DirtyKey, NoBodies, State};
    use crate::store::tests::session_put;
    use crate::store::{Record, Report, SeqRange};

    /// Entries that follow those before them: so many, alike or not.
    #[derive(Clone, Debug)]
    struct Group {
        count: u64,
        seqs: u64,
        offsets: u64,
        size: u32,
        qos: u8,
        flags: u8,
        ids: Vec<u32>,
        is_released: bool,
        /// Seqs that go, counted back from the last one.
        done: Option<(u64, u64)>,
    }

    fn some() -> impl Strategy<Value = Group> {
        let seqs = prop_oneof![8 => Just(1), 3 => 2_u64..5, 1 => 250_u64..100_000];
        let offsets = prop_oneof![5 => 0_u64..40, 1 => Just(u64::MAX - 2), 1 => any::<u64>()];
        let ids =
            prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(any::<u32>(), 1..4)];
        let done = prop::option::weighted(0.1, (0_u64..400, 0_u64..300));
        let size = prop_oneof![3 => Just(100), 1 => any::<u32>()];
        let count = prop_oneof![1_u64..4, 1_u64..600];
        let kind = (0_u8..3, 0_u8..64, ids, prop::bool::weighted(0.2));
        (count, seqs, offsets, size, kind, done).prop_map(
            |(count, seqs, offsets, size, (qos, flags, ids, is_released), done)| Group {
                count,
                seqs,
                offsets,
                size,
                qos,
                flags,
                ids,
                is_released,
                done,
            },
        )
    }

    fn state(first_seq: Seq, all: &[Group]) -> State {
        let mut state = State::new();
        state.apply(Offset(0), &session_put(1), &mut NoBodies);
        let queue = &mut state.sessions.get_mut(&1).expect("it was put").queue;
        let (mut seq, mut offset) = (first_seq, 1_u64);
        for some in all {
            for _ in 0..some.count {
                offset = offset.wrapping_add(some.offsets).min(u64::MAX - 1);
                let entry = Entry::new(Offset(offset), some.size, some.qos, some.flags);
                queue.insert(seq, entry, List::Given(&some.ids));
                if some.is_released {
                    queue.release(seq);
                }
                seq += some.seqs;
            }
            if let Some((back, count)) = some.done {
                let first = seq.saturating_sub(back);
                let last = first.saturating_add(count);
                queue.remove(SeqRange { first, last }, |_, _, _| {});
            }
        }
        state
    }

    /// As releases before format 3 wrote it.
    fn put_version_1(queue: &Queue, chunk: u64, out: &mut Vec<u8>) {
        out.push(1);
        let ids = queue.recovered().subscription_ids;
        let mut before = (chunk * CHUNK_SEQS, 0_u64);
        for (seq, entry) in queue.iter().filter(|(seq, _)| seq / CHUNK_SEQS == chunk) {
            let ids = ids.iter().find(|(of, _)| *of == seq);
            let released = if entry.is_released() { RELEASED } else { 0 };
            out.push(entry.qos | released | if ids.is_some() { HAS_IDS } else { 0 });
            out.push(entry.flags);
            put_varint(out, seq - before.0);
            let difference = entry.offset().0.wrapping_sub(before.1) as i64;
            put_varint(out, ((difference << 1) ^ (difference >> 63)) as u64);
            put_varint(out, u64::from(entry.size));
            if let Some((_, ids)) = ids {
                List::Given(ids).put(out);
            }
            before = (seq, entry.offset().0);
        }
    }

    /// Every key and value, the chunks that `is_old` says true to as they were written before.
    fn written(state: &State, is_old: impl Fn(u64) -> bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut keys = Vec::new();
        state.keys_of_sessions(&[1], &mut keys);
        let queue = &state.sessions[&1].queue;
        let write = |key: &DirtyKey| {
            let mut value = Vec::new();
            let is_there = state.put_value(key, &mut value);
            if let DirtyKey::Chunk(_, chunk) = key {
                // All that is in it may be gone.
                let mut seqs = queue.iter().map(|(seq, _)| seq / CHUNK_SEQS);
                assert_eq!(is_there, seqs.any(|it| it == *chunk), "{key:?}");
                if is_old(*chunk) {
                    value.clear();
                    put_version_1(queue, *chunk, &mut value);
                }
            }
            is_there.then(|| (key.to_bytes(), value))
        };
        keys.iter().filter_map(write).collect()
    }

    fn loaded(values: &[(Vec<u8>, Vec<u8>)]) -> State {
        let mut state = State::new();
        for (key, value) in values {
            state.load(key, value).expect("it loads");
        }
        state
    }

    fn agree(a: &State, b: &State) {
        let [a, b] = [a, b].map(|it| it.recovered(1, Report::default()));
        assert_eq!(a.sessions, b.sessions);
    }

    fn first_seq() -> impl Strategy<Value = Seq> {
        prop_oneof![
            0_u64..1000,
            Just((1 << 32) - 100),
            (1_u64 << 48) - 300..1 << 48
        ]
    }

    proptest! {
        #[test]
        fn a_queue_comes_back_as_it_was(
            first in first_seq(),
            all in prop::collection::vec(some(), 1..12),
            old in any::<u64>(),
            done in prop::collection::vec((0.0..=1.0, 0_u64..300), 0..4),
        ) {
            let mut state = state(first, &all);
            for is_old in [0, u64::MAX, old] {
                let loaded = loaded(&written(&state, |chunk| is_old >> (chunk % 64) & 1 == 1));
                agree(&state, &loaded);
            }
            // Nor does it matter for what comes then.
            let mut loaded = loaded(&written(&state, |_| false));
            let end = state.sessions[&1].queue.next_seq();
            for (at, count) in done {
                let at = first + ((end - first) as f64 * at) as u64;
                let ranges = [SeqRange { first: at, last: at + count }];
                let done = Record::Done { session: 1, ranges: List::Given(&ranges) };
                state.apply(Offset(0), &done, &mut NoBodies);
                loaded.apply(Offset(0), &done, &mut NoBodies);
                agree(&state, &loaded);
            }
            agree(&state, &super::tests::loaded(&written(&loaded, |_| false)));
        }

        /// A checksum stands before it, and lets through what a defect wrote.
        #[test]
        fn garbage_is_a_queue_or_none(
            version in 0_u8..4,
            chunk in prop_oneof![Just(0), Just(u64::MAX / CHUNK_SEQS), any::<u64>()],
            value in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..12], 0..300),
        ) {
            survives(version, chunk, &value);
        }

        #[test]
        fn damaged_chunks_are_a_queue_or_none(
            first in first_seq(),
            all in prop::collection::vec(some(), 1..4),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
            old in any::<bool>(),
        ) {
            let values = written(&state(first, &all), |_| old);
            for (key, mut value) in values {
                let Ok([b'Q', .., a, b, c, d, e, f, g, h]) = <[u8; 17]>::try_from(key) else {
                    continue;
                };
                let chunk = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                let version = value.remove(0);
                survives(version, chunk, &value[..cut.index(value.len() + 1)]);
                for (at, byte) in &damage {
                    let at = at.index(value.len());
                    value[at] = *byte;
                }
                survives(version, chunk, &value);
            }
        }
    }

    /// What is taken can be written, and loaded again.
    fn survives(version: u8, chunk: u64, value: &[u8]) {
        let mut state = State::new();
        state.apply(Offset(0), &session_put(1), &mut NoBodies);
        let key = DirtyKey::Chunk(1, chunk).to_bytes();
        let value = [&[version], value].concat();
        let is_taken = state.load(&key, &value).is_some();
        // Version 1 is not as strict: entries may lie in other chunks.
        if is_taken && version == VERSION {
            agree(&state, &loaded(&written(&state, |_| false)));
        }
    }

    #[test]
    fn lengths_and_counts_that_are_not_there_are_refused() {
        let huge = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
        let of_ids = [&huge[..], &[8]].concat();
        let of_run = [&[0, 8][..], &huge].concat();
        // One entry with so many subscription identifiers.
        let of_list = [&[9][..], &huge, &[12, 1, 0, 0, 1, 0]].concat();
        for value in [&of_ids, &of_run, &of_list] {
            let mut queue = Queue::default();
            let mut reader = Reader::new(value);
            assert_eq!(load(VERSION, &mut queue, 0, &mut reader), None);
            assert_eq!(queue.iter().count(), 0);
        }
    }

    /// The queues of sessions that are away for long take most of a checkpoint.
    #[test]
    fn entries_like_each_other_take_little_more_than_a_byte_each() {
        let like_others = Group {
            count: 100 * CHUNK_SEQS,
            seqs: 1,
            offsets: 10,
            size: 80,
            qos: 1,
            flags: 0,
            ids: Vec::new(),
            is_released: false,
            done: None,
        };
        let state = state(1, &[like_others]);
        let bytes = |old| -> usize { written(&state, |_| old).iter().map(|it| it.1.len()).sum() };
        let (before, now) = (bytes(true), bytes(false));
        let entries = 100 * CHUNK_SEQS as usize;
        assert!(now * 5 < entries * 6, "{now} bytes, and {before} before");
    }
}
