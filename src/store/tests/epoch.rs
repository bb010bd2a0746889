//! The log epoch: it stays while every offset that was shown means what it meant, and changes when
//! one may come to mean something else.

use std::fs;
use std::path::{Path, PathBuf};

use super::{message, open_sim, session_put, small, target};
use crate::store::files::sim::{Rng, SimFiles};
use crate::store::recovered::Basis;
use crate::store::{Durability, DurableStore, Options, Record, Recovered, Store, admin};

fn open(path: &Path) -> (DurableStore, Recovered) {
    DurableStore::open(&small(path)).expect("it opens")
}

/// The epoch that the store in `path` has when it is started, and closed again.
fn epoch(path: &Path) -> u64 {
    open(path).1.epoch
}

/// Appends messages, waits for them, and closes the store.
fn filled(path: &Path, count: u64) -> u64 {
    let (store, recovered) = open(path);
    fill(&store, count);
    store.close().expect("it closes");
    recovered.epoch
}

fn fill(store: &dyn Store, count: u64) {
    store.append(&[session_put(1)]).expect("it takes it");
    for seq in 1..=count {
        let targets = [target(1, seq)];
        store
            .append(&[Record::Message(message(&[1; 100], &targets))])
            .expect("it takes it");
        if seq % 5 == 0 {
            // In several groups: those behind say that those before were flushed.
            crate::store::wait::wait_blocking(store);
        }
    }
    crate::store::wait::wait_blocking(store);
}

/// The last segment that has something in it: each start makes a new one.
fn last_segment(path: &Path) -> PathBuf {
    let mut all: Vec<_> = fs::read_dir(path.join("log"))
        .expect("it can be listed")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| fs::metadata(path).expect("it is there").len() > 64)
        .collect();
    all.sort();
    all.pop().expect("there is one")
}

#[test]
fn a_clean_restart_keeps_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = filled(dir.path(), 20);
    assert_eq!(epoch(dir.path()), first);
    assert_eq!(filled(dir.path(), 20), first);
    admin::compact(&small(dir.path())).expect("it is compacted");
    admin::check(dir.path()).expect("it is checked");
    assert_eq!(epoch(dir.path()), first);
}

/// Even right after the first start, when nothing but the log has what was appended.
#[test]
fn a_kill_keeps_it() {
    for (messages, checkpoint) in [(0, false), (10, false), (10, true)] {
        let mut disk = SimFiles::new();
        let options = small("/store");
        let mut first = None;
        for life in 0..3 {
            let mut parts = open_sim(&disk, &options).expect("it opens");
            let epoch = parts.recovered.epoch;
            assert_eq!(*first.get_or_insert(epoch), epoch, "life {life}");
            parts.append(&[session_put(1)]).expect("it takes it");
            for seq in 0..messages {
                let targets = [target(1, life * 10 + seq)];
                parts
                    .append(&[Record::Message(message(b"x", &targets))])
                    .expect("it takes it");
                parts.commit().expect("it commits");
            }
            if checkpoint {
                parts.upkeep.checkpoint().expect("nothing fails");
                parts.upkeep.write_snapshot().expect("nothing fails");
            }
            // What is half written is torn, and no loss.
            parts.append(&[session_put(2)]).expect("it takes it");
            disk = match life {
                0 => disk.kill(),
                _ => disk.cut_power(&mut Rng::new(life)),
            };
        }
        let parts = open_sim(&disk, &options).expect("it opens");
        assert_eq!(first, Some(parts.recovered.epoch));
        assert_eq!(parts.recovered.next_offset.0, messages * 3 + 1);
    }
}

#[test]
fn a_torn_tail_keeps_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = filled(dir.path(), 20);
    let last = last_segment(dir.path());
    let mut content = fs::read(&last).expect("it can be read");
    content.extend_from_slice(b"\x01\x02\x03\x04\x09\x00\x00\x00\x01\x01 half a rec");
    fs::write(&last, content).expect("it can be written");
    let (store, recovered) = open(dir.path());
    assert!(recovered.report.torn_bytes > 0);
    assert_eq!(recovered.epoch, first);
    drop(store);
}

#[test]
fn a_store_that_is_gone_begins_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let first = filled(&path, 20);
    fs::remove_dir_all(&path).expect("it was there");
    let second = filled(&path, 20);
    assert_ne!(first, second);
    // All but the file that says which epoch it was.
    for name in ["log", "state"] {
        fs::remove_dir_all(path.join(name)).expect("it was there");
    }
    let _ = fs::remove_file(path.join("snapshot"));
    let (store, recovered) = open(&path);
    assert_eq!(recovered.report.basis, Basis::New);
    assert_eq!(recovered.next_offset.0, 1);
    assert_ne!(recovered.epoch, second);
    // And from there on it stays.
    drop(store);
    assert_eq!(epoch(&path), recovered.epoch);
}

#[test]
fn damage_with_loss_begins_another() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("the end of the log cut off", |path| {
            let last = last_segment(path);
            let len = fs::metadata(&last).expect("it is there").len();
            let file = fs::OpenOptions::new().write(true).open(&last);
            let file = file.expect("it can be opened");
            file.set_len(len - 150).expect("it can be cut");
        }),
        ("the last segment removed", |path| {
            fs::remove_file(last_segment(path)).expect("it was there");
        }),
        ("the log removed", |path| {
            fs::remove_dir_all(path.join("log")).expect("it was there");
        }),
        ("nothing but the log", |path| {
            fs::remove_dir_all(path.join("state")).expect("it was there");
            let _ = fs::remove_file(path.join("snapshot"));
        }),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().expect("a directory");
        let first = filled(dir.path(), 20);
        damage(dir.path());
        let (store, recovered) = open(dir.path());
        assert_ne!(recovered.epoch, first, "{what}: {:?}", recovered.report);
        drop(store);
        assert_eq!(epoch(dir.path()), recovered.epoch, "{what}");
    }
}

/// A group in the middle of what was not in the checkpoint yet, with others behind it.
#[test]
fn damage_before_the_torn_tail_begins_another_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk_path = dir.path();
    let first = filled(disk_path, 1);
    let state = dir.path().join("state");
    let kept = tempfile::tempdir().expect("a directory");
    copy(&state, &kept.path().join("state"));
    filled(disk_path, 50);
    // As if it had been killed before its checkpoint.
    fs::remove_dir_all(&state).expect("it was there");
    copy(&kept.path().join("state"), &state);
    let last = last_segment(disk_path);
    let mut content = fs::read(&last).expect("it can be read");
    let at = content.len() / 2;
    content[at] ^= 1;
    fs::write(&last, content).expect("it can be written");
    let (store, recovered) = open(disk_path);
    assert!(recovered.report.has_loss(), "{:?}", recovered.report);
    assert_ne!(recovered.epoch, first);
    drop(store);
    let (_store, again) = open(disk_path);
    assert!(!again.report.has_loss(), "{:?}", again.report);
    assert_eq!(again.epoch, recovered.epoch);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it is made");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it is copied");
        }
    }
}

/// Each copy that is started is a world of its own: the offsets behind the backup are given out
/// by the original, by the copy, and by the copy restored once more.
#[test]
fn a_restored_backup_begins_another_each_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, backup) = (dir.path().join("store"), dir.path().join("backup"));
    let (store, recovered) = open(&path);
    fill(&store, 20);
    store.backup(&backup).expect("it is copied");
    fill(&store, 5);
    store.close().expect("it closes");
    assert_eq!(epoch(&path), recovered.epoch);
    let mut epochs = vec![recovered.epoch];
    for round in 0..2 {
        fs::remove_dir_all(&path).expect("it was there");
        copy(&backup, &path);
        epochs.push(filled(&path, 5));
        assert_eq!(epoch(&path), epochs[round + 1], "a restart keeps it");
    }
    // Looking at a copy does not start it.
    admin::check(&backup).expect("it is checked");
    epochs.push(epoch(&backup));
    let stopped = dir.path().join("stopped");
    admin::backup(&small(&path), &stopped).expect("it is copied");
    epochs.push(epoch(&stopped));
    let different: std::collections::BTreeSet<_> = epochs.iter().collect();
    assert_eq!(different.len(), 5, "{epochs:?}");
}

#[test]
fn an_import_begins_another_each_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let mut epochs = vec![filled(&path, 20)];
    let mut lines = Vec::new();
    admin::export(&small(&path), &mut lines).expect("it is exported");
    assert_eq!(epoch(&path), epochs[0], "an export changes nothing");
    for _ in 0..2 {
        fs::remove_dir_all(&path).expect("it was there");
        admin::import(&small(&path), &mut &lines[..]).expect("it is imported");
        epochs.push(epoch(&path));
        assert_eq!(epoch(&path), *epochs.last().expect("it was pushed"));
    }
    let different: std::collections::BTreeSet<_> = epochs.iter().collect();
    assert_eq!(different.len(), 3, "{epochs:?}");
}

/// What was acknowledged and shown may be lost to a power cut then, and nothing tells whether.
#[test]
fn with_an_interval_a_power_cut_begins_another_and_a_kill_does_not() {
    let mut options = small("/store");
    options.durability = Durability::Interval(std::time::Duration::from_secs(3_600));
    let mut rng = Rng::new(1);
    let disk = SimFiles::new();
    let live = |disk: &SimFiles, options: &Options| {
        let mut parts = open_sim(disk, options).expect("it opens");
        parts.append(&[session_put(1)]).expect("it takes it");
        parts.commit().expect("it commits");
        parts.recovered.epoch
    };
    let first = live(&disk, &options);
    let killed = disk.kill();
    assert_eq!(live(&killed, &options), first);
    let cut = killed.cut_power(&mut rng);
    let second = live(&cut, &options);
    assert_ne!(second, first);
    // Whatever the durability is from then on.
    let cut = cut.cut_power(&mut rng);
    options.durability = Durability::Fsync;
    let third = live(&cut, &options);
    assert_ne!(third, second);
    let cut = cut.cut_power(&mut rng);
    assert_eq!(live(&cut, &options), third);
    // What was closed was flushed.
    options.durability = Durability::Interval(std::time::Duration::from_secs(3_600));
    assert_eq!(live(&cut, &options), third);
    let mut parts = open_sim(&cut, &options).expect("it opens");
    parts.upkeep.close().expect("it closes");
    let cut = cut.cut_power(&mut rng);
    assert_eq!(live(&cut, &options), third);
}

/// The same with the real files, and a boot that is not this one.
#[test]
fn the_mark_of_what_is_unflushed_goes_with_the_close() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(dir.path());
    options.durability = Durability::Interval(std::time::Duration::from_millis(10));
    let file = dir.path().join("format");
    let says = || fs::read_to_string(&file).expect("it can be read");
    let (store, recovered) = DurableStore::open(&options).expect("it opens");
    assert!(says().contains("unflushed-in-boot "), "{}", says());
    fill(&store, 10);
    store.close().expect("it closes");
    let closed = format!("tidings-store 3\nepoch {}\n", recovered.epoch);
    assert_eq!(says(), closed);
    admin::export(&options, &mut Vec::new()).expect("it is exported");
    assert_eq!(says(), closed);
    fs::write(&file, format!("{closed}unflushed-in-boot 5\n")).expect("it writes");
    assert_ne!(epoch(dir.path()), recovered.epoch);
}
