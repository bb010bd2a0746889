//! The places that the readings of a session have reached, as the store keeps them with it.

use std::collections::VecDeque;

use super::Reading;
use crate::broker::feed::{Cursor, Start};
use crate::store::Offset;

const VERSION: u8 = 1;

/// A filter's hash, a kind, and two numbers.
const ENTRY_LEN: usize = 25;

const AFTER: u8 = 0;
const SINCE: u8 = 1;
const EARLIEST: u8 = 2;
const LATEST: u8 = 3;

/// Places by the hash of the Topic Filter as the client wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Places(Vec<(u64, Start)>);

impl Places {
    pub(in crate::broker) fn of(readings: &VecDeque<Reading>) -> Places {
        let place = |it: &Reading| (hash(&it.written), it.place);
        Places(readings.iter().map(place).collect())
    }

    /// Where the reading of this filter is.
    pub(super) fn find(&self, written: &str) -> Option<Start> {
        let wanted = hash(written);
        let found = self.0.iter().find(|(hash, _)| *hash == wanted);
        found.map(|&(_, place)| place)
    }

    /// Appends them; nothing if there are none.
    pub(in crate::broker) fn encode(&self, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        out.push(VERSION);
        // The limit on them is far below.
        out.extend_from_slice(&(self.0.len() as u32).to_be_bytes());
        for &(hash, place) in &self.0 {
            let (kind, one, two) = match place {
                Start::After(cursor) => (AFTER, cursor.epoch, cursor.offset.0),
                Start::Since(at_ms) => (SINCE, at_ms, 0),
                Start::Earliest => (EARLIEST, 0, 0),
                Start::Latest => (LATEST, 0, 0),
            };
            out.extend_from_slice(&hash.to_be_bytes());
            out.push(kind);
            out.extend_from_slice(&one.to_be_bytes());
            out.extend_from_slice(&two.to_be_bytes());
        }
    }

    /// What was encoded; none if it is not known here. What is behind it is ignored.
    pub(in crate::broker) fn decode(bytes: &[u8]) -> Places {
        let Some((&[VERSION, a, b, c, d], rest)) = bytes.split_first_chunk() else {
            return Places::default();
        };
        let count = u32::from_be_bytes([a, b, c, d]) as usize;
        let entries = rest.chunks_exact(ENTRY_LEN).take(count);
        Places(entries.filter_map(decode_entry).collect())
    }
}

fn decode_entry(entry: &[u8]) -> Option<(u64, Start)> {
    let number = |at: usize| Some(u64::from_be_bytes(*entry.get(at..)?.first_chunk()?));
    let (one, two) = (number(9)?, number(17)?);
    let place = match *entry.get(8)? {
        AFTER => Start::After(Cursor {
            epoch: one,
            offset: Offset(two),
        }),
        SINCE => Start::Since(one),
        EARLIEST => Start::Earliest,
        LATEST => Start::Latest,
        _ => return None,
    };
    Some((number(0)?, place))
}

/// FNV-1a, which must not change: the store has its results. Two filters of one session with the
/// same would have one place; who makes them on purpose harms nobody else.
fn hash(written: &str) -> u64 {
    written.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_the_one_that_stores_have() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
    }

    fn start() -> impl Strategy<Value = Start> {
        prop_oneof![
            (any::<u64>(), any::<u64>()).prop_map(|(epoch, offset)| Start::After(Cursor {
                epoch,
                offset: Offset(offset)
            })),
            any::<u64>().prop_map(Start::Since),
            Just(Start::Earliest),
            Just(Start::Latest),
        ]
    }

    proptest! {
        #[test]
        fn places_are_found_again(
            places in prop::collection::btree_map("[a-z]{1,4}", start(), 0..6),
            behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let readings = places.iter().map(|(filter, &place)| Reading::new(filter, place));
            let kept = Places::of(&readings.collect());
            let mut bytes = Vec::new();
            kept.encode(&mut bytes);
            if !places.is_empty() {
                bytes.extend(behind);
            }
            let found = Places::decode(&bytes);
            prop_assert_eq!(&found, &kept);
            for (filter, &place) in &places {
                prop_assert_eq!(found.find(filter), Some(place));
            }
            prop_assert_eq!(found.find("missing"), None);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Places::decode(&bytes);
        }
    }
}
