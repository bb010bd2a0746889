//! Disks that fail: what is acknowledged then, what is refused, and what comes back.

use std::task::Waker;

use super::model::Model;
use super::{message, open_sim, session_put, small, target};
use crate::store::files::sim::{Operation, SimFiles};
use crate::store::log::committer::Step;
use crate::store::open::Parts;
use crate::store::{Failure, Offset, Record, StoreError, Ticket, Waiting};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn put(parts: &Parts, seq: u64) -> Result<Ticket, StoreError> {
    let targets = [target(1, seq)];
    let record = Record::Message(message(b"payload", &targets));
    parts.append(&[record]).map(|appended| appended.ticket)
}

/// Commits as the committer's thread does: a failure ends it.
fn commit(parts: &mut Parts) -> Result<Step, ()> {
    parts.commit().map_err(|failure| {
        parts.log.pending.close();
        parts.log.progress.fail(failure);
    })
}

/// A store with one session and one durable message, on a disk that then fails.
fn after_fault(operation: Operation, after: u64, error: i32) {
    let what = format!("{operation:?} after {after} with {error}");
    let disk = SimFiles::new();
    let options = small("/store");
    let mut parts = open_sim(&disk, &options).expect("it opens");
    parts.append(&[session_put(1)]).expect("it takes it");
    let durable = put(&parts, 1).expect("it takes it");
    commit(&mut parts).expect("the disk is well");
    assert_eq!(parts.log.progress.durable(), durable, "{what}");

    disk.fail(operation, after, error);
    let lost = put(&parts, 2).expect("it takes it");
    assert!(commit(&mut parts).is_err(), "{what}");
    assert_eq!(parts.log.progress.durable(), durable, "{what}");
    // Whoever waits is told, and nothing more is taken.
    let waiting = parts.log.progress.register(lost, Waker::noop());
    assert!(
        matches!(&waiting, Waiting::Failed(failure) if matches!(**failure, Failure::Disk { .. })),
        "{what}: {waiting:?}"
    );
    assert!(
        matches!(put(&parts, 3), Err(StoreError::Failed(_))),
        "{what}"
    );
    // Reads go on.
    let found = parts.log.read(&[Offset(1), Offset(2)]);
    assert!(found.iter().all(Result::is_ok), "{what}: {found:?}");
    // The failed flush is not tried again.
    let syncs = disk.syncs();
    assert!(parts.upkeep.checkpoint().is_ok(), "{what}");
    let _ = parts.commit();
    assert_eq!(disk.syncs(), syncs, "{what}");

    // After a restart what was durable is there.
    let parts = open_sim(&disk.kill(), &options).expect("it opens");
    let recovered = Model::of(&parts.recovered);
    let queue = &recovered.sessions[&1].queue;
    assert!(queue.contains_key(&1) && !queue.contains_key(&3), "{what}");
}

#[test]
fn a_failed_write_or_flush_poisons_the_store() {
    after_fault(Operation::Write, 0, EIO);
    after_fault(Operation::Write, 0, ENOSPC);
    after_fault(Operation::Sync, 0, EIO);
}

/// A segment that cannot be made is met in the middle of a run.
#[test]
fn a_full_disk_at_the_roll_of_a_segment_loses_nothing() {
    for (operation, error) in [
        (Operation::Create, ENOSPC),
        (Operation::Allocate, ENOSPC),
        (Operation::SyncDir, EIO),
    ] {
        let disk = SimFiles::new();
        let options = small("/store");
        let mut parts = open_sim(&disk, &options).expect("it opens");
        parts.append(&[session_put(1)]).expect("it takes it");
        disk.fail(operation, 0, error);
        let payload = vec![5; 10_000];
        let mut durable = 0;
        for seq in 1.. {
            let targets = [target(1, seq)];
            let record = Record::Message(message(&payload, &targets));
            if parts.append(&[record]).is_err() || commit(&mut parts).is_err() {
                break;
            }
            durable = seq;
        }
        assert!((4..8).contains(&durable), "{operation:?}: {durable}");
        let parts = open_sim(&disk.kill(), &options).expect("it opens");
        let recovered = Model::of(&parts.recovered);
        let queue = &recovered.sessions[&1].queue;
        assert_eq!(queue.len() as u64, durable, "{operation:?}");
    }
}

#[test]
fn short_writes_are_continued() {
    let disk = SimFiles::new();
    let options = small("/store");
    let mut parts = open_sim(&disk, &options).expect("it opens");
    disk.write_at_most(7);
    parts.append(&[session_put(1)]).expect("it takes it");
    put(&parts, 1).expect("it takes it");
    commit(&mut parts).expect("it writes");
    let found = parts.log.read(&[Offset(1)]);
    assert!(found[0].is_ok(), "{found:?}");
    let parts = open_sim(&disk.kill(), &options).expect("it opens");
    assert_eq!(parts.recovered.sessions[0].queue.entries.len(), 1);
}

#[test]
fn no_ticket_is_durable_before_its_flush() {
    let disk = SimFiles::new();
    let mut parts = open_sim(&disk, &small("/store")).expect("it opens");
    parts.append(&[session_put(1)]).expect("it takes it");
    for seq in 1..50 {
        let syncs = disk.syncs();
        let ticket = put(&parts, seq).expect("it takes it");
        assert!(parts.log.progress.durable() < ticket);
        assert_eq!(disk.syncs(), syncs);
        commit(&mut parts).expect("it writes");
        assert_eq!(parts.log.progress.durable(), ticket);
        assert_eq!(disk.syncs(), syncs + 1);
    }
}

#[test]
fn reads_that_fail_say_so_and_harm_nothing() {
    let disk = SimFiles::new();
    let mut parts = open_sim(&disk, &small("/store")).expect("it opens");
    parts.append(&[session_put(1)]).expect("it takes it");
    put(&parts, 1).expect("it takes it");
    commit(&mut parts).expect("it writes");
    disk.fail(Operation::Read, 0, EIO);
    let failed = parts.log.read(&[Offset(1)]);
    assert!(
        matches!(failed[0], Err(StoreError::Io { .. })),
        "{failed:?}"
    );
    assert!(parts.log.read(&[Offset(1)])[0].is_ok());
}

#[test]
fn the_mark_of_low_space_is_seen_and_taken_back() {
    let disk = SimFiles::new();
    let mut options = small("/store");
    options.disk_free_min = 1_000;
    disk.set_free_bytes(999);
    let mut parts = open_sim(&disk, &options).expect("it opens");
    assert_eq!(parts.upkeep.control.disk_low(), Some(999));
    disk.set_free_bytes(1_000);
    parts.upkeep.look_at_disk();
    assert_eq!(parts.upkeep.control.disk_low(), None);
    commit(&mut parts).expect("nothing to do");
}
