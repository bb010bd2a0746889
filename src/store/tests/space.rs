//! Disk space comes back: after a drain, and although an absent session pins a few messages.

use super::model::Model;
use super::{message, open_sim, session_put, small, target};
use crate::store::files::sim::SimFiles;
use crate::store::open::Parts;
use crate::store::{List, Offset, Record, SeqRange};

const MESSAGES: u64 = 3_000;

/// Messages for session 1; each hundredth also for session 2.
fn fill(parts: &mut Parts) {
    parts
        .append(&[session_put(1), session_put(2)])
        .expect("it takes them");
    let payload = vec![3; 500];
    for seq in 1..=MESSAGES {
        let targets = [target(1, seq), target(2, seq)];
        let targets = if seq % 100 == 0 {
            &targets[..]
        } else {
            &targets[..1]
        };
        parts
            .append(&[Record::Message(message(&payload, targets))])
            .expect("it takes it");
        if seq % 20 == 0 {
            parts.commit().expect("it writes");
        }
        if seq % 500 == 0 {
            parts.upkeep.checkpoint().expect("it writes");
            parts.upkeep.give_space_back(true).expect("it works");
        }
    }
}

fn done(parts: &mut Parts, session: u64) {
    let ranges = [SeqRange {
        first: 0,
        last: MESSAGES,
    }];
    parts
        .append(&[Record::Done {
            session,
            ranges: List::Given(&ranges),
        }])
        .expect("it takes it");
    parts.commit().expect("it writes");
    parts.upkeep.checkpoint().expect("it writes");
    parts.upkeep.write_snapshot().expect("it writes");
    parts.upkeep.give_space_back(true).expect("it works");
}

#[test]
fn what_is_drained_is_deleted_and_what_is_sparse_is_compacted() {
    let disk = SimFiles::new();
    let options = small("/store");
    let mut parts = open_sim(&disk, &options).expect("it opens");
    let empty = disk.bytes();
    fill(&mut parts);
    let full = disk.bytes();
    assert!(full > MESSAGES * 500, "{full}");
    done(&mut parts, 1);
    // Thirty messages are still needed, in as many places of the log.
    let sparse = disk.bytes();
    assert!(
        sparse < empty + 2 * options.segment_bytes + 30 * 700,
        "{sparse} bytes, empty {empty}, full {full}"
    );
    let needed: Vec<_> = (1..=MESSAGES / 100).map(|i| Offset(i * 100)).collect();
    let found = parts.log.read(&needed);
    assert!(found.iter().all(Result::is_ok), "{found:?}");

    // The same after a restart, from the compacted segments.
    let disk = disk.kill();
    let mut parts = open_sim(&disk, &options).expect("it opens");
    assert!(
        !parts.recovered.report.has_loss(),
        "{:?}",
        parts.recovered.report
    );
    assert_eq!(Model::of(&parts.recovered).sessions[&2].queue.len(), 30);
    let found = parts.log.read(&needed);
    assert!(found.iter().all(Result::is_ok), "{found:?}");

    done(&mut parts, 2);
    let drained = disk.bytes();
    assert!(
        drained <= 2 * empty + 2 * options.segment_bytes,
        "{drained} bytes, empty {empty}"
    );
}
