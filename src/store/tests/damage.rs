//! Damage to the real files of a store: it opens, it says exactly what is lost, and the rest is
//! there.

use std::fs;
use std::path::{Path, PathBuf};

use super::history::History;
use super::model::Model;
use super::{message, session_put, small, target};
use crate::store::recovered::Basis;
use crate::store::{DurableStore, Offset, Options, Record, Store, StoreError};

fn open(options: &Options) -> (DurableStore, crate::store::Recovered) {
    DurableStore::open(options).expect("it opens")
}

/// A store with `count` messages for one session, closed in order.
fn filled(options: &Options, count: u64) {
    let (store, _) = open(options);
    store.append(&[session_put(1)]).expect("it takes it");
    for seq in 1..=count {
        let payload = format!("payload {seq}").repeat(10);
        let targets = [target(1, seq)];
        store
            .append(&[Record::Message(message(payload.as_bytes(), &targets))])
            .expect("it takes it");
        if seq % 50 == 0 {
            // In several groups, so in several segments.
            crate::store::wait::wait_blocking(&store);
        }
    }
    store.close().expect("it closes");
}

fn segments(options: &Options) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(options.path.join("log"))
        .expect("it can be listed")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    all.sort();
    all
}

fn flip(path: &Path, at: u64) {
    let mut content = fs::read(path).expect("it can be read");
    content[at as usize] ^= 0x10;
    fs::write(path, content).expect("it can be written");
}

#[test]
fn a_store_is_the_same_after_it_was_closed_and_opened() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    let mut history = History::new(7, 30_000);
    for life in 0..4 {
        let (store, recovered) = open(&options);
        assert_eq!(
            Model::of(&recovered),
            history.model.reopened(),
            "life {life}"
        );
        assert!(!recovered.report.has_loss());
        let start = history.records.len();
        (0..300).for_each(|_| history.advance());
        for record in &history.records[start..] {
            store.append(&[record.get()]).expect("it takes it");
        }
        store.close().expect("it closes");
    }
    let (store, recovered) = open(&options);
    assert_eq!(recovered.report.basis, Basis::Checkpoint);
    assert_eq!(recovered.report.replayed_records, 0);
    let needed = history.model.needed();
    for (offset, answer) in needed.iter().zip(store.read(&needed)) {
        let (len, fill) = history.payloads[offset.0 as usize - 1];
        assert_eq!(answer.expect("it is needed").payload, vec![fill; len]);
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    let (store, _) = open(&options);
    let refused = DurableStore::open(&options).map(drop);
    assert!(matches!(refused, Err(StoreError::Locked(_))), "{refused:?}");
    // Closing it is enough: some task may have it still.
    store.close().expect("closed in order");
    open(&options);
    drop(store);
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    drop(open(&options));
    fs::write(options.path.join("format"), "tidings-store 4\nepoch 5\n").expect("it writes");
    let refused = DurableStore::open(&options).map(drop);
    let Err(StoreError::Newer { found: 4, .. }) = refused else {
        panic!("{refused:?}");
    };
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "x").expect("it writes");
    let refused = DurableStore::open(&small(file.join("store"))).map(drop);
    let Err(error @ StoreError::Io { .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("file/store"), "{error}");
}

#[test]
fn a_torn_tail_is_cut_off_and_reported() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    filled(&options, 20);
    let last = segments(&options).pop().expect("there is one");
    let mut content = fs::read(&last).expect("it can be read");
    content.extend_from_slice(b"\x01\x02\x03\x04\x09\x00\x00\x00\x01\x01 half a rec");
    fs::write(&last, content).expect("it can be written");
    let (_store, recovered) = open(&options);
    assert_eq!(recovered.report.torn_bytes, 21);
    assert!(!recovered.report.has_loss());
    assert_eq!(recovered.sessions[0].queue.entries.len(), 20);
}

/// Bits that flip in front of the checkpoint cost the message they hit and nothing else.
#[test]
fn a_flipped_bit_in_the_log_costs_one_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    filled(&options, 100);
    let first = segments(&options).remove(0);
    let content = fs::read(&first).expect("it can be read");
    let wanted = b"payload 40payload 40";
    let at = content.windows(wanted.len()).position(|it| it == wanted);
    flip(&first, at.expect("it is in the first segment") as u64);
    let (store, recovered) = open(&options);
    // In the last segment it is found at once, elsewhere when the message is wanted.
    let queue = &recovered.sessions[0].queue.entries;
    let unreadable = queue
        .iter()
        .filter(|entry| store.read(&[entry.offset])[0].is_err());
    let lost = recovered.report.lost_entries + unreadable.count() as u64;
    assert_eq!(lost, 1);
    assert_eq!(recovered.report.lost_entries + queue.len() as u64, 100);
}

/// The same behind the checkpoint, where it is met by the replay.
#[test]
fn a_flipped_bit_in_the_replayed_part_is_counted_and_passed_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    filled(&options, 100);
    // Without checkpoint and snapshot everything is replayed.
    fs::remove_dir_all(options.path.join("state")).expect("it was there");
    let _ = fs::remove_file(options.path.join("snapshot"));
    let first = segments(&options).remove(0);
    let len = fs::metadata(&first).expect("it is there").len();
    flip(&first, len / 4);
    // Only the last segment can be torn: a second one says that this one was flushed.
    let (_store, recovered) = open(&options);
    assert_eq!(recovered.report.basis, Basis::Log);
    let lost = recovered.report.damaged_records + recovered.report.torn_bytes;
    assert!(lost > 0, "{:?}", recovered.report);
}

#[test]
fn a_damaged_checkpoint_is_moved_aside_and_rebuilt() {
    for at_percent in [1, 30, 50, 80] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = small(dir.path());
        filled(&options, 2_000);
        {
            // The snapshot that stands in for it.
            let (store, recovered) = open(&options);
            assert_eq!(recovered.sessions[0].queue.entries.len(), 2_000);
            store.request_checkpoint();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while !options.path.join("snapshot").exists() {
                assert!(std::time::Instant::now() < deadline, "no snapshot");
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        }
        let db = options.path.join("state/db");
        let len = fs::metadata(&db).expect("it is there").len();
        let mut content = fs::read(&db).expect("it can be read");
        let filled = content.iter().rposition(|&byte| byte != 0).unwrap_or(0) as u64;
        assert!(filled > 1000 && filled < len);
        let at = (filled * at_percent / 100) as usize;
        for byte in &mut content[at..at + 64] {
            *byte ^= 0xA5;
        }
        fs::write(&db, content).expect("it can be written");
        let (store, recovered) = open(&options);
        let what = format!("at {at} of {filled}: {:?}", recovered.report);
        // Damage in a part that sled no longer uses is none.
        if recovered.report.basis != Basis::Checkpoint {
            assert_eq!(recovered.report.basis, Basis::Snapshot, "{what}");
            let aside = recovered.report.checkpoint_moved_to.as_ref();
            assert!(aside.is_some_and(|aside| aside.is_dir()), "{what}");
        }
        assert_eq!(recovered.sessions.len(), 1, "{what}");
        assert_eq!(recovered.sessions[0].queue.entries.len(), 2_000, "{what}");
        let answers = store.read(&[Offset(1), Offset(2_000)]);
        assert!(answers.iter().all(Result::is_ok), "{what}");
        drop(store);
        // And the checkpoint is whole again.
        let (_store, recovered) = open(&options);
        let again = format!("{what}, then {:?}", recovered.report);
        assert_eq!(recovered.report.basis, Basis::Checkpoint, "{again}");
        assert_eq!(recovered.sessions[0].queue.entries.len(), 2_000, "{again}");
    }
}

#[test]
fn a_missing_segment_is_counted_with_what_it_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    filled(&options, 2_000);
    let all = segments(&options);
    assert!(all.len() > 3);
    fs::remove_file(&all[1]).expect("it was there");
    let epoch = open_epoch(&options, |report| {
        assert!(report.lost_entries > 100, "{report:?}");
        assert!(report.has_loss());
    });
    // From here on it is in order again, with another epoch than before.
    let again = open_epoch(&options, |report| assert!(!report.has_loss(), "{report:?}"));
    assert_eq!(epoch, again);
}

fn open_epoch(options: &Options, check: impl FnOnce(&crate::store::Report)) -> u64 {
    let (store, recovered) = open(options);
    check(&recovered.report);
    for entry in &recovered.sessions[0].queue.entries {
        assert!(store.read(&[entry.offset])[0].is_ok());
    }
    recovered.epoch
}

#[test]
fn a_lost_log_is_a_loss_and_not_a_refusal() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    filled(&options, 50);
    fs::remove_dir_all(options.path.join("log")).expect("it was there");
    let (store, recovered) = open(&options);
    assert_eq!(recovered.report.missing_segments, 1);
    assert_eq!(recovered.report.lost_entries, 50);
    assert_eq!(recovered.sessions.len(), 1);
    // Offsets go on behind those that were given out.
    assert_eq!(recovered.next_offset, Offset(51));
    let targets = [target(1, 99)];
    let appended = store
        .append(&[Record::Message(message(b"x", &targets))])
        .expect("it takes it");
    assert_eq!(appended.first_offset, Offset(51));
}

#[test]
fn a_backup_of_a_running_store_is_the_same_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path().join("store"));
    let target_dir = dir.path().join("backup");
    let mut history = History::new(99, 20_000);
    let (store, first) = open(&options);
    (0..500).for_each(|_| history.advance());
    for record in &history.records {
        store.append(&[record.get()]).expect("it takes it");
    }
    crate::store::wait::wait_blocking(&store);
    store.backup(&target_dir).expect("it is copied");
    let refused = store.backup(&target_dir);
    assert!(matches!(refused, Err(StoreError::NotEmpty { .. })));
    let (copy, recovered) = open(&small(&target_dir));
    assert_eq!(Model::of(&recovered), history.model.reopened());
    assert!(!recovered.report.has_loss(), "{:?}", recovered.report);
    assert_ne!(recovered.epoch, first.epoch);
    let needed = history.model.needed();
    assert!(copy.read(&needed).iter().all(Result::is_ok));
}
