//! Bytes that no version of the program wrote. A checksum stands before every decoder, but what it
//! lets through by chance, or after a defect, must not bring the broker down.

use proptest::prelude::*;

use super::history::History;
use crate::store::record::{decode, encode};

/// Decodes, and walks through everything that was decoded by writing it again.
fn survives(kind: u8, version: u8, body: &[u8]) {
    if let Some(record) = decode(kind, version, body) {
        let mut again = Vec::new();
        encode(&record, &mut again);
        let (kind, version) = record.kind_and_version();
        let once_more = decode(kind, version, &again);
        assert_eq!(
            once_more,
            Some(record),
            "what was decoded does not read back"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_record_or_none(
        kind in any::<u8>(),
        version in 0u8..3,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        survives(kind, version, &body);
    }

    #[test]
    fn damaged_records_are_a_record_or_none(
        seed in any::<u64>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut history = History::new(seed, 300);
        (0..30).for_each(|_| history.advance());
        for record in &history.records {
            let (kind, version) = record.get().kind_and_version();
            let mut body = Vec::new();
            encode(&record.get(), &mut body);
            survives(kind, version, &body);
            survives(kind, version, &body[..cut.index(body.len() + 1)]);
            for (at, byte) in &damage {
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] = *byte;
                }
            }
            survives(kind, version, &body);
        }
    }
}
